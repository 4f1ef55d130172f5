"""What an epoch costs: ``python examples/studies/cost.py [section ...]``.

All variants of a section take turns in one process, round after round; ratios are of the medians.
Two copies of the reference give the noise floor: claim nothing below it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    NoisyFitWarning,
    RLDClassifier,
)
from noisyfit.benchmark import usage
from noisyfit.benchmark.contenders import package_methods
from noisyfit.benchmark.memory import peak_memory
from noisyfit.estimator.metalearning import META_BATCH
from noisyfit.estimator.warmup import WarmUp
from noisyfit.nn.features import logits_and_embeddings
from noisyfit.nn.losses import clid, cross_entropy
from noisyfit.nn.meta import WeightNet
from noisyfit.nn.metagrad import call_with
from noisyfit.utils.devices import device_name, resolve_device

ROUNDS = 15
UNLIKE = ("echo_align", "semi_supervised")  # a generator, and rows without a label
Timer = Callable[[], float]
Array = np.ndarray[Any, Any]


@dataclass
class Scale:
    """How to time: on which device, how often, and at what size; None means the section's own.

    Parameters
    ----------
    device : torch.device
    rounds : int
    rows : int or None
    width : int or None
        Width of the PreAct ResNet-18.
    """

    device: torch.device
    rounds: int
    rows: int | None = None
    width: int | None = None

    @property
    def on_gpu(self) -> bool:
        """Whether sections use their larger sizes."""
        return self.device.type == "cuda"

    def images(self, on_cpu: int, on_gpu: int = 50000) -> tuple[Array, Array]:
        """Return images of CIFAR's shape, and labels."""
        n = self.rows or (on_gpu if self.on_gpu else on_cpu)
        rng = np.random.default_rng(0)
        return rng.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8), rng.permutation(n) % 10

    def network(self, width: int | None = None, **params: Any) -> dict[str, Any]:
        """Return parameters for a PreAct ResNet-18, narrow on a CPU."""
        width = self.width or width or (64 if self.on_gpu else 16)
        shared = {"module": "preact_resnet18", "module__width": width, "device": str(self.device)}
        return {**shared, **params}

    def title(self, X: Array) -> str:
        """Describe what is trained."""
        return f"PreAct ResNet-18 width {self.network()['module__width']}, {len(X)} images"


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


def raw_epoch(estimator: Any, X: Array, y: Array) -> Timer:
    """Return a timer of one epoch of a bare loop over tensors, with a fitted estimator's parts."""
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


def raw_prediction(estimator: Any, X: Array) -> Timer:
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


def interleave(title: str, timers: dict[str, Timer], rounds: int) -> None:
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
              f"  {middle / reference:6.3f} x", flush=True)  # fmt: skip


def baseline(scale: Scale, X: Array, y: Array, **params: Any) -> dict[str, Timer]:
    """Return the reference and its copy."""
    plain = CrossEntropyClassifier(**scale.network(max_epochs=3, **params))
    names = ("CrossEntropyClassifier", "CrossEntropyClassifier again")
    return {name: epoch_of(plain, X, y) for name in names}


def table(scale: Scale) -> None:
    """Compare the baseline's epoch and prediction with bare loops, 20-64-64-10 MLP, batch 128."""
    n, rng = scale.rows or 12800, np.random.default_rng(0)
    X, y = rng.normal(size=(n, 20)).astype(np.float32), rng.permutation(n) % 10
    shared: dict[str, Any] = {"module__width": 64, "device": str(scale.device), "random_state": 0}
    clf = CrossEntropyClassifier(**shared, max_epochs=5)
    raw = CrossEntropyClassifier(**shared, max_epochs=1).fit(X, y)
    timers = {"raw loop": raw_epoch(raw, X, y), "raw loop again": raw_epoch(raw, X, y),
              "CrossEntropyClassifier": epoch_of(clf, X, y)}  # fmt: skip
    interleave(f"MLP epoch, {n} rows", timers, scale.rounds)
    timers = {"raw loop": raw_prediction(raw, X), "raw loop again": raw_prediction(raw, X),
              "predict_proba": clock(lambda: raw.predict_proba(X))}  # fmt: skip
    interleave(f"MLP prediction, {n} rows", timers, 3 * scale.rounds)


