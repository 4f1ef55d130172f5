"""The published weights give the published network's outputs."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from noisyfit.nn.backbones.efficientnet_lite import (
    EfficientNetLite,
    efficientnet_lite0,
    efficientnet_lite1,
    efficientnet_lite2,
)

Factory = Callable[[int, int], nn.Module]
N_PARAMETERS: dict[Factory, float] = {  # millions, as in the paper's table
    efficientnet_lite0: 4.7,
    efficientnet_lite1: 5.4,
    efficientnet_lite2: 6.1,
}


@pytest.mark.parametrize("make", N_PARAMETERS)
def test_parameters__as_many_as_published(make: Factory) -> None:
    network = make(3, 1000)
    n_parameters = sum(p.numel() for p in network.parameters())
    assert n_parameters / 1e6 == pytest.approx(N_PARAMETERS[make], abs=0.05)


@pytest.mark.parametrize("size", [32, 33, 65])
def test_shapes__any_size_and_channels(size: int) -> None:
    network = EfficientNetLite(1, 7).eval()
    x = torch.rand(2, 1, size, size)
    features = network.forward_features(x)
    assert features.shape == (2, 1280, -(-size // 32), -(-size // 32))
    torch.testing.assert_close(network(x), network.forward_head(features))
    torch.testing.assert_close(
        network.forward_head(features, pre_logits=True), features.mean((2, 3))
    )


def test_load_published__by_order__under_any_names() -> None:
    torch.manual_seed(0)
    one, other = EfficientNetLite(3, 5).eval(), EfficientNetLite(3, 5).eval()
    other.load_published({f"_{i}": v for i, v in enumerate(one.state_dict().values())})
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(one(x), other(x))


def test_load_published__of_another_network__error_says_so() -> None:
    with pytest.raises(ValueError, match="those of this EfficientNet-Lite.*Got"):
        EfficientNetLite(3, 5).load_published(EfficientNetLite(3, 6).state_dict())
