"""The layer in front of every network, which brings any input to unit scale."""

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from noisyfit.nn.parallel import shared

__all__ = ["Preprocessing", "Standardized", "freeze", "mean_and_std", "resized"]

IMAGENET_SIZE = 224
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SLICE = 1024  # rows that are float64 at once


def mean_and_std(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of each column or channel in float64, (1, d) or (1, C, 1, 1)."""
    axes = [0, *range(2, x.ndim)]
    n = x.numel() / x.shape[1]
    sums = [part.double().sum(axes, keepdim=True) for part in x.split(SLICE)]
    mean = torch.stack(sums).sum(0) / n
    squares = [(part - mean).square().sum(axes, keepdim=True) for part in x.split(SLICE)]
    return mean, (torch.stack(squares).sum(0) / n).sqrt()


class Preprocessing(NamedTuple):
    """What a network expects of images; by default what most networks on ImageNet do.

    Attributes
    ----------
    size : int or None
        Height and width, in pixels. None: any.
    mean, std : tuple of float or None
        Of the three channels, on a scale from 0 to 1. None: those of the data.
    """

    size: int | None = IMAGENET_SIZE
    mean: tuple[float, ...] | None = IMAGENET_MEAN
    std: tuple[float, ...] | None = IMAGENET_STD

    def scale(self, n_channels: int, black: float, white: float) -> tuple[Tensor, Tensor] | None:
        """Return mean and deviation (C, 1, 1) in the units of the input, None if any will do.

        Where there are not three channels, each has the average over the three.
        """
        if self.mean is None or self.std is None:
            return None
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        if n_channels != len(mean):
            mean, std = (v.mean().expand(n_channels) for v in (mean, std))
        return (black + (white - black) * mean)[:, None, None], (white - black) * std[:, None, None]


class Standardized(nn.Module):
    """A network that subtracts the mean of its input and divides by its standard deviation.

    Integers become floats; images and weights become channels-last, the layout in which
    convolutions are fastest, where the network can be trained in it. Mean and deviation are
    buffers: they are saved, moved and copied with the network.

    Parameters
    ----------
    network : module
        Maps standardised input to logits of shape (n_samples, n_classes). What `freeze` has frozen
        in it stays in evaluation mode.
    mean, std : tensors of shape (n_features,) for tables, (n_channels, 1, 1) for images
        In the units of the input. `std` must be positive; give near-constant columns 1.
    size : int or None, default=None
        Height and width to which images are resized; None leaves them as they are.
    """

    mean: Tensor
    std: Tensor
    size: int | None
    channels_last: bool
    autocast_dtype: torch.dtype | None = None  # of the network's forward pass; None = float32

    def __init__(
        self, network: nn.Module, mean: Tensor, std: Tensor, size: int | None = None
    ) -> None:
        super().__init__()
        self.channels_last = _trains_channels_last(network)
        layout = torch.channels_last if self.channels_last else torch.preserve_format
        self.network = network.to(memory_format=layout)  # type: ignore[call-overload]
        self.size = size
        self.register_buffer("mean", mean.detach().clone().float())
        self.register_buffer("std", std.detach().clone().float())

    def standardize(self, x: Tensor) -> Tensor:
        """Return the standardised input, in the shape of `x` or resized."""
        if x.ndim == 4:
            # Before the conversion to float: bytes are cheaper to move.
            if self.channels_last:
                x = x.contiguous(memory_format=torch.channels_last)
            else:
                x = x.contiguous()
        x = (x.float() - self.mean) / self.std
        size = self.size
        return x if size is None else resized(x, size)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all layers that are not frozen."""
        super().train(mode)
        for module in self.modules() if mode else ():
            if getattr(module, "is_frozen", False):
                module.training = False
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (n_samples, n_classes)."""
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            return self.network(self.standardize(x))  # type: ignore[no-any-return]
        return shared(self._forward, x)

    @torch.jit.unused
    def _forward(self, x: Tensor) -> Tensor:
        with self.autocast(x.device):
            logits: Tensor = self.network(self.standardize(x))
        return logits

    def autocast(self, device: torch.device) -> AbstractContextManager[None]:
        """Context of one forward pass; autocast discards converted weights at its end."""
        if self.autocast_dtype is None:
            return nullcontext()
        return torch.autocast(device.type, self.autocast_dtype)  # type: ignore[return-value]


def _trains_channels_last(network: nn.Module) -> bool:
    """Return whether training in this layout is safe.

    torch 2.15: on some CPUs the gradient of a 1 x 1 convolution with a stride of 2, over fewer than
    8 channels, writes beyond its memory in this layout, which ends the process.
    """
    return not any(
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (1, 1)
        and max(layer.stride) > 1
        and layer.in_channels < 8
        for layer in network.modules()
    )


def resized(x: Tensor, size: int) -> Tensor:
    """Return images (n, C, H, W) as (n, C, size, size), bicubically; all of each stays visible."""
    height, width = x.shape[2], x.shape[3]
    if height == size and width == size:
        return x
    shrinks = max(height, width) > size
    return F.interpolate(x, (size, size), mode="bicubic", antialias=shrinks)


def freeze(module: nn.Module) -> None:
    """Fix the parameters of a module and all that is in it, and its running statistics."""
    module.requires_grad_(False)
    for part in module.modules():
        part.is_frozen = True  # type: ignore[assignment]
