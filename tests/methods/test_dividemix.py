"""DivideMix: the division, the targets and the three terms with loops, guards and switches."""

from __future__ import annotations

from math import exp, log
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from noisyfit import CrossEntropyClassifier, DivideMixClassifier
from noisyfit.methods.dividemix import (
    above_class_median,
    mixmatch,
    small_loss_probability,
)
from noisyfit.nn import losses
from tests.common import blobs, digits_scores, images, noisy_blobs, quick

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [-3.0, 3.0, 0.0], [0.0, 0.0, 1.0]])
TARGETS = torch.tensor([[0.7, 0.1, 0.2], [0.0, 0.0, 1.0], [0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
PRIOR = torch.tensor([0.5, 0.3, 0.2])


def softmax(row: torch.Tensor) -> list[float]:
    powers = [exp(float(z)) for z in row]
    return [power / sum(powers) for power in powers]


# The division.


def test_small_loss_probability_tells_two_groups_apart() -> None:
    rng = np.random.default_rng(0)
    small, large = rng.normal(0.3, 0.1, 600), rng.normal(2.0, 0.5, 400)
    found = small_loss_probability(np.concatenate([small, large]))
    assert (found[:600] > 0.5).mean() > 0.99
    assert (found[600:] < 0.5).mean() > 0.95


@pytest.mark.parametrize("few", ["small", "large"])
def test_small_loss_probability__unequal_groups__are_not_swapped(few: str) -> None:
    rng = np.random.default_rng(0)
    sizes = (20, 400) if few == "small" else (400, 20)
    losses = np.concatenate([rng.normal(0.3, 0.05, sizes[0]), rng.normal(3.0, 0.3, sizes[1])])
    found = small_loss_probability(losses)
    assert found[: sizes[0]].min() > 0.5 > found[sizes[0] :].max()


@pytest.mark.parametrize("losses", [[], [2.0], [1.5] * 7], ids=["none", "one", "equal"])
def test_small_loss_probability__nothing_to_tell_apart__believes_all(losses: list[float]) -> None:
    assert small_loss_probability(np.array(losses)).tolist() == [1.0] * len(losses)


@pytest.mark.filterwarnings("error")
def test_small_loss_probability__two_distinct_losses__gives_no_warning() -> None:
    assert small_loss_probability(np.array([0.0, 1.0])).tolist() == pytest.approx([1, 0], abs=1e-6)


def test_above_class_median_is_taken_within_each_given_class() -> None:
    losses, labels = torch.tensor([1.0, 5.0, 3.0, 10.0, 30.0, 20.0]), [0, 0, 0, 2, 2, 2]
    found = above_class_median(losses, torch.tensor(labels), 4)
    assert found.tolist() == [-2, 2, 0, -10, 10, 0]


# Targets and loss.


def test_refine_is_eq_3() -> None:
    trust, labels = torch.tensor([1.0, 0.25, 0.0, 0.0]), torch.tensor([0, 2, 1, -1])
    probs = LOGITS.softmax(1)
    found = losses.refurbish(trust, labels, probs)
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


# Learning.


def test_digits__is_far_better_than_cross_entropy() -> None:
    methods = [CrossEntropyClassifier(max_epochs=20), DivideMixClassifier(max_epochs=20)]
    for kind, margin in (("symmetric", 0.02), ("pairflip", 0.05)):
        plain, ours = digits_scores(methods, kind)
        assert np.mean(ours - plain) > margin


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
    clf = quick(DivideMixClassifier, max_epochs=12, batch_size=24).fit(X, y)
    assert clf.warmup_epochs_ == 6  # 60 batches, 10 an epoch
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
