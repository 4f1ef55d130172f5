"""The layer in front of every network, which brings any input to unit scale."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

__all__ = ["Standardized"]


class Standardized(nn.Module):
    """A network that subtracts the mean of its input and divides by its standard deviation.

    Integers become floats; images become channels-last, the layout in which convolutions are
    fastest. Mean and deviation are buffers: they are saved, moved and copied with the network.

    Parameters
    ----------
    network : module
        Maps standardised input to logits of shape (n_samples, n_classes).
    mean, std : tensors of shape (n_features,) for tables, (n_channels, 1, 1) for images
        In the units of the input. `std` must be positive; give near-constant columns 1.
    """

    mean: Tensor
    std: Tensor
    autocast_dtype: torch.dtype | None = None  # of the network's forward pass; None = float32

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean.detach().clone().float())
        self.register_buffer("std", std.detach().clone().float())

    def standardize(self, x: Tensor) -> Tensor:
        """Return the standardised input, in the shape of `x`."""
        if x.ndim == 4:
            # Before the conversion to float: bytes are cheaper to move.
            x = x.contiguous(memory_format=torch.channels_last)
        return (x.float() - self.mean) / self.std

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (n_samples, n_classes)."""
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            return self.network(self.standardize(x))  # type: ignore[no-any-return]
        with self.autocast(x.device):
            logits: Tensor = self.network(self.standardize(x))
        return logits

    def autocast(self, device: torch.device) -> AbstractContextManager[None]:
        """Context of one forward pass; autocast discards converted weights at its end."""
        if self.autocast_dtype is None:
            return nullcontext()
        return torch.autocast(device.type, self.autocast_dtype)  # type: ignore[return-value]
