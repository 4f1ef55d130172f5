from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from noisyfit.metrics import (
    corrected_accuracy,
    detection_auroc,
    detection_average_precision,
    precision_at_n,
    transition_matrix_error,
)

FLIPPED = np.array([True, False, True, False, False, True])
QUALITY = np.array([0.1, 0.3, 0.3, 0.9, 0.2, 0.05])
DETECTION = [detection_auroc, detection_average_precision, precision_at_n]
every_detection = pytest.mark.parametrize("metric", DETECTION)
Metric = Callable[..., float]


def test_auroc_is_the_share_of_pairs_in_the_right_order() -> None:
    pairs = [(w, r) for w in QUALITY[FLIPPED] for r in QUALITY[~FLIPPED]]
    expected = sum(1.0 if w < r else 0.5 if w == r else 0.0 for w, r in pairs) / len(pairs)
    assert detection_auroc(FLIPPED, QUALITY) == pytest.approx(expected)


def test_average_precision_sums_precision_over_the_gains_of_recall() -> None:
    expected, recall = 0.0, 0.0
    for threshold in sorted(set(QUALITY)):
        flagged = [bool(f) for f, q in zip(FLIPPED, QUALITY, strict=True) if q <= threshold]
        new_recall = sum(flagged) / 3
        expected += (new_recall - recall) * sum(flagged) / len(flagged)
        recall = new_recall
    assert detection_average_precision(FLIPPED, QUALITY) == pytest.approx(expected)


@pytest.mark.parametrize("n", range(1, 7))
def test_precision_at_n_averages_over_the_orders_of_ties(n: int) -> None:
    quality = np.array([0.1, 0.3, 0.3, 0.9, 0.3, 0.05])
    shares = []
    for rows in combinations(range(6), n):
        rest = [i for i in range(6) if i not in rows]
        if not rest or max(quality[list(rows)]) <= min(quality[rest]):
            shares.append(sum(FLIPPED[list(rows)]) / n)
    assert precision_at_n(FLIPPED, quality, n) == pytest.approx(sum(shares) / len(shares))


def test_precision_at_n__default__looks_at_as_many_as_are_wrong() -> None:
    assert precision_at_n(FLIPPED, QUALITY) == precision_at_n(FLIPPED, QUALITY, 3)
    assert precision_at_n(FLIPPED, QUALITY) == pytest.approx(2 / 3)


@pytest.mark.parametrize("n", [0, -1, 7])
def test_precision_at_n__impossible_n__names_the_range(n: int) -> None:
    with pytest.raises(ValueError, match=r"n must lie in \[1, 6\]"):
        precision_at_n(FLIPPED, QUALITY, n)


@every_detection
def test_detection__perfect_ranking__scores_one(metric: Metric) -> None:
    score = metric(FLIPPED, np.where(FLIPPED, 0.1, 0.9))
    assert isinstance(score, float)
    assert score == 1.0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_detection__random_quality__scores_chance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    flipped, quality = rng.random(10_000) < 0.2, rng.random(10_000)
    # Five standard errors: about 0.5 / sqrt(2000 * 0.8) for the ranks, 0.4 / sqrt(2000) at n.
    assert detection_auroc(flipped, quality) == pytest.approx(0.5, abs=0.04)
    assert detection_average_precision(flipped, quality) == pytest.approx(0.2, abs=0.045)
    assert precision_at_n(flipped, quality) == pytest.approx(0.2, abs=0.045)


@pytest.mark.parametrize("metric, chance", [(detection_auroc, 0.5), (precision_at_n, 0.5)])
def test_detection__constant_quality__scores_chance_in_any_order(
    metric: Metric, chance: float
) -> None:
    for flipped in (FLIPPED, FLIPPED[::-1], np.sort(FLIPPED)):
        assert metric(flipped, np.full(6, 0.5)) == pytest.approx(chance)


