"""Gradients of a loss after a training step with respect to the weights of that step.

A meta-model with parameters psi weights the losses of a training batch, or corrects its logits z.
One step on that loss would move the parameters of the network to `VirtualStep.parameters`. The
gradient, at that point, of a loss on trusted samples says whether the step was good. With the
`VirtualStep.direction` of that gradient and the `logit_jvp` along it, psi gets the gradient

    d outer / d psi = - d / d psi sum_i <d l_i / d z_i, zdot_i>,  zdot_i constant.

This is exact and builds no second-order graph: z and its derivative zdot come from one forward pass
(forward-mode differentiation).
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.parametrizations import _SpectralNorm

from noisyfit.exceptions import NoisyFitError
from noisyfit.nn.features import _last_linear
from noisyfit.nn.parallel import shared
from noisyfit.utils.torch_state import rng_state, set_rng_state

__all__ = [
    "call_with",
    "frozen_batch_norm",
    "head_jvp",
    "logit_jvp",
    "meta_parameter_names",
    "norm_fp32",
    "replayed",
]

T = TypeVar("T")


def logit_jvp(
    network: nn.Module, x: Tensor, direction: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Logits of a batch and their derivative along a direction in parameter space.

    Normalisation layers in training mode use the statistics of `x` and write none, and the random
    state is left unchanged. To repeat the dropout masks of an earlier pass, call inside `replayed`;
    masks inside fused attention kernels cannot be repeated.

    Parameters
    ----------
    network : module
        In the mode used for training. ``torch.compile`` is ignored.
    x : tensor of shape (n_samples, ...)
    direction : mapping of str to tensor
        By name, as in ``network.named_parameters()``; all other parameters are fixed.

    Returns
    -------
    logits, tangents : tensors of shape (n_samples, n_classes)
        Without graph, in single precision or higher. Tangents are zero if the logits do not depend
        on the named parameters.

    Raises
    ------
    NoisyFitError
        If a layer can be differentiated neither in forward mode nor twice.

    Notes
    -----
    Costs as much as a forward and a backward pass, and somewhat more if a layer has no forward-mode
    rule, such as weight normalisation.
    """
    return shared(partial(_logit_jvp, network, direction), x)


def _logit_jvp(
    network: nn.Module, direction: Mapping[str, Tensor], x: Tensor
) -> tuple[Tensor, Tensor]:
    parameters = dict(network.named_parameters())
    primals = {name: parameters[name].detach() for name in direction}
    tangents = {name: direction[name].detach().to(primals[name].dtype) for name in direction}
    random_state = rng_state(x.device)
    with norm_fp32(network), sdpa_kernel(SDPBackend.MATH):
        try:
            with replayed(random_state):
                logits, derivative = _forward_mode(network, x, primals, tangents)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            derivative = None
        if derivative is None:  # no rule, or a rule that lost the tangent on its way
            with replayed(random_state):
                logits, derivative = _double_vjp(network, x, primals, tangents)
    return logits.detach(), derivative.detach()


def head_jvp(embeddings: Tensor, direction: Mapping[str, Tensor]) -> Tensor:
    """Differentiate the logits along a direction that moves only the last layer.

    Parameters
    ----------
    embeddings : tensor of shape (n_samples, n_dims)
        Input of the last layer, whose output is the logits.
    direction : mapping of str to tensor
        A name that ends in ``weight``, and optionally one that ends in ``bias``.

    Returns
    -------
    tensor of shape (n_samples, n_classes)
        The tangents of `logit_jvp`, without a forward pass.
    """
    by_role = {name.rpartition(".")[2]: value.detach() for name, value in direction.items()}
    weight, bias = by_role["weight"], by_role.get("bias")
    with torch.autocast(embeddings.device.type, enabled=False):
        return F.linear(embeddings.detach().to(weight.dtype), weight, bias)


def call_with(
    network: nn.Module, parameters: Mapping[str, Tensor], function: Callable[..., T], *args: Any
) -> T:
    """Call ``function(network, *args)`` with other parameters in the network.

    As in `logit_jvp`, statistics are those of the batch, no buffers are written, and
    ``torch.compile`` is ignored. Dropout draws new masks.

    Parameters
    ----------
    network : module
    parameters : mapping of str to tensor
        By name, as in ``network.named_parameters()``; the others keep their values. The result
        carries gradients to them.
    function : callable
        For example `logits_and_embeddings`.
    *args : object
        Its other arguments.

    Returns
    -------
    object
        The result of the function.
    """
    swapped = {f"network.{name}": value for name, value in parameters.items()}
    # Compiled code can drop tangents without a word (torch 2.11), and has no second derivative.
    with frozen_batch_norm(network), torch.compiler.set_stance("force_eager"):
        result: T = torch.func.functional_call(_Call(network, function), swapped, args)
    return result


@contextmanager
def frozen_batch_norm(network: nn.Module) -> Iterator[None]:
    """Let normalisation layers in training mode use the batch and write no running statistics.

    Spectral normalisation keeps the singular vectors of the last training pass.
    """
    nothing = dict.fromkeys(("running_mean", "running_var", "num_batches_tracked"))
    with ExitStack() as undo:
        for module in network.modules():
            if module.training and isinstance(module, _NormBase):
                undo.callback(module._buffers.update, dict(module._buffers))
                module._buffers.update(nothing)
            elif module.training and isinstance(module, _SpectralNorm):
                undo.callback(module.train)
                module.eval()
        yield


