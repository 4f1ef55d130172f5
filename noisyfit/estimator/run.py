"""What one fit holds while it runs: created by `fit`, gone when it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from skorch.dataset import Dataset as LabelledRows
from torch import Tensor, nn
from torch.utils.data import Subset

from noisyfit.data.training import TrainingData
from noisyfit.estimator.checkpoint import Checkpoint


@dataclass
class Run:
    """Everything that one fit holds besides the networks and the fitted attributes.

    Parameters
    ----------
    everything, data : TrainingData
        All rows of X, and those to learn from.
    validation : TrainingData or None
        Rows on which ``valid_loss`` and ``valid_acc`` are recorded.
    datasets : dict
        What skorch's callbacks score, as the user passed it.
    checkpoint : Checkpoint or None
    parameters : dict of lists of (name, parameter)
        Parameters by network, as passed to callbacks.
    losses : dict of lists of scalars
        Values of the batches of this epoch, by their name in the history.
    """

    everything: TrainingData
    data: TrainingData
    validation: TrainingData | None
    datasets: dict[str, Any]
    checkpoint: Checkpoint | None = None
    parameters: dict[str, list[tuple[str, nn.Parameter]]] = field(default_factory=dict)
    losses: dict[str, list[Tensor]] = field(default_factory=dict)

    def log(self, name: str, value: Tensor) -> None:
        """Log a value of this batch."""
        self.losses.setdefault(name, []).append(value.detach())

    def take_losses(self) -> dict[str, Tensor]:
        """Return the values of the batches of this epoch by name, and clear them."""
        taken = {name: torch.stack(values).float() for name, values in self.losses.items()}
        self.losses.clear()
        return taken

    def flush(self) -> None:
        """Write the last epoch that the checkpoint holds to disk."""
        if self.checkpoint:
            self.checkpoint.flush()


def scored_by_callbacks(
    X: Any, labels: Any, data: TrainingData, X_val: Any, y_val: Any
) -> dict[str, Any]:
    """Return the data sets that callbacks score.

    Parameters
    ----------
    X, labels : arrays
        All rows and given labels, as the user passed them.
    data : TrainingData
        The rows to learn from.
    X_val, y_val : arrays or None
        As passed to `fit`.
    """
    everything = LabelledRows(X, labels)
    if X_val is not None:
        return {"dataset_train": everything, "dataset_valid": LabelledRows(X_val, y_val)}
    if data.index is None:
        return {"dataset_train": everything, "dataset_valid": None}
    kept = np.isin(np.arange(len(everything)), data.index.cpu().numpy())
    return {
        "dataset_train": Subset(everything, np.flatnonzero(kept).tolist()),
        "dataset_valid": Subset(everything, np.flatnonzero(~kept).tolist()),
    }
