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
    pairs = zip(average.state_dict().values(), newest.state_dict().values(), strict=True)
    for value, target in pairs:
        if value.is_floating_point():
            value.lerp_(target, share.to(value.dtype) if isinstance(share, Tensor) else share)
        else:
            value.copy_(target)