@contextmanager
def norm_fp32(network: nn.Module) -> Iterator[None]:
    """Convert the input of normalisation layers to single precision under autocast.

    Batch normalisation can give half-precision input a tangent in single precision, which the next
    layer refuses (torch 2.15).
    """
    norms = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
    with ExitStack() as undo:
        for module in network.modules():
            if isinstance(module, norms):
                undo.enter_context(module.register_forward_pre_hook(_single_precision))
        yield


@contextmanager
def replayed(state: Mapping[torch.device, Tensor]) -> Iterator[None]:
    """Draw the random numbers that followed `state` again, then restore the current state."""
    found = {device: rng_state(device)[device] for device in state}
    try:
        set_rng_state(state)
        yield
    finally:
        set_rng_state(found)


def meta_parameter_names(network: nn.Module, part: str) -> list[str]:
    """Name the parameters that take part in the virtual step.

    A step of part of the network asks a different question than a step of the whole: the three are
    different estimators of how useful a sample is, and none approximates another.

    Parameters
    ----------
    network : module
    part : {"all", "last_stage", "head"}
        The head is the last ``nn.Linear``. The last stage is the last child module with a weight
        matrix or kernel before the head, and everything after it: a residual block or a group of
        them, or a hidden layer. If that is the only one, its own children count.

    Returns
    -------
    list of str
        As in ``network.named_parameters()``; only those that require a gradient.

    Raises
    ------
    ValueError
        If `part` is none of the three, or the network has no ``nn.Linear``.
    """
    if part == "all":
        modules: list[nn.Module] = [network]
    elif part == "last_stage":
        modules = _last_stage(network, _last_linear(network))
    elif part == "head":
        modules = [_last_linear(network)]
    else:
        raise ValueError(f"'part' must be 'all', 'last_stage' or 'head'. Got {part!r}.")
    chosen = {id(parameter) for module in modules for parameter in module.parameters()}
    return [
        name
        for name, parameter in network.named_parameters()
        if id(parameter) in chosen and parameter.requires_grad
    ]


def _last_stage(network: nn.Module, head: nn.Module) -> list[nn.Module]:
    modules = [network]
    while True:
        with_head = [i for i, module in enumerate(modules) if head in module.modules()][-1]
        before = [i for i in range(with_head) if _has_kernel(modules[i])]
        start = before[-1] if before else with_head
        inside = list(modules[start].children())
        if len(before) > 1 or not inside:
            return modules[start:]
        modules = modules[:start] + inside + modules[start + 1 :]


def _has_kernel(module: nn.Module) -> bool:
    return any(parameter.ndim >= 2 for parameter in module.parameters())


class _Call(nn.Module):
    """A function of a network as a module, as `functional_call` requires."""

    def __init__(self, network: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.network = network
        self.function = (function,)  # the tuple keeps a module from being registered

    def forward(self, *args: Any) -> Any:
        return self.function[0](self.network, *args)


def _logits(network: nn.Module, x: Tensor) -> Tensor:
    logits: Tensor = network(x)
    return logits if logits.dtype == torch.float64 else logits.float()


@cache
def _load_rules_of_forward_mode() -> None:
    """Have torch compile its rules once, without its warning about the compiler."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".torch.jit.script. is deprecated")
        with forward_ad.dual_level():
            forward_ad.make_dual(torch.zeros(1), torch.zeros(1))


def _forward_mode(
    network: nn.Module, x: Tensor, primals: dict[str, Tensor], tangents: dict[str, Tensor]
) -> tuple[Tensor, Tensor | None]:
    _load_rules_of_forward_mode()
    with torch.no_grad(), forward_ad.dual_level():
        duals = {name: forward_ad.make_dual(primals[name], tangents[name]) for name in primals}
        logits, derivative = forward_ad.unpack_dual(call_with(network, duals, _logits, x))
    return logits, derivative


def _double_vjp(
    network: nn.Module, x: Tensor, primals: dict[str, Tensor], tangents: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return logits and tangents by two backward passes, the only second-order graph here.

    The first pass, ``J^T u`` for any u of the shape of the logits, is linear in u; the derivative
    of its product with the direction is therefore the tangent.
    """
    still = {name: value.detach() for name, value in network.named_parameters()}
    moving = {name: primal.requires_grad_() for name, primal in primals.items()}
    with torch.enable_grad():
        logits = call_with(network, still | moving, _logits, x)
        if not logits.requires_grad:
            return logits, torch.zeros_like(logits)
        u = torch.zeros_like(logits, requires_grad=True)
        try:
            pulled = torch.autograd.grad(
                logits, list(moving.values()), u, create_graph=True, allow_unused=True
            )
            pairs = zip(pulled, tangents.values(), strict=True)
            used, along = zip(*((p, t) for p, t in pairs if p is not None), strict=True)
            if _forbids_derivative(used):
                raise RuntimeError("once_differentiable")
            (derivative,) = torch.autograd.grad(used, u, along)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise NoisyFitError(
                "The layers between the moving parameters and the logits must have a derivative in "
                f"forward mode, or a second derivative. In {type(network).__name__} one has "
                f"neither: {error}. Move the parameters behind it only (meta_params='head'), or "
                "use another module."
            ) from error
    return logits, derivative


def _forbids_derivative(tensors: Sequence[Tensor]) -> bool:
    """Whether a function marked with ``once_differentiable`` computed one of the tensors.

    Its inputs are cut off, so the error that it leaves behind is on no path to them.
    """
    nodes, seen = [tensor.grad_fn for tensor in tensors], set()
    for node in nodes:  # which grows
        if node is not None and node not in seen:
            seen.add(node)
            nodes += [following for following, _ in node.next_functions]
    return any(node.name().endswith("Error") for node in seen)


def _single_precision(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        x.float() if isinstance(x, Tensor) and torch.is_autocast_enabled(x.device.type) else x
        for x in inputs
    )
