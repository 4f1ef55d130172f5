"""Networks whose weights follow those of another network."""

import torch
from torch import Tensor, nn

__all__ = ["follow"]


@torch.no_grad()
def follow(average: nn.Module, newest: nn.Module, share: Tensor | float) -> None:
    """Move weights and running statistics towards those of another network; counters are copied.

    Parameters
    ----------
    average, newest : modules of the same architecture
        The first is changed.
    share : float or tensor of shape () in [0, 1]
        How far; 1 copies.
    """
    pairs = list(zip(average.state_dict().values(), newest.state_dict().values(), strict=True))
    moved = [(value, target) for value, target in pairs if value.is_floating_point()]
    for value, target in pairs:
        if not value.is_floating_point():
            value.copy_(target)
    if moved:
        weights = [share.to(v.dtype) for v, _ in moved] if isinstance(share, Tensor) else share
        torch._foreach_lerp_(*map(list, zip(*moved, strict=True)), weights)
