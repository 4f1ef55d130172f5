"""What is made of beliefs about the true classes and of given labels."""

from torch import Tensor
from torch.nn import functional as F

__all__ = ["given_probability", "newest_share", "refurbish", "sharpen"]


def given_probability(beliefs: Tensor, labels: Tensor) -> Tensor:
    """Return what beliefs give to the given label of each row, (n_samples,).

    Parameters
    ----------
    beliefs : tensor of shape (n_samples, n_classes)
    labels : int64 tensor of shape (n_samples,)
        Where there is none, -1, the value means nothing.
    """
    return beliefs.gather(1, labels.clamp(min=0)[:, None])[:, 0]


def newest_share(momentum: float, epoch: int) -> float:
    """Return the weight of the newest epoch in a mean over epochs, free of its zero start.

    Parameters
    ----------
    momentum : float in [0, 1)
    epoch : int
        From 0, whose weight is 1.
    """
    return (1 - momentum) / (1 - momentum ** (epoch + 1))


def refurbish(clean: Tensor, labels: Tensor, probs: Tensor) -> Tensor:
    """Return given labels as far as they are clean, else predictions.

    Eq. 11 of the flywheel, Eq. 3 of DivideMix.

    Parameters
    ----------
    clean : tensor of shape (n_samples,)
        Probability that each label is clean; 0 where there is none.
    labels : tensor of shape (n_samples,) or (n_samples, n_classes)
        Classes, or the probabilities of the classes that they stand for.
    probs : tensor of shape (n_samples, n_classes)
    """
    if labels.ndim == 1:
        labels = F.one_hot(labels.clamp(min=0), probs.shape[1])
    return clean[:, None] * labels + (1 - clean)[:, None] * probs


def sharpen(probs: Tensor, temperature: float) -> Tensor:
    """Raise probabilities to the power ``1 / temperature`` and renormalise.

    Parameters
    ----------
    probs : tensor of shape (n_samples, n_classes)
    temperature : float > 0
        Below 1 moves the distributions towards their most probable class; 1 changes nothing.

    Returns
    -------
    tensor of shape (n_samples, n_classes)
    """
    powered = probs ** (1 / temperature)
    return powered / powered.sum(1, keepdim=True)
