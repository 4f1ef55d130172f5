"""Judge networks without the truth: how well predictions agree with embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from noisyfit.utils.parameters import check_number

if TYPE_CHECKING:
    from torch import Tensor

SET_SIZE = 1000  # rows scored together, as many as the authors' meta set has


def clid(embeddings: Any, probabilities: Any, temperature: float = 0.5) -> float:
    """Cross-layer information divergence of a set of rows; needs no labels.

    Low if rows with similar embeddings also have similar predictions. Under label noise it has been
    found to rise and fall with the cross-entropy on clean labels (section 4.2 of [1]_). See
    `noisyfit.nn.losses.clid` for the formula.

    Parameters
    ----------
    embeddings : array-like or tensor of shape (n_samples, n_dims)
        The input of the network's last layer: ``estimator.transform(X)``.
    probabilities : array-like or tensor of shape (n_samples, n_classes)
        ``estimator.predict_proba(X)``.
    temperature : float > 0, default=0.5
        Divisor of the cosines of the embeddings.

    Returns
    -------
    float
        In nats, in ``[0, log(n_samples) + 2 / temperature]``; ``log(n_samples)`` if all embeddings
        are equal.

    Raises
    ------
    ValueError
        If the arrays do not match, are not finite, or hold negative probabilities.

    Notes
    -----
    Depends on the number of rows, so compare sets of equal size. It also falls as predictions
    become more confident, right or wrong, so it can prefer a network that has memorised wrong
    labels. Use it to compare how much noise there was. To choose between settings for the same
    labels, use `standardized_clid` or `noisyfit.neg_clid`.

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
        At least 3 rows. Memory is quadratic in the number of rows: average over sets of about
        1,000.
    probabilities : array-like or tensor of shape (n_samples, n_classes)

    Returns
    -------
    float
        Low is good, as with `clid`. Near 0 for a random last layer; not below -7.3.

    Raises
    ------
    ValueError
        If the arrays do not match, are not finite, hold negative probabilities or have fewer than 3
        rows.

    Notes
    -----
    Three things besides the quality of a network affect plain CLID, and each is divided out.

    1. *Confidence and temperature.* The CLID of a row is compared with its values under all orders
       of the other rows' predictions: how many standard deviations is it below their mean? In
       closed form that is ``sqrt(m - 2)`` times the Pearson correlation, over the other rows,
       between the cosines of the embeddings and the cosines of the predictions. The temperature
       cancels.
    2. *Number of rows.* The factor ``sqrt(m - 2)`` is left out.
    3. *Width.* The cosines of wide embeddings vary less, and so agree less with any predictions
       over a few classes. A random linear layer to K classes adds noise with a variance of about
       1/K to the cosines, whose standard deviation is ``s``; its correlation would be ``s /
       sqrt(s**2 + 1/K)``. The two correlations are compared after Fisher's transformation
       ``artanh``, which gives them errors of the same size.

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


