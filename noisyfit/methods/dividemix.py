"""DivideMix: two networks divide the rows for each other, and learn from both parts."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.utils._param_validation import Interval
from torch import Tensor, nn

from noisyfit.base import NoisyLabelClassifier
from noisyfit.data import Rows, TrainingData
from noisyfit.nn.losses import cross_entropy, mixup, sharpen

TINY = 1e-8
REGULARIZATION = 5e-4  # of the variances of the mixture


class DivideMixClassifier(NoisyLabelClassifier):
    """placeholder."""

    _networks: ClassVar = ("module", "peer")
    _parameter_constraints: ClassVar = {
        **NoisyLabelClassifier._parameter_constraints,
        "clean_threshold": [Interval(Real, 0, 1, closed="left")],
        "unlabelled_weight": [Interval(Real, 0, None, closed="left")],
        "prior_weight": [Interval(Real, 0, None, closed="left")],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "mixup_alpha": [Interval(Real, 0, None, closed="neither")],
        "warmup_epochs": [Interval(Integral, 1, None, closed="left"), None],
    }

    def __init__(
        self,
        module: Any = None,
        *,
        clean_threshold: float = 0.5,
        unlabelled_weight: float = 25.0,
        prior_weight: float = 1.0,
        temperature: float = 0.5,
        mixup_alpha: float = 4.0,
        warmup_epochs: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(module, **kwargs)
        self.clean_threshold = clean_threshold
        self.unlabelled_weight = unlabelled_weight
        self.prior_weight = prior_weight
        self.temperature = temperature
        self.mixup_alpha = mixup_alpha
        self.warmup_epochs = warmup_epochs

    def _fit(self, data: TrainingData) -> None:
        for epoch in self._epochs():
            if epoch < self.warmup_epochs_:
                self._warm_up(data)
            else:
                ramp = min(1.0, (epoch - self.warmup_epochs_) / self.warmup_epochs_)
                self._train_on_both_parts(data, ramp * self.unlabelled_weight)

    # ---------------------------------------------------------------------------- steps

    def _warm_up(self, data: TrainingData) -> None:
        for _, x, labels in data.batches("weak", labelled=True):
            for name in self._networks:
                loss = cross_entropy(self._network(name)(x), labels).mean()
                self._descend(loss, self._optimizer(name))

    def _train_on_both_parts(self, data: TrainingData, unlabelled_weight: float) -> None:
        """Train each network with the division of the other one."""
        clean = {name: self._clean_probability(data, name) for name in self._networks}
        given = data.labels[data.has_label]
        prior = torch.bincount(given, minlength=data.n_classes) / len(given)
        for idx, *views, labels in data.batches("weak", "weak"):
            guesses = {name: self._guess(name, views) for name in self._networks}
            for learner, teacher in zip(self._networks, reversed(self._networks), strict=True):
                trust = clean[teacher][idx]
                believed = trust > self.clean_threshold
                own, both = guesses[learner], (guesses[learner] + guesses[teacher]) / 2
                refined = refine(trust, labels, own)
                targets = sharpen(torch.where(believed[:, None], refined, both), self.temperature)
                mixed_x, mixed_targets = mixup(
                    torch.cat(views), torch.cat([targets] * 2), alpha=self.mixup_alpha
                )
                logits = self._network(learner)(mixed_x)
                terms = mixmatch(logits, mixed_targets, torch.cat([believed] * 2), prior)
                loss = terms.labelled + unlabelled_weight * terms.unlabelled
                self._descend(loss + self.prior_weight * terms.prior, self._optimizer(learner))

    @torch.no_grad()
    def _guess(self, name: str, views: list[Tensor]) -> Tensor:
        """Return a network's mean prediction of the views, (n_samples, n_classes)."""
        network = self._network(name).eval()
        probs = network(torch.cat(views)).float().softmax(1)
        network.train()
        return torch.stack(probs.chunk(len(views))).mean(0)

    def _clean_probability(self, data: TrainingData, name: str) -> Tensor:
        """Return the probability that each label is clean, as one network sees it: co-divide."""
        labelled = data.has_label
        logits = self._predict(self._network(name), data)[labelled]
        labels = data.labels[labelled]
        losses = above_class_median(cross_entropy(logits, labels), labels, data.n_classes)
        found = small_loss_probability(losses.double().cpu().numpy())
        clean = torch.zeros(len(data), device=self.device_)
        clean[labelled] = torch.as_tensor(found, dtype=clean.dtype, device=self.device_)
        return clean.masked_fill(data.trusted, 1.0)

    # ------------------------------------------------------------------------ networks, beliefs

    def _network(self, name: str) -> nn.Module:
        network: nn.Module = getattr(self, f"{name}_")
        return network

    def _optimizer(self, name: str) -> torch.optim.Optimizer:
        return self.optimizer_ if name == "module" else self.peer_optimizer_

    def initialize_module(self) -> DivideMixClassifier:
        """Make both networks."""
        super().initialize_module()
        self.predicting_ = ["module"] if self._restores_an_epoch() else list(self._networks)
        return self

    def _probabilities(self, rows: TrainingData | Rows) -> Tensor:
        """Return the softmax of the mean of both networks' logits."""
        logits = [self._predict(self._network(name), rows) for name in self.predicting_]
        return (sum(logits[1:], logits[0]) / len(logits)).softmax(1)

    def _beliefs(self, data: TrainingData) -> tuple[Tensor, Tensor]:
        """Return the mean of both posteriors, and the label refined by the prediction."""
        module, peer = (self._clean_probability(data, name) for name in self._networks)
        clean = (module + peer) / 2
        return clean, refine(clean, data.labels, self._probabilities(data))


