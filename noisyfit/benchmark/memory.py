"""The peak memory of a call."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def peak_memory(function: Callable[[], Any], on_gpu: bool) -> float:
    """Call a function and return its peak memory in MB above what was in use before.

    On a GPU that is the memory of tensors, otherwise that of the process (its resident set). NaN
    where the system does not report it, that is, anywhere but on Linux.
    """
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        allocated = torch.cuda.memory_allocated()
        function()
        return (torch.cuda.max_memory_allocated() - allocated) / 1e6
    _give_back_freed_memory()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
        before = _resident("VmRSS")
    except OSError:
        function()
        return float("nan")
    function()
    return max(0.0, _resident("VmHWM") - before)


def _give_back_freed_memory() -> None:
    """Return freed memory to the system (glibc only): a call that reuses it would seem free."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, TypeError, AttributeError):
        pass


def _resident(which: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith(which))
