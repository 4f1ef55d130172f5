"""Labels of every kind, none, trusted ones, and what is said of them."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from noisyfit import NoisyFitWarning
from noisyfit.noise import symmetric
from tests.common.zoo import Estimator, every_method, every_variant, every_way_to, of_the_base
from tests.helpers import blobs, quick


def as_series(codes: NDArray[Any]) -> pd.Series:
    index = [f"row{i}" for i in range(len(codes))][::-1]
    return pd.Series(np.array(["cat", "dog"])[codes], index=index)


LABELS: dict[str, Callable[[NDArray[Any]], Any]] = {
    "strings": lambda codes: np.array(["cat", "dog"])[codes],
    "object strings": lambda codes: np.array(["cat", "dog"], dtype=object)[codes],
    "bool": lambda codes: codes.astype(bool),
    "5 and 7": lambda codes: np.array([5, 7])[codes],
    "-1 and 1": lambda codes: np.array([-1, 1])[codes],
    "list": lambda codes: np.array(["cat", "dog"])[codes].tolist(),
    "series": as_series,
    "categorical series": lambda codes: as_series(codes).astype("category"),
    "tensor": lambda codes: torch.as_tensor(codes),
}


@of_the_base
@pytest.mark.parametrize("make", LABELS.values(), ids=LABELS)
def test_labels__any_kind__come_back_as_they_came(
    cls: Estimator, make: Callable[[NDArray[Any]], Any]
) -> None:
    X, codes = blobs(150, 2)
    y = make(codes)
    given = np.asarray(y)
    clf = quick(cls).fit(X, y)
    predicted = clf.predict(X)
    assert clf.classes_.tolist() == sorted(set(given.tolist()))
    assert predicted.dtype == clf.corrected_labels_.dtype == clf.classes_.dtype
    assert isinstance(predicted.tolist()[0], type(given.tolist()[0]))
    assert (predicted == given).mean() > 0.9
    assert (clf.corrected_labels_ == given).mean() > 0.9
    assert (clf.score_labels(X, y) > 0.5).mean() > 0.8
    np.testing.assert_array_equal(
        clf.label_quality_, quick(cls).fit(X, codes).label_quality_, strict=True
    )


@of_the_base
def test_label_issues_has_the_index_of_the_frame_and_the_columns_of_cleanlab(
    cls: Estimator,
) -> None:
    X, y = blobs(60)
    index = [f"id{i}" for i in range(60)][::-1]
    frame = pd.DataFrame(X, index=index, columns=[f"c{i}" for i in range(8)])
    clf = quick(cls).fit(frame, pd.Series(y, index=index))
    issues = clf.label_issues()
    assert issues.index.tolist() == index
    assert issues.columns.tolist() == [
        "is_label_issue", "label_quality", "given_label", "predicted_label",
    ]  # fmt: skip
    assert issues["is_label_issue"].dtype == bool
    assert issues["given_label"].tolist() == y.tolist()
    np.testing.assert_array_equal(issues["label_quality"], clf.label_quality_)
    np.testing.assert_array_equal(
        issues["predicted_label"], clf.classes_[clf.label_distribution_.argmax(1)]
    )


@every_method
def test_class_with_one_row__is_kept(cls: Estimator) -> None:
    X, y = blobs(60, 2)
    y[7] = 9
    clf = quick(cls).fit(X, y)
    assert clf.classes_.tolist() == [0, 1, 9]
    assert clf.predict_proba(X).shape == clf.label_distribution_.shape == (60, 3)
    assert np.isfinite(clf.predict_proba(X)).all()
    assert (clf.predict(np.delete(X, 7, 0)) == np.delete(y, 7)).mean() > 0.85


def rare_class() -> tuple[NDArray[Any], NDArray[Any]]:
    """Two classes that are easy to tell apart, one of 3 % of the rows, and wrong labels in it."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 8)) + 4 * (np.arange(300) >= 291)[:, None]
    y = np.where(np.arange(300) >= 291, "rare", "common")
    y[:4] = "rare"
    return X, y


@every_method
@pytest.mark.parametrize("max_epochs", [2, 30])
def test_rare_class__is_predicted_or_its_loss_is_said(cls: Estimator, max_epochs: int) -> None:
    X, y = rare_class()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clf = quick(cls, max_epochs=max_epochs).fit(X, y)
    said = [str(w.message) for w in caught if "Got none for 1 of 2: 'rare'" in str(w.message)]
    lost = "rare" not in clf.predict(X)
    assert bool(said) == lost
    assert not said or "(13 labels)" in said[0]


@every_variant
def test_beliefs_are_probabilities(cls: Estimator) -> None:
    X, y = blobs()
    clf = quick(cls).fit(X, symmetric(y, 0.3, random_state=0).labels)
    np.testing.assert_allclose(clf.label_distribution_.sum(1), 1, rtol=1e-5)
    assert ((clf.label_quality_ >= 0) & (clf.label_quality_ <= 1)).all()
    assert np.unique(clf.label_quality_).size > 100


# Rows without a label.

SEEDS = (0, 1, 2)
MISSING: dict[str, tuple[Any, Callable[[NDArray[Any]], NDArray[Any]], Any]] = {
    "-1": (-1, lambda codes: codes.copy(), -1),
    "nan among numbers": (np.nan, lambda codes: codes.astype(float), np.nan),
    "nan among objects": (np.nan, lambda codes: np.array(list("abc"), object)[codes], np.nan),
    "None among objects": (np.nan, lambda codes: np.array(list("abc"), object)[codes], None),
    "empty string": ("", lambda codes: np.array(list("abc"))[codes], ""),
}


