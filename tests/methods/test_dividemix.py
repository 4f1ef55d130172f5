"""DivideMix: the division, the targets and the three terms with loops, guards and switches."""

from __future__ import annotations

import pickle
from functools import partial
from math import exp, log
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from noisyfit import CrossEntropyClassifier, DivideMixClassifier
from noisyfit.methods.dividemix import above_class_median, mixmatch
from noisyfit.nn.beliefs import refurbish
from noisyfit.nn.features import logits_and_embeddings
from noisyfit.nn.meta import Batch, MetaModel, Rectifier, WeightNet, meta_loss
from noisyfit.nn.metagrad import logit_jvp, meta_parameter_names
from tests.helpers import blobs, digits_scores, images, noisy_blobs, quick

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [-3.0, 3.0, 0.0], [0.0, 0.0, 1.0]])
TARGETS = torch.tensor([[0.7, 0.1, 0.2], [0.0, 0.0, 1.0], [0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
PRIOR = torch.tensor([0.5, 0.3, 0.2])


def softmax(row: torch.Tensor) -> list[float]:
    powers = [exp(float(z)) for z in row]
    return [power / sum(powers) for power in powers]


# The division.


def test_above_class_median_is_taken_within_each_given_class() -> None:
    losses, labels = torch.tensor([1.0, 5.0, 3.0, 10.0, 30.0, 20.0]), [0, 0, 0, 2, 2, 2]
    found = above_class_median(losses, torch.tensor(labels), 4)
    assert found.tolist() == [-2, 2, 0, -10, 10, 0]


# Targets and loss.


def test_refine_is_eq_3() -> None:
    trust, labels = torch.tensor([1.0, 0.25, 0.0, 0.0]), torch.tensor([0, 2, 1, -1])
    probs = LOGITS.softmax(1)
    found = refurbish(trust, labels, probs)
    for i in range(4):
        for k in range(3):
            w = float(trust[i])
            expected = w * (int(labels[i]) == k) + (1 - w) * float(probs[i, k])
            assert float(found[i, k]) == pytest.approx(expected, abs=1e-6)


def test_mixmatch_is_eqs_9_to_11() -> None:
    believed = torch.tensor([True, False, True, False])
    found = mixmatch(LOGITS, TARGETS, believed, PRIOR)
    labelled = unlabelled = 0.0
    for i in range(4):
        p, t = softmax(LOGITS[i]), TARGETS[i].double().tolist()
        labelled -= int(believed[i]) * sum(t[k] * log(p[k]) for k in range(3)) / 2
        unlabelled += int(not believed[i]) * sum((p[k] - t[k]) ** 2 for k in range(3)) / 2
    mean = [sum(softmax(LOGITS[i])[k] for i in range(4)) / 4 for k in range(3)]
    penalty = sum(float(PRIOR[k]) * log(float(PRIOR[k]) / mean[k]) for k in range(3))
    assert [float(term) for term in found] == pytest.approx(
        [labelled, unlabelled, penalty], rel=1e-5
    )


@pytest.mark.parametrize("all_believed", [True, False])
def test_mixmatch__one_part_is_empty__is_finite(all_believed: bool) -> None:
    logits = LOGITS.clone().requires_grad_()
    terms = mixmatch(logits, TARGETS, torch.full((4,), all_believed), PRIOR)
    assert float(terms.unlabelled if all_believed else terms.labelled) == 0
    sum(terms, torch.zeros(())).backward()
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad).all())


def test_mixmatch__a_class_nobody_has__costs_nothing() -> None:
    prior = torch.tensor([0.5, 0.5, 0.0])
    terms = mixmatch(40 * torch.eye(3)[[0, 1, 0, 1]], TARGETS, torch.ones(4) > 0, prior)
    assert float(terms.prior) == pytest.approx(0, abs=1e-6)


# The meta-model.

N, D, K = 12, 6, 3
TRUSTED, BELIEVED = torch.arange(N) < 2, torch.arange(N) % 3 < 2


def changed_loss(
    model: MetaModel, logits: Tensor, embeddings: Tensor, targets: Tensor, prior: Tensor
) -> Tensor:
    """Eq. 12 with weights and factors, row by row, as a function of the meta-model too."""
    weights, factors = torch.ones(N).double(), torch.ones(N, K).double()
    if isinstance(model, WeightNet):
        values = -(targets * logits.detach().log_softmax(1)).sum(1)
        weights = torch.where(TRUSTED, 1.0, model(values, targets, K))
    elif isinstance(model, Rectifier):
        code = targets @ model.label_embedding.weight
        hidden = model.body(torch.cat([embeddings.detach(), code], 1))
        mean, log_variance = model.output(hidden).chunk(2, dim=1)
        drawn = torch.sigmoid(mean + (log_variance / 2).exp() * torch.randn_like(mean))
        factors = torch.where(TRUSTED[:, None], 1.0, drawn)
    labelled = unlabelled = torch.zeros(())
    for i in range(N):
        if BELIEVED[i]:
            log_p = (factors[i] * logits[i]).log_softmax(0)
            labelled = labelled - weights[i] * (targets[i] @ log_p) / BELIEVED.sum()
        else:
            errors = ((logits[i].softmax(0) - targets[i]) ** 2).sum()
            unlabelled = unlabelled + errors / (~BELIEVED).sum()
    mean = logits.softmax(1).mean(0)
    return labelled + 2.5 * unlabelled + 0.7 * (prior * (prior / mean).log()).sum()


def outer_loss(x: Tensor, network: nn.Module) -> Tensor:
    logits, embeddings = logits_and_embeddings(network, x)
    return (embeddings.T @ logits.softmax(1)).square().mean()


@pytest.mark.parametrize("kind", ["wnet", "vri"])
def test_meta_gradient_of_both_parts_is_the_second_order_one(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tensor, "float", Tensor.double)  # the whole computation in float64
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, D), nn.BatchNorm1d(D), nn.Tanh(), nn.Linear(D, K)).double()
    model: MetaModel = WeightNet() if kind == "wnet" else Rectifier(D, K, hidden=8)
    for parameter in model.double().parameters():  # away from equal weights
        nn.init.normal_(parameter, std=0.5)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.7)
    x, x_meta = torch.randn(2, N, 4, dtype=torch.float64)
    targets = torch.randn(N, K, dtype=torch.float64).softmax(1)
    prior = PRIOR.double()

    # a graph of the second order
    torch.manual_seed(1)
    changed = changed_loss(model, *logits_and_embeddings(network, x), targets, prior)
    parameters = dict(network.named_parameters())
    gradients = torch.autograd.grad(changed, list(parameters.values()), create_graph=True)
    moved = {
        name: p.detach() - 0.7 * gradient
        for (name, p), gradient in zip(parameters.items(), gradients, strict=True)
    }
    hidden = functional_call(network[:3], {n: p for n, p in moved.items() if n[0] != "3"}, x_meta)
    probs = F.linear(hidden, moved["3.weight"], moved["3.bias"]).softmax(1)
    outer = (hidden.T @ probs).square().mean()
    expected = torch.autograd.grad(outer, list(model.parameters()))

    # the same without one
    loss = partial(DivideMixClassifier(prior_weight=0.7)._loss, targets, BELIEVED, prior, 2.5)
    logits, embeddings = logits_and_embeddings(network, x)
    batch = Batch(logits.detach(), embeddings.detach(), targets, TRUSTED)
    torch.manual_seed(1)
    value = model.change(loss, batch)
    torch.manual_seed(1)
    found = meta_loss(
        network,
        optimizer,
        logits,
        model.logit_gradient_of(loss, batch),
        partial(outer_loss, x_meta),
        lambda direction: logit_jvp(network, x, direction)[1],
        meta_parameter_names(network, "all"),
    )
    got = torch.autograd.grad(found, list(model.parameters()))
    torch.testing.assert_close(value, changed.detach(), rtol=1e-12, atol=0)
    for one, other in zip(got, expected, strict=True):
        assert float(other.abs().max()) > 1e-8
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)