@every_detection
def test_detection__nan_quality__is_left_out(metric: Metric) -> None:
    flipped = np.insert(FLIPPED, [0, 4], [True, False])
    quality = np.insert(QUALITY, [0, 4], np.nan)
    assert metric(flipped, quality) == metric(FLIPPED, QUALITY)


@every_detection
def test_detection__mask_of_any_type__gives_the_same(metric: Metric) -> None:
    expected = metric(FLIPPED, QUALITY)
    series = pd.Series(FLIPPED, index=range(6, 0, -1))
    for mask in (FLIPPED.tolist(), FLIPPED.astype(int), FLIPPED.astype(object), series):
        assert metric(mask, QUALITY) == expected


@every_detection
@pytest.mark.parametrize(
    "flipped, quality",
    [
        ([True, True], [0.1, 0.2]),
        ([False, False], [0.1, 0.2]),
        ([True, False], [0.1, np.nan]),
        ([], []),
    ],
)
def test_detection__only_one_kind__is_refused(metric: Metric, flipped: Any, quality: Any) -> None:
    with pytest.raises(ValueError, match="both wrong and right labels"):
        metric(flipped, quality)


@every_detection
@pytest.mark.parametrize(
    "flipped, quality",
    [([True, False], [0.1]), ([2, 0], [0.1, 0.2]), ([[True, False]], [[0.1, 0.2]])],
)
def test_detection__no_mask_or_another_shape__is_refused(
    metric: Metric, flipped: Any, quality: Any
) -> None:
    with pytest.raises(ValueError, match="flipped must be a boolean mask"):
        metric(flipped, quality)


@pytest.mark.parametrize(
    "true, corrected",
    [
        (np.array([5, 7, 7, 5]), np.array([5, 7, 5, 5])),
        (["a", "b", "b", "a"], ["a", "b", "a", "a"]),
        ([True, False, False, True], [True, False, True, True]),
        (np.array(["a", "b", "b", "a"], dtype=object), ["a", "b", "a", "a"]),
        (pd.Series([5, 7, 7, 5], index=[3, 2, 1, 0]), pd.Series([5, 7, 5, 5])),
    ],
)
def test_corrected_accuracy_is_the_share_of_true_labels(true: Any, corrected: Any) -> None:
    assert corrected_accuracy(true, corrected) == 0.75


@pytest.mark.parametrize("true, corrected", [([0, 1], [0]), ([], []), ([[0]], [[0]])])
def test_corrected_accuracy__bad_shape__is_refused(true: Any, corrected: Any) -> None:
    with pytest.raises(ValueError, match="y_true and y_corrected must both have shape"):
        corrected_accuracy(true, corrected)


def _random_matrix(rng: np.random.Generator) -> NDArray[Any]:
    return rng.dirichlet(np.ones(4), size=4)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_transition_matrix_error_is_the_mean_total_variation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    estimated, true = _random_matrix(rng), _random_matrix(rng)
    distances = []
    for i in range(4):
        distances.append(sum(max(estimated[i][j] - true[i][j], 0) for j in range(4)))
    error = transition_matrix_error(estimated, true)
    assert error == pytest.approx(sum(distances) / 4)
    assert error == pytest.approx(transition_matrix_error(true, estimated))


def test_transition_matrix_error__equal_or_disjoint__reaches_its_bounds() -> None:
    assert transition_matrix_error(np.eye(3), np.eye(3)) == 0
    assert transition_matrix_error(np.eye(3), np.roll(np.eye(3), 1, axis=1)) == 1


@pytest.mark.parametrize(
    "estimated, true", [(np.eye(2), np.eye(3)), (np.ones((2, 3)), np.ones((2, 3))), ([1], [1])]
)
def test_transition_matrix_error__bad_shape__is_refused(estimated: Any, true: Any) -> None:
    with pytest.raises(ValueError, match="estimated and true must both have shape"):
        transition_matrix_error(estimated, true)
