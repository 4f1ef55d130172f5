"""One protocol for labels: how given ones are read, and how methods say which are wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score
from sklearn.utils.validation import check_is_fitted, column_or_1d

from noisyfit import quality
from noisyfit.estimator.bases import ClassifierMixin
from noisyfit.estimator.fitted import FittedAttributes
from noisyfit.estimator.given import has_columns, votes_on
from noisyfit.utils.validation import (
    as_column,
    check_clean_mask,
    check_given,
    check_lengths,
    check_several_classes,
    count_rows,
    encode,
    find_classes,
    is_missing,
    present_labels,
    row_names,
)


class LabelProtocol(FittedAttributes, ClassifierMixin):
    """From given labels to ``label_quality_``, ``corrected_labels_`` and issues."""

    classes_: NDArray[Any]
    given_labels_: NDArray[Any]
    sample_index_: NDArray[Any]
    label_quality_: NDArray[Any]
    label_distribution_: NDArray[Any]
    annotators_: NDArray[Any]
    votes_: NDArray[np.int64]
    missing_label: Any
    predict: Any

    def _read_labels(self, X: Any, y: Any) -> NDArray[np.bool_]:
        """Store the given labels, one a row, and return where there is none."""
        check_given(y, type(self).__name__)
        self.given_labels_ = as_labels(y)
        self.sample_index_ = row_names(X, y, len(self.given_labels_))
        missing = self._lacks_label(self.given_labels_)
        self._check_some(~missing)
        return missing

    def _read_training_labels(
        self, X: Any, y: Any, clean_mask: Any
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Store classes and given labels; return these as codes, and which are trusted."""
        n = count_rows(X)
        if n == 0:
            raise ValueError("X must have rows. Got 0 samples.")
        missing = self._read_labels(X, y)
        check_lengths(n, len(missing))
        self.classes_ = find_classes(present_labels(self.given_labels_, missing))
        check_several_classes(self.classes_)
        codes = self._encoded(self.given_labels_)
        return codes, check_clean_mask(clean_mask, codes)

    def _check_some(self, labelled: NDArray[np.bool_]) -> None:
        if len(labelled) and not labelled.any():
            raise ValueError(f"y must have labels. Got {self.missing_label!r} in every row.")

    def _lacks_label(self, y: NDArray[Any]) -> NDArray[np.bool_]:
        return is_missing(y, self.missing_label)

    def _encoded(self, y: NDArray[Any], name: str = "y") -> NDArray[np.int64]:
        """Return the codes of the known classes, -1 where there is no label."""
        return encode(y, self.classes_, self._lacks_label(y), name)

    def _write_beliefs(
        self,
        codes: NDArray[np.int64],
        rating: NDArray[Any],
        distribution: NDArray[Any],
        margin: float = 0.0,
    ) -> None:
        """Write the fitted attributes that every method has.

        Parameters
        ----------
        codes : ndarray of shape (n_samples,)
            Classes of the given labels, -1 where there is none.
        rating : ndarray of shape (n_samples,)
        distribution : ndarray of shape (n_samples, n_classes)
        margin : float
            See ``correction_margin``.
        """
        self.label_quality_, self.label_distribution_ = rating, distribution
        corrected = quality.corrected_labels(codes, distribution, margin)
        self.corrected_labels_ = self.classes_[corrected]
        self.transition_matrix_ = quality.transition_matrix(codes, distribution)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy on the rows that have a label.

        Parameters
        ----------
        X : array-like
            Rows like those of `fit`.
        y : array-like of shape (n_samples,)
            Labels; rows with ``missing_label`` do not count.
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        float
            In [0, 1].
        """
        predicted, y = self.predict(X), as_labels(y)
        check_lengths(len(predicted), len(y))
        labelled = ~self._lacks_label(y)
        self._check_some(labelled)
        weights = None if sample_weight is None else np.asarray(sample_weight)[labelled]
        true = present_labels(y, ~labelled)
        return float(accuracy_score(true, predicted[labelled], sample_weight=weights))

    def label_issues(self) -> Any:
        """Return which training labels look wrong, and what they should be.

        Returns
        -------
        pandas.DataFrame
            One row per row of X, with the columns ``is_label_issue``, ``label_quality``,
            ``given_label`` and ``predicted_label``. It has the index of X, else that of y. After a
            fit on votes also ``n_votes`` and ``disagreeing_annotators``, a list of those who did
            not vote for the predicted label.
        """
        check_is_fitted(self)
        codes = self._encoded(self.given_labels_)
        issue = quality.is_label_issue(codes, self.label_distribution_, self.label_quality_)
        predicted = self.classes_[self.label_distribution_.argmax(1)]
        frame = quality.label_issues_frame(
            issue, self.label_quality_, self.given_labels_, predicted, index=self.sample_index_
        )
        if "votes_" in vars(self):
            believed = self.label_distribution_.argmax(1)
            frame = frame.assign(**votes_on(believed, self.votes_, self.annotators_))
        return frame


def as_labels(y: Any) -> NDArray[Any]:
    """Return labels from any container as a vector.

    Raises
    ------
    ValueError
        If there are several columns.
    """
    column = as_column(y)
    if has_columns(column):
        raise ValueError(
            f"y must be a 1d array, one label a row. Got an array of shape {column.shape} instead. "
            "The votes of several people go to a classifier of the package; pass its consensus_."
        )
    return column_or_1d(column, warn=True)
