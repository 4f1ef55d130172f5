"""What a fit asks of a device: values are read between batches, not within them.

A program that reads a value from a GPU waits until the GPU has done all that it was asked for.
"""

import sys
from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from noisyfit import NoisyLabelClassifier, SemiSupervisedClassifier
from noisyfit.estimator.engine import State
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


@every_variant
def test_fit__more_batches__read_no_more_values(cls: Estimator) -> None:
    X, y = blobs(192)
    given = np.where(np.arange(192) < 96, y, -1) if cls is SemiSupervisedClassifier else y
    reads = []
    for batch_size in (32, 16):
        clf = quick(cls, max_epochs=4, batch_size=batch_size, missing_label=-1)
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
