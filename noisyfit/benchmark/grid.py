"""A grid of methods, data, noise, rates and seeds: one row per cell, none fitted twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noisyfit.benchmark.cells import (
    GIVEN,
    NOISES,
    Cell,
    Settings,
    key_of,
    pose,
    source_of,
)
from noisyfit.benchmark.contenders import BASELINE, CLEAN
from noisyfit.benchmark.forecast import Clock, in_words, planned_rows, unit_costs
from noisyfit.benchmark.measuring import COLUMNS, Measured, run_cell
from noisyfit.benchmark.sources import Source
from noisyfit.benchmark.table import Row, Table, one_line, only_writer
from noisyfit.benchmark.usage import as_usage_errors
from noisyfit.benchmark.workers import check_backend, results
from noisyfit.utils.devices import all_like

TABLE = "results.csv"
QUALITY = "quality"  # folder of histograms, one file per cell
FEATURES = "features"  # folder of what pretrained networks see
USUAL_RATE, USUAL_RATE_OF_TWO = 0.4, 0.3  # with two classes, more is close to chance

Outcome = tuple[Cell, Measured | None, dict[str, list[float]], str]
Say = Callable[[str], object]


@dataclass(frozen=True)
class Grid:
    """Every combination of what is listed.

    Parameters
    ----------
    methods : sequence of str
        Full names; see `noisyfit.benchmark.contenders.method_names`.
    data : sequence of str
        Names or paths; see `noisyfit.benchmark.sources.load`.
    noises : sequence of {"symmetric", "pairflip", "instance", "none"}
        Injected into clean labels. With two classes, pairflip is the same as symmetric noise and
        is left out if both are listed. Data that come with wrong labels are used once, as they are.
    rates : sequence of float or None
        None means 0.4, or 0.3 for data with two classes.
    seeds : sequence of int
    settings : Settings
    labels : sequence of int or None
        Numbers of training rows that keep their label. None means all of them.
    """

    methods: Sequence[str]
    data: Sequence[str]
    noises: Sequence[str] = ("symmetric",)
    rates: Sequence[float | None] = (0.4,)
    seeds: Sequence[int] = (0, 1, 2)
    settings: Settings = Settings()
    labels: Sequence[int | None] = (None,)

    def cells(self) -> dict[str, Cell]:
        """Return the cells by key, seed after seed, so that a partial run is a smaller grid."""
        found = (
            Cell(method, data, kind, rate, seed, labels)
            for seed in self.seeds
            for data in self.data
            for labels in self.labels
            for kind, rate in self.noises_of(source_of(data, self.settings.label)[0])
            for method in self._methods(data)
        )
        single = (replace(c, noise="none", rate=0.0) if c.method == CLEAN else c for c in found)
        return {key_of(cell, self.settings): cell for cell in dict.fromkeys(single)}

    def noises_of(self, source: Source) -> list[tuple[str, float]]:
        """Return the kinds and rates of the noise to inject into some data."""
        if not source.is_clean:
            return [(GIVEN, 0.0)]
        two = len(np.unique(source.y)) == 2
        usual = USUAL_RATE_OF_TWO if two else USUAL_RATE
        rates = [usual if rate is None else rate for rate in self.rates]
        kinds = [
            k for k in self.noises if not (two and k == "pairflip" and "symmetric" in self.noises)
        ]
        pairs = [(k, rate) for k in kinds for rate in (rates if k in NOISES else [0.0])]
        return list(dict.fromkeys(("none", 0.0) if rate == 0 else (k, rate) for k, rate in pairs))

    def check(self) -> None:
        """Raise ValueError unless every cell has labels of at least two classes to learn from."""
        posed: dict[Any, Cell] = {}
        for cell in self.cells().values():
            posed.setdefault(replace(cell, method=CLEAN if cell.method == CLEAN else ""), cell)
        for cell in posed.values():
            source = source_of(cell.data, self.settings.label)[0]
            labels = replace(source, X=np.zeros((len(source.y), 1)), X_test=None)
            try:
                y = pose(labels, cell, self.settings).y
                _check_classes(y)
            except ValueError as error:
                raise ValueError(
                    "Rows, noise and holdout must leave two classes or more to train on. Got, for "
                    f"{cell.name}: {error}"
                ) from error
            _check_labels(cell, y)

    def _methods(self, data: str) -> list[str]:
        """Put the baseline first, since its time is what the others are compared with."""
        clean = source_of(data, self.settings.label)[0].y_clean is not None
        known = [name for name in self.methods if clean or name != CLEAN]
        return sorted(known, key=lambda name: name != BASELINE)


def _check_classes(y: NDArray[Any]) -> None:
    classes = np.unique(y)
    if len(classes) < 2:
        raise ValueError(f"all labels are {classes.tolist()[0]!r}.")


def _check_labels(cell: Cell, y: NDArray[Any]) -> None:
    n, n_classes = len(y), len(np.unique(y))
    if cell.labels is not None and not n_classes <= cell.labels <= n:
        raise ValueError(
            f"--labels must be at least the number of classes, {n_classes}, and at most that of "
            f"training rows, {n}. Got {cell.labels} for {one_line(cell.data)}. Choose another "
            "number, or leave it out to keep all labels."
        )


def run_grid(
    grid: Grid,
    folder: Path,
    *,
    again: Sequence[str] = (),
    jobs: int = 1,
    backend: str = "loky",
    say: Say = print,
) -> int:
    """Run the cells that a folder does not hold yet, and record each as it finishes.

    Parameters
    ----------
    grid : Grid
    folder : path
        Created if it does not exist. Its ``results.csv`` gets one row per cell.
    again : sequence of str, default=()
        Full names of methods whose rows are discarded first.
    jobs : int, default=1
        Number of workers, each with one thread. Several GPUs of one kind take turns.
    backend : {"loky", "threading", "dask", "ray"}, default="loky"
        What runs them; see `noisyfit.benchmark.workers.results`.
    say : callable, default=print
        Receives the lines of progress.

    Returns
    -------
    int
        The number of cells that failed. They are not recorded, so the next run tries them again.
    """
    with as_usage_errors((ImportError,)):
        check_backend(backend)
    grid = replace(grid, settings=replace(grid.settings, memory=str(folder / FEATURES)))
    with _opened(folder) as table:
        if again:
            table.rewrite([row for row in table.rows if row["method"] not in again])
        todo, clock = _plan(grid, table.rows, jobs, say)
        failures, outcomes = 0, _run(todo, grid, jobs, backend)
        for number, (cell, row, histogram, error) in enumerate(outcomes, start=1):
            clock.finished(cell, row)
            left = f"about {in_words(clock.left() / jobs)} left" if number < len(todo) else "done"
            if row is None:
                failures += 1
                say(f"[{number}/{len(todo)}] {cell.name}: failed: {error}; {left}")
                continue
            with as_usage_errors((OSError,)):
                _write_histogram(folder, row["key"], histogram)
                table.append(row | {"ratio_to_cross_entropy": _ratio(row, table.rows)})
            say(f"[{number}/{len(todo)}] {cell.name}: {_gist(row)}; {left}")
        with as_usage_errors((OSError,)):
            table.rewrite([row | {"ratio_to_cross_entropy": _ratio(row, table.rows)}
                           for row in table.rows])  # fmt: skip
    return failures


@contextmanager
def _opened(folder: Path) -> Iterator[Table]:
    """Open the table of a folder, created if need be, and keep other processes from writing."""
    with ExitStack() as stack:
        with as_usage_errors():
            try:
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(only_writer(folder))
                table = Table(folder / TABLE, COLUMNS)
            except OSError as error:
                raise ValueError(
                    f"{folder} must be a folder that can be written to. Got {error}. Choose "
                    "another."
                ) from error
        yield table


def say_cost(grid: Grid, folder: Path, *, jobs: int = 1, say: Say = print) -> None:
    """Say how long the cells that a folder does not hold yet would take."""
    stored = folder / TABLE
    with as_usage_errors():
        rows = Table(stored, COLUMNS).rows if stored.exists() else []
    _plan(grid, rows, jobs, say)


def _plan(grid: Grid, rows: Sequence[Row], jobs: int, say: Say) -> tuple[dict[str, Cell], Clock]:
    """Return the cells to run and what they will cost, and say so."""
    cells = grid.cells()
    with as_usage_errors():
        _check_comparable(grid, rows)
    done = {row["key"] for row in rows}
    todo = {key: cell for key, cell in cells.items() if key not in done}
    say(f"{len(cells)} cells, {len(cells) - len(todo)} of them finished before.")
    clock = Clock(todo.values(), unit_costs(todo.values(), rows, grid.settings), grid.settings)
    if todo:
        say(f"About {in_words(clock.left() / jobs)} to go with {jobs} process(es).")
    return todo, clock


def _check_comparable(grid: Grid, rows: Sequence[Row]) -> None:
    """Raise ValueError unless the rows of each data set can share one table."""
    for data in grid.data:
        n_train, n_test = planned_rows(data, grid.settings)
        settings = {"n_train": n_train, "n_test": n_test} | grid.settings.columns
        wanted = {name: "" if value is None else str(value) for name, value in settings.items()}
        for row in rows:
            other = {name: row[name] for name in wanted if row[name] != wanted[name]}
            if row["data"] == one_line(data) and other:
                raise ValueError(
                    f"All rows of a data set in one folder must have the same {list(wanted)}. For "
                    f"{data} {TABLE} has {other}. Got { {name: wanted[name] for name in other} }. "
                    "Choose another folder."
                )


def _run(todo: dict[str, Cell], grid: Grid, jobs: int, backend: str) -> Iterator[Outcome]:
    """Yield the outcomes of cells as they finish."""
    devices = cycle(all_like(grid.settings.device))
    tasks = {
        key: (cell, replace(grid.settings, device=device))
        for (key, cell), device in zip(todo.items(), devices, strict=False)
    }
    for key, outcome in results(_attempt, tasks, backend=backend, jobs=jobs):
        died = isinstance(outcome, Exception)
        yield (todo[key], None, {}, f"its worker died: {outcome!r}") if died else outcome


def _attempt(cell: Cell, settings: Settings) -> Outcome:
    try:
        row, histogram = run_cell(cell, settings)
    except Exception as error:  # one method that fails must not cost the grid
        return cell, None, {}, f"{type(error).__name__}: {' '.join(str(error).split())}"
    return cell, row, histogram, ""


def _gist(row: Measured) -> str:
    score = row["accuracy_last"]
    name = "" if score is not None else " of the noisy validation labels"
    value = row["noisy_validation"] if score is None else score
    accuracy = "" if value is None else f"{100 * value:.1f} %{name}, "
    return f"{accuracy}{row['seconds']:.1f} s"


def _write_histogram(folder: Path, key: str, histogram: dict[str, list[float]]) -> None:
    if histogram:
        (folder / QUALITY).mkdir(exist_ok=True)
        (folder / QUALITY / f"{key}.json").write_text(json.dumps(histogram))


def _ratio(row: dict[str, Any], rows: Iterable[Row]) -> float | None:
    """Return the seconds as a multiple of cross-entropy's on the same rows, labels and machine."""

    def place(of: dict[str, Any]) -> tuple[Any, ...]:
        labels = str(of.get("labels") or "")
        return of["data"], of["noise"], float(of["rate"]), labels, int(of["seed"])

    if row["method"] == BASELINE:
        return 1.0
    found = [float(r["seconds"]) for r in rows
             if r["method"] == BASELINE and place(r) == place(row)]  # fmt: skip
    return float(row["seconds"]) / found[-1] if found else None
