"""The file of a model: a description, arrays and weights in one archive, written atomically."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from noisyfit.exceptions import NoisyFitError
from noisyfit.utils.files import whole_file

FORMAT = 2
MEMBERS = ("meta.json", "arrays.npz", "networks.pt")


def as_members(
    description: dict[str, Any], arrays: dict[str, Any], weights: dict[str, Any]
) -> dict[str, bytes]:
    """Return the members of the archive by name."""
    return {
        "meta.json": json.dumps({"format": FORMAT} | description).encode(),
        "arrays.npz": _as_bytes(lambda f: np.savez(f, **arrays)),
        "networks.pt": _as_bytes(lambda f: torch.save(weights, f)),
    }


def as_bytes(members: dict[str, bytes]) -> bytes:
    """Return the archive."""
    return _as_bytes(lambda f: _archive(members, f))


def target_of(path: str | os.PathLike[str]) -> Path:
    """Return the file behind a path, which exists or can be created."""
    target = Path(os.path.realpath(os.fsdecode(path)))
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"save must write into a folder that exists. Got {os.fsdecode(path)}, and there is no "
            f"folder {target.parent}. Make it first."
        )
    if target.exists() and not target.is_file():
        raise ValueError(
            f"save must write a file. Got {os.fsdecode(path)}, which is "
            f"{'a folder' if target.is_dir() else 'a device, a pipe or a socket'}. Name a file."
        )
    return target


def write(members: dict[str, bytes], target: Path) -> None:
    """Write the archive, all of it or nothing."""
    try:
        with whole_file(target, Path(f"{target}.{os.getpid()}.tmp")) as file:
            _archive(members, file)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(target)) from error


def _archive(members: dict[str, bytes], file: Any) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def read(file: BinaryIO, path: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the description, the arrays and the weights; ``path`` is for messages."""
    try:
        with zipfile.ZipFile(file) as archive:
            meta, arrays, weights = (archive.read(name) for name in MEMBERS)
    except (zipfile.BadZipFile, KeyError) as error:
        raise NoisyFitError(
            f"load must get a file that save has written. Got {_content_of(file)}: {path}. "
            "Pass the path that was given to save."
        ) from error
    description = _decoded(path, "meta.json", json.loads, meta)
    _check_format(description.get("format"), path)
    return (
        description,
        _decoded(path, "arrays.npz", _arrays, arrays),
        _decoded(path, "networks.pt", _weights, weights),
    )


def _decoded(
    path: str, member: str, decode: Callable[[bytes], Any], content: bytes
) -> dict[str, Any]:
    try:
        return dict(decode(content))
    except (
        EOFError, RuntimeError, TypeError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile
    ) as error:  # fmt: skip
        raise damaged(path, member) from error


def _arrays(content: bytes) -> dict[str, Any]:
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _weights(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), "cpu", weights_only=True)


def _check_format(found: Any, path: str) -> None:
    if found != FORMAT:
        raise NoisyFitError(
            f"The file must be of format {FORMAT}. Got format {found} in {path}. "
            "Load it with the version of noisyfit that wrote it."
        )


def _content_of(file: BinaryIO) -> str:
    """Describe a file that `save` did not write."""
    file.seek(0)
    start = file.read(4)
    if not start:
        return "an empty file"
    if start[:1] == b"\x80":
        return "a pickle, which joblib.load or pickle.load may read if you trust it"
    if start[:2] == b"PK":
        return "another archive, or one that is damaged"
    return "something else"


def damaged(path: str, member: str) -> ValueError:
    """Return the error for a file with content that `save` does not write."""
    return ValueError(
        f"load must get a file as save has written it. Got one whose {member} is damaged or was "
        f"put in by others: {path}. Save the model again."
    )


def _as_bytes(write: Any) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()
