"""CIFAR-10 and CIFAR-100 through torchvision, optionally with human labels (CIFAR-N)."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import Bunch

from noisyfit.datasets.files import PathLike, choose, data_folder, load_arrays
from noisyfit.utils.parameters import check_parameters

ORIGIN = "github.com/UCSC-REAL/cifar-10-100n, folder data"
CIFAR10_KEYS = {
    "clean": "clean_label",
    "aggre": "aggre_label",
    "worst": "worse_label",
    "random1": "random_label1",
    "random2": "random_label2",
    "random3": "random_label3",
}
CIFAR100_KEYS = {"clean": "clean_label", "noisy": "noisy_label"}


def fetch_cifar10(
    labels: str = "clean",
    *,
    label_file: PathLike | None = None,
    data_home: PathLike | None = None,
    download: bool = False,
    return_X_y: bool = False,
) -> Any:
    """Fetch CIFAR-10, optionally with human labels (CIFAR-10N).

    50,000 training and 10,000 test images of ten classes, in torchvision's order. The file of
    CIFAR-10N labels also has the true classes. It is checked that these equal torchvision's,
    because a file in another order would look like noise.

    Parameters
    ----------
    labels : {"clean", "aggre", "worst", "random1", "random2", "random3"}, default="clean"
        Training labels. All but ``"clean"`` are read from ``label_file``; see `load_cifar10n`.
    label_file : str, path or None, default=None
        The authors' ``CIFAR-10_human.pt``, or an ``.npz`` of the same arrays. None: look for it in
        ``data_home``. It is never downloaded.
    data_home : str, path or None, default=None
        Folder with ``cifar-10-batches-py``. None: the folder named by ``NOISYFIT_DATA``.
    download : bool, default=False
        Let torchvision download what is missing: 170 MB.
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    Bunch or tuple
        - ``data`` : ndarray of uint8, shape (50000, 32, 32, 3)
        - ``target``, ``target_clean`` : ndarray of int64, shape (50000,). The requested labels,
          and the true classes.
        - ``data_test`` : ndarray of uint8, shape (10000, 32, 32, 3)
        - ``target_test`` : ndarray of int64, shape (10000,)
        - ``target_names`` : list of str
        - ``DESCR`` : str

    Raises
    ------
    ValueError
        If the set of labels is unknown, no folder is named, or the file of labels is in another
        order.
    FileNotFoundError
        If images or labels are missing and ``download`` is False.

    Notes
    -----
    The labels of CIFAR-10N may not be used commercially (CC BY-NC 4.0). Their file is a pickle; no
    code in it is run.

    References
    ----------
    .. [1] Krizhevsky. Learning multiple layers of features from tiny images. University of Toronto,
       2009.
    .. [2] Wei, Zhu, Cheng, Liu, Niu and Liu. Learning with noisy labels revisited: a study using
       real-world human annotations. ICLR, 2022.

    Examples
    --------
    >>> cifar = fetch_cifar10("worst", data_home="data", download=True)  # doctest: +SKIP
    """
    choose("labels", labels, CIFAR10_KEYS)
    bunch = _images("CIFAR10", data_home, download)
    bunch.DESCR = inspect.getdoc(fetch_cifar10)
    if labels != "clean":
        path = label_file or data_folder(data_home) / "CIFAR-10_human.pt"
        bunch.target = _human_labels(Path(path), CIFAR10_KEYS[labels], bunch.target_clean)
    return (bunch.data, bunch.target) if return_X_y else bunch


def fetch_cifar100(
    labels: str = "clean",
    *,
    label_file: PathLike | None = None,
    data_home: PathLike | None = None,
    download: bool = False,
    return_X_y: bool = False,
) -> Any:
    """Fetch CIFAR-100, optionally with human labels (CIFAR-100N).

    50,000 training and 10,000 test images of a hundred classes, in torchvision's order; see
    `fetch_cifar10`. In CIFAR-100N each image has one label from one person, and 40.2 % are wrong.

    Parameters
    ----------
    labels : {"clean", "noisy"}, default="clean"
        Training labels; ``"noisy"`` is read from ``label_file``.
    label_file : str, path or None, default=None
        The authors' ``CIFAR-100_human.pt``, or an ``.npz`` of the same arrays. None: look for it in
        ``data_home``. It is never downloaded.
    data_home : str, path or None, default=None
        Folder with ``cifar-100-python``. None: the folder named by ``NOISYFIT_DATA``.
    download : bool, default=False
        Let torchvision download what is missing: 170 MB.
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    Bunch or tuple
        - ``data`` : ndarray of uint8, shape (50000, 32, 32, 3)
        - ``target``, ``target_clean`` : ndarray of int64, shape (50000,). The requested labels,
          and the true classes.
        - ``data_test`` : ndarray of uint8, shape (10000, 32, 32, 3)
        - ``target_test`` : ndarray of int64, shape (10000,)
        - ``target_names`` : list of str
        - ``DESCR`` : str

    Raises
    ------
    ValueError
        If the set of labels is unknown, no folder is named, or the file of labels is in another
        order.
    FileNotFoundError
        If images or labels are missing and ``download`` is False.

    Notes
    -----
    The labels of CIFAR-100N may not be used commercially (CC BY-NC 4.0).

    References
    ----------
    .. [1] Krizhevsky. Learning multiple layers of features from tiny images. University of Toronto,
       2009.
    .. [2] Wei, Zhu, Cheng, Liu, Niu and Liu. Learning with noisy labels revisited: a study using
       real-world human annotations. ICLR, 2022.
    """
    choose("labels", labels, CIFAR100_KEYS)
    bunch = _images("CIFAR100", data_home, download)
    bunch.DESCR = inspect.getdoc(fetch_cifar100)
    if labels != "clean":
        path = label_file or data_folder(data_home) / "CIFAR-100_human.pt"
        bunch.target = _human_labels(Path(path), CIFAR100_KEYS[labels], bunch.target_clean)
    return (bunch.data, bunch.target) if return_X_y else bunch


def _images(name: str, data_home: PathLike | None, download: bool) -> Any:
    """Return images and true classes from torchvision, which checks the files' checksums."""
    from torchvision import datasets

    check_parameters({"download": ["boolean"]}, {"download": download}, f"fetch_{name.lower()}")
    kind, root = getattr(datasets, name), data_folder(data_home)
    try:
        train, test = (kind(root, train=part, download=download) for part in (True, False))
    except RuntimeError as error:
        if download:
            raise
        raise FileNotFoundError(
            f"The folder must hold {kind.base_folder}, as torchvision unpacks it. Got {str(root)!r}"
            f", where it is missing or damaged. Put {kind.filename} there, unpacked, or pass "
            "download=True."
        ) from error
    return Bunch(
        data=train.data,
        target=np.asarray(train.targets, dtype=np.int64),
        target_clean=np.asarray(train.targets, dtype=np.int64),
        data_test=test.data,
        target_test=np.asarray(test.targets, dtype=np.int64),
        target_names=list(train.classes),
    )


