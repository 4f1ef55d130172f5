"""The protocol of a generator."""

from typing import Any, Protocol, Self, runtime_checkable

import torch
from numpy.typing import NDArray
from torch import Tensor


@runtime_checkable
class Modifier(Protocol):
    """Changes rows so that they fit their labels, and changes as little else as possible.

    Stored rows are found by a hash of the modifier as it was passed. A modifier with parts that are
    costly or impossible to hash has a method ``identity()`` that returns what its rows depend on.
    """

    def modify(self, x: Tensor, y: NDArray[Any], generator: torch.Generator) -> Tensor:
        """Return modified rows.

        Parameters
        ----------
        x : tensor of shape (n_samples, n_features) or (n_samples, C, H, W)
            float32, or uint8 for images that came as bytes.
        y : ndarray of shape (n_samples,)
            Labels in the user's type.
        generator : torch.Generator
            On the CPU, and the only source of randomness. Its state depends only on the rows, the
            labels and the seed of the fit, not on what was modified before.

        Returns
        -------
        tensor of the shape and dtype of `x`
        """


class Progress(Protocol):
    """Stores the progress of a training."""

    def read(self) -> dict[str, Any] | None:
        """Return the last written state, or None."""

    def hold(self, state: dict[str, Any]) -> None:
        """Keep a copy of the state until `flush`."""

    def flush(self) -> None:
        """Write the held state."""


@runtime_checkable
class Trainable(Protocol):
    """A modifier that first learns from the user's own rows.

    If its ``fit`` also takes a ``checkpoint``, a `Progress`, a training that was killed resumes.

    What was learned is stored as tensors, arrays, numbers and text, never as code. If attributes
    are anything else, such as a network, ``get_state()`` returns a dict of what was learned, and
    ``set_state(state)`` restores it in an untrained modifier.
    """

    def fit(self, x: Tensor, y: NDArray[Any], generator: torch.Generator) -> Self:
        """Learn from all rows and their labels; arguments as in `Modifier.modify`."""
