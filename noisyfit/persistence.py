"""Fitted models as files: arrays, numbers and weights, never code."""

from __future__ import annotations

import inspect
import io
import os
import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from importlib import import_module
from types import BuiltinFunctionType, FunctionType
from typing import Any, BinaryIO, ClassVar, Self

from torch import nn, optim

from noisyfit import model_file
from noisyfit.devices import resolve_device
from noisyfit.exceptions import NoisyFitError, NoisyFitWarning
from noisyfit.fitted import fitted_names
from noisyfit.nn.embedders import ContrastiveEmbedder, StandardizedFeatures
from noisyfit.nn.generators import ConditionalDiffusion, PrecomputedModifier
from noisyfit.packing import Packer, Unpacker
from noisyfit.torch_state import torch_defaults

PARTS = (ConditionalDiffusion, ContrastiveEmbedder, PrecomputedModifier, StandardizedFeatures)
LOCAL = ("checkpoint_dir", "device", "memory")  # parameters that belong to one machine
PRETRAINED = {"weights": None, "pretrained": False}  # no download: the stored weights replace them
DOWNLOADING = ("torchvision.", "timm.")  # where factories take these
PRIVATE = ("_n_features_out", "_sklearn_output_config")  # what scikit-learn keeps of a fit
REMADE = (  # by load, from the rest
    "callbacks_", "cuda_dependent_attributes_", "device_", "history_", "init_context_",
    "initialized_", "prefixes_",
)  # fmt: skip
CODE = (type, FunctionType, BuiltinFunctionType)


class Savable:
    """An estimator that a file can hold, alone or as a part of another one.

    A subclass names the fitted attributes without which it cannot be used, and those that are made
    of a parameter: models, generators and encoders. What of these is no class of this package is
    code: ``load`` is told the parameter, and the file what it has learned.
    """

    _needed: ClassVar[tuple[str, ...]] = ()
    _made_of: ClassVar[Mapping[str, str]] = {}  # parameters by fitted attribute
    _networks: ClassVar[tuple[str, ...]] = ()
    _copies: ClassVar[tuple[str, ...]] = ()
    _module_parameter: ClassVar[str] = "module"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything that prediction and the fitted attributes need to one file.

        The file holds arrays, numbers and weights, no code: see `load`. Parameters that it cannot
        hold, such as callbacks and functions, are named in a warning.

        Parameters
        ----------
        path : path
            A file there is replaced, behind a symbolic link as well; nothing else is.
        """
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        save(self, path)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        module: Any = None,
        device: Any = "auto",
        **params: Any,
    ) -> Self:
        """Read what `save` wrote.

        Parameters
        ----------
        path : path
        module : module class, factory or instance
            Needed when the model was fitted with one's own network: code is never stored.
        device : str or torch.device, default="auto"
        **params
            Parameters in place of those in the file: what `save` left out, such as ``callbacks``.
        """
        given = params if module is None else params | {cls._module_parameter: module}
        return load(cls, path, device=device, params=given)

    @classmethod
    def _signature_names(cls) -> set[str]:
        return set(_parameters(cls))

    def _check_parameters(self) -> None:
        """Refuse what no fit accepts."""

    def _state_of(self, attribute: str) -> Any:
        """Return what a part of the user's own has learned."""
        raise NoisyFitError(
            f"Files hold classifiers of noisyfit and no code. Got a "
            f"{type(getattr(self, attribute)).__name__} in {attribute}, which only pickle can "
            "keep. Write the whole model with joblib or skops, or pass a classifier of noisyfit "
            f"as {self._made_of[attribute]}."
        )

    def _rebuild(self, states: dict[str, Any], history: list[dict[str, Any]]) -> None:
        """Make the networks again from their stored weights."""


def save(estimator: Savable, path: str | os.PathLike[str]) -> None:
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
    target = model_file.target_of(path)
    packer = ModelPacker()
    members = packer.members(estimator)
    for message in packer.losses():
        warnings.warn(message, NoisyFitWarning, stacklevel=3)
    model_file.write(members, target)


def load(cls: Any, path: str | os.PathLike[str], *, device: Any, params: Mapping[str, Any]) -> Any:
    """Read an estimator of class ``cls``, or of a subclass within this package."""
    with open(path, "rb") as file:
        unpacker, estimator = _loaded(cls, file, os.fsdecode(path), device, params)
    if unpacker.missing:
        warnings.warn(
            f"The model was fitted with {', '.join(unpacker.missing)}, which the file does not "
            f"hold: the defaults stand in their place. {_pass_to_load(unpacker.missing)}",
            NoisyFitWarning,
            stacklevel=3,
        )
    return estimator


