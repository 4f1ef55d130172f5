"""Averages of weights."""

from copy import deepcopy

import torch
from torch import nn

from noisyfit.nn.averaging import follow


def test_follow__moves_weights_and_statistics__and_copies_counters() -> None:
    newest = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = deepcopy(newest)
    newest(torch.randn(8, 3))
    with torch.no_grad():
        for parameter in newest.parameters():
            parameter.add_(1)
    before = {name: value.clone() for name, value in average.state_dict().items()}
    follow(average, newest, 0.25)
    for name, new in newest.state_dict().items():
        expected = 0.75 * before[name] + 0.25 * new if new.is_floating_point() else new
        torch.testing.assert_close(average.state_dict()[name], expected)
    follow(average, newest, torch.tensor(1.0))
    assert all(
        torch.equal(value, newest.state_dict()[name])
        for name, value in average.state_dict().items()
    )
