"""Cross-entropy on the given labels: the baseline, and the template of a method."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, Self

import torch
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from noisyfit.data.training import TrainingData
from noisyfit.estimator.base import NoisyLabelClassifier
from noisyfit.exceptions import NoisyFitError
from noisyfit.nn.beliefs import given_probability, mean_of
from noisyfit.nn.losses import cross_entropy
from noisyfit.utils.devices import resolve_precision
from noisyfit.utils.parameters import Interval, check_parameters
from noisyfit.utils.torch_state import torch_defaults

FINE_TUNING = {
    "epochs": [Interval(Integral, 1, None, closed="left")],
    "lr": [Interval(Real, 0, None, closed="neither")],
}


def _has_the_plain_loss(clf: CrossEntropyClassifier) -> bool:
    """Whether the class trains one network by cross-entropy rather than by its own loss."""
    return type(clf)._fit is CrossEntropyClassifier._fit


class CrossEntropyClassifier(NoisyLabelClassifier):
    """Learn from noisy labels by minimising the cross-entropy, as if every label were right.

    The baseline for every other method. Early epochs learn what most labels say, late ones memorise
    the wrong labels, so the last epoch falls behind under heavy noise. Even so, the mean over
    epochs of the probability of the given label is a good rating of the label.

    Parameters
    ----------
    {shared parameters}

    Attributes
    ----------
    {shared attributes}

    Notes
    -----
    Rows without a label take no part in training. ``fit`` takes ``sample_weight``. Cost: one
    forward and one backward pass per batch; ``n_classes`` floats per sample.

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

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Remove ``sample_weight`` from the signature of subclasses with their own loop.

        A subclass whose loop weights its losses, with ``data.weighed``, sets ``_weighs_rows =
        True``.
        """
        if "_fit" in vars(cls) and not vars(cls).get("_weighs_rows", False):
            cls.fit = NoisyLabelClassifier.fit  # type: ignore[assignment, method-assign]
        super().__init_subclass__(**kwargs)

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
        **refused: Any,
    ) -> Self:
        """Learn from labels, with a weight for each row.

        Parameters
        ----------
        X, y : arrays
            As for every method: see `NoisyLabelClassifier.fit`.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row in the loss, at least 0; only the proportions matter. 0 leaves a row
            out of the loss, but the row is still rated. ``valid_loss``, ``valid_acc`` and the
            fitted attributes count each row once.
        clean_mask, X_meta, y_meta, X_val, y_val : arrays, default=None
            As for every method.
        **refused
            An error.

        Returns
        -------
        self
        """
        self._refuse(refused)
        with self._all_or_nothing():
            self._train(X, y, clean_mask, X_meta, y_meta, X_val, y_val, sample_weight)
        return self

    def _init_state(self, n: int, n_classes: int) -> dict[str, Tensor]:
        return {"probs_sum": torch.zeros(n, n_classes)}

    def _fit(self, data: TrainingData) -> None:
        for _ in self._epochs():
            for idx, x, _ in data.batches("weak", labelled=True):
                logits = self.module_(x)
                losses = cross_entropy(logits, data.targets(idx))
                self._descend(data.weighed(losses, idx).mean())
                self.state_.probs_sum.index_add_(0, idx, logits.detach().float().softmax(1))

    def _beliefs(self, data: TrainingData) -> tuple[Tensor, Tensor]:
        """Return the mean over epochs of the probability of the given label and of all classes."""
        distribution = mean_of(self.state_.probs_sum)
        return given_probability(distribution, data.labels), distribution

    @available_if(_has_the_plain_loss)
    @torch_defaults()
    def fine_tune(self, X: Any, y: Any, *, epochs: int, lr: float) -> Self:
        """Train the fitted network further, by cross-entropy on weak views at a constant rate.

        The network keeps its input layer and all known classes, including those without a row in
        ``y``. ``predict_proba``, ``transform`` and ``score_labels`` change; ``history_``,
        ``n_iter_``, ``label_quality_`` and the other attributes of the training rows remain those
        of `fit`. No callback is called. Subclasses with their own loss do not have this method.

        Parameters
        ----------
        X : array-like
            Rows in the layout and on the scale used in `fit`.
        y : array-like of shape (n_samples,)
            Labels among ``classes_``; rows with ``missing_label`` are left out.
        epochs : int >= 1
        lr : float > 0
            Learning rate. Groups in ``optimizer__param_groups`` keep their ratio to it.

        Raises
        ------
        ValueError
            If the data cannot be used, or fewer than two rows have a label.
        NoisyFitError
            If the weights diverge; the network is then restored.
        """
        check_is_fitted(self)
        check_parameters(FINE_TUNING, {"epochs": epochs, "lr": lr}, "fine_tune")
        data = self._labelled(X, y, "y")
        if data.has_label.sum() < 2:
            raise ValueError(
                "fine_tune needs at least two rows with a label. Got "
                f"{int(data.has_label.sum())} of {len(data)}. Pass more rows."
            )
        before = {name: value.clone() for name, value in self.module_.state_dict().items()}
        try:
            with self._training_conditions():
                self._train_on(data, epochs, lr)
        except BaseException:
            self.module_.load_state_dict(before)
            raise
        finally:
            self.module_.eval()
        return self

    def _train_on(self, data: TrainingData, epochs: int, lr: float) -> None:
        """Train ``module_`` with a new optimizer like that of `fit`."""
        optimizer = self._make_optimizer("module", self.module_)
        for group in optimizer.param_groups:
            group["lr"] *= lr / optimizer.defaults["lr"]
        self._autocast(resolve_precision(self.precision, self.device_, self.row_shape_))
        self.module_.train()
        for _ in range(epochs):
            for idx, x, _ in data.batches("weak", labelled=True):
                optimizer.zero_grad()
                cross_entropy(self.module_(x), data.targets(idx)).mean().backward()
                optimizer.step()
        if not self._probabilities(data).isfinite().all():
            raise NoisyFitError(
                f"Predictions must be finite. Got NaN after fine_tune with lr={lr:g}: the weights "
                f"have diverged. Try lr={lr / 10:g}."
            )
