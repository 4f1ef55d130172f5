"""The built-in generator: class-conditional diffusion, trained on the user's own rows."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, fields
from itertools import pairwise
from math import pi, prod
from numbers import Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from noisyfit.nn.averaging import follow
from noisyfit.nn.generators.denoisers import GROUPS, TableDenoiser, UNet
from noisyfit.nn.generators.edges import edge_map
from noisyfit.nn.generators.protocol import Progress
from noisyfit.nn.input_layer import mean_and_std
from noisyfit.utils.devices import named_device, resolve_device
from noisyfit.utils.parameters import (
    AT_LEAST_ONE,
    NOT_NEGATIVE,
    POSITIVE,
    Interval,
    StrOptions,
    check_parameters,
)
from noisyfit.utils.parts import Part
from noisyfit.utils.torch_state import rng_state, seeded_generators, set_rng_state
from noisyfit.utils.validation import encode

LABEL_DROPOUT = 0.2  # share of rows that are denoised without their label
EMA_DECAY = 0.999
SMALLEST_SCALE = 1e-6
DEFAULT_WIDTH = {"mlp": 192, "unet": 16}
SMALL_IMAGE = 1024  # values; up to here a perceptron beat the U-Net, see the page of EchoAlign
CHUNK = 512  # rows modified at once
STEPS, PIXEL_STEPS = 1000, 500  # of training
STEPS_AT_RISK = 200  # between two times that the state of training is written


@dataclass
class ConditionalDiffusion(Part):
    """Modify rows by label-conditional diffusion, learned from the same rows and labels.

    A row is turned into noise along the path on which it would have come out of noise without a
    label (DDIM inversion, [1]_), up to `strength`. From there it is denoised under its label with
    classifier-free guidance ([2]_). A row that fits its label comes back nearly unchanged; one that
    does not is drawn towards the class of its label.

    It learns from wrong labels too, so a label stands for a mixture of classes; guidance prefers
    the class in which the label is most frequent, and is therefore strong by default. If half of a
    class carries the same wrong label, there is nothing to prefer, and an external generator is
    needed.

    Parameters
    ----------
    strength : float in (0, 1], default=0.9
        Fraction of the way to pure noise. Less keeps more of the row and aligns it less.
    guidance : float >= 0, default=10.0
        Weight of the label; 1 samples what was learned under the label, and 0 ignores the label.
    n_steps : int >= 1, default=10
        Number of steps to the noise, and as many back.
    network : {None, "mlp", "unet"}, default=None
        The network that denoises images. None is a perceptron on the pixels for up to 1,024 values
        and otherwise a U-Net; with `control` it is always a U-Net. Tables always use the
        perceptron.
    control : {None, "edges"}, default=None
        "edges" guides the denoising of images with an edge map of the row, the built-in counterpart
        of ControlNet ([3]_): outlines stay, and rows change less.
    n_train_steps : int >= 1 or None, default=None
        Number of training steps. None is 1,000, or 500 for a perceptron on images, which memorises
        wrong labels when trained for longer.
    batch_size : int >= 1, default=128
    lr : float > 0, default=1e-3
        Learning rate of AdamW, with a warm-up and a cosine to zero.
    width : int >= 1 or None, default=None
        Units of the perceptron, or channels of the U-Net, a multiple of 8. None is 192 or 16, which
        a CPU can train; 64 channels suit a GPU.
    device : str or torch.device, default="cpu"
        "auto" is a GPU if there is one.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    network_ : torch.nn.Module
        The average of the weights over the training steps (EMA).
    mean_, scale_, low_, high_ : tensors
        Statistics of each feature or channel. The network sees rows standardised by the first two;
        modified rows stay between the lowest and the highest value seen.

    References
    ----------
    .. [1] Song, Meng, Ermon. Denoising Diffusion Implicit Models. ICLR, 2021. arXiv:2010.02502
    .. [2] Ho, Salimans. Classifier-Free Diffusion Guidance. 2022. arXiv:2207.12598
    .. [3] Zhang, Rao, Agrawala. Adding Conditional Control to Text-to-Image Diffusion Models.
       ICCV, 2023. arXiv:2302.05543
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "strength": [Interval(Real, 0, 1, closed="right")],
        "guidance": [NOT_NEGATIVE],
        "n_steps": [AT_LEAST_ONE],
        "network": [StrOptions({"mlp", "unet"}), None],
        "control": [StrOptions({"edges"}), None],
        "n_train_steps": [AT_LEAST_ONE, None],
        "batch_size": [AT_LEAST_ONE],
        "lr": [POSITIVE],
        "width": [AT_LEAST_ONE, None],
    }

    strength: float = 0.9
    guidance: float = 10.0
    n_steps: int = 10
    network: Literal["mlp", "unet"] | None = None
    control: Literal["edges"] | None = None
    n_train_steps: int | None = None
    batch_size: int = 128
    lr: float = 1e-3
    width: int | None = None
    device: str | torch.device = "cpu"

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters as given."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def set_params(self, **params: Any) -> Self:
        """Store parameters for the next fit."""
        for name, value in params.items():
            if name not in self.get_params():
                known = sorted(self.get_params())
                raise ValueError(
                    f"Invalid parameter {name!r} for {type(self).__name__}. "
                    f"Valid parameters are: {known}."
                )
            setattr(self, name, value)
        return self

    # ----------------------------------------------------------------------------------- fit

    def fit(
        self,
        x: Tensor,
        y: NDArray[Any],
        generator: torch.Generator,
        checkpoint: Progress | None = None,
    ) -> Self:
        """Train the network on rows and their labels; see `Trainable.fit`.

        With a `checkpoint`, a training that was stopped resumes and ends with the same weights.

        Raises
        ------
        ValueError
            If a parameter is invalid, or the device does not exist.
        """
        self._check_parameters()
        self.classes_ = np.unique(y)
        self.kind_ = self._choose_network(tuple(x.shape[1:]))
        self._check_width()
        default = PIXEL_STEPS if self.kind_ == "mlp" and x.ndim == 4 else STEPS
        x = self._as_seen(x)
        self._measure(x)
        labels = torch.as_tensor(encode(y, self.classes_, np.zeros(len(y), dtype=bool)))
        seed = int(torch.randint(2**31, (), generator=generator))
        with seeded_generators(seed, self._device):
            network = self._make_network(tuple(x.shape[1:]))
            n_steps = int(self.n_train_steps or default)
            self.network_ = self._train(network, x, labels, n_steps, checkpoint)
        return self

    def get_state(self) -> dict[str, Any]:
        """Return what was learned, as tensors, arrays and text."""
        learned = {name: value for name, value in vars(self).items() if name.endswith("_")}
        return learned | {"network_": self.network_.state_dict()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the result of `get_state` from a modifier with the same parameters."""
        vars(self).update({name: value for name, value in state.items() if name != "network_"})
        with seeded_generators(0):
            network = self._make_network(tuple(self.mean_.shape[1:]))
        network.load_state_dict(state["network_"])
        self.network_ = network.to(self._device).eval()

    @property
    def _device(self) -> torch.device:
        return named_device(self.device)

    def _check_parameters(self) -> None:
        check_parameters(self._parameter_constraints, self.get_params(), type(self).__name__)
        resolve_device(self.device)

    def _check_width(self) -> None:
        if self.kind_ == "unet" and self.width is not None and self.width % GROUPS:
            raise ValueError(
                f"The 'width' parameter of {type(self).__name__} must be a multiple of {GROUPS} "
                f"for a U-Net. Got {self.width}. Pass {-(-int(self.width) // GROUPS) * GROUPS}."
            )

    def _choose_network(self, row_shape: tuple[int, ...]) -> str:
        if len(row_shape) == 1:
            return "mlp"
        if self.control:
            return "unet"
        return self.network or ("mlp" if prod(row_shape) <= SMALL_IMAGE else "unet")

    def _as_seen(self, x: Tensor) -> Tensor:
        """Return rows in the shape that the network takes."""
        return x.flatten(1) if self.kind_ == "mlp" else x

    def _measure(self, x: Tensor) -> None:
        """Learn centre, scale and limits of each column of tables, each channel of images."""
        axes = (0,) if x.ndim == 2 else (0, 2, 3)
        mean, scale = mean_and_std(x)
        self.mean_ = mean.float()
        self.scale_ = torch.where(scale > SMALLEST_SCALE, scale, 1.0).float()
        self.low_ = (x.amin(axes, keepdim=True).float() - self.mean_) / self.scale_
        self.high_ = (x.amax(axes, keepdim=True).float() - self.mean_) / self.scale_

    def _make_network(self, row_shape: tuple[int, ...]) -> nn.Module:
        n_classes, width = len(self.classes_), int(self.width or DEFAULT_WIDTH[self.kind_])
        if self.kind_ == "mlp":
            return TableDenoiser(row_shape[0], n_classes, width)
        n_controls = row_shape[0] if self.control else 0
        return UNet(row_shape[0], n_classes, width, n_controls)

    def _train(
        self,
        network: nn.Module,
        x: Tensor,
        labels: Tensor,
        n_steps: int,
        checkpoint: Progress | None,
    ) -> nn.Module:
        """Return the average of the weights over training."""
        lr = float(self.lr)
        network.to(self._device).train()
        average = deepcopy(network)
        optimizer = torch.optim.AdamW(network.parameters(), lr=lr)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, lr, total_steps=n_steps + 1, pct_start=0.05
        )
        parts: dict[str, Any] = {"network": network, "average": average}
        parts |= {"optimizer": optimizer, "schedule": schedule}
        found = checkpoint.read() if checkpoint else None
        if found:
            for name, part in parts.items():
                part.load_state_dict(found[name])
            set_rng_state(found["rng"])
        for step in range(found["step"] if found else 0, n_steps):
            if checkpoint and step and step % STEPS_AT_RISK == 0:
                state = {name: part.state_dict() for name, part in parts.items()}
                checkpoint.hold(state | {"rng": rng_state(self._device), "step": step})
                checkpoint.flush()
            idx = torch.randint(len(x), (min(self.batch_size, len(x)),))
            rows, given = self._standardize(x[idx]), labels[idx].to(self._device)
            loss = self._loss(network, rows, given)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            follow(average, network, _share_of(step))
        return average.eval()

    def _loss(self, network: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
        """Return the squared error of the velocity at random angles, some rows without label."""
        angle = torch.rand(len(x), device=x.device) * (pi / 2)
        noise = torch.randn_like(x)
        cos, sin = _along(angle.cos(), x), _along(angle.sin(), x)
        dropped = torch.rand(len(x), device=x.device) < LABEL_DROPOUT
        labels = labels.masked_fill(dropped, len(self.classes_))
        velocity = network(cos * x + sin * noise, angle, labels, *self._controls(x))
        return F.mse_loss(velocity, cos * noise - sin * x)

    # -------------------------------------------------------------------------------- modify

    @torch.no_grad()
    def modify(self, x: Tensor, y: NDArray[Any], generator: torch.Generator) -> Tensor:
        """Return rows drawn to their labels; see `Modifier.modify`. Deterministic."""
        self._check_parameters()
        labels = torch.as_tensor(encode(y, self.classes_, np.zeros(len(y), dtype=bool)))
        parts = zip(self._as_seen(x).split(CHUNK), labels.split(CHUNK), strict=True)
        found = [self._modified(rows, given.to(self._device)) for rows, given in parts]
        return torch.cat(found).reshape(x.shape)

    def _modified(self, x: Tensor, labels: Tensor) -> Tensor:
        rows = self._standardize(x)
        controls = self._controls(rows)
        angles = (torch.linspace(0, self.strength, int(self.n_steps) + 1) * (pi / 2)).tolist()
        z = rows
        for angle, next_angle in pairwise(angles):
            z = self._step(z, angle, next_angle, None, controls)
        for angle, next_angle in pairwise(reversed(angles)):
            z = self._step(z, angle, next_angle, labels, controls)
        return self._restore(z, x)

    def _step(
        self,
        z: Tensor,
        angle: float,
        next_angle: float,
        labels: Tensor | None,
        controls: tuple[Tensor, ...],
    ) -> Tensor:
        """Move along the path from one angle to another: DDIM, under labels with guidance."""
        at = torch.full((len(z),), angle, device=z.device)
        nothing = torch.full((len(z),), len(self.classes_), device=z.device)
        velocity = self.network_(z, at, nothing, *controls)
        if labels is None:
            return (
                float(np.cos(next_angle - angle)) * z + float(np.sin(next_angle - angle)) * velocity
            )
        under_label = self.network_(z, at, labels, *controls)
        velocity = velocity + self.guidance * (under_label - velocity)
        cos, sin = float(np.cos(angle)), float(np.sin(angle))
        clean = (cos * z - sin * velocity).clamp(self.low_.to(z), self.high_.to(z))
        noise = (z - cos * clean) / sin
        return float(np.cos(next_angle)) * clean + float(np.sin(next_angle)) * noise

    def _standardize(self, x: Tensor) -> Tensor:
        x = x.to(self._device).float()
        return (x - self.mean_.to(x)) / self.scale_.to(x)

    def _restore(self, z: Tensor, like: Tensor) -> Tensor:
        x = z * self.scale_.to(z) + self.mean_.to(z)
        return (x.round() if like.dtype == torch.uint8 else x).to(like)

    def _controls(self, x: Tensor) -> tuple[Tensor, ...]:
        return (edge_map(x),) if self.control and x.ndim == 4 else ()


def _share_of(step: int) -> float:
    """Return the weight of a step in the average, which forgets the first ones soon."""
    return 1.0 if step == 0 else max(1 - EMA_DECAY, 9 / (10 + step))


def _along(values: Tensor, x: Tensor) -> Tensor:
    """Return one value per row, to multiply with rows."""
    return values.view(-1, *[1] * (x.ndim - 1))
