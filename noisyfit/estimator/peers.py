"""Two networks that train each other and predict together."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from noisyfit.data.rows import Rows
from noisyfit.data.training import TrainingData
from noisyfit.estimator.base import NoisyLabelClassifier


class Peers(NoisyLabelClassifier):
    """Two networks of a method, ``module_`` and ``peer_`` unless ``_peers`` names others.

    A method inherits from this class. ``predicting_`` names the networks that predict: both, or
    only ``module_`` where a callback restores its best epoch.
    """

    _peers: ClassVar = ("module", "peer")
    _networks: ClassVar = _peers
    predicting_: list[str]
    peer_: Any
    peer_optimizer_: torch.optim.Optimizer

    def initialize_module(self) -> Self:
        """Create both networks, and name those that predict."""
        super().initialize_module()
        self.predicting_ = ["module"] if self._restores_an_epoch() else list(self._peers)
        return self

    def _probabilities(self, rows: TrainingData | Rows) -> Tensor:
        """Return the softmax of the mean of the networks' logits."""
        networks = self._together(self.predicting_)
        return self._evaluate(
            lambda x: (sum(network(x).float() for network in networks) / len(networks)).softmax(1),
            networks,
            rows,
        )
