"""Weights of rows, and going on with a fitted network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from noisyfit import (
    CoTeachingClassifier,
    CrossEntropyClassifier,
    ELRClassifier,
    GCEClassifier,
    MixUpClassifier,
)
from tests.common import blobs, noisy_blobs


def quick(**params: Any) -> CrossEntropyClassifier:
    return CrossEntropyClassifier(**{"max_epochs": 6, "random_state": 0, "device": "cpu"} | params)


# Weights of rows.


@pytest.mark.parametrize("weight", [1.0, 0.3, 7])
def test_sample_weight__all_alike__has_the_bits_of_none(weight: float) -> None:
    X, y, _ = noisy_blobs()
    weighted = quick().fit(X, y, sample_weight=np.full(len(X), weight))
    assert np.array_equal(weighted.predict_proba(X), quick().fit(X, y).predict_proba(X))


def test_sample_weight__loss_is_the_weighted_mean() -> None:
    X, y = blobs(12)
    weights = np.random.default_rng(0).random(12)
    losses: list[tuple[Any, Any]] = []

    class Recorder(CrossEntropyClassifier):
        def _descend(self, loss: Any, optimizer: Any = None) -> None:
            losses.append((loss.detach(), self.module_(torch.as_tensor(X)).detach().double()))
            super()._descend(loss, optimizer)

    Recorder(max_epochs=1, augmentation=None, batch_size=12).fit(X, y, sample_weight=weights)
    loss, logits = losses[0]
    codes = np.unique(y, return_inverse=True)[1]
    total = 0.0
    for w, z, code in zip(weights, logits.numpy(), codes, strict=True):
        total -= w * np.log(np.exp(z[code]) / np.exp(z).sum())
    assert float(loss) == pytest.approx(total / weights.sum(), rel=1e-5)


def test_sample_weight__of_0__rows_are_not_learned_from() -> None:
    for seed in (0, 1, 2):
        X, y, flipped = noisy_blobs(seed)
        clf = quick(max_epochs=20, random_state=seed).fit(X, y, sample_weight=~flipped)
        relabelled = np.where(flipped, np.roll(y, 1), y)
        again = quick(max_epochs=20, random_state=seed).fit(X, relabelled, sample_weight=~flipped)
        assert np.array_equal(again.predict_proba(X), clf.predict_proba(X))


def test_sample_weight__is_cut_with_the_rows_held_out() -> None:
    X, y, _ = noisy_blobs()
    weights = np.where(np.arange(len(X)) < len(X) // 2, 1.0, 2.0)
    clf = quick(validation_fraction=0.25)
    seen: list[torch.Tensor] = []

    class Recorder(CrossEntropyClassifier):
        def _fit(self, data: Any) -> None:
            seen.append((data.weights, weights[data.index]))  # type: ignore[arg-type]
            super()._fit(data)

    Recorder(**clf.get_params()).fit(X, y, sample_weight=weights)
    got, expected = seen[0]
    np.testing.assert_allclose(got.numpy(), expected / np.mean(expected), rtol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda n: np.ones(n - 1),
        lambda n: -np.ones(n),
        lambda n: np.zeros(n),
        lambda n: np.full(n, np.nan),
        lambda n: np.ones((n, 2)),
    ],
    ids=["too few", "negative", "all 0", "NaN", "2-D"],
)
def test_sample_weight__that_cannot_be_used__says_what_must_hold(make: Any) -> None:
    X, y, _ = noisy_blobs()
    with pytest.raises(ValueError, match="sample_weight must be a finite number of at least 0"):
        quick().fit(X, y, sample_weight=make(len(X)))


@pytest.mark.parametrize(
    "cls", [CoTeachingClassifier, ELRClassifier, GCEClassifier, MixUpClassifier]
)
def test_sample_weight__of_methods_without_it__is_refused(cls: Any) -> None:
    X, y, _ = noisy_blobs()
    with pytest.raises(TypeError, match="sample_weight"):
        cls(max_epochs=2).fit(X, y, sample_weight=np.ones(len(X)))


# Going on.


def fitted() -> tuple[CrossEntropyClassifier, NDArray[Any], NDArray[Any]]:
    X, y = blobs(120)
    return quick(max_epochs=3).fit(100 * X + 7, y), 100 * X + 7, y


def test_fine_tune__goes_on_with_some_classes__at_the_old_scale() -> None:
    clf, X, y = fitted()
    before = {name: value.clone() for name, value in clf.module_.state_dict().items()}
    quality, state = clf.label_quality_.copy(), torch.get_rng_state()
    some = y != y.max()
    loss = -np.log(clf.predict_proba(X[some])[np.arange(some.sum()), y[some]]).mean()
    clf.fine_tune(X[some], y[some], epochs=5, lr=0.01)
    assert -np.log(clf.predict_proba(X[some])[np.arange(some.sum()), y[some]]).mean() < loss
    assert torch.equal(clf.module_.mean, before["mean"])
    assert torch.equal(clf.module_.std, before["std"])
    assert np.array_equal(clf.label_quality_, quality)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(clf.classes_) == 3


def test_fine_tune__same_seed__same_bits() -> None:
    found = []
    for _ in range(2):
        clf, X, y = fitted()
        found.append(clf.fine_tune(X, y, epochs=2, lr=0.01).predict_proba(X))
    assert np.array_equal(*found)


def test_fine_tune__unknown_class_or_other_columns__is_an_error() -> None:
    clf, X, y = fitted()
    with pytest.raises(ValueError, match="among the classes seen in fit"):
        clf.fine_tune(X, y + 5, epochs=1, lr=0.01)
    with pytest.raises(ValueError, match="features"):
        clf.fine_tune(X[:, 1:], y, epochs=1, lr=0.01)


def test_fine_tune__two_networks__is_not_offered() -> None:
    assert hasattr(CrossEntropyClassifier(), "fine_tune")
    assert not hasattr(ELRClassifier(n_networks=2), "fine_tune")
    assert not hasattr(CoTeachingClassifier(), "fine_tune")
