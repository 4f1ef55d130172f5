"""Labels in every container, with every mark of a missing one, and what comes back."""

import datetime
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from noisyfit import (
    CrossEntropyClassifier,
    EchoAlignClassifier,
    EchoSelect,
    NoisyFitWarning,
    metrics,
    noise,
    quality,
)
from noisyfit.utils.validation import as_column, encode, find_classes, is_missing, present_labels
from tests.helpers import blobs, quick

X, CODES = blobs(40, 2)
GAPS = np.arange(40) % 5 == 0

KINDS: dict[str, list[Any]] = {
    "int": [3, 7],
    "bool": [False, True],
    "float": [0.0, 1.0],
    "str": ["cat", "dog"],
    "date": [np.datetime64("2020-01-01"), np.datetime64("2021-01-01")],
}
NULLS: dict[str, Any] = {
    "None": None,
    "nan": float("nan"),
    "float32 nan": np.float32("nan"),
    "NA": pd.NA,
    "NaT": pd.NaT,
}
MARKERS: dict[str, Any] = {**NULLS, "datetime64 NaT": np.datetime64("NaT")}
del MARKERS["None"]  # says that every row has a label


def given(kind: str, mark: Any = None) -> list[Any]:
    """Labels in a list, every fifth missing."""
    return [mark if gap else KINDS[kind][c] for c, gap in zip(CODES, GAPS, strict=True)]


def as_objects(values: list[Any]) -> NDArray[Any]:
    return np.fromiter(values, dtype=object, count=len(values))


def as_frame(values: list[Any]) -> pd.DataFrame:
    return pd.DataFrame({"label": pd.Series(values, index=range(100, 140)).convert_dtypes()})


def as_masked(values: list[Any]) -> Any:
    filled = [values[1] if value is None else value for value in values]
    return np.ma.array(filled, mask=[value is None for value in values])


def as_string_dtype(values: list[Any]) -> NDArray[Any]:
    return np.array(values, dtype=np.dtypes.StringDType(na_object=None))


def polars(values: list[Any], dtype: str | None = None) -> Any:
    library = pytest.importorskip("polars")
    return library.Series("label", values, dtype=dtype and getattr(library, dtype))


def arrow(values: list[Any]) -> Any:
    return pytest.importorskip("pyarrow").array(values)


def chunked(values: list[Any]) -> Any:
    library = pytest.importorskip("pyarrow")
    return library.chunked_array([values[:10], values[10:]])


def arrow_table(values: list[Any]) -> Any:
    return pytest.importorskip("pyarrow").table({"label": values})


def arrow_backed(values: list[Any]) -> pd.Series:
    pytest.importorskip("pyarrow")
    return pd.Series(values, dtype=object).convert_dtypes(dtype_backend="pyarrow")


PLAIN = ("int", "bool", "float", "str")
CONTAINERS: dict[str, tuple[Callable[[list[Any]], Any], tuple[str, ...]]] = {
    "list": (list, PLAIN),
    "tuple": (tuple, PLAIN),
    "objects": (as_objects, PLAIN),
    "masked array": (as_masked, PLAIN),
    "StringDType": (as_string_dtype, ("str",)),
    "datetime64": (lambda values: np.array(values, "datetime64[D]"), ("date",)),
    "object series": (lambda values: pd.Series(values, dtype=object), PLAIN),
    "category": (lambda values: pd.Series(values, dtype="category"), PLAIN),
    "Categorical": (pd.Categorical, PLAIN),
    "category of Int64": (
        lambda values: pd.Series(values, dtype="Int64").astype("category"),
        ("int",),
    ),
    "Int64": (lambda values: pd.Series(values, dtype="Int64"), ("int",)),
    "Int8 array": (lambda values: pd.array(values, dtype="Int8"), ("int",)),
    "boolean": (lambda values: pd.Series(values, dtype="boolean"), ("bool",)),
    "Float64": (lambda values: pd.Series(values, dtype="Float64"), ("float",)),
    "string": (lambda values: pd.Series(values, dtype="string"), ("str",)),
    "str": (lambda values: pd.Series(values, dtype="str"), ("str",)),
    "datetime series": (pd.Series, ("date",)),
    "frame of one column": (as_frame, ("int", "bool", "str")),
    "arrow-backed": (arrow_backed, ("int", "bool", "str")),
    "arrow array": (arrow, PLAIN),
    "chunked array": (chunked, PLAIN),
    "arrow table": (arrow_table, PLAIN),
    "arrow dictionary": (lambda values: arrow(values).dictionary_encode(), ("str",)),
    "polars": (polars, PLAIN),
    "polars category": (lambda values: polars(values, "Categorical"), ("str",)),
    "polars frame": (lambda values: polars(values).to_frame(), PLAIN),
}
ZOO = [(name, kind) for name, (_, kinds) in CONTAINERS.items() for kind in kinds]


