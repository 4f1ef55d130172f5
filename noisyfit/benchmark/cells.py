"""One cell of a grid: the rows and labels from which a method learns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from noisyfit import __version__, noise
from noisyfit.benchmark.contenders import CLEAN, make
from noisyfit.benchmark.sources import Source, load
from noisyfit.benchmark.table import one_line
from noisyfit.embedding import ImageEmbedder
from noisyfit.estimator.identity import fingerprint
from noisyfit.utils.devices import device_name

GIVEN = "given"  # the data's own noise


@dataclass(frozen=True)
class Settings:
    """What all cells of a grid share.

    Parameters
    ----------
    rows, test_rows : int or None
        Maximum numbers of training and test rows.
    epochs : int or None
        None means each method's default.
    holdout : float in [0, 1)
        Fraction of the training rows held out from all methods, to choose an epoch on.
    module : str or None
        Name of the network of all methods except scikit-learn's. None means the one that suits
        the data.
    device : str
    label : str or None
        Column of a CSV file that holds the labels.
    trusted : int or None
        Number of training rows, drawn with the seed, that get their true label; methods that can
        use this are told which rows.
    features : str or None
        Name of a pretrained network, whose features take the place of images.
    memory : str or None
        Folder that keeps these features.
    """

    rows: int | None = None
    test_rows: int | None = 5000
    epochs: int | None = None
    holdout: float = 0.1
    module: str | None = None
    device: str = "auto"
    label: str | None = None
    trusted: int | None = None
    features: str | None = None
    memory: str | None = None

    @property
    def columns(self) -> dict[str, Any]:
        """Return, by column of the table, what all rows of one data set must have in common."""
        return {
            "max_epochs": self.epochs,
            "module": self.module,
            "device": device_name(self.device),
            "version": __version__,
            "trusted": self.trusted,
            "features": self.features,
        }


@dataclass(frozen=True)
class Cell:
    """One fit: which method, on which data, with which noise and seed."""

    method: str
    data: str
    noise: str
    rate: float
    seed: int

    @property
    def name(self) -> str:
        """Return one line for people to read."""
        rate = f" {100 * self.rate:g} %" if self.rate else ""
        return f"{self.method}, {one_line(self.data)}, {self.noise}{rate}, seed {self.seed}"


@dataclass(frozen=True)
class Problem:
    """Rows to learn from, rows to choose an epoch on, and rows to score."""

    X: Any
    y: Any
    y_clean: Any = None
    X_val: Any = None
    y_val: Any = None
    X_test: Any = None
    y_test: Any = None
    trusted: NDArray[np.bool_] | None = None

    @property
    def wrong(self) -> NDArray[np.bool_] | None:
        """Return which labels are wrong, (n,), where that is known."""
        return None if self.y_clean is None else np.asarray(self.y != self.y_clean)


@lru_cache(maxsize=3)
def source_of(name: str, label: str | None) -> tuple[Source, str]:
    """Return data and the hash of their arrays, which identifies them."""
    source = load(name, label)
    return source, fingerprint(vars(source))


def key_of(cell: Cell, settings: Settings) -> str:
    """Return what identifies a cell, the same on every day and in every process."""
    params = make(cell.method, random_state=cell.seed).get_params()
    plain = {k: type(v).__name__ if hasattr(v, "fit") else v for k, v in params.items()}
    shared = asdict(settings) | {"device": device_name(settings.device)}
    del shared["memory"]
    for name in ("trusted", "features"):
        if shared[name] is None:
            del shared[name]  # keeps tables valid that are older than this setting
    where = source_of(cell.data, settings.label)[1]
    which = asdict(cell) | {"data": where}
    return fingerprint(__version__, which, shared, plain)[:16]


def pose(source: Source, cell: Cell, settings: Settings) -> Problem:
    """Draw rows, inject noise, hold rows out and repair the trusted ones, all with the seed."""
    n, rng = len(source.X), np.random.default_rng(cell.seed)
    few = settings.rows is not None and settings.rows < n
    idx = rng.permutation(n)[: settings.rows] if few else np.arange(n)
    X, y = source.X[idx], source.y[idx]
    y_clean = None if source.y_clean is None else source.y_clean[idx]
    if cell.method == CLEAN and y_clean is not None:
        y = y_clean
    elif cell.noise in NOISES:
        y = NOISES[cell.noise](y, X, cell.rate, cell.seed)
    test = source.X_test, source.y_test
    if source.X_test is not None and settings.test_rows is not None:
        order = np.random.default_rng(0).permutation(len(source.X_test))[: settings.test_rows]
        test = source.X_test[order], np.asarray(source.y_test)[order]
    X, test = _seen(X, settings), (_seen(test[0], settings), test[1])
    if settings.holdout:
        fit, held = held_out(y, settings.holdout, cell.seed)
        clean = None if y_clean is None else y_clean[fit]
        problem = Problem(X[fit], y[fit], clean, X[held], y[held], *test)
    else:
        problem = Problem(X, y, y_clean, None, None, *test)
    return problem if settings.trusted is None else _repaired(problem, settings.trusted, cell.seed)


def _seen(X: Any, settings: Settings) -> Any:
    """Return images as a pretrained network sees them; tables as they are."""
    if settings.features is None or X is None or X.ndim == 2:
        return X
    embedder = ImageEmbedder(
        settings.features,
        weights="DEFAULT",
        device=settings.device,
        memory=settings.memory,
    )
    return embedder.fit_transform(X)


def _repaired(problem: Problem, n: int, seed: int) -> Problem:
    """Give ``n`` rows their true label, and mark them."""
    trusted = np.zeros(len(problem.y), bool)
    trusted[np.random.default_rng(seed).permutation(len(trusted))[:n]] = True
    return replace(problem, y=np.where(trusted, problem.y_clean, problem.y), trusted=trusted)


NOISES: dict[str, Callable[..., NDArray[Any]]] = {
    "symmetric": lambda y, X, rate, seed: noise.symmetric(y, rate, random_state=seed).labels,
    "pairflip": lambda y, X, rate, seed: noise.pairflip(y, rate, random_state=seed).labels,
    "instance": lambda y, X, rate, seed: (
        noise.instance_dependent(y, X, rate, random_state=seed).labels
    ),
}


def held_out(y: Any, share: float, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Split row numbers, stratified by class if possible; both parts are in order."""
    counts = np.unique(np.asarray(y), return_counts=True)[1]
    enough = counts.min() > 1 and min(share, 1 - share) * len(y) >= len(counts)
    fit, held = train_test_split(
        np.arange(len(y)), test_size=share, stratify=y if enough else None, random_state=seed
    )
    return np.sort(fit), np.sort(held)
