"""Co-teaching: which rows are kept, who learns from whom, and the estimate of the forget rate."""

from __future__ import annotations

from copy import deepcopy
from math import ceil
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from noisyfit import CoTeachingClassifier, CrossEntropyClassifier, noise
from noisyfit.methods.coteaching import disagreement, small_loss
from tests.helpers import blobs, digits_scores, noisy_blobs, quick

LOSSES = torch.tensor([0.3, 9.0, 0.1, 2.0, 0.1, 5.0])
NOBODY = torch.zeros(6, dtype=torch.bool)


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5, 0.99, 1.0])
def test_small_loss_keeps_the_lowest_share(rate: float) -> None:
    kept = small_loss(LOSSES, NOBODY, torch.tensor(rate))
    n_kept = max(1, ceil(6 * (1 - rate) - 1e-6))
    assert int(kept.sum()) == n_kept
    assert sorted(LOSSES[kept].tolist()) == sorted(LOSSES.tolist())[:n_kept]


def test_small_loss__trusted_rows__are_kept_and_do_not_count() -> None:
    trusted = torch.tensor([False, True, False, False, False, True])
    kept = small_loss(LOSSES, trusted, torch.tensor(0.5))
    assert kept.tolist() == [False, True, True, False, True, True]


def test_small_loss__one_row__is_kept() -> None:
    assert small_loss(LOSSES[:1], NOBODY[:1], torch.tensor(1.0)).tolist() == [True]


def test_disagreement_is_the_share_of_other_labels() -> None:
    scores = torch.tensor([[3.0, 1.0], [0.0, 2.0], [5.0, 1.0], [1.0, 2.0]])
    assert float(disagreement(scores, torch.tensor([0, 0, -1, 1]))) == pytest.approx(1 / 3)


def test_each_network_learns_from_the_rows_the_other_one_keeps() -> None:
    X, y, _ = noisy_blobs()
    X, y = X[:9], y[:9]
    seen: list[tuple[float, float]] = []

    class Recorder(CoTeachingClassifier):
        def _descend(self, loss: Any, network: str = "module") -> None:
            if network == "module":
                self.expected = by_hand(self)
            own = self.expected[0 if network == "module" else 1]
            if len(self.history_) == 2:
                seen.append((float(loss), own))
            super()._descend(loss, network)

    def by_hand(clf: Any) -> list[float]:
        copies = [deepcopy(clf.module_), deepcopy(clf.peer_)]  # a pass moves running statistics
        with torch.no_grad():
            logits = [network(torch.as_tensor(X, dtype=torch.float32)) for network in copies]
        losses = [
            [float(F.cross_entropy(z[i].double()[None], torch.tensor([y[i]]))) for i in range(9)]
            for z in logits
        ]
        n_kept = ceil((1 - float(clf.state_.forget_rate)) * 9 - 1e-6)
        chosen = [np.argsort(own)[:n_kept].tolist() for own in losses]
        return [sum(losses[learner][i] for i in chosen[1 - learner]) / n_kept for learner in (0, 1)]

    clf = quick(Recorder, max_epochs=2, warmup_epochs=1, augmentation=None).fit(X, y)
    assert 0 < clf.forget_rate_ < 1
    for found, expected in seen:
        assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "rate",
    [0.4, *(pytest.param(rate, marks=pytest.mark.long) for rate in (0.0, 0.2))],
)
def test_forget_rate_is_near_the_share_of_wrong_labels(rate: float) -> None:
    X, y = blobs(600, 4)
    found, wrong = [], []
    for seed in range(3):
        given = noise.symmetric(y, rate, random_state=seed)
        clf = CoTeachingClassifier(max_epochs=24, random_state=seed).fit(X, given.labels)
        found.append(clf.forget_rate_)
        wrong.append(given.flipped.mean())
    assert np.mean(found) == pytest.approx(np.mean(wrong), abs=0.12)


def test_forget_rate__no_epoch_after_the_warm_up__is_zero() -> None:
    X, y, _ = noisy_blobs()
    assert quick(CoTeachingClassifier, max_epochs=2, warmup_epochs=1).fit(X, y).forget_rate_ > 0
    with pytest.raises(ValueError, match="greater than the warm-up"):
        quick(CoTeachingClassifier, max_epochs=2, warmup_epochs=2).fit(X, y)


@pytest.mark.long
def test_digits__symmetric__is_better_than_cross_entropy() -> None:
    methods = [CrossEntropyClassifier(max_epochs=30), CoTeachingClassifier(max_epochs=30)]
    plain, ours = digits_scores(methods)
    assert np.mean(ours - plain) > 0.04


def test_warm_up__changes_the_result_and_still_learns() -> None:
    X, y, flipped = noisy_blobs()
    short, long = (
        quick(CoTeachingClassifier, max_epochs=20, batch_size=48, warmup_epochs=n).fit(X, y)
        for n in (3, 10)
    )
    assert not np.allclose(short.predict_proba(X), long.predict_proba(X), atol=1e-4)
    for clf in (short, long):
        assert clf.score(X[~flipped], y[~flipped]) > 0.85
