"""The figures of a report. They need matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from noisyfit.benchmark.summary import PLACE, title_of

if TYPE_CHECKING:
    import pandas as pd

RIGHT, WRONG = "#1b6e3c", "#b3261e"
COLUMNS = 4  # histograms side by side


def accuracy(part: pd.DataFrame) -> Figure:
    """Draw the accuracy after the last epoch with its spread, one line per method.

    Parameters
    ----------
    part : DataFrame
        Rows of `noisyfit.benchmark.summary.summarize` of one data set.
    """
    methods = list(dict.fromkeys(part["method"]))
    figure = Figure(figsize=(8, 1.6 + 0.4 * len(methods)), layout="constrained")
    axes = figure.subplots()
    kinds = list(part.groupby(PLACE, sort=False))
    for number, (place, rows) in enumerate(kinds):
        shift = 0.5 * ((number + 0.5) / len(kinds) - 0.5)
        axes.errorbar(
            100 * rows["accuracy_last"],
            [methods.index(name) + shift for name in rows["method"]],
            xerr=100 * rows["accuracy_last_std"].fillna(0),
            fmt="o",
            capsize=3,
            label=title_of(*place),
        )
    axes.set_yticks(range(len(methods)), methods)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("accuracy on clean test labels after the last epoch, %")
    figure.legend(loc="outside upper left", fontsize="small", ncols=2)
    return figure


def above_baseline(points: pd.DataFrame) -> Figure:
    """Draw how far each method is above cross-entropy, one dot per cell, the best median first.

    Parameters
    ----------
    points : DataFrame
        Rows of `noisyfit.benchmark.summary.differences`.
    """
    medians = points.groupby("method")["difference"].median().sort_values(ascending=False)
    figure = Figure(figsize=(8, 1.6 + 0.4 * len(medians)), layout="constrained")
    axes = figure.subplots()
    for kind, part in points.groupby("noise", sort=False):
        places = [list(medians.index).index(name) for name in part["method"]]
        axes.plot(part["difference"], places, "o", alpha=0.6, label=kind)
    axes.plot(medians, range(len(medians)), "|", color="black", markersize=16, label="median")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(medians)), medians.index)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("accuracy above that of cross-entropy on the same labels, points")
    figure.legend(loc="outside upper left", fontsize="small", ncols=4)
    return figure


def gap_recovery(summary: pd.DataFrame) -> Figure:
    """Draw how much of the loss each method recovers in each cell, the best on average first.

    Parameters
    ----------
    summary : DataFrame
        Result of `noisyfit.benchmark.summary.summarize`.
    """
    recovered = _recovered(summary)
    titles = [title_of(*place) for place in recovered]
    size = 3 + 0.62 * len(titles), 2.8 + 0.32 * len(recovered)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.imshow(recovered, cmap="RdYlGn", vmin=-100, vmax=100, aspect="auto")
    for line, values in enumerate(recovered.to_numpy()):
        for column, value in enumerate(values):
            if np.isfinite(value):
                text = f"{round(float(value))}"
                axes.text(column, line, text, ha="center", va="center", fontsize="small")
    axes.set_yticks(range(len(recovered)), list(recovered.index))
    axes.set_xticks(range(len(titles)), titles, rotation=40, ha="right", fontsize="small")
    axes.set_title("gap recovery, %: 0 is cross-entropy, 100 clean labels", fontsize="medium")
    return figure


def gap_recovery_by_cost(summary: pd.DataFrame) -> Figure:
    """Draw the mean gap recovery over all cells against the mean time of a fit.

    Parameters
    ----------
    summary : DataFrame
        Result of `noisyfit.benchmark.summary.summarize`.
    """
    recovered = _recovered(summary).mean(axis=1)
    seconds = summary.groupby("method")["seconds"].mean().reindex(recovered.index)
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.scatter(seconds, recovered)
    _name_points(axes, recovered.index, seconds, recovered)
    _show_seconds(axes)
    axes.set_ylabel("mean gap recovery over all cells, %")
    return figure


def _recovered(summary: pd.DataFrame) -> pd.DataFrame:
    """Return gap recovery in %, at least -100, methods that have all cells by cells."""
    known = summary.dropna(subset="gap_recovery")
    wide = 100 * known.pivot_table("gap_recovery", "method", PLACE, sort=False)
    wide = wide.dropna().clip(lower=-100)
    return wide.loc[wide.mean(axis=1).sort_values(ascending=False).index]


def _name_points(axes: Any, names: Any, x: Any, y: Any, color: Any = None) -> None:
    for name, own_x, own_y in zip(names, x, y, strict=True):
        shift: dict[str, Any] = {"xytext": (4, 3), "textcoords": "offset points"}
        axes.annotate(name, (own_x, own_y), fontsize="small", color=color, **shift)


def _show_seconds(axes: Any) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.margins(x=0.15)
    axes.grid(alpha=0.3)
    axes.set_xlabel("seconds of a fit")


def cost(part: pd.DataFrame) -> Figure:
    """Draw the accuracy against the time of a fit.

    Parameters
    ----------
    part : DataFrame
        Rows of `noisyfit.benchmark.summary.summarize` of one data set.
    """
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for place, rows in part.groupby(PLACE, sort=False):
        points = axes.scatter(rows["seconds"], 100 * rows["accuracy_last"], label=title_of(*place))
        color: Any = points.get_facecolor()[0]
        _name_points(axes, rows["method"], rows["seconds"], 100 * rows["accuracy_last"], color)
    _show_seconds(axes)
    axes.set_ylabel("accuracy on clean test labels, %")
    figure.legend(loc="outside upper left", fontsize="small", ncols=2)
    return figure


def separation(histograms: dict[str, dict[str, list[float]]], title: str) -> Figure:
    """Draw how far apart the qualities of right and wrong labels are, one panel per method.

    Parameters
    ----------
    histograms : dict
        By method, the fractions of the ``"right"`` and ``"wrong"`` labels in equal bins.
    title : str
    """
    n_columns = min(COLUMNS, len(histograms))
    n_lines = -(-len(histograms) // n_columns)
    size = 2.6 * n_columns + 0.6, 1.8 * n_lines + 0.8
    figure = Figure(figsize=(max(5.5, size[0]), size[1]), layout="constrained")
    panels = figure.subplots(n_lines, n_columns, squeeze=False).ravel()
    for axes, (method, shares) in zip(panels, histograms.items(), strict=False):
        for side, color in (("right", RIGHT), ("wrong", WRONG)):
            edges = np.linspace(0, 1, len(shares[side]) + 1)
            axes.stairs(shares[side], edges, fill=True, alpha=0.55, color=color, label=side)
        axes.set_title(method, fontsize="small")
        axes.set_yticks([])
    for axes in panels[len(histograms) :]:
        axes.set_axis_off()
    panels[0].legend(fontsize="x-small")
    figure.suptitle(f"label_quality_ of right and wrong labels: {title}", fontsize="medium")
    return figure
