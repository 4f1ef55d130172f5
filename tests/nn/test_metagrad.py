import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrizations
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from noisyfit.exceptions import NoisyFitError
from noisyfit.nn import metagrad
from noisyfit.nn.backbones.cnn import CNN
from noisyfit.nn.backbones.mlp import MLP
from noisyfit.nn.backbones.preact_resnet import PreActResNet, preact_resnet18
from noisyfit.nn.features import logits_and_embeddings
from noisyfit.nn.input_layer import Standardized
from noisyfit.nn.metagrad import (
    call_with,
    frozen_batch_norm,
    head_jvp,
    logit_jvp,
    meta_parameter_names,
    norm_fp32,
    replayed,
)
from noisyfit.nn.virtual_step import VirtualStep
from noisyfit.utils.torch_state import rng_state

MakeOptimizer = Callable[[list[nn.Parameter]], Optimizer]
Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]

OPTIMIZERS: dict[str, MakeOptimizer] = {
    "sgd": lambda p: SGD(p, lr=0.1),
    "weight_decay": lambda p: SGD(p, lr=0.1, weight_decay=0.3),
    "maximize": lambda p: SGD(p, lr=0.1, momentum=0.9, weight_decay=0.3, maximize=True),
    "momentum": lambda p: SGD(p, lr=0.1, momentum=0.9),
    "dampening": lambda p: SGD(p, lr=0.1, momentum=0.9, dampening=0.4, weight_decay=0.1),
    "nesterov": lambda p: SGD(p, lr=0.1, momentum=0.8, nesterov=True, weight_decay=0.1),
    "fused": lambda p: SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1, fused=True),
    "foreach": lambda p: SGD(p, lr=torch.tensor(0.1), momentum=0.9, foreach=True),
    "adam": lambda p: Adam(p, lr=0.01),
    "adam_decay": lambda p: Adam(p, lr=0.01, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.3),
    "adam_maximize": lambda p: Adam(p, lr=0.01, weight_decay=0.1, maximize=True),
    "amsgrad": lambda p: Adam(p, lr=0.01, betas=(0.5, 0.6), amsgrad=True),
    "adamw": lambda p: AdamW(p, lr=0.01, weight_decay=0.5),
    "adamw_tensor_lr": lambda p: AdamW(p, lr=torch.tensor(0.01, dtype=torch.float64), fused=False),
}


class LayerNormNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU())
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x))
        return logits


class TwoPart(nn.Module):
    """All kernels but the head's in one child, as in VGG."""

    def __init__(self) -> None:
        super().__init__()
        convolutions = [
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.Conv2d(4, 4, 3),
            nn.BatchNorm2d(4),
        ]
        self.features = nn.Sequential(*convolutions)
        self.classifier = nn.Linear(4, 3)


class Opaque(torch.autograd.Function):
    """Has neither a forward-mode rule nor a second derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient


class Constant(Opaque):
    """Loses the second derivative without an error."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.from_numpy(2 * gradient.detach().numpy())


class WithFunction(nn.Module):
    def __init__(self, function: type[torch.autograd.Function], residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.body, self.head, self.function = nn.Linear(6, 5), nn.Linear(5, 3), function

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.body(x)
        if self.residual:
            hidden = hidden + self.function.apply(hidden)
        else:
            hidden = self.function.apply(hidden)
        logits: Tensor = self.head(hidden)
        return logits


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(6, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.body(x).view(-1, 1, 3, 4)
        mixed = F.scaled_dot_product_attention(tokens, tokens, tokens)
        logits: Tensor = self.head(mixed.flatten(1))
        return logits


def mlp() -> nn.Module:
    return MLP(6, 3, width=8)


def preact() -> nn.Module:
    return PreActResNet(2, 3, 4, (4, 6), (1, 1))


def weight_normed() -> nn.Module:
    layer = parametrizations.weight_norm(nn.Linear(6, 5))
    return nn.Sequential(layer, nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3))


def spectral_normed() -> nn.Module:
    layer = parametrizations.spectral_norm(nn.Linear(6, 5))
    return nn.Sequential(layer, nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3))


def dropout_net() -> nn.Module:
    return MLP(6, 3, width=8, dropout=0.5)


