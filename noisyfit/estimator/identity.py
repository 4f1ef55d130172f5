"""The identity of a run: the values and the code that define it, not how they are stored."""

from __future__ import annotations

import hashlib
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import joblib
import numpy as np
import torch
from scipy.sparse import issparse
from torch import Tensor, nn
from torch.utils.data import Dataset

SCALAR = (bool, int, float, complex, str, bytes, type(None))
SLICE = 4096  # rows of a memmap hashed at once
STANDARD_LIBRARY = sysconfig.get_paths()["stdlib"]


def fingerprint(*parts: Any) -> str:
    """Hash what defines a run; equal only if every value, array entry and class is equal.

    Neither the container of the values nor the memory order of an array counts. The user's own
    classes and functions are hashed by their code, not only by name.

    Raises
    ------
    ValueError
        If a part cannot be pickled by reference or value, such as a lambda.
    """
    try:
        return str(joblib.hash([_contents(part) for part in parts], hash_name="sha1"))
    except Exception as error:
        raise ValueError(
            "checkpoint_dir, or memory, needs parameters that can be pickled, to recognise the run "
            f"again. Got {error}. Define classes and functions at the top of a module."
        ) from error


def fold(parts: Iterable[Any]) -> str:
    """Hash parts one by one, since together they may not fit into memory."""
    digest = hashlib.sha1()
    for part in parts:
        digest.update(fingerprint(part).encode())
    return digest.hexdigest()


def code_of(thing: Any) -> list[Any]:
    """Return the code of a user's class or function, and of all of theirs that it refers to.

    Empty for those of libraries, whose versions identify them.
    """
    walk = _Walk()
    walk.visit(thing)
    return walk.found


def architecture(network: nn.Module) -> tuple[Any, ...]:
    """Return the layers and the code of a network, regardless of its weights."""
    kinds = {type(module) for module in network.modules()}
    codes = [code_of(kind) for kind in sorted(kinds, key=lambda kind: kind.__qualname__)]
    shapes = {name: list(value.shape) for name, value in network.state_dict().items()}
    return repr(network), shapes, codes


def _contents(part: Any, inside: tuple[int, ...] = ()) -> Any:
    """Return values that hash the same in every process: no addresses, no fitted state."""
    if isinstance(part, SCALAR) and not isinstance(part, np.generic):
        return part
    if id(part) in inside:
        return "cycle", len(inside) - inside.index(id(part))
    again = partial(_contents, inside=(*inside, id(part)))
    if issparse(part):  # before dicts: one format is a dict
        return _sparse(part)
    if isinstance(part, dict):
        return {name: again(value) for name, value in part.items()}
    if isinstance(part, list | tuple):
        return [again(value) for value in part]
    if isinstance(part, type | FunctionType):
        code = code_of(part)
        return (part, code) if code else part
    if _is_array(part):
        return _array(part)
    state = _state(part)
    return part if state is None else (again(type(part)), again(state))


def _is_array(part: Any) -> bool:
    return isinstance(part, np.ndarray | np.generic | Tensor) or hasattr(part, "to_numpy")


def _array(part: Any) -> Any:
    """Return an array, tensor, frame or series as an array in C order."""
    if isinstance(part, Tensor):
        part = part.detach().cpu()
        if part.dtype == torch.bfloat16:  # unknown to numpy
            return "bfloat16", part.float().numpy()
        part = part.numpy()
    if hasattr(part, "to_numpy"):
        return list(map(str, getattr(part, "columns", ()))), _array(part.to_numpy())
    if isinstance(part, np.generic) or part.dtype == object:
        return _contents(part.tolist())
    if isinstance(part, np.memmap) and not part.flags.c_contiguous:  # joblib would copy it whole
        slices = (part[start : start + SLICE] for start in range(0, len(part), SLICE))
        return part.shape, fold(np.array(rows) for rows in slices)
    return np.asarray(part, order="C")


def _sparse(part: Any) -> Any:
    """Return a sparse matrix by its entries other than zero, in order, whatever its format."""
    rows = part.tocsr(copy=True)
    rows.sum_duplicates()
    rows.eliminate_zeros()
    places = (rows.indptr.astype(np.int64), rows.indices.astype(np.int64))
    return "sparse", part.shape, *places, rows.data


