"""Clothing1M: a million pictures labelled by the words around them."""

from __future__ import annotations

from noisyfit.datasets.files import PathLike, choose, local_root, read_labels, read_lines
from noisyfit.datasets.images import ImageFiles

LISTS = {
    "train": "noisy_train_key_list.txt",
    "clean_train": "clean_train_key_list.txt",
    "valid": "clean_val_key_list.txt",
    "test": "clean_test_key_list.txt",
}
LABEL_FILES = {"noisy": "noisy_label_kv.txt", "clean": "clean_label_kv.txt"}


def load_clothing1m(
    root: PathLike, subset: str = "train", *, labels: str | None = None, image_size: int = 256
) -> ImageFiles:
    """Load Clothing1M from a local copy: 14 kinds of clothes, labelled by a shop's text.

    A million training images, about 38 % of them with wrong labels. People labelled another 47,570
    to train on, 14,313 for validation and 10,526 for testing.

    Parameters
    ----------
    root : str or path
        Folder with ``noisy_label_kv.txt``, ``clean_label_kv.txt``, the four ``*_key_list.txt`` and
        ``images/`` (or the ten folders ``0/`` to ``9/`` of ``images/``).
    subset : {"train", "clean_train", "valid", "test"}, default="train"
    labels : {"noisy", "clean"} or None, default=None
        Given labels: the shop's (noisy) or people's (clean). None: noisy for ``"train"``, clean for
        the rest. An image without such a label has -1: pass ``missing_label=-1`` to the estimator.
    image_size : int, default=256
        Height and width in pixels to which images are resized and cropped.

    Returns
    -------
    ImageFiles
        In the order of the authors' list. ``clean_targets`` is known for images labelled by people.

    Raises
    ------
    ValueError
        If the subset or the labels are unknown, or a line of a list cannot be read.
    FileNotFoundError
        If the folder is not laid out as above.

    Notes
    -----
    The authors distribute the images for research, on request.

    References
    ----------
    .. [1] Xiao, Xia, Yang, Huang and Wang. Learning from massive noisy labeled data for image
       classification. CVPR, 2015. https://github.com/Cysu/noisy_label
    """
    listing = LISTS[choose("subset", subset, LISTS)]
    labels = labels or ("noisy" if subset == "train" else "clean")
    choose("labels", labels, LABEL_FILES)
    folder = local_root(root, listing, *LABEL_FILES.values())
    keys = read_lines(folder / listing)
    known = {name: dict(read_labels(folder / file)) for name, file in LABEL_FILES.items()}
    names_file = folder / "category_names_eng.txt"
    unnested = not (folder / "images").exists()
    return ImageFiles(
        folder,
        [key.removeprefix("images/") for key in keys] if unnested else keys,
        [known[labels].get(key, -1) for key in keys],
        class_names=read_lines(names_file) if names_file.exists() else None,
        clean_targets=[known["clean"].get(key, -1) for key in keys],
        image_size=image_size,
    )
