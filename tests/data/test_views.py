import numpy as np
import pytest
import torch

from noisyfit.data.views import CallableAugment
from tests.helpers import table, training


@pytest.mark.parametrize(
    "views", [(), ("weak",), ("plain", "strong"), ("weak", "strong", "strong")]
)
def test_batches_give_one_tensor_a_view(views: tuple[str, ...]) -> None:
    data = training(6, 4, augment=CallableAugment(lambda x: x + torch.rand(())))
    for idx, *seen, labels in data.batches(*views):
        plain = torch.as_tensor(table(6))[idx].float()
        assert len(seen) == max(1, len(views))
        assert len(labels) == len(idx)
        for x, name in zip(seen, views or ("weak",), strict=True):
            assert torch.equal(x, plain) == (name == "plain")
        assert len({float((x - plain)[0, 0]) for x in seen}) == len(seen)


def test_in_order__view__is_applied() -> None:
    data = training(5, 2, augment=CallableAugment(lambda x: -x))
    np.testing.assert_array_equal(torch.cat(list(data.in_order())), table(5))
    np.testing.assert_array_equal(torch.cat(list(data.in_order("weak"))), -table(5))