@of_the_base
@pytest.mark.parametrize("marker, make, mark", MISSING.values(), ids=MISSING)
def test_rows_without_a_label__any_mark__are_no_class_and_not_rated(
    cls: Estimator, marker: Any, make: Callable[[NDArray[Any]], NDArray[Any]], mark: Any
) -> None:
    X, codes = blobs(150)
    y = make(codes)
    complete = y.copy()
    y[::5] = mark
    clf = quick(cls, missing_label=marker).fit(X, y)
    assert clf.classes_.tolist() == np.unique(complete).tolist()
    np.testing.assert_array_equal(np.isnan(clf.label_quality_), np.arange(150) % 5 == 0)
    np.testing.assert_array_equal(np.isnan(clf.score_labels(X, y)), np.arange(150) % 5 == 0)


@every_variant
def test_rows_without_a_label__are_predicted_and_never_issues(cls: Estimator) -> None:
    X, complete = blobs(150)
    y = complete.copy()
    y[::5] = -1
    right = []
    for seed in SEEDS:
        clf = quick(cls, max_epochs=15, missing_label=-1, random_state=seed).fit(X, y)
        np.testing.assert_array_equal(np.isnan(clf.label_quality_), np.arange(150) % 5 == 0)
        assert clf.corrected_labels_[::5].tolist() == clf.predict(X[::5]).tolist()
        right.append((clf.corrected_labels_[::5] == complete[::5]).mean())
        assert not clf.label_issues()["is_label_issue"].to_numpy()[::5].any()
        assert np.isfinite(clf.transition_matrix_).all()
    assert np.mean(right) > 0.9


@of_the_base
def test_rows_without_a_label__in_every_row__is_an_error(cls: Estimator) -> None:
    X, _ = blobs(20)
    with pytest.raises(ValueError, match="y must have labels"):
        quick(cls, missing_label=-1).fit(X, np.full(20, -1))


# Trusted rows and the meta set.


@every_variant
def test_trusted_rows__are_of_quality_one_and_never_corrected(cls: Estimator) -> None:
    X, y = blobs(150)
    noisy, flipped, *_ = symmetric(y, 0.3, random_state=0)
    trusted = np.arange(150) % 3 == 0
    trusted[flipped & (np.arange(150) > 20)] = False  # a few wrong labels are trusted on purpose
    assert 0 < flipped[trusted].sum() < 10
    clf = quick(cls, max_epochs=15).fit(X, noisy, clean_mask=trusted)
    assert (clf.label_quality_[trusted] == 1).all()
    assert (clf.label_quality_[~trusted] < 1).any()
    np.testing.assert_array_equal(clf.corrected_labels_[trusted], noisy[trusted])
    assert (clf.corrected_labels_[~trusted] != noisy[~trusted]).any()
    assert not clf.label_issues()["is_label_issue"].to_numpy()[trusted].any()


@every_method
def test_trusted_rows__none_marked__change_nothing(cls: Estimator) -> None:
    X, y = blobs(100)
    clf = quick(cls).fit(X, y, clean_mask=np.zeros(100, dtype=bool))
    np.testing.assert_array_equal(clf.label_quality_, quick(cls).fit(X, y).label_quality_)


@of_the_base
@pytest.mark.parametrize(
    "mask, message",
    [
        (np.arange(20) == 3, "Every trusted row must have a label.* row 3"),
        (np.arange(5), "clean_mask must be one boolean for each of the 20 rows"),
        (np.ones(19, dtype=bool), "clean_mask must be one boolean for each of the 20 rows"),
    ],
    ids=["row without a label", "row numbers", "too short"],
)
def test_trusted_rows__bad_mask__is_an_error(
    cls: Estimator, mask: NDArray[Any], message: str
) -> None:
    X, y = blobs(20)
    y[3] = -1
    with pytest.raises(ValueError, match=message):
        quick(cls, missing_label=-1).fit(X, y, clean_mask=mask)


@every_way_to("_uses_meta", "_has_meta_set")
def test_meta_set__of_a_method_that_cannot_use_it__is_ignored_with_a_warning(
    cls: Estimator,
) -> None:
    if quick(cls)._has_meta_set():
        pytest.skip("uses its meta set")
    X, y = blobs(60)
    with pytest.warns(NoisyFitWarning, match="ignores X_meta.*clean_mask"):
        clf = quick(cls).fit(X, y, X_meta=X[:10], y_meta=y[:10])
    np.testing.assert_array_equal(clf.predict_proba(X), quick(cls).fit(X, y).predict_proba(X))


@of_the_base
@pytest.mark.filterwarnings("ignore:.*ignores X_meta")
def test_meta_set__as_long_as_X__warns_of_slicing(cls: Estimator) -> None:
    X, y = blobs(60)
    with pytest.warns(NoisyFitWarning, match="as many rows as X.*Drop a row"):
        quick(cls).fit(X, y, X_meta=X, y_meta=y)


@of_the_base
@pytest.mark.filterwarnings("ignore:.*ignores X_meta")
def test_meta_set__with_an_unseen_class__is_an_error(cls: Estimator) -> None:
    X, y = blobs(60)
    with pytest.raises(ValueError, match=r"among the classes seen in fit.*\['9'\]"):
        quick(cls).fit(X, y, X_meta=X[:10], y_meta=np.full(10, 9))
