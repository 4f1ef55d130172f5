"""What comes out of the file of a model, and what the file may contain."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from importlib import import_module
from typing import Any

from noisyfit.estimator.fitted import fitted_names
from noisyfit.estimator.persistence.file import damaged
from noisyfit.estimator.persistence.models import (
    LOCAL,
    PRETRAINED,
    PRIVATE,
    REMADE,
    Model,
    in_package,
    is_demanded,
    parameters_of,
    teach,
)
from noisyfit.estimator.persistence.packing import Unpacker
from noisyfit.exceptions import NoisyFitError
from noisyfit.utils.devices import resolve_device
from noisyfit.utils.parts import Part

DOWNLOADING = ("torchvision.", "timm.")  # where factories take these
MOVED = {"noisyfit.nn.embedders": "noisyfit.embedding.encoders"}  # since files were written


class ModelUnpacker(Unpacker):
    """Recreates models from what `ModelPacker` wrote, and notes what they lack.

    Parameters
    ----------
    path : str
        Shown in messages.
    arrays, tensors : mappings
        What was set aside.
    device : str or torch.device
    """

    def __init__(
        self, path: str, arrays: Mapping[str, Any], tensors: Mapping[str, Any], device: Any
    ) -> None:
        super().__init__(arrays, tensors)
        self.missing: dict[str, None] = {}
        self._path, self._device = path, device

    def unpack(self, packed: Any) -> Any:
        """Return a value, a model or part of one; see `Unpacker.unpack`."""
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
        cls: Any = Model,
        networks: dict[str, Any] | None = None,
    ) -> Any:
        """Return a model of class ``cls``; parameters that were given replace its own."""
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
            raise damaged(self._path, "meta.json")
        for name, packed in fitted.items():
            if name in kind._made_of:
                parameter = kind._made_of[name]
                known = own.get(parameter), inner.get(parameter, {})
                value = self._remade(packed, *known, f"{prefix}{parameter}__")
            else:
                value = self.unpack(packed)
            setattr(estimator, name, value)

    def _remade(self, packed: Any, own: Any, given: dict[str, Any], prefix: str) -> Any:
        """Return what is made from a parameter, or from ``own`` if the user passed one."""
        with self._undamaged():
            (tag,) = packed or (None,)
            if tag not in ("model", "part", "own", None) or (tag == "own" and own is None):
                raise KeyError(tag)
        if tag == "own":
            state = self.unpack(packed["own"])
            return deepcopy(own) if state is None else teach(deepcopy(own), state)
        if tag == "model" and isinstance(own, Model):
            return self._like(own, packed["model"], given, prefix)
        return self._unpacked(packed, given, prefix)

    def _like(
        self, own: Any, description: dict[str, Any], given: dict[str, Any], prefix: str
    ) -> Any:
        """Return a model, possibly of the user's own class; its code comes from ``own``."""
        params = own.get_params(deep=False)
        with self._undamaged():
            code = {name: params[name] for name in description["left_out"] if name in params}
            is_ours = in_package(str(description["class"][0]))
        return self.model(description, code | given, prefix, cls=Model if is_ours else type(own))

    def _part(self, description: dict[str, Any], given: Mapping[str, Any], prefix: str) -> Any:
        with self._undamaged():
            home, qualname = map(str, description["class"])
            params = {name: self.unpack(value) for name, value in description["params"].items()}
        kind = _class_of(Part, home, qualname)
        known = parameters_of(kind)
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
            states = dict(self.unpack(description["networks"]) if networks is None else networks)
            history = list(self.unpack(description["history"]))
        if not states.keys() >= names:
            raise damaged(self._path, "networks.pt")
        estimator._rebuild(states, history)

    def _ask_for(
        self, estimator: Any, missing: dict[str, str], prefix: str, is_fitted: bool
    ) -> None:
        """Refuse to continue without what the fit is made from; note the rest."""
        for name, what in missing.items():
            if is_fitted and is_demanded(estimator, name):
                raise NoisyFitError(
                    f"The model was fitted with its own "
                    f"{'network' if name == 'module' else f'{prefix}{name}'} {what}, and files "
                    f"hold no code. Pass it: load(path, {prefix}{name}=...)."
                )
            self.missing[f"{prefix}{name}"] = None

    @contextmanager
    def _undamaged(self) -> Iterator[None]:
        """Report what cannot be read as damaged."""
        try:
            yield
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise damaged(self._path, "meta.json") from error


def _class_of(cls: Any, home: str, name: str) -> Any:
    """Return the class of this package that a file names, or ``cls`` if that is the user's own."""
    found = cls if isinstance(cls, type) and not in_package(cls.__module__) else None
    if in_package(home):
        try:
            found = getattr(import_module(MOVED.get(home, home)), name, None)
        except ModuleNotFoundError:
            found = None
    if not isinstance(found, type) or found.__qualname__ != name or not issubclass(found, cls):
        expected = "generator or an encoder of noisyfit" if cls is Part else cls.__name__
        raise NoisyFitError(
            f"The file must hold a {expected}. Got a {home}.{name}. Call load of that class."
        )
    return found


def _by_part(
    kind: Any, given: Mapping[str, Any], prefix: str
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return a model's own parameters, and those of its parts by the parameter that makes them."""
    own: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {parameter: {} for parameter in kind._made_of.values()}
    for name, value in given.items():
        parameter, _, rest = name.partition("__")
        if rest and parameter in inner:
            inner[parameter][rest] = value
        else:
            own[name] = value
    if inner:  # an estimator with networks checks its own prefixes
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
    routed = r"(?!)" if kind._made_of else r"[a-z]\w*__\w+"  # such as module__width
    for names, refused in (stored, LOCAL), (left_out, ()):
        for name in names:
            if name in refused or not (name in known or re.fullmatch(routed, name)):
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


def _without_downloads(params: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that keep a factory from fetching pretrained weights."""
    if not getattr(params.get("module"), "__module__", "").startswith(DOWNLOADING):
        return {}
    names = [name for name in params if name.partition("__")[2] in PRETRAINED]
    return {name: PRETRAINED[name.partition("__")[2]] for name in names}
