"""Cross-entropy on the given labels: the baseline, and the template of a method."""

from __future__ import annotations

import torch
from torch import Tensor

from noisyfit.base import NoisyLabelClassifier
from noisyfit.data import TrainingData
from noisyfit.nn.losses import cross_entropy


class CrossEntropyClassifier(NoisyLabelClassifier):
    """Learn from noisy labels by minimising the cross-entropy, as if every label were right.

    What every other method is compared with. Early epochs learn what most labels say, late ones
    memorise the wrong labels, so the last epoch falls behind under heavy noise; the mean over
    epochs of the probability of the given label is a good rating of the label all the same.

    Parameters
    ----------
    {shared parameters}

    Attributes
    ----------
    {shared attributes}

    Notes
    -----
    Rows without a label take no part in training. Cost: one forward and one backward pass a
    batch; ``n_classes`` floats per sample.

    References
    ----------
    .. [1] Pleiss et al. Identifying Mislabeled Data using the Area Under the Margin Ranking.
       NeurIPS, 2020. arXiv:2001.10528

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from noisyfit import CrossEntropyClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = CrossEntropyClassifier(max_epochs=20, random_state=0).fit(X, y)
    >>> clf.score(X, y) > 0.9
    True
    """

    def _init_state(self, n: int, n_classes: int) -> dict[str, Tensor]:
        return {"probs_sum": torch.zeros(n, n_classes)}

    def _fit(self, data: TrainingData) -> None:
        for _ in self._epochs():
            for idx, x, labels in data.batches("weak", labelled=True):
                logits = self.module_(x)
                self._descend(cross_entropy(logits, labels).mean())
                self.state_.probs_sum[idx] += logits.detach().float().softmax(1)

    def _beliefs(self, data: TrainingData) -> tuple[Tensor, Tensor]:
        """Return the mean over epochs of the probability of the given label and of all classes."""
        total = self.state_.probs_sum.sum(1, keepdim=True)  # the number of epochs
        distribution = torch.where(total > 0, self.state_.probs_sum / total, 1 / self.n_classes_)
        given = data.labels.clamp(min=0)[:, None]
        return distribution.gather(1, given)[:, 0], distribution
