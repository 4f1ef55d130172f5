"""Progress bars."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm

PATIENCE = 3  # seconds before a bar that nobody asked for appears


def progress_bar(total: int, unit: str, verbose: bool) -> Any:
    """Return a progress bar; unless asked for, on a terminal only and not at once."""
    if verbose:
        return tqdm(total=total, unit=unit)
    return tqdm(total=total, unit=unit, disable=None, delay=PATIENCE)
