"""From a name, class, factory or instance to a fresh network that fits the data."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from noisyfit.nn.backbones import BACKBONES, KNOWN, OWN, default_backbone
from noisyfit.utils.synonyms import did_you_mean, remedy

PROJECTION_SIZE = 128
ModuleLike = None | str | nn.Module | Callable[..., nn.Module]


def build_network(
    module: ModuleLike,
    row_shape: tuple[int, ...],
    n_classes: int,
    params: dict[str, Any],
    *,
    prefix: str = "module",
    independent: bool = False,
) -> nn.Module:
    """Build a network that maps rows to logits.

    Parameters
    ----------
    module : None, str, module class, factory or instance
        None chooses by the shape of a row; an instance is copied, never trained in place.
    row_shape : tuple of int
        (d,) or (C, H, W).
    n_classes : int
    params : dict
        Passed to the class or factory; ``n_features`` / ``in_channels`` / ``n_classes`` are added
        if its signature has them.
    prefix : str
        Prefix of these parameters in messages, as the user writes them.
    independent : bool
        Whether the network must start differently from another one built from ``module``.

    Raises
    ------
    ValueError
        If a parameter or a name is unknown, or a trained instance would have to be reset.
    """
    if isinstance(module, nn.Module):
        if params:
            raise ValueError(
                f"'{prefix}__{next(iter(params))}' needs a class to pass it to. Got an instance of "
                f"{type(module).__name__} as module. Pass the class instead."
            )
        return _reset(copy.deepcopy(module)) if independent else copy.deepcopy(module)
    factory = _factory(module, row_shape)
    accepted = inspect.signature(factory).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
    for name in params:
        if name not in accepted and not takes_any:
            raise ValueError(
                f"Invalid parameter '{prefix}__{name}' for {_name(factory)}."
                + remedy(name, accepted, f"{prefix}__")
                + f" Its parameters are {list(accepted)}."
            )
    shape = {"n_features": row_shape[0], "in_channels": row_shape[0], "n_classes": n_classes}
    return factory(**{k: v for k, v in shape.items() if k in accepted} | params)


def _factory(module: ModuleLike, row_shape: tuple[int, ...]) -> Callable[..., nn.Module]:
    name = default_backbone(row_shape) if module is None else module
    if not isinstance(name, str):
        return name  # type: ignore[return-value]  # instances are handled by the caller
    if name not in BACKBONES:
        raise ValueError(
            f"module must be None, a class, a factory, an instance or {KNOWN}. Got {name!r}."
            + did_you_mean(name, BACKBONES)
        )
    return BACKBONES[name]


def parameter_names(module: Any) -> set[str]:
    """Return the names that may follow ``module__``; for None, those of all named networks.

    Networks of torchvision have the parameters of EfficientNet-Lite.
    """
    named = OWN if module is None else [module]
    factories = [BACKBONES.get(name) if isinstance(name, str) else name for name in named]
    return {name for f in factories if callable(f) for name in inspect.signature(f).parameters}


def _name(factory: Callable[..., nn.Module]) -> str:
    return getattr(factory, "__name__", type(factory).__name__)


def _reset(network: nn.Module) -> nn.Module:
    """Draw new parameters, or raise an error if that would lose something."""
    trained = any(
        isinstance(m, _NormBase) and m.num_batches_tracked is not None and m.num_batches_tracked > 0
        for m in network.modules()
    )
    owners = [m for m in network.modules() if next(m.parameters(recurse=False), None) is not None]
    fixed = [type(m).__name__ for m in owners if not hasattr(m, "reset_parameters")]
    if trained or fixed:
        reason = "it was trained before" if trained else f"{fixed[0]} has no reset_parameters()"
        raise ValueError(
            "This method trains two networks with different starts, so the module must be one that "
            f"can be made afresh. Got an instance whose weights would be lost: {reason}. "
            "Pass a class or a function that returns a new network, for example "
            "module=lambda: make_my_network()."
        )
    for m in owners:
        m.reset_parameters()  # type: ignore[operator]
    return network


def projection_head(n_dims: int) -> nn.Sequential:
    """Build the two layers between embeddings and a contrastive loss, 128 units each."""
    return nn.Sequential(
        nn.Linear(n_dims, PROJECTION_SIZE), nn.ReLU(), nn.Linear(PROJECTION_SIZE, PROJECTION_SIZE)
    )
