"""Label quality, label issues and corrected labels, from labels and probabilities.

Labels are integer codes 0..n_classes-1. -1 marks a row without a label, as do None, NaN and pandas'
NA. Such a row has quality NaN and is never an issue. All functions raise `ValueError` if shapes,
codes or probabilities do not match.
"""

import warnings
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from noisyfit.utils.parameters import check_number
from noisyfit.utils.validation import as_column, is_missing, present_labels

if TYPE_CHECKING:
    import pandas as pd

_Floats = NDArray[np.float64]
_NULLABLE = {"integer", "boolean"}  # kinds that numpy cannot hold with gaps
_TOLERANCE = 1e-5  # a float32 softmax may leave [0, 1] by a rounding error
_SMALLEST_SPREAD = 1e-8  # of losses that a mixture can tell apart
_REGULARIZATION = 5e-4  # of the variances of the mixture


def self_confidence(labels: ArrayLike, probs: ArrayLike) -> _Floats:
    """Probability of the given label.

    Parameters
    ----------
    labels : array-like of shape (n_samples,)
        Given labels as codes; -1 for a row without a label.
    probs : array-like of shape (n_samples, n_classes)
        Class probabilities, preferably out of sample.

    Returns
    -------
    ndarray of shape (n_samples,)
        In [0, 1]; low means suspicious. NaN without a label.

    References
    ----------
    .. [1] Kuan and Mueller. Model-agnostic label quality scoring to detect real-world label errors.
       ICML DataPerf workshop, 2022.

    Examples
    --------
    >>> self_confidence([0, 1], [[0.75, 0.25], [0.75, 0.25]])
    array([0.75, 0.25])
    """
    codes, probabilities = _check(labels, probs)
    return _given(codes, probabilities)


def normalized_margin(labels: ArrayLike, probs: ArrayLike) -> _Floats:
    """Lead of the given label over the best other class, mapped to [0, 1].

    Parameters
    ----------
    labels : array-like of shape (n_samples,)
        Given labels as codes; -1 for a row without a label.
    probs : array-like of shape (n_samples, n_classes)
        Class probabilities, preferably out of sample.

    Returns
    -------
    ndarray of shape (n_samples,)
        ``(p_given - max p_other + 1) / 2``, below 0.5 if another class is more likely. NaN without
        a label.

    References
    ----------
    .. [1] Kuan and Mueller. Model-agnostic label quality scoring to detect real-world label errors.
       ICML DataPerf workshop, 2022.

    Examples
    --------
    >>> normalized_margin([0, 1], [[0.75, 0.25], [0.75, 0.25]])
    array([0.75, 0.25])
    """
    codes, probabilities = _check(labels, probs)
    others = probabilities.copy()
    others[np.arange(len(codes)), codes] = 0.0
    return (_given(codes, probabilities) - others.max(axis=1, initial=0.0) + 1) / 2


def is_label_issue(labels: ArrayLike, distribution: ArrayLike, quality: ArrayLike) -> NDArray[Any]:
    """Find the labels that are probably wrong.

    Parameters
    ----------
    labels : array-like of shape (n_samples,)
        Given labels as codes; -1 for a row without a label.
    distribution : array-like of shape (n_samples, n_classes)
        Belief about the true class of each row.
    quality : array-like of shape (n_samples,)
        In [0, 1]; low means suspicious, NaN means unknown.

    Returns
    -------
    ndarray of bool, shape (n_samples,)
        True if another class is more likely and the quality is below 0.5.

    Examples
    --------
    >>> is_label_issue([0, 0], [[0.75, 0.25], [0.25, 0.75]], [0.75, 0.25])
    array([False,  True])
    """
    codes, belief = _check(labels, distribution)
    scores = np.asarray(quality, dtype=np.float64)
    if scores.shape != codes.shape:
        raise ValueError(
            f"quality must have one entry per label, shape {codes.shape}. Got {scores.shape}."
        )
    return (codes >= 0) & (corrected_labels(codes, belief) != codes) & (scores < 0.5)


