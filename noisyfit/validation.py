"""Checks of labels and row masks: what must hold, what came, what to do."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def row_names(X: Any, y: Any, n: int) -> NDArray[Any]:
    """Return the index of X, else of y, else the numbers of the ``n`` rows."""
    for rows in (X, y):
        if hasattr(rows, "iloc"):
            return np.asarray(rows.index)
    return np.arange(n)


def is_missing(y: NDArray[Any], missing_label: Any) -> NDArray[np.bool_]:
    """Mark rows without a label.

    Parameters
    ----------
    y : ndarray of shape (n_samples,)
    missing_label : scalar or None
        None means that every row has a label; NaN also finds None in object arrays.

    Returns
    -------
    ndarray of bool of shape (n_samples,)
    """
    if missing_label is None:
        return np.zeros(len(y), dtype=bool)
    if isinstance(missing_label, float) and np.isnan(missing_label):
        return np.fromiter((v is None or v != v for v in y), dtype=bool, count=len(y))
    return np.fromiter((v == missing_label for v in y.tolist()), dtype=bool, count=len(y))


def encode(y: NDArray[Any], classes: NDArray[Any], missing: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Turn labels into codes 0..K-1 in the order of ``classes``, -1 where missing.

    Raises
    ------
    ValueError
        If a label is none of the classes.
    """
    codes = np.full(len(y), -1, dtype=np.int64)
    present = y[~missing]
    position = {label: code for code, label in enumerate(classes.tolist())}
    unknown = sorted({str(v) for v in present.tolist() if v not in position})
    if unknown:
        raise ValueError(
            f"Labels must be among the classes seen in fit, {classes.tolist()}. "
            f"Got {unknown[:5]}. Remove those rows, or fit with them."
        )
    codes[~missing] = [position[v] for v in present.tolist()]
    return codes


def check_clean_mask(clean_mask: Any, codes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return the mask of trusted rows; None trusts nothing.

    Raises
    ------
    ValueError
        If the mask is not one boolean a row, or trusts a row without a label.
    """
    if clean_mask is None:
        return np.zeros(len(codes), dtype=bool)
    mask = np.asarray(clean_mask)
    if mask.dtype != bool or mask.shape != codes.shape:
        raise ValueError(
            f"clean_mask must be one boolean for each of the {len(codes)} rows of X. "
            f"Got dtype {mask.dtype} and shape {mask.shape}. "
            "For row numbers use numpy.isin(numpy.arange(len(X)), rows)."
        )
    if (codes[mask] < 0).any():
        raise ValueError(
            "Every trusted row must have a label. Got clean_mask=True for row "
            f"{int(np.flatnonzero(mask & (codes < 0))[0])}, which has none. Unmark it."
        )
    return mask


def check_sample_weight(sample_weight: Any, n: int) -> NDArray[np.float64] | None:
    """Return one weight a row; None weighs nothing.

    Raises
    ------
    ValueError
        If there is not one finite weight of at least 0 for each row, or all are 0.
    """
    if sample_weight is None:
        return None
    weights = np.asarray(sample_weight, dtype=np.float64)
    shape = weights.shape
    fits = shape == (n,) and np.isfinite(weights).all() and (weights >= 0).all() and weights.any()
    if not fits:
        got = f"{weights.min()} to {weights.max()}" if weights.size else "nothing"
        raise ValueError(
            f"sample_weight must be a finite number of at least 0 for each of the {n} rows of X, "
            f"and not zero for all. Got shape {shape} and values from {got}."
        )
    return weights
