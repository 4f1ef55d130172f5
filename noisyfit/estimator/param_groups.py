"""Parameters of networks by name, and the patterns that group them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from functools import partial
from typing import Any

from torch import nn

from noisyfit.nn.input_layer import Standardized

SHOWN = 8  # names in a message


def named_parameters(name: str, network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield parameters as the user's network names them, or under ``name`` if it is our own."""
    if isinstance(network, Standardized):
        return network.network.named_parameters()
    return network.named_parameters(name)


def patterns_of(owner: str, groups: Any) -> list[str]:
    """Return the name patterns by which parameters are grouped."""
    pairs = isinstance(groups, list | tuple) and all(
        isinstance(group, list | tuple)
        and len(group) == 2
        and isinstance(group[0], str)
        and isinstance(group[1], Mapping)
        for group in groups
    )
    if not pairs:
        raise ValueError(
            f"{owner} must be a list of pairs, a pattern of names and a dict of parameters. Got "
            f"{groups!r}. Pass, for example, [('0.*', {{'lr': 0.01}})]."
        )
    return [pattern for pattern, _ in groups]


def check_patterns(
    owner: str, patterns: Sequence[Any], parameters: Sequence[tuple[str, Any]]
) -> None:
    """Refuse patterns that match nothing: they would silently have no effect."""
    names = list(dict.fromkeys(name for name, _ in parameters))  # two networks share names
    shown = ", ".join(names if len(names) <= SHOWN else [*names[:SHOWN], "..."])
    for pattern in patterns:
        matches = pattern if callable(pattern) else partial(fnmatch, pat=pattern)
        if not any(map(matches, names)):
            raise ValueError(
                f"Patterns of {owner} must match names of parameters. Got {pattern!r}, which "
                f"matches none of the {len(names)}: {shown}"
            )
