"""A small experiment on the given labels: how long to learn from them, and which are mistaken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from noisyfit.data.training import TrainingData
from noisyfit.nn.beliefs import given_probability, newest_share
from noisyfit.nn.losses import cross_entropy
from noisyfit.nn.parallel import average
from noisyfit.nn.transition import calibrate, fit_transition, posterior

PILOT_MINIMUM = 100  # labelled rows
N_SPLITS = {"table": 2, "image": 1}  # on images a pilot costs as much as cross-entropy
MOMENTUM = 0.5  # of the mean of the predictions over epochs
WORSE = 2.0  # standard errors
RIGHT_SHARES = (0.55, 0.9)  # below classes overlap, above there is nothing to gain
FEWEST_LABELS = 500  # from which the share of right ones can be told
PATIENCE = 0.25  # of the epochs; the pilot ends after so many with worse predictions


class Pilot(NamedTuple):
    """What networks predict for rows that they have not seen.

    Attributes
    ----------
    end : int
        Epochs after which networks memorise: they predict given labels worse that they have not
        seen or, on tables, if that cannot be told from chance, fit more of those that they see than
        are right. All epochs if they do neither.
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
    fitted = list[float]()  # share of the labels in each epoch
    best_epoch, best, highest = 0, *calibrate(mean, data.labels)
    for epoch in range(n_epochs):
        probs, hits = torch.zeros_like(mean), torch.zeros((), device=data.device)
        for k, (seen, unseen) in enumerate(splits):
            hits += _train(networks[k].train(), optimizers[k], data.subset(seen))
            schedules[k].step()
            probs[unseen] += predict(networks[k], data.subset(unseen)).softmax(1) / n_splits
        fitted.append(float(hits / (n_splits * data.has_label.sum())))
        mean = mean.lerp(probs, newest_share(MOMENTUM, epoch))
        given_probs, likelihood = calibrate(mean, data.labels)
        if epoch == 0 or likelihood.mean() > highest.mean():
            best_epoch, best, highest = epoch, given_probs, likelihood
        fallen = errors_below(likelihood, highest)
        if fallen > WORSE and epoch - best_epoch > PATIENCE * n_epochs:
            break
    transition, beliefs = fit_transition(best, data.labels.masked_fill(data.trusted, -1))
    end = best_epoch + 1 if fallen > WORSE else n_epochs
    if fallen <= WORSE and data.rows.layout == "table":  # on images they are wrong while they learn
        right = _right_share(data, beliefs, transition)
        end = fitted_in(fitted, right, int(data.has_label.sum())) or n_epochs
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


def _right_share(data: TrainingData, beliefs: Tensor, transition: Tensor) -> float:
    """Return which share of the labels is right, by what is believed of the rows."""
    right = given_probability(posterior(beliefs, data.labels, transition), data.labels)
    return float(right.masked_fill(data.trusted, 1.0)[data.has_label].mean())


def fitted_in(shares: Sequence[float], right: float, n_labels: int) -> int:
    """Return after how many epochs networks fit more labels than are right, 0 for never.

    By chance they may, and then they have not memorised. Nor can the share of right labels be told
    from few of them, or where half seem to be wrong, as classes that overlap look the same.

    Parameters
    ----------
    shares : sequence of float
        Of the labels that networks predict while they learn from them, epoch by epoch.
    right : float
        Share of the labels that are right, as far as the pilot can tell.
    n_labels : int
    """
    chance = WORSE * (right * (1 - right) / n_labels) ** 0.5
    least, most = RIGHT_SHARES
    can_be_told = n_labels >= FEWEST_LABELS and least <= right <= most
    if not can_be_told or max(shares) <= right + chance:
        return 0
    return next(epoch for epoch, share in enumerate(shares, 1) if share > right)


def errors_below(likelihood: Tensor, highest: Tensor) -> float:
    """Return by how many standard errors a mean is below the highest one of the same rows."""
    fall = highest - likelihood
    return float(fall.mean() / (fall.std() / len(fall) ** 0.5).clamp(min=1e-12))


def _train(network: nn.Module, optimizer: torch.optim.Optimizer, data: TrainingData) -> Tensor:
    """Train for an epoch; return how many of the labels were predicted meanwhile."""
    hits = torch.zeros((), device=data.device)
    for idx, x, labels in data.batches("weak", labelled=True):
        logits = network(x)
        hits += (logits.detach().argmax(1) == labels).sum()
        loss = data.weighed(cross_entropy(logits, data.targets(idx)), idx).mean()
        optimizer.zero_grad()
        loss.backward()
        average([parameter.grad for parameter in network.parameters()])
        optimizer.step()
    return hits
