"""What y says about the classes of rows: one label each, the votes of several people, or shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import column_or_1d

from noisyfit.utils.validation import (
    as_column,
    encode,
    find_classes,
    find_nulls,
    is_missing,
    is_null,
    present_labels,
)

TOLERANCE = 1e-3  # of the sum of probabilities


@dataclass(frozen=True)
class Given:
    """The labels of rows, as methods see them.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
    codes : ndarray of int64 of shape (n_samples,)
        The label of each row, -1 where there is none. Of several classes the most probable one.
    shares : ndarray of float32 of shape (n_samples, n_classes) or None
        How probable each class is; zeros without a label. None if each label is one class.
    votes : ndarray of int64 of shape (n_samples, n_annotators) or None
        Codes of what each annotator said, -1 for nothing.
    """

    classes: NDArray[Any]
    codes: NDArray[np.int64]
    shares: NDArray[np.float32] | None = None
    votes: NDArray[np.int64] | None = None

    @classmethod
    def one_each(
        cls, y: Any, missing_label: Any, classes: NDArray[Any] | None, name: str = "y"
    ) -> Self:
        """Read one label a row; ``classes`` are known, or those that occur."""
        y = column_or_1d(as_column(y), warn=True)
        missing = is_missing(y, missing_label)
        classes = _found(y, missing, name) if classes is None else classes
        return cls(classes, encode(y, classes, missing, name))

    @classmethod
    def of_votes(
        cls, y: NDArray[Any], missing_label: Any, classes: NDArray[Any] | None, name: str = "y"
    ) -> Self:
        """Read the votes (n_samples, n_annotators) of several people; all count alike at first."""
        missing = is_missing(y.ravel(), missing_label)
        _check_votes(y, missing.reshape(y.shape), name)
        classes = _found(y.ravel(), missing, name) if classes is None else classes
        votes = encode(y.ravel(), classes, missing, name).reshape(y.shape)
        counts = np.zeros((len(y), len(classes)))
        for code in range(len(classes)):
            counts[:, code] = (votes == code).sum(1)
        return cls._shared(classes, counts / np.maximum(counts.sum(1, keepdims=True), 1), votes)

    @classmethod
    def of_probabilities(
        cls, y: NDArray[Any], missing_label: Any, names: NDArray[Any], name: str = "y"
    ) -> Self:
        """Read the probabilities (n_samples, n_classes) of classes with these names."""
        _check_names(y, names, name)
        shares = _as_floats(y, name)
        missing = np.all(np.isnan(shares), axis=1)
        missing &= missing_label is not None and is_null(missing_label)
        shares[missing] = 0
        _check_probabilities(shares, missing, name)
        order = np.argsort(names)
        return cls._shared(names[order], shares[:, order] / np.maximum(shares.sum(1)[:, None], 0.5))

    @classmethod
    def _shared(
        cls,
        classes: NDArray[Any],
        shares: NDArray[np.float64],
        votes: NDArray[np.int64] | None = None,
    ) -> Self:
        codes = np.full(len(shares), -1)
        if len(classes):
            codes = np.where(shares.any(1), shares.argmax(1), -1)
        return cls(classes, codes, shares.astype(np.float32), votes)


def _found(y: NDArray[Any], missing: NDArray[np.bool_], name: str) -> NDArray[Any]:
    """Return the classes that occur, none if there is no label."""
    return y[:0] if missing.all() else find_classes(present_labels(y, missing, name))


def has_columns(y: Any) -> bool:
    """Whether y has several columns: votes or probabilities."""
    shape: Any = getattr(y, "shape", ())
    if isinstance(y, list | tuple) and len(y) and isinstance(y[0], list | tuple | np.ndarray):
        shape = len(y), len(y[0])
    return len(shape) == 2 and shape[1] > 1


def column_names(y: Any, n_columns: int) -> NDArray[Any]:
    """Return the names of the columns of a frame, else their positions."""
    names = getattr(y, "column_names", getattr(y, "columns", None))  # Arrow's columns are data
    return np.arange(n_columns) if names is None else np.asarray(names)


def with_gaps(classes: NDArray[Any], codes: NDArray[np.int64], missing_label: Any) -> NDArray[Any]:
    """Return the labels with these codes, and ``missing_label`` where the code is -1."""
    labels = classes[codes]
    if (codes < 0).any():
        labels = labels.astype(object)
        labels[codes < 0] = None if is_null(missing_label) else missing_label
    return labels


def votes_on(
    predicted: NDArray[np.int64], votes: NDArray[np.int64], annotators: NDArray[Any]
) -> dict[str, Any]:
    """Return, for each row, the number of votes, and who voted for another class."""
    voted = votes >= 0
    others = voted & (votes != predicted[:, None])
    return {
        "n_votes": voted.sum(1),
        "disagreeing_annotators": [annotators[row].tolist() for row in others],
    }


def _check_votes(y: NDArray[Any], missing: NDArray[np.bool_], name: str) -> None:
    nulls = find_nulls(y) & ~missing
    if nulls.any():
        row, column = np.argwhere(nulls)[0].tolist()
        raise ValueError(
            f"{name} with several columns holds the votes of several people, and missing_label "
            f"marks those that were not cast. Got {y[row, column]!r} in row {row}, column "
            f"{column}. Set missing_label=float('nan'), which stands for None, NaN and NA alike."
        )
    if y.dtype.kind == "f" and (y[~missing] % 1 != 0).any():
        raise ValueError(
            f"{name} with several columns holds the votes of several people, which are classes. "
            f"Got {y[~missing][y[~missing] % 1 != 0][0]:g}. If the columns are the probabilities "
            "of the classes, give them to a classifier with soft_labels=True."
        )
    if y.dtype.kind in "biuf" and not missing.any() and _is_one_hot(y):
        raise ValueError(
            f"{name} with several columns holds the votes of several people. Got a 1 and otherwise "
            f"zeros in each row, as if the columns were classes. Pass {name}.argmax(axis=1), or a "
            "classifier with soft_labels=True."
        )


def _is_one_hot(y: NDArray[Any]) -> bool:
    return bool(np.isin(y, (0, 1)).all() and (y.sum(1) == 1).all())


def _check_names(y: NDArray[Any], names: NDArray[Any], name: str) -> None:
    if names.shape != y.shape[1:] or len(np.unique(names)) < len(names):
        raise ValueError(
            f"classes must name each of the {y.shape[1]} columns of {name} once. Got "
            f"{names.tolist()}."
        )


def _as_floats(y: NDArray[Any], name: str) -> NDArray[np.float64]:
    try:
        return np.array(y, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"With soft_labels=True, {name} must hold probabilities. Got {error}. Pass "
            "soft_labels=False for labels."
        ) from error


def _check_probabilities(
    shares: NDArray[np.float64], missing: NDArray[np.bool_], name: str
) -> None:
    with np.errstate(invalid="ignore"):
        right = (shares >= 0).all(1) & (np.abs(shares.sum(1) - 1) <= TOLERANCE)
    wrong = np.flatnonzero(~(right | missing))
    if not len(wrong):
        return
    first = wrong[0]
    remedy = f"Divide counts by their sum, {name} / {name}.sum(axis=1, keepdims=True)."
    if np.isnan(shares[first]).all():
        remedy = "Set missing_label=float('nan') if a row of NaN has no label."
    raise ValueError(
        f"With soft_labels=True, each row of {name} must hold probabilities, at least 0 and with "
        f"the sum 1. Got {shares[first].tolist()} in row {first}, and such in {len(wrong)} of "
        f"{len(shares)} rows. {remedy}"
    )
