"""How votes become labels to learn from, and what is known in the end about who cast them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from noisyfit.data.training import TrainingData
from noisyfit.estimator.given import with_gaps
from noisyfit.estimator.pilot import PILOT_MINIMUM, pilot_of
from noisyfit.exceptions import warn
from noisyfit.nn.annotators import Votes, agree, confusion_matrices, right_votes, vote_counts

AGGREGATIONS = {"dawid_skene": "DawidSkene", "glad": "GLAD", "mace": "MACE"}  # of crowd-kit
OF_VOTES = ("consensus_", "annotators_", "votes_", "annotator_quality_", "annotator_confusion_")


class Annotators:
    """Turns the votes of several people into a distribution for each row, before a method begins.

    At first all votes count alike, or as ``annotator_aggregation`` says. Networks trained on that
    for one half of the rows predict the other half (`noisyfit.estimator.pilot`). Votes and
    predictions together say how often each annotator is right and how probable each true class is,
    in turns (`noisyfit.nn.annotators`).

    A method learns these probabilities as soft labels, and on a row with n votes the votes as they
    are to one part in n: a single vote is a label like any other, and whether it is right is for
    the method to find out.
    """

    annotator_aggregation: str
    missing_label: Any
    classes_: NDArray[Any]
    given_labels_: NDArray[Any]
    annotator_quality_: NDArray[Any]
    annotator_confusion_: NDArray[Any]
    consensus_: NDArray[Any]
    state_: Any
    _run: Any

    def _whole_state(self, n: int, n_classes: int) -> dict[str, Tensor]:
        state: dict[str, Tensor] = super()._whole_state(n, n_classes)  # type: ignore[misc]
        run = vars(self).get("_run")  # none if the networks are made outside of a fit
        if run is None or run.data.votes is None:
            return state
        n_annotators = run.data.votes.shape[1]
        return state | {
            "consensus": torch.zeros(n, n_classes),
            "annotator_quality": torch.zeros(n_annotators),
            "annotator_confusion": torch.zeros(n_annotators, n_classes, n_classes),
        }

    def _weigh_votes(self, data: TrainingData) -> None:
        """Find out what votes and predictions say together."""
        assert data.votes is not None
        votes = Votes.of(data.votes, data.n_classes)
        data.given = self._start(data, votes)
        beliefs = torch.full_like(data.given, 1 / data.n_classes)
        if data.has_label.sum() >= PILOT_MINIMUM:
            beliefs = pilot_of(self, data).beliefs
        else:
            warn(
                f"Votes are best weighed on {PILOT_MINIMUM} rows or more. Got "
                f"{int(data.has_label.sum())}: what networks predict for rows does not count."
            )
        beliefs = torch.where(data.trusted[:, None], data.given, beliefs)
        joint = agree(beliefs, votes, data.given)
        joint = torch.where(data.trusted[:, None], data.given, joint)
        as_they_are = 1 / vote_counts(votes).clamp(min=1)[:, None]
        learned = torch.lerp(joint, data.given, as_they_are) * data.has_label[:, None]
        self.state_.consensus.copy_(learned)
        self.state_.annotator_quality.copy_(right_votes(joint, votes))
        self.state_.annotator_confusion.copy_(confusion_matrices(beliefs, votes, joint))

    def _learn_consensus(self, data: TrainingData, everything: TrainingData) -> None:
        """Replace the labels of the training rows by what votes and predictions say together."""
        data.given = self.state_.consensus
        data.labels[data.has_label] = data.given.argmax(1)[data.has_label]
        if data.index is not None:
            everything.labels[data.index] = data.labels

    def _start(self, data: TrainingData, votes: Votes) -> Tensor:
        """Return the beliefs to start from, (n_samples, n_classes); trusted rows are certain."""
        known = data.distributions()
        if self.annotator_aggregation == "majority":
            return known
        found = torch.as_tensor(aggregated(self.annotator_aggregation, votes)).to(known)
        return torch.where((data.trusted | ~data.has_label)[:, None], known, found)

    def _rate_annotators(self, everything: TrainingData) -> None:
        """Write what the votes were taken for, and what that says about those who cast them."""
        codes = everything.labels.cpu().numpy()
        self.consensus_ = with_gaps(self.classes_, codes, self.missing_label)
        self.given_labels_ = self.consensus_
        self.annotator_quality_ = self.state_.annotator_quality.cpu().numpy()
        self.annotator_confusion_ = self.state_.annotator_confusion.cpu().numpy()


def aggregated(name: str, votes: Votes) -> NDArray[np.float64]:
    """Return the probabilities of the classes that a method of crowd-kit finds.

    Parameters
    ----------
    name : str
        A key of `AGGREGATIONS`.
    votes : Votes

    Raises
    ------
    ImportError
        If crowd-kit is not installed.
    """
    import pandas as pd

    try:
        from crowdkit import aggregation
    except ImportError as error:
        raise ImportError(
            f"annotator_aggregation={name!r} needs crowd-kit. Run: pip install 'noisyfit[crowd]'. "
            "annotator_aggregation='majority' needs nothing."
        ) from error
    columns = {
        "task": votes.rows.cpu().numpy(),
        "worker": votes.annotators.cpu().numpy(),
        "label": votes.labels.cpu().numpy(),
    }
    n, _, n_classes = votes.shape
    found = getattr(aggregation, AGGREGATIONS[name])().fit_predict_proba(pd.DataFrame(columns))
    probs: NDArray[np.float64] = (
        found.reindex(index=range(n), columns=range(n_classes)).fillna(0).to_numpy(np.float64)
    )
    return probs
