"""Image files with labels, as people have them: a folder a class, or a list of paths."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from noisyfit.datasets.files import PathLike
from noisyfit.exceptions import warn
from noisyfit.utils.validation import is_null

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
NAMED = 3  # files in a message


class ImageRows(NamedTuple):
    """Image files with labels, which share an index.

    Attributes
    ----------
    X : Series of str, shape (n_samples,)
        Paths, which `noisyfit.ImageEmbedder` opens when their turn comes.
    y : Series of shape (n_samples,)
        Given labels.
    """

    X: pd.Series
    y: pd.Series


def from_folder(root: PathLike) -> ImageRows:
    """Return the images in the folders of their classes.

    Parameters
    ----------
    root : str or path
        Folder with one folder a class, whose name is the label. Images may lie deeper; hidden files
        and folders do not count.

    Returns
    -------
    ImageRows
        In the order of the names. The index, and with it that of ``label_issues()``, is the path
        from ``root``, such as ``"cat/001.png"``.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If it does not hold images of two classes.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from noisyfit import images
    >>> with TemporaryDirectory() as root:
    ...     for kind in "cat", "dog":
    ...         Path(root, kind).mkdir()
    ...         Path(root, kind, "001.png").touch()
    ...     images.from_folder(root).y.to_dict()
    {'cat/001.png': 'cat', 'dog/001.png': 'dog'}
    """
    root = Path(root)
    files = list(_files(root))
    chosen = [file for file in files if file.suffix.lower() in SUFFIXES]
    paths = [file.relative_to(root).as_posix() for file in chosen]
    labels = [path.split("/")[0] for path in paths]
    classes = sorted(set(labels))
    if len(classes) < 2:
        raise ValueError(
            f"{root} must hold a folder of images for each of two classes or more. Got images in "
            f"{classes}. Make a folder a class; its name is the label. Pass files with labels of "
            "their own to noisyfit.images.from_paths."
        )
    others = [file.relative_to(root).as_posix() for file in files if file not in set(chosen)]
    if others:
        more = ", and more" if len(others) > NAMED else ""
        warn(
            f"The files in folders of classes should be images, {', '.join(sorted(SUFFIXES))}. "
            f"Got {len(others)} others of {len(files)}, which are left out: "
            f"{', '.join(others[:NAMED])}{more}. Convert them if they are images."
        )
    return from_paths(paths, labels, root=root)


def from_paths(
    paths: Iterable[PathLike], labels: Any, *, root: PathLike | None = None
) -> ImageRows:
    """Return image files with their labels.

    Parameters
    ----------
    paths : iterable of str or path
        Image files, such as a column of a table.
    labels : array-like of shape (n_samples,)
        Their labels.
    root : str, path or None, default=None
        Folder that the paths start from. None: the current one.

    Returns
    -------
    ImageRows
        The index, and with it that of ``label_issues()``, is ``paths``.

    Raises
    ------
    ValueError
        If there is not one label for each path, or something is no path.

    Examples
    --------
    >>> from noisyfit import images
    >>> X, y = images.from_paths(["a.png", "b.png"], ["cat", "dog"], root="photos")
    >>> X["b.png"], y["b.png"]
    ('photos/b.png', 'dog')
    """
    import pandas as pd

    names = [_path(path, row) for row, path in enumerate(paths)]
    labels = getattr(labels, "array", labels)  # a Series would be aligned by its own index
    if len(names) != len(labels):
        raise ValueError(
            f"There must be one label for each path. Got {len(names)} paths and {len(labels)} "
            "labels."
        )
    places = names if root is None else [os.path.join(root, name) for name in names]
    X = pd.Series(places, index=names, dtype=object, name="path")
    return ImageRows(X, pd.Series(labels, index=names, name="label"))


def _path(given: Any, row: int) -> str:
    try:
        return os.fspath(given)
    except TypeError as error:
        got = "none" if is_null(given) else repr(given)
        raise ValueError(
            f"Every row must have the path of an image. Got {got} in row {row}, counted from 0. "
            "Choose the column of the paths, and leave out rows without one."
        ) from error


def _files(root: Path) -> Iterable[Path]:
    """Yield what lies in the folders of a folder, except what is hidden."""
    if not root.is_dir():
        raise FileNotFoundError(
            f"The folder of the classes must exist. Got {str(root)!r}. Check the path; it is "
            f"relative to {str(Path.cwd())!r}."
        )
    for kind in sorted(root.iterdir()):
        if kind.is_dir() and not kind.name.startswith("."):
            for file in sorted(kind.rglob("*")):
                hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
                if file.is_file() and not hidden:
                    yield file
