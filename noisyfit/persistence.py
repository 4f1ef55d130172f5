"""One file for a fitted model: arrays, numbers and weights, never code."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from noisyfit.exceptions import NoisyFitError, NoisyFitWarning
from noisyfit.fitted import fitted_names
from noisyfit.packing import Packer, Unpacker

FORMAT = 3
MEMBERS = ("meta.json", "arrays.npz", "networks.pt")
LOCAL = ("checkpoint_dir", "device")  # parameters that belong to one machine
PRETRAINED = {"weights": None, "pretrained": False}  # no download: the stored weights replace them
DOWNLOADING = ("torchvision.", "timm.")  # where factories take these
PRIVATE = ("_n_features_out", "_sklearn_output_config")  # what scikit-learn keeps of a fit
NEEDED = (  # by every prediction
    "classes_", "feature_mean_", "feature_scale_", "input_shape_", "layout_", "n_classes_",
    "row_shape_", "value_range_",
)  # fmt: skip
REMADE = (  # by load, from the rest
    "callbacks_", "cuda_dependent_attributes_", "device_", "history_", "init_context_",
    "initialized_", "prefixes_",
)  # fmt: skip


def save(estimator: Any, path: str | os.PathLike[str]) -> None:
    """Write ``estimator`` to ``path``, whole or not at all; through a link to the file behind it.

    Raises
    ------
    FileNotFoundError
        If there is no folder to write into.
    ValueError
        If there is something at ``path`` that is not a file.
    NoisyFitError
        If a fitted attribute has a value that a file cannot hold.
    """
    target = _target(path)
    packer = Packer()
    params, left_out = _pack_params(estimator, packer)
    meta = {
        "format": FORMAT,
        "class": [type(estimator).__module__, type(estimator).__qualname__],
        "params": params,
        "left_out": left_out,
        "fitted": _pack_fitted(estimator, packer),
        "history": _pack_or_refuse(list(estimator.history_), "history_", packer),
    }
    names = (*estimator._networks, *estimator._copies)
    networks = {name: getattr(estimator, f"{name}_").state_dict() for name in names}
    weights = networks | ({"tensors": packer.tensors} if packer.tensors else {})
    members = {
        "meta.json": json.dumps(meta).encode(),
        "arrays.npz": _as_bytes(lambda f: np.savez(f, **packer.arrays)),
        "networks.pt": _as_bytes(lambda f: torch.save(weights, f)),
    }
    for message in _losses(estimator, left_out):
        warnings.warn(message, NoisyFitWarning, stacklevel=3)
    _write(members, target)


def load(
    cls: Any, path: str | os.PathLike[str], *, module: Any, device: Any, params: dict[str, Any]
) -> Any:
    """Read an estimator of class ``cls``, or of a subclass within this package."""
    meta, arrays, weights = _read(path)
    try:
        home, qualname = map(str, meta["class"])
        left_out = dict(meta["left_out"])
        stored, fitted, history = _unpacked(meta, arrays, weights.pop("tensors", {}))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, "meta.json") from error
    kind = _class_of(cls, home, qualname)
    _check_params(kind, stored, left_out)
    _check_fitted(kind, fitted)
    if not fitted.keys() >= {*NEEDED}:
        raise _damaged(path, "meta.json")
    given = params if module is None else params | {"module": module}
    complete = stored | given | {"device": device}
    estimator = kind(**complete)
    _ask_for(estimator, {name: what for name, what in left_out.items() if name not in given})
    estimator._check_parameters()
    for name, value in fitted.items():
        setattr(estimator, name, value)
    if not weights.keys() >= {*estimator._networks, *estimator._copies}:
        raise _damaged(path, "networks.pt")
    estimator.set_params(**_without_downloads(complete))
    estimator._rebuild(weights, history)
    return estimator.set_params(**complete)


def _unpacked(
    meta: dict[str, Any], arrays: dict[str, Any], tensors: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Return parameters, fitted attributes and history."""
    unpack = Unpacker(arrays, tensors).unpack
    params, fitted = (
        {name: unpack(value) for name, value in meta[part].items()} for part in ("params", "fitted")
    )
    return params, fitted, unpack(meta["history"])


# What goes into a file.


def _pack_params(estimator: Any, packer: Packer) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the parameters that a file holds, and what the others are."""
    packed, left_out = {}, {}
    for name, value in estimator.get_params(deep=False).items():
        try:
            if name not in LOCAL:
                packed[name] = packer.pack(value, name)
            elif name == "checkpoint_dir" and value is not None:
                left_out[name] = str(value)
        except TypeError as error:
            left_out[name] = str(error)
    return packed, left_out


def _pack_fitted(estimator: Any, packer: Packer) -> dict[str, Any]:
    """Return the fitted attributes but networks and optimizers."""
    kind: Any = type(estimator)
    known = fitted_names(kind)
    values = {
        name: value
        for name, value in vars(estimator).items()
        if (name in known and name not in REMADE) or name in PRIVATE
    }
    return {
        name: _pack_or_refuse(value, name, packer)
        for name, value in values.items()
        if not _is_torch(value)
    }


def _losses(estimator: Any, left_out: Iterable[str]) -> Iterator[str]:
    """Say what a file will not hold and `load` will not ask for."""
    optional = [name for name in left_out if not _is_demanded(estimator, name)]
    if optional:
        yield (
            f"Files hold no code and nothing of one machine: {', '.join(optional)} will be left "
            f"out. {_pass_to_load(optional)}"
        )
    kind: Any = type(estimator)
    known = {*fitted_names(kind), *REMADE}
    foreign = [
        name
        for name, value in vars(estimator).items()
        if re.fullmatch(r"[a-zA-Z]\w*_", name) and name not in known and not _is_torch(value)
    ]
    if foreign:
        yield (
            f"Files hold the attributes that the methods of {kind.__name__} write: "
            f"{', '.join(foreign)} will be left out. Write them in a subclass."
        )


def _is_torch(value: Any) -> bool:
    return isinstance(value, nn.Module | torch.optim.Optimizer)


def _pack_or_refuse(value: Any, name: str, packer: Packer) -> Any:
    try:
        return packer.pack(value, name)
    except TypeError as error:
        raise NoisyFitError(
            f"Files hold numbers, text, dates, arrays and tensors. Got {error} in {name}. Take it "
            "out, or write its parts as numbers or text, before save."
        ) from error


def _pass_to_load(names: Iterable[str]) -> str:
    return f"Pass what you need: load(path, {', '.join(f'{name}=...' for name in names)})."


# What a file may say.


def _class_of(cls: Any, home: str, name: str) -> Any:
    """Return the class of this package that a file names, or ``cls`` if it is a user's own."""
    found = cls if not _in_package(cls.__module__) else None
    if _in_package(home):
        try:
            found = getattr(import_module(home), name, None)
        except ModuleNotFoundError:
            found = None
    if not isinstance(found, type) or found.__qualname__ != name or not issubclass(found, cls):
        raise NoisyFitError(
            f"The file must hold a {cls.__name__}. Got a {home}.{name}. Call load of that class."
        )
    return found


