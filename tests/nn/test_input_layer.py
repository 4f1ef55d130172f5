import copy

import pytest
import torch
from torch import nn

from noisyfit.nn.input_layer import Standardized


def test_standardized__table__has_zero_mean_and_unit_deviation() -> None:
    x = 5 + 3 * torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen = Standardized(nn.Identity(), x.mean(0), x.std(0))(x)
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.std(0), torch.ones(4))


def test_standardized__bytes__become_standardised_channels_last_floats() -> None:
    x = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).reshape(2, 3, 4, 5)
    mean, std = torch.tensor([10.0, 20.0, 30.0]), torch.tensor([1.0, 2.0, 4.0])
    seen = Standardized(nn.Identity(), mean.reshape(3, 1, 1), std.reshape(3, 1, 1))(x)
    assert seen.dtype == torch.float32
    assert seen.is_contiguous(memory_format=torch.channels_last)
    assert not seen.is_contiguous()
    for channel in range(3):
        expected = (x[:, channel].float() - mean[channel]) / std[channel]
        torch.testing.assert_close(seen[:, channel], expected)


def test_standardized__mean_and_deviation__travel_with_the_network() -> None:
    mean, std = torch.ones(2), 2 * torch.ones(2)
    module = Standardized(nn.Linear(2, 2), mean, std)
    mean.zero_()  # the caller's tensor is not shared
    other = Standardized(nn.Linear(2, 2), torch.zeros(2), torch.ones(2))
    other.load_state_dict(copy.deepcopy(module.state_dict()))
    x = torch.tensor([[3.0, 5.0]])
    assert torch.equal(other.standardize(x), torch.tensor([[1.0, 2.0]]))
    assert {name for name, _ in module.named_parameters()} == {"network.weight", "network.bias"}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_standardized__script__computes_the_same() -> None:
    module = Standardized(nn.Linear(2, 3), torch.ones(2), 2 * torch.ones(2))
    x = torch.arange(8.0).reshape(4, 2)
    assert torch.equal(torch.jit.script(module)(x), module(x))  # type: ignore[no-untyped-call]
