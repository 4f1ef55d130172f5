"""What parameters of estimators, generators and functions may be, beyond scikit-learn's check."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils._param_validation import HasMethods as HasMethods
from sklearn.utils._param_validation import Interval as Interval
from sklearn.utils._param_validation import StrOptions as StrOptions
from sklearn.utils._param_validation import validate_parameter_constraints

AT_LEAST_ONE = Interval(Integral, 1, None, closed="left")
POSITIVE = Interval(Real, 0, None, closed="neither")
NOT_NEGATIVE = Interval(Real, 0, None, closed="left")
LARGEST = {float: 1e38, int: 1e18}  # that tensors can hold
KINDS: dict[type, Any] = {Integral: int | np.integer, Real: int | float | np.integer | np.floating}


def check_parameters(
    constraints: Mapping[str, list[Any]], params: Mapping[str, Any], owner: str
) -> None:
    """Refuse values that training would stumble over, before it begins.

    Parameters
    ----------
    constraints : dict
        As of scikit-learn, by parameter.
    params : dict
    owner : str
        Named in the message.

    Raises
    ------
    ValueError
        If a constraint is not met, if a bool stands for a number, or if a number is too large.
    """
    for name, value in params.items():
        kinds = {c.type for c in constraints.get(name, []) if isinstance(c, Interval)}
        if kinds and isinstance(value, Real):
            kind = Integral if kinds == {Integral} else Real
            check_number(f"The {name!r} parameter of {owner}", value, kind)
    validate_parameter_constraints(constraints, params, owner)


def is_number(value: Any, kind: type = Real) -> bool:
    """Tell numbers of Python and numpy from all else, bools included."""
    return isinstance(value, KINDS[kind]) and not isinstance(value, bool)


def check_number(name: str, value: Any, kind: type = Real) -> None:
    """Refuse what is no number that tensors can hold; NaN is left to the check of the range.

    Parameters
    ----------
    name : str
        Named in the message.
    value : object
    kind : {numbers.Real, numbers.Integral}, default=Real

    Raises
    ------
    ValueError
        If it is a bool, an array, text or a fraction, or too large.
    """
    if not is_number(value, kind):
        what, python = ("a whole number", "an int") if kind is Integral else ("a number", "a float")
        raise ValueError(f"{name} must be {what}. Got {value!r}. Pass {python}.")
    largest = LARGEST[int if isinstance(value, Integral) else float]
    if kind is Real and abs(value) > largest:
        raise ValueError(f"{name} must be at most {largest:g}. Got {value}. Lower it.")
