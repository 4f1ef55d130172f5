"""A small experiment on the given labels: how long to learn from them, and which are mistaken."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from noisyfit.data.training import TrainingData
from noisyfit.nn.beliefs import newest_share
from noisyfit.nn.losses import cross_entropy
from noisyfit.nn.parallel import average
from noisyfit.nn.transition import calibrate, fit_transition

PILOT_MINIMUM = 100  # labelled rows
N_SPLITS = {"table": 2, "image": 1}  # on images a pilot costs as much as cross-entropy
MOMENTUM = 0.5  # of the mean of the predictions over epochs
WORSE = 2.0  # standard errors
PATIENCE = 0.25  # of the epochs; the pilot ends after so many with worse predictions


class Pilot(NamedTuple):
    """What networks predict for rows that they have not seen.

    Attributes
    ----------
    end : int
        Epochs after which networks memorise, that is, predict the given labels worse. All of them
        if that cannot be told from chance.
    beliefs : Tensor of shape (n_samples, n_classes)
        Probabilities of the true classes.
    transition : Tensor of shape (n_classes, n_classes)
        True class by given class; rows sum to 1.
    """

    end: int
    beliefs: Tensor
    transition: Tensor


def run_pilot(
    data: TrainingData,
    n_epochs: int,
    n_splits: int,
    make_network: Callable[[], nn.Module],
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    predict: Callable[[nn.Module, TrainingData], Tensor],
) -> Pilot:
    """Train a network on each half of the rows with cross-entropy, and predict the other half.

    Parameters
    ----------
    data : TrainingData
    n_epochs : int
        Maximum number of epochs; the learning rate follows a cosine to zero over them.
    n_splits : int
        How often the rows are split into halves anew.
    make_network, make_optimizer : callables
        Create the network for the data, and an optimizer for it.
    predict : callable
        Maps a network and rows to logits (n_samples, n_classes), in evaluation mode.
    """
    splits = [split for _ in range(n_splits) for split in _splits(data.labels)]
    networks = [make_network() for _ in splits]
    optimizers = [make_optimizer(network) for network in networks]
    schedules = [CosineAnnealingLR(optimizer, n_epochs) for optimizer in optimizers]
    mean, fallen = torch.zeros(len(data), data.n_classes, device=data.device), 0.0
    best_epoch, best, highest = 0, *calibrate(mean, data.labels)
    for epoch in range(n_epochs):
        probs = torch.zeros_like(mean)
        for k, (seen, unseen) in enumerate(splits):
            _train(networks[k].train(), optimizers[k], data.subset(seen))
            schedules[k].step()
            probs[unseen] += predict(networks[k], data.subset(unseen)).softmax(1) / n_splits
        mean = mean.lerp(probs, newest_share(MOMENTUM, epoch))
        given_probs, likelihood = calibrate(mean, data.labels)
        if epoch == 0 or likelihood.mean() > highest.mean():
            best_epoch, best, highest = epoch, given_probs, likelihood
        fallen = errors_below(likelihood, highest)
        if fallen > WORSE and epoch - best_epoch > PATIENCE * n_epochs:
            break
    end = best_epoch + 1 if fallen > WORSE else n_epochs
    transition, beliefs = fit_transition(best, data.labels.masked_fill(data.trusted, -1))
    return Pilot(end, beliefs, transition)


def pilot_of(clf: Any, data: TrainingData) -> Pilot:
    """Run the pilot of an estimator, with networks like its ``module_``."""
    return run_pilot(
        data,
        clf.max_epochs_,
        N_SPLITS["table" if clf.layout_ == "table" else "image"],
        partial(clf._make_network, "module", independent=False),
        partial(clf._make_optimizer, "module"),
        clf._predict,
    )


def _splits(labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Halve the rows at random, each class evenly; each half is trained on once, predicted once."""
    order = torch.randperm(len(labels), device=labels.device)
    order = order[labels[order].argsort(stable=True)]
    halves = order[0::2], order[1::2]
    return [halves, halves[::-1]]


def errors_below(likelihood: Tensor, highest: Tensor) -> float:
    """Return by how many standard errors a mean is below the highest one of the same rows."""
    fall = highest - likelihood
    return float(fall.mean() / (fall.std() / len(fall) ** 0.5).clamp(min=1e-12))


def _train(network: nn.Module, optimizer: torch.optim.Optimizer, data: TrainingData) -> None:
    for idx, x, _ in data.batches("weak", labelled=True):
        loss = data.weighed(cross_entropy(network(x), data.targets(idx)), idx).mean()
        optimizer.zero_grad()
        loss.backward()
        average([parameter.grad for parameter in network.parameters()])
        optimizer.step()
