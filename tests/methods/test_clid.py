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
from noisyfit.data.training import TrainingData
from noisyfit.metrics import detection_auroc
from noisyfit.nn import losses
from noisyfit.nn.features import logits_and_embeddings
from tests.helpers import LearningRates, blobs, images, noisy_blobs

SEEDS = (0, 1, 2)


def quick(**params: Any) -> CLIDMetaClassifier:
    settings: dict[str, Any] = {"max_epochs": 6, "warmup_epochs": 1, "random_state": 0}
    return CLIDMetaClassifier(**settings | {"device": "cpu"} | params)


@pytest.mark.long
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
    one, other = [
        quick(meta_objective=objective).fit(X, y, X_meta=X_meta, y_meta=labels).predict_proba(X)
        for labels in (y_meta, np.roll(y_meta, 1))
    ]
    assert np.array_equal(one, other) != looks


def meta_sets_of_a_fit(monkeypatch: pytest.MonkeyPatch, X: Any, y: Any, **params: Any) -> Any:
    """Fit, and tell of which rows each meta batch was drawn."""
    found, draw = [], TrainingData.draw

    def spy(self: TrainingData, *args: Any) -> Any:
        assert self.index is not None
        found.append(self.index.tolist())
        return draw(self, *args)

    monkeypatch.setattr(TrainingData, "draw", spy)
    return quick(**params).fit(X, y), found


