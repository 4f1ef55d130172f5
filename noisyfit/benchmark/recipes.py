"""The papers' settings by method and data set, as constructor parameters."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from noisyfit.utils.synonyms import did_you_mean

_PUBLISHED_FLYWHEEL = {
    "mixup_alpha": 4.0,
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

_PUBLISHED_CLID = {
    "module": "wrn_28_10",
    "max_epochs": 100,
    "batch_size": 100,
    "meta_batch_size": 100,
    "lr": 0.05,
    "lr_schedule": "constant",  # the callback's, if there is one
    "warmup_epochs": 1,
    "clid_temperature": 0.5,
    "n_snapshots": 5,
    "optimizer__momentum": 0.9,
    "optimizer__weight_decay": 5e-4,
}

_PUBLISHED_VRI = _PUBLISHED_CLID | {
    "module": "preact_resnet18",
    "meta_model": "vri",
    "max_epochs": 150,
    "lr": 0.02,
    "meta_lr": 0.01,
}

_PUBLISHED_HRP = {
    "norm": "sum",
    "reliability_range": (0.1, 2.0),  # the paper does not say
    "reweighting": 0.5,
    "temporal_momentum": 0.0,
    "balanced": False,
    "unit_gradients": False,
    "meta_objective": "ce",
    "max_epochs": 600,
    "batch_size": 256,
    "lr": 0.05,
    "optimizer__momentum": 0.9,
    "optimizer__weight_decay": 5e-4,
}

_PUBLISHED_ECHOALIGN: dict[str, Any] = {
    "max_epochs": 200,
    "batch_size": 128,
    "lr": 0.1,
    "optimizer__momentum": 0.9,
    "optimizer__weight_decay": 1e-4,
}

_PUBLISHED_ELR = {
    "module": "resnet34",
    "module__small_stem": True,
    "max_epochs": 150,
    "batch_size": 128,
    "lr": 0.02,
    "optimizer__momentum": 0.9,
    "optimizer__weight_decay": 1e-3,
}

_PUBLISHED_ELR_PLUS = {
    "module": "preact_resnet18",
    "n_networks": 2,
    "mixup_alpha": 1.0,
    "batch_size": 128,
    "lr": 0.02,
    "optimizer__momentum": 0.9,
    "optimizer__weight_decay": 5e-4,
}

_PUBLISHED_DIVIDEMIX = {
    "module": "preact_resnet18",
    "max_epochs": 300,
    "batch_size": 128,
    "lr": 0.02,
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
    first 100; its published form can collapse, and then goes back to the end of the warm-up. For
    "food101n" the paper states neither the epochs nor the warm-up: they are the 200 and 30 of its
    other large sets.

    For CLID-MU, "clid" is the weight network and "vri" the rectifier, each on the data sets for
    which the paper reports it:

    - On CIFAR and CIFAR-N the learning rate goes down for ten epochs and up for ten, to 0.001 and
      back, as the authors' code has the paper's "10-epoch period". The paper does not state the
      epochs for CIFAR-N: here the 150 of CIFAR.
    - ``"animal10n"`` has one cosine over its period of 160 epochs, to 0; the paper does not state
      how long it trains.
    - ``"clothing1m"`` has fixed rates, and starts from torchvision's ImageNet weights, which are
      downloaded at `fit`. The batches of 100 rows are those of CIFAR.
    - On CIFAR the weight network keeps this library's rate, with which Adam moves it: at the
      paper's, 1e-5 with SGD, it does not. The rate of a meta-model follows that of the network; the
      paper's is constant.
    - The paper warms up for no epoch; here it is one. It names neither momentum nor weight decay;
      they are those of the authors' code.

    "divide_mix_vri" is the paper's "VRI-CLID + DivideMix" (its appendix C). The paper does not
    state the warm-up of 10 or 30 epochs and the weight 150 of the squared error: both are those of
    the authors' code, the weight divided by the number of classes, over which the error is summed
    here. The rate of the meta-models is that of "vri". Both networks of the last epoch predict, the
    paper averages five snapshots of each.

    For holistic reliability propagation the batch size, the number of epochs and the length of the
    warm-up, which the paper does not state, are those of ProMix, on which it builds; the bounds of
    the reliabilities and the weights, lost in the copy at hand, are this library's. It needs
    trusted rows: 1,000 in the paper, as ``clean_mask`` or ``X_meta``.

    For EchoAlign, "echoalign" is the paper's Algorithm 1, and "echoalign_released" the authors'
    code, which learns from all modified rows, gives both domains the same weight and goes on for 40
    epochs with the kept originals. The generator is the user's:
    ``EchoAlignClassifier(**recipe("echoalign", "cifar10"), selector=EchoSelect(modifier, encoder,
    threshold=0.52))``, with a threshold of 0.4 for 30 % of wrong labels and 0.52 for 45 to 50 %.
    The paper holds a tenth of the rows out; here all are learned from.

    ELR has other settings for asymmetric noise on CIFAR-10: ``regularization=1.0``,
    ``target_momentum=0.9``, 120 epochs with steps at 40 and 80. "elr_plus" has the numbers of the
    authors' configuration files, ``ELR_plus/config_cifar10.json`` and ``config_cifar100.json``;
    what else is different is listed at `ELRClassifier`. DivideMix has a weight of the squared error
    for every noise; here it is that of half of the labels wrong at random.

    Parameters
    ----------
    method : str
        "flywheel", "rld", "clid", "vri", "hrp", "echoalign", "echoalign_released", "elr",
        "elr_plus", "divide_mix" or "divide_mix_vri".
    dataset : str
        For the flywheel "cifar10", "cifar100", "tiny_imagenet", "clothing1m" or "webvision50"; for
        reciprocal label diffusion "cifar10", "cifar100", "animal10n", "red_mini_imagenet" or
        "food101n"; for "clid" "cifar10", "cifar100" or "clothing1m", for "vri" also "cifar10n",
        "cifar100n" and "animal10n"; for holistic reliability propagation "cifar10", "cifar100" or
        "animal10n"; for EchoAlign "cifar10", "cifar10n" or "cifar100"; for "divide_mix_vri"
        "cifar10n" or "cifar100n"; for the others "cifar10" or "cifar100".

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
    .. [3] CLID-MU: Cross-Layer Information Divergence Based Meta Update Strategy for Learning with
       Noisy Labels.
    .. [4] Holistic Reliability Propagation.
    .. [5] Zheng, Han, Yin, Gao, Liu. Can We Treat Noisy Labels as Accurate? 2024. arXiv:2405.12969
    .. [6] Liu, Niles-Weed, Razavian and Fernandez-Granda. Early-Learning Regularization Prevents
       Memorization of Noisy Labels. NeurIPS, 2020. arXiv:2007.00151
    .. [7] Li, Socher and Hoi. DivideMix: Learning with Noisy Labels as Semi-Supervised Learning.
       ICLR, 2020. arXiv:2002.07394

    Examples
    --------
    >>> from noisyfit import FlywheelClassifier
    >>> clf = FlywheelClassifier(**recipe("flywheel", "cifar10"), random_state=0)
    >>> clf.max_epochs, clf.lr
    (300, 0.02)
    """
    by_dataset = RECIPES[_known("method", method, RECIPES)]
    return by_dataset[_known("dataset", dataset, by_dataset)]()


