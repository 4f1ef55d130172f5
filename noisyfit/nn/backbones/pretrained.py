"""torchvision's networks and EfficientNet-Lite, with or without pretraining, for any images."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from noisyfit.nn.backbones.weights import LITE, load_pretrained, new_network, torchvision_names
from noisyfit.nn.input_layer import Preprocessing, freeze
from noisyfit.utils.parameters import AT_LEAST_ONE, StrOptions, check_parameters

__all__ = ["PRETRAINED", "pretrained_network"]

CONSTRAINTS: dict[str, list[Any]] = {
    "size": [AT_LEAST_ONE, None],
    "frozen": ["boolean", StrOptions({"bn"})],
    "small_stem": ["boolean"],
}
BATCH_NORM_MOMENTUM = 0.1  # torch's default
AUXILIARY = ("aux1", "aux2", "AuxLogits")  # classifiers inside Inception, for training only


def pretrained_network(
    name: str,
    in_channels: int,
    n_classes: int,
    *,
    weights: Any = None,
    size: int | None = None,
    frozen: bool | str = False,
    small_stem: bool = False,
) -> nn.Module:
    """Build a network of torchvision or an EfficientNet-Lite.

    Parameters
    ----------
    name : str
        A key of `PRETRAINED`.
    in_channels : int
        Other than three channels share the weights of the three: a grey image gives what it would
        give in colour.
    n_classes : int
        Number of classes; the last layer is new and has random weights.
    weights : "DEFAULT", name of torchvision weights, path or None, default=None
        Pretrained weights on the disk; nothing is downloaded. None: random weights.
    size : int or None, default=None
        Height and width to which images are resized. None: as in the pretraining; without
        pretraining images stay as they are.
    frozen : bool or "bn", default=False
        What keeps its pretrained weights. True: all but the last layer, which sees the features of
        evaluation mode. ``"bn"``: layers of batch normalisation and their running statistics.
    small_stem : bool, default=False
        Adapt a ResNet or VGG to images of about 32 pixels. A ResNet then starts with a 3x3
        convolution of stride 1, with random weights, and no pooling; VGG ends in global average
        pooling and one linear layer.

    Raises
    ------
    ValueError
        If a parameter is invalid, or the weights are not those of the network.
    ImportError, FileNotFoundError
        If the weights are not on the disk.
    """
    params = {"size": size, "frozen": frozen, "small_stem": small_stem}
    check_parameters(CONSTRAINTS, params, name)
    if weights is None and frozen:
        raise ValueError(
            f"frozen must be False where weights is None: random layers would stay random. Got "
            f"{frozen!r} for {name}. Pass weights, such as 'DEFAULT'."
        )
    network, preprocessing = _made(name, weights)
    if size is not None:
        preprocessing = preprocessing._replace(size=int(size))
    _keep_up(network)
    _freeze(network, frozen)  # what is new from here on learns
    if small_stem:
        _make_stem_small(name, network, in_channels)
    elif in_channels != 3:
        _change_channels(network, in_channels, is_pretrained=weights is not None)
    _replace_head(network, n_classes)
    network.preprocessing = preprocessing  # type: ignore[assignment]
    return network


def _made(name: str, weights: Any) -> tuple[nn.Module, Preprocessing]:
    if weights is None:
        return new_network(name), Preprocessing(None, None, None)
    return load_pretrained(name, weights)


def _keep_up(network: nn.Module) -> None:
    """Have running statistics follow within some hundred steps; some networks' need thousands."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = BATCH_NORM_MOMENTUM


def _freeze(network: nn.Module, frozen: bool | str) -> None:
    kind = _BatchNorm if frozen == "bn" else nn.Module
    for module in list(network.modules()) if frozen else ():
        if isinstance(module, kind):
            freeze(module)


def _change_channels(network: nn.Module, n: int, *, is_pretrained: bool) -> None:
    """Have the first convolution take other channels, each with the sum of the weights over n."""
    conv = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    weight = conv.weight.detach().sum(1, keepdim=True).repeat(1, n, 1, 1) / n
    conv.in_channels = n
    conv.weight = nn.Parameter(weight, requires_grad=conv.weight.requires_grad)
    if not is_pretrained:
        conv.reset_parameters()


def _make_stem_small(name: str, network: Any, in_channels: int) -> None:
    from torchvision import models

    if isinstance(network, models.ResNet):
        network.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    elif isinstance(network, models.VGG):
        if in_channels != 3:
            network.features[0] = nn.Conv2d(in_channels, 64, 3, padding=1)
        network.avgpool = nn.AdaptiveAvgPool2d(1)
        network.classifier = nn.Linear(512, 1, device="meta")  # `_replace_head` makes the real one
    else:
        raise ValueError(
            f"small_stem must be False but for a ResNet or VGG. Got {name}. Pass size instead, to "
            "which images are enlarged."
        )


def _replace_head(network: Any, n_classes: int) -> None:
    """Give the network a new last layer, and no other one that classifies."""
    for name in AUXILIARY:
        if hasattr(network, name):
            setattr(network, name, None)
            network.aux_logits = False
    linears = [name for name, part in network.named_modules() if isinstance(part, nn.Linear)]
    if linears:
        n_dims = network.get_submodule(linears[-1]).in_features
        network.set_submodule(linears[-1], nn.Linear(n_dims, n_classes))
    else:  # SqueezeNet ends in a convolution
        head = nn.Linear(network.classifier[1].in_channels, n_classes)
        network.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


def _named(name: str) -> Callable[..., nn.Module]:
    defaults: dict[str, Any] = {"weights": "DEFAULT"} if name in LITE else {}
    factory: Any = partial(pretrained_network, name, **defaults)
    factory.__name__ = name
    return factory  # type: ignore[no-any-return]


class _Pretrained(Mapping[str, Callable[..., nn.Module]]):
    """Networks by name; torchvision is asked only for names that are not EfficientNet-Lite's."""

    def __getitem__(self, name: str) -> Callable[..., nn.Module]:
        if name not in LITE and name not in torchvision_names():
            raise KeyError(name)
        return _named(name)

    def __iter__(self) -> Iterator[str]:
        yield from (*LITE, *torchvision_names())

    def __len__(self) -> int:
        return len(list(self))


PRETRAINED = _Pretrained()
