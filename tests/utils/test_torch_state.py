"""What torch has once a process: whatever a user has set there changes nothing, and stays."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from joblib import parallel_config
from numpy.typing import NDArray
from sklearn.model_selection import GridSearchCV

from noisyfit import (
    CrossEntropyClassifier,
    EchoAlignClassifier,
    EchoSelect,
    FlywheelClassifier,
    RLDClassifier,
)
from noisyfit.estimator.base import NoisyLabelClassifier
from noisyfit.nn.generators import ConditionalDiffusion
from noisyfit.utils.torch_state import seeded_generators, torch_defaults
from tests.helpers import all_estimators, blobs, quick


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
        assert torch.get_default_device().type == name
    finally:
        torch.set_default_device(None)


STATES: dict[str, Callable[[], Any]] = {
    "float64 is the default": lambda: default_dtype(torch.float64),
    "bfloat16 is the default": lambda: default_dtype(torch.bfloat16),
    "no gradients": torch.no_grad,
    "inference mode": torch.inference_mode,
    "another device is the default": lambda: default_device("meta"),
    "within another device": lambda: torch.device("meta"),
}
Estimator = type[NoisyLabelClassifier]
every_estimator = pytest.mark.parametrize("cls", all_estimators(), ids=lambda cls: cls.__name__)


def results(cls: Estimator) -> list[NDArray[Any]]:
    X, y = blobs(60)
    clf = quick(cls).fit(X, y)
    return [clf.predict_proba(X), clf.predict_logits(X), clf.transform(X), clf.label_quality_]


@every_estimator
@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_fit_and_predict__state_of_a_user__changes_nothing(
    state: Callable[[], Any], cls: Estimator
) -> None:
    expected = results(cls)
    with state():
        gradients, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        found = results(cls)
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == (
            gradients,
            inference,
        )
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def echo_align() -> EchoAlignClassifier:
    brief = ConditionalDiffusion(n_train_steps=30, n_steps=3, width=8)
    estimator = CrossEntropyClassifier(max_epochs=2)
    return EchoAlignClassifier(
        estimator, selector=EchoSelect(brief, select_by="similarity"), random_state=0
    )


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_echoalign__state_of_a_user__changes_nothing(state: Callable[[], Any]) -> None:
    X, y = blobs(60)
    expected = echo_align().fit(X, y).predict_proba(X)
    with state():
        found = echo_align().fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(found, expected)


def fit_with_pilot() -> FlywheelClassifier:
    return FlywheelClassifier(max_epochs=4, random_state=0).fit(*blobs(120))


@pytest.fixture(scope="module")
def expected() -> FlywheelClassifier:
    return fit_with_pilot()


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_pilot__state_of_a_user__changes_nothing(
    state: Callable[[], Any], expected: FlywheelClassifier
) -> None:
    with state():
        found = fit_with_pilot()
    assert expected.state_.has_pilot
    np.testing.assert_array_equal(found.label_distribution_, expected.label_distribution_)


# Threads.


def test_fits_in_threads__are_those_alone_and_leave_the_generator() -> None:
    X, y = blobs(60)
    seeds = range(6)
    alone = [quick(RLDClassifier, random_state=seed).fit(X, y).predict_proba(X) for seed in seeds]
    torch.manual_seed(5)
    before = torch.get_rng_state()

    def fit(seed: int) -> NDArray[Any]:
        return quick(RLDClassifier, random_state=seed).fit(X, y).predict_proba(X)

    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(fit, seeds))
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_array_equal(a, b)
    assert torch.equal(torch.get_rng_state(), before)


def test_grid_search__in_threads__has_the_scores_of_one_job() -> None:
    X, y = blobs(90)
    grid = {"lr": [0.001, 0.1]}

    def scores(n_jobs: int) -> NDArray[Any]:
        search = GridSearchCV(quick(CrossEntropyClassifier), grid, cv=3, n_jobs=n_jobs)
        with parallel_config("threading"):
            return np.asarray(search.fit(X, y).cv_results_["mean_test_score"])

    np.testing.assert_array_equal(scores(2), scores(1))


def test_defaults__of_two_threads__are_given_back_by_the_last() -> None:
    """The first to end gave float64 back to the other one."""
    first, second = threading.Event(), threading.Event()
    seen = []

    def longer() -> None:
        with torch_defaults():
            first.set()
            second.wait(10)
            seen.append(torch.get_default_dtype())

    with default_dtype(torch.float64):
        thread = threading.Thread(target=longer)
        with torch_defaults():
            thread.start()
            first.wait(10)
        second.set()
        thread.join()
    assert seen == [torch.float32]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_seeded_generators__forked_while_a_thread_has_them__do_not_wait_for_it() -> None:
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with seeded_generators(0):
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    child = os.fork()
    if not child:
        free = threading.Event()

        def enter() -> None:
            with seeded_generators(0):
                free.set()

        threading.Thread(target=enter, daemon=True).start()
        os._exit(0 if free.wait(10) else 1)
    status = os.waitpid(child, 0)[1]
    done.set()
    thread.join()
    assert os.waitstatus_to_exitcode(status) == 0


def test_seeded_generators__of_the_cpu__leave_those_of_gpus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`torch.manual_seed` seeds them all, and nothing restored the user's."""
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    with seeded_generators(3):
        drawn = torch.rand(2)
    assert not seeded
    assert torch.equal(drawn, torch.rand(2, generator=torch.Generator().manual_seed(3)))
