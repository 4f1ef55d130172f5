"""Score how well rows of unseen classes stand out."""

from __future__ import annotations

from numbers import Integral

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp, softmax
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from noisyfit.utils.parameters import check_number
from noisyfit.utils.validation import as_column, is_missing, present_labels


def ood_scores(
    logits: ArrayLike | None = None,
    embeddings: ArrayLike | None = None,
    *,
    method: str = "energy",
    train_embeddings: ArrayLike | None = None,
    train_labels: ArrayLike | None = None,
    temperature: float = 1.0,
    n_neighbors: int = 10,
) -> NDArray[np.float64]:
    """Rate how likely each row is out of distribution: high means unlike the training data.

    - ``"msp"``: one minus the largest softmax [1]_; needs `logits`.
    - ``"energy"``: ``-T * logsumexp(logits / T)`` [2]_; needs `logits`.
    - ``"mahalanobis"``: the smallest squared Mahalanobis distance to the mean of a class [3]_;
      needs `embeddings`, `train_embeddings` and `train_labels`.
    - ``"knn"``: the Euclidean distance to the k-th nearest training row, with all rows scaled to
      length 1 [4]_; needs `embeddings` and `train_embeddings`.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes), default=None
        ``estimator.predict_logits(X)``. For ``"msp"``, log-probabilities do as well, and ``1 -
        predict_proba(X).max(axis=1)`` is the score itself. For ``"energy"`` they are useless: the
        logsumexp of log-probabilities is 0 for every row.
    embeddings : array-like of shape (n_samples, n_dims), default=None
        ``estimator.transform(X)``.
    method : {"msp", "energy", "mahalanobis", "knn"}, default="energy"
        Arguments that a method does not need are ignored.
    train_embeddings : array-like of shape (n_train, n_dims), default=None
        ``estimator.transform(X_train)``.
    train_labels : array-like of shape (n_train,), default=None
        Of any type. ``estimator.corrected_labels_``, or the given labels; wrong labels blur the
        means.
    temperature : float > 0, default=1.0
        ``T`` in the energy.
    n_neighbors : int >= 1, default=10
        k for ``"knn"``, at most the number of training rows. Keep it well below the number of rows
        per class: [4]_ used 50 for 5,000 rows per class.

    Returns
    -------
    ndarray of shape (n_samples,)
        In [0, 1) for ``"msp"``, in [0, 2] for ``"knn"``, not negative for ``"mahalanobis"``, of any
        sign for ``"energy"``.

    Raises
    ------
    ValueError
        If an array is missing, not finite or does not match, or a parameter is out of range.

    Notes
    -----
    The covariance for ``"mahalanobis"``, shared by all classes, is the Ledoit-Wolf estimate, which
    can always be inverted; that of [3]_ cannot if there are fewer rows than dimensions, or units
    that are always 0. If all rows of each class are equal, it is the identity. [3]_ adds noise to
    the input and combines layers; here there is one layer. Training rows are their own nearest
    neighbours, so they score low. ReLU networks can be most confident far from all data: there
    ``"msp"`` and ``"energy"`` rate rows as known that the distances expose.

    References
    ----------
    .. [1] Hendrycks and Gimpel. A Baseline for Detecting Misclassified and Out-of-Distribution
       Examples in Neural Networks. ICLR, 2017. arXiv:1610.02136
    .. [2] Liu et al. Energy-based Out-of-distribution Detection. NeurIPS, 2020. arXiv:2010.03759
    .. [3] Lee et al. A Simple Unified Framework for Detecting Out-of-Distribution Samples and
       Adversarial Attacks. NeurIPS, 2018. arXiv:1807.03888
    .. [4] Sun et al. Out-of-Distribution Detection with Deep Nearest Neighbors. ICML, 2022.
       arXiv:2204.06507

    Examples
    --------
    >>> ood_scores([[4.0, 0.0], [0.0, 0.0]], method="msp").round(3).tolist()
    [0.018, 0.5]
    >>> train = [[1, 0], [1, 0.1], [0, 1], [0.1, 1]]
    >>> known_and_unknown = [[1, 0], [-1, 0]]
    >>> ood_scores(None, known_and_unknown, method="knn", train_embeddings=train, n_neighbors=1)
    array([0.        , 1.41421356])
    """
    if method in ("msp", "energy"):
        rows = _finite_rows(logits, "logits", method)
        return _msp(rows) if method == "msp" else _energy(rows, temperature)
    if method not in ("mahalanobis", "knn"):
        raise ValueError(
            f"method must be 'msp', 'energy', 'mahalanobis' or 'knn'. Got {method!r}. Pass one of "
            "the four names."
        )
    rows = _finite_rows(embeddings, "embeddings", method)
    train = _finite_rows(train_embeddings, "train_embeddings", method)
    if rows.shape[1] != train.shape[1]:
        raise ValueError(
            "embeddings and train_embeddings must have the same number of columns. Got "
            f"{rows.shape[1]} and {train.shape[1]}. Pass transform(X) of the same estimator."
        )
    if method == "knn":
        return _distance_to_neighbor(rows, train, n_neighbors)
    return _distance_to_class(rows, train, train_labels)


