"""How the belief about rows moves: along the walk of a label diffusion, or over epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from noisyfit.displays.drawing import axes_or_new, last_step, styled
from noisyfit.utils.validation import as_column, encode, is_missing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D


class BeliefTrajectoryDisplay:
    """Lines of how probable the given label of each row is, step by step.

    A row that ends at another class has a second line: how probable that class is. Where the two
    lines cross, the belief turns. Use `from_estimator` or `from_predictions` to make one. All
    parameters are stored as attributes.

    Parameters
    ----------
    trajectory : array-like of shape (n_steps, n_samples, n_classes)
        Probabilities of the classes at each step.
    given : array-like of int of shape (n_samples,), default=None
        Columns of the given labels; -1 for a row without a label. None means that no row has one.
    steps : array-like of shape (n_steps,), default=None
        Places of the steps on the horizontal axis. None counts from 0.
    step_name : str, default="Step"
        Label of the horizontal axis.

    Attributes
    ----------
    given_lines_ : list of matplotlib.lines.Line2D
        The given label of each row that has one.
    reached_lines_ : list of matplotlib.lines.Line2D
        The class at the end, of each row where it is another, or where no label is given.
    ax_ : matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure

    Examples
    --------
    >>> from noisyfit import BeliefTrajectoryDisplay
    >>> epochs = [[[0.9, 0.1]], [[0.4, 0.6]], [[0.2, 0.8]]]
    >>> display = BeliefTrajectoryDisplay.from_predictions(epochs, ["cat"], classes=["cat", "dog"])
    >>> [line.get_ydata().tolist() for line in display.given_lines_ + display.reached_lines_]
    [[0.9, 0.4, 0.2], [0.1, 0.6, 0.8]]
    """

    given_lines_: list[Line2D]
    reached_lines_: list[Line2D]
    ax_: Axes
    figure_: Figure

    def __init__(
        self,
        trajectory: ArrayLike,
        *,
        given: ArrayLike | None = None,
        steps: ArrayLike | None = None,
        step_name: str = "Step",
    ) -> None:
        self.trajectory = trajectory
        self.given = given
        self.steps = steps
        self.step_name = step_name

    @classmethod
    def from_estimator(cls, estimator: Any, X: Any, y: Any = None, **plot: Any) -> Self:
        """Draw how a label diffusion walks labels back.

        Parameters
        ----------
        estimator : estimator
            Fitted `RLDClassifier`, or a pipeline or search that ends in one.
        X : array-like
            The rows; a dozen can still be told apart.
        y : array-like of shape (n_samples,), default=None
            Labels at which the walks begin. None, or a missing label, begins at the prediction.
        **plot
            Parameters of `plot`.

        Returns
        -------
        BeliefTrajectoryDisplay
        """
        found = last_step(estimator, "denoise", "classes_")
        estimator = getattr(estimator, "best_estimator_", estimator)
        rows = estimator[:-1].transform(X) if hasattr(estimator, "steps") else X
        trajectory = found.denoise(rows, y, return_trajectory=True)
        given = None if y is None else _codes(y, found.classes_, found.missing_label)
        return cls(trajectory, given=given, step_name="Step of the walk back").plot(**plot)

    @classmethod
    def from_predictions(
        cls,
        trajectory: ArrayLike,
        y_given: Any = None,
        *,
        classes: Any = None,
        missing_label: Any = np.nan,
        step_name: str = "Epoch",
        **plot: Any,
    ) -> Self:
        """Draw how predictions move, such as those after each epoch.

        Parameters
        ----------
        trajectory : array-like of shape (n_steps, n_samples, n_classes)
            Results of ``predict_proba``, in order.
        y_given : array-like of shape (n_samples,), default=None
            Given labels.
        classes : array-like of shape (n_classes,), default=None
            Class of each column, such as ``classes_``. None means 0 to n_classes - 1.
        missing_label : scalar, default=numpy.nan
            Marks rows without a label. NaN also marks None, NaT and pandas' NA.
        step_name : str, default="Epoch"
            Label of the horizontal axis, which counts from 1.
        **plot
            Parameters of `plot`.

        Returns
        -------
        BeliefTrajectoryDisplay
        """
        probs = np.asarray(trajectory)
        known = np.arange(probs.shape[-1]) if classes is None else as_column(classes)
        given = None if y_given is None else _codes(y_given, known, missing_label)
        steps = np.arange(1, len(probs) + 1)
        return cls(probs, given=given, steps=steps, step_name=step_name).plot(**plot)

    def plot(self, *, ax: Axes | None = None, **kwargs: Any) -> Self:
        """Draw the lines.

        Parameters
        ----------
        ax : matplotlib axes, default=None
            None makes a new figure.
        **kwargs
            Keywords for ``matplotlib.axes.Axes.plot``.

        Returns
        -------
        self
        """
        probs, given, steps = self._checked()
        reached = probs[-1].argmax(1)
        labelled, moved = given >= 0, given != reached
        self.ax_, self.figure_ = axes_or_new(ax)
        self.given_lines_ = self._lines(probs, steps, given, labelled, "C0", "given label", kwargs)
        name = "another class, reached at the end" if labelled.any() else "class at the end"
        self.reached_lines_ = self._lines(probs, steps, reached, moved, "C1", name, kwargs)
        self.ax_.set(xlabel=self.step_name, ylabel="Probability", ylim=(-0.03, 1.03))
        self.ax_.legend()
        return self

    def _lines(
        self,
        probs: NDArray[Any],
        steps: NDArray[Any],
        classes: NDArray[Any],
        shown: NDArray[np.bool_],
        color: str,
        name: str,
        style: dict[str, Any],
    ) -> list[Line2D]:
        """Draw the probability of one class of each row that is shown."""
        from matplotlib.lines import Line2D

        rows = np.flatnonzero(shown)
        look = {"color": color, "alpha": 0.7, "marker": "."}
        lines = self.ax_.plot(steps, probs[:, rows, classes[rows]], **styled(Line2D, look, style))
        if lines:
            lines[0].set_label(f"{name} ({len(lines):,})")
        return lines

    def _checked(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        probs = np.asarray(self.trajectory)
        if probs.ndim != 3 or 0 in probs.shape:
            raise ValueError(
                "trajectory must have shape (n_steps, n_samples, n_classes), with at least one of "
                f"each. Got {probs.shape}."
            )
        n_steps, n_samples, n_classes = probs.shape
        given = np.full(n_samples, -1) if self.given is None else np.asarray(self.given)
        steps = np.arange(n_steps) if self.steps is None else np.asarray(self.steps)
        if given.shape != (n_samples,) or steps.shape != (n_steps,):
            raise ValueError(
                f"given must have one label for each of {n_samples} rows, and steps one place for "
                f"each of {n_steps} steps. Got shapes {given.shape} and {steps.shape}."
            )
        return probs, given, steps


def _codes(y: Any, classes: NDArray[Any], missing_label: Any) -> NDArray[np.int64]:
    column = as_column(y)
    return encode(column, classes, is_missing(column, missing_label), "y_given")
