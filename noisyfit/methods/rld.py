"""Reciprocal Label Diffusion: a diffusion of labels and a predictor that teach each other."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, NamedTuple, Unpack

import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from noisyfit.data.rows import Rows
from noisyfit.data.training import TrainingData, best_of_each_class
from noisyfit.estimator.base import NoisyLabelClassifier
from noisyfit.estimator.keywords import SharedParameters
from noisyfit.estimator.warmup import WarmUp
from noisyfit.exceptions import warn
from noisyfit.nn.averaging import follow
from noisyfit.nn.beliefs import given_probability, newest_share, one_hot, refurbish, sharpen
from noisyfit.nn.diffusion import (
    Denoiser,
    LogitScale,
    Schedule,
    denoise,
    guided_noise,
    label_contrastive,
)
from noisyfit.nn.features import embedding_size, logits_and_embeddings
from noisyfit.nn.losses import cross_entropy
from noisyfit.utils.parameters import Interval, StrOptions

N_DIFFUSION_STEPS = 50
DIFFUSION_LR = 1e-3
WALKED_AT_ONCE = 8192  # rows in denoise
CONTRASTIVE_TEMPERATURE = 0.1
TRUSTED_SHARE = 0.5  # of each class: its given labels above the median
COLLAPSED = 0.6  # share of the classes predicted at the end of the warm-up


class RLDClassifier(WarmUp, NoisyLabelClassifier):
    """Learn from labels that a diffusion model has denoised, guided by the classifier itself.

    A label is a vector of logits. A denoiser learns to remove noise from the classifier's logits
    for a row, guided by the classifier's probabilities; the classifier, called the predictor,
    learns the denoised labels. After a warm-up on the given labels, each improves the other. An
    anchor ties the denoised labels to the given ones; without it the two would teach each other
    whatever they believe.

    For every batch (Algorithm 1 of [1]_):

    1. Label: the logits of the predictor for the row (Eq. 1), here of its running average.
    2. Diffusion step: add noise to the labels (Eq. 2) and guess it, guided towards the predictor's
       probabilities (Eqs. 3 to 6); two views of a row should be denoised alike (Eqs. 7 to 9).
    3. Predictor step: walk labels back from a random step of the diffusion (Eqs. 10 and 11) and
       learn them (Eq. 12).

    Parameters
    ----------
    anchor : {"posterior", "class_median", "ensemble"} or None, default="posterior"
        What the predictor learns. ``"posterior"`` is the probabilities of the true classes that
        follow from the given label, under the pilot's transition matrix, and from the sharpened
        mean of the denoised labels, mixed with the beliefs of the pilot. Without a pilot (see
        ``warmup_epochs``) it is ``"class_median"``. ``"ensemble"`` is the sharpened mean over
        epochs of each row's denoised labels. ``"class_median"`` is the same, but with the given
        label where its denoised probability is above the median of the rows with that label:
        whatever the noise, the better half of a class is right as long as most of its labels are.
        Both weight a denoised label by its largest probability and a given one fully. None is the
        denoised label of the batch, with equal weight for all rows: the published form, which
        forgets the given labels after the warm-up.
    denoising : bool, default=True
        Whether to denoise labels at all. False is a control: the prediction of the predictor's
        running average replaces the denoised label, and no diffusion is trained. The page of this
        method shows what the diffusion brings.
    conditioning : {"features"} or None, default="features"
        Whether the denoiser sees the embedding of the row. None is the published form.
    rule : {"ddim", "ddpm_mean"}, default="ddim"
        ``"ddim"`` takes ``n_steps`` long steps back, from labels with noise added. ``"ddpm_mean"``
        is the published form: it takes every step (Eq. 10), from labels without added noise.
    n_steps : int in [1, 50], default=3
        Number of steps of the walk back of each row, at most ``t_max``.
    t_max : int in [1, 50], default=10
        The walk back starts at a random step, of 50, up to this one. 50 is the published form.
    guidance_scale : float >= 0, default=1.0
        Strength of the guidance, ``s`` of Eq. 5. 0 is the ablation "w/o guidance".
    contrastive_weight : float >= 0, default=0.5
        ``lambda_cont`` of Eq. 13. 0 is the ablation "w/o L_cont".
    predictor_weight : float >= 0, default=1.0
        ``lambda_cl`` of Eq. 13. 0 is the ablation "w/o L_cl": the predictor stays as it was after
        the warm-up.
    diffusion_every : int >= 1, default=2
        Batches per diffusion step.
    teacher_momentum : float in [0, 1), default=0.9
        Momentum of the running average of the predictor's weights, per step. 0 is the published
        form.
    temporal_momentum : float in [0, 1), default=0.7
        Momentum of the mean of the denoised labels over epochs.
    temperature : float > 0, default=0.3
        Values below 1 sharpen that mean where it is learned.
    inference : {"predictor", "diffusion"}, default="predictor"
        Whether ``predict_proba`` returns the predictor's probabilities or its denoised labels.
    warmup_epochs : int or None, default=None
        Epochs of cross-entropy before the predictor learns denoised labels. None means: until the
        epoch in which a pilot predicts unseen labels best, or to the end if it predicts them as
        well there; without a pilot, that is with fewer than 100 labels, one sixth of the epochs.
    {shared parameters}

    Attributes
    ----------
    collapsed_ : bool
        Whether the predictions collapsed to very few classes, and the predictor was restored to the
        end of the warm-up.
    diffusion_, teacher_ : torch.nn.Module
        The denoiser with its schedule, and the running average of the predictor. After a collapse
        they are restored to the end of the warm-up, like ``module_``.
    warmup_epochs_ : int
        Number of epochs of the warm-up; ``n_iter_`` if it lasted to the end.
    {shared attributes}

    Warns
    -----
    NoisyFitWarning
        If the predictions collapsed.

    Notes
    -----
    ``history_`` has, for each epoch, ``noise_error`` (Eq. 6), ``contrast`` (Eq. 8), ``train_loss``
    (Eq. 12), ``agreement`` (the share of rows where predictor and denoised label name the same
    class) and ``mean_prediction_entropy``, in nats.

    Differences from the paper:

    1. The anchor. As published, no step uses the given labels after the warm-up; on digits a
       perceptron without batch normalisation then falls from 89 % to 10 % in three epochs. With an
       anchor, Eq. 12 is a mean weighted by the confidence of the denoised labels, each of which is
       a mean over epochs and sharpened; as published, and with ``anchor=None``, it is a plain mean
       over the denoised labels of the batch.
    2. The labels come from a running average of the predictor, and the denoiser sees embeddings.
    3. Walks start at one of the first 10 of 50 steps and take three long steps (DDIM); the paper
       takes every step, at most 50. Starting from all 50 steps loses the label: on synthetic tables
       accuracy fell by 20 to 40 points. The paper starts from the logits without added noise, DDIM
       here from logits with noise added.
    4. The denoiser is a perceptron with two hidden layers on the vector of logits; the paper names
       a latent diffusion model for images and gives no details. Logits are standardised by running
       statistics. Step 0, which divides by zero, is left out.
    5. The denoiser is trained from the first epoch on, with Adam, on every second batch. Eq. 6
       draws a step and noise for each row. Eq. 8 draws one step and one noise for the batch, as
       published, separately from those of Eq. 6. Its sum runs over the batch.
    6. ``s(t)`` is ``guidance_scale * sqrt(1 - alpha_bar)``.
    7. The warm-up ends when learning does; a network that is still learning is held back by its own
       predictions. A pilot decides when the warm-up ends, from predictions on unseen rows, and
       estimates which classes are mistaken for which: during the warm-up, and with
       ``anchor="posterior"`` afterwards, given labels become probabilities of the true classes
       under the pilot's transition matrix.
    8. After a collapse a guard restores the end of the warm-up. The paper does not say what
       predicts: here it is the predictor or, with ``inference="diffusion"``, its denoised labels.
    9. Networks, the learning rate and its cosine, epochs and views are those of all methods of this
       package; the paper's differ by data set (`noisyfit.benchmark.recipes`).

    The published form: ``anchor=None, conditioning=None, n_steps=50, t_max=50, rule="ddpm_mean",
    diffusion_every=1, teacher_momentum=0``.

    Trusted rows keep their label, with every anchor. Rows without a label are learned with their
    denoised label. Cost: a pilot, at most twice cross-entropy, plus 4.5 passes through the network
    per row and epoch, where cross-entropy needs 3, plus the denoiser's passes, which matter for
    tables. ``n_classes`` floats per sample.

    References
    ----------
    .. [1] Reciprocal Label Diffusion for Learning with Noisy Labels.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from noisyfit import RLDClassifier, noise
    >>> X, y = load_digits(return_X_y=True)
    >>> noisy = noise.symmetric(y, 0.4, random_state=0)
    >>> clf = RLDClassifier(max_epochs=12, random_state=0).fit(X, noisy.labels)
    >>> bool((clf.corrected_labels_ == y).mean() > 0.9)
    True
    """

    _networks: ClassVar = ("module", "diffusion")
    _copies: ClassVar = ("teacher", "warmed_up")
    diffusion_: Any
    diffusion_optimizer_: torch.optim.Optimizer
    teacher_: Any
    warmed_up_: Any
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "anchor": [StrOptions({"posterior", "class_median", "ensemble"}), None],
        "denoising": ["boolean"],
        "conditioning": [StrOptions({"features"}), None],
        "rule": [StrOptions({"ddim", "ddpm_mean"})],
        "n_steps": [Interval(Integral, 1, N_DIFFUSION_STEPS, closed="both")],
        "t_max": [Interval(Integral, 1, N_DIFFUSION_STEPS, closed="both")],
        "guidance_scale": [Interval(Real, 0, None, closed="left")],
        "contrastive_weight": [Interval(Real, 0, None, closed="left")],
        "predictor_weight": [Interval(Real, 0, None, closed="left")],
        "diffusion_every": [Interval(Integral, 1, None, closed="left")],
        "teacher_momentum": [Interval(Real, 0, 1, closed="left")],
        "temporal_momentum": [Interval(Real, 0, 1, closed="left")],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "inference": [StrOptions({"predictor", "diffusion"})],
        "warmup_epochs": [Interval(Integral, 1, None, closed="left"), None],
    }

    def __init__(
        self,
        module: Any = None,
        *,
        anchor: str | None = "posterior",
        denoising: bool = True,
        conditioning: str | None = "features",
        rule: Literal["ddim", "ddpm_mean"] = "ddim",
        n_steps: int = 3,
        t_max: int = 10,
        guidance_scale: float = 1.0,
        contrastive_weight: float = 0.5,
        predictor_weight: float = 1.0,
        diffusion_every: int = 2,
        teacher_momentum: float = 0.9,
        temporal_momentum: float = 0.7,
        temperature: float = 0.3,
        inference: str = "predictor",
        warmup_epochs: int | None = None,
        **kwargs: Unpack[SharedParameters],
    ) -> None:
        super().__init__(module, **kwargs)
        self.anchor = anchor
        self.denoising = denoising
        self.conditioning = conditioning
        self.rule = rule
        self.n_steps = n_steps
        self.t_max = t_max
        self.guidance_scale = guidance_scale
        self.contrastive_weight = contrastive_weight
        self.predictor_weight = predictor_weight
        self.diffusion_every = diffusion_every
        self.teacher_momentum = teacher_momentum
        self.temporal_momentum = temporal_momentum
        self.temperature = temperature
        self.inference = inference
        self.warmup_epochs = warmup_epochs

    def _fit(self, data: TrainingData) -> None:
        if self.inference == "diffusion":
            self._check_diffusion("inference='diffusion'")
        state = self.state_
        for epoch in self._epochs():
            warming_up = self._warming_up(data, epoch)
            if state.first_epoch == epoch:
                for name, network in self.warmed_up_.items():
                    network.load_state_dict(self._network(name).state_dict())
            if not warming_up and not self.predictor_weight:
                self.module_.eval()  # its running statistics stay as well
            self._train_each_other(data, epoch, warming_up)

    def _init_state(self, n: int, n_classes: int) -> dict[str, Tensor]:
        return {
            "denoised": torch.full((n, n_classes), 1 / n_classes),
            "n_predicted": torch.tensor(0.0),
            "collapsed": torch.tensor(False),
        }

    def _train_each_other(self, data: TrainingData, epoch: int, warming_up: bool) -> None:
        """Train diffusion and predictor for an epoch, each on what the other says."""
        targets, weights = self._warm_up_targets(data) if warming_up else self._targets(data)
        predicted = torch.zeros(2, data.n_classes, device=self.device_)
        for step, (idx, x, view, _) in enumerate(data.batches("weak", "weak")):
            label = predicted_label(self.teacher_, x)  # Eq. 1
            if self.denoising and step % self.diffusion_every == 0:
                self._train_diffusion(label, view)  # Eqs. 2 to 9
            denoised = self._denoised(label)  # Eqs. 10 and 11
            self._remember(idx, denoised, epoch)
            target = targets[idx]
            if warming_up and self.state_.has_pilot:
                target = self._meant(data, idx, label.logits)
            if self.anchor is None and not warming_up:
                target = torch.where(data.trusted[idx, None], target, denoised)
            probs = self._train_predictor(x, target, weights[idx])  # Eq. 12
            predicted += torch.stack([probs, one_hot(probs.argmax(1), data.n_classes)]).sum(1)
            self._log("agreement", agreement(probs, denoised))
            follow(self.teacher_, self.module_, 1 - self.teacher_momentum)
        mean_prediction, shares = predicted / predicted[1].sum()
        self._guard(mean_prediction, shares, warming_up)

    # ------------------------------------------------------------------------------ diffusion

    def _train_diffusion(self, label: Label, view: Tensor) -> None:
        """Learn to predict the noise in labels, and to denoise two views of a row alike."""
        self.diffusion_.scale.update(label.logits)
        noise = torch.randn_like(label.logits)
        parts = [Noised(label, noise, self._random_steps(label))]
        if self.contrastive_weight:
            parts += self._two_views(label, predicted_label(self.teacher_, view))
        (guess, _), *others = self.diffusion_.step_back(parts)
        loss = (guess - noise).square().sum(1).mean()  # Eq. 6
        self._log("noise_error", loss)
        if self.contrastive_weight:
            means = [mean for _, mean in others]  # Eq. 7
            contrast = label_contrastive(*means, temperature=CONTRASTIVE_TEMPERATURE)  # Eq. 8
            self._log("contrast", contrast)
            loss = loss + self.contrastive_weight * contrast
        self._descend(loss, "diffusion")

    def _two_views(self, label: Label, other: Label) -> list[Noised]:
        """Add one noise to all rows, at one step, so that no row stands out by it."""
        t = self._random_steps(label)[:1].expand(len(label.logits))
        noise = torch.randn_like(label.logits[:1]).expand_as(label.logits)
        return [Noised(part, noise, t) for part in (label, other)]

    def _denoised(self, label: Label) -> Tensor:
        """Walk a batch of labels back from random steps, (n_samples, n_classes)."""
        if not self.denoising:
            return label.probs
        t = self._random_steps(label)
        z = self.diffusion_.scale.normalize(label.logits)
        if self.rule == "ddim":
            z = self.diffusion_.schedule.add_noise(z, torch.randn_like(z), t)
        return self.diffusion_.walk_back(z, t, label)

    def _random_steps(self, label: Label) -> Tensor:
        n, device = len(label.logits), label.logits.device
        return torch.randint(1, self.t_max + 1, (n,), device=device)

    def _remember(self, idx: Tensor, denoised: Tensor, epoch: int) -> None:
        """Average the denoised labels over the epochs so far."""
        share = newest_share(self.temporal_momentum, epoch)
        self.state_.denoised[idx] = self.state_.denoised[idx].lerp(denoised, share)

    # ------------------------------------------------------------------------------ predictor

    def _warm_up_targets(self, data: TrainingData) -> tuple[Tensor, Tensor]:
        """Return the given labels, and the weights of the rows."""
        return data.distributions(), data.has_label.float()

    def _targets(self, data: TrainingData) -> tuple[Tensor, Tensor]:
        """Return denoised labels, given ones for trusted rows, and the weights of the rows."""
        trusted = data.trusted
        if self.anchor is None:
            return data.distributions(), torch.ones(len(data), device=self.device_)
        if self.anchor == "posterior" and self.state_.has_pilot:
            denoised = sharpen(self._with_pilot(self.state_.denoised), self.temperature)
            targets = self._posterior(data, denoised)
            return targets, torch.ones(len(data), device=self.device_)
        if self.anchor in ("posterior", "class_median"):
            rating, labels = self._given_probability(data), data.labels
            better_half = best_of_each_class(rating, labels, TRUSTED_SHARE, data.n_classes)
            trusted = trusted.index_fill(0, better_half, True)
        denoised = sharpen(self.state_.denoised, self.temperature)
        targets = refurbish(trusted.float(), data.targets(), denoised)
        weights = torch.where(trusted, 1.0, self.state_.denoised.amax(1))
        return targets, weights

    def _train_predictor(self, x: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Learn the targets, and return the predictions, (n_samples, n_classes)."""
        with torch.set_grad_enabled(self.module_.training):
            logits = self.module_(x)
        loss = (weight * cross_entropy(logits, target)).sum() / weight.sum().clamp(min=1)
        if int(self.state_.first_epoch) < 0:
            self._descend(loss)
        elif self.predictor_weight:
            self._descend(self.predictor_weight * loss)
        else:
            self._log("train_loss", loss)
        return logits.detach().float().softmax(1)

    def _given_probability(self, data: TrainingData) -> Tensor:
        """Return the denoised probability of each given label, (n_samples,)."""
        return given_probability(self.state_.denoised, data.labels)

    # ---------------------------------------------------------------------------------- guard

    def _guard(self, mean_prediction: Tensor, shares: Tensor, warming_up: bool) -> None:
        """Restore the end of the warm-up if hardly any classes are still predicted.

        Parameters
        ----------
        mean_prediction, shares : Tensors of shape (n_classes,)
            Means over the rows of the predicted probabilities, and of the most probable class.
        warming_up : bool
        """
        self._log("mean_prediction_entropy", entropy(mean_prediction))
        n_predicted = entropy(shares).exp()  # the effective number of classes
        if warming_up:
            self.state_.n_predicted.copy_(n_predicted)
        elif n_predicted < COLLAPSED * self.state_.n_predicted:
            self.state_.collapsed.fill_(True)
            for name, network in self.warmed_up_.items():
                self._network(name).load_state_dict(network.state_dict())

    def _callbacks_stop(self) -> bool:
        return super()._callbacks_stop() or bool(self.state_.collapsed)

    # ------------------------------------------------------------------------------ prediction

    def _check_diffusion(self, what: str) -> None:
        if not self.denoising:
            raise ValueError(
                f"{what} needs a diffusion that has been trained. Got denoising=False, the control "
                "without one. Fit with denoising=True."
            )

    def denoise(self, X: Any, y: Any = None, *, return_trajectory: bool = False) -> NDArray[Any]:
        """Return the denoised labels of rows.

        Labels are walked back from step ``t_max``, guided by the predictor, without random noise.

        Parameters
        ----------
        X : array-like
            Rows as in ``fit``.
        y : array-like of shape (n_samples,), default=None
            Labels to start from: wrong ones walk to the class that the predictor believes is right.
            None, or a missing label, starts from the predictor's own logits.
        return_trajectory : bool, default=False
            Also return the labels along the way.

        Returns
        -------
        ndarray of shape (n_samples, n_classes) or (steps + 1, n_samples, n_classes)
            Probabilities; with ``return_trajectory``, from the start to the denoised label.

        Raises
        ------
        ValueError
            If there is no diffusion because of ``denoising=False``.
        """
        check_is_fitted(self)
        self._check_diffusion("denoise")
        if y is None:
            walked = self._walk(self._read(X, reset=False), return_trajectory=return_trajectory)
        else:
            data = self._labelled(X, y, "y")
            walked = self._walk(data, data.labels, return_trajectory=return_trajectory)
        return walked.cpu().numpy()

    def _walk(
        self,
        rows: TrainingData | Rows,
        labels: Tensor | None = None,
        *,
        return_trajectory: bool = False,
    ) -> Tensor:
        """Denoise given labels, or the output of the predictor."""
        network, diffusion, n_classes = self.module_, self.diffusion_, self.n_classes_
        both = self._evaluate(
            lambda x: torch.cat(logits_and_embeddings(network, x), 1), network, rows
        )
        logits = both[:, :n_classes]
        label = Label(logits, logits.softmax(1), both[:, n_classes:])
        z = diffusion.scale.normalize(logits)
        if labels is not None:
            z = torch.where((labels >= 0)[:, None], standardized_one_hot(labels, n_classes), z)
        t = torch.full((len(z),), self.t_max, device=z.device)
        if self.rule == "ddim":
            z = diffusion.schedule.add_noise(z, torch.zeros_like(z), t)
        chunks = zip(*(part.split(WALKED_AT_ONCE) for part in (z, t, *label)), strict=True)
        walked = [
            diffusion.walk_back(z, t, Label(*parts), return_trajectory=return_trajectory)
            for z, t, *parts in chunks
        ]
        return torch.cat(walked, dim=-2)

    def _probabilities(self, rows: TrainingData | Rows) -> Tensor:
        """Return the predictions of the predictor, or its denoised labels."""
        return super()._probabilities(rows) if self.inference == "predictor" else self._walk(rows)

    # ------------------------------------------------------------------------ networks, beliefs

    def initialize_module(self) -> RLDClassifier:
        """Make the networks; the teacher starts where the predictor does."""
        super().initialize_module()
        self.teacher_.load_state_dict(self.module_.state_dict())
        return self

    def _set_training(self, training: bool = True) -> None:
        super()._set_training(training)
        self.teacher_.eval()

    def _make_network(self, name: str, *, independent: bool) -> nn.Module:
        if name == "warmed_up":
            copied = ("module", "teacher", "diffusion")
            return nn.ModuleDict({part: deepcopy(getattr(self, f"{part}_")) for part in copied})
        if name != "diffusion":
            return super()._make_network(name, independent=independent)
        probe = torch.zeros(2, *self.row_shape_, device=self.device_)
        n_features = embedding_size(self.module_, probe) if self.conditioning else 0
        diffusion = LabelDiffusion(
            self.n_classes_,
            n_features,
            rule=self.rule,
            n_steps=self.n_steps,
            t_max=self.t_max,
            guidance_scale=self.guidance_scale,
        )
        return diffusion.to(self.device_)

    def _make_optimizer(self, name: str, network: nn.Module) -> torch.optim.Optimizer:
        if name != "diffusion":
            return super()._make_optimizer(name, network)
        params = {"lr": DIFFUSION_LR, "fused": True} | self.get_params_for("diffusion_optimizer")
        return torch.optim.Adam(network.parameters(), **params)

    def _beliefs(self, data: TrainingData) -> tuple[Tensor, Tensor]:
        """Return the denoised probability of the given label and of all classes."""
        self.collapsed_ = bool(self.state_.collapsed)
        if self.collapsed_:
            self.state_.denoised.copy_(self._predict_probs(self.module_, data))
            warn(
                f"The predictor should keep predicting at least {COLLAPSED:.0%} of the classes of "
                f"the warm-up. It collapsed in epoch {self.n_iter_}, and its weights after epoch "
                f"{self.warmup_epochs_} were put back. Use an anchor, a lower t_max, a longer "
                "warm-up, or a network with normalisation."
            )
        return self._given_probability(data), self.state_.denoised.clone()


