"""What an audit found, and what was decided about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from noisyfit import trust
from noisyfit.auditing.labels import Labels, named, read_decisions
from noisyfit.estimator.given import votes_on
from noisyfit.exceptions import warn
from noisyfit.trust import Injected, Trust

if TYPE_CHECKING:
    import pandas as pd

UNTRUSTWORTHY = 0.7  # AUROC of injected labels
SEVERAL = 3  # votes on a row, which tell by themselves who errs how


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
    annotator_quality_ : pandas.Series
        For each annotator the expected share of right votes, after an audit of votes.
    n_trusted_ : int
        Number of rows of ``clean_mask``.
    cautions_ : list of str
        Why not to believe the audit, or parts of it.

    Notes
    -----
    After an audit of votes, the given label of a row is the most frequent vote, and its quality is
    what all votes and the detectors say together. Labels made wrong on purpose (``injected_``,
    ``recall``) are rated by the detectors alone.

    ``decision`` is ``"change"`` where the suggested class is right more often than not by more than
    such estimates have been wrong by, provided that the detectors are right more often than the
    labels, or three or more people voted; never where all who voted know one class only, as rules
    often do; ``"look"`` for the other issues, ``"keep"`` elsewhere,
    ``"none"`` without a quality.
    """

    def __init__(
        self, labels: Labels, names: NDArray[Any], known: Trust, injected: Injected
    ) -> None:
        codes, trusted = labels.codes, labels.trusted
        self.given_labels_, self.classes_ = labels.given, labels.classes[labels.is_rated]
        self.sample_index_, self.injected_ = names, injected
        self.label_distribution_ = known.distribution
        self.transition_matrix_ = known.transition
        self.label_quality_ = trust.label_quality(known.distribution, codes)
        self.n_trusted_ = int(trusted.sum())
        self._labels, self._codes, self._trusted = labels, codes, trusted
        self._known = known
        self._decided: dict[int, int] = {}
        judged = self._judged_quality()
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
        highest = self.injected_.given[np.array(ranks) - 1]
        found = np.searchsorted(self.injected_.quality, highest, side="right")
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
    def annotator_quality_(self) -> pd.Series[float]:
        """How often each annotator is right."""
        import pandas as pd

        votes = self._labels.votes
        if votes is None:
            raise AttributeError(
                "annotator_quality_ needs the votes of several people. Got one label a row. Pass y "
                "of shape (n_samples, n_annotators)."
            )
        return pd.Series(
            trust.right_votes(self.label_distribution_, votes),
            index=pd.Index(self._labels.annotators, name="annotator"),
        )

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
        """Return every row: ``given``, ``suggested``, ``quality`` and ``decision``.

        After an audit of votes also ``n_votes`` and ``disagreeing_annotators``, a list of those who
        did not vote for the suggested class.
        """
        import pandas as pd

        believed = self.label_distribution_.argmax(1)
        frame = pd.DataFrame(
            {
                "given": self.given_labels_,
                "suggested": self.classes_[believed],
                "quality": self.label_quality_,
                "decision": self._decisions(),
            },
            index=self.sample_index_,
        )
        votes, annotators = self._labels.votes, self._labels.annotators
        return frame if votes is None else frame.assign(**votes_on(believed, votes, annotators))

    # ------------------------------------------------------------------------------ decisions

    def decide(self, labels: Mapping[Any, Any]) -> Self:
        """Note the true labels of rows that somebody has looked at.

        Parameters
        ----------
        labels : mapping
            From the name of a row, as in the index of `to_frame`, to its label.
        """
        self._decided |= read_decisions(labels, self.sample_index_, self.classes_)
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
        change = issue & believed & trust.is_sure(self.label_distribution_) & self._may_change()
        decisions = np.where(change, "change", np.where(issue, "look", "keep"))
        return np.where(self._codes < 0, "none", decisions)

    def _may_change(self) -> NDArray[np.bool_]:
        """Return where detectors or votes know enough to change a label."""
        worse, votes = self._detectors_are_worse(), self._labels.votes
        if votes is None:
            return np.full(len(self._codes), not worse)
        counts = (votes >= 0)[:, self._tells_apart()].sum(1)
        enough: NDArray[np.bool_] = counts >= (SEVERAL if worse else 1)
        return enough

    def _tells_apart(self) -> NDArray[np.bool_]:
        """Return which annotators vote for several classes; rules often vote for one only."""
        assert self._labels.votes is not None
        return np.array([len(np.unique(cast[cast >= 0])) > 1 for cast in self._labels.votes.T])

    def _detectors_are_worse(self) -> bool:
        return self._known.accuracy < self._known.labels_right

    def _what_changes(self) -> str:
        if self._may_change().any():
            return f"labels change only where {SEVERAL} or more people voted"
        return "no label is changed"

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
                f"right for {self._known.accuracy:.0%} of the rows, the labels for "
                f"{self._known.labels_right:.0%}. So {self._what_changes()}, and the intervals "
                "reach up to the case that every label they doubt is wrong. Look at the issues."
            )
        if self._labels.votes is not None and not self._tells_apart().all():
            yield (
                "Annotators should vote for more than one class, to show what they mistake for "
                f"what. Got {(~self._tells_apart()).sum()} of {len(self._labels.annotators)} who "
                "do not, such as rules: no label is changed where only they voted."
            )
        flagged = self._is_issue()[(self._codes >= 0) & ~self._trusted].mean()
        if not share.low <= flagged <= share.high:
            yield (
                f"The share of issues should be that of wrong labels. Got {flagged:.1%} and "
                f"{share.low:.1%} to {share.high:.1%}: many labels are unclear, and the threshold "
                "of one half is not where the wrong ones end."
            )
        if self._labels.single:
            yield (
                "Every class should have two labels, one to learn from and one to rate. Got one of "
                f"{named(self._labels.single)}: these labels are not rated. Look at them."
            )
        alike = _alike([*self.classes_.tolist(), *self._labels.single])
        if alike:
            yield (
                "Classes should differ by more than blanks and case. Got "
                f"{' and '.join(map(repr, alike))}, which are audited as different classes. Write "
                "them alike if they are the same."
            )


def _alike(classes: Sequence[Any]) -> list[Any]:
    """Return the first classes that are one but for blanks and case."""
    spelled: dict[str, list[Any]] = {}
    for label in classes:
        spelled.setdefault(" ".join(str(label).split()).casefold(), []).append(label)
    return next((labels for labels in spelled.values() if len(labels) > 1), [])
