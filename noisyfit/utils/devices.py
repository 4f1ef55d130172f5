"""Devices and precision."""

from __future__ import annotations

import torch

from noisyfit.exceptions import warn


def resolve_device(device: str | torch.device) -> torch.device:
    """Return a device; ``"auto"`` is a CUDA GPU if there is one, else the CPU.

    Raises
    ------
    ValueError
        If the device does not exist.
    """
    try:
        resolved = named_device(device)
        torch.zeros(1, device=resolved).tolist()  # torch tells late that a device is not there
    except (AssertionError, ImportError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"device must be one that torch can use here: {', '.join(_devices())}. Got {device!r}. "
            "Pass 'auto' for a GPU if there is one."
        ) from error
    return resolved


def named_device(device: str | torch.device) -> torch.device:
    """Return what `resolve_device` does, without checking that the device exists."""
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def _devices() -> list[str]:
    gpus = [f"'cuda:{i}'" for i in range(torch.cuda.device_count())]
    return ["'auto'", "'cpu'", *(["'cuda'"] if gpus else []), *gpus]


def all_like(device: str) -> list[str]:
    """Return the GPUs of one kind, by number, if there are several and any of them will do."""
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    gpus = [f"cuda:{i}" for i, name in enumerate(names) if name == names[0]]
    return gpus if len(gpus) > 1 and device in ("auto", "cuda") else [device]


def device_name(device: str | torch.device) -> str:
    """Return ``"cpu"`` or the name of the GPU, to tell which times are comparable."""
    resolved = resolve_device(device)
    return torch.cuda.get_device_name(resolved) if resolved.type == "cuda" else resolved.type


def resolve_precision(
    precision: str, device: torch.device, row_shape: tuple[int, ...]
) -> torch.dtype | None:
    """Return the autocast dtype of training, None for float32.

    ``"auto"`` uses bfloat16 where it pays: on GPUs that support it, and for square images on CPUs
    with bfloat16 instructions.
    """
    if precision == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else None
        # torch 2.15: on CPUs, strided bfloat16 convolutions over maps 2 wide and taller than wide
        # read uninitialised memory.
        square = len(row_shape) == 3 and row_shape[1] == row_shape[2]
        return torch.bfloat16 if square and cpu_has_bf16() else None
    if precision == "bf16" and device.type == "cpu" and not cpu_has_bf16():
        warn(
            "precision='bf16' needs instructions for it to be fast. Got a CPU without them, on "
            "which training takes several times as long. Leave precision at 'auto'."
        )
    return torch.bfloat16 if precision == "bf16" else None


def cpu_has_bf16() -> bool:
    """Return whether this CPU has instructions for bfloat16."""
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())
