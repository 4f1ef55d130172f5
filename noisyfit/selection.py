"""Choose between settings and between epochs without clean labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from noisyfit.metrics import standardized_clid

_ROWS = 1000  # scored together, as many as the authors' meta set has


def neg_clid(estimator: Any, X: Any, y: Any = None) -> float:
    """Score a fitted estimator by how well its predictions agree with its embeddings.

    A scorer that looks at no label, for ``GridSearchCV(scoring=neg_clid)``, ``cross_val_score`` and
    skorch's ``EpochScoring``. It is high if rows that the network sees as alike are predicted alike
    ([1]_): fitting wrong labels breaks this on rows held out. Score rows that were not trained on.

    Parameters
    ----------
    estimator : fitted estimator
        Any of this package, or a ``Pipeline`` that ends in one: it needs ``transform``, for the
        embeddings, and ``predict_proba``.
    X : array-like
        At least 3 rows.
    y : ignored

    Returns
    -------
    float
        High is good; near 0 for an untrained network. The negative of
        `noisyfit.metrics.standardized_clid`, averaged over sets of 1,000 rows, or of all rows if
        there are fewer.

    Raises
    ------
    TypeError
        If the estimator has no ``transform`` or no ``predict_proba``.
    ValueError
        If there are fewer than 3 rows.

    Notes
    -----
    Plain CLID (`noisyfit.metrics.clid`) depends on the number of rows, on the width of the network
    and on its confidence. It often falls while a network memorises wrong labels with growing
    confidence, and then chooses the worst setting. The standardized one does not depend on them in
    this way, and needs no correction where there are fewer rows than in a set.

    The rows are dealt to the sets in a fixed random order, so that rows sorted by class do no harm;
    the last set is filled up from the first.

    The score is no measure of accuracy. A network that underfits agrees with its embeddings too, so
    compare settings that all learn something, on the same labels: the score does not tell clean
    labels from noisy ones. Under mild noise, or with hundreds of held-out rows, the accuracy on the
    noisy held-out labels is as good a guide; the score needs no labels.

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

    Keep the best epoch by a callback; rows to score come from ``validation_fraction`` or ``X_val``,
    or are the training rows with ``on_train=True``:

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
    order, size = np.random.default_rng(0).permutation(n), min(n, _ROWS)
    sets = np.resize(order, (-(-n // size), size))  # repeats the order from its start
    return -float(np.mean([standardized_clid(embeddings[idx], probs[idx]) for idx in sets]))
