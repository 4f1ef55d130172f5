"""A step of an optimizer that is computed but not taken."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from noisyfit.nn.parallel import average

__all__ = ["VirtualStep"]

Options = Mapping[str, Any]
Step = tuple[Tensor, Any]  # what is subtracted, and its elementwise derivative: tensor or float


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
        rule = _RULES.get(type(optimizer), _plain)
        self.parameters: dict[str, Tensor] = {}
        self._slopes: dict[str, Any] = {}  # tensors or floats
        for name, parameter, gradient in zip(names, moving, gradients, strict=True):
            old = parameter.detach()
            step, slope = torch.zeros_like(old), 0.0
            if gradient is not None and id(parameter) in groups:
                state = optimizer.state.get(parameter, {})
                step, slope = rule(old, gradient, groups[id(parameter)], state)
            self.parameters[name] = (old - step).requires_grad_()
            self._slopes[name] = slope

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
        return {name: self._slopes[name] * value.detach() for name, value in gradient.items()}


def _plain(parameter: Tensor, gradient: Tensor, group: Options, state: Options) -> Step:
    rate = -group["lr"] if group.get("maximize") else group["lr"]
    return rate * gradient, rate


def _sgd(parameter: Tensor, gradient: Tensor, group: Options, state: Options) -> Step:
    momentum, sign = group["momentum"], -1 if group["maximize"] else 1
    buffer = state.get("momentum_buffer") if momentum else None
    # Of the gradient and of the buffer; the first step makes the gradient the buffer.
    share, kept = (1.0, 0.0) if buffer is None else (1.0 - group["dampening"], momentum)
    if group["nesterov"]:
        share, kept = 1.0 + momentum * share, momentum * kept
    step = share * torch.add(sign * gradient, parameter, alpha=group["weight_decay"])
    if buffer is not None:
        step = step.add(buffer, alpha=kept)
    return group["lr"] * step, sign * share * group["lr"]


def _adam(parameter: Tensor, gradient: Tensor, group: Options, state: Options) -> Step:
    (beta1, beta2), lr, decay = group["betas"], group["lr"], group["weight_decay"] * parameter
    decoupled, sign = group["decoupled_weight_decay"], -1 if group["maximize"] else 1
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


_RULES: dict[type[Optimizer], Callable[..., Step]] = {SGD: _sgd, Adam: _adam, AdamW: _adam}
