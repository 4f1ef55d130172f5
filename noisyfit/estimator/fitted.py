"""Attributes that exist after `fit`: all or none, their names, and the error before `fit`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from functools import cache
from types import CodeType
from typing import TYPE_CHECKING, Any

from sklearn.exceptions import NotFittedError


class FittedAttributes:
    """Tells users to call `fit` first when an attribute that it writes is missing."""

    if not TYPE_CHECKING:  # otherwise mypy would accept every attribute

        def __getattr__(self, name: str) -> Any:
            if name in fitted_names(type(self)):
                _refuse_before_fit(self, name)
            return object.__getattribute__(self, name)  # raises the original error


@contextmanager
def all_or_nothing(
    estimator: Any,
    *,
    private: Container[str] = (),
    keeps: Callable[[BaseException], bool] = lambda error: False,
) -> Iterator[None]:
    """Drop the earlier fit of an estimator; restore it if the new one does not complete.

    Parameters
    ----------
    estimator : object
    private : collection of str
        Attributes that a fit writes besides those that end in ``_``.
    keeps : function, default=none
        Whether the new fit is complete although it ended in an error.
    """
    before = vars(estimator).copy()
    try:
        for name in before:
            if name.endswith("_") or name in private:
                del vars(estimator)[name]
        yield
    except BaseException as error:
        if not keeps(error):
            vars(estimator).clear()
            vars(estimator).update(before)
        raise


def _refuse_before_fit(estimator: Any, name: str) -> None:
    fitted = vars(estimator)
    if not any(attribute.endswith("_") for attribute in fitted):
        raise NotFittedError(
            f"{name} is known when {type(estimator).__name__} is fitted. Got an instance that is "
            "not fitted yet. Call fit(X, y) first."
        )
    if fitted.get("initialized_") and "label_quality_" not in fitted:
        raise NotFittedError(
            f"{name} is known when fit has ended. Got a call while it runs, such as from a "
            "callback. Ask after fit(X, y)."
        )


@cache
def fitted_names(cls: Any) -> frozenset[str]:
    """Return the fitted attributes of a class: the names in its code that end in ``_``."""
    members = [member for base in cls.__mro__ for member in vars(base).values()]
    functions = [getattr(m, "fget", None) or getattr(m, "__func__", m) for m in members]
    codes = [inspect.unwrap(f).__code__ for f in functions if hasattr(f, "__code__")]
    mentioned = {name for code in codes for name in _names_in(code)}
    declared = {name for base in cls.__mro__ for name in inspect.get_annotations(base)}
    return frozenset(
        name
        for name in mentioned | declared | {"n_features_in_", "feature_names_in_"}
        if re.fullmatch(r"[a-zA-Z]\w*[^\W_]_", name) and not callable(getattr(cls, name, None))
    )


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)
