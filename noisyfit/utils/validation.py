"""Checks of rows, labels and row masks: what must hold, what came, what to do."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples

from noisyfit.exceptions import warn

CLASS_KINDS = "OUbiuMm"  # of numpy's dtypes, beside whole floats
EXACT_TYPES: dict[str, Any] = {"f": float | np.floating, "U": str}  # what such arrays say in full
NULLS_AS_TEXT = {"nan", "None", "NaT", "<NA>"}  # as str() writes them
PLAIN_TYPES = bool | int | float | np.bool_ | np.number | np.datetime64
CLASS_FAMILIES = (str, PLAIN_TYPES)


def row_names(X: Any, y: Any, n: int) -> NDArray[Any]:
    """Return the index or the files of X, else the index of y, else the rows' positions."""
    files = folder_files(X)
    if files is not None:
        return np.array([os.path.relpath(file, X.root) for file in files], dtype=object)
    for rows in (X, y):
        if hasattr(rows, "iloc"):
            return np.asarray(rows.index)
    return np.arange(n)


def count_rows(X: Any) -> int:
    """Return the number of rows of whatever has rows."""
    return int(_num_samples(X))


def folder_files(X: Any) -> list[str] | None:
    """Return the paths of torchvision's ``ImageFolder``, None of anything else."""
    if not all(hasattr(X, name) for name in ("samples", "loader", "class_to_idx")):
        return None
    return [path for path, _ in X.samples]


def take_rows(X: Any, rows: Any) -> Any:
    """Return some rows, by number or by mask, in the container that X is."""
    return _safe_indexing(X.tocsr() if issparse(X) else X, rows)


def check_given(y: Any, owner: str) -> None:
    """Refuse a fit without labels, in scikit-learn's words, naming ``owner``."""
    if y is None:
        raise ValueError(
            f"This {owner} estimator requires y to be passed, but the target y is None."
        )


def check_lengths(n_rows: int, n_labels: int) -> None:
    """Refuse labels that do not match the number of rows."""
    if n_rows != n_labels:
        raise ValueError(
            "X and y must have as many rows. Got inconsistent numbers of samples: "
            f"[{n_rows}, {n_labels}]."
        )


def as_column(y: Any) -> NDArray[Any]:
    """Return labels in any container as an array, without losing information.

    ``numpy.asarray`` turns whole numbers with gaps into floats, and a NaN among strings into text.
    Here such labels stay objects, and every marker of a missing label in objects becomes None.

    Parameters
    ----------
    y : array-like
        List, array, masked array, tensor, Series, Categorical, or frame of one column.

    Returns
    -------
    ndarray
        The shape of ``y``; for a frame of one column, (n_samples,).
    """
    if hasattr(y, "detach"):
        y = y.detach().cpu().numpy()
    elif hasattr(y, "columns") and len(y.columns) == 1:
        only = y.columns[0]
        y = only if hasattr(only, "to_pylist") else y[only]  # a column of Arrow, or its name
    elif np.ma.is_masked(y):
        y = np.array(y.tolist(), dtype=object)
    column = _array_of(y)
    if column.dtype.kind == "T":
        column = column.astype(object)
    if column.dtype == object:
        column = column.copy()
        column[find_nulls(column)] = None
    return column


def _array_of(y: Any) -> NDArray[Any]:
    try:
        column = np.asarray(y)
    except ValueError as error:
        raise ValueError(
            f"y must hold one label for each row. Got rows of different lengths: {error}"
        ) from error
    exact = EXACT_TYPES.get(column.dtype.kind)
    if exact is None or isinstance(y, np.ndarray) or column.ndim != 1:
        return column
    values = y.to_pylist() if hasattr(y, "to_pylist") else list(y)
    if all(isinstance(value, exact) for value in values):
        return column
    return np.fromiter(values, dtype=object, count=len(values))


def is_null(value: Any) -> bool:
    """Whether a value of any type is None, NaN, NaT or pandas' NA."""
    try:
        return value is None or bool(value != value)
    except TypeError:  # NA is neither equal to itself nor not
        return True
    except ValueError:  # an array in the place of a label
        return False


def find_nulls(y: NDArray[Any]) -> NDArray[np.bool_]:
    """Mark None, NaN, NaT and pandas' NA in an array of any shape."""
    if y.dtype == object:
        found = np.fromiter(map(is_null, y.ravel()), dtype=bool, count=y.size)
        return found.reshape(y.shape)
    return np.asarray(y != y)  # NaN and NaT differ from themselves


