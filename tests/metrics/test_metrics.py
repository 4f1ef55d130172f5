import math
import subprocess
import sys
from collections.abc import Callable
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from noisyfit.metrics import (
    clid,
    corrected_accuracy,
    detection_auroc,
    detection_average_precision,
    epoch_correlation,
    fpr_at_95_tpr,
    ood_auroc,
    ood_scores,
    precision_at_n,
    relative_performance_ratio,
    standardized_clid,
    transition_matrix_error,
)
from noisyfit.nn import losses

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


def _network_outputs(
    n_samples: int, seed: int = 0, n_dims: int = 16, n_classes: int = 4, spread: float = 0.4
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Embeddings around one center a class, and confident predictions of that class."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(n_classes, size=n_samples)
    centers = np.maximum(rng.normal(size=(n_classes, n_dims)), 0)
    noise = spread * rng.normal(size=(n_samples, n_dims))
    logits = 3 * np.eye(n_classes)[classes] + rng.normal(size=(n_samples, n_classes))
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return np.maximum(centers[classes] + noise, 0), probs


def _cosines(rows: NDArray[Any]) -> list[list[float]]:
    norms = [math.sqrt(sum(a * a for a in row)) for row in rows]
    return [
        [
            sum(a * b for a, b in zip(rows[i], rows[j], strict=True)) / (norms[i] * norms[j])
            for j in range(len(rows))
        ]
        for i in range(len(rows))
    ]


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_clid_is_the_mean_cross_entropy_of_the_two_graphs(temperature: float) -> None:
    embeddings, probs = _network_outputs(8)
    z, q = _cosines(embeddings), _cosines(probs)
    total = 0.0
    for i in range(8):
        denominator = sum(math.exp(z[i][j] / temperature) for j in range(8))
        for j in range(8):
            share = math.exp(z[i][j] / temperature) / denominator
            total -= q[i][j] / sum(q[i]) * math.log(share) / 8
    assert clid(embeddings, probs, temperature) == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("metric", [clid, standardized_clid])
def test_clid__arrays_tensors_and_lists__give_the_same(metric: Metric) -> None:
    embeddings, probs = _network_outputs(9)
    expected = metric(embeddings, probs)
    with_graph = torch.tensor(embeddings, requires_grad=True)
    for other in (
        metric(with_graph, torch.tensor(probs)),
        metric(embeddings.tolist(), probs.tolist()),
        metric(pd.DataFrame(embeddings), pd.DataFrame(probs)),
    ):
        assert isinstance(other, float)
        assert other == pytest.approx(expected, rel=1e-12)
    single = metric(embeddings.astype(np.float32), probs.astype(np.float32))
    assert single == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("metric", [clid, standardized_clid])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_clid__predictions_that_agree_with_the_embeddings__score_lower_than_shuffled_ones(
    metric: Metric, seed: int
) -> None:
    embeddings, probs = _network_outputs(200, seed)
    shuffled = np.random.default_rng(seed).permutation(probs)
    assert metric(embeddings, probs) < metric(embeddings, shuffled) - 0.05


def test_standardized_clid_counts_deviations_from_clid_under_all_orders_of_the_others() -> None:
    n = 6
    z, q = (torch.as_tensor(a) for a in _network_outputs(n, n_classes=3))
    scores = []
    for i in range(n):
        others = [j for j in range(n) if j != i]
        values = []
        for order in permutations(others):
            idx = torch.arange(n)
            idx[others] = torch.tensor(order)
            values.append(float(losses.clid(z, q[idx], temperature=0.3)[i]))
        scores.append((np.mean(values) - values[0]) / np.std(values))
    correlation = np.mean(scores) / math.sqrt(n - 2)
    cosines = _cosines(z.numpy())
    spread = np.mean([np.std([cosines[i][j] for j in range(n) if j != i]) for i in range(n)])
    random_layer = spread / math.sqrt(spread**2 + 1 / 3)
    expected = math.atanh(random_layer) - math.atanh(correlation)
    assert standardized_clid(z, q) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_standardized_clid__number_of_rows__does_not_matter_on_average(seed: int) -> None:
    embeddings, probs = _network_outputs(1200, seed)
    whole = standardized_clid(embeddings, probs)
    rows = np.arange(1200).reshape(-1, 60)
    parts = [standardized_clid(embeddings[idx], probs[idx]) for idx in rows]
    assert np.mean(parts) == pytest.approx(whole, abs=0.03)
    plain = [clid(embeddings[idx], probs[idx]) for idx in rows]
    assert clid(embeddings, probs) - np.mean(plain) > 2


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("n_dims", [32, 512])
def test_standardized_clid__random_last_layer__scores_near_zero(seed: int, n_dims: int) -> None:
    rng = np.random.default_rng(seed)
    signals = rng.normal(size=(400, 10))
    hidden = np.maximum(signals @ rng.normal(size=(10, n_dims)), 0)
    logits = (hidden - hidden.mean(axis=0)) @ rng.normal(size=(n_dims, 10)) / n_dims**0.5
    probs = np.exp(0.3 * logits) / np.exp(0.3 * logits).sum(axis=1, keepdims=True)
    assert standardized_clid(hidden, probs) == pytest.approx(0, abs=0.25)


def test_standardized_clid__nothing_to_compare__is_finite() -> None:
    embeddings, probs = _network_outputs(20)
    everywhere_the_same = np.ones_like(embeddings)
    assert standardized_clid(everywhere_the_same, probs) == pytest.approx(0, abs=1e-6)
    undecided = standardized_clid(embeddings, np.full_like(probs, 0.25))
    assert undecided > standardized_clid(embeddings, probs)
    one_hot = np.eye(4)[np.arange(20) % 4]
    assert -7.3 < standardized_clid(one_hot, one_hot) < -5
    assert np.isfinite(standardized_clid(np.zeros((3, 2)), np.zeros((3, 2))))


@pytest.mark.parametrize("metric", [clid, standardized_clid])
@pytest.mark.parametrize(
    "embeddings, probs, message",
    [
        (np.ones((3, 2)), np.ones((4, 2)), "embeddings must have shape"),
        (np.ones(3), np.ones((3, 2)), "embeddings must have shape"),
        (np.ones((3, 2)), np.ones(3), "embeddings must have shape"),
        (np.ones((0, 2)), np.ones((0, 2)), "n_samples >= 1"),
        (np.full((3, 2), np.nan), np.ones((3, 2)), "embeddings must be finite"),
        (np.ones((3, 2)), np.full((3, 2), np.inf), "probabilities finite"),
        (np.ones((3, 2)), np.full((3, 2), -1.0), "not logits"),
    ],
)
def test_clid__arrays_that_do_not_fit__are_refused(
    metric: Metric, embeddings: Any, probs: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        metric(embeddings, probs)


def test_clid__temperature_not_positive__is_refused() -> None:
    for temperature in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="temperature must be greater than 0"):
            clid(np.ones((3, 2)), np.ones((3, 2)), temperature)


def test_standardized_clid__two_rows__are_refused() -> None:
    with pytest.raises(ValueError, match="at least 3 rows"):
        standardized_clid(np.eye(2), np.eye(2))


def test_metrics__import__does_not_load_torch() -> None:
    code = "import sys, noisyfit.metrics; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_relative_performance_ratio_divides_clean_by_noisy() -> None:
    losses_by_noise = [0.5, 0.8, 2.0]
    expected = [0.5 / loss for loss in losses_by_noise]
    np.testing.assert_allclose(relative_performance_ratio(losses_by_noise, 0.5), expected)
    by_epoch = [[1.0, 2.0], [0.5, 4.0]]
    ratios = relative_performance_ratio(by_epoch, [[1.0], [0.5]])
    np.testing.assert_allclose(ratios, [[1.0, 0.5], [1.0, 0.125]])


@pytest.mark.parametrize("noisy, clean", [([0.0], 1.0), ([np.nan], 1.0), ([1.0], np.inf)])
def test_relative_performance_ratio__zero_or_not_finite__is_refused(noisy: Any, clean: Any) -> None:
    with pytest.raises(ValueError, match="performance must be finite and not zero"):
        relative_performance_ratio(noisy, clean)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_epoch_correlation_is_pearsons_over_the_settings(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(3, 5)), rng.normal(size=(3, 5))
    found = epoch_correlation(first, second)
    assert found.shape == (3,)
    for a, b, value in zip(first.tolist(), second.tolist(), found, strict=True):
        da, db = [v - sum(a) / 5 for v in a], [v - sum(b) / 5 for v in b]
        products = sum(p * q for p, q in zip(da, db, strict=True))
        norms = math.sqrt(sum(p * p for p in da)) * math.sqrt(sum(q * q for q in db))
        assert value == pytest.approx(products / norms)


def test_epoch_correlation__constant_measure__is_nan_at_that_epoch_only() -> None:
    found = epoch_correlation([[1, 1, 1], [1, 2, 3]], [[1, 2, 3], [1, 2, 3]])
    assert np.isnan(found[0])
    assert found[1] == pytest.approx(1)


@pytest.mark.parametrize(
    "first, second", [([1, 2], [1, 2]), ([[1, 2]], [[1, 2, 3]]), ([[1]], [[1]])]
)
def test_epoch_correlation__bad_shape__is_refused(first: Any, second: Any) -> None:
    with pytest.raises(ValueError, match="first and second must both have shape"):
        epoch_correlation(first, second)


LOGITS = np.array([[2.0, -1.0, 0.5], [0.1, 0.2, 0.0], [-3.0, -5.0, -4.0], [30.0, 1.0, 2.0]])


def _clusters(seed: int = 0) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Embeddings of rows of all kinds, and of training rows of three classes, with labels."""
    rng = np.random.default_rng(seed)
    labels = np.array(["a", "b", "c"])[rng.permutation(np.arange(9) % 3)]
    means = {name: rng.normal(size=3) for name in "abc"}
    train = np.stack([means[name] + 0.3 * rng.normal(size=3) for name in labels])
    return rng.normal(size=(5, 3)), train, labels


def _inverse_shrunk_covariance(within: list[list[float]]) -> NDArray[Any]:
    """Lemma 3.2 to 3.4 of Ledoit and Wolf (2004), for rows around zero."""
    n, d = len(within), len(within[0])
    both = [(i, j) for i in range(d) for j in range(d)]
    sample = {(i, j): sum(row[i] * row[j] for row in within) / n for i, j in both}
    level = sum(sample[i, i] for i in range(d)) / d
    spread = sum((sample[i, j] - (level if i == j else 0)) ** 2 for i, j in both) / d
    error = 0.0
    for row in within:
        error += sum((row[i] * row[j] - sample[i, j]) ** 2 for i, j in both) / d / n**2
    share = min(error, spread) / spread
    shrunk = np.zeros((d, d))
    for i, j in both:
        shrunk[i, j] = (1 - share) * sample[i, j] + (share * level if i == j else 0)
    return np.linalg.inv(shrunk)


def _squared_distance(a: Any, b: Any) -> float:
    return sum((p - q) ** 2 for p, q in zip(a, b, strict=True))


def test_msp_is_one_minus_the_largest_softmax() -> None:
    scores = ood_scores(LOGITS, method="msp")
    for row, score in zip(LOGITS.tolist(), scores, strict=True):
        others = sorted(math.exp(v) for v in row)[:-1]
        assert score == pytest.approx(sum(others) / sum(math.exp(v) for v in row), rel=1e-12)
        assert score == pytest.approx(1 - max(math.exp(v) for v in row) / sum(map(math.exp, row)))


def test_msp__confident_rows__are_still_ranked() -> None:
    assert ood_scores([[50.0, 0.0]], method="msp") > ood_scores([[60.0, 0.0]], method="msp") > 0


@pytest.mark.parametrize("temperature", [0.5, 1.0, 10.0])
def test_energy_is_minus_the_logsumexp(temperature: float) -> None:
    scores = ood_scores(LOGITS, temperature=temperature)
    for row, score in zip(LOGITS.tolist(), scores, strict=True):
        total = sum(math.exp(v / temperature) for v in row)
        assert score == pytest.approx(-temperature * math.log(total), rel=1e-12)


def test_log_probabilities__serve_msp_but_not_energy() -> None:
    log_probs = np.log(np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(
        ood_scores(log_probs, method="msp"), ood_scores(LOGITS, method="msp")
    )
    np.testing.assert_allclose(ood_scores(log_probs), 0, atol=1e-12)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_mahalanobis_is_the_smallest_distance_under_one_covariance(seed: int) -> None:
    rows, train, labels = _clusters(seed)
    means = {}
    for name in "abc":
        mine = [row for row, label in zip(train.tolist(), labels, strict=True) if label == name]
        means[name] = [sum(column) / len(mine) for column in zip(*mine, strict=True)]
    within = [
        [v - m for v, m in zip(row, means[label], strict=True)]
        for row, label in zip(train.tolist(), labels, strict=True)
    ]
    precision = _inverse_shrunk_covariance(within)
    scores = ood_scores(
        None, rows, method="mahalanobis", train_embeddings=train, train_labels=labels
    )
    for row, score in zip(rows.tolist(), scores, strict=True):
        distances = []
        for mean in means.values():
            d = [v - m for v, m in zip(row, mean, strict=True)]
            distances.append(sum(d[i] * precision[i, j] * d[j] for i in range(3) for j in range(3)))
        assert score == pytest.approx(min(distances), rel=1e-9)


def test_mahalanobis__fewer_rows_than_dimensions__sees_every_direction() -> None:
    rng = np.random.default_rng(0)
    train, labels = np.zeros((6, 20)), [0, 1] * 3
    train[:, :10] = rng.normal(size=(6, 10))
    far = np.zeros((1, 20))
    far[0, 15] = 100.0  # a unit that is always 0 in training
    scores = ood_scores(
        None, np.vstack([train, far]), method="mahalanobis", train_embeddings=train,
        train_labels=labels,
    )  # fmt: skip
    assert np.isfinite(scores).all()
    assert scores[-1] > 100 * scores[:-1].max()


@pytest.mark.parametrize("n_copies", [1, 3])
def test_mahalanobis__no_spread_within_classes__is_euclidean(n_copies: int) -> None:
    rows, train, _ = _clusters()
    scores = ood_scores(
        None, rows, method="mahalanobis", train_embeddings=np.repeat(train, n_copies, axis=0),
        train_labels=np.repeat(np.arange(9), n_copies),
    )  # fmt: skip
    expected = [min(_squared_distance(row, other) for other in train) for row in rows]
    np.testing.assert_allclose(scores, expected)


@pytest.mark.parametrize("k", [1, 2, 9])
def test_knn_is_the_distance_to_the_kth_nearest_direction(k: int) -> None:
    rows, train, _ = _clusters()
    scores = ood_scores(None, rows, method="knn", train_embeddings=train, n_neighbors=k)
    for row, score in zip(rows, scores, strict=True):
        unit = row / math.sqrt(sum(v * v for v in row))
        others = [other / math.sqrt(sum(v * v for v in other)) for other in train]
        distances = sorted(math.sqrt(_squared_distance(unit, other)) for other in others)
        assert score == pytest.approx(distances[k - 1], rel=1e-6)


def test_knn__more_neighbors_than_rows__takes_the_farthest() -> None:
    rows, train, _ = _clusters()
    by_default, farthest = (
        ood_scores(None, rows, method="knn", train_embeddings=train, n_neighbors=k) for k in (50, 9)
    )
    np.testing.assert_array_equal(by_default, farthest)


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_distances__constant_embeddings__are_zero(value: float) -> None:
    same, labels = np.full((6, 3), value), [0, 1, 0, 1, 0, 0]
    for method in ("mahalanobis", "knn"):
        scores = ood_scores(None, same, method=method, train_embeddings=same, train_labels=labels)
        np.testing.assert_allclose(scores, 0, atol=1e-7)


@pytest.mark.parametrize("method", ["msp", "energy", "mahalanobis", "knn"])
def test_ood_scores__lists_tensors_and_frames__give_the_same_array(method: str) -> None:
    rows, train, labels = _clusters()
    expected = ood_scores(rows, rows, method=method, train_embeddings=train, train_labels=labels)
    assert expected.shape == (5,)
    assert expected.dtype == np.float64
    kinds: list[Callable[[Any], Any]] = [np.ndarray.tolist, torch.tensor, pd.DataFrame]
    for kind in kinds:
        scores = ood_scores(
            kind(rows), kind(rows), method=method, train_embeddings=kind(train),
            train_labels=pd.Series(labels),
        )  # fmt: skip
        np.testing.assert_allclose(scores, expected, rtol=1e-12)
    alone = ood_scores(
        rows[:1], rows[:1], method=method, train_embeddings=train, train_labels=labels
    )
    np.testing.assert_allclose(alone, expected[:1])


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("method", ["mahalanobis", "knn"])
def test_distances__rows_from_elsewhere__score_higher(method: str, seed: int) -> None:
    embeddings, probs = _network_outputs(600, seed)
    labels = probs.argmax(axis=1)
    elsewhere, _ = _network_outputs(200, seed + 10)
    known, unknown = (
        ood_scores(
            None, rows, method=method, train_embeddings=embeddings[:400], train_labels=labels[:400]
        )
        for rows in (embeddings[400:], elsewhere)
    )
    assert ood_auroc(known, unknown) > 0.9


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"method": "energi"}, "method must be 'msp', 'energy', 'mahalanobis' or 'knn'"),
        ({"method": "msp", "logits": None}, "logits must be given if method='msp'"),
        ({"method": "energy", "logits": None}, "logits must be given if method='energy'"),
        ({"method": "energy", "logits": [[np.nan, 0.0]]}, "logits must be finite"),
        ({"method": "msp", "logits": [[-np.inf, 0.0]]}, "logits must be finite"),
        ({"method": "msp", "logits": [1.0, 2.0]}, "logits must have two dimensions"),
        ({"method": "msp", "logits": np.ones((0, 2))}, "neither of them empty"),
        ({"method": "energy", "temperature": 0.0}, "temperature must be finite and greater"),
        ({"method": "energy", "temperature": np.nan}, "temperature must be finite and greater"),
        ({"method": "knn", "embeddings": None}, "embeddings must be given if method='knn'"),
        ({"method": "knn", "train_embeddings": None}, "train_embeddings must be given"),
        ({"method": "knn", "train_embeddings": [[np.inf] * 3]}, "train_embeddings must be finite"),
        ({"method": "knn", "train_embeddings": np.ones((4, 2))}, "the same number of columns"),
        ({"method": "knn", "n_neighbors": 0}, "n_neighbors must be at least 1"),
        ({"method": "mahalanobis", "train_embeddings": None}, "train_embeddings must be given"),
        ({"method": "mahalanobis", "train_labels": None}, r"train_labels must have shape \(9,\)"),
        ({"method": "mahalanobis", "train_labels": [0, 1]}, r"train_labels must have shape"),
        ({"method": "mahalanobis", "train_labels": [np.nan] * 9}, "hold no NaN"),
    ],
)
def test_ood_scores__what_cannot_be_scored__is_refused(
    changes: dict[str, Any], message: str
) -> None:
    rows, train, labels = _clusters()
    given: dict[str, Any] = {
        "logits": rows, "embeddings": rows, "train_embeddings": train, "train_labels": labels
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        ood_scores(**given | changes)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ood_auroc_is_the_share_of_pairs_in_the_right_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    known, unknown = rng.integers(6, size=7).tolist(), rng.integers(9, size=5).tolist()
    pairs = [1.0 if u > k else 0.5 if u == k else 0.0 for k in known for u in unknown]
    assert ood_auroc(known, unknown) == pytest.approx(sum(pairs) / len(pairs))
    assert ood_auroc(unknown, known) == pytest.approx(1 - sum(pairs) / len(pairs))


@pytest.mark.parametrize("n_known", [1, 2, 19, 20, 21, 39, 40, 41, 100])
def test_fpr_at_95_tpr_counts_unknown_rows_below_the_threshold(n_known: int) -> None:
    rng = np.random.default_rng(n_known)
    known, unknown = rng.integers(30, size=n_known).tolist(), rng.integers(60, size=50).tolist()
    for threshold in sorted(known):
        if 100 * sum(score <= threshold for score in known) >= 95 * n_known:
            break
    accepted = sum(score <= threshold for score in unknown)
    assert fpr_at_95_tpr(known, unknown) == accepted / 50


def test_ood_rates__perfect_opposite_or_constant__reach_their_bounds() -> None:
    low, high = np.arange(100.0), np.arange(100.0, 130.0)
    assert (ood_auroc(low, high), fpr_at_95_tpr(low, high)) == (1.0, 0.0)
    assert (ood_auroc(high, low), fpr_at_95_tpr(high, low)) == (0.0, 1.0)
    assert (ood_auroc([3] * 4, [3] * 2), fpr_at_95_tpr([3] * 4, [3] * 2)) == (0.5, 1.0)


def test_fpr_at_95_tpr__chance__is_95_percent() -> None:
    known, unknown = np.random.default_rng(0).random((2, 20_000))
    assert fpr_at_95_tpr(known, unknown) == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize("metric", [ood_auroc, fpr_at_95_tpr])
@pytest.mark.parametrize("bad", [[], [[1.0]], [1.0, np.nan], [np.inf]])
def test_ood_rates__empty_not_finite_or_of_another_shape__are_refused(
    metric: Metric, bad: Any
) -> None:
    with pytest.raises(ValueError, match=r"scores_in must have shape \(n,\)"):
        metric(bad, [1.0])
    with pytest.raises(ValueError, match=r"scores_out must have shape \(n,\)"):
        metric([1.0], bad)
