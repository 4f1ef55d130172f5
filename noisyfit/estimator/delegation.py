"""Classifiers that prepare rows or labels, and leave the rest to other classifiers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from noisyfit.estimator.bases import MetaEstimatorMixin
from noisyfit.utils.validation import count_rows, take_rows

MANY_COLUMNS = 256  # on which trees are slow, and no better


def _has(method: str) -> Any:
    """Whether the classifier, fitted or not, has a method."""

    def check(self: DelegatingClassifier) -> bool:
        getattr(getattr(self, "estimator_", self._chosen_estimator()), method)
        return True

    return check


class DelegatingClassifier(MetaEstimatorMixin):
    """Predicts as ``estimator_``, which a subclass fits."""

    estimator: Any
    estimator_: Any

    def _default_estimator(self) -> Any:
        """Return what ``estimator=None`` stands for."""
        raise NotImplementedError

    def _chosen_estimator(self) -> Any:
        return self._default_estimator() if self.estimator is None else self.estimator

    def _read(self, X: Any) -> Any:
        """Return X as the classifier gets it."""
        return X

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the classifier's class for each row."""
        check_is_fitted(self)
        return self.estimator_.predict(self._read(X))

    @available_if(_has("predict_proba"))
    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Return the probabilities of the classes, shape (n_samples, n_classes)."""
        check_is_fitted(self)
        return self.estimator_.predict_proba(self._read(X))

    @available_if(_has("decision_function"))
    def decision_function(self, X: Any) -> NDArray[Any]:
        """Return the classifier's decision values."""
        check_is_fitted(self)
        return self.estimator_.decision_function(self._read(X))


def boosted_trees() -> HistGradientBoostingClassifier:
    """Return what is often best on a table; early stopping refuses rare classes."""
    return HistGradientBoostingClassifier(early_stopping=False)


def suits_trees(X: Any) -> bool:
    """Whether rows are a dense table, of not too many columns."""
    is_table = getattr(X, "ndim", 0) == 2 and not issparse(X)
    return bool(is_table and X.shape[1] <= MANY_COLUMNS)


def seeded(estimator: Any, seed: int) -> Any:
    """Return a clone, in which the seed fills every ``random_state`` that is None."""
    estimator = clone(estimator)
    unset = [
        name
        for name, value in estimator.get_params().items()
        if value is None and name.split("__")[-1] == "random_state"
    ]
    return estimator.set_params(**dict.fromkeys(unset, seed))


def fit_argument(estimator: Any, name: str) -> str | None:
    """Return under which name ``fit`` takes an argument; a pipeline hands it to its last step."""
    if has_fit_parameter(estimator, name):
        return name
    if isinstance(estimator, Pipeline):
        step, last = estimator.steps[-1]
        inner = fit_argument(last, name)
        return None if inner is None else f"{step}__{inner}"
    return None


def fit_on(
    estimator: Any, X: Any, labels: NDArray[Any], rows: NDArray[np.intp], known: Mapping[str, Any]
) -> Any:
    """Fit a classifier on some rows, with what is known of them as far as it takes it."""
    names = {name: fit_argument(estimator, name) for name, v in known.items() if v is not None}
    given = {argument: known[name][rows] for name, argument in names.items() if argument}
    return estimator.fit(take_rows(X, rows), labels[rows], **given)


def beliefs_of(estimator: Any, X: Any, classes: NDArray[Any]) -> NDArray[np.float64]:
    """Return a classifier's probabilities of all classes; it may not know some."""
    beliefs = np.zeros((count_rows(X), len(classes)))
    beliefs[:, np.searchsorted(classes, estimator.classes_)] = estimator.predict_proba(X)
    return beliefs
