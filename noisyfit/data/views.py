"""The views of a row that a network sees: the row itself, or changed copies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Augment(Protocol):
    """The protocol of an augmentation in ``TrainingData``."""

    def weak(self, x: Tensor) -> Tensor:
        """Return a lightly changed copy of every row."""

    def strong(self, x: Tensor) -> Tensor:
        """Return a heavily changed copy of every row."""


@dataclass(frozen=True)
class CallableAugment:
    """A user's function as both the weak and the strong view."""

    function: Callable[[Tensor], Tensor]

    def weak(self, x: Tensor) -> Tensor:
        """Return ``function(x)`` if it is a valid changed copy of the rows."""
        writes = x._version
        view = self.function(x)
        if x._version != writes:
            raise self._refusal(
                "one that writes into the batch it is given", "Let it begin with x = x.clone()."
            )
        if not isinstance(view, Tensor):
            raise self._refusal(f"a {type(view).__name__}", "Let it return torch.as_tensor(...).")
        if view.shape != x.shape or view.device != x.device or view.is_complex():
            got = f"{view.dtype} of shape {tuple(view.shape)} on {view.device}"
            raise self._refusal(got, f"The batch was {tuple(x.shape)} on {x.device}.")
        return view

    strong = weak

    def _refusal(self, got: str, remedy: str) -> ValueError:
        return ValueError(
            "augmentation must return a changed copy of its batch: a real tensor of the same shape "
            f"on the same device. Got {got} from {self.function!r}. {remedy}"
        )


@dataclass(frozen=True)
class NoAugment:
    """Every view is the row itself."""

    def weak(self, x: Tensor) -> Tensor:
        """Return x."""
        return x

    strong = weak
