"""The format of X: layout, shape and scale of its rows, learned by `fit` and enforced later."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.utils import validation
from torch import Tensor
from torch.utils.data import Dataset

from noisyfit.data.rows import Rows, entries_as_numbers, extremes, scan, shape_of, unwrapped
from noisyfit.exceptions import warn
from noisyfit.utils.validation import check_finite_rows, checked_value_range

CHANNEL_COUNTS = (1, 3, 4)
LARGEST_BATCH = 2**26  # entries of a batch that was sparse: 256 MiB, and several copies
KNOWN_RANGES = ((0.0, 1.0), (0.0, 255.0))
OTHER_SCALE = 10  # times the range of the training images
OVERSHOOT = 0.25  # of the width; sharpening and bicubic interpolation overshoot by less


class Format(NamedTuple):
    """The format of the rows of `fit`; an estimator has each field as a fitted attribute.

    Attributes
    ----------
    layout : str
        ``"table"`` or the order of the axes of one image.
    input_shape, row_shape : tuple of int
        Shape of one row as passed, and as the network receives it: (d,) or (C, H, W).
    value_range : tuple of float
        Values of black and white in images.
    feature_mean, feature_scale : ndarray
        Per column of a table, per channel of images. The mean of a sparse table is given as zero.
    """

    layout: str
    input_shape: tuple[int, ...]
    row_shape: tuple[int, ...]
    value_range: tuple[float, float]
    feature_mean: NDArray[np.float32]
    feature_scale: NDArray[np.float32]

    @classmethod
    def learned(cls, rows: Rows, input_shape: tuple[int, ...], value_range: Any) -> Self:
        """Learn the format in one pass over the rows; ``value_range`` is the user's parameter."""
        seen = scan(rows)
        check_finite(seen.low, seen.high)
        given = None if rows.layout == "table" else value_range
        scale = find_value_range(rows, seen.low, seen.high, given)
        mean, std = seen.mean.numpy(), seen.std.numpy()
        return cls(rows.layout, input_shape, rows.row_shape, scale, mean, std)

    def check(self, rows: Rows, value_range: Any) -> None:
        """Check the values of later rows against those of `fit`."""
        low, high = (0.0, 255.0) if rows.is_bytes else extremes(rows)
        check_finite(low, high)
        if self.layout != "table":
            closed = value_range is not None or self.value_range in KNOWN_RANGES
            check_value_range(self.value_range, low, high, closed=closed)


FITTED = tuple(f"{name}_" for name in Format._fields)


class InputReader:
    """Learns the `Format` of X during `fit` and checks later rows against it."""

    batch_size: int
    image_layout: str
    value_range: Any
    num_workers: int
    device_: Any
    layout_: str
    input_shape_: tuple[int, ...]
    row_shape_: tuple[int, ...]
    value_range_: tuple[float, float]
    feature_mean_: NDArray[np.float32]
    feature_scale_: NDArray[np.float32]

    def _read(self, X: Any, *, reset: bool) -> Rows:
        """Check X against the format (learned when ``reset``) and put it on the device."""
        X = unwrapped(X)
        fitted = None if reset else Format(*(getattr(self, name) for name in FITTED))
        lazy = is_lazy(X)
        if lazy or (fitted and fitted.layout != "table"):
            check_shape(shape_of(X), fitted)
        if not lazy:
            with entries_as_numbers():
                X = validate_data(
                    self, X, reset=reset, dtype=np.float32, allow_nd=True, accept_sparse="csr"
                )
            check_shape(X.shape, fitted)
            if reset and issparse(X):
                check_batch(self.batch_size, X.shape[1])
        elif not isinstance(X, Dataset):
            validate_data(self, X, reset=reset, skip_check_array=True)
        if fitted:
            rows = Rows(X, fitted.layout, self.device_, self.num_workers)
            if lazy or fitted.layout != "table":  # others have been checked
                fitted.check(rows, self.value_range)
            return rows
        shape = shape_of(X)
        rows = Rows(X, image_layout(shape, self.image_layout), self.device_, self.num_workers)
        found = Format.learned(rows, shape[1:], self.value_range)
        vars(self).update(zip(FITTED, found, strict=True))
        return rows


def check_shape(shape: tuple[int, ...], fitted: Format | None) -> None:
    """Refuse X without rows or features, and rows whose shape differs from those of `fit`."""
    if 0 in shape:
        what = "sample" if shape[0] == 0 else "feature"
        raise ValueError(f"X must have a row and a feature. Got 0 {what}(s) (shape {shape}).")
    if fitted:
        check_row_shape(shape, fitted.input_shape)


def check_batch(batch_size: int, n_columns: int) -> None:
    """Refuse a sparse table so wide that a batch of its rows is too large when dense."""
    fitting = LARGEST_BATCH // n_columns
    if batch_size > fitting:
        smaller = f", or lower batch_size to {fitting}" if fitting > 1 else ""
        raise ValueError(
            f"A batch of sparse rows is made dense, and must have at most {LARGEST_BATCH:,} "
            f"entries. Got batch_size={batch_size} and {n_columns:,} columns. Make fewer columns, "
            f"as by TruncatedSVD(100) before this step or max_features of a vectorizer{smaller}."
        )


