"""When cross-entropy ends and a method begins."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from noisyfit.data import TrainingData

PATIENCE = 3  # epochs without progress that end the warm-up
HELD_OUT_FRACTION = 0.05  # of the rows, while the warm-up watches for the end of learning
HELD_OUT_MINIMUM = 20  # rows; with fewer the likelihood tells nothing


class WarmUp:
    """Epochs of cross-entropy on the given labels, before a method trusts its own predictions.

    Tables are warmed up for a fixed part of the epochs. Convolutional networks learn more slowly,
    and collapse if they are left to their own predictions too early: on images the warm-up holds a
    few rows out and ends when the likelihood of their labels stops rising. If it still rises at
    half time, the warm-up lasts to the end. A number of epochs given by the user holds for both.

    A method inherits from this class before the common base, and keeps what `_warm_up_state`
    returns in its state.
    """

    warmup_epochs: int | None
    warmup_epochs_: int
    max_epochs_: int
    n_iter_: int
    layout_: str
    state_: Any

    def _warm_up_state(self, n: int) -> dict[str, Tensor]:
        """Return what the warm-up must remember, for ``n`` training rows."""
        watched = torch.rand(n) < HELD_OUT_FRACTION if self._watches(n) else torch.zeros(n)
        return {
            "first_epoch": torch.tensor(-1),  # after the warm-up
            "held_out": watched.bool(),
            "best_likelihood": torch.tensor(-torch.inf),
            "best_epoch": torch.tensor(0),
        }

    def _warming_up(self, data: TrainingData, epoch: int, beliefs: Tensor) -> bool:
        """Whether an epoch belongs to the warm-up.

        Parameters
        ----------
        data : TrainingData
        epoch : int
        beliefs : Tensor of shape (n_samples, n_classes)
            Predictions averaged over the epochs so far.
        """
        state = self.state_
        if state.first_epoch < 0 and self._has_learnt(data, epoch, beliefs):
            state.first_epoch.fill_(epoch)
            state.held_out.fill_(False)
        return bool(state.first_epoch < 0)

    def _has_learnt(self, data: TrainingData, epoch: int, beliefs: Tensor) -> bool:
        state = self.state_
        if not self._watches(len(data)):
            return epoch >= self.warmup_epochs_
        if epoch >= self.max_epochs_ / 2:
            state.held_out.fill_(False)  # still learning: take all labels, to the end
            return False
        if epoch == 0:
            return False
        held_out = state.held_out & data.has_label
        given = beliefs[held_out].gather(1, data.labels[held_out][:, None])
        likelihood = given.clamp(min=1e-8).log().mean()
        if likelihood > state.best_likelihood:
            state.best_likelihood.copy_(likelihood)
            state.best_epoch.fill_(epoch)
        waited = epoch - int(state.best_epoch)
        return epoch >= self.warmup_epochs_ and waited >= PATIENCE

    def _watches(self, n: int) -> bool:
        """Whether rows are held out to see the end of learning."""
        enough = self.layout_ != "table" and n * HELD_OUT_FRACTION >= HELD_OUT_MINIMUM
        return self.warmup_epochs is None and enough

    def _warm_up_weights(self, data: TrainingData) -> Tensor:
        """Return 1 for the rows whose labels are learnt from, 0 for the others, (n_samples,)."""
        return (data.has_label & ~self.state_.held_out).float()

    def _length_of_warm_up(self) -> int:
        """Return the number of epochs it took; all if it lasted to the end."""
        first_epoch = int(self.state_.first_epoch)
        return first_epoch if first_epoch >= 0 else self.n_iter_
