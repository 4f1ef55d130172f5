"""Functions of beliefs about the true classes and of given labels."""

import torch
from torch import Tensor

__all__ = [
    "as_distributions", "given_probability", "mean_of", "newest_share", "one_hot", "refurbish",
    "sharpen",
]  # fmt: skip


def one_hot(labels: Tensor, n_classes: int) -> Tensor:
    """Return labels as distributions, (n_samples, n_classes); zeros for -1, no label."""
    return (labels[:, None] == torch.arange(n_classes, device=labels.device)).float()


def as_distributions(labels: Tensor, n_classes: int) -> Tensor:
    """Return `one_hot` of classes, and distributions as they are."""
    return one_hot(labels, n_classes) if labels.ndim == 1 else labels


def given_probability(beliefs: Tensor, labels: Tensor) -> Tensor:
    """Return the belief in the given label of each row, (n_samples,).

    Parameters
    ----------
    beliefs : tensor of shape (n_samples, n_classes)
    labels : int64 tensor of shape (n_samples,)
        For a row without a label, -1, the value is meaningless.
    """
    return beliefs.gather(1, labels.clamp(min=0)[:, None])[:, 0]


def mean_of(sums: Tensor) -> Tensor:
    """Return the mean distributions, from sums over epochs (n_samples, n_classes); uniform for 0.

    Parameters
    ----------
    sums : tensor of shape (n_samples, n_classes)
    """
    totals = sums.sum(1, keepdim=True)
    return (sums / totals).masked_fill_(~(totals > 0), 1 / sums.shape[1])


def newest_share(momentum: float, epoch: int) -> float:
    """Return the weight of the newest epoch in a mean over epochs, corrected for its zero start.

    Parameters
    ----------
    momentum : float in [0, 1)
    epoch : int
        Counted from 0, whose weight is 1.
    """
    return (1 - momentum) / (1 - momentum ** (epoch + 1))


def refurbish(clean: Tensor, labels: Tensor, probs: Tensor) -> Tensor:
    """Mix given labels and predictions by the probability that the label is clean.

    Eq. 11 of the flywheel, Eq. 3 of DivideMix.

    Parameters
    ----------
    clean : tensor of shape (n_samples,)
        Probability that each label is clean; 0 for a row without a label.
    labels : tensor of shape (n_samples,) or (n_samples, n_classes)
        Classes, or the probabilities of the true classes they stand for.
    probs : tensor of shape (n_samples, n_classes)
    """
    mixed = (1 - clean)[:, None] * probs
    if labels.ndim == 2:
        return mixed.addcmul_(clean[:, None], labels)
    mixed[torch.arange(len(labels), device=labels.device), labels] += clean
    return mixed


def sharpen(probs: Tensor, temperature: float) -> Tensor:
    """Raise probabilities to the power ``1 / temperature`` and renormalise.

    Parameters
    ----------
    probs : tensor of shape (n_samples, n_classes)
    temperature : float > 0
        Values below 1 move the distributions towards their most probable class; 1 changes nothing.

    Returns
    -------
    tensor of shape (n_samples, n_classes)
    """
    powered = probs ** (1 / temperature)
    return powered.div_(powered.sum(1, keepdim=True))
