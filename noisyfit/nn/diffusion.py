"""Diffusion of label logits, guided by a classifier's predictions (Reciprocal Label Diffusion).

A label is a vector z of K standardised logits. `Schedule` adds noise to it and removes noise,
`Denoiser` predicts the noise, `guided_noise` steers the prediction towards the classifier, and
`denoise` walks from a noisy label back to a clean one. Everything runs in single precision or
higher, also under autocast. The equations are those of the paper, "Reciprocal Label Diffusion for
Learning with Noisy Labels".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from noisyfit.nn.losses import _unit_length

__all__ = ["Denoiser", "LogitScale", "Schedule", "denoise", "guided_noise", "label_contrastive"]

TIME_EMBEDDING_SIZE = 64
STD_FLOOR = 1e-3  # constant logits become zeros

Pullback = Callable[[Tensor], Tensor]


class Schedule(nn.Module):
    """The share of a label that is left after each diffusion step.

    The schedule of latent diffusion (Rombach et al., arXiv:2112.10752), reduced to `n_steps` evenly
    spaced steps that always include the last. The methods take labels and noise of shape
    (n_samples, n_classes) and the step `t` of each label, an integer tensor of shape (n_samples,)
    in ``0..n_steps``. Step 0 is the clean label.

    Parameters
    ----------
    n_steps : int, default=50
    n_train_steps : int >= n_steps, default=1000
        Number of steps in the full schedule.
    beta_start, beta_end : float in (0, 1), default=0.00085 and 0.012
        Share of the variance that the first and the last step of the full schedule replace with
        noise; the square roots in between are evenly spaced.

    Attributes
    ----------
    alpha_bar : tensor of shape (n_steps + 1,)
        Share of the variance left from the label, falling from ``alpha_bar[0] = 1``.
    """

    alpha_bar: Tensor

    def __init__(
        self,
        n_steps: int = 50,
        n_train_steps: int = 1000,
        beta_start: float = 0.00085,
        beta_end: float = 0.012,
    ) -> None:
        super().__init__()
        self.n_steps = n_steps
        ends = math.sqrt(beta_start), math.sqrt(beta_end)
        betas = torch.linspace(*ends, n_train_steps, dtype=torch.float64).square()
        alpha_bar = torch.cat([betas.new_ones(1), (1 - betas).cumprod(0)])
        kept = torch.arange(n_steps + 1) * n_train_steps // n_steps
        self.register_buffer("alpha_bar", alpha_bar[kept].float())

    def add_noise(self, z_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return the labels at step `t` (Eq. 2)."""
        alpha_bar = self.alpha_bar[t, None]
        return alpha_bar.sqrt() * z_0 + (1 - alpha_bar).sqrt() * noise

    def remove_noise(self, z_t: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return the clean labels implied by `noise` (Eq. 4)."""
        alpha_bar = self.alpha_bar[t, None]
        return (z_t - (1 - alpha_bar).sqrt() * noise) / alpha_bar.sqrt()

    def posterior_mean(self, z_t: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return the mean of the labels at step ``t - 1`` (Eqs. 7 and 10).

        Only for steps from 1 on: step 0 divides by zero, giving infinity or NaN.
        """
        alpha_bar = self.alpha_bar[t, None]
        alpha = alpha_bar / self.alpha_bar[t - 1, None]
        return (z_t - (1 - alpha) / (1 - alpha_bar).sqrt() * noise) / alpha.sqrt()

    def ddim(self, z_t: Tensor, noise: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
        """Return the labels at an earlier step, without new noise (Song et al., arXiv:2010.02502).

        Eq. 12 there with ``sigma = 0``.
        """
        return self.add_noise(self.remove_noise(z_t, noise, t), noise, t_next)


class Denoiser(nn.Module):
    """Noise in a label, predicted by a perceptron with two hidden layers.

    Linear functions of a sinusoidal code of the step, and of the features if there are any, are
    added to the first layer. The last layer starts at zero, so at first no noise is predicted. The
    paper does not give the architecture of its noise predictor; this is our choice.

    Parameters
    ----------
    n_classes : int
    hidden : int, default=128
        Units of each hidden layer.
    n_features : int, default=0
        Size of the conditioning features; 0 for none, as in the paper.
    """

    frequencies: Tensor

    def __init__(self, n_classes: int, hidden: int = 128, n_features: int = 0) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.logspace(0, -4, TIME_EMBEDDING_SIZE // 2))
        self.time = nn.Linear(TIME_EMBEDDING_SIZE, hidden, bias=False)
        self.features = (
            nn.Sequential(nn.LayerNorm(n_features), nn.Linear(n_features, hidden, bias=False))
            if n_features
            else None
        )
        self.first = nn.Linear(n_classes, hidden)
        self.first_norm = nn.LayerNorm(hidden)
        self.second = nn.Linear(hidden, hidden)
        self.second_norm = nn.LayerNorm(hidden)
        self.output = nn.Linear(hidden, n_classes)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def condition(self, features: Tensor) -> Tensor | None:
        """Return the contribution of features (n_samples, n_features) to the first layer.

        It is the same at all steps. Shape (n_samples, hidden), or None if the denoiser takes no
        features.
        """
        if self.features is None:
            return None
        with torch.autocast(features.device.type, enabled=False):
            return self.features(_at_least_single(features))

    def forward(self, z_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the noise (n_samples, n_classes) in labels of the same shape at steps `t`."""
        return self.vjp(z_t, t, condition)[0]

    def vjp(
        self, z_t: Tensor, t: Tensor, condition: Tensor | None = None
    ) -> tuple[Tensor, Pullback]:
        """Return the predicted noise and the product of its transposed Jacobian with a vector.

        The Jacobian, in `z_t`, is written out, so the product can be differentiated in the
        parameters like any other function.

        Returns
        -------
        noise : tensor of shape (n_samples, n_classes)
        pullback : callable
            Maps u, of shape (n_samples, n_classes), to the product ``J^T u`` of the same shape.
        """
        with torch.autocast(z_t.device.type, enabled=False):
            hidden = self.first(_at_least_single(z_t)) + self.time(self._code(t))
            hidden = hidden if condition is None else hidden + condition
            hidden, first_pullback = _norm_silu(self.first_norm, hidden)
            hidden, second_pullback = _norm_silu(self.second_norm, self.second(hidden))
            noise = self.output(hidden)

        def pullback(u: Tensor) -> Tensor:
            with torch.autocast(u.device.type, enabled=False):
                u = second_pullback(u @ self.output.weight)
                return first_pullback(u @ self.second.weight) @ self.first.weight

        return noise, pullback

    def _code(self, t: Tensor) -> Tensor:
        """Return sines and cosines (n_samples, TIME_EMBEDDING_SIZE) of the step."""
        angles = t[:, None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)


def _norm_silu(norm: nn.LayerNorm, x: Tensor) -> tuple[Tensor, Pullback]:
    """Return ``silu(norm(x))`` (n_samples, hidden) and its transposed Jacobian as a function."""
    shape, affine = norm.normalized_shape, (norm.weight, norm.bias)
    y, mean, scale = torch.native_layer_norm(x, shape, *affine, norm.eps)
    gate = y.sigmoid()
    silu = y * gate

    def pullback(u: Tensor) -> Tensor:
        v = u * (gate + silu * (1 - gate))
        # The backward pass of a layer is the product with its transposed Jacobian.
        backward, wanted = torch.ops.aten.native_layer_norm_backward, (True, False, False)
        gradient: Tensor = backward(v, x, shape, mean, scale, *affine, wanted)[0]
        return gradient

    return silu, pullback


class LogitScale(nn.Module):
    """Running mean and standard deviation of logits, two numbers for all classes.

    Diffusion expects labels of about unit variance, which a classifier's logits do not have.

    Parameters
    ----------
    momentum : float in (0, 1], default=0.1
        Weight of the newest batch; the first batch sets both numbers.

    Attributes
    ----------
    mean, std : tensors of shape ()
        0 and 1 before the first batch; `std` is at least 1e-3.
    """

    mean: Tensor
    std: Tensor
    seen: Tensor

    def __init__(self, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.bool))  # one batch or more

    @torch.no_grad()
    def update(self, logits: Tensor) -> None:
        """Update the statistics with the logits (n_samples, n_classes) of a batch."""
        logits = logits.to(self.mean.dtype)
        weight = torch.where(self.seen, self.momentum, 1.0).to(self.mean.dtype)
        self.mean.lerp_(logits.mean(), weight)
        self.std.lerp_(logits.std(correction=0).clamp(min=STD_FLOOR), weight)
        self.seen.fill_(True)

    def normalize(self, logits: Tensor) -> Tensor:
        """Return labels z of about zero mean and unit variance, in the shape of the logits."""
        return (_at_least_single(logits) - self.mean) / self.std

    def restore(self, z: Tensor) -> Tensor:
        """Return the logits of labels z, in the shape of z."""
        return _at_least_single(z) * self.std + self.mean


def guided_noise(
    denoiser: Denoiser,
    schedule: Schedule,
    scale: LogitScale,
    z_t: Tensor,
    t: Tensor,
    target: Tensor,
    condition: Tensor | None = None,
    *,
    guidance_scale: float = 1.0,
) -> Tensor:
    """Predict the noise in a label, steered so that removing it leads to the target (Eq. 5).

    The guidance is the gradient in `z_t` of the squared distance between the probabilities of the
    denoised label and the target (Eq. 3). It is written out, so training need not differentiate
    twice.

    Parameters
    ----------
    denoiser : Denoiser
    schedule : Schedule
    scale : LogitScale
        Converts labels to the units of the logits, in which they are compared with the target.
    z_t : tensor of shape (n_samples, n_classes)
        Standardised labels at step `t`.
    t : integer tensor of shape (n_samples,)
        In ``1..n_steps``.
    target : tensor of shape (n_samples, n_classes)
        The classifier's predictions: distributions over the classes.
    condition : tensor of shape (n_samples, hidden) or None, default=None
        From `Denoiser.condition`.
    guidance_scale : float, default=1.0
        The gradient is multiplied by ``guidance_scale * sqrt(1 - alpha_bar)``, as in Bansal et al.,
        arXiv:2302.07121; the paper leaves the factor open. With 0 the gradient is not computed.

    Returns
    -------
    tensor of shape (n_samples, n_classes)
    """
    if guidance_scale == 0:
        return denoiser(z_t, t, condition)
    noise, pullback = denoiser.vjp(z_t, t, condition)
    probs = scale.restore(schedule.remove_noise(z_t, noise, t)).softmax(dim=1)
    slope = scale.std * _distance_slope(probs, target)  # in the denoised label
    # Eq. 4 is linear in z_t and noise; its transposed Jacobian is Eq. 4 of slope and J^T slope.
    gradient = schedule.remove_noise(slope, pullback(slope), t)
    strength = guidance_scale * (1 - schedule.alpha_bar[t, None]).sqrt()
    return noise + strength * gradient


def _distance_slope(probs: Tensor, target: Tensor) -> Tensor:
    """Return the derivative (n_samples, n_classes) of ``|probs - target|^2`` in the logits."""
    residual = probs - target
    return 2 * probs * (residual - (probs * residual).sum(dim=1, keepdim=True))


@torch.no_grad()
def denoise(
    denoiser: Denoiser,
    schedule: Schedule,
    scale: LogitScale,
    z: Tensor,
    start: Tensor,
    target: Tensor,
    condition: Tensor | None = None,
    *,
    rule: Literal["ddim", "ddpm_mean"] = "ddim",
    n_steps: int = 10,
    t_max: int | None = None,
    guidance_scale: float = 1.0,
    return_trajectory: bool = False,
) -> Tensor:
    """Walk from noisy labels back to clean ones, guided by the target, without gradient.

    The loop has the same length for all batches and does not wait for the device, so one captured
    graph serves them all. A row that has no step to take keeps its value.

    Parameters
    ----------
    denoiser, schedule, scale, target, condition, guidance_scale
        As in `guided_noise`.
    z : tensor of shape (n_samples, n_classes)
        Standardised labels, each at the step `start`.
    start : integer tensor of shape (n_samples,)
        In ``0..t_max``; a row that starts at 0 is unchanged.
    rule : {"ddim", "ddpm_mean"}, default="ddim"
        "ddpm_mean" is the paper's rule: every step, and the mean of each (Eq. 10). "ddim" divides
        the way of each row into a few long steps.
    n_steps : int >= 1, default=10
        Number of steps of a row with "ddim", at most `t_max`; "ddpm_mean" ignores it.
    t_max : int >= 1 or None, default=None
        The largest start; None for the last step of the schedule.
    return_trajectory : bool, default=False

    Returns
    -------
    tensor of shape (n_samples, n_classes) or (steps + 1, n_samples, n_classes)
        Standardised labels at step 0, or all those along the way, starting with `z`.
    """
    t_max = schedule.n_steps if t_max is None else t_max
    if rule == "ddim":
        n_steps = min(n_steps, t_max)
        path = [start * k // n_steps for k in range(n_steps, -1, -1)]
    else:
        path = [start.clamp(max=k) for k in range(t_max, -1, -1)]
    z = _at_least_single(z)
    trajectory = [z]
    for t, t_next in pairwise(path):
        noise = guided_noise(
            denoiser, schedule, scale, z, t, target, condition, guidance_scale=guidance_scale
        )
        if rule == "ddim":
            moved = schedule.ddim(z, noise, t, t_next)
        else:
            moved = schedule.posterior_mean(z, noise, t)
        z = torch.where((t_next < t)[:, None], moved, z)
        if return_trajectory:
            trajectory.append(z)
    return torch.stack(trajectory) if return_trajectory else z


def label_contrastive(mean: Tensor, mean_view: Tensor, *, temperature: float = 0.1) -> Tensor:
    """Contrastive loss between the denoised labels of two views of a batch (Eqs. 8 and 9).

    Each label should be closer to that of its other view than to those of other samples. Unlike in
    `contrastive`, the other view is not in the denominator, so the loss can be negative.

    Parameters
    ----------
    mean, mean_view : tensors of shape (n_samples, n_classes)
        `Schedule.posterior_mean` of the two views, row by row.
    temperature : float > 0, default=0.1
        Divisor of the cosine similarities.

    Returns
    -------
    tensor of shape ()
        In nats, a mean over the rows. Zero for fewer than two rows, because there is nothing to
        tell apart.
    """
    if len(mean) < 2:
        return 0.0 * (mean.sum() + mean_view.sum())
    with torch.autocast(mean.device.type, enabled=False):
        rows = _unit_length(_at_least_single(mean))
        views = _unit_length(_at_least_single(mean_view))
        itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
        similarity = (rows @ rows.T / temperature).masked_fill(itself, -torch.inf)
        return (similarity.logsumexp(dim=1) - (rows * views).sum(dim=1) / temperature).mean()


def _at_least_single(x: Tensor) -> Tensor:
    """Return half-precision values in single precision, all others unchanged."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
