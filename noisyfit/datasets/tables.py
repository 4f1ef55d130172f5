"""Sixteen real tables with clean labels to simulate noise on."""

from __future__ import annotations

import csv
import inspect
import io
from typing import Any
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import Bunch

from noisyfit.datasets.files import PathLike, choose, path_of, whole

TABLES = (
    *("contraceptive", "crx", "german", "led7digit", "magic", "movement_libras", "mushroom"),
    *("phoneme", "ring", "satimage", "segment", "spambase", "splice", "texture", "vehicle"),
    "vowel",
)


def load_table(
    name: str,
    *,
    categories: str = "onehot",
    data_home: PathLike | None = None,
    return_X_y: bool = False,
) -> Any:
    """Load a table of the KEEL repository; add noise to its labels with `noisyfit.noise`.

    Parameters
    ----------
    name : str
        One of contraceptive, crx, german, led7digit, magic, movement_libras, mushroom, phoneme,
        ring, satimage, segment, spambase, splice, texture, vehicle and vowel.
    categories : {"onehot", "codes", "drop"}, default="onehot"
        One 0/1 column for each level of each text variable, one column of codes for each such
        variable, or numbers only.
    data_home : str, path or None, default=None
        Folder with ``tables.zip``. None: the folder named by ``NOISYFIT_DATA``.
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    Bunch or tuple
        - ``data`` : ndarray of float32, shape (n_samples, n_features). Numbers first.
        - ``target`` : ndarray of int64, shape (n_samples,)
        - ``feature_names``, ``target_names`` : list of str. Such as ``"A1"`` and ``"A2=b"``.
        - ``levels`` : dict of list of str. Text of each code by variable.
        - ``DESCR``, ``filename`` : str

    Raises
    ------
    ValueError
        If a name is unknown, or no folder is named.
    FileNotFoundError
        If the folder holds no ``tables.zip``, or the archive lacks the table.

    Notes
    -----
    Most tables come from the UCI Machine Learning Repository. They have no test set.

    References
    ----------
    .. [1] Alcala-Fdez et al. KEEL Data-Mining Software Tool: Data Set Repository. Journal of
       Multiple-Valued Logic and Soft Computing, 2011.
    """
    choose("name", name, TABLES)
    choose("categories", categories, ("onehot", "codes", "drop"))
    path = path_of("tables.zip", data_home)
    with whole(path), ZipFile(path) as archive:
        if f"{name}.csv" not in archive.namelist():
            raise FileNotFoundError(
                f"{str(path)!r} must hold {name}.csv. Got {sorted(archive.namelist())}. It may be "
                "another archive of that name: replace it."
            )
        text = io.TextIOWrapper(archive.open(f"{name}.csv"), encoding="utf-8", newline="")
        header, *rows = csv.reader(text)
        columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    target_names, target = np.unique(columns.pop("class"), return_inverse=True)
    numbers = {key: values for key, values in columns.items() if _are_numbers(values)}
    coded = {
        key: np.unique(values, return_inverse=True)
        for key, values in columns.items()
        if key not in numbers
    }
    levels = {key: texts.tolist() for key, (texts, _) in coded.items()}
    data = side_by_side(
        np.array(list(numbers.values()), np.float32).reshape(-1, len(target)).T,
        np.array([codes for _, codes in coded.values()], np.int64).reshape(-1, len(target)).T,
        [len(texts) for texts in levels.values()],
        categories,
    )
    bunch = Bunch(
        data=data,
        target=target.astype(np.int64),
        feature_names=column_names(list(numbers), levels, categories),
        target_names=target_names.tolist(),
        levels=levels,
        DESCR=inspect.getdoc(load_table),
        filename=str(path),
    )
    return (bunch.data, bunch.target) if return_X_y else bunch


def _are_numbers(values: tuple[str, ...]) -> bool:
    try:
        [float(value) for value in values]
    except ValueError:
        return False
    return True


def side_by_side(
    numbers: NDArray[np.float32], codes: NDArray[np.int64], n_levels: list[int], categories: str
) -> NDArray[np.float32]:
    """Return numbers and categories in one table, coded as requested."""
    parts = [numbers] if numbers.size else []
    if categories == "codes":
        parts.append(codes.astype(np.float32))
    elif categories == "onehot":
        parts += [np.eye(n, dtype=np.float32)[codes[:, j]] for j, n in enumerate(n_levels)]
    return np.hstack(parts) if parts else np.empty((len(codes), 0), np.float32)


def column_names(numbers: list[str], levels: dict[str, list[str]], categories: str) -> list[str]:
    """Return the names of the columns of `side_by_side`."""
    if categories == "codes":
        return [*numbers, *levels]
    if categories == "onehot":
        return numbers + [f"{name}={level}" for name in levels for level in levels[name]]
    return numbers