@pytest.mark.parametrize("name, kind", ZOO, ids=[f"{name}-{kind}" for name, kind in ZOO])
def test_labels_with_gaps__in_any_container__come_back_in_their_own_type(
    name: str, kind: str
) -> None:
    y = CONTAINERS[name][0](given(kind))
    clf = quick(CrossEntropyClassifier, max_epochs=2, missing_label=np.nan).fit(X, y)
    kinds = {"int": "i", "bool": "b", "float": "f", "str": "OU", "date": "M"}[kind]
    assert clf.classes_.dtype.kind in kinds
    assert (clf.classes_ == KINDS[kind]).all()
    assert clf.predict(X).dtype == clf.corrected_labels_.dtype == clf.classes_.dtype
    assert np.isnan(clf.label_quality_).tolist() == GAPS.tolist()
    assert is_missing(clf.given_labels_, np.nan).tolist() == GAPS.tolist()
    assert (clf.given_labels_[~GAPS] == np.array(KINDS[kind])[CODES[~GAPS]]).all()
    assert pd.isna(clf.label_issues()["given_label"]).tolist() == GAPS.tolist()
    assert np.isnan(clf.score_labels(X, y)).tolist() == GAPS.tolist()


@pytest.mark.parametrize("marker", MARKERS.values(), ids=MARKERS)
@pytest.mark.parametrize("mark", NULLS.values(), ids=NULLS)
def test_missing_label__any_null__finds_any_other(marker: Any, mark: Any) -> None:
    for kind in PLAIN:
        for make in (list, as_objects, lambda values: pd.Series(values, dtype=object)):
            column = as_column(make(given(kind, mark)))
            missing = is_missing(column, marker)
            assert missing.tolist() == GAPS.tolist()
            classes = find_classes(present_labels(column, missing))
            assert classes.tolist() == KINDS[kind]
            assert isinstance(classes.tolist()[0], type(KINDS[kind][0]))
            assert encode(column, classes, missing).tolist() == np.where(GAPS, -1, CODES).tolist()


def test_is_missing__nulls_of_arrays__are_found_as_they_are() -> None:
    for values in (np.array([0, np.nan], np.float32), np.array(["a", pd.NA], object)):
        assert is_missing(values, pd.NA).tolist() == [False, True]
        assert is_missing(values, -1).tolist() == [False, False]
        assert is_missing(values, None).tolist() == [False, False]


NUMBERS = {"int": ("Int64", "integer"), "bool": ("boolean", "boolean")}


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("mark", [None, pd.NA], ids=str)
def test_label_issues__numbers_with_gaps__are_numbers_with_gaps(kind: str, mark: Any) -> None:
    dtype, inferred = NUMBERS[kind]
    for y in (given(kind, mark), pd.Series(given(kind), dtype=dtype)):
        clf = quick(CrossEntropyClassifier, max_epochs=2, missing_label=np.nan).fit(X, y)
        column = clf.label_issues()["given_label"]
        assert column.dtype == dtype
        assert column.isna().tolist() == GAPS.tolist()
        assert pd.api.types.infer_dtype(column) == inferred
    assert clf.label_issues()["predicted_label"].dtype == clf.classes_.dtype


@pytest.mark.parametrize("kind", [*PLAIN, "date"])
@pytest.mark.parametrize("aligned", [False, True], ids=["classifier", "EchoAlign"])
def test_score__rows_without_a_label__do_not_count(kind: str, aligned: bool) -> None:
    y = as_objects(given(kind))
    if kind == "date":
        y = y.astype("M8[D]")
    clf = quick(EchoAlignClassifier if aligned else CrossEntropyClassifier, max_epochs=2)
    clf.set_params(missing_label=pd.NA).fit(X, y)
    wrong = (np.arange(40) % 8 == 1) & ~GAPS  # 4 of 32
    unlike = y.copy()
    unlike[wrong] = np.where(clf.predict(X) == KINDS[kind][0], *KINDS[kind][::-1])[wrong]
    unlike[~wrong & ~GAPS] = clf.predict(X)[~wrong & ~GAPS]
    assert clf.score(X, unlike) == 28 / 32
    weights = np.where(GAPS, 100, np.where(wrong, 3, 1))
    assert clf.score(X, unlike, sample_weight=weights) == 28 / (28 + 12)


