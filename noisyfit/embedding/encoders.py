"""Encoders of rows that use no given labels."""

from __future__ import annotations

import os
from math import pi
from numbers import Integral
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from noisyfit.nn.augment import ImageAugment
from noisyfit.nn.backbones import BACKBONES
from noisyfit.nn.backbones.pretrained import PRETRAINED
from noisyfit.nn.build import projection_head
from noisyfit.nn.features import embedding_size, embeddings
from noisyfit.nn.input_layer import Standardized, mean_and_std, resized
from noisyfit.nn.losses import contrastive
from noisyfit.utils.devices import named_device, resolve_device
from noisyfit.utils.parameters import (
    AT_LEAST_ONE,
    POSITIVE,
    Interval,
    StrOptions,
    check_parameters,
)
from noisyfit.utils.parts import Part
from noisyfit.utils.torch_state import seeded_generators
from noisyfit.utils.validation import checked_value_range

CHUNK = 512  # rows embedded at once
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@runtime_checkable
class Embedder(Protocol):
    """Maps rows to features in which similar rows have a high cosine similarity."""

    def embed(self, x: Tensor) -> Tensor:
        """Return features (n_samples, n_dims) of rows as `Modifier.modify` takes them."""


class StandardizedFeatures(Part):
    """Columns, or pixels, in units of their standard deviation, around their mean."""

    def fit(self, x: Tensor, generator: torch.Generator) -> Self:
        """Learn mean and deviation of rows (n_samples, ...); near-constant columns get 1."""
        (mean,), (std,) = mean_and_std(x.flatten(1))
        self.mean_, self.std_ = mean, torch.where(std > 1e-6, std, 1.0)
        return self

    def embed(self, x: Tensor) -> Tensor:
        """Return the standardised rows (n_samples, n_features)."""
        return ((x.flatten(1) - self.mean_) / self.std_).float()


