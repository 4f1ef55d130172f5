"""Data for a comparison: named data sets, a table in a file, a folder of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from noisyfit import datasets
from noisyfit.datasets.tables import TABLES
from noisyfit.images import from_folder
from noisyfit.tables.files import read_frame
from noisyfit.utils.synonyms import did_you_mean
from noisyfit.utils.validation import check_finite_rows, find_classes, present_labels

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_LEVELS = 32  # columns per categorical variable; rarer levels share one


@dataclass(frozen=True)
class Source:
    """Rows to learn from and, where they are known, clean labels to score with.

    Parameters
    ----------
    X, y : arrays
        Training rows and their given labels.
    y_clean : array or None
        Their true labels, if known. Equal to ``y`` if the data have no noise of their own.
    X_test, y_test : arrays or None
        Test rows with clean labels. None if only given labels are known.
    votes : array (n, n_annotators) or None
        What each annotator said of the training rows, -1 for nothing, if methods are to learn from
        that. ``y`` is then the majority.
    """

    X: NDArray[Any]
    y: NDArray[Any]
    y_clean: NDArray[Any] | None = None
    X_test: NDArray[Any] | None = None
    y_test: NDArray[Any] | None = None
    votes: NDArray[Any] | None = None

    @property
    def is_clean(self) -> bool:
        """Whether the given labels are right, so that noise is injected."""
        return self.y is self.y_clean


def load(name: str, label: str | None = None) -> Source:
    """Load the data that a name or a path stands for.

    Parameters
    ----------
    name : str
        One of `NAMES`, the path of a table that `noisyfit.tables.read` reads, or the path of a
        folder that holds one folder of images per class.
    label : str, default=None
        Column of the table that holds the labels.

    Raises
    ------
    ValueError
        If the data do not exist or cannot be used.
    """
    if name in NAMES:
        return NAMES[name]()
    path = Path(name)
    if name and path.is_dir():
        return Source(*read_images(path))
    if path.is_file():
        if label is None:
            raise ValueError(f"{name} needs the column of its labels. Got none. Pass --label.")
        return Source(*read_table(path, label))
    raise ValueError(
        f"Data must be one of {', '.join(NAMES)}, a table such as a CSV file, or a folder of class "
        f"folders. Got {name!r}.{did_you_mean(name, NAMES)}"
    )


def read_table(path: Path, label: str) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Read numbers and labels from a table.

    Missing numbers become the median of their column. Text becomes one column per level, with the
    rarest levels sharing one. Rows without a label are left out.

    Raises
    ------
    ValueError
        If the file cannot be read, if the column of labels is missing or holds no classes, or if
        there is no other column.
    """
    from sklearn.compose import ColumnTransformer, make_column_selector
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import OneHotEncoder

    frame = read_frame(path, label=label)
    if label not in frame:
        raise ValueError(
            f"--label must be a column of {path.name}. Got {label!r}.{did_you_mean(label, frame)} "
            f"Its columns are {list(frame)}."
        )
    frame = frame[frame[label].notna()]
    rows = frame.drop(columns=label).dropna(axis=1, how="all")
    if rows.empty:
        raise ValueError(
            f"{path.name} must have rows with a label, and other columns that are not empty. Got "
            f"{len(frame)} rows with a label and {rows.shape[1]} such columns."
        )
    y = np.asarray(frame[label].tolist())
    if len(find_classes(present_labels(y, name=f"The column {label!r}"))) < 2:
        raise ValueError(
            f"--label must be a column of two classes or more. Got {label!r}, which is "
            f"{y.tolist()[0]!r} in every row. Choose another column."
        )
    text = OneHotEncoder(max_categories=MOST_LEVELS, sparse_output=False)
    numbers = make_column_selector(dtype_include=[np.number, bool])
    others = make_column_selector(dtype_exclude=[np.number, bool])
    columns = ColumnTransformer(
        [("numbers", SimpleImputer(strategy="median"), numbers), ("text", text, others)]
    )
    flags = {name: rows[name].astype(float) for name in rows.select_dtypes(bool)}
    X = columns.fit_transform(rows.assign(**flags))
    with np.errstate(over="ignore"):  # caught just below
        X = np.asarray(X, np.float32)
    check_finite_rows(X)
    return X, y


