"""Tiny-ImageNet: clean labels to simulate noise on."""

from __future__ import annotations

from pathlib import Path

from noisyfit.datasets.files import PathLike, choose, local_root, read_lines
from noisyfit.datasets.images import ImageFiles


def load_tiny_imagenet(
    root: PathLike, subset: str = "train", *, image_size: int = 64
) -> ImageFiles:
    """Load Tiny-ImageNet from a local copy: 200 classes of ImageNet at 64 x 64 pixels.

    100,000 training images, and 10,000 that serve as test images, with clean labels: add noise with
    `noisyfit.noise` and ``with_targets``.

    Parameters
    ----------
    root : str or path
        Folder ``tiny-imagenet-200``, with ``wnids.txt``, ``train/<class>/images/``,
        ``val/val_annotations.txt`` and ``val/images/``.
    subset : {"train", "test"}, default="train"
        ``"test"`` is the part that the authors call ``val``; their ``test`` part has no labels.
    image_size : int, default=64
        Height and width in pixels. The files have 64.

    Returns
    -------
    ImageFiles
        In the order of the classes and file names. Classes are numbered in the sorted order of
        their names, as torchvision's ``ImageFolder`` does.

    Raises
    ------
    ValueError
        If the subset is unknown, or the class of an image is not listed.
    FileNotFoundError
        If the folder is not laid out as above.

    References
    ----------
    .. [1] Le and Yang. Tiny ImageNet visual recognition challenge. CS 231N, Stanford, 2015.

    Examples
    --------
    >>> train = load_tiny_imagenet("tiny-imagenet-200")  # doctest: +SKIP
    >>> noisy = noise.symmetric(train.targets, 0.5, random_state=0)  # doctest: +SKIP
    >>> train = train.with_targets(noisy.labels)  # doctest: +SKIP
    """
    choose("subset", subset, ("train", "test"))
    part = "train" if subset == "train" else "val/val_annotations.txt"
    folder = local_root(root, "wnids.txt", part)
    classes = sorted(read_lines(folder / "wnids.txt"))
    rows = _train(folder, classes) if subset == "train" else _test(folder)
    code = {name: i for i, name in enumerate(classes)}
    strange = [name for _, name in rows if name not in code]
    if strange:
        raise ValueError(
            f"Images must be of the classes of wnids.txt. Got {strange[0]!r} in {str(folder)!r}. "
            "Unpack the authors' archive anew."
        )
    targets = [code[name] for _, name in rows]
    return ImageFiles(
        folder,
        [file for file, _ in rows],
        targets,
        class_names=classes,
        clean_targets=targets,
        image_size=image_size,
    )


def _train(folder: Path, classes: list[str]) -> list[tuple[str, str]]:
    local_root(folder, *(f"train/{name}/images" for name in classes))
    return [
        (f"train/{name}/images/{file}", name)
        for name in classes
        for file in sorted(path.name for path in (folder / "train" / name / "images").iterdir())
    ]


def _test(folder: Path) -> list[tuple[str, str]]:
    lines = (line.split() for line in read_lines(folder / "val" / "val_annotations.txt"))
    return [(f"val/images/{file}", name) for file, name, *_ in lines]
