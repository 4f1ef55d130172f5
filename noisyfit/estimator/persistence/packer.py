"""What goes into the file of a model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from torch import nn, optim

from noisyfit.estimator.fitted import fitted_names
from noisyfit.estimator.persistence.file import as_members
from noisyfit.estimator.persistence.models import (
    LOCAL,
    PRIVATE,
    REMADE,
    Model,
    in_package,
    is_demanded,
    learned,
    parameters_of,
    pass_to_load,
)
from noisyfit.estimator.persistence.packing import Packer
from noisyfit.exceptions import NoisyFitError
from noisyfit.utils.parts import Part


class ModelPacker(Packer):
    """Also turns models and their parts into JSON, and notes what is lost.

    Parameters are named as in ``set_params`` of the whole model.
    """

    def __init__(self) -> None:
        super().__init__()
        self._left_out: dict[str, None] = {}
        self._demanded: dict[str, None] = {}
        self._foreign: dict[str, list[str]] = {}

    def members(self, estimator: Model) -> dict[str, bytes]:
        """Return the members of the file by name."""
        description, networks = self._described(estimator, "", fitted=True)
        weights = networks | ({"tensors": self.tensors} if self.tensors else {})
        return as_members(description, self.arrays, weights)

    def losses(self) -> Iterator[str]:
        """Yield a message about what a file will not hold and `load` will not ask for."""
        optional = [name for name in self._left_out if name not in self._demanded]
        if optional:
            yield (
                f"Files hold no code and nothing of one machine: {', '.join(optional)} will be "
                f"left out. {pass_to_load(optional)}"
            )
        for kind, names in self._foreign.items():
            yield (
                f"Files hold the attributes that the methods of {kind} write: {', '.join(names)} "
                "will be left out. Write them in a subclass."
            )

    def pack(self, value: Any, name: str) -> Any:
        """Return JSON for a value, a model or part of one; see `Packer.pack`."""
        return self._packed_model(value, name, fitted=True)

    def _packed_model(self, value: Any, name: str, *, fitted: bool) -> Any:
        """Pack a value; ``fitted`` says whether models and parts keep what they have learned."""
        if in_package(type(value).__module__):
            if isinstance(value, Part):
                return {"part": self._described_part(value, f"{name}__", fitted)}
            if isinstance(value, Model):
                return self._nested(value, f"{name}__", fitted=fitted)
        return super().pack(value, name)

    def _nested(self, model: Model, prefix: str, *, fitted: bool) -> dict[str, Any]:
        description, networks = self._described(model, prefix, fitted=fitted and _is_fitted(model))
        packed = {"networks": self.pack(networks, prefix)} if networks else {}
        return {"model": description | packed}

    def _described(
        self, model: Any, prefix: str, *, fitted: bool
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the description of a model, and the weights of its networks."""
        kind = type(model)
        params, left_out = self._params(model, prefix)
        found = {"class": _name_of(kind), "params": params, "left_out": left_out}
        networks: dict[str, Any] = {}
        if fitted:
            found["fitted"] = self._fitted(model, prefix, left_out)
            made = (*model._networks, *model._copies)
            networks = {name: getattr(model, f"{name}_").state_dict() for name in made}
        if networks:
            found["history"] = self._required(list(model.history_), f"{prefix}history_")
        for name in left_out:
            names = self._demanded if fitted and is_demanded(model, name) else self._left_out
            names[f"{prefix}{name}"] = None
        return found, networks

    def _params(self, model: Any, prefix: str) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the parameters that a file holds, and what the other ones are."""
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
        """Return the fitted attributes except networks and optimizers."""
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
        """Pack what is made from a parameter; note the parameter if it is code."""
        value, parameter = getattr(model, name), model._made_of[name]
        if isinstance(value, Model):
            if not in_package(type(value).__module__):
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
        names = [name for name in parameters_of(type(part)) if name not in LOCAL]
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
                "it out, or write its parts as numbers or text, before save. If it is a classifier "
                "of another package, write the whole model with joblib or skops."
            ) from error


def _name_of(kind: type[Any]) -> list[str]:
    return [kind.__module__, kind.__qualname__]


def _is_fitted(model: Any) -> bool:
    return any(name.endswith("_") for name in vars(model))


def _is_torch(value: Any) -> bool:
    return isinstance(value, nn.Module | optim.Optimizer)
