"""One file for a fitted model: arrays, numbers and weights, never code."""

from __future__ import annotations

import io
import json
import os
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from noisyfit.exceptions import NoisyFitError
from noisyfit.validation import is_null

FORMAT = 1


def save(estimator: Any, path: str | os.PathLike[str]) -> None:
    """Write ``estimator`` to ``path``, whole or not at all."""
    arrays: dict[str, Any] = {}
    fitted = {
        name: _pack(value, name, arrays)
        for name, value in vars(estimator).items()
        if _is_fitted_value(name, value)
    }
    meta = {
        "format": FORMAT,
        "class": [type(estimator).__module__, type(estimator).__qualname__],
        "params": _pack_params(estimator.get_params(deep=False)),
        "fitted": fitted,
        "history": list(estimator.history_),
    }
    names = (*estimator._networks, *estimator._copies)
    networks = {name: getattr(estimator, f"{name}_").state_dict() for name in names}
    temporary = Path(f"{os.fspath(path)}.{os.getpid()}.tmp")
    try:
        with zipfile.ZipFile(temporary, "w") as archive:
            archive.writestr("meta.json", json.dumps(meta, default=lambda value: value.item()))
            archive.writestr("arrays.npz", _as_bytes(lambda f: np.savez(f, **arrays)))
            archive.writestr("networks.pt", _as_bytes(lambda f: torch.save(networks, f)))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load(cls: Any, path: str | os.PathLike[str], *, module: Any, device: Any) -> Any:
    """Read an estimator of class ``cls``, or of a subclass within this package."""
    with zipfile.ZipFile(path) as archive:
        meta = json.loads(archive.read("meta.json"))
        arrays = np.load(io.BytesIO(archive.read("arrays.npz")), allow_pickle=False)
        networks = torch.load(io.BytesIO(archive.read("networks.pt")), "cpu", weights_only=True)
    if meta["format"] != FORMAT:
        raise NoisyFitError(
            f"The file must be of format {FORMAT}. Got format {meta['format']} in {path}. "
            "Load it with the version of noisyfit that wrote it."
        )
    estimator = _class_of(cls, meta["class"])(**_unpack_params(meta["params"], module))
    estimator.device = device
    for name, value in meta["fitted"].items():
        setattr(estimator, name, _unpack(value, arrays))
    estimator._rebuild(networks, meta["history"])
    return estimator


def _class_of(cls: Any, stored: list[str]) -> Any:
    home, name = stored
    found = getattr(import_module(home), name) if home.startswith("noisyfit.") else cls
    if not isinstance(found, type) or found.__qualname__ != name or not issubclass(found, cls):
        raise NoisyFitError(
            f"The file must hold a {cls.__name__}. Got a {home}.{name}. Call load of that class."
        )
    return found


def _is_fitted_value(name: str, value: Any) -> bool:
    plain = (bool, int, float, str, list, tuple, np.ndarray, np.generic, type(None))
    skipped = ("history_", "callbacks_", "prefixes_", "cuda_dependent_attributes_", "init_context_")
    is_fitted = (name.endswith("_") and not name.startswith("_")) or name == "_n_features_out"
    return is_fitted and name not in skipped and isinstance(value, plain)


def _pack(value: Any, name: str, arrays: dict[str, Any]) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, tuple):
        return {"tuple": list(value)}
    if not isinstance(value, np.ndarray):
        return {"value": value}
    if value.dtype == object:
        plain = (str, int, float, bool, tuple, type(None))  # others come back as text
        return {"objects": [v if isinstance(v, plain) else str(v) for v in value.tolist()]}
    arrays[name] = value
    return {"array": name}


def _unpack(packed: dict[str, Any], arrays: Any) -> Any:
    kind, value = next(iter(packed.items()))
    if kind == "array":
        return arrays[value]
    if kind == "objects":
        entries = [tuple(entry) if isinstance(entry, list) else entry for entry in value]
        return np.fromiter(entries, dtype=object, count=len(entries))
    return tuple(value) if kind == "tuple" else value


def _pack_params(params: dict[str, Any]) -> dict[str, Any]:
    """Keep what JSON can hold; optimizers of torch by name, callbacks not at all."""
    packed = {}
    for name, value in params.items():
        if name == "module" and not isinstance(value, str | None):
            packed[name] = {"needed": getattr(value, "__name__", type(value).__name__)}
        elif isinstance(value, type) and value.__module__.startswith("torch.optim"):
            packed[name] = {"torch.optim": value.__name__}
        elif value is not None and is_null(value):  # a missing_label such as pandas' NA
            packed[name] = {"value": float("nan")}
        elif isinstance(value, bool | int | float | str | list | tuple | None):
            packed[name] = {"value": value}
        elif isinstance(value, np.generic):
            packed[name] = {"value": value.item()}
    packed["callbacks"] = {"value": None}
    return packed


def _unpack_params(packed: dict[str, Any], module: Any) -> dict[str, Any]:
    params = {}
    for name, entry in packed.items():
        kind, value = next(iter(entry.items()))
        params[name] = getattr(torch.optim, value) if kind == "torch.optim" else value
    if "needed" in packed["module"]:
        if module is None:
            raise NoisyFitError(
                "The model was fitted with its own network "
                f"{packed['module']['needed']}, and files hold no code. "
                "Pass it: load(path, module=...)."
            )
        params["module"] = module
    return params


def _as_bytes(write: Any) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()
