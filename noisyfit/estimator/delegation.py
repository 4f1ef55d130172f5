"""Classifiers that prepare rows or labels, and leave the rest to another classifier."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from noisyfit.estimator.bases import ClassifierMixin, MetaEstimatorMixin


def _has(method: str) -> Any:
    """Whether the classifier, fitted or not, has a method."""

    def check(self: DelegatingClassifier) -> bool:
        getattr(getattr(self, "estimator_", self._chosen_estimator()), method)
        return True

    return check


class DelegatingClassifier(MetaEstimatorMixin, ClassifierMixin):
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
    """Return a clone, with the seed if it has none of its own."""
    estimator = clone(estimator)
    if estimator.get_params(deep=False).get("random_state", 0) is None:
        estimator.set_params(random_state=seed)
    return estimator
