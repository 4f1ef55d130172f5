"""The papers' settings by method and data set, as constructor parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from noisyfit.validation import did_you_mean

_PUBLISHED_FLYWHEEL = {
    "temporal_momentum": 0.0,
    "temperature": 1.0,
    "zero_diagonal": False,
    "cr_weight": 3.0,
    "contrastive_weight": 0.025,
    "warmup_epochs": 10,
    "optimizer__momentum": 0.9,
    "optimizer__weight_decay": 5e-4,
}

_PUBLISHED_RLD = {
    "anchor": None,
    "conditioning": None,
    "rule": "ddpm_mean",
    "n_steps": 50,
    "t_max": 50,
    "contrastive_weight": 0.5,
    "predictor_weight": 1.0,
    "diffusion_every": 1,
    "teacher_momentum": 0.0,
    "max_epochs": 200,
    "batch_size": 128,
    "lr": 0.01,
    "optimizer__momentum": 0.9,
    "optimizer__weight_decay": 5e-4,
}


def recipe(method: str, dataset: str) -> dict[str, Any]:
    """Return the settings with which a paper reports a method on a data set.

    The parameters are the paper's, not this library's defaults: methods come in their published
    form, without the changes listed on their pages. Data are not part of a recipe, nor is noise.

    For the flywheel:

    - ``"tiny_imagenet"`` and ``"webvision50"`` halve the learning rate every 25 epochs, the first
      time at the start of epoch 100 and 50, counted from 0. The paper's "0.5 per 25 epochs after
      100 epochs" could also mean 25 epochs later. It does not name its network for Tiny-ImageNet;
      here it is that of CIFAR.
    - ``"clothing1m"`` starts from torchvision's ImageNet weights, which are downloaded at `fit`.
      The paper's epoch is 1000 batches with balanced labels, which is not reproduced: here it is a
      pass over all rows.
    - ``"webvision50"`` names no network: torchvision has no Inception-ResNet-v2, the paper's. Pass
      ``module=``, a class or a function that returns one; without it ``fit`` takes ResNet-18.
    - The warm-up of Clothing1M and WebVision is not stated; here it is the 10 epochs of the others.

    For reciprocal label diffusion, 200 epochs of which the learning rate falls to a tenth after the
    first 100; its published form can collapse, and then goes back to the end of the warm-up.

    Parameters
    ----------
    method : {"flywheel", "rld"}
    dataset : str
        For the flywheel "cifar10", "cifar100", "tiny_imagenet", "clothing1m" or "webvision50"; for
        reciprocal label diffusion "cifar10", "cifar100", "animal10n" or "red_mini_imagenet".

    Returns
    -------
    dict
        For the constructor of the method's class. A new one at each call, callbacks included.

    Raises
    ------
    ValueError
        If there is no such recipe.

    References
    ----------
    .. [1] Kim, Chang, Cho, Lee and Han. Learning with Noisy Labels: Interconnection of Two
       Expectation-Maximizations.
    .. [2] Reciprocal Label Diffusion for Learning with Noisy Labels.

    Examples
    --------
    >>> from noisyfit import FlywheelClassifier
    >>> clf = FlywheelClassifier(**recipe("flywheel", "cifar10"), random_state=0)
    >>> clf.max_epochs, clf.lr
    (300, 0.02)
    """
    by_dataset = RECIPES[_known("method", method, RECIPES)]
    return by_dataset[_known("dataset", dataset, by_dataset)]()


def _known(what: str, name: str, names: Iterable[str]) -> str:
    if name not in names:
        listing = ", ".join(repr(known) for known in names)
        raise ValueError(
            f"{what} must be one of {listing}. Got {name!r}.{did_you_mean(name, names)}"
        )
    return name


def _flywheel_cifar() -> dict[str, Any]:
    return _PUBLISHED_FLYWHEEL | {
        "module": "preact_resnet18",
        "max_epochs": 300,
        "batch_size": 128,
        "lr": 0.02,
        "lr_schedule": "cosine",
    }


def _flywheel_tiny_imagenet() -> dict[str, Any]:
    return _PUBLISHED_FLYWHEEL | {
        "module": "preact_resnet18",
        "max_epochs": 200,
        "batch_size": 32,
        "lr": 0.01,
        "callbacks": _steps([100, 125, 150, 175], 0.5),
    }


def _flywheel_clothing1m() -> dict[str, Any]:
    return _PUBLISHED_FLYWHEEL | {
        "module": "resnet50",
        "module__weights": "IMAGENET1K_V1",
        "max_epochs": 80,
        "batch_size": 32,
        "lr": 1e-3,
        "optimizer__weight_decay": 1e-3,
        "callbacks": _steps([40], 0.1),
    }


def _flywheel_webvision50() -> dict[str, Any]:
    return _PUBLISHED_FLYWHEEL | {
        "max_epochs": 100,
        "batch_size": 32,
        "lr": 0.02,
        "callbacks": _steps([50, 75], 0.5),
    }


def _rld(module: str, warmup_epochs: int, **params: Any) -> dict[str, Any]:
    own = {"module": module, "warmup_epochs": warmup_epochs, "callbacks": _steps([100], 0.1)}
    return _PUBLISHED_RLD | own | params


def _steps(milestones: list[int], factor: float) -> list[Any]:
    """Multiply the learning rate by ``factor`` at the start of each milestone, epochs from 0."""
    from skorch.callbacks import LRScheduler

    schedule = LRScheduler(policy="MultiStepLR", milestones=milestones, gamma=factor)
    return [("lr_schedule", schedule)]


RECIPES: dict[str, dict[str, Callable[[], dict[str, Any]]]] = {
    "flywheel": {
        "cifar10": _flywheel_cifar,
        "cifar100": _flywheel_cifar,
        "tiny_imagenet": _flywheel_tiny_imagenet,
        "clothing1m": _flywheel_clothing1m,
        "webvision50": _flywheel_webvision50,
    },
    "rld": {
        "cifar10": partial(_rld, "resnet34", 10, module__small_stem=True),
        "cifar100": partial(_rld, "resnet50", 30, module__small_stem=True),
        "animal10n": partial(_rld, "vgg19_bn", 30),
        "red_mini_imagenet": partial(_rld, "preact_resnet18", 30),
    },
}
"""What `recipe` looks up."""
