import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from noisyfit import __version__
from noisyfit.benchmark.usage import NOBODY_READS
from noisyfit.cli import main
from tests.helpers import blobs

COMMAND = [sys.executable, "-c", "import sys; from noisyfit.cli import main; sys.exit(main())"]


def test_benchmark__own_table__writes_results_and_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    X, y = blobs(90)
    lines = [",".join(map(str, [*row, f"class {k}"])) for row, k in zip(X, y, strict=True)]
    names = [f"x{i}" for i in range(8)]
    (tmp_path / "own.csv").write_text("\n".join([",".join([*names, "kind"]), *lines]))
    command = ["benchmark", "--data", str(tmp_path / "own.csv"), "--label", "kind", "--seeds", "0"]
    command += ["--methods", "crossentropy", "--epochs", "2", "--device", "cpu"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "1 cells, 0 of them finished before." in out
    assert re.search(r"^\[1/1\] cross_entropy, .*noisy validation labels, .* s; done$", out, re.M)
    assert (tmp_path / "out" / "results.csv").read_text().count("\n") == 2
    assert "own.csv, labels as given" in (tmp_path / "out" / "report.md").read_text()
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    assert "1 cells, 1 of them finished before." in capsys.readouterr().out


def test_benchmark__unknown_network__is_an_error_before_the_first_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["benchmark", "--module", "preact_resnet81", "--out", str(tmp_path / "out")])
    message = r"--module must be one of .*Got 'preact_resnet81'. Did you mean 'preact_resnet18'"
    assert re.search(message, capsys.readouterr().err, re.S)
    assert not (tmp_path / "out").exists()


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["--version"])
    assert exit_info.value.code == 0
    assert capsys.readouterr().out == f"noisyfit {__version__}\n"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "required: command"),
        (["review"], "required: FOLDER"),
        (["review", ".", "--port", "65536"], "at most 65535"),
        (["review", "no-such-folder"], "Got no-such-folder, which has no page.json"),
        (["apply", "no-such-folder", "--to", "x.csv"], "one that noisyfit audit wrote"),
        (["apply", "."], "one of the arguments --to --move --undo is required"),
        (["apply", ".", "--to", "x.csv", "--move"], "not allowed with"),
        (["demo", "--epochs", "1"], "must be at least 2"),
        (["demo", "--epochs", "5", "--quick"], "not allowed with"),
        (["demo", "--output", "no/such/folder/x.png"], "folder that exists"),
        (["benchmark", "--rates", "1"], r"must lie in \[0, 1\)"),
        (["benchmark", "--jobs", "0"], "must be at least 1"),
        (["benchmark", "--epochs", "1"], "must be at least 2"),
        (["benchmark", "--noise", "pair"], "invalid choice"),
        (["benchmark", "--data", "digit"], "Did you mean 'digits'"),
        (["benchmark", "--methods", "flywhel"], "Did you mean 'flywheel'"),
    ],
)
def test_main__wrong_arguments__says_what_must_hold(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_importing_the_command_line_loads_no_torch() -> None:
    code = "import sys, noisyfit.cli; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["benchmark", "--methods", "sklearn+logistic", "--rows", "60", "--dry-run"],
        pytest.param(["demo", "--all", "--epochs", "2"], marks=pytest.mark.long),
    ],
    ids=lambda arguments: arguments[0],
)
def test_reader_that_has_gone__ends_the_command_in_silence(arguments: list[str]) -> None:
    """It was a traceback, as under ``| head``."""
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as pipe:
        done = subprocess.run([*COMMAND, *arguments], stdout=pipe, stderr=subprocess.PIPE)
    assert done.stderr == b""
    assert done.returncode in (0, NOBODY_READS)  # argparse passes over it
