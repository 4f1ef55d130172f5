"""LNL-flywheel: one EM cycle finds the wrong labels, another one repairs them."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor, nn

from noisyfit.base import NoisyLabelClassifier
from noisyfit.data import TrainingData
from noisyfit.nn import features
from noisyfit.nn.losses import confidence_regularizer, contrastive, cross_entropy, mixup

GAMMA_RANGE = (0.01, 0.99)
OUTLIER_FLOOR = 1e-3
TEMPERATURE_EXPONENTS = (-0.5, 1.5, 21)  # decades of the grid, and its size
GAMMA_STEPS = 20
CONTRASTIVE_TEMPERATURE = 0.05
PROJECTION_SIZE = 128


class FlywheelClassifier(NoisyLabelClassifier):
    """TODO"""

    own_prior=False
    _networks: ClassVar = ("module", "main")
    _parameter_constraints: ClassVar = {
        **NoisyLabelClassifier._parameter_constraints,
        "warmup_epochs": [Interval(Integral, 1, None, closed="left"), None],
        "cr_weight": [Interval(Real, 0, None, closed="left")],
        "resample": ["boolean"],
        "adaptive_outlier": ["boolean"],
        "contrastive_weight": [Interval(Real, 0, None, closed="left")],
        "mixup_alpha": [Interval(Real, 0, None, closed="neither")],
        "temporal_momentum": [Interval(Real, 0, 1, closed="left")],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "zero_diagonal": ["boolean"],
        "calibrate": ["boolean"],
    }

    def __init__(
        self,
        module: Any = None,
        *,
        warmup_epochs: int | None = None,
        cr_weight: float = 3.0,
        resample: bool = True,
        adaptive_outlier: bool = True,
        contrastive_weight: float = 0.025,
        mixup_alpha: float = 4.0,
        temporal_momentum: float = 0.9,
        temperature: float = 0.5,
        zero_diagonal: bool = True,
        calibrate: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(module, **kwargs)
        self.warmup_epochs = warmup_epochs
        self.cr_weight = cr_weight
        self.resample = resample
        self.adaptive_outlier = adaptive_outlier
        self.contrastive_weight = contrastive_weight
        self.mixup_alpha = mixup_alpha
        self.temporal_momentum = temporal_momentum
        self.temperature = temperature
        self.zero_diagonal = zero_diagonal
        self.calibrate = calibrate

    def _fit(self, data: TrainingData) -> None:
        state = self.state_
        for epoch in self._epochs():
            if epoch < self.warmup_epochs_:
                self._warm_up(data)
                self._refresh(data, epoch)
                continue
            if epoch == self.warmup_epochs_:
                state.gamma.fill_(self._agreement(data).clamp(*GAMMA_RANGE))
            clean = self._clean_probability(data)  # E-step of the main network, Eq. 4
            targets = self._refurbish(data, clean)  # E-step of the auxiliary network, Eq. 11
            self._train_auxiliary(data, targets)  # its M-step, Eq. 13
            if self.adaptive_outlier:
                state.corruption.copy_(self._corruption(data, clean))  # needs f of the last cycle
            self._refresh(data, epoch)
            if self.adaptive_outlier:
                state.outlier.copy_(self._outlier(data))  # Eq. 14
            self._train_main(data, clean)  # M-step of the main network, Eqs. 8 and 9
            if not self.calibrate:
                state.gamma.fill_(clean[data.has_label].mean().clamp(*GAMMA_RANGE))  # Eq. 6

    def _init_state(self, n: int, n_classes: int) -> dict[str, Tensor]:
        uniform = 1 / n_classes
        return {
            "gamma": torch.tensor(0.5),
            "main_temperature": torch.tensor(1.0),
            "outlier": torch.full((n,), uniform),
            "ensemble": torch.full((n, n_classes), uniform),
            "corruption": torch.full((n_classes, n_classes), uniform),
        }

    # ---------------------------------------------------------------------------- steps

    def _warm_up(self, data: TrainingData) -> None:
        for _, x, labels in data.batches("weak", labelled=True):
            for network, optimizer in (
                (self.module_, self.optimizer_),
                (self.main_, self.main_optimizer_),
            ):
                self._descend(cross_entropy(network(x), labels).mean(), optimizer)

    def _agreement(self, data: TrainingData) -> Tensor:
        """Return the share of given labels that the auxiliary network predicts."""
        agrees = self.state_.ensemble.argmax(1) == data.labels
        return agrees[data.has_label].float().mean()

    def _clean_probability(self, data: TrainingData) -> Tensor:
        logits = self._predict(self.main_, data)
        if self.calibrate:
            self._calibrate(data, logits)
        logits = logits / self.state_.main_temperature
        q = clean_probability(logits, data.labels, self.state_.outlier, self.state_.gamma)
        return torch.where(data.trusted, 1.0, torch.where(data.has_label, q, 0.0))

    def _calibrate(self, data: TrainingData, logits: Tensor) -> None:
        """Set gamma and the main network's temperature to the likeliest ones, Eq. 3."""
        kept = data.has_label
        gamma, temperature = likeliest_mixture(
            logits[kept], data.labels[kept], self.state_.outlier[kept]
        )
        self.state_.gamma.copy_(gamma)
        self.state_.main_temperature.copy_(temperature)

    def _refurbish(self, data: TrainingData, clean: Tensor) -> Tensor:
        sharp = sharpen(self.state_.ensemble, self.temperature)
        return refurbish(clean, data.labels, sharp)

    def _train_auxiliary(self, data: TrainingData, targets: Tensor) -> None:
        views = ("weak", "strong", "strong") if self.contrastive_weight else ("weak",)
        for idx, x, *strong, _ in data.batches(*views):
            mixed_x, mixed_targets = mixup(x, targets[idx], alpha=self.mixup_alpha)
            loss = cross_entropy(self.module_(mixed_x), mixed_targets).mean()
            if strong:
                loss = loss + self.contrastive_weight * self._contrastive(*strong).mean()
            self._descend(loss, self.optimizer_)

    def _contrastive(self, first: Tensor, second: Tensor) -> Tensor:
        both = features.embeddings(self.module_, torch.cat([first, second]))
        first_z, second_z = self.projector_(both.float()).chunk(2)
        return contrastive(first_z, second_z, temperature=CONTRASTIVE_TEMPERATURE)

    def _refresh(self, data: TrainingData, epoch: int) -> None:
        """Average the auxiliary network over two weak copies, then over the epochs so far."""
        probs = sum(self._predict(self.module_, data, "weak").softmax(1) for _ in range(2)) / 2
        # The weight of the newest epoch in a mean with momentum, free of its zero start.
        share = (1 - self.temporal_momentum) / (1 - self.temporal_momentum ** (epoch + 1))
        self.state_.ensemble.lerp_(probs, share)

    def _corruption(self, data: TrainingData, clean: Tensor) -> Tensor:
        kept = data.has_label
        return corruption_matrix(
            clean[kept], data.labels[kept], self.state_.ensemble[kept],
            zero_diagonal=self.zero_diagonal,
        )  # fmt: skip

    def _outlier(self, data: TrainingData) -> Tensor:
        observed = self.state_.corruption.T[data.labels.clamp(min=0)]  # (n, K): T_c[y, label_i]
        return (self.state_.ensemble * observed).sum(1).clamp(min=OUTLIER_FLOOR)

    def _train_main(self, data: TrainingData, clean: Tensor) -> None:
        resampled = self.state_.ensemble.argmax(1)
        resampled = torch.where(data.trusted, data.labels, resampled)
        labels = resampled if self.resample else data.labels.clamp(min=0)
        weights = torch.ones_like(clean) if self.resample else clean
        prior = torch.bincount(labels, minlength=data.n_classes) / len(labels)
        cr_weight = min(self.cr_weight, 0.9 / float(prior.max()))
        for idx, x, _ in data.batches("weak"):
            logits = self.main_(x)
            if self.own_prior:
                prior = logits.detach().float().softmax(1).mean(0)
            loss = weights[idx] * cross_entropy(logits, labels[idx])
            loss = loss + cr_weight * confidence_regularizer(logits, prior)
            self._descend(loss.mean(), self.main_optimizer_)

    # ------------------------------------------------------------------------ networks, beliefs

    def initialize_module(self) -> FlywheelClassifier:
        """Make both networks, and the projection head of the contrastive term."""
        super().initialize_module()
        probe = torch.zeros(2, *self.row_shape_, device=self.device_)
        size = features.embedding_size(self.module_, probe)
        self.projector_ = nn.Sequential(
            nn.Linear(size, PROJECTION_SIZE), nn.ReLU(), nn.Linear(PROJECTION_SIZE, PROJECTION_SIZE)
        ).to(self.device_)
        return self

    def initialize_optimizer(self) -> FlywheelClassifier:
        """Give the projection head to the auxiliary network's optimizer."""
        super().initialize_optimizer()
        self.optimizer_.add_param_group({"params": list(self.projector_.parameters())})
        return self

    def _beliefs(self, data: TrainingData) -> tuple[Tensor, Tensor]:
        clean = self._clean_probability(data)
        self.clean_probability_ = clean.cpu().numpy()
        self.gamma_ = float(self.state_.gamma)
        self.corruption_matrix_ = self.state_.corruption.cpu().numpy()
        return clean, self._refurbish(data, clean)


