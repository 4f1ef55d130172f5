"""Wide ResNets for images of about 32 pixels."""

from noisyfit.nn.backbones.preact_resnet import PreActResNet

__all__ = ["wrn_28_2", "wrn_28_10"]


def wrn_28_2(in_channels: int, n_classes: int) -> PreActResNet:
    """Build the Wide ResNet of depth 28 and twice the width of a thin one ([1]_).

    1.47 M parameters with three channels and ten classes; embeddings of 128 dimensions.

    Parameters
    ----------
    in_channels : int
    n_classes : int

    Returns
    -------
    PreActResNet

    References
    ----------
    .. [1] Zagoruyko and Komodakis. Wide Residual Networks. BMVC, 2016. arXiv:1605.07146
    """
    return _wide_resnet(in_channels, n_classes, depth=28, widening=2)


def wrn_28_10(in_channels: int, n_classes: int) -> PreActResNet:
    """Build the Wide ResNet of depth 28 and ten times the width of a thin one ([1]_).

    36.5 M parameters with three channels and ten classes; embeddings of 640 dimensions.

    Parameters
    ----------
    in_channels : int
    n_classes : int

    Returns
    -------
    PreActResNet

    References
    ----------
    .. [1] Zagoruyko and Komodakis. Wide Residual Networks. BMVC, 2016. arXiv:1605.07146
    """
    return _wide_resnet(in_channels, n_classes, depth=28, widening=10)


def _wide_resnet(in_channels: int, n_classes: int, depth: int, widening: int) -> PreActResNet:
    n_blocks = (depth - 4) // 6  # two convolutions a block, three stages (Table 1)
    stages = (16 * widening, 32 * widening, 64 * widening)
    return PreActResNet(in_channels, n_classes, 16, stages, (n_blocks, n_blocks, n_blocks))
