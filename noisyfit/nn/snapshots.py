"""The best networks of a training run, kept for averaging."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

__all__ = ["Snapshots"]


class Snapshots(nn.ModuleList):
    """Copies of a network with the lowest scores so far, on the CPU.

    Parameters
    ----------
    networks : iterable of modules
        One for each place.
    """

    score: Tensor
    epoch: Tensor

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        super().__init__(networks)
        self.register_buffer("score", torch.full((len(self),), torch.inf))
        self.register_buffer("epoch", torch.full((len(self),), -1))

    def offer(self, network: nn.Module, score: float, epoch: int) -> None:
        """Replace the worst network if the score is lower."""
        worst = int(self.score.argmax())
        if score < self.score[worst]:
            self.score[worst], self.epoch[worst] = score, epoch
            self[worst].load_state_dict(network.state_dict())

    def kept(self, device: torch.device | str = "cpu") -> Iterator[nn.Module]:
        """Yield the networks that have a score, each on the device until the next is taken."""
        for i in self.score.isfinite().nonzero():
            yield self[int(i)].to(device)
            self[int(i)].cpu()
