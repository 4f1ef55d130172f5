"""One cell of a grid: a method fitted once, and what is measured of it."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import top_k_accuracy_score
from sklearn.model_selection import train_test_split
from skorch.callbacks import EpochScoring
from threadpoolctl import threadpool_limits

from noisyfit import __version__, neg_clid, noise
from noisyfit.benchmark.contenders import BASELINE, CLEAN, make
from noisyfit.benchmark.memory import peak_memory
from noisyfit.benchmark.sources import Source, load
from noisyfit.benchmark.table import one_line
from noisyfit.estimator.identity import fingerprint
from noisyfit.metrics import detection_auroc, detection_average_precision
from noisyfit.utils.devices import device_name, resolve_device

COLUMNS = (
    "data", "noise", "rate", "method", "seed", "accuracy_last", "top5_last", "accuracy_clid",
    "accuracy_noisy_validation", "accuracy_oracle", "epoch_clid", "epoch_noisy_validation",
    "epoch_oracle", "noisy_validation", "neg_clid", "auroc", "average_precision", "seconds",
    "ratio_to_cross_entropy", "scoring_seconds", "peak_memory_mb", "noise_rate", "n_train",
    "n_test", "epochs", "max_epochs", "module", "device", "version", "key",
)  # fmt: skip
TEXTS = ("data", "noise", "method", "module", "device", "version", "key")
GIVEN = "given"  # the noise that the data came with
N_BINS = 25

Measured = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What all cells of a grid share.

    Parameters
    ----------
    rows, test_rows : int or None
        Training and test rows at most.
    epochs : int or None
        None takes each method's default.
    holdout : float in [0, 1)
        Share of the training rows that all methods leave out, to choose an epoch on.
    module : str or None
        Name of the network of all methods but scikit-learn's. None takes that of the data.
    device : str
    label : str or None
        Column of the labels of a CSV file.
    """

    rows: int | None = None
    test_rows: int | None = 5000
    epochs: int | None = None
    holdout: float = 0.1
    module: str | None = None
    device: str = "auto"
    label: str | None = None

    @property
    def columns(self) -> dict[str, Any]:
        """By the names of `COLUMNS`, what all rows of one data set must have in common."""
        return {
            "max_epochs": self.epochs,
            "module": self.module,
            "device": device_name(self.device),
            "version": __version__,
        }


@dataclass(frozen=True)
class Cell:
    """One fit: which method, on what, with which noise, from which seed."""

    method: str
    data: str
    noise: str
    rate: float
    seed: int

    @property
    def name(self) -> str:
        """One line for people."""
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

    @property
    def wrong(self) -> NDArray[np.bool_] | None:
        """(n,) labels that are wrong, where that is known."""
        return None if self.y_clean is None else np.asarray(self.y != self.y_clean)


@lru_cache(maxsize=3)
def source_of(name: str, label: str | None) -> tuple[Source, str]:
    """Return data and the hash of their arrays, by which they are known again."""
    source = load(name, label)
    return source, fingerprint(vars(source))


def key_of(cell: Cell, settings: Settings) -> str:
    """Return what tells a cell from all others, the same on every day and in every process."""
    params = make(cell.method, random_state=cell.seed).get_params()
    plain = {k: type(v).__name__ if hasattr(v, "fit") else v for k, v in params.items()}
    shared = asdict(settings) | {"device": device_name(settings.device)}
    where = source_of(cell.data, settings.label)[1]
    which = asdict(cell) | {"data": where}
    return fingerprint(__version__, which, shared, plain)[:16]


def pose(source: Source, cell: Cell, settings: Settings) -> Problem:
    """Draw the rows, inject the noise and hold rows out, all by the seed."""
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
    if not settings.holdout:
        return Problem(X, y, y_clean, None, None, *test)
    fit, held = held_out(y, settings.holdout, cell.seed)
    clean = None if y_clean is None else y_clean[fit]
    return Problem(X[fit], y[fit], clean, X[held], y[held], *test)


