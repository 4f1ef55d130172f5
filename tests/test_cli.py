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
from noisyfit.cli import CARD_HEIGHT, CARD_WIDTH, HEADER, PAPER, Suspects, draw_suspects, main

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
    ],
)
def test_main__wrong_arguments__says_what_must_hold(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err


def test_importing_the_command_line_loads_no_torch() -> None:
    code = "import sys, noisyfit.cli; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
