"""Tell unknown classes from known ones: ``python examples/studies/ood.py --data digits``.

Networks are trained on noisy labels of the first seven classes, and the four scores of
`noisyfit.metrics.ood_scores` tell clean test rows of these classes from rows of the other three,
and from rows of another kind altogether. Methods with a meta set get 100 clean rows; otherwise the
clean labels only score. The data sets ``fashion_mnist`` and ``cifar10n`` are read from the folder
named by the environment variable ``NOISYFIT_DATA``. With the latter, of which only the images are
used, the sets of `noisyfit.datasets.load_ood` are unknown rows, as far as they are in that folder.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from noisyfit import noise
from noisyfit.benchmark import usage
from noisyfit.benchmark.contenders import make, method_names
from noisyfit.datasets import load_cifar10n, load_fashion_mnist, load_ood
from noisyfit.datasets.ood import LAYOUTS
from noisyfit.metrics import fpr_at_95_tpr, ood_auroc, ood_scores

N_KNOWN = 7
CLEAN_ROWS = 100
UNKNOWN_ROWS = 2000  # at most, of each set of images
SCORES = ("msp", "energy", "mahalanobis", "knn")


@dataclass
class Task:
    """Rows of known classes with clean labels, and sets of unknown rows by name."""

    X: Any
    y: Any
    X_test: Any
    y_test: Any
    unknown: dict[str, Any]


def digits(seed: int, rows: int) -> Task:
    """Split scikit-learn's digits 0-6 70/30; unknown are 7-9, and digits with shuffled pixels.

    The latter have ink where training rows almost never do, so that standardising makes them
    extreme.
    """
    X, y = load_digits(return_X_y=True)
    known = y < N_KNOWN
    X_train, X_test, y_train, y_test = train_test_split(
        X[known], y[known], test_size=0.3, stratify=y[known], random_state=seed
    )
    mixed = np.random.default_rng(seed).permuted(X_test, axis=1)
    unknown = {"held-out classes": X[~known], "mixed pixels": mixed}
    return Task(X_train[:rows], y_train[:rows], X_test, y_test, unknown)


def fashion_mnist(seed: int, rows: int) -> Task:
    """Draw images of Fashion-MNIST; unknown are the last three classes, and digits."""
    return drawn(load_fashion_mnist(), {"digits": large_digits()}, seed, rows)


def cifar10n(seed: int, rows: int) -> Task:
    """Draw photographs; unknown are the last three classes, and the other sets that exist."""
    return drawn(load_cifar10n("clean"), other_images(seed), seed, rows)


def drawn(file: Any, others: dict[str, Any], seed: int, rows: int) -> Task:
    """Draw images of known classes; unknown are the other classes, and other sets."""
    x, y, x_test, y_test = file.data, file.target, file.data_test, file.target_test
    rng = np.random.default_rng(seed)
    train = rng.permutation(np.flatnonzero(y < N_KNOWN))[:rows]
    test = rng.permutation(np.flatnonzero(y_test < N_KNOWN))[:2000]
    held_out = rng.permutation(np.flatnonzero(y_test >= N_KNOWN))[:UNKNOWN_ROWS]
    unknown = {"held-out classes": x_test[held_out]} | others
    return Task(x[train], y[train], x_test[test], y_test[test], unknown)


def other_images(seed: int) -> dict[str, NDArray[np.uint8]]:
    """Return the sets of `load_ood` that the folder holds; say which are missing."""
    found = {}
    for name in LAYOUTS:
        try:
            found[name] = load_ood(name, n_samples=UNKNOWN_ROWS, random_state=seed).data
        except FileNotFoundError as error:
            print(f"  without {name}: {error}", flush=True)
    return found


def large_digits() -> NDArray[np.uint8]:
    """Return scikit-learn's digits as images of 28 x 28 pixels."""
    images = torch.as_tensor(load_digits().images * (255 / 16))[:, None]
    larger = torch.nn.functional.interpolate(images, size=(28, 28), mode="bilinear")
    return larger[:, 0].numpy().astype(np.uint8)