def dumps(estimator: Savable) -> bytes:
    """Return the file as bytes."""
    return model_file.as_bytes(ModelPacker().members(estimator))


def loads(template: Savable, content: bytes) -> Any:
    """Return what `dumps` was given of an estimator with the parameters of ``template``."""
    params: dict[str, Any] = template.get_params(deep=False)  # type: ignore[attr-defined]
    found = _loaded(type(template), io.BytesIO(content), "memory", "auto", params)[1]
    return found.set_params(**params)


@torch_defaults()
def _loaded(
    cls: Any, file: BinaryIO, path: str, device: Any, params: Mapping[str, Any]
) -> tuple[ModelUnpacker, Any]:
    description, arrays, weights = model_file.read(file, path)
    unpacker = ModelUnpacker(path, arrays, weights.pop("tensors", {}), device)
    return unpacker, unpacker.model(description, params, cls=cls, networks=weights)


def learned(part: Any, code: Collection[str] = ()) -> dict[str, Any]:
    """Return what training has taught a generator or an encoder.

    Parameters
    ----------
    part : object
    code : collection of str
        What `code_in` has found in it before.
    """
    if hasattr(part, "get_state"):
        return dict(part.get_state())
    return {name: value for name, value in vars(part).items() if name not in code}


def code_in(part: Any) -> list[str]:
    """Return the names of attributes that are classes or functions."""
    attributes = getattr(part, "__dict__", {})
    return [name for name, value in attributes.items() if isinstance(value, CODE)]


def teach(part: Any, state: dict[str, Any]) -> Any:
    """Put what `learned` has returned into a part with the same parameters, and return it."""
    if hasattr(part, "set_state"):
        part.set_state(state)
    else:
        vars(part).update(state)
    return part


# What goes into a file.


