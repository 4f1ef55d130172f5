"""Holistic Reliability Propagation: separate trust in the given label and in the guess."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple, Unpack

import torch
from torch import Tensor, nn

from noisyfit.data.training import TrainingData, best_of_each_class, check_meta_set, draw_meta_rows
from noisyfit.estimator.keywords import SharedParameters
from noisyfit.estimator.peers import Peers
from noisyfit.estimator.warmup import TEMPERATURE, WarmUp
from noisyfit.exceptions import warn
from noisyfit.nn.beliefs import as_distributions, given_probability, newest_share, one_hot, sharpen
from noisyfit.nn.build import projection_head
from noisyfit.nn.features import embedding_size, logits_and_embeddings
from noisyfit.nn.losses import clid, cross_entropy, reliability_contrastive
from noisyfit.nn.metagrad import logit_jvp
from noisyfit.nn.parallel import average
from noisyfit.utils.parameters import Interval, StrOptions

META_BATCH = 100
TINY = 1e-8
SELECTED_SHARE = 0.5  # of each class, by the smallest losses
CONFIDENT = 0.95
EXPANSION = 0.6  # of the epochs, after which confident rows without a believed label join
CONTRASTIVE_TEMPERATURE = 0.1
EVENING_STEPS = 5
BETA_SHAPES = (0.05, 50.0)
STARVED = 0.5  # share of gates at the lower bound that is worth a warning


class HRPClassifier(WarmUp, Peers):
    """Learn with two reliabilities for every row: one for its given label, one for the guess.

    Two networks train each other. For every batch the partner estimates what a small step on the
    given label, and what a step on the model's guess, would do to an outer loss; the answers are
    the reliabilities alpha and beta. Their sum decides how rows are mixed and how much a pair
    counts; beta alone decides which rows are drawn together in the embedding. The outer loss needs
    no labels; trusted rows add their cross-entropy to it.

    A training step for each network, with everything from its partner (section 3 of [1]_):

    1. Reliabilities: one backward pass and one forward-mode derivative (Eqs. 1 to 6).
    2. Classification: cross-entropy of the rows whose label is believed, weighted by reliability
       (Eq. 13), and agreement of strong with weak views (Eq. 14).
    3. RAM and GRG: mixed pairs, closer to the more reliable row, gated by the reliability of the
       mixture (Eqs. 7 to 9).
    4. CDCL: a contrastive term that draws rows of one class together as far as both guesses are
       reliable (Eqs. 10 to 12).

    Parameters
    ----------
    reliability : {"disentangled", "coupled"} or None, default="disentangled"
        ``"coupled"`` has one signal: alpha is capped at 1, beta = 1 - alpha, and the row's
        cross-entropy is divided between its two labels in this proportion. None has no signal: all
        rows count the same, and the contrastive term is plain supervised contrast on the guesses.
    mixing : {"asymmetric", "symmetric"} or None, default="asymmetric"
        ``"symmetric"`` mixes without regard to the reliabilities; None does not mix.
    gated : bool, default=True
        Whether pairs are weighted by the reliability of the mixture.
    contrastive_weight : float >= 0, default=0.05
        Weight of the contrastive term, ``lambda_c`` in Eq. 15. 0 leaves it out.
    concentration : float > 0, default=4.0
        Concentration of the Beta distribution for mixing, ``kappa`` in Eq. 7.
    reliability_range : tuple of two floats, default=(0.5, 1.5)
        Bounds of alpha + beta, Eq. 6, in units of its mean over the batch:
        ``0 < lower < 1 < upper``.
    reweighting : float in [0, 1], default=0.5
        How strongly the reliability weights the cross-entropy, ``eta_r`` in Eq. 13.
    norm : {"mean", "sum", "max"}, default="mean"
        Divisor of alpha and beta in a batch. ``"sum"`` is Eqs. 4 and 5 as published; with separate
        reliabilities it differs from ``"mean"`` only in the scale of ``label_reliability_``.
    balanced : bool, default=True
        Compare rows with others of their class: reliabilities are scaled so that each class keeps
        its share of a batch. False is the published form.
    unit_gradients : bool, default=True
        Divide the gain of a row by the length of its gradient in the logits. False is the published
        form.
    meta_objective : {"auto", "clid", "ce"}, default="auto"
        The outer loss. ``"clid"`` uses no labels, only how well predictions agree with embeddings
        on training rows. ``"auto"`` adds the cross-entropy of trusted rows, if there are any.
        ``"ce"`` is that cross-entropy alone, the published form; without trusted rows it takes the
        rows that agree best with their labels.
    meta_every : int >= 1, default=1
        Number of steps for which the gradient of the outer loss is reused.
    temporal_momentum : float in [0, 1), default=0.9
        Momentum of the mean over epochs of each network's predictions.
    inference : {"both", "first"}, default="both"
        ``"both"`` predicts with the mean logits of the two networks, ``"first"`` with ``module_``.
        If a callback restores the best epoch, ``module_`` always predicts.
    warmup_epochs : int or None, default=None
        Epochs of cross-entropy before the first reliability. None means: until the epoch in which a
        pilot predicts unseen labels best, or to the end if it predicts them as well there; without
        a pilot, that is with fewer than 100 labels, one sixth of the epochs.
    {shared parameters}

    Attributes
    ----------
    label_reliability_ : ndarray of shape (n_training_rows,)
        Mean of alpha over networks and epochs: those after the warm-up or, if it lasted to the end,
        those of the warm-up. At least 0, and 0 without a label; 1 on average with ``norm="mean"``.
        ``label_quality_`` is its rank; after a pilot, or if the warm-up lasted to the end, it is
        the rank of the probability of the given label.
    pseudo_label_reliability_ : ndarray of shape (n_training_rows,)
        The same for beta.
    peer_ : torch.nn.Module
        The second network.
    predicting_ : list of str
        The networks that predict: ``"module"`` and ``"peer"``.
    {shared attributes}

    Warns
    -----
    NoisyFitWarning
        If most gates are at their lower bound in the last epoch: a few rows then have all the
        reliability, and the networks hardly learn from the others ("gradient starvation" in [1]_).

    Notes
    -----
    ``history_`` has, for each epoch, the mean ``gate``, the share of pairs ``gate_at_lower_bound``,
    the share of rows ``rows_at_upper_bound``, and ``pair_agreement``, the share, by weight, of
    positive pairs whose targets agree.

    Differences from the paper, whose printed equations are missing from the available copy.
    Whatever its text leaves open follows ProMix [2]_, on which it builds:

    1. CLID is in the outer loss, with or without trusted rows; the paper needs clean rows. A few
       trusted rows are soon fitted, and their gradient then carries little information: on
       synthetic tables with 100 of them alpha found wrong labels with an AUROC of 0.88 without CLID
       and 0.97 with it (one seed). Each outer loss takes 100 random rows.
    2. The derivatives at weight 0 are taken in closed form, not through an unrolled step. They are
       the same, and the learning rate of the step cancels.
    3. A row's gain is divided by the length of its gradient (``unit_gradients``). As published, a
       wrong label, which is never fitted, has the longer gradient and so the larger alpha whenever
       it happens to point the right way: on synthetic tables alpha found wrong labels with an AUROC
       of 0.3 to 0.5 without the division and 0.85 to 0.9 with it, at equal accuracy.
    4. Eqs. 4 and 5 divide by the mean (``norm``). The paper adds a small constant to its sum; here
       all rows with a label have equal reliabilities in a batch in which nothing gains.
    5. Eq. 6 bounds alpha + beta in units of the batch mean, so neither the batch size nor ``norm``
       moves the bounds, and the term of the mixed pairs keeps its weight. With the published sums,
       the bounds would have to be ``2 / batch_size`` times ours, and that term would have to be
       weighted accordingly. The paper's bounds are unknown. With ours about 25 % of rows are at the
       upper bound, 20 % of gates at the lower one, and the mean gate is 0.95 to 1.03. Wider bounds,
       0.1 and 2, are 1 point lower on average on synthetic tables whose classes are ordered or
       alike, where rows at the ends help CLID more: at worst 3.6 below cross-entropy, against 2.1
       with ours (18 cells, two seeds). On eight real tables they are 0.4 higher, at worst 3.7
       below, against 2.6 with ours (28 cells, one seed).
    6. Eqs. 7, 8, 11 and 13 are reconstructions. The shape parameters of the Beta distribution stay
       within 0.05 and 50. Eq. 10 is 1 in a batch whose guesses are all alike.
    7. The other constants are also ours: the weights, the concentration, and the temperature 0.1 of
       the contrastive term.
    8. The guess is the class with the highest probability averaged over epochs
       (``temporal_momentum``), not over one step, and the guesses of all rows form positives; the
       paper uses only those of high confidence.
    9. A pilot decides when the warm-up ends, from predictions on unseen rows, and estimates which
       classes are mistaken for which. After the warm-up, the label of each row in Eqs. 9 and 13 is
       the distribution over the true classes that follows from its given label, these averages and
       the pilot, sharpened at temperature 0.3 because networks lean towards labels that they have
       seen; all rows with a label are used. With an explicit number of ``warmup_epochs`` the
       averages select rows: the half of each class with the smallest loss, and all labels predicted
       with 0.95 or more. Once 60 % of the epochs have passed and the ramp has ended, rows without a
       believed label join if both networks agree and the partner is at least 0.95 sure.
    10. The target of Eq. 14 is the learner's own distribution on the weak view, without a gradient.
    11. The weight of all losses but the first rises over a sixth of the epochs, and only after the
        warm-up, which the paper does not mention.
    12. The contrastive term sees the embeddings through a head of two layers; the paper compares
        the features directly.
    13. The meta set may be part of the training rows (``clean_mask``). Trusted rows are then in the
        loss with full weight.
    14. ``"coupled"`` divides the cross-entropy as L2B does [3]_; the paper does not say how its
        ablation uses the coupled weight. Because alpha + beta is 1, mixing is symmetric and not
        gated.
    15. Rows are compared within their class (``balanced``). As published, what helps the outer loss
        may be a whole class: on a synthetic table with 10 to 40 % of the rows in a class, alpha was
        2.4 or more in the smallest classes and 0.1 in the largest, whose rows they took (36 %
        accuracy against 51 for cross-entropy; balanced 48; one seed).
    16. Both networks predict (``inference``), and labels are rated; the paper mentions neither.

    Rows without a label have alpha 0 and are trained on through mixing and contrast, and later with
    their guess. Cost: a pilot, at most twice cross-entropy, plus 16 passes through each network per
    row and epoch, where cross-entropy needs 3. Of these, 6 are for the reliabilities, up to 9 with
    trusted rows, and fewer with ``meta_every``. The warm-up takes 3, plus 4 for the ratings. ``2
    n_classes + 2`` floats per sample.

    References
    ----------
    .. [1] Holistic Reliability Propagation: Decoupling Annotation and Prediction for Robust
       Noisy-Label Learning.
    .. [2] Xiao et al. ProMix: Combating Label Noise via Maximizing Clean Sample Utility. IJCAI,
       2023. arXiv:2207.10276
    .. [3] Zhou et al. L2B: Learning to Bootstrap Robust Models for Combating Label Noise. CVPR,
       2024. arXiv:2202.04291

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from noisyfit import HRPClassifier, noise
    >>> X, y = load_digits(return_X_y=True)
    >>> noisy = noise.symmetric(y, 0.4, random_state=0)
    >>> clf = HRPClassifier(max_epochs=20, random_state=0).fit(X, noisy.labels)
    >>> bool((clf.corrected_labels_ == y).mean() > 0.9)
    True
    """

    _uses_meta: ClassVar = True
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "reliability": [StrOptions({"disentangled", "coupled"}), None],
        "mixing": [StrOptions({"asymmetric", "symmetric"}), None],
        "gated": ["boolean"],
        "contrastive_weight": [Interval(Real, 0, None, closed="left")],
        "concentration": [Interval(Real, 0, None, closed="neither")],
        "reliability_range": [tuple, list],
        "reweighting": [Interval(Real, 0, 1, closed="both")],
        "norm": [StrOptions({"mean", "sum", "max"})],
        "balanced": ["boolean"],
        "unit_gradients": ["boolean"],
        "meta_objective": [StrOptions({"auto", "clid", "ce"})],
        "meta_every": [Interval(Integral, 1, None, closed="left")],
        "temporal_momentum": [Interval(Real, 0, 1, closed="left")],
        "inference": [StrOptions({"both", "first"})],
        "warmup_epochs": [Interval(Integral, 1, None, closed="left"), None],
    }

    def __init__(
        self,
        module: Any = None,
        *,
        reliability: str | None = "disentangled",
        mixing: str | None = "asymmetric",
        gated: bool = True,
        contrastive_weight: float = 0.05,
        concentration: float = 4.0,
        reliability_range: tuple[float, float] = (0.5, 1.5),
        reweighting: float = 0.5,
        norm: str = "mean",
        balanced: bool = True,
        unit_gradients: bool = True,
        meta_objective: str = "auto",
        meta_every: int = 1,
        temporal_momentum: float = 0.9,
        inference: str = "both",
        warmup_epochs: int | None = None,
        **kwargs: Unpack[SharedParameters],
    ) -> None:
        super().__init__(module, **kwargs)
        self.reliability = reliability
        self.mixing = mixing
        self.gated = gated
        self.contrastive_weight = contrastive_weight
        self.concentration = concentration
        self.reliability_range = reliability_range
        self.reweighting = reweighting
        self.norm = norm
        self.balanced = balanced
        self.unit_gradients = unit_gradients
        self.meta_objective = meta_objective
        self.meta_every = meta_every
        self.temporal_momentum = temporal_momentum
        self.inference = inference
        self.warmup_epochs = warmup_epochs

    def _fit(self, data: TrainingData) -> None:
        low, high = self.reliability_range
        if not 0 < low < 1 < high:
            raise ValueError(
                "reliability_range must have 0 < lower < 1 < upper. Got "
                f"{self.reliability_range}. It is in units of the mean of a batch, and the lower "
                "bound keeps every row in the training."
            )
        check_meta_set(self._clean(data) or data.subset(self.state_.meta_rows))
        for epoch in self._epochs():
            if self._warming_up(data, epoch):
                self._warm_up(data, self._networks)
                self._rate_rows(data)
            else:
                if epoch == self.state_.first_epoch:
                    self._forget_ratings()
                self._co_train(data, epoch)
            self._refresh(data, epoch)

    def _init_state(self, n: int, n_classes: int) -> dict[str, Tensor]:
        uniform = torch.full((n, n_classes), 1 / n_classes)
        return {
            "meta_rows": draw_meta_rows(n),
            "module_beliefs": uniform,
            "peer_beliefs": uniform.clone(),
            "label_reliability": torch.zeros(n),
            "pseudo_reliability": torch.zeros(n),
            "n_rated": torch.tensor(0),
        }

    # ---------------------------------------------------------------------------- steps

    def _co_train(self, data: TrainingData, epoch: int) -> None:
        """Train each network on what the other trusts."""
        judges = self._judges(data)
        directions: dict[str, dict[str, Tensor]] = {}
        epochs = epoch - int(self.state_.first_epoch) + 1
        ramp = min(1.0, epochs / self.warmup_epochs_)  # w(t) of Eq. 15
        late = ramp == 1 and epoch >= EXPANSION * self.max_epochs_
        targets = {teacher: self._select(data, teacher, late) for teacher in self._networks}
        for step, (idx, x, strong, labels) in enumerate(data.batches("weak", "strong")):
            trusted = data.trusted[idx]
            batches, reliabilities = {}, {}
            for teacher in self._networks:
                batches[teacher] = Targets(*(part[idx] for part in targets[teacher]))
                if self.reliability and step % self.meta_every == 0:
                    directions[teacher] = self._meta_direction(teacher, *judges)
                reliabilities[teacher] = self._reliability(
                    teacher, x, labels, batches[teacher].pseudo, directions.get(teacher)
                )
            for learner, teacher in zip(self._networks, reversed(self._networks), strict=True):
                seen, reliability = batches[teacher], reliabilities[teacher]
                if self.balanced:
                    reliability = self._balanced(reliability, labels, seen)
                loss = self._loss(learner, x, strong, seen, reliability, trusted, ramp)
                self._descend(loss, learner)
            for reliability in reliabilities.values():
                self._remember_rating(idx, reliability)
        self.state_.n_rated += 1

    def _rate_rows(self, data: TrainingData) -> None:
        """Rate all rows without training on the ratings."""
        judges = self._judges(data)
        for teacher in self._networks:
            pseudo = self._with_pilot(getattr(self.state_, f"{teacher}_beliefs")).argmax(1)
            direction = None
            if self.reliability:
                direction = self._meta_direction(teacher, *judges)
            for idx, x, labels in data.batches("weak"):
                self._remember_rating(
                    idx, self._reliability(teacher, x, labels, pseudo[idx], direction)
                )
        self.state_.n_rated += 1

    def _remember_rating(self, idx: Tensor, reliability: Reliability) -> None:
        """Add the ratings of some rows by one of the two networks."""
        self.state_.label_reliability[idx] += reliability.label / 2
        self.state_.pseudo_reliability[idx] += reliability.pseudo / 2

    def _forget_ratings(self) -> None:
        for rating in ("label_reliability", "pseudo_reliability", "n_rated"):
            getattr(self.state_, rating).zero_()

    def _judges(self, data: TrainingData) -> tuple[TrainingData, TrainingData | None]:
        """Return the rows of the outer loss: those without labels, and those with."""
        return data.subset(self.state_.meta_rows), self._clean(data)

    def _meta_direction(
        self, name: str, drawn: TrainingData, clean: TrainingData | None
    ) -> dict[str, Tensor]:
        """Return the gradient of the outer loss, with frozen statistics: the ``v`` of one JVP."""
        network, outer = self._network(name).eval(), torch.zeros((), device=self.device_)
        if clean is not None:
            x, labels = clean.draw(META_BATCH)
            outer = outer + cross_entropy(network(x), labels).mean()  # Eq. 3
        if self.meta_objective != "ce":
            x, _ = drawn.draw(META_BATCH)
            logits, embeddings = logits_and_embeddings(network, x)
            outer = outer + clid(embeddings, logits.float().softmax(1)).mean()
        moving = {n: p for n, p in network.named_parameters() if p.requires_grad}
        gradients = torch.autograd.grad(outer, list(moving.values()), materialize_grads=True)
        average(gradients)
        network.train()
        return dict(zip(moving, gradients, strict=True))

    def _reliability(
        self,
        teacher: str,
        x: Tensor,
        labels: Tensor,
        pseudo: Tensor,
        direction: dict[str, Tensor] | None,
    ) -> Reliability:
        """Rate both labels of every row by the effect of a step on them on the outer loss."""
        labelled = (labels >= 0).float()
        if direction is None:
            ones = torch.ones_like(labelled)
            return Reliability(labelled, ones, ones)
        logits, tangents = logit_jvp(self._network(teacher), x, direction)
        unit = self.unit_gradients
        given = normalized(gains(logits, tangents, labels, unit=unit), self.norm)  # Eq. 4
        guessed = normalized(gains(logits, tangents, pseudo, unit=unit), self.norm)  # Eq. 5
        given = given * labelled  # also where nothing gains and all rows are alike
        if self.reliability == "coupled":
            given = given.clamp(max=1)
            guessed = 1 - given
        total = given + guessed
        total = (total / total.mean()).clamp(*self.reliability_range)  # Eq. 6
        return Reliability(given, guessed, total)

    def _balanced(self, found: Reliability, labels: Tensor, targets: Targets) -> Reliability:
        """Compare the rows of each class among themselves."""
        if self.reliability == "coupled":  # all rows count alike
            return found
        given = even_between_classes(found.label, one_hot(labels, self.n_classes_))
        guessed = even_between_classes(found.pseudo, one_hot(targets.pseudo, self.n_classes_))
        learned = as_distributions(targets.label, self.n_classes_)
        total = even_between_classes(given + guessed, learned)
        total = (total / total.mean()).clamp(*self.reliability_range)
        return Reliability(given, guessed, total)

    def _loss(
        self,
        learner: str,
        x: Tensor,
        strong: Tensor,
        targets: Targets,
        reliability: Reliability,
        trusted: Tensor,
        ramp: float,
    ) -> Tensor:
        """Return Eq. 15 for one network; targets and reliabilities come from the other."""
        network = self._network(learner)
        logits, embeddings = logits_and_embeddings(network, torch.cat([x, strong]))
        weak_logits, strong_logits = logits.chunk(2)
        n_used = targets.used.sum().clamp(min=1)
        losses = self._reweighted(weak_logits, targets, reliability, trusted)
        loss = (targets.used * losses).sum() / n_used  # Eq. 13
        guess = weak_logits.detach().float().softmax(1)
        consistency = targets.used * cross_entropy(strong_logits, guess)
        loss = loss + ramp * consistency.sum() / n_used  # Eq. 14
        if self.mixing:
            loss = loss + ramp * self._mixed(network, x, targets.label, reliability.total)
        if self.contrastive_weight:
            projected = getattr(self, f"{learner}_projector_")(embeddings.float()).chunk(2)
            consensus = min_max(reliability.pseudo)  # Eq. 10
            first, second = projected
            values = reliability_contrastive(
                first, second, targets.pseudo, consensus, temperature=CONTRASTIVE_TEMPERATURE
            )
            loss = loss + ramp * self.contrastive_weight * values.mean()  # Eq. 12
            self._log("pair_agreement", pair_agreement(targets, consensus))
        return loss

    def _reweighted(
        self, logits: Tensor, targets: Targets, reliability: Reliability, trusted: Tensor
    ) -> Tensor:
        """Return each row's cross-entropy times its weight in Eq. 13, 1 for trusted rows."""
        losses = cross_entropy(logits, targets.label)
        if self.reliability == "coupled":  # alpha and beta divide the row between its two labels
            share = torch.where(trusted, 1.0, reliability.label)
            losses = torch.lerp(cross_entropy(logits, targets.pseudo), losses, share)
        total = reliability.total
        weights = 1 + self.reweighting * (total / total.mean() - 1)
        return torch.where(trusted, 1.0, weights) * losses

    def _mixed(self, network: nn.Module, x: Tensor, labels: Tensor, total: Tensor) -> Tensor:
        """Mix rows in the proportion of their reliabilities, and gate the pairs: RAM and GRG."""
        partner = torch.randperm(len(x), device=x.device)
        own, other = total, total[partner]
        if self.mixing == "symmetric":
            own = other = torch.ones_like(total)  # Beta(kappa / 2, kappa / 2)
        share = mixing_share(own, other, self.concentration)  # Eq. 7
        column = share.reshape(-1, *[1] * (x.ndim - 1))
        # Like the other views: compiled code would write statistics that their gradients need.
        mixed_logits, _ = logits_and_embeddings(network, column * x + (1 - column) * x[partner])
        losses = share * cross_entropy(mixed_logits, labels)
        losses = losses + (1 - share) * cross_entropy(mixed_logits, labels[partner])
        if not self.gated:
            return losses.mean()
        gate = share * total + (1 - share) * total[partner]  # Eq. 8
        low, high = self.reliability_range
        self._log("gate", gate.mean())
        self._log("gate_at_lower_bound", (gate <= 1.001 * low).float().mean())
        self._log("rows_at_upper_bound", (total >= high).float().mean())
        return (gate * losses).mean()  # Eq. 9

    # ------------------------------------------------------------------------------- selection

    def _select(self, data: TrainingData, teacher: str, late: bool) -> Targets:
        """Choose the rows whose given label counts, and guess the labels of the others."""
        beliefs = self._with_pilot(getattr(self.state_, f"{teacher}_beliefs"))
        confidence, pseudo = beliefs.max(1)
        if self.state_.has_pilot:
            sharp = sharpen(beliefs, TEMPERATURE)
            return Targets(self._posterior(data, sharp), pseudo, data.has_label)
        given = given_probability(beliefs, data.labels)
        kept = data.trusted | (data.has_label & (given > CONFIDENT))  # matched high confidence
        small_loss = best_of_each_class(given, data.labels, SELECTED_SHARE, data.n_classes)
        kept = kept.index_fill(0, small_loss, True)
        used = kept
        if late:  # label guessing
            votes = self.state_.module_beliefs.argmax(1) == self.state_.peer_beliefs.argmax(1)
            used = kept | (votes & (confidence > CONFIDENT))
        return Targets(torch.where(kept, data.labels, pseudo), pseudo, used)

    def _refresh(self, data: TrainingData, epoch: int) -> None:
        """Average each network's predictions over the epochs so far."""
        share = newest_share(self.temporal_momentum, epoch)
        for name in self._networks:
            getattr(self.state_, f"{name}_beliefs").lerp_(
                self._predict_probs(self._network(name), data, "weak"), share
            )

    def _clean(self, data: TrainingData) -> TrainingData | None:
        """Return the rows whose labels are in the outer loss."""
        if self.meta_objective == "clid":
            return None
        known = data.known()
        if known is not None or self.meta_objective == "auto":
            return known
        beliefs, given = self.state_.module_beliefs + self.state_.peer_beliefs, data.labels
        rating = given_probability(beliefs, given)
        share = len(self.state_.meta_rows) / len(data)
        return data.subset(best_of_each_class(rating, given, share, data.n_classes))

    # ------------------------------------------------------------------------ networks, beliefs

    def initialize_module(self) -> HRPClassifier:
        """Make both networks and their projection heads."""
        super().initialize_module()
        if self.inference == "first":
            self.predicting_ = ["module"]
        probe = torch.zeros(2, *self.row_shape_, device=self.device_)
        n_dims = embedding_size(self.module_, probe)
        self.module_projector_ = projection_head(n_dims).to(self.device_)
        self.peer_projector_ = projection_head(n_dims).to(self.device_)
        return self

    def initialize_optimizer(self) -> HRPClassifier:
        """Give the projection heads to the optimizers of their networks."""
        super().initialize_optimizer()
        for name in self._networks:
            head = getattr(self, f"{name}_projector_")
            self._optimizer(name).add_param_group({"params": list(head.parameters())})
        return self

    def _beliefs(self, data: TrainingData) -> tuple[Tensor, Tensor]:
        """Return the rank of the reliability of the given label, and the mean of both beliefs."""
        state, n_rated = self.state_, max(1, int(self.state_.n_rated))
        rating = state.label_reliability / n_rated
        self.label_reliability_ = rating.cpu().numpy()
        self.pseudo_label_reliability_ = (state.pseudo_reliability / n_rated).cpu().numpy()
        self._warn_of_starvation()
        beliefs = self._with_pilot((state.module_beliefs + state.peer_beliefs).div_(2))
        if state.has_pilot:
            beliefs = self._posterior(data, sharpen(beliefs, TEMPERATURE))
        given = given_probability(beliefs, data.labels)
        never_begun = state.first_epoch < 0
        return ranks(given if state.has_pilot or never_begun else rating), beliefs

    def _warn_of_starvation(self) -> None:
        last = self.history_[-1] if self.history_ else {}
        if last.get("gate_at_lower_bound", 0) > STARVED:
            warn(
                "The gate of the mixed rows should be above its lower bound for most pairs. In the "
                f"last epoch {last['gate_at_lower_bound']:.0%} were at it: a few rows have all the "
                "reliability, and the networks hardly learn from the others. Check the labels of "
                "the trusted rows and give more of them (clean_mask or X_meta), raise "
                "warmup_epochs, or raise the lower bound in reliability_range."
            )


