"""From tables, images, texts and arrays to rows that can be audited."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, is_zipfile

import numpy as np
from numpy.typing import NDArray

from noisyfit.auditing import known
from noisyfit.auditing.request import Request
from noisyfit.auditing.subjects import ImageSubject, Subject, TableSubject, TextSubject
from noisyfit.auditing.texts import Wording
from noisyfit.estimator.delegation import boosted_trees, suits_trees
from noisyfit.methods.coteaching import CoTeachingClassifier
from noisyfit.utils.validation import check_finite_rows

if TYPE_CHECKING:
    import pandas as pd

    Columns = tuple[pd.Series, pd.Series, NDArray[np.bool_] | None]

LARGEST = 1e37  # float32 holds it, and differences of such
COMPONENTS = 100  # of texts
UNSPACED = r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"  # kana, Chinese characters
TOKEN = rf"{UNSPACED}|(?:(?!{UNSPACED})\w){{2,}}"  # each of these, and words as in scikit-learn


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
    _check_finite(X, request.data)
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

    paths, y, trusted = _columns(request, "images", column, label)
    rows = images.from_paths(paths, y, root=request.data.parent)
    return _images("image_list", *rows, request, trusted)


def texts(request: Request, column: str, label: str) -> Subject:
    """Read a table of texts and labels."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    given, y, trusted = _columns(request, "text", column, label)
    written = given.fillna("").astype(str)
    vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=2, token_pattern=TOKEN)
    try:
        words = vectorizer.fit_transform(written)
        if words.shape[1] < 2:
            raise ValueError("one word")
    except ValueError as error:  # scikit-learn's where no word is in two texts
        raise ValueError(
            f"The column {column!r} of {request.data.name} must hold texts that share words. Got "
            f"fewer than two words that are in several of {len(written)} rows. Choose another "
            "column."
        ) from error
    if request.embeddings is None:
        features = _components(words)
    else:
        features = _embeddings(request.embeddings, len(written))
    return TextSubject(
        "texts", features, y, features, written, [LogisticRegression(C=100, max_iter=1000)],
        trusted=trusted, wording=Wording(vectorizer, words, y),
    )  # fmt: skip


def arrays(request: Request) -> Subject:
    """Read the arrays ``X`` and ``y`` of an ``.npz`` file."""
    import pandas as pd

    X, y = _stored_arrays(request.data)
    name = request.data.name
    if X.ndim < 1 or y.ndim != 1 or len(X) != len(y) or not X.size:
        raise ValueError(
            f"{name} must hold a row of X (n_samples, n_features) for each label of y "
            f"(n_samples,). Got shapes {X.shape} and {y.shape}. Reshape them."
        )
    if X.dtype.kind not in "biuf":
        raise ValueError(
            f"X of {name} must be numbers. Got dtype {X.dtype}. Encode them, or save a table "
            "with a column for each feature."
        )
    with np.errstate(over="ignore"):  # to infinity, which is refused
        X = X.reshape(len(X), -1).astype(np.float32)
    check_finite_rows(X)
    return Subject("arrays", X, pd.Series(y), X, second=_trees(X))


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


def _components(words: Any) -> NDArray[np.float32]:
    from sklearn.decomposition import TruncatedSVD

    size = min(COMPONENTS, words.shape[1] - 1)
    return TruncatedSVD(size, random_state=0).fit_transform(words).astype(np.float32)


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
    return [boosted_trees()] if suits_trees(features) else []


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


def _columns(request: Request, what: str, column: str, label: str) -> Columns:
    """Return the column that ``what`` names, the labels, and which rows are trusted."""
    from noisyfit.tables.columns import check_column, labels_of
    from noisyfit.tables.files import read_frame

    data = request.data
    if column == label:
        raise ValueError(
            f"{what} and label must be different columns of {data.name}. Got {label!r} for both. "
            "Name another."
        )
    frame = read_frame(data, label=label, missing_values=list(request.missing_values))
    check_column(what, column, frame, data.name)
    check_column("label", label, frame, data.name)
    _, trusted = _without_trusted(frame, request)
    return frame[column], labels_of(frame[label], data.name), trusted


def _without_trusted(
    frame: pd.DataFrame, request: Request
) -> tuple[pd.DataFrame, NDArray[np.bool_] | None]:
    """Return the table without the column of trusted rows, and which they are."""
    if request.trusted not in frame:
        return frame, None
    return frame.drop(columns=request.trusted), known.flags(frame[request.trusted])
