"""The reliabilities against double backward, the reconstructed equations, and the switches."""

from __future__ import annotations

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
from noisyfit.methods.hrp import (
    Reliability,
    Targets,
    gains,
    min_max,
    mixing_share,
    normalized,
    pair_agreement,
    ranks,
    total_reliability,
)
from noisyfit.metrics import detection_auroc
from noisyfit.nn.metagrad import logit_jvp
from tests.common import blobs, noisy_blobs

SEEDS = (0, 1, 2)


def quick(**params: Any) -> HRPClassifier:
    return HRPClassifier(**{"max_epochs": 6, "random_state": 0, "device": "cpu"} | params)


@pytest.mark.parametrize("with_trusted", [True, False], ids=["trusted rows", "none"])
def test_digits__pairflip__is_far_better_than_cross_entropy(with_trusted: bool) -> None:
    X, y = load_digits(return_X_y=True)
    gained, found = [], []
    for seed in SEEDS:
        X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=seed, stratify=y)
        noisy = noise.pairflip(y_train, 0.4, random_state=seed)
        trusted = np.arange(len(y_train)) < 100
        given = np.where(trusted & with_trusted, y_train, noisy.labels)
        ours = HRPClassifier(max_epochs=25, meta_every=4, random_state=seed)
        ours.fit(X_train, given, clean_mask=trusted if with_trusted else None)
        baseline = CrossEntropyClassifier(max_epochs=25, random_state=seed).fit(X_train, given)
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


@pytest.mark.parametrize("norm", ["mean", "sum", "max"])
def test_normalized__nothing_gains__trusts_all(norm: str) -> None:
    assert normalized(torch.tensor([-5.0, 0.0, -1.0]), norm).tolist() == [1, 1, 1]


def test_min_max__constant__is_finite() -> None:
    assert min_max(torch.tensor([1.0, 3.0, 2.0])).tolist() == [0, 1, 0.5]
    assert min_max(torch.ones(3)).tolist() == [1, 1, 1]  # was 0: no contrast at all


def test_total_reliability__is_eq_6_in_means_of_the_batch__on_any_scale() -> None:
    """Values that sum to 1 over the batch were all at the lower bound."""
    given = torch.tensor([0.0, 1.0, 4.0, 0.2], dtype=torch.float64)
    guessed = torch.tensor([0.0, 2.0, 0.4, 0.4], dtype=torch.float64)
    for scale in (1.0, 1e-3, 50.0):
        found = total_reliability(scale * given, scale * guessed, (0.1, 2.0))
        mean = sum(float(a + b) for a, b in zip(given, guessed, strict=True)) / 4
        for rho, a, b in zip(found.tolist(), given.tolist(), guessed.tolist(), strict=True):
            assert rho == pytest.approx(min(2.0, max(0.1, (a + b) / mean)), rel=1e-12)


def fitted_reliability(labels: list[int], **params: Any) -> Reliability:
    """Rate nine rows by a fitted estimator; ``direction=0`` is one in which nothing gains."""
    X, y, _ = noisy_blobs()
    scale = params.pop("direction", 1)
    clf = quick(**params).fit(X, y)
    torch.manual_seed(0)
    named = clf.module_.named_parameters()
    direction = {name: scale * torch.randn_like(p) for name, p in named}
    x, given = torch.as_tensor(X[: len(labels)]), torch.tensor(labels)
    return clf._reliability("module", x, given, torch.zeros_like(given), direction)


def test_coupled__alpha_and_beta_sum_to_1_in_every_row() -> None:
    """alpha was above 1 and beta 0 in a third of the rows."""
    found = fitted_reliability([0, 1, 2, 0, 1, 2, 0, -1, -1], reliability="coupled")
    assert 0 < float(found.label[:7].max()) <= 1
    torch.testing.assert_close(found.label + found.pseudo, torch.ones(9))
    assert found.label[7:].tolist() == [0, 0]


