"""Fits at once, on real workers of this machine that die."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from joblib import parallel_config
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from noisyfit import CrossEntropyClassifier
from noisyfit.benchmark import compare, workers
from noisyfit.benchmark.workers import check_backend, results
from noisyfit.utils.devices import all_like
from tests.benchmark.mortal import calls, square
from tests.helpers import noisy_blobs

every_backend = pytest.mark.parametrize(
    "backend", ["loky", "dask", pytest.param("ray", marks=pytest.mark.slow)]
)
every_device = pytest.mark.parametrize(
    "device, names, expected",
    [
        ("auto", ["A", "A", "B"], ["cuda:0", "cuda:1"]),
        ("cuda", ["A", "A"], ["cuda:0", "cuda:1"]),
        ("cuda:1", ["A", "A"], ["cuda:1"]),
        ("auto", ["A"], ["auto"]),
        ("auto", [], ["auto"]),
    ],
)
quiet = pytest.mark.filterwarnings("ignore")  # clusters warn of ports and sockets of their own


@pytest.fixture
def dask_cluster() -> Iterator[Any]:
    from dask.distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client


@quiet
@every_backend
def test_worker_that_dies__only_what_it_did_is_done_again(tmp_path: Path, backend: str) -> None:
    if backend == "ray":
        pytest.importorskip("ray")
    tasks = {number: (tmp_path, number, number == 2) for number in range(8)}
    assert dict(results(square, tasks, backend=backend, jobs=2)) == {n: n**2 for n in tasks}
    often = [number for number in tasks if calls(tmp_path, number) > 1]
    assert 2 in often
    assert len(often) <= 2  # the other one that was running at that time


@quiet
@every_backend
def test_task_that_kills_each_worker__is_named__and_the_others_end(
    tmp_path: Path, backend: str
) -> None:
    if backend == "ray":
        pytest.importorskip("ray")
    tasks = {number: (tmp_path, number, 100 * (number == 1)) for number in range(4)}
    found = dict(results(square, tasks, backend=backend, jobs=2))
    assert isinstance(found.pop(1), Exception)
    assert found == {n: n**2 for n in tasks if n != 1}


@quiet
@pytest.mark.parametrize(
    "backend", ["loky", "threading", pytest.param("dask", marks=pytest.mark.slow)]
)
def test_compare__on_workers__finds_what_one_process_finds(backend: str) -> None:
    X, y, _ = noisy_blobs()
    methods = {"net": CrossEntropyClassifier(max_epochs=2), "lines": LogisticRegression()}
    params: dict[str, Any] = {"cv": 2, "random_state": 0, "device": "cpu"}
    alone = compare(methods, X, y, **params)
    at_once = compare(methods, X, y, n_jobs=2, backend=backend, **params)
    timeless = [name for name in alone if "seconds" not in name]
    np.testing.assert_array_equal(at_once[timeless], alone[timeless])
    assert list(at_once.index) == list(alone.index)


@quiet
@pytest.mark.slow
def test_grid_search__on_dask__finds_what_one_process_finds(dask_cluster: Any) -> None:
    X, y, _ = noisy_blobs()
    clf = CrossEntropyClassifier(max_epochs=2, random_state=0, device="cpu")
    search = GridSearchCV(clf, {"lr": [0.01, 0.1]}, cv=2)
    alone = search.fit(X, y).cv_results_["mean_test_score"]
    with parallel_config("dask"):
        at_once = search.fit(X, y).cv_results_["mean_test_score"]
    np.testing.assert_array_equal(at_once, alone)


@every_device
def test_gpus__of_one_kind__take_turns(
    device: str, names: list[str], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: len(names))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda i: names[i])
    assert all_like(device) == expected


def test_backend_that_is_not_installed__the_line_to_run_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'no package ray. Run: pip install "noisyfit\[scale\]"'):
        check_backend("ray")
    check_backend("loky")
