"""Which labels are wrong, how many, and how far to believe it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from joblib import Memory
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import normalize
from sklearn.utils import check_random_state, indexable
from sklearn.utils.parallel import Parallel, delayed

from noisyfit import trust
from noisyfit.auditing.findings import Audit
from noisyfit.auditing.labels import read_decisions, read_labels
from noisyfit.estimator.delegation import beliefs_of, boosted_trees, fit_on, seeded, suits_trees
from noisyfit.exceptions import NoisyFitWarning
from noisyfit.methods.coteaching import CoTeachingClassifier
from noisyfit.utils.progress import progress_bar
from noisyfit.utils.validation import (
    check_lengths,
    check_probabilities,
    count_rows,
    row_names,
    take_rows,
)


def audit(
    X: Any,
    y: Any,
    *,
    detectors: Sequence[Any] | None = None,
    pred_probs: Any = None,
    clean_mask: Any = None,
    decided: Mapping[Any, Any] | None = None,
    missing_label: Any = None,
    n_splits: int = 5,
    memory: str | Memory | None = None,
    n_jobs: int | None = None,
    random_state: int | np.random.RandomState | None = None,
    verbose: bool = False,
) -> Audit:
    """Find the wrong labels, and estimate how many there are and how often a finding is right.

    Each row is rated by classifiers that were fitted on other rows. What they believe, and all
    given labels, yield how often each class is mistaken for which other one, and so the probability
    that each label is right.

    Parameters
    ----------
    X : array-like, sparse matrix or data frame of shape (n_samples, ...), or None
        Rows as the detectors take them. They are divided, but not converted.
    y : array-like of shape (n_samples,) or (n_samples, n_annotators)
        Given labels of any type. The label of a class that has no other is not rated: nothing can
        be learned of its class without it. Of the votes of several people, the given label is the
        most frequent one, and ``missing_label`` marks those that were not cast.
    detectors : sequence of classifiers or None, default=None
        Their out-of-fold probabilities are averaged. None is `CoTeachingClassifier` and, on a table
        of at most 256 columns, scikit-learn's ``HistGradientBoostingClassifier``: two classifiers
        that err on different rows.
    pred_probs : array-like of shape (n_samples, n_classes), default=None
        Probabilities of the sorted classes by classifiers that have not seen the row, if you have
        them already, as for cleanlab. Then nothing is fitted, and X may be None.
    clean_mask : array-like of bool of shape (n_samples,), default=None
        Rows whose label is known to be right, whatever they were chosen by.
    decided : mapping or None, default=None
        Right labels that people have found in an earlier audit, by the name of the row. y keeps
        what was given first: what turned out to be wrong tells how often labels are. Twice the
        cost, but with ``memory`` only the new fits.
    missing_label : scalar or None, default=None
        Marks rows without a label. They get a suggestion.
    n_splits : int >= 2, default=5
        Number of folds. The cost is that of as many fits of each detector.
    memory : path, joblib.Memory or None, default=None
        Keeps the beliefs of finished folds, so that an audit that was stopped goes on.
    n_jobs : int or None, default=None
        Number of folds at once, as in scikit-learn.
    random_state : int, RandomState instance or None, default=None
    verbose : bool, default=False
        Whether to show a progress bar. On a terminal there is one after some seconds anyway.

    Returns
    -------
    Audit

    Raises
    ------
    ValueError
        If the labels cannot be read, or fewer than two classes have two labels.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from noisyfit import audit, noise
    >>> X, y = load_iris(return_X_y=True)
    >>> noisy = noise.symmetric(y, 0.2, random_state=0)
    >>> found = audit(X, noisy.labels, random_state=0)
    >>> bool(noisy.flipped[found.issues_.index[:20]].mean() > 0.8)
    True
    """
    first = labels = read_labels(y, missing_label, n_splits, clean_mask)
    names = row_names(X, y, len(labels.codes))
    if decided:
        rated = labels.classes[labels.is_rated]
        labels = labels.after(read_decisions(decided, names, rated))
    seed = check_random_state(random_state).randint(2**31 - 1)
    if pred_probs is None:
        check_lengths(count_rows(X), len(labels.codes))
        (rows,) = indexable(X)
        believe = partial(
            _beliefs,
            _default_detectors(rows) if detectors is None else detectors,
            rows, n_splits=n_splits, memory=memory, n_jobs=n_jobs, seed=seed, verbose=verbose,
        )  # fmt: skip
        beliefs = believe(labels.codes, labels.trusted)
        at_first = believe(first.codes, first.trusted) if decided else beliefs
    else:
        given = check_probabilities(pred_probs, len(labels.codes), labels.classes)
        beliefs = at_first = normalize(given[:, labels.is_rated], "l1")
    before = trust.Before(at_first, first.judged)
    known = trust.weigh(beliefs, labels.codes, labels.trusted, labels.votes, before)
    injected = trust.inject(known, labels.judged, np.random.default_rng(seed))
    return Audit(labels, names, known, injected)


def _default_detectors(X: Any) -> list[Any]:
    trees = [boosted_trees()] if suits_trees(X) else []
    return [CoTeachingClassifier(), *trees]


def _beliefs(
    detectors: Sequence[Any],
    X: Any,
    codes: NDArray[np.int64],
    trusted: NDArray[np.bool_],
    *,
    n_splits: int,
    memory: str | Memory | None,
    n_jobs: int | None,
    seed: int,
    verbose: bool,
) -> NDArray[np.float64]:
    """Return the mean of the detectors' probabilities of rows that they have not seen."""
    believe = (memory if isinstance(memory, Memory) else Memory(memory, verbose=0)).cache(_believe)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # two labels are enough
        folds = list(StratifiedKFold(n_splits, shuffle=True, random_state=seed).split(codes, codes))
    fits = [(detector, *fold) for detector in detectors for fold in folds]
    beliefs = np.zeros((len(codes), codes.max() + 1))
    with progress_bar(len(fits), "fit", verbose) as bar:
        found = Parallel(n_jobs=n_jobs, return_as="generator")(
            delayed(believe)(seeded(detector, seed), X, codes, trusted, seen, unseen)
            for detector, seen, unseen in fits
        )
        for (_, _, unseen), part in zip(fits, found, strict=True):
            beliefs[unseen] += part / len(detectors)
            bar.update()
    return beliefs


def _believe(
    detector: Any,
    X: Any,
    codes: NDArray[np.int64],
    trusted: NDArray[np.bool_],
    seen: NDArray[np.intp],
    unseen: NDArray[np.intp],
) -> NDArray[np.float64]:
    """Fit a detector on some rows, and return its probabilities of all classes for others."""
    with warnings.catch_warnings():  # co-teaching that stays in its warm-up rates all the same
        warnings.filterwarnings("ignore", "The warm-up should end", NoisyFitWarning)
        fit_on(detector, X, codes, seen[codes[seen] >= 0], {"clean_mask": trusted})
    return beliefs_of(detector, take_rows(X, unseen), np.arange(codes.max() + 1))
