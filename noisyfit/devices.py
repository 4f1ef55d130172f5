"""Where and how precisely to compute."""

from __future__ import annotations

import torch


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the device that ``"auto"`` stands for: a CUDA GPU if there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def resolve_precision(precision: str, device: torch.device, is_image: bool) -> torch.dtype | None:
    """Return the autocast dtype of training, None for float32.

    ``"auto"`` takes bfloat16 where it pays: on GPUs that have it, and for convolutions on CPUs
    with bfloat16 instructions.
    """
    if precision == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else None
        has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
        return torch.bfloat16 if is_image and has_bf16 else None
    return torch.bfloat16 if precision == "bf16" else None