def is_missing(y: NDArray[Any], missing_label: Any) -> NDArray[np.bool_]:
    """Mark rows without a label.

    Parameters
    ----------
    y : ndarray of shape (n_samples,)
    missing_label : scalar or None
        None means that every row has a label. NaN, NaT and pandas' NA match each other and None.

    Returns
    -------
    ndarray of bool of shape (n_samples,)
    """
    if missing_label is None:
        return np.zeros(len(y), dtype=bool)
    if is_null(missing_label):
        return find_nulls(y)
    found = (not is_null(v) and v == missing_label for v in y.tolist())
    return np.fromiter(found, dtype=bool, count=len(y))


def present_labels(
    y: NDArray[Any], missing: NDArray[np.bool_] | None = None, name: str = "y"
) -> NDArray[Any]:
    """Return the labels that are not missing; numbers among objects get numpy's own type.

    Parameters
    ----------
    y : ndarray of shape (n_samples,)
        As returned by `as_column`.
    missing : ndarray of bool of shape (n_samples,) or None
        Rows without a label; None if every row must have one.
    name : str
        Name of ``y`` in errors.

    Raises
    ------
    ValueError
        If another row has no label either, or the labels are of several types.
    """
    _check_no_gaps(y, missing, name)
    present = y if missing is None else y[~missing]
    if present.dtype != object:
        return present
    _check_one_type(present, name)
    is_plain = len(present) and isinstance(present[0], PLAIN_TYPES)
    return np.array(present.tolist()) if is_plain else present


def _check_no_gaps(y: NDArray[Any], missing: NDArray[np.bool_] | None, name: str) -> None:
    gaps = find_nulls(y)
    if y.dtype.kind in "OU":
        blank = (isinstance(label, str) and not label.strip() for label in y)
        gaps |= np.fromiter(blank, dtype=bool, count=len(y))
    if missing is not None:
        gaps &= ~missing
    if not gaps.any():
        return
    first = int(gaps.argmax())
    remedy = "Drop those rows."
    if missing is not None:
        nulls = "float('nan'), which stands for None, NaN, NaT and NA alike"
        marker = nulls if is_null(y[first]) else repr(str(y[first]))
        remedy = f"Set missing_label={marker}, or drop those rows."
    raise ValueError(
        f"{name} must have a label in every row that is not marked as missing. Got "
        f"{y[first : first + 1].tolist()[0]!r} in row {first}, {gaps.sum()} of {len(y)} rows have "
        f"none. {remedy}"
    )


def _check_one_type(labels: NDArray[Any], name: str) -> None:
    types = {type(label): label for label in labels}
    examples = {_family(kind): label for kind, label in types.items()}
    if len(examples) > 1:
        first, second, *_ = examples.values()
        raise ValueError(
            f"{name} must hold labels of one type. Got a mixture, such as {first!r} and "
            f"{second!r}. Convert all to strings, or set missing_label if one of them marks rows "
            "without a label."
        )


def _family(kind: type[Any]) -> Any:
    return next((family for family in CLASS_FAMILIES if issubclass(kind, family)), kind)


def find_classes(labels: NDArray[Any]) -> NDArray[Any]:
    """Return the distinct labels in order, and warn if one looks like a missing label.

    Parameters
    ----------
    labels : ndarray of shape (n_samples,)
        As returned by `present_labels`.

    Raises
    ------
    ValueError
        If the labels are numbers on a scale, or of a type that scikit-learn does not accept as
        classes.
    """
    _check_kind(labels)
    classes = np.unique(labels)
    for label in _suspects(classes):
        warn(
            f"Label {label!r} is learned as a class of its own. Set missing_label={label!r} if it "
            "marks rows without a label."
        )
    return classes


def check_several_classes(classes: NDArray[Any]) -> None:
    """Refuse labels of a single class."""
    if len(classes) < 2:
        raise ValueError(
            "y must have at least two classes. Classifier can't train when only one class is "
            f"present: {classes[0]!r}."
        )


def _check_kind(labels: NDArray[Any]) -> None:
    if labels.dtype.kind == "f":
        continuous = labels[~np.isfinite(labels) | (labels != np.trunc(labels))]
        if len(continuous):
            raise ValueError(
                "y must hold classes, floats only if they are whole. Unknown label type: "
                f"continuous, such as {continuous[0]}. Cut the scale into classes, as "
                "numpy.digitize does."
            )
    elif labels.dtype.kind not in CLASS_KINDS or _family(type(labels[0])) not in CLASS_FAMILIES:
        raise ValueError(
            "y must hold strings, booleans, whole numbers or numpy's dates. Unknown label type: "
            f"{type(labels[0]).__name__}, such as {labels[0]!r}. Convert the labels to strings."
        )


def _suspects(classes: NDArray[Any]) -> list[Any]:
    """Return classes that often mean a missing label: -1 beside 0..K-1, and nulls as text."""
    if classes.dtype.kind in "if":
        beside_others = len(classes) > 2 and classes[0] == -1 and classes[1] >= 0
        return classes[:1].tolist() if beside_others else []
    return [label for label in classes.tolist() if label in NULLS_AS_TEXT]