class Label(NamedTuple):
    """The output of a network for a batch, without gradient.

    Attributes
    ----------
    logits, probs : tensors of shape (n_samples, n_classes)
    embeddings : tensor of shape (n_samples, n_dims)
    """

    logits: Tensor
    probs: Tensor
    embeddings: Tensor


class Noised(NamedTuple):
    """Labels, the noise to add to them, and the step of each.

    Attributes
    ----------
    label : Label
    noise : tensor of shape (n_samples, n_classes)
    t : integer tensor of shape (n_samples,)
    """

    label: Label
    noise: Tensor
    t: Tensor


class LabelDiffusion(nn.Module):
    """A denoiser, its schedule, and the scale of the logits; parameters as in RLDClassifier."""

    def __init__(
        self,
        n_classes: int,
        n_features: int,
        *,
        rule: Literal["ddim", "ddpm_mean"],
        n_steps: int,
        t_max: int,
        guidance_scale: float,
    ) -> None:
        super().__init__()
        self.denoiser = Denoiser(n_classes, n_features=n_features)
        self.schedule = Schedule(N_DIFFUSION_STEPS)
        self.scale = LogitScale()
        self.guidance_scale = guidance_scale
        self.rule, self.n_steps, self.t_max = rule, n_steps, t_max

    def step_back(self, parts: Sequence[Noised]) -> list[tuple[Tensor, Tensor]]:
        """Add noise to labels (Eq. 2); return its guess (Eq. 5) and the mean one step back (Eq. 7).

        All parts of n_samples labels pass through the denoiser at once. The guesses and the means
        have shape (n_samples, n_classes).
        """
        labels, noises, steps = zip(*parts, strict=True)
        label, t = Label(*map(torch.cat, zip(*labels, strict=True))), torch.cat(steps)
        z_t = self.schedule.add_noise(self.scale.normalize(label.logits), torch.cat(noises), t)
        guess = guided_noise(
            self.denoiser, self.schedule, self.scale, z_t, t, label.probs, self._condition(label),
            guidance_scale=self.guidance_scale,
        )  # fmt: skip
        means = self.schedule.posterior_mean(z_t, guess, t)
        return list(zip(guess.chunk(len(parts)), means.chunk(len(parts)), strict=True))

    @torch.no_grad()
    def walk_back(
        self, z: Tensor, t: Tensor, label: Label, *, return_trajectory: bool = False
    ) -> Tensor:
        """Denoise standardised labels `z` at steps `t` (Eqs. 10 and 11); return probabilities."""
        parts = self.denoiser, self.schedule, self.scale
        z_0 = denoise(
            *parts, z, t, label.probs, self._condition(label), rule=self.rule,
            n_steps=self.n_steps, t_max=self.t_max, guidance_scale=self.guidance_scale,
            return_trajectory=return_trajectory,
        )  # fmt: skip
        return self.scale.restore(z_0).softmax(-1)

    def _condition(self, label: Label) -> Tensor | None:
        return self.denoiser.condition(label.embeddings)


@torch.no_grad()
def predicted_label(network: nn.Module, x: Tensor) -> Label:
    """Return the output of a network for a batch (Eq. 1)."""
    logits, embeddings = logits_and_embeddings(network, x)
    return Label(logits.float(), logits.float().softmax(1), embeddings.float())


def standardized_one_hot(labels: Tensor, n_classes: int) -> Tensor:
    """Return labels with mean 0 and variance 1, like the logits that are diffused."""
    onehot = one_hot(labels, n_classes)
    centred = onehot - onehot.mean(1, keepdim=True)
    return centred / centred.square().mean(1, keepdim=True).sqrt().clamp(min=1e-3)


def entropy(probs: Tensor) -> Tensor:
    """Return the entropy of distributions along the last axis, in nats."""
    return -torch.xlogy(probs, probs).sum(-1)


def agreement(first: Tensor, second: Tensor) -> Tensor:
    """Return the share of rows for which two distributions name the same class."""
    return (first.argmax(1) == second.argmax(1)).float().mean()
