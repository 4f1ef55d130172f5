"""Which labels look wrong to all finalists, also to those that have learned from them.

A classifier that has not seen a label judges it without bias, but knows a third of the rows less. A
method made for wrong labels rates those that it learns from as well, and better where rows are few.
An average of ranks takes both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from noisyfit.selection.race import Candidate

SAY_OF_THE_SEEING = 3 / 4  # of four classifiers of three folds and all rows, three have seen a row


def in_agreed_order(
    quality: NDArray[np.float64], rows: NDArray[np.bool_], finalists: Sequence[Candidate]
) -> NDArray[np.float64]:
    """Return the values of a rating, given to rows in the order of an average of ranks.

    Parameters
    ----------
    quality : ndarray of shape (n_samples,)
        By classifiers that have not seen the row.
    rows : ndarray of bool of shape (n_samples,)
        The rows among which values change their place.
    finalists : sequence of Candidate
        Those whose classifiers have a ``label_quality_`` have a say.
    """
    unseen, seeing = _ranks(quality), _mean_rank(len(quality), finalists)
    share = np.where(np.isnan(seeing), 0.0, SAY_OF_THE_SEEING)
    order = (1 - share) * unseen + share * np.nan_to_num(seeing)
    agreed = quality.copy()
    agreed[np.flatnonzero(rows)[order[rows].argsort(kind="stable")]] = np.sort(quality[rows])
    return agreed


def _mean_rank(n: int, finalists: Sequence[Candidate]) -> NDArray[np.float64]:
    """Return the mean rank of each row in the fits that have learned from it, NaN without one."""
    total, count = np.zeros(n), np.zeros(n)
    for part in (part for candidate in finalists for part in candidate.parts):
        own = getattr(part.classifier, "label_quality_", None)
        if own is not None:
            total[part.seen] += _ranks(own)
            count[part.seen] += 1
    return np.divide(total, count, out=np.full(n, np.nan), where=count > 0)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map to (0, 1] by rank, NaN to NaN."""
    return rankdata(values, nan_policy="omit") / max(1, np.count_nonzero(~np.isnan(values)))
