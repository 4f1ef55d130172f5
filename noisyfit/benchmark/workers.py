"""Workers that fit at once: processes or threads of this machine, or a cluster."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, TypeVar

from joblib import Parallel, delayed, parallel_config

Key = TypeVar("Key", bound=Hashable)
PACKAGES = {"dask": "distributed", "ray": "ray"}


def check_backend(backend: str) -> None:
    """Raise ImportError if the package of a backend is not installed."""
    package = PACKAGES.get(backend)
    if package and find_spec(package) is None:
        raise ImportError(
            f"The backend {backend!r} must be installed. Got no package {package}. Run: "
            'pip install "noisyfit[scale]"'
        )


def results(
    function: Callable[..., Any],
    tasks: Mapping[Key, tuple[Any, ...]],
    *,
    backend: str = "loky",
    jobs: int = 1,
    shared: Sequence[Any] = (),
) -> Iterator[tuple[Key, Any]]:
    """Return the result of each task as soon as it ends; with one job, computed here.

    If a worker dies, what was running is done again; if that kills each worker, what they died of
    is the result.

    Parameters
    ----------
    function : callable
        Raises nothing: whatever goes wrong outside of it is taken for the death of a worker.
    tasks : mapping of key to tuple
        The arguments of each call.
    backend : {"loky", "threading", "dask", "ray"}
        ``"dask"`` and ``"ray"`` use the cluster that this process is connected to or that
        ``DASK_SCHEDULER_ADDRESS`` or ``RAY_ADDRESS`` names, and otherwise start one on this
        machine.
    jobs : int
        Number of workers, each with one thread.
    shared : sequence of object
        Arguments that are sent to a cluster only once.
    """
    if jobs == 1 or not tasks:
        return ((key, function(*given)) for key, given in tasks.items())
    if backend == "dask":
        return _on_dask(function, tasks, jobs, shared)
    if backend == "ray":
        return _on_ray(function, tasks, jobs, shared)
    return _on_joblib(function, tasks, jobs, backend)


def _on_joblib(
    function: Callable[..., Any], tasks: Mapping[Key, tuple[Any, ...]], jobs: int, backend: str
) -> Iterator[tuple[Key, Any]]:
    """Run on processes or threads; if one process dies, all that were running are lost."""
    left, suspects = dict(tasks), list[Key]()
    limits = {"inner_max_num_threads": 1} if backend == "loky" else {}
    while left:
        alone = suspects[:1]
        calls = [delayed(_work)(os.getpid(), key, function, *left[key]) for key in alone or left]
        try:
            with parallel_config(backend, **limits):
                parallel = Parallel(
                    jobs, return_as="generator_unordered", pre_dispatch=jobs, batch_size=1
                )
                for key, result in parallel(calls):
                    del left[key]
                    yield key, result
        except Exception as death:
            if alone:
                del left[alone[0]]
                yield alone[0], death
            else:
                suspects = list(left)[:jobs]  # those that began first and have not ended
        suspects = [key for key in suspects if key in left]


def _work(parent: int, key: Key, function: Callable[..., Any], *given: Any) -> tuple[Key, Any]:
    """Call in a process that does not outlive the one that started it."""
    _follow(parent)
    return key, function(*given)


@lru_cache
def _follow(parent: int) -> None:
    """End this process soon after its parent is killed: the next run needs its core."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    if os.getppid() == parent:
        threading.Thread(target=watch, daemon=True).start()


def _on_dask(
    function: Callable[..., Any],
    tasks: Mapping[Key, tuple[Any, ...]],
    jobs: int,
    shared: Sequence[Any],
) -> Iterator[tuple[Key, Any]]:
    from dask.distributed import KilledWorker, as_completed

    with _dask_client(jobs) as client:
        sent = {id(part): client.scatter(part, broadcast=True) for part in shared}

        def begun(key: Key) -> Any:
            given = (sent.get(id(part), part) for part in tasks[key])
            return client.submit(function, *given, pure=False)

        futures, suspects = {begun(key): key for key in tasks}, list[Key]()
        for future, result in as_completed(futures, with_results=True, raise_errors=False):
            death = future.exception()
            if isinstance(death, KilledWorker):  # or it waited where another one killed
                suspects.append(futures[future])
            else:
                yield futures[future], death or result
        for key in suspects:
            alone = begun(key)
            yield key, alone.exception() or alone.result()


@contextmanager
def _dask_client(jobs: int) -> Iterator[Any]:
    import dask
    from dask.distributed import Client, LocalCluster, get_client

    with ExitStack() as stack:
        try:
            client = get_client()
        except ValueError:  # there is none
            cluster = dask.config.get("scheduler-address", None)
            if cluster is None:
                cluster = LocalCluster(n_workers=jobs, threads_per_worker=1, dashboard_address=None)
                stack.callback(_close, cluster)
            client = stack.enter_context(Client(cluster))
        yield client


def _close(cluster: Any) -> None:
    """Close a cluster of dask, which fails while it starts a worker anew that has died."""
    with suppress(AssertionError):  # "can only join a started process"
        cluster.close()


def _on_ray(
    function: Callable[..., Any],
    tasks: Mapping[Key, tuple[Any, ...]],
    jobs: int,
    shared: Sequence[Any],
) -> Iterator[tuple[Key, Any]]:
    import ray

    with _ray_cluster(jobs):
        sent = {id(part): ray.put(part) for part in shared}
        call = ray.remote(function).options(max_retries=1).remote
        running = {
            call(*(sent.get(id(part), part) for part in given)): key for key, given in tasks.items()
        }
        while running:
            (ended, *_), _ = ray.wait(list(running))
            try:
                result = ray.get(ended)
            except Exception as death:
                result = death
            yield running.pop(ended), result


@contextmanager
def _ray_cluster(jobs: int) -> Iterator[None]:
    import ray

    if ray.is_initialized():
        yield
        return
    ray.init(num_cpus=None if "RAY_ADDRESS" in os.environ else jobs, include_dashboard=False)
    try:
        yield
    finally:
        ray.shutdown()
