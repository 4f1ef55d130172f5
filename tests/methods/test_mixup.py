"""MixUp: the loss of a batch with loops, what alpha does, and how labels are rated."""

from __future__ import annotations

from math import exp, log
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from noisyfit import CrossEntropyClassifier, MixUpClassifier
from tests.helpers import digits_scores, noisy_blobs, quick


def test_loss_of_a_batch_is_that_of_mixed_rows_and_labels() -> None:
    """The loss is linear in the target, so the mixture is found again from the row itself."""
    X, y, _ = noisy_blobs()
    X, y = X[:8], y[:8]
    seen: list[tuple[torch.Tensor, torch.Tensor, float]] = []

    class Recorder(MixUpClassifier):
        def _descend(self, loss: Any, network: str = "module") -> None:
            with torch.no_grad():
                seen.append((self.inputs, self.module_.network.last.clone(), float(loss)))
            super()._descend(loss, network)

        @property
        def inputs(self) -> torch.Tensor:
            inputs: torch.Tensor = self.module_.network.inputs
            return inputs

    class Network(nn.Module):
        def __init__(self, n_features: int, n_classes: int) -> None:
            super().__init__()
            self.linear = nn.Linear(n_features, n_classes)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.inputs, self.last = x.detach(), self.linear(x)
            logits: torch.Tensor = self.last
            return logits

    clf = quick(Recorder, module=Network, augmentation=None, max_epochs=1).fit(X, y)
    mixed, logits, loss = seen[0]
    rows = (X - clf.feature_mean_) / clf.feature_scale_
    total = 0.0
    for i in range(8):
        # The only pair of rows, and share, that the mixed row lies on.
        best: tuple[float, int, int, float] = (float("inf"), 0, 0, 0.0)
        for own in range(8):
            for other in range(8):
                gap = rows[other] - rows[own]
                offset = mixed[i].numpy() - rows[own]
                share = float(offset @ gap / (gap @ gap)) if own != other else 0.0
                if -1e-6 <= share <= 0.5 + 1e-6:
                    distance = float(np.linalg.norm(offset - share * gap))
                    best = min(best, (round(distance, 5), own, other, share))
        _, own, other, share = best
        powers = [exp(float(z)) for z in logits[i]]
        log_probs = [log(power / sum(powers)) for power in powers]
        total -= (1 - share) * log_probs[y[own]] + share * log_probs[y[other]]
    assert loss == pytest.approx(total / 8, rel=1e-3)


@pytest.mark.slow
def test_digits__symmetric__is_better_than_cross_entropy() -> None:
    methods = [CrossEntropyClassifier(max_epochs=30), MixUpClassifier(max_epochs=30)]
    plain, ours = digits_scores(methods)
    assert np.mean(ours - plain) > 0.02


def test_alpha__changes_the_result_and_still_learns() -> None:
    X, y, flipped = noisy_blobs()
    settings = {"max_epochs": 15, "batch_size": 48}
    default = quick(MixUpClassifier, **settings).fit(X, y)
    switched = quick(MixUpClassifier, **settings, mixup_alpha=0.1).fit(X, y)
    assert not np.allclose(default.predict_proba(X), switched.predict_proba(X), atol=1e-4)
    assert switched.score(X[~flipped], y[~flipped]) > 0.85


def test_beliefs__are_sharper_than_the_mean_prediction_and_the_quality_is_not() -> None:
    X, y, _ = noisy_blobs()
    clf = quick(MixUpClassifier).fit(X, y)
    mean = (clf.state_.probs_sum / clf.n_iter_).numpy()
    np.testing.assert_allclose(clf.label_quality_, mean[np.arange(len(y)), y], rtol=1e-5)
    for i in range(len(y)):
        squares = [float(p) ** 2 for p in mean[i]]
        expected = [square / sum(squares) for square in squares]
        np.testing.assert_allclose(clf.label_distribution_[i], expected, rtol=1e-4)