def corrected_labels(
    labels: ArrayLike, distribution: ArrayLike, margin: float = 0.0
) -> NDArray[np.intp]:
    """Most likely class, or the given label where its probability is nearly as high.

    Parameters
    ----------
    labels : array-like of shape (n_samples,)
        Given labels as codes; -1 for a row without a label.
    distribution : array-like of shape (n_samples, n_classes)
        Belief about the true class of each row.
    margin : float in [0, 1], default=0.0
        The given label is kept if its probability is at most this far below the highest. At 0 it is
        kept only if its own probability is the highest, or tied for it.

    Returns
    -------
    ndarray of int, shape (n_samples,)

    Examples
    --------
    >>> corrected_labels([0, 0, -1], [[0.45, 0.55], [0.1, 0.9], [0.1, 0.9]], margin=0.2)
    array([0, 1, 1])
    """
    codes, belief = _check(labels, distribution)
    check_number("margin", margin)
    if not 0 <= margin <= 1:
        raise ValueError(
            f"margin must lie in [0, 1], it is a difference of probabilities. Got {margin!r}."
        )
    keep = belief.max(axis=1) - _given(codes, belief) <= margin  # NaN compares False
    return np.where(keep, codes, belief.argmax(axis=1))


def label_issues_frame(
    is_issue: ArrayLike,
    quality: ArrayLike,
    given: ArrayLike,
    predicted: ArrayLike,
    index: Any = None,
) -> "pd.DataFrame":
    """Collect what is known about each label in a frame with cleanlab's columns.

    Parameters
    ----------
    is_issue : array-like of bool, shape (n_samples,)
        Which labels are probably wrong.
    quality : array-like of shape (n_samples,)
        In [0, 1]; low means suspicious.
    given, predicted : array-like of shape (n_samples,)
        Given and corrected labels, in the user's type; integers and booleans with gaps get pandas'
        nullable type.
    index : array-like of shape (n_samples,), default=None
        Row names, such as the index of the user's frame. None numbers the rows.

    Returns
    -------
    DataFrame
        Columns ``is_label_issue``, ``label_quality``, ``given_label`` and ``predicted_label``.

    Examples
    --------
    >>> label_issues_frame([True], [0.1], ["cat"], ["dog"], index=["img7"])
          is_label_issue  label_quality given_label predicted_label
    img7            True            0.1         cat             dog
    """
    import pandas as pd

    # A pandas Series would be aligned by its own index instead of taken in order.
    columns = {
        "is_label_issue": np.asarray(is_issue, dtype=bool),
        "label_quality": np.asarray(quality, dtype=np.float64),
        "given_label": _with_gaps(as_column(given)),
        "predicted_label": np.asarray(predicted),
    }
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"All columns must have one entry per row. Got {lengths}.")
    return pd.DataFrame(columns, index=index)


def _with_gaps(labels: NDArray[Any]) -> Any:
    """Return integers and booleans among objects in pandas' nullable types."""
    import pandas as pd

    kind = pd.api.types.infer_dtype(labels, skipna=True)
    gaps = labels.dtype == object and kind in _NULLABLE
    return pd.array(labels) if gaps else labels  # type: ignore[call-overload]


def find_label_issues(labels: ArrayLike, probs: ArrayLike) -> NDArray[Any]:
    """Find wrong labels by confident learning, as cleanlab does.

    Parameters
    ----------
    labels : array-like of shape (n_samples,)
        Given labels as codes; -1 for a row without a label.
    probs : array-like of shape (n_samples, n_classes)
        Class probabilities *out of sample*, as from ``cross_val_predict(...,
        method="predict_proba")``: a network that has seen the labels has also learned the wrong
        ones.

    Returns
    -------
    ndarray of bool, shape (n_samples,)

    References
    ----------
    .. [1] Northcutt, Jiang, Chuang. Confident learning: estimating uncertainty in dataset labels.
       JAIR, 2021. arXiv:1911.00068.
    """
    from cleanlab.filter import find_label_issues as confident_learning

    codes, probabilities = _check(labels, probs)
    issue = codes >= 0
    if len(np.unique(codes[issue])) < 2:
        raise ValueError(
            "labels must hold at least two classes, confident learning compares them. "
            f"Got {np.unique(codes[issue]).tolist()}. Pass the labels of all classes at once."
        )
    issue[issue] = confident_learning(codes[issue], probabilities[issue], n_jobs=1)
    return issue


