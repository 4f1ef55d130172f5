"""Images one at a time: from arrays or files to RGB from 0 to 255."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from scipy.sparse import issparse
from torch import Tensor
from torch.nn import functional as F

from noisyfit.data.hints import strings_of
from noisyfit.data.rows import Rows, entries_as_numbers, extremes, shape_of, unwrapped
from noisyfit.estimator.format import check_finite, check_shape, image_layout, is_lazy
from noisyfit.nn.input_layer import resized
from noisyfit.utils.validation import folder_files

BYTE = 255.0
DRAFT = 2  # times the size asked for, at which JPEG files are decoded at least
SCALES = (1.0, BYTE)  # white; bicubic interpolation goes beyond by a quarter
OVERSHOOT = 0.25
CROP = 7 / 8  # of the side
CROPS = ((0.5, 0.5), (0, 0), (1, 1), (0, 1), (1, 0))  # in units of what a crop leaves out
MAX_VIEWS = 2 * (1 + len(CROPS))
NAMED = 5  # unreadable images in a message


class Images(Protocol):
    """Rows that are read and decoded one by one."""

    def __len__(self) -> int: ...

    def name(self, i: int) -> str:
        """Return what errors call image ``i``."""

    def read(self, i: int) -> bytes | Tensor:
        """Return image ``i`` as it is stored."""

    def decode(self, stored: Any, size: int) -> Tensor:
        """Return it as float32 (3, H, W) from 0 to 255; ``size`` is what it will be resized to."""


@dataclass(frozen=True)
class Readable:
    """An image by its contents; its pixels (3, size, size) only where they are needed."""

    key: bytes
    pixels: Tensor | None


@dataclass(frozen=True)
class Unreadable:
    """An image that cannot be read, and why."""

    name: str
    reason: str


def read_image(
    images: Images, i: int, size: int, known: Container[bytes] | None
) -> Readable | Unreadable:
    """Read an image and, unless its key is among those that are known, decode it."""
    try:
        stored = images.read(i)
        key = _key(stored)
        is_known = known is not None and key in known
        return Readable(
            key, None if is_known else resized(images.decode(stored, size)[None], size)[0]
        )
    except MemoryError:
        raise
    except Exception as error:  # Pillow has many for damaged files
        return Unreadable(images.name(i), _reason(error))


def _key(stored: bytes | Tensor) -> bytes:
    if isinstance(stored, bytes):
        return hashlib.sha1(stored).digest()
    kind = f"{stored.dtype} {tuple(stored.shape)}".encode()
    return hashlib.sha1(kind + stored.contiguous().numpy().tobytes()).digest()


def _reason(error: Exception) -> str:
    if type(error).__name__ == "UnidentifiedImageError":
        return "no image that Pillow knows"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def images_of(X: Any, layout: str) -> Images:
    """Return files if X names some, else the images of an array, a tensor or a Dataset.

    Raises
    ------
    ValueError, TypeError
        If X is neither, or empty.
    """
    if isinstance(X, str | os.PathLike):
        raise ValueError(
            f"X must be arrays or a list of image files. Got the single path {os.fspath(X)!r}. "
            "Pass its files: noisyfit.images.from_folder(path).X, or "
            "sorted(Path(path).glob('*.jpg'))."
        )
    if hasattr(X, "__len__") and len(X) == 0:
        raise ValueError(
            "X must hold at least one image. Got 0 sample(s). Check the folder and the pattern of "
            "its files."
        )
    paths = _paths(X)
    return ImageArrays(X, layout) if paths is None else ImagePaths(paths)


def _paths(X: Any) -> Sequence[Any] | None:
    """Return the paths if X holds some; an ``ImageFolder`` with a transform decodes for itself."""
    if getattr(X, "transform", None) is None and (files := folder_files(X)) is not None:
        return files
    return strings_of(X)


def told(unreadable: list[Unreadable], total: int) -> str:
    """Say how many of the images cannot be read, and which."""
    named = "; ".join(f"{image.name} ({image.reason})" for image in unreadable[:NAMED])
    more = len(unreadable) - NAMED
    return (
        f"Every image must be one that can be read. Got {len(unreadable)} of {total} that cannot: "
        f"{named}{f'; and {more} more' if more > 0 else ''}. "
    )


class ImagePaths:
    """Image files; JPEG, PNG and what else Pillow reads."""

    def __init__(self, paths: Sequence[Any]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, i: int) -> str:
        """Return what errors call image ``i``."""
        return repr(str(self.paths[i]))

    def read(self, i: int) -> bytes:
        """Return the contents of a file."""
        path = self.paths[i]
        if not isinstance(path, str | os.PathLike):
            raise ValueError("no path")
        content = Path(path).read_bytes()
        if not content:
            raise ValueError("an empty file")
        return content

    def decode(self, stored: bytes, size: int) -> Tensor:
        """Return the upright image as float32 (3, H, W)."""
        from PIL import Image, ImageOps

        with Image.open(BytesIO(stored)) as file:
            file.draft("RGB", (DRAFT * size, DRAFT * size))
            image = ImageOps.exif_transpose(file)
        return as_rgb(torch.from_numpy(_pixels(image)).permute(2, 0, 1))


def _pixels(image: Any) -> np.ndarray[Any, Any]:
    """Return an image of Pillow as float32 (H, W, C) from 0 to 255."""
    if image.mode == "F":
        raise ValueError("pixels of type float, whose white is not known")
    if image.mode.startswith("I"):  # 16 bits, which convert() would clip
        return np.asarray(image, np.float32)[..., None] / 257
    return np.array(image.convert("RGBA" if image.has_transparency_data else "RGB"), np.float32)


class ImageArrays:
    """Images of one shape in an array, a memmap, a tensor or a Dataset."""

    def __init__(self, X: Any, layout: str) -> None:
        X = unwrapped(X)
        if not is_lazy(X) and not issparse(X):
            with entries_as_numbers():
                X = np.asarray(X, np.float32)
        shape = shape_of(X)
        check_shape(shape, None)
        if len(shape) < 3:
            raise ValueError(
                "X must be images (n, H, W), (n, H, W, C) or (n, C, H, W), or a list of image "
                f"files. Got shape {shape}. Reshape it, or pass tables to the classifier itself."
            )
        self.rows = Rows(X, image_layout(shape, layout), torch.device("cpu"))
        self.white = BYTE if self.rows.is_bytes else _white(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, i: int) -> str:
        """Return what errors call image ``i``."""
        return f"row {i}"

    def read(self, i: int) -> Tensor:
        """Return image ``i`` as (C, H, W) from 0 to 255."""
        x = self.rows.take(torch.tensor([i]))[0]
        return x if self.rows.is_bytes else x * (BYTE / self.white)

    def decode(self, stored: Tensor, size: int) -> Tensor:
        """Return the image as float32 (3, H, W)."""
        return as_rgb(stored.float())


def _white(rows: Rows) -> float:
    """Return the value of white, 1 or 255, by the brightest pixel; black is 0."""
    low, high = extremes(rows)
    check_finite(low, high)
    for white in SCALES:
        if low >= -OVERSHOOT * white and high <= (1 + OVERSHOOT) * white:
            return white
    raise ValueError(
        "Images must be from 0 to 1 or from 0 to 255, as the pretrained network expects. Got "
        f"values from {low:g} to {high:g}. Rescale them, or convert them to uint8."
    )


def as_rgb(x: Tensor) -> Tensor:
    """Return an image (C, H, W) from 0 to 255 with three channels, on white if it has alpha."""
    if len(x) == 4:
        alpha = x[3:] / BYTE
        x = x[:3] * alpha + BYTE * (1 - alpha)
    return x.expand(3, -1, -1) if len(x) == 1 else x


def views_of(x: Tensor, n: int) -> Iterator[Tensor]:
    """Yield the first of the views of images (n, 3, H, W), each of the same shape.

    They come in pairs, the second of which is the mirror image of the first: the whole image, then
    its middle and its corners, enlarged.
    """
    height, width = x.shape[2:]
    h, w = max(1, int(height * CROP)), max(1, int(width * CROP))
    for i in range(n):
        view = x
        if i >= 2:
            down, right = CROPS[i // 2 - 1]
            top, left = int((height - h) * down), int((width - w) * right)
            view = x[:, :, top : top + h, left : left + w]
            view = F.interpolate(view, (height, width), mode="bicubic")
        yield view.flip(3) if i % 2 else view
