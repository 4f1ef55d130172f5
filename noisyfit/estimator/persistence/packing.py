"""Values as JSON, and back as they were: numbers, text, dates and arrays, never code."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import torch
from torch import Tensor, nn

PLAIN = (type(None), bool, int, float, str)
COLLECTIONS: dict[str, Callable[[Iterable[Any]], Any]] = {
    "list": list, "tuple": tuple, "set": set, "frozenset": frozenset
}  # fmt: skip
PANDAS = ("Timestamp", "Timedelta", "Period", "Interval", "NaT", "NA")
LIBRARIES: dict[str, Any] = {"torch.optim": torch.optim, "torch.nn": nn}


class Kind(NamedTuple):
    """How values of one type are written as arguments, and recreated from them."""

    type: type[Any]
    arguments: Callable[[Any], Iterable[Any]]
    make: Callable[..., Any]


class Packer:
    """Turns values into JSON, and sets arrays and tensors aside."""

    def __init__(self) -> None:
        self.arrays: dict[str, Any] = {}
        self.tensors: dict[str, Tensor | OrderedDict[str, Tensor]] = {}
        kinds = _kinds() | (_pandas_kinds() if "pandas" in sys.modules else {})
        self._kinds = {kind.type: (tag, kind) for tag, kind in kinds.items()}

    def pack(self, value: Any, name: str) -> Any:
        """Return JSON for a value; arrays in it are set aside under ``name``.

        Raises
        ------
        TypeError
            If the value, or something in it, is of a type that files cannot hold.
        """
        kind = type(value)
        if kind in PLAIN:
            return value
        if kind in COLLECTIONS.values():
            return {kind.__name__: self._packed(value, name)}
        if kind is dict:
            return {"dict": [self._packed(entry, name) for entry in value.items()]}
        if kind in self._kinds:
            tag, known = self._kinds[kind]
            return {tag: self._packed(known.arguments(value), name)}
        if isinstance(value, np.ndarray | np.generic):
            return self._pack_numpy(value, name)
        if kind is Tensor:
            key = f"{name}.{len(self.tensors)}"
            self.tensors[key] = value.detach().cpu().clone()
            return {"tensor": key}
        if kind is OrderedDict and all(type(entry) is Tensor for entry in value.values()):
            key = f"{name}.{len(self.tensors)}"
            self.tensors[key] = value
            return {"weights": key}
        if isinstance(value, type):
            return _pack_class(value)
        raise _not_kept(value)

    def _packed(self, values: Iterable[Any], name: str) -> list[Any]:
        return [self.pack(value, name) for value in values]

    def _pack_numpy(self, value: Any, name: str) -> Any:
        if isinstance(value, np.ma.MaskedArray):
            raise _not_kept(value)
        if value.dtype == object:
            return {"objects": [list(value.shape), self._packed(value.ravel().tolist(), name)]}
        if value.dtype.hasobject or value.dtype.kind == "T":
            raise _not_kept(value)
        if isinstance(value, np.generic) and value.dtype.kind in "biufcmM":  # an index has many
            return {"scalar": [value.dtype.str, value.tobytes().hex()]}
        key = name if name not in self.arrays else f"{name}.{len(self.arrays)}"
        self.arrays[key] = np.asarray(value)
        return {"array" if isinstance(value, np.ndarray) else "entry": key}


class Unpacker:
    """Turns what `Packer` wrote back into values.

    Parameters
    ----------
    arrays, tensors : mappings
        What was set aside.
    """

    def __init__(self, arrays: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
        self.arrays, self.tensors = arrays, tensors

    def unpack(self, packed: Any) -> Any:
        """Return the value.

        Raises
        ------
        KeyError, TypeError, ValueError
            If `Packer` cannot have written it.
        """
        if isinstance(packed, PLAIN):
            return packed
        ((tag, content),) = packed.items()
        if tag in COLLECTIONS:
            return COLLECTIONS[tag](map(self.unpack, content))
        if tag == "dict":
            return {self.unpack(key): self.unpack(value) for key, value in content}
        if tag in LIBRARIES:
            return _class_in(tag, content)
        if tag in ("tensor", "weights"):
            return self.tensors[content]
        kinds = _pandas_kinds() if tag in PANDAS else _kinds()
        if tag in kinds:
            return kinds[tag].make(*map(self.unpack, content))
        return self._unpack_numpy(tag, content)

    def _unpack_numpy(self, tag: str, content: Any) -> Any:
        if tag == "array":
            return self.arrays[content]
        if tag == "entry":
            return self.arrays[content][()]
        if tag == "scalar":
            return np.frombuffer(bytes.fromhex(content[1]), np.dtype(content[0]))[0]
        shape, values = {"objects": content}[tag]
        entries = np.empty(len(values), dtype=object)
        for i, value in enumerate(values):
            entries[i] = self.unpack(value)
        return entries.reshape(shape)


@cache
def _kinds() -> dict[str, Kind]:
    """Return by name the types that are written as the arguments of a function."""
    kinds = {
        "bytes": Kind(bytes, lambda v: [v.hex()], bytes.fromhex),
        "complex": Kind(complex, lambda v: [v.real, v.imag], complex),
        "UUID": Kind(UUID, lambda v: [str(v)], UUID),
        "Path": Kind(type(Path()), lambda v: [str(v)], Path),
        "ZoneInfo": Kind(ZoneInfo, lambda v: [v.key], ZoneInfo),
        "RandomState": Kind(np.random.RandomState, lambda v: [v.get_state()], _random_state),
        "device": Kind(torch.device, lambda v: [str(v)], torch.device),
        "dtype": Kind(torch.dtype, lambda v: [torch.empty(0, dtype=v)], lambda v: v.dtype),
    }
    for standard in (date, time, datetime, timedelta, timezone, Decimal, Fraction):
        kinds[standard.__name__] = Kind(standard, lambda v: v.__reduce_ex__(4)[1], standard)
    return kinds


@cache
def _pandas_kinds() -> dict[str, Kind]:
    import pandas as pd

    return {
        "Timestamp": Kind(pd.Timestamp, lambda v: [v.asm8, v.tz], _timestamp),
        "Timedelta": Kind(pd.Timedelta, lambda v: [v.asm8], pd.Timedelta),
        "Period": Kind(
            pd.Period,
            lambda v: [v.ordinal, v.freqstr],
            lambda ordinal, freq: pd.Period(ordinal=ordinal, freq=freq),
        ),
        "Interval": Kind(pd.Interval, lambda v: [v.left, v.right, v.closed], pd.Interval),
        "NaT": Kind(type(pd.NaT), lambda _: [], lambda: pd.NaT),
        "NA": Kind(type(pd.NA), lambda _: [], lambda: pd.NA),
    }


def _timestamp(utc: np.datetime64, zone: Any) -> Any:
    import pandas as pd

    stamp = pd.Timestamp(utc)
    return stamp if zone is None else stamp.tz_localize("UTC").tz_convert(zone)


def _random_state(state: Any) -> np.random.RandomState:
    generator = np.random.RandomState()
    generator.set_state(state)
    return generator


def _pack_class(value: type[Any]) -> dict[str, str]:
    """Name a PyTorch class; others are code, which files do not hold."""
    for library, content in LIBRARIES.items():
        if getattr(content, value.__name__, None) is value:
            return {library: value.__name__}
    raise _not_kept(value)


def _class_in(library: str, name: str) -> Any:
    found = getattr(LIBRARIES[library], name)
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer | nn.Module)):
        raise ValueError(f"{library}.{name} is no network and no optimizer")
    return found


def _not_kept(value: Any) -> TypeError:
    return TypeError(getattr(value, "__name__", type(value).__name__))