DATA = {"digits": digits, "fashion_mnist": fashion_mnist, "cifar10n": cifar10n}


def fit(method: str, task: Task, seed: int, options: argparse.Namespace) -> Any:
    """Fit one method on noisy labels."""
    labels = noise.symmetric(task.y, options.rate, random_state=seed).labels
    clf = make(method, max_epochs=options.epochs, random_state=seed)
    if not clf._uses_meta:
        return clf.fit(task.X, labels)
    meta = np.random.default_rng(seed).permutation(len(task.X))[:CLEAN_ROWS]
    return clf.fit(task.X, labels, X_meta=task.X[meta], y_meta=task.y[meta])


def scored(clf: Any, task: Task, X: Any) -> list[NDArray[np.float64]]:
    """Return the four scores of rows."""
    logits = clf.predict_logits(X)
    train = {"train_embeddings": clf.transform(task.X), "train_labels": clf.corrected_labels_}
    embeddings = clf.transform(X)
    return [ood_scores(logits, embeddings, method=method, **train) for method in SCORES]


def measured(clf: Any, task: Task) -> NDArray[np.float64]:
    """Return AUROC and FPR95 in percent, shape (sets of unknown rows, scores, 2)."""
    known = scored(clf, task, task.X_test)
    return np.array(
        [
            [
                (100 * ood_auroc(s_in, s_out), 100 * fpr_at_95_tpr(s_in, s_out))
                for s_in, s_out in zip(known, scored(clf, task, X), strict=True)
            ]
            for X in task.unknown.values()
        ]
    )


def run(name: str, method: str, options: argparse.Namespace) -> None:
    """Fit one method with every seed; print mean and spread of AUROC and FPR95 for each score."""
    found, accuracy = [], []
    for seed in options.seeds:
        task = DATA[name](seed, options.rows)
        start = time.perf_counter()
        clf = fit(method, task, seed, options)
        seconds = time.perf_counter() - start
        found.append(measured(clf, task))
        accuracy.append(100 * clf.score(task.X_test, task.y_test))
        print(f"  {name} seed {seed} {method}: {accuracy[-1]:.1f} % in {seconds:.0f} s",
              flush=True)  # fmt: skip
    print(f"{name}, {100 * options.rate:.0f} % symmetric, {method}, {len(found)} seeds: "
          f"{np.mean(accuracy):.1f} +/- {np.std(accuracy):.1f} % right on known classes",
          flush=True)  # fmt: skip
    mean, spread = np.mean(found, axis=0), np.std(found, axis=0)
    for i, unknown in enumerate(task.unknown):
        for k, score in enumerate(SCORES):
            auroc, fpr = (f"{mean[i, k, j]:5.1f} +/- {spread[i, k, j]:4.1f}" for j in (0, 1))
            print(f"  {unknown:17s} {score:12s} AUROC {auroc}, FPR95 {fpr}", flush=True)


@usage.ends_with_its_reader
def main(argv: Sequence[str] | None = None) -> int:
    """Run the data sets and methods named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = ["cross_entropy", "hrp"]
    parser.add_argument("--methods", nargs="+", default=default, help="as of noisyfit benchmark")
    parser.add_argument("--data", nargs="+", choices=list(DATA), default=["digits"])
    parser.add_argument("--rate", type=usage.share, default=0.5, help="share of wrong labels")
    parser.add_argument("--rows", type=usage.count, default=5000, help="training rows at most")
    parser.add_argument("--epochs", type=usage.epochs, default=None)
    parser.add_argument("--seeds", nargs="+", type=usage.seed, default=[0, 1, 2])
    parser.add_argument("--threads", type=usage.count, default=1)
    options = parser.parse_args(argv)
    try:
        methods = method_names(options.methods)
    except ValueError as error:
        parser.error(str(error))
    torch.set_num_threads(options.threads)
    for name in options.data:
        for method in methods:
            run(name, method, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
