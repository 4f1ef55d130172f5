"""Checkpoints that survive SIGKILL, one folder per training run.

A checkpoint is tensors, arrays, numbers and text under a checksum. None of it is ever executed.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from copy import copy
from itertools import chain, count
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from noisyfit.exceptions import warn
from noisyfit.utils.files import explained, read_sealed, set_aside, write_sealed

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["Checkpoint", "decode", "encode"]

FILE, LOCK, TEMPORARY = "checkpoint.pt", "lock", "checkpoint.tmp"
LOCK_ATTEMPTS, LOCK_PAUSE = 3, 0.02  # seconds; others lock it briefly, to see if a run is live
SCALARS = (bool, int, float, complex, str, bytes, type(None))
TENSORS = (Tensor, torch.device, torch.dtype)
ARRAY = "numpy array"  # key under which a tensor, or a dtype and a list, stand for an array


class Checkpoint:
    """The last completed epoch of one run, in a folder of its own.

    Parameters
    ----------
    folder : path
        Created by the first write.
    lock : file or None, default=None
        Open and locked while a run owns the folder; see `claim`.
    """

    def __init__(self, folder: str | os.PathLike[str], lock: IO[bytes] | None = None) -> None:
        self.file = Path(folder) / FILE
        self._lock = lock
        self._pending: bytes | None = None

    @classmethod
    def claim(cls, directory: str | os.PathLike[str], name: str, key: str = "") -> Checkpoint:
        """Own the folder of a run until `release`, or until the process dies.

        If a live run owns it, this one gets a separate folder beside it. If there is nothing to
        resume, a warning names stopped runs of the same name.

        Parameters
        ----------
        directory : path
        name, key : str
            The method, and the hash of everything that defines the run.

        Raises
        ------
        OSError
            If the directory cannot be written to.
        """
        own = f"{name}-{key}" if key else name
        try:
            checkpoint = next(filter(None, map(cls._take, _folders(Path(directory), own))))
        except OSError as error:
            raise explained(error, directory) from error
        if key and not checkpoint.file.exists():
            _tell_of_others(Path(directory), name, own)
        return checkpoint

    @classmethod
    def _take(cls, folder: Path) -> Checkpoint | None:
        for _ in range(LOCK_ATTEMPTS):
            with suppress(FileExistsError):  # it was there a moment ago
                folder.mkdir(parents=True, exist_ok=True)
            lock = _locked(folder)
            if lock is not None:
                return cls(folder, lock)
            time.sleep(LOCK_PAUSE)
        return None

    def read(self) -> dict[str, Any] | None:
        """Return the stored state on the CPU, or None if there is no intact one."""
        content = read_sealed(self.file)
        try:
            state: dict[str, Any] | None = None if content is None else decode(content)
        except Exception:  # torch may raise anything on foreign bytes
            set_aside(self.file)
            return None
        return state

    def hold(self, state: dict[str, Any]) -> None:
        """Keep a copy of the state until `flush`; training may change the original."""
        self._pending = encode(state)

    def flush(self) -> None:
        """Write the held state, all of it or nothing."""
        if self._pending is None:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.write(self.file, self._pending)
        self._pending = None

    def write(self, file: Path, content: bytes) -> None:
        """Write a file atomically, through a temporary one in the folder."""
        write_sealed(file, content, self.file.with_name(TEMPORARY))

    def remove(self) -> None:
        """Delete the checkpoint: the run has ended."""
        self.file.unlink(missing_ok=True)
        if self._lock is None:
            self._remove_folder()
        self.release()

    def release(self) -> None:
        """Free the folder for the next run, and delete it if it holds no checkpoint."""
        if self._lock is None:
            return
        if not self.file.exists():
            self._remove_folder()  # only once: from here on another run may own the name
        self._lock.close()
        self._lock = None

    def _remove_folder(self) -> None:
        with suppress(OSError):  # Windows keeps open files; damaged files stay
            for name in (TEMPORARY, LOCK):
                self.file.with_name(name).unlink(missing_ok=True)
            self.file.parent.rmdir()

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_lock": None}  # a copy owns nothing


def encode(state: Any) -> bytes:
    """Return tensors, arrays, numbers and text, and lists and dicts of them, as bytes.

    Raises
    ------
    ValueError
        If there is anything else, which could be read back only by running code.
    """
    buffer = io.BytesIO()
    torch.save(_packed(state, "the state"), buffer)
    return buffer.getvalue()


def decode(content: bytes) -> Any:
    """Return what `encode` was given, on the CPU."""
    return _unpacked(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))


def _packed(value: Any, where: str) -> Any:
    """Return the value in a form that torch reads back without running code."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "biufc":
            return {ARRAY: torch.tensor(value)}
        return {ARRAY: (value.dtype.str, _packed(value.tolist(), where))}
    if isinstance(value, dict):
        packed = copy(value) if isinstance(value, OrderedDict) else {}  # keeps a module's versions
        packed.update({k: _packed(entry, f"{where}[{k!r}]") for k, entry in value.items()})
        return packed
    if isinstance(value, list | tuple):
        entries = [_packed(entry, where) for entry in value]
        return entries if isinstance(value, list) else tuple(entries)
    if type(value) not in SCALARS and not isinstance(value, TENSORS):
        raise ValueError(
            "What is kept for later must be tensors, arrays, numbers and text. Got a "
            f"{type(value).__name__} in {where}. Leave it out of the state of callbacks and "
            "networks, or fit without keeping anything."
        )
    return value


