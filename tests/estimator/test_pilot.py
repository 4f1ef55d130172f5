"""What is found out about the labels of a table before a method begins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import make_classification

from noisyfit import (
    CLIDMetaClassifier,
    CoTeachingClassifier,
    CrossEntropyClassifier,
    FlywheelClassifier,
    NoisyFitWarning,
    RLDClassifier,
    noise,
)
from noisyfit.estimator.pilot import _splits, errors_below, fitted_in
from noisyfit.nn.losses import cross_entropy

SMALL: dict[str, Any] = {"device": "cpu", "module__width": 32}


def table(seed: int, n: int = 600) -> tuple[NDArray[Any], NDArray[Any]]:
    X, y = make_classification(
        n, 10, n_informative=10, n_redundant=0, n_classes=5, n_clusters_per_class=1,
        class_sep=1.5, random_state=seed,
    )  # fmt: skip
    return X.astype(np.float32), y


def test_splits__each_row_is_unseen_once_and_classes_are_even() -> None:
    labels = torch.tensor([0] * 10 + [1] * 7 + [-1] * 4)
    (seen, unseen), (seen_too, unseen_too) = _splits(labels)
    assert sorted([*unseen.tolist(), *unseen_too.tolist()]) == list(range(21))
    assert torch.equal(seen, unseen_too)
    assert torch.equal(unseen, seen_too)
    assert int((labels[seen] == 0).sum()) == 5
    assert int((labels[seen] == 1).sum()) in (3, 4)


def test_errors_below__is_the_paired_difference_in_standard_errors() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=50), rng.normal(size=50)
    fall = before - after
    expected = fall.mean() / (fall.std(ddof=1) / np.sqrt(50))
    assert errors_below(torch.tensor(after), torch.tensor(before)) == pytest.approx(expected)
    assert errors_below(torch.tensor(before), torch.tensor(before)) == 0


def test_fitted_in__more_labels_than_are_right__is_the_first_epoch_with_more() -> None:
    shares = [0.3, 0.55, 0.61, 0.59, 0.7, 0.72]
    assert fitted_in(shares, right=0.6, n_labels=1000) == 3
    assert fitted_in(shares, right=0.71, n_labels=1000) == 0  # 0.72 is within two standard errors
    assert fitted_in(shares, right=0.6, n_labels=499) == 0
    assert fitted_in(shares, right=0.5, n_labels=1000) == 0  # classes overlap
    assert fitted_in([1.0], right=0.95, n_labels=1000) == 0  # nothing to gain


def test_meant__gradient_is_that_of_the_likelihood_of_given_labels() -> None:
    """Cross-entropy with the posterior is the forward correction, -log(p @ T)[label]."""
    X, y = table(0, 200)
    given = noise.pairflip(y, 0.4, random_state=0).labels
    clf = FlywheelClassifier(max_epochs=3, random_state=0, **SMALL).fit(X, given)
    assert bool(clf.state_.has_pilot)
    clf.state_.first_epoch.fill_(-1)  # as in the warm-up
    data = clf._labelled(X, given, "y")
    idx = torch.arange(50)
    logits = torch.randn(50, 5, dtype=torch.float64, requires_grad=True)
    targets = clf._meant(data, idx, logits)
    (got,) = torch.autograd.grad(cross_entropy(logits, targets).sum(), logits)
    matrix = clf.state_.transition.double()
    likelihood = (logits.softmax(1) @ matrix)[torch.arange(50), data.labels[idx]].log()
    (expected,) = torch.autograd.grad(-likelihood.sum(), logits)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_pilot__unseen_labels__do_not_reach_beliefs_by_the_row_itself() -> None:
    """Random labels: who has seen them predicts them, who has not does not."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(400, 20)).astype(np.float32), rng.integers(2, size=400)
    clf = FlywheelClassifier(max_epochs=20, random_state=0, **SMALL).fit(X, y)
    guessed = clf.state_.pilot_beliefs.argmax(1).numpy()
    assert abs((guessed == y).mean() - 0.5) < 0.08


def test_pilot__once_a_method_has_begun__is_a_quarter_of_its_beliefs() -> None:
    X, y = table(0, 200)
    clf = FlywheelClassifier(max_epochs=3, random_state=0, **SMALL).fit(X, y)
    own, pilot = torch.tensor([[0.8, 0.2]]), torch.tensor([[0.4, 0.6]])
    clf.state_.pilot_beliefs = pilot
    torch.testing.assert_close(clf._with_pilot(own), torch.tensor([[0.7, 0.3]]))
    clf.state_.has_pilot.fill_(False)
    torch.testing.assert_close(clf._with_pilot(own), own)


