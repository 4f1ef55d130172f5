"""Formulas of an audit, rederived naively."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax

from noisyfit import noise
from noisyfit.trust import (
    Before,
    Trust,
    inject,
    is_sure,
    label_quality,
    precision_at,
    weigh,
    wrong_share,
)

NOBODY = np.zeros(2000, dtype=bool)


def beliefs_and_classes(seed: int, n: int = 2000) -> tuple[NDArray[Any], NDArray[Any]]:
    """Beliefs that are exactly right about how unsure they are, and classes drawn from them."""
    rng = np.random.default_rng(seed)
    beliefs = softmax(3 * rng.normal(size=(n, 4)), axis=1)
    return beliefs, np.array([rng.choice(4, p=row) for row in beliefs])


def some_trust() -> tuple[Trust, NDArray[Any]]:
    unseen = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]])
    transition = np.array([[0.8, 0.2, 0.0], [0.1, 0.6, 0.3], [0.0, 0.1, 0.9]])
    codes = np.array([0, 2, -1])
    return Trust(unseen, unseen, transition, 0.9, 0.8), codes


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        pytest.param(noise.symmetric, 0.05, marks=pytest.mark.slow),
        pytest.param(noise.pairflip, 0.12, marks=pytest.mark.long),
    ],
)
def test_weigh__exact_beliefs__finds_the_share_of_wrong_labels(kind: Any, error: float) -> None:
    for seed in range(3):
        beliefs, y = beliefs_and_classes(seed)
        noisy = kind(y, 0.3, random_state=seed)
        known = weigh(beliefs, noisy.labels, NOBODY)
        quality = label_quality(known.distribution, noisy.labels)
        assert abs(wrong_share(quality).value - noisy.flipped.mean()) < error
        lowest = np.argsort(quality)[:300]
        assert abs(precision_at(quality, 300).value - noisy.flipped[lowest].mean()) < 0.08
        assert abs(known.accuracy - (beliefs.argmax(1) == y).mean()) < 0.07


def test_weigh__right_labels__has_no_wrong_ones() -> None:
    for seed in range(3):
        beliefs, y = beliefs_and_classes(seed)
        known = weigh(beliefs, y, NOBODY)
        assert np.mean(1 - label_quality(known.distribution, y)) < 0.05


def test_weigh__trusted_rows__are_right() -> None:
    beliefs, y = beliefs_and_classes(0)
    given = noise.symmetric(y, 0.3, random_state=0).labels
    trusted = np.arange(2000) < 100
    known = weigh(beliefs, given, trusted)
    assert (label_quality(known.distribution, given)[:100] == 1).all()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_weigh__the_worst_labels_were_decided__the_rest_is_not_taken_for_better(seed: int) -> None:
    beliefs, y = beliefs_and_classes(seed)
    noisy = noise.symmetric(y, 0.3, random_state=seed)
    given, trusted = noisy.labels.copy(), np.zeros(2000, bool)
    first = weigh(beliefs, given, NOBODY)
    trusted[np.argsort(label_quality(first.distribution, given))[:300]] = True
    given[trusted] = y[trusted]
    known = weigh(beliefs, given, trusted, before=Before(beliefs, noisy.labels))
    share = 1 - label_quality(known.distribution, given)[~trusted].mean()
    assert abs(share - noisy.flipped[~trusted].mean()) < 0.05


def test_inject__wrong_labels__are_rated_by_bayes_rule() -> None:
    known, codes = some_trust()
    injected = inject(known, codes, np.random.default_rng(0))
    possible = []
    for row in (0, 1):
        qualities = {}
        for wrong in range(3):
            joint = known.unseen[row] * known.transition[:, wrong]
            qualities[wrong] = joint[wrong] / joint.sum()
        possible.append([q for wrong, q in qualities.items() if wrong != codes[row]])
    assert len(injected.quality) == 2
    assert all(np.isclose(q, possible).any() for q in injected.quality)
    assert injected.found == np.mean(injected.quality < 0.5)


def test_inject__mistakes__are_drawn_as_the_matrix_says() -> None:
    known, _ = some_trust()
    n = 6000
    codes = np.ones(n, dtype=np.int64)
    many = Trust(np.tile(known.unseen[:1], (n, 1)), np.tile(known.unseen[:1], (n, 1)), *known[2:])
    injected = inject(many, codes, np.random.default_rng(0))
    values, counts = np.unique(injected.quality.round(9), return_counts=True)
    assert len(values) == 2  # labels 0 and 2, never 1
    assert np.allclose(np.sort(counts / n), [0.25, 0.75], atol=0.03)


def test_wrong_share__is_the_mean_and_lies_in_its_interval() -> None:
    quality = np.array([0.1, 0.9, 0.8, np.nan])
    found = wrong_share(quality)
    assert np.isclose(found.value, (0.9 + 0.1 + 0.2) / 3)
    assert (found.low, found.high) == (0, 1)  # whole numbers of labels, and three say nothing


def test_precision_at__lowest_qualities_come_first() -> None:
    quality = np.array([0.9, 0.2, 0.6, 0.1])
    assert np.isclose(precision_at(quality, 2).value, (0.8 + 0.9) / 2)
    few, all_ = precision_at(quality, 2), precision_at(np.tile(quality, 500), 1000)
    assert all_.high - all_.low < few.high - few.low


def test_is_sure__needs_more_than_half_by_the_error() -> None:
    assert is_sure(np.array([[0.7, 0.3], [0.8, 0.2]])).tolist() == [False, True]