def small_loss_probability(losses: NDArray[np.float64]) -> _Floats:
    """Return the probability that each loss belongs to the low-loss component.

    A mixture of two Gaussians is fitted to the losses, scaled to [0, 1], as in DivideMix [1]_.

    Parameters
    ----------
    losses : ndarray of shape (n_samples,)
        Must be finite.

    Returns
    -------
    ndarray of shape (n_samples,)
        All 1 if all losses are equal, because there is nothing to tell apart.

    Raises
    ------
    ValueError
        If a loss is not finite.

    References
    ----------
    .. [1] Li, Socher and Hoi. DivideMix: Learning with Noisy Labels as Semi-supervised Learning.
       ICLR, 2020. arXiv:2002.07394

    Examples
    --------
    >>> small_loss_probability(np.array([0.1, 0.2, 0.1, 3.0])).round()
    array([1., 1., 1., 0.])
    """
    losses = np.asarray(losses)
    if losses.ndim != 1 or not np.isfinite(losses).all():
        raise ValueError(
            f"losses must have shape (n_samples,) and be finite. Got {losses.shape}, "
            f"{np.isfinite(losses).sum()} of {losses.size} finite. Leave out other rows."
        )
    spread = np.ptp(losses) if len(losses) > 1 else 0.0
    if spread < _SMALLEST_SPREAD:
        return np.ones(len(losses))
    scaled = ((losses - losses.min()) / spread)[:, None]
    mixture = GaussianMixture(2, reg_covar=_REGULARIZATION, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # few distinct losses: still a division
        mixture.fit(scaled)
    posterior: _Floats = mixture.predict_proba(scaled)
    return posterior[:, mixture.means_[:, 0].argmin()]


def _given(codes: NDArray[np.intp], probs: NDArray[Any]) -> _Floats:
    given = probs[np.arange(len(codes)), codes].astype(np.float64)
    given[codes < 0] = np.nan  # -1 would read the last class
    return given


def _check(labels: ArrayLike, probs: ArrayLike) -> tuple[NDArray[np.intp], NDArray[Any]]:
    column, probabilities = as_column(labels), np.asarray(probs)
    if probabilities.ndim != 2 or column.shape != probabilities.shape[:1]:
        raise ValueError(
            "labels must have shape (n_samples,) and probabilities (n_samples, n_classes). Got "
            f"{column.shape} and {probabilities.shape}."
        )
    codes = _codes(column, probabilities.shape[1])
    lowest, highest = probabilities.min(initial=0), probabilities.max(initial=0)
    if not (lowest >= -_TOLERANCE and highest <= 1 + _TOLERANCE):  # NaN fails
        raise ValueError(
            f"Probabilities must lie in [0, 1]. Got {np.min(probabilities):g} to "
            f"{np.max(probabilities):g}. Apply a softmax to logits, and leave out rows with NaN."
        )
    exact = lowest >= 0 and highest <= 1  # beliefs may be as large as the memory allows
    return codes, probabilities if exact else np.clip(probabilities, 0, 1)


def _codes(column: NDArray[Any], n_classes: int) -> NDArray[np.intp]:
    """Return codes 0..n_classes-1, and -1 for rows without a label."""
    missing = is_missing(column, np.nan)
    present = present_labels(column, missing, "labels")
    kinds = "iuf" if missing.any() else "iu"  # gaps make floats of integers
    if len(present) and (
        present.dtype.kind not in kinds or np.any((present < -1) | (present >= n_classes))
    ):
        raise ValueError(
            f"labels must be integer codes from 0 to {n_classes - 1}, or -1 for no label. Got "
            f"{present.dtype} {np.unique(present)[:10].tolist()}. Encode them as "
            "np.unique(y, return_inverse=True) does."
        )
    codes = np.full(len(column), -1)
    codes[~missing] = present
    return codes.astype(np.intp)


def transition_matrix(labels: ArrayLike, distribution: ArrayLike) -> _Floats:
    """Return the share of each observed class (column) given the true class (row).

    ``T[y, z] = sum of distribution[i, y] over rows with label z / sum of distribution[i, y]``, the
    M-step for T of Kim et al. (LNL-flywheel, section 3.3).

    Parameters
    ----------
    labels : array-like of int of shape (n_samples,)
        Given labels as codes; rows without a label, -1, do not count.
    distribution : array-like of shape (n_samples, n_classes)
        Belief about the true class.

    Returns
    -------
    ndarray of shape (n_classes, n_classes)
        Rows sum to 1; a class that is believed nowhere has a row of the identity.

    Examples
    --------
    >>> transition_matrix([0, 1, -1], [[1.0, 0.0], [0.5, 0.5], [1.0, 0.0]])
    array([[0.66666667, 0.33333333],
           [0.        , 1.        ]])
    """
    codes, probs = _check(labels, distribution)
    n_classes = probs.shape[1]
    rows = np.argsort(codes, kind="stable")
    ends = np.searchsorted(codes[rows], np.arange(n_classes + 1))
    matrix = np.empty((n_classes, n_classes))
    for label, (start, end) in enumerate(pairwise(ends)):
        matrix[:, label] = probs[rows[start:end]].sum(0, dtype=np.float64)
    total = matrix.sum(1, keepdims=True)
    np.divide(matrix, total, out=matrix, where=total > 0)
    nowhere = np.flatnonzero(total == 0)
    matrix[nowhere, nowhere] = 1
    return matrix
