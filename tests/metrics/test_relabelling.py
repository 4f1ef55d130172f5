"""How many labels a classifier does not believe."""

from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator

from noisyfit.metrics import relabelled_share


class Oracle(BaseEstimator):
    """Predicts its only column."""

    def __init__(self, missing_label: Any = None) -> None:
        self.missing_label = missing_label

    def predict(self, X: Any) -> Any:
        return np.array([row[0] for row in X], dtype=object)


ROWS = [["a"], ["b"], ["a"], ["b"], ["b"]]


def test_relabelled_share__counts_labels_that_are_not_predicted() -> None:
    assert relabelled_share(Oracle(), ROWS, ["a", "a", "b", "b", "b"]) == 2 / 5


@pytest.mark.parametrize("gap, marker", [(None, np.nan), (np.nan, np.nan), ("?", "?")])
def test_relabelled_share__rows_without_a_label_do_not_count(gap: Any, marker: Any) -> None:
    assert relabelled_share(Oracle(marker), ROWS, ["a", gap, gap, "a", "b"]) == 1 / 3
    assert np.isnan(relabelled_share(Oracle(marker), ROWS, [gap] * 5))
