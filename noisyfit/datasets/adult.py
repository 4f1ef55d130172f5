"""Adult census: a mixed table with clean labels to simulate noise on."""

from __future__ import annotations

import inspect
from typing import Any

from sklearn.utils import Bunch

from noisyfit.datasets.files import PathLike, choose, names, read_archive, rows_of
from noisyfit.datasets.tables import column_names, side_by_side

KEYS = (
    *("X_num_train", "X_cat_train", "y_train", "X_num_test", "X_cat_test", "y_test"),
    *("num_names", "cat_names"),
)


def load_adult(
    categories: str = "onehot",
    *,
    subset: str = "train",
    data_home: PathLike | None = None,
    return_X_y: bool = False,
) -> Any:
    """Load the Adult census data; add noise to its labels with `noisyfit.noise`.

    32,561 training and 16,281 test rows, 6 columns of numbers and 8 of categories. Class 1, an
    income over 50,000 dollars, has 24.1 % of the training and 23.6 % of the test rows.

    Parameters
    ----------
    categories : {"onehot", "codes", "drop"}, default="onehot"
        One 0/1 column for each level (108 columns in all), one column of codes for each variable
        (14 in all), or numbers only (6).
    subset : {"train", "test"}, default="train"
        Rows returned with ``return_X_y``. The Bunch holds both.
    data_home : str, path or None, default=None
        Folder with ``adult_census.npz``. None: the folder named by ``NOISYFIT_DATA``.
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    Bunch or tuple
        - ``data`` : ndarray of float32, shape (32561, n_features). Numbers first.
        - ``target``, ``target_clean`` : ndarray of int64, shape (32561,). Identical.
        - ``data_test`` : ndarray of float32, shape (16281, n_features)
        - ``target_test`` : ndarray of int64, shape (16281,)
        - ``feature_names`` : list of str. Such as ``"age"`` and ``"sex=Female"``.
        - ``levels`` : dict of list of str. Text of each code by variable; ``"?"`` is unknown.
        - ``target_names`` : list of str
        - ``DESCR``, ``filename`` : str

    Raises
    ------
    ValueError
        If a name is unknown, or no folder is named.
    FileNotFoundError
        If the folder holds no ``adult_census.npz``.

    Notes
    -----
    Licence: CC BY 4.0 as far as known (UCI Machine Learning Repository).

    References
    ----------
    .. [1] Kohavi. Scaling up the accuracy of naive-Bayes classifiers: a decision-tree hybrid. KDD,
       1996.
    """
    choose("categories", categories, ("onehot", "codes", "drop"))
    choose("subset", subset, ("train", "test"))
    file = read_archive("adult_census", data_home, KEYS)
    levels = {name: names(file[f"levels_{name}"]) for name in names(file["cat_names"])}
    n_levels = [len(texts) for texts in levels.values()]
    bunch = Bunch(
        data=side_by_side(file["X_num_train"], file["X_cat_train"], n_levels, categories),
        target=file["y_train"],
        target_clean=file["y_train"].copy(),
        data_test=side_by_side(file["X_num_test"], file["X_cat_test"], n_levels, categories),
        target_test=file["y_test"],
        feature_names=column_names(names(file["num_names"]), levels, categories),
        levels=levels,
        target_names=["<=50K", ">50K"],
        DESCR=inspect.getdoc(load_adult),
        filename=file["filename"],
    )
    return rows_of(bunch, subset) if return_X_y else bunch
