"""DivideMix: two networks divide the rows for each other, and learn from both parts."""

from __future__ import annotations

from functools import partial
from math import ceil
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple, Unpack

import torch
from torch import Tensor, nn

from noisyfit.data.training import TrainingData, batch_bounds, check_meta_set, draw_meta_rows
from noisyfit.estimator.keywords import SharedParameters
from noisyfit.estimator.metalearning import MetaLearning, TrainingPass
from noisyfit.estimator.peers import Peers
from noisyfit.estimator.warmup import WarmUp
from noisyfit.nn.beliefs import given_probability, refurbish, sharpen
from noisyfit.nn.losses import cross_entropy
from noisyfit.nn.meta import Loss
from noisyfit.nn.mixing import mixup
from noisyfit.quality import small_loss_probability
from noisyfit.utils.parameters import Interval, StrOptions

TINY = 1e-8
FEWEST_STEPS = 60  # of the warm-up; networks that have seen less divide by class, not by mistake


class DivideMixClassifier(WarmUp, MetaLearning, Peers):
    """Learn from noisy labels by repeatedly dividing the rows into believed and doubted ones.

    The loss of each row tells whether its label is believed. Two networks divide the rows for each
    other. The labels of doubted rows are discarded and guessed, and both parts are learned from as
    in semi-supervised learning. Strong where a network learns right labels first and then
    memorises; costs six times as much as cross-entropy. Networks that have not learned yet doubt
    hard classes as a whole.

    Step by step, after a warm-up of both networks on the given labels (Algorithm 1 of [1]_):

    1. Co-divide: a mixture of two Gaussians is fitted to the losses of each network; the other
       network believes the labels that belong to the low-loss component.
    2. Co-refinement: the target of a believed row is a mixture of its label, weighted by the belief
       in it, and the mean prediction of two views (Eq. 3). Co-guessing: the target of a doubted row
       is the mean prediction of both networks. Both targets are sharpened (Eq. 4).
    3. MixMatch: all rows are mixed. The loss is cross-entropy where the label is believed, squared
       error where it is doubted, and a penalty on classes that are never predicted (Eqs. 9 to 12).

    Parameters
    ----------
    clean_threshold : float in [0, 1), default=0.5
        Labels with a larger posterior are believed, ``tau`` in [1]_.
    unlabelled_weight : float >= 0, default=3.0
        Weight of the squared error, summed over the classes; ``lambda_u`` in [1]_ divided by the
        number of classes. It rises from 0 in the first ``warmup_epochs`` epochs after the warm-up.
    prior_weight : float >= 0, default=1.0
        Weight of the penalty, ``lambda_r`` in [1]_.
    temperature : float > 0, default=0.5
        Values below 1 sharpen the targets.
    mixup_alpha : float > 0, default=4.0
        Parameter of the Beta distribution of MixUp.
    warmup_epochs : int or None, default=None
        Epochs on the given labels before the first division. None means: until the epoch in which a
        pilot predicts unseen labels best, or to the end if it predicts them as well there; without
        a pilot, that is with fewer than 100 labels, one sixth of the epochs. A sixth is at least 60
        batches.
    meta_model : {"wnet", "vri"} or None, default=None
        "DivideMix with CLID" of [2]_: a meta-model that weights the believed rows by their loss
        (``"wnet"``) or rescales their logits by embedding and target (``"vri"``, the paper's
        choice), as in `CLIDMetaClassifier`. There is one for each network, trained after the
        warm-up. None is plain DivideMix.
    meta_objective : {"clid", "ce"}, default="clid"
        The objective that judges the meta-models: CLID of a meta set without its labels, or the
        cross-entropy of labels that are known to be right.
    meta_every : int >= 1, default=1
        Batches from one meta step to the next.
    meta_lr : float >= 0, default=3e-3
        Learning rate of the meta-models' optimizer, Adam. 0 leaves them as initialised.
    {shared parameters}

    Attributes
    ----------
    peer_ : torch.nn.Module
        The second network.
    predicting_ : list of str
        The networks that predict: ``"module"`` and ``"peer"``; only the first if a callback
        restores the best epoch.
    meta_model_ : torch.nn.ModuleDict
        The meta-models of ``"module"`` and ``"peer"``, if there are any.
    {shared attributes}

    Notes
    -----
    Differences from the paper:

    1. One weight of the squared error for every noise. The paper has 0, 25, 50 or 150, by data set
       and noise rate, for the mean over classes. On synthetic tables of 8 classes with 40 % wrong
       labels, three seeds, symmetric and pairflip: 85.3 and 73.5 % at 0, 85.9 and 77.2 at 10, 85.0
       and 83.6 at 25, 81.3 and 81.2 at 75 (divided by classes: 0, 1.25, 3.1 and 9.4; before the
       next two points, with which 3 reaches 86.6 and 80.8).
    2. The mixture is fitted to the difference of each loss from the median of its given class.
       Without that, whole classes that are learned late are doubted and given up: on tables of 300
       rows with clean labels, four seeds, 24 points below cross-entropy instead of 5.
    3. A pilot decides when the warm-up ends, from predictions on unseen rows, and
       estimates which classes are mistaken for which. During the warm-up, given labels become
       probabilities of the true classes. Afterwards these are what is refined, and the probability
       of the given label, from a network and the pilot, replaces the mixture of losses: where whole
       classes are mistaken for each other, losses do not tell which labels are wrong. Without a
       pilot the warm-up has at least 60 batches, for the reason in point 2; the 5 points then
       become 1. The paper's penalty on confident predictions in the warm-up, for asymmetric noise
       only, changed nothing.
    4. An epoch is one pass over all rows, each in its own part; in the paper it is as many batches
       as the believed rows fill, each with as many doubted ones. Both networks guess the labels of
       a batch, in evaluation mode, before either is trained.
    5. The prior is the share of each given label; in the paper it is uniform.
    6. Losses are those of one epoch. At the highest noise rate the paper averages five, which is
       worse under class-dependent noise (momentum 0.9: 72 instead of 84 %).
    7. The weight of the squared error rises for as many epochs as the warm-up lasts at least: 10 or
       30 with the paper's settings for CIFAR-10 and CIFAR-100, where the authors have 16 for both.
    8. The networks take turns at each batch; in the paper they take turns at each epoch, so the
       second sees guesses of a first network that is an epoch ahead.
    9. The mixture is fitted in up to a hundred iterations; in the authors' code, in up to ten.
    10. The learning rate falls along a cosine to 0, from the same value as in every other method
        here; the paper has 0.02, and a tenth of it after 150 of 300 epochs.

    With a meta-model (Section 5.2 and Appendix C of [2]_; the rest from the authors' code):

    1. The meta-model changes only the term of the believed rows, since these are the labels it
       should doubt; in the authors' code it changes the squared error as well. On digits with 40 %
       wrong labels, three seeds, that gives 95.5 % instead of 96.7 under symmetric noise and 86.6
       instead of 89.3 under pairflip (``"vri"``; with ``"wnet"`` 96.0 instead of 97.0 and 95.8
       instead of 97.2).
    2. Targets are mixed, so their distribution replaces the label: its cross-entropy is the loss
       that is weighted, its classes share the sample when weights are normalised, and the embedding
       of a label becomes the mean under it. A mixed row is trusted if the row with the larger part
       in it is.
    3. The virtual step is a step on the whole loss by the network's own optimizer, and the
       meta-gradient is exact without a second-order graph. Optimizer, learning rate, schedule and
       sizes are those of `CLIDMetaClassifier`; a meta batch has 100 rows, as in the paper. The meta
       set is the trusted rows or ``X_meta``, if given, otherwise ``min(1000, n_samples / 2)``
       random training rows.
    4. Both networks of the last epoch predict; in the paper, five snapshots of each.

    On digits with 40 % wrong labels, three seeds, the meta-model brings nothing that can be told
    from chance. Under symmetric noise and pairflip: 97.0 and 92.7 % without it, 97.0 and 97.2 with
    ``"wnet"``, 96.7 and 89.3 with ``"vri"``, 97.7 and 97.0 with an untrained ``"vri"``. The
    pairflip figures depend on one seed. It takes three to four times as long.

    Trusted rows are believed with probability 1. Rows without a label are doubted. If all losses
    are equal, all labels are believed; a batch without believed or doubted rows leaves out that
    term. Cost: a pilot, at most twice cross-entropy, plus 18 passes through a network per row and
    epoch, where cross-entropy needs 3; ``n_classes`` floats per sample.

    References
    ----------
    .. [1] Li, Socher and Hoi. DivideMix: Learning with Noisy Labels as Semi-supervised Learning.
       ICLR, 2020. arXiv:2002.07394
    .. [2] Hu et al. CLID-MU: Cross-Layer Information Divergence Based Meta Update Strategy for
       Learning with Noisy Labels. KDD, 2025. arXiv:2507.11807

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from noisyfit import DivideMixClassifier, noise
    >>> X, y = load_digits(return_X_y=True)
    >>> noisy = noise.symmetric(y, 0.4, random_state=0)
    >>> clf = DivideMixClassifier(max_epochs=12, random_state=0).fit(X, noisy.labels)
    >>> bool((clf.corrected_labels_ == y).mean() > 0.9)
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "clean_threshold": [Interval(Real, 0, 1, closed="left")],
        "unlabelled_weight": [Interval(Real, 0, None, closed="left")],
        "prior_weight": [Interval(Real, 0, None, closed="left")],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "mixup_alpha": [Interval(Real, 0, None, closed="neither")],
        "warmup_epochs": [Interval(Integral, 1, None, closed="left"), None],
        "meta_model": [StrOptions({"wnet", "vri"}), None],
        "meta_objective": [StrOptions({"clid", "ce"})],
        "meta_every": [Interval(Integral, 1, None, closed="left")],
        "meta_lr": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        module: Any = None,
        *,
        clean_threshold: float = 0.5,
        unlabelled_weight: float = 3.0,
        prior_weight: float = 1.0,
        temperature: float = 0.5,
        mixup_alpha: float = 4.0,
        warmup_epochs: int | None = None,
        meta_model: str | None = None,
        meta_objective: str = "clid",
        meta_every: int = 1,
        meta_lr: float = 3e-3,
        **kwargs: Unpack[SharedParameters],
    ) -> None:
        super().__init__(module, **kwargs)
        self.clean_threshold = clean_threshold
        self.unlabelled_weight = unlabelled_weight
        self.prior_weight = prior_weight
        self.temperature = temperature
        self.mixup_alpha = mixup_alpha
        self.warmup_epochs = warmup_epochs
        self.meta_model = meta_model
        self.meta_objective = meta_objective
        self.meta_every = meta_every
        self.meta_lr = meta_lr

    def _fit(self, data: TrainingData) -> None:
        meta = self._meta_set(data)
        if meta is not None:
            check_meta_set(meta)
        if self.warmup_epochs is None:
            n_batches = len(batch_bounds(int(data.has_label.sum()), data.batch_size))
            self.warmup_epochs_ = max(self.warmup_epochs_, ceil(FEWEST_STEPS / n_batches))
        for epoch in self._epochs():
            if self._warming_up(data, epoch):
                self._warm_up(data, self._peers)
            else:
                ramp = min(1.0, (epoch - int(self.state_.first_epoch)) / self.warmup_epochs_)
                self._train_on_both_parts(data, ramp * self.unlabelled_weight, meta)

    def _init_state(self, n: int, n_classes: int) -> dict[str, Tensor]:
        return {"meta_rows": draw_meta_rows(n)} if self.meta_model else {}

    # ---------------------------------------------------------------------------- steps

    def _train_on_both_parts(
        self, data: TrainingData, unlabelled_weight: float, meta: TrainingData | None
    ) -> None:
        """Train each network with the division of the other one."""
        clean = {name: self._clean_probability(data, name) for name in self._peers}
        given = data.labels[data.has_label]
        prior = torch.bincount(given, minlength=data.n_classes) / len(given)
        for step, (idx, *views, _) in enumerate(data.batches("weak", "weak")):
            guesses = {name: self._guess(name, views) for name in self._peers}
            meant = self._meant(data, idx)
            for learner, teacher in zip(self._peers, reversed(self._peers), strict=True):
                trust = clean[teacher][idx]
                believed = trust > self.clean_threshold
                own, both = guesses[learner], (guesses[learner] + guesses[teacher]) / 2
                refined = refurbish(trust, meant, own)
                targets = sharpen(torch.where(believed[:, None], refined, both), self.temperature)
                mixed_x, mixed_targets = mixup(
                    torch.cat(views), torch.cat([targets] * 2), alpha=self.mixup_alpha
                )
                parts = torch.cat([believed] * 2), prior, unlabelled_weight
                loss = partial(self._loss, mixed_targets, *parts)
                if meta is None:
                    value = loss(self._network(learner)(mixed_x))
                else:
                    trusted = torch.cat([data.trusted[idx]] * 2)
                    mixed = mixed_x, mixed_targets, trusted
                    value = self._changed_loss(learner, loss, *mixed, meta, step)
                self._descend(value, learner)

    def _loss(
        self,
        targets: Tensor,
        believed: Tensor,
        prior: Tensor,
        unlabelled_weight: float,
        logits: Tensor,
        weights: Tensor | None = None,
        factors: Tensor | float = 1.0,
    ) -> Tensor:
        """Return Eq. 12; weights and factors change the term of the believed rows."""
        terms = mixmatch(logits, targets, believed, prior)
        labelled = terms.labelled
        if weights is not None:
            losses = weights * cross_entropy(factors * logits, targets)
            labelled = mean_over(believed, losses)
        return labelled + unlabelled_weight * terms.unlabelled + self.prior_weight * terms.prior

    def _changed_loss(
        self,
        name: str,
        loss: Loss,
        x: Tensor,
        targets: Tensor,
        trusted: Tensor,
        meta: TrainingData,
        step: int,
    ) -> Tensor:
        """Return the loss of a network as its meta-model changes it, after a meta step."""
        model = self.meta_model_[name]
        forward = TrainingPass.of(self._network(name), x)
        batch = forward.seen(targets, trusted)
        if self._takes_meta_step(step, meta):
            gradient = model.logit_gradient_of(loss, batch)
            self._meta_step(forward, self._optimizer(name), model, batch, gradient, meta)
        changed: Tensor = model.change(loss, batch._replace(logits=forward.logits))
        return changed

    @torch.no_grad()
    def _guess(self, name: str, views: list[Tensor]) -> Tensor:
        """Return a network's mean prediction of the views, (n_samples, n_classes)."""
        network = self._network(name).eval()
        probs = network(torch.cat(views)).float().softmax(1)
        network.train()
        return torch.stack(probs.chunk(len(views))).mean(0)

    def _clean_probability(self, data: TrainingData, name: str) -> Tensor:
        """Return the probability that each label is clean according to one network: co-divide."""
        labelled, network = data.has_label, self._network(name)
        if self.state_.has_pilot:
            probs = self._with_pilot(self._predict_probs(network, data))
            beliefs = self._posterior(data, probs)
            given = given_probability(beliefs, data.labels)
            return torch.where(labelled, given, 0.0)
        logits, labels = self._predict(network, data)[labelled], data.labels[labelled]
        losses = above_class_median(cross_entropy(logits, labels), labels, data.n_classes)
        found = small_loss_probability(losses.double().cpu().numpy())
        clean = torch.zeros(len(data), device=self.device_)
        clean[labelled] = torch.as_tensor(found, dtype=clean.dtype, device=self.device_)
        return clean.masked_fill(data.trusted, 1.0)

    # ----------------------------------------------------------------- meta set, networks, beliefs

    def _meta_set(self, data: TrainingData) -> TrainingData | None:
        """Return the rows that judge the meta-models, None if there are no meta-models."""
        if self.meta_model is None:
            return None
        known = data.known()
        if known is None and self.meta_objective == "ce":
            raise ValueError(
                "meta_objective='ce' needs rows whose labels are known to be right. Got none. Pass "
                "clean_mask, or X_meta and y_meta, or meta_objective='clid', which needs no labels."
            )
        return data.subset(self.state_.meta_rows) if known is None else known

    def _has_meta_set(self) -> bool:
        return self.meta_model is not None

    @property
    def _networks(self) -> tuple[str, ...]:  # type: ignore[override]
        return self._peers if self.meta_model is None else (*self._peers, "meta_model")

    def _make_network(self, name: str, *, independent: bool) -> nn.Module:
        if name != "meta_model":
            return super()._make_network(name, independent=independent)
        return nn.ModuleDict({n: self._make_meta_model(self._network(n)) for n in self._peers})

    def _beliefs(self, data: TrainingData) -> tuple[Tensor, Tensor]:
        """Return the mean of both posteriors, and the label refined by the prediction."""
        module, peer = (self._clean_probability(data, name) for name in self._peers)
        clean = (module + peer) / 2
        return clean, refurbish(clean, data.targets(), self._probabilities(data))


class MixMatchTerms(NamedTuple):
    """The three terms of the loss, scalars."""

    labelled: Tensor
    unlabelled: Tensor
    prior: Tensor


def mixmatch(logits: Tensor, targets: Tensor, believed: Tensor, prior: Tensor) -> MixMatchTerms:
    """Return the terms of the loss on mixed rows, Eqs. 9 to 11."""
    probs = logits.float().softmax(1)
    errors = (probs - targets).square().sum(1)
    predicted = probs.mean(0).clamp(min=TINY)
    divergence = (prior * (prior.clamp(min=TINY).log() - predicted.log())).sum()
    return MixMatchTerms(
        mean_over(believed, cross_entropy(logits, targets)),
        mean_over(~believed, errors),
        divergence,
    )


def mean_over(rows: Tensor, values: Tensor) -> Tensor:
    """Return the mean of the values of the rows in a mask; 0 if there are none."""
    return (rows.float() * values).sum() / rows.float().sum().clamp(min=1)


def above_class_median(losses: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """Return how far each loss is above the median of its given class, (n_samples,)."""
    medians = losses.new_zeros(n_classes)
    for code in labels.unique().tolist():
        medians[code] = losses[labels == code].median()
    return losses - medians[labels]
