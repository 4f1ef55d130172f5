"""Symmetric cross-entropy: the formula, its bounds, both weights."""

from __future__ import annotations

from copy import deepcopy
from math import exp, log
from typing import Any

import numpy as np
import pytest
import torch

from noisyfit import CrossEntropyClassifier, SymmetricCrossEntropyClassifier
from noisyfit.nn.losses import reverse_cross_entropy
from tests.helpers import digits_scores, noisy_blobs, quick

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [-40.0, 40.0, 0.0], [40.0, 0.0, 0.0]])
LABELS = torch.tensor([0, 2, 0, 0])


def test_reverse_cross_entropy__log_of_zero_is_minus_four() -> None:
    found = reverse_cross_entropy(LOGITS, LABELS)
    for i in range(4):
        powers = [exp(float(z)) for z in LOGITS[i]]
        logs_of_label = [log(1) if k == int(LABELS[i]) else -4 for k in range(3)]
        expected = -sum(p / sum(powers) * q for p, q in zip(powers, logs_of_label, strict=True))
        assert float(found[i]) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_reverse_cross_entropy__implausible_label__pulls_no_more() -> None:
    logits = LOGITS.clone().requires_grad_()
    reverse_cross_entropy(logits, LABELS).sum().backward()
    assert logits.grad is not None
    assert float(logits.grad[2].norm()) < 1e-10 < float(logits.grad[1].norm())


@pytest.mark.parametrize("n_trusted", [0, 4, 9])
def test_one_step__descends_the_weighted_sum_and_cross_entropy_where_trusted(
    n_trusted: int,
) -> None:
    X, y, _ = noisy_blobs()
    X, y, trusted = X[:9], y[:9], np.arange(9) < n_trusted
    seen: list[tuple[float, float]] = []

    class Recorder(SymmetricCrossEntropyClassifier):
        def _descend(self, loss: Any, network: str = "module") -> None:
            seen.append((float(loss.detach()), float(self.by_hand())))
            super()._descend(loss, network)

        def by_hand(self) -> float:
            network = deepcopy(self.module_)  # a pass moves running statistics
            with torch.no_grad():
                logits = network(torch.as_tensor(X, dtype=torch.float32))
            probs = logits.double().softmax(1).numpy()
            given = probs[np.arange(9), np.searchsorted(self.classes_, y)]
            symmetric = [0.2 * -log(p) + 0.7 * 4 * (1 - p) for p in given]
            losses = np.where(trusted, -np.log(given), symmetric)
            return float(losses.mean())

    params = {"forward_weight": 0.2, "reverse_weight": 0.7, "augmentation": None}
    quick(Recorder, max_epochs=2, batch_size=9, **params).fit(X, y, clean_mask=trusted)
    assert len(seen) == 2
    for loss, expected in seen:
        assert loss == pytest.approx(expected, rel=1e-4)


def test_without_the_reverse__is_cross_entropy() -> None:
    X, y, _ = noisy_blobs()
    params = {"forward_weight": 1.0, "reverse_weight": 0.0}
    ours = quick(SymmetricCrossEntropyClassifier, **params).fit(X, y)
    plain = quick(CrossEntropyClassifier).fit(X, y)
    np.testing.assert_allclose(ours.predict_proba(X), plain.predict_proba(X), atol=1e-6)


@pytest.mark.slow
def test_digits__symmetric__is_better_than_cross_entropy() -> None:
    methods = [
        CrossEntropyClassifier(max_epochs=30),
        SymmetricCrossEntropyClassifier(max_epochs=30),
    ]
    plain, ours = digits_scores(methods)
    assert np.mean(ours - plain) > 0.03
