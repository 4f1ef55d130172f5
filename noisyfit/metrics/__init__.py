"""Score findings about labels against the truth, and networks without it."""

from noisyfit.metrics.detection import (
    corrected_accuracy,
    detection_auroc,
    detection_average_precision,
    precision_at_n,
    transition_matrix_error,
)
from noisyfit.metrics.divergence import (
    clid,
    epoch_correlation,
    neg_clid,
    relative_performance_ratio,
    standardized_clid,
)
from noisyfit.metrics.ood import fpr_at_95_tpr, ood_auroc, ood_scores
from noisyfit.metrics.relabelling import relabelled_share

__all__ = [
    "corrected_accuracy",
    "detection_auroc",
    "detection_average_precision",
    "precision_at_n",
    "transition_matrix_error",
    "clid",
    "epoch_correlation",
    "neg_clid",
    "relative_performance_ratio",
    "standardized_clid",
    "fpr_at_95_tpr",
    "ood_auroc",
    "ood_scores",
    "relabelled_share",
]
