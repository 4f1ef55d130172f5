"""Learn the right classifier from wrong labels, and say which labels are wrong.

Public names load on first use, so that ``import noisyfit`` costs milliseconds.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "NoisyLabelClassifier": "noisyfit.base",
    "CrossEntropyClassifier": "noisyfit.methods.cross_entropy",
    "FlywheelClassifier": "noisyfit.methods.flywheel",
    "NoisyFitError": "noisyfit.exceptions",
    "NoisyFitWarning": "noisyfit.exceptions",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    try:
        return import_module(f"noisyfit.{name}")
    except ModuleNotFoundError:
        raise AttributeError(f"module 'noisyfit' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted(__all__)
