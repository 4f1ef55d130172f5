"""Several labels a row, and probabilities in place of labels, in every method."""

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.datasets import make_blobs
from sklearn.model_selection import GridSearchCV

from noisyfit import (
    CrossEntropyClassifier,
    EchoAlignClassifier,
    EchoMod,
    EchoSelect,
    LabelCleaner,
    NoisyFitWarning,
)
from noisyfit.estimator import annotators as estimator_annotators
from tests.common.zoo import Estimator, every_method, every_variant
from tests.helpers import Doom, Fate, blobs, quick

NAN = math.nan
Votes = NDArray[np.int64]


def crowd(
    y: NDArray[Any], qualities: list[float], share: float = 1.0, seed: int = 0
) -> tuple[Votes, NDArray[Any]]:
    """Return votes, -1 for none, and the confusion matrices of those who cast them."""
    rng, k = np.random.default_rng(seed), int(y.max()) + 1
    matrices = []
    for right in qualities:
        matrix = rng.dirichlet(np.ones(k), k) * (1 - np.eye(k))
        matrix *= (1 - right) / matrix.sum(1, keepdims=True)
        matrices.append(matrix + right * np.eye(k))
    votes = np.stack([[rng.choice(k, p=m[label]) for label in y] for m in matrices], 1)
    votes[rng.random(votes.shape) > share] = -1
    return votes, np.array(matrices)


