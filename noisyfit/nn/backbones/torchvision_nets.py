"""torchvision networks, for any number of channels and classes, including small images.

They share these parameters:

in_channels : int
    With other than three channels, the first convolution is new and has random weights.
n_classes : int
    Number of classes; the last layer is new and has random weights.
small_stem : bool, default=False
    Adapt the network to images of about 32 pixels. A ResNet then starts with a 3x3 convolution of
    stride 1, with random weights, and no pooling; VGG ends in global average pooling and one linear
    layer.
weights : torchvision weights, their name or None, default=None
    Passed to torchvision; None is a random initialisation.
"""

from typing import Any

import torchvision
from torch import nn

__all__ = ["resnet18", "resnet34", "resnet50", "vgg19_bn"]


def resnet18(
    in_channels: int, n_classes: int, *, small_stem: bool = False, weights: Any = None
) -> nn.Module:
    """Build torchvision's ResNet-18; embeddings of 512 dimensions."""
    network = torchvision.models.resnet18(weights=weights)
    return _adapted_resnet(network, in_channels, n_classes, small_stem)


def resnet34(
    in_channels: int, n_classes: int, *, small_stem: bool = False, weights: Any = None
) -> nn.Module:
    """Build torchvision's ResNet-34; embeddings of 512 dimensions."""
    network = torchvision.models.resnet34(weights=weights)
    return _adapted_resnet(network, in_channels, n_classes, small_stem)


def resnet50(
    in_channels: int, n_classes: int, *, small_stem: bool = False, weights: Any = None
) -> nn.Module:
    """Build torchvision's ResNet-50; embeddings of 2048 dimensions."""
    network = torchvision.models.resnet50(weights=weights)
    return _adapted_resnet(network, in_channels, n_classes, small_stem)


def vgg19_bn(
    in_channels: int, n_classes: int, *, small_stem: bool = False, weights: Any = None
) -> nn.Module:
    """Build torchvision's VGG-19 with batch normalisation, for images of 32 pixels or more.

    Embeddings of 4096 dimensions, of 512 with `small_stem`.
    """
    network = torchvision.models.vgg19_bn(weights=weights)
    if in_channels != 3:
        network.features[0] = nn.Conv2d(in_channels, 64, 3, padding=1)
    if small_stem:
        network.avgpool = nn.AdaptiveAvgPool2d(1)
        network.classifier = nn.Linear(512, n_classes)
    else:
        network.classifier[-1] = nn.Linear(4096, n_classes)
    return network


def _adapted_resnet(network: Any, in_channels: int, n_classes: int, small_stem: bool) -> nn.Module:
    if small_stem:
        network.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    elif in_channels != 3:
        network.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
    network.fc = nn.Linear(network.fc.in_features, n_classes)
    return network