def half_precision_net(seed: int = 0) -> Standardized:
    torch.manual_seed(seed)
    body = preact_resnet18(3, 4, width=8)
    network = Standardized(body, torch.zeros(3, 1, 1), torch.ones(3, 1, 1))
    network.autocast_dtype = torch.bfloat16
    return network


def instance_normed() -> nn.Module:
    norm = nn.InstanceNorm2d(4, affine=True, track_running_stats=True)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), norm, nn.Tanh(), nn.Flatten(), nn.Dropout(), nn.Linear(36, 3)
    )


def made(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """Network in float64 and training mode whose buffers are not those of a new one."""
    torch.manual_seed(seed)
    network = make().double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    network(batch(network, 9)[0])
    return network


def batch(network: nn.Module, seed: int, n: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image = any(isinstance(module, nn.Conv2d) for module in network.modules())
    shape = (n, 2, 5, 5) if image else (n, 6)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    return x, torch.randint(3, (n,), generator=generator)


def meta_cross_entropy(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(network(x), y)


def meta_of_embeddings(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    logits, z = logits_and_embeddings(network, x)
    return (logits.softmax(1).T @ z).sin().square().sum() + z.norm() * y.double().mean()


def stepped(network: nn.Module, make_optimizer: MakeOptimizer, n_steps: int = 2) -> Optimizer:
    """Optimizer with the state of some steps."""
    optimizer = make_optimizer(list(network.parameters()))
    for seed in range(n_steps):
        x, y = batch(network, 20 + seed)
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()
    optimizer.zero_grad()
    return optimizer


def sample_weights(network: nn.Module, seed: int = 1) -> Tensor:
    n = len(batch(network, 0)[0])
    return torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def meta_gradient(
    network: nn.Module,
    optimizer: Optimizer,
    weights: Tensor,
    psi: Sequence[Tensor],
    names: Sequence[str] | None = None,
    outer: Loss = meta_cross_entropy,
) -> tuple[Tensor, ...]:
    """Gradient with respect to psi, on which the weights depend, as a method computes it."""
    x, y = batch(network, 0)
    state = rng_state(x.device)
    losses = F.cross_entropy(network(x), y, reduction="none")
    step = VirtualStep(network, optimizer, (weights.detach() * losses).sum(), names)
    meta_x, meta_y = batch(network, 1)
    outer_loss = call_with(network, step.parameters, outer, meta_x, meta_y)
    v = torch.autograd.grad(outer_loss, list(step.parameters.values()))
    u = step.direction(dict(zip(step.parameters, v, strict=True)))
    with replayed(state):
        logits, tangents = logit_jvp(network, x, u)
    products = ((logits.softmax(1) - F.one_hot(y, 3)) * tangents).sum(1)
    return torch.autograd.grad(-(weights * products).sum(), list(psi), retain_graph=True)


def reference(
    network: nn.Module,
    optimizer: Optimizer,
    weights: Tensor,
    psi: Sequence[Tensor],
    names: Sequence[str] | None = None,
    outer: Loss = meta_cross_entropy,
) -> tuple[Tensor, ...]:
    """The same by differentiating through the step, on a copy of the network."""
    with sdpa_kernel(SDPBackend.MATH):  # other kernels have no second derivative
        return _reference(*copy.deepcopy((network, optimizer)), weights, psi, names, outer)


def _reference(
    network: nn.Module,
    optimizer: Optimizer,
    weights: Tensor,
    psi: Sequence[Tensor],
    names: Sequence[str] | None,
    outer: Loss,
) -> tuple[Tensor, ...]:
    theta = dict(network.named_parameters())
    moving = {name: theta[name] for name in names or theta}
    x, y = batch(network, 0)
    loss = (weights * F.cross_entropy(network(x), y, reduction="none")).sum()
    gradients = torch.autograd.grad(loss, list(moving.values()), create_graph=True)
    after = {
        name: textbook_step(optimizer, parameter, gradient)
        for (name, parameter), gradient in zip(moving.items(), gradients, strict=True)
    }
    meta_x, meta_y = batch(network, 1)
    module = OuterLoss(network, outer)
    swapped = {f"network.{name}": value for name, value in after.items()}
    return torch.autograd.grad(
        functional_call(module, swapped, (meta_x, meta_y)), list(psi), retain_graph=True
    )


class OuterLoss(nn.Module):
    def __init__(self, network: nn.Module, outer: Loss) -> None:
        super().__init__()
        self.network, self.outer = network, outer

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.outer(self.network, x, y)


def textbook_step(optimizer: Optimizer, parameter: nn.Parameter, gradient: Tensor) -> Tensor:
    group, state = optimizer.param_groups[0], optimizer.state[parameter]
    g, old = (-gradient if group["maximize"] else gradient), parameter.detach()
    if isinstance(optimizer, AdamW):
        old = (1 - group["lr"] * group["weight_decay"]) * old
    else:
        g = g + group["weight_decay"] * old
    if isinstance(optimizer, SGD):
        buffer = state.get("momentum_buffer")
        if buffer is not None:
            moving = group["momentum"] * buffer + (1 - group["dampening"]) * g
            g = g + group["momentum"] * moving if group["nesterov"] else moving
        return old - group["lr"] * g
    (beta1, beta2), n = group["betas"], state["step"].item() + 1
    mean = (beta1 * state["exp_avg"] + (1 - beta1) * g) / (1 - beta1**n)
    square = beta2 * state["exp_avg_sq"] + (1 - beta2) * g**2
    if group["amsgrad"]:
        square = torch.maximum(square, state["max_exp_avg_sq"])
    return old - group["lr"] * mean / ((square / (1 - beta2**n)) ** 0.5 + group["eps"])


def assert_exact(found: Sequence[Tensor], expected: Sequence[Tensor], rtol: float = 1e-10) -> None:
    for a, b in zip(found, expected, strict=True):
        assert b.norm() > 1e-7
        assert (a - b).norm() <= rtol * b.norm()


def check_weights(
    network: nn.Module,
    optimizer: Optimizer,
    names: Sequence[str] | None = None,
    outer: Loss = meta_cross_entropy,
) -> None:
    weights = sample_weights(network).requires_grad_()
    torch.manual_seed(5)
    expected = reference(network, optimizer, weights, [weights], names, outer)
    torch.manual_seed(5)
    found = meta_gradient(network, optimizer, weights, [weights], names, outer)
    assert_exact(found, expected)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("training", [True, False])
def test_meta_gradient__each_optimizer__equals_double_backward(name: str, training: bool) -> None:
    network = made(mlp)
    optimizer = stepped(network, OPTIMIZERS[name])
    check_weights(network.train(training), optimizer)


@pytest.mark.parametrize("outer", [meta_cross_entropy, meta_of_embeddings])
@pytest.mark.parametrize(
    "make", [mlp, preact, LayerNormNet, Attention, dropout_net, weight_normed, instance_normed]
)
def test_meta_gradient__each_network__equals_double_backward(
    make: Callable[[], nn.Module], outer: Loss
) -> None:
    network = made(make)
    optimizer = stepped(network, OPTIMIZERS["nesterov"], n_steps=1)
    check_weights(network, optimizer, outer=outer)


@pytest.mark.parametrize("make", [mlp, preact])
@pytest.mark.parametrize("part", ["last_stage", "head"])
def test_meta_gradient__part_of_the_network__equals_double_backward(
    make: Callable[[], nn.Module], part: str
) -> None:
    network = made(make)
    optimizer = stepped(network, OPTIMIZERS["momentum"])
    check_weights(network, optimizer, meta_parameter_names(network, part))


def test_meta_gradient__weighting_network__equals_double_backward() -> None:
    network = made(mlp)
    optimizer = stepped(network, OPTIMIZERS["momentum"])
    torch.manual_seed(3)
    weighting = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1), nn.Sigmoid()).double()
    psi = list(weighting.parameters())
    x, y = batch(network, 0)
    losses = F.cross_entropy(copy.deepcopy(network)(x), y, reduction="none").detach()
    weights = weighting(losses[:, None])[:, 0]
    weights = weights / weights.sum()
    found = meta_gradient(network, optimizer, weights, psi)
    assert_exact(found, reference(network, optimizer, weights, psi))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_meta_gradient__bfloat16_autocast__keeps_the_order_of_samples(seed: int) -> None:
    # At the random start and on data without classes the correlation is 0.86 to 0.98: the
    # gradients themselves are as noisy there.
    network = half_precision_net(seed)
    centres = torch.randn(4, 3, 16, 16)
    optimizer = SGD(network.parameters(), lr=0.05, momentum=0.9)
    for _ in range(8):
        y = torch.randint(4, (24,))
        optimizer.zero_grad()
        F.cross_entropy(network(centres[y] + torch.randn(24, 3, 16, 16)), y).backward()
        optimizer.step()
    exact = copy.deepcopy(network).double()
    exact.autocast_dtype = None
    true_y, y, meta_y = torch.randint(4, (3, 24))
    x, meta_x = centres[torch.stack([true_y, meta_y])] + torch.randn(2, 24, 3, 16, 16)
    products = []
    for module, dtype in [(network, torch.float32), (exact, torch.float64)]:
        loss = F.cross_entropy(module(x).to(dtype), y)
        step = VirtualStep(module, SGD(module.parameters(), lr=0.05), loss)
        outer = call_with(module, step.parameters, meta_cross_entropy, meta_x, meta_y)
        v = torch.autograd.grad(outer, list(step.parameters.values()))
        u = step.direction(dict(zip(step.parameters, v, strict=True)))
        logits, tangents = logit_jvp(module, x, u)
        assert logits.dtype == tangents.dtype == dtype
        residuals = logits.softmax(1) - F.one_hot(y, 4)
        products.append((residuals * tangents).sum(1).double())
    assert torch.corrcoef(torch.stack(products))[0, 1] >= 0.98


@pytest.mark.parametrize("n_steps", [0, 1, 3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_virtual_step__equals_a_real_step(name: str, n_steps: int) -> None:
    network = made(mlp)
    optimizer = stepped(network, OPTIMIZERS[name], n_steps)
    real, real_optimizer = copy.deepcopy((network, optimizer))
    x, y = batch(network, 0)
    F.cross_entropy(real(x), y).backward()
    real_optimizer.step()
    step = VirtualStep(network, optimizer, F.cross_entropy(network(x), y), retain_graph=False)
    assert list(step.parameters) == [name for name, _ in network.named_parameters()]
    for name, expected in real.named_parameters():
        found = step.parameters[name]
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12, check_dtype=True)
        assert found.requires_grad
        assert found.is_leaf


@pytest.mark.parametrize("name", ["fused", "nesterov", "adam", "adamw"])
def test_virtual_step__single_precision__equals_a_real_step(name: str) -> None:
    network, x = made(mlp).float(), torch.randn(7, 6)
    optimizer = OPTIMIZERS[name](list(network.parameters()))
    for _ in range(2):
        optimizer.zero_grad()
        network(x).logsumexp(1).sum().backward()
        optimizer.step()
    optimizer.zero_grad()
    step = VirtualStep(network, optimizer, network(x).logsumexp(1).sum())
    network(x).logsumexp(1).sum().backward()
    optimizer.step()
    for name, expected in network.named_parameters():
        torch.testing.assert_close(step.parameters[name], expected, rtol=1e-6, atol=2e-7)


def test_virtual_step__param_groups__each_use_their_own_options() -> None:
    network = made(LayerNormNet)
    groups = [
        {"params": [network.get_parameter("body.0.weight")], "lr": 0.5, "weight_decay": 0.1},
        {"params": network.get_submodule("head").parameters(), "lr": 0.01, "maximize": True},
    ]
    optimizer = SGD(groups, lr=1.0)
    x, y = batch(network, 0)
    step = VirtualStep(network, optimizer, F.cross_entropy(network(x), y))
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    F.cross_entropy(network(x), y).backward()
    optimizer.step()
    for name, expected in network.named_parameters():
        torch.testing.assert_close(step.parameters[name], expected, rtol=1e-12, atol=1e-12)
    ones = {name: torch.ones_like(value) for name, value in before.items()}
    slopes = {name: value.unique().tolist() for name, value in step.direction(ones).items()}
    assert torch.equal(step.parameters["body.0.bias"], before["body.0.bias"])
    assert slopes["body.0.bias"] == slopes["body.1.weight"] == [0.0]
    assert slopes["body.0.weight"] == [0.5]
    assert slopes["head.weight"] == slopes["head.bias"] == [-0.01]


def test_virtual_step__another_optimizer__is_a_gradient_step() -> None:
    network = made(mlp)
    optimizer = stepped(network, lambda p: RMSprop(p, lr=0.03))
    x, y = batch(network, 0)
    loss = F.cross_entropy(network(x), y)
    step = VirtualStep(network, optimizer, loss)
    gradients = torch.autograd.grad(loss, list(network.parameters()))
    for (name, old), gradient in zip(network.named_parameters(), gradients, strict=True):
        torch.testing.assert_close(step.parameters[name], old - 0.03 * gradient)
        torch.testing.assert_close(step.direction({name: gradient})[name], 0.03 * gradient)


@pytest.mark.parametrize("name", ["weight_decay", "adamw"])
def test_virtual_step__unused_parameter__stays_as_in_a_real_step(name: str) -> None:
    network = made(LayerNormNet)
    network.unused = nn.Linear(2, 2).double()
    optimizer = OPTIMIZERS[name](list(network.parameters()))
    x, y = batch(network, 0)
    step = VirtualStep(network, optimizer, F.cross_entropy(network(x), y))
    assert torch.equal(step.parameters["unused.weight"], network.get_parameter("unused.weight"))
    direction = step.direction({"unused.weight": torch.ones(2, 2)})
    assert torch.equal(direction["unused.weight"], torch.zeros(2, 2))


def test_virtual_step__frozen_parameters__are_left_out() -> None:
    network = made(mlp)
    network.get_parameter("0.weight").requires_grad_(False)
    x, y = batch(network, 0)
    optimizer = SGD(network.parameters(), lr=0.1)
    step = VirtualStep(network, optimizer, F.cross_entropy(network(x), y))
    assert list(step.parameters) == meta_parameter_names(network, "all")
    assert "0.weight" not in step.parameters


@pytest.mark.parametrize("name", ["adam", "adam_decay", "adamw", "amsgrad"])
def test_virtual_step__adam_without_any_gradient__has_a_finite_direction(name: str) -> None:
    # The derivative of the square root at zero is infinite: 0 / 0 in the chain rule.
    network = nn.Linear(2, 2).double()
    optimizer = OPTIMIZERS[name](list(network.parameters()))
    step = VirtualStep(network, optimizer, (0 * network.weight).sum(), ["weight"])
    direction = step.direction({"weight": torch.ones(2, 2)})["weight"]
    eps = optimizer.param_groups[0]["eps"]
    if name == "adam_decay":
        assert direction.isfinite().all()
    else:
        torch.testing.assert_close(direction, torch.full((2, 2), 0.01 / eps).double())


def tangents_by_rows(network: nn.Module, x: Tensor, direction: dict[str, Tensor]) -> Tensor:
    """Derivative of every logit by a backward pass of its own; leaves the trace of one pass."""
    logits = network(x)
    parameters = [dict(network.named_parameters())[name] for name in direction]
    rows = [
        torch.autograd.grad(logit, parameters, retain_graph=True, materialize_grads=True)
        for logit in logits.flatten()
    ]
    values = [
        sum((a * b).sum() for a, b in zip(row, direction.values(), strict=True)) for row in rows
    ]
    return torch.stack([torch.as_tensor(value) for value in values]).view_as(logits)


def random_direction(network: nn.Module, names: Sequence[str] | None = None) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(7)
    return {
        name: torch.randn(value.shape, generator=generator, dtype=value.dtype)
        for name, value in network.named_parameters()
        if names is None or name in names
    }


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "make", [mlp, preact, Attention, dropout_net, weight_normed, spectral_normed, instance_normed]
)
def test_logit_jvp__equals_one_backward_pass_for_each_logit(
    make: Callable[[], nn.Module], training: bool
) -> None:
    network = made(make).train(training)
    x, _ = batch(network, 0, n=4)
    direction = random_direction(network)
    state = rng_state(x.device)
    expected_logits = copy.deepcopy(network)(x)
    with replayed(state):
        expected = tangents_by_rows(network, x, direction)
    with replayed(state):
        logits, tangents = logit_jvp(network, x, direction)
    assert_exact([logits, tangents], [expected_logits, expected])
    assert not logits.requires_grad
    assert not tangents.requires_grad


def test_logit_jvp__weight_norm_alone__needs_the_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[nn.Module] = []
    double_vjp = metagrad._double_vjp

    def counted(network: nn.Module, *args: Any) -> tuple[Tensor, Tensor]:
        calls.append(network)
        return double_vjp(network, *args)

    monkeypatch.setattr(metagrad, "_double_vjp", counted)
    for make, n_calls in [(mlp, 0), (Attention, 0), (spectral_normed, 0), (weight_normed, 1)]:
        network = made(make)
        logit_jvp(network, batch(network, 0)[0], random_direction(network))
        assert len(calls) == n_calls
    half = half_precision_net()
    for training in (True, False):
        for part in ("all", "last_stage"):
            direction = random_direction(half, meta_parameter_names(half, part))
            logit_jvp(half.train(training), torch.randn(4, 3, 8, 8), direction)
    assert len(calls) == 1


def test_logit_jvp__fallback_with_dropout__uses_the_mask_of_the_first_attempt() -> None:
    network = nn.Sequential(nn.Dropout(), made(weight_normed)).double()
    x, _ = batch(network, 0)
    state = rng_state(x.device)
    expected = tangents_by_rows(network, x, random_direction(network))
    with replayed(state):
        assert_exact(logit_jvp(network, x, random_direction(network))[1:], [expected])
        assert torch.equal(torch.get_rng_state(), state[x.device])


@pytest.mark.parametrize("names", [[], ["unused.weight"]])
def test_logit_jvp__logits_do_not_depend_on_the_parameters__are_zero(names: list[str]) -> None:
    network = made(LayerNormNet)
    network.unused = nn.Linear(2, 2).double()
    x, _ = batch(network, 0)
    logits, tangents = logit_jvp(network, x, random_direction(network, names))
    assert torch.equal(logits, network(x))
    assert torch.equal(tangents, torch.zeros_like(logits))


@pytest.mark.parametrize("function, residual", [(Opaque, False), (Opaque, True), (Constant, False)])
def test_logit_jvp__layer_without_derivatives__says_what_to_do(
    function: type[torch.autograd.Function], residual: bool
) -> None:
    network = made(lambda: WithFunction(function, residual))
    x, _ = batch(network, 0)
    with pytest.raises(NoisyFitError, match="must have a derivative in forward mode") as error:
        logit_jvp(network, x, random_direction(network))
    assert "WithFunction" in str(error.value)
    assert "meta_params='head'" in str(error.value)
    head = random_direction(network, meta_parameter_names(network, "head"))
    expected = tangents_by_rows(network, x, head)
    assert_exact(logit_jvp(network, x, head)[1:], [expected])


def test_logit_jvp__error_of_the_network__is_passed_on_and_leaves_no_trace() -> None:
    network = made(preact)
    hook = next(network.children()).register_forward_pre_hook(lambda *_: 1 / 0)
    before = trace(network)
    with pytest.raises(ZeroDivisionError):
        logit_jvp(network, batch(network, 0)[0], random_direction(network))
    assert_same_trace(network, before)
    hook.remove()
    before = trace(network)
    with pytest.raises(RuntimeError, match="expected input"):
        logit_jvp(network, torch.zeros(3, 7, 5, 5).double(), random_direction(network))
    assert_same_trace(network, before)


def test_logit_jvp__out_of_memory__is_not_tried_again() -> None:
    network = made(mlp)
    calls: list[object] = []

    def fail(*args: object) -> None:
        calls.append(args)
        raise torch.OutOfMemoryError("full")

    network.register_forward_pre_hook(fail)
    with pytest.raises(torch.OutOfMemoryError, match="full"):
        logit_jvp(network, batch(network, 0)[0], random_direction(network))
    assert len(calls) == 1


def test_logit_jvp__unknown_name__is_an_error() -> None:
    network = made(mlp)
    with pytest.raises(KeyError, match="no_such_name"):
        logit_jvp(network, batch(network, 0)[0], {"no_such_name": torch.zeros(())})


@pytest.mark.parametrize("inner", [True, False])
def test_logit_jvp__compiled_network__runs_without_compiled_code(inner: bool) -> None:
    plain = made(mlp)
    x = batch(plain, 0)[0].float().double()  # exact in the input layer, too
    compilations: list[object] = []

    def backend(graph: Callable[..., Any], _: object) -> Callable[..., Any]:
        compilations.append(graph)
        return graph

    compiled = torch.compile(plain, backend=backend)
    assert isinstance(compiled, nn.Module)
    network = Standardized(compiled, torch.zeros(6), torch.ones(6)) if inner else compiled
    prefix = "network._orig_mod." if inner else "_orig_mod."
    direction = random_direction(plain)
    expected = logit_jvp(plain, x, direction)
    network.double()
    found = logit_jvp(network, x, {prefix + name: value for name, value in direction.items()})
    assert not compilations
    assert_exact(found, expected, rtol=1e-12)
    network(x)
    assert compilations
    parts = [meta_parameter_names(module, "last_stage") for module in (network, plain)]
    assert parts[0] == [prefix + name for name in parts[1]]


@pytest.mark.parametrize("make", [mlp, LayerNormNet, preact])
def test_head_jvp__equals_logit_jvp(make: Callable[[], nn.Module]) -> None:
    network = made(make)
    x, _ = batch(network, 0)
    direction = random_direction(network, meta_parameter_names(network, "head"))
    _, z = logits_and_embeddings(network, x)
    assert_exact([head_jvp(z, direction)], logit_jvp(network, x, direction)[1:])
    (weight, value), *_ = direction.items()
    only_weight = {weight: value}
    assert_exact([head_jvp(z, only_weight)], logit_jvp(network, x, only_weight)[1:])


def test_head_jvp__half_precision_embeddings__keeps_that_of_the_direction() -> None:
    z, weight = torch.randn(5, 4).bfloat16(), torch.randn(3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        found = head_jvp(z, {"weight": weight})
    torch.testing.assert_close(found, z.float() @ weight.T)


def test_call_with__gradients_reach_the_given_parameters_only() -> None:
    network = made(mlp)
    x, y = batch(network, 0)
    given = {"0.weight": torch.randn(8, 6, dtype=torch.float64, requires_grad=True)}
    logits, z = call_with(network, given, logits_and_embeddings, x)
    (gradient,) = torch.autograd.grad(logits.sum() + z.square().sum(), list(given.values()))
    assert gradient.any()
    moved = copy.deepcopy(network)
    moved.get_parameter("0.weight").data = given["0.weight"].detach()
    assert torch.equal(logits, moved(x))
    assert not torch.equal(logits, network(x))


def trace(network: nn.Module) -> dict[str, Any]:
    return {
        "buffers": {name: value.clone() for name, value in network.named_buffers()},
        "state": {name: value.clone() for name, value in network.state_dict().items()},
        "training": [module.training for module in network.modules()],
        "n_hooks": [len(module._forward_pre_hooks) for module in network.modules()],
        "grads": [parameter.grad for parameter in network.parameters()],
        "requires_grad": [parameter.requires_grad for parameter in network.parameters()],
        "ids": [id(value) for value in [*network.parameters(), *network.buffers()]],
        "random": torch.get_rng_state(),
        "grad_mode": torch.is_grad_enabled(),
    }


def assert_same_trace(network: nn.Module, before: dict[str, Any]) -> None:
    after = trace(network)
    for kind in ("buffers", "state"):
        assert after[kind].keys() == before[kind].keys()
        assert all(torch.equal(after[kind][name], before[kind][name]) for name in before[kind])
    assert torch.equal(after["random"], before["random"])
    for kind in ("training", "n_hooks", "grads", "requires_grad", "ids", "grad_mode"):
        assert after[kind] == before[kind]


@pytest.mark.parametrize(
    "make", [preact, dropout_net, weight_normed, spectral_normed, instance_normed]
)
def test_all_functions__leave_no_trace(make: Callable[[], nn.Module]) -> None:
    network = made(make)
    list(network.modules())[-1].eval()  # a frozen layer
    optimizer = stepped(network, OPTIMIZERS["momentum"], n_steps=1)
    x, y = batch(network, 0)
    loss = F.cross_entropy(network(x), y)
    before, optimizer_before = trace(network), copy.deepcopy(optimizer.state_dict())
    step = VirtualStep(network, optimizer, loss)
    direction = step.direction(random_direction(network))
    logit_jvp(network, x, direction)
    with replayed(rng_state(x.device)):
        call_with(network, step.parameters, meta_cross_entropy, x, y).backward()
    meta_parameter_names(network, "last_stage")
    assert_same_trace(network, before)
    assert str(optimizer.state_dict()) == str(optimizer_before)


def test_frozen_batch_norm__after_an_error__restores_everything() -> None:
    network = made(preact)
    network.get_submodule("1.activate").eval()
    before = trace(network)

    def fail() -> None:
        with frozen_batch_norm(network), norm_fp32(network):
            network(batch(network, 0)[0])
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert_same_trace(network, before)


def test_frozen_batch_norm__keeps_the_mode_of_each_layer() -> None:
    network = nn.Sequential(nn.BatchNorm1d(6), nn.BatchNorm1d(6)).double()
    network[1].eval()
    network.get_buffer("1.running_mean").fill_(3.0)
    x, _ = batch(network, 0)
    with frozen_batch_norm(network):
        first, both = network[0](x), network(x)
    torch.testing.assert_close(first.mean(0), torch.zeros(6).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(both, (first - 3.0) / (1 + 1e-5) ** 0.5)
    assert network[0].num_batches_tracked == 0


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(2), nn.GroupNorm(1, 2)])
def test_norm_fp32__under_autocast_only__sees_single_precision(norm: nn.Module) -> None:
    x = torch.randn(3, 2, 4, 4)
    with norm_fp32(norm):
        with torch.autocast("cpu", torch.bfloat16):
            assert norm(x.bfloat16()).dtype == torch.float32
        assert norm.double()(x.double()).dtype == torch.float64
    norm.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert norm(x.bfloat16()).dtype == torch.bfloat16


def test_replayed__repeats_the_numbers_and_goes_on_where_it_was() -> None:
    state = rng_state(torch.device("cpu"))
    first, second = torch.rand(3), torch.rand(3)
    found = torch.get_rng_state()

    def replay_and_fail() -> None:
        with replayed(state):
            assert torch.equal(torch.rand(3), first)
            assert torch.equal(torch.rand(3), second)
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        replay_and_fail()
    assert torch.equal(torch.get_rng_state(), found)


@pytest.mark.parametrize(
    "network, head, last_stage",
    [
        (MLP(4, 3, width=5), {"6"}, {"3", "4", "6"}),
        (MLP(4, 3, depth=0), {"0"}, {"0"}),
        (CNN(1, 3, width=2), {"14"}, {"9", "10", "14"}),
        (preact_resnet18(1, 3, width=2), {"13"}, {"8", "9", "13"}),
        (LayerNormNet(), {"head"}, {"body", "head"}),
        (TwoPart(), {"classifier"}, {"features.2", "features.3", "classifier"}),
    ],
)
@pytest.mark.parametrize("wrapper", ["", "network."])
def test_meta_parameter_names__each_part(
    network: nn.Module, head: set[str], last_stage: set[str], wrapper: str
) -> None:
    names = [wrapper + name for name, _ in network.named_parameters()]
    if wrapper:
        network = Standardized(network, torch.zeros(4), torch.ones(4))
    assert meta_parameter_names(network, "all") == names
    for part, expected in [("head", head), ("last_stage", last_stage)]:
        inside = tuple(f"{wrapper}{module}." for module in expected)
        found = meta_parameter_names(network, part)
        assert found == [name for name in names if name.startswith(inside)]
        assert found


def test_meta_parameter_names__frozen_parameters__are_left_out() -> None:
    network = LayerNormNet()
    network.head.bias.requires_grad_(False)
    assert meta_parameter_names(network, "head") == ["head.weight"]
    assert "head.bias" not in meta_parameter_names(network, "all")


@pytest.mark.parametrize("part", ["head", "last_stage"])
def test_meta_parameter_names__no_linear__says_what_to_do(part: str) -> None:
    with pytest.raises(ValueError, match="must end in an nn.Linear"):
        meta_parameter_names(nn.Sequential(nn.Conv2d(1, 3, 1)), part)


def test_meta_parameter_names__unknown_part__names_the_choices() -> None:
    with pytest.raises(ValueError, match="'all', 'last_stage' or 'head'. Got 'tail'"):
        meta_parameter_names(LayerNormNet(), "tail")