def test_coupled__mixes_given_label_and_guess__but_not_of_trusted_rows() -> None:
    """Equal totals of all rows left it without any effect on what was learned."""
    X, y, _ = noisy_blobs()
    clf = quick(reliability="coupled").fit(X, y)
    alpha = torch.tensor([0.25, 0.25, 1.0, 0.0])
    targets = Targets(
        torch.tensor([0, 0, 1, 2]), torch.tensor([1, 1, 1, 2]), torch.ones(4, dtype=torch.bool)
    )
    trusted = torch.tensor([False, True, False, False])
    found = clf._labels(targets, Reliability(alpha, 1 - alpha, torch.ones(4)), trusted)
    assert found.tolist() == [[0.25, 0.75, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize("reliability", ["disentangled", "coupled", None])
def test_nothing_gains__unlabelled_rows_have_alpha_0(reliability: str | None) -> None:
    found = fitted_reliability([0, -1, 2, -1], direction=0, reliability=reliability)
    assert found.label.tolist() == [1, 0, 1, 0]


def test_late_guesses__wait_for_the_end_of_the_ramp() -> None:
    X, y, _ = noisy_blobs()
    clf = quick(max_epochs=10, warmup_epochs=4).fit(X, y)
    assert [clf._guesses_late(epoch) for epoch in (5, 6, 7, 8, 9)] == [False] * 3 + [True] * 2
    clf = quick(max_epochs=10, warmup_epochs=2).fit(X, y)
    assert [clf._guesses_late(epoch) for epoch in (4, 5, 6)] == [False, False, True]


@pytest.mark.parametrize("kind", ["symmetric", "pairflip"])
def test_gate__weighs_pairs_and_hardly_the_term(kind: str) -> None:
    """The upper bound was the mean: a third of the rows at it, and a mean gate of 1.4."""
    for seed in SEEDS:
        X, y = make_classification(600, 12, n_informative=8, n_classes=4, random_state=seed)
        given = getattr(noise, kind)(y, 0.4, random_state=seed).labels
        clf = quick(max_epochs=12, random_state=seed).fit(X, given)
        assert abs(np.mean(clf.history_[-6:, "gate"]) - 1) < 0.15
        assert np.mean(clf.history_[-6:, "at_upper_bound"]) < 0.2
        assert np.mean(clf.history_[-6:, "gate_at_lower_bound"]) < 0.2


def test_mixing_share__the_more_reliable_row_has_the_larger_share() -> None:
    torch.manual_seed(0)
    own, other = torch.full((20000,), 1.5), torch.full((20000,), 0.5)
    share = mixing_share(own, other, 4.0)
    # Beta(3, 1): mean 3/4, variance 3/80
    assert float(share.mean()) == pytest.approx(0.75, abs=0.01)
    assert float(share.var()) == pytest.approx(3 / 80, abs=0.003)


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


# Switches.


@pytest.mark.parametrize(
    "params",
    [
        {"reliability": None},
        {"reliability": "coupled"},
        {"mixing": "symmetric"},
        {"mixing": None},
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
    assert clf.history_[-1, "gate"] == 1
    # The contrastive term had weights of 0: 0.05 and 50 gave the same bits.
    heavier = quick(reliability=None, contrastive_weight=5.0).fit(X, y)
    assert not np.array_equal(heavier.predict_proba(X), clf.predict_proba(X))
    assert set(clf.history_[-1]) >= {"gate", "pair_agreement", "peer_loss"}


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
    X, y, _ = noisy_blobs()
    with pytest.warns(NoisyFitWarning, match="trusted rows"):
        quick(reliability_range=(8.0, 9.0)).fit(X, y)


def test_reliability_range__without_room__is_an_error() -> None:
    X, y, _ = noisy_blobs()
    with pytest.raises(ValueError, match="0 < lower < upper"):
        quick(reliability_range=(0.0, 2.0)).fit(X, y)
