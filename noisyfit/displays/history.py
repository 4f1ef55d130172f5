"""How training went, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from numbers import Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from noisyfit.displays.drawing import LITERAL, axes_or_new, last_step, panels, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

BOOKKEEPING = {"epoch", "dur", "train_batch_count", "valid_batch_count"}  # of skorch
SHARED = {"loss": ("loss",), "accuracy": ("acc", "accuracy")}  # by panel: how its names end
COLUMNS = 3


class TrainingHistoryDisplay:
    """Curves of all that was recorded in each epoch: losses, accuracy, shares of rows.

    Losses share a panel, as do accuracies; everything else has a panel of its own. What is recorded
    depends on the method, and anything can be added by skorch's ``EpochScoring``: the example shows
    the share of relabelled rows.

    Parameters
    ----------
    history : list of dict
        What was recorded in each epoch, such as skorch's ``History``.

    Attributes
    ----------
    lines_ : dict of matplotlib.lines.Line2D
        By name in the history.
    axes_ : list of matplotlib.axes.Axes
        The panels.
    ax_ : matplotlib.axes.Axes
        The hidden axes that hold the panels.
    figure_ : matplotlib.figure.Figure

    Examples
    --------
    >>> from skorch.callbacks import EpochScoring
    >>> from sklearn.datasets import load_iris
    >>> from noisyfit import CrossEntropyClassifier, TrainingHistoryDisplay
    >>> from noisyfit.metrics import relabelled_share
    >>> share = EpochScoring(relabelled_share, on_train=True)
    >>> clf = CrossEntropyClassifier(max_epochs=5, callbacks=[share], random_state=0)
    >>> clf = clf.fit(*load_iris(return_X_y=True))
    >>> display = TrainingHistoryDisplay.from_estimator(clf)
    >>> sorted(display.lines_)
    ['relabelled_share', 'train_loss']
    """

    lines_: dict[str, Line2D]
    axes_: list[Axes]
    ax_: Axes
    figure_: Figure

    def __init__(self, history: Sequence[Mapping[str, Any]]) -> None:
        self.history = history

    @classmethod
    def from_estimator(cls, estimator: Any, **plot: Any) -> Self:
        """Draw the history of a fit.

        Parameters
        ----------
        estimator : estimator
            Fitted classifier with ``history_``, or a pipeline, search or other estimator that holds
            one. Networks of skorch have it as well.
        **plot
            Parameters of `plot`.

        Returns
        -------
        TrainingHistoryDisplay
        """
        found = last_step(estimator)
        inner = getattr(found, "estimator_", found)  # EchoAlignClassifier trains another classifier
        return cls(last_step(inner, "history_").history_).plot(**plot)

    def plot(
        self, *, names: Sequence[str] | None = None, ax: Axes | None = None, **kwargs: Any
    ) -> Self:
        """Draw a line for each quantity, over the epochs in which it was recorded.

        Parameters
        ----------
        names : list of str, default=None
            Which quantities, such as ``["train_loss", "valid_acc"]``. None draws all.
        ax : matplotlib axes, default=None
            Divided into panels. None makes a new figure.
        **kwargs
            Keywords for ``matplotlib.axes.Axes.plot``.

        Returns
        -------
        self
        """
        groups = _grouped(self._chosen(names))
        n_columns = min(COLUMNS, len(groups))
        size = 1 + 3 * n_columns, 0.5 + 2.5 * ceil(len(groups) / n_columns)
        self.ax_, self.figure_ = axes_or_new(ax, figsize=size)
        self.axes_ = panels(self.ax_, len(groups), n_columns)
        self.lines_ = {}
        for panel, (title, group) in zip(self.axes_, groups.items(), strict=True):
            for name in group:
                self.lines_[name] = self._line(panel, name, kwargs)
            _finish(panel, title)
        return self

    def _chosen(self, names: Sequence[str] | None) -> list[str]:
        """Return the quantities to draw, in the order in which they appear."""
        seen = dict.fromkeys(name for epoch in self.history for name in epoch)
        recorded = [name for name in seen if name not in BOOKKEEPING and self._is_curve(name)]
        unknown = set(names or ()) - set(recorded)
        if unknown or not recorded or names == []:
            raise ValueError(
                "names must be among what the history holds of each epoch as a number: "
                f"{recorded}. Got {sorted(unknown) if unknown else names}."
            )
        return recorded if names is None else list(names)

    def _is_curve(self, name: str) -> bool:
        return all(
            isinstance(epoch[name], Real) and not isinstance(epoch[name], bool | np.bool_)
            for epoch in self.history
            if name in epoch
        )

    def _line(self, panel: Axes, name: str, style: dict[str, Any]) -> Line2D:
        from matplotlib.lines import Line2D

        points = [(i, epoch[name]) for i, epoch in enumerate(self.history, 1) if name in epoch]
        look = {"label": name, "marker": "." if len(points) == 1 else ""}
        (line,) = panel.plot(*zip(*points, strict=True), **styled(Line2D, look, style))
        return line


def _grouped(names: Sequence[str]) -> dict[str, list[str]]:
    """Return which names share a panel, by its title."""
    groups: dict[str, list[str]] = {}
    for name in names:
        shared = (title for title, ends in SHARED.items() if name.endswith(ends))
        groups.setdefault(next(shared, name), []).append(name)
    return groups


def _finish(panel: Axes, title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    panel.set_title(title.replace("_", " ").capitalize(), **LITERAL)
    panel.set_xlabel("Epoch")
    panel.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    if title in SHARED:
        for text in panel.legend().get_texts():
            text.set(**LITERAL)