def _human_labels(path: Path, key: str, clean: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a set of labels whose file has the true classes in the order of ``clean``."""
    path = path.expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"The labels that people gave must be in a file. Got none at {str(path)!r}. Take "
            f"CIFAR-10_human.pt or CIFAR-100_human.pt from {ORIGIN}, and pass its path as "
            "label_file."
        )
    arrays = _read_arrays(path)
    missing = sorted({key, "clean_label"} - set(arrays))
    if missing:
        raise ValueError(
            f"The file must hold {key!r} and 'clean_label'. {str(path)!r} holds {sorted(arrays)}. "
            f"Take the file of the same data set from {ORIGIN}."
        )
    stored, labels = (np.asarray(arrays[k], dtype=np.int64).ravel() for k in ("clean_label", key))
    if len(stored) != len(clean) or len(labels) != len(clean):
        raise ValueError(
            f"The file must label {len(clean)} images. {str(path)!r} labels {len(labels)}. Take "
            f"the file of the same data set from {ORIGIN}."
        )
    differ = np.flatnonzero(stored != clean)
    if len(differ):
        raise ValueError(
            "The true classes in the file of labels must be those of torchvision, in its order. "
            f"{str(path)!r} differs in {len(differ)} of {len(clean)} rows, first in row "
            f"{differ[0]}. The '_ordered' files of CIFAR-N follow TensorFlow's order: take the .pt "
            f"file from {ORIGIN}."
        )
    return labels


def _read_arrays(path: Path) -> Mapping[str, Any]:
    """Read arrays by name, refusing pickles that would run code."""
    if path.suffix == ".npz":
        return load_arrays(path)
    if path.suffix != ".pt":
        raise ValueError(
            f"label_file must be a .pt or .npz file. Got {str(path)!r}. Take the .pt file from "
            f"{ORIGIN}; the .npy files are in another order."
        )
    import torch

    rebuild = np._core.multiarray._reconstruct  # type: ignore[attr-defined]
    safe: list[Any] = [
        (rebuild, "numpy.core.multiarray._reconstruct"),  # as NumPy 1 wrote it
        (rebuild, "numpy._core.multiarray._reconstruct"),
        *(np.ndarray, np.dtype, np.dtypes.Int64DType, np.dtypes.Int32DType),
    ]
    try:
        with torch.serialization.safe_globals(safe):
            return dict(torch.load(path, map_location="cpu", weights_only=True))
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise ValueError(
            f"A file of labels must hold arrays only. {str(path)!r} holds something else: {error}. "
            f"Take the file from {ORIGIN}, or save its arrays with numpy.savez."
        ) from error
