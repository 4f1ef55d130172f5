"""Cross-entropy on the given labels: the baseline, and the template of a method."""

from __future__ import annotations

from typing import Any, Self

import torch
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
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
    Rows without a label take no part in training. ``fit`` takes ``sample_weight``. Cost: one
    forward and one backward pass a batch; ``n_classes`` floats per sample.

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

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        sample_weight: Any = None,
        clean_mask: Any = None,
        X_meta: Any = None,
        y_meta: Any = None,
        X_val: Any = None,
        y_val: Any = None,
    ) -> Self:
        """Learn from labels, each row with its weight.

        Parameters
        ----------
        X, y : arrays
            As for every method: see `NoisyLabelClassifier.fit`.
        sample_weight : array-like of shape (n_samples,), default=None
            What each row counts in the loss, at least 0; only the proportions matter.
        clean_mask, X_meta, y_meta, X_val, y_val : arrays, default=None
            As for every method.

        Returns
        -------
        self
        """
        self._sample_weight = sample_weight
        try:
            return super().fit(
                X,
                y,
                clean_mask=clean_mask,
                X_meta=X_meta,
                y_meta=y_meta,
                X_val=X_val,
                y_val=y_val,
            )
        finally:
            self.__dict__.pop("_sample_weight", None)

    def _init_state(self, n: int, n_classes: int) -> dict[str, Tensor]:
        return {"probs_sum": torch.zeros(n, n_classes)}

    def _fit(self, data: TrainingData) -> None:
        for _ in self._epochs():
            for idx, x, labels in data.batches("weak", labelled=True):
                logits = self.module_(x)
                self._descend(data.mean(cross_entropy(logits, labels), idx))
                self.state_.probs_sum[idx] += logits.detach().float().softmax(1)

    def _beliefs(self, data: TrainingData) -> tuple[Tensor, Tensor]:
        """Return the mean over epochs of the probability of the given label and of all classes."""
        total = self.state_.probs_sum.sum(1, keepdim=True)  # the number of epochs
        distribution = torch.where(total > 0, self.state_.probs_sum / total, 1 / self.n_classes_)
        given = data.labels.clamp(min=0)[:, None]
        return distribution.gather(1, given)[:, 0], distribution

    @available_if(lambda self: self._networks == ("module",))
    def fine_tune(self, X: Any, y: Any, *, epochs: int, lr: float) -> Self:
        """Go on training the fitted network by cross-entropy, on some rows and at a constant rate.

        Classes and the scale of the input stay those of ``fit``, and so does all that was found
        about its labels.

        Parameters
        ----------
        X : array-like
            Rows as in ``fit``.
        y : array-like of shape (n_samples,)
            Their labels, not necessarily of all classes.
        epochs : int >= 0
        lr : float > 0

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a label is none of the classes of ``fit``, or X does not look like its rows.
        """
        check_is_fitted(self)
        data = self._labelled(X, y, "y")
        with self._training_conditions():
            optimizer = self._make_optimizer("module", self.module_)
            for group in optimizer.param_groups:
                group["lr"] = lr
            self.module_.train()
            for _ in range(epochs):
                for _, x, labels in data.batches("weak", labelled=True):
                    optimizer.zero_grad()
                    cross_entropy(self.module_(x), labels).mean().backward()
                    optimizer.step()
            self.module_.eval()
        return self
