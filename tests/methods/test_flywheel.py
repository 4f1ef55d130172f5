"""The flywheel's formulas, re-derived with loops, and what its switches do."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits, make_blobs
from sklearn.metrics import roc_auc_score

from noisyfit import FlywheelClassifier, noise
from noisyfit.methods.flywheel import (
    GAMMA_RANGE,
    clean_probability,
    corruption_matrix,
)

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [-30.0, 30.0, 0.0]])
LABELS = torch.tensor([0, 2, 0])


def blobs(n: int = 240, n_classes: int = 3) -> tuple[NDArray[Any], NDArray[Any]]:
    X, y = make_blobs(n, 8, centers=n_classes, cluster_std=2.0, random_state=0)
    return X.astype(np.float32), y


def test_clean_probability_is_eq_4() -> None:
    outlier, gamma = torch.tensor([0.2, 0.05, 0.3]), torch.tensor(0.6)
    got = clean_probability(LOGITS, LABELS, outlier, gamma)
    for i in range(3):
        z = LOGITS[i].double().numpy()
        g = (np.exp(z - z.max()) / np.exp(z - z.max()).sum())[LABELS[i]]
        expected = 0.6 * g / (0.6 * g + 0.4 * float(outlier[i]))
        assert float(got[i]) == pytest.approx(expected, rel=1e-5, abs=1e-12)


def test_clean_probability__logits_of_a_thousand__is_finite() -> None:
    got = clean_probability(1000 * LOGITS, LABELS, torch.full((3,), 1e-3), torch.tensor(0.99))
    assert torch.isfinite(got).all()
    assert float(got[0]) > 0.99
    assert float(got[2]) == 0.0


def test_corruption_matrix_is_t_c() -> None:
    rng = np.random.default_rng(0)
    clean, labels, probs = rng.random(9), rng.integers(0, 3, 9), rng.dirichlet(np.ones(3), 9)
    got = corruption_matrix(
        torch.tensor(clean), torch.tensor(labels), torch.tensor(probs), zero_diagonal=False
    )
    for y in range(3):
        total = sum((1 - clean[i]) * probs[i, y] for i in range(9))
        for observed in range(3):
            mass = sum((1 - clean[i]) * probs[i, y] for i in range(9) if labels[i] == observed)
            assert float(got[y, observed]) == pytest.approx(mass / total, rel=1e-12)


def test_corruption_matrix__zero_diagonal__renormalises_the_rest() -> None:
    probs = torch.tensor([[0.6, 0.4], [0.3, 0.7], [0.5, 0.5]])
    got = corruption_matrix(torch.zeros(3), torch.tensor([0, 1, 1]), probs, zero_diagonal=True)
    assert got.tolist() == [[0.0, 1.0], [1.0, 0.0]]


def test_corruption_matrix__no_corrupted_label__is_uniform() -> None:
    got = corruption_matrix(torch.ones(3), LABELS, LOGITS.softmax(1), zero_diagonal=True)
    assert torch.equal(got, torch.full((3, 3), 1 / 3))


def test_gamma_starts_as_the_agreement_after_the_warm_up() -> None:
    X, y = blobs()
    seen: list[float] = []

    class Recorder(FlywheelClassifier):
        def _clean_probability(self, data: Any) -> Any:
            seen.append(float(self.state_.gamma))
            agrees = (self.state_.ensemble.argmax(1) == data.labels).float().mean()
            seen.append(float(agrees.clamp(*GAMMA_RANGE)))
            return super()._clean_probability(data)

    Recorder(max_epochs=4, warmup_epochs=3, random_state=0).fit(X, y)
    assert seen[0] == seen[1]


def test_outlier_probability_is_eq_14() -> None:
    X, y = blobs(60)
    clf = FlywheelClassifier(max_epochs=5, warmup_epochs=2, random_state=0).fit(X, y)
    ensemble, corruption = clf.state_.ensemble.cpu().numpy(), clf.corruption_matrix_
    for i in range(60):
        expected = sum(ensemble[i, k] * corruption[k, y[i]] for k in range(3))
        assert float(clf.state_.outlier[i]) == pytest.approx(max(expected, 1e-3), rel=1e-5)


def test_adaptive_outlier__off__keeps_one_over_k() -> None:
    X, y = blobs(60)
    clf = FlywheelClassifier(max_epochs=4, warmup_epochs=1, adaptive_outlier=False).fit(X, y)
    assert torch.equal(clf.state_.outlier.cpu(), torch.full((60,), 1 / 3))


@pytest.mark.parametrize(
    "switch",
    [{"cr_weight": 0.0}, {"auxiliary": False}, {"adaptive_outlier": False},
     {"contrastive_weight": 0.0}, {"temporal_momentum": 0.0}, {"temperature": 1.0},
     {"zero_diagonal": False}, {"inference": "main"}],
    ids=lambda switch: next(iter(switch)),
)  # fmt: skip
def test_each_switch_changes_the_result_and_still_learns(switch: dict[str, Any]) -> None:
    X, y = blobs()
    noisy = noise.symmetric(y, 0.3, random_state=0).labels
    shared: dict[str, Any] = {"max_epochs": 15, "warmup_epochs": 5, "random_state": 0}
    default = FlywheelClassifier(**shared).fit(X, noisy)
    switched = FlywheelClassifier(**shared, **switch).fit(X, noisy)
    assert not np.array_equal(default.predict_proba(X), switched.predict_proba(X))
    assert switched.score(X, y) > 0.9


def test_two_classes__clean_and_wrong_labels_are_told_apart() -> None:
    X, y = make_blobs(300, 8, centers=2, cluster_std=3.0, random_state=1)
    scores, areas = [], []
    for seed in range(3):
        noisy = noise.symmetric(y, 0.3, random_state=seed)
        clf = FlywheelClassifier(max_epochs=30, random_state=seed).fit(X, noisy.labels)
        scores.append(clf.score(X, y))
        areas.append(roc_auc_score(~noisy.flipped, clf.label_quality_))
    assert np.mean(scores) > 0.93
    assert np.mean(areas) > 0.93


def test_confidence_weight_is_lowered__majority_class__is_not_pushed_away() -> None:
    rng = np.random.default_rng(0)
    y = (rng.random(400) < 0.1).astype(int)
    X = rng.normal(size=(400, 6)) + 3 * y[:, None]
    clf = FlywheelClassifier(max_epochs=20, warmup_epochs=4, random_state=0).fit(X, y)
    assert clf.score(X[y == 0], y[y == 0]) > 0.95
    assert clf.score(X[y == 1], y[y == 1]) > 0.8


def digit_images(n: int) -> tuple[NDArray[Any], NDArray[Any]]:
    X, y = load_digits(return_X_y=True)
    return (X[:n].reshape(-1, 8, 8) * 15).astype(np.uint8), y[:n]


@pytest.mark.long
def test_warm_up__of_images_that_are_memorised__ends_before_the_last_epoch() -> None:
    X, y = digit_images(500)
    for seed in range(3):
        noisy = noise.symmetric(y, 0.4, random_state=seed).labels
        clf = FlywheelClassifier(max_epochs=120, flip=False, random_state=seed).fit(X, noisy)
        assert clf.warmup_epochs_ == int(clf.state_.first_epoch) < 70


def test_warm_up__still_learning_at_the_end__estimates_are_nan() -> None:
    X, y = digit_images(500)
    params: dict[str, Any] = {"max_epochs": 6, "flip": False, "random_state": 0}
    clf = FlywheelClassifier(inference="main", **params).fit(X, y)
    assert int(clf.state_.first_epoch) == -1
    assert clf.warmup_epochs_ == 6
    assert np.isnan(clf.gamma_)
    assert np.isnan(clf.corruption_matrix_).all()
    rating = clf.score_labels(X, y)
    believed = clf.predict_proba(X)[np.arange(500), y]
    np.testing.assert_allclose(rating, believed / (believed + 0.1), rtol=1e-3, atol=1e-6)


def test_without_auxiliary_network__main_network_learns_eq_7_on_labelled_rows_alone() -> None:
    """Unlabelled rows were class 0 in the prior, and an auxiliary network still predicted."""
    X, y = blobs(9)
    y[[1, 4, 5]] = -1
    seen: list[tuple[Any, ...]] = []

    class Recorder(FlywheelClassifier):
        def _train_main(self, data: Any, labels: Any, weights: Any = None) -> None:
            self.logits: list[Any] = []
            hook = self.module_.register_forward_hook(lambda *call: self.logits.append(call[2]))
            super()._train_main(data, labels, weights)
            hook.remove()
            seen.append((self._run.losses["train_loss"][-1], self.logits, weights, data.labels))

    clf = Recorder(max_epochs=2, warmup_epochs=1, auxiliary=False, augmentation=None,
                   cr_weight=1.0, missing_label=-1, random_state=0).fit(X, y)  # fmt: skip
    loss, (logits,), weights, labels = seen[0]
    assert not hasattr(clf, "main_")
    kept = [i for i in range(9) if labels[i] >= 0]
    assert len(logits) == len(kept) == 6
    assert 0 < float(weights[kept].min()) < float(weights[kept].max()) < 1
    prior = [sum(int(labels[i]) == c for i in kept) / 6 for c in range(3)]
    # The batch is shuffled: its rows are told apart by what the network says of them.
    log_probs = logits.detach().double().log_softmax(1)
    possible = []
    for order in itertools.permutations(kept):
        total = 0.0
        for row, i in zip(log_probs, order, strict=True):
            total -= float(weights[i]) * float(row[labels[i]])
            total += sum(p * math.log(math.exp(v) + 1e-8) for p, v in zip(prior, row, strict=True))
        possible.append(total / 6)
    assert min(abs(value - float(loss)) for value in possible) < 1e-6


@pytest.mark.parametrize(
    ("inference", "predicting"),
    [("both", ["module", "main"]), ("auxiliary", ["module"]), ("main", ["main"])],
)
def test_inference__predicts_with_the_mean_logits_of_these_networks(
    inference: str, predicting: list[str]
) -> None:
    X, y = blobs(60)
    clf = FlywheelClassifier(max_epochs=4, warmup_epochs=2, inference=inference, random_state=0)
    clf.fit(X, y)
    rows = torch.as_tensor(X).to(clf.device_)
    with torch.no_grad():
        logits = [getattr(clf, f"{name}_").eval()(rows).double() for name in predicting]
    expected = (sum(logits) / len(logits)).softmax(1).cpu().numpy()
    np.testing.assert_allclose(clf.predict_proba(X), expected, atol=1e-6)


def test_inference__without_auxiliary_network__the_main_one_predicts() -> None:
    clf = FlywheelClassifier(max_epochs=4, warmup_epochs=2, auxiliary=False, random_state=0)
    assert clf.fit(*blobs(60)).predicting_ == ["module"]


def test_score_labels__wrong_labels_of_new_rows__are_rated_low() -> None:
    X, y = blobs(400)
    areas = []
    for seed in range(3):
        noisy = noise.symmetric(y, 0.3, random_state=seed)
        clf = FlywheelClassifier(max_epochs=20, random_state=seed).fit(X[:250], noisy.labels[:250])
        rating = clf.score_labels(X[250:], noisy.labels[250:])
        areas.append(roc_auc_score(~noisy.flipped[250:], rating))
    assert np.mean(areas) > 0.95


@pytest.mark.data
def test_fashion_mnist__short_training__is_not_far_below_cross_entropy(data_folder: Any) -> None:
    """Cycles that begin while the CNN still learns end far below."""
    from noisyfit import CrossEntropyClassifier

    with np.load(data_folder / "fashion_mnist.npz") as file:
        x, y = file["x_train"][:2000], file["y_train"][:2000]
        x_test, y_test = file["x_test"][:2000], file["y_test"][:2000]
    gains = []
    for seed in range(3):
        noisy = noise.symmetric(y, 0.4, random_state=seed).labels
        shared: dict[str, Any] = {"max_epochs": 12, "module__width": 16, "random_state": seed}
        plain = CrossEntropyClassifier(**shared).fit(x, noisy).score(x_test, y_test)
        gains.append(FlywheelClassifier(**shared).fit(x, noisy).score(x_test, y_test) - plain)
    assert np.mean(gains) > -0.05