def brief(**params: Any) -> dict[str, Any]:
    """Return all methods that learn from labels alone, with a warm-up of one epoch, by name."""
    found = {}
    for name, cls in package_methods().items():
        own = {"warmup_epochs": 1} if issubclass(cls, WarmUp) else {}
        if name not in UNLIKE:
            found[name] = cls(max_epochs=4, random_state=0, **own, **params)
    return found


def blobs(n: int, n_columns: int, n_classes: int = 10) -> tuple[Array, Array]:
    """Return a table of noise, and labels."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, n_columns)).astype(np.float32)
    return X, rng.permutation(n) % n_classes


def methods(scale: Scale) -> None:
    """Compare epochs of all methods after the warm-up with those of cross-entropy."""
    X, y = blobs(scale.rows or 1024, 64)
    timers = {name: epoch_of(clf, X, y) for name, clf in brief(device=scale.device).items()}
    interleave(f"MLP, {len(X)} rows of 64 columns", timers, scale.rounds)
    X, y = scale.images(512)
    timers = {name: epoch_of(clf, X, y) for name, clf in brief(**scale.network()).items()}
    interleave(scale.title(X), timers, max(1, scale.rounds // 3))


def growth(scale: Scale) -> None:
    """Time an epoch, and measure the peak memory, as rows and classes grow; 20 columns."""
    most = scale.rows or 100_000
    sizes = [(10**k, 10) for k in range(3, 7) if 10**k <= most]
    sizes += [(min(most, 10_000), n_classes) for n_classes in (100, 1000)]
    for n, n_classes in sizes:
        X, y = blobs(n, 20, n_classes)
        table = 4 * n * n_classes / 1e6  # MB
        print(f"\n{n} rows, {n_classes} classes: one float32 each is {table:.1f} MB")
        for name, clf in brief(device=scale.device).items():
            peak = peak_memory(partial(clf.fit, X, y), scale.on_gpu)
            row = statistics.median(clf.history_[1:, "dur"]) / n
            start = time.perf_counter()
            clf.label_issues()
            issues = time.perf_counter() - start
            print(f"  {name:24s} {1e6 * row:8.1f} us a row  {peak:8.0f} MB"
                  f"  {issues:6.2f} s for label_issues", flush=True)  # fmt: skip


def meta(scale: Scale) -> None:
    """Compare epochs that have meta steps with a cross-entropy epoch."""
    X, y = scale.images(1280)
    shared = scale.network(max_epochs=3, precision="fp32")
    clf = CLIDMetaClassifier(**shared, warmup_epochs=1, n_snapshots=1)
    variants: dict[str, dict[str, Any]] = {
        "meta step every batch": {},
        "low memory": {"low_memory": True},
        "every 10 batches": {"meta_every": 10},
        "last stage": {"meta_params": "last_stage"},
        "head": {"meta_params": "head"},
    }
    timers = baseline(scale, X, y, precision="fp32")
    for name, params in variants.items():
        timers[name] = epoch_of(clone(clf).set_params(**params), X, y)
    plain = CrossEntropyClassifier(**shared).fit(X, y)
    timers["double backward"] = double_backward_epoch(plain, X, y)
    interleave(scale.title(X), timers, scale.rounds)


def hrp(scale: Scale) -> None:
    """Compare HRP's epochs with the same epochs without reliabilities."""
    X, y = scale.images(512)
    shared = scale.network(max_epochs=3, warmup_epochs=1, precision="fp32")
    variants: dict[str, dict[str, Any]] = {
        "without reliabilities": {"reliability": None},
        "without reliabilities again": {"reliability": None},
        "every step": {},
        "every 4 steps": {"meta_every": 4},
    }
    timers = {
        name: epoch_of(HRPClassifier(**shared, **params), X, y) for name, params in variants.items()
    }
    interleave(f"HRP, {scale.title(X)}", timers, scale.rounds)


def rld(scale: Scale) -> None:
    """Compare RLD's epochs with a cross-entropy epoch."""
    X, y = scale.images(1024)
    clf = RLDClassifier(**scale.network(max_epochs=3, precision="fp32"), warmup_epochs=1)
    all_steps = clone(clf).set_params(n_steps=50, t_max=50)
    timers = baseline(scale, X, y, precision="fp32") | {
        "RLDClassifier": epoch_of(clf, X, y),
        "RLDClassifier, 50 steps": epoch_of(all_steps, X, y),
    }
    interleave(scale.title(X), timers, scale.rounds)


