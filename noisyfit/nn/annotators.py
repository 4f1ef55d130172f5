"""What several annotators and a network say together about the class of a row.

Every annotator has a confusion matrix: the probabilities of his votes, given the true class. A
network that has not seen a row says which classes are probable before anybody votes. Bayes' rule
joins the two, and the joined beliefs give better confusion matrices, in turns ([1]_, which extends
[2]_ by a classifier). An annotator with few votes is taken to be like the others: the matrix of
all, with his own share of right votes, counts as much as a few of his votes.

References
----------
.. [1] Raykar, Yu, Zhao, Valadez, Florin, Bogoni and Moy. Learning From Crowds. JMLR, 2010.
.. [2] Dawid and Skene. Maximum Likelihood Estimation of Observer Error-Rates Using the EM
   Algorithm. Applied Statistics, 1979.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Votes", "agree", "confusion_matrices", "right_votes", "vote_shares"]

N_STEPS = 20
PRIOR_VOTES = 10.0  # for each true class
PRIOR_RIGHT = 5.0  # votes, with the share of right ones among all
SMALLEST = 1e-3  # probability that a network may give to a class
EXTREMES = 0.02, 0.98  # probability of a right vote


class Votes(NamedTuple):
    """The votes that were cast, one after the other.

    Attributes
    ----------
    rows, annotators, labels : int64 tensors of shape (n_votes,)
    shape : tuple of int
        Numbers of rows, annotators and classes.
    """

    rows: Tensor
    annotators: Tensor
    labels: Tensor
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, codes: Tensor, n_classes: int) -> Votes:
        """Read a table (n_samples, n_annotators) of codes, -1 where there is no vote."""
        rows, annotators = (codes >= 0).nonzero(as_tuple=True)
        return cls(rows, annotators, codes[rows, annotators], (*codes.shape, n_classes))


def vote_shares(votes: Votes) -> Tensor:
    """Return the share of each class among the votes on a row, (n_samples, n_classes).

    A row without a vote has zeros.
    """
    n, _, n_classes = votes.shape
    counts = torch.zeros(n, n_classes, device=votes.rows.device)
    counts.index_put_((votes.rows, votes.labels), counts.new_ones(()), accumulate=True)
    return F.normalize(counts, p=1, dim=1)


def agree(beliefs: Tensor, votes: Votes, start: Tensor) -> Tensor:
    """Return the probabilities of the true classes, given predictions and votes.

    Parameters
    ----------
    beliefs : Tensor of shape (n_samples, n_classes)
        Predictions of networks that have not seen the rows.
    votes : Votes
    start : Tensor of shape (n_samples, n_classes)
        Beliefs to start from, such as `vote_shares`.

    Returns
    -------
    Tensor of shape (n_samples, n_classes)
    """
    prior = beliefs.clamp(min=SMALLEST).log()
    joint = start
    for _ in range(N_STEPS):
        said = confusion_matrices(joint, votes).log()[votes.annotators, :, votes.labels]
        joint = prior.index_add(0, votes.rows, said).softmax(1)
    return joint


def confusion_matrices(beliefs: Tensor, votes: Votes) -> Tensor:
    """Return the confusion matrix of each annotator, (n_annotators, n_classes, n_classes).

    True classes in rows, votes in columns; rows sum to 1.

    Parameters
    ----------
    beliefs : Tensor of shape (n_samples, n_classes)
        Probabilities of the true classes.
    votes : Votes
    """
    counts = _counts(beliefs, votes)
    expected = counts + PRIOR_VOTES * _like_the_others(counts)
    return expected / expected.sum(2, keepdim=True)


def right_votes(beliefs: Tensor, votes: Votes) -> Tensor:
    """Return the share of each annotator's votes that is right, (n_annotators,).

    NaN for an annotator without a vote.
    """
    counts = _counts(beliefs, votes)
    right: Tensor = counts.diagonal(dim1=1, dim2=2).sum(1) / counts.sum((1, 2))
    return right


def _counts(beliefs: Tensor, votes: Votes) -> Tensor:
    """Return how often each annotator said what (columns) of which true class (rows)."""
    _, n_annotators, n_classes = votes.shape
    counts = beliefs.new_zeros(n_annotators, n_classes, n_classes)
    counts.index_put_((votes.annotators, votes.labels), beliefs[votes.rows], accumulate=True)
    return counts.transpose(1, 2)


def _like_the_others(counts: Tensor) -> Tensor:
    """Return the matrices of annotators who err as all do, but each as often as himself."""
    same = torch.eye(counts.shape[1], device=counts.device)
    shared = counts.sum(0) + same + 0.1
    shared = shared / shared.sum(1, keepdim=True)
    mistakes = F.normalize(shared * (1 - same), p=1, dim=1)
    right, total = counts.diagonal(dim1=1, dim2=2).sum(1), counts.sum((1, 2))
    average = right.sum() / total.sum()
    share = (right + PRIOR_RIGHT * average) / (total + PRIOR_RIGHT)
    each = (share[:, None] * shared.diagonal() / average).clamp(*EXTREMES)[:, :, None]
    return each * same + (1 - each) * mistakes
