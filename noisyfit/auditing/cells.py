"""Cells of a table: how unusual one is among others, and how it reads."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from noisyfit.auditing.texts import shortened

if TYPE_CHECKING:
    import pandas as pd

MISSING = "missing"
LONGEST = 80  # characters of a cell
ORDERED = "iufmM"  # kinds of columns: numbers, durations, dates
HUGE = 1e15  # written with all its digits, a number is shorter than this


class Comparable:
    """Cells as numbers, whatever they hold.

    Parameters
    ----------
    frame : DataFrame of shape (n_rows, n_columns)

    Attributes
    ----------
    places : ndarray of shape (n_rows, n_columns)
        Ranks in columns with an order; in others, equal cells have equal numbers. NaN is missing.
    is_ordered : ndarray of shape (n_columns,)
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        columns = [frame.iloc[:, i] for i in range(frame.shape[1])]
        self.is_ordered = np.array([column.dtype.kind in ORDERED for column in columns], bool)
        self.places = np.empty(frame.shape)
        for i, column in enumerate(columns):
            self.places[:, i] = _ranks(column) if self.is_ordered[i] else _codes(column)

    def rarity(self, row: int, alike: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return how unusual the cells of a row are.

        Parameters
        ----------
        row : int
        alike : ndarray of shape (n_alike,)
            Rows to compare with.

        Returns
        -------
        ndarray of shape (n_columns,)
            In [0, 1]. The share of rows with another value; in columns with an order, how far from
            the median; of a missing cell, the share of rows that have a value.
        """
        cells, others = self.places[row], self.places[alike]
        n_present = (~np.isnan(others)).sum(0)
        below = (others < cells).sum(0) / np.maximum(n_present, 1)
        above = (others > cells).sum(0) / np.maximum(n_present, 1)
        unusual = np.where(self.is_ordered, abs(below - above), below + above)
        unusual[n_present == 0] = 1.0
        return np.where(np.isnan(cells), n_present / max(len(others), 1), unusual)


def readable(value: Any) -> str:
    """Return what a person reads of a cell."""
    import pandas as pd

    if pd.api.types.is_scalar(value) and pd.isna(value):
        return MISSING
    if isinstance(value, float | np.floating):
        return _number(float(value))
    text = str(value)
    if isinstance(value, datetime.datetime | datetime.timedelta):  # those of pandas as well
        text = text.removesuffix(" 00:00:00")
    return shortened(text, LONGEST)


def _ranks(column: pd.Series) -> NDArray[np.float64]:
    ranks: NDArray[np.float64] = column.rank().to_numpy(np.float64, na_value=np.nan)
    return ranks


def _codes(column: pd.Series) -> NDArray[np.float64]:
    try:
        codes = column.factorize()[0]
    except TypeError:  # lists and the like in cells
        codes = column.map(str, na_action="ignore").factorize()[0]
    return np.where(codes < 0, np.nan, codes)


def _number(value: float) -> str:
    """Return six digits, or all before the point and two after it."""
    whole = len(f"{abs(value):.0f}") if abs(value) < HUGE else 0
    return f"{value:.{max(6, whole + 2)}g}"
