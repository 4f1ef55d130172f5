"""What a fit asks of a device: values are read between batches, not within them.

A program that reads a value from a GPU waits until the GPU has done all that it was asked for.
"""

import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from noisyfit import (
    HRPClassifier,
    MixUpClassifier,
    NoisyLabelClassifier,
    RLDClassifier,
    SemiSupervisedClassifier,
)
from noisyfit.estimator.engine import State
from noisyfit.noise import symmetric
from tests.common.zoo import Estimator, every_variant
from tests.helpers import blobs, quick

READING = {
    "_local_scalar_dense", "_unique2", "equal", "is_nonzero", "masked_select", "nonzero",
    "repeat_interleave", "unique_consecutive", "unique_dim",
}  # fmt: skip
BY_INDEX = {"index", "index_put", "index_put_", "_index_put_impl_"}  # or by mask


class Reads(TorchDispatchMode):
    """Counts, by line of the package, where it needs a value to go on.

    Optimizers count their steps on the CPU, and only there `one_hot` looks at its labels.
    """

    def __init__(self, clf: NoisyLabelClassifier) -> None:
        super().__init__()
        self.clf = clf
        self.lines = Counter[str]()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func._schema.name.removeprefix("aten::")
        by_mask = name in BY_INDEX and any(i is not None and i.dtype == torch.bool for i in args[1])
        if (name in READING or by_mask) and not self._is_flag(args[0]):
            self._note(sys._getframe(1))
        return func(*args, **(kwargs or {}))

    def _is_flag(self, x: Tensor) -> bool:
        """Whether a value belongs to the state that stays on the CPU, see the test below."""
        if not hasattr(self.clf, "state_"):
            return False
        flags = [b for b in self.clf.state_.buffers() if b.ndim == 0 and not b.is_floating_point()]
        return x.data_ptr() in [flag.data_ptr() for flag in flags]

    def _note(self, frame: Any) -> None:
        while frame and "/noisyfit/" not in frame.f_code.co_filename:
            if "/torch/optim/" in frame.f_code.co_filename:
                return
            frame = frame.f_back
        if frame and frame.f_code.co_name != "one_hot":
            file = frame.f_code.co_filename.rpartition("/noisyfit/")[2]
            self.lines[f"{file}:{frame.f_lineno}"] += 1


class DrawnOnTheCPU(TorchDispatchMode):
    """Draws random numbers on the CPU, so that fits on other devices have the same."""

    def __init__(self) -> None:
        super().__init__()
        self.n_draws = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        self.n_draws += 1
        tensors = [x for x in args if isinstance(x, Tensor)]
        device = tensors[0].device if tensors else kwargs.get("device")
        on_cpu = {"device": torch.device("cpu")} if "device" in kwargs else {}
        drawn = func(*tree_map_only(Tensor, Tensor.cpu, args), **kwargs | on_cpu)
        if func._schema.is_mutable:
            return tensors[0].copy_(drawn)
        return tree_map_only(Tensor, lambda x: x.to(device), drawn)


def drawn_on_the_cpu(cls: Estimator, device: str) -> Any:
    X, y = blobs(200)
    given = np.where(np.arange(200) < 150, symmetric(y, 0.3, random_state=0).labels, -1)
    clf = quick(cls, missing_label=-1, device=device, precision="fp32")
    with DrawnOnTheCPU() as draws:
        clf.fit(X, given)
    assert draws.n_draws > 0
    return clf, clf.predict_proba(X), clf.label_distribution_


@pytest.mark.parametrize("cls", [HRPClassifier, MixUpClassifier, RLDClassifier])
def test_random_numbers_drawn_on_the_cpu__change_nothing_there(cls: Estimator) -> None:
    """So that the test on a GPU below compares with what users get."""
    clf, *expected = drawn_on_the_cpu(cls, "cpu")
    again = clone(clf)
    X, _ = blobs(200)
    again.fit(X, clf.given_labels_)
    for got, wanted in zip(
        (again.predict_proba(X), again.label_distribution_), expected, strict=True
    ):
        np.testing.assert_allclose(
            got, wanted, atol=1e-3
        )  # under a mode sums are rounded otherwise


@pytest.mark.gpu
@every_variant
def test_on_a_gpu__with_the_random_numbers_of_the_cpu__gives_its_fit(cls: Estimator) -> None:
    _, *expected = drawn_on_the_cpu(cls, "cpu")
    clf, *found = drawn_on_the_cpu(cls, "cuda")
    assert clf.device_.type == "cuda"
    for got, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, wanted, atol=5e-3)


@every_variant
def test_fit__more_batches__read_no_more_values(cls: Estimator) -> None:
    X, y = blobs(96)
    given = np.where(np.arange(96) < 48, y, -1) if cls is SemiSupervisedClassifier else y
    reads = []
    for batch_size in (32, 16):
        clf = quick(cls, max_epochs=3, batch_size=batch_size, missing_label=-1)
        with Reads(clf) as seen:
            clf.fit(X, given)
        reads.append(seen.lines)
    few, many = reads
    assert few.total() > 0
    assert {line: n - few[line] for line, n in many.items() if n > few[line]} == {}


def test_state__flags_and_counters_stay_on_the_cpu() -> None:
    state = State(
        {
            "flag": torch.tensor(False),
            "counter": torch.tensor(3),
            "share": torch.tensor(0.5),
            "labels": torch.zeros(4, dtype=torch.int64),
        },
        torch.device("meta"),
    )
    assert {name for name, b in state.named_buffers() if b.device.type == "cpu"} == {
        "flag",
        "counter",
    }
