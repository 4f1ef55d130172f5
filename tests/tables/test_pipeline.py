"""Rows with text, categories, dates and gaps, in front of an estimator."""

import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from noisyfit import CrossEntropyClassifier, tables
from noisyfit.noise import symmetric

skrub = pytest.importorskip("skrub")

pytestmark = [
    pytest.mark.filterwarnings("ignore:Found unknown categories"),
    pytest.mark.filterwarnings("ignore:The matrix shape is"),
]


def people(seed: int = 0, n: int = 300) -> tuple[pd.DataFrame, pd.Series]:
    """Rows whose class shows in a number and its gaps, a category, a flag and a text."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    town = np.where(rng.random(n) < 0.5, np.where(y == 1, "Rome", "Oslo"), "Bonn").astype(object)
    town[rng.random(n) < 0.1] = None
    words = [f"word{rng.integers(200)} {'fine' if c else 'poor'} text{i}" for i, c in enumerate(y)]
    X = pd.DataFrame(
        {
            "age": np.where(rng.random(n) < 0.2 + 0.3 * y, np.nan, rng.normal(size=n) + y),
            "town": town,
            "kind": pd.Categorical(rng.choice(list("abc"), n)),
            "member": rng.random(n) < 0.3 + 0.4 * y,
            "since": pd.date_range("2020-01-01", periods=n, freq="D").astype(str),
            "day": pd.date_range("2020-01-01", periods=n, freq="h"),
            "note": words,
        },
        index=[f"row{i}" for i in range(n)],
    )
    return X, pd.Series(np.where(y == 1, "yes", "no"), index=X.index)


def quick(**params: Any) -> Any:
    return tables.pipeline(CrossEntropyClassifier(random_state=0, max_epochs=8, **params))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_pipeline__mixed_columns_with_gaps__are_learned(seed: int) -> None:
    X, y = people(seed)
    clf = quick().fit(X, symmetric(y, 0.2, random_state=seed).labels)
    assert clf.score(*people(seed + 10)) > 0.78


def test_pipeline__label_issues__have_the_index_of_the_rows() -> None:
    X, y = people()
    wrong = symmetric(y, 0.2, random_state=0).labels
    issues = quick().fit(X, wrong)[-1].label_issues()
    assert issues.index.tolist() == X.index.tolist()
    flagged = issues.is_label_issue
    assert (wrong != y)[flagged].mean() > 0.6


def test_pipeline__unseen_categories_and_new_gaps__are_predicted() -> None:
    X, y = people()
    clf = quick().fit(X.assign(member=X["member"].astype(object)), y)
    new = X.head(9).assign(town="Paris", kind="z", age=np.nan, member=None, since=None, note=None)
    probabilities = clf.predict_proba(new)
    assert np.isfinite(probabilities).all()


def test_pipeline__gaps__are_told_apart_if_asked() -> None:
    X, y = people()
    gaps = X[["age"]].assign(other=0.5)
    plain, asked = quick(), quick().set_params(simpleimputer__add_indicator=True)
    assert plain.fit(gaps, y)[-1].n_features_in_ == 2
    assert asked.fit(gaps, y)[-1].n_features_in_ == 3


def test_pipeline__two_fits__are_the_same() -> None:
    X, y = people()
    first, second = (quick().fit(X, y).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_pipeline__joblib__predicts_as_before(tmp_path: Path) -> None:
    X, y = people()
    clf = quick().fit(X, y)
    joblib.dump(clf, tmp_path / "clf.joblib")
    same = joblib.load(tmp_path / "clf.joblib")
    np.testing.assert_array_equal(same.predict_proba(X), clf.predict_proba(X))


def test_pipeline__grid_search__chooses_settings_of_both_steps() -> None:
    X, y = people()
    grid = {
        "tablevectorizer__cardinality_threshold": [2, 40],
        "crossentropyclassifier__max_epochs": [1, 8],
    }
    search = GridSearchCV(quick(), grid, cv=2, error_score="raise").fit(X, y)
    assert search.best_params_["crossentropyclassifier__max_epochs"] == 8
    assert search.best_score_ > 0.8


def test_pipeline__polars__is_learned_as_pandas() -> None:
    pl = pytest.importorskip("polars")
    pytest.importorskip("pyarrow")
    X, y = people()
    clf = quick().fit(pl.from_pandas(X), y)
    assert clf.score(pl.from_pandas(X), y) > 0.9


@pytest.mark.parametrize("other", [LogisticRegression(), HistGradientBoostingClassifier()])
def test_pipeline__classifiers_of_scikit_learn__are_served_too(other: Any) -> None:
    X, y = people()
    assert tables.pipeline(other).fit(X, y).score(*people(1)) > 0.85


def test_pipeline__without_skrub__names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skrub", None)
    with pytest.raises(ImportError, match=r'pip install "noisyfit\[tables\]"'):
        quick()
