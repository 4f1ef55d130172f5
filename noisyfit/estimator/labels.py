"""One protocol for labels: how every method says which are wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from noisyfit import quality
from noisyfit.data.rows import Rows
from noisyfit.data.training import TrainingData
from noisyfit.estimator.fitted import FittedAttributes
from noisyfit.exceptions import NoisyFitError, warn
from noisyfit.nn import features
from noisyfit.nn.beliefs import given_probability
from noisyfit.utils.validation import encode, is_missing


class LabelProtocol(FittedAttributes):
    """From a method's beliefs to ``label_quality_``, ``corrected_labels_`` and issues."""

    module_: Any
    history_: Any
    device_: torch.device
    row_shape_: tuple[int, ...]
    classes_: NDArray[Any]
    n_classes_: int
    given_labels_: NDArray[Any]
    sample_index_: NDArray[Any]
    missing_label: Any
    correction_margin: float
    lr: float
    _probabilities: Any
    _labelled: Any

    def _beliefs(self, data: TrainingData) -> tuple[Tensor, Tensor]:
        """Return label quality (n,) and the distribution of the true class (n, K)."""
        raise TypeError(f"{type(self).__name__} has no _beliefs(data)")

    def _conclude(
        self, rows: Rows, codes: NDArray[np.int64], trusted: NDArray[np.bool_], data: TrainingData
    ) -> None:
        """Write the fitted attributes that every method has."""
        self.n_iter_ = len(self.history_)
        probs = self._probabilities(rows).cpu().numpy()
        if not np.isfinite(probs).all():
            raise NoisyFitError(
                f"Predictions must be finite. Got NaN after epoch {self.n_iter_}: the weights have "
                f"diverged. Try lr={self.lr / 10:g}, or precision='fp32'."
            )
        self._warn_of_lost_classes(codes, probs)
        own_quality, own_distribution = self._beliefs(data)
        trained = slice(None) if data.index is None else data.index.cpu().numpy()
        distribution, rating = probs.copy(), quality.self_confidence(np.maximum(codes, 0), probs)
        distribution[trained] = own_distribution.cpu().numpy()
        rating[trained] = own_quality.cpu().numpy()
        distribution[codes < 0], rating[codes < 0] = probs[codes < 0], np.nan
        distribution[trusted], rating[trusted] = np.eye(self.n_classes_)[codes[trusted]], 1.0
        self.label_distribution_, self.label_quality_ = distribution, rating
        corrected = quality.corrected_labels(codes, distribution, self.correction_margin)
        self.corrected_labels_ = self.classes_[corrected]
        self._n_features_out = features.embedding_size(
            self.module_, torch.zeros(2, *self.row_shape_, device=self.device_)
        )
        self.transition_matrix_ = quality.transition_matrix(codes, distribution)

    def _warn_of_lost_classes(self, codes: NDArray[np.int64], probs: NDArray[Any]) -> None:
        lost = np.setdiff1d(np.arange(self.n_classes_), probs.argmax(1))
        if len(lost):
            labels = np.bincount(codes[codes >= 0], minlength=self.n_classes_)
            classes = self.classes_.tolist()
            named = ", ".join(f"{classes[k]!r} ({labels[k]} labels)" for k in lost[:5])
            warn(
                "Every class should be predicted for some training row. Got none for "
                f"{len(lost)} of {self.n_classes_}: {named}. All their labels may be taken for "
                "wrong: a rare class looks like mistakes. Train longer (max_epochs), mark rows "
                "that are right (clean_mask), or try another method."
            )

    def label_issues(self) -> Any:
        """Return a frame of the training rows: which labels are wrong, and what they should be.

        Returns
        -------
        pandas.DataFrame
            Columns ``is_label_issue``, ``label_quality``, ``given_label``, ``predicted_label``, one
            row per row of X, under the index of X, or else of y.
        """
        check_is_fitted(self)
        missing = is_missing(self.given_labels_, self.missing_label)
        codes = encode(self.given_labels_, self.classes_, missing)
        issue = quality.is_label_issue(codes, self.label_distribution_, self.label_quality_)
        predicted = self.classes_[self.label_distribution_.argmax(1)]
        return quality.label_issues_frame(
            issue, self.label_quality_, self.given_labels_, predicted, index=self.sample_index_
        )

    def score_labels(self, X: Any, y: Any) -> NDArray[np.float64]:
        """Rate the labels of new rows.

        Parameters
        ----------
        X : array-like
            Rows as in `fit`.
        y : array-like of shape (n_samples,)
            Their given labels.

        Returns
        -------
        ndarray of shape (n_samples,)
            In [0, 1], low = suspicious; NaN where there is no label.
        """
        check_is_fitted(self)
        data = self._labelled(X, y, "y")
        rating = self._rate(data).double().cpu().numpy()
        return np.where(data.has_label.cpu().numpy(), rating, np.nan)

    def _rate(self, data: TrainingData) -> Tensor:
        """Return the quality (n,) of the labels of new rows: the probability given to them."""
        return given_probability(self._probabilities(data), data.labels)
