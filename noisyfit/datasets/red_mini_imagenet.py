"""Red Mini-ImageNet: a controlled share of web pictures with wrong labels."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from noisyfit.datasets.files import PathLike, choose, local_root, read_labels
from noisyfit.datasets.images import ImageFiles
from noisyfit.utils.parameters import check_number

RATES = ("0.0", "0.05", "0.1", "0.15", "0.2", "0.3", "0.4", "0.5", "0.6", "0.8")
OF_IMAGENET = re.compile(r"n\d{8}")


def load_red_mini_imagenet(
    root: PathLike, subset: str = "train", *, rate: float = 0.4, image_size: int = 32
) -> ImageFiles:
    """Load Red Mini-ImageNet from a local copy: 100 classes with a known share of web noise.

    About 50,000 training images and 5,000 test images. A share of the training images, ``rate``,
    comes from the web and does not show what the label says; the others are those of Mini-ImageNet.

    Parameters
    ----------
    root : str or path
        Folder with ``split/`` (the authors' lists), ``all_images/`` and ``validation/``. Images may
        be in subfolders of these.
    subset : {"train", "test"}, default="train"
    rate : float, default=0.4
        Share of wrong labels: 0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6 or 0.8.
    image_size : int, default=32
        Height and width in pixels to which images are resized and cropped; 32 in most papers.

    Returns
    -------
    ImageFiles
        In the order of the authors' list. ``verified`` is 0 for the images from the web.

    Raises
    ------
    ValueError
        If the subset or rate is unknown, or a line of a list cannot be read.
    FileNotFoundError
        If the folder is not laid out as above.

    Notes
    -----
    The lists are CC BY 4.0. ImageNet's images come under its own terms.

    References
    ----------
    .. [1] Jiang, Huang, Liu and Yang. Beyond synthetic noise: deep learning on controlled noisy
       labels. ICML, 2020. https://google.github.io/controlled-noisy-web-labels
    """
    choose("subset", subset, ("train", "test"))
    check_number("rate", rate)
    choose("rate", str(float(rate)), RATES)
    listing = "split/clean_validation"
    images = "validation"
    if subset == "train":
        listing, images = f"split/red_noise_nl_{float(rate)}", "all_images"
    folder = local_root(root, listing, images)
    rows = read_labels(folder / listing)
    names, targets = [name for name, _ in rows], np.array([label for _, label in rows])
    right = np.array([subset == "test" or bool(OF_IMAGENET.match(name)) for name in names])
    return ImageFiles(
        folder / images,
        _located(folder / images, names),
        targets,
        clean_targets=np.where(right, targets, -1),
        verified=right,
        image_size=image_size,
    )


def _located(folder: Path, names: list[str]) -> list[str]:
    """Return the names with their subfolders, if they are not directly in ``folder``."""
    if not names or (folder / names[0]).exists():
        return names
    within = {path.name: str(path.relative_to(folder)) for path in folder.rglob("*.*")}
    return [within.get(name, name) for name in names]
