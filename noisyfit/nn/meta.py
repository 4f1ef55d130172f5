"""Networks that learn how much to trust each label, and the meta-gradient that teaches them.

A meta-model changes the training loss of a classifier. It is judged by the outer loss of the
classifier after one step on the changed loss. `WeightNet` weights the loss of every sample;
`Rectifier` scales its logits. Both return the loss and its derivative in the logits, so the
meta-gradient needs one differentiation of the network and no second-order graph: see `meta_loss`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from noisyfit.nn.beliefs import as_distributions
from noisyfit.nn.losses import cross_entropy
from noisyfit.nn.metagrad import call_with
from noisyfit.nn.parallel import average
from noisyfit.nn.virtual_step import VirtualStep

__all__ = ["Batch", "MetaModel", "Rectifier", "WeightNet", "meta_loss"]

LABEL_EMBEDDING_SIZE = 64

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # of logits, weights and factors; a scalar


class Batch(NamedTuple):
    """What a meta-model sees of a training batch.

    Attributes
    ----------
    logits : tensor of shape (n_samples, n_classes)
    embeddings : tensor of shape (n_samples, n_dims)
    labels : int64 tensor of shape (n_samples,) or tensor of shape (n_samples, n_classes)
        Class indices, or one distribution over the classes per sample.
    trusted : boolean tensor of shape (n_samples,)
        True if the label is known to be right: the sample then counts as in plain cross-entropy.
    """

    logits: Tensor
    embeddings: Tensor
    labels: Tensor
    trusted: Tensor


class MetaModel(nn.Module):
    """A change of the training loss: sample weights and factors of the logits, here all 1.

    Subclasses compute one of them.
    """

    def weights(self, batch: Batch) -> Tensor:
        """Return the weight (n_samples,) of every loss; 1 is its weight in a plain mean."""
        return torch.ones_like(batch.logits[:, 0])

    def factors(self, batch: Batch) -> Tensor:
        """Return the factors of the logits, (n_samples, n_classes); drawn if they are random."""
        return torch.ones_like(batch.logits)

    def rectified(self, batch: Batch) -> Tensor:
        """Return the logits (n_samples, n_classes) to compare with the labels."""
        return batch.logits

    def divergence(self, batch: Batch) -> Tensor:
        """Return how far the meta-model is from its prior, a scalar; 0 if it has none."""
        return batch.logits.new_zeros(())

    def loss(self, batch: Batch) -> Tensor:
        """Return the changed cross-entropy, a mean over the batch; the change is held constant."""
        weights, factors = self.weights(batch).detach(), self.factors(batch).detach()
        return (weights * cross_entropy(factors * batch.logits.float(), batch.labels)).mean()

    def logit_gradient(self, batch: Batch) -> Tensor:
        """Return the derivative of `loss` in the logits, ``w v (softmax(v z) - y) / n``.

        It has shape (n_samples, n_classes) and is differentiable in the meta-model's own
        parameters.
        """
        weights, factors = self.weights(batch), self.factors(batch)
        residual = _residual(factors * batch.logits.detach().float(), batch.labels)
        return weights[:, None] * factors * residual / len(residual)

    def change(self, loss: Loss, batch: Batch) -> Tensor:
        """Return another loss, changed in the same way; the change is held constant."""
        return loss(batch.logits, self.weights(batch).detach(), self.factors(batch).detach())

    def logit_gradient_of(self, loss: Loss, batch: Batch) -> Tensor:
        """Return the derivative of `change` in the logits, like `logit_gradient` for `loss`."""
        logits = batch.logits.detach().float().requires_grad_()
        changed = loss(logits, self.weights(batch), self.factors(batch))
        (gradient,) = torch.autograd.grad(changed, logits, create_graph=True)
        return gradient


class WeightNet(MetaModel):
    """Weight of a sample from its loss ([1]_; the function Omega of [2]_).

    The last layer starts at zero, so all samples weigh the same. Weights are normalised within each
    class, so that no class is given up because its losses are high.

    Parameters
    ----------
    hidden : int, default=100
        Number of units of the hidden layer.
    max_weight : float >= 1, default=4.0
        No sample weighs more than this many times its weight in a plain mean. Without a limit the
        sum-normalised weights can concentrate on a few samples, and training breaks down.

    References
    ----------
    .. [1] Shu et al. Meta-Weight-Net: Learning an Explicit Mapping For Sample Weighting. NeurIPS,
       2019. arXiv:1902.07379
    .. [2] CLID-MU: Cross-Layer Information Divergence Based Meta Update Strategy for Learning with
       Noisy Labels. Eqs. 4 to 6.
    """

    def __init__(self, hidden: int = 100, max_weight: float = 4.0) -> None:
        super().__init__()
        self.hidden = nn.Linear(1, hidden)
        self.output = nn.Linear(hidden, 1)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        self.max_weight = max_weight

    def forward(self, losses: Tensor, labels: Tensor, n_classes: int) -> Tensor:
        """Weights (n_samples,) from losses, with a mean of about 1 in each class before the cap.

        A class is compared with itself and once with the whole batch, which decides if the class
        has a single row. A sample with a distribution belongs to each class by its share.
        """
        trust = self.output(self.hidden(losses[:, None]).relu()).sigmoid()[:, 0]
        members = as_distributions(labels, n_classes).to(trust.dtype)
        averages = (trust @ members + trust.mean()) / (members.sum(0) + 1)
        return (trust / _mean_of(averages, labels)).clamp(max=self.max_weight)

    def weights(self, batch: Batch) -> Tensor:
        """Return the weight (n_samples,) of every loss; 1 is its weight in a plain mean."""
        losses = cross_entropy(batch.logits.detach(), batch.labels)
        weights = self(losses, batch.labels, batch.logits.shape[1])
        return torch.where(batch.trusted, 1.0, weights)


class Rectifier(MetaModel):
    """Factors of the logits of a sample from its embedding and its label ([1]_).

    A Gaussian whose sigmoid multiplies the logits elementwise before the cross-entropy. Its prior
    is the same network without the label. The divergence between the two regularises the
    meta-model.

    Parameters
    ----------
    n_dims : int
        Dimensions of the embeddings.
    n_classes : int
    hidden : int, default=128
        Units in each of the two hidden layers.

    References
    ----------
    .. [1] Sun et al. Variational Rectification Inference for Learning with Noisy Labels. IJCV,
       2024.
    """

    def __init__(self, n_dims: int, n_classes: int, hidden: int = 128) -> None:
        super().__init__()
        self.label_embedding = nn.Embedding(n_classes, LABEL_EMBEDDING_SIZE)
        self.body = nn.Sequential(
            nn.Linear(n_dims + LABEL_EMBEDDING_SIZE, hidden), nn.Tanh(),
            nn.Linear(hidden, hidden), nn.Tanh(),
        )  # fmt: skip
        self.output = nn.Linear(hidden, 2 * n_classes)

    def posterior(self, embeddings: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance (n_samples, n_classes); without labels, of the prior."""
        if labels is None:
            code = embeddings.new_zeros(len(embeddings), LABEL_EMBEDDING_SIZE, dtype=torch.float32)
        else:
            code = _mean_of(self.label_embedding.weight, labels)
        both = torch.cat([embeddings.detach().float(), code], 1)
        mean, log_variance = self.output(self.body(both)).chunk(2, dim=1)
        return mean, log_variance

    def factors(self, batch: Batch) -> Tensor:
        """Draw factors in (0, 1), shape (n_samples, n_classes); 1 for trusted samples."""
        mean, log_variance = self.posterior(batch.embeddings, batch.labels)
        drawn = torch.sigmoid(mean + (log_variance / 2).exp() * torch.randn_like(mean))
        return torch.where(batch.trusted[:, None], 1.0, drawn)

    def rectified(self, batch: Batch) -> Tensor:
        """Return the logits (n_samples, n_classes) times the factors at the mean."""
        factors = self.posterior(batch.embeddings, batch.labels)[0].sigmoid()
        return torch.where(batch.trusted[:, None], 1.0, factors) * batch.logits.float()

    def divergence(self, batch: Batch) -> Tensor:
        """Return the mean Kullback-Leibler divergence of the posterior from the prior, in nats."""
        mean, log_variance = self.posterior(batch.embeddings, batch.labels)
        prior_mean, prior_log_variance = self.posterior(batch.embeddings, None)
        log_ratio = log_variance - prior_log_variance
        distance = (mean - prior_mean).square() * (-prior_log_variance).exp()
        return (log_ratio.exp() + distance - 1 - log_ratio).sum(1).mean() / 2


