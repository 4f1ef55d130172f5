"""How long the cells of a grid will take."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from noisyfit.benchmark.cells import Cell, Settings, pose, source_of
from noisyfit.benchmark.contenders import EPOCHS, make
from noisyfit.benchmark.measuring import Measured, measure, one_thread
from noisyfit.benchmark.table import Row, one_line

PROBE_ROWS, PROBE_EPOCHS = 256, 2

Place = tuple[str, str, int | None]  # method, data and number of labels


class Clock:
    """How long one process will take for the unfinished cells.

    Parameters
    ----------
    todo : iterable of Cell
    costs : dict
        Seconds per training row by method, data and number of labels; updated as cells finish.
    settings : Settings
    """

    def __init__(self, todo: Iterable[Cell], costs: dict[Place, float], settings: Settings) -> None:
        self.todo = list(todo)
        self.costs = {place: [cost] for place, cost in costs.items()}
        self.rows = {cell.data: planned_rows(cell.data, settings)[0] for cell in self.todo}
        self.measured: set[Place] = set()

    def finished(self, cell: Cell, row: Measured | None) -> None:
        """Take a cell off the list, and update the costs with its own."""
        self.todo.remove(cell)
        if row is None:
            return
        place = _place_of(cell)
        known = self.costs[place] if place in self.measured else []
        self.measured.add(place)
        self.costs[place] = [*known, (row["seconds"] + row["scoring_seconds"]) / row["n_train"]]

    def left(self) -> float:
        """Return the seconds that the remaining cells will take."""
        return sum(
            self.rows[cell.data] * statistics.median(self.costs[_place_of(cell)])
            for cell in self.todo
        )


def _place_of(cell: Cell) -> Place:
    return cell.method, cell.data, cell.labels


def planned_rows(data: str, settings: Settings) -> tuple[int, int | None]:
    """Return the numbers of training and test rows; the latter is None if there are none."""
    source = source_of(data, settings.label)[0]
    drawn = min(len(source.X), settings.rows or len(source.X))
    n_train = drawn - math.ceil(drawn * settings.holdout)  # as scikit-learn splits them
    if source.X_test is None:
        return n_train, None
    return n_train, min(len(source.X_test), settings.test_rows or len(source.X_test))


def unit_costs(
    todo: Iterable[Cell], finished: Sequence[Row], settings: Settings
) -> dict[Place, float]:
    """Return the seconds per training row of each method on each data set, for so many labels.

    They come from finished cells, else from two epochs on a few rows. The second epoch stands for
    all epochs. What comes before the first is assumed to take as long on all rows, as the steps of
    a generator do. The guess is rough for methods that warm up until learning stalls.
    """
    costs: dict[Place, float] = {}
    for cell in todo:
        place = _place_of(cell)
        stored = cell.method, one_line(cell.data), str(cell.labels or "")
        if place in costs:
            continue
        known = [
            (float(row["seconds"]) + float(row["scoring_seconds"])) / int(row["n_train"])
            for row in finished
            if (row["method"], row["data"], row["labels"]) == stored
        ]
        costs[place] = statistics.median(known) if known else _probe(cell, settings)
    return costs


def _probe(cell: Cell, settings: Settings) -> float:
    """Return the seconds per row of a whole fit, estimated from a short one."""
    n = min(PROBE_ROWS, settings.rows or PROBE_ROWS)
    source = source_of(cell.data, settings.label)[0]
    rows, n_test = planned_rows(cell.data, settings)
    share = n / max(n, min(len(source.X), settings.rows or len(source.X)))
    few = replace(settings, rows=n, test_rows=max(2, round((n_test or 0) * share)))
    if cell.labels is not None:
        cell = replace(cell, labels=max(2, round(cell.labels * share)))
    with one_thread():
        problem = pose(source, cell, few)
        epochs = settings.epochs or EPOCHS["table" if problem.X.ndim == 2 else "image"]
        clf = make(
            cell.method,
            module=settings.module,
            max_epochs=PROBE_EPOCHS,
            device=settings.device,
            random_state=0,
        )
        if "warmup_epochs" in clf.get_params():
            clf.set_params(warmup_epochs=1)
        start = time.perf_counter()
        try:
            row = measure(clf, problem)
        except Exception:  # a few rows may not be enough for a method
            return (time.perf_counter() - start) / n
    once, epoch = 0.0, row["seconds"] / PROBE_EPOCHS
    history = getattr(getattr(clf, "estimator_", clf), "history_", None)  # EchoAlign's is nested
    if history is None and "max_epochs" not in clf.get_params():
        return float(row["seconds"] + row["scoring_seconds"]) / row["n_train"]
    if history:
        once, epoch = row["seconds"] - sum(history[:, "dur"]), history[-1, "dur"]
    epoch += row["scoring_seconds"] / PROBE_EPOCHS
    return float(once / rows + epoch * epochs / row["n_train"])


def in_words(seconds: float) -> str:
    """Write a duration.

    Examples
    --------
    >>> in_words(42), in_words(150), in_words(5400)
    ('42 s', '2.5 min', '1.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
