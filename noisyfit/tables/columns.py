"""Which columns of a frame are rows, labels and names, and which teach nothing."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NamedTuple

from noisyfit.exceptions import warn
from noisyfit.utils.synonyms import did_you_mean

if TYPE_CHECKING:
    import pandas as pd

NAMED = 20  # columns in a message
LONGEST = 60  # characters of a name in a message
NESTED = (list, tuple, dict, set)
FEW = 20  # rows, below which values are distinct or in order by chance
IDENTIFIER = re.compile(
    r"(?i:(.*[\W_])?(id|uuid|guid)|index|row([ _]?(number|num|no))?|unnamed: \d+)|.*[a-z](Id|ID)"
)
KEY = re.compile(
    r"[A-Za-z#_-]+\d+(\.[A-Za-z]+)?|[0-9a-f]{16,}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
)


class Table(NamedTuple):
    """Rows with labels, and what they do not contain.

    Attributes
    ----------
    X : DataFrame of shape (n_samples, n_features)
        The columns to learn from, as they are in the file.
    y : Series of shape (n_samples,)
        Given labels, with the index of ``X``.
    left_out : dict of str
        Why a column is not in ``X``, by its name.
    """

    X: pd.DataFrame
    y: pd.Series
    left_out: dict[str, str]


def split(
    frame: pd.DataFrame, label: str, index: str | None, keep: str | Collection[str], name: str
) -> Table:
    """Return the rows, labels and columns left out of a frame, which errors call ``name``."""
    keep = {keep} if isinstance(keep, str) else set(keep)
    check_names(list(frame.columns), name)
    check_column("label", label, frame, name)
    for column in keep:
        check_column("keep", column, frame, name)
    if index is not None:
        check_column("index", index, frame, name)
        frame = _indexed(frame, index, name)
    y = labels_of(frame[label], name)
    X = frame.drop(columns=label)
    left_out = {
        column: reason
        for column in X.columns
        if column not in keep and (reason := _why_useless(X[column]))
    }
    _tell(left_out, X, name)
    return Table(X.drop(columns=list(left_out)), y, left_out)


def _tell(left_out: dict[str, str], X: pd.DataFrame, name: str) -> None:
    """Warn of columns that are left out; refuse to leave out all."""
    told = ", ".join(f"{column!r} ({reason})" for column, reason in left_out.items())
    if len(left_out) == X.shape[1]:
        raise ValueError(
            f"{name} must have columns to learn from beside the label. Got {told or 'none'}. Add "
            "some or, in Python, pass keep=[...] to learn from these all the same."
        )
    if told:
        warn(f"Of {name} these columns are left out: {told}. In Python, keep=[...] keeps one.")


def check_names(names: list[Any], name: str) -> None:
    """Refuse a column name that occurs twice."""
    twice = sorted({str(column) for column in names if names.count(column) > 1})
    if twice:
        raise ValueError(
            f"{name} must name each column once. Got {twice} more than once. Rename them."
        )


def check_column(what: str, column: str, frame: pd.DataFrame, name: str) -> None:
    """Refuse a parameter that should name a column of a frame, which the error calls ``name``."""
    if column in frame.columns:
        return
    names = [str(known) for known in frame.columns]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    marks = [mark for mark in ";\t|," if len(names) == 1 and mark in names[0]]
    hint = (
        f" If {marks[0]!r} separates them, save it with {'tabs' if marks[0] == ',' else 'commas'} "
        f"or, in Python, pass sep={marks[0]!r}."
        if marks
        else ""
    )
    raise ValueError(
        f"{what} must be a column of {name}. Got {column!r}.{did_you_mean(str(column), names)} "
        f"Its columns are {[_short(known) for known in names[:NAMED]]}{more}.{hint}"
    )


def _indexed(frame: pd.DataFrame, index: str, name: str) -> pd.DataFrame:
    ids = frame[index]
    wrong = ids.isna() if ids.isna().any() else ids.duplicated()
    if wrong.any():
        got = "no value" if ids.isna().any() else f"{ids[wrong].tolist()[0]!r} again"
        raise ValueError(
            f"index must be a column with a different value in every row of {name}. Got {got} in "
            f"row {int(wrong.to_numpy().argmax())}, counted from 0, and {wrong.sum()} of "
            f"{len(ids)} rows are like it. Leave index out, or mend the column."
        )
    return frame.set_index(index)


def labels_of(given: pd.Series, name: str) -> pd.Series:
    """Return labels that are classes; whole numbers that gaps have turned into floats are whole.

    Raises
    ------
    ValueError
        If the column holds anything else.
    """
    import pandas as pd

    column = f"The column {given.name!r} of {name}"
    if given.empty:
        raise ValueError(f"{name} must hold rows. Got none below its header. Check what wrote it.")
    present = given.dropna()
    if present.empty:
        raise ValueError(
            f"{column} must hold labels. Got none in {len(given)} rows. Choose another column."
        )
    if pd.api.types.is_float_dtype(given):
        broken = present[present % 1 != 0]
        if len(broken):
            raise ValueError(
                f"{column} must hold classes. Got real numbers, such as {broken.iloc[0]}. Cut them "
                "into classes, as pandas.cut does, or choose another column."
            )
        given = given.astype("Int64") if given.isna().any() else given.astype("int64")
    nested = [value for value in present if isinstance(value, NESTED)]
    if nested:
        raise ValueError(
            f"{column} must hold one class a row. Got the {type(nested[0]).__name__} "
            f"{_short(str(nested[0]))}. Write one label a row, or choose another column."
        )
    n_classes = present.nunique()
    if n_classes < 2:
        raise ValueError(
            f"{column} must hold two classes or more. Got {present.iloc[0]!r} in all rows with a "
            "label. Choose another column."
        )
    if len(present) >= FEW and 2 * n_classes > len(present):
        raise ValueError(
            f"{column} must hold classes that rows share. Got {n_classes} different values in "
            f"{len(present)} rows. Choose another column, or cut numbers into classes, as "
            "pandas.cut does."
        )
    return given


def _short(text: str) -> str:
    """Return the beginning of what may be of any length."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _why_useless(column: pd.Series) -> str | None:
    try:
        n_values = column.nunique()
    except TypeError:
        return "it holds lists or the like"
    if n_values == 0:
        return "it is empty"
    if n_values == 1 and not column.isna().any():
        return "it has one value"
    if n_values == len(column) and _names_rows(column):
        return "it names the rows"
    return None


def _names_rows(column: pd.Series) -> bool:
    """Whether distinct values are the names or the numbers of the rows."""
    import pandas as pd

    named = IDENTIFIER.fullmatch(str(column.name)) is not None
    if pd.api.types.is_integer_dtype(column):
        counts = len(column) >= FEW and (column.diff().iloc[1:] == 1).all()
        return bool(named or counts)
    if not all(isinstance(value, str) for value in column):
        return False
    return named or (len(column) >= FEW and _are_keys(column.astype(str)))


def _are_keys(values: pd.Series) -> bool:
    """Whether strings differ only in a number after a prefix, or are hashes."""
    numbered = values.str.replace(r"\d+", "0", regex=True).nunique() == 1
    hashed = not values.str.contains(r"[^0-9a-f-]").any()
    return bool((numbered or hashed) and values.str.fullmatch(KEY).all())