def meta(**params: Any) -> Any:
    return early(**{"meta_model": "wnet", "batch_size": 48} | params)


def test_meta_model__none__is_dividemix_whatever_its_switches() -> None:
    X, y, flipped = noisy_blobs()
    plain = early().fit(X, y, clean_mask=~flipped)
    other = early(meta_objective="ce", meta_every=3, meta_lr=1.0).fit(X, y, clean_mask=~flipped)
    np.testing.assert_array_equal(plain.predict_proba(X), other.predict_proba(X))
    assert not hasattr(other, "meta_model_")
    assert "meta_rows" not in dict(other.state_.named_buffers())


@pytest.mark.parametrize("kind", ["wnet", "vri"])
def test_meta_model__of_each_network__is_taught_and_can_be_stopped(kind: str) -> None:
    X, y, _ = noisy_blobs()
    clf, still = (meta(meta_model=kind, meta_lr=lr).fit(X, y) for lr in (3e-3, 0.0))
    for name in ("module", "peer"):
        pairs = zip(
            clf.meta_model_[name].parameters(), still.meta_model_[name].parameters(), strict=True
        )
        assert any(not torch.equal(one, other) for one, other in pairs)
    assert not np.array_equal(clf.predict_proba(X), still.predict_proba(X))
    assert np.isfinite(clf.history_[-1, "meta_model_loss"])


