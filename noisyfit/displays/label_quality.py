"""How far apart the qualities of right and wrong labels are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from noisyfit.displays.drawing import LITERAL, axes_or_new, last_step, styled
from noisyfit.metrics import detection_auroc
from noisyfit.utils.validation import as_column, is_missing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import StepPatch


class LabelQualityDisplay:
    """Histogram of label quality, of right and wrong labels apart if the truth is known.

    Use `from_estimator` or `from_predictions` to make one. All parameters are stored as attributes.

    Parameters
    ----------
    label_quality : array-like of shape (n_samples,)
        Low means suspicious. Rows with NaN, those without a label, are left out.
    flipped : array-like of bool, shape (n_samples,), default=None
        Which labels are truly wrong. None means that nobody knows.
    auroc : float, default=None
        Chance that a wrong label has a lower quality than a right one; shown in the legend.
    name : str, default=None
        Shown above the legend, such as the name of the classifier.

    Attributes
    ----------
    histograms_ : list of matplotlib.patches.StepPatch
        All labels or, with ``flipped``, the right and the wrong ones.
    ax_ : matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure

    See Also
    --------
    noisyfit.metrics.detection_auroc : The area in the legend.

    Examples
    --------
    >>> from noisyfit import LabelQualityDisplay
    >>> display = LabelQualityDisplay.from_predictions(
    ...     [0.1, 0.9, 0.8, 0.2], flipped=[True, False, False, True], bins=2
    ... )
    >>> [histogram.get_data().values.tolist() for histogram in display.histograms_]
    [[0, 2], [2, 0]]
    """

    histograms_: list[StepPatch]
    ax_: Axes
    figure_: Figure

    def __init__(
        self,
        label_quality: ArrayLike,
        *,
        flipped: ArrayLike | None = None,
        auroc: float | None = None,
        name: str | None = None,
    ) -> None:
        self.label_quality = label_quality
        self.flipped = flipped
        self.auroc = auroc
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        y_true: Any = None,
        name: str | None = None,
        **plot: Any,
    ) -> Self:
        """Draw the quality of the labels that a classifier was trained on.

        Parameters
        ----------
        estimator : estimator
            Fitted classifier with ``label_quality_``, or a pipeline or search that ends in one.
        y_true : array-like of shape (n_samples,), default=None
            True labels of the rows of ``fit``, if they are known. Rows where they are None, NaN,
            NaT or pandas' NA are left out.
        name : str, default=None
            None takes the name of the class.
        **plot
            Parameters of `plot`.

        Returns
        -------
        LabelQualityDisplay
        """
        found = last_step(estimator, "label_quality_", "given_labels_")
        name = type(found).__name__ if name is None else name
        rating, flipped = np.array(found.label_quality_, dtype=np.float64), None
        if y_true is not None:
            true = as_column(y_true)
            if true.shape != rating.shape:
                raise ValueError(
                    f"y_true must have one label for each row of fit, shape {rating.shape}. Got "
                    f"{true.shape}."
                )
            rating[is_missing(true, np.nan)] = np.nan
            flipped = np.asarray(as_column(found.given_labels_) != true)
        return cls.from_predictions(rating, flipped=flipped, name=name, **plot)

    @classmethod
    def from_predictions(
        cls,
        label_quality: ArrayLike,
        *,
        flipped: ArrayLike | None = None,
        name: str | None = None,
        **plot: Any,
    ) -> Self:
        """Draw the quality of labels, from wherever it comes.

        Parameters
        ----------
        label_quality : array-like of shape (n_samples,)
            Low means suspicious. Rows with NaN are left out.
        flipped : array-like of bool, shape (n_samples,), default=None
            Which labels are truly wrong. None means that nobody knows.
        name : str, default=None
        **plot
            Parameters of `plot`.

        Returns
        -------
        LabelQualityDisplay
            ``auroc`` is None if the rated labels are all right or all wrong.
        """
        auroc = None
        if flipped is not None:
            _, wrong = _rated(label_quality, flipped)
            if wrong.any() and not wrong.all():
                auroc = detection_auroc(flipped, label_quality)
        return cls(label_quality, flipped=flipped, auroc=auroc, name=name).plot(**plot)

    def plot(self, *, bins: int = 25, ax: Axes | None = None, **kwargs: Any) -> Self:
        """Draw the histograms.

        Parameters
        ----------
        bins : int, default=25
            Number of bins, of equal width, from 0 to 1 or further where the quality goes further.
        ax : matplotlib axes, default=None
            None makes a new figure.
        **kwargs
            Keywords for ``matplotlib.axes.Axes.stairs``.

        Returns
        -------
        self
        """
        from_row, wrong = _rated(self.label_quality, self.flipped)
        parts = {"labels": from_row}
        if self.flipped is not None:
            parts = {"right labels": from_row[~wrong], "wrong labels": from_row[wrong]}
        self.ax_, self.figure_ = axes_or_new(ax)
        ends = min(0.0, from_row.min()), max(1.0, from_row.max())
        edges = np.histogram_bin_edges(from_row, bins, range=ends)
        self.histograms_ = [self._stairs(part, edges, name, kwargs) for name, part in parts.items()]
        self.ax_.set(xlabel="Label quality", ylabel="Number of labels")
        legend = self.ax_.legend(title=self._title())
        legend.get_title().set(**LITERAL)
        return self

    def _stairs(
        self, part: NDArray[Any], edges: NDArray[Any], name: str, style: dict[str, Any]
    ) -> StepPatch:
        from matplotlib.patches import StepPatch

        look = {"fill": True, "alpha": 0.6, "label": f"{name} ({len(part):,})"}
        return self.ax_.stairs(
            np.histogram(part, edges)[0], edges, **styled(StepPatch, look, style)
        )

    def _title(self) -> str | None:
        if self.auroc is None:
            return self.name
        return f"{self.name or ''} (AUROC = {self.auroc:.2f})".lstrip()


def _rated(
    label_quality: ArrayLike, flipped: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the qualities that are numbers, and which of these labels are wrong."""
    rating: NDArray[np.float64] = np.asarray(label_quality, dtype=np.float64)
    wrong = np.zeros(rating.shape, bool) if flipped is None else np.asarray(flipped)
    if rating.ndim != 1 or wrong.shape != rating.shape or not np.isin(wrong, [0, 1]).all():
        raise ValueError(
            "label_quality must have shape (n_samples,), and flipped be a boolean mask of the same "
            f"shape. Got {rating.shape} and {wrong.dtype} {wrong.shape}."
        )
    known = ~np.isnan(rating)
    if not known.any():
        raise ValueError(
            f"label_quality must hold a number. Got NaN in all of {len(rating)} rows: none has a "
            "label that was rated."
        )
    return rating[known], wrong[known].astype(bool)