def _known(what: str, name: str, names: Collection[str]) -> str:
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


def _clid(published: dict[str, Any], **params: Any) -> dict[str, Any]:
    from skorch.callbacks import LRScheduler

    up_and_down = LRScheduler(policy="CosineAnnealingLR", T_max=10, eta_min=1e-3)
    return published | {"callbacks": [("lr_schedule", up_and_down)]} | params


def _clid_animal10n() -> dict[str, Any]:
    return _PUBLISHED_VRI | {
        "module": "vgg19_bn",
        "max_epochs": 160,
        "batch_size": 128,
        "lr": 0.1,
        "lr_schedule": "cosine",
    }


def _clid_clothing1m(published: dict[str, Any]) -> dict[str, Any]:
    return published | {
        "module": "resnet50",
        "module__weights": "IMAGENET1K_V1",
        "max_epochs": 10,
        "lr": 5e-4,
        "meta_lr": 0.01,
    }


def _hrp(module: str, warmup_epochs: int) -> dict[str, Any]:
    own = {"module": module, "warmup_epochs": warmup_epochs, "callbacks": _steps([250, 400], 0.1)}
    return _PUBLISHED_HRP | own


def _echoalign(module: str, **params: Any) -> dict[str, Any]:
    from noisyfit import CrossEntropyClassifier

    own: dict[str, Any] = {
        "module": module,
        "module__small_stem": True,
        "callbacks": _steps([100, 150], 0.1),
    }
    paper = {"include_modified": "rejected", "domain_weighting": False, "finetune_epochs": 0}
    return {"estimator": CrossEntropyClassifier(**_PUBLISHED_ECHOALIGN, **own)} | paper | params


