"""CLID-MU: learn how far to trust each label from rows whose labels are never used."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from noisyfit.data.rows import Rows
from noisyfit.data.training import TrainingData, check_meta_set, draw_evenly, draw_meta_rows
from noisyfit.estimator.keywords import SharedParameters
from noisyfit.estimator.metalearning import META_BATCH, MetaLearning, TrainingPass
from noisyfit.estimator.warmup import WarmUp
from noisyfit.nn.beliefs import given_probability, mean_of
from noisyfit.nn.features import logits_and_embeddings
from noisyfit.nn.losses import cross_entropy
from noisyfit.nn.metagrad import frozen_batch_norm, replayed
from noisyfit.nn.snapshots import Snapshots
from noisyfit.quality import small_loss_probability
from noisyfit.utils.parameters import Interval, StrOptions


class CLIDMetaClassifier(WarmUp, MetaLearning):
    """Learn how far to trust each label from what a training step does to rows without labels.

    A small meta-model weights each sample by its loss. Before each training step the step is tried
    out. If it brings similar embeddings to similar predictions on a meta set, whose labels are not
    used, the weights were good. The meta-model learns from that through an exact meta-gradient. The
    prediction is the average of the snapshots after the warm-up that did best on the meta set.

    A training step (Algorithm 1 of [1]_):

    1. Virtual step: take one step on the weighted loss with a copy of the network (Eq. 4).
    2. Meta step: move the meta-model against the gradient of CLID, the cross-layer information
       divergence (Eq. 9), computed on the meta batch after the virtual step (Eq. 5).
    3. Actual step: take a step on the loss with the new weights (Eq. 6).

    Parameters
    ----------
    meta_model : {"wnet", "vri"}, default="wnet"
        ``"wnet"`` weights a sample by its loss; ``"vri"`` rescales its logits, given its embedding
        and its label.
    meta_objective : {"clid", "mae", "ce", "ce_pseudo_clean"}, default="clid"
        The objective that judges the meta-model and the snapshots. All but ``"clid"`` use labels of
        the meta set: the mean absolute error or the cross-entropy of given labels ("MAE" and
        "CE(n)" in [1]_), whose rows are not trained on after the warm-up, or the cross-entropy of
        labels of small loss ("CE(p)"). With trusted rows ``"ce"`` is standard meta-learning with
        clean labels.
    meta_params : {"all", "last_stage", "head"}, default="all"
        Parameters moved by the virtual step. Fewer are cheaper and give a different estimator of
        the same quantity, not an approximation.
    meta_every : int >= 1, default=1
        Training steps from one meta step to the next.
    meta_lr : float >= 0, default=3e-3
        Learning rate of the meta-model's optimizer, Adam. 0 leaves all weights equal.
    meta_batch_size : int >= 2, default=100
        Rows of the meta set that judge a step, ``m`` in [1]_; at most the whole meta set. From 50
        to 500 in Table 6.
    meta_patience : int >= 1 or None, default=None
        Number of epochs without a lower mean outer loss after which meta steps stop and the
        meta-model is frozen ([1]_, appendix D). None never stops.
    clid_temperature : float > 0, default=0.5
        Divisor of the cosine similarities of the embeddings, ``tau`` in [1]_, Eq. 7.
    clid_neighbors : int >= 1 or None, default=None
        Compare each row of a meta batch only with itself and with this many others, those with the
        most similar predictions ([1]_, appendix D). None compares all pairs.
    normalizer_grad : bool, default=False
        Whether the gradient of CLID goes through the row sums of Eq. 8.
    low_memory : bool, default=False
        Run the training pass twice instead of keeping its graph during the meta step. This makes a
        training step a third slower.
    n_snapshots : int >= 1, default=5
        Number of epochs whose networks are kept, on the CPU, and averaged by ``predict_proba``:
        those with the lowest meta objective on the whole meta set. 1 predicts with the last epoch
        or, if a callback restores it, with the best one, as ``module_`` and ``transform`` always
        do.
    warmup_epochs : int or None, default=None
        Epochs of cross-entropy before the first meta step. None means: until the epoch in which a
        pilot predicts unseen labels best, or to the end if it predicts them as well there; without
        a pilot, that is with fewer than 100 labels, one sixth of the epochs.
    {shared parameters}

    Attributes
    ----------
    sample_weight_ : ndarray of shape (n_training_rows,)
        Weight of each row in the last epoch; 1 is its weight in a plain mean. All 1 for
        ``meta_model="vri"``; 0 for rows that were not trained on. NaN if the warm-up lasted to the
        end.
    meta_model_ : torch.nn.Module
    snapshots_ : torch.nn.ModuleList
        The averaged networks, on the CPU.
    snapshot_score_ : ndarray of shape (n_snapshots,)
        Meta objective of each snapshot on the meta set, by default CLID; infinite for missing
        snapshots if there were too few epochs.
    snapshot_epoch_ : ndarray of shape (n_snapshots,)
        The epoch of each snapshot, from 0.
    n_meta_epochs_ : int
        Number of epochs with meta steps, from ``warmup_epochs_`` on; ``history_`` has their
        ``outer_loss``.
    {shared attributes}

    Notes
    -----
    The meta set is the trusted rows or ``X_meta``, if given, otherwise ``min(1000, n_samples / 2)``
    training rows. These are random for CLID, which does not see their labels. For the other
    objectives they are drawn evenly from the given classes, at most half of each class. For
    ``"ce_pseudo_clean"`` they are chosen again at each epoch: a mixture of two Gaussians is fitted
    to the losses of all rows, and in each class the most probable members of the low-loss component
    are taken.

    Differences from the paper:

    1. The meta-gradient is computed with one forward-mode derivative of the logits instead of a
       second-order graph; the result is the same. The virtual step uses the estimator's own
       optimizer, with momentum and weight decay; the paper uses plain gradient descent.
    2. The weight network starts with equal weights. They are normalised within each given class of
       a batch, and no sample weighs more than four times its share; the paper divides by the batch
       size. As released, all the weight can go to a few samples, or to the classes that are learned
       first: on 10,000 images of CIFAR-10 some classes were then never predicted.
    3. Both kinds of meta-model are trained with Adam at a learning rate of 0.003, without weight
       decay. The paper has 1e-5 for the weight network and 0.01 for the rectifier and names no
       optimizer; the released code uses SGD with a weight decay of 5e-4 for the former and Adam for
       the latter. With SGD at 1e-5 the weight network does not move.
    4. The meta-model's learning rate rises and falls with the network's; in the paper it is
       constant.
    5. The learning rate falls to 0 once; ``lr_schedule="cyclic"`` restarts it. The paper has a
       period of 10 epochs, with which the released code falls for ten epochs to 0.001 and rises for
       ten; batches of 100 rows, where the default is 128; and 100 or 150 epochs.
    6. Training begins with a warm-up, for all objectives. It includes the rows whose labels later
       judge. A pilot decides when the warm-up ends, from predictions on unseen rows, and estimates
       which classes are mistaken for which: instead of the given labels, the network learns, and
       the meta-model weights, the probabilities of the true classes under the pilot's transition
       matrix. The paper has a warm-up for CE(p) only, of 10 or 30 epochs; the released code also
       has one for MAE on labels of small loss.
    7. CLID is the mean of the rows' values, 1/m in Eq. 9, as in the released code; the paper prints
       1/m^2. The gradient stops at the embeddings and, without ``normalizer_grad``, at the row sums
       of Eq. 8; the paper mentions only the embeddings.
    8. Negative cosines between embeddings are kept; the released code sets them to 0. They occur
       when the last hidden layer does not end in a ReLU.
    9. The divergence of the rectifier is that of two Gaussians and is added to the outer loss: in
       the virtual step it has no effect on the network. Its hidden layers have 128 units; the
       released code has 1024 and 512.
    10. Snapshots are taken after the warm-up and judged in evaluation mode.
    11. MAE and CE(n) leave half of each class to train on. The paper describes the meta set of MAE
        once as even and once as random; here it is even. It does not say how often the set of CE(p)
        is chosen.
    12. The sparse graph of appendix D is exact and not symmetric: each row has its own neighbours
        besides itself, and both graphs sum to 1 over them. Finding them takes all pairs, so a step
        takes no less time.
    13. Views are the weak ones that every method uses; the released code uses RandAugment.
    14. The paper does not rate labels. Here the quality of a label is the mean of its probability
        over the epochs, from the rectified logits if there is a rectifier.

    Trusted rows have weight 1. Rows without a label are not trained on, but can be in the meta set
    of CLID.

    Cost: a pilot costs at most two fits of cross-entropy, a meta step 2.7 training steps, and an
    epoch of ``"ce_pseudo_clean"`` one evaluation of all rows; ``n_classes + 2`` floats per sample.

    References
    ----------
    .. [1] Hu et al. CLID-MU: Cross-Layer Information Divergence Based Meta Update Strategy for
       Learning with Noisy Labels. KDD, 2025. arXiv:2507.11807

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from noisyfit import CLIDMetaClassifier, noise
    >>> X, y = load_digits(return_X_y=True)
    >>> noisy = noise.symmetric(y, 0.4, random_state=0)
    >>> clf = CLIDMetaClassifier(max_epochs=20, random_state=0).fit(X, noisy.labels)
    >>> bool(clf.score(X, y) > 0.9)
    True
    """

    _networks: ClassVar = ("module", "meta_model")
    _copies: ClassVar = ("snapshots",)
    _uses_meta: ClassVar = True
    snapshots_: Any
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "meta_model": [StrOptions({"wnet", "vri"})],
        "meta_objective": [StrOptions({"clid", "mae", "ce", "ce_pseudo_clean"})],
        "meta_params": [StrOptions({"all", "last_stage", "head"})],
        "meta_every": [Interval(Integral, 1, None, closed="left")],
        "meta_lr": [Interval(Real, 0, None, closed="left")],
        "meta_batch_size": [Interval(Integral, 2, None, closed="left")],
        "meta_patience": [Interval(Integral, 1, None, closed="left"), None],
        "clid_temperature": [Interval(Real, 0, None, closed="neither")],
        "clid_neighbors": [Interval(Integral, 1, None, closed="left"), None],
        "normalizer_grad": ["boolean"],
        "low_memory": ["boolean"],
        "n_snapshots": [Interval(Integral, 1, None, closed="left")],
        "warmup_epochs": [Interval(Integral, 1, None, closed="left"), None],
    }

    def __init__(
        self,
        module: Any = None,
        *,
        meta_model: str = "wnet",
        meta_objective: str = "clid",
        meta_params: str = "all",
        meta_every: int = 1,
        meta_lr: float = 3e-3,
        meta_batch_size: int = META_BATCH,
        meta_patience: int | None = None,
        clid_temperature: float = 0.5,
        clid_neighbors: int | None = None,
        normalizer_grad: bool = False,
        low_memory: bool = False,
        n_snapshots: int = 5,
        warmup_epochs: int | None = None,
        **kwargs: Unpack[SharedParameters],
    ) -> None:
        super().__init__(module, **kwargs)
        self.meta_model = meta_model
        self.meta_objective = meta_objective
        self.meta_params = meta_params
        self.meta_every = meta_every
        self.meta_lr = meta_lr
        self.meta_batch_size = meta_batch_size
        self.meta_patience = meta_patience
        self.clid_temperature = clid_temperature
        self.clid_neighbors = clid_neighbors
        self.normalizer_grad = normalizer_grad
        self.low_memory = low_memory
        self.n_snapshots = n_snapshots
        self.warmup_epochs = warmup_epochs

    def _fit(self, data: TrainingData) -> None:
        check_meta_set(self._meta_set(data))
        for epoch in self._epochs():
            if self._warming_up(data, epoch):
                self._warm_up(data)
            else:
                meta = self._meta_set(data)
                self._train_with_meta_steps(self._training_part(data), meta)
                self._keep_snapshot(meta, epoch)

    def _init_state(self, n: int, n_classes: int) -> dict[str, Tensor]:
        unseen = self.meta_objective == "clid"  # the labels of the meta set
        judging = {"meta_rows": draw_meta_rows(n)} if unseen else {"draws": torch.rand(n)}
        return {
            **judging,
            "sample_weight": torch.zeros(n),
            "probs_sum": torch.zeros(n, n_classes),
            "given_sum": torch.zeros(n),
        }

    # ---------------------------------------------------------------------------- steps

    def _train_with_meta_steps(self, data: TrainingData, meta: TrainingData) -> None:
        network, model = self.module_, self.meta_model_
        learns = not self._has_converged()
        self.state_.sample_weight.zero_()
        for step, (idx, x, labels) in enumerate(data.batches("weak", labelled=True)):
            forward = TrainingPass.of(network, x)
            targets = self._meant(data, idx, forward.logits)
            batch, logits = forward.seen(targets, data.trusted[idx]), forward.logits
            if learns and self._takes_meta_step(step, meta):
                gradient = model.logit_gradient(batch)
                self._meta_step(forward, self.optimizer_, model, batch, gradient, meta)
                if self.low_memory:
                    with replayed(forward.random_state), frozen_batch_norm(network):
                        logits = network(x)
            self._descend(model.loss(batch._replace(logits=logits)))  # actual step, Eq. 6
            with torch.no_grad():
                self._observe(idx, labels, logits, model.rectified(batch))
                self.state_.sample_weight[idx] = model.weights(batch).float()

    def _observe(
        self, idx: Tensor, labels: Tensor, logits: Tensor, rectified: Tensor | None = None
    ) -> None:
        """Sum up over the epochs what the label protocol needs."""
        believed = (logits if rectified is None else rectified).detach().float().softmax(1)
        self.state_.given_sum[idx] += given_probability(believed, labels)
        self.state_.probs_sum.index_add_(0, idx, logits.detach().float().softmax(1))

    # ------------------------------------------------------------------------------- meta set

    def _meta_set(self, data: TrainingData) -> TrainingData:
        """Return the rows that judge the meta-model."""
        known = data.known()
        if known is not None:
            return known
        unseen = self.meta_objective == "clid"
        return data.subset(self.state_.meta_rows if unseen else self._even_rows(data))

    def _even_rows(self, data: TrainingData) -> Tensor:
        """Return rows of all classes: random ones, or those whose labels currently look right."""
        if self.meta_objective == "ce_pseudo_clean":
            return draw_evenly(self._clean_probability(data), data.labels, data.n_classes)
        return draw_evenly(self.state_.draws, data.labels, data.n_classes)

    def _clean_probability(self, data: TrainingData) -> Tensor:
        """Return the probability that each loss is small, (n_samples,); 0 without a label."""
        labelled = data.has_label
        logits = self._predict(self.module_, data)[labelled]
        losses = cross_entropy(logits, data.labels[labelled]).double().cpu().numpy()
        clean = torch.zeros(len(data), dtype=torch.float64, device=self.device_)
        clean[labelled] = torch.as_tensor(small_loss_probability(losses), device=self.device_)
        return clean

    def _training_part(self, data: TrainingData) -> TrainingData:
        """Leave out the rows whose given labels judge the meta-model."""
        if self.meta_objective not in ("mae", "ce") or data.known() is not None:
            return data
        return replace(data, labels=data.labels.index_fill(0, self._even_rows(data), -1))

    def _has_converged(self) -> bool:
        """Whether the outer loss has stopped falling; the meta-model is then frozen."""
        losses = self._outer_losses()
        if self.meta_patience is None or not losses:
            return False
        return len(losses) - 1 - losses.index(min(losses)) >= self.meta_patience

    def _outer_losses(self) -> list[float]:
        """Return the mean outer loss of every epoch with meta steps."""
        return [epoch["outer_loss"] for epoch in self.history_ if "outer_loss" in epoch]

    # ------------------------------------------------------------------------------ snapshots

    def _keep_snapshot(self, meta: TrainingData, epoch: int) -> None:
        """Keep the network of this epoch if its score on the meta set is among the lowest."""
        if not len(self.snapshots_) or not len(meta):
            return
        both = self._evaluate(
            lambda x: torch.cat(logits_and_embeddings(self.module_, x), 1), self.module_, meta
        )
        logits, embeddings = both[:, : self.n_classes_], both[:, self.n_classes_ :]
        score = self._judgement(logits, embeddings, meta.labels)
        self.snapshots_.offer(self.module_, float(score), epoch)

    def _probabilities(self, rows: TrainingData | Rows) -> Tensor:
        """Average the predictions of the snapshots, if there are any."""
        n_kept = int(self.snapshots_.score.isfinite().sum())
        if not n_kept:
            return super()._probabilities(rows)
        kept = self.snapshots_.kept(self.device_)
        probs = self._predict_probs(next(kept), rows)
        for network in kept:
            probs += self._predict_probs(network, rows)
        return probs.div_(n_kept)

    # ------------------------------------------------------------------------ networks, beliefs

    def initialize_module(self) -> CLIDMetaClassifier:
        """Make the networks, and room for snapshots unless a callback restores the best epoch."""
        n_snapshots = min(self.n_snapshots, self.max_epochs_)
        single = n_snapshots == 1 or self._restores_an_epoch()
        self.n_snapshots_ = 0 if single else n_snapshots
        super().initialize_module()
        return self

    def _make_network(self, name: str, *, independent: bool) -> nn.Module:
        if name == "snapshots":
            return Snapshots(deepcopy(self.module_).cpu() for _ in range(self.n_snapshots_))
        if name == "meta_model":
            return self._make_meta_model(self.module_)
        return super()._make_network(name, independent=independent)

    def _beliefs(self, data: TrainingData) -> tuple[Tensor, Tensor]:
        """Return means over epochs: the (rectified) probability of the given label; of all."""
        state = self.state_
        self.sample_weight_ = self._once_begun(state.sample_weight.cpu().numpy())
        self.snapshot_score_ = self.snapshots_.score.numpy().copy()
        self.snapshot_epoch_ = self.snapshots_.epoch.numpy().copy()
        self.n_meta_epochs_ = len(self._outer_losses())
        n_epochs = state.probs_sum.sum(1)
        rating = torch.where(n_epochs > 0, state.given_sum / n_epochs, 0.0)
        return rating, mean_of(state.probs_sum)