def _unpacked(value: Any) -> Any:
    """Undo `_packed`."""
    if isinstance(value, dict) and list(value) == [ARRAY]:
        return _array(value[ARRAY])
    if isinstance(value, dict):
        value.update({name: _unpacked(entry) for name, entry in value.items()})
        return value
    if isinstance(value, list | tuple):
        return type(value)([_unpacked(entry) for entry in value])
    return value


def _array(stored: Any) -> Any:
    if isinstance(stored, Tensor):
        return stored.numpy()
    dtype, entries = stored
    return np.fromiter(entries, dtype=dtype, count=len(entries))


# ------------------------------------------------------------------------------------- folders


def _folders(directory: Path, own: str) -> Iterator[Path]:
    """Yield the folders that a run may take: those of stopped runs first, then unused ones."""
    copies = sorted(directory.glob(f"{own}-*"))
    stopped = [folder for folder in (directory / own, *copies) if (folder / FILE).exists()]
    numbered = (directory / f"{own}-{number}" for number in count(2))
    return chain(stopped, [directory / own], numbered)


def _locked(folder: Path) -> IO[bytes] | None:
    """Open the lock of a folder for this run alone; None if another run holds it."""
    path = folder / LOCK
    try:
        lock = open(path, "ab")  # noqa: SIM115
    except FileNotFoundError:  # the folder has just been removed
        return None
    if _try_lock(lock.fileno()) and _is_at(path, lock):
        return lock
    lock.close()
    return None


def _try_lock(descriptor: int) -> bool:
    """Take a lock that ends with the process; where there are no locks, nobody owns a folder."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True


def _is_at(path: Path, lock: IO[bytes]) -> bool:
    """Whether an open file is still at its path, not removed before it was locked."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(lock.fileno()))
    except FileNotFoundError:
        return False


def _is_live(folder: Path) -> bool:
    if not (folder / LOCK).exists():
        return False
    lock = _locked(folder)
    if lock is not None:
        lock.close()
    return lock is None


def _tell_of_others(directory: Path, name: str, own: str) -> None:
    """Warn of other stopped runs, since the user may mean to resume one of them."""
    folders = sorted(file.parent for file in directory.glob(f"{name}-*/{FILE}"))
    others = [f for f in folders if not f.name.startswith(own) and not _is_live(f)]
    if others:
        warn(
            f"checkpoint_dir should hold this run of {name} if it is to go on. Got "
            f"{len(others)} stopped with other parameters, data, code or version, such as "
            f"{others[0]}, so this one starts from the first epoch. Fit with the same ones to go "
            "on, or delete the folders."
        )
