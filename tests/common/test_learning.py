"""What every method is for: it finds wrong labels, learns in spite of them, and does so again."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from noisyfit.noise import symmetric
from tests.common.zoo import Estimator, every_method, every_variant, of_the_base
from tests.helpers import Perceptron, blobs, images, make_perceptron, quick, seeded_perceptron

SEEDS = (0, 1, 2)

# What it is for.


@every_variant
def test_quality_ranks_flipped_labels_low(cls: Estimator) -> None:
    found = []
    for seed in SEEDS:
        X, y = blobs(300, 4, seed)
        noisy = symmetric(y, 0.3, random_state=seed)
        clf = quick(cls, max_epochs=15, random_state=seed).fit(X, noisy.labels)
        found.append(roc_auc_score(~noisy.flipped, clf.label_quality_))
    assert np.mean(found) >= 0.9


@every_variant
def test_issues_name_mostly_flipped_labels(cls: Estimator) -> None:
    X, y = blobs(300)
    noisy = symmetric(y, 0.3, random_state=0)
    clf = quick(cls, max_epochs=15).fit(X, noisy.labels)
    issue = clf.label_issues()["is_label_issue"].to_numpy()
    assert noisy.flipped[issue].mean() > 0.8
    assert issue[noisy.flipped].mean() > 0.5
    assert (clf.corrected_labels_ == y).mean() > (noisy.labels == y).mean() + 0.1


@every_variant
def test_clean_labels_do_no_harm(cls: Estimator) -> None:
    lost = []
    for seed in SEEDS:
        X, y = blobs(400, 4, seed)
        reference = LogisticRegression(max_iter=1000).fit(X[:300], y[:300])
        clf = quick(cls, max_epochs=15, random_state=seed).fit(X[:300], y[:300])
        lost.append(reference.score(X[300:], y[300:]) - clf.score(X[300:], y[300:]))
    assert np.mean(lost) <= 0.03


@every_variant
def test_transition_matrix__symmetric_noise__has_its_diagonal_in_reach(cls: Estimator) -> None:
    X, y = blobs(400)
    noisy = symmetric(y, 0.3, random_state=0)
    clf = quick(cls, max_epochs=15).fit(X, noisy.labels)
    np.testing.assert_allclose(clf.transition_matrix_.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(clf.transition_matrix_.diagonal(), 0.7, atol=0.2)


# Reproducible.


@every_variant
def test_same_random_state__gives_identical_bits(cls: Estimator) -> None:
    X, y = blobs()
    first, second = (quick(cls).fit(X, y) for _ in range(2))
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))
    np.testing.assert_array_equal(first.label_quality_, second.label_quality_)
    other = quick(cls, random_state=1).fit(X, y)
    assert not np.array_equal(first.predict_proba(X), other.predict_proba(X))


@every_variant
def test_global_random_state_does_not_reach_a_seeded_fit(cls: Estimator) -> None:
    X, y = blobs()
    torch.manual_seed(1)
    first = quick(cls).fit(X, y).predict_proba(X)
    torch.manual_seed(2)
    np.testing.assert_array_equal(quick(cls).fit(X, y).predict_proba(X), first)


@every_variant
def test_global_random_state_is_left_alone(cls: Estimator) -> None:
    X, y = blobs()
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state(legacy=False)
    clf = quick(cls, validation_fraction=0.2).fit(X, y)
    clf.predict(X), clf.transform(X), clf.score_labels(X, y)
    assert torch.equal(torch.get_rng_state(), torch_before)
    numpy_after = np.random.get_state(legacy=False)
    np.testing.assert_equal(numpy_after, numpy_before)


@every_variant
def test_second_fit_starts_afresh(cls: Estimator) -> None:
    X, y = blobs()
    clf = quick(cls).fit(*blobs(100, 5, seed=3))
    clf.fit(X, y)
    np.testing.assert_array_equal(clf.predict_proba(X), quick(cls).fit(X, y).predict_proba(X))
    assert clf.label_quality_.shape == (240,)
    assert len(clf.history_) == clf.n_iter_ == 6


# Networks.

MODULES: dict[str, dict[str, Any]] = {
    "name": {"module": "mlp"},
    "class": {"module": Perceptron, "module__hidden": 24},
    "factory": {"module": make_perceptron},
    "instance": {"module": seeded_perceptron()},
}


@of_the_base
@pytest.mark.parametrize("params", MODULES.values(), ids=MODULES)
def test_module__every_form__learns(cls: Estimator, params: dict[str, Any]) -> None:
    assert_learns_with_module(cls, params)


@every_method
def test_module__instance__learns(cls: Estimator) -> None:
    assert_learns_with_module(cls, MODULES["instance"])


def assert_learns_with_module(cls: Estimator, params: dict[str, Any]) -> None:
    X, y = blobs()
    clf = quick(cls, max_epochs=12, batch_size=24, **params).fit(X, y)
    assert clf.score(X, y) > 0.9
    if "module__hidden" in params:
        assert clf.transform(X).shape == (240, 24)


@every_variant
def test_every_network_is_left_in_evaluation_mode(cls: Estimator) -> None:
    """Calling ``module_`` changed later predictions, and differed from them."""
    X, y = images()
    clf = quick(cls, augmentation=None).fit(X, y)
    networks = [value for name, value in vars(clf).items() if isinstance(value, torch.nn.Module)]
    assert len(networks) > 1
    for network in networks:
        assert not any(part.training for part in network.modules())
    before = clf.predict_logits(X)
    with torch.no_grad():
        logits = clf.module_(torch.as_tensor(X).permute(0, 3, 1, 2))
    np.testing.assert_allclose(logits, before, atol=1e-4)
    np.testing.assert_array_equal(clf.predict_logits(X), before)


# On a GPU.


@pytest.mark.gpu
@every_variant
def test_on_a_gpu__learns_and_is_unpickled_on_a_cpu(cls: Estimator, tmp_path: Path) -> None:
    X, y = blobs()
    clf = quick(cls, max_epochs=12, device="cuda").fit(X, y)
    assert clf.score(X, y) > 0.9
    assert next(clf.module_.parameters()).is_cuda
    clf.save(tmp_path / "model")
    loaded = cls.load(tmp_path / "model", device="cpu")
    assert not next(loaded.module_.parameters()).is_cuda
    np.testing.assert_allclose(loaded.predict_proba(X), clf.predict_proba(X), atol=1e-4)
    code = (
        "import pickle, sys, torch; assert not torch.cuda.is_available();"
        "clf, X = pickle.load(open(sys.argv[1], 'rb')); print(clf.device_, clf.predict(X).shape)"
    )
    with open(tmp_path / "pickle", "wb") as file:
        pickle.dump((clf, X), file)
    done = run_without_gpu(code, tmp_path / "pickle")
    assert done.split() == ["cpu", "(240,)"]


def run_without_gpu(code: str, *args: Any) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, args)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.gpu
@every_variant
def test_on_a_gpu__deterministic__gives_identical_bits(cls: Estimator) -> None:
    X, y = images()
    params = {"device": "cuda", "deterministic": True, "batch_size": 16}
    first, second = (quick(cls, **params).fit(X, y).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(first, second)
