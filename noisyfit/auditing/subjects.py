"""What can be audited: tables, images, texts and arrays, and how a row of each is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from joblib import Memory
from numpy.typing import NDArray

from noisyfit.auditing.audit import boosted_trees
from noisyfit.auditing.thumbnails import thumbnail

if TYPE_CHECKING:
    import pandas as pd

COMPONENTS = 100  # of texts
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
    pipelines = [tables.pipeline(part) for part in (CoTeachingClassifier(), boosted_trees())]
    features = pipelines[0][:-1].fit_transform(read.X)
    return TableSubject(
        "table", read.X, read.y, np.asarray(features, np.float32), read.X, pipelines, read.left_out
    )


def image_folder(data: Path, memory: Memory) -> Subject:
    """Read a folder of images, one folder a class."""
    from noisyfit import images

    return _images("images", *images.from_folder(data), memory)


def image_list(data: Path, column: str, label: str, memory: Memory) -> Subject:
    """Read a table of paths and labels; paths start from the folder of the table."""
    from noisyfit import images
    from noisyfit.tables.files import read_frame

    frame = _with_columns(read_frame(data, label=label), data, column, label)
    return _images(
        "image_list", *images.from_paths(frame[column], frame[label], root=data.parent), memory
    )


def texts(data: Path, column: str, label: str) -> Subject:
    """Read a table of texts and labels."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    from noisyfit.methods.coteaching import CoTeachingClassifier
    from noisyfit.tables.files import read_frame

    frame = _with_columns(read_frame(data, label=label), data, column, label)
    written = frame[column].fillna("").astype(str)
    words = TfidfVectorizer(sublinear_tf=True, min_df=2).fit_transform(written)
    size = min(COMPONENTS, words.shape[1] - 1)
    features = TruncatedSVD(size, random_state=0).fit_transform(words).astype(np.float32)
    detectors = [CoTeachingClassifier(), LogisticRegression(C=100, max_iter=1000)]
    return TextSubject("texts", features, frame[label], features, written, detectors)


def arrays(data: Path) -> Subject:
    """Read the arrays ``X`` and ``y`` of an ``.npz`` file."""
    import pandas as pd

    with np.load(data, allow_pickle=False) as stored:
        lacking = [name for name in ("X", "y") if name not in stored]
        if lacking:
            raise ValueError(
                f"{data.name} must hold the arrays X (n_samples, n_features) and y (n_samples,). "
                f"Got {sorted(stored)}. Save it by np.savez(file, X=X, y=y)."
            )
        X, y = stored["X"], stored["y"]
    X = X.reshape(len(X), -1).astype(np.float32)
    return Subject("arrays", X, pd.Series(y), X)


def _images(kind: str, paths: pd.Series, y: pd.Series, memory: Memory) -> Subject:
    from noisyfit.embedding import ImageEmbedder

    features = ImageEmbedder(memory=memory.location).fit_transform(paths)
    return ImageSubject(kind, features, y, features, paths)


def _with_columns(frame: pd.DataFrame, data: Path, *columns: str) -> pd.DataFrame:
    unknown = [column for column in columns if column not in frame]
    if unknown:
        raise ValueError(
            f"{data.name} must have the columns {', '.join(columns)}. Got no {unknown[0]!r} among "
            f"{', '.join(map(str, frame.columns[:10]))}."
        )
    return frame


def _rarity(alike: pd.Series, value: Any) -> float:
    """Return how unusual a value is among others; 1 is as unusual as can be."""
    if value != value or value is None:
        return float(alike.notna().mean())
    if alike.dtype.kind in "iuf":
        below, above = (alike < value).mean(), (alike > value).mean()
        return float(abs(below - above))
    return float(1 - (alike == value).mean())
