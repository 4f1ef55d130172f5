"""Symmetric cross-entropy: cross-entropy learns, and its reverse tolerates wrong labels."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar, Unpack

import torch

from noisyfit.data.training import TrainingData
from noisyfit.estimator.keywords import SharedParameters
from noisyfit.methods.cross_entropy import CrossEntropyClassifier
from noisyfit.nn.losses import cross_entropy, reverse_cross_entropy
from noisyfit.utils.parameters import Interval


class SymmetricCrossEntropyClassifier(CrossEntropyClassifier):
    """Learn from noisy labels with cross-entropy in both directions.

    The reverse cross-entropy asks how surprising the prediction is to the label, instead of the
    label to the prediction. It is bounded, so that a wrong label pulls no harder than a right one.
    Plain cross-entropy, with a small weight, learns what the reverse alone learns too slowly. It is
    as cheap as cross-entropy. It helps where wrong labels are scattered; where a class is mistaken
    for one other class, the wrong label soon looks plausible.

    For every batch (section 3 of [1]_): a step on ``forward_weight`` times the cross-entropy plus
    ``reverse_weight`` times the reverse cross-entropy.

    Parameters
    ----------
    forward_weight : float >= 0, default=0.1
        ``alpha`` in [1]_, which has 0.1 for CIFAR-10 and 6 for CIFAR-100.
    reverse_weight : float >= 0, default=1.0
        ``beta`` in [1]_, which has 1 for CIFAR-10 and 0.1 for CIFAR-100.
    {shared parameters}

    Attributes
    ----------
    {shared attributes}

    Notes
    -----
    Differences from the paper: one pair of weights for all data.

    Trusted rows have the loss of cross-entropy. Rows without a label take no part in training.
    ``fit`` takes ``sample_weight``. Cost: as cross-entropy; ``n_classes`` floats per sample.

    References
    ----------
    .. [1] Wang, Ma, Chen, Luo, Yi and Bailey. Symmetric Cross Entropy for Robust Learning with
       Noisy Labels. ICCV, 2019. arXiv:1908.06112

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from noisyfit import SymmetricCrossEntropyClassifier, noise
    >>> X, y = load_digits(return_X_y=True)
    >>> noisy = noise.symmetric(y, 0.4, random_state=0)
    >>> clf = SymmetricCrossEntropyClassifier(max_epochs=20, random_state=0).fit(X, noisy.labels)
    >>> bool((clf.corrected_labels_ == y).mean() > 0.9)
    True
    """

    _weighs_rows: ClassVar = True
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "forward_weight": [Interval(Real, 0, None, closed="left")],
        "reverse_weight": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        module: Any = None,
        *,
        forward_weight: float = 0.1,
        reverse_weight: float = 1.0,
        **kwargs: Unpack[SharedParameters],
    ) -> None:
        super().__init__(module, **kwargs)
        self.forward_weight = forward_weight
        self.reverse_weight = reverse_weight

    def _fit(self, data: TrainingData) -> None:
        for _ in self._epochs():
            for idx, x, _ in data.batches("weak", labelled=True):
                logits, targets = self.module_(x), data.targets(idx)
                forward = cross_entropy(logits, targets)
                reverse = reverse_cross_entropy(logits, targets)
                symmetric = self.forward_weight * forward + self.reverse_weight * reverse
                loss = torch.where(data.trusted[idx], forward, symmetric)
                self._descend(data.weighed(loss, idx).mean())
                self.state_.probs_sum.index_add_(0, idx, logits.detach().float().softmax(1))
