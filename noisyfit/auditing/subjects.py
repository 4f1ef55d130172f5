"""What can be audited: tables, images, texts and arrays, and how a row of each is shown."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, is_zipfile

import numpy as np
from joblib import Memory
from numpy.typing import NDArray

from noisyfit.auditing.audit import boosted_trees
from noisyfit.auditing.thumbnails import thumbnail
from noisyfit.utils.validation import check_finite_rows

if TYPE_CHECKING:
    import pandas as pd

COMPONENTS = 100  # of texts
LARGEST = 1e37  # float32 holds it, and differences of such
SHOWN_CELLS, SHOWN_CHARACTERS = 6, 600
COMPARED = 2000  # rows of a class that say what is rare in it


@dataclass(eq=False)
class Subject:
    """Rows with labels.

    Parameters
    ----------
    kind : str
        As in ``audit.json``.
    X : DataFrame or ndarray of shape (n_samples, n_columns)
        What detectors learn from.
    y : Series of shape (n_samples,)
        Given labels; the index names the rows.
    features : ndarray of shape (n_samples, n_features)
        By which rows are near one another.
    shown : DataFrame, Series or None
        What people see of the rows.
    detectors : sequence of classifiers or None
        None stands for those of `noisyfit.audit`.
    left_out : dict of str
        Why a column is not in X.
    """

    kind: str
    X: Any
    y: pd.Series
    features: NDArray[Any]
    shown: Any = None
    detectors: Sequence[Any] | None = None
    left_out: dict[str, str] = field(default_factory=dict)

    def show(self, row: int) -> dict[str, Any]:
        """Return what a card shows of a row."""
        return {}

    def name(self, row: int) -> dict[str, Any]:
        """Return what a neighbour shows of a row."""
        shown = self.show(row)
        cells, text = shown.get("cells") or (), shown.get("text") or ()
        words = ", ".join(f"{column} {value}" for column, value, _ in cells[:3])
        words = words or "".join(piece for piece, _ in text)[:120]
        return {"picture": shown.get("picture"), "text": words}


class TableSubject(Subject):
    """Rows of a table."""

    def show(self, row: int) -> dict[str, Any]:
        """Return the cells that are rarest among rows of the same label."""
        alike, shown = self._labelled[self.y.iloc[row]], self.shown.iloc[row]
        cells = [
            (str(column), str(shown[column]), _rarity(alike[column], shown[column]))
            for column in self.shown.columns
        ]
        return {"cells": sorted(cells, key=lambda cell: -cell[2])[:SHOWN_CELLS]}

    @cached_property
    def _labelled(self) -> dict[Any, pd.DataFrame]:
        """Some rows with each label."""
        groups = self.shown.groupby(self.y.to_numpy())
        return {label: rows.head(COMPARED) for label, rows in groups}


class ImageSubject(Subject):
    """Image files."""

    def show(self, row: int) -> dict[str, Any]:
        """Return a thumbnail."""
        return {"picture": thumbnail(self.shown.iloc[row])}


class TextSubject(Subject):
    """Texts."""

    def show(self, row: int) -> dict[str, Any]:
        """Return how it begins."""
        return {"text": [(self.shown.iloc[row][:SHOWN_CHARACTERS], 0.0)]}


def table(data: Path, label: str, missing_values: Sequence[str]) -> Subject:
    """Read the rows of a table."""
    from noisyfit import tables
    from noisyfit.methods.coteaching import CoTeachingClassifier

    read = tables.read(data, label=label, missing_values=list(missing_values))
    _check_finite(read.X, data)
    pipelines = [tables.pipeline(part) for part in (CoTeachingClassifier(), boosted_trees())]
    features = pipelines[0][:-1].fit_transform(read.X)
    return TableSubject(
        "table", read.X, read.y, np.asarray(features, np.float32), read.X, pipelines, read.left_out
    )


def image_folder(data: Path, memory: Memory) -> Subject:
    """Read a folder of images, one folder a class."""
    from noisyfit import images

    return _images("images", *images.from_folder(data), memory)


def image_list(
    data: Path, column: str, label: str, missing_values: Sequence[str], memory: Memory
) -> Subject:
    """Read a table of paths and labels; paths start from the folder of the table."""
    from noisyfit import images

    paths, y = _two_columns(data, "images", column, label, missing_values)
    return _images("image_list", *images.from_paths(paths, y, root=data.parent), memory)


def texts(data: Path, column: str, label: str, missing_values: Sequence[str]) -> Subject:
    """Read a table of texts and labels."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    from noisyfit.methods.coteaching import CoTeachingClassifier

    given, y = _two_columns(data, "text", column, label, missing_values)
    written = given.fillna("").astype(str)
    try:
        words = TfidfVectorizer(sublinear_tf=True, min_df=2).fit_transform(written)
        if words.shape[1] < 2:
            raise ValueError("one word")
    except ValueError as error:  # scikit-learn's where no word is in two texts
        raise ValueError(
            f"The column {column!r} of {data.name} must hold texts that share words. Got fewer "
            f"than two words that are in several of {len(written)} rows. Choose another column."
        ) from error
    size = min(COMPONENTS, words.shape[1] - 1)
    features = TruncatedSVD(size, random_state=0).fit_transform(words).astype(np.float32)
    detectors = [CoTeachingClassifier(), LogisticRegression(C=100, max_iter=1000)]
    return TextSubject("texts", features, y, features, written, detectors)


