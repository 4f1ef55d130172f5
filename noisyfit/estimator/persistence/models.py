"""What a file must know about models and the parts that they are made of."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Mapping
from types import BuiltinFunctionType, FunctionType
from typing import Any, ClassVar

from noisyfit.exceptions import NoisyFitError
from noisyfit.utils.parameters import check_parameters

LOCAL = ("checkpoint_dir", "device", "memory")  # parameters that belong to one machine
PRETRAINED = {"weights": None, "pretrained": False}  # no download: the stored weights replace them
PRIVATE = ("_n_features_out", "_sklearn_output_config")  # what scikit-learn stores during fit
REMADE = (  # recreated by load
    "callbacks_", "cuda_dependent_attributes_", "device_", "history_", "init_context_",
    "initialized_", "prefixes_",
)  # fmt: skip
CODE = (type, FunctionType, BuiltinFunctionType)


class Model:
    """An estimator that a file can hold, alone or as part of another one.

    A subclass names the fitted attributes without which it cannot be used, and those that are made
    from a parameter: models, generators and encoders. Where such a part is not a class of this
    package, it is code: the file holds what it has learned, and ``load`` needs the parameter.
    """

    _needed: ClassVar[tuple[str, ...]] = ()
    _made_of: ClassVar[Mapping[str, str]] = {}  # parameters by fitted attribute
    _networks: ClassVar[tuple[str, ...]] = ()
    _copies: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def _signature_names(cls) -> set[str]:
        return set(parameters_of(cls))

    def _check_parameters(self) -> None:
        """Refuse parameters that no fit accepts."""
        estimator: Any = self
        params = estimator.get_params(deep=False)
        check_parameters(estimator._parameter_constraints, params, type(self).__name__)

    def _state_of(self, attribute: str) -> Any:
        """Return what a user-defined part has learned."""
        raise NoisyFitError(
            f"Files hold classifiers of noisyfit and no code. Got a "
            f"{type(getattr(self, attribute)).__name__} in {attribute}, which only pickle can "
            "keep. Write the whole model with joblib or skops, or pass a classifier of noisyfit "
            f"as {self._made_of[attribute]}."
        )

    def _rebuild(self, states: dict[str, Any], history: list[dict[str, Any]]) -> None:
        """Recreate the networks from their stored weights."""


def learned(part: Any, code: Collection[str] = ()) -> dict[str, Any]:
    """Return what a generator or an encoder has learned.

    Parameters
    ----------
    part : object
    code : collection of str
        What `code_in` found in it before.
    """
    if hasattr(part, "get_state"):
        return dict(part.get_state())
    return {name: value for name, value in vars(part).items() if name not in code}


def code_in(part: Any) -> list[str]:
    """Return the names of attributes that are classes or functions."""
    attributes = getattr(part, "__dict__", {})
    return [name for name, value in attributes.items() if isinstance(value, CODE)]


def teach(part: Any, state: dict[str, Any]) -> Any:
    """Put what `learned` returned into a part with the same parameters, and return the part."""
    if hasattr(part, "set_state"):
        part.set_state(state)
    else:
        vars(part).update(state)
    return part


def is_demanded(estimator: Any, name: str) -> bool:
    """Whether the fitted model is made from a parameter."""
    prefix, _, parameter = name.partition("__")
    if name in estimator._made_of.values():
        return True
    return prefix in ("module", *estimator._networks) and parameter not in PRETRAINED


def parameters_of(kind: Any) -> list[str]:
    """Return the names of a constructor's parameters."""
    return list(inspect.signature(kind).parameters)


def in_package(module: str) -> bool:
    """Whether a module belongs to this package."""
    return module.partition(".")[0] == __name__.partition(".")[0]


def pass_to_load(names: Iterable[str]) -> str:
    """Say how to supply what a file does not hold."""
    return f"Pass what you need: load(path, {', '.join(f'{name}=...' for name in names)})."
