from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from noisyfit import CrossEntropyClassifier, noise
from noisyfit.benchmark.accuracy import METHODS, SECTIONS, Task, fit

ROWS = {**METHODS["hrp_ablation"], **METHODS["hrp_controls"]}


@pytest.fixture
def task() -> Task:
    """120 digits, half of whose labels are wrong."""
    X, y = load_digits(return_X_y=True)
    given = noise.symmetric(y[:120], 0.5, random_state=0).labels
    short = {"max_epochs": 4, "warmup_epochs": 1}
    return Task("digits", X[:120], given, y[:120], X[120:], y[120:], 0, short, n_clean=50)


@pytest.mark.parametrize(
    "row, rated, gated, contrasted",
    [
        ("base", False, False, False),
        ("+ coupled meta", True, False, False),
        ("+ CDCL", True, False, True),
        ("+ RAM and GRG", True, True, False),
        ("w/o RAM", True, False, True),
        ("w/o CDCL", True, True, False),
        ("w/o GRG", True, False, True),
        ("symmetric RAM", True, True, True),
        ("full", True, True, True),
        ("+ contrast", False, False, True),
        ("+ mixing", False, False, False),
    ],
)
def test_hrp_ablation__each_row__has_the_parts_that_it_names(
    row: str, rated: bool, gated: bool, contrasted: bool, task: Task
) -> None:
    kind, params = ROWS[row]
    clf = fit(task, kind, **params)
    assert (np.ptp(clf.label_reliability_) > 0) == rated  # else there is no meta-learning
    assert ("gate" in clf.history_[-1]) == gated
    assert ("pair_agreement" in clf.history_[-1]) == contrasted


def test_hrp_ablation__base_and_its_parts__do_not_reweight_the_cross_entropy() -> None:
    for row in ("+ CDCL", "+ RAM and GRG"):
        assert ROWS[row][1]["reweighting"] == 0


def test_hrp_ablation__no_two_rows__are_the_same(task: Task) -> None:
    found = [fit(task, kind, **params).predict_proba(task.X_test) for kind, params in ROWS.values()]
    for i, probs in enumerate(found):
        for others in found[:i]:
            assert not np.allclose(probs, others, atol=1e-6)


def test_fine_tuning__is_fifty_steps_on_all_clean_rows(task: Task) -> None:
    """It was fifty epochs: with 500 clean rows and batches of 128, two hundred steps."""
    sizes: list[int] = []

    def watch(x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        return x

    params: dict[str, Any] = {"augmentation": watch, "batch_size": 30, "max_epochs": 4}
    task.params = {"device": "cpu"}  # a GPU makes the views of several batches at once
    fit(task, CrossEntropyClassifier, clean="among", fine_tune=True, **params)
    assert sizes == [30] * 16 + [50] * 50


def test_ablation__features__have_the_labels_of_their_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOISYFIT_DATA", str(tmp_path))
    features = np.arange(12, dtype=np.float16).reshape(4, 3)
    np.savez(tmp_path / "cifar10n_features.npz", X_train=features, X_test=features[:2])
    labels = {"y_clean": np.arange(6), "y_worst": np.arange(6)[::-1], "y_test": np.arange(2)}
    np.savez(tmp_path / "cifar10n.npz", **labels)  # type: ignore[arg-type]
    tasks = list(SECTIONS["ablation"]())
    assert [(t.name, t.seed, t.n_clean) for t in tasks] == [
        (name, seed, n_clean)
        for seed in range(3)
        for name, n_clean in (("digits pairflip 45 %", 100), ("CIFAR-10N worst, features", 250))
    ]
    assert tasks[0].wrong.mean() == pytest.approx(0.45, abs=0.05)
    for images in tasks[1::2]:
        drawn = np.random.default_rng(images.seed).permutation(4)
        assert (images.X.dtype, images.X.tolist()) == (np.float32, features[drawn].tolist())
        assert (images.y.tolist(), images.y_clean.tolist()) == (
            (5 - drawn).tolist(),
            drawn.tolist(),
        )
        assert (images.X_test.tolist(), images.y_test.tolist()) == (features[:2].tolist(), [0, 1])