def arrays(data: Path) -> Subject:
    """Read the arrays ``X`` and ``y`` of an ``.npz`` file."""
    import pandas as pd

    X, y = _stored_arrays(data)
    if X.ndim < 1 or y.ndim != 1 or len(X) != len(y) or not X.size:
        raise ValueError(
            f"{data.name} must hold a row of X (n_samples, n_features) for each label of y "
            f"(n_samples,). Got shapes {X.shape} and {y.shape}. Reshape them."
        )
    if X.dtype.kind not in "biuf":
        raise ValueError(
            f"X of {data.name} must be numbers. Got dtype {X.dtype}. Encode them, or save a table "
            "with a column for each feature."
        )
    with np.errstate(over="ignore"):  # to infinity, which is refused
        X = X.reshape(len(X), -1).astype(np.float32)
    check_finite_rows(X)
    return Subject("arrays", X, pd.Series(y), X)


def _stored_arrays(data: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return X and y, without running what is stored in a pickle."""
    try:
        if not is_zipfile(data):
            raise BadZipFile("a file that is damaged, or no .npz file")
        with np.load(data, allow_pickle=False) as stored:
            return stored["X"], stored["y"]
    except (BadZipFile, EOFError, KeyError, ValueError, zlib.error) as error:
        raise ValueError(
            f"{data.name} must hold the arrays X (n_samples, n_features) and y (n_samples,). Got: "
            f"{error.args[0]}. Save it by np.savez(file, X=X, y=y), strings as y.astype(str)."
        ) from error


def _images(kind: str, paths: pd.Series, y: pd.Series, memory: Memory) -> Subject:
    from noisyfit.embedding import ImageEmbedder

    features = ImageEmbedder(memory=memory.location).fit_transform(paths)
    return ImageSubject(kind, features, y, features, paths)


def _check_finite(X: pd.DataFrame, data: Path) -> None:
    """Refuse numbers that are too large for the detectors, and say where they are."""
    import pandas as pd

    for column in X:
        values = pd.to_numeric(X[column], errors="coerce").abs().to_numpy(float, na_value=np.nan)
        rows = np.flatnonzero(values > LARGEST)
        if len(rows):
            raise ValueError(
                f"The column {column!r} of {data.name} must hold finite numbers, up to {LARGEST}. "
                f"Got {X[column].iloc[rows[0]]} in row {rows[0]}, counted from 0, and "
                f"{len(rows)} such rows. Mend them, or leave them empty."
            )


def _two_columns(
    data: Path, what: str, column: str, label: str, missing_values: Sequence[str]
) -> tuple[pd.Series, pd.Series]:
    """Return the column that ``what`` names, and the labels."""
    from noisyfit.tables.columns import check_column, labels_of
    from noisyfit.tables.files import read_frame

    if column == label:
        raise ValueError(
            f"{what} and label must be different columns of {data.name}. Got {label!r} for both. "
            "Name another."
        )
    frame = read_frame(data, label=label, missing_values=list(missing_values))
    check_column(what, column, frame, data.name)
    check_column("label", label, frame, data.name)
    return frame[column], labels_of(frame[label], data.name)


def _rarity(alike: pd.Series, value: Any) -> float:
    """Return how unusual a value is among others; 1 is as unusual as can be."""
    if value != value or value is None:
        return float(alike.notna().mean())
    if alike.dtype.kind in "iuf":
        below, above = (alike < value).mean(), (alike > value).mean()
        return float(abs(below - above))
    return float(1 - (alike == value).mean())