def _echoalign_released(module: str) -> dict[str, Any]:
    return _echoalign(module, include_modified="all", domain_weighting=True, finetune_epochs=40)


def _elr_cifar10() -> dict[str, Any]:
    from skorch.callbacks import LRScheduler
    from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts  # no name that skorch knows

    restarts = LRScheduler(policy=CosineAnnealingWarmRestarts, T_0=10, eta_min=1e-3)
    own = {"regularization": 3.0, "target_momentum": 0.7}
    return _PUBLISHED_ELR | own | {"callbacks": [("lr_schedule", restarts)]}


def _elr_cifar100() -> dict[str, Any]:
    own = {"regularization": 7.0, "target_momentum": 0.9}
    return _PUBLISHED_ELR | own | {"callbacks": _steps([80, 120], 0.1)}


def _elr_plus_cifar10() -> dict[str, Any]:
    own = {"regularization": 3.0, "target_momentum": 0.7, "max_epochs": 200}
    return _PUBLISHED_ELR_PLUS | own | {"callbacks": _steps([150], 0.1)}


def _elr_plus_cifar100() -> dict[str, Any]:
    own = {"regularization": 7.0, "target_momentum": 0.9, "max_epochs": 250}
    return _PUBLISHED_ELR_PLUS | own | {"callbacks": _steps([200], 0.1)}


def _dividemix(warmup_epochs: int, unlabelled_weight: float) -> dict[str, Any]:
    own = {"warmup_epochs": warmup_epochs, "unlabelled_weight": unlabelled_weight}
    return _PUBLISHED_DIVIDEMIX | own | {"callbacks": _steps([150], 0.1)}


def _dividemix_vri(warmup_epochs: int, unlabelled_weight: float) -> dict[str, Any]:
    return _dividemix(warmup_epochs, unlabelled_weight) | {
        "module": "resnet34",
        "module__small_stem": True,
        "lr": 0.03,
        "meta_model": "vri",
        "meta_lr": 0.01,
        "callbacks": _steps([120, 180], 0.1),
    }


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
        "food101n": partial(_rld, "resnet50", 30),
    },
    "clid": {
        "cifar10": partial(_clid, _PUBLISHED_CLID),
        "cifar100": partial(_clid, _PUBLISHED_CLID),
        "clothing1m": partial(_clid_clothing1m, _PUBLISHED_CLID),
    },
    "vri": {
        "cifar10": partial(_clid, _PUBLISHED_VRI),
        "cifar100": partial(_clid, _PUBLISHED_VRI),
        "cifar10n": partial(_clid, _PUBLISHED_VRI, module="resnet34", module__small_stem=True),
        "cifar100n": partial(_clid, _PUBLISHED_VRI, module="resnet34", module__small_stem=True),
        "animal10n": _clid_animal10n,
        "clothing1m": partial(_clid_clothing1m, _PUBLISHED_VRI),
    },
    "hrp": {
        "cifar10": partial(_hrp, "preact_resnet18", 10),
        "cifar100": partial(_hrp, "preact_resnet18", 30),
        "animal10n": partial(_hrp, "vgg19_bn", 10),
    },
    "echoalign": {
        "cifar10": partial(_echoalign, "resnet18"),
        "cifar10n": partial(_echoalign, "resnet18"),
        "cifar100": partial(_echoalign, "resnet34"),
    },
    "echoalign_released": {
        "cifar10": partial(_echoalign_released, "resnet18"),
        "cifar10n": partial(_echoalign_released, "resnet18"),
        "cifar100": partial(_echoalign_released, "resnet34"),
    },
    "elr": {"cifar10": _elr_cifar10, "cifar100": _elr_cifar100},
    "elr_plus": {"cifar10": _elr_plus_cifar10, "cifar100": _elr_plus_cifar100},
    "divide_mix": {  # the paper's 25 and 150, for the mean over the classes
        "cifar10": partial(_dividemix, 10, 2.5),
        "cifar100": partial(_dividemix, 30, 1.5),
    },
    "divide_mix_vri": {  # 150 for both
        "cifar10n": partial(_dividemix_vri, 10, 15.0),
        "cifar100n": partial(_dividemix_vri, 30, 1.5),
    },
}
"""What `recipe` looks up."""
