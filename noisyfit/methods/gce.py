"""Generalised cross-entropy: a loss that turns away from labels the network finds implausible."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor

from noisyfit.data.training import TrainingData
from noisyfit.estimator.keywords import SharedParameters
from noisyfit.methods.cross_entropy import CrossEntropyClassifier
from noisyfit.nn.beliefs import given_probability
from noisyfit.nn.losses import cross_entropy, generalized_cross_entropy
from noisyfit.utils.parameters import Interval


class GCEClassifier(CrossEntropyClassifier):
    """Learn from noisy labels with a loss between cross-entropy and the mean absolute error.

    The gradient of a row is that of cross-entropy times ``p ** q``, where p is the probability of
    the given label: labels that the network finds implausible count for little. It is as cheap as
    cross-entropy and leaves nothing else to choose. It helps where wrong labels are scattered.
    Where a class is mistaken for one other class, the wrong label soon looks plausible, and with
    many classes learning is slow.

    Step by step (section 3 of [1]_):

    1. Take a step on ``(1 - p ** q) / q`` for every row of the batch (Eq. 6). During the warm-up
       rare classes weigh more.
    2. With ``truncation``, after the warm-up: leave out of an epoch the rows whose given label has
       a probability of at most ``truncation`` when the epoch starts (Eq. 9, Algorithm 1).

    Parameters
    ----------
    q : float in (0, 1], default=0.7
        1 is the mean absolute error; as q goes to 0, the loss approaches cross-entropy.
    truncation : float in [0, 1) or None, default=None
        ``k`` in [1]_, Eq. 7, which has 0.5. None leaves no row out.
    warmup_epochs : int >= 0 or None, default=None
        Epochs in which rare classes weigh more and no row is left out. None means one sixth of the
        epochs. With 0 all classes weigh the same, as in the paper.
    {shared parameters}

    Attributes
    ----------
    {shared attributes}

    Notes
    -----
    Differences from the paper:

    1. During the warm-up a class with the share s of the labels weighs ``s ** -q``: a network that
       knows only the shares then has the gradient of cross-entropy. In the paper all classes are
       equally frequent, and the gradient is proportional to it anyway. Without the weights a class
       of 3 % is never learned.
    2. With truncation, rows are chosen again in every epoch by the current network; in the paper
       every 10 epochs, by the network with the best score on validation rows.
    3. If truncation would leave no row of an epoch, none is left out.

    Trusted rows have the loss of cross-entropy and are never left out. Rows without a label take no
    part in training. ``fit`` takes ``sample_weight``. Cost: as cross-entropy; with truncation, one
    more forward pass over all rows per epoch; ``n_classes`` floats per sample.

    References
    ----------
    .. [1] Zhang and Sabuncu. Generalized Cross Entropy Loss for Training Deep Neural Networks with
       Noisy Labels. NeurIPS, 2018. arXiv:1805.07836

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from noisyfit import GCEClassifier, noise
    >>> X, y = load_digits(return_X_y=True)
    >>> noisy = noise.symmetric(y, 0.4, random_state=0)
    >>> clf = GCEClassifier(max_epochs=20, random_state=0).fit(X, noisy.labels)
    >>> bool((clf.corrected_labels_ == y).mean() > 0.9)
    True
    """

    _weighs_rows: ClassVar = True
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "q": [Interval(Real, 0, 1, closed="right")],
        "truncation": [Interval(Real, 0, 1, closed="left"), None],
        "warmup_epochs": [Interval(Integral, 0, None, closed="left"), None],
    }

    def __init__(
        self,
        module: Any = None,
        *,
        q: float = 0.7,
        truncation: float | None = None,
        warmup_epochs: int | None = None,
        **kwargs: Unpack[SharedParameters],
    ) -> None:
        super().__init__(module, **kwargs)
        self.q = q
        self.truncation = truncation
        self.warmup_epochs = warmup_epochs

    def _fit(self, data: TrainingData) -> None:
        classes = self._class_weights(data)
        for epoch in self._epochs():
            kept = self._kept(data, epoch)
            weights = classes if epoch < self.warmup_epochs_ else torch.ones_like(classes)
            for idx, x, labels in data.batches("weak", labelled=True):
                logits = self.module_(x)
                loss = torch.where(
                    data.trusted[idx],
                    cross_entropy(logits, data.targets(idx)),
                    weights[labels]
                    * generalized_cross_entropy(logits, data.targets(idx), q=self.q),
                )
                n_kept = kept[idx].sum().clamp(min=1)
                self._descend(data.weighed(kept[idx] * loss, idx).sum() / n_kept)
                self.state_.probs_sum.index_add_(0, idx, logits.detach().float().softmax(1))

    def _class_weights(self, data: TrainingData) -> Tensor:
        """Return the weight of each class in the warm-up, (n_classes,); 1 on average."""
        labels = data.labels[data.has_label]
        counts = torch.bincount(labels, minlength=data.n_classes).clamp(min=1)
        weights = counts.float() ** -self.q
        return weights / weights[labels].mean()

    def _kept(self, data: TrainingData, epoch: int) -> Tensor:
        """Return which rows are in the loss of an epoch, (n_samples,)."""
        if self.truncation is None or epoch < self.warmup_epochs_:
            return data.has_label
        probs = self._predict_probs(self.module_, data)
        given = given_probability(probs, data.labels)
        kept = data.has_label & (data.trusted | (given > self.truncation))
        return kept if kept.any() else data.has_label
