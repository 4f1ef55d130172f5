"""Logits and embeddings of any network.

The embedding of a sample is the input of its network's classification layer. A network can define
it with timm's pair of methods ``forward_features(x)`` and ``forward_head(features,
pre_logits=False)``; otherwise it is the input of the last ``nn.Linear`` in the order of
``module.modules()``.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from noisyfit.nn.input_layer import Standardized
from noisyfit.nn.parallel import shared

__all__ = ["embedding_size", "embeddings", "logits_and_embeddings"]


def logits_and_embeddings(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and embeddings of a batch from one forward pass, both differentiable.

    Parameters
    ----------
    module : module
        Maps `x` to logits, bare or inside `Standardized`.
    x : tensor of shape (n_samples, ...)

    Returns
    -------
    logits : tensor of shape (n_samples, n_classes)
    embeddings : tensor of shape (n_samples, n_dims)

    Raises
    ------
    ValueError
        If the module has neither timm's pair nor an ``nn.Linear`` that its forward pass calls.
    """
    return shared(partial(_logits_and_embeddings, module), x)


def _logits_and_embeddings(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    with _autocast(module, x):
        module, x = _without_wrappers(module, x)
        if _follows_timm(module):
            timm_module: Any = module
            features = timm_module.forward_features(x)
            pooled = timm_module.forward_head(features, pre_logits=True)
            return timm_module.forward_head(features), pooled.flatten(1)
        return _watch_last_linear(module, x)


def embeddings(module: nn.Module, x: Tensor) -> Tensor:
    """Embeddings of a batch, differentiable; see `logits_and_embeddings`.

    Parameters
    ----------
    module : module
    x : tensor of shape (n_samples, ...)

    Returns
    -------
    tensor of shape (n_samples, n_dims)
    """
    return shared(partial(_embeddings, module), x)


def _embeddings(module: nn.Module, x: Tensor) -> Tensor:
    with _autocast(module, x):
        module, x = _without_wrappers(module, x)
        if _follows_timm(module):
            timm_module: Any = module
            features = timm_module.forward_features(x)
            pooled: Tensor = timm_module.forward_head(features, pre_logits=True)
            return pooled.flatten(1)
        return _watch_last_linear(module, x)[1]


def embedding_size(module: nn.Module, x: Tensor) -> int:
    """Count the dimensions of the embeddings with a forward pass that leaves no trace.

    Parameters
    ----------
    module : module
    x : tensor of shape (n_samples, ...)
        A sample of the data on the module's device; at most two rows are used.

    Returns
    -------
    int
    """
    # Flag by flag: a frozen layer inside a network in training mode must stay in evaluation mode.
    was_training = {submodule: submodule.training for submodule in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            return embeddings(module, x[:2]).shape[1]
    finally:
        for submodule, training in was_training.items():
            submodule.training = training


def _without_wrappers(module: nn.Module, x: Tensor) -> tuple[nn.Module, Tensor]:
    """Return the user's network, and the batch as that network sees it."""
    module = _uncompiled(module)
    if isinstance(module, Standardized):
        return _uncompiled(module.network), module.standardize(x)
    return module, x


def _autocast(module: nn.Module, x: Tensor) -> AbstractContextManager[None]:
    module = _uncompiled(module)
    return module.autocast(x.device) if isinstance(module, Standardized) else nullcontext()


def _uncompiled(module: nn.Module) -> nn.Module:
    """Return the module behind ``torch.compile``, whose code ignores hooks added later."""
    original: nn.Module = getattr(module, "_orig_mod", module)
    return original


def _follows_timm(module: nn.Module) -> bool:
    return hasattr(module, "forward_features") and hasattr(module, "forward_head")


def _watch_last_linear(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and flattened input of the last ``nn.Linear``."""
    seen: list[Tensor] = []
    watch = _last_linear(module).register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0])  # returns None: the input stays as it is
    )
    try:
        logits: Tensor = module(x)
    finally:
        watch.remove()
    if not seen:
        raise _no_embeddings(module, "one that is never called with a tensor")
    return logits, seen[-1].flatten(1)


def _last_linear(module: nn.Module) -> nn.Linear:
    linears = [submodule for submodule in module.modules() if isinstance(submodule, nn.Linear)]
    if not linears:
        raise _no_embeddings(module, "none")
    return linears[-1]


def _no_embeddings(module: nn.Module, got: str) -> ValueError:
    return ValueError(
        f"The forward pass of {type(module).__name__} must end in an nn.Linear, or the module must "
        "have the methods forward_features(x) and forward_head(features, pre_logits=False). As the "
        f"last nn.Linear, got {got}. End the network in an nn.Linear, or add the two methods: "
        "with pre_logits=True the second returns the embeddings, otherwise the logits."
    )
