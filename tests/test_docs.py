"""A method that has no place in the documentation is found by no user."""

import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import noisyfit
from noisyfit.benchmark.contenders import method_names, package_methods
from noisyfit.benchmark.sources import NAMES, data_names
from noisyfit.cli import _parser

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


PAGES = [DOCS.parent / "README.md", *sorted(DOCS.rglob("*.rst")), *sorted(DOCS.rglob("*.md"))]


def commands() -> list[str]:
    """Return what README and documentation say after ``noisyfit benchmark``, for any machine."""
    found = []
    for page in PAGES:
        text = re.sub(r"\s*\\\n\s*", " ", page.read_text())
        options = "".join(re.findall(r'(?m)^ *options="(.*)"$', text)[:1])
        told = r"(?m)^ *noisyfit benchmark (.+)$|`noisyfit benchmark (-[^`]+)`"
        for command in map("".join, re.findall(told, text)):
            found.append(command.replace("$options", options).replace("cuda", "cpu"))
    return [" ".join(command.split()) for command in found]


@pytest.mark.parametrize("command", commands())
def test_every_benchmark_that_is_told__has_methods_and_data_that_exist(command: str) -> None:
    options = _parser().parse_args(["benchmark", *shlex.split(command)])
    assert method_names(options.methods)
    for name in data_names(options.data):
        assert name in NAMES or name.endswith(".csv")


def test_every_script_that_is_told__exists() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    scripts = set(re.findall(r"python (\S+\.py)", text))
    modules = set(re.findall(r"python -m ([\w.]+)", text))
    assert scripts
    for script in scripts:
        assert (DOCS.parent / script).is_file(), script
    for module in modules:
        assert find_spec(module), module
