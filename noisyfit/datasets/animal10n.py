"""ANIMAL-10N: animals that students confused."""

from __future__ import annotations

import numpy as np

from noisyfit.datasets.files import PathLike, choose, local_root
from noisyfit.datasets.images import ImageFiles

CLASSES = (
    *("cat", "lynx", "wolf", "coyote", "cheetah"),
    *("jaguar", "chimpanzee", "orangutan", "hamster", "guinea pig"),
)
FOLDERS = {"train": "training", "test": "testing"}
SUFFIXES = (".jpg", ".jpeg", ".png")


def load_animal10n(root: PathLike, subset: str = "train", *, image_size: int = 64) -> ImageFiles:
    """Load ANIMAL-10N from a local copy: five pairs of similar animals.

    50,000 training images, labelled by 15 students after an hour of instruction, about 8 % of them
    wrongly by the authors' estimate, and 5,000 test images with right labels.

    Parameters
    ----------
    root : str or path
        Folder with ``training/`` and ``testing/``, whose files are named ``<label>_<number>.jpg``.
    subset : {"train", "test"}, default="train"
    image_size : int, default=64
        Height and width in pixels. The files have 64.

    Returns
    -------
    ImageFiles
        In the order of the file names, that is, sorted by label.

    Raises
    ------
    ValueError
        If the subset is unknown, or a file is not named as above.
    FileNotFoundError
        If the folder is not laid out as above.

    References
    ----------
    .. [1] Song, Kim and Lee. SELFIE: refurbishing unclean samples for robust deep learning. ICML,
       2019. https://dm.kaist.ac.kr/datasets/animal-10n
    """
    folder = FOLDERS[choose("subset", subset, FOLDERS)]
    source = local_root(root, folder) / folder
    files = sorted(path.name for path in source.iterdir() if path.suffix.lower() in SUFFIXES)
    odd = [name for name in files if not name.partition("_")[0].isdecimal()]
    if odd or not files:
        raise ValueError(
            f"{folder}/ must hold images named <label>_<number>.jpg. Got {odd[:1] or 'none'} in "
            f"{str(source)!r}. Unpack the authors' archive of raw images there."
        )
    targets = np.array([int(name.partition("_")[0]) for name in files])
    clean = targets if subset == "test" else None
    return ImageFiles(
        source,
        files,
        targets,
        class_names=CLASSES,
        clean_targets=clean,
        image_size=image_size,
    )
