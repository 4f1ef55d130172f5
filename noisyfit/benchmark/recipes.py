"""The papers' settings as constructor parameters, by method and data set."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from noisyfit.benchmark.papers import RECIPES
from noisyfit.utils.synonyms import did_you_mean


def recipe(method: str, dataset: str) -> dict[str, Any]:
    """Return the settings with which a paper reports a method on a data set.

    The parameters are the paper's, not this library's defaults: methods come in their published
    form, without the changes listed on their pages. A recipe includes neither data nor noise.

    For the flywheel:

    - ``"tiny_imagenet"`` and ``"webvision50"`` halve the learning rate every 25 epochs, starting
      at epoch 100 and 50 respectively, counted from 0. The paper's "0.5 per 25 epochs after 100
      epochs" could also mean 25 epochs later. It does not name its network for Tiny-ImageNet; here
      it is the one for CIFAR.
    - ``"clothing1m"`` starts from torchvision's ImageNet weights, which must be on the disk. An
      epoch of the paper is 1000 batches with balanced labels. This is not reproduced: here it is a
      pass over all rows.
    - ``"webvision50"`` names no network, because torchvision lacks the paper's Inception-ResNet-v2.
      Pass a class or a function that returns one as ``module``; without it ``fit`` uses ResNet-18.
    - The paper does not state the warm-up on Clothing1M and WebVision; here it is 10 epochs, as on
      the others.

    For reciprocal label diffusion, training lasts 200 epochs, and the learning rate falls to a
    tenth after the first 100. Its published form can collapse and then goes back to the end of the
    warm-up. For "food101n" the paper states neither the epochs nor the warm-up; here they are 200
    and 30, as for its other large sets.

    For CLID-MU, "clid" is the weight network and "vri" the rectifier, each on the data sets for
    which the paper reports it:

    - On CIFAR and CIFAR-N the learning rate falls to 0.001 for ten epochs and rises back for ten,
      which is how the authors' code implements the paper's "10-epoch period". The paper does not
      state the epochs for CIFAR-N; here they are CIFAR's 150.
    - ``"animal10n"`` has one cosine to 0 over its period of 160 epochs; the paper does not state
      how long training lasts.
    - ``"clothing1m"`` has constant rates and starts from torchvision's ImageNet weights, which
      must be on the disk. Its batches have 100 rows, as for CIFAR.
    - On CIFAR the weight network is trained with this library's rate and Adam: at the paper's
      rate, 1e-5 with SGD, it does not move. The rate of a meta-model follows that of the network;
      the paper's is constant.
    - The paper has no warm-up; here it is one epoch. The paper names neither momentum nor weight
      decay; they are taken from the authors' code.

    "divide_mix_vri" is the paper's "VRI-CLID + DivideMix" (its appendix C). The paper states
    neither the warm-up of 10 or 30 epochs nor the weight of 150 for the squared error. Both are
    from the authors' code, with the weight divided by the number of classes, over which the error
    is summed here. The rate of the meta-models is that of "vri". Here both networks predict as
    they are after the last epoch; the paper averages five snapshots of each.

    For holistic reliability propagation, the paper does not state the batch size, the number of
    epochs and the length of the warm-up; they are those of ProMix, on which it builds. The bounds
    of the reliabilities and the weights, lost in the copy at hand, are this library's. The method
    needs trusted rows, 1,000 in the paper, as ``clean_mask`` or ``X_meta``.

    For EchoAlign, "echoalign" is the paper's Algorithm 1: one round, a threshold of the similarity,
    the union of kept originals and modified rejected ones, without weights. "echoalign_released" is
    the authors' code, which learns from all modified rows, gives both domains the same weight and
    continues for 40 epochs on the kept originals. The generator and the encoder are the user's:
    ``EchoAlignClassifier(**recipe("echoalign", "cifar10")).set_params(selector__modifier=modifier,
    selector__embedder=encoder)``. The threshold of 0.52 is the paper's for 45 to 50 % wrong labels;
    for 30 % it has 0.4. The paper holds out a tenth of the rows; here all of them are used for
    training.

    ELR has different settings for asymmetric noise on CIFAR-10: ``regularization=1.0``,
    ``target_momentum=0.9``, 120 epochs with steps at 40 and 80. "elr_plus" has the numbers of the
    authors' configuration files, ``ELR_plus/config_cifar10.json`` and ``config_cifar100.json``;
    `ELRClassifier` lists the other differences. DivideMix has a weight of the squared error for
    each noise; here it is the one for half of the labels being wrong at random.

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
        Parameters for the constructor of the method's class. Each call returns a new dict, with
        new callbacks.

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
