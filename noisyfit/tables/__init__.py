"""Tables as people have them: files and frames with text, categories, dates and gaps."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noisyfit.datasets.files import PathLike
from noisyfit.tables.columns import Table, split
from noisyfit.tables.files import INSTALL, read_frame, with_gaps

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

__all__ = ["Table", "from_frame", "pipeline", "read"]


def read(
    path: PathLike,
    *,
    label: str,
    index: str | None = None,
    keep: str | Collection[str] = (),
    missing_values: Any = (),
    sep: str | None = None,
    encoding: str = "utf-8",
) -> Table:
    r"""Read rows with labels from a file.

    Columns from which nothing can be learned are left out, with a warning: identifiers, columns
    with one value, and nested values. An identifier has a different value in every row, and its
    values are strings or whole numbers. It is named like one, such as ``"id"`` or
    ``"PassengerId"``, or, in 20 rows or more, it counts the rows or its strings are keys, such as
    ``"user0017"``. Columns of other numbers are never left out.

    Parameters
    ----------
    path : str or path
        A file ``.csv``, ``.tsv``, ``.jsonl`` or ``.ndjson``, each also with ``.gz``, or
        ``.parquet`` or ``.feather``, which need ``pip install "noisyfit[tables]"``. A name
        without an ending is that of a CSV file. Text has a header; JSON has one object a line.
    label : str
        Column of the given labels.
    index : str or None, default=None
        Column with a different value in every row, which becomes the index of ``X`` and ``y`` and
        with it that of ``label_issues()``. None: the file's own index, else the number of the row
        from 0.
    keep : str or collection of str, default=()
        Columns that are not left out.
    missing_values : scalar or list, default=()
        Values that mean that there is none, such as ``"?"``, beside an empty entry and, in text,
        pandas' words: ``"NA"``, ``"nan"``, ``"null"`` and the like, and ``"None"`` unless it is a
        label.
    sep : str or None, default=None
        What separates the columns of text. None: a comma for ``.csv``, a tab for ``.tsv``.
    encoding : str, default="utf-8"
        Of text.

    Returns
    -------
    Table
        The rows, their labels, and the columns left out with the reason. Labels that are missing
        stay missing: pass ``missing_label`` to the estimator.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file cannot be read, or a column is not what it must be. Lines are counted from 1.
    ImportError
        If the file needs a package that is not installed.

    See Also
    --------
    pipeline : What goes in front of an estimator for such rows.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from noisyfit import tables
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "people.csv")
    ...     size = path.write_text("age,town,member\n31,Rome,yes\n?,Oslo,no\n")
    ...     X, y, left_out = tables.read(path, label="member", missing_values="?")
    >>> X
        age  town
    0  31.0  Rome
    1   NaN  Oslo
    """
    frame = read_frame(path, label=label, missing_values=missing_values, sep=sep, encoding=encoding)
    return split(frame, label, index, keep, Path(path).name)


def from_frame(
    frame: Any,
    *,
    label: str,
    index: str | None = None,
    keep: str | Collection[str] = (),
    missing_values: Any = (),
) -> Table:
    """Return the rows and labels of a pandas or polars frame, as `read` does those of a file.

    Parameters
    ----------
    frame : DataFrame
    label, index, keep, missing_values
        As for `read`.

    Returns
    -------
    Table

    Examples
    --------
    >>> import pandas as pd
    >>> from noisyfit import tables
    >>> frame = pd.DataFrame({"age": [31, 52], "member": ["yes", "no"]}, index=["Ann", "Bob"])
    >>> tables.from_frame(frame, label="member").y.to_dict()
    {'Ann': 'yes', 'Bob': 'no'}
    """
    if hasattr(frame, "to_pandas"):
        frame = frame.to_pandas()
    if not hasattr(frame, "iloc") or not hasattr(frame, "columns"):
        raise TypeError(
            f"frame must be a pandas or polars DataFrame. Got {type(frame).__name__}. Pass files "
            "to noisyfit.tables.read."
        )
    return split(with_gaps(frame, missing_values), label, index, keep, "the frame")


def pipeline(estimator: Any) -> Pipeline:
    """Return a pipeline that turns rows with text, categories, dates and gaps into numbers.

    It is skrub's ``tabular_pipeline``: a column of fewer than 40 categories becomes one column for
    each, one of more or of text 30 numbers, dates become their parts, and a gap in numbers the mean
    of its column. For estimators other than trees, outliers are squashed. A category that ``fit``
    has not seen is all zeros.

    Unlike skrub's own, the encoder of text has the ``random_state`` of the estimator, and the
    estimator gets frames, so that ``label_issues()`` has the index of ``X``. There are no columns
    that say where gaps are: on four tables with wrong labels they cost cross-entropy 1.8 points of
    accuracy where gaps say nothing about the class, and won 0.4 where they do. To have them,
    ``set_params(simpleimputer__add_indicator=True)``.

    Parameters
    ----------
    estimator : estimator
        Any classifier with scikit-learn's interface.

    Returns
    -------
    Pipeline
        Its last step is ``estimator`` itself.

    Raises
    ------
    ImportError
        Without skrub: ``pip install "noisyfit[tables]"``.

    Examples
    --------
    >>> from noisyfit import FlywheelClassifier, tables
    >>> tables.pipeline(FlywheelClassifier())[-1]
    FlywheelClassifier()
    """
    try:
        import skrub
    except ImportError as error:
        raise ImportError(f"Tables need skrub. Install it: {INSTALL}.") from error
    made = skrub.tabular_pipeline(estimator)
    text = skrub.StringEncoder(random_state=getattr(estimator, "random_state", None))
    made.set_params(tablevectorizer__high_cardinality=text)
    if "simpleimputer" in made.named_steps:
        made.set_params(simpleimputer__add_indicator=False)
    made[:-1].set_output(transform="pandas")
    return made
