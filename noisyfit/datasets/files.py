"""Folders, archives and lists of files: found and read, or an error that says what to do."""

from __future__ import annotations

import csv
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeAlias
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from noisyfit.utils.synonyms import did_you_mean

PathLike: TypeAlias = str | os.PathLike[str]
VARIABLE = "NOISYFIT_DATA"
DAMAGES = (BadZipFile, zlib.error, EOFError, csv.Error, UnpicklingError, ValueError, TypeError)


def choose(what: str, name: str, names: Iterable[str]) -> str:
    """Return the name if it is known.

    Raises
    ------
    ValueError
        If it is unknown; the message lists the names.
    """
    names = list(names)
    if name not in names:
        raise ValueError(
            f"{what} must be one of {', '.join(map(repr, names))}. Got {name!r}."
            f"{did_you_mean(str(name), names)}"
        )
    return name


def data_folder(data_home: PathLike | None) -> Path:
    """Return the data folder: ``data_home``, or the folder named by ``NOISYFIT_DATA``.

    Raises
    ------
    ValueError
        If neither is given.
    FileNotFoundError
        If there is no such folder.
    """
    folder = os.environ.get(VARIABLE) if data_home is None else data_home
    if not folder:
        raise ValueError(
            f"The folder of the data must be named. Got data_home={data_home!r}, and {VARIABLE} is "
            f"not set. "
            f"Pass data_home=, or set {VARIABLE}."
        )
    return existing_folder(folder)


def existing_folder(path: PathLike) -> Path:
    """Return a folder as a path; FileNotFoundError if there is none."""
    folder = Path(path)
    with suppress(RuntimeError):  # "~nobody" is the home of nobody: there is no such folder
        folder = folder.expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"The folder of the data must exist. Got {str(folder)!r}. Check the path."
        )
    return folder


def path_of(file: str, data_home: PathLike | None) -> Path:
    """Return the path of a file in the data folder; FileNotFoundError if there is none."""
    path = data_folder(data_home) / file
    if not path.is_file():
        raise FileNotFoundError(
            f"The folder {str(path.parent)!r} must hold {path.name!r}. Got no such file. Nothing "
            "is downloaded: put it there, or name another folder with data_home= or "
            f"{VARIABLE}. What it holds, and where that comes from, is on the page 'Data sets' of "
            "the documentation."
        )
    return path


@contextmanager
def whole(path: Path) -> Iterator[None]:
    """Read a file that must be complete.

    Raises
    ------
    ValueError
        With the name of the file, if it is damaged.
    """
    try:
        yield
    except DAMAGES as error:
        raise ValueError(
            f"{str(path)!r} must be the file that its authors made. Got one that is damaged: "
            f"{error}. Replace it."
        ) from error


def read_archive(name: str, data_home: PathLike | None, keys: Iterable[str]) -> dict[str, Any]:
    """Read the arrays of ``<name>.npz``, and its path as ``"filename"``.

    Raises
    ------
    FileNotFoundError
        If the folder holds no such file.
    ValueError
        If the file is damaged, or lacks one of the keys.
    """
    path = path_of(f"{name}.npz", data_home)
    arrays = load_arrays(path)
    missing = sorted(set(keys) - set(arrays))
    if missing:
        raise ValueError(
            f"{path.name} must hold the arrays {sorted(keys)}. {str(path)!r} lacks {missing}. "
            "It may be another file of that name: replace it."
        )
    return arrays | {"filename": str(path)}


def load_arrays(path: Path) -> dict[str, Any]:
    """Return the arrays of an ``.npz`` file by name; ValueError if it is damaged."""
    with whole(path), np.load(path, allow_pickle=False) as file:
        return dict(file)


def names(array: NDArray[np.str_]) -> list[str]:
    """Return an array of strings as a list."""
    return [str(name) for name in array]


def rows_of(bunch: Any, subset: str) -> tuple[Any, Any]:
    """Return data and target of the training rows, or of another subset."""
    suffix = "" if subset == "train" else f"_{subset}"
    return bunch[f"data{suffix}"], bunch[f"target{suffix}"]


def local_root(root: PathLike, *parts: str) -> Path:
    """Return the folder of a data set, which must have these files and folders.

    Raises
    ------
    FileNotFoundError
        If the folder or one of its parts does not exist.
    """
    folder = existing_folder(root)
    missing = [part for part in parts if not (folder / part).exists()]
    if missing:
        raise FileNotFoundError(
            f"The folder must hold {', '.join(parts)}. Got {str(folder)!r} without "
            f"{', '.join(missing)}. Pass the folder that the authors' archive unpacks to; nothing "
            "is downloaded."
        )
    return folder


def read_lines(path: Path) -> list[str]:
    """Return the non-blank lines of a text file, stripped of white space."""
    with whole(path), path.open(encoding="utf-8") as file:
        return [stripped for line in file if (stripped := line.strip())]


def read_labels(path: Path) -> list[tuple[str, int]]:
    """Read lines that hold a file name and a label.

    Raises
    ------
    ValueError
        If a line is anything else.
    """
    found = []
    for number, line in enumerate(read_lines(path), 1):
        name, _, label = line.rpartition(" ")
        if not name or not label.isdecimal():
            raise ValueError(
                f"Each line of {path.name} must be a file name, a space and a label. Got {line!r} "
                f"as line {number} of {str(path)!r}. Replace the file by the authors'."
            )
        found.append((name.strip(), int(label)))
    return found
