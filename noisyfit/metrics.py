"""Score what was found about labels against the truth, and networks without any truth."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp, softmax
from sklearn.covariance import LedoitWolf
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from noisyfit.parameters import check_number
from noisyfit.validation import as_column, is_missing, present_labels

if TYPE_CHECKING:
    from torch import Tensor


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
    """Area under precision and recall of finding wrong labels by low quality.

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

    Rows that tie for the last places count with the average over them, so the order of the rows
    does not matter.

    Parameters
    ----------
    flipped : array-like of bool, shape (n_samples,)
        Which labels are truly wrong.
    quality : array-like of shape (n_samples,)
        Low means suspicious. Rows with NaN are left out.
    n : int, default=None
        How many labels a person would look at. None: as many as are wrong, so that 1.0 can be
        reached; precision and recall are then the same.

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
        Clean labels and corrected labels, both as the user writes them. Rows whose clean label is
        None, NaN or pandas' NA do not count.

    Returns
    -------
    float
        Compare with one minus the noise rate: below it, correcting did harm.

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
        ``mean_i(0.5 * sum_j |estimated_ij - true_ij|)``, in [0, 1]: the probability mass that the
        average row has in the wrong place.

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


def clid(embeddings: Any, probabilities: Any, temperature: float = 0.5) -> float:
    """Cross-layer information divergence of a set of rows; needs no labels.

    Low if rows that the network sees as alike are also predicted alike. Under label noise it has
    been found to rise and fall with the cross-entropy on clean labels (section 4.2 of [1]_). See
    `noisyfit.nn.losses.clid` for the formula.

    Parameters
    ----------
    embeddings : array-like or tensor of shape (n_samples, n_dims)
        What the last layer of the network sees: ``estimator.transform(X)``.
    probabilities : array-like or tensor of shape (n_samples, n_classes)
        ``estimator.predict_proba(X)``.
    temperature : float > 0, default=0.5
        Divides the cosines of the embeddings.

    Returns
    -------
    float
        In nats, in ``[0, log(n_samples) + 2 / temperature]``; ``log(n_samples)`` if all embeddings
        are the same.

    Raises
    ------
    ValueError
        If the arrays do not match, are not finite, or hold negative probabilities.

    Notes
    -----
    Depends on the number of rows: compare sets of equal size. It also falls as predictions become
    more confident, right or wrong, so it can prefer a network that has memorised wrong labels. It
    is for comparing how much noise there was; to choose between settings for the same labels use
    `standardized_clid` or `noisyfit.neg_clid`.

    References
    ----------
    .. [1] Hu et al. CLID-MU: Cross-Layer Information Divergence Based Meta Update Strategy for
       Learning with Noisy Labels. KDD, 2025. arXiv:2507.11807

    Examples
    --------
    >>> aligned = clid([[1, 0], [1, 0], [0, 1]], [[0.9, 0.1], [0.9, 0.1], [0.1, 0.9]])
    >>> crossed = clid([[1, 0], [0, 1], [0, 1]], [[0.9, 0.1], [0.9, 0.1], [0.1, 0.9]])
    >>> aligned < crossed
    True
    """
    import torch

    from noisyfit.nn import losses

    check_number("temperature", temperature)
    if not temperature > 0:
        raise ValueError(f"temperature must be greater than 0. Got {temperature!r}.")
    z, q = _predictions(embeddings, probabilities)
    with torch.no_grad():
        return float(losses.clid(z, q, temperature=temperature).mean())


