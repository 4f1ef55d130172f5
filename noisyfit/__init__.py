"""Learn the right classifier from wrong labels, and find out which labels are wrong.

Public names load on first use, so that ``import noisyfit`` costs milliseconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # read by type checkers and editors; `__getattr__` below imports them
    from noisyfit.auditing.audit import audit as audit
    from noisyfit.auditing.findings import Audit as Audit
    from noisyfit.cleaning import LabelCleaner as LabelCleaner
    from noisyfit.displays.beliefs import BeliefTrajectoryDisplay as BeliefTrajectoryDisplay
    from noisyfit.displays.history import TrainingHistoryDisplay as TrainingHistoryDisplay
    from noisyfit.displays.label_issues import LabelIssuesDisplay as LabelIssuesDisplay
    from noisyfit.displays.label_quality import LabelQualityDisplay as LabelQualityDisplay
    from noisyfit.displays.transition import TransitionMatrixDisplay as TransitionMatrixDisplay
    from noisyfit.embedding.embedder import ImageEmbedder as ImageEmbedder
    from noisyfit.estimator.base import NoisyLabelClassifier as NoisyLabelClassifier
    from noisyfit.exceptions import NoisyFitError as NoisyFitError
    from noisyfit.exceptions import NoisyFitWarning as NoisyFitWarning
    from noisyfit.methods.clid import CLIDMetaClassifier as CLIDMetaClassifier
    from noisyfit.methods.coteaching import CoTeachingClassifier as CoTeachingClassifier
    from noisyfit.methods.cross_entropy import CrossEntropyClassifier as CrossEntropyClassifier
    from noisyfit.methods.dividemix import DivideMixClassifier as DivideMixClassifier
    from noisyfit.methods.echoalign.classifier import EchoAlignClassifier as EchoAlignClassifier
    from noisyfit.methods.echoalign.transformers import EchoMod as EchoMod
    from noisyfit.methods.echoalign.transformers import EchoSelect as EchoSelect
    from noisyfit.methods.echoalign.transformers import EchoSelectSampler as EchoSelectSampler
    from noisyfit.methods.elr import ELRClassifier as ELRClassifier
    from noisyfit.methods.flywheel import FlywheelClassifier as FlywheelClassifier
    from noisyfit.methods.gce import GCEClassifier as GCEClassifier
    from noisyfit.methods.hrp import HRPClassifier as HRPClassifier
    from noisyfit.methods.mixup import MixUpClassifier as MixUpClassifier
    from noisyfit.methods.rld import RLDClassifier as RLDClassifier
    from noisyfit.methods.semisupervised import (
        SemiSupervisedClassifier as SemiSupervisedClassifier,
    )
    from noisyfit.methods.symmetric_cross_entropy import (
        SymmetricCrossEntropyClassifier as SymmetricCrossEntropyClassifier,
    )
    from noisyfit.metrics.divergence import neg_clid as neg_clid
    from noisyfit.selection.auto import AutoClassifier as AutoClassifier

__version__ = "0.1.0"

_HOME = {
    "NoisyLabelClassifier": "noisyfit.estimator.base",
    "CrossEntropyClassifier": "noisyfit.methods.cross_entropy",
    "FlywheelClassifier": "noisyfit.methods.flywheel",
    "CLIDMetaClassifier": "noisyfit.methods.clid",
    "HRPClassifier": "noisyfit.methods.hrp",
    "RLDClassifier": "noisyfit.methods.rld",
    "ELRClassifier": "noisyfit.methods.elr",
    "GCEClassifier": "noisyfit.methods.gce",
    "SymmetricCrossEntropyClassifier": "noisyfit.methods.symmetric_cross_entropy",
    "MixUpClassifier": "noisyfit.methods.mixup",
    "CoTeachingClassifier": "noisyfit.methods.coteaching",
    "DivideMixClassifier": "noisyfit.methods.dividemix",
    "SemiSupervisedClassifier": "noisyfit.methods.semisupervised",
    "EchoAlignClassifier": "noisyfit.methods.echoalign.classifier",
    "AutoClassifier": "noisyfit.selection.auto",
    "LabelCleaner": "noisyfit.cleaning",
    "EchoMod": "noisyfit.methods.echoalign.transformers",
    "EchoSelect": "noisyfit.methods.echoalign.transformers",
    "EchoSelectSampler": "noisyfit.methods.echoalign.transformers",
    "ImageEmbedder": "noisyfit.embedding.embedder",
    "audit": "noisyfit.auditing.audit",
    "Audit": "noisyfit.auditing.findings",
    "neg_clid": "noisyfit.metrics.divergence",
    "BeliefTrajectoryDisplay": "noisyfit.displays.beliefs",
    "LabelIssuesDisplay": "noisyfit.displays.label_issues",
    "LabelQualityDisplay": "noisyfit.displays.label_quality",
    "TrainingHistoryDisplay": "noisyfit.displays.history",
    "TransitionMatrixDisplay": "noisyfit.displays.transition",
    "NoisyFitError": "noisyfit.exceptions",
    "NoisyFitWarning": "noisyfit.exceptions",
}

__all__ = ["__version__", *_HOME]


if not TYPE_CHECKING:  # otherwise type checkers would accept every name

    def __getattr__(name: str) -> Any:
        if name in _HOME:
            return getattr(import_module(_HOME[name]), name)
        try:
            return import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise  # the submodule exists, but something it needs does not
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted(__all__)
