"""Networks by name, and the default for each kind of data."""

from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from noisyfit.nn.backbones.cnn import CNN
from noisyfit.nn.backbones.mlp import MLP
from noisyfit.nn.backbones.preact_resnet import preact_resnet18, preact_resnet34
from noisyfit.nn.backbones.pretrained import PRETRAINED
from noisyfit.nn.backbones.weights import LITE
from noisyfit.nn.backbones.wide_resnet import wrn_28_2, wrn_28_10

__all__ = ["BACKBONES", "KNOWN", "OWN", "default_backbone"]

_FROM_NOTHING: dict[str, Callable[..., nn.Module]] = {
    "mlp": MLP,
    "cnn": CNN,
    "preact_resnet18": preact_resnet18,
    "preact_resnet34": preact_resnet34,
    "wrn_28_2": wrn_28_2,
    "wrn_28_10": wrn_28_10,
}
_ALL: Any = _FROM_NOTHING, PRETRAINED  # asked in this order, so that torchvision is asked last
# Called with the number of features (tables) or channels (images) and the number of classes.
BACKBONES: Mapping[str, Callable[..., nn.Module]] = ChainMap(*_ALL)
OWN = sorted((*_FROM_NOTHING, *LITE))
KNOWN = f"one of {OWN} or a classifier of images in torchvision, such as 'resnet18'"


def default_backbone(shape: Sequence[int]) -> str:
    """Name the default network for data of a given shape.

    Parameters
    ----------
    shape : (n_features,) or (n_channels, height, width)
        Shape of one sample.

    Returns
    -------
    str
        A key of `BACKBONES`.

    Raises
    ------
    ValueError
        If a sample is neither a row of a table nor an image.
    """
    if len(shape) == 1:
        return "mlp"
    if len(shape) == 3:
        return "cnn" if max(shape[1:]) <= 64 else "resnet18"
    raise ValueError(
        "A sample must have shape (n_features,) or (n_channels, height, width) to have a default "
        f"network. Got shape {tuple(shape)}. Reshape the data, or pass a network as 'module'."
    )
