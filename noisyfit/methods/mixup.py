"""MixUp: train on mixtures of two rows, which are harder to memorise than single rows."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar, Unpack

from torch import Tensor

from noisyfit.data.training import TrainingData
from noisyfit.estimator.keywords import SharedParameters
from noisyfit.methods.cross_entropy import CrossEntropyClassifier
from noisyfit.nn.beliefs import sharpen
from noisyfit.nn.losses import cross_entropy
from noisyfit.nn.mixing import mixup
from noisyfit.utils.parameters import Interval

TEMPERATURE = 0.5  # of the mean prediction


class MixUpClassifier(CrossEntropyClassifier):
    """Learn from noisy labels by training on mixtures of two rows and of their labels.

    A network that must be linear between rows cannot memorise each of them. MixUp costs nothing,
    assumes nothing, and is part of many stronger methods. Alone it delays the memorising of wrong
    labels more than it prevents it.

    For every batch (Eq. 2 of [1]_): mix each row and its label with another of the batch, in a
    proportion drawn from Beta(alpha, alpha), and take a step on the cross-entropy.

    Parameters
    ----------
    mixup_alpha : float > 0, default=8.0
        ``alpha`` in [1]_. Larger values mix more evenly and resist memorising longer.
    {shared parameters}

    Attributes
    ----------
    {shared attributes}

    Notes
    -----
    Differences from the paper: none in the loss. Wrong labels are rated by predictions on unmixed
    rows: one forward pass over all rows per epoch, with the weak view. A network trained on
    mixtures is underconfident, so ``label_distribution_`` is the mean over epochs sharpened with
    temperature 0.5. ``alpha`` is the smaller of the paper's values for wrong labels (8 and 32; 1
    for clean labels).

    Trusted rows are mixed like all others. Rows without a label take no part in training. ``fit``
    takes ``sample_weight``; each part of a mixture keeps its own weight. Cost: as cross-entropy,
    plus the pass above; ``n_classes`` floats per sample.

    References
    ----------
    .. [1] Zhang, Cisse, Dauphin and Lopez-Paz. mixup: Beyond Empirical Risk Minimization. ICLR,
       2018. arXiv:1710.09412

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from noisyfit import MixUpClassifier, noise
    >>> X, y = load_digits(return_X_y=True)
    >>> noisy = noise.symmetric(y, 0.4, random_state=0)
    >>> clf = MixUpClassifier(max_epochs=20, random_state=0).fit(X, noisy.labels)
    >>> bool((clf.corrected_labels_ == y).mean() > 0.9)
    True
    """

    _weighs_rows: ClassVar = True
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "mixup_alpha": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self, module: Any = None, *, mixup_alpha: float = 8.0, **kwargs: Unpack[SharedParameters]
    ) -> None:
        super().__init__(module, **kwargs)
        self.mixup_alpha = mixup_alpha

    def _fit(self, data: TrainingData) -> None:
        for _ in self._epochs():
            for idx, x, _ in data.batches("weak", labelled=True):
                targets = data.weighed(data.distributions(idx), idx)
                mixed_x, mixed_targets = mixup(x, targets, alpha=self.mixup_alpha)
                self._descend(cross_entropy(self.module_(mixed_x), mixed_targets).mean())
            self.state_.probs_sum += self._predict_probs(self.module_, data, "weak")

    def _beliefs(self, data: TrainingData) -> tuple[Tensor, Tensor]:
        """Return means over epochs: the given label's probability; all classes', sharpened."""
        rating, distribution = super()._beliefs(data)
        return rating, sharpen(distribution, TEMPERATURE)
