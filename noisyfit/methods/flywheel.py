"""LNL-flywheel: one EM cycle finds the wrong labels, another repairs them."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from noisyfit.data.training import TrainingData
from noisyfit.estimator.keywords import SharedParameters
from noisyfit.estimator.peers import Peers
from noisyfit.estimator.warmup import TEMPERATURE, WarmUp
from noisyfit.nn import features
from noisyfit.nn.beliefs import given_probability, newest_share, refurbish, sharpen
from noisyfit.nn.build import projection_head
from noisyfit.nn.losses import confidence_regularizer, contrastive, cross_entropy
from noisyfit.nn.mixing import mixup
from noisyfit.utils.parameters import Interval, StrOptions

GAMMA_RANGE = (0.01, 0.99)
UNKNOWN_GAMMA = 0.5  # before the first cycle
SMALLEST = 1e-30  # of a probability, to take its logarithm
OUTLIER_FLOOR = 1e-3
CONTRASTIVE_TEMPERATURE = 0.05


class FlywheelClassifier(WarmUp, Peers):
    """Learn from noisy labels with two networks that find and repair the wrong ones for each other.

    A main network separates clean labels from corrupted ones, and an auxiliary network guesses the
    true class of the corrupted ones. Each is trained on what the other has found, in two EM cycles
    that share one likelihood. Good when a network memorises wrong labels: tables, small or
    long-trained image networks, symmetric, class-dependent and crowd noise. While the networks are
    still learning from the labels the cycles do not start, and the result is that of cross-entropy.

    Step by step (section 3 of [1]_), after a warm-up of both networks on the given labels:

    1. E-step of the main network: the probability that each label is clean (Eq. 4).
    2. E-step of the auxiliary network: a mixture of the given label, weighted by its probability of
       being clean, and the prediction (Eq. 11).
    3. M-step of the auxiliary network: cross-entropy on these targets with MixUp, and a contrastive
       term on strong views (Eq. 13).
    4. Corruption matrix: from it, the probability of each given label if it is corrupted (Eq. 14).
    5. M-step of the main network: cross-entropy on the auxiliary network's labels, minus the
       confidence regulariser, which penalises confidence in the wrong place (Eqs. 8 and 9).
    6. Gamma: the share of clean labels (Eq. 6).

    Parameters
    ----------
    warmup_epochs : int or None, default=None
        Epochs on the given labels before the first cycle. None means: until the epoch in which a
        pilot predicts unseen labels best, or to the end if it predicts them as well there; without
        a pilot, that is with fewer than 100 labels, one sixth of the epochs.
    cr_weight : float >= 0, default=3.0
        Weight of the confidence regulariser, ``lambda`` in [1]_, Eq. 8. 0 is its ablation "w/o CR".
        It is lowered to 0.9 / (largest class share) if a class is so frequent that its own labels
        would be pushed away.
    auxiliary : bool, default=True
        Whether to use an auxiliary network. False is the ablation "w/o Aux.": the main network
        alone learns the given labels, each weighted by its probability of being clean (Eq. 7), with
        ``eps`` fixed at 1 / n_classes, and predicts as ``module_``.
    adaptive_outlier : bool, default=True
        Estimate the probability of a corrupted label for each row. False fixes it at 1 / n_classes,
        the ablation "eps fixed".
    contrastive_weight : float >= 0, default=0.025
        Weight of the contrastive term, ``alpha`` in [1]_. 0 is its ablation "w/o CL".
    mixup_alpha : float > 0, default=0.3
        Parameter of the Beta distribution of MixUp.
    temporal_momentum : float in [0, 1), default=0.9
        Momentum of the mean over epochs of the auxiliary network's predictions. 0 is the published
        form.
    temperature : float > 0, default=0.5
        Values below 1 sharpen the predictions in Eq. 11. 1 is the published form.
    zero_diagonal : bool, default=True
        Set the diagonal of the corruption matrix to zero, since a corrupted label is never the true
        one. False is the published form.
    inference : {"both", "auxiliary", "main"}, default="both"
        ``"both"`` predicts with the mean logits of the two networks. ``"auxiliary"``, which is
        ``module_``, is the published form; it also predicts if a callback restores the best epoch.
    {shared parameters}

    Attributes
    ----------
    clean_probability_ : ndarray of shape (n_training_rows,)
        Probability that each label is clean, Eq. 4. 1 for trusted rows, 0 for rows without a label;
        equals ``label_quality_`` for labelled rows that were trained on.
    gamma_ : float
        Share of clean labels in the model; it tends to be too low. NaN if there was no cycle.
    corruption_matrix_ : ndarray of shape (n_classes, n_classes)
        Probability of the observed class (column) given the true class (row) among corrupted
        labels, ``T_c`` in [1]_. NaN if there was no cycle.
    predicting_ : list of str
        The networks that predict: ``"module"``, which is the auxiliary one, and ``"main"``.
    warmup_epochs_ : int
        Number of epochs before the first cycle; ``n_iter_`` if there was none.
    {shared attributes}

    Notes
    -----
    Differences from the paper:

    1. The auxiliary network's predictions are averaged over epochs (``temporal_momentum``) wherever
       they are used, sharpened (``temperature``) in Eq. 11, and the corruption matrix has a zero
       diagonal (``zero_diagonal``). As published, whole classes swap under class-dependent noise.
       The published form is ``temporal_momentum=0, temperature=1, zero_diagonal=False,
       warmup_epochs=10``.
    2. The warm-up ends when learning does (``warmup_epochs``); in the paper, after 10 epochs. A
       pilot decides when the warm-up ends, from predictions on unseen rows, and estimates
       which classes are mistaken for which. With its transition matrix, given labels become
       probabilities of the true classes during the warm-up, and gamma and the corruption matrix are
       initialised. Its predictions are averaged with those of both networks in Eqs. 4, 11 and 14,
       and sharpened: at temperature 0.3 in Eq. 4, because networks lean towards labels that they
       have seen, and at ``temperature`` in the others. Without that, each cycle believes a few more
       of the wrong labels (development tables: 2.0 points worse on average; one seed).
       Convolutional networks that are still learning fall behind in the cycles: on 4,000
       Fashion-MNIST images with 40 % symmetric noise and the default CNN, cycles that start after 5
       of 30 epochs end 9 points below cross-entropy (one seed).
    3. One evaluation of the auxiliary network per epoch, on two weak views, serves Eq. 11 of the
       next cycle and Eq. 14 of this one. For Eq. 14 the paper evaluates once more, without
       augmentation.
    4. MixUp draws one coefficient per batch from Beta(0.3, 0.3); the paper does not specify it.
       With the Beta(4, 4) of related methods, small networks learn more slowly, and rows with few
       columns turn into rows of other classes: over 16 cells of tables, one seed, it is 1.2 points
       worse, and more than a point below cross-entropy in four cells instead of two; digits do not
       change.
    5. The contrastive term is SimCLR's, without labels, at temperature 0.05, on a projection head
       of two layers; the paper gives neither value. It applies to ``module_`` only; the main
       network has none.
    6. Eq. 4 is computed in log space. Gamma is clipped to [0.01, 0.99], the outlier probability is
       floored at 0.001, and the logarithm of the regulariser is bounded by 1e-8.
    7. ``cr_weight`` is lowered for frequent classes (see there). Both networks have the same
       architecture and optimizer. These, the learning rate and its cosine, the number of epochs and
       the views are those of all methods of this package.
    8. Gamma starts as the agreement of the averaged predictions with the given labels, and Eq. 6 is
       the mean over labelled rows. Eq. 4 uses rows without augmentation, in evaluation mode; the
       paper does not say. The paper has neither trusted nor unlabelled rows.
    9. Both networks predict (``inference``); in the paper, the auxiliary network.

    Two classes: with a weight of at most 2 the regulariser rejects no label (a label loses only if
    another class leads by more than ``1 / (cr_weight - 1)``), and with two balanced classes the
    weight is lowered to 1.8. Clean and corrupted labels are then told apart by the zero diagonal:
    the probability of a corrupted label is that of the other class.

    Trusted rows are clean with probability 1; rows without a label are treated as corrupted. Cost:
    a pilot, at most twice cross-entropy, plus 15 passes through a network per row and cycle, where
    cross-entropy needs 3 (a forward pass counts as one, a backward pass as two); ``n_classes + 3``
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

    _peers: ClassVar = ("module", "main")
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
        "inference": [StrOptions({"both", "auxiliary", "main"})],
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
        inference: str = "both",
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
            if self._warming_up(data, epoch):
                self._warm_up(data, self._networks)
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
            "gamma": torch.tensor(UNKNOWN_GAMMA),
            "outlier": torch.full((n,), uniform),
            "ensemble": torch.full((n, n_classes), uniform),
            "corruption": torch.full((n_classes, n_classes), uniform),
        }

    # ---------------------------------------------------------------------------- steps

    def _begin(self, data: TrainingData) -> None:
        """Start from the transition matrix of the pilot, or from the agreement of ``module_``."""
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
        """Return the share of given labels that ``module_`` predicts."""
        return (self.state_.ensemble.argmax(1) == data.labels)[rows].float().mean()

    def _clean_probability(self, data: TrainingData) -> Tensor:
        network = self._network(self._main)
        if self.state_.has_pilot:
            sharp = sharpen(self._with_pilot(self._predict_probs(network, data)), TEMPERATURE)
            logits = sharp.clamp_(min=SMALLEST).log_()
        else:
            logits = self._predict(network, data)
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
        """Predictions of ``module_``, averaged over the epochs and with any pilot."""
        return self._with_pilot(self.state_.ensemble)

    def _refurbish(self, data: TrainingData, clean: Tensor) -> Tensor:
        sharp = sharpen(self._ensemble, self.temperature)
        return refurbish(clean, data.targets(), sharp)

    def _train_auxiliary(self, data: TrainingData, targets: Tensor) -> None:
        views = ("weak", "strong", "strong") if self.contrastive_weight else ("weak",)
        for idx, x, *strong, _ in data.batches(*views):
            mixed_x, mixed_targets = mixup(x, targets[idx], alpha=self.mixup_alpha)
            loss = cross_entropy(self.module_(mixed_x), mixed_targets).mean()
            if strong:
                loss = loss + self.contrastive_weight * self._contrastive(*strong).mean()
            self._descend(loss)

    def _contrastive(self, first: Tensor, second: Tensor) -> Tensor:
        both = features.embeddings(self.module_, torch.cat([first, second]))
        first_z, second_z = self.projector_(both.float()).chunk(2)
        return contrastive(first_z, second_z, temperature=CONTRASTIVE_TEMPERATURE)

    def _refresh(self, data: TrainingData, epoch: int) -> None:
        """Average the predictions of ``module_`` over two weak copies, then over the epochs."""
        probs = self._predict_probs(self.module_, data, "weak")
        probs += self._predict_probs(self.module_, data, "weak")
        self.state_.ensemble.lerp_(probs.div_(2), newest_share(self.temporal_momentum, epoch))

    def _corruption(self, data: TrainingData, clean: Tensor) -> Tensor:
        kept = data.has_label
        return corruption_matrix(
            clean[kept], data.labels[kept], self._ensemble[kept],
            zero_diagonal=self.zero_diagonal,
        )  # fmt: skip

    def _outlier(self, data: TrainingData) -> Tensor:
        beliefs = self._ensemble
        if self.state_.has_pilot:
            beliefs = sharpen(beliefs, self.temperature)
        return outlier_probability(beliefs, data.labels, self.state_.corruption)

    def _resampled(self, data: TrainingData) -> Tensor:
        """Return the auxiliary network's labels; trusted rows keep theirs."""
        return torch.where(data.trusted, data.labels, self._ensemble.argmax(1))

    def _train_main(
        self, data: TrainingData, labels: Tensor, weights: Tensor | None = None
    ) -> None:
        """Learn weighted labels under the confidence regulariser; -1 means no label."""
        known = labels[labels >= 0]
        prior = torch.bincount(known, minlength=data.n_classes) / len(known)
        cr_weight = min(self.cr_weight, 0.9 / float(prior.max()))
        for idx, x, _ in data.batches("weak", labelled=not self.auxiliary):
            logits = self._network(self._main)(x)
            loss = cross_entropy(logits, labels[idx])
            loss = loss if weights is None else weights[idx] * loss
            loss = loss + cr_weight * confidence_regularizer(logits, prior)
            self._descend(loss.mean(), self._main)

    # ------------------------------------------------------------------------ networks, beliefs

    @property
    def _networks(self) -> tuple[str, ...]:  # type: ignore[override]
        return self._peers if self.auxiliary else ("module",)

    @property
    def _main(self) -> str:
        """Name of the main network."""
        return self._networks[-1]

    def initialize_module(self) -> FlywheelClassifier:
        """Make the networks, and the projection head of the contrastive term."""
        super().initialize_module()
        if self.inference == "main":
            self.predicting_ = [self._main]
        elif self.inference == "auxiliary" or not self.auxiliary:
            self.predicting_ = ["module"]
        probe = torch.zeros(2, *self.row_shape_, device=self.device_)
        size = features.embedding_size(self.module_, probe)
        self.projector_ = projection_head(size).to(self.device_)
        return self

    def initialize_optimizer(self) -> FlywheelClassifier:
        """Give the projection head to the auxiliary network's optimizer."""
        super().initialize_optimizer()
        self.optimizer_.add_param_group({"params": list(self.projector_.parameters())})
        return self

    def _rate(self, data: TrainingData) -> Tensor:
        """Return Eq. 4 for new rows, with the predictions of ``module_`` in Eq. 14."""
        probs = self._predict_probs(self.module_, data)
        corruption = torch.as_tensor(self.corruption_matrix_, device=self.device_)
        corruption = corruption.nan_to_num(1 / self.n_classes_)
        gamma = torch.tensor(self.gamma_, device=self.device_).nan_to_num(UNKNOWN_GAMMA)
        outlier = outlier_probability(probs, data.labels, corruption)
        return clean_probability(
            self._predict(self._network(self._main), data), data.labels, outlier, gamma
        )

    def _beliefs(self, data: TrainingData) -> tuple[Tensor, Tensor]:
        clean = self._clean_probability(data)
        self.clean_probability_ = clean.cpu().numpy()
        self.gamma_ = self._once_begun(float(self.state_.gamma))
        self.corruption_matrix_ = self._once_begun(self.state_.corruption.cpu().numpy())
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
    """Return T_c, among corrupted labels: true classes in rows, observed ones in columns."""
    n_classes = probs.shape[1]
    wrong = (1 - clean)[:, None] * probs  # (n, K)
    counts = probs.new_zeros(n_classes, n_classes).index_add_(0, labels, wrong).T
    if zero_diagonal:
        counts.fill_diagonal_(0)
    total = counts.sum(1, keepdim=True)
    return torch.where(total > 1e-8, counts / total, 1 / n_classes)
