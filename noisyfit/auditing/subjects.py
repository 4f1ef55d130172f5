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
from noisyfit.auditing.cells import LONGEST, MISSING, Comparable, readable
from noisyfit.auditing.texts import Wording, marked, shortened
from noisyfit.auditing.thumbnails import thumbnail

if TYPE_CHECKING:
    import pandas as pd

COMPONENTS = 100  # of texts
UNSPACED = r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"  # kana, Chinese characters
TOKEN = rf"{UNSPACED}|(?:(?!{UNSPACED})\w){{2,}}"  # each of these, and words as in scikit-learn
SHOWN_CELLS = 6
CELLS_BESIDE, TEXT_BESIDE = 3, 120  # cells and characters of a neighbour
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

    def show(self, row: int, suggested: Any) -> dict[str, Any]:
        """Return what a card shows of a row for which another label is suggested."""
        return {}

    def show_beside(self, other: int, row: int) -> dict[str, Any]:
        """Return what the card of a row shows of another one."""
        return {}


class TableSubject(Subject):
    """Rows of a table."""

    def show(self, row: int, suggested: Any) -> dict[str, Any]:
        """Return the cells that are rarest among rows of the same label."""
        rarity = self._rarity(row)
        return {
            "cells": [
                (*self._cell(row, column), float(rarity[column]))
                for column in np.argsort(-rarity, kind="stable")[:SHOWN_CELLS]
            ]
        }

    def show_beside(self, other: int, row: int) -> dict[str, Any]:
        """Return the cells in the columns of the row's rarest ones."""
        columns = np.argsort(-self._rarity(row), kind="stable")[:CELLS_BESIDE]
        return {"text": ", ".join(" ".join(self._cell(other, column)) for column in columns)}

    def _cell(self, row: int, column: int) -> tuple[str, str]:
        name = shortened(str(self.shown.columns[column]), LONGEST)
        return name, readable(self.shown.iat[row, column])

    def _rarity(self, row: int) -> NDArray[np.float64]:
        if row not in self._rarities:
            alike = self._alike[self.y.iat[row]]
            self._rarities[row] = self._comparable.rarity(row, alike)
        return self._rarities[row]

    @cached_property
    def _rarities(self) -> dict[int, NDArray[np.float64]]:
        return {}

    @cached_property
    def _comparable(self) -> Comparable:
        return Comparable(self.shown)

    @cached_property
    def _alike(self) -> dict[Any, NDArray[np.intp]]:
        """Some rows with each label."""
        places = self.y.groupby(self.y.to_numpy(), observed=True).indices
        return {label: rows[:COMPARED] for label, rows in places.items()}


class ImageSubject(Subject):
    """Image files."""

    def show(self, row: int, suggested: Any) -> dict[str, Any]:
        """Return a thumbnail."""
        return {"picture": thumbnail(self.shown.iat[row])}

    def show_beside(self, other: int, row: int) -> dict[str, Any]:
        """Return a thumbnail."""
        return self.show(other, None)


@dataclass(eq=False)
class TextSubject(Subject):
    """Texts, and which terms each class uses."""

    wording: Wording | None = None

    def show(self, row: int, suggested: Any) -> dict[str, Any]:
        """Return the text around the words that speak for either class, which are marked."""
        text = self.shown.iat[row]
        if not text.strip():
            return {"text": [(MISSING, 0.0)]}
        assert self.wording is not None
        weights = self.wording.weights(row, suggested)
        return {"text": marked(text, self.wording.spans(text, weights))}

    def show_beside(self, other: int, row: int) -> dict[str, Any]:
        """Return how the other text begins."""
        return {"text": shortened(self.shown.iat[other].strip(), TEXT_BESIDE) or MISSING}


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
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    from noisyfit.methods.coteaching import CoTeachingClassifier
    from noisyfit.tables.files import read_frame

    frame = _with_columns(read_frame(data, label=label), data, column, label)
    written = frame[column].fillna("").astype(str)
    vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=2, token_pattern=TOKEN)
    words = vectorizer.fit_transform(written)
    features = _components(words)
    detectors = [CoTeachingClassifier(), LogisticRegression(C=100, max_iter=1000)]
    wording = Wording(vectorizer, words, frame[label])
    return TextSubject(
        "texts", features, frame[label], features, written, detectors, wording=wording
    )


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


def _components(words: Any) -> NDArray[np.float32]:
    from sklearn.decomposition import TruncatedSVD

    size = min(COMPONENTS, words.shape[1] - 1)
    if size == 0:
        return words.toarray().astype(np.float32)
    return TruncatedSVD(size, random_state=0).fit_transform(words).astype(np.float32)


def _with_columns(frame: pd.DataFrame, data: Path, *columns: str) -> pd.DataFrame:
    unknown = [column for column in columns if column not in frame]
    if unknown:
        raise ValueError(
            f"{data.name} must have the columns {', '.join(columns)}. Got no {unknown[0]!r} among "
            f"{', '.join(map(str, frame.columns[:10]))}."
        )
    return frame
