"""What is measured in one cell of a grid: a method fitted once."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import top_k_accuracy_score
from skorch.callbacks import EpochScoring
from threadpoolctl import threadpool_limits

from noisyfit import neg_clid
from noisyfit.benchmark.cells import Cell, Problem, Settings, key_of, pose, source_of
from noisyfit.benchmark.contenders import BASELINE, make
from noisyfit.benchmark.memory import peak_memory
from noisyfit.benchmark.table import one_line
from noisyfit.metrics import detection_auroc, detection_average_precision
from noisyfit.utils.devices import resolve_device

COLUMNS = (
    "data", "noise", "rate", "labels", "method", "seed", "accuracy_last", "top5_last",
    "accuracy_clid", "accuracy_noisy_validation", "accuracy_oracle", "epoch_clid",
    "epoch_noisy_validation", "epoch_oracle", "noisy_validation", "neg_clid", "auroc",
    "average_precision", "seconds", "ratio_to_cross_entropy", "scoring_seconds", "peak_memory_mb",
    "noise_rate", "n_train", "n_test", "trusted", "epochs", "max_epochs", "module", "features",
    "device", "version", "key",
)  # fmt: skip
TEXTS = ("data", "noise", "method", "module", "features", "device", "version", "key")
N_BINS = 25

Measured = dict[str, Any]


def run_cell(cell: Cell, settings: Settings) -> tuple[Measured, dict[str, list[float]]]:
    """Fit and measure one cell with one thread.

    Returns
    -------
    row : dict
        Values by the names of `COLUMNS`.
    histogram : dict of list
        Fractions of the right and wrong labels by quality, in `N_BINS` equal bins of [0, 1]; empty
        if it is not known which are wrong.
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
    return row, _histogram(clf, seen_by(clf, problem))


@lru_cache
def _warm_up(device: str) -> None:
    """Fit once per process, so that no cell pays for what torch loads on first use."""
    X, y = np.random.default_rng(0).normal(size=(64, 4)), np.arange(64) % 2
    make(BASELINE, max_epochs=2, device=device, random_state=0).fit(X, y)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one core, in torch and in the libraries beneath numpy."""
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
        Returns the score of an estimator.
    """

    def __init__(self, score: Callable[[Any], float]) -> None:
        self.score = score
        self.seconds = 0.0
        self.interrupted = False

    def __call__(self, net: Any, X: Any = None, y: Any = None) -> float:
        """Score the net; the callback's rows are ignored."""
        start = time.perf_counter()
        try:
            return float(self.score(net))
        except KeyboardInterrupt:  # skorch would take it for early stopping
            self.interrupted = True
            raise
        finally:
            self.seconds += time.perf_counter() - start


def seen_by(clf: Any, problem: Problem) -> Problem:
    """Return what an estimator learns from: rows without a label and votes, if it takes them."""
    takes_gaps = "missing_label" in clf.get_params(deep=False)
    return problem if takes_gaps else problem.one_label_each


def measure(clf: Any, problem: Problem, *, on_gpu: bool = False) -> Measured:
    """Fit an estimator and return the values of `COLUMNS`, as far as they can be known.

    The last epoch is the model as ``fit`` leaves it. ``seconds`` is the time of ``fit`` without
    the scoring of its epochs.
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
    seen = seen_by(clf, problem)
    y, missing_label = seen.shown
    if missing_label is not None:
        clf.set_params(missing_label=missing_label)
    beside = {
        "X_val": problem.X_val,
        "y_val": problem.y_val,
        "clean_mask": seen.trusted,
    }
    known = inspect.signature(clf.fit).parameters
    beside = {name: value for name, value in beside.items() if name in known and value is not None}
    seconds: list[float] = []

    def fit() -> None:
        start = time.perf_counter()
        clf.fit(seen.X, y, **beside)
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
    return row | _accuracies(curves, bool(history)) | _found(clf, seen)


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
    """Return the fraction of test rows whose class is among the five most probable ones.

    As in the accuracy, a class without a training row never is.
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


def _found(clf: Any, problem: Problem) -> Measured:
    """Return how well the qualities separate wrong labels from right ones."""
    if problem.wrong is None:
        return {}
    row: Measured = {"noise_rate": float(problem.wrong[_with_label(problem)].mean())}
    ratings = _ratings(clf, problem)
    if ratings is None:
        return row
    return row | {
        "auroc": detection_auroc(*ratings),
        "average_precision": detection_average_precision(*ratings),
    }


def _ratings(clf: Any, problem: Problem) -> tuple[NDArray[np.bool_], NDArray[np.float64]] | None:
    """Return which labels are wrong, and their qualities, for labelled rows that are not trusted.

    None if there is nothing to separate, or if votes were learned from: what is rated then is not
    their majority.
    """
    wrong, quality = problem.wrong, getattr(clf, "label_quality_", None)
    if wrong is None or quality is None or problem.votes is not None:
        return None
    rated = _with_label(problem)
    if problem.trusted is not None:
        rated = rated & ~problem.trusted
    wrong, quality = wrong[rated], quality[rated]
    return None if wrong.all() or not wrong.any() else (wrong, quality)


def _with_label(problem: Problem) -> NDArray[np.bool_]:
    return np.ones(len(problem.y), bool) if problem.labelled is None else problem.labelled


def _histogram(clf: Any, problem: Problem) -> dict[str, list[float]]:
    ratings = _ratings(clf, problem)
    if ratings is None:
        return {}
    wrong, quality = ratings
    parts = {"right": quality[~wrong], "wrong": quality[wrong]}
    counts = {name: np.histogram(part, N_BINS, (0, 1))[0] for name, part in parts.items()}
    return {name: (count / max(1, int(count.sum()))).tolist() for name, count in counts.items()}
