"""What parameters of estimators may be, beyond scikit-learn's own check."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from sklearn.utils._param_validation import Interval, validate_parameter_constraints

LARGEST = {float: 1e38, int: 1e18}  # that tensors can hold


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
    validate_parameter_constraints(constraints, params, owner)
    for name, value in params.items():
        ranges = [c for c in constraints.get(name, []) if isinstance(c, Interval)]
        if ranges and isinstance(value, bool):
            raise ValueError(
                f"The {name!r} parameter of {owner} must be a number. Got {value}. Pass "
                f"{int(value)} if that is what is meant."
            )
        if any(c.type is Real for c in ranges) and isinstance(value, Real):
            largest = LARGEST[int if isinstance(value, Integral) else float]
            if abs(float(value)) > largest:
                raise ValueError(
                    f"The {name!r} parameter of {owner} must be at most {largest:g}. Got {value}. "
                    "Lower it."
                )
