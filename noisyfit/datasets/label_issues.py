"""Label errors of well-known test sets, confirmed by people."""

from __future__ import annotations

import inspect
from typing import Any

from sklearn.utils import Bunch

from noisyfit.datasets.files import PathLike, choose, names, read_archive

SETS = ("cifar10", "20news")
KEYS = (
    *("pred_probs", "given_label", "reviewed_index", "reviewed_guess", "reviewed_votes"),
    *("vote_names", "reviewed_is_error"),
)


def load_label_issues(name: str = "cifar10", *, data_home: PathLike | None = None) -> Any:
    """Load test labels, predicted probabilities, and the labels that people found wrong.

    Five people each reviewed the labels that a model doubted. A label is an error if fewer than
    three of them chose it alone; a vote for both the given label and the model's guess does not
    count for it. If such votes counted, 21 and 42 errors would be left. Labels that the model did
    not doubt were not reviewed.

    ============  =======  =====  ========  ======
    name          classes  rows   reviewed  errors
    ============  =======  =====  ========  ======
    ``cifar10``   10       5,000  159       32
    ``20news``    20       7,532  93        82
    ============  =======  =====  ========  ======

    Parameters
    ----------
    name : {"cifar10", "20news"}, default="cifar10"
        The first half of CIFAR-10's test set, row for row the test images of `load_cifar10n`, or
        the test set of 20 Newsgroups, without its texts.
    data_home : str, path or None, default=None
        Folder with ``label_issues_<name>_test.npz``. None: the folder named by ``NOISYFIT_DATA``.

    Returns
    -------
    Bunch
        - ``pred_probs`` : ndarray of float32, shape (n_samples, n_classes). Predicted out of
          sample, by cross-validation.
        - ``target`` : ndarray of int64, shape (n_samples,). Given labels.
        - ``reviewed`` : ndarray of int64, shape (n_reviewed,). Rows that people reviewed.
        - ``is_error`` : ndarray of bool, shape (n_reviewed,). Whether the given label is wrong.
        - ``guess`` : ndarray of int64, shape (n_reviewed,). Class that the model suggested.
        - ``votes`` : ndarray of int64, shape (n_reviewed, 4). Votes of five people, in the order
          of ``vote_names``.
        - ``vote_names`` : list of str. ``"both"``, ``"given"``, ``"guessed"``, ``"neither"``.
        - ``DESCR``, ``filename`` : str

    Raises
    ------
    ValueError
        If the set is unknown, or no folder is named.
    FileNotFoundError
        If the folder holds no such file.

    Notes
    -----
    Licence: Apache-2.0; the rights in the given labels stay with their owners.

    References
    ----------
    .. [1] Northcutt, Athalye and Mueller. Pervasive label errors in test sets destabilize machine
       learning benchmarks. NeurIPS Datasets and Benchmarks, 2021.
    """
    choose("name", name, SETS)
    file = read_archive(f"label_issues_{name}_test", data_home, KEYS)
    return Bunch(
        pred_probs=file["pred_probs"],
        target=file["given_label"],
        reviewed=file["reviewed_index"],
        is_error=file["reviewed_is_error"],
        guess=file["reviewed_guess"],
        votes=file["reviewed_votes"],
        vote_names=names(file["vote_names"]),
        DESCR=inspect.getdoc(load_label_issues),
        filename=file["filename"],
    )
