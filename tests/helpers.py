"""What the tests of all estimators share: the estimators, small data, networks and callbacks."""

import inspect
import os
import pkgutil
import resource
import signal
import sys
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.datasets import load_digits, make_blobs
from sklearn.model_selection import train_test_split
from skorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from noisyfit import (
    CrossEntropyClassifier,
    DivideMixClassifier,
    EchoAlignClassifier,
    EchoSelect,
    ELRClassifier,
    SemiSupervisedClassifier,
    methods,
    noise,
)
from noisyfit.data.rows import Rows
from noisyfit.data.training import TrainingData
from noisyfit.estimator.base import NoisyLabelClassifier
from noisyfit.estimator.warmup import WarmUp
from noisyfit.nn.generators import ConditionalDiffusion

torch.set_num_threads(1)  # also in processes that import nothing else of the tests

Arrays = tuple[NDArray[Any], NDArray[Any]]
CPU = torch.device("cpu")


def all_estimators() -> list[type[NoisyLabelClassifier]]:
    """Every public estimator defined in a file of ``noisyfit/methods``."""
    modules = [
        import_module(f"{methods.__name__}.{file.name}")
        for file in pkgutil.iter_modules(methods.__path__)
    ]
    return [
        value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, NoisyLabelClassifier)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    ]


def with_defaults(
    cls: type[NoisyLabelClassifier], name: str, **defaults: Any
) -> type[NoisyLabelClassifier]:
    """A variant of an estimator, for checks that take a class."""

    def init(self: Any, *args: Any, **params: Any) -> None:
        cls.__init__(self, *args, **defaults | params)

    known = inspect.signature(cls.__init__)
    parameters = [
        p.replace(default=defaults.get(k, p.default)) for k, p in known.parameters.items()
    ]
    init.__signature__ = known.replace(parameters=parameters)  # type: ignore[attr-defined]
    doc = (cls.__doc__ or "").split("    Examples\n")[0]  # those of the class run once
    return type(name, (cls,), {"__init__": init, "__module__": __name__, "__doc__": doc})


ELRPlusClassifier = with_defaults(ELRClassifier, "ELRPlusClassifier", n_networks=2)
CLIDDivideMixClassifier = with_defaults(
    DivideMixClassifier, "CLIDDivideMixClassifier", meta_model="vri"
)


BRIEF = ConditionalDiffusion(n_train_steps=20, n_steps=3, width=16)


def quick(cls: type[Any], **params: Any) -> Any:
    """Make an estimator that trains for a moment, and whose warm-up, if it has one, ends.

    Parameters are those of the classifier, also of the one in `EchoAlignClassifier`.
    """
    if cls is EchoAlignClassifier:
        inner = quick(CrossEntropyClassifier, **params)
        return EchoAlignClassifier(
            inner, EchoSelect(BRIEF, select_by="similarity", n_rounds=1), random_state=0
        )
    settings: dict[str, Any] = {"max_epochs": 6, "random_state": 0, "device": "cpu"}
    if issubclass(cls, WarmUp):
        share = 1 / 2 if issubclass(cls, DivideMixClassifier) else 1 / 6  # it learns little later
        settings["warmup_epochs"] = max(1, round(params.get("max_epochs", 6) * share))
    if issubclass(cls, SemiSupervisedClassifier):
        settings |= {"meta_every": 8, "unlabelled_ratio": 1, "min_steps": 8}
    return cls(**settings | params)


def small_fit(X: Any, y: Any) -> Any:
    """Fit for an epoch."""
    return CrossEntropyClassifier(max_epochs=1, random_state=0, device="cpu").fit(X, y)


def blobs(n: int = 240, n_classes: int = 3, seed: int = 0) -> Arrays:
    """Eight columns in which the classes are easy to tell apart."""
    X, y = make_blobs(
        n, 8, centers=n_classes, cluster_std=2.0, center_box=(-5, 5), random_state=seed
    )
    return X, y


def noisy_blobs(seed: int = 0) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
    """Blobs with four in ten labels wrong, and which ones are."""
    X, y = blobs(seed=seed)
    noisy = noise.symmetric(y, 0.4, random_state=seed)
    return X, noisy.labels, noisy.flipped


def images(n: int = 60) -> Arrays:
    """uint8 images (n, 12, 10, 3); the class is the channel that shines."""
    y = np.arange(n) % 3
    X = np.random.default_rng(0).integers(0, 100, size=(n, 12, 10, 3), dtype=np.uint8)
    X[np.arange(n), :, :, y] += 100
    return X, y


def as_memmap(X: NDArray[Any], folder: Path) -> NDArray[Any]:
    """The array in a file, mapped for reading."""
    written = np.memmap(folder / "X.dat", dtype=X.dtype, mode="w+", shape=X.shape)
    written[:] = X
    written.flush()
    return np.memmap(folder / "X.dat", dtype=X.dtype, mode="r", shape=X.shape)


class Perceptron(nn.Sequential):
    """A user's network, with a parameter of its own."""

    def __init__(self, n_features: int, n_classes: int, hidden: int = 16) -> None:
        super().__init__(nn.Linear(n_features, hidden), nn.ReLU(), nn.Linear(hidden, n_classes))


