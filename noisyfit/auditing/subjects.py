"""What can be audited: tables, images, texts and arrays, and how a row of each is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from noisyfit.auditing.cells import LONGEST, MISSING, Comparable, readable
from noisyfit.auditing.request import AUTO
from noisyfit.auditing.texts import Wording, marked, shortened
from noisyfit.auditing.thumbnails import thumbnail
from noisyfit.benchmark.contenders import package_methods
from noisyfit.methods.coteaching import CoTeachingClassifier

if TYPE_CHECKING:
    import pandas as pd

SHOWN_CELLS = 6
CELLS_BESIDE, TEXT_BESIDE = 3, 120  # cells and characters of a neighbour
COMPARED = 2000  # rows of a class that say what is rare in it


@dataclass(eq=False)
class Subject:
    """Rows with labels.

    Parameters
    ----------
    kind : str
        As in ``audit.json``.
    X : DataFrame or ndarray of shape (n_samples, n_columns)
        What detectors learn from.
    y : Series of shape (n_samples,)
        Given labels; the index names the rows.
    features : ndarray of shape (n_samples, n_features)
        By which rows are near one another.
    shown : DataFrame, Series or None
        What people see of the rows.
    second : sequence of classifiers
        Detectors beside the first one, unless a method is asked for.
    prepare : callable
        Puts before a classifier what makes numbers of X.
    left_out : dict of str
        Why a column is not in X.
    trusted : ndarray of bool of shape (n_samples,) or None
        Rows whose label is right.
    """

    kind: str
    X: Any
    y: pd.Series
    features: NDArray[Any]
    shown: Any = None
    second: Sequence[Any] = ()
    prepare: Callable[[Any], Any] = clone
    left_out: dict[str, str] = field(default_factory=dict)
    trusted: NDArray[np.bool_] | None = None

    def detectors(self, method: str, device: str) -> list[Any]:
        """Return the classifiers that rate the labels, all on a device."""
        chosen = [CoTeachingClassifier(), *self.second]
        if method != AUTO:
            chosen = [package_methods()[method]()]
        return [self.prepare(_on_device(detector, device)) for detector in chosen]

    def show(self, row: int, suggested: Any) -> dict[str, Any]:
        """Return what a card shows of a row for which another label is suggested."""
        return {}

    def show_beside(self, other: int, row: int) -> dict[str, Any]:
        """Return what the card of a row shows of another one."""
        return {}


class TableSubject(Subject):
    """Rows of a table."""

    def show(self, row: int, suggested: Any) -> dict[str, Any]:
        """Return the cells that are rarest among rows of the same label."""
        rarity = self._rarity(row)
        return {
            "cells": [
                (*self._cell(row, column), float(rarity[column]))
                for column in np.argsort(-rarity, kind="stable")[:SHOWN_CELLS]
            ]
        }

    def show_beside(self, other: int, row: int) -> dict[str, Any]:
        """Return the cells in the columns of the row's rarest ones."""
        columns = np.argsort(-self._rarity(row), kind="stable")[:CELLS_BESIDE]
        return {"text": ", ".join(" ".join(self._cell(other, column)) for column in columns)}

    def _cell(self, row: int, column: int) -> tuple[str, str]:
        name = shortened(str(self.shown.columns[column]), LONGEST)
        return name, readable(self.shown.iat[row, column])

    def _rarity(self, row: int) -> NDArray[np.float64]:
        if row not in self._rarities:
            alike = self._alike[self.y.iat[row]]
            self._rarities[row] = self._comparable.rarity(row, alike)
        return self._rarities[row]

    @cached_property
    def _rarities(self) -> dict[int, NDArray[np.float64]]:
        return {}

    @cached_property
    def _comparable(self) -> Comparable:
        return Comparable(self.shown)

    @cached_property
    def _alike(self) -> dict[Any, NDArray[np.intp]]:
        """Some rows with each label."""
        places = self.y.groupby(self.y.to_numpy(), observed=True).indices
        return {label: rows[:COMPARED] for label, rows in places.items()}


class ImageSubject(Subject):
    """Image files."""

    def show(self, row: int, suggested: Any) -> dict[str, Any]:
        """Return a thumbnail."""
        return {"picture": thumbnail(self.shown.iat[row])}

    def show_beside(self, other: int, row: int) -> dict[str, Any]:
        """Return a thumbnail."""
        return self.show(other, None)


@dataclass(eq=False)
class TextSubject(Subject):
    """Texts, and which terms each class uses."""

    wording: Wording | None = None

    def show(self, row: int, suggested: Any) -> dict[str, Any]:
        """Return the text around the words that speak for either class, which are marked."""
        text = self.shown.iat[row]
        if not text.strip():
            return {"text": [(MISSING, 0.0)]}
        assert self.wording is not None
        weights = self.wording.weights(row, suggested)
        return {"text": marked(text, self.wording.spans(text, weights))}

    def show_beside(self, other: int, row: int) -> dict[str, Any]:
        """Return how the other text begins."""
        return {"text": shortened(self.shown.iat[other].strip(), TEXT_BESIDE) or MISSING}


def _on_device(detector: Any, device: str) -> Any:
    """Return a classifier that trains on a device, if it is one that can be told."""
    named = [name for name in detector.get_params() if name.split("__")[-1] == "device"]
    return detector.set_params(**dict.fromkeys(named, device))