def test_meta_model__with_weights_and_factors_of_one__changes_nothing() -> None:
    loss = partial(DivideMixClassifier()._loss, TARGETS, torch.arange(4) < 2, PRIOR, 3.0)
    torch.testing.assert_close(loss(LOGITS, torch.ones(4), torch.ones(4, 3)), loss(LOGITS))


def test_meta_every__counts_batches_of_an_epoch() -> None:
    X, y, _ = noisy_blobs()
    for every, steps in ((1, 5), (3, 2), (100, 1)):
        clf = meta(meta_every=every).fit(X, y)
        taken = {int(state["step"]) for state in clf.meta_model_optimizer_.state.values()}
        assert taken == {5 * steps}  # in each of the epochs after the warm-up


@pytest.mark.parametrize("objective, looks", [("clid", False), ("ce", True)])
def test_meta_set__its_labels__matter_unless_the_objective_is_clid(
    objective: str, looks: bool
) -> None:
    X, y, _ = noisy_blobs()
    X_meta, y_meta = blobs(120, seed=1)
    found = [
        meta(meta_objective=objective).fit(X, y, X_meta=X_meta, y_meta=labels).predict_proba(X)
        for labels in (y_meta, np.roll(y_meta, 1))
    ]
    assert np.array_equal(*found) != looks


def test_meta_objective__cross_entropy_without_known_labels__is_an_error() -> None:
    X, y, _ = noisy_blobs()
    with pytest.raises(ValueError, match=r"needs rows whose labels are known.*clean_mask"):
        meta(meta_objective="ce").fit(X, y)


@pytest.mark.parametrize(
    "params",
    [{"meta_model": "mlp"}, {"meta_objective": "mae"}, {"meta_every": 0}, {"meta_lr": -1.0}],
    ids=lambda params: next(iter(params)),
)
def test_meta_parameters__out_of_range__are_errors(params: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"The {next(iter(params))!r} parameter"):
        meta(**params).fit(*blobs(60))


@pytest.mark.filterwarnings("ignore:A meta set should have")
@pytest.mark.parametrize("kind", ["wnet", "vri"])
@pytest.mark.parametrize("clean_threshold", [0.0, 0.999999])
def test_meta_model__one_part_is_empty_or_labels_are_missing__is_finite(
    kind: str, clean_threshold: float
) -> None:
    X, y, flipped = noisy_blobs()
    given = np.where(np.arange(len(y)) % 4 == 0, -1, y)
    clf = meta(meta_model=kind, clean_threshold=clean_threshold, missing_label=-1)
    clf.fit(X, given, clean_mask=~flipped & (given >= 0) & (np.arange(len(y)) % 3 == 0))
    assert np.isfinite(clf.history_[:, "train_loss"]).all()
    assert np.isfinite(clf.predict_proba(X)).all()


@pytest.mark.filterwarnings("ignore:A meta set should have")
@pytest.mark.parametrize("kind", ["wnet", "vri"])
@pytest.mark.parametrize("n", [2, 3, 33])
def test_meta_model__few_rows__are_trained_on(n: int, kind: str) -> None:
    X, y = blobs(n, 2)
    y[:2] = 0, 1
    clf = meta(meta_model=kind, batch_size=16).fit(X, y)
    assert np.isfinite(clf.history_[:, "train_loss"]).all()


def test_meta_model__trusted_rows__keep_their_full_weight() -> None:
    X, y, _ = noisy_blobs()
    everything = np.ones(len(y), dtype=bool)
    fitted = [meta(meta_lr=lr).fit(X, y, clean_mask=everything) for lr in (0.0, 0.1)]
    np.testing.assert_array_equal(*(clf.predict_proba(X) for clf in fitted))


@pytest.mark.parametrize("kind", ["wnet", "vri"])
def test_meta_model__is_saved_and_pickled(kind: str, tmp_path: Any) -> None:
    X, y, _ = noisy_blobs()
    clf = meta(meta_model=kind, meta_model__hidden=7).fit(X, y)
    clf.save(tmp_path / "model")
    loaded = DivideMixClassifier.load(tmp_path / "model", device="cpu")
    for copy in (loaded, pickle.loads(pickle.dumps(clf))):
        np.testing.assert_array_equal(copy.predict_proba(X), clf.predict_proba(X))
        for one, other in zip(
            copy.meta_model_.parameters(), clf.meta_model_.parameters(), strict=True
        ):
            assert torch.equal(one, other)


def test_meta_model__images__are_learned() -> None:
    X, y = images(90)
    clf = meta(meta_model="vri", max_epochs=12, batch_size=32).fit(X, y)
    assert clf.score(X, y) > 0.6


# Learning.


@pytest.mark.long
def test_digits__is_far_better_than_cross_entropy() -> None:
    methods = [CrossEntropyClassifier(), DivideMixClassifier()]
    for kind, margin in (("symmetric", 0.02), ("pairflip", 0.05)):
        plain, ours = digits_scores(methods, kind)
        assert np.mean(ours - plain) > margin


