"""Accuracy at the defaults: ``python -m noisyfit.benchmark.accuracy digits --methods clid``.

Clean labels are used for scoring only, but for rows that a method is told are clean. The sections
other than ``digits`` read the folder named by the environment variable ``NOISYFIT_DATA``.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from noisyfit import (
    CLIDMetaClassifier,
    CoTeachingClassifier,
    CrossEntropyClassifier,
    DivideMixClassifier,
    ELRClassifier,
    FlywheelClassifier,
    GCEClassifier,
    HRPClassifier,
    MixUpClassifier,
    RLDClassifier,
    noise,
)
from noisyfit.benchmark import usage
from noisyfit.metrics import detection_auroc

WEAK_SETS = ("music_genre_crowd", "trec_weak", "hausa_news_weak", "youtube_spam_weak")


FINE_TUNING_STEPS = 50  # on all clean rows at once
BASE: dict[str, Any] = {  # Eq. 15 of HRP without what its ablation (Table 4) adds or takes away
    "reliability": None,
    "mixing": None,
    "contrastive_weight": 0.0,
}
PLAIN_MIXING: dict[str, Any] = BASE | {"mixing": "symmetric", "gated": False}
RATED: dict[str, Any] = {"reliability": "disentangled", "reweighting": 0.0}  # not in Eq. 13
METHODS: dict[str, dict[str, tuple[type[Any], dict[str, Any]]]] = {
    "flywheel": {"FlywheelClassifier": (FlywheelClassifier, {})},
    "clid": {
        "CLIDMetaClassifier": (CLIDMetaClassifier, {}),
        "last epoch": (CLIDMetaClassifier, {"n_snapshots": 1}),
    },
    "vri": {
        "VRI": (CLIDMetaClassifier, {"meta_model": "vri"}),
        "VRI, last epoch": (CLIDMetaClassifier, {"meta_model": "vri", "n_snapshots": 1}),
    },
    "clid_controls": {
        "weights frozen": (CLIDMetaClassifier, {"meta_lr": 0.0, "n_snapshots": 1}),
        "MAE": (CLIDMetaClassifier, {"meta_objective": "mae", "n_snapshots": 1}),
        "clean meta set": (
            CLIDMetaClassifier,
            {"meta_objective": "ce", "n_snapshots": 1, "clean": "beside"},
        ),
    },
    "hrp": {
        "HRPClassifier": (HRPClassifier, {}),
        "HRP, trusted": (HRPClassifier, {"clean": "among"}),
    },
    "hrp_ablation": {
        name: (HRPClassifier, params | {"clean": "among"})
        for name, params in {
            "base": BASE,
            "+ coupled meta": BASE | {"reliability": "coupled"},
            "+ CDCL": BASE | RATED | {"contrastive_weight": 0.05},
            "+ RAM and GRG": BASE | RATED | {"mixing": "asymmetric"},
            "w/o RAM": {"mixing": None},
            "w/o CDCL": {"contrastive_weight": 0.0},
            "w/o GRG": {"gated": False},
            "symmetric RAM": {"mixing": "symmetric"},
            "full": {},
        }.items()
    },
    "hrp_controls": {  # the same terms without reliabilities
        "+ contrast": (HRPClassifier, BASE | {"contrastive_weight": 0.05, "clean": "among"}),
        "+ mixing": (HRPClassifier, PLAIN_MIXING | {"clean": "among"}),
    },
    "rld": {"RLDClassifier": (RLDClassifier, {})},
    "rld_ablation": {
        "w/o L_cont": (RLDClassifier, {"contrastive_weight": 0.0}),
        "w/o L_cl": (RLDClassifier, {"predictor_weight": 0.0}),
        "w/o guidance": (RLDClassifier, {"guidance_scale": 0.0}),
        "anchor: ensemble": (RLDClassifier, {"anchor": "ensemble"}),
        "no anchor": (RLDClassifier, {"anchor": None}),
    },
    "peers": {
        "ELRClassifier": (ELRClassifier, {}),
        "GCEClassifier": (GCEClassifier, {}),
        "GCE, truncated": (GCEClassifier, {"truncation": 0.5}),
        "MixUpClassifier": (MixUpClassifier, {}),
        "CoTeachingClassifier": (CoTeachingClassifier, {}),
        "DivideMixClassifier": (DivideMixClassifier, {}),
    },
    "trusted": {
        "cross-entropy, trusted": (CrossEntropyClassifier, {"clean": "among"}),
        "fine-tuned": (CrossEntropyClassifier, {"clean": "among", "fine_tune": True}),
        "CLID, trusted": (
            CLIDMetaClassifier,
            {"meta_objective": "ce", "n_snapshots": 1, "clean": "among"},
        ),
    },
}


@dataclass
class Task:
    """Noisy rows to fit, their clean labels, and clean rows to score."""

    name: str
    X: Any
    y: Any
    y_clean: Any
    X_test: Any
    y_test: Any
    seed: int
    params: dict[str, Any]  # for the methods that have them
    n_clean: int = 100  # rows that are known to be clean, for methods that are told so

    @property
    def wrong(self) -> Any:
        """(n,) boolean: labels that are given and wrong."""
        return (self.y >= 0) & (self.y != self.y_clean)


def digits() -> Iterator[Task]:
    """Five 70/30 splits and three noise seeds of three kinds of 40 % noise."""
    X, y = load_digits(return_X_y=True)
    for split in range(5):
        parts = train_test_split(X, y, test_size=0.3, stratify=y, random_state=split)
        X_train, X_test, y_train, y_test = parts
        for seed in range(3):
            for kind, noisy in {
                "symmetric": noise.symmetric(y_train, 0.4, random_state=seed),
                "pairflip": noise.pairflip(y_train, 0.4, random_state=seed),
                "instance": noise.instance_dependent(y_train, X_train, 0.4, random_state=seed),
            }.items():
                task = (X_train, noisy.labels, y_train, X_test, y_test)
                yield Task(f"digits {kind} 40 %", *task, 10 * split + seed, {})


def half() -> Iterator[Task]:
    """Three seeds of symmetric 50 % on digits and on 5,000 rows of Fashion-MNIST."""
    X, y = load_digits(return_X_y=True)
    with np.load(data_file("fashion_mnist")) as file:
        x, clean, x_test, y_test = (file[k] for k in ("x_train", "y_train", "x_test", "y_test"))
    for seed in range(3):
        parts = train_test_split(X, y, test_size=0.3, stratify=y, random_state=seed)
        X_train, X_test, y_train, y_held = parts
        given = noise.symmetric(y_train, 0.5, random_state=seed).labels
        task = (X_train, given, y_train, X_test, y_held)
        yield Task("digits symmetric 50 %", *task, seed, {})
        rows = np.random.default_rng(seed).permutation(len(x))[:5000]
        given = noise.symmetric(clean[rows], 0.5, random_state=seed).labels
        task = (x[rows], given, clean[rows], x_test, y_test)
        short = {"max_epochs": 15, "warmup_epochs": 5}  # by default it is all warm-up
        yield Task("Fashion-MNIST symmetric 50 %", *task, seed, short)


def ablation() -> Iterator[Task]:
    """Pairflip 45 % on digits, and 2,000 rows of CIFAR-10N ``worst`` as features; three seeds."""
    X, y = load_digits(return_X_y=True)
    with np.load(data_file("cifar10n_features")) as file:
        features, features_test = (file[k].astype(np.float32) for k in ("X_train", "X_test"))
    with np.load(data_file("cifar10n")) as file:
        clean, given, y_test = file["y_clean"], file["y_worst"], file["y_test"]
    for seed in range(3):
        parts = train_test_split(X, y, test_size=0.3, stratify=y, random_state=seed)
        X_train, X_test, y_train, y_held = parts
        flipped = noise.pairflip(y_train, 0.45, random_state=seed).labels
        yield Task("digits pairflip 45 %", X_train, flipped, y_train, X_test, y_held, seed, {})
        rows = np.random.default_rng(seed).permutation(len(features))[:2000]
        task = (features[rows], given[rows], clean[rows], features_test, y_test)
        yield Task("CIFAR-10N worst, features", *task, seed, {"max_epochs": 30}, n_clean=250)


def human() -> Iterator[Task]:
    """CIFAR-10N, labels ``worst``: 10,000 rows, two seeds."""
    with np.load(data_file("cifar10n")) as file:
        x, clean, given = file["x_train"], file["y_clean"], file["y_worst"]
        x_test, y_test = file["x_test"], file["y_test"]
    for seed in range(2):
        rows = np.random.default_rng(seed).permutation(len(x))[:10000]
        task = (x[rows], given[rows], clean[rows], x_test, y_test)
        yield Task("CIFAR-10N worst", *task, seed, {}, n_clean=500)


def weak() -> Iterator[Task]:
    """Crowd votes and labelling rules, five seeds; rows without a label are marked -1."""
    for name in WEAK_SETS:
        with np.load(data_file(name)) as file:
            given = file["y_single" if name == "music_genre_crowd" else "y_noisy_train"]
            task = (file["X_train"], given, file["y_train"], file["X_test"], file["y_test"])
        for seed in range(5):
            yield Task(name, *task, seed, {"missing_label": -1})


SECTIONS = {"digits": digits, "half": half, "ablation": ablation, "human": human, "weak": weak}


def data_file(name: str) -> Path:
    """Return the path of a data set."""
    return Path(os.environ["NOISYFIT_DATA"]) / f"{name}.npz"


def fit(
    task: Task, kind: type[Any], *, clean: str = "", fine_tune: bool = False, **params: Any
) -> Any:
    """Fit one estimator on one task; clean rows come ``"beside"`` or ``"among"`` the noisy ones."""
    known_params = kind().get_params(deep=False)
    of_task = {name: value for name, value in task.params.items() if name in known_params}
    clf = kind(random_state=task.seed, **of_task, **params)
    known = np.random.default_rng(task.seed).permutation(len(task.X))[: task.n_clean]
    if clean == "beside":
        return clf.fit(task.X, task.y, X_meta=task.X[known], y_meta=task.y_clean[known])
    if clean != "among":
        return clf.fit(task.X, task.y)
    given, trusted = task.y.copy(), np.isin(np.arange(len(task.X)), known)
    given[known] = task.y_clean[known]
    clf.fit(task.X, given, clean_mask=trusted)
    if fine_tune:
        clf.set_params(batch_size=task.n_clean, optimizer__weight_decay=0.0)
        clf.fine_tune(task.X[known], given[known], epochs=FINE_TUNING_STEPS, lr=clf.lr / 10)
    return clf


def run(section: str, methods: Sequence[str], n_tasks: int | None = None) -> None:
    """Fit all on the tasks; print mean, spread and the paired difference to cross-entropy."""
    compared: dict[str, tuple[type[Any], dict[str, Any]]] = {
        "CrossEntropyClassifier": (CrossEntropyClassifier, {})
    }
    for method in methods:
        compared |= METHODS[method]
    accuracy: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    auroc: dict[tuple[str, str], list[float]] = defaultdict(list)
    for task in islice(SECTIONS[section](), n_tasks):
        for label, (kind, params) in compared.items():
            start = time.perf_counter()
            clf = fit(task, kind, **params)
            seconds = time.perf_counter() - start
            score = 100 * clf.score(task.X_test, task.y_test)
            accuracy[task.name][label].append(score)
            rated = clf.label_quality_ < 1  # trusted rows are not
            auroc[task.name, label].append(
                detection_auroc(task.wrong[rated], clf.label_quality_[rated])
            )
            run_name = f"{task.name} seed {task.seed} {label}"
            print(f"  {run_name}: {score:.1f} % in {seconds:.0f} s", flush=True)
    for name, scores in accuracy.items():
        baseline = scores["CrossEntropyClassifier"]
        print(f"{name}, {len(baseline)} runs")
        for label, values in scores.items():
            found, gain = np.array(auroc[name, label]), np.subtract(values, baseline)
            print(
                f"  {label:22s} {np.mean(values):5.1f} +/- {np.std(values, ddof=1):4.1f} %, "
                f"min {min(values):.1f}; over cross-entropy {gain.mean():+.1f} +/- "
                f"{gain.std(ddof=1):.1f}, min {gain.min():+.1f}; "
                f"AUROC {found.mean():.3f}, min {found.min():.3f}",
                flush=True,
            )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the sections named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="+", choices=list(SECTIONS))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=["flywheel"])
    parser.add_argument("--tasks", type=usage.count, help="only the first ones of each section")
    parser.add_argument("--threads", type=usage.count, default=1)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    for section in options.sections:
        run(section, options.methods, options.tasks)


if __name__ == "__main__":
    main()
