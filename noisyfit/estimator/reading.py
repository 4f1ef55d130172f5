"""The arguments of `fit`: rows with labels, checked, encoded and moved to the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import ceil
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from sklearn.utils.validation import check_is_fitted
from torch import Tensor
from torch.utils.data import Dataset

from noisyfit.data.rows import Rows, dataset_labels
from noisyfit.data.training import TrainingData
from noisyfit.data.views import Augment, CallableAugment, NoAugment
from noisyfit.estimator.format import InputReader
from noisyfit.estimator.given import Given, column_names, has_columns, with_gaps
from noisyfit.estimator.labels import LabelProtocol, as_labels
from noisyfit.exceptions import warn
from noisyfit.nn.augment import ImageAugment, TableAugment
from noisyfit.utils.validation import (
    as_column,
    check_clean_mask,
    check_given,
    check_lengths,
    check_several_classes,
    count_rows,
    row_names,
)


class Reader(InputReader, LabelProtocol):
    """Turns the user's arrays into `TrainingData`."""

    batch_size: int
    augmentation: str | Callable[[Tensor], Tensor] | None
    jitter: float
    masking: float
    flip: bool
    validation_fraction: float | None
    soft_labels: bool
    classes: Any
    n_classes_: int
    seed_: int
    _uses_meta: ClassVar[bool]

    def _read_training_rows(self, X: Any, y: Any, clean_mask: Any) -> TrainingData:
        """Learn the format of X and the classes of y."""
        rows = self._read(X, reset=True)
        y = dataset_labels(X) if y is None and isinstance(X, Dataset) else y
        check_given(y, type(self).__name__)
        check_lengths(len(rows), count_rows(y))
        given = self._read_given(y)
        self._check_some(given.codes >= 0)
        self.classes_ = given.classes
        self.n_classes_ = len(self.classes_)
        check_several_classes(self.classes_)
        self._remember_labels(X, y, given)
        return self._as_data(rows, given, check_clean_mask(clean_mask, given.codes))

    def _read_given(self, y: Any, name: str = "y", classes: NDArray[Any] | None = None) -> Given:
        """Read what y says about the classes of rows, which are known unless it is for `fit`."""
        if self.classes is not None and not self.soft_labels:
            raise ValueError(
                f"classes names the columns of soft labels. Got classes={self.classes!r} and "
                "soft_labels=False. Leave it out, or pass soft_labels=True."
            )
        for_fit = classes is None
        if not has_columns(y) and not (self.soft_labels and for_fit):
            return Given.one_each(y, self.missing_label, classes, name)
        columns = as_column(y)
        if not self.soft_labels:
            return Given.of_votes(columns, self.missing_label, classes, name)
        if columns.ndim != 2 or columns.shape[1] < 2:
            raise ValueError(
                f"With soft_labels=True, {name} must hold the probabilities of the classes, "
                f"(n_samples, n_classes). Got shape {columns.shape}. Pass soft_labels=False for "
                "one label a row."
            )
        own = column_names(y, columns.shape[1])
        names = own if self.classes is None else np.asarray(self.classes)
        given = Given.of_probabilities(columns, self.missing_label, names, name)
        if classes is not None and given.classes.tolist() != classes.tolist():
            raise ValueError(
                f"The columns of {name} must be the classes seen in fit, {classes.tolist()}. Got "
                f"{names.tolist()}. Pass a data frame with these names."
            )
        return given

    def _remember_labels(self, X: Any, y: Any, given: Given) -> None:
        """Store the labels as they were given, and the names of rows and of annotators."""
        self.sample_index_ = row_names(X, y, len(given.codes))
        if given.shares is None:
            self.given_labels_ = as_labels(y)
        else:
            self.given_labels_ = with_gaps(self.classes_, given.codes, self.missing_label)
        if given.votes is not None:
            n_annotators = given.votes.shape[1]
            self.annotators_, self.votes_ = column_names(y, n_annotators), given.votes

    def _labelled(self, X: Any, y: Any, name: str) -> TrainingData:
        """Read rows labelled with the known classes: a validation set or a meta set."""
        if X is None or y is None:
            got = f"{name} alone" if X is None else "None"
            raise ValueError(f"{name} must come with its rows. Got {got}. Pass both.")
        rows = self._read(X, reset=False)
        n_labels = count_rows(y)
        if n_labels != len(rows):
            raise ValueError(
                f"{name} must have as many rows as its X. Got {n_labels} labels for {len(rows)} "
                "rows."
            )
        given = self._read_given(y, name, self.classes_)
        return self._as_data(rows, given, np.zeros(n_labels, dtype=bool))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy on the rows that have a label.

        Parameters
        ----------
        X : array-like
            Rows like those of `fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_annotators)
            Labels; rows with ``missing_label`` do not count. Of votes, the share that agrees with
            the prediction counts, of soft labels the probability of the predicted class.
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        float
            In [0, 1].
        """
        if not has_columns(y):
            return super().score(X, y, sample_weight)
        check_is_fitted(self)
        shares = self._read_given(y, classes=self.classes_).shares
        assert shares is not None
        predicted = np.searchsorted(self.classes_, self.predict(X))
        check_lengths(len(predicted), len(shares))
        labelled = np.any(shares, axis=1)
        self._check_some(labelled)
        weights = None if sample_weight is None else np.asarray(sample_weight)[labelled]
        agreeing = shares[np.arange(len(shares)), predicted][labelled]
        return float(np.average(agreeing, weights=weights))

    def _learnable(self, X: Any, y: Any, name: str) -> TrainingData:
        """Read rows, at least one of which has a label."""
        data = self._labelled(X, y, name)
        if not data.has_label.any():
            raise ValueError(
                f"{name} must have labels. Got {self.missing_label!r} in every row. Leave it out."
            )
        return data

    def _read_validation(self, X_val: Any, y_val: Any) -> TrainingData | None:
        if X_val is None and y_val is None:
            return None
        return self._learnable(X_val, y_val, "y_val")

    def _read_meta(self, n: int, X_meta: Any, y_meta: Any) -> TrainingData | None:
        if X_meta is None and y_meta is None:
            return None
        if X_meta is not None and not self._has_meta_set():
            warn(
                f"{type(self).__name__} has no meta set and ignores X_meta. Append its rows to X "
                "and mark them in clean_mask."
            )
        meta = self._learnable(X_meta, y_meta, "y_meta")
        if len(meta) == n:
            warn(
                "X_meta has as many rows as X: scikit-learn's cross-validation takes such metadata "
                "for aligned with X and slices it. Drop a row of X_meta."
            )
        return meta

    def _has_meta_set(self) -> bool:
        """Whether the method learns from ``X_meta``, which may depend on its parameters."""
        return self._uses_meta

    def _as_data(self, rows: Rows, given: Given, trusted: NDArray[np.bool_]) -> TrainingData:
        data = TrainingData(
            rows,
            torch.as_tensor(given.codes, device=self.device_),
            torch.as_tensor(trusted, device=self.device_),
            self.n_classes_,
            self.batch_size,
            self._augment(),
        )
        if given.shares is None:
            return data
        known = data.distributions()[data.trusted]
        data.given = torch.as_tensor(given.shares, device=self.device_)
        data.given[data.trusted] = known
        if given.votes is not None:
            data.votes = torch.as_tensor(given.votes, device=self.device_)
        return data

    def _split(self, everything: TrainingData) -> tuple[TrainingData, TrainingData | None]:
        """Hold out ``validation_fraction`` of the rows, stratified by class if possible."""
        if self.validation_fraction is None:
            return replace(everything), None
        codes = everything.labels.cpu().numpy()
        counts = np.unique(codes, return_counts=True)[1]
        n_held_out = ceil(self.validation_fraction * len(codes))
        n_kept = len(codes) - n_held_out
        if n_kept < 2:
            raise ValueError(
                f"validation_fraction must leave two rows to learn from. Got "
                f"{self.validation_fraction} of {len(codes)} rows. Lower it, or pass X_val and "
                "y_val to fit."
            )
        stratified = counts.min() > 1 and min(n_held_out, n_kept) >= len(counts)
        parts = train_test_split(
            np.arange(len(codes)),
            test_size=self.validation_fraction,
            stratify=codes if stratified else None,
            random_state=self.seed_,
        )
        train, held_out = (torch.as_tensor(np.sort(p), device=self.device_) for p in parts)
        return everything.subset(train), everything.subset(held_out)

    def _augment(self) -> Augment:
        if self.augmentation is None:
            return NoAugment()
        if callable(self.augmentation):
            return CallableAugment(self.augmentation)
        if self.layout_ == "table":
            mean, scale = (
                torch.as_tensor(a, device=self.device_)
                for a in (self.feature_mean_, self.feature_scale_)
            )
            return TableAugment(mean, scale, self.jitter, self.masking)
        side = min(self.row_shape_[1:])
        padding = min(max(1, side // 8), side - 1)
        return ImageAugment(padding, flip=self.flip, value_range=self.value_range_)