def seeded_perceptron() -> Perceptron:
    """An instance with the same weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Perceptron(8, 3)


class Linear(nn.Sequential):
    """A network without normalisation, so that a large learning rate makes it diverge."""

    def __init__(self, n_features: int, n_classes: int) -> None:
        super().__init__(nn.Linear(n_features, n_classes))


def make_perceptron(n_features: int, n_classes: int) -> nn.Module:
    """A factory."""
    return Perceptron(n_features, n_classes)


def optimizers(net: Any) -> dict[str, torch.optim.Optimizer]:
    """The optimizers of a fitted estimator by name."""
    return {k: v for k, v in vars(net).items() if isinstance(v, torch.optim.Optimizer)}


class LearningRates(Callback):
    """Write down the learning rate of every optimizer in each epoch."""

    def __init__(self) -> None:
        self.rates: dict[str, list[float]] = {}

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        for name, optimizer in optimizers(net).items():
            self.rates.setdefault(name, []).append(optimizer.param_groups[0]["lr"])


class Predictions(Callback):
    """Predict at the end of each epoch."""

    def __init__(self, X: Any) -> None:
        self.X = X
        self.probs: list[NDArray[Any]] = []

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        self.probs.append(net.predict_proba(self.X))


class GradientNorms(Callback):
    """Write down the norm of the gradient of every step."""

    def __init__(self) -> None:
        self.norms: list[float] = []

    def on_grad_computed(self, net: Any, named_parameters: Any, **kwargs: Any) -> None:
        grads = [p.grad.flatten() for _, p in named_parameters if p.grad is not None]
        self.norms.append(float(torch.cat(grads).norm()))


class Fate:
    """What the `Doom` callbacks of this process do: set by the test, unknown to the estimator."""

    epoch: int | None = None
    batch = 0  # 0: before the first batch of the epoch
    kill = False
    begun: list[int] = []  # epochs that were started


class Doom(Callback):
    """End the fit at the epoch and batch that `Fate` has decided, by Ctrl-C or SIGKILL.

    It has no parameters and no state, so that a doomed run and its repetition are the same run.
    """

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        Fate.begun.append(len(net.history) - 1)
        self.strike(net, batch=0)

    def on_batch_begin(self, net: Any, **kwargs: Any) -> None:
        self.strike(net, batch=len(net.history[-1]["batches"]))

    def strike(self, net: Any, batch: int) -> None:
        if Fate.epoch != len(net.history) - 1 or Fate.batch != batch:
            return
        if Fate.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        raise KeyboardInterrupt


def doomed_fit(
    cls: type[NoisyLabelClassifier], params: dict[str, Any], data: Arrays, epoch: int, batch: int
) -> None:
    """Fit, and die by SIGKILL; for a process of its own."""
    Fate.epoch, Fate.batch, Fate.kill = epoch, batch, True
    cls(callbacks=[Doom()], **params).fit(*data)


@contextmanager
def full_disk(n_bytes: int) -> Iterator[None]:
    """No file may be larger; writing more fails half way, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # Python would cut it short
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        sys.dont_write_bytecode = written


class PairDataset(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """A torch Dataset of rows and labels."""

    def __init__(self, X: NDArray[Any], y: NDArray[Any]) -> None:
        self.rows = torch.as_tensor(X)
        self.given = [int(label) for label in y]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.rows[i], self.given[i]


class LiveMemory(TorchDispatchMode):
    """Adds up the tensors made under it that are still alive; ``peak`` is in megabytes.

    Those of fewer than ``smallest`` bytes do not count.
    """

    def __init__(self, smallest: int = 0) -> None:
        super().__init__()
        self.smallest = smallest
        self.sizes: dict[int, int] = {}
        self.peak = 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {x.untyped_storage().data_ptr() for x in args if isinstance(x, Tensor)}
        result = func(*args, **(kwargs or {}))
        for x in result if isinstance(result, tuple | list) else (result,):
            if isinstance(x, Tensor):
                storage = x.untyped_storage()
                address, small = storage.data_ptr(), storage.nbytes() < self.smallest
                if not small and address not in given and address not in self.sizes:
                    self.sizes[address] = storage.nbytes()
                    weakref.finalize(storage, self.sizes.pop, address)
        self.peak = max(self.peak, sum(self.sizes.values()) / 1e6)
        return result


def digits_scores(
    methods: Sequence[NoisyLabelClassifier], kind: str = "symmetric"
) -> list[NDArray[np.float64]]:
    """Accuracy on clean digits of each method, three seeds, four in ten training labels wrong."""
    X, y = load_digits(return_X_y=True)
    scores = []
    for seed in range(3):
        parts = train_test_split(X, y, test_size=0.3, random_state=seed, stratify=y)
        X_train, X_test, y_train, y_test = parts
        given = getattr(noise, kind)(y_train, 0.4, random_state=seed).labels
        fitted = [clone(clf).set_params(random_state=seed).fit(X_train, given) for clf in methods]
        scores.append([clf.score(X_test, y_test) for clf in fitted])
    return list(np.array(scores).T)


def table(n: int = 10, d: int = 3) -> NDArray[Any]:
    """A table in which every number tells its place."""
    return np.arange(n * d, dtype=np.float64).reshape(n, d)


def training(n: int, batch_size: int, labels: Any = None, **params: Any) -> TrainingData:
    """Numbered rows of two classes, as a method sees them."""
    codes = torch.arange(n) % 2 if labels is None else torch.as_tensor(labels)
    rows = Rows(table(n), "table", CPU)
    trusted = torch.zeros(len(codes), dtype=torch.bool)
    return TrainingData(rows, codes, trusted, 2, batch_size, **params)


class Mapped(torch.utils.data.Dataset[Any]):
    """A Dataset of rows without labels."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Any:
        return self.rows[i]


def network_outputs(
    n_samples: int, seed: int = 0, n_dims: int = 16, n_classes: int = 4, spread: float = 0.4
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Embeddings around one center a class, and confident predictions of that class."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(n_classes, size=n_samples)
    centers = np.maximum(rng.normal(size=(n_classes, n_dims)), 0)
    noise = spread * rng.normal(size=(n_samples, n_dims))
    logits = 3 * np.eye(n_classes)[classes] + rng.normal(size=(n_samples, n_classes))
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return np.maximum(centers[classes] + noise, 0), probs
