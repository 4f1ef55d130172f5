import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import noisyfit

ROOT = Path(noisyfit.__file__).parent
FLOORS: list[tuple[int, set[str]]] = [  # rooms of the same number do not know each other
    (
        0,
        {
            "exceptions",
            "validation",
            "documentation",
            "synonyms",
            "files",
        },
    ),
    (0, {"parameters"}),
    (0, {"torch_state", "devices"}),
    (1, {"noise", "quality", "plots"}),
    (1, {"datasets"}),
    (1, {"nn"}),
    (2, {"metrics", "selection"}),
    (1, {"packing", "fitted"}),
    (2, {"data", "identity", "checkpoint", "persistence"}),
    (3, {"engine"}),
    (3, {"inputs", "labels"}),
    (3, {"pilot"}),
    (4, {"warmup"}),
    (4, {"base"}),
    (5, {"peers"}),
    (5, {"metalearning"}),
    (6, {"methods"}),
    (7, {"cli", "benchmark"}),
]
MODULES = [file for file in sorted(ROOT.rglob("*.py")) if file != ROOT / "__init__.py"]
SHUNNED = {  # third parties that a room must not import when it is imported
    "exceptions": {"torch", "skorch", "sklearn"},
    "noise": {"torch", "skorch", "torchvision", "matplotlib"},
    "datasets": {"skorch", "torchvision", "PIL", "pandas", "matplotlib"},
    "nn": {"skorch", "sklearn"},
    "metrics": {"torch", "skorch", "torchvision", "matplotlib"},
    "data": {"skorch", "sklearn"},
    "engine": {"sklearn"},
    "inputs": {"skorch"},
}


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


def room(name: str) -> int:
    """Return the position in FLOORS of a path within the package."""
    found = [i for i, (_, names) in enumerate(FLOORS) if name.split(".")[0] in names]
    assert found, f"noisyfit/{name} stands on no floor: give it one in FLOORS"
    return found[0]


def path_in_package(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("file", MODULES, ids=path_in_package)
def test_no_module_imports_a_floor_above_it(file: Path) -> None:
    own = path_in_package(file)
    for name in imports(file, ast.parse(file.read_text())):
        if not name.startswith("noisyfit.") or name == "noisyfit.__version__":
            continue
        target = home(name).removeprefix("noisyfit.")
        above = FLOORS[room(target)][0] > FLOORS[room(own)][0]
        beside = FLOORS[room(target)][0] == FLOORS[room(own)][0] and room(target) != room(own)
        assert not above, f"{own} imports {name}, which is on a floor above"
        assert not beside, f"{own} imports {name}, a neighbour it must not know"
        if target.startswith("methods.") and own.startswith("methods."):
            echoalign = "methods.echoalign", "methods.flywheel"  # which asks another method
            asked = echoalign if own.startswith("methods.echoalign") else ()
            known = ("methods.cross_entropy", *asked)
            assert target.startswith(known), f"{own} imports {name}"
        if target.split(".")[0] == "labels":
            assert own in ("base", "methods.echoalign.classifier"), f"{own} imports {name}"
        if target.split(".")[0] in ("engine", "inputs"):
            assert own == "base", f"{own} imports {name}, which is for base alone"


@pytest.mark.parametrize("file", MODULES, ids=path_in_package)
def test_no_module_imports_a_third_party_that_is_not_for_its_floor(file: Path) -> None:
    names = next(
        (s for key, s in SHUNNED.items() if room(key) == room(path_in_package(file))), set()
    )
    at_import = [node for node in ast.parse(file.read_text()).body if not isinstance(node, ast.If)]
    for statement in at_import:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            found = {name.split(".")[0] for name in imports(file, ast.Module([statement], []))}
            assert not found & names


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
