"""Last-epoch accuracy at the defaults: ``python -m noisyfit.benchmark.accuracy section ...``.

Clean labels are used for scoring only. The sections other than ``digits`` read the folder named by
the environment variable ``NOISYFIT_DATA``.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from noisyfit import CrossEntropyClassifier, FlywheelClassifier, noise
from noisyfit.metrics import detection_auroc

WEAK_SETS = ("music_genre_crowd", "trec_weak", "hausa_news_weak", "youtube_spam_weak")


@dataclass
class Task:
    """Noisy rows to fit, clean rows to score, and which given labels are wrong."""

    name: str
    X: Any
    y: Any
    X_test: Any
    y_test: Any
    wrong: Any
    seed: int
    params: dict[str, Any]


def digits() -> Iterator[Task]:
    """Five 70/30 splits and three noise seeds of two kinds of 40 % noise."""
    X, y = load_digits(return_X_y=True)
    for split in range(5):
        parts = train_test_split(X, y, test_size=0.3, stratify=y, random_state=split)
        X_train, X_test, y_train, y_test = parts
        for seed in range(3):
            for add_noise in (noise.symmetric, noise.pairflip):
                noisy = add_noise(y_train, 0.4, random_state=seed)
                name = f"digits {add_noise.__name__} 40 %"
                yield Task(
                    name,
                    X_train,
                    noisy.labels,
                    X_test,
                    y_test,
                    noisy.flipped,
                    10 * split + seed,
                    {},
                )


def human() -> Iterator[Task]:
    """CIFAR-10N, labels ``worst``: 10,000 rows, two seeds."""
    with np.load(data_file("cifar10n")) as file:
        x, clean, given = file["x_train"], file["y_clean"], file["y_worst"]
        x_test, y_test = file["x_test"], file["y_test"]
    for seed in range(2):
        rows = np.random.default_rng(seed).permutation(len(x))[:10000]
        wrong = given[rows] != clean[rows]
        yield Task("CIFAR-10N worst", x[rows], given[rows], x_test, y_test, wrong, seed, {})


def weak() -> Iterator[Task]:
    """Crowd votes and labelling rules, five seeds; rows without a label are marked -1."""
    for name in WEAK_SETS:
        with np.load(data_file(name)) as file:
            given = file["y_single" if name == "music_genre_crowd" else "y_noisy_train"]
            task = (file["X_train"], given, file["X_test"], file["y_test"])
            wrong = np.where(given >= 0, given != file["y_train"], False)
        for seed in range(5):
            yield Task(name, *task, wrong, seed, {"missing_label": -1})


SECTIONS = {"digits": digits, "human": human, "weak": weak}


def data_file(name: str) -> Path:
    """Return the path of a data set."""
    return Path(os.environ["NOISYFIT_DATA"]) / f"{name}.npz"


def run(section: str, params: dict[str, Any]) -> None:
    """Fit both estimators on every task and print mean, spread and paired difference."""
    accuracy: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    auroc: dict[tuple[str, str], list[float]] = defaultdict(list)
    for task in SECTIONS[section]():
        for kind in (CrossEntropyClassifier, FlywheelClassifier):
            own = params if kind is FlywheelClassifier else {}
            start = time.perf_counter()
            clf = kind(random_state=task.seed, **task.params, **own).fit(task.X, task.y)
            seconds = time.perf_counter() - start
            accuracy[task.name][kind.__name__].append(100 * clf.score(task.X_test, task.y_test))
            auroc[task.name, kind.__name__].append(detection_auroc(task.wrong, clf.label_quality_))
            score = accuracy[task.name][kind.__name__][-1]
            run_name = f"{task.name} seed {task.seed} {kind.__name__}"
            print(f"  {run_name}: {score:.1f} % in {seconds:.0f} s", flush=True)
    for name, scores in accuracy.items():
        print(f"{name}, {len(next(iter(scores.values())))} runs")
        for method, values in scores.items():
            found = np.array(auroc[name, method])
            spread = (
                f"{np.mean(values):5.1f} +/- {np.std(values, ddof=1):4.1f} %, min {min(values):.1f}"
            )
            print(f"  {method:24s} {spread}; AUROC {found.mean():.3f}, min {found.min():.3f}")
        gain = np.subtract(scores["FlywheelClassifier"], scores["CrossEntropyClassifier"])
        print(f"  paired difference        {gain.mean():+.1f} +/- {gain.std(ddof=1):.1f}, "
              f"min {gain.min():+.1f}", flush=True)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Run the sections named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="+", choices=list(SECTIONS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=NUMBER")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    params = {name: float(value) for name, value in (item.split("=") for item in options.set)}
    for section in options.sections:
        run(section, params)


if __name__ == "__main__":
    main()
