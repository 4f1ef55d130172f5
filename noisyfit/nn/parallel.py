"""One fit on several processes, each of which sends its share of every batch through a network.

All processes hold the same rows and the same state, draw the same random numbers and take the same
steps. Only the passes through networks are divided: `shared` passes the rows of this process and
gathers the outputs of all, `average` makes gradients those of the whole batch. So a loss may couple
the rows of a batch in any way, and a method needs no line for it.

Layers of batch normalisation see the rows of their own process, as in torch's
``DistributedDataParallel``. Dropout differs between processes.
"""

from __future__ import annotations

import atexit
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from noisyfit.utils.torch_state import rng_state, set_rng_state

__all__ = [
    "all_processes",
    "average",
    "average_statistics",
    "check_same",
    "from_first",
    "is_first",
    "shared",
]

T = TypeVar("T", Tensor, tuple[Tensor, Tensor])
LAUNCHED = "NOISYFIT_LAUNCHED"  # the process that a launcher has started, not its children

if os.environ.get("WORLD_SIZE", "") not in ("", "0", "1"):
    os.environ.setdefault(LAUNCHED, str(os.getpid()))


class _Processes:
    """How many divide a pass: one outside of a fit, and inside a pass that is divided already."""

    n = 1


_processes = _Processes()


@contextmanager
def all_processes() -> Iterator[None]:
    """Divide passes among the processes that ``torchrun`` or the like has started, if there are."""
    before, _processes.n = _processes.n, _join()
    try:
        yield
    finally:
        _processes.n = before


def _join() -> int:
    if os.environ.get(LAUNCHED) != str(os.getpid()):
        return 1
    if not distributed.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        distributed.init_process_group()
        atexit.register(distributed.destroy_process_group)
    return distributed.get_world_size()


def is_first() -> bool:
    """Whether this process is the one that writes files."""
    return _processes.n == 1 or distributed.get_rank() == 0


def from_first(value: Any) -> Any:
    """Return what the first process has."""
    if _processes.n == 1:
        return value
    box = [value]
    distributed.broadcast_object_list(box)
    return box[0]


def check_same(describe: Callable[[], dict[str, Any]]) -> None:
    """Raise ValueError if processes that fit together were given different things.

    Parameters
    ----------
    describe : callable
        Returns what must be the same, by the name that the message has for it.
    """
    if _processes.n == 1:
        return
    own = describe()
    first = from_first(own)
    different = [name for name, value in own.items() if value != first[name]]
    if different:
        raise ValueError(
            "Processes that fit together must be given the same rows, labels and parameters. Got "
            f"other {' and '.join(different)} than the first process. Pass the whole of X and y, "
            "and the same parameters, to each; fit divides the batches."
        )


def shared(function: Callable[[Tensor], T], x: Tensor) -> T:
    """Return ``function(x)``, of which each process computes its share of the rows.

    Parameters
    ----------
    function : callable
        Maps rows to one tensor or two, row by row.
    x : Tensor of shape (n_samples, ...)
        The same on all processes. With fewer than two rows for each, all compute everything.
    """
    n = _processes.n
    if n == 1 or len(x) < 2 * n:
        return function(x)
    own = x.tensor_split(n)[distributed.get_rank()]
    _processes.n = 1
    try:
        with _own_random_numbers(x.device):
            found = function(own)
    finally:
        _processes.n = n
    if isinstance(found, Tensor):
        return _Gathered.apply(found, len(x))
    first, second = found
    return _Gathered.apply(first, len(x)), _Gathered.apply(second, len(x))


@contextmanager
def _own_random_numbers(device: torch.device) -> Iterator[None]:
    """Draw other numbers than the other processes, then go on with the same as they."""
    before = rng_state(device)
    seed = zlib.crc32(before[torch.device("cpu")].numpy().tobytes()) + distributed.get_rank()
    torch.manual_seed(seed)
    own = rng_state(device)
    yield
    after = rng_state(device)
    drawn = any(not torch.equal(own[where], after[where]) for where in own)
    set_rng_state(before)
    if drawn:
        torch.rand(1)  # so that the next pass does not draw the same


class _Gathered(torch.autograd.Function):
    """The rows of all processes; the gradient of those of this one, times their number.

    The mean over the processes is then the gradient of the whole batch, also for parameters behind
    the gathered rows, of which every process has the whole gradient.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor, n: int) -> Tensor:
        n_processes, rank = distributed.get_world_size(), distributed.get_rank()
        sizes = [len(part) for part in torch.empty(n).tensor_split(n_processes)]
        ctx.rows = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        padded = own.new_zeros(sizes[0], *own.shape[1:])
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in sizes]
        distributed.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0][ctx.rows] * distributed.get_world_size(), None


@torch.no_grad()
def average(tensors: Sequence[Tensor | None]) -> None:
    """Replace each tensor by its mean over the processes."""
    found = [tensor for tensor in tensors if tensor is not None]
    if _processes.n == 1 or not found:
        return
    flat = torch.cat([tensor.reshape(-1).double() for tensor in found])
    distributed.all_reduce(flat)
    flat /= _processes.n
    parts = flat.split([tensor.numel() for tensor in found])
    for tensor, part in zip(found, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def average_statistics(network: nn.Module) -> None:
    """Give the running statistics of a network the same values on all processes."""
    if _processes.n > 1:
        average([value for value in network.buffers() if value.is_floating_point()])
