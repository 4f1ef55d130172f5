"""The papers' settings by method and data set, as constructor parameters."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from noisyfit.benchmark.papers import RECIPES
from noisyfit.utils.synonyms import did_you_mean


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
