"""Pictures on the page are small."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from noisyfit.auditing.thumbnails import thumbnail

Image = pytest.importorskip("PIL.Image", reason="needs Pillow")


def opened(content: bytes) -> Any:
    return Image.open(BytesIO(content))


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "1", "I;16"])
def test_thumbnail__of_any_file__is_a_small_jpeg(tmp_path: Path, mode: str) -> None:
    file = tmp_path / ("x.tiff" if mode == "CMYK" else "x.png")
    Image.new(mode, (600, 300)).save(file)
    small = opened(thumbnail(file))
    assert (small.format, small.mode, small.size) == ("JPEG", "RGB", (128, 64))
    assert len(thumbnail(file)) < 3000


def test_thumbnail__transparency__becomes_white(tmp_path: Path) -> None:
    Image.new("RGBA", (9, 9), (0, 0, 0, 0)).save(tmp_path / "x.png")
    assert opened(thumbnail(tmp_path / "x.png")).getpixel((4, 4)) == (255, 255, 255)


def test_thumbnail__small_picture__is_not_enlarged() -> None:
    assert opened(thumbnail(np.zeros((8, 6), np.uint8))).size == (6, 8)


def test_thumbnail__turned_photograph__stands_upright(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # orientation: by a quarter
    Image.new("RGB", (60, 30)).save(tmp_path / "x.jpg", exif=turned)
    assert opened(thumbnail(tmp_path / "x.jpg")).size == (30, 60)


def test_thumbnail__no_picture__is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("no picture")
    with pytest.raises(OSError, match="cannot identify"):
        thumbnail(tmp_path / "x.png")