class ModelPacker(Packer):
    """Turns models and their parts into JSON as well, and notes what gets lost.

    Parameters are named as ``set_params`` of the whole model names them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._left_out: dict[str, None] = {}
        self._foreign: dict[str, list[str]] = {}

    def members(self, estimator: Savable) -> dict[str, bytes]:
        """Return the members of the file by name."""
        description, networks = self._described(estimator, "", fitted=True)
        weights = networks | ({"tensors": self.tensors} if self.tensors else {})
        return model_file.as_members(description, self.arrays, weights)

    def losses(self) -> Iterator[str]:
        """Say what a file will not hold and `load` will not ask for."""
        if self._left_out:
            yield (
                f"Files hold no code and nothing of one machine: {', '.join(self._left_out)} will "
                f"be left out. {_pass_to_load(self._left_out)}"
            )
        for kind, names in self._foreign.items():
            yield (
                f"Files hold the attributes that the methods of {kind} write: {', '.join(names)} "
                "will be left out. Write them in a subclass."
            )

    def pack(self, value: Any, name: str) -> Any:
        """Return JSON for a value, a model or a part of one; see `Packer.pack`."""
        return self._packed_model(value, name, fitted=True)

    def _packed_model(self, value: Any, name: str, *, fitted: bool) -> Any:
        """Pack a value; of models and parts, without what they have learned if that is asked."""
        if type(value) in PARTS:
            return {"part": self._described_part(value, f"{name}__", fitted)}
        if isinstance(value, Savable) and _in_package(type(value).__module__):
            return self._nested(value, f"{name}__", fitted=fitted)
        return super().pack(value, name)

    def _nested(self, model: Savable, prefix: str, *, fitted: bool) -> dict[str, Any]:
        description, networks = self._described(model, prefix, fitted=fitted and _is_fitted(model))
        packed = {"networks": self.pack(networks, prefix)} if networks else {}
        return {"model": description | packed}

    def _described(
        self, model: Any, prefix: str, *, fitted: bool
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what a model is and has learned, and the weights of its networks."""
        kind = type(model)
        params, left_out = self._params(model, prefix)
        found = {"class": _name_of(kind), "params": params, "left_out": left_out}
        networks: dict[str, Any] = {}
        if fitted:
            found["fitted"] = self._fitted(model, prefix, left_out)
            names = (*model._networks, *model._copies)
            networks = {name: getattr(model, f"{name}_").state_dict() for name in names}
        if networks:
            found["history"] = self._required(list(model.history_), f"{prefix}history_")
        optional = [name for name in left_out if not _is_demanded(model, name)]
        self._left_out |= dict.fromkeys(f"{prefix}{name}" for name in optional)
        return found, networks

    def _params(self, model: Any, prefix: str) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the parameters that a file holds, and what the others are."""
        packed, left_out = {}, {}
        for name, value in model.get_params(deep=False).items():
            try:
                if name not in LOCAL:
                    packed[name] = self._packed_model(value, f"{prefix}{name}", fitted=False)
                elif name != "device" and value is not None:
                    left_out[name] = str(value)
            except TypeError as error:
                left_out[name] = str(error)
        return packed, left_out

    def _fitted(self, model: Any, prefix: str, left_out: dict[str, str]) -> dict[str, Any]:
        """Return the fitted attributes but networks and optimizers."""
        kind: Any = type(model)
        known, packed = fitted_names(kind), {}
        for name, value in vars(model).items():
            if _is_torch(value) or name in REMADE:
                continue
            if name in kind._made_of:
                packed[name] = self._part(model, name, prefix, left_out)
            elif name in known or name in PRIVATE:
                packed[name] = self._required(value, f"{prefix}{name}")
            elif re.fullmatch(r"[a-zA-Z]\w*_", name):
                self._foreign.setdefault(kind.__name__, []).append(name)
        return packed

    def _part(self, model: Any, name: str, prefix: str, left_out: dict[str, str]) -> Any:
        """Pack what is made of a parameter; note the parameter where it is code."""
        value, parameter = getattr(model, name), model._made_of[name]
        if isinstance(value, Savable):
            if not _in_package(type(value).__module__):
                left_out[parameter] = type(value).__name__
            return self._nested(value, f"{prefix}{parameter}__", fitted=True)
        try:
            return self.pack(value, f"{prefix}{parameter}")
        except TypeError as error:
            left_out[parameter] = str(error)
        return {"own": self._own(value, model._state_of(name), f"{prefix}{parameter}")}

    def _own(self, part: Any, state: Any, name: str) -> Any:
        try:
            return self.pack(state, name)
        except TypeError as error:
            raise NoisyFitError(
                f"Files hold what a {type(part).__name__} has learned if it is numbers, text, "
                f"arrays and tensors. Got {error} in {name}. Give it get_state() and "
                "set_state(state); see noisyfit.nn.generators.Trainable."
            ) from error

    def _described_part(self, part: Any, prefix: str, fitted: bool) -> dict[str, Any]:
        names = [name for name in _parameters(type(part)) if name not in LOCAL]
        params = {name: self.pack(getattr(part, name), f"{prefix}{name}") for name in names}
        found = {"class": _name_of(type(part)), "params": params}
        if fitted and _is_fitted(part):
            found["learned"] = self.pack(learned(part), prefix)
        return found

    def _required(self, value: Any, name: str) -> Any:
        try:
            return self.pack(value, name)
        except TypeError as error:
            raise NoisyFitError(
                f"Files hold numbers, text, dates, arrays and tensors. Got {error} in {name}. Take "
                "it out, or write its parts as numbers or text, before save."
            ) from error


def _name_of(kind: type[Any]) -> list[str]:
    return [kind.__module__, kind.__qualname__]


def _parameters(kind: Any) -> list[str]:
    return list(inspect.signature(kind).parameters)


def _is_fitted(model: Any) -> bool:
    return any(name.endswith("_") for name in vars(model))


def _is_torch(value: Any) -> bool:
    return isinstance(value, nn.Module | optim.Optimizer)


def _in_package(module: str) -> bool:
    return module.partition(".")[0] == __name__.partition(".")[0]


def _pass_to_load(names: Iterable[str]) -> str:
    return f"Pass what you need: load(path, {', '.join(f'{name}=...' for name in names)})."


# What comes out of a file, and what it may say.


class ModelUnpacker(Unpacker):
    """Makes models of what `ModelPacker` wrote, and notes what they lack.

    Parameters
    ----------
    path : str
        For messages.
    arrays, tensors : mappings
        What was put aside.
    device : str or torch.device
    """

    def __init__(
        self, path: str, arrays: Mapping[str, Any], tensors: Mapping[str, Any], device: Any
    ) -> None:
        super().__init__(arrays, tensors)
        self.missing: dict[str, None] = {}
        self._path, self._device = path, device

    def unpack(self, packed: Any) -> Any:
        """Return a value, a model or a part of one; see `Unpacker.unpack`."""
        return self._unpacked(packed, {}, "")

    def _unpacked(self, packed: Any, given: Mapping[str, Any], prefix: str) -> Any:
        if isinstance(packed, dict) and "model" in packed:
            return self.model(packed["model"], given, prefix)
        if isinstance(packed, dict) and "part" in packed:
            return self._part(packed["part"], given, prefix)
        with self._undamaged():
            return super().unpack(packed)

    def model(
        self,
        description: dict[str, Any],
        given: Mapping[str, Any],
        prefix: str = "",
        *,
        cls: Any = Savable,
        networks: dict[str, Any] | None = None,
    ) -> Any:
        """Return a model of class ``cls``, with parameters that were given in place of its own."""
        with self._undamaged():
            home, qualname = map(str, description["class"])
            params, left_out = dict(description["params"]), dict(description["left_out"])
        kind = _class_of(cls, home, qualname)
        _check_params(kind, params, left_out)
        own, inner = _by_part(kind, given, prefix)
        stored = {
            name: self._unpacked(value, inner.get(name, {}), f"{prefix}{name}__")
            for name, value in params.items()
        }
        device = {"device": self._device} if "device" in kind._signature_names() else {}
        complete = stored | device | own
        estimator = kind(**complete)
        is_fitted = "fitted" in description
        missing = {name: what for name, what in left_out.items() if name not in own}
        self._ask_for(estimator, missing, prefix, is_fitted)
        if not is_fitted:
            return estimator
        estimator._check_parameters()
        with self._undamaged():
            fitted = dict(description["fitted"])
        self._fit(estimator, fitted, own, inner, prefix)
        estimator.set_params(**_without_downloads(complete))
        self._rebuild(estimator, description, networks)
        return estimator.set_params(**complete)

    def _fit(
        self,
        estimator: Any,
        fitted: dict[str, Any],
        own: dict[str, Any],
        inner: dict[str, dict[str, Any]],
        prefix: str,
    ) -> None:
        """Write the fitted attributes."""
        kind = type(estimator)
        _check_fitted(kind, fitted)
        if not fitted.keys() >= {*kind._needed}:
            raise model_file.damaged(self._path, "meta.json")
        for name, packed in fitted.items():
            if name in kind._made_of:
                parameter = kind._made_of[name]
                known = own.get(parameter), inner.get(parameter, {})
                value = self._remade(packed, *known, f"{prefix}{parameter}__")
            else:
                value = self.unpack(packed)
            setattr(estimator, name, value)

    def _remade(self, packed: Any, own: Any, given: dict[str, Any], prefix: str) -> Any:
        """Return what is made of a parameter, ``own`` if the user has passed one."""
        with self._undamaged():
            (tag,) = packed or (None,)
            if tag not in ("model", "part", "own", None) or (tag == "own" and own is None):
                raise KeyError(tag)
        if tag == "own":
            state = self.unpack(packed["own"])
            return deepcopy(own) if state is None else teach(deepcopy(own), state)
        if tag == "model" and isinstance(own, Savable):
            return self._like(own, packed["model"], given, prefix)
        return self._unpacked(packed, given, prefix)

    def _like(
        self, own: Any, description: dict[str, Any], given: dict[str, Any], prefix: str
    ) -> Any:
        """Return a model that may be of the user's own class; code comes from ``own``."""
        params = own.get_params(deep=False)
        with self._undamaged():
            code = {name: params[name] for name in description["left_out"] if name in params}
            is_ours = _in_package(str(description["class"][0]))
        return self.model(description, code | given, prefix, cls=Savable if is_ours else type(own))

    def _part(self, description: dict[str, Any], given: Mapping[str, Any], prefix: str) -> Any:
        with self._undamaged():
            home, qualname = map(str, description["class"])
            params = {name: self.unpack(value) for name, value in description["params"].items()}
        kind = _class_of(PARTS, home, qualname)
        known = _parameters(kind)
        _check_names(params, {*known} - {*LOCAL}, f"parameters of {kind.__name__}")
        _check_given(kind.__name__, known, given, prefix)
        device = {"device": str(resolve_device(self._device))} if "device" in known else {}
        with self._undamaged():
            part = kind(**(params | device | dict(given)))
        if "learned" not in description:
            return part
        state = self.unpack(description["learned"])
        with self._undamaged():
            names = {f"{name.removesuffix('_')}_" for name in state}
        _check_names(names, fitted_names(kind), f"attributes of {kind.__name__}")
        with self._undamaged():
            return teach(part, state)

    def _rebuild(
        self, estimator: Any, description: dict[str, Any], networks: dict[str, Any] | None
    ) -> None:
        names = {*estimator._networks, *estimator._copies}
        if not names:
            return
        with self._undamaged():
            states = self.unpack(description["networks"]) if networks is None else networks
            history = list(self.unpack(description["history"]))
        if not states.keys() >= names:
            raise model_file.damaged(self._path, "networks.pt")
        estimator._rebuild(states, history)

    def _ask_for(
        self, estimator: Any, missing: dict[str, str], prefix: str, is_fitted: bool
    ) -> None:
        """Refuse to go on without what a fit is made of; note the rest."""
        for name, what in missing.items():
            if is_fitted and _is_demanded(estimator, name):
                raise NoisyFitError(
                    f"The model was fitted with its own "
                    f"{'network' if name == 'module' else f'{prefix}{name}'} {what}, and files "
                    f"hold no code. Pass it: load(path, {prefix}{name}=...)."
                )
            self.missing[f"{prefix}{name}"] = None

    @contextmanager
    def _undamaged(self) -> Iterator[None]:
        """Say of what cannot be read that it is not what was written."""
        try:
            yield
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise model_file.damaged(self._path, "meta.json") from error


