"""The meta-models' closed forms, and the meta-gradient against a second-order reference."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from noisyfit.nn.backbones.preact_resnet import preact_resnet18
from noisyfit.nn.features import logits_and_embeddings
from noisyfit.nn.losses import cross_entropy
from noisyfit.nn.meta import Batch, MetaModel, Rectifier, WeightNet, meta_loss
from noisyfit.nn.metagrad import head_jvp, logit_jvp, meta_parameter_names

N, D, K = 12, 6, 3


def some_batch(seed: int = 0) -> Batch:
    rng = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(N, K, generator=rng)
    embeddings = torch.randn(N, D, generator=rng)
    labels = torch.randint(K, (N,), generator=rng)
    return Batch(logits, embeddings, labels, torch.arange(N) < 2)


def some_model(kind: str) -> MetaModel:
    torch.manual_seed(0)
    model: MetaModel = WeightNet() if kind == "weights" else Rectifier(D, K, hidden=8)
    for parameter in model.parameters():  # away from the start, at which all weights are equal
        nn.init.normal_(parameter, std=0.5)
    return model


def test_weight_net__at_the_start__weighs_all_alike() -> None:
    torch.testing.assert_close(WeightNet().weights(some_batch()), torch.ones(N))


def test_weight_net__one_loss_trusted_alone__is_capped() -> None:
    net = WeightNet(hidden=1, max_weight=4.0)
    with torch.no_grad():  # trusts losses below one, and no others
        net.hidden.weight.fill_(1.0)
        net.hidden.bias.zero_()
        net.output.weight.fill_(-100.0)
        net.output.bias.fill_(100.0)
        weights = net(torch.tensor([0.1] + 19 * [5.0]), torch.zeros(20, dtype=torch.long), 2)
    assert weights[0] == 4.0
    assert weights[1:].max() < 1e-6


def test_weight_net__weights_are_the_trust_over_that_of_the_class() -> None:
    net, losses, labels = some_model("weights"), torch.linspace(0, 3, 7), [0, 1, 1, 0, 2, 1, 0]
    assert isinstance(net, WeightNet)
    trust = []
    for loss in losses.tolist():
        hidden = [
            max(0.0, w * loss + b)
            for w, b in zip(*map(_floats, net.hidden.parameters()), strict=True)
        ]
        weight, bias = map(_floats, net.output.parameters())
        z = sum(w * h for w, h in zip(weight, hidden, strict=True)) + bias[0]
        trust.append(1 / (1 + math.exp(-z)))
    overall = sum(trust) / 7
    expected = []
    for own, label in zip(trust, labels, strict=True):
        of_class = [t for t, other in zip(trust, labels, strict=True) if other == label]
        expected.append(own / ((sum(of_class) + overall) / (len(of_class) + 1)))
    found = net(losses, torch.tensor(labels), K).tolist()
    assert found == pytest.approx(expected, rel=1e-4)


def test_weight_net__class_of_high_losses__is_not_given_up() -> None:
    net = WeightNet(hidden=1)
    with torch.no_grad():
        net.hidden.weight.fill_(1.0)
        net.output.weight.fill_(-2.0)
        losses, labels = torch.tensor(20 * [0.1] + 20 * [3.0]), torch.arange(40) // 20
        weights = net(losses, labels, 2)
    assert weights[20:].mean() > 0.5


def _floats(values: Tensor) -> list[float]:
    return [float(value) for value in values.detach().flatten()]


@pytest.mark.parametrize("kind", ["weights", "factors"])
def test_logit_gradient_is_the_derivative_of_the_loss(kind: str) -> None:
    model, batch = some_model(kind), some_batch()
    logits = batch.logits.clone().requires_grad_()
    torch.manual_seed(1)
    (expected,) = torch.autograd.grad(model.loss(batch._replace(logits=logits)), logits)
    torch.manual_seed(1)
    got = model.logit_gradient(batch)
    torch.testing.assert_close(got.detach(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["weights", "factors"])
def test_trusted_samples__count_as_in_plain_cross_entropy(kind: str) -> None:
    model, batch = some_model(kind), some_batch()
    everyone = batch._replace(trusted=torch.ones(N, dtype=torch.bool))
    plain = cross_entropy(batch.logits, batch.labels).mean()
    torch.testing.assert_close(model.loss(everyone), plain)
    assert not torch.isclose(model.loss(batch), plain, rtol=1e-3)


def test_divergence_is_that_of_two_gaussians() -> None:
    model, batch = some_model("factors"), some_batch()
    assert isinstance(model, Rectifier)

    def gaussian(labels: Tensor | None) -> torch.distributions.Normal:
        mean, log_variance = model.posterior(batch.embeddings, labels)
        return torch.distributions.Normal(mean, (log_variance / 2).exp())

    pair = gaussian(batch.labels), gaussian(None)
    expected = torch.distributions.kl_divergence(*pair).sum(1).mean()
    torch.testing.assert_close(model.divergence(batch), expected)
    assert float(expected) > 0.01


@pytest.mark.parametrize("kind", ["weights", "factors"])
def test_distributions_of_one_class_each__are_labels(kind: str) -> None:
    model, batch = some_model(kind), some_batch()
    soft = batch._replace(labels=F.one_hot(batch.labels, K).float())
    for ask in ("weights", "factors", "logit_gradient", "loss", "divergence", "rectified"):
        found = []
        for same in (batch, soft):
            torch.manual_seed(1)
            found.append(getattr(model, ask)(same))
        torch.testing.assert_close(*found)


def test_weight_net__distributions__count_in_each_class_by_their_share() -> None:
    net, losses = some_model("weights"), torch.linspace(0, 3, 5)
    assert isinstance(net, WeightNet)
    shares = torch.rand(5, K, generator=torch.Generator().manual_seed(0))
    shares = shares / shares.sum(1, keepdim=True)
    trust = [net.output(net.hidden(loss[None]).relu()).sigmoid().item() for loss in losses]
    averages = [
        (sum(float(shares[i, k]) * trust[i] for i in range(5)) + sum(trust) / 5)
        / (sum(float(shares[i, k]) for i in range(5)) + 1)
        for k in range(K)
    ]
    means = [sum(float(shares[i, k]) * averages[k] for k in range(K)) for i in range(5)]
    expected = [own / mean for own, mean in zip(trust, means, strict=True)]
    assert net(losses, shares, K).tolist() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", ["weights", "factors"])
def test_logit_gradient_of_another_loss_is_its_derivative(kind: str) -> None:
    model, batch = some_model(kind), some_batch()

    def loss(logits: Tensor, weights: Tensor, factors: Tensor) -> Tensor:
        return cross_entropy(factors * logits, batch.labels) @ weights / N

    torch.manual_seed(1)
    expected = model.logit_gradient(batch)
    torch.manual_seed(1)
    torch.testing.assert_close(model.logit_gradient_of(loss, batch), expected)


# The meta-gradient.


def small_network() -> nn.Sequential:
    """Batch normalisation, in float64."""
    return nn.Sequential(nn.Linear(4, D), nn.BatchNorm1d(D), nn.Tanh(), nn.Linear(D, K)).double()


def outer_loss(x: Tensor, labels: Tensor, network: nn.Module) -> Tensor:
    """Not linear in logits or embeddings."""
    logits, embeddings = logits_and_embeddings(network, x)
    return F.cross_entropy(logits, labels) + (embeddings.T @ logits.softmax(1)).square().mean()


def changed_loss(model: MetaModel, batch: Batch) -> Tensor:
    """The training loss as a function of the meta-model too."""
    if isinstance(model, WeightNet):
        losses = F.cross_entropy(batch.logits, batch.labels, reduction="none")
        weights = torch.where(batch.trusted, 1.0, model(losses.detach(), batch.labels, K))
        return (weights * losses).mean()
    return F.cross_entropy(model.factors(batch) * batch.logits, batch.labels)


@pytest.mark.parametrize("part", ["all", "last_stage", "head"])
@pytest.mark.parametrize("kind", ["weights", "factors"])
def test_meta_loss__its_gradient_is_the_second_order_one(
    kind: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tensor, "float", Tensor.double)  # the whole computation in float64
    torch.manual_seed(0)
    network, model = small_network(), some_model(kind).double()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.7, momentum=0.9, weight_decay=0.01)
    x, x_meta = torch.randn(2, N, 4, dtype=torch.float64)
    labels, meta_labels = torch.randint(K, (2, N))
    F.cross_entropy(network(x), labels).backward()
    optimizer.step()  # fills the momentum
    names = meta_parameter_names(network, part)

    def batch(logits: Tensor, embeddings: Tensor) -> Batch:
        return Batch(logits, embeddings.detach(), labels, torch.arange(N) < 2)

    # a graph of the second order
    logits, embeddings = logits_and_embeddings(network, x)
    torch.manual_seed(1)
    loss = changed_loss(model, batch(logits, embeddings))
    parameters = dict(network.named_parameters())
    gradients = torch.autograd.grad(loss, [parameters[name] for name in names], create_graph=True)
    moved = dict(parameters)
    for name, gradient in zip(names, gradients, strict=True):
        p = parameters[name]
        step = gradient + 0.01 * p.detach() + 0.9 * optimizer.state[p]["momentum_buffer"]
        moved[name] = p.detach() - 0.7 * step
    hidden = functional_call(network[:3], {n: p for n, p in moved.items() if n[0] != "3"}, x_meta)
    meta_logits = F.linear(hidden, moved["3.weight"], moved["3.bias"])
    outer = F.cross_entropy(meta_logits, meta_labels)
    outer = outer + (hidden.T @ meta_logits.softmax(1)).square().mean()
    expected = torch.autograd.grad(outer, list(model.parameters()))

    # the same with one forward-mode derivative
    logits, embeddings = logits_and_embeddings(network, x)
    torch.manual_seed(1)
    found = meta_loss(
        network,
        optimizer,
        logits,
        model.logit_gradient(batch(logits.detach(), embeddings)),
        partial(outer_loss, x_meta, meta_labels),
        (lambda u: head_jvp(embeddings, u))
        if part == "head"
        else (lambda u: logit_jvp(network, x, u)[1]),
        names,
    )
    got = torch.autograd.grad(found, list(model.parameters()))
    torch.testing.assert_close(found.detach(), outer.detach(), rtol=1e-12, atol=0)
    for one, other in zip(got, expected, strict=True):
        assert float(other.abs().max()) > 1e-8
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)


def test_meta_step__costs_at_most_three_and_seven_tenths_of_a_training_step() -> None:
    torch.manual_seed(0)
    network = preact_resnet18(3, 10, width=8)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    model = WeightNet()
    x, x_meta = torch.randn(2, 8, 3, 16, 16)
    labels = torch.arange(8)

    def cross_entropy_step() -> None:
        F.cross_entropy(network(x), labels).backward()

    def meta_step() -> None:
        logits, embeddings = logits_and_embeddings(network, x)
        batch = Batch(logits.detach(), embeddings, labels, labels < 0)
        meta_loss(
            network,
            optimizer,
            logits,
            model.logit_gradient(batch),
            partial(outer_loss, x_meta, labels),
            lambda u: logit_jvp(network, x, u)[1],
            meta_parameter_names(network, "all"),
        ).backward()
        model.loss(batch._replace(logits=logits)).backward()

    assert flops(meta_step) / flops(cross_entropy_step) <= 3.7


def flops(function: object) -> int:
    with FlopCounterMode(display=False) as counter:
        function()  # type: ignore[operator]
    return counter.get_total_flops()
