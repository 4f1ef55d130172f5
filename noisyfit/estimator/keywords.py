"""The keyword arguments of constructors, for type checkers and editors."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor


class RoutedParameters(TypedDict, total=False):
    """Those of named networks and torch's optimizers; others go through ``set_params``."""

    module__depth: int
    module__dropout: float
    module__frozen: bool | str
    module__size: int | None
    module__small_stem: bool
    module__weights: Any
    module__width: int
    optimizer__betas: tuple[float, float]
    optimizer__dampening: float
    optimizer__eps: float
    optimizer__lr: float
    optimizer__momentum: float
    optimizer__nesterov: bool
    optimizer__param_groups: list[tuple[str, dict[str, Any]]]
    optimizer__weight_decay: float


class SharedParameters(RoutedParameters, total=False):
    """Those of every method, as documented in `NoisyLabelClassifier`."""

    optimizer: type[torch.optim.Optimizer]
    lr: float
    lr_schedule: str
    max_epochs: int | None
    batch_size: int
    augmentation: str | Callable[[Tensor], Tensor] | None
    jitter: float
    masking: float
    flip: bool
    image_layout: str
    value_range: tuple[float, float] | None
    validation_fraction: float | None
    missing_label: Any
    soft_labels: bool
    classes: Any
    annotator_aggregation: str
    correction_margin: float
    callbacks: list[Any] | None
    checkpoint_dir: str | os.PathLike[str] | None
    checkpoint_every: int
    device: str | torch.device
    num_workers: int
    precision: str
    deterministic: bool
    random_state: int | np.random.RandomState | None
    verbose: int
