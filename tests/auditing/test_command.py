"""The commands that follow an audit."""

import subprocess
import sys
from pathlib import Path

import pytest

from noisyfit.auditing import decisions
from noisyfit.cli import main
from tests.auditing.folders import write_audit


@pytest.fixture
def audit(tmp_path: Path) -> Path:
    data = tmp_path / "pets.csv"
    data.write_text("kind,name\ncat,Tom\ndog,Rex\n")
    rows = [("0", "cat", "dog", "change"), ("1", "dog", "dog", "keep")]
    return write_audit(tmp_path / "audit", data, rows)


def test_apply__writes_and_says_what_changed(
    audit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = audit.parent / "cleaned.csv"
    assert main(["apply", str(audit), "--to", str(to), "--only", "confident"]) == 0
    assert capsys.readouterr().out == f"Written: {to}. 1 of 2 labels changed.\n"
    assert to.read_text() == "kind,name\ndog,Tom\ndog,Rex\n"
    with pytest.raises(SystemExit):
        main(["apply", str(audit), "--to", str(to)])
    assert "Pass --force" in capsys.readouterr().err
    assert main(["apply", str(audit), "--to", str(to), "--force"]) == 0
    assert to.read_text() == "kind,name\ncat,Tom\ndog,Rex\n"


def test_apply__torn_decision__is_warned_about(audit: Path) -> None:
    decisions.open_log(audit / decisions.NAME)
    with open(audit / decisions.NAME, "a") as file:
        file.write("2026-01-01,0,acc")
    with pytest.warns(UserWarning, match="must be whole"):
        main(["apply", str(audit), "--to", str(audit.parent / "cleaned.csv")])


@pytest.mark.parametrize("name", ["starlette", "uvicorn"])
def test_review__without_the_extra__names_it(
    audit: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit):
        main(["review", str(audit)])
    assert (
        f"needs {name}. Install it with: pip install 'noisyfit[review]'" in capsys.readouterr().err
    )


def test_writing_a_report__loads_nothing_heavy() -> None:
    heavy = ["torch", "numpy", "matplotlib", "starlette", "PIL"]
    code = (
        "import sys; from noisyfit.auditing.page import Summary, render; render(Summary('x'), []); "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
