"""What a fit holds for each row and class."""

import numpy as np
import pytest

from tests.common.zoo import ESTIMATORS, Estimator
from tests.helpers import LiveMemory, quick


@pytest.mark.filterwarnings("ignore::noisyfit.NoisyFitWarning")  # the labels are random
@pytest.mark.parametrize("cls", ESTIMATORS)
def test_fit__holds_at_most_three_numbers_for_each_row_and_class(cls: Estimator) -> None:
    n, n_classes = 9000, 200
    table = 4 * n * n_classes
    X, y = np.random.default_rng(0).normal(size=(n, 4)), np.arange(n) % n_classes
    clf = quick(cls, max_epochs=2, batch_size=450, module__width=8)
    with LiveMemory(smallest=table) as memory:
        clf.fit(X, y)
    assert memory.peak <= 3 * table / 1e6