class MixMatchTerms(NamedTuple):
    """The three terms of the loss, scalars."""

    labelled: Tensor
    unlabelled: Tensor
    prior: Tensor


def mixmatch(logits: Tensor, targets: Tensor, believed: Tensor, prior: Tensor) -> MixMatchTerms:
    """Return the terms of the loss on mixed rows, Eqs. 9 to 11."""
    probs = logits.float().softmax(1)
    errors = (probs - targets).square().mean(1)
    believed, doubted = believed.float(), (~believed).float()
    labelled = (believed * cross_entropy(logits, targets)).sum() / believed.sum().clamp(min=1)
    unlabelled = (doubted * errors).sum() / doubted.sum().clamp(min=1)
    predicted = probs.mean(0).clamp(min=TINY)
    divergence = (prior * (prior.clamp(min=TINY).log() - predicted.log())).sum()
    return MixMatchTerms(labelled, unlabelled, divergence)


def refine(trust: Tensor, labels: Tensor, probs: Tensor) -> Tensor:
    """Return labels as far as they are trusted, else predictions: co-refinement, Eq. 3."""
    onehot = nn.functional.one_hot(labels.clamp(min=0), probs.shape[1])
    return trust[:, None] * onehot + (1 - trust)[:, None] * probs


def above_class_median(losses: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """Return by how much each loss is above the median of its given class, (n_samples,)."""
    medians = losses.new_zeros(n_classes)
    for code in labels.unique().tolist():
        medians[code] = losses[labels == code].median()
    return losses - medians[labels]


def small_loss_probability(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probability that each loss belongs to the component of small losses.

    A mixture of two Gaussians is fitted to the losses scaled to [0, 1].

    Parameters
    ----------
    losses : ndarray of shape (n_samples,)

    Returns
    -------
    ndarray of shape (n_samples,)
        All 1 where all losses are equal: there is nothing to tell apart.
    """
    spread = np.ptp(losses) if len(losses) > 1 else 0.0
    if spread < TINY:
        return np.ones(len(losses))
    scaled = ((losses - losses.min()) / spread)[:, None]
    mixture = GaussianMixture(2, reg_covar=REGULARIZATION, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # few distinct losses: still a division
        mixture.fit(scaled)
    posterior: NDArray[np.float64] = mixture.predict_proba(scaled)
    return posterior[:, mixture.means_[:, 0].argmin()]
