"""What X and y may be: checked, decoded and put on the device."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import validation
from sklearn.utils.validation import column_or_1d
from torch import Tensor
from torch.utils.data import Dataset

from noisyfit.data.rows import (
    Rows,
    dataset_labels,
    entries_as_numbers,
    extremes,
    scan,
    shape_of,
    unwrapped,
)
from noisyfit.data.training import TrainingData
from noisyfit.estimator.format import (
    KNOWN_RANGES,
    check_finite,
    check_row_shape,
    check_value_range,
    find_value_range,
    image_layout,
)
from noisyfit.exceptions import warn
from noisyfit.utils.validation import (
    as_column,
    check_finite_rows,
    check_given,
    check_lengths,
    encode,
    find_classes,
    is_missing,
    present_labels,
    row_names,
)


class InputReader:
    """Learns the format of X and the classes of y at fit, and holds later input to them.

    Attributes
    ----------
    layout_ : str
        ``"table"`` or the order of the axes of one image.
    input_shape_, row_shape_ : tuple of int
        Of one row as passed, and as the network gets it: (d,) or (C, H, W).
    value_range_ : tuple of float
        Scale of the images, black and white.
    feature_mean_, feature_scale_ : ndarray
        Per column of tables, per channel of images.
    """

    image_layout: str
    value_range: Any
    batch_size: int
    missing_label: Any
    device_: torch.device
    layout_: str
    _augment: Any
    _uses_meta: ClassVar[bool]

    def _read(self, X: Any, *, reset: bool) -> Rows:
        """Check X against the contract (made when ``reset``) and put it on the device."""
        X = unwrapped(X)
        lazy = is_lazy(X)
        if lazy or not (reset or self.layout_ == "table"):
            self._check_shape(shape_of(X), reset=reset)
        if not lazy:
            with entries_as_numbers():
                X = validate_data(self, X, reset=reset, dtype=np.float32, allow_nd=True)
            self._check_shape(X.shape, reset=reset)
        elif not isinstance(X, Dataset):
            validate_data(self, X, reset=reset, skip_check_array=True)
        rows = Rows(X, self.layout_, self.device_)
        self._check_contents(rows, shape_of(X)[1:], reset=reset)
        return rows

    def _check_shape(self, shape: tuple[int, ...], *, reset: bool) -> None:
        """Learn the layout from the shape, or hold the rows to that of fit."""
        if 0 in shape:
            what = "sample" if shape[0] == 0 else "feature"
            raise ValueError(f"X must have a row and a feature. Got 0 {what}(s) (shape {shape}).")
        if reset:
            self.layout_ = image_layout(shape, self.image_layout)
        else:
            check_row_shape(shape, self.input_shape_)

    def _check_contents(self, rows: Rows, shape: tuple[int, ...], *, reset: bool) -> None:
        """Scan the values once: finite, and on the scale of fit."""
        if reset:
            seen = scan(rows)
            check_finite(seen.low, seen.high)
            self.input_shape_, self.row_shape_ = shape, rows.row_shape
            self.feature_mean_, self.feature_scale_ = seen.mean.numpy(), seen.std.numpy()
            given = None if rows.layout == "table" else self.value_range
            self.value_range_ = find_value_range(rows, seen.low, seen.high, given)
            return
        low, high = (0.0, 255.0) if rows.is_bytes else extremes(rows)
        check_finite(low, high)
        if rows.layout != "table":
            closed = self.value_range is not None or self.value_range_ in KNOWN_RANGES
            check_value_range(self.value_range_, low, high, closed=closed)

    def _read_labels(self, X: Any, y: Any, n: int) -> NDArray[np.int64]:
        """Learn ``classes_`` and return codes, -1 where there is no label."""
        if y is None and isinstance(X, Dataset):
            y = dataset_labels(X)
        check_given(y, type(self).__name__)
        given, y = y, _as_column(y)
        self.sample_index_ = row_names(X, given, len(y))
        check_lengths(n, len(y))
        missing = is_missing(y, self.missing_label)
        if missing.all():
            raise ValueError(f"y must have labels. Got {self.missing_label!r} in every row.")
        self.classes_ = find_classes(present_labels(y, missing))
        self.n_classes_ = len(self.classes_)
        if self.n_classes_ < 2:
            raise ValueError(
                "y must have at least two classes. Classifier can't train when only one class is "
                f"present: {self.classes_[0]!r}."
            )
        self.given_labels_ = y
        return encode(y, self.classes_, missing)

    def _labelled(self, X: Any, y: Any, name: str) -> TrainingData:
        """Read rows with labels of the known classes: a validation set or a meta set."""
        if X is None or y is None:
            got = f"{name} alone" if X is None else "None"
            raise ValueError(f"{name} must come with its rows. Got {got}. Pass both.")
        rows = self._read(X, reset=False)
        y = _as_column(y)
        if len(y) != len(rows):
            raise ValueError(
                f"{name} must have as many rows as its X. Got {len(y)} labels for {len(rows)} rows."
            )
        codes = encode(y, self.classes_, is_missing(y, self.missing_label), name)
        return self._training_data(rows, codes, np.zeros(len(codes), dtype=bool), None)

    def _read_validation(self, X_val: Any, y_val: Any) -> TrainingData | None:
        if X_val is None and y_val is None:
            return None
        return self._learnable(X_val, y_val, "y_val")

    def _learnable(self, X: Any, y: Any, name: str) -> TrainingData:
        """Read rows of which some have a label."""
        data = self._labelled(X, y, name)
        if not data.has_label.any():
            raise ValueError(
                f"{name} must have labels. Got {self.missing_label!r} in every row. Leave it out."
            )
        return data

    def _read_meta(self, n: int, X_meta: Any, y_meta: Any) -> TrainingData | None:
        if X_meta is None and y_meta is None:
            return None
        if X_meta is not None and not self._has_meta_set():
            warn(
                f"{type(self).__name__} has no meta set and ignores X_meta. Append its rows to X "
                "and mark them in clean_mask."
            )
        if X_meta is not None and len(X_meta) == n:
            warn(
                "X_meta has as many rows as X: scikit-learn's cross-validation takes such metadata "
                "for aligned with X and slices it. Drop a row of X_meta."
            )
        return self._learnable(X_meta, y_meta, "y_meta")

    def _has_meta_set(self) -> bool:
        """Whether the method learns from ``X_meta``; it may depend on its parameters."""
        return self._uses_meta

    def _training_data(
        self,
        rows: Rows,
        codes: NDArray[np.int64],
        trusted: NDArray[np.bool_],
        index: NDArray[np.int64] | None,
    ) -> TrainingData:
        chosen = slice(None) if index is None else index
        return TrainingData(
            rows,
            torch.as_tensor(codes[chosen], device=self.device_),
            torch.as_tensor(trusted[chosen], device=self.device_),
            self.n_classes_,
            self.batch_size,
            self._augment(),
            None if index is None else torch.as_tensor(index, device=self.device_),
        )


def validate_data(reader: Any, X: Any, **params: Any) -> Any:
    """Check X as scikit-learn does, but say in which rows it is not finite."""
    X = validation.validate_data(reader, X, ensure_all_finite=False, **params)
    if not params.get("skip_check_array"):
        check_finite_rows(X)
    return X


def _as_column(y: Any) -> NDArray[Any]:
    return column_or_1d(as_column(y), warn=True)


def is_lazy(X: Any) -> bool:
    """Whether X must not be converted: a memmap, a tensor, images, a Dataset."""
    if isinstance(X, np.memmap | Tensor | Dataset):
        return True
    return isinstance(X, np.ndarray) and X.ndim > 2 and X.dtype.kind in "buif"
