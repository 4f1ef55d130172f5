"""Few labels, many rows: the formulas again in float64, and what the labels of others change."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from noisyfit import CrossEntropyClassifier, SemiSupervisedClassifier
from noisyfit.data.training import TrainingData
from noisyfit.methods.semisupervised import learning_status
from noisyfit.noise import symmetric
from tests.helpers import Linear, blobs
from tests.helpers import quick as quick_of


def quick(**params: Any) -> SemiSupervisedClassifier:
    return quick_of(SemiSupervisedClassifier, **{"missing_label": -1} | params)  # type: ignore[no-any-return]


def test_all_labels_alone__are_cross_entropy__bit_for_bit() -> None:
    X, y = blobs(150)
    alone = quick(meta_model=None, unlabelled_weight=0.0).fit(X, y)
    plain = quick_of(CrossEntropyClassifier).fit(X, y)
    for ours, theirs in zip(alone.module_.parameters(), plain.module_.parameters(), strict=True):
        assert torch.equal(ours, theirs)


# A naive version, in float64, on sequences made by hand.


def naive_guesses(
    consistency: str, rows: list[int], probs: Any, selected: list[int]
) -> tuple[Any, Any]:
    """Return targets (one-hot or soft) and mask of a batch; remember the classes of FlexMatch."""
    counts = [selected.count(c) for c in range(-1, 3)]
    learned = np.array(counts[1:]) / max(counts)
    best = probs.argmax(1)
    if consistency == "uda":
        powered = probs**2.5
        return powered / powered.sum(1, keepdims=True), probs.max(1) >= 0.8
    cutoff = 0.95 * (learned / (2 - learned))[best] if consistency == "flexmatch" else 0.95
    for row, c, sure in zip(rows, best.tolist(), probs.max(1) >= 0.95, strict=True):
        if sure:
            selected[row] = c
    return np.eye(3)[best], probs.max(1) >= cutoff


@pytest.mark.parametrize("consistency", ["fixmatch", "flexmatch", "uda"])
def test_guesses__are_those_of_a_naive_version(consistency: str) -> None:
    X, y = blobs(30)
    clf = quick(consistency=consistency, max_epochs=1, module=Linear).fit(X, y)
    if consistency == "flexmatch":
        clf.state_.selected.fill_(-1)
    rng, selected = np.random.default_rng(0), [-1] * 30
    for _ in range(12):
        rows = rng.choice(30, 8, replace=False).tolist()
        logits = rng.normal(0, 4, (8, 3))
        probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        targets, kept = naive_guesses(consistency, rows, probs, selected)
        found = clf._guess(torch.tensor(rows), torch.tensor(logits))
        guessed = found.targets.numpy()
        one_hot = guessed if consistency == "uda" else np.eye(3)[guessed]
        np.testing.assert_allclose(one_hot, targets, atol=1e-5)
        assert found.kept.tolist() == kept.tolist()


def test_learning_status__counts_rows_without_a_class() -> None:
    selected = torch.tensor([-1, -1, -1, 0, 0, 2])
    torch.testing.assert_close(learning_status(selected, 3), torch.tensor([2 / 3, 0.0, 1 / 3]))


@pytest.mark.parametrize("consistency", ["fixmatch", "flexmatch", "uda"])
def test_training__is_that_of_a_naive_version(
    consistency: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = blobs(40)
    X = X.astype(np.float32) / 3
    few = np.where(np.arange(40) < 12, y, -1)
    rng = np.random.default_rng(1)
    views = {
        name: X + rng.normal(0, 0.1, X.shape).astype(np.float32) for name in ("weak", "strong")
    }
    steps = [(rng.choice(12, 6, False), rng.choice(40, 20, False)) for _ in range(30)]

    def by_hand(self: Any, data: TrainingData) -> Iterator[tuple[Tensor, ...]]:
        for own, others in steps:
            weak, strong = (torch.tensor(views[name][others]) for name in ("weak", "strong"))
            yield torch.tensor(own), torch.tensor(X[own]), torch.tensor(others), weak, strong

    monkeypatch.setattr(SemiSupervisedClassifier, "_steps", by_hand)
    clf = quick(
        consistency=consistency, meta_model=None, unlabelled_weight=0.5, module=Linear,
        max_epochs=2, lr_schedule="constant", lr=0.5,
        optimizer__momentum=0.0, optimizer__weight_decay=0.0,
    )  # fmt: skip
    torch.manual_seed(0)
    start = Linear(X.shape[1], 3)
    clf.set_params(module=start).fit(X, few)

    mean, scale = (t.astype(float) for t in (clf.feature_mean_, clf.feature_scale_))
    weight, bias = (p.detach().double().numpy().copy() for p in start.parameters())
    average, n_steps, selected = [weight.copy(), bias.copy()], 0, [-1] * 40

    def probs(x: Any) -> Any:
        z = ((x.astype(float) - mean) / scale) @ weight.T + bias
        z = np.exp(z - z.max(1, keepdims=True))
        return z / z.sum(1, keepdims=True)

    for own, others in steps * 2:
        guesses = naive_guesses(
            consistency, others.tolist(), probs(views["weak"][others]), selected
        )
        gradient_w, gradient_b = np.zeros_like(weight), np.zeros_like(bias)
        batches = [(X[own], np.eye(3)[few[own]], np.full(6, 1 / 6))]
        batches.append((views["strong"][others], guesses[0], 0.5 * guesses[1] / 20))
        for x, targets, weights in batches:
            residual = weights[:, None] * (probs(x) - targets)
            gradient_w += residual.T @ ((x.astype(float) - mean) / scale)
            gradient_b += residual.sum(0)
        weight -= 0.5 * gradient_w
        bias -= 0.5 * gradient_b
        n_steps += 1
        share = max(1 / n_steps, 0.001)
        average = [a + share * (v - a) for a, v in zip(average, (weight, bias), strict=True)]
    found = [p.detach().numpy() for p in clf.average_.parameters()]
    for ours, naive in zip(found, average, strict=True):
        np.testing.assert_allclose(ours, naive, atol=2e-4)


# What judges.


def test_clid__labels_of_rows_without_a_label__are_never_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X, y = blobs(240)
    few = np.where(np.arange(240) < 60, y, -1)
    blind = quick().fit(X, few)
    own = SemiSupervisedClassifier._meta_set

    def knowing(self: Any, data: TrainingData) -> TrainingData | None:
        meta = own(self, data)
        assert meta is not None
        assert not meta.has_label.any()
        return replace(meta, labels=torch.tensor(y[few < 0]))

    monkeypatch.setattr(SemiSupervisedClassifier, "_meta_set", knowing)
    np.testing.assert_array_equal(quick().fit(X, few).predict_proba(X), blind.predict_proba(X))


@pytest.mark.parametrize("objective, labelled", [("clid", False), ("mae", True), ("ce", True)])
def test_judges__are_rows_of_the_kind_that_the_objective_needs(
    objective: str, labelled: bool
) -> None:
    X, y = blobs(240)
    few = np.where(np.arange(240) < 60, y, -1)
    clf = quick(meta_objective=objective).fit(X, few)
    data = clf._labelled(X, few, "y")
    meta = clf._meta_set(data)
    assert meta is not None
    assert meta.has_label.all() if labelled else not meta.has_label.any()
    assert math.isfinite(clf.history_[-1, "outer_loss"])


@pytest.mark.parametrize("meta_model", ["wnet", "vri", None])
@pytest.mark.parametrize("regularizer", ["elr", "mixup"])
def test_regularizers__learn_beside_every_meta_model(
    meta_model: str | None, regularizer: str
) -> None:
    X, y = blobs(240)
    few = np.where(np.arange(240) < 60, y, -1)
    clf = quick(meta_model=meta_model, regularizer=regularizer, max_epochs=4).fit(X, few)
    assert clf.score(X, y) > 0.95


def test_averaged_network__predicts() -> None:
    X, y = blobs(150)
    clf = quick().fit(X, y)
    assert clf.predicting_ == ["average"]
    average: nn.Module = clf.average_
    logits = average.eval()(torch.tensor(X, dtype=torch.float32)).softmax(1)
    np.testing.assert_allclose(clf.predict_proba(X), logits.detach().numpy(), atol=1e-6)


@pytest.mark.long
def test_digits__hundred_labels_of_which_forty_percent_are_wrong__win_ten_points() -> None:
    X, y = load_digits(return_X_y=True)
    gains = []
    for seed in range(3):
        X_train, X_test, y_train, y_test = train_test_split(
            X, y, test_size=540, stratify=y, random_state=seed
        )
        rows = train_test_split(
            np.arange(len(X_train)), train_size=100, stratify=y_train, random_state=seed
        )[0]
        few = np.full(len(X_train), -1)
        few[rows] = symmetric(y_train[rows], 0.4, random_state=seed).labels
        plain = CrossEntropyClassifier(random_state=seed, device="cpu")
        plain.fit(X_train[rows], few[rows])
        clf = SemiSupervisedClassifier(
            max_epochs=30, missing_label=-1, random_state=seed, device="cpu"
        ).fit(X_train, few)
        gains.append(clf.score(X_test, y_test) - plain.score(X_test, y_test))
    assert np.mean(gains) > 0.1