def validate_data(reader: Any, X: Any, **params: Any) -> Any:
    """Check X as scikit-learn does, but name the rows that are not finite."""
    X = validation.validate_data(reader, X, ensure_all_finite=False, **params)
    if not params.get("skip_check_array"):
        check_finite_rows(X)
    return X


def is_lazy(X: Any) -> bool:
    """Whether X must not be converted: a memmap, a tensor, images, a Dataset."""
    if isinstance(X, np.memmap | Tensor | Dataset):
        return True
    return isinstance(X, np.ndarray) and X.ndim > 2 and X.dtype.kind in "buif"


def image_layout(shape: tuple[int, ...], requested: str = "auto") -> str:
    """Name the axes of one row: ``"table"``, ``"HW"``, ``"HWC"`` or ``"CHW"``.

    Parameters
    ----------
    shape : tuple of int
        Shape of X, rows first.
    requested : {"auto", "HW", "HWC", "CHW"}
        The user's choice; ``"auto"`` looks for an axis of 1, 3 or 4 channels.

    Raises
    ------
    ValueError
        If the shape is neither a table nor images, or is ambiguous.
    """
    if len(shape) == 2:
        return "table"
    if len(shape) not in (3, 4):
        raise ValueError(
            "X must be a table (n_samples, n_features) or images (n, H, W), (n, H, W, C) or "
            f"(n, C, H, W). Got shape {shape}. Reshape it, for example X.reshape(len(X), -1)."
        )
    if len(shape) == 3:
        if requested not in ("auto", "HW"):
            raise ValueError(
                f"image_layout={requested!r} needs 4 axes. Got shape {shape}. Add a channel axis."
            )
        return "HW"
    if requested in ("HWC", "CHW"):
        return requested
    if requested == "HW":
        raise ValueError(f"image_layout='HW' needs 3 axes (n, H, W). Got shape {shape}. Use 'HWC'.")
    first, last = shape[1] in CHANNEL_COUNTS, shape[3] in CHANNEL_COUNTS
    if first == last:
        how = "both the first and the last" if first else "neither the first nor the last"
        raise ValueError(
            f"Images must have one axis of 1, 3 or 4 channels. Got shape {shape}, where {how} "
            'could be it. Pass image_layout="HWC" or image_layout="CHW".'
        )
    return "CHW" if first else "HWC"


def check_row_shape(shape: tuple[int, ...], fitted: tuple[int, ...]) -> None:
    """Refuse rows whose shape differs from those of `fit`."""
    if shape[1:] != fitted:
        raise ValueError(
            f"X must have rows of shape {fitted}, as in fit. Got shape {shape}. Resize, crop or "
            "reshape them."
        )


def check_finite(low: float, high: float) -> None:
    """Refuse NaN and infinity in X."""
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(
            f"X must be finite. Input X contains NaN or infinity (range {low} to {high}). "
            "Impute or drop those rows."
        )


def find_value_range(rows: Rows, low: float, high: float, given: Any) -> tuple[float, float]:
    """Return the scale of images from ``low`` to ``high``: the user's if given, else a guess.

    Bytes are on 0 to 255. Floats are on 0 to 1 or 0 to 255 if they stay within it, except for an
    overshoot at the bright end or at both ends; otherwise their scale is the range they span.
    """
    if given is not None:
        found = _checked_value_range(given, rows)
        check_value_range(found, low, high, closed=True)
        return found
    if rows.is_bytes:
        return KNOWN_RANGES[-1]
    for black, white in KNOWN_RANGES:
        slack = OVERSHOOT * (white - black)
        overshoots = black - slack <= low and white < high
        if (black <= low or overshoots) and high <= white + slack:
            return black, white
    return low, high if low < high else low + 1


def _checked_value_range(given: Any, rows: Rows) -> tuple[float, float]:
    low, high = checked_value_range(given)
    if rows.is_bytes and (low, high) != KNOWN_RANGES[-1]:
        raise ValueError(
            f"Images of uint8 must have value_range (0, 255) or None. Got {given!r}. Convert them "
            "to float32 to have them on another scale."
        )
    return low, high


def check_value_range(
    fitted: tuple[float, float], low: float, high: float, *, closed: bool
) -> None:
    """Refuse images outside the scale of `fit`, and warn of images that are almost black on it.

    Parameters
    ----------
    fitted : tuple of float
        Scale of `fit`.
    low, high : float
        The smallest and the largest value.
    closed : bool
        Whether the scale is known, so that only an overshoot can exceed it; otherwise it is the
        range of the training images.
    """
    black, white = fitted
    width = white - black
    slack = OVERSHOOT * width if closed else OTHER_SCALE * max(abs(black), abs(white))
    if low < black - slack or high > white + slack:
        raise ValueError(
            f"Images must be on the scale of fit, {black:g} to {white:g}. Got values from {low:g} "
            f"to {high:g}. Rescale them, or fit with the value_range of all images."
        )
    if black < high <= black + width / 255:
        warn(
            f"Images should fill the scale of fit, {black:g} to {white:g}. Got values from {low:g} "
            f"to {high:g}, almost black. Rescale them if they are on another scale."
        )
