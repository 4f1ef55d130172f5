"""Learn from few labels, some of them wrong, and many rows without a label."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from math import ceil
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple, Unpack

import torch
from torch import Tensor, nn

from noisyfit.data.rows import Rows
from noisyfit.data.training import TrainingData, check_meta_set
from noisyfit.estimator.keywords import SharedParameters
from noisyfit.estimator.metalearning import META_BATCH, MetaLearning, TrainingPass
from noisyfit.nn.averaging import follow
from noisyfit.nn.beliefs import given_probability, mean_of, sharpen
from noisyfit.nn.losses import cross_entropy, early_learning_regularizer
from noisyfit.nn.meta import Batch
from noisyfit.nn.metagrad import frozen_batch_norm
from noisyfit.nn.mixing import mixup
from noisyfit.utils.parameters import Interval, StrOptions

CUTOFFS = {"fixmatch": 0.95, "flexmatch": 0.95, "uda": 0.8}
ELR_WEIGHT, ELR_MOMENTUM = 7.0, 0.9
MIXUP_ALPHA = 8.0


class Guesses(NamedTuple):
    """What the weak views of rows say about their classes.

    Attributes
    ----------
    targets : Tensor of shape (n_samples,) or (n_samples, n_classes)
    kept : Tensor of shape (n_samples,)
        Whether a guess is confident enough to learn from.
    """

    targets: Tensor
    kept: Tensor


class SemiSupervisedClassifier(MetaLearning):
    """Learn from few labels, some of them wrong, and many rows without a label.

    A row must have the same class in a weak and in a strong view: where the network is sure of a
    weak view, the strong view learns its guess. That needs no label, and it spreads what the few
    labels say, right or wrong. A small meta-model therefore weights the labels: before each step on
    them the step is tried out, and if it brings similar embeddings to similar predictions on rows
    without a label, the weights were good.

    A training step (section 5.3 and appendix C of [1]_):

    1. Virtual step: take one step on the weighted loss of the labelled batch with a copy of the
       network (Eq. 4).
    2. Meta step: move the meta-model against the gradient of CLID on unlabelled rows (Eq. 5).
    3. Actual step: take a step on the loss of the labelled batch with the new weights (Eq. 6), plus
       the cross-entropy of the strong views of unlabelled rows with what their weak views say.

    Parameters
    ----------
    consistency : {"fixmatch", "flexmatch", "uda"}, default="fixmatch"
        What a strong view learns: the most probable class of the weak view ([2]_); the same, with a
        lower cutoff for classes that are learned slowly ([3]_); or its sharpened distribution
        ([4]_).
    meta_model : {"wnet", "vri"} or None, default="wnet"
        What changes the loss of the labels, as in `CLIDMetaClassifier`. None trusts all labels.
    meta_objective : {"clid", "mae", "ce"}, default="clid"
        ``"clid"`` judges a step by unlabelled rows; ``"mae"`` and ``"ce"`` by the given labels of
        labelled rows, or of trusted ones if there are any.
    meta_every : int >= 1, default=1
        Training steps from one meta step to the next.
    meta_lr : float >= 0, default=3e-3
        Learning rate of the meta-model's optimizer, Adam.
    meta_batch_size : int >= 2, default=100
        Rows that judge a step.
    unlabelled_ratio : int >= 1, default=7
        Rows for consistency per labelled row of a full batch.
    min_steps : int >= 1, default=32
        Training steps of an epoch, at least.
    unlabelled_weight : float >= 0, default=1.0
        Weight of the consistency. 0 learns from the labels only.
    cutoff : float in [0, 1] or None, default=None
        Probability of the most probable class from which a weak view is believed. None means 0.95,
        for ``"uda"`` 0.8.
    temperature : float > 0, default=0.4
        Of the distributions of ``"uda"``; below 1 sharpens.
    regularizer : {"elr", "mixup"} or None, default=None
        Early-learning regularisation of the labelled rows, or mixtures of them ("+ ELR" and
        "+ MixUp" in [1]_).
    ema : float in [0, 1), default=0.999
        Momentum of the average of the weights, which predicts. It starts as a plain mean.
    {shared parameters}

    Attributes
    ----------
    meta_model_ : torch.nn.Module
        Only with a meta-model.
    average_ : torch.nn.Module
        The network with averaged weights.
    predicting_ : list of str
        ``["average"]``, or ``["module"]`` if a callback restores the best epoch.
    {shared attributes}

    Notes
    -----
    Rows without a label are marked by ``missing_label``.

    Differences from the paper:

    1. An epoch is one pass over the rows, in batches of ``unlabelled_ratio * batch_size``, and at
       least ``min_steps``; both kinds of rows are repeated as often as needed. The paper has
       30,000 steps.
    2. The rows for consistency are all rows: labelled ones take part without their labels, as in
       the released code.
    3. The learning rate falls to 0 along a cosine; the paper has a constant 0.03. Networks, weak
       and strong views are those of every other method here.
    4. CLID judges by unlabelled rows, as the paper says; the released code takes labelled ones,
       without reading their labels. If all rows have a label, these judge.
    5. The meta-models are those of `CLIDMetaClassifier`, with its rates: with the published rate of
       1e-5 the weights do not move.
    6. The virtual step has a forward pass of its own, over the labelled batch; the actual step has
       one over the three parts.
    7. The average of the weights starts as a plain mean, because there are fewer steps.
    8. "flexmatch": as published, a class that no row was assigned to yet has the cutoff 0.
    9. The paper rates no labels. Here the quality of a label is the mean over the epochs of its
       probability according to the averaged network.

    Trusted rows have weight 1 and no regulariser. Cost: a step sees ``2 * unlabelled_ratio + 1``
    batches; a meta step costs three more. ``n_classes + 1`` floats per sample.

    References
    ----------
    .. [1] Hu et al. CLID-MU: Cross-Layer Information Divergence Based Meta Update Strategy for
       Learning with Noisy Labels. KDD, 2025. arXiv:2507.11807
    .. [2] Sohn et al. FixMatch: Simplifying Semi-Supervised Learning with Consistency and
       Confidence. NeurIPS, 2020. arXiv:2001.07685
    .. [3] Zhang et al. FlexMatch: Boosting Semi-Supervised Learning with Curriculum Pseudo
       Labeling. NeurIPS, 2021. arXiv:2110.08263
    .. [4] Xie, Dai, Hovy, Luong and Le. Unsupervised Data Augmentation for Consistency Training.
       NeurIPS, 2020. arXiv:1904.12848

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from noisyfit import SemiSupervisedClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> few = y.copy()
    >>> few[100:] = -1
    >>> clf = SemiSupervisedClassifier(missing_label=-1, max_epochs=10, random_state=0)
    >>> bool(clf.fit(X, few).score(X, y) > 0.8)
    True
    """

    _copies: ClassVar = ("average",)
    low_memory = True  # the training pass is not needed again
    average_: Any
    predicting_: list[str]
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "consistency": [StrOptions({*CUTOFFS})],
        "meta_model": [StrOptions({"wnet", "vri"}), None],
        "meta_objective": [StrOptions({"clid", "mae", "ce"})],
        "meta_every": [Interval(Integral, 1, None, closed="left")],
        "meta_lr": [Interval(Real, 0, None, closed="left")],
        "meta_batch_size": [Interval(Integral, 2, None, closed="left")],
        "unlabelled_ratio": [Interval(Integral, 1, None, closed="left")],
        "min_steps": [Interval(Integral, 1, None, closed="left")],
        "unlabelled_weight": [Interval(Real, 0, None, closed="left")],
        "cutoff": [Interval(Real, 0, 1, closed="both"), None],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "regularizer": [StrOptions({"elr", "mixup"}), None],
        "ema": [Interval(Real, 0, 1, closed="left")],
    }

    def __init__(
        self,
        module: Any = None,
        *,
        consistency: str = "fixmatch",
        meta_model: str | None = "wnet",
        meta_objective: str = "clid",
        meta_every: int = 1,
        meta_lr: float = 3e-3,
        meta_batch_size: int = META_BATCH,
        unlabelled_ratio: int = 7,
        min_steps: int = 32,
        unlabelled_weight: float = 1.0,
        cutoff: float | None = None,
        temperature: float = 0.4,
        regularizer: str | None = None,
        ema: float = 0.999,
        **kwargs: Unpack[SharedParameters],
    ) -> None:
        super().__init__(module, **kwargs)
        self.consistency = consistency
        self.meta_model = meta_model
        self.meta_objective = meta_objective
        self.meta_every = meta_every
        self.meta_lr = meta_lr
        self.meta_batch_size = meta_batch_size
        self.unlabelled_ratio = unlabelled_ratio
        self.min_steps = min_steps
        self.unlabelled_weight = unlabelled_weight
        self.cutoff = cutoff
        self.temperature = temperature
        self.regularizer = regularizer
        self.ema = ema

    def _fit(self, data: TrainingData) -> None:
        meta = self._meta_set(data)
        if meta is not None:
            check_meta_set(meta)
        for _ in self._epochs():
            for step, (idx, x, *unlabelled) in enumerate(self._steps(data)):
                trusted, targets = data.trusted[idx], data.targets(idx)
                if self.regularizer == "mixup":
                    x, targets = mixup(x, data.distributions(idx), alpha=MIXUP_ALPHA)
                if meta is not None and self._takes_meta_step(step, meta):
                    self._learn_weights(x, targets, trusted, meta)
                forward = TrainingPass.of(self.module_, torch.cat([x, *unlabelled[1:]]))
                labelled = self._labelled_loss(forward, idx, targets, trusted)  # Eq. 6
                consistency = self._consistency(forward.logits[len(x) :], *unlabelled[:1])
                self._descend(labelled + self.unlabelled_weight * consistency)
                self._average()
            self.state_.probs_sum += self._probabilities(data)

    def _init_state(self, n: int, n_classes: int) -> dict[str, Tensor]:
        own = {"probs_sum": torch.zeros(n, n_classes), "n_steps": torch.tensor(0.0)}
        if self.consistency == "flexmatch":
            own["selected"] = torch.full((n,), -1)
        if self.regularizer == "elr":
            own["targets"] = torch.zeros(n, n_classes)
        return own

    # ---------------------------------------------------------------------------- steps

    def _steps(self, data: TrainingData) -> Iterator[tuple[Tensor, ...]]:
        """Yield the rows and weak views of labelled batches; rows and both views of others."""
        if not self.unlabelled_weight:
            for idx, x, _ in data.batches("weak", labelled=True):
                yield idx, x
            return
        everything = replace(data, batch_size=self.unlabelled_ratio * data.batch_size)
        n_steps = max(self.min_steps, ceil(len(data) / everything.batch_size))
        labelled = _repeated(data, "weak", labelled=True)
        others = _repeated(everything, "weak", "strong")
        for _ in range(n_steps):
            yield *next(labelled)[:2], *next(others)[:3]

    def _learn_weights(
        self, x: Tensor, targets: Tensor, trusted: Tensor, meta: TrainingData
    ) -> None:
        """Try out a step on the labelled batch, and update the meta-model."""
        with frozen_batch_norm(self.module_):
            forward = TrainingPass.of(self.module_, x)
        batch = forward.seen(targets, trusted)
        gradient = self.meta_model_.logit_gradient(batch)
        self._meta_step(forward, self.optimizer_, self.meta_model_, batch, gradient, meta)

    def _labelled_loss(
        self, forward: TrainingPass, idx: Tensor, targets: Tensor, trusted: Tensor
    ) -> Tensor:
        """Return the loss of the labelled batch ``idx``, the first rows, as it is weighted."""
        logits, embeddings = forward.logits[: len(idx)], forward.embeddings[: len(idx)]
        if self.meta_model is None:
            loss = cross_entropy(logits, targets).mean()
        else:
            loss = self.meta_model_.loss(Batch(logits, embeddings, targets, trusted))
        if self.regularizer == "elr":
            probs = logits.detach().float().softmax(1)
            earlier = self.state_.targets[idx].lerp(probs, 1 - ELR_MOMENTUM)
            self.state_.targets[idx] = earlier
            terms = early_learning_regularizer(logits, earlier)
            loss = loss + ELR_WEIGHT * (~trusted * terms).mean()
        return loss

    def _consistency(self, logits: Tensor, idx: Tensor | None = None) -> Tensor:
        """Return the loss of the strong views of rows, which come after their weak views."""
        if idx is None:
            return logits.new_zeros(())
        weak, strong = logits.chunk(2)
        guesses = self._guess(idx, weak.detach())
        self._log("kept", guesses.kept.float().mean())
        return (guesses.kept * cross_entropy(strong, guesses.targets)).mean()

    def _guess(self, idx: Tensor, logits: Tensor) -> Guesses:
        """Return what strong views learn, and from which rows."""
        cutoff = CUTOFFS[self.consistency] if self.cutoff is None else self.cutoff
        probs = logits.float().softmax(1)
        confidence, guess = probs.max(1)
        if self.consistency == "uda":
            return Guesses(sharpen(probs, self.temperature), confidence >= cutoff)
        if self.consistency == "fixmatch":
            return Guesses(guess, confidence >= cutoff)
        learned = learning_status(self.state_.selected, probs.shape[1])[guess]
        kept = confidence >= cutoff * learned / (2 - learned)
        sure = confidence >= cutoff
        self.state_.selected[idx[sure]] = guess[sure]
        return Guesses(guess, kept)

    def _average(self) -> None:
        """Move the average of the weights; the first steps form a plain mean."""
        self.state_.n_steps += 1
        follow(self.average_, self.module_, (1 / self.state_.n_steps).clamp(min=1 - self.ema))

    # ----------------------------------------------------------------- meta set, networks, beliefs

    def _meta_set(self, data: TrainingData) -> TrainingData | None:
        """Return the rows that judge a step, None if there is no meta-model."""
        if self.meta_model is None:
            return None
        if self.meta_objective != "clid":
            return data.known() or data.subset(data.has_label.nonzero()[:, 0])
        unlabelled = (~data.has_label).nonzero()[:, 0]
        return data.subset(unlabelled) if len(unlabelled) else data

    def _has_meta_set(self) -> bool:
        return self.meta_model is not None and self.meta_objective != "clid"

    @property
    def _networks(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("module",) if self.meta_model is None else ("module", "meta_model")

    def initialize_module(self) -> SemiSupervisedClassifier:
        """Make the networks, and name the one that predicts."""
        super().initialize_module()
        self.predicting_ = ["module"] if self._restores_an_epoch() else ["average"]
        return self

    def _make_network(self, name: str, *, independent: bool) -> nn.Module:
        if name == "average":
            return deepcopy(self.module_)
        if name == "meta_model":
            return self._make_meta_model(self.module_)
        return super()._make_network(name, independent=independent)

    def _probabilities(self, rows: TrainingData | Rows) -> Tensor:
        """Return the prediction of the averaged network."""
        return self._predict_probs(self._network(self.predicting_[0]), rows)

    def _beliefs(self, data: TrainingData) -> tuple[Tensor, Tensor]:
        """Return means over the epochs: the probability of the given label; of all classes."""
        distribution = mean_of(self.state_.probs_sum)
        return given_probability(distribution, data.labels), distribution


def _repeated(
    data: TrainingData, *views: str, labelled: bool = False
) -> Iterator[tuple[Tensor, ...]]:
    """Yield batches of all rows again and again."""
    while True:
        yield from data.batches(*views, labelled=labelled)


def learning_status(selected: Tensor, n_classes: int) -> Tensor:
    """Return how well each class is learned, in [0, 1]: FlexMatch, Eqs. 5 and 6.

    Parameters
    ----------
    selected : Tensor of shape (n_samples,)
        The class that each row was last assigned to with confidence, -1 for none.
    n_classes : int
    """
    counts = torch.bincount(selected + 1, minlength=n_classes + 1)
    return counts[1:] / counts.max()