def overlapping(n: int, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    X, y = make_blobs(n, n_features=5, centers=3, cluster_std=3.0, random_state=seed)[:2]
    return X.astype(np.float32), y


def test_annotators__of_known_quality__are_recovered() -> None:
    X, y = overlapping(3000)
    qualities = [0.9, 0.8, 0.7, 0.6, 0.45]
    votes, matrices = crowd(y, qualities, share=0.8)
    for seed in range(3):
        clf = quick(CrossEntropyClassifier, max_epochs=15, missing_label=-1, random_state=seed)
        clf.fit(X, votes)
        assert np.abs(clf.annotator_confusion_ - matrices).max() < 0.05
        np.testing.assert_allclose(clf.annotator_quality_, qualities, atol=0.05)


def test_consensus__is_right_more_often_than_the_majority() -> None:
    X, y = overlapping(600)
    for seed in range(3):
        votes, _ = crowd(y, [0.9, 0.75, 0.5, 0.5, 0.4], share=0.6, seed=seed)
        counts = np.stack([(votes == k).sum(1) for k in range(3)], 1)
        clf = quick(CrossEntropyClassifier, max_epochs=15, missing_label=-1, random_state=seed)
        clf.fit(X, votes)
        right = (clf.consensus_ == y)[votes.max(1) >= 0].mean()
        assert right > (counts.argmax(1) == y)[votes.max(1) >= 0].mean() + 0.1


@every_variant
def test_votes__become_one_label_a_row(cls: Estimator) -> None:
    X, y = blobs(150)
    names = np.array(["ape", "bee", "cow"])
    votes = pd.DataFrame({a: names[y].astype(object) for a in ("ann", "bob", "eve")})
    votes.loc[:29, "bob"] = None
    votes.loc[:29, "eve"] = "ape"
    votes.loc[140:] = None
    clf = quick(cls, missing_label=NAN).fit(X, votes)
    assert clf.classes_.tolist() == names.tolist()
    assert clf.annotators_.tolist() == ["ann", "bob", "eve"]
    assert (clf.consensus_[30:140] == names[y[30:140]]).all()
    assert all(label is None for label in clf.consensus_[140:])
    assert np.isnan(clf.label_quality_[140:]).all()
    assert clf.annotator_confusion_.shape == (3, 3, 3)
    np.testing.assert_allclose(clf.annotator_confusion_.sum(2), 1, rtol=1e-5)
    issues = clf.label_issues()
    assert (issues.n_votes == [2] * 30 + [3] * 110 + [0] * 10).all()
    wrong = issues.disagreeing_annotators.map(lambda found: "eve" in found).to_numpy()
    assert (wrong[:30] == (issues.predicted_label[:30] != "ape").to_numpy()).all()
    assert not wrong[140:].any()


def test_votes__echo_align__learns_their_consensus(tmp_path: Path) -> None:
    X, y = blobs(150)
    votes, _ = crowd(y, [0.9, 0.9, 0.6])
    clf = quick(EchoAlignClassifier).fit(X, votes)
    assert (clf.given_labels_ == clf.consensus_).all()
    assert clf.annotator_quality_.argmin() == 2
    assert {"n_votes", "disagreeing_annotators"} <= set(clf.label_issues().columns)
    clf.save(tmp_path / "model")
    loaded = EchoAlignClassifier.load(tmp_path / "model", device="cpu")
    pd.testing.assert_frame_equal(loaded.label_issues(), clf.label_issues())


def test_votes__saved_and_loaded__keep_what_is_known_of_the_annotators(tmp_path: Path) -> None:
    X, y = blobs(150)
    clf = quick(CrossEntropyClassifier, missing_label=-1).fit(X, crowd(y, [0.9, 0.6], 0.9)[0])
    clf.save(tmp_path / "model")
    loaded = CrossEntropyClassifier.load(tmp_path / "model", device="cpu")
    pd.testing.assert_frame_equal(loaded.label_issues(), clf.label_issues())
    np.testing.assert_array_equal(loaded.annotator_confusion_, clf.annotator_confusion_)


@every_method
def test_votes__interrupted_and_resumed__end_the_same_and_are_not_weighed_again(
    cls: Estimator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = blobs(150)
    votes, _ = crowd(y, [0.9, 0.7, 0.6])
    params: dict[str, Any] = {"max_epochs": 4, "callbacks": [Doom()], "checkpoint_dir": tmp_path}
    monkeypatch.setattr(Fate, "epoch", None)
    whole = quick(cls, **params).fit(X, votes)
    monkeypatch.setattr(Fate, "epoch", 2)
    with pytest.raises(KeyboardInterrupt):
        quick(cls, **params).fit(X, votes)
    monkeypatch.setattr(Fate, "epoch", None)
    monkeypatch.setattr(estimator_annotators, "pilot_of", None)
    resumed = quick(cls, **params).fit(X, votes)
    np.testing.assert_array_equal(resumed.label_distribution_, whole.label_distribution_)
    np.testing.assert_array_equal(resumed.consensus_, whole.consensus_)


def test_votes__trusted_rows__keep_what_their_votes_say() -> None:
    X, y = blobs(150)
    votes = np.stack([y, y], 1)
    wrong = np.arange(150) % 10 == 0
    votes[wrong] = (y[wrong, None] + 1) % 3
    clf = quick(CrossEntropyClassifier).fit(X, votes, clean_mask=wrong)
    assert (clf.consensus_[wrong] == votes[wrong, 0]).all()
    assert (clf.label_quality_[wrong] == 1).all()


def test_votes__held_out_rows__are_scored_but_not_learned() -> None:
    X, y = blobs(200)
    votes, _ = crowd(y, [0.9, 0.8, 0.7])
    clf = quick(CrossEntropyClassifier, validation_fraction=0.2).fit(X, votes)
    assert clf.history_[-1, "valid_acc"] > 0.8
    assert clf.consensus_.shape == (200,)


def test_votes__too_few_rows__are_weighed_without_networks_and_that_is_said() -> None:
    X, y = blobs(60)
    with pytest.warns(NoisyFitWarning, match="100 rows or more. Got 60"):
        clf = quick(CrossEntropyClassifier).fit(X, crowd(y, [0.95, 0.9, 0.3])[0])
    assert clf.annotator_quality_.argmin() == 2


def test_votes__in_a_grid_search__are_sliced_by_rows_and_scored_by_agreement() -> None:
    X, y = blobs(200)
    votes, _ = crowd(y, [0.9, 0.8], share=0.9)
    votes[votes.max(1) < 0, 0] = 0
    clf = quick(CrossEntropyClassifier, missing_label=-1)
    search = GridSearchCV(clf, {"lr": [0.01, 0.05]}, cv=2)
    search.fit(X, votes)
    agrees = votes == search.predict(X)[:, None]
    expected = np.mean(agrees.sum(1) / (votes >= 0).sum(1))
    assert search.score(X, votes) == pytest.approx(expected)
    assert 0.7 < search.best_score_ < 0.95


@pytest.mark.parametrize("name", ["dawid_skene", "glad", "mace"])
def test_votes__aggregated_by_crowd_kit__are_where_a_fit_starts(name: str) -> None:
    pytest.importorskip("crowdkit")
    X, y = blobs(150)
    votes, _ = crowd(y, [0.9, 0.9, 0.4])
    clf = quick(CrossEntropyClassifier, annotator_aggregation=name).fit(X, votes)
    assert (clf.consensus_ == y).mean() > 0.95


def test_votes__without_crowd_kit__say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "crowdkit", None)
    X, y = blobs(150)
    with pytest.raises(ImportError, match=r"pip install 'noisyfit\[crowd\]'"):
        quick(CrossEntropyClassifier, annotator_aggregation="glad").fit(X, np.stack([y, y], 1))


ONE_HOT = np.eye(3, dtype=int)[blobs(30)[1]]
BAD_COLUMNS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "gaps": (np.where(ONE_HOT, NAN, 1.0), {}, "Set missing_label=float"),
    "probabilities": (ONE_HOT * 0.5 + 0.25, {}, "a classifier with soft_labels=True"),
    "one-hot": (ONE_HOT, {}, r"Pass y.argmax\(axis=1\), or a classifier with soft"),
    "no votes": (np.full((30, 2), -1), {"missing_label": -1}, "y must have labels"),
    "one class": (np.ones((30, 2)), {}, "only one class"),
    "counts": (ONE_HOT * 51, {"soft_labels": True}, "Divide counts by their sum"),
    "negative": (ONE_HOT * 2 - 0.5, {"soft_labels": True}, "at least 0"),
    "rows of NaN": (np.full((30, 3), NAN), {"soft_labels": True}, "Set missing_label"),
    "text": (np.full((30, 3), "a"), {"soft_labels": True}, "must hold probabilities"),
    "one label a row": (np.arange(30) % 3, {"soft_labels": True}, "Got shape"),
    "names of no columns": (np.arange(30) % 3, {"classes": [0, 1, 2]}, "soft_labels=False"),
    "names": (ONE_HOT, {"soft_labels": True, "classes": ["a", "a", "b"]}, "each of the 3 columns"),
}


