"""Files as cameras, scanners and programs write them."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from noisyfit.embedding.images import ImagePaths, Readable, Unreadable, read_image
from noisyfit.nn.input_layer import resized

RNG = np.random.default_rng(0)
SIZE = 16
RGB = RNG.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


def read(image: Any, path: Path, **how: Any) -> Tensor:
    """Write an image and return its pixels (H, W, 3)."""
    image.save(path, **how)
    found = read_image(ImagePaths([path]), 0, SIZE, None)
    assert isinstance(found, Readable)
    assert found.pixels is not None
    return found.pixels.permute(1, 2, 0)


def expect(found: Tensor, pixels: Any, atol: float = 0.0) -> None:
    np.testing.assert_allclose(found.numpy(), np.asarray(pixels, np.float32), atol=atol)


def test_rgb__as_it_is(tmp_path: Path) -> None:
    expect(read(Image.fromarray(RGB), tmp_path / "a.png"), RGB)


def test_grey__three_equal_channels(tmp_path: Path) -> None:
    expect(read(Image.fromarray(RGB[..., 0]), tmp_path / "a.png"), np.stack([RGB[..., 0]] * 3, 2))


def test_sixteen_bits__scaled_not_clipped(tmp_path: Path) -> None:
    grey = RGB[..., 0].astype(np.uint16) * 257
    for name in ("a.png", "a.tif"):
        found = read(Image.fromarray(grey), tmp_path / name)
        expect(found, np.stack([RGB[..., 0]] * 3, 2), atol=1e-3)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha__on_white(tmp_path: Path, mode: str) -> None:
    alpha = RNG.integers(0, 256, (SIZE, SIZE), dtype=np.uint8)
    image = Image.fromarray(RGB).convert(mode[:-1])
    opaque = np.asarray(image.convert("RGB"), np.float32)
    image.putalpha(Image.fromarray(alpha))
    share = alpha[..., None] / 255
    expect(read(image, tmp_path / "a.png"), opaque * share + 255 * (1 - share), atol=1e-3)


def test_palette__its_colours_and_what_is_transparent_white(tmp_path: Path) -> None:
    image = Image.fromarray(RGB).quantize(8)
    colours = np.asarray(image.convert("RGB"))
    expect(read(image, tmp_path / "a.png"), colours)
    white = np.where((np.asarray(image) == 3)[..., None], 255, colours)
    expect(read(image, tmp_path / "b.png", transparency=3), white)


def test_cmyk_jpeg__close_to_its_rgb(tmp_path: Path) -> None:
    plain = Image.new("RGB", (SIZE, SIZE), (200, 100, 50))
    found = read(plain.convert("CMYK"), tmp_path / "a.jpg", quality=100)
    expect(found, plain, atol=8)


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [(3, lambda x: np.rot90(x, 2)), (6, lambda x: np.rot90(x, -1)), (8, lambda x: np.rot90(x))],
)
def test_orientation_of_the_camera__is_undone(
    tmp_path: Path, orientation: int, upright: Any
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    expect(read(Image.fromarray(RGB), tmp_path / "a.png", exif=exif), upright(RGB))


def test_large_jpeg__decoded_at_a_fraction__looks_the_same(tmp_path: Path) -> None:
    smooth = np.linspace(0, 255, 800, dtype=np.uint8)[:, None, None].repeat(600, 1).repeat(3, 2)
    found = read(Image.fromarray(smooth), tmp_path / "a.jpg", quality=95)
    x = torch.tensor(smooth).permute(2, 0, 1)[None].float()
    expect(found, resized(x, SIZE)[0].permute(1, 2, 0), 4)


def test_animation__first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (SIZE, SIZE), colour) for colour in ("red", "blue")]
    found = read(frames[0], tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    expect(found, frames[0])


def test_floats__scale_is_not_known__unreadable(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(RGB[..., 0].astype(np.float32)).save(path)
    found = read_image(ImagePaths([path]), 0, SIZE, None)
    assert isinstance(found, Unreadable)
    assert "float" in found.reason


def test_decompression_bomb__unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    Image.fromarray(RGB).save(tmp_path / "a.png")
    found = read_image(ImagePaths([tmp_path / "a.png"]), 0, SIZE, None)
    assert isinstance(found, Unreadable)
    assert "bomb" in found.reason


def test_truncated_files__wherever_they_end__unreadable(tmp_path: Path) -> None:
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"):
        stream = BytesIO()
        Image.fromarray(RGB).save(stream, kind)
        content = stream.getvalue()
        for share in (0.05, 0.3, 0.6):
            path = tmp_path / "cut"
            path.write_bytes(content[: int(share * len(content))])
            found = read_image(ImagePaths([path]), 0, SIZE, None)
            assert isinstance(found, Unreadable), f"{kind} {share}"
            assert found.reason


def test_known_key__is_not_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(RGB).save(path)
    first = read_image(ImagePaths([path]), 0, SIZE, None)
    assert isinstance(first, Readable)
    assert read_image(ImagePaths([path]), 0, SIZE, {first.key}) == Readable(first.key, None)