def _in_package(module: str) -> bool:
    return module.partition(".")[0] == __name__.partition(".")[0]


def _check_params(kind: Any, stored: Iterable[str], left_out: Iterable[str]) -> None:
    known = kind._signature_names()
    for names, refused in (stored, LOCAL), (left_out, ()):
        for name in names:
            if name in refused or not (name in known or re.fullmatch(r"[a-z]\w*__\w+", name)):
                raise _foreign(f"parameters of {kind.__name__}", name)


def _check_fitted(kind: Any, names: Iterable[str]) -> None:
    known = {*fitted_names(kind), *PRIVATE} - {*REMADE}
    for name in names:
        if name not in known:
            raise _foreign(f"fitted attributes of {kind.__name__}", name)


def _foreign(expected: str, found: str) -> NoisyFitError:
    return NoisyFitError(
        f"The file must hold {expected}. Got {found!r}, which save does not write. Do not use it."
    )


def _ask_for(estimator: Any, missing: dict[str, str]) -> None:
    """Refuse to go on without what the networks are made of; warn of the rest."""
    for name in missing:
        if _is_demanded(estimator, name):
            raise NoisyFitError(
                f"The model was fitted with its own {'network' if name == 'module' else name} "
                f"{missing[name]}, and files hold no code. "
                f"Pass it: load(path, {name}=...)."
            )
    if missing:
        warnings.warn(
            f"The model was fitted with {', '.join(missing)}, which the file does not hold: the "
            f"defaults stand in their place. {_pass_to_load(missing)}",
            NoisyFitWarning,
            stacklevel=4,
        )


def _is_demanded(estimator: Any, name: str) -> bool:
    """Whether the networks are made of a parameter."""
    prefix, _, parameter = name.partition("__")
    return prefix in ("module", *estimator._networks) and parameter not in PRETRAINED


def _without_downloads(params: dict[str, Any]) -> dict[str, Any]:
    """Return what keeps the networks from fetching pretrained weights."""
    module = params.get("module")
    if not isinstance(module, str | None) and not module.__module__.startswith(DOWNLOADING):
        return {}
    names = [name for name in params if name.partition("__")[2] in PRETRAINED]
    return {name: PRETRAINED[name.partition("__")[2]] for name in names}


# Reading and writing.


def _target(path: str | os.PathLike[str]) -> Path:
    """Return the file to write, which exists or can be made."""
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


def _write(members: dict[str, bytes], target: Path) -> None:
    temporary = Path(f"{target}.{os.getpid()}.tmp")
    try:
        with zipfile.ZipFile(temporary, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        os.replace(temporary, target)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(target)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Any, dict[str, Any]]:
    """Return the description, the arrays and the weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            meta, arrays, weights = (archive.read(name) for name in MEMBERS)
    except (zipfile.BadZipFile, KeyError) as error:
        raise NoisyFitError(
            f"load must get a file that save has written. Got {_content_of(path)}: {path}. "
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
    path: str | os.PathLike[str], member: str, decode: Callable[[bytes], Any], content: bytes
) -> dict[str, Any]:
    try:
        return dict(decode(content))
    except (
        EOFError, RuntimeError, TypeError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile
    ) as error:  # fmt: skip
        raise _damaged(path, member) from error


def _arrays(content: bytes) -> dict[str, Any]:
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _weights(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), "cpu", weights_only=True)


def _check_format(found: Any, path: str | os.PathLike[str]) -> None:
    if found != FORMAT:
        raise NoisyFitError(
            f"The file must be of format {FORMAT}. Got format {found} in {path}. "
            "Load it with the version of noisyfit that wrote it."
        )


def _content_of(path: str | os.PathLike[str]) -> str:
    """Say what a file is that `save` has not written."""
    with open(path, "rb") as file:
        start = file.read(4)
    if not start:
        return "an empty file"
    if start[:1] == b"\x80":
        return "a pickle, which joblib.load or pickle.load may read if you trust it"
    if start[:2] == b"PK":
        return "another archive, or one that is damaged"
    return "something else"


def _damaged(path: str | os.PathLike[str], member: str) -> ValueError:
    return ValueError(
        f"load must get a file as save has written it. Got one whose {member} is damaged or was "
        f"put in by others: {path}. Save the model again."
    )


def _as_bytes(write: Any) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()
