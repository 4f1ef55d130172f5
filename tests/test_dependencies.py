"""What the package takes from scikit-learn and skorch."""

import ast
from pathlib import Path

import pytest

from tests.test_floors import MODULES, imports, path_in_package

PRIVATE = {  # what no public name does, and the one module that lends it to the others
    "estimator.bases": {"sklearn.utils.metaestimators._BaseComposition"},
    "utils.parameters": {
        "sklearn.utils._param_validation.HasMethods",
        "sklearn.utils._param_validation.Interval",
        "sklearn.utils._param_validation.StrOptions",
        "sklearn.utils._param_validation.validate_parameter_constraints",
    },
    "utils.validation": {
        "sklearn.utils._safe_indexing",
        "sklearn.utils.validation._num_samples",
    },
}


@pytest.mark.parametrize("file", MODULES, ids=path_in_package)
def test_private_names_of_scikit_learn_and_skorch_have_one_place(file: Path) -> None:
    names = imports(file, ast.parse(file.read_text()))
    parts = {name: name.split(".") for name in names}
    foreign = {name for name, path in parts.items() if path[0] in ("sklearn", "skorch")}
    private = {name for name in foreign if any(part.startswith("_") for part in parts[name])}
    assert private == PRIVATE.get(path_in_package(file), set())
