"""Checkpoints that survive SIGKILL, one folder per training run."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

SLICE = 4096  # rows of a memmap hashed at once


def fingerprint(*parts: Any) -> str:
    """Hash what defines a run; equal only if every value, array entry and class name is equal.

    Raises
    ------
    ValueError
        If a part cannot be pickled by reference or value, such as a lambda.
    """
    try:
        return str(joblib.hash([_hashable(part) for part in parts], hash_name="sha1"))
    except Exception as error:
        raise ValueError(
            "checkpoint_dir needs parameters that can be pickled, to recognise the run again. "
            f"Got {error}. Define classes and functions at the top of a module."
        ) from error


def _hashable(part: Any) -> Any:
    """Return values that hash alike in every process: no storage addresses, no fitted state."""
    if isinstance(part, dict):
        return {name: _hashable(value) for name, value in part.items()}
    if isinstance(part, list | tuple):
        return [_hashable(value) for value in part]
    if isinstance(part, Tensor):
        part = part.detach().cpu()
        return (part.float() if part.dtype == torch.bfloat16 else part).numpy()
    if isinstance(part, np.memmap) and not part.flags.forc:  # joblib would copy it whole
        slices = (part[start : start + SLICE] for start in range(0, len(part), SLICE))
        return part.shape, [joblib.hash(np.array(rows), hash_name="sha1") for rows in slices]
    if isinstance(part, nn.Module):
        return type(part), repr(part), _hashable(dict(part.state_dict()))
    if hasattr(part, "on_train_begin"):  # a callback
        params = {k: v for k, v in vars(part).items() if not k.endswith("_")}
        return type(part), _hashable(params)
    if isinstance(part, Dataset):  # its rows may not fit into memory
        return type(part).__qualname__, len(part)  # type: ignore[arg-type]
    return part


class Checkpoint:
    """The last completed epoch of one run, in a folder of its own.

    Parameters
    ----------
    folder : path
        Made on the first write.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.file = Path(folder) / "checkpoint.pt"
        self._pending: bytes | None = None

    def read(self) -> dict[str, Any] | None:
        """Return the stored state on the CPU, or None when there is none."""
        if not self.file.exists():
            return None
        state: dict[str, Any] = torch.load(self.file, map_location="cpu", weights_only=False)
        return state

    def hold(self, state: dict[str, Any]) -> None:
        """Keep a copy of the state until `flush`; training may change the original."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self._pending = buffer.getvalue()

    def flush(self) -> None:
        """Write the held state whole or not at all."""
        if self._pending is None:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.file.with_suffix(f".{os.getpid()}.tmp")
        with open(temporary, "wb") as file:
            file.write(self._pending)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.file)
        self._pending = None

    def remove(self) -> None:
        """Forget the run: it has ended."""
        shutil.rmtree(self.file.parent, ignore_errors=True)
