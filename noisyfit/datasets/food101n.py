"""Food-101N: pictures of food found by their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from noisyfit.datasets.files import PathLike, choose, local_root, read_lines
from noisyfit.datasets.images import ImageFiles

SUBSETS = ("train", "test")
HEADER = "class_name"  # the authors' tables have a head line that starts like this


def load_food101n(root: PathLike, subset: str = "train", *, image_size: int = 256) -> ImageFiles:
    """Load Food-101N from a local copy: 101 dishes, found on the web by name.

    310,000 images, about 20 % of them with wrong labels. For some 57,600 it is known whether the
    label is right: ``verified`` is then 1 or 0. Methods are tested on Food-101 [2]_, whose labels
    have been checked.

    Parameters
    ----------
    root : str or path
        For ``"train"`` the folder ``Food-101N_release``, with ``meta/imagelist.tsv``,
        ``meta/classes.txt``, ``meta/verified_train.tsv``, ``meta/verified_val.tsv`` and
        ``images/<class>/``. For ``"test"`` the folder ``food-101`` of Food-101 itself, with
        ``meta/test.txt``, ``meta/classes.txt`` and ``images/<class>/``.
    subset : {"train", "test"}, default="train"
    image_size : int, default=256
        Height and width in pixels to which images are resized and cropped.

    Returns
    -------
    ImageFiles
        In the order of the authors' list. Classes are numbered alphabetically. ``clean_targets``
        is known only where ``verified`` is 1.

    Raises
    ------
    ValueError
        If the subset is unknown, or the class of an image is not listed.
    FileNotFoundError
        If the folder is not laid out as above.

    Notes
    -----
    A line in the verified lists that names no image in ``imagelist.tsv`` is skipped: at least one
    image is listed there under another class.

    References
    ----------
    .. [1] Lee, He, Zhang and Yang. CleanNet: transfer learning for scalable image classifier
       training with label noise. CVPR, 2018. https://kuanghuei.github.io/Food-101N
    .. [2] Bossard, Guillaumin and Van Gool. Food-101: mining discriminative components with random
       forests. ECCV, 2014.
    """
    listing = {"train": "meta/imagelist.tsv", "test": "meta/test.txt"}[
        choose("subset", subset, SUBSETS)
    ]
    folder = local_root(root, listing, "meta/classes.txt", "images")
    classes = sorted(_lines(folder / "meta/classes.txt"))
    keys = _lines(folder / listing)
    code = {name: i for i, name in enumerate(classes)}
    strange = [key for key in keys if key.partition("/")[0] not in code]
    if strange:
        raise ValueError(
            f"Images must be of the classes of meta/classes.txt. Got {strange[0]!r} in "
            f"{str(folder / listing)!r}. Replace meta/ by the authors'."
        )
    targets = np.array([code[key.partition("/")[0]] for key in keys])
    if subset == "test":
        verified, files = np.ones(len(keys), dtype=np.int8), [f"{key}.jpg" for key in keys]
    else:
        checked = _verified(folder)
        verified, files = np.array([checked.get(key, -1) for key in keys]), keys
    return ImageFiles(
        folder / "images",
        files,
        targets,
        class_names=classes,
        clean_targets=np.where(verified == 1, targets, -1),
        verified=verified,
        image_size=image_size,
    )


def _lines(path: Path) -> list[str]:
    return [line for line in read_lines(path) if not line.startswith(HEADER)]


def _verified(folder: Path) -> dict[str, int]:
    """Return 1 or 0 for the images that people have checked."""
    found = {}
    for name in ("meta/verified_train.tsv", "meta/verified_val.tsv"):
        if (folder / name).exists():
            for line in _lines(folder / name):
                key, _, right = line.rpartition("\t")
                found[key] = int(right)
    return found
