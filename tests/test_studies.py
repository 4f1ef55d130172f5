"""The studies run from the command line, and print figures that can be true."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.test_datasets import make_mnist

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
STUDIES = ROOT / "examples/studies"
COST_SECTIONS = {
    "table": ["CrossEntropyClassifier", "raw loop again", "predict_proba"],
    "methods": ["flywheel", "hrp", "divide_mix"],
    "meta": ["meta step every batch", "low memory", "last stage", "head", "double backward"],
    "hrp": ["without reliabilities again", "every step", "every 4 steps"],
    "rld": ["RLDClassifier", "RLDClassifier, 50 steps"],
    "images": ["CrossEntropyClassifier", "FlywheelClassifier, 8 cycles"],
}


def printed(study: str, *arguments: str) -> str:
    """Run a study with the package that is tested, installed or not."""
    command = [sys.executable, str(STUDIES / f"{study}.py"), *arguments]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+\.\d+", text)]


@pytest.mark.parametrize(
    "study, arguments",
    [
        ("cost", ["--device", "cuda:99"]),
        ("cost", ["no_such_section"]),
        ("cost", ["--rounds", "-1"]),
        ("ood", ["--rate", "1"]),
        ("ood", ["--seeds", "-1"]),
        ("ood", ["--methods", "no_such"]),
        ("ranking", ["rates", "--epochs", "0"]),
    ],
)
def test_wrong_argument__is_refused(
    study: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        runpy.run_path(str(STUDIES / f"{study}.py"))["main"](arguments)
    assert exit_info.value.code == 2
    assert "must " in capsys.readouterr().err.splitlines()[-1]


@pytest.fixture(scope="module")
def costs() -> str:
    return printed("cost", "--device", "cpu", "--rounds", "1", "--rows", "16", "--width", "4")


@pytest.mark.parametrize("section", COST_SECTIONS)
def test_cost__each_section__times_what_it_names(section: str, costs: str) -> None:
    """The section ``meta`` called the weight network without labels."""
    for name in COST_SECTIONS[section]:
        found = re.search(rf"^  {name} +([\d.]+) ms  \[[\d., ]+\] +([\d.]+) x$", costs, re.M)
        assert found, (name, costs)
        assert min(map(float, found.groups())) > 0


def test_cost__meta_steps_by_a_second_order_graph__cost_more_than_plain_ones(costs: str) -> None:
    (ratio,) = re.findall(r"double backward .* ([\d.]+) x", costs)
    assert float(ratio) > 1


def test_cost__memory__says_a_peak_for_each_method(costs: str) -> None:
    peaks = re.findall(r"^  (\S.*\S) +(\d+|nan) MB$", costs, re.M)
    assert [name for name, _ in peaks] == [
        "CrossEntropyClassifier",
        "meta steps",
        "meta steps, low memory",
        "HRP without reliabilities",
        "HRP",
    ]


def test_cost__growth__says_time_and_memory_of_each_method_and_size(costs: str) -> None:
    found = re.findall(r"^  (\w+) +([\d.]+) us a row +(\d+|nan) MB +[\d.]+ s", costs, re.M)
    assert len(found) == 2 * len({name for name, *_ in found}) > 20
    assert all(float(row) > 0 for _, row, _ in found)


def test_ood__digits__mixed_pixels_are_told_from_digits() -> None:
    options = ["--methods", "cross_entropy", "--rate", "0.2", "--seeds", "0", "--epochs", "15"]
    said = printed("ood", *options)
    assert numbers(re.findall(r"cross_entropy: .* %", said)[0])[0] > 80
    found = dict(re.findall(r"mixed pixels +(\w+) +AUROC +([\d.]+)", said))
    assert set(found) == {"msp", "energy", "mahalanobis", "knn"}
    assert float(found["knn"]) > 80
    assert len(re.findall(r"held-out classes .*FPR95", said)) == 4


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with 40 photographs of ten classes, and MNIST."""
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 10
    sets = ("clean", "aggre", "worst", "random1", "random2", "random3", "test")
    arrays: dict[str, NDArray[Any]] = {f"y_{name}": labels for name in sets}
    arrays |= {f"{name}_index": np.arange(40) for name in ("train", "test")}
    for part in ("train", "test"):
        arrays[f"x_{part}"] = rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    arrays |= {"test_human_counts": np.ones((40, 10)), "class_names": np.array(list("abcdefghij"))}
    np.savez(tmp_path / "cifar10n.npz", **arrays)  # type: ignore[arg-type]
    make_mnist(tmp_path)
    monkeypatch.setenv("NOISYFIT_DATA", str(tmp_path))


@pytest.mark.usefixtures("home")
def test_ood__cifar10n__unknown_rows_are_of_the_sets_that_are_there() -> None:
    options = ["--data", "cifar10n", "--methods", "cross_entropy", "--rate", "0.2", "--seeds", "0"]
    said = printed("ood", *options, "--rows", "20", "--epochs", "2")
    for name in ("svhn", "lsun", "places365", "textures"):
        assert f"without {name}: The folder must hold" in said
    assert "without mnist" not in said
    lines = re.findall(r"^  (held-out classes|mnist) +\w+ +AUROC (.*), FPR95 (.*)$", said, re.M)
    assert len(lines) == 8
    assert all(0 <= number <= 100 for _, *figures in lines for number in numbers(str(figures)))


def test_ranking__rates__clean_cross_entropy_grows_with_the_noise() -> None:
    said = printed("ranking", "rates", "--rows", "300", "--epochs", "10", "--seeds", "0")
    (figures,) = re.findall(r"^  clean cross-entropy +(.*) \+/-", said, re.M)
    by_rate = numbers(figures)
    assert len(by_rate) == 5
    assert by_rate[0] < by_rate[2] < by_rate[4]
    correlations = numbers(*re.findall(r"correlation with CLID: last epoch (.*?) \(", said))
    assert -1 <= correlations[0] <= 1


def test_ranking__settings__no_rule_is_above_the_oracle() -> None:
    said = printed("ranking", "settings", "--rows", "150", "--seeds", "0")
    mean = said[said.index("mean over 1 seeds") :]
    gained = {
        name: float(value) for name, value in re.findall(r"^  (.+?) {2,}([\d.]+) \+", mean, re.M)
    }
    assert set(gained) >= {"neg_clid", "plain CLID", "noisy accuracy"}
    oracle = float(re.findall(r"oracle +([\d.]+) \+", mean)[0])
    assert max(gained.values()) <= oracle <= 100


@pytest.mark.parametrize("study", ["cost", "ood", "ranking"])
def test_help__names_the_study_and_its_options(
    study: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        runpy.run_path(str(STUDIES / f"{study}.py"))["main"](["--help"])
    assert exit_info.value.code == 0
    said = capsys.readouterr().out
    assert f"examples/studies/{study}.py" in said
    assert "--threads" in said
