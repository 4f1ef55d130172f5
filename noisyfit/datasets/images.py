"""Image files with labels as a torch Dataset, decoded on access."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import Dataset

from noisyfit.datasets.files import PathLike
from noisyfit.utils.parameters import AT_LEAST_ONE, check_parameters

COUNTS = {"image_size": [AT_LEAST_ONE, None], "n_threads": [AT_LEAST_ONE, None]}


class ImageFiles(Dataset[tuple[Tensor, int]]):
    """Image files with labels; a file is opened only when its row is read.

    A torch ``Dataset`` that can be passed as ``X``: ``clf.fit(train)`` takes the labels from it. It
    is decoded again in every epoch; `to_memmap` decodes it once.

    Parameters
    ----------
    root : str or path
        Folder to which the file names are relative.
    files : sequence of str
        Names of the image files, one per row.
    targets : array-like of int, shape (n_samples,)
        Given labels, right or wrong; -1 for a row without a label.
    class_names : sequence of str or None, default=None
        Name of each label.
    clean_targets : array-like of int, shape (n_samples,), or None, default=None
        True classes, -1 where they are not known. None: known nowhere.
    verified : array-like of int, shape (n_samples,), or None, default=None
        1 if the given label is known to be right, 0 if it is known to be wrong, -1 otherwise. None:
        derived from ``clean_targets``.
    image_size : int >= 1 or None, default=None
        Height and width in pixels: the shorter side is resized to it, and the middle of the longer
        side is cropped. None: files are used as they are and must all have the same size.

    Attributes
    ----------
    files : list of str
    targets, clean_targets : ndarray of int64, shape (n_samples,)
    verified : ndarray of int8, shape (n_samples,)
        ``verified == 1`` is a ``clean_mask``.
    class_names : list of str or None

    Notes
    -----
    A row is a pair of the image, a uint8 tensor (3, height, width), and its label. Grey images and
    those with a palette or an alpha channel are converted to RGB.
    """

    def __init__(
        self,
        root: PathLike,
        files: Sequence[str],
        targets: ArrayLike,
        *,
        class_names: Sequence[str] | None = None,
        clean_targets: ArrayLike | None = None,
        verified: ArrayLike | None = None,
        image_size: int | None = None,
    ) -> None:
        self.root = Path(root)
        self.files = list(files)
        self.class_names = None if class_names is None else list(class_names)
        check_parameters(COUNTS, {"image_size": image_size}, "ImageFiles")
        self.image_size = None if image_size is None else int(image_size)
        self.targets = self._column("targets", targets, np.int64)
        if clean_targets is None:
            clean_targets = np.full(len(self.files), -1)
        self.clean_targets = self._column("clean_targets", clean_targets, np.int64)
        if verified is None:
            known = (self.clean_targets >= 0) & (self.targets >= 0)
            verified = np.where(known, self.clean_targets == self.targets, -1)
        self.verified = self._column("verified", verified, np.int8)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return torch.from_numpy(self._decode(int(i))), int(self.targets[i])

    def __repr__(self) -> str:
        n_classes = len(np.unique(self.targets[self.targets >= 0]))
        return f"ImageFiles({len(self)} files, {n_classes} classes, root={str(self.root)!r})"

    def subset(self, rows: ArrayLike) -> ImageFiles:
        """Return some rows, given by index or by a mask, as a new Dataset."""
        chosen = np.arange(len(self))[np.asarray(rows)]
        return ImageFiles(
            self.root,
            [self.files[i] for i in chosen],
            self.targets[chosen],
            class_names=self.class_names,
            clean_targets=self.clean_targets[chosen],
            verified=self.verified[chosen],
            image_size=self.image_size,
        )

    def with_targets(self, targets: ArrayLike) -> ImageFiles:
        """Return the same images with other labels, such as those of a simulator."""
        return ImageFiles(
            self.root,
            self.files,
            targets,
            class_names=self.class_names,
            clean_targets=self.clean_targets,
            image_size=self.image_size,
        )

    def to_memmap(self, path: PathLike, *, n_threads: int | None = None) -> NDArray[np.uint8]:
        """Decode all images into one ``.npy`` file, which later epochs read instead.

        Parameters
        ----------
        path : str or path
            File to write; it appears under this name once it is complete.
        n_threads : int >= 1 or None, default=None
            Number of files decoded at once. None: one per CPU core.

        Returns
        -------
        memmap of uint8, shape (n_samples, 3, height, width)
            Opened for reading. Use it as ``X``, with ``targets`` as ``y``.
        """
        check_parameters(COUNTS, {"n_threads": n_threads}, "to_memmap")
        path = Path(path)
        part = path.with_name(f"{path.name}.part")
        shape = (len(self), *self._decode(0).shape)
        images = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)

        def write(i: int) -> None:
            images[i] = self._decode(i)

        with ThreadPoolExecutor(n_threads or os.cpu_count()) as pool:
            for _ in pool.map(write, range(len(self))):
                pass  # raises what a thread has raised
        images.flush()
        part.replace(path)
        return np.load(path, mmap_mode="r")

    def _decode(self, i: int) -> NDArray[np.uint8]:
        """Return image ``i`` as (3, height, width)."""
        from PIL import Image, ImageOps

        path = self.root / self.files[i]
        try:
            with Image.open(path) as image:
                if self.image_size is not None:  # JPEG is then decoded at a fraction of its size
                    image.draft("RGB", (self.image_size, self.image_size))
                rgb = image.convert("RGB")
        except FileNotFoundError:
            raise FileNotFoundError(
                f"Every file of the list must exist. Got none at {str(path)!r}, row {i}. Unpack "
                "the images there, or leave the row out with subset()."
            ) from None
        except OSError as error:
            raise OSError(
                f"Every file must be an image. Could not decode {str(path)!r}, row {i}: {error}. "
                "Replace it, or leave the row out with subset()."
            ) from error
        if self.image_size is not None:
            size = (self.image_size, self.image_size)
            rgb = ImageOps.fit(rgb, size, method=Image.Resampling.BILINEAR)
        return np.ascontiguousarray(np.asarray(rgb).transpose(2, 0, 1))

    def _column(self, name: str, values: ArrayLike, dtype: Any) -> NDArray[Any]:
        column = np.asarray(values)
        fits = column.shape == (len(self.files),)
        if not fits or (column.dtype.kind not in "iub" and column.size):
            raise ValueError(
                f"{name} must be one whole number for each of the {len(self.files)} files. Got "
                f"dtype {column.dtype} and shape {column.shape}."
            )
        return column.astype(dtype)
