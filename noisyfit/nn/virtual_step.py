"""A step of an optimizer that is computed but not taken."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from noisyfit.nn.parallel import average

__all__ = ["VirtualStep"]

Options = Mapping[str, Any]
Tensors = list[Tensor]
Dicts = Sequence[Options]
Slope = Tensor | float
Steps = tuple[
    Sequence[Tensor], Sequence[Slope]
]  # what is subtracted, and its elementwise derivatives


class VirtualStep:
    """A step of an optimizer that is computed but not taken.

    For `SGD`, `Adam` and `AdamW` it is the step that ``optimizer.step()`` would take, from the
    momenta and moments accumulated so far. For all other optimizers, including subclasses of the
    three, it is a plain gradient step with the learning rate of the group. Nothing is written:
    neither parameters nor their ``grad`` nor the optimizer's state.

    Parameters
    ----------
    network : module
    optimizer : optimizer
        Parameters that it does not hold do not move.
    loss : tensor of shape ()
        Training loss, with its graph.
    names : sequence of str or None, default=None
        Parameters that move, as in ``network.named_parameters()``; None means all that require a
        gradient. A parameter that the loss does not use does not move.
    retain_graph : bool, default=True
        Whether `loss` can be differentiated again, as for the actual step.

    Attributes
    ----------
    parameters : dict of str to tensor
        The parameters after the step; leaves that require a gradient.

    Notes
    -----
    The derivative of Adam's step is exact, and steep where a gradient is near zero: in the very
    first step it is at most ``lr / eps`` and nearly zero where gradients are large.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Optimizer,
        loss: Tensor,
        names: Sequence[str] | None = None,
        *,
        retain_graph: bool = True,
    ) -> None:
        found = dict(network.named_parameters())
        if names is None:
            names = [name for name, parameter in found.items() if parameter.requires_grad]
        moving = [found[name] for name in names]
        gradients = torch.autograd.grad(loss, moving, retain_graph=retain_graph, allow_unused=True)
        average(gradients)
        groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
        parts = [
            (name, old.detach(), gradient, groups[id(old)], optimizer.state.get(old, {}))
            for name, old, gradient in zip(names, moving, gradients, strict=True)
            if gradient is not None and id(old) in groups
        ]
        self.parameters = {name: old.detach() for name, old in zip(names, moving, strict=True)}
        self._slopes: dict[str, Slope] = dict.fromkeys(names, 0.0)
        if parts:
            stepping, old, *rest = map(list, zip(*parts, strict=True))
            steps, slopes = _RULES.get(type(optimizer), _plain)(old, *rest)
            self.parameters.update(zip(stepping, torch._foreach_sub(old, list(steps)), strict=True))
            self._slopes.update(zip(stepping, slopes, strict=True))
        for parameter in self.parameters.values():
            parameter.requires_grad_()

    def direction(self, gradient: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Pull a gradient at `parameters` back through the step.

        Parameters
        ----------
        gradient : mapping of str to tensor
            Gradient of the outer loss, by name; missing names are left out.

        Returns
        -------
        dict of str to tensor
            The gradient of the outer loss with respect to minus the training gradient.
        """
        return {name: self._slopes[name] * value for name, value in gradient.items()}


def _plain(old: Tensors, gradients: Tensors, groups: Dicts, states: Dicts) -> Steps:
    rates = [_sign(group) * float(group["lr"]) for group in groups]
    return torch._foreach_mul(gradients, rates), rates


def _sgd(old: Tensors, gradients: Tensors, groups: Dicts, states: Dicts) -> Steps:
    of_gradient, of_parameter, of_buffer = [], [], []
    for group, state in zip(groups, states, strict=True):
        momentum, lr = group["momentum"], float(group["lr"])
        # Of the gradient and of the buffer; the first step makes the gradient the buffer.
        share, kept = 1.0 - group["dampening"], momentum
        if not momentum or state.get("momentum_buffer") is None:
            share, kept = 1.0, 0.0
        if group["nesterov"]:
            share, kept = 1.0 + momentum * share, momentum * kept
        of_gradient.append(_sign(group) * share * lr)
        of_parameter.append(share * lr * group["weight_decay"])
        of_buffer.append(kept * lr)
    steps = torch._foreach_mul(gradients, of_gradient)
    torch._foreach_add_(steps, torch._foreach_mul(old, of_parameter))
    if any(of_buffer):
        buffers = [
            state["momentum_buffer"] if share else torch.zeros_like(step)
            for share, state, step in zip(of_buffer, states, steps, strict=True)
        ]
        torch._foreach_add_(steps, torch._foreach_mul(buffers, of_buffer))
    return steps, of_gradient


def _adam(old: Tensors, gradients: Tensors, groups: Dicts, states: Dicts) -> Steps:
    parts = zip(old, gradients, groups, states, strict=True)
    steps, slopes = zip(*(_adam_step(*part) for part in parts), strict=True)
    return steps, slopes


def _sign(group: Options) -> int:
    return -1 if group.get("maximize") else 1


def _adam_step(
    parameter: Tensor, gradient: Tensor, group: Options, state: Options
) -> tuple[Tensor, Tensor]:
    (beta1, beta2), lr, decay = group["betas"], group["lr"], group["weight_decay"] * parameter
    decoupled, sign = group["decoupled_weight_decay"], _sign(group)
    gradient = sign * gradient if decoupled else sign * gradient + decay
    zero = torch.zeros_like(gradient)
    first = beta1 * state.get("exp_avg", zero) + (1 - beta1) * gradient
    second = beta2 * state.get("exp_avg_sq", zero) + (1 - beta2) * gradient.square()
    second_slope = 2 * (1 - beta2) * gradient
    if group["amsgrad"]:
        largest = state.get("max_exp_avg_sq", zero)
        second_slope = torch.where(second > largest, second_slope, 0.0)
        second = torch.maximum(second, largest)
    n_steps = torch.as_tensor(state.get("step", 0.0)).double() + 1
    scale, correction = lr / (1 - beta1**n_steps), (1 - beta2**n_steps).sqrt()
    root = second.sqrt()
    denominator = root / correction + group["eps"]
    # Where the root is zero, so are the gradient and the first moment.
    root_slope = torch.where(root > 0, second_slope / (2 * root), 0.0) / correction
    step = scale * first / denominator + (lr * decay if decoupled else 0.0)
    slope = sign * scale * ((1 - beta1) - first * root_slope / denominator) / denominator
    return step, slope


_RULES: dict[type[Optimizer], Callable[..., Steps]] = {SGD: _sgd, Adam: _adam, AdamW: _adam}
