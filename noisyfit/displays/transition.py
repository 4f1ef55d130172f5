"""Which classes are mistaken for which."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from noisyfit import quality
from noisyfit.displays.drawing import axes_or_new, last_step, styled, write_names
from noisyfit.utils.validation import as_column, encode, find_classes, is_missing, present_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

WIDTH_OF_VALUE = 3.2  # of "0.00" with some space, in units of the size of its font
SMALLEST_FONT = 6.0  # points


class TransitionMatrixDisplay:
    """Picture of a transition matrix: rows are true classes, columns given ones.

    Use `from_estimator` or `from_predictions` to make one. All parameters are stored as attributes.

    Parameters
    ----------
    transition_matrix : array-like of shape (n_classes, n_classes)
        Probability of the given class (column) given the true class (row).
    display_labels : array-like of shape (n_classes,), default=None
        Names of the classes. None numbers them.

    Attributes
    ----------
    im_ : matplotlib.image.AxesImage
    text_ : ndarray of matplotlib.text.Text, shape (n_classes, n_classes), or None
        The values in the cells; None if they are not shown.
    ax_ : matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure

    See Also
    --------
    noisyfit.metrics.transition_matrix_error : Compare an estimate with the truth.

    Examples
    --------
    >>> from noisyfit import TransitionMatrixDisplay
    >>> display = TransitionMatrixDisplay.from_predictions(
    ...     y_true=["cat", "cat", "dog", "dog"], y_given=["cat", "dog", "dog", "dog"]
    ... )
    >>> [text.get_text() for text in display.text_[0]]
    ['0.50', '0.50']
    """

    im_: AxesImage
    text_: NDArray[Any] | None
    ax_: Axes
    figure_: Figure

    def __init__(self, transition_matrix: ArrayLike, *, display_labels: Any = None) -> None:
        self.transition_matrix = transition_matrix
        self.display_labels = display_labels

    @classmethod
    def from_estimator(cls, estimator: Any, *, display_labels: Any = None, **plot: Any) -> Self:
        """Draw the matrix that a classifier has estimated.

        Parameters
        ----------
        estimator : estimator
            Fitted classifier with ``transition_matrix_``, or a pipeline or search that ends in one.
        display_labels : array-like of shape (n_classes,), default=None
            Names of the classes. None takes ``classes_``.
        **plot
            Parameters of `plot`.

        Returns
        -------
        TransitionMatrixDisplay
        """
        found = last_step(estimator, "transition_matrix_", "classes_")
        names = found.classes_ if display_labels is None else display_labels
        return cls(found.transition_matrix_, display_labels=names).plot(**plot)

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        y_given: Any,
        *,
        labels: Any = None,
        display_labels: Any = None,
        missing_label: Any = np.nan,
        **plot: Any,
    ) -> Self:
        """Draw the matrix that follows from true, or believed, and given labels.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            True labels, or what stands for them, such as ``corrected_labels_``.
        y_given : array-like of shape (n_samples,)
            Given labels.
        labels : array-like of shape (n_classes,), default=None
            The classes in the order in which they are shown. None takes all that occur, sorted.
        display_labels : array-like of shape (n_classes,), default=None
            Names of the classes. None takes ``labels``.
        missing_label : scalar, default=numpy.nan
            Marks rows without a label, which are left out. NaN also marks None, NaT and pandas' NA.
        **plot
            Parameters of `plot`.

        Returns
        -------
        TransitionMatrixDisplay
            A class without a true label has a row of the identity.
        """
        columns = {"y_true": as_column(y_true), "y_given": as_column(y_given)}
        missing = {name: is_missing(y, missing_label) for name, y in columns.items()}
        if labels is None:
            present = [present_labels(y, missing[name], name) for name, y in columns.items()]
            classes = find_classes(np.concatenate(present))
        else:
            classes = as_column(labels)
        true, given = (encode(y, classes, missing[name], name) for name, y in columns.items())
        belief = np.eye(len(classes))[true] * (true >= 0)[:, None]
        matrix = quality.transition_matrix(given, belief)
        names = classes if display_labels is None else display_labels
        return cls(matrix, display_labels=names).plot(**plot)

    def plot(
        self,
        *,
        include_values: bool | None = None,
        values_format: str = ".2f",
        cmap: str | Colormap = "viridis",
        colorbar: bool = True,
        ax: Axes | None = None,
        im_kw: dict[str, Any] | None = None,
        text_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Draw the matrix.

        Where not all names of classes fit, only every second, third, ... is written.

        Parameters
        ----------
        include_values : bool or None, default=None
            Whether to write the values into the cells. None writes them if they fit.
        values_format : str, default=".2f"
            Format specification of the values.
        cmap : str or matplotlib colormap, default="viridis"
        colorbar : bool, default=True
        ax : matplotlib axes, default=None
            None makes a new figure.
        im_kw : dict, default=None
            Keywords for ``matplotlib.axes.Axes.imshow``.
        text_kw : dict, default=None
            Keywords for ``matplotlib.axes.Axes.text``.

        Returns
        -------
        self
        """
        matrix, names = self._checked()
        self.ax_, self.figure_ = axes_or_new(ax)
        look: dict[str, Any] = {"cmap": cmap, "interpolation": "nearest"} | (im_kw or {})
        if "norm" not in look:
            look = {"vmin": 0, "vmax": 1} | look
        self.im_ = self.ax_.imshow(matrix, **look)
        if colorbar:
            self.ax_.figure.colorbar(self.im_, ax=self.ax_, label="Probability")
        self.ax_.set(xlabel="Given class", ylabel="True class")
        write_names(self.ax_, names)
        self.text_ = self._write_values(matrix, include_values, values_format, text_kw)
        return self

    def _checked(self) -> tuple[NDArray[np.float64], list[Any]]:
        matrix = np.asarray(self.transition_matrix, dtype=np.float64)
        n_classes = len(matrix) if matrix.ndim else 0
        given = range(n_classes) if self.display_labels is None else self.display_labels
        names = list(np.asarray(given))
        if matrix.shape != (n_classes, n_classes) or not n_classes or len(names) != n_classes:
            raise ValueError(
                "transition_matrix must have shape (n_classes, n_classes), and display_labels one "
                f"name for each class. Got shape {matrix.shape} and {len(names)} names."
            )
        return matrix, names

    def _write_values(
        self,
        matrix: NDArray[np.float64],
        include: bool | None,
        values_format: str,
        style: dict[str, Any] | None,
    ) -> NDArray[Any] | None:
        from matplotlib.font_manager import FontProperties
        from matplotlib.text import Text

        cell = self.ax_.get_window_extent().width / self.figure_.dpi * 72 / len(matrix)
        size = min(FontProperties().get_size_in_points(), cell / WIDTH_OF_VALUE)
        if include is False or (include is None and size < SMALLEST_FONT):
            return None
        texts = np.empty(matrix.shape, dtype=object)
        for (row, column), value in np.ndenumerate(matrix):
            look = {"ha": "center", "va": "center", "fontsize": size, "color": self._ink(value)}
            text = format(value, values_format)
            texts[row, column] = self.ax_.text(column, row, text, **styled(Text, look, style))
        return texts

    def _ink(self, value: Any) -> str:
        """Return the colour that can be read on the cell of a value."""
        red, green, blue, _ = self.im_.cmap(self.im_.norm(value))
        return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