def _state(part: Any) -> Any:
    """Return the contents of an object; None where only pickle knows them."""
    if isinstance(part, nn.Module):
        return architecture(part), dict(part.state_dict())
    if isinstance(part, partial):
        return part.func, part.args, part.keywords
    if isinstance(part, MethodType):
        return part.__func__, part.__self__
    if hasattr(part, "on_train_begin"):  # a callback
        return {k: v for k, v in vars(part).items() if not k.endswith("_")}
    if isinstance(part, Dataset) and hasattr(part, "__len__"):  # its rows may not fit into memory
        return fold(part[i] for i in range(len(part)))
    kind: Any = type(part)
    is_plain = kind.__reduce__ is object.__reduce__ and kind.__reduce_ex__ is object.__reduce_ex__
    return part.__getstate__() if is_plain else None


class _Walk:
    """Collects the bytecode of the user's classes and functions, once each, in order of use."""

    def __init__(self) -> None:
        self.found: list[Any] = []
        self._seen: set[int] = set()

    def visit(self, thing: Any) -> None:
        """Visit a class or a function; skip libraries and everything else."""
        thing = _function_of(thing)
        if id(thing) in self._seen or not _is_own(thing):
            return
        self._seen.add(id(thing))
        if isinstance(thing, type):
            for base in thing.__mro__:
                self.visit(base)
            for name, member in vars(thing).items():
                self._visit_member(thing, name, member)
        elif isinstance(thing, FunctionType):
            self._visit_function(thing)

    def _visit_member(self, owner: type, name: str, member: Any) -> None:
        if isinstance(_function_of(member), FunctionType):
            self.found.append(name)
            self.visit(member)
        elif issubclass(owner, nn.Module) and not name.startswith("__"):
            self._refer(name, member)

    def _visit_function(self, function: FunctionType) -> None:
        names: list[str] = []
        self.found.append(_described(function.__code__, function.__doc__, names))
        for name in names:
            self._refer(name, function.__globals__.get(name), names)
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        held = {name: _held(cell) for name, cell in cells} | (function.__kwdefaults__ or {})
        held |= {str(i): value for i, value in enumerate(function.__defaults__ or ())}
        for name, value in held.items():
            self._refer(name, value)

    def _refer(self, name: str, value: Any, used: Sequence[str] = ()) -> None:
        if isinstance(value, ModuleType) and _is_own(value):
            for attribute in used:
                self._refer(attribute, getattr(value, attribute, None))
        elif _is_constant(value) and value is not None:
            self.found.append((name, repr(value)))
        else:
            self.visit(value)


def _is_constant(value: Any) -> bool:
    return isinstance(value, SCALAR) or (
        isinstance(value, tuple) and all(isinstance(entry, SCALAR) for entry in value)
    )


def _described(code: CodeType, documentation: str | None, names: list[str]) -> Any:
    """Return instructions and constants, and append the names that they refer to."""
    names += code.co_names
    constants = [
        _described(constant, None, names)
        if isinstance(constant, CodeType)
        else sorted(map(repr, constant))  # a set has no order of its own
        if isinstance(constant, frozenset)
        else repr(constant)
        for constant in code.co_consts
        if constant is None or constant != documentation
    ]
    return code.co_code, code.co_names, constants


def _function_of(thing: Any) -> Any:
    """Return the function inside a method, a property or a wrapper."""
    if isinstance(thing, type | FunctionType):
        return thing
    for name in ("__func__", "fget", "func", "__wrapped__"):
        inner = getattr(thing, name, None)
        if isinstance(inner, FunctionType):
            return inner
    return thing


def _held(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _is_own(thing: Any) -> bool:
    """Whether a module, class or function is the user's, not an installed library's."""
    is_module = isinstance(thing, ModuleType)
    name = str(thing.__name__ if is_module else getattr(thing, "__module__", ""))
    if name in sys.builtin_module_names or name.split(".")[0] == "noisyfit":
        return False
    file = Path(getattr(sys.modules.get(name), "__file__", None) or "")
    is_standard = file.is_relative_to(STANDARD_LIBRARY)
    return not is_standard and not {"site-packages", "dist-packages"} & set(file.parts)