class Targets(NamedTuple):
    """What a network learns from the other, row by row.

    Attributes
    ----------
    label : tensor of shape (n_samples,) or (n_samples, n_classes)
        The given label where it is kept, else the guess; after a pilot, what the label stands for.
    pseudo : tensor of shape (n_samples,)
        The guess: the most probable class.
    used : boolean tensor of shape (n_samples,)
        Rows in the classification loss.
    """

    label: Tensor
    pseudo: Tensor
    used: Tensor


class Reliability(NamedTuple):
    """How far to trust the given label (alpha), the guess (beta), and the row (rho).

    Attributes
    ----------
    label : tensor of shape (n_samples,)
        At least 0; 0 without a label.
    pseudo : tensor of shape (n_samples,)
        At least 0.
    total : tensor of shape (n_samples,)
        Their sum in units of its mean, within ``reliability_range``.
    """

    label: Tensor
    pseudo: Tensor
    total: Tensor


def gains(logits: Tensor, tangents: Tensor, labels: Tensor, *, unit: bool) -> Tensor:
    """Return how much a step on each row's cross-entropy lowers the outer loss, Eqs. 1 to 3.

    Parameters
    ----------
    logits, tangents : tensors of shape (n_samples, n_classes)
        Logits, and their derivative along the gradient of the outer loss.
    labels : tensor of shape (n_samples,)
        Rows with -1 gain nothing.
    unit : bool
        Divide by the length of the row's gradient in the logits, so that a gain measures how well
        the two gradients agree and not how far the row is from being fitted.
    """
    residual = logits.softmax(1) - one_hot(labels, logits.shape[1])
    gain = (residual * tangents).sum(1)
    if unit:
        gain = gain / residual.norm(dim=1).clamp(min=TINY)
    return torch.where(labels >= 0, gain, 0.0)