NOISES: dict[str, Callable[..., NDArray[Any]]] = {
    "symmetric": lambda y, X, rate, seed: noise.symmetric(y, rate, random_state=seed).labels,
    "pairflip": lambda y, X, rate, seed: noise.pairflip(y, rate, random_state=seed).labels,
    "instance": lambda y, X, rate, seed: (
        noise.instance_dependent(y, X, rate, random_state=seed).labels
    ),
}


def held_out(y: Any, share: float, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Split row numbers, each class in proportion if it can be; both parts in order."""
    counts = np.unique(np.asarray(y), return_counts=True)[1]
    enough = counts.min() > 1 and min(share, 1 - share) * len(y) >= len(counts)
    fit, held = train_test_split(
        np.arange(len(y)), test_size=share, stratify=y if enough else None, random_state=seed
    )
    return np.sort(fit), np.sort(held)


def run_cell(cell: Cell, settings: Settings) -> tuple[Measured, dict[str, list[float]]]:
    """Fit and measure one cell with one thread.

    Returns
    -------
    row : dict
        By the names of `COLUMNS`.
    histogram : dict of list
        Shares of the right and of the wrong labels by quality, in `N_BINS` equal bins of [0, 1];
        empty where it is not known which are wrong.
    """
    source = source_of(cell.data, settings.label)[0]
    with one_thread():
        _warm_up(settings.device)
        problem = pose(source, cell, settings)
        clf = make(
            cell.method,
            module=settings.module,
            max_epochs=settings.epochs,
            device=settings.device,
            random_state=cell.seed,
        )
        on_gpu = resolve_device(settings.device).type == "cuda"
        row = asdict(cell) | measure(clf, problem, on_gpu=on_gpu)
    row |= settings.columns | {"data": one_line(cell.data), "key": key_of(cell, settings)}
    return row, _histogram(getattr(clf, "label_quality_", None), problem.wrong)


@lru_cache
def _warm_up(device: str) -> None:
    """Fit once in each process, so that no cell pays for what torch loads on first use."""
    X, y = np.random.default_rng(0).normal(size=(64, 4)), np.arange(64) % 2
    make(BASELINE, max_epochs=2, device=device, random_state=0).fit(X, y)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one core, in torch and below numpy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


class TimedScore:
    """A scorer for skorch's ``EpochScoring`` that knows how long it took.

    Parameters
    ----------
    score : callable
        Of the estimator.
    """

    def __init__(self, score: Callable[[Any], float]) -> None:
        self.score = score
        self.seconds = 0.0
        self.interrupted = False

    def __call__(self, net: Any, X: Any = None, y: Any = None) -> float:
        """Score, whatever rows the callback hands over."""
        start = time.perf_counter()
        try:
            return float(self.score(net))
        except KeyboardInterrupt:  # to skorch it means: stop early, and all is well
            self.interrupted = True
            raise
        finally:
            self.seconds += time.perf_counter() - start


def measure(clf: Any, problem: Problem, *, on_gpu: bool = False) -> Measured:
    """Fit an estimator and return what `COLUMNS` say about it, as far as it can be known.

    The last epoch is the model as ``fit`` leaves it. ``seconds`` are of ``fit`` without the scoring
    of its epochs.
    """
    scores = _scores(problem)
    timed = {name: TimedScore(score) for name, score in scores.items()}
    own = clf.get_params(deep=False)
    if "callbacks" in own:
        watch = [
            EpochScoring(scorer, lower_is_better=False, name=name, on_train=True)
            for name, scorer in timed.items()
        ]
        clf.set_params(callbacks=[*(own["callbacks"] or []), *watch])
    beside = {}
    if problem.X_val is not None and "X_val" in inspect.signature(clf.fit).parameters:
        beside = {"X_val": problem.X_val, "y_val": problem.y_val}
    seconds: list[float] = []

    def fit() -> None:
        start = time.perf_counter()
        clf.fit(problem.X, problem.y, **beside)
        seconds.append(time.perf_counter() - start)

    peak = peak_memory(fit, on_gpu)
    if any(scorer.interrupted for scorer in timed.values()):
        raise KeyboardInterrupt
    scoring = sum(scorer.seconds for scorer in timed.values())
    row: Measured = {
        "seconds": seconds[0] - scoring,
        "scoring_seconds": scoring,
        "peak_memory_mb": peak,
        "n_train": len(problem.X),
        "n_test": None if problem.X_test is None else len(problem.X_test),
        "epochs": getattr(clf, "n_iter_", None),
    }
    last = {name: _try(score, clf) for name, score in scores.items()}
    history = getattr(clf, "history_", None) or []
    curves = {
        name: [*(epoch[name] for epoch in history[:-1] if name in epoch), value]
        for name, value in last.items()
        if value is not None
    }
    row["top5_last"] = _top_five(clf, problem)
    row |= {"neg_clid": last.get("neg_clid"), "noisy_validation": last.get("noisy_validation")}
    return row | _accuracies(curves, bool(history)) | _found(clf, problem.wrong)


def _scores(problem: Problem) -> dict[str, Callable[[Any], float]]:
    """Return the scores of an epoch; only ``test_accuracy`` looks at a clean label."""
    scores: dict[str, Callable[[Any], float]] = {}
    if problem.X_val is not None:
        scores["noisy_validation"] = lambda net: _accuracy(net, problem.X_val, problem.y_val)
        if len(problem.X_val) >= 3:
            scores["neg_clid"] = lambda net: neg_clid(net, problem.X_val)
    if problem.X_test is not None:
        scores["test_accuracy"] = lambda net: _accuracy(net, problem.X_test, problem.y_test)
    return scores


def _accuracy(clf: Any, X: Any, y: Any) -> float:
    return float(np.mean(np.asarray(clf.predict(X)) == np.asarray(y)))


def _top_five(clf: Any, problem: Problem) -> float | None:
    """Return the share of test rows whose class is among the five most probable ones.

    A class without a training row is never among them, as in the accuracy.
    """
    classes = clf.classes_
    if problem.X_test is None or len(classes) <= 5:
        return None
    known = np.isin(problem.y_test, classes)
    probs, labels = clf.predict_proba(problem.X_test)[known], np.asarray(problem.y_test)[known]
    if not len(labels):
        return 0.0
    n_hits = top_k_accuracy_score(labels, probs, k=5, labels=classes, normalize=False)
    return float(n_hits / len(known))


def _try(score: Callable[[Any], float], clf: Any) -> float | None:
    try:
        return score(clf)
    except TypeError:  # neg_clid of an estimator without embeddings
        return None


def _accuracies(curves: dict[str, list[float]], has_epochs: bool) -> Measured:
    """Return the accuracy after the last epoch and at those chosen by each rule."""
    test = curves.get("test_accuracy")
    row: Measured = {"accuracy_last": test[-1] if test else None}
    if not has_epochs:
        return row
    rules = {"clid": "neg_clid", "noisy_validation": "noisy_validation", "oracle": "test_accuracy"}
    for rule, score in rules.items():
        if score in curves:
            best = int(np.argmax(curves[score]))
            row[f"epoch_{rule}"] = best + 1
            row[f"accuracy_{rule}"] = test[best] if test else None
    return row


def _found(clf: Any, wrong: NDArray[np.bool_] | None) -> Measured:
    """Return how well the qualities tell the wrong labels."""
    if wrong is None:
        return {}
    row: Measured = {"noise_rate": float(wrong.mean())}
    quality = getattr(clf, "label_quality_", None)
    if quality is None or wrong.all() or not wrong.any():
        return row
    return row | {
        "auroc": detection_auroc(wrong, quality),
        "average_precision": detection_average_precision(wrong, quality),
    }


def _histogram(quality: Any, wrong: NDArray[np.bool_] | None) -> dict[str, list[float]]:
    if quality is None or wrong is None or wrong.all() or not wrong.any():
        return {}
    parts = {"right": quality[~wrong], "wrong": quality[wrong]}
    counts = {name: np.histogram(part, N_BINS, (0, 1))[0] for name, part in parts.items()}
    return {name: (count / max(1, count.sum())).tolist() for name, count in counts.items()}
