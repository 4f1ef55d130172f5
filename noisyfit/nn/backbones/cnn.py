"""The default network for images of up to 64 pixels."""

from torch import nn

__all__ = ["CNN"]


class CNN(nn.Sequential):
    """Four strided convolutions with batch normalisation, then global average pooling.

    Small enough for a CPU: strides replace pooling layers, which cost more there. The last
    convolution sees 31 pixels, which is most of a small image, and takes a tenth of the training
    time. Without it 4,000 images with 40 % wrong labels were learned 2 to 5 points worse.

    Parameters
    ----------
    in_channels : int
        The input has shape (n_samples, in_channels, height, width), of any height and width.
    n_classes : int
        Number of logits; the output has shape (n_samples, n_classes).
    width : int, default=32
        Channels of the first convolution; the second has twice as many, the last two four times.
        The embeddings have ``4 * width`` dimensions.
    """

    def __init__(self, in_channels: int, n_classes: int, width: int = 32) -> None:
        super().__init__(
            *_convolution(in_channels, width),
            *_convolution(width, 2 * width),
            *_convolution(2 * width, 4 * width),
            *_convolution(4 * width, 4 * width),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4 * width, n_classes),
        )


def _convolution(in_channels: int, out_channels: int) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    ]