def meta_loss(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    logits: Tensor,
    logit_gradient: Tensor,
    outer: Callable[[nn.Module], Tensor],
    tangents: Callable[[Mapping[str, Tensor]], Tensor],
    names: Sequence[str],
    *,
    retain_graph: bool = True,
) -> Tensor:
    """Return the outer loss after a virtual step, as a scalar whose gradient is the meta-gradient.

    The virtual step is a step of the optimizer on a training loss whose derivative in the logits is
    `logit_gradient`. If the step turns the gradient of the outer loss into the direction ``u``, the
    meta-gradient is the gradient of ``-<logit_gradient, d logits / d u>``. It is exact, because the
    outer loss is differentiated once, at the end of the step.

    Parameters
    ----------
    network : module
    optimizer : torch optimizer
        The network's optimizer; it is read, not changed.
    logits : tensor of shape (n_samples, n_classes)
        Logits of the training batch, with their graph.
    logit_gradient : tensor of shape (n_samples, n_classes)
        Differentiable in the parameters of the meta-model.
    outer : callable
        Returns the outer loss of a network; called once, with the network after the virtual step.
    tangents : callable
        Returns the derivative (n_samples, n_classes) of the logits along a direction in parameter
        space: `metagrad.logit_jvp` or `metagrad.head_jvp` of the training batch.
    names : sequence of str
        Parameters that take the virtual step.
    retain_graph : bool, default=True
        Whether `logits` can be differentiated again.
    """
    inner = (logits * logit_gradient.detach()).sum()
    step = VirtualStep(network, optimizer, inner, names, retain_graph=retain_graph)
    resting = {name: p.detach() for name, p in network.named_parameters()}
    outer_loss = call_with(network, resting | step.parameters, outer)
    gradients = torch.autograd.grad(outer_loss, list(step.parameters.values()))
    average(gradients)
    direction = step.direction(dict(zip(step.parameters, gradients, strict=True)))
    change = -(logit_gradient * tangents(direction)).sum()
    return outer_loss.detach() + change - change.detach()


def _residual(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the derivative of every sample's cross-entropy in its logits."""
    return logits.softmax(1) - as_distributions(labels, logits.shape[1])


def _mean_of(values: Tensor, labels: Tensor) -> Tensor:
    """Return the value for each sample's class, or the mean under its distribution."""
    return values[labels] if labels.ndim == 1 else labels @ values
