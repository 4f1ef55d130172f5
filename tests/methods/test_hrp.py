"""The reliabilities against double backward, the reconstructed equations, and the switches."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, make_classification
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from noisyfit import CrossEntropyClassifier, HRPClassifier, NoisyFitWarning, noise
from noisyfit.data.training import TrainingData
from noisyfit.methods.hrp import (
    Reliability,
    Targets,
    even_between_classes,
    gains,
    min_max,
    mixing_share,
    normalized,
    pair_agreement,
    ranks,
)
from noisyfit.metrics import detection_auroc
from noisyfit.nn.beliefs import one_hot
from noisyfit.nn.metagrad import logit_jvp
from tests.helpers import blobs, noisy_blobs

SEEDS = (0, 1, 2)


def quick(**params: Any) -> HRPClassifier:
    settings: dict[str, Any] = {"max_epochs": 6, "warmup_epochs": 1, "random_state": 0}
    return HRPClassifier(**settings | {"device": "cpu"} | params)


@pytest.mark.long
@pytest.mark.parametrize("with_trusted", [True, False], ids=["trusted rows", "none"])
def test_digits__pairflip__is_far_better_than_cross_entropy(with_trusted: bool) -> None:
    X, y = load_digits(return_X_y=True)
    gained, found = [], []
    for seed in SEEDS:
        X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=seed, stratify=y)
        noisy = noise.pairflip(y_train, 0.4, random_state=seed)
        trusted = np.arange(len(y_train)) < 100
        given = np.where(trusted & with_trusted, y_train, noisy.labels)
        ours = HRPClassifier(max_epochs=20, meta_every=4, random_state=seed)
        ours.fit(X_train, given, clean_mask=trusted if with_trusted else None)
        baseline = CrossEntropyClassifier(max_epochs=20, random_state=seed).fit(X_train, given)
        gained.append(ours.score(X_test, y_test) - baseline.score(X_test, y_test))
        found.append(detection_auroc(given != y_train, ours.label_reliability_))
    assert min(gained) > 0.05
    assert min(found) > 0.9


# The reliabilities.


@pytest.mark.parametrize("frozen", [True, False], ids=["running statistics", "batch statistics"])
def test_gains__are_the_derivatives_of_an_unrolled_step(frozen: bool) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).double()
    x, x_meta = torch.randn(2, 10, 4, dtype=torch.float64)
    given, guessed, meta_labels = torch.randint(3, (3, 10))
    parameters = dict(network.named_parameters())

    network.train(not frozen)
    weights = torch.zeros(2, 10, dtype=torch.float64, requires_grad=True)  # eps of Eq. 1
    logits = functional_call(network, dict(parameters), (x,))
    losses = [F.cross_entropy(logits, labels, reduction="none") for labels in (given, guessed)]
    inner = (weights[0] * losses[0] + weights[1] * losses[1]).sum()
    steps = torch.autograd.grad(inner, list(parameters.values()), create_graph=True)
    moved: dict[str, Tensor] = {
        name: p - step for (name, p), step in zip(parameters.items(), steps, strict=True)
    }
    network.eval()
    outer = F.cross_entropy(functional_call(network, moved, (x_meta,)), meta_labels)
    (expected,) = torch.autograd.grad(-outer, weights)

    direction = torch.autograd.grad(
        F.cross_entropy(network(x_meta), meta_labels), list(parameters.values())
    )
    network.train(not frozen)
    z, tangents = logit_jvp(network, x, dict(zip(parameters, direction, strict=True)))
    got = torch.stack([gains(z, tangents, labels, unit=False) for labels in (given, guessed)])
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-14)

    lengths = (z.softmax(1) - F.one_hot(given, 3)).norm(dim=1)
    unit = gains(z, tangents, given, unit=True)
    torch.testing.assert_close(unit * lengths, expected[0], rtol=1e-10, atol=1e-14)


def test_gains__no_label__is_nothing() -> None:
    z, tangents = torch.randn(2, 4, 3)
    found = gains(z, tangents, torch.tensor([0, -1, 2, -1]), unit=True)
    assert found[[1, 3]].tolist() == [0, 0]
    assert (found[[0, 2]] != 0).all()


@pytest.mark.parametrize(
    "norm, expected",
    [("mean", [0, 1, 3, 0]), ("sum", [0, 0.25, 0.75, 0]), ("max", [0, 1 / 3, 1, 0])],
)
def test_normalized__negative_gains_are_nothing(norm: str, expected: list[float]) -> None:
    found = normalized(torch.tensor([-5.0, 1.0, 3.0, 0.0]), norm)
    assert found.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("norm, alike", [("mean", 1), ("sum", 1 / 3), ("max", 1)])
def test_normalized__nothing_gains__rates_all_alike(norm: str, alike: float) -> None:
    found = normalized(torch.tensor([-5.0, 0.0, -1.0]), norm)
    assert found.tolist() == pytest.approx([alike] * 3)


def test_min_max__constant__is_fully_reliable() -> None:
    """The contrastive term was switched off in every batch whose reliabilities were all alike."""
    assert min_max(torch.tensor([1.0, 3.0, 2.0])).tolist() == [0, 1, 0.5]
    assert min_max(torch.ones(3)).tolist() == [1, 1, 1]
    assert min_max(torch.zeros(1)).tolist() == [1]


def test_mixing_share__the_more_reliable_row_has_the_larger_share() -> None:
    torch.manual_seed(0)
    own, other = torch.full((20000,), 1.5), torch.full((20000,), 0.5)
    share = mixing_share(own, other, 4.0)
    # Beta(3, 1): mean 3/4, variance 3/80
    assert float(share.mean()) == pytest.approx(0.75, abs=0.01)
    assert float(share.var()) == pytest.approx(3 / 80, abs=0.003)


def test_mixing_share__alike__is_symmetric() -> None:
    torch.manual_seed(0)
    share = mixing_share(torch.ones(20000), torch.ones(20000), 4.0)
    # Beta(2, 2): mean 1/2, variance 1/20
    assert float(share.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(share.var()) == pytest.approx(1 / 20, abs=0.003)


def test_mixing_share__reliability_of_nothing__is_finite() -> None:
    share = mixing_share(torch.full((1000,), 1e-9), torch.ones(1000), 1e-3)
    assert bool(((share >= 0) & (share <= 1)).all())


def test_pair_agreement_is_a_weighted_share() -> None:
    targets = Targets(
        torch.tensor([0, 0, 1, 2]), torch.tensor([0, 0, 0, 1]), torch.ones(4, dtype=torch.bool)
    )
    weights = torch.tensor([1.0, 0.5, 0.2, 1.0])
    agree, total = 0.0, 0.0
    for i in range(3):
        for j in range(3):
            if i != j:
                pair = float(weights[i] * weights[j])
                total += pair
                agree += pair * (int(targets.label[i]) == int(targets.label[j]))
    assert float(pair_agreement(targets, weights)) == pytest.approx(agree / total)


def test_ranks__lie_in_the_unit_interval() -> None:
    assert ranks(torch.tensor([0.3, -1.0, 7.0, 2.0])).tolist() == [0.5, 0.25, 1.0, 0.75]


# What is made of the reliabilities of a batch.


class Recorded(HRPClassifier):
    """Keeps the labels and reliabilities of every batch, and the epochs with late guesses."""

    batches_: list[tuple[Tensor, Reliability]]
    late_: list[bool]

    def _fit(self, data: TrainingData) -> None:
        self.batches_, self.late_ = [], []
        super()._fit(data)

    def _reliability(self, teacher: str, x: Tensor, labels: Tensor, *rest: Any) -> Reliability:
        found = super()._reliability(teacher, x, labels, *rest)
        self.batches_.append((labels, found))
        return found

    def _select(self, data: TrainingData, teacher: str, late: bool) -> Targets:
        self.late_.append(late)
        return super()._select(data, teacher, late)


def recorded(**params: Any) -> Recorded:
    """Fit blobs with wrong labels, of which one in four is missing."""
    X, y, _ = noisy_blobs()
    given = np.where(np.arange(len(y)) % 4 == 0, -1, y)
    settings: dict[str, Any] = {"max_epochs": 6, "warmup_epochs": 1, "random_state": 0}
    clf = Recorded(**settings | {"device": "cpu"} | params)
    return clf.fit(X, given)


@pytest.mark.parametrize("norm", ["mean", "sum", "max"])
def test_total_reliability__any_norm__is_bounded_in_units_of_the_batch_mean(norm: str) -> None:
    for _, found in recorded(norm=norm, missing_label=-1, batch_size=8).batches_:
        alpha, beta = found.label.double().tolist(), found.pseudo.double().tolist()
        mean = sum(a + b for a, b in zip(alpha, beta, strict=True)) / len(alpha)
        for a, b, rho in zip(alpha, beta, found.total.tolist(), strict=True):
            assert rho == pytest.approx(min(max((a + b) / mean, 0.5), 1.5), rel=1e-5)


def test_norm__sum__trains_like_the_mean() -> None:
    X, y, _ = noisy_blobs()
    mean, total = quick(batch_size=48).fit(X, y), quick(batch_size=48, norm="sum").fit(X, y)
    np.testing.assert_allclose(mean.predict_proba(X), total.predict_proba(X), atol=1e-3)
    assert total.label_reliability_.mean() == pytest.approx(1 / 48, rel=0.01)


def test_reliability__coupled__sums_to_one_in_every_row() -> None:
    """Alpha was above 1 for one row in three, and alpha + beta with it."""
    batches = recorded(reliability="coupled", missing_label=-1).batches_
    assert max(float(found.label.max()) for _, found in batches) == 1
    for labels, found in batches:
        np.testing.assert_array_equal(found.label[labels < 0], 0)
        np.testing.assert_array_equal(found.pseudo, 1 - found.label)
        np.testing.assert_array_equal(found.total, 1)


@pytest.mark.parametrize("reliability", ["disentangled", "coupled", None])
def test_reliability__nothing_gains__a_row_without_a_label_has_no_alpha(
    reliability: str | None,
) -> None:
    """Rows without a label had alpha 1 in batches in which nothing gains."""
    X, y, _ = noisy_blobs()
    clf = quick(reliability=reliability).fit(X, y)
    x, labels = torch.as_tensor(X[:8], dtype=torch.float32), torch.tensor([0, -1, 2, 1] * 2)
    still = {name: torch.zeros_like(p) for name, p in clf.module_.named_parameters()}
    direction = still if reliability else None
    found = clf._reliability("module", x, labels, torch.zeros(8, dtype=torch.long), direction)
    assert found.label.tolist() == [1, 0, 1, 1] * 2
    expected = {"disentangled": [1, 1, 1, 1], "coupled": [0, 1, 0, 0], None: [1, 1, 1, 1]}
    assert found.pseudo.tolist() == expected[reliability] * 2
    share = [8 / 7, 4 / 7, 8 / 7, 8 / 7] if reliability == "disentangled" else [1, 1, 1, 1]
    assert found.total.tolist() == pytest.approx(share * 2)


@pytest.mark.parametrize("soft", [True, False], ids=["probabilities", "classes"])
def test_even_between_classes__each_class_keeps_its_share_of_the_weight(soft: bool) -> None:
    """Where small classes had the high reliabilities, the largest one was hardly predicted."""
    torch.manual_seed(0)
    n, classes = 4000, torch.arange(4000) % 10
    classes = classes.clamp(max=3)  # the last class has seven rows of ten
    values = (torch.rand(n) * torch.tensor([3.0, 0.5, 1.0, 0.1])[classes]).double()
    onehot = one_hot(classes, 4).double()
    shares = 0.8 * onehot + 0.05 if soft else onehot
    found = even_between_classes(values, shares)
    assert float(found.mean()) == pytest.approx(float(values.mean()))
    for k in range(4):
        weight = sum(float(found[i] * shares[i, k]) for i in range(n)) / float(found.sum())
        assert weight == pytest.approx(float(shares[:, k].mean()), rel=0.05)
    for k in range(4):  # rows of a class keep their order
        own = classes == k
        assert torch.equal(found[own].argsort(), values[own].argsort())


def test_even_between_classes__rows_without_a_label_are_left_alone() -> None:
    values, labels = torch.tensor([4.0, 4.0, 1.0, 1.0, 2.0]), torch.tensor([0, 0, 1, 1, -1])
    found = even_between_classes(values, one_hot(labels, 2))
    assert float(found[0] / found[2]) < 1.5
    assert float(found.sum()) == pytest.approx(12)


@pytest.mark.parametrize("reliability", ["disentangled", "coupled"])
def test_reweighted__is_equation_13(reliability: str) -> None:
    torch.manual_seed(0)
    logits = torch.randn(6, 3, dtype=torch.float64)
    label, pseudo = torch.randint(3, (2, 6))
    trusted = torch.tensor([True, False, False, True, False, False])
    alpha, rho = torch.rand(6), torch.rand(6) + 0.1
    targets = Targets(label, pseudo, torch.ones(6, dtype=torch.bool))
    found = HRPClassifier(reliability=reliability, reweighting=0.3)._reweighted(
        logits, targets, Reliability(alpha, 1 - alpha, rho), trusted
    )
    log_p = logits.log_softmax(1).tolist()
    mean = sum(rho.tolist()) / 6
    for i in range(6):
        a = 1.0 if trusted[i] or reliability == "disentangled" else float(alpha[i])
        weight = 1.0 if trusted[i] else 1 + 0.3 * (float(rho[i]) / mean - 1)
        loss = -a * log_p[i][label[i]] - (1 - a) * log_p[i][pseudo[i]]
        assert float(found[i]) == pytest.approx(weight * loss, rel=1e-5)


@pytest.mark.parametrize(
    "warmup_epochs, first",
    [(2, 8), (5, 9), (6, 11), (8, None)],
    ids=["60 % of the epochs", "the end of the ramp", "the last epoch", "never"],
)
def test_late_guesses__start_when_both_the_epochs_and_the_ramp_allow(
    warmup_epochs: int, first: int | None
) -> None:
    """They could start while the other terms were still being phased in."""
    late = recorded(max_epochs=12, warmup_epochs=warmup_epochs, missing_label=-1).late_[::2]
    epochs = range(warmup_epochs, 12)
    assert late == [first is not None and epoch >= first for epoch in epochs]


def test_gate__leaves_the_weight_of_the_term_as_it_is() -> None:
    """The mean gate was 1.4: without the gate the mixed pairs had another weight, too."""
    for seed in SEEDS:
        X, y = make_classification(
            600, 20, n_informative=12, n_classes=5, n_clusters_per_class=1, random_state=seed
        )
        noisy = noise.symmetric(y, 0.4, random_state=seed).labels
        last = quick(max_epochs=12, random_state=seed).fit(X, noisy).history_[-1]
        assert last["gate"] == pytest.approx(1, abs=0.15)
        assert 0 <= last["gate_at_lower_bound"] < 0.25
        assert 0 < last["rows_at_upper_bound"] < 0.25


# Switches.


@pytest.mark.parametrize(
    "params",
    [
        {"reliability": None},
        {"reliability": "coupled"},
        {"mixing": "symmetric"},
        {"mixing": None},
        {"balanced": False},
        {"gated": False},
        {"contrastive_weight": 0.0},
        {"reweighting": 0.0},
        {"unit_gradients": False},
        {"meta_objective": "ce"},
        {"meta_every": 3},
    ],
    ids=str,
)
def test_switch__each__changes_the_training(params: dict[str, Any]) -> None:
    X, y, _ = noisy_blobs()
    ours, other = quick(batch_size=48).fit(X, y), quick(batch_size=48, **params).fit(X, y)
    assert not np.allclose(ours.predict_proba(X), other.predict_proba(X), atol=1e-5)
    assert other.score(X, y) > 0.5


def test_reliability__none__trusts_every_label_alike() -> None:
    X, y, _ = noisy_blobs()
    clf = quick(reliability=None).fit(X, y)
    np.testing.assert_array_equal(clf.label_reliability_, 1)
    assert set(clf.history_[-1]) >= {"gate", "pair_agreement", "peer_loss"}


def test_reliability__none__leaves_the_contrastive_term() -> None:
    """Without reliabilities no weight of the contrastive term changed a bit."""
    X, y, _ = noisy_blobs()
    low, high = (
        quick(reliability=None, contrastive_weight=weight).fit(X, y) for weight in (0.05, 1.0)
    )
    assert not np.allclose(low.predict_proba(X), high.predict_proba(X), atol=1e-5)


def test_reliability__none__gates_nothing() -> None:
    X, y, _ = noisy_blobs()
    clf = quick(reliability=None).fit(X, y)
    assert clf.history_[-1]["gate"] == pytest.approx(1)
    free = quick(reliability=None, gated=False, mixing="symmetric").fit(X, y)
    np.testing.assert_allclose(clf.predict_proba(X), free.predict_proba(X), atol=1e-4)


def test_inference__first__predicts_with_one_network() -> None:
    X, y, _ = noisy_blobs()
    both, first = quick().fit(X, y), quick(inference="first").fit(X, y)
    x = torch.as_tensor(X, dtype=torch.float32)

    def logits(network: nn.Module) -> Tensor:
        with torch.no_grad():
            result: Tensor = network.eval()(x)
        return result

    mean = (logits(both.module_) + logits(both.peer_)) / 2
    np.testing.assert_allclose(both.predict_proba(X), mean.softmax(1), atol=1e-6)
    np.testing.assert_allclose(first.predict_proba(X), logits(first.module_).softmax(1), atol=1e-6)


@pytest.mark.parametrize("objective", ["auto", "ce"])
def test_meta_set__its_labels_matter(objective: str) -> None:
    X, y, _ = noisy_blobs()
    X_meta, y_meta = blobs(120, seed=1)
    found = [
        quick(meta_objective=objective).fit(X, y, X_meta=X_meta, y_meta=labels).label_reliability_
        for labels in (y_meta, np.roll(y_meta, 1))
    ]
    assert not np.array_equal(*found)


def test_meta_objective__clid__does_not_look_at_labels_of_the_meta_set() -> None:
    X, y, _ = noisy_blobs()
    X_meta, y_meta = blobs(120, seed=1)
    found = [
        quick(meta_objective="clid").fit(X, y, X_meta=X_meta, y_meta=labels).label_reliability_
        for labels in (y_meta, np.roll(y_meta, 1))
    ]
    np.testing.assert_array_equal(*found)


def test_gate__at_its_lower_bound__warns_of_starvation() -> None:
    X, y = blobs()
    wrong = (y[:120] + 1) % 3  # rows whose labels are right gain nothing
    said = "a few rows have all the reliability"
    with pytest.warns(NoisyFitWarning, match=said) as found:
        quick(meta_objective="ce").fit(X, y, X_meta=X[:120], y_meta=wrong)
    assert __file__ in [w.filename for w in found if said in str(w.message)]


def test_gate__above_its_lower_bound__does_not_warn() -> None:
    X, y = blobs()
    with warnings.catch_warnings():
        warnings.simplefilter("error", NoisyFitWarning)
        clf = quick(meta_objective="ce").fit(X, y, X_meta=X[:120], y_meta=y[:120])
    assert clf.history_[-1, "gate_at_lower_bound"] < 0.5


@pytest.mark.parametrize("bounds", [(0.0, 2.0), (0.1, 0.9), (1.5, 2.0)], ids=str)
def test_reliability_range__without_the_mean__is_an_error(bounds: tuple[float, float]) -> None:
    X, y, _ = noisy_blobs()
    with pytest.raises(ValueError, match="0 < lower < 1 < upper"):
        quick(reliability_range=bounds).fit(X, y)