def memory(scale: Scale) -> None:
    """Compare the peak memory of epochs above what was in use before.

    On a CPU set ``MALLOC_MMAP_THRESHOLD_=65536`` in the environment, so that freed memory returns
    to the system and the peaks of the process are those of the tensors.
    """
    X, y = scale.images(512, on_gpu=512)
    shared = scale.network(width=32, precision="fp32", max_epochs=2)
    two: dict[str, Any] = shared | {"warmup_epochs": 1}
    runs = {
        "CrossEntropyClassifier": CrossEntropyClassifier(**shared),
        "meta steps": CLIDMetaClassifier(**two, n_snapshots=1),
        "meta steps, low memory": CLIDMetaClassifier(**two, n_snapshots=1, low_memory=True),
        "HRP without reliabilities": HRPClassifier(**two, reliability=None),
        "HRP": HRPClassifier(**two),
    }
    width = shared["module__width"]
    print(f"\npeak memory of a fit, PreAct ResNet-18 width {width}, {len(X)} images")
    for name, clf in runs.items():
        clf.fit(X, y)  # allocates what stays: the libraries' own memory
        peak = peak_memory(partial(clf.fit, X, y), scale.on_gpu)
        print(f"  {name:34s} {peak:8.0f} MB", flush=True)


def small_images(scale: Scale) -> None:
    """Time a whole fit of random 28x28 images, 10 epochs."""
    n, rng = scale.rows or 10000, np.random.default_rng(0)
    X, y = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8), rng.permutation(n) % 10
    shared: dict[str, Any] = {"max_epochs": 10, "device": str(scale.device), "random_state": 0}
    plain = CrossEntropyClassifier(**shared)
    cycles = FlywheelClassifier(**shared, warmup_epochs=2)
    timers = {
        "CrossEntropyClassifier": clock(lambda: plain.fit(X, y)),
        "FlywheelClassifier, 8 cycles": clock(lambda: cycles.fit(X, y)),
    }
    interleave(f"{n} 28x28 images, 10 epochs", timers, max(1, scale.rounds // 5))


def double_backward_epoch(estimator: Any, X: Array, y: Array) -> Timer:
    """Return a timer of an epoch with the meta-gradient of a second-order graph, for comparison."""
    network, optimizer, size = estimator.module_, estimator.optimizer_, estimator.batch_size
    data, labels = (torch.as_tensor(a, device=estimator.device_) for a in (X, y))
    augment, weight_net = estimator._augment(), WeightNet().to(estimator.device_)
    meta_optimizer = torch.optim.Adam(weight_net.parameters(), 3e-3)

    def weighted(x: torch.Tensor, target: torch.Tensor, *, learn: bool) -> torch.Tensor:
        logits = network(x)
        losses = cross_entropy(logits, target)
        weights = weight_net(losses.detach(), target, logits.shape[1])
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


SECTIONS = {
    "table": table,
    "methods": methods,
    "growth": growth,
    "meta": meta,
    "hrp": hrp,
    "rld": rld,
    "memory": memory,
    "images": small_images,
}


@usage.ends_with_its_reader
def main(argv: Sequence[str] | None = None) -> int:
    """Run the sections named on the command line, all by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", default=[], help=f"of {list(SECTIONS)}")
    parser.add_argument("--device", type=usage.device, default="auto")
    parser.add_argument("--rounds", type=usage.count, default=ROUNDS)
    parser.add_argument("--rows", type=usage.count, help="default: those of the section")
    parser.add_argument("--width", type=usage.count, help="of the ResNet; default: the section's")
    parser.add_argument("--threads", type=usage.count, default=1)
    options = parser.parse_args(argv)
    for section in options.sections:
        if section not in SECTIONS:
            parser.error(f"a section must be one of {list(SECTIONS)}. Got {section!r}.")
    torch.set_num_threads(options.threads)
    device = resolve_device(options.device)
    warnings.simplefilter("ignore", NoisyFitWarning)  # labels are random here
    print(f"torch {torch.__version__}, {device_name(str(device))}, {options.threads} thread(s)")
    for section in options.sections or SECTIONS:
        SECTIONS[section](Scale(device, options.rounds, options.rows, options.width))
    return 0


if __name__ == "__main__":
    sys.exit(main())
