"""The most suspicious labels, with their images or rows."""

from __future__ import annotations

import os
from math import ceil
from numbers import Integral
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from noisyfit.displays.drawing import LITERAL, axes_or_new, last_step, panels, shortened, styled
from noisyfit.utils.parameters import check_number
from noisyfit.utils.validation import as_column, take_rows

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from matplotlib.table import Table

COLUMNS = 6  # images side by side
LARGEST_IMAGE = 256  # pixels; JPEG files are not decoded much larger
NAME, ENTRY, TEXT = 12, 20, 60  # characters of names and labels, of a table's entries, of texts
TINY = 1e-12  # of the range of images of one colour
N_FEATURES = 5  # columns of a table that are shown


class LabelIssuesDisplay:
    """Grid of the labels that look wrong, the most suspicious first.

    Images are shown with what is known about their labels above them; rows of a table and texts are
    lines of a table. Use `from_estimator` or `from_predictions` to make one. All parameters are
    stored as attributes.

    Parameters
    ----------
    issues : pandas.DataFrame
        The issues that are shown, with the columns ``given_label``, ``predicted_label`` and
        ``label_quality``.
    rows : list of ndarray, or pandas.DataFrame
        Their images, (H, W), (H, W, 3) or (H, W, 4), or the columns to show.

    Attributes
    ----------
    images_ : list of matplotlib.image.AxesImage
        Empty for a table.
    table_ : matplotlib.table.Table or None
        None for images.
    axes_ : list of matplotlib.axes.Axes
        The axes of each image; empty for a table.
    ax_ : matplotlib.axes.Axes
        The axes that hold everything.
    figure_ : matplotlib.figure.Figure

    Examples
    --------
    >>> from noisyfit import LabelIssuesDisplay, quality
    >>> issues = quality.label_issues_frame([False, True], [0.9, 0.1], ["a", "a"], ["a", "b"])
    >>> display = LabelIssuesDisplay.from_predictions(issues, [[5.1, 3.5], [6.2, 2.9]])
    >>> [display.table_[1, column].get_text().get_text() for column in range(6)]
    ['1', 'a', 'b', '0.10', '6.2', '2.9']
    """

    images_: list[AxesImage]
    table_: Table | None
    axes_: list[Axes]
    ax_: Axes
    figure_: Figure

    def __init__(self, issues: pd.DataFrame, rows: list[NDArray[Any]] | pd.DataFrame) -> None:
        self.issues = issues
        self.rows = rows

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        n_issues: int = 12,
        features: Any = None,
        image_layout: str = "auto",
        **plot: Any,
    ) -> Self:
        """Draw the issues among the labels that a classifier was trained on.

        Parameters
        ----------
        estimator : estimator
            Fitted classifier with ``label_issues()``, or a pipeline or search that ends in one.
        X : array-like, memmap, Tensor, Dataset, or list of image files or texts
            The rows of ``fit`` in the same order, as a person wants to see them: images rather than
            their features.
        n_issues : int >= 1, default=12
            How many are shown at most.
        features : list of column names, or of column numbers of an array, default=None
            Which columns of a table are shown. None shows the first five.
        image_layout : {"auto", "HW", "HWC", "CHW"}, default="auto"
            Order of the axes of one image.
        **plot
            Parameters of `plot`.

        Returns
        -------
        LabelIssuesDisplay
        """
        issues = last_step(estimator, "label_issues").label_issues()
        return cls.from_predictions(
            issues, X, n_issues=n_issues, features=features, image_layout=image_layout, **plot
        )

    @classmethod
    def from_predictions(
        cls,
        issues: pd.DataFrame,
        X: Any,
        *,
        n_issues: int = 12,
        features: Any = None,
        image_layout: str = "auto",
        **plot: Any,
    ) -> Self:
        """Draw issues, from wherever they come.

        Parameters
        ----------
        issues : pandas.DataFrame
            One row per row of X, with the columns of ``label_issues()``, which are also those of
            cleanlab: ``is_label_issue``, ``label_quality``, ``given_label``, ``predicted_label``.
        X : array-like, memmap, Tensor, Dataset, or list of image files or texts
            As in `from_estimator`.
        n_issues : int >= 1, default=12
            How many are shown at most.
        features : list of column names, or of column numbers of an array, default=None
            Which columns of a table are shown. None shows the first five.
        image_layout : {"auto", "HW", "HWC", "CHW"}, default="auto"
            Order of the axes of one image.
        **plot
            Parameters of `plot`.

        Returns
        -------
        LabelIssuesDisplay
        """
        check_number("n_issues", n_issues, Integral)
        n_rows = X.shape[0] if hasattr(X, "shape") else len(X)  # sparse tables have no length
        if n_rows != len(issues) or n_issues < 1:
            raise ValueError(
                "X must have the rows that the issues are about, and n_issues be at least 1. Got "
                f"{n_rows} rows, {len(issues)} issues and n_issues={n_issues}."
            )
        rating = issues["label_quality"].to_numpy(dtype=np.float64)
        worst = np.argsort(rating, kind="stable")  # NaN is last
        shown = worst[issues["is_label_issue"].to_numpy(dtype=bool)[worst]][:n_issues]
        return cls(issues.iloc[shown], _rows_at(shown, X, features, image_layout)).plot(**plot)

    def plot(
        self,
        *,
        n_columns: int = COLUMNS,
        ax: Axes | None = None,
        im_kw: dict[str, Any] | None = None,
        text_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Draw the grid.

        Parameters
        ----------
        n_columns : int, default=6
            Images side by side.
        ax : matplotlib axes, default=None
            Divided into panels for images. None makes a new figure.
        im_kw : dict, default=None
            Keywords for ``matplotlib.axes.Axes.imshow``.
        text_kw : dict, default=None
            Keywords for the texts, of ``matplotlib.text.Text``.

        Returns
        -------
        self
        """
        self.images_, self.axes_, self.table_ = [], [], None
        n, is_table = len(self.issues), hasattr(self.rows, "columns")
        n_columns = max(1, min(n_columns, n))
        height = 0.3 * (n + 1) if is_table else 2.1 * ceil(n / n_columns)
        self.ax_, self.figure_ = axes_or_new(
            ax, figsize=(9 if is_table else 1.6 * n_columns, max(1, height))
        )
        self.ax_.set_axis_off()
        if not n:
            self.ax_.text(0.5, 0.5, "No label looks wrong.", ha="center", va="center")
        elif is_table:
            self.table_ = self._draw_table(text_kw)
        else:
            self.axes_ = panels(self.ax_, n, n_columns)
            self._draw_images(im_kw, text_kw)
        return self

    def _draw_images(self, im_kw: dict[str, Any] | None, text_kw: dict[str, Any] | None) -> None:
        from matplotlib.text import Text

        rows: Any = self.rows
        black, white = _scale(rows)
        look: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 1}
        title = styled(Text, {"fontsize": "small", **LITERAL}, text_kw)
        for axes, image, issue in zip(self.axes_, rows, self._told(), strict=True):
            scaled = (image - black) / max(white - black, TINY)
            self.images_.append(axes.imshow(scaled, **look | (im_kw or {})))
            name, given, suggested, rating = issue
            axes.set_title(
                f"{name}, quality {rating}\ngiven {given}\nsuggested {suggested}", **title
            )
            axes.set_axis_off()

    def _draw_table(self, text_kw: dict[str, Any] | None) -> Table:
        from matplotlib import rcParams
        from matplotlib.text import Text

        rows: Any = self.rows
        width = TEXT if len(rows.columns) == 1 else ENTRY
        entries = [[shortened(_told(entry), width) for entry in row] for row in rows.to_numpy()]
        lines = [[*issue, *row] for issue, row in zip(self._told(), entries, strict=True)]
        head = ["row", "given", "suggested", "quality"]
        head += [shortened(name, width) for name in rows.columns]
        widths = [max(map(len, column)) + 4 for column in zip(head, *lines, strict=True)]
        whole: Any = (0, 0, 1, 1)
        table = self.ax_.table(
            lines, colLabels=head, colWidths=widths, cellLoc="left", colLoc="left", bbox=whole
        )
        style = styled(Text, {"color": rcParams["text.color"], **LITERAL}, text_kw)
        for (row, _), cell in table.get_celld().items():
            cell.set(facecolor="none", edgecolor=rcParams["axes.edgecolor"], linewidth=0.5)
            cell.visible_edges = "horizontal" if row else "B"
            cell.get_text().set(**style)
        return table

    def _told(self) -> list[list[str]]:
        """Return name, given label, suggested label and quality of each issue as text."""
        columns = ("given_label", "predicted_label")
        labels = self.issues[list(columns)].to_numpy(dtype=object)
        names = [
            [shortened(text, NAME) for text in (name, *pair)]
            for name, pair in zip(self.issues.index, labels, strict=True)
        ]
        ratings = [f"{rating:.2f}" for rating in self.issues["label_quality"]]
        return [[*name, rating] for name, rating in zip(names, ratings, strict=True)]


def _told(entry: Any) -> str:
    """Return an entry of a table as text, a fraction with four digits."""
    return f"{entry:.4g}" if isinstance(entry, float | np.floating) else str(entry)


def _scale(images: list[NDArray[Any]]) -> tuple[float, float]:
    """Return the values of black and white: of floats beyond 0 to 1, the range that they span."""
    if images[0].dtype == np.uint8:
        return 0.0, 255.0
    low, high = min(x.min() for x in images), max(x.max() for x in images)
    return (0.0, 1.0) if low >= 0 and high <= 1 else (float(low), float(high))


def _rows_at(
    places: NDArray[np.intp], X: Any, features: Any, layout: str
) -> list[NDArray[Any]] | pd.DataFrame:
    """Return some rows of X as images or as a table."""
    import torch

    from noisyfit.data.rows import Rows, shape_of, unwrapped
    from noisyfit.estimator.format import image_layout, is_lazy

    if not len(places):
        return []
    shape = X.shape if hasattr(X, "shape") else shape_of(X)
    is_frame = hasattr(X, "columns")
    if len(shape) == 1 or (is_frame and shape[1] == 1):
        return _column_at(places, X, X.columns[0] if is_frame else "text", layout)
    if len(shape) == 2 and not is_lazy(X):
        return _table_of(take_rows(X, places), features)
    rows = Rows(unwrapped(X), image_layout(shape, layout), torch.device("cpu"))
    chosen = rows.take(torch.as_tensor(places))
    if rows.layout == "table":
        return _table_of(chosen.numpy(), features)
    images = chosen.permute(0, 2, 3, 1).numpy()
    return list(images[..., 0] if images.shape[-1] == 1 else images)


def _column_at(
    places: NDArray[np.intp], X: Any, name: str, layout: str
) -> list[NDArray[Any]] | pd.DataFrame:
    """Return the images that some entries name or, if they name none, a table of the entries."""
    import pandas as pd

    from noisyfit.embedding.images import images_of

    entries = as_column(X)[places].tolist()
    first = entries[0]
    if not isinstance(first, str | os.PathLike) or not os.path.isfile(first):
        return pd.DataFrame({name: entries})
    files = images_of(entries, layout)
    decoded = (files.decode(files.read(i), LARGEST_IMAGE) for i in range(len(files)))
    return [image.permute(1, 2, 0).numpy().astype(np.uint8) for image in decoded]


def _table_of(chosen: Any, features: Any) -> pd.DataFrame:
    """Return rows in any container as a frame of the columns to show."""
    import pandas as pd

    if hasattr(chosen, "toarray"):
        chosen = chosen.toarray()
    names = list(getattr(chosen, "columns", range(np.shape(chosen)[1])))
    table = pd.DataFrame(np.asarray(chosen, dtype=object), columns=names)
    return table[list(features) if features is not None else names[:N_FEATURES]]
