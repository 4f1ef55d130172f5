"""Early-learning regularisation: the formulas with loops, the memory of targets, the switches."""

from __future__ import annotations

from math import exp, log
from typing import Any

import numpy as np
import pytest
import torch

from noisyfit import CrossEntropyClassifier, ELRClassifier
from noisyfit.nn.losses import early_learning_regularizer
from tests.helpers import digits_scores, noisy_blobs, quick

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [-40.0, 40.0, 0.0]])
TARGETS = torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def softmax(row: torch.Tensor) -> list[float]:
    powers = [exp(float(z)) for z in row]
    return [power / sum(powers) for power in powers]


def test_regularizer_is_the_log_of_the_disagreement() -> None:
    found = early_learning_regularizer(LOGITS, TARGETS)
    for i in range(3):
        agreement = sum(p * float(t) for p, t in zip(softmax(LOGITS[i]), TARGETS[i], strict=True))
        assert float(found[i]) == pytest.approx(log(max(1 - agreement, 1e-4)), rel=1e-3, abs=1e-6)


def test_regularizer__full_agreement__has_a_finite_gradient() -> None:
    logits = (100 * LOGITS).requires_grad_()
    early_learning_regularizer(logits, TARGETS).sum().backward()
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad).all())


def test_targets_are_a_running_mean_of_the_predictions_of_each_row() -> None:
    X, y, _ = noisy_blobs()
    seen: list[tuple[list[int], torch.Tensor, torch.Tensor]] = []

    class Recorder(ELRClassifier):
        def _move_targets(self, name: str, idx: Any, logits: Any) -> Any:
            moved = super()._move_targets(name, idx, logits)
            seen.append((idx.tolist(), logits.detach().clone(), moved.clone()))
            return moved

    clf = quick(Recorder, max_epochs=3, target_momentum=0.8).fit(X, y)
    expected = {i: [0.0, 0.0, 0.0] for i in range(len(X))}
    for idx, logits, moved in seen:
        for row, i in enumerate(idx):
            probs = softmax(logits[row])
            expected[i] = [0.8 * t + 0.2 * p for t, p in zip(expected[i], probs, strict=True)]
            assert moved[row].tolist() == pytest.approx(expected[i], abs=1e-3)
    total = np.array([expected[i] for i in range(len(X))])
    total /= total.sum(1, keepdims=True)
    np.testing.assert_allclose(clf.label_distribution_, total, atol=1e-3)


@pytest.mark.slow
def test_digits__is_far_better_than_cross_entropy() -> None:
    methods = [CrossEntropyClassifier(max_epochs=30), ELRClassifier(max_epochs=30)]
    for kind, margin in (("symmetric", 0.05), ("pairflip", 0.05)):
        plain, ours = digits_scores(methods, kind)
        assert np.mean(ours - plain) > margin


def test_regularization__zero__is_cross_entropy() -> None:
    X, y, _ = noisy_blobs()
    ours = quick(ELRClassifier, regularization=0.0).fit(X, y)
    plain = quick(CrossEntropyClassifier).fit(X, y)
    np.testing.assert_allclose(ours.predict_proba(X), plain.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize(
    "params",
    [{"regularization": 1.0}, {"target_momentum": 0.7}, {"n_networks": 2}],
    ids=lambda params: next(iter(params)),
)
def test_each_switch_changes_the_result_and_still_learns(params: dict[str, Any]) -> None:
    X, y, flipped = noisy_blobs()
    settings = {"max_epochs": 20, "batch_size": 48}
    default = quick(ELRClassifier, **settings).fit(X, y)
    switched = quick(ELRClassifier, **settings, **params).fit(X, y)
    assert not np.allclose(default.predict_proba(X), switched.predict_proba(X), atol=1e-4)
    assert switched.score(X[~flipped], y[~flipped]) > 0.85


def test_trusted_rows__have_the_loss_of_cross_entropy() -> None:
    X, y, _ = noisy_blobs()
    everything = np.ones(len(X), dtype=bool)
    ours = quick(ELRClassifier).fit(X, y, clean_mask=everything)
    plain = quick(CrossEntropyClassifier).fit(X, y)
    np.testing.assert_allclose(ours.predict_proba(X), plain.predict_proba(X), atol=1e-5)


def test_elr_plus__predicts_with_both_averages_and_mixes() -> None:
    X, y, _ = noisy_blobs()
    plus = quick(ELRClassifier, n_networks=2).fit(X, y)
    x = torch.as_tensor(X, dtype=torch.float32)
    with torch.no_grad():
        probs = [
            network.eval()(x).softmax(1) for network in (plus.module_average_, plus.peer_average_)
        ]
    np.testing.assert_allclose(plus.predict_proba(X), (probs[0] + probs[1]) / 2, atol=1e-6)
    other = quick(ELRClassifier, n_networks=2, mixup_alpha=8.0).fit(X, y)
    assert not np.allclose(plus.predict_proba(X), other.predict_proba(X), atol=1e-5)


def test_elr_plus__weights__are_a_plain_mean_over_the_first_steps() -> None:
    X, y, _ = noisy_blobs()
    seen: list[torch.Tensor] = []

    class Recorder(ELRClassifier):
        def _average_weights(self) -> None:
            seen.append(next(self.module_.parameters()).detach().clone())
            super()._average_weights()

    clf = quick(Recorder, max_epochs=3, n_networks=2).fit(X, y)
    mean = torch.stack(seen).mean(0)
    torch.testing.assert_close(next(clf.module_average_.parameters()).data, mean)


def test_elr_plus__saved_and_resumed_parts__are_its_own(tmp_path: Any) -> None:
    X, y, _ = noisy_blobs()
    clf = quick(ELRClassifier, n_networks=2).fit(X, y)
    clf.save(tmp_path / "model")
    loaded = ELRClassifier.load(tmp_path / "model", device="cpu")
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))
