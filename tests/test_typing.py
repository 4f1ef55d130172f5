"""Types as mypy and pyright read them in a user's script, from an installed package."""

import inspect
import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from shutil import copyfile, copytree, ignore_patterns
from types import FunctionType
from typing import Any
from zipfile import ZipFile

import pytest
import torch

from noisyfit import NoisyLabelClassifier
from noisyfit.estimator import bases
from noisyfit.estimator.keywords import RoutedParameters, SharedParameters
from noisyfit.nn.backbones.cnn import CNN
from noisyfit.nn.backbones.mlp import MLP
from noisyfit.nn.build import parameter_names

ROOT = Path(__file__).parents[1]
SCRIPT = """\
import numpy as np

from noisyfit import CLIDMetaClassifier, EchoAlignClassifier, EchoSelect, ELRClassifier
from noisyfit import FlywheelClassifier, neg_clid, noise

X = np.zeros((60, 4))
y = noise.symmetric(np.arange(60) % 2, 0.2, random_state=0).labels
clf = ELRClassifier(max_epochs=2, lr=0.1, regularization=3.0, module__width=64, random_state=0)
clf.set_params(module__my_own=3).fit(X, y, clean_mask=None)
issues = clf.set_output(transform="pandas").label_issues()
score: float = clf.score(X, y)
print(clf.label_quality_.mean(), clf.classes_, clf.history_, clf.n_features_in_, clf.module_)
print(clf.forward(X).shape, clf.get_params()["lr"], clf.predict(X).shape, clf.transform(X).dtype)
print(FlywheelClassifier(optimizer__momentum=0.8).fit(X, y).main_, neg_clid(clf, X))
print(CLIDMetaClassifier(meta_model="vri").fit(X, y, X_meta=X, y_meta=y))
print(EchoAlignClassifier(clf, EchoSelect(n_rounds=1)).fit(X, y).support_)

ELRClassifier(max_epoch=2)  # wrong
ELRClassifier(max_epochs="2")  # wrong
ELRClassifier(regularisation=3.0)  # wrong
ELRClassifier(module__widht=64)  # wrong
FlywheelClassifier(optimizer__momentun=0.8)  # wrong
EchoAlignClassifier(clf, finetune_epoch=1)  # wrong
clf.fitt(X, y)  # wrong
clf.fit(X, y, clean_mask=None).label_qualty_  # wrong
clf.label_issue()  # wrong
clf.notifi("on_train_begin")  # wrong
clf.trim_for_prediction()  # wrong
clf.set_output(transform="panda")  # wrong
EchoSelect().fit_transfrom(X, y)  # wrong
neg_clidd = neg_clid.scores  # wrong
"""
WRONG = [n for n, line in enumerate(SCRIPT.splitlines(), 1) if line.endswith("# wrong")]


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's script beside a folder that the package is installed into, without the checkout."""
    folder = tmp_path_factory.mktemp("user")
    install(folder / "installed")
    path = folder / "script.py"
    path.write_text(SCRIPT)
    return path


def install(target: Path) -> None:
    """Build a wheel from a copy of the checkout, and unpack it."""
    copy = target.with_name("copy")
    copytree(ROOT / "noisyfit", copy / "noisyfit", ignore=ignore_patterns("__pycache__"))
    for name in "setup.cfg", "pyproject.toml", "README.md", "LICENSE":
        copyfile(ROOT / name, copy / name)
    build = "from setuptools.build_meta import build_wheel; build_wheel('.')"
    subprocess.run([sys.executable, "-c", build], cwd=copy, check=True, capture_output=True)
    ZipFile(next(copy.glob("*.whl"))).extractall(target)


def check(script: Path, *command: str) -> str:
    """Return what a type checker says of the script."""
    return subprocess.run(
        [sys.executable, "-m", *command, script.name],
        cwd=script.parent,
        env=os.environ | {"PYTHONPATH": str(script.parent / "installed")},
        capture_output=True,
        text=True,
    ).stdout


def test_wheel__has_the_templates_of_the_page(script: Path) -> None:
    templates = ROOT / "noisyfit/auditing/templates"
    installed = script.parent / "installed/noisyfit/auditing/templates"
    assert {file.name for file in templates.iterdir()} == {
        file.name for file in installed.iterdir()
    }


@pytest.mark.slow
def test_mypy__of_a_users_script__finds_each_misspelling_and_nothing_else(script: Path) -> None:
    found = check(script, "mypy", f"--config-file={ROOT / 'setup.cfg'}")
    lines = re.findall(r"^script.py:(\d+): error: ", found, re.MULTILINE)
    assert sorted({*map(int, lines)}) == WRONG, found


@pytest.mark.skipif(not find_spec("basedpyright"), reason="needs basedpyright")
def test_pyright__of_a_users_script__finds_each_misspelling_and_nothing_else(script: Path) -> None:
    script.with_name("pyrightconfig.json").write_text('{"typeCheckingMode": "standard"}')
    found = json.loads(
        check(script, "basedpyright", f"--pythonpath={sys.executable}", "--outputjson")
    )["generalDiagnostics"]
    lines = {one["range"]["start"]["line"] + 1 for one in found if one["severity"] == "error"}
    assert sorted(lines) == WRONG, found


# What is written down twice.


def test_shared_parameters_are_those_of_the_base() -> None:
    known = dict(inspect.signature(NoisyLabelClassifier).parameters)
    del known["module"]
    written = SharedParameters.__annotations__
    own = written.keys() - RoutedParameters.__annotations__.keys()
    assert {name: written[name].__forward_arg__ for name in own} == {
        name: parameter.annotation for name, parameter in known.items()
    }


def test_routed_parameters_are_those_of_named_networks_and_of_torchs_optimizers() -> None:
    networks = parameter_names(MLP) | parameter_names(CNN) | parameter_names("resnet18")
    optimizers = parameter_names(torch.optim.SGD) | parameter_names(torch.optim.AdamW)
    known = {f"module__{name}" for name in networks - {"n_features", "in_channels", "n_classes"}}
    known |= {f"optimizer__{name}" for name in optimizers | {"param_groups"}}
    routed = RoutedParameters.__annotations__.keys()
    assert routed <= known
    assert not {name for name in known - routed if name.startswith("module")}


STUB = runpy.run_path(str(ROOT / "noisyfit/estimator/bases.pyi"))
BASES = [name for name in vars(bases) if not name.startswith("_")]


@pytest.mark.parametrize("name", BASES)
def test_stub_has_the_members_of_the_installed_libraries(name: str) -> None:
    for member, written in vars(STUB[name]).items():
        if member.endswith("_request"):  # written by scikit-learn for each class
            assert hasattr(NoisyLabelClassifier, member)
        elif isinstance(written, property):
            assert isinstance(getattr(bases, name).__dict__[member], property)
        elif isinstance(written, FunctionType):
            assert outline(written) == outline(getattr(getattr(bases, name), member)), member


def outline(function: Callable[..., Any]) -> list[tuple[str, Any]]:
    parameters = inspect.signature(inspect.unwrap(function)).parameters.values()
    return [(parameter.name, parameter.kind) for parameter in parameters]
