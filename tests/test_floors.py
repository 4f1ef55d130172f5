"""The house as the table in CONTRIBUTING.md draws it."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import noisyfit

ROOT = Path(noisyfit.__file__).parent
CONTRIBUTING = Path(__file__).parents[1] / "CONTRIBUTING.md"
MODULES = [file for file in sorted(ROOT.rglob("*.py")) if file != ROOT / "__init__.py"]
SHARED_METHODS = {"methods.echoalign": {"methods.echoalign", "methods.coteaching"}}
TEMPLATE = "methods.cross_entropy"


class Row(NamedTuple):
    """A line of the table."""

    floor: int
    modules: list[str]
    shunned: set[str]  # third parties
    guests: list[str]  # modules that may import it; none means all


def rows() -> Iterator[Row]:
    section = CONTRIBUTING.read_text().split("## Floors")[1].split("\n## ")[0]
    for line in re.findall(r"^\| (\d .*) \|$", section, re.MULTILINE):
        floor, modules, _, shunned, guests = (cell.strip() for cell in line.split("|"))
        named = (re.findall(r"`([\w.]+)`", cell) for cell in (modules, shunned, guests))
        own, third_parties, others = named
        yield Row(int(floor), own, set(third_parties), others)


FLOORS = list(rows())


def imports(file: Path, tree: ast.AST) -> Iterator[str]:
    """Yield the full names that a file imports, those inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def home(name: str) -> str:
    """Return the module behind a name that the package lends out."""
    public = name.removeprefix("noisyfit.")
    return getattr(noisyfit, public).__module__ if public in noisyfit.__all__ else name


def is_in(path: str, module: str) -> bool:
    return f"{path}.".startswith(f"{module}.")


def row_of(path: str) -> Row:
    """Return the line of the table for a path within the package."""
    found = [row for row in FLOORS if any(is_in(path, module) for module in row.modules)]
    assert found, f"noisyfit.{path} stands on no floor: give it one in CONTRIBUTING.md"
    assert len(found) == 1, f"noisyfit.{path} stands on {len(found)} floors"
    return found[0]


def path_in_package(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_table__every_module__exists() -> None:
    paths = [path_in_package(file) for file in MODULES]
    for row in FLOORS:
        for module in [*row.modules, *row.guests]:
            assert any(is_in(path, module) for path in paths), module


@pytest.mark.parametrize("file", MODULES, ids=path_in_package)
def test_no_module_imports_a_floor_above_it(file: Path) -> None:
    own = path_in_package(file)
    names = set(imports(file, ast.parse(file.read_text()))) - {"noisyfit", "noisyfit.__version__"}
    targets = [home(n).removeprefix("noisyfit.") for n in names if is_in(n, "noisyfit")]
    if own == "estimator":  # the folder's own file
        assert not targets
        return
    for target in targets:
        row, here = row_of(target), row_of(own)
        assert row.floor <= here.floor, f"{own} imports {target}, which is on a floor above"
        if row is not here:
            assert row.floor < here.floor, f"{own} imports {target}, a neighbour it must not know"
            guests = row.guests
            assert not guests or any(is_in(own, g) for g in guests), f"{own} imports {target}"
        elif is_in(own, "methods"):
            asked = [v for k, v in SHARED_METHODS.items() if is_in(own, k)]
            known = {TEMPLATE, own}.union(*asked)
            assert any(is_in(target, k) for k in known), f"{own} imports {target}"


@pytest.mark.parametrize("file", MODULES, ids=path_in_package)
def test_no_module_imports_a_third_party_that_is_not_for_its_floor(file: Path) -> None:
    own = path_in_package(file)
    at_import = [node for node in ast.parse(file.read_text()).body if not isinstance(node, ast.If)]
    for statement in at_import:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            found = {name.split(".")[0] for name in imports(file, ast.Module([statement], []))}
            assert own == "estimator" or not found & row_of(own).shunned


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = ["torch", "torchvision", "pandas", "cleanlab", "matplotlib", "sklearn", "skorch"]
    code = f"import sys, noisyfit; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_type_checkers_see_the_public_names_where_they_load_from() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imported = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.name: node.module for node in imported for alias in node.names}
    assert seen == noisyfit._HOME


@pytest.mark.parametrize("name", noisyfit.__all__)
def test_every_public_name_loads_on_first_use(name: str) -> None:
    assert getattr(noisyfit, name) is not None
    assert name in dir(noisyfit)


def test_unknown_public_name__raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Flywhel'"):
        noisyfit.Flywhel  # type: ignore[attr-defined]  # noqa: B018