def normalized(gains: Tensor, norm: str) -> Tensor:
    """Return the positive part scaled by the batch, Eqs. 4 and 5; all equal if nothing gains."""
    positive = gains.clamp(min=0)
    positive = torch.where(positive.sum() > TINY, positive, 1.0)
    return positive / {"mean": positive.mean(), "sum": positive.sum(), "max": positive.max()}[norm]


def even_between_classes(values: Tensor, targets: Tensor) -> Tensor:
    """Scale the values so that, used as weights, they keep each class's share of the batch.

    Parameters
    ----------
    values : Tensor of shape (n_samples,)
    targets : Tensor of shape (n_samples, n_classes)
        Probabilities of the classes. One row of mean value is added to each class, so that a few
        rows do not move it far. Rows of zeros are left unchanged.
    """
    mean, rest = values.mean(), 1 - targets.sum(1)
    sizes = targets.sum(0) + 1
    share, one_row = (targets / sizes).T, 1 / sizes
    weights = values / mean.clamp(min=TINY)
    for _ in range(EVENING_STEPS):
        ratios = torch.addmv(one_row, share, weights)
        weights = weights / torch.addmv(rest, targets, ratios)
    return weights * (mean / weights.mean().clamp(min=TINY))


def min_max(values: Tensor) -> Tensor:
    """Map a batch to [0, 1], Eq. 10; to 1 if all values are equal."""
    low, high = values.aminmax()
    spread = high - low
    return torch.where(spread > TINY, (values - low) / spread.clamp(min=TINY), 1.0)


def mixing_share(own: Tensor, other: Tensor, concentration: float) -> Tensor:
    """Draw the share of each row in its pair, Eq. 7: higher for the more reliable one."""
    parity = own / (own + other)
    shapes = (concentration * torch.stack([parity, 1 - parity])).clamp(*BETA_SHAPES)
    return torch.distributions.Beta(shapes[0], shapes[1], validate_args=False).sample()


def pair_agreement(targets: Targets, consensus: Tensor) -> Tensor:
    """Return the share of positive pairs, by weight, whose targets agree: a proxy of purity."""
    same = targets.pseudo[:, None] == targets.pseudo
    weights = (consensus[:, None] * consensus * same).fill_diagonal_(0)
    label = targets.label if targets.label.ndim == 1 else targets.label.argmax(1)
    agree = label[:, None] == label
    return (weights * agree).sum() / weights.sum().clamp(min=TINY)


def ranks(values: Tensor) -> Tensor:
    """Map to (0, 1] by rank."""
    order = values.argsort(stable=True)
    return torch.empty_like(values).index_copy_(
        0, order, torch.arange(1, len(values) + 1, device=values.device, dtype=values.dtype)
    ) / len(values)
