"""LNL-flywheel: one EM cycle finds the wrong labels, another one repairs them."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from noisyfit.data.rows import Rows
from noisyfit.data.training import TrainingData
from noisyfit.estimator.base import NoisyLabelClassifier
from noisyfit.estimator.keywords import SharedParameters
from noisyfit.estimator.warmup import WarmUp
from noisyfit.nn import features
from noisyfit.nn.beliefs import given_probability, newest_share, refurbish, sharpen
from noisyfit.nn.build import projection_head
from noisyfit.nn.losses import confidence_regularizer, contrastive, cross_entropy, mixup
from noisyfit.utils.parameters import Interval, StrOptions

GAMMA_RANGE = (0.01, 0.99)
SMALLEST = 1e-30  # of a probability, to take its logarithm
OUTLIER_FLOOR = 1e-3
CONTRASTIVE_TEMPERATURE = 0.05


class FlywheelClassifier(WarmUp, NoisyLabelClassifier):
    """Learn from noisy labels with two networks that find and repair the wrong ones for each other.

    A main network tells clean labels from corrupted ones, an auxiliary network guesses the class of
    the corrupted ones; each is trained on what the other has found, in two EM cycles that share one
    likelihood. Good when a network memorises wrong labels: tables, small or long-trained image
    networks, symmetric, class-dependent and crowd noise. While the networks are still learning from
    the labels the cycles do not start, and the result is that of cross-entropy.

    Step by step (section 3 of [1]_), after a warm-up of both networks on the given labels:

    1. E-step of the main network: the probability that each label is clean (Eq. 4).
    2. E-step of the auxiliary network: the given label as far as it is clean, else the prediction
       (Eq. 11).
    3. M-step of the auxiliary network: cross-entropy on these targets with MixUp, and a contrastive
       term on strong views (Eq. 13).
    4. The corruption matrix, and from it the probability of each given label if it is corrupted
       (Eq. 14).
    5. M-step of the main network: cross-entropy on the auxiliary network's labels, minus confidence
       in the wrong place: the confidence regulariser (Eqs. 8 and 9).
    6. The share of clean labels (Eq. 6).

    Parameters
    ----------
    warmup_epochs : int or None, default=None
        Epochs on the given labels before the first cycle. None means, for tables, after the epoch
        in which the pilot predicts unseen labels best, or never if it predicts them as well at the
        end; without a pilot, that is for fewer than 100 labels, one sixth of the epochs. For 400
        images and more also when the likelihood of held-out labels, one in twenty, has not risen
        for three epochs, and never if that has not happened at half time.
    cr_weight : float >= 0, default=3.0
        Weight of the confidence regulariser, ``lambda`` in [1]_, Eq. 8. 0 is its ablation
        "w/o CR". Lowered to 0.9 / (largest class share) where a class is so frequent that its own
        labels would be pushed away.
    auxiliary : bool, default=True
        Whether there is an auxiliary network. False is its ablation "w/o Aux.": the main network
        alone learns the given labels, each weighed by its probability of being clean (Eq. 7), with
        ``eps`` fixed at 1 / n_classes, and predicts as ``module_``.
    adaptive_outlier : bool, default=True
        Estimate the probability of a corrupted label row by row. False keeps 1 / n_classes, its
        ablation "eps fixed".
    contrastive_weight : float >= 0, default=0.025
        Weight of the contrastive term, ``alpha`` in [1]_. 0 is its ablation "w/o CL".
    mixup_alpha : float > 0, default=0.3
        Parameter of the Beta distribution of MixUp.
    temporal_momentum : float in [0, 1), default=0.9
        Of the mean over epochs of the auxiliary network's predictions. 0 is the published form.
    temperature : float > 0, default=0.5
        Below 1 sharpens the predictions in Eq. 11. 1 is the published form.
    zero_diagonal : bool, default=True
        A corrupted label is never the true one: zero the diagonal of the corruption matrix. False
        is the published form.
    inference : {"auxiliary", "main"}, default="auxiliary"
        The network that predicts. ``"auxiliary"``, which is ``module_``, is the published form.
    {shared parameters}

    Attributes
    ----------
    clean_probability_ : ndarray of shape (n_training_rows,)
        Probability that each label is clean, Eq. 4. 1 for trusted rows, 0 for rows without a label;
        the same as ``label_quality_`` for labelled rows that were trained on.
    gamma_ : float
        Share of clean labels as the model sees it; it tends to be too low.
    corruption_matrix_ : ndarray of shape (n_classes, n_classes)
        Probability of the observed class (column) given the true class (row) among corrupted
        labels, ``T_c`` in [1]_.
    warmup_epochs_ : int
        Epochs before the first cycle; ``n_iter_`` if there was none.
    {shared attributes}

    Notes
    -----
    Differences from the paper:

    1. The auxiliary network's predictions are averaged over epochs (``temporal_momentum``) wherever
       they are used, sharpened (``temperature``) in Eq. 11, and the corruption matrix has a zero
       diagonal (``zero_diagonal``). As published, whole classes swap under class-dependent noise.
       The published form is ``temporal_momentum=0, temperature=1, zero_diagonal=False,
       warmup_epochs=10``.
    2. The warm-up ends when learning does (``warmup_epochs``); in the paper after 10 epochs. On
       tables a pilot finds out when, from predictions of rows that it has not seen, and which
       classes are mistaken for which. With its transition matrix given labels become probabilities
       of the true classes in the warm-up, and gamma and the corruption matrix have their start; its
       predictions are averaged with those of both networks in Eqs. 4, 11 and 14. Convolutional
       networks that are still learning fall behind in the cycles: on 4,000 Fashion-MNIST images
       with symmetric noise of 40 % and the default CNN, cycles after 5 of 30 epochs end 9 points
       below cross-entropy (one seed).
    3. One evaluation of the auxiliary network an epoch, on two weak views, serves Eq. 11 of the
       next cycle and Eq. 14 of this one; the paper evaluates Eq. 14 once more, unaugmented.
    4. MixUp draws one coefficient a batch from Beta(0.3, 0.3); the paper does not say. With the
       Beta(4, 4) of related methods, small networks learn more slowly, and rows of few columns
       become rows of other classes: over 16 cells of tables, one seed, it is 1.2 points worse and
       below cross-entropy by more than a point in four, not two; digits are the same.
    5. The contrastive term is that of SimCLR without labels at temperature 0.05, on a projection
       head of two layers; the paper gives neither. It runs on ``module_``; the main
       network has none.
    6. Eq. 4 is computed in log space, gamma clipped to [0.01, 0.99], the outlier probability
       floored at 0.001, and the logarithm of the regulariser bounded by 1e-8.
    7. ``cr_weight`` is lowered for frequent classes (see there). Both networks have the same
       architecture and optimizer, which are those of all methods of this package, as are the
       learning rate, its cosine, the number of epochs and the views.
    8. Gamma starts as the agreement of the averaged predictions with the given labels, and Eq. 6
       is the mean over labelled rows. Eq. 4 sees rows without augmentation, in evaluation mode; the
       paper does not say. It has neither trusted nor unlabelled rows.

    Two classes: with a weight of at most 2 the regulariser rejects no label (a label loses only if
    another class leads by more than ``1 / (cr_weight - 1)``), and with two balanced classes the
    weight is lowered to 1.8. What tells clean from corrupted is then the zero diagonal: the
    probability of a corrupted label is that of the other class.

    Trusted rows are clean with probability 1; rows without a label are trained on as corrupted.
    Cost: that of a pilot, at most twice cross-entropy, and 15 passes through a network per row and
    cycle, cross-entropy needs 3 (a forward pass is one, a backward pass two); ``n_classes + 3``
    floats per sample.

    References
    ----------
    .. [1] Kim, Chang, Cho, Lee and Han. Learning with Noisy Labels: Interconnection of Two
       Expectation-Maximizations.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from noisyfit import FlywheelClassifier, noise
    >>> X, y = load_digits(return_X_y=True)
    >>> noisy = noise.symmetric(y, 0.4, random_state=0)
    >>> clf = FlywheelClassifier(max_epochs=20, random_state=0).fit(X, noisy.labels)
    >>> bool((clf.corrected_labels_ == y).mean() > 0.9)
    True
    """

    main_: Any
    main_optimizer_: torch.optim.Optimizer
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "warmup_epochs": [Interval(Integral, 1, None, closed="left"), None],
        "cr_weight": [Interval(Real, 0, None, closed="left")],
        "auxiliary": ["boolean"],
        "adaptive_outlier": ["boolean"],
        "contrastive_weight": [Interval(Real, 0, None, closed="left")],
        "mixup_alpha": [Interval(Real, 0, None, closed="neither")],
        "temporal_momentum": [Interval(Real, 0, 1, closed="left")],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "zero_diagonal": ["boolean"],
        "inference": [StrOptions({"auxiliary", "main"})],
    }

    def __init__(
        self,
        module: Any = None,
        *,
        warmup_epochs: int | None = None,
        cr_weight: float = 3.0,
        auxiliary: bool = True,
        adaptive_outlier: bool = True,
        contrastive_weight: float = 0.025,
        mixup_alpha: float = 0.3,
        temporal_momentum: float = 0.9,
        temperature: float = 0.5,
        zero_diagonal: bool = True,
        inference: str = "auxiliary",
        **kwargs: Unpack[SharedParameters],
    ) -> None:
        super().__init__(module, **kwargs)
        self.warmup_epochs = warmup_epochs
        self.cr_weight = cr_weight
        self.auxiliary = auxiliary
        self.adaptive_outlier = adaptive_outlier
        self.contrastive_weight = contrastive_weight
        self.mixup_alpha = mixup_alpha
        self.temporal_momentum = temporal_momentum
        self.temperature = temperature
        self.zero_diagonal = zero_diagonal
        self.inference = inference

    def _fit(self, data: TrainingData) -> None:
        state = self.state_
        for epoch in self._epochs():
            if self._warming_up(data, epoch, state.ensemble):
                self._warm_up(data)
                self._refresh(data, epoch)
                continue
            if state.first_epoch == epoch:
                self._begin(data)
            clean = self._clean_probability(data)  # E-step of the main network, Eq. 4
            if self.auxiliary:
                self._run_auxiliary_cycle(data, clean, epoch)  # Eqs. 11 to 14
                self._train_main(data, self._resampled(data))  # its M-step, Eqs. 8 and 9
            else:
                self._train_main(data, data.labels, clean)  # its M-step, Eqs. 7 and 9
                self._refresh(data, epoch)
            state.gamma.fill_(clean[data.has_label].mean().clamp(*GAMMA_RANGE))  # Eq. 6

    def _init_state(self, n: int, n_classes: int) -> dict[str, Tensor]:
        uniform = 1 / n_classes
        return {
            **self._warm_up_state(n, n_classes),
            "gamma": torch.tensor(0.5),
            "outlier": torch.full((n,), uniform),
            "ensemble": torch.full((n, n_classes), uniform),
            "corruption": torch.full((n_classes, n_classes), uniform),
        }

    # ---------------------------------------------------------------------------- steps

    def _warm_up(self, data: TrainingData) -> None:
        weights = self._warm_up_weights(data)
        trained = [(self.module_, self.optimizer_), (self._main, self._main_optimizer)]
        for idx, x, _ in data.batches("weak", labelled=True):
            for network, optimizer in trained if self.auxiliary else trained[:1]:
                logits = network(x)
                loss = weights[idx] * cross_entropy(logits, self._meant(data, idx, logits))
                self._descend(loss.mean(), optimizer)

    def _begin(self, data: TrainingData) -> None:
        """Start from the transition matrix of the pilot, or from what ``module_`` agrees with."""
        state, kept = self.state_, data.has_label
        gamma = self._agreement(data, kept)
        if state.has_pilot:
            believed = self._posterior(data, state.ensemble)[kept]
            gamma = believed.gather(1, data.labels[kept][:, None]).mean()
            wrong = state.transition.clone().fill_diagonal_(0)
            state.corruption.copy_(nn.functional.normalize(wrong, p=1, dim=1))
            if self.adaptive_outlier:
                state.outlier.copy_(self._outlier(data))
        state.gamma.fill_(gamma.clamp(*GAMMA_RANGE))

    def _agreement(self, data: TrainingData, rows: Tensor) -> Tensor:
        """Return the share of the given labels of some rows that ``module_`` predicts."""
        return (self.state_.ensemble.argmax(1) == data.labels)[rows].float().mean()

    def _clean_probability(self, data: TrainingData) -> Tensor:
        logits = self._predict(self._main, data)
        if self.state_.has_pilot:
            logits = self._with_pilot(logits.softmax(1)).clamp(min=SMALLEST).log()
        q = clean_probability(logits, data.labels, self.state_.outlier, self.state_.gamma)
        return torch.where(data.trusted, 1.0, torch.where(data.has_label, q, 0.0))

    def _run_auxiliary_cycle(self, data: TrainingData, clean: Tensor, epoch: int) -> None:
        """Take the E-step and the M-step of the auxiliary network, and refine ``eps``."""
        self._train_auxiliary(data, self._refurbish(data, clean))  # Eqs. 11 and 13
        if self.adaptive_outlier:
            self.state_.corruption.copy_(self._corruption(data, clean))  # f of the last cycle
        self._refresh(data, epoch)
        if self.adaptive_outlier:
            self.state_.outlier.copy_(self._outlier(data))  # Eq. 14

    @property
    def _ensemble(self) -> Tensor:
        """What ``module_`` predicts of each row, over the epochs, and the pilot if there is one."""
        return self._with_pilot(self.state_.ensemble)

    def _refurbish(self, data: TrainingData, clean: Tensor) -> Tensor:
        sharp = sharpen(self._ensemble, self.temperature)
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
        """Average the predictions of ``module_`` over two weak copies, then over the epochs."""
        probs = sum(self._predict(self.module_, data, "weak").softmax(1) for _ in range(2)) / 2
        self.state_.ensemble.lerp_(probs, newest_share(self.temporal_momentum, epoch))

    def _corruption(self, data: TrainingData, clean: Tensor) -> Tensor:
        kept = data.has_label
        return corruption_matrix(
            clean[kept], data.labels[kept], self._ensemble[kept],
            zero_diagonal=self.zero_diagonal,
        )  # fmt: skip

    def _outlier(self, data: TrainingData) -> Tensor:
        return outlier_probability(self._ensemble, data.labels, self.state_.corruption)

    def _resampled(self, data: TrainingData) -> Tensor:
        """Return the auxiliary network's labels; trusted rows keep theirs."""
        return torch.where(data.trusted, data.labels, self._ensemble.argmax(1))

    def _train_main(
        self, data: TrainingData, labels: Tensor, weights: Tensor | None = None
    ) -> None:
        """Learn labels, each with its weight, under the confidence regulariser; -1 is no label."""
        known = labels[labels >= 0]
        prior = torch.bincount(known, minlength=data.n_classes) / len(known)
        cr_weight = min(self.cr_weight, 0.9 / float(prior.max()))
        for idx, x, _ in data.batches("weak", labelled=not self.auxiliary):
            logits = self._main(x)
            loss = cross_entropy(logits, labels[idx])
            loss = loss if weights is None else weights[idx] * loss
            loss = loss + cr_weight * confidence_regularizer(logits, prior)
            self._descend(loss.mean(), self._main_optimizer)

    # ------------------------------------------------------------------------ networks, beliefs

    @property
    def _networks(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("module", "main") if self.auxiliary else ("module",)

    @property
    def _main(self) -> nn.Module:
        main: nn.Module = self.main_ if self.auxiliary else self.module_
        return main

    @property
    def _main_optimizer(self) -> torch.optim.Optimizer:
        return self.main_optimizer_ if self.auxiliary else self.optimizer_

    def initialize_module(self) -> FlywheelClassifier:
        """Make the networks, and the projection head of the contrastive term."""
        super().initialize_module()
        probe = torch.zeros(2, *self.row_shape_, device=self.device_)
        size = features.embedding_size(self.module_, probe)
        self.projector_ = projection_head(size).to(self.device_)
        return self

    def initialize_optimizer(self) -> FlywheelClassifier:
        """Give the projection head to the auxiliary network's optimizer."""
        super().initialize_optimizer()
        self.optimizer_.add_param_group({"params": list(self.projector_.parameters())})
        return self

    def _probabilities(self, rows: TrainingData | Rows) -> Tensor:
        """Return what the network named by ``inference`` predicts."""
        network = self._main if self.inference == "main" else self.module_
        return self._predict(network, rows).softmax(1)

    def _rate(self, data: TrainingData) -> Tensor:
        """Return Eq. 4 for new rows, with the predictions of ``module_`` in Eq. 14."""
        probs = self._predict(self.module_, data).softmax(1)
        corruption = torch.as_tensor(self.corruption_matrix_, device=self.device_)
        gamma = torch.tensor(self.gamma_, device=self.device_)
        outlier = outlier_probability(probs, data.labels, corruption)
        return clean_probability(self._predict(self._main, data), data.labels, outlier, gamma)

    def _beliefs(self, data: TrainingData) -> tuple[Tensor, Tensor]:
        clean = self._clean_probability(data)
        self.clean_probability_ = clean.cpu().numpy()
        self.gamma_ = float(self.state_.gamma)
        self.warmup_epochs_ = self._length_of_warm_up()
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
    given = given_probability(logits.log_softmax(1), labels)
    return torch.sigmoid(gamma.log() + given - torch.log1p(-gamma) - outlier.log())


def outlier_probability(probs: Tensor, labels: Tensor, corruption: Tensor) -> Tensor:
    """Return the probability of each given label if it is corrupted, Eq. 14, floored."""
    observed = corruption.T[labels.clamp(min=0)]  # (n, K): T_c[y, label_i]
    return (probs * observed).sum(1).clamp(min=OUTLIER_FLOOR)


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
