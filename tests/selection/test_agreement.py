"""The order in which labels look wrong, by those that have seen them and those that have not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from noisyfit.selection.agreement import in_agreed_order
from noisyfit.selection.race import Candidate, Part

NOTHING = np.empty((0, 2))


def candidate(*rated: tuple[list[int], list[float] | None]) -> Candidate:
    parts = [
        Part(SimpleNamespace(label_quality_=own and np.array(own)) if own else object(),
             np.array(seen), np.empty(0, np.intp), NOTHING, 1.0, [])
        for seen, own in rated
    ]  # fmt: skip
    return Candidate("some", None, parts=parts)


def test_in_agreed_order__is_the_order_of_the_mean_of_four_ranks() -> None:
    quality = np.array([0.9, 0.1, 0.8, 0.2, 0.5, 0.85])
    finalists = [
        candidate(([0, 1, 2, 3], [0.1, 0.2, 0.3, 0.9]), ([2, 3, 4, 5], [0.1, 0.8, 0.7, 0.6])),
        candidate(([0, 1, 4, 5], [0.5, 0.6, 0.7, 0.4])),
    ]
    unseen = np.array([6, 1, 4, 2, 3, 5]) / 6
    seeing = np.array(
        [(1 + 2) / 2, (2 + 3) / 2, (3 + 1) / 2, (4 + 4) / 2, (3 + 4) / 2, (2 + 1) / 2]
    )
    expected = (unseen + 3 * seeing / 4) / 4
    got = in_agreed_order(quality, np.ones(6, bool), finalists)
    assert got.argsort().tolist() == expected.argsort().tolist()
    assert sorted(got) == sorted(quality)


def test_in_agreed_order__rows_that_are_certain_or_unrated__keep_their_value() -> None:
    quality = np.array([1.0, 0.3, np.nan, 0.6, 0.5])
    finalists = [candidate(([0, 1, 3, 4], [0.0, 0.9, 0.1, 0.2]))]
    got = in_agreed_order(quality, np.array([False, True, False, True, True]), finalists)
    np.testing.assert_array_equal(got, [1.0, 0.6, np.nan, 0.3, 0.5])


@pytest.mark.parametrize("finalists", [[], [candidate(([0, 1, 2], None))]], ids=["none", "mute"])
def test_in_agreed_order__nobody_rates_what_it_has_seen__nothing_changes(finalists: Any) -> None:
    quality = np.array([0.2, 0.9, 0.4])
    np.testing.assert_array_equal(in_agreed_order(quality, np.ones(3, bool), finalists), quality)
