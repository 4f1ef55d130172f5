"""What the meta-model learns and what it is judged by, snapshots, and the parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from skorch.callbacks import EarlyStopping

from noisyfit import CLIDMetaClassifier, CrossEntropyClassifier, NoisyFitWarning, noise
from noisyfit.metrics import detection_auroc
from tests.common import LearningRates, blobs, noisy_blobs

SEEDS = (0, 1, 2)


def quick(**params: Any) -> CLIDMetaClassifier:
    return CLIDMetaClassifier(**{"max_epochs": 6, "random_state": 0, "device": "cpu"} | params)


@pytest.mark.parametrize("meta_model", ["wnet", "vri"])
def test_digits__symmetric_noise__is_far_better_than_cross_entropy(meta_model: str) -> None:
    X, y = load_digits(return_X_y=True)
    gains, found = [], []
    for seed in SEEDS:
        X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=seed, stratify=y)
        noisy = noise.symmetric(y_train, 0.4, random_state=seed)
        ours = CLIDMetaClassifier(meta_model=meta_model, max_epochs=20, random_state=seed)
        baseline = CrossEntropyClassifier(max_epochs=20, augmentation=None, random_state=seed)
        accuracy = ours.fit(X_train, noisy.labels).score(X_test, y_test)
        gains.append(accuracy - baseline.fit(X_train, noisy.labels).score(X_test, y_test))
        found.append(detection_auroc(noisy.flipped, ours.label_quality_))
    assert min(gains) > 0.05
    assert min(found) > 0.95


def test_weights__are_higher_for_right_labels() -> None:
    for seed in SEEDS:
        X, y, flipped = noisy_blobs(seed)
        clf = quick(max_epochs=20, random_state=seed).fit(X, y)
        assert clf.sample_weight_[~flipped].mean() > 1.5 * clf.sample_weight_[flipped].mean()
        assert clf.sample_weight_.max() <= 4.0


def test_meta_lr__zero__leaves_all_weights_equal() -> None:
    X, y, _ = noisy_blobs()
    np.testing.assert_allclose(quick(meta_lr=0).fit(X, y).sample_weight_, 1, rtol=1e-6)


@pytest.mark.parametrize("objective, looks", [("clid", False), ("ce", True), ("mae", True)])
def test_meta_objective__labels_of_the_meta_set__matter_unless_it_is_clid(
    objective: str, looks: bool
) -> None:
    X, y, _ = noisy_blobs()
    X_meta, y_meta = blobs(120, seed=1)
    found = [
        quick(meta_objective=objective).fit(X, y, X_meta=X_meta, y_meta=labels).predict_proba(X)
        for labels in (y_meta, np.roll(y_meta, 1))
    ]
    assert np.array_equal(*found) != looks


@pytest.mark.parametrize(
    "objective, share", [("clid", 1.0), ("ce_pseudo_clean", 1.0), ("mae", 0.5), ("ce", 0.5)]
)
def test_meta_objective__given_labels_that_judge__are_not_trained_on(
    objective: str, share: float
) -> None:
    X, y, _ = noisy_blobs()
    clf = quick(meta_objective=objective).fit(X, y)
    assert np.mean(clf.sample_weight_ > 0) == share


def test_meta_objective__cross_entropy_of_clean_rows__teaches_the_weights() -> None:
    for seed in SEEDS:
        X, y = blobs(400, seed=seed)
        noisy = noise.symmetric(y, 0.4, random_state=seed)
        clf = quick(meta_objective="ce", max_epochs=20, random_state=seed)
        clf.fit(X[:300], noisy.labels[:300], X_meta=X[300:], y_meta=y[300:])
        assert detection_auroc(noisy.flipped[:300], clf.sample_weight_) > 0.8


def test_trusted_rows__keep_their_full_weight() -> None:
    X, y, flipped = noisy_blobs()
    trusted = ~flipped & (np.arange(len(y)) % 3 == 0)
    clf = quick().fit(X, y, clean_mask=trusted)
    np.testing.assert_array_equal(clf.sample_weight_[trusted], 1)
    assert np.std(clf.sample_weight_[~trusted]) > 0


@pytest.mark.parametrize("part", ["all", "last_stage", "head"])
def test_low_memory__trains_the_same(part: str) -> None:
    X, y, _ = noisy_blobs()
    params = {"meta_params": part, "module__dropout": 0.2, "max_epochs": 3}
    one, other = (quick(low_memory=low, **params).fit(X, y) for low in (False, True))
    np.testing.assert_allclose(one.predict_proba(X), other.predict_proba(X), atol=1e-4)
    means = [dict(c.module_.named_buffers())["network.1.running_mean"] for c in (one, other)]
    torch.testing.assert_close(*means, rtol=1e-3, atol=1e-4)


def test_meta_every__larger_than_the_epoch__takes_one_meta_step_an_epoch() -> None:
    X, y, _ = noisy_blobs()

    def meta_steps(meta_every: int) -> float:
        clf = quick(meta_every=meta_every, batch_size=24, warmup_epochs=1).fit(X, y)
        return float(next(iter(clf.meta_model_optimizer_.state.values()))["step"])

    assert meta_steps(100) == 5  # epochs
    assert meta_steps(4) == 5 * 3
    assert meta_steps(1) == 5 * 10


# Snapshots.


def test_snapshots__are_the_epochs_of_lowest_clid_and_are_averaged() -> None:
    X, y, _ = noisy_blobs()
    every = quick(max_epochs=8, n_snapshots=8).fit(X, y)
    best = every.snapshot_epoch_[np.argsort(every.snapshot_clid_)[:3]]
    clf = quick(max_epochs=8, n_snapshots=3).fit(X, y)
    assert set(clf.snapshot_epoch_) == set(best)
    assert {str(p.device) for p in clf.snapshots_.parameters()} == {"cpu"}
    x = torch.as_tensor(X, dtype=torch.float32)
    with torch.no_grad():
        probs = [network.eval()(x).softmax(1) for network in clf.snapshots_]
    np.testing.assert_allclose(clf.predict_proba(X), torch.stack(probs).mean(0), atol=1e-6)


def test_snapshots__one__predicts_with_the_last_epoch() -> None:
    X, y, _ = noisy_blobs()
    ensemble, last = quick().fit(X, y), quick(n_snapshots=1).fit(X, y)
    x = torch.as_tensor(X, dtype=torch.float32)
    with torch.no_grad():
        np.testing.assert_allclose(
            last.predict_proba(X), ensemble.module_.eval()(x).softmax(1), atol=1e-6
        )
    np.testing.assert_array_equal(last.transform(X), ensemble.transform(X))
    assert not np.allclose(last.predict_proba(X), ensemble.predict_proba(X))


def test_snapshots__a_callback_restores_the_best_epoch__are_not_used() -> None:
    X, y, _ = noisy_blobs()
    stop = EarlyStopping(load_best=True, sink=lambda *_: None)
    clf = quick(validation_fraction=0.3, callbacks=[stop]).fit(X, y)
    assert len(clf.snapshots_) == 0
    assert len(clf.snapshot_clid_) == 0


# Schedule and meta set.


def test_lr_schedule__cyclic__starts_again_and_ends_low() -> None:
    X, y = blobs(60)
    rates = LearningRates()
    CrossEntropyClassifier(
        lr=0.2, lr_schedule="cyclic", max_epochs=60, device="cpu", callbacks=[rates]
    ).fit(X, y)
    cycle = [0.1 * (1 + np.cos(np.pi * e / 20)) for e in range(20)]
    assert rates.rates["optimizer_"] == pytest.approx(3 * cycle)


def test_meta_set__of_few_rows__warns() -> None:
    X, y = blobs(80)
    with pytest.warns(NoisyFitWarning, match="at least 50 rows. Got 40"):
        quick(max_epochs=2).fit(X, y)
