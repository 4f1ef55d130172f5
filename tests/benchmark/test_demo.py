import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor
from scipy import ndimage

from noisyfit.benchmark.contenders import short_name
from noisyfit.benchmark.demo import (
    CARD_HEIGHT,
    CARD_WIDTH,
    HEADER,
    PAPER,
    Suspects,
    draw_suspects,
)
from noisyfit.cli import _parser, main
from tests.helpers import all_estimators

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


@pytest.mark.long
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
    (command,) = re.findall(r"noisyfit (audit .+)", out)
    assert _parser().parse_args(command.split()).label == "COLUMN"
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert image.width > 1000
        assert image.height > 900
        cards = cards_of(image)
    assert len(cards) == 24
    sizes = {(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in cards}
    assert sizes == {(CARD_HEIGHT, CARD_WIDTH)}
    assert len({columns.start for _, columns in cards}) == 6


@pytest.mark.long
def test_demo_all__prints_a_line_for_every_method(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--all", "--epochs", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = {short_name(cls.__name__) for cls in all_estimators()}
    found = [line.split() for line in lines if line.split(" ")[0] in names]
    assert {name for name, *_ in found} == names
    for _, accuracy, auroc, _ in found:
        assert 0 < float(accuracy) <= 100  # two epochs are too few for more
        assert 0 <= float(auroc) <= 1


@pytest.mark.parametrize("n", [1, 6, 7])
def test_draw_suspects__any_number__draws_one_card_each(n: int) -> None:
    digits = np.arange(n) % 10
    suspects = Suspects(np.full((n, 8, 8), 8.0), digits, digits, digits)
    assert len(cards_of(draw_suspects(suspects, "title", "subtitle"))) == n
