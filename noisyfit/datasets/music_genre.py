"""Songs whose genre was named by paid workers."""

from __future__ import annotations

import inspect
from typing import Any

from sklearn.utils import Bunch

from noisyfit.datasets.files import PathLike, choose, names, read_archive, rows_of

LABELS = {"single": "y_single", "majority": "y_majority", "clean": "y_train"}
KEYS = (
    *("X_train", "X_test", "y_test", "annotations", "song_train", "song_test"),
    *("feature_names", "class_names", *LABELS.values()),
)


def load_music_genre(
    labels: str = "single",
    *,
    subset: str = "train",
    data_home: PathLike | None = None,
    return_X_y: bool = False,
) -> Any:
    """Load songs with the genres that Mechanical Turk workers heard in them.

    700 training and 300 test songs of ten genres. 44 workers cast 2,945 votes, 44.0 % of them
    wrong; a song has 1 to 7 (mean 4.2), a worker cast 2 to 368.

    Parameters
    ----------
    labels : {"single", "majority", "clean"}, default="single"
        One vote per song, drawn at random (45.3 % wrong), the majority (30.3 % wrong), or the true
        genre. Draws and ties are fixed.
    subset : {"train", "test"}, default="train"
        Rows returned with ``return_X_y``. The Bunch holds both.
    data_home : str, path or None, default=None
        Folder with ``music_genre_crowd.npz``. None: the folder named by ``NOISYFIT_DATA``.
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    Bunch or tuple
        - ``data`` : ndarray of float32, shape (700, 58). Features of the sound, not scaled.
        - ``target``, ``target_clean`` : ndarray of int64, shape (700,). The requested labels, and
          the true classes.
        - ``label_sets`` : dict of ndarray. All three sets of labels by name.
        - ``annotations`` : ndarray of int64, shape (700, 44). Vote of each worker, -1 without a
          vote.
        - ``data_test`` : ndarray of float32, shape (300, 58)
        - ``target_test`` : ndarray of int64, shape (300,)
        - ``song``, ``song_test``, ``feature_names``, ``target_names`` : list of str
        - ``DESCR``, ``filename`` : str

    Raises
    ------
    ValueError
        If the set of labels or rows is unknown, or no folder is named.
    FileNotFoundError
        If the folder holds no ``music_genre_crowd.npz``.

    Notes
    -----
    Votes: Apache-2.0. The features, computed from the recordings of GTZAN [2]_, come without a
    licence file. GTZAN has known duplicates: 6 test songs equal a training song.

    References
    ----------
    .. [1] Rodrigues, Pereira and Ribeiro. Learning from multiple annotators: distinguishing good
       from random labelers. Pattern Recognition Letters, 2013.
    .. [2] Tzanetakis and Cook. Musical genre classification of audio signals. IEEE Transactions on
       Speech and Audio Processing, 2002.
    """
    choose("labels", labels, LABELS)
    choose("subset", subset, ("train", "test"))
    file = read_archive("music_genre_crowd", data_home, KEYS)
    label_sets = {name: file[key] for name, key in LABELS.items()}
    bunch = Bunch(
        data=file["X_train"],
        target=label_sets[labels],
        target_clean=label_sets["clean"],
        label_sets=label_sets,
        annotations=file["annotations"],
        song=names(file["song_train"]),
        data_test=file["X_test"],
        target_test=file["y_test"],
        song_test=names(file["song_test"]),
        feature_names=names(file["feature_names"]),
        target_names=names(file["class_names"]),
        DESCR=inspect.getdoc(load_music_genre),
        filename=file["filename"],
    )
    return rows_of(bunch, subset) if return_X_y else bunch
