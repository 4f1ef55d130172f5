"""Test images of classes that CIFAR does not have, to test whether a classifier notices."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import Bunch, check_random_state

from noisyfit.datasets.files import PathLike, choose, data_folder
from noisyfit.utils.parameters import AT_LEAST_ONE, check_parameters

COUNTS = {"size": [AT_LEAST_ONE], "n_samples": [AT_LEAST_ONE, None]}
LAYOUTS = {
    "svhn": "svhn/test_32x32.mat",
    "lsun": "lsun/<scene>/ with image files",
    "places365": "places365/ with categories_places365.txt, places365_val.txt and val_256/",
    "textures": "dtd/dtd/ with images/ and labels/",
    "mnist": "MNIST/raw/ with the four files of digits, unpacked",
}


def load_ood(
    name: str,
    *,
    size: int = 32,
    n_samples: int | None = None,
    random_state: Any = 0,
    data_home: PathLike | None = None,
) -> Any:
    """Load test images that belong to no CIFAR class, through torchvision.

    The five sets on which OpenOOD [1]_ tests classifiers for CIFAR-10 and CIFAR-100. Each must be
    in the folder as torchvision unpacks it:

    =============  ==========================================================================
    ``name``       what the folder holds
    =============  ==========================================================================
    "svhn"         ``svhn/test_32x32.mat``: 26,032 house numbers
    "lsun"         ``lsun/<scene>/``: indoor and outdoor scenes, as image files
    "places365"    ``places365/categories_places365.txt``, ``places365/places365_val.txt`` and
                   ``places365/val_256/``: 36,500 scenes
    "textures"     ``dtd/dtd/images/`` and ``dtd/dtd/labels/``: 1,880 textures, the first test part
    "mnist"        ``MNIST/raw/``, four files: 10,000 handwritten digits
    =============  ==========================================================================

    Parameters
    ----------
    name : {"svhn", "lsun", "places365", "textures", "mnist"}
    size : int >= 1, default=32
        Height and width in pixels: the shorter side is resized to it, and the middle of the longer
        side is cropped.
    n_samples : int >= 1 or None, default=None
        Maximum number of images, chosen at random. None: all.
    random_state : int, RandomState instance or None, default=0
        Seed of the choice.
    data_home : str, path or None, default=None
        Folder with the sets above. None: the folder named by ``NOISYFIT_DATA``.

    Returns
    -------
    Bunch
        - ``data`` : ndarray of uint8, shape (n, size, size, 3). In the order of the files.
        - ``DESCR``, ``filename`` : str. This text, and the folder.

    Raises
    ------
    ValueError
        If the set is unknown, no folder is named, or a number is below 1.
    FileNotFoundError
        If the set is not in the folder. Nothing is downloaded.

    Notes
    -----
    torchvision reads the original LSUN databases with the package ``lmdb``, which noisyfit does not
    otherwise need. Here LSUN is read from image files, which its authors' ``data.py`` exports from
    a database. The licences are those of each set's authors.

    References
    ----------
    .. [1] Yang et al. OpenOOD: benchmarking generalized out-of-distribution detection. NeurIPS,
       2022. arXiv:2210.07242

    Examples
    --------
    >>> unknown = load_ood("svhn", n_samples=1000).data  # doctest: +SKIP
    """
    choose("name", name, LAYOUTS)
    check_parameters(COUNTS, {"size": size, "n_samples": n_samples}, "load_ood")
    root = data_folder(data_home)
    try:
        images = _opened(name, root)
        rows = check_random_state(random_state).permutation(len(images))[:n_samples]
        data = np.stack([_square(images[i][0], size) for i in np.sort(rows)])
    except (RuntimeError, FileNotFoundError) as error:
        raise FileNotFoundError(
            f"The folder must hold {LAYOUTS[name]}. Got {str(root)!r}, where it is missing or "
            "damaged. Put it there; nothing is downloaded."
        ) from error
    return Bunch(data=data, DESCR=inspect.getdoc(load_ood), filename=str(root))


def _opened(name: str, root: Path) -> Any:
    """Return pairs of an image and its label, which torchvision decodes one by one."""
    from torchvision import datasets

    if name == "svhn":
        return datasets.SVHN(root / "svhn", "test")
    if name == "lsun":
        return datasets.ImageFolder(root / "lsun")
    if name == "places365":
        return datasets.Places365(root / "places365", "val", small=True)
    if name == "textures":
        return datasets.DTD(root, "test")
    return datasets.MNIST(root, train=False)


def _square(image: Any, size: int) -> NDArray[np.uint8]:
    """Return an image as (size, size, 3)."""
    from PIL import Image, ImageOps

    fitted = ImageOps.fit(image.convert("RGB"), (size, size), method=Image.Resampling.BILINEAR)
    return np.asarray(fitted)