def clean_probability(logits: Tensor, labels: Tensor, outlier: Tensor, gamma: Tensor) -> Tensor:
    """Return the probability that each label is clean, Eq. 4, computed in log space.

    Parameters
    ----------
    logits : Tensor of shape (n_samples, n_classes)
        Of the main network.
    labels : Tensor of shape (n_samples,)
    outlier : Tensor of shape (n_samples,)
        Probability of the given label if it is corrupted, ``eps_i``.
    gamma : Tensor of shape ()
        Share of clean labels.
    """
    given = logits.log_softmax(1).gather(1, labels.clamp(min=0)[:, None])[:, 0]
    return torch.sigmoid(gamma.log() + given - torch.log1p(-gamma) - outlier.log())


def likeliest_mixture(logits: Tensor, labels: Tensor, outlier: Tensor) -> tuple[Tensor, Tensor]:
    """Return gamma and the temperature of g under which the given labels are likeliest, Eq. 3.

    EM for gamma (Eqs. 4 and 6) at every temperature of a grid.
    """
    best = (logits.new_tensor(-torch.inf), logits.new_tensor(0.5), logits.new_tensor(1.0))
    for temperature in torch.logspace(*TEMPERATURE_EXPONENTS, device=logits.device):
        given = (logits / temperature).softmax(1).gather(1, labels[:, None])[:, 0]
        gamma = logits.new_tensor(0.5)
        for _ in range(GAMMA_STEPS):
            gamma = (gamma * given / (gamma * given + (1 - gamma) * outlier)).mean()
            gamma = gamma.clamp(*GAMMA_RANGE)
        likelihood = (gamma * given + (1 - gamma) * outlier).log().mean()
        if likelihood > best[0]:
            best = (likelihood, gamma, temperature)
    return best[1], best[2]


def sharpen(probs: Tensor, temperature: float) -> Tensor:
    """Raise to the power 1 / temperature and renormalise the rows."""
    powered = probs ** (1 / temperature)
    return powered / powered.sum(1, keepdim=True)


def refurbish(clean: Tensor, labels: Tensor, probs: Tensor) -> Tensor:
    """Return the distribution of the true class, Eq. 11: the label if clean, else the prediction."""
    onehot = nn.functional.one_hot(labels.clamp(min=0), probs.shape[1])
    return clean[:, None] * onehot + (1 - clean)[:, None] * probs


def corruption_matrix(
    clean: Tensor, labels: Tensor, probs: Tensor, *, zero_diagonal: bool
) -> Tensor:
    """Return T_c: rows the true class, columns the observed one, among corrupted labels."""
    n_classes = probs.shape[1]
    wrong = (1 - clean)[:, None] * probs  # (n, K)
    counts = probs.new_zeros(n_classes, n_classes).index_add_(0, labels, wrong).T
    if zero_diagonal:
        counts.fill_diagonal_(0)
    total = counts.sum(1, keepdim=True)
    return torch.where(total > 1e-8, counts / total, 1 / n_classes)
