"""What can be audited: tables, images, texts and arrays, and how a row of each is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from noisyfit.auditing import known
from noisyfit.auditing.audit import MANY_COLUMNS, boosted_trees
from noisyfit.auditing.request import AUTO, Request
from noisyfit.auditing.thumbnails import thumbnail
from noisyfit.benchmark.contenders import package_methods
from noisyfit.methods.coteaching import CoTeachingClassifier
from noisyfit.utils.validation import check_finite_rows

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
    second : sequence of classifiers
        Detectors beside the first one, unless a method is asked for.
    prepare : callable
        Puts before a classifier what makes numbers of X.
    left_out : dict of str
        Why a column is not in X.
    trusted : ndarray of bool of shape (n_samples,) or None
        Rows whose label is right.
    """

    kind: str
    X: Any
    y: pd.Series
    features: NDArray[Any]
    shown: Any = None
    second: Sequence[Any] = ()
    prepare: Callable[[Any], Any] = clone
    left_out: dict[str, str] = field(default_factory=dict)
    trusted: NDArray[np.bool_] | None = None

    def detectors(self, method: str, device: str) -> list[Any]:
        """Return the classifiers that rate the labels, all on a device."""
        chosen = [CoTeachingClassifier(), *self.second]
        if method != AUTO:
            chosen = [package_methods()[method]()]
        return [self.prepare(on_device(detector, device)) for detector in chosen]

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


def read(request: Request) -> Subject:
    """Read what is to be audited.

    Raises
    ------
    ValueError, OSError
        If something cannot be read.
    """
    if request.data.is_dir():
        subject = image_folder(request)
    elif request.data.suffix == ".npz":
        subject = arrays(request)
    elif request.label is None:
        raise ValueError("A table needs the column of its labels. Pass --label COLUMN.")
    elif request.images is not None:
        subject = image_list(request, request.images, request.label)
    elif request.text is not None:
        subject = texts(request, request.text, request.label)
    else:
        subject = table(request, request.label)
    subject.y = known.without(subject.y, request.missing_values)
    if subject.trusted is None and request.trusted is not None:
        subject.trusted = known.named_rows(Path(request.trusted), subject.y.index)
    return subject


def table(request: Request, label: str) -> Subject:
    """Read the rows of a table."""
    from noisyfit import tables

    read = tables.read(request.data, label=label, missing_values=list(request.missing_values))
    X, trusted = _without_trusted(read.X, request)
    if request.embeddings is not None:
        features = _embeddings(request.embeddings, len(X))
        return TableSubject(
            "table", features, read.y, features, X, _trees(features), left_out=read.left_out,
            trusted=trusted,
        )  # fmt: skip
    features = np.asarray(tables.pipeline(CoTeachingClassifier())[:-1].fit_transform(X), np.float32)
    return TableSubject(
        "table", X, read.y, features, X, [boosted_trees()], tables.pipeline, read.left_out, trusted
    )


def image_folder(request: Request) -> Subject:
    """Read a folder of images, one folder a class."""
    from noisyfit import images

    return _images("images", *images.from_folder(request.data), request, None)


def image_list(request: Request, column: str, label: str) -> Subject:
    """Read a table of paths and labels; paths start from the folder of the table."""
    from noisyfit import images

    frame, trusted = _columns(request, column, label)
    rows = images.from_paths(frame[column], frame[label], root=request.data.parent)
    return _images("image_list", *rows, request, trusted)


def texts(request: Request, column: str, label: str) -> Subject:
    """Read a table of texts and labels."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    frame, trusted = _columns(request, column, label)
    written = frame[column].fillna("").astype(str)
    if request.embeddings is None:
        words = TfidfVectorizer(sublinear_tf=True, min_df=2).fit_transform(written)
        size = min(COMPONENTS, words.shape[1] - 1)
        features = TruncatedSVD(size, random_state=0).fit_transform(words).astype(np.float32)
    else:
        features = _embeddings(request.embeddings, len(frame))
    second = [LogisticRegression(C=100, max_iter=1000)]
    return TextSubject("texts", features, frame[label], features, written, second, trusted=trusted)


def arrays(request: Request) -> Subject:
    """Read the arrays ``X`` and ``y`` of an ``.npz`` file."""
    import pandas as pd

    with np.load(request.data, allow_pickle=False) as stored:
        lacking = [name for name in ("X", "y") if name not in stored]
        if lacking:
            raise ValueError(
                f"{request.data.name} must hold the arrays X (n_samples, n_features) and y "
                f"(n_samples,). Got {sorted(stored)}. Save it by np.savez(file, X=X, y=y)."
            )
        X, y = stored["X"], stored["y"]
    X = X.reshape(len(X), -1).astype(np.float32)
    return Subject("arrays", X, pd.Series(y), X, second=_trees(X))


def _images(
    kind: str,
    paths: pd.Series,
    y: pd.Series,
    request: Request,
    trusted: NDArray[np.bool_] | None,
) -> Subject:
    from noisyfit.embedding import ImageEmbedder

    if request.embeddings is None:
        embedder = ImageEmbedder(memory=request.memory.location, device=request.device)
        features = embedder.fit_transform(paths)
    else:
        features = _embeddings(request.embeddings, len(paths))
    return ImageSubject(kind, features, y, features, paths, _trees(features), trusted=trusted)


def _columns(
    request: Request, column: str, label: str
) -> tuple[pd.DataFrame, NDArray[np.bool_] | None]:
    """Return the table, and which of its rows are trusted if it says so."""
    from noisyfit.tables.files import read_frame

    frame = _with_columns(read_frame(request.data, label=label), request.data, column, label)
    return _without_trusted(frame, request)


def _without_trusted(
    frame: pd.DataFrame, request: Request
) -> tuple[pd.DataFrame, NDArray[np.bool_] | None]:
    if request.trusted not in frame:
        return frame, None
    return frame.drop(columns=request.trusted), known.flags(frame[request.trusted])


def _embeddings(file: Path, n_rows: int) -> NDArray[np.float32]:
    """Read a row of numbers for each row of the data."""
    stored = np.load(file, allow_pickle=False)
    if getattr(stored, "ndim", 0) != 2 or len(stored) != n_rows or stored.dtype.kind not in "iuf":
        raise ValueError(
            f"--embeddings must be an .npy file of numbers, one row for each of {n_rows} rows of "
            f"the data. Got {getattr(stored, 'dtype', type(stored).__name__)} of shape "
            f"{getattr(stored, 'shape', '?')} in {file.name}."
        )
    check_finite_rows(stored)
    return stored.astype(np.float32)


def _trees(features: NDArray[Any]) -> list[Any]:
    """Return the second detector for a table of numbers; trees are slow on many columns."""
    return [boosted_trees()] if features.shape[1] <= MANY_COLUMNS else []


def on_device(detector: Any, device: str) -> Any:
    """Return a classifier that trains on a device, if it is one that can be told."""
    named = [name for name in detector.get_params() if name.split("__")[-1] == "device"]
    return detector.set_params(**dict.fromkeys(named, device))


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