@pytest.mark.slow
def test_warm_up__table_that_is_memorised__ends_early() -> None:
    """Rows of many 0/1 columns are told apart after a few epochs, whatever their labels."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        y = rng.integers(2, size=1200)
        hints = np.where(y == 1, 0.68, 0.32)[:, None]
        X = (rng.random((1200, 200)) < np.where(np.arange(200) < 20, hints, 0.5)).astype(np.float32)
        given = noise.symmetric(y, 0.3, random_state=seed).labels
        clf = FlywheelClassifier(max_epochs=30, random_state=seed, device="cpu").fit(X, given)
        assert clf.warmup_epochs_ <= 12


@pytest.mark.slow
def test_warm_up__many_classes_and_few_rows__ends_though_unseen_labels_show_nothing() -> None:
    """With 40 rows a class, networks knew all wrong labels by heart before a method began."""
    gains = []
    for seed in range(3):
        X, y = make_classification(
            2000, 24, n_informative=12, n_redundant=6, n_classes=20, class_sep=3.0,
            random_state=seed,
        )  # fmt: skip
        X = X.astype(np.float32)
        given = noise.symmetric(y[:800], 0.4, random_state=seed).labels
        clf = CoTeachingClassifier(random_state=seed, device="cpu").fit(X[:800], given)
        assert clf.warmup_epochs_ < clf.max_epochs_
        plain = CrossEntropyClassifier(random_state=seed, device="cpu").fit(X[:800], given)
        gains.append(clf.score(X[800:], y[800:]) - plain.score(X[800:], y[800:]))
        clean = CoTeachingClassifier(max_epochs=30, random_state=seed, device="cpu")
        assert clean.fit(X[:800], y[:800]).warmup_epochs_ == 30
    assert np.mean(gains) > 0.1


def test_warm_up__table_that_is_still_learnt__lasts_to_the_end_and_fit_says_so() -> None:
    for seed in range(3):
        clf = FlywheelClassifier(max_epochs=8, random_state=seed, **SMALL)
        said = "FlywheelClassifier was cross-entropy, corrected"
        with pytest.warns(NoisyFitWarning, match=said) as found:
            clf.fit(*table(seed))
        assert __file__ in [w.filename for w in found if said in str(w.message)]
        assert clf.warmup_epochs_ == 8 == clf.n_iter_
        assert float(clf.state_.transition.diagonal().min()) > 0.9


def test_warm_up__number_given_or_few_rows__has_no_pilot() -> None:
    X, y = table(0)
    given = FlywheelClassifier(max_epochs=4, warmup_epochs=2, random_state=0, **SMALL).fit(X, y)
    few = FlywheelClassifier(max_epochs=6, random_state=0, **SMALL).fit(X[:90], y[:90])
    for clf, length in ((given, 2), (few, 1)):
        assert not bool(clf.state_.has_pilot)
        assert clf.warmup_epochs_ == length == int(clf.state_.first_epoch)


def test_pilot__trusted_rows__keep_their_labels_and_do_not_count_as_mistakes() -> None:
    X, y = table(1)
    given = noise.pairflip(y, 0.4, random_state=1)
    trusted = ~given.flipped & (np.arange(len(y)) % 2 == 0)
    clf = RLDClassifier(max_epochs=6, random_state=0, **SMALL)
    clf.fit(X, given.labels, clean_mask=trusted)
    assert (clf.corrected_labels_[trusted] == given.labels[trusted]).all()
    assert (clf.label_quality_[trusted] == 1).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "cls",
    [
        FlywheelClassifier,
        *(pytest.param(c, marks=pytest.mark.long) for c in (CLIDMetaClassifier, RLDClassifier)),
    ],
)
def test_class_dependent_noise_of_a_table__is_seen_through(cls: type) -> None:
    """Next class in order, two in five: cross-entropy cannot tell, the pilot finds the pattern."""
    gained = []
    for seed in range(3):
        X, y = table(seed, 900)
        given = noise.pairflip(y[:600], 0.4, random_state=seed).labels
        shared: dict[str, Any] = {"max_epochs": 30, "random_state": seed, "device": "cpu"}
        plain = CrossEntropyClassifier(**shared).fit(X[:600], given).score(X[600:], y[600:])
        gained.append(cls(**shared).fit(X[:600], given).score(X[600:], y[600:]) - plain)
    assert np.mean(gained) > 0.1
