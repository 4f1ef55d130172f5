from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from noisyfit import CrossEntropyClassifier
from noisyfit.benchmark.ood import DATA, measured
from tests.test_datasets import make_mnist


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with 40 photographs of ten classes, and MNIST."""
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 10
    sets = ("clean", "aggre", "worst", "random1", "random2", "random3", "test")
    arrays: dict[str, NDArray[Any]] = {f"y_{name}": labels for name in sets}
    arrays |= {f"{name}_index": np.arange(40) for name in ("train", "test")}
    for part in ("train", "test"):
        arrays[f"x_{part}"] = rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    arrays |= {"test_human_counts": np.ones((40, 10)), "class_names": np.array(list("abcdefghij"))}
    np.savez(tmp_path / "cifar10n.npz", **arrays)  # type: ignore[arg-type]
    make_mnist(tmp_path)
    monkeypatch.setenv("NOISYFIT_DATA", str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("home")
def test_cifar10n__unknown_rows__are_of_the_sets_that_are_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    task = DATA["cifar10n"](0, 20)
    assert (task.X.shape, task.X_test.shape) == ((20, 32, 32, 3), (28, 32, 32, 3))
    assert max(task.y.max(), task.y_test.max()) < 7
    assert {name: rows.shape for name, rows in task.unknown.items()} == {
        "held-out classes": (12, 32, 32, 3),
        "mnist": (5, 32, 32, 3),
    }
    printed = capsys.readouterr().out
    for name in ("svhn", "lsun", "places365", "textures"):
        assert f"without {name}: The folder must hold" in printed


@pytest.mark.usefixtures("home")
def test_measured__has_two_figures_for_each_set_and_score() -> None:
    task = DATA["cifar10n"](0, 20)
    clf = CrossEntropyClassifier(max_epochs=1, random_state=0).fit(task.X, task.y)
    found = measured(clf, task)
    assert found.shape == (2, 4, 2)
    assert ((found >= 0) & (found <= 100)).all()
