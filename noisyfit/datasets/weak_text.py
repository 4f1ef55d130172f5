"""Short texts labelled by rules."""

from __future__ import annotations

import inspect
from typing import Any

from sklearn.utils import Bunch

from noisyfit.datasets.files import PathLike, choose, names, read_archive, rows_of

SETS = ("trec", "youtube_spam", "hausa_news")
SUBSETS = ("train", "valid", "test")


def load_weak_text(
    name: str = "trec",
    labels: str = "majority",
    *,
    subset: str = "train",
    data_home: PathLike | None = None,
    return_X_y: bool = False,
) -> Any:
    """Load texts labelled by hand-written rules instead of people.

    ================  =======  =============  =====  =======  ===========
    name              classes  rows           rules  covered  wrong there
    ================  =======  =============  =====  =======  ===========
    ``trec``          6        5,033          68     95.2 %   45.8 %
    ``youtube_spam``  2        1,586          10     87.7 %   13.0 %
    ``hausa_news``    5        2,045          5      99.1 %   50.4 %
    ================  =======  =============  =====  =======  ===========

    Rows on which all rules abstain have the label -1: pass ``missing_label=-1`` to the estimator.

    Parameters
    ----------
    name : {"trec", "youtube_spam", "hausa_news"}, default="trec"
        Questions by kind of answer [1]_, comments that are spam or not [2]_, or headlines in Hausa
        by topic [3]_.
    labels : {"majority", "clean"}, default="majority"
        Majority of the rules, with ties drawn at random and fixed, or the true classes.
    subset : {"train", "valid", "test"}, default="train"
        Rows returned with ``return_X_y``. The Bunch holds all.
    data_home : str, path or None, default=None
        Folder with ``<name>_weak.npz``. None: the folder named by ``NOISYFIT_DATA``.
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    Bunch or tuple
        - ``data`` : ndarray of float32, shape (n_samples, 128). TF-IDF of words and characters,
          reduced by a truncated SVD fitted on the training texts.
        - ``target``, ``target_clean`` : ndarray of int64, shape (n_samples,). The requested
          labels, and the true classes.
        - ``text`` : list of str
        - ``votes`` : ndarray of int8, shape (n_samples, n_rules). -1 where a rule abstains.
        - ``data_valid``, ``data_test``, ``text_valid``, ``text_test``, ``votes_valid``,
          ``votes_test`` : ndarray or list. The same for the other rows.
        - ``target_valid``, ``target_test`` : ndarray of int64. True classes.
        - ``target_noisy_valid``, ``target_noisy_test`` : ndarray of int64. Majority of the rules.
        - ``target_names`` : list of str
        - ``DESCR``, ``filename`` : str

    Raises
    ------
    ValueError
        If the set is unknown, or no folder is named.
    FileNotFoundError
        If the folder holds no such file.

    Notes
    -----
    The first two are those of the WRENCH benchmark (Apache-2.0). The comments are CC BY 4.0 as far
    as known; they are unedited and may contain links. The headlines come without a licence file. In
    ``youtube_spam`` 6 test texts also occur in the training set.

    References
    ----------
    .. [1] Li and Roth. Learning question classifiers. COLING, 2002. Rules: Awasthi, Ghosh, Goyal
       and Sarawagi. Learning from rules generalizing labeled exemplars. ICLR, 2020.
    .. [2] Alberto, Lochter and Almeida. TubeSpam: comment spam filtering on YouTube. ICMLA, 2015.
    .. [3] Hedderich, Adelani, Zhu, Alabi, Markus and Klakow. Transfer learning and distant
       supervision for multilingual transformer models: a study on African languages. EMNLP, 2020.
    """
    choose("name", name, SETS)
    choose("labels", labels, ("majority", "clean"))
    choose("subset", subset, SUBSETS)
    arrays = ("text", "X", "y", "weak", "y_noisy")
    keys = ["class_names", *(f"{array}_{split}" for array in arrays for split in SUBSETS)]
    file = read_archive(f"{name}_weak", data_home, keys)
    bunch = Bunch(
        target=file["y_noisy_train" if labels == "majority" else "y_train"],
        target_clean=file["y_train"],
        target_names=names(file["class_names"]),
        DESCR=inspect.getdoc(load_weak_text),
        filename=file["filename"],
    )
    for split in SUBSETS:
        suffix = "" if split == "train" else f"_{split}"
        bunch[f"data{suffix}"] = file[f"X_{split}"]
        bunch[f"text{suffix}"] = names(file[f"text_{split}"])
        bunch[f"votes{suffix}"] = file[f"weak_{split}"]
        if split != "train":
            bunch[f"target_{split}"] = file[f"y_{split}"]
            bunch[f"target_noisy_{split}"] = file[f"y_noisy_{split}"]
    return rows_of(bunch, subset) if return_X_y else bunch