def neg_clid(estimator: Any, X: Any, y: Any = None) -> float:
    """Score a fitted estimator by how well its predictions agree with its embeddings.

    A scorer that uses no labels, for ``GridSearchCV(scoring=neg_clid)``, ``cross_val_score`` and
    skorch's ``EpochScoring``. It is high if rows with similar embeddings have similar predictions
    ([1]_); fitting wrong labels breaks this on held-out rows. Score rows that were not trained on.

    Parameters
    ----------
    estimator : fitted estimator
        Any estimator of this package, or a ``Pipeline`` that ends in one. It needs ``transform``,
        for the embeddings, and ``predict_proba``.
    X : array-like
        At least 3 rows.
    y : ignored

    Returns
    -------
    float
        High is good; near 0 for an untrained network. The negative of
        `noisyfit.metrics.standardized_clid`, averaged over sets of 1,000 rows, or computed on all
        rows if there are fewer.

    Raises
    ------
    TypeError
        If the estimator has no ``transform`` or no ``predict_proba``.
    ValueError
        If there are fewer than 3 rows.

    Notes
    -----
    Plain CLID (`noisyfit.metrics.clid`) depends on the number of rows, the width of the network and
    its confidence. It often falls while a network memorises wrong labels with growing confidence,
    and then chooses the worst setting. Standardised CLID does not depend on them in this way, and
    needs no correction for sets with fewer rows.

    The rows are dealt to the sets in a fixed random order, so rows sorted by class do no harm; the
    last set is filled up from the first.

    The score does not measure accuracy. A network that underfits also agrees with its embeddings,
    so compare settings that all learn something, on the same labels: the score does not tell clean
    labels from noisy ones. Under mild noise, or with hundreds of held-out rows, accuracy on the
    noisy held-out labels is as good a guide; this score needs no labels.

    References
    ----------
    .. [1] Hu et al. CLID-MU: Cross-Layer Information Divergence Based Meta Update Strategy for
       Learning with Noisy Labels. KDD, 2025. arXiv:2507.11807

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import GridSearchCV
    >>> from noisyfit import CrossEntropyClassifier, neg_clid
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = CrossEntropyClassifier(random_state=0)
    >>> search = GridSearchCV(clf, {"max_epochs": [2, 20]}, scoring=neg_clid, cv=3).fit(X, y)
    >>> search.best_params_
    {'max_epochs': 20}

    Keep the best epoch with a callback. The rows to score come from ``validation_fraction`` or
    ``X_val``, or are the training rows with ``on_train=True``:

    >>> from skorch.callbacks import EarlyStopping, EpochScoring
    >>> watch = EpochScoring(neg_clid, name="neg_clid", lower_is_better=False)
    >>> stop = EarlyStopping("neg_clid", lower_is_better=False, patience=10, load_best=True)
    >>> clf = CrossEntropyClassifier(callbacks=[watch, stop], validation_fraction=0.2)
    """
    missing = [name for name in ("transform", "predict_proba") if not hasattr(estimator, name)]
    if missing:
        raise TypeError(
            "neg_clid needs an estimator with transform (embeddings) and predict_proba. Got a "
            f"{type(estimator).__name__} without {' and '.join(missing)}. Use an estimator of "
            "noisyfit, or a Pipeline that ends in one."
        )
    embeddings, probs = np.asarray(estimator.transform(X)), np.asarray(estimator.predict_proba(X))
    n = len(embeddings)
    order, size = np.random.default_rng(0).permutation(n), min(n, SET_SIZE)
    sets = np.resize(order, (-(-n // size), size))  # repeats the order from its start
    return -float(np.mean([standardized_clid(embeddings[idx], probs[idx]) for idx in sets]))


def relative_performance_ratio(
    performance: ArrayLike, clean_performance: ArrayLike
) -> NDArray[np.float64]:
    """Compare networks trained with noise with the one trained on clean labels.

    Definition 1 of [1]_.

    Parameters
    ----------
    performance : array-like
        Test performance under each noisy setting, such as the cross-entropy or `clid`. Any shape;
        no zeros.
    clean_performance : array-like
        The same measure after training on clean labels; a number, or a shape that broadcasts.

    Returns
    -------
    ndarray of the broadcast shape
        ``clean_performance / performance``. 1 is as good as clean. Noise lowers the ratio if low
        values of the measure are good, and raises it otherwise.

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
    """Pearson correlation of two measures over noisy settings, at each epoch.

    Definition 2 of [1]_.

    Parameters
    ----------
    first, second : array-like of shape (n_epochs, n_settings)
        Two measures, such as `clid` and the cross-entropy on clean test labels, of networks trained
        with the same protocol under two or more settings.

    Returns
    -------
    ndarray of shape (n_epochs,)
        In [-1, 1]; NaN at an epoch in which a measure is the same under all settings. The authors
        call a correlation above about 0.7 strong.

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
