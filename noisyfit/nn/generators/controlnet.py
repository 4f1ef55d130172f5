"""Stable Diffusion with a ControlNet: the paper's generator, for images."""

from __future__ import annotations

import os
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from noisyfit.exceptions import warn
from noisyfit.nn.generators.edges import canny
from noisyfit.utils.devices import resolve_device
from noisyfit.utils.parameters import (
    AT_LEAST_ONE,
    NOT_NEGATIVE,
    Interval,
    StrOptions,
    check_parameters,
)
from noisyfit.utils.validation import checked_value_range

FEWEST_EDGES = 0.005  # share of the pixels
FACTOR = 8  # between the sides of a drawing and those of its latent image


class ControlNetGenerator:
    """Draw each image anew from its label, along its own edges.

    After [1]_ and the appendix of [2]_. Needs the extra ``generators`` (diffusers and
    transformers). Canny's detector finds the edges, the prompt names the label, and the drawing is
    shrunk to the size of the data by area averaging.

    Parameters
    ----------
    pipeline : object, path or str
        A ``StableDiffusionControlNetPipeline`` from diffusers, a local folder with one or, failing
        these, a name on the hub, which is downloaded.
    controlnet : path, str or None, default=None
        Folder or name of the ControlNet, such as ``"lllyasviel/sd-controlnet-canny"``, if
        `pipeline` names a Stable Diffusion without one.
    prompt : str, default="a photo of {label}"
        ``{label}`` is replaced with the label, or with its entry in `class_names`.
    class_names : dict or None, default=None
        Maps every label, as in y, to words. Needed if labels are not text.
    n_steps : int >= 1, default=20
    guidance : float >= 0, default=7.5
        Weight of the prompt; diffusers' default, as the paper does not give it.
    image_size : int, default=512
        Height and width of the drawing in pixels, a multiple of 8.
    low_threshold, high_threshold : float >= 0, default=75
        Thresholds of Canny's detector.
    edges_at : {"drawing", "data"}, default="drawing"
        Where edges are found. ``"drawing"``, as in the paper, uses the image enlarged to
        `image_size`. Enlarging makes its gradients smaller by the same factor, so hardly any edge
        of a 32-pixel image is found at 512. ``"data"`` finds edges in the image as it is and
        enlarges them.
    value_range : tuple of float, default=(0, 255)
        Black and white of the rows.
    batch_size : int >= 1, default=8
        Number of images drawn at once; halved as long as they do not fit into the GPU's memory.
    device : str or torch.device, default="cuda" if there is a GPU, else "cpu"
    progress : bool, default=True
        Show a progress bar over the batches of every call.

    Attributes
    ----------
    n_blanked_ : int
        Number of images that the safety checker has blanked so far; the original was returned
        instead.

    References
    ----------
    .. [1] Zhang, Rao, Agrawala. Adding Conditional Control to Text-to-Image Diffusion Models.
       ICCV, 2023. arXiv:2302.05543
    .. [2] Zheng, Han, Yin, Gao, Liu. Can We Treat Noisy Labels as Accurate? 2024. arXiv:2405.12969
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "controlnet": [str, os.PathLike, None],
        "prompt": [str],
        "class_names": [dict, None],
        "n_steps": [AT_LEAST_ONE],
        "guidance": [NOT_NEGATIVE],
        "image_size": [Interval(Integral, FACTOR, None, closed="left")],
        "low_threshold": [NOT_NEGATIVE],
        "high_threshold": [NOT_NEGATIVE],
        "edges_at": [StrOptions({"drawing", "data"})],
        "value_range": [tuple, list],
        "batch_size": [AT_LEAST_ONE],
        "progress": ["boolean"],
    }

    def __init__(
        self,
        pipeline: Any,
        controlnet: str | os.PathLike[str] | None = None,
        *,
        prompt: str = "a photo of {label}",
        class_names: dict[Any, str] | None = None,
        n_steps: int = 20,
        guidance: float = 7.5,
        image_size: int = 512,
        low_threshold: float = 75.0,
        high_threshold: float = 75.0,
        edges_at: str = "drawing",
        value_range: tuple[float, float] = (0.0, 255.0),
        batch_size: int = 8,
        device: str | torch.device | None = None,
        progress: bool = True,
    ) -> None:
        self.pipeline = pipeline
        self.controlnet = controlnet
        self.prompt = prompt
        self.class_names = class_names
        self.n_steps = n_steps
        self.guidance = guidance
        self.image_size = image_size
        self.low_threshold = low_threshold
        self.high_threshold = high_threshold
        self.edges_at = edges_at
        self.value_range = value_range
        self.batch_size = batch_size
        self.device = device
        self.progress = progress
        self.n_blanked_ = 0
        self._loaded: Any = None

    def identity(self) -> tuple[Any, ...]:
        """Return what the drawings depend on, for the memory of modified rows."""
        cosmetic = ("pipeline", "device", "progress", "batch_size", "n_blanked_", "_loaded")
        settings = {name: value for name, value in vars(self).items() if name not in cosmetic}
        return type(self).__name__, settings, _weights(self.pipeline)

    def __deepcopy__(self, memo: dict[int, Any]) -> ControlNetGenerator:
        """Copy the settings and share the pipeline, which is never changed."""
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def modify(self, x: Tensor, y: NDArray[Any], generator: torch.Generator) -> Tensor:
        """Return drawings of images (n_samples, C, H, W) for labels; see `Modifier.modify`.

        Raises
        ------
        ValueError
            If a parameter is invalid, the rows are not images, or a label has no word.
        ImportError
            If diffusers is missing.
        """
        self._check()
        if x.ndim != 4:
            raise ValueError(
                "ControlNetGenerator modifies images (n, C, H, W). Got rows of shape "
                f"{tuple(x.shape[1:])}. Use ConditionalDiffusion for tables."
            )
        prompts = [self._prompt(label) for label in np.asarray(y).tolist()]
        edges = self._edges(self._levels(x).mean(1, keepdim=True))
        pipeline = self._pipeline()
        seeds = torch.randint(2**31, (len(x),), generator=generator).tolist()
        drawn = self._drawn(pipeline, edges.expand(-1, 3, -1, -1), prompts, seeds)
        return self._at_data_size(drawn, x)

    def _check(self) -> None:
        check_parameters(self._parameter_constraints, vars(self), type(self).__name__)
        checked_value_range(self.value_range)
        if self.device is not None:
            resolve_device(self.device)
        if self.image_size % FACTOR:
            raise ValueError(
                f"The 'image_size' parameter of {type(self).__name__} must be a multiple of "
                f"{FACTOR}. Got {self.image_size}. Pass "
                f"{-(-int(self.image_size) // FACTOR) * FACTOR}."
            )
        try:
            self.prompt.format(label="")
        except (AttributeError, LookupError, ValueError) as error:
            raise ValueError(
                f"The 'prompt' parameter of {type(self).__name__} must have no braces but "
                f"{{label}}. Got {self.prompt!r}. Write others twice."
            ) from error

    def _prompt(self, label: Any) -> str:
        if self.class_names is None and isinstance(label, str):
            return self.prompt.format(label=label)
        names = self.class_names or {}
        if label not in names:
            raise ValueError(
                "The prompt must name each label in words. Got the label "
                f"{label!r} and words for {list(names)[:10]}. Pass class_names, a dict from all "
                "labels to words."
            )
        return self.prompt.format(label=names[label])

    def _edges(self, grey: Tensor) -> Tensor:
        """Return the edges (n, 1, image_size, image_size) of grey images, 0 or 1."""
        size = (int(self.image_size),) * 2
        thresholds = self.low_threshold, self.high_threshold
        if self.edges_at == "data":
            edges = F.interpolate(canny(grey, *thresholds).float(), size, mode="nearest")
        else:
            enlarged = F.interpolate(grey, size, mode="bicubic", antialias=True).clamp(0, 255)
            edges = canny(enlarged, *thresholds).float()
        share = float(edges.mean())
        if share < FEWEST_EDGES:
            warn(
                f"At least {FEWEST_EDGES:.1%} of the pixels should be edges, or nothing but the "
                f"label says what is drawn. Got {share:.2%}. Lower the thresholds, or pass "
                'edges_at="data" for images much smaller than the drawing.'
            )
        return edges

    def _levels(self, x: Tensor) -> Tensor:
        low, high = checked_value_range(self.value_range)
        return (x.float() - low) * (255 / (high - low))

    # ------------------------------------------------------------------------------- drawing

    def _drawn(
        self, pipeline: Any, edges: Tensor, prompts: list[str], seeds: list[int]
    ) -> list[Tensor | None]:
        """Return drawings, None for blanked ones; halve the batch when memory runs out."""
        from tqdm.auto import tqdm

        drawn: list[Tensor | None] = []
        with tqdm(total=len(prompts), desc="modify", disable=not self.progress) as bar:
            while (start := len(drawn)) < len(prompts):
                part = slice(start, start + self.batch_size)
                try:
                    drawn += self._draw(pipeline, edges[part], prompts[part], seeds[part])
                except torch.OutOfMemoryError:
                    if self.batch_size == 1:
                        raise
                    torch.cuda.empty_cache()
                    self.batch_size //= 2
                bar.update(len(drawn) - start)
        return drawn

    def _draw(
        self, pipeline: Any, edges: Tensor, prompts: list[str], seeds: list[int]
    ) -> list[Tensor | None]:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        with torch.no_grad():
            found = pipeline(
                prompts,
                image=edges,
                num_inference_steps=self.n_steps,
                guidance_scale=self.guidance,
                height=self.image_size,
                width=self.image_size,
                generator=generators,
                output_type="np",
            )
        images = torch.as_tensor(np.asarray(found.images)).permute(0, 3, 1, 2).float()
        flags = getattr(found, "nsfw_content_detected", None) or [False] * len(images)
        return [None if flag else image.cpu() for image, flag in zip(images, flags, strict=True)]

    def _at_data_size(self, drawn: list[Tensor | None], x: Tensor) -> Tensor:
        """Shrink drawings by area averaging; the original replaces a missing drawing."""
        low, high = checked_value_range(self.value_range)
        height, width = x.shape[2:]
        rows = x.float().clone()
        for i, image in enumerate(drawn):
            if image is None:
                continue
            small = F.adaptive_avg_pool2d(image, (height, width))
            small = small if x.shape[1] == 3 else small.mean(0, keepdim=True)
            rows[i] = small.expand(x.shape[1:]) * (high - low) + low
        self._report_blanked(sum(image is None for image in drawn))
        return (rows.round() if x.dtype == torch.uint8 else rows).to(x.dtype)

    def _report_blanked(self, n_blanked: int) -> None:
        if n_blanked == 0:
            return
        self.n_blanked_ += n_blanked
        warn(
            f"The safety checker has blanked {n_blanked} images; their originals count as modified "
            "rows, which makes their labels look right. Load the pipeline with safety_checker=None "
            "if the images are harmless."
        )

    # ------------------------------------------------------------------------------- loading

    def _pipeline(self) -> Any:
        if self._loaded is None:
            given = isinstance(self.pipeline, str | os.PathLike)
            self._loaded = self._load() if given else self.pipeline
            if given or self.device is not None:
                self._loaded.to(self._device())
            self._loaded.set_progress_bar_config(disable=True)
        return self._loaded

    def _device(self) -> torch.device:
        return resolve_device("auto" if self.device is None else self.device)

    def _load(self) -> Any:
        """Load a pipeline in half precision on a GPU."""
        try:
            from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
        except ImportError as error:
            raise ImportError(
                "ControlNetGenerator needs diffusers and transformers to load a pipeline. "
                'Install them: pip install "noisyfit[generators]", or pass a pipeline.'
            ) from error
        on_gpu = self._device().type == "cuda"
        dtype = torch.bfloat16 if on_gpu and torch.cuda.is_bf16_supported() else torch.float32
        dtype = torch.float16 if on_gpu and dtype == torch.float32 else dtype
        parts = {}
        if self.controlnet is not None:
            parts["controlnet"] = ControlNetModel.from_pretrained(
                os.fspath(self.controlnet), torch_dtype=dtype
            )
        return StableDiffusionControlNetPipeline.from_pretrained(
            os.fspath(self.pipeline), torch_dtype=dtype, **parts
        )


def _weights(pipeline: Any) -> Any:
    """Return what identifies a pipeline: its name, or sums of its weights."""
    if isinstance(pipeline, str | os.PathLike):
        return os.fspath(pipeline)
    parts = getattr(pipeline, "components", {})
    return {
        name: [float(p.detach().double().sum()) for p in part.parameters()]
        for name, part in parts.items()
        if isinstance(part, torch.nn.Module)
    }