def standardized_clid(embeddings: Any, probabilities: Any) -> float:
    """CLID made comparable across networks, confidences and numbers of rows; needs no labels.

    Parameters
    ----------
    embeddings : array-like or tensor of shape (n_samples, n_dims)
        At least 3 rows. The memory is quadratic in them: average over sets of 1,000 rows or so.
    probabilities : array-like or tensor of shape (n_samples, n_classes)

    Returns
    -------
    float
        Low is good, as with `clid`. Near 0 for a random last layer; not below -7.3.

    Raises
    ------
    ValueError
        If the arrays do not match, are not finite, hold negative probabilities or under 3 rows.

    Notes
    -----
    Three things besides the quality of a network move plain CLID, and each is divided out.

    1. *Confidence and temperature.* The CLID of a row is compared with the same under all orders of
       the other rows' predictions: how many standard deviations below their mean is it? In closed
       form that is ``sqrt(m - 2)`` times the Pearson correlation, over the other rows, between the
       cosines of the embeddings and the cosines of the predictions. The temperature cancels.
    2. *Number of rows.* The factor ``sqrt(m - 2)`` is left out.
    3. *Width.* The cosines of wide embeddings spread less, and so agree less with any predictions
       from a few classes. A random linear layer to K classes adds noise of variance 1/K or so to
       the cosines, whose standard deviation is ``s``; its correlation would be
       ``s / sqrt(s**2 + 1/K)``. Both correlations are compared after Fisher's transformation
       ``artanh``, which makes their errors alike.

    The result is ``arsinh(s * sqrt(K)) - artanh(r)``, with ``r`` the mean correlation.

    Examples
    --------
    >>> embeddings = [[1, 0], [1, 0.1], [0, 1], [0.1, 1]]
    >>> aligned = [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8]]
    >>> crossed = [[0.9, 0.1], [0.1, 0.9], [0.8, 0.2], [0.2, 0.8]]
    >>> standardized_clid(embeddings, aligned) < 0 < standardized_clid(embeddings, crossed)
    True
    """
    import torch

    z, q = _predictions(embeddings, probabilities)
    if len(z) < 3:
        raise ValueError(
            f"embeddings must have at least 3 rows to be compared. Got {len(z)}. Pass more rows."
        )
    n_classes = q.shape[1]
    with torch.no_grad():
        z, q = _cosines_with_others(z), _cosines_with_others(q)
        z_spread, q_spread = z.std(dim=1, correction=0), q.std(dim=1, correction=0)
        centered = z - z.mean(dim=1, keepdim=True)
        covariance = (centered * q).mean(dim=1)
        # Below 1e-6 is rounding: all cosines are the same, and tell nothing.
        varied = (z_spread > 1e-6) & (q_spread > 1e-6)
        scale = torch.where(varied, z_spread * q_spread, 1.0)
        correlation = torch.where(varied, covariance / scale, 0.0).mean()
    aligned = np.arctanh(np.clip(float(correlation), -1 + 1e-6, 1 - 1e-6))
    return float(np.arcsinh(float(z_spread.mean()) * n_classes**0.5) - aligned)


def relative_performance_ratio(
    performance: ArrayLike, clean_performance: ArrayLike
) -> NDArray[np.float64]:
    """Compare networks trained with noise with the one trained on clean labels ([1]_, Def. 1).

    Parameters
    ----------
    performance : array-like
        Test performance under each noisy setting, such as the cross-entropy or `clid`, of any
        shape; not zero.
    clean_performance : array-like
        The same measure after training on clean labels; a number, or of a shape that broadcasts.

    Returns
    -------
    ndarray of the broadcast shape
        ``clean_performance / performance``. 1 is as good as clean. Noise lowers it for a measure of
        which low is good, and raises it otherwise.

    Raises
    ------
    ValueError
        If a performance is zero or not finite.

    References
    ----------
    .. [1] Hu et al. CLID-MU: Cross-Layer Information Divergence Based Meta Update Strategy for
       Learning with Noisy Labels. KDD, 2025. arXiv:2507.11807

    Examples
    --------
    >>> relative_performance_ratio([0.5, 1.0], 0.5).tolist()
    [1.0, 0.5]
    """
    noisy, clean = np.asarray(performance, np.float64), np.asarray(clean_performance, np.float64)
    if not np.isfinite(noisy).all() or not np.isfinite(clean).all() or (noisy == 0).any():
        raise ValueError(
            "performance must be finite and not zero, clean_performance finite. Got "
            f"{noisy.tolist()} and {clean.tolist()}. Leave out settings that failed."
        )
    return np.asarray(clean / noisy)


