"""What `AutoClassifier` chooses from."""

from __future__ import annotations

from typing import Any

from scipy.sparse import issparse
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from noisyfit.estimator.delegation import boosted_trees, suits_trees
from noisyfit.methods.clid import CLIDMetaClassifier
from noisyfit.methods.coteaching import CoTeachingClassifier
from noisyfit.methods.cross_entropy import CrossEntropyClassifier
from noisyfit.methods.dividemix import DivideMixClassifier
from noisyfit.methods.echoalign.classifier import EchoAlignClassifier
from noisyfit.methods.elr import ELRClassifier
from noisyfit.methods.flywheel import FlywheelClassifier
from noisyfit.methods.gce import GCEClassifier
from noisyfit.methods.hrp import HRPClassifier
from noisyfit.methods.rld import RLDClassifier
from noisyfit.utils.validation import count_rows

METHODS: dict[str, type[Any]] = {  # from cheap to costly
    "cross_entropy": CrossEntropyClassifier,
    "gce": GCEClassifier,
    "elr": ELRClassifier,
    "co_teaching": CoTeachingClassifier,
    "flywheel": FlywheelClassifier,
    "divide_mix": DivideMixClassifier,
    "clid_meta": CLIDMetaClassifier,
    "rld": RLDClassifier,
    "hrp": HRPClassifier,
}


def default_candidates(X: Any, **shared: Any) -> list[tuple[str, Any]]:
    """Return named classifiers, from cheap to costly.

    Parameters
    ----------
    X : array-like, sparse matrix or data frame
        On tables, logistic regression, a vote of neighbours and gradient boosting take part.
    **shared
        Parameters of all networks; None keeps their defaults.
    """
    given = {name: value for name, value in shared.items() if value is not None}
    networks: dict[str, Any] = {name: method(**given) for name, method in METHODS.items()}
    networks["echo_align"] = EchoAlignClassifier(CrossEntropyClassifier(**given))
    return [*_of_tables(X).items(), *networks.items()]


def _of_tables(X: Any) -> dict[str, Any]:
    if getattr(X, "ndim", 0) != 2:
        return {}
    sparse = issparse(X)
    found: dict[str, Any] = {
        "logistic": LogisticRegression(max_iter=1000),
        "neighbors": KNeighborsClassifier(max(1, round(count_rows(X) ** 0.5 / 2))),
    }
    found = {
        name: make_pipeline(StandardScaler(with_mean=not sparse), classifier)
        for name, classifier in found.items()
    }
    if suits_trees(X):
        found["boosting"] = boosted_trees()
    return found
