"""Fit alone, or as one of several processes, and write down what was learned.

As a program: ``fit_together.py TASK FOLDER``, once a process.
"""

import os
import signal
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from skorch.callbacks import Callback
from torch import Tensor, nn

import noisyfit
from noisyfit import noise

METHODS: dict[str, dict[str, Any]] = {
    "CrossEntropyClassifier": {},
    "FlywheelClassifier": {"warmup_epochs": 1},
    "RLDClassifier": {"warmup_epochs": 1},
    "CLIDMetaClassifier": {"warmup_epochs": 1},
    "HRPClassifier": {"warmup_epochs": 1},
    "CoTeachingClassifier": {},  # with a pilot
}


class Smooth(nn.Module):
    """Has no batch normalisation, and counts the rows that pass."""

    def __init__(self, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(n_features, 32), nn.Tanh(), nn.Linear(32, n_classes))
        self.n_rows = 0

    def forward(self, x: Tensor) -> Tensor:
        self.n_rows += len(x)
        logits: Tensor = self.body(x)
        return logits


class Layered(nn.Module):
    """Has layers that differ between processes."""

    def __init__(self, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(n_features, 16), nn.BatchNorm1d(16), nn.Dropout(), nn.Linear(16, n_classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.body(x)
        return logits


class Epochs(Callback):
    """Counts the epochs that begin, and kills its process in the third one if it is asked to."""

    def __init__(self, killed: bool = False) -> None:
        self.killed, self.n = killed, 0

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        self.n += 1
        if self.killed and self.n == 3:
            os.kill(os.getpid(), signal.SIGKILL)


def learned(name: str, module: Any = Smooth, **params: Any) -> dict[str, Any]:
    torch.set_num_threads(1)
    X, y = load_digits(return_X_y=True)
    X, y = X[:301], noise.symmetric(y[:301], 0.3, random_state=0).labels
    settings = {"max_epochs": 2, "batch_size": 64, "device": "cpu", "random_state": 0, "verbose": 1}
    said = StringIO()
    with redirect_stdout(said):
        clf = getattr(noisyfit, name)(module, **settings | METHODS[name] | params).fit(X, y)
    n_rows = getattr(clf.module_.network, "n_rows", None)
    return {
        "weights": dict(clf.module_.state_dict()),
        "state": dict(clf.state_.named_buffers()),
        "probs": torch.as_tensor(clf.predict_proba(X)),
        "rows": n_rows,
        "said": said.getvalue(),
    }


def methods(folder: Path, rank: int) -> Any:
    return {name: learned(name) for name in METHODS}


def layers(folder: Path, rank: int) -> Any:
    return {name: learned(name, Layered) for name in ("HRPClassifier", "CLIDMetaClassifier")}


def long_fit(folder: Path | None, killed: bool = False) -> dict[str, Any]:
    epochs = Epochs(killed)
    place = None if folder is None else str(folder)
    params: dict[str, Any] = {"max_epochs": 5, "callbacks": [epochs], "checkpoint_dir": place}
    found = learned("FlywheelClassifier", **params)
    return found | {"epochs": epochs.n}


def one_is_killed(folder: Path, rank: int) -> Any:
    return long_fit(folder / "checkpoints", killed=rank == 1)


def goes_on(folder: Path, rank: int) -> Any:
    return long_fit(folder / "checkpoints")


def other_rows(folder: Path, rank: int) -> Any:
    return small_fit(40 + rank, 0.01)


def other_parameters(folder: Path, rank: int) -> Any:
    return small_fit(40, 0.01 + rank)


def small_fit(n: int, lr: float) -> Any:
    X, y = np.ones((n, 3)), np.arange(n) % 2
    return noisyfit.CrossEntropyClassifier(max_epochs=1, lr=lr, device="cpu").fit(X, y).classes_


if __name__ == "__main__":
    task, folder, rank = sys.argv[1], Path(sys.argv[2]), int(os.environ["RANK"])
    torch.save(globals()[task](folder, rank), folder / f"{task}{rank}")
