"""Which labels are wrong, how many, and how far to believe it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from joblib import Memory
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import normalize
from sklearn.utils import check_random_state, indexable
from sklearn.utils.parallel import Parallel, delayed

from noisyfit.auditing import trust
from noisyfit.auditing.trust import Injected, Trust
from noisyfit.estimator.delegation import beliefs_of, fit_on, seeded
from noisyfit.estimator.labels import as_labels
from noisyfit.exceptions import NoisyFitWarning, warn
from noisyfit.methods.coteaching import CoTeachingClassifier
from noisyfit.utils.progress import progress_bar
from noisyfit.utils.validation import (
    check_clean_mask,
    check_given,
    check_lengths,
    check_probabilities,
    count_rows,
    encode,
    find_classes,
    is_missing,
    present_labels,
    row_names,
    take_rows,
)

if TYPE_CHECKING:
    import pandas as pd

MANY_COLUMNS = 256  # on which trees are slow, and no better
NAMED = 5  # classes in a message
UNTRUSTWORTHY = 0.7  # AUROC of injected labels


def audit(
    X: Any,
    y: Any,
    *,
    detectors: Sequence[Any] | None = None,
    pred_probs: Any = None,
    clean_mask: Any = None,
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
    y : array-like of shape (n_samples,)
        Given labels of any type. The label of a class that has no other is not rated: nothing can
        be learned of its class without it.
    detectors : sequence of classifiers or None, default=None
        Their out-of-fold probabilities are averaged. None is `CoTeachingClassifier` and, on a table
        of at most 256 columns, scikit-learn's ``HistGradientBoostingClassifier``: two classifiers
        that err on different rows.
    pred_probs : array-like of shape (n_samples, n_classes), default=None
        Probabilities of the sorted classes by classifiers that have not seen the row, if you have
        them already, as for cleanlab. Then nothing is fitted, and X may be None.
    clean_mask : array-like of bool of shape (n_samples,), default=None
        Rows whose label is known to be right.
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
    labels, classes, codes = read_labels(y, missing_label, n_splits)
    trusted = check_clean_mask(clean_mask, codes)
    given = None if pred_probs is None else check_probabilities(pred_probs, len(labels), classes)
    kept, codes, single = _set_singles_aside(classes, codes)
    trusted = trusted & (codes >= 0)
    seed = check_random_state(random_state).randint(2**31 - 1)
    if given is None:
        check_lengths(count_rows(X), len(labels))
        (rows,) = indexable(X)
        beliefs = _beliefs(
            _default_detectors(rows) if detectors is None else detectors,
            rows, codes, trusted, n_splits=n_splits, memory=memory, n_jobs=n_jobs, seed=seed,
            verbose=verbose,
        )  # fmt: skip
    else:
        beliefs = normalize(given[:, np.isin(classes, kept)], "l1")
    known = trust.weigh(beliefs, codes, trusted)
    injected = trust.inject(known, codes, np.random.default_rng(seed))
    names = row_names(X, y, len(labels))
    return Audit(labels, kept, codes, trusted, names, known, injected, single)


def read_labels(
    y: Any, missing_label: Any, n_splits: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
    """Return labels, classes and codes, -1 for no label; refuse those that cannot be audited."""
    check_given(y, "audit")
    labels = as_labels(y)
    missing = is_missing(labels, missing_label)
    classes = find_classes(present_labels(labels, missing))
    codes = encode(labels, classes, missing, "y")
    _check_counts(classes, codes, n_splits)
    return labels, classes, codes


class Audit:
    """What `audit` found.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Those of two labels or more.
    given_labels_ : ndarray of shape (n_samples,)
    label_quality_ : ndarray of shape (n_samples,)
        Probability that the label is right; 1 for trusted rows, NaN without a label, or where it is
        the only one of its class.
    label_distribution_ : ndarray of shape (n_samples, n_classes)
        Probabilities of the true classes, given the label too.
    transition_matrix_ : ndarray of shape (n_classes, n_classes)
        True classes in rows, given classes in columns; rows sum to 1.
    wrong_share_ : Estimate
        Share of the labels that are wrong: ``value``, ``low`` and ``high`` of a 90 % interval.
    expected_precision_ : pandas.DataFrame
        By ``rank``: the expected share of wrong labels among so many rows of lowest quality
        (``precision``, ``low``, ``high``), and the share of labels made wrong on purpose that
        would be among them (``recall``).
    by_class_ : pandas.DataFrame
        For each given class: ``n_labels``, ``wrong_share``, ``n_issues``.
    injected_ : Injected
        What became of labels that were made wrong on purpose.
    issues_ : pandas.DataFrame
        Labels that are more probably wrong than right, most suspicious first: ``rank``, ``given``,
        ``suggested``, ``quality``, ``decision``.
    corrected_labels_ : ndarray of shape (n_samples,)
        Given labels, changed where the decision is to change.
    n_trusted_ : int
        Number of rows of ``clean_mask``.
    cautions_ : list of str
        Why not to believe the audit, or parts of it.

    Notes
    -----
    ``decision`` is ``"change"`` where the suggested class is right more often than not by more than
    such estimates have been wrong by, provided that the detectors are right more often than the
    labels; ``"look"`` for the other issues, ``"keep"`` elsewhere, ``"none"`` without a quality.
    """

    def __init__(
        self,
        labels: NDArray[Any],
        classes: NDArray[Any],
        codes: NDArray[np.int64],
        trusted: NDArray[np.bool_],
        names: NDArray[Any],
        known: Trust,
        injected: Injected,
        single: Sequence[Any],
    ) -> None:
        self.given_labels_, self.classes_ = labels, classes
        self.sample_index_, self.injected_ = names, injected
        self.label_distribution_ = known.distribution
        self.transition_matrix_ = known.transition
        self.label_quality_ = trust.label_quality(known, codes)
        self.n_trusted_ = int(trusted.sum())
        self._codes, self._trusted, self._accuracy = codes, trusted, known.accuracy
        self._single = single
        self._decided: dict[int, int] = {}
        judged = self.label_quality_[(codes >= 0) & ~trusted]
        if not len(judged):
            raise ValueError("clean_mask must leave labels to audit. Got none. Leave it away.")
        self.wrong_share_ = trust.wrong_share(judged)
        self._may_be_wrong: NDArray[np.bool_] | bool = False
        if self._detectors_are_worse():
            self._may_be_wrong = trust.doubted(known, codes)[(codes >= 0) & ~trusted]
            self.wrong_share_ = trust.wrong_share(judged, self._may_be_wrong)
        self.cautions_ = list(self._cautions())
        if self.injected_.auroc < UNTRUSTWORTHY:
            warn(self.cautions_[0])

    def __repr__(self) -> str:
        share = self.wrong_share_
        return (
            f"Audit of {len(self._codes)} rows: {share.value:.1%} of the labels are wrong "
            f"({share.low:.1%} to {share.high:.1%}), {len(self.issues_)} issues"
        )

    # ------------------------------------------------------------------------------- findings

    @property
    def expected_precision_(self) -> pd.DataFrame:
        """How often the first issues are right; see the attributes."""
        import pandas as pd

        quality = self._judged_quality()
        ranks = [rank for rank in trust.RANKS if rank < len(quality)] + [len(quality)]
        rows = [trust.precision_at(quality, rank, self._may_be_wrong) for rank in ranks]
        found = np.searchsorted(
            self.injected_.quality, np.sort(quality)[np.array(ranks) - 1], side="right"
        )
        frame = pd.DataFrame(rows, columns=["precision", "low", "high"])
        frame["recall"] = found / len(self.injected_.quality)
        return frame.set_axis(pd.Index(ranks, name="rank"))

    @property
    def by_class_(self) -> pd.DataFrame:
        """What is wrong with the labels of each class."""
        import pandas as pd

        kept = self._codes >= 0
        frame = pd.DataFrame(
            {
                "code": self._codes[kept],
                "quality": self.label_quality_[kept],
                "is_issue": self._is_issue()[kept],
            }
        )
        groups = frame.groupby("code")
        return pd.DataFrame(
            {
                "n_labels": groups.size(),
                "wrong_share": 1 - groups["quality"].mean(),
                "n_issues": groups["is_issue"].sum(),
            }
        ).set_axis(pd.Index(self.classes_, name="class"))

    @property
    def issues_(self) -> pd.DataFrame:
        """The labels that are more probably wrong than right."""
        frame = self.to_frame()
        frame = frame[self._is_issue()].sort_values("quality", kind="stable")
        frame.insert(0, "rank", np.arange(1, len(frame) + 1))
        return frame

    @property
    def corrected_labels_(self) -> NDArray[Any]:
        """The labels after the audit's own decisions and those of `decide`."""
        return self.apply()

    def to_frame(self) -> pd.DataFrame:
        """Return every row: ``given``, ``suggested``, ``quality`` and ``decision``."""
        import pandas as pd

        return pd.DataFrame(
            {
                "given": self.given_labels_,
                "suggested": self.classes_[self.label_distribution_.argmax(1)],
                "quality": self.label_quality_,
                "decision": self._decisions(),
            },
            index=self.sample_index_,
        )

    # ------------------------------------------------------------------------------ decisions

    def decide(self, labels: Mapping[Any, Any]) -> Self:
        """Note the true labels of rows that somebody has looked at.

        Parameters
        ----------
        labels : mapping
            From the name of a row, as in the index of `to_frame`, to its label.
        """
        places = {name: row for row, name in enumerate(self.sample_index_.tolist())}
        known = {label: code for code, label in enumerate(self.classes_.tolist())}
        if len(places) < len(self.sample_index_):
            raise ValueError(
                "Rows must have different names for decisions about them. Got an index with "
                f"{len(self.sample_index_) - len(places)} repetitions. Reset the index of X."
            )
        unknown = [name for name in labels if name not in places]
        if unknown:
            raise ValueError(f"Rows must be in the audit. Got {unknown[:5]}, which are not.")
        strange = [label for label in labels.values() if label not in known]
        if strange:
            raise ValueError(
                f"Labels must be among {self.classes_[:10].tolist()}. Got {strange[:5]}."
            )
        self._decided |= {places[name]: known[label] for name, label in labels.items()}
        return self

    def apply(self, only: str = "confident") -> NDArray[Any]:
        """Return the labels after all decisions.

        Parameters
        ----------
        only : {"confident", "decided"}, default="confident"
            ``"decided"`` changes what was passed to `decide` and nothing else; ``"confident"`` also
            what the audit decides to change. Rows without a label that nobody decided stay so.
        """
        if only not in ("confident", "decided"):
            raise ValueError(f"only must be 'confident' or 'decided'. Got {only!r}.")
        labels = self.given_labels_.copy()
        if only == "confident":
            changed = self._decisions() == "change"
            labels[changed] = self.classes_[self.label_distribution_[changed].argmax(1)]
        for row, code in self._decided.items():
            labels[row] = self.classes_[code]
        return labels

    # ------------------------------------------------------------------------------- helpers

    def _judged_quality(self) -> NDArray[np.float64]:
        return self.label_quality_[(self._codes >= 0) & ~self._trusted]

    def _is_issue(self) -> NDArray[np.bool_]:
        return self.label_quality_ < 0.5

    def _decisions(self) -> NDArray[Any]:
        issue = self._is_issue()
        believed = self.label_distribution_.argmax(1) != self._codes
        change = issue & believed & trust.is_sure(self.label_distribution_)
        if self._detectors_are_worse():
            change[:] = False
        decisions = np.where(change, "change", np.where(issue, "look", "keep"))
        return np.where(self._codes < 0, "none", decisions)

    def _detectors_are_worse(self) -> bool:
        return self._accuracy < 1 - self.wrong_share_.value

    def _cautions(self) -> Any:
        auroc, share = self.injected_.auroc, self.wrong_share_
        if auroc < UNTRUSTWORTHY:
            yield (
                "Labels made wrong on purpose should be rated low. Got an AUROC of "
                f"{auroc:.2f} (0.5 is chance): on this data the audit cannot be trusted. Pass "
                "other detectors or better features."
            )
        if self._detectors_are_worse():
            yield (
                "Detectors should be right more often than the labels. They are expected to be "
                f"right for {self._accuracy:.0%} of the rows, the labels for "
                f"{1 - share.value:.0%}. So no label is changed, and the intervals reach up to the "
                "case that every label they doubt is wrong. Look at the issues."
            )
        flagged = self._is_issue()[(self._codes >= 0) & ~self._trusted].mean()
        if not share.low <= flagged <= share.high:
            yield (
                f"The share of issues should be that of wrong labels. Got {flagged:.1%} and "
                f"{share.low:.1%} to {share.high:.1%}: many labels are unclear, and the threshold "
                "of one half is not where the wrong ones end."
            )
        if self._single:
            yield (
                "Every class should have two labels, one to learn from and one to rate. Got one of "
                f"{_named(self._single)}: these labels are not rated. Look at them."
            )
        alike = _alike([*self.classes_.tolist(), *self._single])
        if alike:
            yield (
                "Classes should differ by more than blanks and case. Got "
                f"{' and '.join(map(repr, alike))}, which are audited as different classes. Write "
                "them alike if they are the same."
            )


