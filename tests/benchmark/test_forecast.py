from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from skorch.history import History

from noisyfit.benchmark import forecast as module
from noisyfit.benchmark.cells import Cell, Settings
from noisyfit.benchmark.forecast import in_words
from noisyfit.benchmark.grid import TABLE, run_grid, say_cost
from tests.benchmark.test_grid import GRID


def test_cost__known_from_finished_cells__needs_no_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_grid(GRID, tmp_path, say=lambda line: None)
    monkeypatch.setattr(module, "_probe", None)
    said: list[str] = []
    say_cost(replace(GRID, seeds=(7,)), tmp_path, say=said.append)
    rows = pd.read_csv(tmp_path / TABLE)
    unit = (rows["seconds"] + rows["scoring_seconds"]) / rows["n_train"]
    expected = 2 * 108 * unit.groupby(rows["method"]).median().sum()
    assert said[1] == f"About {expected:.0f} s to go with 1 process(es)."


def test_cost__of_another_number_of_labels__is_probed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = replace(GRID, methods=("sklearn+logistic",), rates=(0.4,), seeds=(0,), labels=(30,))
    run_grid(grid, tmp_path, say=lambda line: None)
    probed: list[int | None] = []

    def probe(cell: Cell, settings: Settings) -> float:
        probed.append(cell.labels)
        return 1.0

    monkeypatch.setattr(module, "_probe", probe)
    say_cost(replace(grid, seeds=(7,), labels=(None, 30, 60)), tmp_path, say=lambda line: None)
    assert probed == [None, 60]


def test_cost__probed__scales_epochs_with_the_rows_but_not_what_comes_before_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Fitted:
        """Needs 10 s once, 3 s for its first epoch and 2 s for its second, on 108 rows."""

        history_ = History([{"dur": 3.0}, {"dur": 2.0}])

        def get_params(self) -> dict[str, Any]:
            return {}

    row = {"seconds": 15.0, "scoring_seconds": 1.0, "n_train": 108}
    monkeypatch.setattr(module, "make", lambda *args, **kwargs: Fitted())
    monkeypatch.setattr(module, "measure", lambda clf, problem: row)
    settings = replace(GRID.settings, rows=1080, epochs=20)
    said: list[str] = []
    grid = replace(GRID, methods=("cross_entropy",), rates=(0.4,), seeds=(0,), settings=settings)
    say_cost(grid, Path("nowhere"), say=said.append)
    expected = 10 + 20 * (2 + 0.5) * 972 / 108
    assert said[-1] == f"About {in_words(expected)} to go with 1 process(es)."
