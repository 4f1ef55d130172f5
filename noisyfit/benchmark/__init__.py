"""Measure methods, on the data behind this package's figures or on your own with `compare`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from noisyfit.benchmark.comparison import compare

__all__ = ["compare"]


def __getattr__(name: str) -> Any:
    if name == "compare":  # imported on first use, so that the package stays light
        from noisyfit.benchmark.comparison import compare

        return compare
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
