import re
from pathlib import Path
from typing import Any

import pytest
import sklearn
from sklearn.ensemble import HistGradientBoostingClassifier

ROOT = Path(__file__).parents[1]
README, GUIDE = ROOT / "README.md", ROOT / "docs" / "guide.md"
CLEANING = ROOT / "docs" / "cleaning.md"


def blocks_of(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)\n```$", page.read_text(), re.M | re.S)


def run(page: Path) -> dict[str, Any]:
    """Run the Python blocks of a page one after the other, and return their names."""
    names: dict[str, Any] = {"__name__": "page"}
    with sklearn.config_context():  # a block switches metadata routing on
        for number, block in enumerate(blocks_of(page, "python")):
            exec(compile(block, f"{page.name}, python block {number + 1}", "exec"), names)
    return names


@pytest.mark.slow
def test_readme__five_lines__find_issues() -> None:
    assert run(README)["issues"]["is_label_issue"].any()


@pytest.mark.long
def test_guide__blocks_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = run(GUIDE)
    assert (names["same"].predict(names["X"]) == names["checked"].predict(names["X"])).all()
    assert not any(Path("checkpoints").glob("*"))


@pytest.mark.slow
def test_cleaning__blocks_run__and_cleaned_labels_teach_more() -> None:
    names = run(CLEANING)
    plain = HistGradientBoostingClassifier(random_state=0).fit(names["X"], names["y_noisy"])
    assert names["accuracy"] > plain.score(names["X_test"], names["y_test"]) + 0.03
    assert names["mixed"].estimator_.is_categorical_.sum() == 1


def test_the_two_commands_for_an_empty_machine_come_first() -> None:
    commands = blocks_of(README, "sh")
    assert commands[0] == "pip install . && noisyfit demo"
    assert commands[1] == 'pip install -e ".[test]" && pytest'