def test_score__no_label_at_all__is_an_error() -> None:
    clf = quick(CrossEntropyClassifier, max_epochs=2, missing_label=-1).fit(X, CODES)
    with pytest.raises(ValueError, match="y must have labels. Got -1 in every row"):
        clf.score(X, np.full(40, -1))
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[40, 39\]"):
        clf.score(X, CODES[1:])


def test_score__a_class_that_fit_has_not_seen__is_wrong() -> None:
    clf = quick(CrossEntropyClassifier, max_epochs=2, missing_label=-1).fit(X, CODES)
    y = np.where(GAPS, 9, clf.predict(X))
    assert clf.score(X, y) == 32 / 40


def test_labels_with_gaps__floats_of_pandas__stay_floats() -> None:
    y = pd.Series(given("int"), dtype=float)
    clf = quick(CrossEntropyClassifier, max_epochs=2, missing_label=pd.NA).fit(X, y)
    assert clf.classes_.dtype == clf.predict(X).dtype == float


def test_missing_label__among_labels_of_another_type__marks_rows() -> None:
    for mark, kind in (("?", "int"), (-1, "str")):
        y = given(kind, mark)
        clf = quick(CrossEntropyClassifier, max_epochs=2, missing_label=mark).fit(X, y)
        assert clf.classes_.tolist() == KINDS[kind]
        assert np.isnan(clf.label_quality_).tolist() == GAPS.tolist()


@pytest.mark.parametrize("marker", MARKERS.values(), ids=MARKERS)
def test_save__null_as_missing_label__is_restored(marker: Any, tmp_path: Path) -> None:
    clf = quick(CrossEntropyClassifier, max_epochs=2, missing_label=marker)
    clf.fit(X, pd.Series(given("bool"), dtype="boolean")).save(tmp_path / "model")
    loaded = CrossEntropyClassifier.load(tmp_path / "model", device="cpu")
    assert is_missing(loaded.given_labels_, loaded.missing_label).tolist() == GAPS.tolist()
    pd.testing.assert_frame_equal(loaded.label_issues(), clf.label_issues())


@pytest.mark.parametrize("name", ["X_val", "X_meta"])
@pytest.mark.filterwarnings("ignore:.*ignores X_meta", "ignore:.*as many rows as X")
def test_further_rows__with_gaps__are_read_by_the_same_rule(name: str) -> None:
    further = name.replace("X", "y")
    labels = pd.Series(given("int"), dtype="Int64")
    clf = quick(CrossEntropyClassifier, max_epochs=2, missing_label=np.nan)
    clf.fit(X, given("int"), **{name: X, further: labels})
    with pytest.raises(ValueError, match=f"{further} must have a label.*missing_label=float"):
        clf.set_params(missing_label=-1).fit(X, 3 + 4 * CODES, **{name: X, further: labels})


@pytest.mark.parametrize("mark", NULLS.values(), ids=NULLS)
def test_null__without_missing_label__says_how_to_set_it(mark: Any) -> None:
    for missing_label in (None, -1):
        clf = quick(CrossEntropyClassifier, missing_label=missing_label)
        for kind in PLAIN:
            with pytest.raises(ValueError, match=r"row 0, 8 of 40.*missing_label=float\('nan'\)"):
                clf.fit(X, given(kind, mark))


@pytest.mark.parametrize("mark", ["", "  "])
def test_blank__without_missing_label__says_how_to_set_it(mark: str) -> None:
    y = given("str", mark)
    for make in (list, np.array, pd.Series, pd.Categorical):
        with pytest.raises(ValueError, match=f"label in every row.*missing_label='{mark}'"):
            quick(CrossEntropyClassifier).fit(X, make(y))
    clf = quick(CrossEntropyClassifier, max_epochs=2, missing_label=mark).fit(X, y)
    assert clf.classes_.tolist() == ["cat", "dog"]


