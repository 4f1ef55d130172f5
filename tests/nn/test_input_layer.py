import copy

import numpy as np
import pytest
import torch
from torch import nn

from noisyfit.nn.input_layer import Preprocessing, Standardized, freeze, mean_and_std, resized


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


def test_standardized__size__is_that_of_the_images_that_the_network_gets() -> None:
    x = torch.rand(2, 3, 10, 20) * 255
    mean, std = torch.full((3, 1, 1), 100.0), torch.full((3, 1, 1), 50.0)
    seen = Standardized(nn.Identity(), mean, std, 8)(x)
    torch.testing.assert_close(seen, (resized(x, 8) - 100) / 50)


def test_resized__enlarged_and_shrunk__keeps_the_mean() -> None:
    x = torch.rand(1, 3, 40, 20) * 255
    for size in (8, 80):
        assert resized(x, size).shape == (1, 3, size, size)
        torch.testing.assert_close(resized(x, size).mean((2, 3)), x.mean((2, 3)), rtol=0.05, atol=0)


def test_resized__of_that_size__as_it_is() -> None:
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(resized(x, 8), x)


@pytest.mark.parametrize("black, white", [(0.0, 1.0), (0.0, 255.0), (-1.0, 1.0)])
def test_preprocessing__any_range_of_values__gives_the_same_input(
    black: float, white: float
) -> None:
    x = torch.rand(4, 3, 5, 5)
    expects = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    scale = expects.scale(3, black, white)
    assert scale is not None
    seen = Standardized(nn.Identity(), *scale)(black + (white - black) * x)
    for channel, (mean, std) in enumerate([(0.1, 0.5), (0.2, 0.6), (0.3, 0.7)]):
        torch.testing.assert_close(seen[:, channel], (x[:, channel] - mean) / std)


def test_preprocessing__grey__average_over_the_colours() -> None:
    scale = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7)).scale(1, 0.0, 1.0)
    assert scale is not None
    assert [float(value) for value in scale] == pytest.approx([0.2, 0.6])
    assert scale[0].shape == (1, 1, 1)


def test_freeze__training_mode__leaves_weights_and_statistics() -> None:
    layers = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.5), nn.BatchNorm1d(2))
    freeze(layers[0])
    freeze(layers[1])
    module = copy.deepcopy(Standardized(layers, torch.zeros(2), torch.ones(2))).train()
    module(torch.randn(8, 2) + 5).sum().backward()
    network = module.get_submodule("network")
    first, dropout, last = (network.get_submodule(name) for name in "012")
    assert (first.training, dropout.training, last.training) == (False, False, True)
    assert torch.equal(first.get_buffer("running_mean"), torch.zeros(2))
    assert first.get_parameter("weight").grad is None
    assert last.get_buffer("running_mean").abs().min() > 0
    assert last.get_parameter("weight").grad is not None


@pytest.mark.parametrize("shape", [(3000, 4), (2500, 3, 5, 6)], ids=["table", "image"])
def test_mean_and_std__by_slices__are_those_of_numpy(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(1e4, 3.0, shape).astype(np.float32)
    axes = (0, *range(2, len(shape)))
    mean, std = mean_and_std(torch.as_tensor(x))
    exact = x.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(axes, keepdims=True), rtol=1e-14)
    np.testing.assert_allclose(std, exact.std(axes, keepdims=True), rtol=1e-12)
