import math
import subprocess
import sys
from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from noisyfit.metrics import (
    clid,
    epoch_correlation,
    relative_performance_ratio,
    standardized_clid,
)
from noisyfit.nn import losses
from tests.helpers import network_outputs

Metric = Callable[..., float]


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
    embeddings, probs = network_outputs(8)
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
    embeddings, probs = network_outputs(9)
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
    embeddings, probs = network_outputs(200, seed)
    shuffled = np.random.default_rng(seed).permutation(probs)
    assert metric(embeddings, probs) < metric(embeddings, shuffled) - 0.05


def test_standardized_clid_counts_deviations_from_clid_under_all_orders_of_the_others() -> None:
    n = 6
    z, q = (torch.as_tensor(a) for a in network_outputs(n, n_classes=3))
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
    embeddings, probs = network_outputs(1200, seed)
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
    embeddings, probs = network_outputs(20)
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