def ood_auroc(scores_in: ArrayLike, scores_out: ArrayLike) -> float:
    """Chance that an unknown row scores higher than a known one; ties count half.

    Parameters
    ----------
    scores_in : array-like of shape (n_in,)
        Scores of rows from the training distribution, such as from `ood_scores`.
    scores_out : array-like of shape (n_out,)
        Scores of other rows.

    Returns
    -------
    float
        1.0 is perfect, 0.5 is chance. Does not depend on the number of rows of each kind.

    Raises
    ------
    ValueError
        If the scores are empty, not finite or not one-dimensional.

    Examples
    --------
    >>> ood_auroc([0.1, 0.2], [0.2, 0.9])
    0.875
    """
    known, unknown = _two_samples(scores_in, scores_out)
    is_unknown = np.repeat([False, True], [len(known), len(unknown)])
    return float(roc_auc_score(is_unknown, np.concatenate([known, unknown])))


def fpr_at_95_tpr(scores_in: ArrayLike, scores_out: ArrayLike) -> float:
    """Share of unknown rows accepted when 95 % of the known ones are: FPR95.

    Known rows are the positives. The threshold is the smallest score of a known row such that at
    least 95 % of the known rows score at or below it, and all rows at or below it are accepted.

    Parameters
    ----------
    scores_in : array-like of shape (n_in,)
        Scores of rows from the training distribution, such as from `ood_scores`.
    scores_out : array-like of shape (n_out,)
        Scores of other rows.

    Returns
    -------
    float
        0.0 is perfect, 0.95 is chance. 1.0 if all scores are the same.

    Raises
    ------
    ValueError
        If the scores are empty, not finite or not one-dimensional.

    Notes
    -----
    Known rows are the positives in [1]_ and in OpenOOD 1.0 [2]_. In OpenOOD 1.5 the unknown rows
    are the positives: its figure is ``fpr_at_95_tpr(-scores_out, -scores_in)``.

    References
    ----------
    .. [1] Liu et al. Energy-based Out-of-distribution Detection. NeurIPS, 2020. arXiv:2010.03759
    .. [2] Yang et al. OpenOOD: Benchmarking Generalized Out-of-Distribution Detection. NeurIPS,
       2022. arXiv:2210.07242

    Examples
    --------
    >>> fpr_at_95_tpr(range(100), [0, 94, 95, 200])
    0.5
    """
    known, unknown = _two_samples(scores_in, scores_out)
    n_accepted = -(-19 * len(known) // 20)  # 95 %, rounded up, without floating point
    threshold = np.partition(known, n_accepted - 1)[n_accepted - 1]
    return float(np.mean(unknown <= threshold))


def _msp(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    probs = np.sort(softmax(logits, axis=1), axis=1)
    return probs[:, :-1].sum(axis=1)  # 1 - max would round to 0 for confident rows


def _energy(logits: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    check_number("temperature", temperature)
    if not 0 < temperature < np.inf:
        raise ValueError(f"temperature must be finite and greater than 0. Got {temperature!r}.")
    return np.asarray(-temperature * logsumexp(logits / temperature, axis=1))


def _distance_to_class(
    rows: NDArray[np.float64], train: NDArray[np.float64], train_labels: ArrayLike | None
) -> NDArray[np.float64]:
    """Squared Mahalanobis distance to the nearest class mean, with one covariance for all."""
    labels = as_column(train_labels)
    if labels.shape != (len(train),) or is_missing(labels, np.nan).any():
        raise ValueError(
            f"train_labels must have shape ({len(train)},), one label for each row of "
            f"train_embeddings, and hold no NaN. Got {labels.dtype} {labels.shape}. Pass "
            "estimator.corrected_labels_."
        )
    classes, codes = np.unique(present_labels(labels), return_inverse=True)
    means = np.stack([train[codes == c].mean(axis=0) for c in range(len(classes))])
    within = train - means[codes]
    precision = np.eye(train.shape[1])
    if np.abs(within).max() > 1e-9 * np.abs(train).max():  # otherwise it is rounding
        precision = LedoitWolf(assume_centered=True).fit(within).precision_
    distances = [((d @ precision) * d).sum(axis=1) for d in (rows - mean for mean in means)]
    return np.asarray(np.maximum(np.min(distances, axis=0), 0))


def _distance_to_neighbor(
    rows: NDArray[np.float64], train: NDArray[np.float64], n_neighbors: int
) -> NDArray[np.float64]:
    check_number("n_neighbors", n_neighbors, Integral)
    if n_neighbors < 1:
        raise ValueError(f"n_neighbors must be at least 1. Got {n_neighbors!r}.")
    neighbors = NearestNeighbors(n_neighbors=min(n_neighbors, len(train))).fit(normalize(train))
    return np.asarray(neighbors.kneighbors(normalize(rows))[0][:, -1])


def _finite_rows(rows: ArrayLike | None, name: str, method: str) -> NDArray[np.float64]:
    if rows is None:
        raise ValueError(
            f"{name} must be given if method={method!r}. Got None. Pass {name}=..., or choose "
            "another method."
        )
    array = np.asarray(rows, np.float64)
    if array.ndim != 2 or not array.size:
        raise ValueError(
            f"{name} must have two dimensions, neither of them empty. Got shape {array.shape}. "
            "Write a single row as a list of one list."
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite. Got NaN or infinity. Leave out such rows.")
    return array


def _two_samples(
    scores_in: ArrayLike, scores_out: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    known, unknown = np.asarray(scores_in, np.float64), np.asarray(scores_out, np.float64)
    for name, scores in (("scores_in", known), ("scores_out", unknown)):
        if scores.ndim != 1 or not len(scores) or not np.isfinite(scores).all():
            raise ValueError(
                f"{name} must have shape (n,), n >= 1, and be finite. Got {scores.shape}, "
                f"{np.isfinite(scores).sum()} of {scores.size} finite. Leave out other rows."
            )
    return known, unknown