@pytest.mark.parametrize(
    "y, label",
    [
        ([-1, 0, 1, 2], "-1"),
        (np.array([-1.0, 0.0, 1.0]), "-1.0"),
        (pd.Series([-1, 3, 5], dtype="Int64"), "-1"),
        (np.array(["a", "b", np.nan]), "'nan'"),
        (["a", "b", str(pd.NA)], "'<NA>'"),
        (["None", "a"], "'None'"),
    ],
)
def test_class_that_looks_like_no_label__is_said_in_a_warning(y: Any, label: str) -> None:
    rows = np.arange(40) % len(y)
    y = as_column(y)[rows]
    with pytest.warns(NoisyFitWarning, match=f"missing_label={label}") as caught:
        quick(CrossEntropyClassifier, max_epochs=2).fit(X, y)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("y", [[-1, 1], [-1, 0], [-2, -1, 0, 1], ["-1", "0", "1"], [0, 1, 2]])
def test_class_that_is_one__is_learned_without_a_warning(y: list[Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_classes(present_labels(as_column(y))).tolist() == sorted(y)


NO_CLASSES: dict[str, tuple[Any, str]] = {
    "mixture in a list": ([0, "a"] * 20, "one type.*such as 0 and 'a'"),
    "mixture of objects": (as_objects([0, "a"] * 20), "one type.*such as 0 and 'a'"),
    "mixture in a series": (pd.Series(["a", 1.5] * 20), "one type.*such as 'a' and 1.5"),
    "bytes": (np.array([b"a", b"b"] * 20), "such as .*b'a'.* to strings"),
    "datetimes": ([datetime.date(2020, 1, 1 + i) for i in range(2)] * 20, "date, such as"),
    "time zone": (
        pd.Series(pd.date_range("2020", periods=40, tz="UTC")), "Timestamp, such as.* to strings"
    ),
    "dicts": ([{"a": 1}, {"b": 1}] * 20, "dict, such as"),
    "intervals": (pd.cut(pd.Series(range(40)), 2), "Interval, such as.* to strings"),
    "continuous": (np.linspace(0, 1, 40), "continuous, such as.*numpy.digitize"),
    "infinity": (np.array([0, np.inf] * 20), "continuous, such as inf"),
    "ragged": ([[0], [0, 1]] * 20, "one label for each row"),
}  # fmt: skip


@pytest.mark.parametrize("y, message", NO_CLASSES.values(), ids=NO_CLASSES)
def test_labels__that_are_no_classes__say_what_must_hold(y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^y must hold.*{message}"):
        quick(CrossEntropyClassifier).fit(X, y)


COMPLETE: dict[str, Any] = {
    "tensor": torch.as_tensor(CODES),
    "tensor with a gradient": torch.as_tensor(CODES).float().requires_grad_(),
    "objects": CODES.astype(object),
    "StringDType": np.array(["a", "b"], dtype=np.dtypes.StringDType())[CODES],
    "series in another order": pd.Series(CODES, index=np.arange(40)[::-1]),
    "dates": np.array(["2020", "2021"], "datetime64[Y]")[CODES],
    "nanoseconds": pd.Series(np.array(["2020", "2021"], "datetime64[ns]")[CODES]),
}


@pytest.mark.parametrize("y", COMPLETE.values(), ids=COMPLETE)
def test_labels__of_any_kind__train_the_same_network(y: Any) -> None:
    clf = quick(CrossEntropyClassifier, max_epochs=2).fit(X, y)
    plain = quick(CrossEntropyClassifier, max_epochs=2).fit(X, CODES)
    np.testing.assert_array_equal(clf.predict_proba(X), plain.predict_proba(X))
    assert (clf.predict(X) == clf.classes_[plain.predict(X)]).all()
    np.testing.assert_array_equal(clf.score_labels(X, y), plain.score_labels(X, CODES))


def test_encode__dates_of_another_unit__are_the_same_dates() -> None:
    classes = np.array(["2020-01-01", "2021-01-01"], "datetime64[ns]")
    days = np.array(["2021-01-01", "2020-01-01"], "datetime64[D]")
    assert encode(days, classes, np.zeros(2, bool)).tolist() == [1, 0]


@pytest.mark.parametrize(
    "y", [given("int"), pd.Series(given("str"), dtype="string"), ["a", "b", np.nan], ["a", "b", ""]]
)
def test_simulated_noise__with_gaps__is_refused(y: Any) -> None:
    with pytest.raises(ValueError, match="y must have a label in every row.*Drop those rows"):
        noise.symmetric(y, 0.2, random_state=0)


@pytest.mark.parametrize("dtype", ["Int64", "category"])
def test_simulated_noise__on_integers_of_pandas__is_that_on_integers(dtype: str) -> None:
    noisy = noise.symmetric(pd.Series(CODES, dtype=dtype), 0.2, random_state=0).labels
    np.testing.assert_array_equal(noisy, noise.symmetric(CODES, 0.2, random_state=0).labels)
    assert noisy.dtype.kind == "i"


PROBS = np.linspace(0.1, 0.9, 40)[:, None] * [1, -1] + [0, 1]
RATINGS: dict[str, Callable[[Any], Any]] = {
    "self_confidence": lambda y: quality.self_confidence(y, PROBS),
    "normalized_margin": lambda y: quality.normalized_margin(y, PROBS),
    "is_label_issue": lambda y: quality.is_label_issue(y, PROBS, PROBS[:, 0]),
    "corrected_labels": lambda y: quality.corrected_labels(y, PROBS, 0.3),
    "find_label_issues": lambda y: quality.find_label_issues(y, PROBS),
    "transition_matrix": lambda y: quality.transition_matrix(y, PROBS),
}


@pytest.mark.parametrize("rate", RATINGS.values(), ids=RATINGS)
def test_quality__null_or_minus_one__is_no_label(rate: Callable[[Any], Any]) -> None:
    codes = np.where(GAPS, -1, CODES)
    marked = [None if gap else c for c, gap in zip(CODES.tolist(), GAPS, strict=True)]
    expected = rate(codes)
    for y in (marked, pd.Series(marked, dtype="Int64"), pd.Series(marked, dtype=float)):
        np.testing.assert_array_equal(rate(y), expected)


def test_transition_matrix__rows_without_a_label__do_not_count() -> None:
    codes = np.where(GAPS, -1, CODES)
    found = quality.transition_matrix(codes, PROBS)
    for true in range(2):
        counts = [sum(PROBS[i, true] for i in range(40) if codes[i] == z) for z in range(2)]
        np.testing.assert_allclose(found[true], np.array(counts) / sum(counts))


@pytest.mark.parametrize("mark", NULLS.values(), ids=NULLS)
def test_corrected_accuracy__rows_of_unknown_truth__do_not_count(mark: Any) -> None:
    assert metrics.corrected_accuracy(["cat", mark, "dog"], ["cat", "cat", "cat"]) == 0.5
    with pytest.raises(ValueError, match="y_true must hold a label"):
        metrics.corrected_accuracy([mark, mark], ["cat", "dog"])


@pytest.mark.parametrize("mark", NULLS.values(), ids=NULLS)
def test_ood_scores__training_row_without_a_label__is_refused(mark: Any) -> None:
    with pytest.raises(ValueError, match="train_labels must .* hold no NaN"):
        metrics.ood_scores(
            method="mahalanobis", embeddings=X, train_embeddings=X, train_labels=given("str", mark)
        )


def as_they_are(x: Any, y: Any, generator: Any) -> Any:
    return x


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("mark", [None, pd.NA, np.nan], ids=str)
def test_echoalign__labels_with_gaps__come_back_in_their_own_type(kind: str, mark: Any) -> None:
    y = pd.Series(given(kind, mark), dtype=object)
    selector = EchoSelect(as_they_are, threshold=0.5)
    inner = quick(CrossEntropyClassifier, max_epochs=2)
    clf = EchoAlignClassifier(inner, selector=selector, missing_label=pd.NA, random_state=0)
    clf.fit(X, y)
    assert clf.classes_.tolist() == KINDS[kind]
    assert clf.predict(X).dtype == clf.corrected_labels_.dtype == clf.classes_.dtype
    assert pd.isna(clf.label_issues()["given_label"]).tolist() == GAPS.tolist()
    assert not clf.label_issues()["is_label_issue"][GAPS].any()
    assert np.isnan(clf.score_labels(X, y)).tolist() == GAPS.tolist()
    with pytest.raises(ValueError, match="must have a label in every row.*Set missing_label="):
        clf.set_params(missing_label=None).fit(X, y)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_rows__not_finite__are_counted_and_the_first_is_named(value: float) -> None:
    bad = X.copy()
    bad[3, 1] = bad[3, 4] = bad[7, 0] = value
    message = r"X must be finite. Got X\[3, 1\] = .*NaN or infinity in 2 of 40 rows.*drop"
    clf = quick(CrossEntropyClassifier, max_epochs=2).fit(X, CODES)
    for rows in (bad, bad.tolist(), pd.DataFrame(bad).convert_dtypes()):
        for call in (clf.predict_proba, clf.transform, lambda rows: clf.fit(rows, CODES)):
            with pytest.raises(ValueError, match=message):
                call(rows)
