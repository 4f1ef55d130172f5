"""What an epoch costs: ``python -m noisyfit.benchmark.cost [section ...]``.

All variants of a section take turns in one process, round after round; ratios are of the medians.
Two copies of the reference give the noise floor: claim nothing below it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.base import clone

from noisyfit import (
    CLIDMetaClassifier,
    CrossEntropyClassifier,
    FlywheelClassifier,
    HRPClassifier,
    RLDClassifier,
)
from noisyfit.benchmark import usage
from noisyfit.benchmark.memory import peak_memory
from noisyfit.estimator.metalearning import META_BATCH
from noisyfit.nn.features import logits_and_embeddings
from noisyfit.nn.losses import clid, cross_entropy
from noisyfit.nn.meta import WeightNet
from noisyfit.nn.metagrad import call_with
from noisyfit.utils.devices import resolve_device

ROUNDS = 15
Timer = Callable[[], float]


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def epoch_of(estimator: Any, X: Any, y: Any, *, skip: int = 1) -> Timer:
    """Return a timer of one epoch of ``fit``, the median of those after the first ``skip``."""

    def run() -> float:
        estimator.fit(X, y)
        return statistics.median(estimator.history_[skip:, "dur"])

    return run


def raw_epoch(estimator: Any, X: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> Timer:
    """Return a timer of one epoch of a bare tensor loop with the parts of a fitted estimator."""
    device, module = estimator.device_, estimator.module_
    data, labels = torch.as_tensor(X, device=device), torch.as_tensor(y, device=device)
    augment, size = estimator._augment(), estimator.batch_size
    optimizer = torch.optim.SGD(module.parameters(), **estimator.optimizer_.defaults)

    def run() -> float:
        module.train()
        start = time.perf_counter()
        for idx in torch.randperm(len(data), device=device).split(size):
            x = augment.weak(data.index_select(0, idx))
            loss = cross_entropy(module(x), labels.index_select(0, idx)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        synchronize()
        return time.perf_counter() - start

    return run


def raw_prediction(estimator: Any, X: np.ndarray[Any, Any]) -> Timer:
    """Return a timer of a bare loop that predicts in batches."""
    module, data = estimator.module_, torch.as_tensor(X)

    @torch.no_grad()
    def run() -> float:
        module.eval()
        start = time.perf_counter()
        batches = data.split(estimator.batch_size)
        torch.cat([module(x.to(estimator.device_)).softmax(1).cpu() for x in batches]).numpy()
        return time.perf_counter() - start

    return run


def clock(function: Callable[[], Any]) -> Timer:
    """Return a timer of a call."""

    def run() -> float:
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    return run


def interleave(title: str, timers: dict[str, Timer], rounds: int = ROUNDS) -> None:
    """Run all timers in turn and print the medians, quartiles and ratios to the first."""
    seconds: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(rounds):
        for name, timer in timers.items():
            seconds[name].append(timer())
    reference = statistics.median(next(iter(seconds.values())))
    print(f"\n{title}, {rounds} rounds")
    for name, values in seconds.items():
        low, middle, high = np.percentile(values, [25, 50, 75])
        print(f"  {name:34s} {1e3 * middle:10.2f} ms  [{1e3 * low:.2f}, {1e3 * high:.2f}]"
              f"  {middle / reference:6.3f} x")  # fmt: skip


def table_overhead(device: str, rounds: int) -> None:
    """Compare the baseline's epoch and prediction with bare loops, 20-64-64-10 MLP, batch 128."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(12800, 20)).astype(np.float32), rng.integers(0, 10, 12800)
    clf = CrossEntropyClassifier(module__width=64, max_epochs=5, device=device, random_state=0)
    raw = CrossEntropyClassifier(module__width=64, max_epochs=1, device=device).fit(X, y)
    timers = {"raw loop": raw_epoch(raw, X, y), "raw loop again": raw_epoch(raw, X, y),
              "CrossEntropyClassifier": epoch_of(clf, X, y)}  # fmt: skip
    interleave("MLP epoch, 12,800 rows", timers, rounds)
    timers = {"raw loop": raw_prediction(raw, X), "raw loop again": raw_prediction(raw, X),
              "predict_proba": clock(lambda: raw.predict_proba(X))}  # fmt: skip
    interleave("MLP prediction, 12,800 rows", timers, 3 * rounds)


