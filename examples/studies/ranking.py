"""Rank networks without labels: ``python examples/studies/ranking.py rates settings``.

``rates``: does CLID on test rows follow the cross-entropy on their clean labels, over networks
trained at five noise rates? ``settings``: which setting of a grid do ``neg_clid`` and the accuracy
on noisy held-out labels choose, and what is it worth on clean labels? Clean labels are used for
scoring only. The data set ``fashion_mnist`` is read from the folder named by the environment
variable ``NOISYFIT_DATA``.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from skorch.callbacks import Callback

from noisyfit import CrossEntropyClassifier, neg_clid, noise
from noisyfit.benchmark import usage
from noisyfit.datasets import load_fashion_mnist
from noisyfit.metrics import clid, epoch_correlation, relative_performance_ratio

NOISE_RATES = (0.0, 0.2, 0.4, 0.6, 0.8)
GRID = {
    "module__width": (32, 128, 512),
    "max_epochs": (10, 60),
    "optimizer__weight_decay": (0.0, 5e-4),
}
MEASURES = ("clean cross-entropy", "CLID", "standardized CLID")
RULES = ("neg_clid", "plain CLID", "noisy accuracy", "oracle")

Split = tuple[Any, Any, Any, Any]


def digits(seed: int, rows: int) -> Split:
    """Split scikit-learn's digits 70/30 into X_train, X_test, y_train, y_test."""
    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, test_size=0.3, stratify=y, random_state=seed
    )
    return X_train[:rows], X_test, y_train[:rows], y_test


def fashion_mnist(seed: int, rows: int) -> Split:
    """Draw training images of Fashion-MNIST and 2,000 test images."""
    file = load_fashion_mnist()
    x, y, x_test, y_test = file.data, file.target, file.data_test, file.target_test
    rng = np.random.default_rng(seed)
    train, test = rng.permutation(len(x))[:rows], rng.permutation(len(x_test))[:2000]
    return x[train], x_test[test], y[train], y_test[test]


DATA = {"digits": digits, "fashion_mnist": fashion_mnist}


class Measure(Callback):
    """Records the `MEASURES` on test rows at the end of each epoch."""

    def __init__(self, X: Any, y: Any) -> None:
        self.X = X
        self.y = y

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Start afresh."""
        self.values_: list[tuple[float, ...]] = []

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Record the measures of this epoch."""
        probs = net.predict_proba(self.X)
        cross_entropy = log_loss(self.y, probs, labels=net.classes_)
        divergence = clid(net.transform(self.X), probs)
        self.values_.append((cross_entropy, divergence, -neg_clid(net, self.X)))


def rank_rates(options: argparse.Namespace) -> None:
    """Correlate CLID with the clean cross-entropy across noise rates, at each epoch."""
    for name in options.data:
        curves = [measured_curves(name, seed, options) for seed in options.seeds]
        all_curves = np.array(curves)  # (seeds, measures, epochs, rates)
        print(f"{name}: at the last epoch, mean over {len(curves)} seeds; "
              f"noise rates {NOISE_RATES}")  # fmt: skip
        for measure, values in zip(MEASURES, all_curves[:, :, -1].swapaxes(0, 1), strict=True):
            print(f"  {measure:20s} {in_columns(values.mean(0))} +/- {in_columns(values.std(0))}")
            if measure != "standardized CLID":  # a ratio needs a scale with a zero
                ratios = [relative_performance_ratio(row, row[0]) for row in values]
                print(f"  {'  its clean / noisy':20s} {in_columns(np.mean(ratios, axis=0))}")
        for k, measure in enumerate(MEASURES[1:], start=1):
            by_epoch = np.array([epoch_correlation(c[0], c[k]) for c in all_curves])
            last, every = by_epoch[:, -1], by_epoch[~np.isnan(by_epoch)]
            print(f"  correlation with {measure}: last epoch {last.mean():.3f} "
                  f"(seeds {in_columns(last)}); all epochs {every.mean():.3f} +/- "
                  f"{every.std():.3f}, min {every.min():.3f}, "
                  f"{100 * np.mean(every > 0.7):.0f} % above 0.7", flush=True)  # fmt: skip


