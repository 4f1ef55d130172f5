"""Votes of paid workers on sentences of film reviews."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from noisyfit.datasets.files import PathLike, read_archive

KEYS = ("item", "worker", "label", "y", "item_id")


def load_sentiment_votes(*, data_home: PathLike | None = None) -> Any:
    """Load votes on whether sentences of film reviews are positive.

    27,746 votes of 203 workers on 4,999 sentences, 21.1 % of them wrong. For methods that aggregate
    votes: the sentences are not included, so there is no ``X``.

    Parameters
    ----------
    data_home : str, path or None, default=None
        Folder with ``sentiment_polarity_votes.npz``. None: the folder named by ``NOISYFIT_DATA``.

    Returns
    -------
    Bunch
        - ``item``, ``worker``, ``label`` : ndarray of int64, shape (27746,). One entry per vote.
        - ``annotations`` : ndarray of int8, shape (4999, 203). The same as a table, -1 without a
          vote.
        - ``target`` : ndarray of int64, shape (4999,). Majority of the votes, ties to class 1:
          11.8 % wrong.
        - ``target_clean`` : ndarray of int64, shape (4999,). True classes, 1 is positive.
        - ``item_id`` : ndarray of int64, shape (4999,). Number of each sentence in the original
          file.
        - ``target_names`` : list of str
        - ``DESCR``, ``filename`` : str

    Raises
    ------
    ValueError
        If no folder is named.
    FileNotFoundError
        If the folder holds no ``sentiment_polarity_votes.npz``.

    Notes
    -----
    Licence: Apache-2.0.

    References
    ----------
    .. [1] Rodrigues, Pereira and Ribeiro. Learning from multiple annotators: distinguishing good
       from random labelers. Pattern Recognition Letters, 2013.
    """
    file = read_archive("sentiment_polarity_votes", data_home, KEYS)
    item, worker, label = (file[key] for key in KEYS[:3])
    annotations = np.full((len(file["y"]), worker.max() + 1), -1, dtype=np.int8)
    annotations[item, worker] = label
    positive, negative = ((annotations == code).sum(axis=1) for code in (1, 0))
    return Bunch(
        item=item,
        worker=worker,
        label=label,
        annotations=annotations,
        target=(positive >= negative).astype(np.int64),
        target_clean=file["y"],
        item_id=file["item_id"],
        target_names=["negative", "positive"],
        DESCR=inspect.getdoc(load_sentiment_votes),
        filename=file["filename"],
    )