@pytest.mark.parametrize("y, params, message", BAD_COLUMNS.values(), ids=BAD_COLUMNS)
def test_columns__that_cannot_be_read__say_what_to_do(
    y: Any, params: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        quick(CrossEntropyClassifier, **params).fit(blobs(30)[0], y)


def test_score_labels__of_votes__is_refused() -> None:
    X, y = blobs(150)
    clf = quick(CrossEntropyClassifier).fit(X, y)
    with pytest.raises(ValueError, match="one column at a time"):
        clf.score_labels(X, np.stack([y, (y + 1) % 3], 1))


# Soft labels.


@every_variant
def test_soft_labels__of_one_class_each__are_labels(cls: Estimator) -> None:
    X, y = blobs(150)
    soft = quick(cls, soft_labels=True).fit(X, np.eye(3)[y])
    hard = quick(cls).fit(X, y)
    np.testing.assert_allclose(soft.predict_proba(X), hard.predict_proba(X), atol=2e-3)
    assert soft.given_labels_.tolist() == hard.given_labels_.tolist()


def test_soft_labels__are_learned_as_distributions() -> None:
    X, y = blobs(300)
    shares = np.eye(3)[y] * 0.55 + 0.15
    for seed in range(3):
        clf = CrossEntropyClassifier(soft_labels=True, random_state=seed, device="cpu")
        probs = clf.fit(X, shares).predict_proba(X)
        assert np.abs(probs - shares).mean() < 0.05


def test_soft_labels__columns_have_names() -> None:
    X, y = blobs(150)
    frame = pd.DataFrame(np.eye(3)[y], columns=["c", "a", "b"])
    clf = quick(CrossEntropyClassifier, soft_labels=True).fit(X, frame)
    assert clf.classes_.tolist() == ["a", "b", "c"]
    assert (clf.predict(X) == np.array(["c", "a", "b"])[y]).mean() > 0.95
    named = quick(CrossEntropyClassifier, soft_labels=True, classes=["c", "a", "b"])
    np.testing.assert_array_equal(named.fit(X, frame.to_numpy()).predict(X), clf.predict(X))
    assert clf.score(X, frame) > 0.95
    assert clf.score(X, np.array(["c", "a", "b"])[y]) > 0.95  # labels, once the classes are known
    with pytest.raises(ValueError, match="must be the classes seen in fit"):
        clf.score(X, frame.to_numpy())


def test_soft_labels__rows_of_nan__have_no_label() -> None:
    X, y = blobs(150)
    shares = np.eye(3)[y]
    shares[:20] = NAN
    clf = quick(CrossEntropyClassifier, soft_labels=True, missing_label=NAN).fit(X, shares)
    assert np.isnan(clf.label_quality_[:20]).all()
    assert np.isfinite(clf.label_quality_[20:]).all()


@pytest.mark.parametrize("taker", [LabelCleaner(), EchoSelect(), EchoMod()], ids=repr)
def test_votes__where_one_label_is_needed__are_refused(taker: Any) -> None:
    X, y = blobs(60)
    votes, _ = crowd(y, [0.9, 0.8, 0.7])
    with pytest.raises(ValueError, match=r"one label a row.*\(60, 3\).*consensus_"):
        taker.fit(X, votes)
