"""Networks that denoise rows at a given diffusion angle, with or without a label."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CODE_SIZE = 64  # sines and cosines of the angle
GROUPS = 8  # of channels, for normalisation


class Condition(nn.Module):
    """Embedding of the angle and the label, shared by all blocks of a network.

    Parameters
    ----------
    n_classes : int
        Label ``n_classes`` means no label.
    width : int
        Dimensions of the embedding.
    """

    frequencies: Tensor

    def __init__(self, n_classes: int, width: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.logspace(0, 3, CODE_SIZE // 2))
        self.angle = nn.Linear(CODE_SIZE, width)
        self.label = nn.Embedding(n_classes + 1, width)

    def forward(self, angle: Tensor, labels: Tensor) -> Tensor:
        """Return embeddings (n_samples, width) of angles in [0, pi / 2] and label codes."""
        code = angle[:, None] * self.frequencies
        code = torch.cat([code.sin(), code.cos()], dim=1)
        return F.silu(self.angle(code) + self.label(labels))


class TableDenoiser(nn.Module):
    """Residual perceptron for tables and embeddings.

    Parameters
    ----------
    n_features, n_classes : int
    width : int, default=192
    depth : int, default=3
        Number of residual blocks, of two layers each.
    dropout : float in [0, 1), default=0.1
    """

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        width: int = 192,
        depth: int = 3,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.condition = Condition(n_classes, width)
        self.first = nn.Linear(n_features, width)
        self.shifts = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.blocks = nn.ModuleList(_perceptron_block(width, dropout) for _ in range(depth))
        self.last = nn.Sequential(nn.LayerNorm(width), _zeroed(nn.Linear(width, n_features)))

    def forward(self, x: Tensor, angle: Tensor, labels: Tensor) -> Tensor:
        """Return the velocity (n_samples, n_features) of noised rows of the same shape."""
        condition = self.condition(angle, labels)
        hidden = self.first(x)
        for block, shift in zip(self.blocks, self.shifts, strict=True):
            hidden = hidden + block(hidden + shift(condition))
        return self.last(hidden)


def _perceptron_block(width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, width),
        nn.SiLU(),
        nn.Dropout(dropout),
        nn.Linear(width, width),
    )


class UNet(nn.Module):
    """Small U-Net for images; at the input, patches of 2 x 2 pixels become channels.

    Parameters
    ----------
    in_channels : int
        Channels of the images.
    n_classes : int
    width : int, default=64
        Channels at half the resolution of the images; twice as many at a quarter.
    n_controls : int, default=0
        Channels of a map that conditions the denoising, such as edges.
    dropout : float in [0, 1), default=0.1
    """

    def __init__(
        self,
        in_channels: int,
        n_classes: int,
        width: int = 64,
        n_controls: int = 0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        code = 2 * width
        self.condition = Condition(n_classes, code)
        self.first = nn.Conv2d(4 * (in_channels + n_controls), width, 3, padding=1)
        self.outer_down = ResidualBlock(width, width, code, dropout)
        self.inner_down = ResidualBlock(width, 2 * width, code, dropout)
        self.inner_up = ResidualBlock(2 * width, 2 * width, code, dropout)
        self.outer_up = ResidualBlock(3 * width, width, code, dropout)
        self.last_norm = nn.GroupNorm(GROUPS, width)
        self.last = _zeroed(nn.Conv2d(width, 4 * in_channels, 3, padding=1))

    def forward(
        self, x: Tensor, angle: Tensor, labels: Tensor, control: Tensor | None = None
    ) -> Tensor:
        """Return the velocity of noised images (n_samples, C, H, W), of the same shape.

        `control` has shape (n_samples, n_controls, H, W).
        """
        height, width = x.shape[2:]
        x = x if control is None else torch.cat([x, control], dim=1)
        x = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
        condition = self.condition(angle, labels)
        outer = self.outer_down(self.first(F.pixel_unshuffle(x, 2)), condition)
        inner = self.inner_down(F.avg_pool2d(outer, 2, ceil_mode=True), condition)
        inner = F.interpolate(self.inner_up(inner, condition), outer.shape[2:])
        outer = self.outer_up(torch.cat([outer, inner], dim=1), condition)
        velocity = F.pixel_shuffle(self.last(F.silu(self.last_norm(outer))), 2)
        return velocity[:, :, :height, :width]


class ResidualBlock(nn.Module):
    """Two convolutions; angle and label scale and shift the channels in between.

    Parameters
    ----------
    in_channels, out_channels : int
        Multiples of 8.
    code : int
        Dimensions of the embedding of angle and label.
    dropout : float in [0, 1)
    """

    def __init__(self, in_channels: int, out_channels: int, code: int, dropout: float) -> None:
        super().__init__()
        self.first_norm = nn.GroupNorm(GROUPS, in_channels)
        self.first = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.scale_and_shift = nn.Linear(code, 2 * out_channels)
        self.second_norm = nn.GroupNorm(GROUPS, out_channels)
        self.dropout = nn.Dropout(dropout)
        self.second = _zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return feature maps (n_samples, out_channels, height, width)."""
        hidden = self.first(F.silu(self.first_norm(x)))
        scale, shift = self.scale_and_shift(condition)[:, :, None, None].chunk(2, dim=1)
        hidden = self.second_norm(hidden) * (1 + scale) + shift
        return self.shortcut(x) + self.second(self.dropout(F.silu(hidden)))


def _zeroed(layer: Any) -> Any:
    """Initialise a layer to zero, so that the network starts as a smaller one."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