def _check_counts(classes: NDArray[Any], codes: NDArray[np.int64], n_splits: int) -> None:
    if len(classes) < 2:
        raise ValueError(
            f"y must have at least two classes. Got {classes.tolist()} only. Add rows of another, "
            "or choose other labels."
        )
    counts = np.bincount(codes[codes >= 0], minlength=len(classes))
    if (counts > 1).sum() < 2:
        raise ValueError(
            "Two classes must have two labels or more, one to learn from and one to rate. Got one "
            f"label of {_named(classes[counts < 2].tolist())}. Add rows, or merge classes."
        )
    if not 2 <= n_splits <= counts.max():
        raise ValueError(
            f"There must be at least 2 folds (n_splits), and at most {counts.max()}, the number of "
            f"labels of the largest class. Got {n_splits}. Choose another number."
        )


def _set_singles_aside(
    classes: NDArray[Any], codes: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[np.int64], list[Any]]:
    """Return classes of two labels or more, the codes of these, and the other classes."""
    counts = np.bincount(codes[codes >= 0], minlength=len(classes))
    kept = counts > 1
    renumbered = np.append(np.where(kept, kept.cumsum() - 1, -1), -1)  # code -1 is the last
    return classes[kept], renumbered[codes], classes[~kept].tolist()


def _named(classes: Sequence[Any]) -> str:
    return ", ".join(map(repr, classes[:NAMED])) + (", ..." if len(classes) > NAMED else "")


def _alike(classes: Sequence[Any]) -> list[Any]:
    """Return the first classes that are one but for blanks and case."""
    spelled: dict[str, list[Any]] = {}
    for label in classes:
        spelled.setdefault(" ".join(str(label).split()).casefold(), []).append(label)
    return next((labels for labels in spelled.values() if len(labels) > 1), [])


def boosted_trees() -> HistGradientBoostingClassifier:
    """Return the second of the default detectors; early stopping refuses rare classes."""
    return HistGradientBoostingClassifier(early_stopping=False)


def _default_detectors(X: Any) -> list[Any]:
    n_columns = X.shape[1] if getattr(X, "ndim", 0) == 2 and not issparse(X) else inf
    trees = [boosted_trees()] if n_columns <= MANY_COLUMNS else []
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
