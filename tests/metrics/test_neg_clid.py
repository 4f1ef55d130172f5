import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Checkpoint, EarlyStopping, EpochScoring

from noisyfit import CrossEntropyClassifier, neg_clid, noise
from noisyfit.metrics import divergence, standardized_clid
from tests.helpers import Arrays, blobs, quick


class Remembered:
    """A fitted estimator whose outputs are known: X are row numbers."""

    def __init__(self, embeddings: NDArray[Any], probs: NDArray[Any]) -> None:
        self.embeddings = embeddings
        self.probs = probs

    def transform(self, X: Any) -> NDArray[Any]:
        return self.embeddings[X]

    def predict_proba(self, X: Any) -> NDArray[Any]:
        return self.probs[X]


def remembered(n: int, n_classes: int = 5, seed: int = 0) -> tuple[Remembered, NDArray[np.int64]]:
    """Make an estimator of n rows, and the class of each."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(n_classes, size=n)
    embeddings = np.maximum(rng.normal(size=(n_classes, 8))[classes] + rng.normal(size=(n, 8)), 0)
    probs = rng.dirichlet(np.ones(n_classes), size=n) + np.eye(n_classes)[classes]
    return Remembered(embeddings, probs / 2), classes


def noisy_blobs(seed: int = 0) -> Arrays:
    X, y = blobs(300, seed=seed)
    return X, noise.symmetric(y, 0.3, random_state=seed).labels


def watched(**params: Any) -> CrossEntropyClassifier:
    """Make an estimator that stops early on `neg_clid`."""
    on_train = params.pop("on_train", False)
    callbacks = [
        EpochScoring(neg_clid, name="neg_clid", lower_is_better=False, on_train=on_train),
        EarlyStopping("neg_clid", lower_is_better=False, patience=3, load_best=True),
        *params.pop("callbacks", []),
    ]
    return quick(CrossEntropyClassifier, max_epochs=40, callbacks=callbacks, **params)


@pytest.mark.parametrize("n", [3, 40, 1000])
def test_neg_clid__up_to_one_set__is_the_negative_of_the_metric(n: int) -> None:
    clf, _ = remembered(n)
    expected = -standardized_clid(clf.embeddings, clf.probs)
    assert isinstance(neg_clid(clf, np.arange(n)), float)
    assert neg_clid(clf, np.arange(n)) == pytest.approx(expected)


@pytest.mark.parametrize("n", [1001, 2000, 2700])
def test_neg_clid__more_rows__are_dealt_to_full_sets(
    n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets: list[NDArray[Any]] = []

    def record(embeddings: NDArray[Any], probs: NDArray[Any]) -> float:
        sets.append(probs[:, 0].astype(int))
        return float(len(sets))

    monkeypatch.setattr(divergence, "standardized_clid", record)
    numbers = np.arange(n)
    score = neg_clid(Remembered(numbers[:, None], numbers[:, None]), numbers)
    n_sets = -(-n // 1000)
    assert [len(rows) for rows in sets] == [1000] * n_sets
    assert all(len(np.unique(rows)) == 1000 for rows in sets)
    assert len(np.unique(np.concatenate(sets))) == n
    assert score == -np.mean(range(1, n_sets + 1))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_neg_clid__order_of_the_rows__hardly_matters(seed: int) -> None:
    clf, classes = remembered(3500, seed=seed)
    rng = np.random.default_rng(seed)
    expected = np.mean([neg_clid(clf, rng.permutation(3500)) for _ in range(10)])
    by_class = np.argsort(classes, kind="stable")  # the same on every machine
    by_place, as_given = np.argsort(clf.embeddings[:, 0]), np.arange(3500)
    for order in (by_class, by_place, as_given, as_given[::-1]):
        assert neg_clid(clf, order) == pytest.approx(expected, abs=0.01)
    one_class_a_set = [np.flatnonzero(classes == code) for code in range(5)]
    apart = np.mean([neg_clid(clf, rows) for rows in one_class_a_set])
    assert abs(apart - expected) > 0.1


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_neg_clid__well_trained_network__beats_a_hardly_trained_and_a_shuffled_one(
    seed: int,
) -> None:
    X, y = noisy_blobs(seed)
    clf = quick(CrossEntropyClassifier, max_epochs=15, random_state=seed).fit(X[:200], y[:200])
    start = quick(CrossEntropyClassifier, max_epochs=1, lr=1e-8, random_state=seed)
    start.fit(X[:200], y[:200])
    rows = X[200:]
    shuffled = Remembered(clf.transform(rows), clf.predict_proba(rows)[::-1])
    score = neg_clid(clf, rows)
    assert score > neg_clid(start, rows) + 0.1
    assert score > neg_clid(shuffled, np.arange(len(rows))) + 0.1


def test_neg_clid__labels__are_not_looked_at() -> None:
    X, y = noisy_blobs()
    clf = quick(CrossEntropyClassifier).fit(X, y)
    assert neg_clid(clf, X, y) == neg_clid(clf, X) == neg_clid(clf, X, np.roll(y, 1))


def test_neg_clid__grid_search__prefers_the_setting_that_learns() -> None:
    X, y = noisy_blobs()
    search = GridSearchCV(
        quick(CrossEntropyClassifier), {"lr": [1e-8, 0.05]}, scoring=neg_clid, cv=2
    ).fit(X, y)
    assert search.best_params_ == {"lr": 0.05}
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert neg_clid(search, X) == neg_clid(search.best_estimator_, X)


def test_neg_clid__pipeline__is_scored_by_its_last_step() -> None:
    X, y = noisy_blobs()
    pipeline = make_pipeline(StandardScaler(), quick(CrossEntropyClassifier))
    scores = cross_val_score(pipeline, X, y, scoring=neg_clid, cv=3)
    assert scores.shape == (3,)
    assert np.isfinite(scores).all()
    pipeline.fit(X, y)
    assert neg_clid(pipeline, X) == neg_clid(pipeline[-1], pipeline[0].transform(X))


@pytest.mark.parametrize("estimator", [LogisticRegression(), make_pipeline(LogisticRegression())])
def test_neg_clid__no_embeddings__says_what_is_missing(estimator: Any) -> None:
    X, y = noisy_blobs()
    with pytest.raises(TypeError, match="without transform. Use an estimator of noisyfit"):
        neg_clid(estimator.fit(X, y), X)


def test_neg_clid__no_probabilities__says_what_is_missing() -> None:
    with pytest.raises(TypeError, match="StandardScaler without predict_proba"):
        neg_clid(StandardScaler(), np.ones((5, 2)))


def test_neg_clid__two_rows__are_refused() -> None:
    with pytest.raises(ValueError, match="at least 3 rows"):
        neg_clid(remembered(5)[0], np.arange(2))


def test_neg_clid__pickled__is_the_same_function() -> None:  # what n_jobs=2 needs
    assert pickle.loads(pickle.dumps(neg_clid)) is neg_clid


@pytest.mark.parametrize("params", [{"validation_fraction": 0.2}, {"on_train": True}])
def test_neg_clid__early_stopping__stops_and_keeps_the_best_epoch(params: dict[str, Any]) -> None:
    X, y = noisy_blobs()
    clf = watched(**params).fit(X, y)
    scores = clf.history_[:, "neg_clid"]
    best = int(np.argmax(scores))
    assert clf.n_iter_ == len(scores) == best + 4 < 40
    assert [k for k, is_best in enumerate(clf.history_[:, "neg_clid_best"]) if is_best][-1] == best
    if "on_train" in params:
        assert neg_clid(clf, X) == pytest.approx(scores[best], rel=1e-6)


def test_neg_clid__rows_of_x_val__are_scored() -> None:
    X, y = noisy_blobs()
    clf = watched().fit(X[:200], y[:200], X_val=X[200:], y_val=y[200:])
    assert neg_clid(clf, X[200:]) == pytest.approx(max(clf.history_[:, "neg_clid"]), rel=1e-6)


def test_neg_clid__checkpoint__holds_the_best_epoch(tmp_path: Path) -> None:
    X, y = noisy_blobs()
    keep = Checkpoint(monitor="neg_clid_best", dirname=str(tmp_path), load_best=True)
    scoring = EpochScoring(neg_clid, name="neg_clid", lower_is_better=False, on_train=True)
    clf = quick(CrossEntropyClassifier, max_epochs=8, callbacks=[scoring, keep]).fit(X, y)
    assert (tmp_path / "params.pt").exists()
    assert neg_clid(clf, X) == pytest.approx(max(clf.history_[:, "neg_clid"]), rel=1e-6)
