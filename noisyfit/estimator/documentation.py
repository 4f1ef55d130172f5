"""Shared parameters are described once, on the base class, and shown on every method."""

from __future__ import annotations

import inspect
import re
from typing import Any


def complete_documentation(cls: type[Any], base: type[Any]) -> None:
    """Fill in ``{shared parameters}`` and ``{shared attributes}``, and merge the signatures."""
    for section in ("Parameters", "Attributes"):
        marker = f"    {{shared {section.lower()}}}\n"
        if cls.__doc__ and marker in cls.__doc__:
            cls.__doc__ = cls.__doc__.replace(marker, _section(base.__doc__ or "", section))
    if "__init__" not in vars(cls):
        return
    own = _named(inspect.signature(vars(cls)["__init__"]))
    inherited = [p for p in _named(inspect.signature(base.__init__)) if p.name not in _names(own)]
    positional = [p for p in own if p.kind is not p.KEYWORD_ONLY]
    keywords = [p for p in own if p.kind is p.KEYWORD_ONLY]
    keywords += [p for p in inherited if p.kind is p.KEYWORD_ONLY]
    vars(cls)["__init__"].__signature__ = inspect.Signature([*positional, *keywords])


def hide_kwargs(cls: type[Any]) -> None:
    """Drop ``**kwargs`` from the signature: scikit-learn would take it for a parameter."""
    constructor = vars(cls)["__init__"]
    constructor.__signature__ = inspect.Signature(_named(inspect.signature(constructor)))


def _named(signature: inspect.Signature) -> list[inspect.Parameter]:
    return [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]


def _names(parameters: list[inspect.Parameter]) -> set[str]:
    return {p.name for p in parameters}


def _section(doc: str, title: str) -> str:
    """Return the entries of one numpydoc section."""
    match = re.search(rf"    {title}\n    -+\n(.*?)(?=\n    \w+\n    -+\n|\Z)", doc, re.DOTALL)
    return match.group(1).rstrip() + "\n" if match else ""
