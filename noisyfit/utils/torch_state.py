"""torch's state per process: generators, default dtype and device, gradients.

Whatever the caller has set is put aside while the package works, and restored afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from threading import Lock, RLock

import torch
from torch import Tensor


class _Shared:
    """The locks, and who uses the default dtype."""

    def __init__(self) -> None:
        self.generators = RLock()  # a fit may be nested in another one
        self.dtype = Lock()
        self.dtype_users = 0
        self.dtype_before = torch.float32


_shared = _Shared()


def _renew() -> None:
    """Release, in a forked process, the locks of threads that do not exist in it."""
    _shared.generators, _shared.dtype = RLock(), Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


@contextmanager
def torch_defaults() -> Iterator[None]:
    """Work in float32, on the CPU unless a device is named, and with gradients if requested.

    Also a decorator. Several threads may be inside at the same time.
    """
    elsewhere = torch.get_default_device().type != "cpu"
    device = torch.device("cpu") if elsewhere else nullcontext()
    with _float32(), device, torch.inference_mode(False), torch.enable_grad():
        yield


@contextmanager
def _float32() -> Iterator[None]:
    """Keep float32 as the default dtype until the last thread that needs it is done."""
    with _shared.dtype:
        if not _shared.dtype_users:
            _shared.dtype_before = torch.get_default_dtype()
            torch.set_default_dtype(torch.float32)
        _shared.dtype_users += 1
    try:
        yield
    finally:
        with _shared.dtype:
            _shared.dtype_users -= 1
            if not _shared.dtype_users:
                torch.set_default_dtype(_shared.dtype_before)


@contextmanager
def seeded_generators(
    seed: int, device: torch.device | None = None, *, deterministic: bool = False
) -> Iterator[None]:
    """Have exclusive use of torch's generators, seeded; other threads of the package wait.

    Parameters
    ----------
    seed : int
    device : torch.device, optional
        A GPU whose generator is also needed.
    deterministic : bool
        Use deterministic algorithms. They are also used if the caller has chosen them.
    """
    gpus = [device] if device is not None and device.type == "cuda" else []
    with _shared.generators, torch.random.fork_rng(devices=gpus):
        before = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(deterministic or before)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach other devices
        if device is not None and device.type != "cpu":
            with torch.cuda.device(device) if gpus else nullcontext():
                torch.get_device_module(device).manual_seed(seed)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)


def rng_state(device: torch.device) -> dict[torch.device, Tensor]:
    """Return the global random state that a network on the device uses."""
    state = {torch.device("cpu"): torch.get_rng_state()}
    if device.type == "cuda":
        state[device] = torch.cuda.get_rng_state(device)
    return state


def set_rng_state(state: Mapping[torch.device, Tensor]) -> None:
    """Restore the states that `rng_state` returned."""
    for device, value in state.items():
        if device.type == "cuda":
            torch.cuda.set_rng_state(value, device)
        else:
            torch.set_rng_state(value)
