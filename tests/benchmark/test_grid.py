import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from noisyfit.benchmark import grid as module
from noisyfit.benchmark.cells import Cell, Settings
from noisyfit.benchmark.grid import TABLE, Grid, run_grid, say_cost
from noisyfit.benchmark.measuring import COLUMNS, run_cell
from noisyfit.benchmark.report import write_report
from noisyfit.benchmark.sources import Source
from noisyfit.benchmark.table import Table
from tests.helpers import blobs

GRID = Grid(
    ("cross_entropy", "cleanlab+mlp"),
    ("synthetic",),
    rates=(0.2, 0.4),
    seeds=(0, 1),
    settings=Settings(rows=120, test_rows=50, epochs=2, device="cpu"),
)
DOOMED = """
import os, signal, sys
from pathlib import Path
from noisyfit.benchmark.grid import run_grid
from tests.benchmark.test_grid import GRID

def die_after_three(line):
    if line.startswith("[3/"):
        os.kill(os.getpid(), signal.SIGKILL)

run_grid(GRID, Path(sys.argv[1]), say=die_after_three)
"""


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> list[Cell]:
    """The cells that are fitted from now on."""
    cells: list[Cell] = []

    def counted(cell: Cell, settings: Settings) -> Any:
        cells.append(cell)
        return run_cell(cell, settings)

    monkeypatch.setattr(module, "run_cell", counted)
    return cells


@pytest.mark.slow
def test_killed_run__goes_on__and_repeats_no_finished_cell(
    tmp_path: Path, fitted: list[Cell]
) -> None:
    done = subprocess.run([sys.executable, "-c", DOOMED, str(tmp_path)])
    assert done.returncode == -signal.SIGKILL
    before = Table(tmp_path / TABLE, COLUMNS).rows
    assert len(before) == 3
    with open(tmp_path / TABLE, "ab") as file:
        file.write(b"synthetic,symmetric,0.4,cross_en")  # as if the kill had come in the middle
    assert run_grid(GRID, tmp_path, say=lambda line: None) == 0
    rows = Table(tmp_path / TABLE, COLUMNS).rows
    assert len(rows) == 8
    assert len({row["key"] for row in rows}) == 8
    assert len(fitted) == 5
    ratios = ["ratio_to_cross_entropy"]  # filled in at the end
    assert [{k: v for k, v in row.items() if k not in ratios} for row in rows[:3]] == [
        {k: v for k, v in row.items() if k not in ratios} for row in before
    ]
    run_grid(GRID, tmp_path, say=lambda line: None)
    assert len(fitted) == 5
    run_grid(replace(GRID, seeds=(0, 1, 2)), tmp_path, say=lambda line: None)
    assert len(fitted) == 9


