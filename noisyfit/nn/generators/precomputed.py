"""Rows that were modified elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from noisyfit.utils.parts import Part


class PrecomputedModifier(Part):
    """Look modified rows up.

    A row is found by its content and its label, so folds and shuffled rows get the right modified
    rows; of several equal rows the last counts.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
        Original rows, as the fit will see them.
    y : array-like of shape (n_samples,)
        Their given labels.
    X_modified : array-like of the shape of `X`
        The rows as modified by a generator.

    Raises
    ------
    ValueError
        If the three do not have the same number of rows or, in `modify`, if a row is not among
        them.

    Examples
    --------
    >>> import torch
    >>> modifier = PrecomputedModifier([[1.0], [2.0]], ["a", "b"], [[1.5], [2.5]])
    >>> modifier.modify(torch.tensor([[2.0]]), ["b"], torch.Generator())
    tensor([[2.5000]])
    """

    def __init__(self, X: ArrayLike, y: ArrayLike, X_modified: ArrayLike) -> None:
        self.X, self.y, self.X_modified = np.asarray(X), np.asarray(y), np.asarray(X_modified)
        if self.X.shape != self.X_modified.shape or self.y.shape != self.X.shape[:1]:
            raise ValueError(
                "X and X_modified must have the same shape, and y one label a row. Got "
                f"{self.X.shape}, {self.X_modified.shape} and {self.y.shape}."
            )
        self._position = {key: i for i, key in enumerate(_keys(self.X, self.y))}

    def modify(self, x: Tensor, y: NDArray[Any], generator: torch.Generator) -> Tensor:
        """Return the modified rows for the given rows and labels."""
        keys = _keys(x.cpu().numpy(), np.asarray(y))
        unknown = [i for i, key in enumerate(keys) if key not in self._position]
        if unknown:
            raise ValueError(
                "Every row must be among those that were modified, with the same label. Got "
                f"{len(unknown)} of {len(keys)} that are not, the first with label "
                f"{y[unknown[0]]!r}. Modify them too, or fit on the same rows and labels."
            )
        found = self.X_modified[[self._position[key] for key in keys]]
        return torch.as_tensor(found).to(x)


def _keys(rows: NDArray[Any], labels: NDArray[Any]) -> list[tuple[bytes, Any]]:
    rows = rows if rows.dtype == np.uint8 else rows.astype(np.float32)
    return [(row.tobytes(), label) for row, label in zip(rows, labels.tolist(), strict=True)]
