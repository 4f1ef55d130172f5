"""What to write for rows that are not numbers yet: paths, files and texts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from noisyfit import images
from noisyfit.tables import files
from noisyfit.utils.validation import as_column

IMAGES = "make_pipeline(noisyfit.ImageEmbedder(), estimator)"
TABLES = "noisyfit.tables.pipeline(estimator)"
TEXTS = "make_pipeline(TfidfVectorizer(), TruncatedSVD(100), estimator)"


def refuse_files_and_texts(X: Any) -> None:
    """Refuse a path, paths and texts, and say which line turns them into rows.

    Raises
    ------
    ValueError
        If X is such.
    """
    if isinstance(X, str | os.PathLike):
        got, line = f"the path {os.fspath(X)!r}", _line_for_path(Path(X))
    else:
        first = _first(strings_of(X))
        if first is None or _is_number(first):
            return
        kind = "paths" if _is_image(first) else "texts"
        got = f"{kind}, such as {os.fspath(first)!r:.60}"
        line = f"{_pipeline_for(first, in_frame=hasattr(X, 'columns'))}.fit(X, y)"
    raise ValueError(f"X must be rows of numbers. Got {got}. Write {line}.")


def strings_of(X: Any) -> Sequence[Any] | None:
    """Return the entries of X if it is one column and the first that is there a string or path."""
    if isinstance(X, list | tuple):
        column = X
    elif hasattr(X, "to_numpy") or (isinstance(X, np.ndarray) and X.dtype.kind in "OUT"):
        is_column = len(X.shape) == 1 or X.shape[1:] == (1,)
        column = as_column(X).reshape(-1).tolist() if is_column else []
    else:
        return None
    return column if isinstance(_first(column), str | os.PathLike) else None


def _first(column: Sequence[Any] | None) -> Any:
    return next((entry for entry in column or () if not _is_absent(entry)), None)


def _is_absent(entry: Any) -> bool:
    return entry is None or (isinstance(entry, float) and entry != entry)


def _is_number(text: str | os.PathLike[str]) -> bool:
    try:
        float(os.fspath(text))
    except ValueError:
        return False
    return True


def _is_image(path: str | os.PathLike[str]) -> bool:
    return isinstance(path, os.PathLike) or Path(path).suffix.lower() in images.SUFFIXES


def _line_for_path(path: Path) -> str:
    if path.name.lower().endswith(files.SUFFIXES):
        read = f"X, y, _ = noisyfit.tables.read({str(path)!r}, label=...)"
        return f"{read}, then {TABLES}.fit(X, y)"
    if _is_image(str(path)):
        read = "X, y = noisyfit.images.from_paths(paths, labels)"
    else:
        read = f"X, y = noisyfit.images.from_folder({str(path)!r})"
    return f"{read}, then {IMAGES}.fit(X, y)"


def _pipeline_for(first: Any, *, in_frame: bool) -> str:
    if _is_image(first):
        return IMAGES
    return TABLES if in_frame else TEXTS
