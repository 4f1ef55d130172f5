"""Networks behind ``torch.compile``."""

import shutil
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.common.zoo import ESTIMATORS, Estimator
from tests.helpers import blobs, quick


class Normalized(nn.Sequential):
    def __init__(self, n_features: int, n_classes: int) -> None:
        super().__init__(
            nn.Linear(n_features, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, n_classes)
        )


def compiled(n_features: int, n_classes: int) -> Any:
    return torch.compile(Normalized(n_features, n_classes))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a compiler")
@pytest.mark.parametrize("cls", ESTIMATORS)
def test_compiled_network__is_trained_like_the_network(cls: Estimator) -> None:
    X, y = blobs()
    expected, found = (
        quick(cls, module=module, max_epochs=3).fit(X, y).predict_proba(X)
        for module in (Normalized, compiled)
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)
