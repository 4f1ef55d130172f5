"""What EchoAlign shows: ``python -m noisyfit.benchmark.echo detect accuracy table3``.

Clean labels are used for scoring only. ``detect`` prints how well similarities tell wrong labels
from right ones, and how many rows are kept at a given precision beside a selection by small loss
(the paper's Table 4); ``accuracy`` compares with cross-entropy on digits; ``table3`` fits the
ablations of the paper's Table 3, and ``thresholds`` those of its Fig. 4: which originals are kept
at each threshold, and what is learned with them. The data set ``fashion`` is read from the folder
named by ``NOISYFIT_DATA``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import ks_2samp
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from noisyfit import CrossEntropyClassifier, EchoAlignClassifier, EchoSelect, noise
from noisyfit.benchmark import usage
from noisyfit.datasets import load_fashion_mnist
from noisyfit.metrics import detection_auroc

SETTINGS: dict[str, dict[str, Any]] = {
    "full": {},
    "select only": {"include_modified": "none"},
    "modify only": {"include_modified": "all", "include_originals": False},
    "released code": {
        "include_modified": "all",
        "domain_weighting": True,
        "finetune_epochs": 40,
    },
    "by small loss": {"rating": CrossEntropyClassifier(max_epochs=70)},
}
THRESHOLDS = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def noisy_labels(kind: str, X: Any, y: Any, rate: float, seed: int) -> Any:
    """Return labels with noise that is symmetric, pairflip or instance-dependent."""
    if kind == "instance":
        return noise.instance_dependent(y, X, rate, random_state=seed)
    return getattr(noise, kind)(y, rate, random_state=seed)


def digits(split: int, rows: int) -> tuple[Any, Any, Any, Any]:
    """Split the digits of scikit-learn 70/30, as tables."""
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.3, stratify=y, random_state=split)
    return X[:rows], y[:rows], X_test, y_test


def fashion(split: int, rows: int) -> tuple[Any, Any, Any, Any]:
    """Draw images of Fashion-MNIST."""
    data = load_fashion_mnist()
    drawn = np.random.default_rng(split).permutation(len(data.data))[:rows]
    return data.data[drawn], data.target[drawn], data.data_test, data.target_test


DATA = {"digits": digits, "fashion": fashion}


def n_kept(wrong: NDArray[np.bool_], scores: NDArray[Any], precision: float) -> int:
    """Return how many rows of the highest scores can be kept at a share of right labels."""
    right = np.cumsum(~wrong[np.argsort(-scores, kind="stable")])
    enough = np.flatnonzero(right >= precision * np.arange(1, len(right) + 1))
    return int(enough[-1] + 1) if len(enough) else 0


def detect(options: argparse.Namespace) -> None:
    """Print AUROC, the Kolmogorov-Smirnov test and the rows kept at a precision."""
    for name, kind in product(options.data, options.noise):
        for seed in options.seeds:
            X, y, *_ = DATA[name](seed, options.rows)
            noisy = noisy_labels(kind, X, y, options.rate, seed)
            start = time.perf_counter()
            echo = EchoSelect(random_state=seed).fit(X, noisy.labels)
            seconds = time.perf_counter() - start
            similarities, wrong = echo.similarities_, noisy.flipped
            test = ks_2samp(similarities[wrong], similarities[~wrong])
            baseline = CrossEntropyClassifier(random_state=seed).fit(X, noisy.labels)
            ratings = {"similarity": similarities, "small loss": baseline.label_quality_}
            kept = {
                f"{precision:.0%}, {rating}": n_kept(wrong, scores, precision)
                for precision in options.precisions
                for rating, scores in ratings.items()
            }
            loss_auroc = detection_auroc(wrong, baseline.label_quality_)
            print(
                f"{name} {kind} {options.rate:.0%} seed {seed}: AUROC "
                f"{detection_auroc(wrong, similarities):.3f} (small loss {loss_auroc:.3f}), "
                f"KS {test.statistic:.2f}, p {test.pvalue:.0e}, threshold "
                f"{echo.threshold_:.2f} keeps {echo.support_.sum()} of {len(X)}, "
                f"{(~wrong)[echo.support_].mean():.1%} right, in {seconds:.0f} s; "
                f"kept at {kept}",
                flush=True,
            )


def compare(options: argparse.Namespace, settings: Sequence[str]) -> None:
    """Print the accuracy of settings beside that of cross-entropy, and the paired difference."""
    for name, kind in product(options.data, options.noise):
        accuracy: dict[str, list[float]] = defaultdict(list)
        for split, seed in product(options.splits, options.seeds):
            X, y, X_test, y_test = DATA[name](split, options.rows)
            noisy = noisy_labels(kind, X, y, options.rate, seed)
            random_state = 10 * split + seed
            baseline = CrossEntropyClassifier(random_state=random_state).fit(X, noisy.labels)
            accuracy["cross-entropy"].append(100 * baseline.score(X_test, y_test))
            with tempfile.TemporaryDirectory() as memory:
                for setting in settings:
                    params = dict(SETTINGS[setting])
                    rating = params.pop("rating", "similarity")
                    echo = EchoSelect(rating=rating, memory=memory, random_state=random_state)
                    clf = EchoAlignClassifier(selector=echo, random_state=random_state, **params)
                    clf.fit(X, noisy.labels)
                    accuracy[setting].append(100 * clf.score(X_test, y_test))
            last = ", ".join(f"{label} {values[-1]:.1f}" for label, values in accuracy.items())
            title = f"{name} {kind} {options.rate:.0%}"
            print(f"  {title} split {split} seed {seed}: {last}", flush=True)
        print(f"{title}, {len(accuracy['cross-entropy'])} runs")
        for label, values in accuracy.items():
            gain = np.subtract(values, accuracy["cross-entropy"])
            print(
                f"  {label:14s} {np.mean(values):5.1f} +/- {np.std(values):4.1f} %, min "
                f"{min(values):.1f}; over cross-entropy {gain.mean():+.1f} +/- {gain.std():.1f}, "
                f"min {gain.min():+.1f}",
                flush=True,
            )


def sweep(options: argparse.Namespace) -> None:
    """Print what is kept and learned at each threshold of the similarity."""
    for name, kind in product(options.data, options.noise):
        found: dict[float, list[tuple[float, float, float]]] = defaultdict(list)
        for seed in options.seeds:
            X, y, X_test, y_test = DATA[name](seed, options.rows)
            noisy = noisy_labels(kind, X, y, options.rate, seed)
            with tempfile.TemporaryDirectory() as memory:  # one generator for all thresholds
                for threshold in THRESHOLDS:
                    echo = EchoSelect(threshold=threshold, memory=memory, random_state=seed)
                    clf = EchoAlignClassifier(selector=echo, random_state=seed)
                    clf.fit(X, noisy.labels)
                    kept = clf.support_
                    right = 100 * (~noisy.flipped)[kept].mean() if kept.any() else np.nan
                    accuracy = 100 * clf.score(X_test, y_test)
                    found[threshold].append((100 * kept.mean(), right, accuracy))
        print(f"{name} {kind} {options.rate:.0%}, {len(options.seeds)} seeds")
        for threshold, rows in found.items():
            share, right, accuracy = np.nanmean(rows, axis=0)
            print(
                f"  threshold {threshold:.1f}: keeps {share:.0f} %, {right:.1f} % of them right; "
                f"accuracy {accuracy:.1f} +/- {np.std(rows, axis=0)[2]:.1f} %",
                flush=True,
            )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the sections named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "sections", nargs="+", choices=["detect", "accuracy", "table3", "thresholds"]
    )
    parser.add_argument("--data", nargs="+", choices=list(DATA), default=["digits"])
    kinds = ["symmetric", "pairflip", "instance"]
    parser.add_argument("--noise", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--rate", type=usage.share, default=0.4, help="share of wrong labels")
    parser.add_argument("--precisions", nargs="+", type=float, default=[0.96, 0.99])
    parser.add_argument("--rows", type=usage.count, default=4000, help="training rows at most")
    parser.add_argument("--splits", nargs="+", type=usage.seed, default=[0])
    parser.add_argument("--seeds", nargs="+", type=usage.seed, default=[0, 1, 2])
    parser.add_argument("--threads", type=usage.count, default=1)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    for section in options.sections:
        if section == "detect":
            detect(options)
        elif section == "thresholds":
            sweep(options)
        else:
            compare(options, list(SETTINGS) if section == "table3" else ["full"])


if __name__ == "__main__":
    main()
