"""Clean the labels of a table with one classifier, and learn from them with another."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from numbers import Integral
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from cleanlab.count import get_confident_thresholds
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.model_selection import StratifiedKFold, check_cv
from sklearn.utils import check_random_state, get_tags, indexable
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted

from noisyfit import quality
from noisyfit.estimator.bases import BaseEstimator
from noisyfit.estimator.delegation import (
    DelegatingClassifier,
    beliefs_of,
    boosted_trees,
    fit_argument,
    fit_on,
    seeded,
)
from noisyfit.estimator.fitted import all_or_nothing
from noisyfit.estimator.labels import LabelProtocol, as_labels
from noisyfit.estimator.persistence.savable import Savable
from noisyfit.exceptions import warn
from noisyfit.methods.cross_entropy import CrossEntropyClassifier
from noisyfit.utils.parameters import HasMethods, Interval, StrOptions
from noisyfit.utils.validation import (
    check_lengths,
    check_sample_weight,
    count_rows,
    take_rows,
)

Fold = tuple[NDArray[np.intp], NDArray[np.intp]]


class Training(NamedTuple):
    """Labels that were read: as codes, which are trusted, and how much each row counts."""

    codes: NDArray[np.int64]
    trusted: NDArray[np.bool_]
    weights: NDArray[np.float64] | None

    @property
    def has_label(self) -> NDArray[np.bool_]:
        """Return which rows have a label."""
        return self.codes >= 0

    @property
    def is_judged(self) -> NDArray[np.bool_]:
        """Return which labels may be wrong."""
        return self.has_label & ~self.trusted


class LabelCleaner(LabelProtocol, DelegatingClassifier, Savable, BaseEstimator):
    """Find the wrong labels with one classifier, then train any other on what is left.

    A network that learns from wrong labels is good at telling which they are; on a table, gradient
    boosting is often better at everything else, but learns the wrong labels by heart. So the
    *detector* rates the labels, and the *estimator*, which may be any classifier of scikit-learn's
    interface, learns from the cleaned ones and predicts.

    Every belief is out of fold: the rows are divided into folds, with the same share of each class,
    and the labels of a fold are rated by a detector that was fitted on the other folds. Confident
    learning [1]_ (`noisyfit.quality.find_label_issues`) then estimates how many labels of each
    class should be which other one. That many labels are *issues*, those whose other class leads
    by most.

    Parameters
    ----------
    detector : classifier with ``predict_proba`` or None, default=None
        Cloned and fitted once per fold. None is `CrossEntropyClassifier`. A classifier without
        ``score_labels``, such as a pipeline, rates a label by its predicted probability.
    estimator : classifier or None, default=None
        Cloned and fitted once, on the cleaned labels. None is scikit-learn's
        ``HistGradientBoostingClassifier``, without early stopping. It gets the rows of X in the
        container that X is.
    how : {"drop", "correct", "weight", "abstain"}, default="drop"
        What becomes of a label z of quality q, where p are the probabilities in
        ``label_distribution_`` and ``k = argmax p`` is the believed class:

        - ``"drop"``: the row is left out if the label is an issue.
        - ``"correct"``: the label becomes k if it is an issue.
        - ``"weight"``: the label stays, and the row counts q times (``sample_weight``).
        - ``"abstain"``: if the label is an issue, it becomes k where that is sure,
          ``p[k] >= max(t[k], 1/2)``, and the row is left out elsewhere. The threshold t[k] is the
          mean of p[k] over the rows labelled k, that of confident learning.
    cv : int >= 2, splitter or list of (train, test), default=5
        Number of folds, or what makes them: every row must be in exactly one test part.
    n_jobs : int or None, default=None
        Number of folds at once, as in scikit-learn.
    missing_label : scalar or None, default=None
        Marks rows without a label, for example -1 or "". NaN marks None, NaN, NaT and pandas' NA.
        Such rows get a belief, but nothing learns from them.
    random_state : int, RandomState instance or None, default=None
        Divides the rows, and is passed to detector and estimator, and to what is in them, where
        they have none of their own.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    estimator_ : classifier
        Fitted on the rows in ``support_``.
    detectors_ : list of classifiers
        One per fold.
    support_ : ndarray of bool of shape (n_samples,)
        Rows that the estimator has learned from.
    is_label_issue_ : ndarray of bool of shape (n_samples,)
        Labels that are taken for wrong; never those of trusted rows.
    label_quality_ : ndarray of shape (n_samples,)
        In [0, 1], out of fold; 1 for trusted rows, NaN without a label. Low means suspicious.
    label_distribution_ : ndarray of shape (n_samples, n_classes)
        Probabilities of the classes, out of fold; 1 for the label of a trusted row.
    corrected_labels_ : ndarray of shape (n_samples,)
        The believed class of issues (with ``how="abstain"`` only of those that are sure) and of
        rows without a label; elsewhere the given label.
    transition_matrix_ : ndarray of shape (n_classes, n_classes)
    given_labels_ : ndarray of shape (n_samples,)

    Notes
    -----
    Cost: the detector as often as there are folds, on all rows but those of one, then the
    estimator.

    References
    ----------
    .. [1] Northcutt, Jiang, Chuang. Confident learning: estimating uncertainty in dataset labels.
       JAIR, 2021. arXiv:1911.00068.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from noisyfit import LabelCleaner, noise
    >>> X, y = load_iris(return_X_y=True)
    >>> noisy = noise.symmetric(y, 0.3, random_state=0)
    >>> cleaner = LabelCleaner(estimator=RandomForestClassifier(), random_state=0)
    >>> bool(cleaner.fit(X, noisy.labels).score(X, y) > 0.85)
    True
    """

    __metadata_request__fit: ClassVar = {"clean_mask": True}
    _made_of: ClassVar[Mapping[str, str]] = {"estimator_": "estimator"}
    _needed: ClassVar[tuple[str, ...]] = ("classes_", "detectors_", "estimator_", "n_features_in_")
    _module_parameter: ClassVar = "estimator__module"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "how": [StrOptions({"drop", "correct", "weight", "abstain"})],
        "cv": [Interval(Integral, 2, None, closed="left"), HasMethods("split"), list],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        detector: Any = None,
        estimator: Any = None,
        *,
        how: str = "drop",
        cv: Any = 5,
        n_jobs: int | None = None,
        missing_label: Any = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.detector = detector
        self.estimator = estimator
        self.how = how
        self.cv = cv
        self.n_jobs = n_jobs
        self.missing_label = missing_label
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        parts = [get_tags(part) for part in (self._chosen_detector(), self._chosen_estimator())]
        for what in ("sparse", "allow_nan", "categorical", "string", "three_d_array"):
            setattr(tags.input_tags, what, all(getattr(p.input_tags, what) for p in parts))
        return tags

    def _default_estimator(self) -> Any:
        return boosted_trees()

    def _chosen_detector(self) -> Any:
        return CrossEntropyClassifier() if self.detector is None else self.detector

    # ------------------------------------------------------------------------------- fit

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, clean_mask: Any = None) -> Self:
        """Rate the labels out of fold, clean them and fit the estimator.

        Parameters
        ----------
        X : array-like, sparse matrix or data frame
            Rows as detector and estimator take them. They are divided, but not converted.
        y : array-like of shape (n_samples,)
            Given labels of any type.
        sample_weight : array-like of shape (n_samples,), default=None
            How much each row counts, for the estimator and, if it takes weights, the detector.
        clean_mask : array-like of bool of shape (n_samples,), default=None
            Rows whose label is known to be right. They are kept as they are, and a detector that
            takes a ``clean_mask`` is told.

        Raises
        ------
        ValueError
            If a parameter, a classifier or the data cannot be used, or if a class has no row left
            to learn from. After any interruption, the estimator is left unchanged.
        """
        with all_or_nothing(self):
            self._check_parameters()
            weight_argument = self._weight_argument(sample_weight)
            (X,) = indexable(X)
            data = self._read_training(X, y, sample_weight, clean_mask)
            seed = check_random_state(self.random_state).randint(2**31 - 1)
            self._rate_out_of_fold(X, data, seed)
            codes, weights = self._cleaned(data)
            self.support_ = weights > 0
            self._check_kept(codes[self.support_])
            rows, given = np.flatnonzero(self.support_), {}
            if weight_argument:
                given[weight_argument] = weights[rows]
            self.estimator_ = seeded(self._chosen_estimator(), seed)
            self.estimator_.fit(take_rows(X, rows), self.classes_[codes[rows]], **given)
            self._write_features()
        return self

    def _check_parameters(self) -> None:
        super()._check_parameters()
        detector, estimator = self._chosen_detector(), self._chosen_estimator()
        if not (_is_classifier(detector) and hasattr(detector, "predict_proba")):
            raise ValueError(
                "detector must be a classifier with predict_proba. Got "
                f"{detector!r}. Pass CrossEntropyClassifier(), for example."
            )
        if not _is_classifier(estimator):
            raise ValueError(
                f"estimator must be a classifier. Got {estimator!r}. Pass "
                "HistGradientBoostingClassifier(), for example."
            )

    def _weight_argument(self, sample_weight: Any) -> str | None:
        """Return what the estimator's fit calls weights, None if it gets none."""
        if self.how != "weight" and sample_weight is None:
            return None
        estimator = self._chosen_estimator()
        name = fit_argument(estimator, "sample_weight")
        if name is None:
            what, otherwise = "sample_weight", "leave the weights away"
            if self.how == "weight":
                what, otherwise = "how='weight'", "choose how='drop'"
            raise ValueError(
                f"{what} needs an estimator whose fit takes sample_weight. Got "
                f"{type(estimator).__name__}. Pass HistGradientBoostingClassifier(), for example, "
                f"or {otherwise}."
            )
        return name

    def _read_training(self, X: Any, y: Any, sample_weight: Any, clean_mask: Any) -> Training:
        codes, trusted = self._read_training_labels(X, y, clean_mask)
        return Training(codes, trusted, check_sample_weight(sample_weight, len(codes)))

    def _rate_out_of_fold(self, X: Any, data: Training, seed: int) -> None:
        """Fit the detectors, and write what they believe of the rows that they have not seen."""
        folds = self._folds(X, data, seed)
        detector, labels = self._chosen_detector(), self.classes_[data.codes]
        known = {"sample_weight": data.weights, "clean_mask": data.trusted}
        self.detectors_ = Parallel(n_jobs=self.n_jobs)(
            delayed(fit_on)(seeded(detector, seed), X, labels, rows, known) for rows, _ in folds
        )
        rating = np.full(len(labels), np.nan)
        belief = np.zeros((len(labels), len(self.classes_)))
        for fitted, (_, rows) in zip(self.detectors_, folds, strict=True):
            belief[rows] = beliefs_of(fitted, take_rows(X, rows), self.classes_)
            judged = rows[data.is_judged[rows]]
            rating[judged] = self._rating(fitted, take_rows(X, judged), labels[judged])
        self._warn_of_lost_classes(data.codes[data.is_judged], belief)
        self.is_label_issue_ = quality.find_label_issues(data.codes, belief) & data.is_judged
        rating[data.trusted] = 1.0
        belief[data.trusted] = np.eye(len(self.classes_))[data.codes[data.trusted]]
        self._write_beliefs(data.codes, rating, belief)

    def _folds(self, X: Any, data: Training, seed: int) -> list[Fold]:
        """Divide the rows into those to fit on, which have a label, and those to rate."""
        codes, cv = data.codes, self.cv
        if isinstance(cv, Integral):
            most = int(np.bincount(codes + 1).max())
            if most < int(cv):
                raise ValueError(
                    "cv must be at most the number of rows of the largest class. Got "
                    f"cv={cv} and {most} of {len(codes)} rows (n_samples={len(codes)}). Lower cv."
                )
            cv = StratifiedKFold(cv, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The least populated class")  # checked just below
            splits = list(check_cv(cv).split(X, codes))
        folds = [(train[codes[train] >= 0], test) for train, test in splits]
        _check_partition([test for _, test in folds], len(codes))
        for train, test in folds:
            judged = test[data.is_judged[test]]
            unknown = self.classes_[np.setdiff1d(codes[judged], codes[train])].tolist()
            if unknown:
                raise ValueError(
                    "Every class must have a labelled row outside each fold, so that the detector "
                    f"knows it. Got none for {unknown[:5]}. Leave the class out, mark its rows in "
                    "clean_mask if they are right, or pass other folds (cv)."
                )
        return folds

    def _warn_of_lost_classes(self, judged: NDArray[np.int64], belief: NDArray[np.float64]) -> None:
        lost = np.setdiff1d(judged, belief.argmax(1))
        if len(lost):
            warn(
                "Every class should be believed for some row. Got none for "
                f"{self.classes_[lost[:5]].tolist()}: almost all their labels may be taken for "
                "wrong. Mark rows that are right (clean_mask), pass another detector, or "
                "how='weight'."
            )

    def _cleaned(self, data: Training) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return what the estimator learns: codes, and weights that are 0 for rows left out."""
        codes, issue, belief = data.codes, self.is_label_issue_, self.label_distribution_
        changed = issue & _is_sure(codes, belief) if self.how == "abstain" else issue
        believed = np.where(changed | ~data.has_label, belief.argmax(1), codes)
        self.corrected_labels_ = self.classes_[believed]
        weights = np.where(data.has_label, 1.0 if data.weights is None else data.weights, 0.0)
        if self.how == "weight":
            return codes, weights * np.nan_to_num(self.label_quality_)
        if self.how == "drop":
            return codes, weights * ~issue
        return believed, weights * ~(issue & ~changed)

    def _check_kept(self, codes: NDArray[np.int64]) -> None:
        lost = self.classes_[np.setdiff1d(np.arange(len(self.classes_)), codes)].tolist()
        if lost:
            raise ValueError(
                f"Every class must keep a row to learn from. Got none for {lost[:5]} by "
                f"how={self.how!r}. Pass another detector, or a clean_mask of rows that are right."
            )

    def _write_features(self) -> None:
        """Say of the rows what the classifiers say of them."""
        for part in (self.detectors_[0], self.estimator_):
            for name in ("n_features_in_", "feature_names_in_"):
                if hasattr(part, name):
                    setattr(self, name, getattr(part, name))

    # ------------------------------------------------------------------------------- ratings

    def label_issues(self) -> Any:
        """Return which training labels look wrong, and what they should be.

        Returns
        -------
        pandas.DataFrame
            One row per row of X, with the columns ``is_label_issue``, ``label_quality``,
            ``given_label`` and ``predicted_label``. It has the index of X, else that of y.
        """
        return super().label_issues().assign(is_label_issue=self.is_label_issue_)

    def score_labels(self, X: Any, y: Any) -> NDArray[np.float64]:
        """Rate the labels of new rows.

        Parameters
        ----------
        X : array-like, sparse matrix or data frame
            Rows like those of `fit`.
        y : array-like of shape (n_samples,)
            Their given labels.

        Returns
        -------
        ndarray of shape (n_samples,)
            The mean of the detectors' ratings. In [0, 1]; low means suspicious, NaN means that
            there is no label.
        """
        check_is_fitted(self)
        (X,), y = indexable(X), as_labels(y)
        check_lengths(count_rows(X), len(y))
        codes = self._encoded(y)
        rows = np.flatnonzero(codes >= 0)
        X, labels = take_rows(X, rows), self.classes_[codes[rows]]
        rating = np.full(len(y), np.nan)
        rating[rows] = np.mean([self._rating(d, X, labels) for d in self.detectors_], axis=0)
        return rating

    def _rating(self, detector: Any, X: Any, labels: NDArray[Any]) -> NDArray[np.float64]:
        if not len(labels):
            return np.empty(0)
        if hasattr(detector, "score_labels"):
            return detector.score_labels(X, labels)
        codes = np.searchsorted(self.classes_, labels)
        return quality.self_confidence(codes, beliefs_of(detector, X, self.classes_))


def _is_classifier(part: Any) -> bool:
    return hasattr(part, "__sklearn_tags__") and not isinstance(part, type) and is_classifier(part)


def _check_partition(tests: list[NDArray[np.intp]], n: int) -> None:
    tested = np.sort(np.concatenate(tests))
    if not np.array_equal(tested, np.arange(n)):
        raise ValueError(
            "cv must put each row into exactly one test part. Got "
            f"{len(np.unique(tested))} of {n} rows in {len(tested)} places. Pass a number, or a "
            "splitter such as StratifiedKFold."
        )


def _is_sure(codes: NDArray[np.int64], belief: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return where the believed class is at least as likely as where it is given, and than not."""
    labelled = codes >= 0
    thresholds = np.maximum(get_confident_thresholds(codes[labelled], belief[labelled]), 0.5)
    believed = belief.argmax(1)
    return belief.max(1) >= thresholds[believed]
