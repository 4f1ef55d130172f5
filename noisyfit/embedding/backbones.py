"""Pretrained networks by name, from weights that are on the disk."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from noisyfit.embedding.images import BYTE
from noisyfit.nn.backbones.weights import (
    LITE,
    load_pretrained,
    load_weights,
    not_a_file,
    torchvision_names,
    weights_file,
)
from noisyfit.nn.features import embeddings
from noisyfit.nn.input_layer import IMAGENET_MEAN, IMAGENET_SIZE, IMAGENET_STD
from noisyfit.utils.synonyms import did_you_mean
from noisyfit.utils.torch_state import torch_defaults


@dataclass(frozen=True)
class Backbone:
    """A network and the images that it was trained on.

    Attributes
    ----------
    network : module or callable
        Maps images (n, 3, H, W) to features, or to logits from which `features` looks back.
    size : int
        Height and width, in pixels.
    mean, std : tuple of float
        Of the channels, on a scale from 0 to 1.
    """

    network: Callable[[Tensor], Any]
    size: int = IMAGENET_SIZE
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def features(self, pixels: Tensor) -> Tensor:
        """Return features (n, d) of images (n, 3, H, W) from 0 to 255."""
        mean, std = (pixels.new_tensor(v)[:, None, None] for v in (self.mean, self.std))
        x = ((pixels / BYTE - mean) / std).contiguous(memory_format=torch.channels_last)
        found = _features(self.network, x)
        if found.ndim == 4:  # (n, d, H, W)
            return found.mean((2, 3))
        return found.mean(1) if found.ndim == 3 else found  # (n, tokens, d)

    def count_features(self, size: int) -> int:
        """Return the number of features of an image.

        Raises
        ------
        ValueError
            If the network does not take images of this size, or does not return features.
        """
        try:
            with torch_defaults(), torch.inference_mode():
                shape = tuple(self.features(torch.zeros(1, 3, size, size)).shape)
        except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"The backbone must take images (n, 3, {size}, {size}). Got: {error}. Pass "
                "another size, or another network."
            ) from error
        if len(shape) != 2 or shape[0] != 1:
            raise ValueError(
                "The backbone must turn images (n, 3, H, W) into features (n, d). Got shape "
                f"{shape} for one image. Wrap it in a function that does."
            )
        return shape[1]


def _features(network: Callable[[Tensor], Any], x: Tensor) -> Tensor:
    """Return the input of the last linear layer where its output is the network's, else that."""
    if hasattr(network, "forward_features") and hasattr(network, "forward_head"):
        return embeddings(network, x)  # type: ignore[arg-type]
    modules = list(network.modules()) if isinstance(network, nn.Module) else []
    linears = [module for module in modules if isinstance(module, nn.Linear)]
    if not linears:
        return torch.as_tensor(network(x))
    seen: list[tuple[Tensor, Tensor]] = []
    watch = linears[-1].register_forward_hook(
        lambda _, inputs, output: seen.append((inputs[0], output))
    )
    try:
        result: Tensor = network(x)
    finally:
        watch.remove()
    return seen[-1][0] if seen and seen[-1][1] is result else result


def find_backbone(backbone: Any, weights: Any) -> Backbone:
    """Return a network with its weights, by name or as it is.

    Parameters
    ----------
    backbone : str, module or callable
    weights : str, path or None
        A file of weights, or the name of some that are on the disk: those of the extra ``images``,
        torchvision's or timm's.

    Raises
    ------
    ValueError
        If the name is unknown, or the weights are not those of the network.
    ImportError, FileNotFoundError
        If the weights are not on the disk; nothing is ever downloaded.
    """
    if not isinstance(backbone, str):
        return _own(backbone, weights)
    name = "efficientnet_lite0" if backbone == "auto" else backbone
    if name in LITE or name in torchvision_names():
        default = "DEFAULT" if name in LITE and weights is None else weights
        network, preprocessing = load_pretrained(name, default)
        return Backbone(network.eval(), **preprocessing._asdict())
    if find_spec("timm") is not None:
        import timm

        if timm.is_model(name):
            return _from_timm(name, weights)
    known = ["auto", *LITE, *torchvision_names()]
    raise ValueError(
        f"backbone must be 'auto', one of {list(LITE)}, a name of torchvision, a name of timm if "
        f"it is installed, a module or a callable. Got {backbone!r}.{did_you_mean(name, known)}"
    )


def _own(backbone: Any, weights: Any) -> Backbone:
    if weights is not None:
        raise ValueError(
            f"weights must be None where backbone is a network. Got {weights!r}. Load them into "
            "the network before you pass it."
        )
    config = getattr(backbone, "pretrained_cfg", None) or {}  # as in timm
    if isinstance(backbone, nn.Module):
        backbone = deepcopy(backbone).eval()
    return Backbone(backbone, **_described(config))


def _described(config: Any) -> dict[str, Any]:
    """Return what a configuration of timm says of the images."""
    size = {"size": int(config["input_size"][-1])} if "input_size" in config else {}
    return size | {name: tuple(config[name]) for name in ("mean", "std") if name in config}


def _from_timm(name: str, weights: Any) -> Backbone:
    import timm
    from timm.data.config import resolve_model_data_config

    network: Any = timm.create_model(name, pretrained=False)
    file = weights_file(weights)
    if file is None:
        if weights != "DEFAULT":
            raise not_a_file(weights, "'DEFAULT'")
        file = _cached_by_hub(name, network.pretrained_cfg.get("hf_hub_id"))
    load_weights(network, file)
    return Backbone(network.eval(), **_described(resolve_model_data_config(network)))


def _cached_by_hub(name: str, repository: str | None) -> Path:
    from huggingface_hub import try_to_load_from_cache

    for file in ("model.safetensors", "pytorch_model.bin"):
        found = try_to_load_from_cache(repository, file) if repository else None
        if isinstance(found, str):
            return Path(found)
    raise FileNotFoundError(
        f"The weights of timm's {name} must be on the disk. Got none in the cache of the hub. "
        f"Nothing is downloaded here: run timm.create_model({name!r}, pretrained=True) once, or "
        "pass a file as weights."
    )