@pytest.mark.parametrize(
    "change, message",
    [
        ({"rows": 100}, "'n_train': '108'.*Got {'n_train': '90'}"),
        ({"test_rows": 40}, "'n_test': '50'.*Got {'n_test': '40'}"),
        ({"epochs": 3}, "'max_epochs': '2'.*Got {'max_epochs': '3'}"),
        ({"module": "mlp"}, "'module': ''.*Got {'module': 'mlp'}"),
    ],
)
def test_folder_with_rows_of_other_settings__is_an_error__and_is_kept(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    small = replace(GRID, methods=("cross_entropy",), rates=(0.4,), seeds=(0,))
    run_grid(small, tmp_path, say=lambda line: None)
    before = (tmp_path / TABLE).read_bytes()
    other = replace(small, settings=replace(small.settings, **change))
    with pytest.raises(ValueError, match=f"synthetic .*{message}.*Choose another folder"):
        run_grid(other, tmp_path, say=lambda line: None)
    assert (tmp_path / TABLE).read_bytes() == before
    elsewhere = replace(other, data=("digits",))
    assert run_grid(elsewhere, tmp_path, say=lambda line: None) == 0


def test_labels__some_and_all__share_a_folder__and_neither_is_taken_for_the_other(
    tmp_path: Path, fitted: list[Cell]
) -> None:
    grid = replace(GRID, rates=(0.4,), seeds=(0,))
    run_grid(grid, tmp_path, say=lambda line: None)
    old = pd.read_csv(tmp_path / TABLE).drop(columns="labels")
    old.to_csv(tmp_path / TABLE, index=False)  # as earlier versions wrote it
    said: list[str] = []
    run_grid(replace(grid, labels=(None, 30, 60)), tmp_path, say=said.append)
    assert said[0] == "6 cells, 2 of them finished before."
    assert [cell.labels for cell in fitted[2:]] == [30, 30, 60, 60]
    assert "symmetric 40 %, 60 labels, seed 0" in said[-1]
    table = pd.read_csv(tmp_path / TABLE)
    assert table["labels"].fillna(0).tolist() == [0, 0, 30, 30, 60, 60]
    assert table["key"].is_unique
    seconds = table["seconds"].to_numpy()
    ratios = seconds[1::2] / seconds[::2]
    assert table["ratio_to_cross_entropy"][1::2].to_numpy() == pytest.approx(ratios, rel=1e-4)


def test_table_is_tidy__and_its_ratios_are_of_the_same_cell(tmp_path: Path) -> None:
    run_grid(GRID, tmp_path, say=lambda line: None)
    table = pd.read_csv(tmp_path / TABLE)
    assert list(table) == list(COLUMNS)
    assert len(table) == 8
    assert not table.duplicated(["data", "noise", "rate", "method", "seed"]).any()
    seconds = table.pivot(index=["rate", "seed"], columns="method", values="seconds")
    ratios = table.pivot(index=["rate", "seed"], columns="method", values="ratio_to_cross_entropy")
    expected = seconds["cleanlab+mlp"] / seconds["cross_entropy"]
    assert ratios["cleanlab+mlp"].to_numpy() == pytest.approx(expected.to_numpy(), rel=1e-4)
    assert (ratios["cross_entropy"] == 1).all()


def test_cost_is_said_before_the_first_cell__also_without_running(
    tmp_path: Path, fitted: list[Cell]
) -> None:
    said: list[str] = []
    say_cost(GRID, tmp_path, say=said.append)
    assert said[0] == "8 cells, 0 of them finished before."
    assert said[1].startswith("About ")
    assert not fitted
    assert not (tmp_path / TABLE).exists()


def test_failing_cell__is_said__and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = replace(GRID, methods=("cross_entropy",), rates=(0.4,))
    said: list[str] = []

    def broken(cell: Cell, settings: Settings) -> Any:
        if cell.seed == 0:
            raise RuntimeError("no luck")
        return run_cell(cell, settings)

    monkeypatch.setattr(module, "run_cell", broken)
    assert run_grid(grid, tmp_path, say=said.append) == 1
    assert any("failed: RuntimeError: no luck" in line for line in said)
    assert len(Table(tmp_path / TABLE, COLUMNS).rows) == 1
    monkeypatch.setattr(module, "run_cell", run_cell)
    assert run_grid(grid, tmp_path, say=said.append) == 0
    assert len(Table(tmp_path / TABLE, COLUMNS).rows) == 2


def test_cells__clean_baseline__is_fitted_once_a_seed() -> None:
    methods = ("flywheel", "cross_entropy_clean", "cross_entropy")
    cells = list(replace(GRID, methods=methods, noises=("symmetric", "pairflip")).cells().values())
    assert sum(cell.method == "cross_entropy_clean" for cell in cells) == 2
    assert len(cells) == 2 + 2 * 2 * 2 * 2
    assert cells[0].method == "cross_entropy"


def test_cells__rate_zero__is_clean_labels() -> None:
    cells = replace(GRID, noises=("symmetric", "none"), rates=(0.0, 0.4), seeds=(0,)).cells()
    kinds = {(cell.noise, cell.rate) for cell in cells.values()}
    assert kinds == {("none", 0.0), ("symmetric", 0.4)}
    assert len(cells) == 4


def test_cells__usual_rate__is_lower_for_two_classes__whose_pairflip_is_symmetric() -> None:
    kinds = ("symmetric", "pairflip", "instance")
    grid = replace(GRID, noises=kinds, rates=(None,), seeds=(0,))
    found = {(cell.noise, cell.rate) for cell in grid.cells().values()}
    assert found == {("symmetric", 0.4), ("pairflip", 0.4), ("instance", 0.4)}
    y = np.arange(6) % 2
    two = Source(np.zeros((6, 1)), y, y)
    assert grid.noises_of(two) == [("symmetric", 0.3), ("instance", 0.3)]
    assert replace(grid, noises=("pairflip",)).noises_of(two) == [("pairflip", 0.3)]


@pytest.mark.slow
def test_again__rows_of_changed_methods__are_fitted_anew(
    tmp_path: Path, fitted: list[Cell]
) -> None:
    run_grid(GRID, tmp_path, say=lambda line: None)
    assert len(fitted) == 8
    changed = GRID.methods[-1]
    run_grid(GRID, tmp_path, again=[changed], say=lambda line: None)
    assert [cell.method for cell in fitted[8:]] == [changed] * 4
    assert len(Table(tmp_path / TABLE, COLUMNS).rows) == 8


@pytest.mark.parametrize(
    "name", ["=1+1.csv", "-0.5", "a\nb.csv", "a|`b`.csv", "2024", "\udcff.csv"]
)
def test_any_name_of_a_file__is_finished_once__reported_and_compared(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fitted: list[Cell]
) -> None:
    monkeypatch.chdir(tmp_path)
    X, y = blobs(60)
    rows = (",".join(map(str, [*row, f"class {k}"])) for row, k in zip(X, y, strict=True))
    names = ",".join([*(f"x{i}" for i in range(X.shape[1])), "kind"])
    Path(name).write_text("\n".join([names, *rows]))
    settings = replace(GRID.settings, rows=None, label="kind")
    own = replace(GRID, methods=("sklearn+forest",), data=(name,), seeds=(0,), settings=settings)
    said: list[str] = []
    for n_fitted in (1, 1):
        assert run_grid(own, tmp_path / "out", say=said.append) == 0
        assert len(fitted) == n_fitted
        "".join(said).encode("utf-8", "surrogateescape")
    assert (tmp_path / "out" / TABLE).read_bytes().count(b"\n") == 2
    assert len(write_report(tmp_path / "out")) == 3
    with pytest.raises(ValueError, match="Choose another folder"):
        run_grid(replace(own, settings=replace(settings, rows=30)), tmp_path / "out")
