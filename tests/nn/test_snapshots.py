"""Which networks are kept."""

import pytest
import torch
from torch import nn

from noisyfit.nn.snapshots import Snapshots


def network(value: float) -> nn.Module:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, value)
    return layer


def weights(networks: list[nn.Module]) -> list[float]:
    return sorted(float(p.detach()) for layer in networks for p in layer.parameters())


@pytest.mark.parametrize("n_places", [1, 2, 3, 9])
def test_offer__lowest_scores__are_kept(n_places: int) -> None:
    scores = [3.0, 1.0, 2.5, 2.0, 9.0, 0.5]
    snapshots = Snapshots(network(0.0) for _ in range(n_places))
    for epoch, score in enumerate(scores):
        snapshots.offer(network(score), score, epoch)
    best = sorted(scores)[:n_places]
    assert weights(list(snapshots.kept())) == best
    found = snapshots.score.isfinite()
    assert sorted(snapshots.score[found].tolist()) == best
    assert sorted(snapshots.epoch[found].tolist()) == sorted(map(scores.index, best))


def test_offer__later_changes_of_the_network__do_not_reach_the_copy() -> None:
    snapshots, offered = Snapshots([network(0.0)]), network(1.0)
    snapshots.offer(offered, 1.0, 0)
    nn.init.constant_(offered.weight, 7.0)  # type: ignore[arg-type]
    assert weights(list(snapshots.kept())) == [1.0]


def test_offer__no_score__is_kept_nowhere() -> None:
    snapshots = Snapshots([network(0.0)])
    snapshots.offer(network(1.0), float("nan"), 0)
    assert list(snapshots.kept()) == []
    assert torch.isinf(snapshots.score).all()
