"""Generalised cross-entropy: the formula, its limits, truncation."""

from __future__ import annotations

from math import exp, log
from typing import Any

import numpy as np
import pytest
import torch

from noisyfit import CrossEntropyClassifier, GCEClassifier
from noisyfit.data.rows import Rows
from noisyfit.data.training import TrainingData
from noisyfit.nn.losses import generalized_cross_entropy
from tests.helpers import digits_scores, noisy_blobs, quick

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [-40.0, 40.0, 0.0]])
LABELS = torch.tensor([0, 2, 0])


def given_probability(i: int) -> float:
    powers = [exp(float(z)) for z in LOGITS[i]]
    return powers[int(LABELS[i])] / sum(powers)


@pytest.mark.parametrize("q", [0.1, 0.7, 1.0])
def test_loss_is_eq_6(q: float) -> None:
    found = generalized_cross_entropy(LOGITS, LABELS, q=q)
    for i in range(3):
        assert float(found[i]) == pytest.approx((1 - given_probability(i) ** q) / q, rel=1e-5)


def test_loss__small_q__is_cross_entropy() -> None:
    found = generalized_cross_entropy(LOGITS[:2], LABELS[:2], q=1e-4)
    for i in range(2):
        assert float(found[i]) == pytest.approx(-log(given_probability(i)), rel=1e-3)


def test_loss__implausible_label__has_a_finite_small_gradient() -> None:
    logits = LOGITS.clone().requires_grad_()
    generalized_cross_entropy(logits, LABELS).sum().backward()
    assert logits.grad is not None
    assert float(logits.grad[2].norm()) < 1e-10 < float(logits.grad[1].norm())


@pytest.mark.slow
def test_digits__symmetric__is_better_than_cross_entropy() -> None:
    methods = [CrossEntropyClassifier(max_epochs=30), GCEClassifier(max_epochs=30)]
    plain, ours = digits_scores(methods)
    assert np.mean(ours - plain) > 0.03


@pytest.mark.slow
def test_truncation__pairflip__is_better_than_without() -> None:
    methods = [GCEClassifier(max_epochs=30), GCEClassifier(max_epochs=30, truncation=0.5)]
    whole, truncated = digits_scores(methods, "pairflip")
    assert np.mean(truncated - whole) > 0.03


@pytest.mark.parametrize("params", [{"q": 0.2}, {"truncation": 0.5}], ids=str)
def test_each_switch_changes_the_result_and_still_learns(params: dict[str, Any]) -> None:
    X, y, flipped = noisy_blobs()
    settings = {"max_epochs": 15, "batch_size": 48}
    default = quick(GCEClassifier, **settings).fit(X, y)
    switched = quick(GCEClassifier, **settings, **params).fit(X, y)
    assert not np.allclose(default.predict_proba(X), switched.predict_proba(X), atol=1e-4)
    assert switched.score(X[~flipped], y[~flipped]) > 0.85


def test_truncation__no_row_is_plausible__keeps_all() -> None:
    X, y, _ = noisy_blobs()
    whole = quick(GCEClassifier, max_epochs=3).fit(X, y)
    none_left = quick(GCEClassifier, max_epochs=3, warmup_epochs=1, truncation=0.9999).fit(X, y)
    np.testing.assert_array_equal(none_left.predict_proba(X), whole.predict_proba(X))


def test_trusted_rows__have_the_loss_of_cross_entropy_and_are_kept() -> None:
    X, y, _ = noisy_blobs()
    everything = np.ones(len(X), dtype=bool)
    ours = quick(GCEClassifier, truncation=0.9).fit(X, y, clean_mask=everything)
    plain = quick(CrossEntropyClassifier).fit(X, y)
    np.testing.assert_allclose(ours.predict_proba(X), plain.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize("truncation", [None, 0.5])
def test_rare_class__well_separated__is_learned(truncation: float | None) -> None:
    """The paper's loss from the start finds nobody of it, and calls all its labels wrong."""
    found, right_ones_flagged = [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        y = np.repeat([0, 1], [970, 30])
        X = rng.normal(size=(1000, 8))
        X[:, 0] += 4 * y
        given = np.where(np.isin(np.arange(1000), rng.choice(970, 15, replace=False)), 1, y)
        clf = quick(GCEClassifier, max_epochs=30, truncation=truncation).fit(X, given)
        found.append((clf.predict(X)[970:] == 1).mean())
        right_ones_flagged.append((clf.corrected_labels_[970:] == 0).mean())
    assert np.mean(found) > 0.6
    assert np.mean(right_ones_flagged) < 0.4


def test_warm_up__a_network_that_knows_the_shares_alone__has_gradients_of_cross_entropy() -> None:
    X, y, _ = noisy_blobs()
    y = np.where(np.arange(len(y)) % 3 == 0, 0, y)
    clf = quick(GCEClassifier, max_epochs=2).fit(X, y)
    labels = torch.as_tensor(y)
    shares = torch.bincount(labels) / len(labels)
    data = TrainingData(
        Rows(torch.as_tensor(X), "table", torch.device("cpu")),
        labels,
        torch.zeros(len(y), dtype=torch.bool),
        3,
        48,
    )
    weights = clf._class_weights(data)
    scores = shares.log().repeat(len(y), 1).requires_grad_()
    (weights[labels] * generalized_cross_entropy(scores, labels, q=clf.q)).sum().backward()
    plain = shares.log().repeat(len(y), 1).requires_grad_()
    torch.nn.functional.cross_entropy(plain, labels, reduction="sum").backward()
    assert scores.grad is not None
    assert plain.grad is not None
    ratio = scores.grad / plain.grad
    torch.testing.assert_close(ratio, torch.full_like(ratio, float(ratio[0, 0])))
    assert float(weights[labels].mean()) == pytest.approx(1)