def _class_of(cls: Any, home: str, name: str) -> Any:
    """Return the class of this package that a file names, or ``cls`` if it is a user's own."""
    found = cls if isinstance(cls, type) and not _in_package(cls.__module__) else None
    if _in_package(home):
        try:
            found = getattr(import_module(home), name, None)
        except ModuleNotFoundError:
            found = None
    if not isinstance(found, type) or found.__qualname__ != name or not issubclass(found, cls):
        expected = getattr(cls, "__name__", "generator or an encoder of noisyfit")
        raise NoisyFitError(
            f"The file must hold a {expected}. Got a {home}.{name}. Call load of that class."
        )
    return found


def _by_part(
    kind: Any, given: Mapping[str, Any], prefix: str
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return a model's own parameters, and those of its parts by the parameter they are made of."""
    own: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {parameter: {} for parameter in kind._made_of.values()}
    for name, value in given.items():
        parameter, _, rest = name.partition("__")
        if rest and parameter in inner:
            inner[parameter][rest] = value
        else:
            own[name] = value
    if inner:  # an estimator with networks checks prefixes of its own
        _check_given(kind.__name__, kind._signature_names(), own, prefix)
    return own, inner


def _check_given(owner: str, known: Collection[str], given: Iterable[str], prefix: str) -> None:
    for name in given:
        if name not in known:
            raise ValueError(
                f"Invalid parameter {f'{prefix}{name}'!r} for {owner}. Valid parameters are: "
                f"{sorted(known)}."
            )


def _check_params(kind: Any, stored: Iterable[str], left_out: Iterable[str]) -> None:
    known = kind._signature_names()
    for names, refused in (stored, LOCAL), (left_out, ()):
        for name in names:
            if name in refused or not (name in known or re.fullmatch(r"[a-z]\w*__\w+", name)):
                raise _foreign(f"parameters of {kind.__name__}", name)


def _check_fitted(kind: Any, names: Iterable[str]) -> None:
    known = {*fitted_names(kind), *PRIVATE} - {*REMADE}
    _check_names(names, known, f"fitted attributes of {kind.__name__}")


def _check_names(names: Iterable[str], known: Collection[str], what: str) -> None:
    for name in names:
        if name not in known:
            raise _foreign(what, name)


def _foreign(expected: str, found: str) -> NoisyFitError:
    return NoisyFitError(
        f"The file must hold {expected}. Got {found!r}, which save does not write. Do not use it."
    )


def _is_demanded(estimator: Any, name: str) -> bool:
    """Whether what was fitted is made of a parameter."""
    prefix, _, parameter = name.partition("__")
    if name in estimator._made_of.values():
        return True
    return prefix in ("module", *estimator._networks) and parameter not in PRETRAINED


def _without_downloads(params: dict[str, Any]) -> dict[str, Any]:
    """Return what keeps the networks from fetching pretrained weights."""
    module = params.get("module")
    if not isinstance(module, str | None) and not module.__module__.startswith(DOWNLOADING):
        return {}
    names = [name for name in params if name.partition("__")[2] in PRETRAINED]
    return {name: PRETRAINED[name.partition("__")[2]] for name in names}