@pytest.mark.parametrize("objective", ["clid", "ce_pseudo_clean", "mae", "ce"])
def test_meta_objective__given_labels_that_judge__are_not_trained_on_afterwards(
    objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y, _ = noisy_blobs()
    clf, meta_sets = meta_sets_of_a_fit(monkeypatch, X, y, meta_objective=objective)
    left_out = meta_sets[0] if objective in ("mae", "ce") else []
    assert np.flatnonzero(clf.sample_weight_ == 0).tolist() == left_out


@pytest.mark.parametrize("objective", ["ce_pseudo_clean", "mae", "ce"])
def test_meta_objective__labels_judge__come_evenly_from_all_classes(
    objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = blobs(400)
    y = np.where(np.arange(400) % 4 > 0, 0, y)  # most rows have one class
    _, meta_sets = meta_sets_of_a_fit(monkeypatch, X, y, meta_objective=objective, max_epochs=3)
    sizes = np.bincount(y)
    for rows in meta_sets:
        counts = np.bincount(y[rows], minlength=3)
        assert counts[1:].tolist() == (sizes[1:] // 2).tolist()
        assert counts[0] == min(200 - counts[1:].sum(), sizes[0] // 2)
    changes = any(rows != meta_sets[0] for rows in meta_sets)
    assert changes == (objective == "ce_pseudo_clean")


def test_meta_objective__pseudo_clean__has_more_right_labels_than_a_draw(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for seed in SEEDS:
        X, y, flipped = noisy_blobs(seed)
        right = {}
        for objective in ("ce", "ce_pseudo_clean"):
            params = {"meta_objective": objective, "random_state": seed, "max_epochs": 12}
            _, meta_sets = meta_sets_of_a_fit(monkeypatch, X, y, **params)
            right[objective] = 1 - flipped[meta_sets[-1]].mean()
        assert right["ce_pseudo_clean"] > right["ce"] + 0.15


@pytest.mark.filterwarnings("ignore:A meta set")
@pytest.mark.parametrize("objective", ["ce_pseudo_clean", "mae", "ce"])
def test_meta_objective__one_row_of_each_class__judges_by_none(objective: str) -> None:
    X, _ = blobs(3)
    clf = quick(meta_objective=objective, max_epochs=3, n_snapshots=2).fit(X, [0, 1, 2])
    assert clf.n_meta_epochs_ == 0
    assert np.isinf(clf.snapshot_score_).all()
    assert np.isfinite(clf.predict_proba(X)).all()


def test_warm_up_that_lasts_to_the_end__no_weight_is_known() -> None:
    X, y = images(420)
    with pytest.warns(NoisyFitWarning, match="was cross-entropy, corrected"):
        clf = CLIDMetaClassifier(max_epochs=2, random_state=0).fit(X, y)
    assert np.isnan(clf.sample_weight_).all()
    assert np.isinf(clf.snapshot_score_).all()
    assert clf.n_meta_epochs_ == 0


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


@pytest.mark.parametrize("given, drawn", [({}, 100), ({"meta_batch_size": 7}, 7)])
def test_meta_batch_size__is_the_number_of_rows_that_judge_a_step(
    given: dict[str, int], drawn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y, _ = noisy_blobs()
    sizes, draw = set(), TrainingData.draw

    def spy(self: TrainingData, *args: Any) -> Any:
        x, labels = draw(self, *args)
        sizes.add(len(x))
        return x, labels

    monkeypatch.setattr(TrainingData, "draw", spy)
    quick(max_epochs=3, **given).fit(X, y)
    assert sizes == {drawn}


def test_clid_neighbors__as_many_as_the_meta_batch__change_nothing_and_fewer_do() -> None:
    X, y, _ = noisy_blobs()
    dense, all_pairs, sparse = (
        quick(clid_neighbors=k, n_snapshots=1).fit(X, y).predict_proba(X) for k in (None, 99, 3)
    )
    assert np.array_equal(dense, all_pairs)
    assert not np.array_equal(dense, sparse)


def epochs_until_no_progress(outer: list[float], patience: int) -> int:
    """How many epochs have meta steps: until so many in a row brought no new lowest loss."""
    for n_epochs in range(1, len(outer) + 1):
        waited = 0
        while waited < n_epochs and outer[n_epochs - 1 - waited] != min(outer[:n_epochs]):
            waited += 1
        if waited >= patience:
            return n_epochs
    return len(outer)


@pytest.mark.parametrize("patience", [1, 2])
def test_meta_patience__no_lower_outer_loss__leaves_the_meta_model_as_it_is(patience: int) -> None:
    X, y, _ = noisy_blobs()
    params = {"max_epochs": 20, "warmup_epochs": 2, "batch_size": 64}
    always = quick(**params).fit(X, y)
    stopped = quick(**params, meta_patience=patience).fit(X, y)
    outer = [row["outer_loss"] for row in always.history_[2:]]
    n_epochs = epochs_until_no_progress(outer, patience)
    assert 1 < n_epochs < 18  # else the run shows nothing
    assert (always.n_meta_epochs_, stopped.n_meta_epochs_) == (18, n_epochs)
    assert [row.get("outer_loss") for row in stopped.history_[2:]] == (
        outer[:n_epochs] + [None] * (18 - n_epochs)
    )
    states = (next(iter(c.meta_model_optimizer_.state.values())) for c in (always, stopped))
    assert [float(state["step"]) for state in states] == [18 * 4, n_epochs * 4]


# Snapshots.


@pytest.mark.parametrize("objective", ["clid", "mae", "ce", "ce_pseudo_clean"])
def test_snapshots__are_scored_by_the_meta_objective(objective: str) -> None:
    X, y, _ = noisy_blobs()
    X_meta, y_meta = blobs(120, seed=1)
    clf = quick(meta_objective=objective, n_snapshots=6, warmup_epochs=1)
    clf.fit(X, y, X_meta=X_meta, y_meta=y_meta)
    kept = np.isfinite(clf.snapshot_score_)
    assert kept.sum() == 5
    for score, network in zip(clf.snapshot_score_[kept], clf.snapshots_.kept(), strict=True):
        with torch.no_grad():
            logits, z = logits_and_embeddings(network.eval(), torch.as_tensor(X_meta).float())
        probs = logits.softmax(1)
        given = probs[np.arange(120), y_meta]
        expected = {
            "clid": losses.clid(z, probs).mean(),
            "mae": (2 - 2 * given).mean(),
            "ce": -given.log().mean(),
        }["ce" if objective == "ce_pseudo_clean" else objective]
        assert score == pytest.approx(float(expected), rel=1e-4)


def test_snapshots__are_the_epochs_of_lowest_clid_and_are_averaged() -> None:
    X, y, _ = noisy_blobs()
    every = quick(max_epochs=8, n_snapshots=8).fit(X, y)
    best = every.snapshot_epoch_[np.argsort(every.snapshot_score_)[:3]]
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
    assert len(clf.snapshot_score_) == 0


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