def random_images(n: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return images of the shape of CIFAR, and labels."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8), rng.integers(0, 10, n)


def flywheel_ratio(device: str, rounds: int) -> None:
    """Compare an EM cycle with a cross-entropy epoch, PreAct ResNet-18, 32x32, batch 128."""
    on_gpu = torch.device(device).type == "cuda"
    n, width = (50000, 64) if on_gpu else (1024, 16)
    X, y = random_images(n)
    shared: dict[str, Any] = {"module": "preact_resnet18", "module__width": width, "device": device}
    plain = CrossEntropyClassifier(**shared, max_epochs=3, random_state=0)
    cycle = FlywheelClassifier(**shared, max_epochs=3, warmup_epochs=1, random_state=0)
    timers = {"CrossEntropyClassifier": epoch_of(plain, X, y),
              "CrossEntropyClassifier again": epoch_of(plain, X, y),
              "FlywheelClassifier": epoch_of(cycle, X, y)}  # fmt: skip
    interleave(f"PreAct ResNet-18 width {width}, {n} images", timers, rounds)
    print(f"  baseline: {n / epoch_of(plain, X, y)():.0f} images/s")


def meta_ratio(device: str, rounds: int) -> None:
    """Compare epochs with meta steps with a cross-entropy epoch, PreAct ResNet-18, 32x32."""
    on_gpu = torch.device(device).type == "cuda"
    n, width = (50000, 64) if on_gpu else (1280, 16)
    X, y = random_images(n)
    shared: dict[str, Any] = {
        "module": "preact_resnet18", "module__width": width, "precision": "fp32",
        "device": device, "max_epochs": 3, "random_state": 0,
    }  # fmt: skip
    meta = CLIDMetaClassifier(**shared, warmup_epochs=1, n_snapshots=1)
    variants: dict[str, dict[str, Any]] = {
        "meta step every batch": {},
        "low memory": {"low_memory": True},
        "every 10 batches": {"meta_every": 10},
        "last stage": {"meta_params": "last_stage"},
        "head": {"meta_params": "head"},
    }
    plain = CrossEntropyClassifier(**shared)
    timers = {
        "CrossEntropyClassifier": epoch_of(plain, X, y),
        "CrossEntropyClassifier again": epoch_of(plain, X, y),
    }
    for name, params in variants.items():
        timers[name] = epoch_of(clone(meta).set_params(**params), X, y)
    timers["double backward"] = double_backward_epoch(plain.fit(X, y), X, y)
    interleave(f"PreAct ResNet-18 width {width}, {n} images", timers, rounds)


def reliability_ratio(device: str, rounds: int) -> None:
    """Compare HRP's epochs with the same without reliabilities, PreAct ResNet-18, 32x32."""
    on_gpu = torch.device(device).type == "cuda"
    n, width = (50000, 64) if on_gpu else (512, 16)
    X, y = random_images(n)
    shared: dict[str, Any] = {
        "module": "preact_resnet18", "module__width": width, "precision": "fp32",
        "device": device, "max_epochs": 3, "warmup_epochs": 1, "random_state": 0,
    }  # fmt: skip
    variants: dict[str, dict[str, Any]] = {
        "without reliabilities": {"reliability": None},
        "without reliabilities again": {"reliability": None},
        "every step": {},
        "every 4 steps": {"meta_every": 4},
    }
    timers = {
        name: epoch_of(HRPClassifier(**shared, **params), X, y) for name, params in variants.items()
    }
    interleave(f"HRP, PreAct ResNet-18 width {width}, {n} images", timers, rounds)


def diffusion_ratio(device: str, rounds: int) -> None:
    """Compare RLD's epochs with a cross-entropy epoch, PreAct ResNet-18, 32x32, batch 128."""
    on_gpu = torch.device(device).type == "cuda"
    n, width = (50000, 64) if on_gpu else (1024, 16)
    X, y = random_images(n)
    shared: dict[str, Any] = {
        "module": "preact_resnet18", "module__width": width, "precision": "fp32",
        "device": device, "max_epochs": 3, "random_state": 0,
    }  # fmt: skip
    plain = CrossEntropyClassifier(**shared)
    ours = RLDClassifier(**shared, warmup_epochs=1)
    all_steps = clone(ours).set_params(n_steps=50, t_max=50)
    timers = {
        "CrossEntropyClassifier": epoch_of(plain, X, y),
        "CrossEntropyClassifier again": epoch_of(plain, X, y),
        "RLDClassifier": epoch_of(ours, X, y),
        "RLDClassifier, 50 steps": epoch_of(all_steps, X, y),
    }
    interleave(f"PreAct ResNet-18 width {width}, {n} images", timers, rounds)


def memory_peaks(device: str, rounds: int) -> None:
    """Compare the peaks of an epoch, PreAct ResNet-18, 32x32, batch 128, above what stands before.

    On a CPU set ``MALLOC_MMAP_THRESHOLD_=65536`` in the environment, so that freed memory goes back
    to the system and the peaks of the process are those of the tensors.
    """
    on_gpu = torch.device(device).type == "cuda"
    X, y = random_images(512)
    shared: dict[str, Any] = {
        "module": "preact_resnet18", "module__width": 32, "precision": "fp32", "device": device,
        "random_state": 0,
    }  # fmt: skip
    two: dict[str, Any] = shared | {"max_epochs": 2, "warmup_epochs": 1}
    runs = {
        "CrossEntropyClassifier": CrossEntropyClassifier(**shared, max_epochs=2),
        "meta steps": CLIDMetaClassifier(**two, n_snapshots=1),
        "meta steps, low memory": CLIDMetaClassifier(**two, n_snapshots=1, low_memory=True),
        "HRP without reliabilities": HRPClassifier(**two, reliability=None),
        "HRP": HRPClassifier(**two),
    }
    print("\npeak memory of a fit")
    for name, clf in runs.items():
        clf.fit(X, y)  # what stays: the libraries' own memory
        print(f"  {name:34s} {peak_memory(partial(clf.fit, X, y), on_gpu):8.0f} MB")


def double_backward_epoch(
    estimator: Any, X: np.ndarray[Any, Any], y: np.ndarray[Any, Any]
) -> Timer:
    """Return a timer of an epoch with the meta-gradient of a second-order graph, for comparison."""
    network, optimizer, size = estimator.module_, estimator.optimizer_, estimator.batch_size
    data, labels = (torch.as_tensor(a, device=estimator.device_) for a in (X, y))
    augment, weight_net = estimator._augment(), WeightNet().to(estimator.device_)
    meta_optimizer = torch.optim.Adam(weight_net.parameters(), 3e-3)

    def weighted(x: torch.Tensor, target: torch.Tensor, *, learn: bool) -> torch.Tensor:
        losses = cross_entropy(network(x), target)
        weights = weight_net(losses.detach())
        return ((weights if learn else weights.detach()) * losses).mean()

    def run() -> float:
        network.train()
        start = time.perf_counter()
        for idx in torch.randperm(len(data), device=data.device).split(size):
            x, target = augment.weak(data[idx]), labels[idx]
            names, parameters = zip(*network.named_parameters(), strict=True)
            loss = weighted(x, target, learn=True)
            gradients = torch.autograd.grad(loss, parameters, create_graph=True)
            moved = [p - 0.05 * g for p, g in zip(parameters, gradients, strict=True)]
            x_meta = augment.weak(data[torch.randperm(len(data), device=data.device)[:META_BATCH]])
            outer = call_with(network, dict(zip(names, moved, strict=True)), _clid_of, x_meta)
            meta_optimizer.zero_grad()
            outer.backward()
            meta_optimizer.step()
            optimizer.zero_grad()
            weighted(x, target, learn=False).backward()
            optimizer.step()
        synchronize()
        return time.perf_counter() - start

    return run


def _clid_of(network: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    logits, embeddings = logits_and_embeddings(network, x)
    return clid(embeddings, logits.float().softmax(1)).mean()


def small_images(device: str, rounds: int) -> None:
    """Time a whole fit: 10,000 random 28x28 images, 10 epochs."""
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 256, (10000, 28, 28), dtype=np.uint8), rng.integers(0, 10, 10000)
    plain = CrossEntropyClassifier(max_epochs=10, device=device)
    cycles = FlywheelClassifier(max_epochs=10, warmup_epochs=2, device=device)
    timers = {
        "CrossEntropyClassifier": clock(lambda: plain.fit(X, y)),
        "FlywheelClassifier, 8 cycles": clock(lambda: cycles.fit(X, y)),
    }
    interleave("10,000 28x28 images, 10 epochs", timers, max(1, rounds // 5))


SECTIONS = {
    "table": table_overhead,
    "flywheel": flywheel_ratio,
    "meta": meta_ratio,
    "hrp": reliability_ratio,
    "rld": diffusion_ratio,
    "memory": memory_peaks,
    "images": small_images,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the sections named on the command line, all by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", default=[], help=f"of {list(SECTIONS)}")
    parser.add_argument(
        "--device", type=usage.device, default="cuda" if torch.cuda.is_available() else "cpu"
    )
    parser.add_argument("--rounds", type=usage.count, default=ROUNDS)
    parser.add_argument("--threads", type=usage.count, default=1)
    options = parser.parse_args(argv)
    for section in options.sections:
        if section not in SECTIONS:
            parser.error(f"a section must be one of {list(SECTIONS)}. Got {section!r}.")
    torch.set_num_threads(options.threads)
    device = resolve_device(options.device)
    where = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else torch.cpu.get_capabilities()
    )
    name = where if isinstance(where, str) else where.get("cpu_name", "CPU")
    print(f"torch {torch.__version__}, {name}, {options.threads} thread(s)")
    for section in options.sections or SECTIONS:
        SECTIONS[section](str(device), options.rounds)


if __name__ == "__main__":
    main()
