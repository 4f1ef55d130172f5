"""A meta-model that shapes the training loss of a method, and the step that trains it."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from noisyfit.data.training import TrainingData
from noisyfit.estimator.base import NoisyLabelClassifier
from noisyfit.nn.beliefs import one_hot
from noisyfit.nn.features import embedding_size, logits_and_embeddings
from noisyfit.nn.losses import clid, cross_entropy
from noisyfit.nn.meta import Batch, MetaModel, Rectifier, WeightNet, meta_loss
from noisyfit.nn.metagrad import head_jvp, logit_jvp, meta_parameter_names, replayed
from noisyfit.utils.torch_state import rng_state

META_BATCH = 100
DIVERGENCE_WEIGHT = 0.01


class TrainingPass(NamedTuple):
    """A forward pass of a network over a training batch, which can be repeated."""

    network: nn.Module
    x: Tensor
    random_state: dict[torch.device, Tensor]
    logits: Tensor
    embeddings: Tensor

    @classmethod
    def of(cls, network: nn.Module, x: Tensor) -> TrainingPass:
        """Run the network."""
        random_state = rng_state(x.device)
        return cls(network, x, random_state, *logits_and_embeddings(network, x))

    def seen(self, labels: Tensor, trusted: Tensor) -> Batch:
        """Return the batch as a meta-model sees it."""
        return Batch(self.logits.detach(), self.embeddings.detach(), labels, trusted)


class MetaLearning(NoisyLabelClassifier):
    """The meta-model of CLID-MU and its meta step (Algorithm 1).

    A method inherits from this class and overrides some of the parameters below; the others keep
    these values. Its ``_make_network`` creates the network ``meta_model``.
    """

    meta_model: str | None
    meta_objective: str
    meta_every: int
    meta_lr: float
    meta_params: str = "all"
    meta_batch_size: int = META_BATCH
    clid_temperature: float = 0.5
    clid_neighbors: int | None = None
    normalizer_grad: bool = False
    low_memory: bool = False
    meta_model_: Any
    meta_model_optimizer_: torch.optim.Optimizer

    def _takes_meta_step(self, step: int, meta: TrainingData) -> bool:
        return step % self.meta_every == 0 and len(meta) > 1

    def _meta_step(
        self,
        forward: TrainingPass,
        optimizer: torch.optim.Optimizer,
        meta_model: MetaModel,
        batch: Batch,
        logit_gradient: Tensor,
        meta: TrainingData,
    ) -> None:
        """Try out a training step, and update the meta-model by how good it was.

        Parameters
        ----------
        forward : TrainingPass
        optimizer : torch optimizer
            Optimizer of the network.
        meta_model : MetaModel
        batch : Batch
            What the meta-model saw.
        logit_gradient : Tensor of shape (n_samples, n_classes)
            Derivative of the training loss with respect to the logits, differentiable with respect
            to the meta-model.
        meta : TrainingData
            Rows on which the step is judged.
        """
        loss = meta_loss(
            forward.network,
            optimizer,
            forward.logits,
            logit_gradient,
            partial(self._outer, *meta.draw(self.meta_batch_size)),
            partial(self._tangents, forward),
            meta_parameter_names(forward.network, self.meta_params),
            retain_graph=not self.low_memory,
        )  # virtual step, Eq. 4
        self._log("outer_loss", loss)
        loss = loss + DIVERGENCE_WEIGHT * meta_model.divergence(batch)
        self._descend(loss, "meta_model")  # meta step, Eq. 5

    def _outer(self, x: Tensor, labels: Tensor, network: nn.Module) -> Tensor:
        """Return the meta objective of a network on a meta batch."""
        return self._judgement(*logits_and_embeddings(network, x), labels)

    def _judgement(self, logits: Tensor, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the meta objective of some rows, a scalar: CLID, Eq. 9, or a loss on labels."""
        probs = logits.float().softmax(1)
        if self.meta_objective == "clid":
            values = clid(
                embeddings,
                probs,
                temperature=self.clid_temperature,
                normalizer_grad=self.normalizer_grad,
                n_neighbors=self.clid_neighbors,
            )
        elif self.meta_objective == "mae":
            values = (probs - one_hot(labels, probs.shape[1])).abs().sum(1)
        else:
            values = cross_entropy(logits, labels)
        return values.mean()

    def _tangents(self, forward: TrainingPass, direction: dict[str, Tensor]) -> Tensor:
        """Differentiate the logits of a training batch along a direction in parameter space."""
        if self.meta_params == "head":
            return head_jvp(forward.embeddings, direction)
        with replayed(forward.random_state):  # with the dropout of the training pass
            return logit_jvp(forward.network, forward.x, direction)[1]

    def _make_meta_model(self, network: nn.Module) -> MetaModel:
        params = self.get_params_for("meta_model")
        if self.meta_model == "wnet":
            return WeightNet(**params).to(self.device_)
        probe = torch.zeros(2, *self.row_shape_, device=self.device_)
        n_dims = embedding_size(network, probe)
        return Rectifier(n_dims, self.n_classes_, **params).to(self.device_)

    def _make_optimizer(self, name: str, network: nn.Module) -> torch.optim.Optimizer:
        if name != "meta_model":
            return super()._make_optimizer(name, network)
        params = {"lr": self.meta_lr, "fused": True} | self.get_params_for("meta_model_optimizer")
        return torch.optim.Adam(network.parameters(), **params)