def encode(
    y: NDArray[Any], classes: NDArray[Any], missing: NDArray[np.bool_], name: str = "y"
) -> NDArray[np.int64]:
    """Turn labels into codes 0..K-1 in the order of ``classes``, -1 where missing.

    Raises
    ------
    ValueError
        If a label is not one of the classes, or `present_labels` refuses it.
    """
    codes = np.full(len(y), -1, dtype=np.int64)
    present = present_labels(y, missing, name)
    if classes.dtype.kind == present.dtype.kind == "M":
        present = present.astype(classes.dtype)  # of the same unit
    position = {label: code for code, label in enumerate(classes.tolist())}
    unknown = sorted({str(v) for v in present.tolist() if v not in position})
    if unknown:
        raise ValueError(
            f"Labels must be among the classes seen in fit, {classes.tolist()}. "
            f"Got {unknown[:5]}. Remove those rows, or fit with them."
        )
    codes[~missing] = [position[v] for v in present.tolist()]
    return codes


def check_finite_rows(X: Any) -> None:
    """Refuse NaN and infinity in an array or CSR matrix (n_samples, ...), and say where they are.

    Raises
    ------
    ValueError
        If an entry is not finite.
    """
    wrong = ~np.isfinite(X.data if issparse(X) else X)
    if not wrong.any():
        return
    places = np.transpose(X.tocoo().coords)[wrong] if issparse(X) else np.argwhere(wrong)
    first = places[0].tolist()
    n_rows = len(np.unique(places[:, 0]))
    raise ValueError(
        f"X must be finite. Got X{first} = {X[tuple(first)]}, and NaN or infinity in {n_rows} of "
        f"{X.shape[0]} rows. Impute them, as scikit-learn's SimpleImputer does in a pipeline, or "
        "drop those rows."
    )


def check_clean_mask(clean_mask: Any, codes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return the mask of trusted rows; None trusts no row.

    Raises
    ------
    ValueError
        If the mask does not hold one boolean per row, or trusts a row without a label.
    """
    if clean_mask is None:
        return np.zeros(len(codes), dtype=bool)
    mask = np.asarray(clean_mask)
    if mask.dtype != bool or mask.shape != codes.shape:
        raise ValueError(
            f"clean_mask must be one boolean for each of the {len(codes)} rows of X. "
            f"Got dtype {mask.dtype} and shape {mask.shape}. "
            "For row numbers use numpy.isin(numpy.arange(len(X)), rows)."
        )
    if (codes[mask] < 0).any():
        raise ValueError(
            "Every trusted row must have a label. Got clean_mask=True for row "
            f"{int(np.flatnonzero(mask & (codes < 0))[0])}, which has none. Unmark it."
        )
    return mask


def check_sample_weight(sample_weight: Any, n: int) -> NDArray[np.float64] | None:
    """Return one weight per row; None means no weights.

    Raises
    ------
    ValueError
        If there is not one finite weight of at least 0 for each row, or all are 0.
    """
    if sample_weight is None:
        return None
    weights = np.asarray(sample_weight, dtype=np.float64)
    shape = weights.shape
    fits = shape == (n,) and np.isfinite(weights).all() and (weights >= 0).all() and weights.any()
    if not fits:
        got = f"{weights.min()} to {weights.max()}" if weights.size else "nothing"
        raise ValueError(
            f"sample_weight must be a finite number of at least 0 for each of the {n} rows of X, "
            f"and not zero for all. Got shape {shape} and values from {got}."
        )
    return weights


def check_probabilities(pred_probs: Any, n: int, classes: NDArray[Any]) -> NDArray[np.float64]:
    """Return the probability of each class for each row.

    Raises
    ------
    ValueError
        If there is not one for each row and class, or rows do not sum to 1.
    """
    probs = np.asarray(pred_probs, dtype=np.float64)
    shape, expected = probs.shape, (n, len(classes))
    if shape != expected or not (probs >= 0).all() or not np.allclose(probs.sum(1), 1, atol=0.01):
        sums = f" and sums from {probs.sum(1).min():.3g}" if probs.ndim == 2 and probs.size else ""
        raise ValueError(
            f"pred_probs must have a row of probabilities for each of {n} labels, and a column for "
            f"each of {len(classes)} classes in sorted order, {classes[:10].tolist()}. Got shape "
            f"{shape}{sums}."
        )
    return probs


def checked_value_range(given: Any) -> tuple[float, float]:
    """Return the values of black and white as two numbers.

    Raises
    ------
    ValueError
        If they are anything else.
    """
    try:
        low, high = (float(value) for value in given)
    except (TypeError, ValueError, OverflowError):
        low = high = float("nan")
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(
            f"value_range must be a pair of numbers (black, white), ascending. Got {given!r}. Pass "
            "(0, 1), for example."
        )
    return low, high
