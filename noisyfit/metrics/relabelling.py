"""How many labels a classifier does not believe."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from noisyfit.utils.validation import as_column, is_missing


def relabelled_share(estimator: Any, X: Any, y: ArrayLike) -> float:
    """Share of the given labels that are not what the classifier predicts.

    A scorer: ``EpochScoring(relabelled_share, on_train=True)`` among the ``callbacks`` of a method
    records it in every epoch, at the cost of a prediction, for `noisyfit.TrainingHistoryDisplay`.

    Parameters
    ----------
    estimator : classifier
        Fitted, or in training. Rows with its ``missing_label``, if it has one, do not count.
    X : array-like
        Rows.
    y : array-like of shape (n_samples,)
        Their given labels.

    Returns
    -------
    float
        In [0, 1]; NaN if no row has a label.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> X, y = [[0], [0], [0], [0]], ["cat", "cat", "cat", "dog"]
    >>> relabelled_share(DummyClassifier().fit(X, y), X, y)
    0.25
    """
    given = as_column(y)
    labelled = ~is_missing(given, getattr(estimator, "missing_label", None))
    if not labelled.any():
        return float("nan")
    return float(np.mean(estimator.predict(X)[labelled] != given[labelled]))
