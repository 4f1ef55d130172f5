"""CIFAR-10N: photographs labelled by people."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from noisyfit.datasets.files import PathLike, choose, names, read_archive, rows_of

LABELS = ("worst", "aggre", "random1", "random2", "random3", "clean")
KEYS = (
    *("x_train", "x_test", "y_test", "train_index", "test_index", "test_human_counts"),
    *("class_names", *(f"y_{name}" for name in LABELS)),
)


def load_cifar10n(
    labels: str = "worst",
    *,
    features: bool = False,
    subset: str = "train",
    data_home: PathLike | None = None,
    return_X_y: bool = False,
) -> Any:
    """Load half of CIFAR-10 with human labels (CIFAR-10N).

    Three people labelled each training image [1]_. The classes are balanced: 2,500 training images
    each. All 50,000 images are available with `fetch_cifar10`.

    ===========================  =========================
    labels wrong in ``target``   worst 40.6 %, aggre 9.1 %, random1-3 17.3 / 18.3 / 18.0 %
    rows                         25,000 to train, 5,000 to test
    images                       32 x 32 pixels, colour
    classes                      10
    ===========================  =========================

    Parameters
    ----------
    labels : {"worst", "aggre", "random1", "random2", "random3", "clean"}, default="worst"
        ``"random1"`` to ``"random3"`` are the votes of the three people, ``"aggre"`` is their
        majority, and ``"worst"`` is a wrong vote if there is one.
    features : bool, default=False
        Whether rows are what a pretrained network, EfficientNet-Lite0, sees in the first 10,000
        training images and all test images, and not the images themselves.
    subset : {"train", "test"}, default="train"
        Rows returned with ``return_X_y``. The Bunch holds both.
    data_home : str, path or None, default=None
        Folder with ``cifar10n.npz`` and, with ``features``, ``cifar10n_features.npz``. None: the
        folder named by ``NOISYFIT_DATA``.
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    Bunch or tuple
        - ``data`` : ndarray of uint8, shape (25000, 32, 32, 3), or of float32, shape (10000, 1280).
          Training images, or their features.
        - ``target``, ``target_clean`` : ndarray of int64, shape (25000,). The requested labels,
          and the true classes.
        - ``label_sets`` : dict of ndarray. All six sets of labels by name.
        - ``index``, ``index_test`` : ndarray of int64. Positions of the rows in CIFAR-10.
        - ``data_test`` : ndarray of uint8, shape (5000, 32, 32, 3), or of float32, (5000, 1280)
        - ``target_test`` : ndarray of int64, shape (5000,). True classes.
        - ``votes_test`` : ndarray of int64, shape (5000, 10). How many of about 51 people chose
          each class (CIFAR-10H [2]_).
        - ``target_names`` : list of str
        - ``DESCR``, ``filename`` : str

    Raises
    ------
    ValueError
        If the set of labels or rows is unknown, or no folder is named.
    FileNotFoundError
        If the folder does not hold the files.

    Notes
    -----
    Labels: CC BY-NC 4.0; votes on test images: CC BY-NC-SA 4.0. Neither may be used commercially.
    The images (Krizhevsky, 2009) are decoded from JPEG copies and differ slightly from the
    originals, so published accuracies may not be matched to the last tenth.

    References
    ----------
    .. [1] Wei, Zhu, Cheng, Liu, Niu and Liu. Learning with noisy labels revisited: a study using
       real-world human annotations. ICLR, 2022.
    .. [2] Peterson, Battleday, Griffiths and Russakovsky. Human uncertainty makes classification
       more robust. ICCV, 2019.

    Examples
    --------
    >>> X, y = load_cifar10n("aggre", return_X_y=True)  # doctest: +SKIP
    """
    choose("labels", labels, LABELS)
    choose("subset", subset, ("train", "test"))
    file = read_archive("cifar10n", data_home, KEYS)
    X, X_test = file["x_train"], file["x_test"]
    if features:
        seen = read_archive("cifar10n_features", data_home, ("X_train", "X_test"))
        X, X_test = seen["X_train"].astype(np.float32), seen["X_test"].astype(np.float32)
    label_sets = {name: file[f"y_{name}"][: len(X)] for name in LABELS}
    bunch = Bunch(
        data=X,
        target=label_sets[labels],
        target_clean=label_sets["clean"],
        label_sets=label_sets,
        index=file["train_index"][: len(X)],
        data_test=X_test,
        target_test=file["y_test"],
        index_test=file["test_index"],
        votes_test=file["test_human_counts"],
        target_names=names(file["class_names"]),
        DESCR=inspect.getdoc(load_cifar10n),
        filename=file["filename"],
    )
    return rows_of(bunch, subset) if return_X_y else bunch