class ContrastiveEmbedder(Part):
    """Encoder of images that learns to recognise two views of the same image (SimCLR).

    No labels are used. Embeddings are centred before similarities are computed: ``embed`` subtracts
    the mean embedding of the images passed to `fit`.

    Parameters
    ----------
    module : str, default="cnn"
        Name of a network in this package.
    n_train_steps : int >= 1, default=500
    batch_size : int >= 2, default=128
    lr : float > 0, default=1e-3
        Learning rate of AdamW, with a cosine to zero.
    temperature : float > 0, default=0.2
    flip : bool, default=False
        Whether the mirror image of a row counts as the same row.
    device : str or torch.device, default="cpu"
        "auto" is a GPU if there is one.

    References
    ----------
    .. [1] Chen et al. A Simple Framework for Contrastive Learning of Visual Representations.
       ICML, 2020. arXiv:2002.05709
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "module": [StrOptions(set(BACKBONES))],
        "n_train_steps": [AT_LEAST_ONE],
        "batch_size": [Interval(Integral, 2, None, closed="left")],
        "lr": [POSITIVE],
        "temperature": [POSITIVE],
        "flip": ["boolean"],
    }

    def __init__(
        self,
        module: str = "cnn",
        *,
        n_train_steps: int = 500,
        batch_size: int = 128,
        lr: float = 1e-3,
        temperature: float = 0.2,
        flip: bool = False,
        device: str | torch.device = "cpu",
    ) -> None:
        self.module = module
        self.n_train_steps = n_train_steps
        self.batch_size = batch_size
        self.lr = lr
        self.temperature = temperature
        self.flip = flip
        self.device = device

    def fit(self, x: Tensor, generator: torch.Generator) -> Self:
        """Train on images (n_samples, C, H, W).

        Raises
        ------
        ValueError
            If a parameter is invalid, the device does not exist, or the rows are not images.
        """
        check_parameters(self._parameter_constraints, vars(self), type(self).__name__)
        resolve_device(self.device)
        _check_images(x, type(self).__name__)
        seed = int(torch.randint(2**31, (), generator=generator))
        with seeded_generators(seed, self._device):
            self._train(x)
        self.center_ = torch.zeros(())
        self.center_ = self.embed(x).mean(0)
        return self

    @property
    def _device(self) -> torch.device:
        return named_device(self.device)

    def _train(self, x: Tensor) -> None:
        mean, std = mean_and_std(x)
        network = self._make_network(mean[0], std[0].clamp(min=1e-6))
        head = projection_head(embedding_size(network, x[:2].to(self._device))).to(self._device)
        parameters = [*network.parameters(), *head.parameters()]
        n_steps = int(self.n_train_steps)
        optimizer = torch.optim.AdamW(parameters, lr=float(self.lr))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
        augment = self._augment(x)
        network.train()
        for _ in range(n_steps):
            rows = x[torch.randint(len(x), (min(self.batch_size, len(x)),))].to(self._device)
            first, second = (head(embeddings(network, zoom(augment.weak(rows)))) for _ in range(2))
            loss = contrastive(first, second, temperature=self.temperature).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        self.network_ = network.eval()

    def _make_network(self, mean: Tensor, std: Tensor) -> Standardized:
        return Standardized(_untrained(self.module, len(mean)), mean, std).to(self._device)

    def get_state(self) -> dict[str, Any]:
        """Return what was learned, as tensors."""
        return {"network": self.network_.state_dict(), "center": self.center_}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the result of `get_state` from an encoder with the same parameters."""
        weights = state["network"]
        with seeded_generators(0):
            network = self._make_network(weights["mean"], weights["std"])
        network.load_state_dict(weights)
        self.network_, self.center_ = network.eval(), state["center"]

    def _augment(self, x: Tensor) -> ImageAugment:
        side = min(x.shape[2:])
        return ImageAugment(min(max(1, side // 8), side - 1), flip=self.flip)

    @torch.no_grad()
    def embed(self, x: Tensor) -> Tensor:
        """Return centred embeddings (n_samples, n_dims) on the CPU."""
        parts = [embeddings(self.network_, part.to(self._device)) for part in x.split(CHUNK)]
        return torch.cat(parts).float().cpu() - self.center_


def _check_images(x: Tensor, owner: str) -> None:
    if x.ndim != 4:
        raise ValueError(
            f"{owner} must have images (n, C, H, W). Got rows of shape {tuple(x.shape[1:])}. Use "
            "StandardizedFeatures for tables."
        )


def _untrained(name: str, n_channels: int) -> nn.Module:
    weights = {"weights": None} if name in PRETRAINED else {}
    return BACKBONES[name](n_channels, 2, **weights)


def zoom(x: Tensor, strength: float = 0.25) -> Tensor:
    """Randomly rotate, shift and scale each image, and change its contrast.

    Parameters
    ----------
    x : tensor of shape (n, C, H, W), any dtype
    strength : float in [0, 1], default=0.25
        Largest relative change of size and contrast; the rotation is at most half as many radians.

    Returns
    -------
    float32 tensor of the shape of `x`
    """
    n = len(x)
    angle, size, contrast, *shift = (2 * torch.rand(5, n, device=x.device) - 1) * strength
    cos, sin = (angle * pi / 6).cos() * (1 + size), (angle * pi / 6).sin() * (1 + size)
    rows = [torch.stack([cos, -sin, shift[0]], 1), torch.stack([sin, cos, shift[1]], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    moved = F.grid_sample(x.float(), grid, padding_mode="border", align_corners=False)
    middle = moved.mean((1, 2, 3), keepdim=True)
    return middle + (moved - middle) * (1 + contrast)[:, None, None, None]


class CLIPEmbedder:
    """Image encoder of CLIP, the paper's feature extractor.

    Parameters
    ----------
    model : module, path or str
        A model of open_clip or transformers, a local folder or, failing these, a name on the hub
        such as ``"openai/clip-vit-base-patch32"``, which is downloaded.
    image_size : int >= 1, default=224
        Height and width in pixels that the model takes; images are scaled bicubically.
    value_range : tuple of float, default=(0, 255)
        Black and white of the rows.
    device : str or torch.device, default="cpu"
        "auto" is a GPU if there is one.

    References
    ----------
    .. [1] Radford et al. Learning Transferable Visual Models From Natural Language Supervision.
       ICML, 2021. arXiv:2103.00020
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "model": [nn.Module, str, os.PathLike],
        "image_size": [AT_LEAST_ONE],
        "value_range": [tuple, list],
    }

    def __init__(
        self,
        model: nn.Module | str | os.PathLike[str],
        *,
        image_size: int = 224,
        value_range: tuple[float, float] = (0.0, 255.0),
        device: str | torch.device = "cpu",
    ) -> None:
        self.model = model
        self.image_size = image_size
        self.value_range = value_range
        self.device = device

    def fit(self, x: Tensor, generator: torch.Generator) -> Self:
        """Load the model; it learns nothing from the images.

        Raises
        ------
        ValueError
            If a parameter is invalid, the device does not exist, or the rows are not images.
        """
        _check_images(x, type(self).__name__)
        self.set_state({})
        return self

    def get_state(self) -> dict[str, Any]:
        """Return an empty state, because nothing is learned."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Load the model."""
        check_parameters(self._parameter_constraints, vars(self), type(self).__name__)
        checked_value_range(self.value_range)
        resolve_device(self.device)
        model = self.model if isinstance(self.model, nn.Module) else _load_clip(self.model)
        self.model_ = model.to(self._device).eval()

    @torch.no_grad()
    def embed(self, x: Tensor) -> Tensor:
        """Return CLIP's features (n_samples, n_dims) of images (n_samples, C, H, W)."""
        return torch.cat([self._encode(self._pixels(part)) for part in x.split(CHUNK // 8)])

    @property
    def _device(self) -> torch.device:
        return named_device(self.device)

    def _pixels(self, x: Tensor) -> Tensor:
        black, white = checked_value_range(self.value_range)
        x = (x[:, :3].to(self._device).float() - black) / (white - black)
        mean, std = (x.new_tensor(v)[:, None, None] for v in (CLIP_MEAN, CLIP_STD))
        return (resized(x, int(self.image_size)) - mean) / std  # of grey: three channels

    def _encode(self, pixels: Tensor) -> Tensor:
        model: Any = self.model_
        if hasattr(model, "encode_image"):  # open_clip
            found = model.encode_image(pixels)
        elif hasattr(model, "get_image_features"):  # transformers
            found = model.get_image_features(pixel_values=pixels)
        else:
            found = model(pixel_values=pixels)
        for name in ("image_embeds", "pooler_output"):
            found = getattr(found, name, found)
        return found.float().cpu()


def _load_clip(name: str | os.PathLike[str]) -> nn.Module:
    try:
        from transformers import CLIPVisionModelWithProjection
    except ImportError as error:
        raise ImportError(
            "CLIPEmbedder needs transformers to load a model by path or name. Got none. "
            'Install it: pip install "noisyfit[generators]", or pass a model.'
        ) from error
    model: nn.Module = CLIPVisionModelWithProjection.from_pretrained(os.fspath(name))
    return model
