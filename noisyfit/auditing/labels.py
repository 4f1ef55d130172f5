"""The labels of an audit, read and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from noisyfit.estimator.given import Given, column_names, has_columns, with_gaps
from noisyfit.estimator.labels import as_labels
from noisyfit.utils.validation import as_column, check_clean_mask, check_given

NAMED = 5  # classes in a message


class Labels(NamedTuple):
    """What was given, and what of it can be rated.

    Attributes
    ----------
    given : ndarray of shape (n_samples,)
        Of votes the most frequent one.
    classes : ndarray of shape (n_classes,)
    is_rated : ndarray of bool of shape (n_classes,)
        Classes of two labels or more: one to learn from, one to rate.
    codes : ndarray of int64 of shape (n_samples,)
        Places in the rated classes; -1 for no label, or one that is not rated.
    trusted : ndarray of bool of shape (n_samples,)
    votes : ndarray of int64 of shape (n_samples, n_annotators) or None
        Codes of what each annotator said.
    annotators : ndarray of shape (n_annotators,)
    """

    given: NDArray[Any]
    classes: NDArray[Any]
    is_rated: NDArray[np.bool_]
    codes: NDArray[np.int64]
    trusted: NDArray[np.bool_]
    votes: NDArray[np.int64] | None
    annotators: NDArray[Any]

    @property
    def judged(self) -> NDArray[np.int64]:
        """Return the codes of labels that may be wrong, else -1."""
        return np.where(self.trusted, -1, self.codes)

    @property
    def single(self) -> list[Any]:
        """Return the classes of one label."""
        return self.classes[~self.is_rated].tolist()

    def after(self, decided: Mapping[int, int]) -> Labels:
        """Return the labels after decisions, codes by row, as ones that are right."""
        rows, codes, given = [*decided], self.codes.copy(), self.given.copy()
        codes[rows] = [*decided.values()]
        given[rows] = self.classes[self.is_rated][codes[rows]]
        trusted = self.trusted.copy()
        trusted[rows] = True
        _check_some_left(codes, trusted, "decided")
        return self._replace(codes=codes, given=given, trusted=trusted)


def read_labels(y: Any, missing_label: Any, n_splits: int, clean_mask: Any = None) -> Labels:
    """Read what `audit` is given.

    Raises
    ------
    ValueError
        If it cannot be audited.
    """
    check_given(y, "audit")
    if has_columns(y):
        read = Given.of_votes(as_column(y), missing_label, None)
        given = with_gaps(read.classes, read.codes, missing_label)
    else:
        read = Given.one_each(y, missing_label, None)
        given = as_labels(y)
    counts = np.bincount(read.codes[read.codes >= 0], minlength=len(read.classes))
    _check_counts(read.classes, counts, n_splits)
    is_rated = counts > 1
    renumbered = np.append(np.where(is_rated, is_rated.cumsum() - 1, -1), -1)  # -1 is the last
    codes = renumbered[read.codes]
    trusted = check_clean_mask(clean_mask, read.codes) & (codes >= 0)
    _check_some_left(codes, trusted, "clean_mask")
    votes, annotators = None, np.array([])
    if read.votes is not None:
        votes, annotators = renumbered[read.votes], column_names(y, read.votes.shape[1])
    return Labels(given, read.classes, is_rated, codes, trusted, votes, annotators)


def read_decisions(
    decided: Mapping[Any, Any], names: NDArray[Any], classes: NDArray[Any]
) -> dict[int, int]:
    """Read labels by the name of a row; return their codes by its number.

    Raises
    ------
    ValueError
        If a row or a class is not known, or names are not unique.
    """
    places = {name: row for row, name in enumerate(names.tolist())}
    known = {label: code for code, label in enumerate(classes.tolist())}
    if len(places) < len(names):
        raise ValueError(
            "Rows must have different names for decisions about them. Got an index with "
            f"{len(names) - len(places)} repetitions. Reset the index of X."
        )
    unknown = [name for name in decided if name not in places]
    if unknown:
        raise ValueError(f"Rows must be in the audit. Got {unknown[:5]}, which are not.")
    strange = [label for label in decided.values() if label not in known]
    if strange:
        raise ValueError(f"Labels must be among {classes[:10].tolist()}. Got {strange[:5]}.")
    return {places[name]: known[label] for name, label in decided.items()}


def _check_some_left(codes: NDArray[np.int64], trusted: NDArray[np.bool_], by: str) -> None:
    if not ((codes >= 0) & ~trusted).any():
        raise ValueError(f"{by} must leave labels to audit. Got none. Leave it away.")


def _check_counts(classes: NDArray[Any], counts: NDArray[np.int64], n_splits: int) -> None:
    if len(classes) < 2:
        raise ValueError(
            f"y must have at least two classes. Got {classes.tolist()} only. Add rows of another, "
            "or choose other labels."
        )
    if (counts > 1).sum() < 2:
        raise ValueError(
            "Two classes must have two labels or more, one to learn from and one to rate. Got one "
            f"label of {named(classes[counts < 2].tolist())}. Add rows, or merge classes."
        )
    if not 2 <= n_splits <= counts.max():
        raise ValueError(
            f"There must be at least 2 folds (n_splits), and at most {counts.max()}, the number of "
            f"labels of the largest class. Got {n_splits}. Choose another number."
        )


def named(classes: Sequence[Any]) -> str:
    """Return the first classes, as in a message."""
    return ", ".join(map(repr, classes[:NAMED])) + (", ..." if len(classes) > NAMED else "")
