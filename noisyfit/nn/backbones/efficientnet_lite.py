"""EfficientNet-Lite 0 to 2 ([1]_): EfficientNets without squeeze-and-excitation and with ReLU6.

They share these parameters:

in_channels : int
n_classes : int

References
----------
.. [1] Liu. Higher accuracy on vision models with EfficientNet-Lite. TensorFlow Blog, 2020.
   Tan, Le. EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks. ICML, 2019.
   arXiv:1905.11946
"""

from __future__ import annotations

from math import ceil

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["EfficientNetLite", "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"]

STEM, EMBEDDING = 32, 1280  # channels, whatever the width
STAGES = (  # blocks, kernel, stride, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def efficientnet_lite0(in_channels: int, n_classes: int) -> EfficientNetLite:
    """Build EfficientNet-Lite0; embeddings of 1,280 dimensions."""
    return EfficientNetLite(in_channels, n_classes)


def efficientnet_lite1(in_channels: int, n_classes: int) -> EfficientNetLite:
    """Build EfficientNet-Lite1; embeddings of 1,280 dimensions."""
    return EfficientNetLite(in_channels, n_classes, depth=1.1)


def efficientnet_lite2(in_channels: int, n_classes: int) -> EfficientNetLite:
    """Build EfficientNet-Lite2; embeddings of 1,280 dimensions."""
    return EfficientNetLite(in_channels, n_classes, width=1.1, depth=1.2)


class EfficientNetLite(nn.Module):
    """A stem, sixteen or more inverted bottlenecks, a head and a classification layer.

    Parameters
    ----------
    in_channels, n_classes : int
    width, depth : float > 0, default=1.0
        Times as many channels and blocks as EfficientNet-Lite0.
    """

    def __init__(
        self, in_channels: int, n_classes: int, *, width: float = 1.0, depth: float = 1.0
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_convolution(in_channels, STEM, 3, 2), nn.ReLU6())
        blocks: list[nn.Module] = []
        n_in = STEM
        for stage, (n_blocks, kernel, stride, expansion, channels) in enumerate(STAGES):
            n_out = _multiple_of_8(channels * width)
            is_outer = stage in (0, len(STAGES) - 1)
            for i in range(n_blocks if is_outer else ceil(n_blocks * depth)):
                blocks.append(Bottleneck(n_in, n_out, kernel, 1 if i else stride, expansion))
                n_in = n_out
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(*_convolution(n_in, EMBEDDING), nn.ReLU6())
        self.classifier = nn.Linear(EMBEDDING, n_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map (B, 1280, H / 32, W / 32) of images (B, C, H, W)."""
        features: Tensor = self.head(self.blocks(self.stem(x)))
        return features

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Return logits (B, K) of feature maps, or embeddings (B, 1280)."""
        pooled = features.mean((2, 3))
        return pooled if pre_logits else self.classifier(pooled)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, K) of images (B, C, H, W)."""
        return self.forward_head(self.forward_features(x))

    def load_published(self, weights: dict[str, Tensor]) -> None:
        """Load weights under the names of another implementation, in the order of the layers.

        Raises
        ------
        ValueError
            If they are not those of this network.
        """
        own = self.state_dict()
        if [v.shape for v in own.values()] != [v.shape for v in weights.values()]:
            raise ValueError(
                f"The weights must be those of this EfficientNet-Lite, {len(own)} tensors. Got "
                f"{len(weights)} of other shapes. Pass the file of the same network."
            )
        self.load_state_dict(dict(zip(own, weights.values(), strict=True)))


class Bottleneck(nn.Module):
    """Expand the channels, convolve each by itself, and project them, around a shortcut."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = n_in * expansion
        expand = [*_convolution(n_in, width), nn.ReLU6()] if expansion > 1 else []
        depthwise = [*_convolution(width, width, kernel, stride, groups=width), nn.ReLU6()]
        self.layers = nn.Sequential(*expand, *depthwise, *_convolution(width, n_out))
        self.has_shortcut = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, n_out, H / stride, W / stride)."""
        y: Tensor = self.layers(x)
        return x + y if self.has_shortcut else y


class _Strided(nn.Conv2d):
    """A convolution that is padded as TensorFlow does: an odd pixel goes to the end."""

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        padding: list[int] = []
        for size in (x.shape[3], x.shape[2]):
            total = max((ceil(size / stride) - 1) * stride + kernel - size, 0)
            padding += [total // 2, total - total // 2]
        return super().forward(F.pad(x, padding))


def _convolution(
    n_in: int, n_out: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    if stride == 1:
        layer = nn.Conv2d(n_in, n_out, kernel, padding=kernel // 2, groups=groups, bias=False)
    else:
        layer = _Strided(n_in, n_out, kernel, stride, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(n_out, eps=1e-3, momentum=0.01)]


def _multiple_of_8(channels: float) -> int:
    return int(channels + 4) // 8 * 8
