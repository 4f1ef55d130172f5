"""The map is made by what is installed, the same each time, and of any number of rows."""

import sys
from typing import Any

import numpy as np
import pytest

from noisyfit.auditing.mapping import BY_UMAP, MAPPED, make_map
from noisyfit.auditing.page import Map


class Found:
    """As much of an audit as a map needs."""

    def __init__(self, n: int) -> None:
        rng = np.random.default_rng(0)
        self.label_quality_ = rng.random(n)
        self.given_labels_ = rng.integers(3, size=n)


def features(n: int, n_features: int = 5) -> Any:
    return np.random.default_rng(1).normal(size=(n, n_features)).astype(np.float32)


def test_make_map__without_umap__is_of_components_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    rows = features(90) * [1, 1, 1, 1, 1e6]  # columns count alike, whatever their unit
    found: Any = Found(90)
    found.label_quality_[:10] = np.nan
    made = make_map(rows, found, 0)
    assert made.method == Map.method
    assert len(made.x) == 80  # rows with labels
    assert sum(made.is_issue) == (found.label_quality_ < 0.5).sum()
    assert np.var(made.x) >= np.var(made.y) > 0.8


def test_make_map__with_umap__is_the_same_each_time_and_draws_nothing_from_numpy() -> None:
    pytest.importorskip("umap", reason="needs umap-learn")
    found: Any = Found(120)
    rows = features(120) + 20 * found.given_labels_[:, None].astype(np.float32)
    np.random.seed(0)
    before = np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    made, again = (make_map(rows, found, 3) for _ in range(2))
    assert made.method == BY_UMAP
    assert made == again
    assert (np.random.get_state()[1] == before).all()  # type: ignore[index]
    places, labels = np.array([made.x, made.y]).T, np.array(made.classes)
    centres = np.array([places[labels == label].mean(0) for label in "012"])
    nearest = np.linalg.norm(places[:, None] - centres, axis=2).argmin(1)
    assert (nearest == labels.astype(int)).all()


@pytest.mark.parametrize(
    "rows",
    [
        features(3),
        features(4, 1),
        features(200, 1).round(),
        np.zeros((100, 4), np.float32),
        np.repeat(features(2), 60, axis=0),
    ],
    ids=["three rows", "one column", "few values", "constant", "two rows, repeated"],
)
@pytest.mark.filterwarnings("error")
def test_make_map__little_to_show__is_of_components(rows: Any) -> None:
    found: Any = Found(len(rows))
    made = make_map(rows, found, 0)
    assert made.method == Map.method
    assert np.isfinite([*made.x, *made.y]).all()
    assert len(made.x) == len(rows)


def test_make_map__many_rows__some_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    found: Any = Found(MAPPED + 500)
    assert len(make_map(features(MAPPED + 500), found, 0).x) == MAPPED
