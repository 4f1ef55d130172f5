"""Score findings about labels against the truth."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from noisyfit.utils.parameters import check_number
from noisyfit.utils.validation import as_column, is_missing


def detection_auroc(flipped: ArrayLike, quality: ArrayLike) -> float:
    """Chance that a wrong label has a lower quality than a right one; ties count half.

    Parameters
    ----------
    flipped : array-like of bool, shape (n_samples,)
        Which labels are truly wrong.
    quality : array-like of shape (n_samples,)
        Low means suspicious. Rows with NaN are left out.

    Returns
    -------
    float
        1.0 is perfect, 0.5 is chance. Does not depend on the noise rate.

    Raises
    ------
    ValueError
        If the rated labels are all wrong or all right.

    Examples
    --------
    >>> detection_auroc([True, False, False], [0.1, 0.9, 0.8])
    1.0
    """
    wrong, rated = _rated(flipped, quality)
    return float(roc_auc_score(wrong, -rated))


def detection_average_precision(flipped: ArrayLike, quality: ArrayLike) -> float:
    """Area under the precision-recall curve for finding wrong labels by low quality.

    Parameters
    ----------
    flipped : array-like of bool, shape (n_samples,)
        Which labels are truly wrong.
    quality : array-like of shape (n_samples,)
        Low means suspicious. Rows with NaN are left out.

    Returns
    -------
    float
        1.0 is perfect; chance is the fraction of wrong labels.

    Raises
    ------
    ValueError
        If the rated labels are all wrong or all right.

    Examples
    --------
    >>> detection_average_precision([True, False, True, False], [0.1, 0.2, 0.3, 0.4])
    0.8333333333333333
    """
    wrong, rated = _rated(flipped, quality)
    return float(average_precision_score(wrong, -rated))


def precision_at_n(flipped: ArrayLike, quality: ArrayLike, n: int | None = None) -> float:
    """Fraction of truly wrong labels among the ``n`` labels of lowest quality.

    Rows that tie for the last places count with their average, so the order of the rows does not
    matter.

    Parameters
    ----------
    flipped : array-like of bool, shape (n_samples,)
        Which labels are truly wrong.
    quality : array-like of shape (n_samples,)
        Low means suspicious. Rows with NaN are left out.
    n : int, default=None
        Number of labels a person would look at. None: as many as are wrong, so that 1.0 can be
        reached; precision and recall are then equal.

    Returns
    -------
    float
        Chance is the fraction of wrong labels.

    Raises
    ------
    ValueError
        If the rated labels are all wrong or all right, or fewer than ``n``.

    Examples
    --------
    >>> precision_at_n([True, False, True, False], [0.1, 0.2, 0.3, 0.4])
    0.5
    """
    wrong, rated = _rated(flipped, quality)
    n = int(wrong.sum()) if n is None else n
    check_number("n", n, Integral)
    if not 1 <= n <= len(rated):
        raise ValueError(f"n must lie in [1, {len(rated)}], the number of rated rows. Got {n}.")
    threshold = np.partition(rated, n - 1)[n - 1]
    below, tied = rated < threshold, rated == threshold
    hits = wrong[below].sum() + wrong[tied].mean() * (n - below.sum())
    return float(hits / n)


def corrected_accuracy(y_true: ArrayLike, y_corrected: ArrayLike) -> float:
    """Fraction of corrected labels that are the true ones.

    Parameters
    ----------
    y_true, y_corrected : array-like of shape (n_samples,)
        Clean labels and corrected labels, both in the user's type. Rows whose clean label is None,
        NaN or pandas' NA do not count.

    Returns
    -------
    float
        Compare with one minus the noise rate: if it is lower, correcting did harm.

    Examples
    --------
    >>> corrected_accuracy(["cat", "dog"], ["cat", "cat"])
    0.5
    """
    true, corrected = as_column(y_true), as_column(y_corrected)
    if true.ndim != 1 or true.shape != corrected.shape or not len(true):
        raise ValueError(
            "y_true and y_corrected must both have shape (n_samples,), n_samples >= 1. Got "
            f"{true.shape} and {corrected.shape}."
        )
    known = ~is_missing(true, np.nan)
    if not known.any():
        raise ValueError(
            f"y_true must hold a label. Got {true[0]!r} in every row. Pass rows whose true label "
            "is known."
        )
    return float(np.mean(true[known] == corrected[known]))


def transition_matrix_error(estimated: ArrayLike, true: ArrayLike) -> float:
    """Average over true classes of the total variation distance between their rows.

    Parameters
    ----------
    estimated, true : array-like of shape (n_classes, n_classes)
        Rows are true classes, columns observed classes; rows sum to 1.

    Returns
    -------
    float
        ``mean_i(0.5 * sum_j |estimated_ij - true_ij|)``, in [0, 1]: the probability mass that is
        misplaced in an average row.

    Examples
    --------
    >>> transition_matrix_error([[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.0, 1.0]])
    0.25
    """
    ours, theirs = np.asarray(estimated, np.float64), np.asarray(true, np.float64)
    if ours.ndim != 2 or ours.shape[0] != ours.shape[1] or ours.shape != theirs.shape:
        raise ValueError(
            "estimated and true must both have shape (n_classes, n_classes). Got "
            f"{ours.shape} and {theirs.shape}."
        )
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        raise ValueError(
            "estimated and true must be finite. Got NaN or infinity. Leave out classes without "
            "rows."
        )
    return float(0.5 * np.abs(ours - theirs).sum(axis=1).mean())


def _rated(flipped: ArrayLike, quality: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    wrong: NDArray[Any] = np.asarray(flipped)
    scores = np.asarray(quality, dtype=np.float64)
    if wrong.ndim != 1 or wrong.shape != scores.shape or not np.isin(wrong, [0, 1]).all():
        raise ValueError(
            "flipped must be a boolean mask and quality an array of the same shape (n_samples,). "
            f"Got {wrong.dtype} {wrong.shape} and {scores.shape}."
        )
    rated = ~np.isnan(scores)
    wrong, scores = wrong[rated].astype(bool), scores[rated]
    if wrong.all() or not wrong.any():
        raise ValueError(
            "flipped must hold both wrong and right labels among the rated rows. Got "
            f"{wrong.sum()} wrong of {len(wrong)}. There is nothing to tell apart otherwise."
        )
    return wrong, scores