def read_images(folder: Path) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Read images (n, H, W, 3) and their labels, the names of the folders that hold them.

    Images are resized to the most common size. Files that are not images are left out.

    Raises
    ------
    ValueError
        If there are fewer than two classes, or an image cannot be read.
    """
    paths, labels = from_folder(folder)
    images = [_decoded(path) for path in paths]
    size = Counter(image.size for image in images).most_common(1)[0][0]
    resized = [np.asarray(i if i.size == size else i.resize(size)) for i in images]
    return np.stack(resized), np.array(labels.tolist())


def _decoded(path: str) -> Image:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except Exception as error:  # on damaged files decoders may raise anything
        raise ValueError(
            f"Each image must be one that can be read. Got {path}: {error}. Replace it, or take it "
            "out of the folder."
        ) from error


def digits() -> Source:
    """Return scikit-learn's handwritten digits, 70 % for training."""
    from sklearn.datasets import load_digits

    return _split(*load_digits(return_X_y=True))


def synthetic(n_classes: int = 5, n_columns: int = 20, class_sep: float = 1.5) -> Source:
    """Return 3,000 rows with two clusters per class; half of the columns tell them apart."""
    from sklearn.datasets import make_classification

    n_informative, n_redundant = n_columns // 2, n_columns // 4
    return _split(
        *make_classification(
            3000, n_columns, n_informative=n_informative, n_redundant=n_redundant,
            n_classes=n_classes, class_sep=class_sep, random_state=0,
        )
    )  # fmt: skip


def _table(name: str) -> Source:
    """Return one of the real tables, 70 % for training."""
    return _split(*datasets.load_table(name, return_X_y=True))


def _split(X: NDArray[Any], y: NDArray[Any]) -> Source:
    from sklearn.model_selection import train_test_split

    X, X_test, y, y_test = train_test_split(X, y, test_size=0.3, stratify=y, random_state=0)
    return Source(X, y, y, X_test, y_test)


def _stored(bunch: Any, votes: NDArray[Any] | None = None) -> Source:
    """Return what a loader returns, without the rows that have no given label."""
    kept = bunch.target >= 0
    rows, labels, clean = bunch.data, bunch.target, bunch.target_clean
    if not kept.all():
        rows, labels, clean = rows[kept], labels[kept], clean[kept]
    y_clean = labels if np.array_equal(labels, clean) else clean
    votes = None if votes is None else votes[kept].astype(labels.dtype)
    return Source(rows, labels, y_clean, bunch.data_test, bunch.target_test, votes)


def _music_genre_votes() -> Source:
    bunch = datasets.load_music_genre("majority")
    return _stored(bunch, bunch.annotations)


def _trec_votes() -> Source:
    bunch = datasets.load_weak_text("trec")
    return _stored(bunch, bunch.votes)


NAMES: dict[str, Callable[[], Source]] = {
    "digits": digits,
    "synthetic": synthetic,
    "synthetic_letters": partial(synthetic, n_classes=26, n_columns=32, class_sep=3.0),
    "fashion_mnist": lambda: _stored(datasets.load_fashion_mnist()),
    "cifar10n": lambda: _stored(datasets.load_cifar10n()),
    "cifar10n_aggre": lambda: _stored(datasets.load_cifar10n("aggre")),
    "cifar10n_random1": lambda: _stored(datasets.load_cifar10n("random1")),
    "cifar10n_features": lambda: _stored(datasets.load_cifar10n(features=True)),
    "trec": lambda: _stored(datasets.load_weak_text("trec")),
    "trec_votes": _trec_votes,
    "hausa_news": lambda: _stored(datasets.load_weak_text("hausa_news")),
    "youtube_spam": lambda: _stored(datasets.load_weak_text("youtube_spam")),
    "music_genre": lambda: _stored(datasets.load_music_genre()),
    "music_genre_majority": lambda: _stored(datasets.load_music_genre("majority")),
    "music_genre_votes": _music_genre_votes,
    "adult": lambda: _stored(datasets.load_adult()),
    **{name: partial(_table, name) for name in TABLES},
}
"""Data sets by name. All but the first two are read from the folder in ``NOISYFIT_DATA``."""

BY_CLASSES = (  # tables by number of classes, then by name
    *("crx", "german", "magic", "mushroom", "phoneme", "ring", "spambase"),
    *("contraceptive", "splice", "vehicle", "satimage", "segment", "led7digit"),
    *("texture", "vowel", "movement_libras"),
)
GROUPS = {
    "tables": BY_CLASSES,
    "tables_development": BY_CLASSES[::2],
    "tables_confirmation": BY_CLASSES[1::2],
}
"""Groups of data sets. Settings are chosen on one half and confirmed on the other."""


def data_names(given: Iterable[str]) -> list[str]:
    """Return names and paths of data without duplicates; a group stands for its members."""
    return list(dict.fromkeys(name for one in given for name in GROUPS.get(one, (one,))))
