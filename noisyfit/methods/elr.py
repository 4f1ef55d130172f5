"""ELR: early-learning regularisation holds a network to what it believed before it memorised."""

from __future__ import annotations

from copy import deepcopy
from numbers import Integral, Real
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from noisyfit.data.rows import Rows
from noisyfit.data.training import TrainingData
from noisyfit.estimator.keywords import SharedParameters
from noisyfit.methods.cross_entropy import CrossEntropyClassifier
from noisyfit.nn.averaging import follow
from noisyfit.nn.beliefs import mean_of, sharpen
from noisyfit.nn.losses import cross_entropy, early_learning_regularizer
from noisyfit.nn.mixing import mixup
from noisyfit.utils.parameters import Interval

WEIGHT_MOMENTUM = 0.997
PROBABILITY_RANGE = (1e-4, 1 - 1e-4)
TEMPERATURE = 0.5  # of the targets of ELR+


class ELRClassifier(CrossEntropyClassifier):
    """Learn from noisy labels while holding on to what was believed before they were memorised.

    Early in training a network predicts the true class of most rows with wrong labels. Its
    predictions for each row are averaged over the epochs into a target, and a regulariser rewards
    agreement with the target: its gradient cancels that of wrong labels and boosts that of right
    ones. One network, one pass, no selection of rows. Fails if nothing right is learned early,
    under heavy systematic noise.

    Step by step, for every batch (section 4 of [1]_):

    1. The targets move towards the predictions (Eq. 9).
    2. Take a step on the cross-entropy of the given labels plus the regulariser (Eq. 6).

    With ``n_networks=2``, ELR+ (appendix of [1]_): two networks learn mixed rows (MixUp), and the
    targets of each come from a running average of the weights of the other.

    Parameters
    ----------
    regularization : float >= 0, default=7.0
        Weight of the regulariser, ``lambda`` in [1]_, Eq. 6. 0 is cross-entropy.
    target_momentum : float in [0, 1), default=0.9
        Momentum of the mean of the predictions over the epochs, ``beta`` in [1]_, Eq. 9.
    n_networks : {1, 2}, default=1
        1 is ELR, 2 is ELR+.
    mixup_alpha : float > 0, default=1.0
        Parameter of the Beta distribution of MixUp in ELR+.
    {shared parameters}

    Attributes
    ----------
    predicting_ : list of str
        The networks that predict: ``"module"``, or with ``n_networks=2`` ``"module_average"`` and
        ``"peer_average"``; only the first if a callback restores the best epoch.
    {shared attributes}

    Notes
    -----
    Differences from the paper:

    1. One weight and one momentum for every kind of noise: the paper's values for CIFAR-100 (7 and
       0.9). For CIFAR-10 the paper has 3 and 0.7, and for asymmetric noise 1 and 0.9. On synthetic
       tables of 8 classes with 40 % wrong labels, two seeds, symmetric and pairflip: 86.4 and 84.7
       % with 7 and 0.9, 84.6 and 80.8 with 3 and 0.7, 74.0 and 64.9 with 1 and 0.9.
    2. The learning rate follows one cosine to 0. The paper restarts a cosine every 10 epochs for
       CIFAR-10 and divides the rate by ten at epochs 80 and 120 for CIFAR-100. Networks and rates
       are those of every other method here.
    3. ELR+: the average of the weights starts as a plain mean; in the authors' code its momentum
       rises to 0.997 over 40,000 steps. The weight of the regulariser does not ramp up; for
       CIFAR-100 the authors' code ramps it up over 40,000 steps. After 60 epochs on these tables
       ELR+ is below ELR (83.2 and 76.0 % against 85.7 and 82.4, four seeds).
    4. ELR+: the averaged networks predict, with the mean of their probabilities. In the authors'
       code the two trained networks predict, with the mean of their logits; their averages only
       make targets.
    5. ELR+: the averaged networks make targets in evaluation mode, and their batch normalisation
       averages the statistics of the trained networks. In the authors' code they are in training
       mode, with their own statistics.
    6. ELR+: both networks see the same batches and take turns at each; in the authors' code each
       goes through the rows separately, epoch by epoch.
    7. ELR+: the labels are mixed as given. For CIFAR-100 the authors' code first multiplies them by
       the targets.
    8. The agreement in the logarithm is at most 1 - 1e-4.
    9. ``label_distribution_``, which the paper does not have, is the targets, sharpened with
       temperature 0.5 in ELR+.

    Trusted rows have the loss of cross-entropy. Rows without a label take no part in training.
    ``fit`` takes ``sample_weight``. Cost: as cross-entropy, for ELR+ a little less than three times
    that; ``2 n_classes`` floats per sample, for ELR+ ``3 n_classes``.

    References
    ----------
    .. [1] Liu, Niles-Weed, Razavian and Fernandez-Granda. Early-Learning Regularization Prevents
       Memorization of Noisy Labels. NeurIPS, 2020. arXiv:2007.00151

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from noisyfit import ELRClassifier, noise
    >>> X, y = load_digits(return_X_y=True)
    >>> noisy = noise.symmetric(y, 0.4, random_state=0)
    >>> clf = ELRClassifier(max_epochs=20, random_state=0).fit(X, noisy.labels)
    >>> bool((clf.corrected_labels_ == y).mean() > 0.9)
    True
    """

    _weighs_rows: ClassVar = True
    peer_: Any
    peer_optimizer_: torch.optim.Optimizer
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "regularization": [Interval(Real, 0, None, closed="left")],
        "target_momentum": [Interval(Real, 0, 1, closed="left")],
        "n_networks": [Interval(Integral, 1, 2, closed="both")],
        "mixup_alpha": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        module: Any = None,
        *,
        regularization: float = 7.0,
        target_momentum: float = 0.9,
        n_networks: int = 1,
        mixup_alpha: float = 1.0,
        **kwargs: Unpack[SharedParameters],
    ) -> None:
        super().__init__(module, **kwargs)
        self.regularization = regularization
        self.target_momentum = target_momentum
        self.n_networks = n_networks
        self.mixup_alpha = mixup_alpha

    def _fit(self, data: TrainingData) -> None:
        step = self._elr_step if self.n_networks == 1 else self._elr_plus_step
        for _ in self._epochs():
            for idx, x, _ in data.batches("weak", labelled=True):
                weights = torch.where(data.trusted[idx], 0.0, self.regularization)
                step(data, idx, x, weights)

    def _init_state(self, n: int, n_classes: int) -> dict[str, Tensor]:
        own = {"module_targets": torch.zeros(n, n_classes)}
        if self.n_networks == 2:
            own |= {"peer_targets": torch.zeros(n, n_classes), "n_steps": torch.tensor(0.0)}
        return super()._init_state(n, n_classes) | own

    # ---------------------------------------------------------------------------- steps

    def _elr_step(self, data: TrainingData, idx: Tensor, x: Tensor, weights: Tensor) -> None:
        logits = self.module_(x)
        targets = self._move_targets("module", idx, logits)
        loss = cross_entropy(logits, data.targets(idx))
        loss = loss + weights * early_learning_regularizer(logits, targets)  # Eq. 6
        self._descend(data.weighed(loss, idx).mean())
        self.state_.probs_sum.index_add_(0, idx, logits.detach().float().softmax(1))

    def _elr_plus_step(self, data: TrainingData, idx: Tensor, x: Tensor, weights: Tensor) -> None:
        labels = data.weighed(data.distributions(idx), idx)
        weights = data.weighed(weights, idx)
        for name, other in (("module", "peer"), ("peer", "module")):
            with torch.no_grad():
                guess = self._network(f"{other}_average").eval()(x)
            targets = self._move_targets(name, idx, guess)
            columns = torch.cat([labels, targets, weights[:, None]], 1)
            mixed_x, mixed = mixup(x, columns, alpha=self.mixup_alpha)
            mixed_labels, mixed_targets, mixed_weights = mixed.split(
                [self.n_classes_, self.n_classes_, 1], 1
            )
            logits = self._network(name)(mixed_x)
            loss = cross_entropy(logits, mixed_labels)
            loss = loss + mixed_weights[:, 0] * early_learning_regularizer(logits, mixed_targets)
            self._descend(loss.mean(), name)
            self.state_.probs_sum.index_add_(0, idx, guess.float().softmax(1))
        self._average_weights()

    def _move_targets(self, name: str, idx: Tensor, logits: Tensor) -> Tensor:
        """Move the targets of some rows towards the predictions, and return them, Eq. 9."""
        targets = getattr(self.state_, f"{name}_targets")
        probs = logits.detach().float().softmax(1).clamp(*PROBABILITY_RANGE)
        probs = probs / probs.sum(1, keepdim=True)
        targets[idx] = torch.lerp(targets[idx], probs, 1 - self.target_momentum)
        moved: Tensor = targets[idx]
        return moved

    def _average_weights(self) -> None:
        """Update the averages of the weights; the first steps form a plain mean."""
        self.state_.n_steps += 1
        momentum = torch.minimum(
            1 - 1 / self.state_.n_steps, torch.full_like(self.state_.n_steps, WEIGHT_MOMENTUM)
        )
        for name in self._networks:
            follow(self._network(f"{name}_average"), self._network(name), 1 - momentum)

    # ------------------------------------------------------------------------ networks, beliefs

    @property
    def _networks(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("module", "peer")[: self.n_networks]

    @property
    def _copies(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(f"{name}_average" for name in self._networks) if self.n_networks == 2 else ()

    def initialize_module(self) -> ELRClassifier:
        """Make the networks, and name those that predict."""
        super().initialize_module()
        single = self.n_networks == 1 or self._restores_an_epoch()
        self.predicting_ = ["module"] if single else list(self._copies)
        return self

    def _make_network(self, name: str, *, independent: bool) -> nn.Module:
        if name not in self._copies:
            return super()._make_network(name, independent=independent)
        return deepcopy(getattr(self, name.removesuffix("average")))

    def _probabilities(self, rows: TrainingData | Rows) -> Tensor:
        """Return the mean prediction of the averaged networks, or that of the only one."""
        networks = self._together(self.predicting_)
        return self._evaluate(
            lambda x: sum(network(x).float().softmax(1) for network in networks) / len(networks),
            networks,
            rows,
        )

    def _beliefs(self, data: TrainingData) -> tuple[Tensor, Tensor]:
        """Return the mean over epochs of the probability of the given label, and the targets.

        ELR+ sharpens the targets, because training on mixed rows makes predictions hesitant.
        """
        rating = super()._beliefs(data)[0]
        targets = self.state_.module_targets
        if self.n_networks == 2:
            targets = targets + self.state_.peer_targets
        distribution = mean_of(targets)
        return rating, distribution if self.n_networks == 1 else sharpen(distribution, TEMPERATURE)
