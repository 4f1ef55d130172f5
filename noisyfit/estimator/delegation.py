"""Classifiers that prepare rows or labels, and leave the rest to another classifier."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from noisyfit.estimator.bases import MetaEstimatorMixin


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


def seeded(estimator: Any, seed: int) -> Any:
    """Return a clone, in which the seed fills every ``random_state`` that is None."""
    estimator = clone(estimator)
    unset = [
        name
        for name, value in estimator.get_params().items()
        if value is None and name.split("__")[-1] == "random_state"
    ]
    return estimator.set_params(**dict.fromkeys(unset, seed))
