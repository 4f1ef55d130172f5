"""Pre-activation ResNets for images of about 32 pixels, and their building block."""

from collections.abc import Sequence

from torch import Tensor, nn

__all__ = ["PreActBlock", "PreActResNet", "preact_resnet18", "preact_resnet34"]


class PreActBlock(nn.Module):
    """Residual block that normalises and rectifies before each convolution (Fig. 1b of [1]_).

    Where the shape changes, the shortcut is a strided 1x1 convolution of the activated input.

    Parameters
    ----------
    in_channels, out_channels : int
    stride : int
        Divisor of height and width, rounding up.

    References
    ----------
    .. [1] He et al. Identity Mappings in Deep Residual Networks. ECCV, 2016. arXiv:1603.05027
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.activate = nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU())
        self.residual = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        )
        self.shortcut: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps of shape (n_samples, out_channels, height / stride, width / stride)."""
        activated = self.activate(x)
        shortcut: Tensor = x if self.shortcut is None else self.shortcut(activated)
        return shortcut + self.residual(activated)


class PreActResNet(nn.Sequential):
    """Convolution, stages of pre-activation blocks, global average pooling, linear layer.

    Parameters
    ----------
    in_channels : int
        The input has shape (n_samples, in_channels, height, width), of any height and width.
    n_classes : int
        Number of logits; the output has shape (n_samples, n_classes).
    stem_channels : int
        Channels of the first convolution, which keeps height and width.
    stage_channels : sequence of int
        Channels of each stage; the last is also the number of embedding dimensions. Every stage but
        the first halves height and width.
    blocks_per_stage : sequence of int
        Number of blocks in each stage.
    """

    def __init__(
        self,
        in_channels: int,
        n_classes: int,
        stem_channels: int,
        stage_channels: Sequence[int],
        blocks_per_stage: Sequence[int],
    ) -> None:
        layers: list[nn.Module] = [nn.Conv2d(in_channels, stem_channels, 3, padding=1, bias=False)]
        n_inputs = stem_channels
        for stage, (channels, n_blocks) in enumerate(
            zip(stage_channels, blocks_per_stage, strict=True)
        ):
            for block in range(n_blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(PreActBlock(n_inputs, channels, stride))
                n_inputs = channels
        super().__init__(
            *layers,
            nn.BatchNorm2d(n_inputs),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(n_inputs, n_classes),
        )


def preact_resnet18(in_channels: int, n_classes: int, width: int = 64) -> PreActResNet:
    """Build the PreAct ResNet-18 of the noisy-label literature.

    At the default width, with three channels and ten classes: 11.17 M parameters, and 1.111 GFLOP
    for one forward pass of one 32x32 image, counting a multiply-add as two.

    Parameters
    ----------
    in_channels : int
    n_classes : int
    width : int, default=64
        Channels of the first stage; the embeddings have ``8 * width`` dimensions.

    Returns
    -------
    PreActResNet
    """
    stages = (width, 2 * width, 4 * width, 8 * width)
    return PreActResNet(in_channels, n_classes, width, stages, (2, 2, 2, 2))


def preact_resnet34(in_channels: int, n_classes: int, width: int = 64) -> PreActResNet:
    """Build the PreAct ResNet-34, with twice the blocks of `preact_resnet18`.

    At the default width, with three channels and ten classes: 21.28 M parameters, and 2.319 GFLOP
    for one forward pass of one 32x32 image, counting a multiply-add as two.

    Parameters
    ----------
    in_channels : int
    n_classes : int
    width : int, default=64
        Channels of the first stage; the embeddings have ``8 * width`` dimensions.

    Returns
    -------
    PreActResNet
    """
    stages = (width, 2 * width, 4 * width, 8 * width)
    return PreActResNet(in_channels, n_classes, width, stages, (3, 4, 6, 3))
