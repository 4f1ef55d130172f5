"""What the displays share: axes, styles, names of classes, and what a fit left behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

LITERAL: dict[str, Any] = {"parse_math": False, "usetex": False}  # a $ is a $
LONGEST = 30  # characters of a name beside a matrix
SPACING = 1.15  # between names, in units of their size


def pyplot() -> Any:
    """Return ``matplotlib.pyplot``.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "Displays need matplotlib, which cannot be imported. Install it: "
            'pip install "noisyfit[plot]".'
        ) from error
    return plt


def axes_or_new(ax: Axes | None, **figure: Any) -> tuple[Axes, Figure]:
    """Return the axes to draw on, or those of a new figure, and the figure."""
    plt = pyplot()
    axes: Any = plt.subplots(layout="constrained", **figure)[1] if ax is None else ax
    return axes, axes.get_figure(root=True)


def panels(ax: Axes, n: int, n_columns: int) -> list[Axes]:
    """Divide axes into ``n`` panels, and hide what they divide."""
    place = ax.get_subplotspec()
    if place is None:
        raise ValueError(
            "ax must be a subplot, which can be divided into panels. Got axes that were placed by "
            "hand. Make them with matplotlib.pyplot.subplots or Figure.add_subplot."
        )
    ax.set_axis_off()
    grid = place.subgridspec(ceil(n / n_columns), n_columns)
    return [ax.figure.add_subplot(grid[divmod(i, n_columns)]) for i in range(n)]


def styled(kind: type, defaults: Mapping[str, Any], given: Mapping[str, Any] | None) -> Any:
    """Return the defaults of an artist, replaced by what is given under any of their aliases."""
    from matplotlib.cbook import normalize_kwargs

    return normalize_kwargs(dict(defaults), kind) | normalize_kwargs(dict(given or {}), kind)


def write_names(ax: Axes, names: Sequence[Any]) -> None:
    """Name the places 0, 1, ... of both axes of a matrix; where not all names fit, every k-th."""
    ax.apply_aspect()
    step = _step(min(map(_distance, (ax.xaxis, ax.yaxis))), SPACING * _height_of_font(ax))
    places = range(0, len(names), step)
    texts = [shortened(names[place], LONGEST) for place in places]
    ax.set_xticks(places, texts, **LITERAL)
    ax.set_yticks(places, texts, **LITERAL)
    _lay_out(ax)
    if _size_of_names(ax.xaxis, "width") > step * _distance(ax.xaxis):
        ax.tick_params("x", rotation=90)
        _lay_out(ax)
    sizes = {
        "x": min(_size_of_names(ax.xaxis, side) for side in ("width", "height")),
        "y": _size_of_names(ax.yaxis, "height"),
    }
    for name, size in sizes.items():
        every = _step(step * _distance(getattr(ax, f"{name}axis")), size)
        getattr(ax, f"set_{name}ticks")(places[::every], texts[::every], **LITERAL)


def _step(distance: float, size: float) -> int:
    """Return how many places apart names are that have this size."""
    return max(1, ceil(size / distance))


def _height_of_font(ax: Axes) -> float:
    """Return the height of the font of the ticks in pixels."""
    from matplotlib import rcParams
    from matplotlib.font_manager import FontProperties

    points = FontProperties(size=rcParams["ytick.labelsize"]).get_size_in_points()
    figure: Any = ax.figure
    return float(points / 72 * figure.dpi)


def _lay_out(ax: Axes) -> None:
    figure: Any = ax.get_figure(root=True)
    figure.draw_without_rendering()


def _size_of_names(axis: Axis, side: str) -> float:
    """Return the width or height of the largest name, with some space, in pixels."""
    extents = [label.get_window_extent() for label in axis.get_ticklabels()]
    return SPACING * max(getattr(extent, side) for extent in extents)


def _distance(axis: Any) -> float:
    """Return the pixels between two places."""
    ends = axis.axes.transData.transform([(0, 0), (1, 1)])
    return float(np.abs(np.diff(ends, axis=0))[0, 0 if axis.axis_name == "x" else 1])


def shortened(name: Any, n_characters: int) -> str:
    """Return a name on one line; of one that is too long, its beginning and its end."""
    text = " ".join(str(name).split())
    end = n_characters // 2
    return text if len(text) <= n_characters else f"{text[: n_characters - end - 1]}…{text[-end:]}"


def last_step(estimator: Any, *needed: str) -> Any:
    """Return the fitted classifier inside searches and pipelines.

    Parameters
    ----------
    estimator : object
    *needed : str
        Attributes that it must have.

    Raises
    ------
    NotFittedError, TypeError
        If it is not fitted, or lacks an attribute.
    """
    if hasattr(estimator, "best_estimator_"):
        return last_step(estimator.best_estimator_, *needed)
    if hasattr(estimator, "steps"):
        return last_step(estimator[-1], *needed)
    check_is_fitted(estimator)
    for name in needed:
        if not hasattr(estimator, name):
            raise TypeError(
                f"The estimator must have {name}. Got {type(estimator).__name__}, which has none. "
                "Pass a classifier of noisyfit, or a pipeline or search that ends in one."
            )
    return estimator
