"""A method that has no place in the documentation is found by no user."""

import re
from pathlib import Path
from typing import Any

import pytest

import noisyfit
from noisyfit.benchmark.contenders import package_methods

DOCS = Path(__file__).parents[1] / "docs"
METHODS = {value.__name__: value for value in package_methods().values()}
every_method = pytest.mark.parametrize("name", METHODS)


def page_of(name: str) -> Path:
    """Return the page of a method: the one that shows its class."""
    (page,) = (
        page
        for page in (DOCS / "methods").glob("*.rst")
        if re.search(rf"^\.\. autoclass:: noisyfit\.{name}$", page.read_text(), re.M)
    )
    return page


@every_method
def test_every_method_has_a_page(name: str) -> None:
    assert page_of(name)


@pytest.mark.parametrize("name", [n for n in noisyfit.__all__ if n != "__version__"])
def test_every_public_name_is_in_the_reference(name: str) -> None:
    assert re.search(rf"^   {name}$|autofunction:: .*{name}$", (DOCS / "api.rst").read_text(), re.M)


@every_method
def test_every_method_says_what_it_costs_and_where_it_comes_from(name: str) -> None:
    documentation: Any = METHODS[name].__doc__
    assert "Cost: " in " ".join(documentation.split())
    assert "References\n" in documentation
    assert "Examples\n" in documentation
