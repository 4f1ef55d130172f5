"""Small pictures for the page."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

SIDE = 128  # pixels of the longer side
QUALITY = 80  # of JPEG


def thumbnail(picture: str | Path | Any, side: int = SIDE) -> bytes:
    """Return a picture as a small JPEG file.

    Parameters
    ----------
    picture : path, or ndarray of shape (H, W) or (H, W, 3) with uint8 from 0 to 255
    side : int, default=128
        Pixels of the longer side at most. Pictures are not enlarged.

    Raises
    ------
    ImportError
        If Pillow, of the extra ``images``, is not installed.
    OSError
        If a file is no picture that Pillow can read.
    """
    try:
        from PIL import Image, ImageOps
    except ModuleNotFoundError as error:
        raise ImportError(
            "Pictures on the page need Pillow. Install it with: pip install 'noisyfit[images]'"
        ) from error
    opened = Image.open(picture) if isinstance(picture, str | Path) else Image.fromarray(picture)
    with opened as image:
        image.draft("RGB", (side, side))  # JPEG files need not be decoded at full size
        turned = ImageOps.exif_transpose(image).convert("RGBA")
    turned.thumbnail((side, side))
    paper = Image.new("RGBA", turned.size, "white")
    written = BytesIO()
    Image.alpha_composite(paper, turned).convert("RGB").save(written, "JPEG", quality=QUALITY)
    return written.getvalue()