def epoch_correlation(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Pearson correlation of two measures over noisy settings, at each epoch ([1]_, Def. 2).

    Parameters
    ----------
    first, second : array-like of shape (n_epochs, n_settings)
        Two measures, such as `clid` and the cross-entropy on clean test labels, of networks trained
        by the same protocol under two or more settings.

    Returns
    -------
    ndarray of shape (n_epochs,)
        In [-1, 1]; NaN at an epoch at which a measure is the same under all settings. The authors
        call a correlation strong above 0.7 or so.

    Raises
    ------
    ValueError
        If the shapes differ, or there are fewer than two settings.

    References
    ----------
    .. [1] Hu et al. CLID-MU: Cross-Layer Information Divergence Based Meta Update Strategy for
       Learning with Noisy Labels. KDD, 2025. arXiv:2507.11807

    Examples
    --------
    >>> epoch_correlation([[1, 2, 3], [1, 2, 3]], [[2, 4, 6], [3, 2, 1]]).round(6).tolist()
    [1.0, -1.0]
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.ndim != 2 or a.shape != b.shape or a.shape[1] < 2:
        raise ValueError(
            "first and second must both have shape (n_epochs, n_settings), n_settings >= 2. Got "
            f"{a.shape} and {b.shape}. Write one epoch as a list of one list."
        )
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.divide((a * b).sum(axis=1), norms, out=np.full(len(a), np.nan), where=norms > 0)


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
    - ``"knn"``: the Euclidean distance to the k-th nearest training row, all rows of length 1
      [4]_; needs `embeddings` and `train_embeddings`.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes), default=None
        ``estimator.predict_logits(X)``. For ``"msp"``, log-probabilities are as good, and ``1 -
        predict_proba(X).max(axis=1)`` is the score itself. For ``"energy"`` they are useless: the
        logsumexp of log-probabilities is 0 for every row.
    embeddings : array-like of shape (n_samples, n_dims), default=None
        ``estimator.transform(X)``.
    method : {"msp", "energy", "mahalanobis", "knn"}, default="energy"
        What a method does not need is ignored.
    train_embeddings : array-like of shape (n_train, n_dims), default=None
        ``estimator.transform(X_train)``.
    train_labels : array-like of shape (n_train,), default=None
        Of any type. ``estimator.corrected_labels_``, or those given; wrong labels blur the means.
    temperature : float > 0, default=1.0
        ``T`` of the energy.
    n_neighbors : int >= 1, default=10
        k of ``"knn"``, at most the number of training rows. Keep it well below the number of rows
        of a class: [4]_ took 50 for 5,000 rows a class.

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
    The covariance of ``"mahalanobis"``, shared by all classes, is the one of Ledoit and Wolf, which
    can always be inverted; that of [3]_ cannot if there are fewer rows than dimensions, or units
    that are always 0. If the rows of each class are all the same, it is the identity. [3]_ adds
    noise to the input and combines layers; here there is one layer. Rows in the training set are
    their own nearest neighbours, so they score low. ReLU networks can be most confident far from
    all data: there, ``"msp"`` and ``"energy"`` rate rows as known that the distances give away.

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
        Scores of rows from the distribution of the training data, such as by `ood_scores`.
    scores_out : array-like of shape (n_out,)
        Scores of other rows.

    Returns
    -------
    float
        1.0 is perfect, 0.5 is chance. Does not depend on how many rows there are of each kind.

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
        Scores of rows from the distribution of the training data, such as by `ood_scores`.
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
    Known rows are the positives in [1]_ and in OpenOOD 1.0 [2]_. OpenOOD 1.5 takes the unknown rows
    for the positives: that number is ``fpr_at_95_tpr(-scores_out, -scores_in)``.

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


def _predictions(embeddings: Any, probabilities: Any) -> tuple[Tensor, Tensor]:
    """Return both as float tensors of matching rows."""
    import torch

    z, q = (
        x if isinstance(x, torch.Tensor) else torch.tensor(np.asarray(x))
        for x in (embeddings, probabilities)
    )
    if z.ndim != 2 or q.ndim != 2 or len(z) != len(q) or not len(z):
        raise ValueError(
            "embeddings must have shape (n_samples, n_dims) and probabilities (n_samples, "
            f"n_classes), n_samples >= 1. Got {tuple(z.shape)} and {tuple(q.shape)}. Pass "
            "transform(X) and predict_proba(X) of the same rows."
        )
    if not (z.isfinite().all() and q.isfinite().all() and (q >= 0).all()):
        raise ValueError(
            "embeddings must be finite, and probabilities finite and not negative. Got NaN, "
            "infinity or a negative probability. Pass predict_proba(X), not logits."
        )
    return z, q


def _cosines_with_others(rows: Tensor) -> Tensor:
    """Cosines of each row with the others, shape (m, m - 1), in double precision."""
    import torch

    unit = torch.nn.functional.normalize(rows.double(), dim=1)
    others = ~torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    return (unit @ unit.T)[others].view(len(unit), -1)


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
