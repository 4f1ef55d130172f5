"""How well beliefs about true classes explain the given labels of rows that were not seen.

Held-out labels are wrong as often as the others. A classifier that predicts the true class is not
to blame for them, as long as its mistakes are those that all labels of the class share: some
transition matrix ``T`` makes the given labels probable, ``p(z) = (beliefs @ T)[z]``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from noisyfit.nn.beliefs import one_hot, sharpen

__all__ = ["Explained", "explain", "mixture_weights", "softened"]

TEMPERATURES = (0.35, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0)
N_STEPS = 30  # of expectation and maximisation
PRIOR_LABELS = 1.0  # a priori, of each true class, with each given class alike
SMALLEST = 1e-8


class Explained(NamedTuple):
    """How given labels are explained.

    Attributes
    ----------
    temperature : float
        By which the beliefs are to be softened, so that they are as sure as they are right.
    likelihoods : Tensor of shape (n_samples,)
        Log-probability of each label, in nats.
    """

    temperature: float
    likelihoods: Tensor


def explain(beliefs: Tensor, labels: Tensor) -> Explained:
    """Explain labels by beliefs, with the temperature and the transition matrix that do it best.

    Parameters
    ----------
    beliefs : Tensor of shape (n_samples, n_classes)
        Probabilities of the true classes.
    labels : Tensor of shape (n_samples,)
        Given classes.
    """
    found = (Explained(t, _likelihoods(softened(beliefs, t), labels)) for t in TEMPERATURES)
    return max(found, key=lambda explained: float(explained.likelihoods.mean()))


def softened(beliefs: Tensor, temperature: float) -> Tensor:
    """Return beliefs that are surer below a temperature of 1, less sure above."""
    return sharpen(beliefs.clamp(min=SMALLEST), temperature)


def _likelihoods(beliefs: Tensor, labels: Tensor) -> Tensor:
    given = one_hot(labels, beliefs.shape[1]).to(beliefs)
    prior = torch.full_like(given.T @ given, PRIOR_LABELS / beliefs.shape[1])
    matrix = F.normalize(prior + beliefs.T @ given, p=1, dim=1)
    for _ in range(N_STEPS):
        joint = beliefs * matrix.T[labels]
        true = joint / joint.sum(1, keepdim=True).clamp(min=SMALLEST)
        matrix = F.normalize(prior + true.T @ given, p=1, dim=1)
    return (beliefs * matrix.T[labels]).sum(1).clamp(min=SMALLEST).log()


def mixture_weights(beliefs: Tensor, labels: Tensor) -> Tensor:
    """Return the shares of predictors in the mixture that explains the labels best.

    The shares and a transition matrix are found together, by expectation and maximisation.

    Parameters
    ----------
    beliefs : Tensor of shape (n_predictors, n_samples, n_classes)
        Probabilities of the true classes.
    labels : Tensor of shape (n_samples,)
        Given classes.

    Returns
    -------
    Tensor of shape (n_predictors,)
        Sum to 1.
    """
    given = one_hot(labels, beliefs.shape[2]).to(beliefs)
    prior = torch.full_like(given.T @ given, PRIOR_LABELS / beliefs.shape[2])
    matrix = F.normalize(prior + beliefs.mean(0).T @ given, p=1, dim=1)
    weights = torch.full_like(beliefs[:, 0, 0], 1 / len(beliefs))
    for _ in range(N_STEPS):
        joint = weights[:, None, None] * beliefs * matrix.T[labels]
        joint = joint / joint.sum((0, 2), keepdim=True).clamp(min=SMALLEST)
        weights = joint.sum(2).mean(1)
        matrix = F.normalize(prior + joint.sum(0).T @ given, p=1, dim=1)
    return weights / weights.sum()
