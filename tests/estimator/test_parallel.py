"""A fit on several processes is the fit on one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.estimator import fit_together
from tests.estimator.fit_together import METHODS, learned, long_fit


def launch(task: str, folder: Path, n: int = 2) -> list[tuple[int, str]]:
    """Start processes as ``torchrun`` does, and return how each of them ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    code = f"import runpy; runpy.run_path({fit_together.__file__!r}, run_name='__main__')"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, task, str(folder)],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(n)
    ]
    said = [process.communicate(timeout=300)[1] for process in running]
    return [(process.returncode, text) for process, text in zip(running, said, strict=True)]


def found_by(task: str, folder: Path, n: int = 2) -> list[Any]:
    for status, said in launch(task, folder, n):
        assert status == 0, said
    return [torch.load(folder / f"{task}{rank}", weights_only=False) for rank in range(n)]


def assert_alike(found: dict[str, Any], alone: dict[str, Any], atol: float) -> None:
    for what in ("weights", "state"):
        for key, value in alone[what].items():
            torch.testing.assert_close(found[what][key], value, rtol=0, atol=atol)
    torch.testing.assert_close(found["probs"], alone["probs"], rtol=0, atol=atol)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return found_by("methods", tmp_path_factory.mktemp("together"))


@pytest.mark.filterwarnings("ignore::noisyfit.NoisyFitWarning")
@pytest.mark.parametrize("name", METHODS)
def test_two_processes__learn_what_one_learns__with_half_of_the_rows_each(
    name: str, together: Any
) -> None:
    alone = learned(name)
    for found in together:
        atol = 1e-5 if name == "CrossEntropyClassifier" else 1e-4
        assert_alike(found[name], alone, atol)
        assert found[name]["rows"] < 0.6 * alone["rows"]


def test_only_the_first_process__prints_the_epochs(together: Any) -> None:
    said = [found["CrossEntropyClassifier"]["said"] for found in together]
    assert "train_loss" in said[0]
    assert said[1:] == [""]


@pytest.mark.slow
def test_three_processes__dropout_and_batch_normalisation__stay_alike(tmp_path: Path) -> None:
    first, *others = found_by("layers", tmp_path, 3)
    for name, found in first.items():
        for other in others:
            for what in ("weights", "state"):
                for key, value in found[what].items():
                    assert torch.equal(other[name][what][key], value)


@pytest.mark.slow
def test_process_that_is_killed__ends_all__and_the_fit_goes_on(tmp_path: Path) -> None:
    for status, _ in launch("one_is_killed", tmp_path):
        assert status != 0
    for found in found_by("goes_on", tmp_path):
        assert found["epochs"] < 5
        assert_alike(found, long_fit(None), 1e-4)
    assert not list((tmp_path / "checkpoints").rglob("*.pt"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "task, what", [("other_rows", "rows and labels"), ("other_parameters", "parameters")]
)
def test_processes_with_something_else__are_refused(task: str, what: str, tmp_path: Path) -> None:
    statuses, said = zip(*launch(task, tmp_path), strict=True)
    assert statuses[1] != 0
    assert f"Got other {what} than the first process" in said[1]
