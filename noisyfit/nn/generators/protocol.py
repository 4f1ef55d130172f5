"""What is asked of a generator."""

from typing import Any, Protocol, Self, runtime_checkable

import torch
from numpy.typing import NDArray
from torch import Tensor


@runtime_checkable
class Modifier(Protocol):
    """Changes rows so that they fit their labels, and as little else as it can.

    Kept rows are found again by a hash of the modifier as it was passed. One with parts that are
    costly or impossible to hash has a method ``identity()`` that returns what its rows depend on.
    """

    def modify(self, x: Tensor, y: NDArray[Any], generator: torch.Generator) -> Tensor:
        """Return modified rows.

        Parameters
        ----------
        x : tensor of shape (n_samples, n_features) or (n_samples, C, H, W)
            float32, or uint8 for images that came as bytes.
        y : ndarray of shape (n_samples,)
            Labels as the user writes them.
        generator : torch.Generator
            On the CPU, the only source of randomness. Its state depends on the rows, the labels and
            the seed of the fit alone, not on what was modified before.

        Returns
        -------
        tensor of the shape and dtype of `x`
        """


class Progress(Protocol):
    """Keeps how far a training has come."""

    def read(self) -> dict[str, Any] | None:
        """Return the state that was written last, or None."""

    def hold(self, state: dict[str, Any]) -> None:
        """Keep a copy of the state until `flush`."""

    def flush(self) -> None:
        """Write it."""


@runtime_checkable
class Trainable(Protocol):
    """A modifier that learns from the user's own rows first.

    If its ``fit`` takes a ``checkpoint`` as well, a `Progress`, a training that was killed goes on.

    What was learned is kept as tensors, arrays, numbers and text, never as code. Where attributes
    are more than that, such as a network, ``get_state()`` returns a dict of what was learned, and
    ``set_state(state)`` puts it into a modifier that was not trained.
    """

    def fit(self, x: Tensor, y: NDArray[Any], generator: torch.Generator) -> Self:
        """Learn from all rows and their labels; arguments as in `Modifier.modify`."""
