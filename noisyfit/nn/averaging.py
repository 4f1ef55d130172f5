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
    values, targets = [], []
    pairs = zip(average.state_dict().values(), newest.state_dict().values(), strict=True)
    for value, target in pairs:
        if value.is_floating_point():
            values.append(value)
            targets.append(target)
        else:
            value.copy_(target)
    if isinstance(share, Tensor):
        torch._foreach_lerp_(values, targets, [share.to(value.dtype) for value in values])
    else:
        torch._foreach_lerp_(values, targets, share)