def measured_curves(name: str, seed: int, options: argparse.Namespace) -> NDArray[np.float64]:
    """Train at every noise rate; return the measures, shape (measures, epochs, rates)."""
    X_train, X_test, y_train, y_test = DATA[name](seed, options.rows)
    curves = []
    for rate in NOISE_RATES:
        start = time.perf_counter()
        labels = noise.symmetric(y_train, rate, random_state=seed).labels
        measure = Measure(X_test, y_test)
        clf = CrossEntropyClassifier(
            max_epochs=options.epochs, callbacks=[measure], random_state=seed
        ).fit(X_train, labels)
        curves.append(measure.values_)
        print(f"  {name} seed {seed} noise {rate}: {100 * clf.score(X_test, y_test):.1f} %, "
              f"{in_columns(measure.values_[-1])} in {time.perf_counter() - start:.0f} s",
              flush=True)  # fmt: skip
    return np.array(curves).transpose(2, 1, 0)


def choose_settings(options: argparse.Namespace) -> None:
    """Choose among the settings of `GRID` on digits with 40 % symmetric noise."""
    outcomes: list[NDArray[np.float64]] = []
    settings: list[dict[str, Any]] = [
        dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())
    ]
    for seed in options.seeds:
        X_train, X_test, y_train, y_test = digits(seed, options.rows)
        noisy = noise.symmetric(y_train, 0.4, random_state=seed).labels
        X_fit, X_held, y_fit, y_held = train_test_split(
            X_train, noisy, test_size=0.2, stratify=noisy, random_state=seed
        )
        table = []  # settings by rules; the last column is the clean accuracy
        for setting in settings:
            clf = CrossEntropyClassifier("mlp", random_state=seed, **setting).fit(X_fit, y_fit)
            plain = -clid(clf.transform(X_held), clf.predict_proba(X_held))
            scores = neg_clid(clf, X_held), plain, clf.score(X_held, y_held)
            table.append((*scores, clf.score(X_test, y_test)))
        outcomes.append(np.array(table))
        report_choice(f"seed {seed}", settings, outcomes[-1])
    gained = np.array(
        [[100 * t[t[:, k].argmax(), -1] for k in range(len(RULES))] for t in outcomes]
    )
    print(f"mean over {len(gained)} seeds")
    for k, rule in enumerate(RULES):
        regret = gained[:, -1] - gained[:, k]
        print(f"  {rule:15s} {gained[:, k].mean():.1f} +/- {gained[:, k].std():.1f} %, below the "
              f"oracle {regret.mean():.1f}, at most {regret.max():.1f}", flush=True)  # fmt: skip


def report_choice(name: str, settings: list[dict[str, Any]], table: NDArray[np.float64]) -> None:
    """Print the scores of all settings and what each rule chooses."""
    clean = 100 * table[:, -1]
    spread = f"{clean.max():.1f} to {clean.min():.1f} %, median {np.median(clean):.1f}"
    print(f"{name}: clean accuracy {spread}")
    for setting, scores in zip(settings, table, strict=True):
        print(f"  {in_columns(scores)}  {setting}")
    for k, rule in enumerate(RULES):
        best = int(table[:, k].argmax())
        print(f"  {rule:15s} chooses {clean[best]:.1f} %: {settings[best]}", flush=True)


def in_columns(values: Any) -> str:
    """Format numbers side by side."""
    return " ".join(f"{value:7.3f}" for value in values)


SECTIONS = {"rates": rank_rates, "settings": choose_settings}


@usage.ends_with_its_reader
def main(argv: Sequence[str] | None = None) -> int:
    """Run the sections named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="+", choices=list(SECTIONS))
    parser.add_argument(
        "--data", nargs="+", choices=list(DATA), default=["digits"], help="of rates"
    )
    parser.add_argument("--rows", type=usage.count, default=10000, help="training rows at most")
    parser.add_argument("--epochs", type=usage.count, default=None, help="of rates")
    parser.add_argument("--seeds", nargs="+", type=usage.seed, default=[0, 1, 2])
    parser.add_argument("--threads", type=usage.count, default=1)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    for section in options.sections:
        SECTIONS[section](options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