@pytest.mark.long
def test_digits__meta_models__are_far_better_than_cross_entropy() -> None:
    kinds = [DivideMixClassifier(max_epochs=30, meta_model=kind) for kind in ("wnet", "vri")]
    plain, *ours = digits_scores([CrossEntropyClassifier(max_epochs=30), *kinds])
    for scores in ours:
        assert np.mean(scores - plain) > 0.03


def test_division__finds_flipped_labels() -> None:
    found = []
    for seed in range(3):
        X, y, flipped = noisy_blobs(seed)
        clf = quick(DivideMixClassifier, max_epochs=25, batch_size=48, random_state=seed).fit(X, y)
        found.append(roc_auc_score(~flipped, clf.label_quality_))
    assert np.mean(found) > 0.9


@pytest.mark.parametrize(
    "params",
    [{"clean_threshold": 0.9}, {"unlabelled_weight": 0.0}, {"prior_weight": 0.0},
     {"temperature": 1.0}, {"mixup_alpha": 0.2}, {"warmup_epochs": 5}],
    ids=lambda params: next(iter(params)),
)  # fmt: skip
def test_each_switch_changes_the_result_and_still_learns(params: dict[str, Any]) -> None:
    X, y, flipped = noisy_blobs()
    settings = {"max_epochs": 16, "batch_size": 32, "warmup_epochs": 8}
    default = quick(DivideMixClassifier, **settings).fit(X, y)
    switched = quick(DivideMixClassifier, **settings | params).fit(X, y)
    assert not np.allclose(default.predict_proba(X), switched.predict_proba(X), atol=1e-4)
    assert switched.score(X[~flipped], y[~flipped]) > 0.8


def test_warm_up__of_few_batches__is_prolonged_unless_it_is_given() -> None:
    X, y, _ = noisy_blobs()
    few = X[:96], y[:96]  # too few for a pilot
    clf = DivideMixClassifier(max_epochs=30, batch_size=24, random_state=0).fit(*few)
    assert clf.warmup_epochs_ == 15  # 60 batches, 4 an epoch
    assert quick(DivideMixClassifier, warmup_epochs=2).fit(X, y).warmup_epochs_ == 2


# Rows that are special, degenerate data: the division must begin, so the warm-up is given.


def early(**params: Any) -> Any:
    return quick(DivideMixClassifier, warmup_epochs=1, **params)


def test_rows_without_a_label__are_doubted_and_learned_from() -> None:
    X, y = blobs(300)
    given = np.where(np.arange(300) % 3 == 0, y, -1)
    clf = quick(
        DivideMixClassifier, max_epochs=30, batch_size=32, warmup_epochs=15, missing_label=-1
    ).fit(X, given)
    assert (clf.predict(X)[given < 0] == y[given < 0]).mean() > 0.85


def test_trusted_rows__are_always_believed() -> None:
    X, y, flipped = noisy_blobs()
    clf = early().fit(X, y, clean_mask=~flipped)
    trust = [clf._clean_probability(_data(clf, X, y, ~flipped), name) for name in clf._networks]
    for found in trust:
        assert bool((found[torch.as_tensor(~flipped)] == 1).all())


def _data(clf: Any, X: Any, y: Any, trusted: Any) -> Any:
    data = clf._labelled(X, y, "y")
    data.trusted = torch.as_tensor(trusted)
    return data


@pytest.mark.parametrize("n", [2, 3, 33])
def test_few_rows__after_the_warm_up__are_trained_on(n: int) -> None:
    X, y = blobs(n, 2)
    y[:2] = 0, 1
    clf = early(batch_size=16).fit(X, y)
    assert np.isfinite(clf.history_[:, "train_loss"]).all()
    assert np.isfinite(clf.label_distribution_).all()


def test_class_with_one_row__after_the_warm_up__is_kept() -> None:
    X, y = blobs(60, 2)
    y[7] = 9
    clf = early(batch_size=16).fit(X, y)
    assert clf.label_distribution_.shape == (60, 3)
    assert np.isfinite(clf.predict_proba(X)).all()


def test_images__after_the_warm_up__are_learned() -> None:
    X, y = images(90)
    clf = early(max_epochs=12, batch_size=16).fit(X, y)
    assert clf.score(X, y) > 0.6


def test_same_random_state__after_the_warm_up__gives_identical_bits(tmp_path: Any) -> None:
    X, y, _ = noisy_blobs()
    first, second = (early().fit(X, y) for _ in range(2))
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))
    first.save(tmp_path / "model")
    loaded = DivideMixClassifier.load(tmp_path / "model", device="cpu")
    np.testing.assert_array_equal(loaded.predict_proba(X), first.predict_proba(X))
