"""What is known of labels before an audit: which there are none of, and which are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from noisyfit.auditing import decisions
from noisyfit.auditing.decisions import ACCEPT, KEEP, OTHER

if TYPE_CHECKING:
    import pandas as pd

YES, NO = {"1", "1.0", "true", "yes", "y", "t"}, {"0", "0.0", "false", "no", "n", "f", ""}


def without(y: pd.Series, missing: Sequence[str]) -> pd.Series:
    """Return labels, NaN instead of blanks and of those that mean that there is none."""
    written = y.astype(object).where(y.notna(), "").astype(str)
    return y.mask((written.str.strip() == "") | written.isin(missing))


def flags(column: pd.Series) -> NDArray[np.bool_]:
    """Read a column of yes and no.

    Raises
    ------
    ValueError
        If a value is neither.
    """
    said = column.astype(object).where(column.notna(), "").astype(str).str.strip().str.lower()
    strange = column[~said.isin(YES | NO)]
    if len(strange):
        raise ValueError(
            f"The column of trusted rows, {column.name!r}, must say yes or no: true, yes or 1, "
            f"and false, no, 0 or nothing. Got {strange.iloc[0]!r}. Name another column."
        )
    return said.isin(YES).to_numpy()


def named_rows(file: Path, index: pd.Index) -> NDArray[np.bool_]:
    """Read a file that names rows, one a line.

    Raises
    ------
    ValueError, OSError
        If there is no such file, or no such row.
    """
    if not file.is_file():
        raise FileNotFoundError(
            "--trusted must be a column of the data, or a file that names rows. Got "
            f"{str(file)!r}, which is neither."
        )
    text = file.read_text("utf-8-sig", errors="surrogateescape")
    named = {line.strip() for line in text.splitlines()} - {""}
    names = index.astype(str)
    unknown = sorted(named - {*names})
    if unknown:
        raise ValueError(
            f"{file} must name rows of the data, one a line, as the column row of labels.csv "
            f"does. Got {unknown[0]!r}, and {len(unknown)} that are not there. The first row is "
            f"{names[0]!r}."
        )
    return np.asarray(names.isin(named))


def decided(folder: Path, y: pd.Series) -> dict[Any, Any]:
    """Return the labels that people gave to rows or confirmed, by the name of the row."""
    standing = decisions.standing(decisions.read(folder / decisions.NAME))
    spelled: Mapping[str, Any] = {str(label): label for label in y.dropna().unique()}
    return {
        name: spelled[decision.label]
        for name in y.index.tolist()
        if (decision := standing.get(str(name))) and decision.decision in (KEEP, ACCEPT, OTHER)
    }
