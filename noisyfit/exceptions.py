"""Errors and warnings of the package."""

import sys
import warnings


class NoisyFitWarning(UserWarning):
    """Something works, but not as well as it could; the message names the remedy."""


class NoisyFitError(RuntimeError):
    """Training cannot continue; the message says what happened and what to do."""


def warn(message: str) -> None:
    """Give a `NoisyFitWarning` at the line that called the package."""
    frame, level = sys._getframe(), 1
    while _is_ours(frame.f_globals.get("__name__", "")) and frame.f_back:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, NoisyFitWarning, stacklevel=level)


def _is_ours(module: str) -> bool:
    return module.startswith("noisyfit.") or module == "contextlib"
