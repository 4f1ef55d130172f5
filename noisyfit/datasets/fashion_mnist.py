"""Fashion-MNIST: clean labels to simulate noise on."""

from __future__ import annotations

import inspect
from typing import Any

from sklearn.utils import Bunch

from noisyfit.datasets.files import PathLike, choose, names, read_archive, rows_of

KEYS = ("x_train", "y_train", "x_test", "y_test", "class_names")


def load_fashion_mnist(
    *, subset: str = "train", data_home: PathLike | None = None, return_X_y: bool = False
) -> Any:
    """Load Fashion-MNIST, whose labels are clean: add noise with `noisyfit.noise`.

    60,000 training and 10,000 test images of ten kinds of clothes, equally many of each.

    Parameters
    ----------
    subset : {"train", "test"}, default="train"
        Rows returned with ``return_X_y``. The Bunch holds both.
    data_home : str, path or None, default=None
        Folder with ``fashion_mnist.npz``. None: the folder named by ``NOISYFIT_DATA``.
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    Bunch or tuple
        - ``data`` : ndarray of uint8, shape (60000, 28, 28)
        - ``target``, ``target_clean`` : ndarray of int64, shape (60000,). Identical.
        - ``data_test`` : ndarray of uint8, shape (10000, 28, 28)
        - ``target_test`` : ndarray of int64, shape (10000,)
        - ``target_names`` : list of str
        - ``DESCR``, ``filename`` : str

    Raises
    ------
    ValueError
        If ``subset`` is unknown, or no folder is named.
    FileNotFoundError
        If the folder holds no ``fashion_mnist.npz``.

    Notes
    -----
    Licence: MIT. The images are identical to those of the official files, byte for byte.

    References
    ----------
    .. [1] Xiao, Rasul and Vollgraf. Fashion-MNIST: a novel image dataset for benchmarking machine
       learning algorithms. arXiv:1708.07747, 2017.
    """
    choose("subset", subset, ("train", "test"))
    file = read_archive("fashion_mnist", data_home, KEYS)
    bunch = Bunch(
        data=file["x_train"],
        target=file["y_train"],
        target_clean=file["y_train"].copy(),
        data_test=file["x_test"],
        target_test=file["y_test"],
        target_names=names(file["class_names"]),
        DESCR=inspect.getdoc(load_fashion_mnist),
        filename=file["filename"],
    )
    return rows_of(bunch, subset) if return_X_y else bunch
