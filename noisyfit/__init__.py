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
    "CLIDMetaClassifier": "noisyfit.methods.clid",
    "HRPClassifier": "noisyfit.methods.hrp",
    "RLDClassifier": "noisyfit.methods.rld",
    "ELRClassifier": "noisyfit.methods.elr",
    "GCEClassifier": "noisyfit.methods.gce",
    "MixUpClassifier": "noisyfit.methods.mixup",
    "CoTeachingClassifier": "noisyfit.methods.coteaching",
    "DivideMixClassifier": "noisyfit.methods.dividemix",
    "EchoAlignClassifier": "noisyfit.methods.echoalign",
    "EchoMod": "noisyfit.echo",
    "EchoSelect": "noisyfit.echo",
    "EchoSelectSampler": "noisyfit.echo",
    "neg_clid": "noisyfit.selection",
    "NoisyFitError": "noisyfit.exceptions",
    "NoisyFitWarning": "noisyfit.exceptions",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    try:
        return import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise  # the submodule exists, something it needs does not
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted(__all__)
