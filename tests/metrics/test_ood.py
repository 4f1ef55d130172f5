import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from noisyfit.metrics import (
    fpr_at_95_tpr,
    ood_auroc,
    ood_scores,
)
from tests.helpers import network_outputs

Metric = Callable[..., float]
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
    embeddings, probs = network_outputs(600, seed)
    labels = probs.argmax(axis=1)
    elsewhere, _ = network_outputs(200, seed + 10)
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
