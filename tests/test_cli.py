import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor
from scipy import ndimage

from noisyfit import __version__
from noisyfit.benchmark.contenders import short_name
from noisyfit.cli import CARD_HEIGHT, CARD_WIDTH, HEADER, PAPER, Suspects, draw_suspects, main
from tests.helpers import all_estimators, blobs

METHODS = [
    (kind, method)
    for kind in ("pairflip 40 %", "symmetric 40 %")
    for method in ("cross-entropy", "flywheel")
]


def cards_of(picture: Image.Image) -> list[tuple[slice, ...]]:
    """Return where something other than the background stands below the header."""
    pixels = np.asarray(picture.convert("RGB"))[HEADER:]
    labels, _ = ndimage.label((pixels != ImageColor.getrgb(PAPER)).any(2))
    return list(ndimage.find_objects(labels))


def test_demo_prints_the_table_and_draws_24_cards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "suspects.png"
    threads = torch.get_num_threads()
    assert main(["demo", "--quick", "--output", str(picture)]) == 0
    assert torch.get_num_threads() == threads
    out = capsys.readouterr().out
    for kind, method in METHODS:
        figures = re.search(rf"^{kind}\s+{method}\s+([\d.]+)\s+([\d.]+)\s+([\d.]+)$", out, re.M)
        assert figures, out
        accuracy, auroc, _ = map(float, figures.groups())
        assert 20 < accuracy <= 100
        assert 0.5 < auroc <= 1
    for table in ("wine 40 %", "breast cancer 30 %"):
        for method in ("cross-entropy", "flywheel"):
            figures = re.search(rf"^{table}\s+{method}\s+([\d.]+)\s+([\d.]+)\s+[\d.]+$", out, re.M)
            assert figures, out
            assert 50 < float(figures[1]) <= 100
    assert str(picture) in out
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert image.width > 1000
        assert image.height > 900
        cards = cards_of(image)
    assert len(cards) == 24
    sizes = {(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in cards}
    assert sizes == {(CARD_HEIGHT, CARD_WIDTH)}
    assert len({columns.start for _, columns in cards}) == 6


def test_demo_all__prints_a_line_for_every_method(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--all", "--epochs", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = {short_name(cls.__name__) for cls in all_estimators()}
    found = [line.split() for line in lines if line.split(" ")[0] in names]
    assert {name for name, *_ in found} == names
    for _, accuracy, auroc, _ in found:
        assert 0 < float(accuracy) <= 100  # two epochs are too few for more
        assert 0 <= float(auroc) <= 1


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


@pytest.mark.parametrize("n", [1, 6, 7])
def test_draw_suspects__any_number__draws_one_card_each(n: int) -> None:
    digits = np.arange(n) % 10
    suspects = Suspects(np.full((n, 8, 8), 8.0), digits, digits, digits)
    assert len(cards_of(draw_suspects(suspects, "title", "subtitle"))) == n


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["--version"])
    assert exit_info.value.code == 0
    assert capsys.readouterr().out == f"noisyfit {__version__}\n"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "required: command"),
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
