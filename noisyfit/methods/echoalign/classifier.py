"""EchoAlign: take labels as right, and change the rows that do not fit them."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted, has_fit_parameter

from noisyfit.data.rows import unwrapped
from noisyfit.estimator.annotators import OF_VOTES
from noisyfit.estimator.bases import BaseEstimator
from noisyfit.estimator.delegation import DelegatingClassifier, seeded
from noisyfit.estimator.fitted import all_or_nothing
from noisyfit.estimator.given import has_columns
from noisyfit.estimator.labels import LabelProtocol, as_labels
from noisyfit.estimator.persistence.savable import Savable
from noisyfit.exceptions import warn
from noisyfit.methods.cross_entropy import CrossEntropyClassifier
from noisyfit.methods.echoalign.transformers import EchoSelect
from noisyfit.utils.parameters import NOT_NEGATIVE, Interval, StrOptions
from noisyfit.utils.validation import (
    check_clean_mask,
    check_several_classes,
    present_labels,
    take_rows,
)

FINE_TUNING_RATE = 0.01  # of the learning rate: what two steps by ten have left of it


class EchoAlignClassifier(LabelProtocol, DelegatingClassifier, Savable, BaseEstimator):
    """Learn from rows that were changed to fit their labels.

    Labels are not corrected but taken as right: a generator modifies each row until it fits its
    label ("EchoMod"). A row that stays similar had a right label and is kept unchanged; of the
    others the modified rows are learned from ("EchoSelect"), and the originals, under the label
    that is believed. Any classifier then learns from the refined rows.

    Step by step (Algorithm 1 of [1]_): 1. modify all rows; 2. compute the similarity between the
    features of original and modified rows (Eq. 1); 3. keep originals whose similarity is at least
    the threshold, and take modified rows elsewhere; 4. fit the classifier on the union. With the
    default generator, which knows nothing but these labels, a classifier takes the place of the
    similarity: see ``select_by`` of `EchoSelect`.

    Parameters
    ----------
    estimator : classifier or None, default=None
        Any classifier of this package or of scikit-learn, cloned. None is
        `CrossEntropyClassifier`.
    selector : EchoSelect or None, default=None
        Holds generator, encoder, threshold and memory; cloned. None uses the defaults.
    include_modified : {"rejected", "all", "none"}, default="rejected"
        Which modified rows are learned from: ``"rejected"``, those whose original is not kept, as
        in the paper's Algorithm 1; ``"all"``, as in the released code; or ``"none"``.
    include_originals : bool, default=True
        Whether the kept originals are learned from. False with ``include_modified="all"`` is the
        paper's ablation "modification only".
    rejected_weight : float >= 0, default=0.5
        Weight of rejected originals, which are learned from under the selector's
        ``believed_labels_``. Kept originals have 1. 0 leaves them out, as in the paper.
    modified_weight : float >= 0 or "balanced", default=0.1
        Weight of modified rows; 1 in the paper. ``"balanced"`` gives them the weight of the
        originals in total, as the released code does. A classifier whose ``fit`` takes no
        ``sample_weight`` leaves out rows with a weight below 1/2 and counts the others once, after
        a warning; it cannot balance.
    finetune_epochs : int >= 0, default=0
        Epochs of fine-tuning on the kept originals alone, at a hundredth of the learning rate; 40
        in the released code. Only for classifiers with ``fine_tune``, such as
        `CrossEntropyClassifier`.
    missing_label : scalar or None, default=None
        Marks rows without a label, for example -1 or "". NaN marks None, NaN, NaT and pandas' NA.
        Such rows are predicted, but neither modified nor learned from.
    random_state : int, RandomState instance or None, default=None
        Passed to the classifier and the selector if they have none of their own.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    estimator_ : classifier
    selector_ : EchoSelect
        The fitted selector, with ``similarities_``, ``threshold_`` and ``modified_`` of the rows
        with a label.
    support_ : ndarray of bool of shape (n_samples,)
        Rows whose originals were kept.
    label_quality_ : ndarray of shape (n_samples,)
        The quality from ``selector_``; 1 for trusted rows, NaN without a label. Low means
        suspicious.
    label_distribution_ : ndarray of shape (n_samples, n_classes)
        The classifier's prediction for the original row; if the row is kept, mixed with the given
        label, weighted by its quality.
    corrected_labels_ : ndarray of shape (n_samples,)
    transition_matrix_ : ndarray of shape (n_classes, n_classes)
    given_labels_ : ndarray of shape (n_samples,)
    consensus_, annotators_, votes_, annotator_quality_, annotator_confusion_ : ndarray
        Only if y holds votes: as in `CrossEntropyClassifier`.

    Notes
    -----
    The three rows of Table 3 in [1]_ are ``include_originals=False, include_modified="all"``,
    ``include_modified="none"`` and ``include_modified="rejected"``. Differences from the paper are
    listed on the page of this method in the documentation. Cost: co-teaching, a diffusion model
    (trained twice if the similarity decides), then as the classifier; a modified copy of each row.

    References
    ----------
    .. [1] Zheng, Han, Yin, Gao, Liu. Can We Treat Noisy Labels as Accurate? 2024. arXiv:2405.12969

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from noisyfit import EchoAlignClassifier, EchoSelect, noise
    >>> from noisyfit.nn.generators import ConditionalDiffusion
    >>> X, y = load_iris(return_X_y=True)
    >>> noisy = noise.symmetric(y, 0.3, random_state=0)
    >>> quick = EchoSelect(ConditionalDiffusion(n_train_steps=100, width=64))
    >>> clf = EchoAlignClassifier(RandomForestClassifier(), quick, random_state=0)
    >>> bool(clf.fit(X, noisy.labels).score(X, y) > 0.85)
    True
    """

    __metadata_request__fit: ClassVar = {"clean_mask": True}
    _made_of: ClassVar[Mapping[str, str]] = {"estimator_": "estimator", "selector_": "selector"}
    _needed: ClassVar[tuple[str, ...]] = ("classes_", "estimator_", "n_features_in_", "selector_")
    _module_parameter: ClassVar = "estimator__module"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "include_modified": [StrOptions({"rejected", "all", "none"})],
        "include_originals": ["boolean"],
        "rejected_weight": [NOT_NEGATIVE],
        "modified_weight": [NOT_NEGATIVE, StrOptions({"balanced"})],
        "finetune_epochs": [Interval(Integral, 0, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator: Any = None,
        selector: EchoSelect | None = None,
        *,
        include_modified: str = "rejected",
        include_originals: bool = True,
        rejected_weight: float = 0.5,
        modified_weight: float | str = 0.1,
        finetune_epochs: int = 0,
        missing_label: Any = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.selector = selector
        self.include_modified = include_modified
        self.include_originals = include_originals
        self.rejected_weight = rejected_weight
        self.modified_weight = modified_weight
        self.finetune_epochs = finetune_epochs
        self.missing_label = missing_label
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.sparse = True
        return tags

    def fit(self, X: Any, y: Any, *, clean_mask: Any = None) -> Self:
        """Refine the rows and fit the classifier.

        Parameters
        ----------
        X : array-like or sparse matrix
            A table (n_samples, n_features), or images (n, H, W), (n, H, W, C) or (n, C, H, W). A
            sparse table is made dense.
        y : array-like of shape (n_samples,) or (n_samples, n_annotators)
            Given labels of any type, or the votes of several people. Votes first become the labels
            that `CrossEntropyClassifier` finds for them.
        clean_mask : array-like of bool of shape (n_samples,), default=None
            Rows whose label is known to be right; their originals are kept.

        Raises
        ------
        ValueError
            If a parameter, the classifier or the data cannot be used, or if no row is left to learn
            from. After any interruption, including Ctrl-C, the estimator is left unchanged.
        """
        with all_or_nothing(self):
            self._align(X, y, clean_mask)
        return self

    def _align(self, X: Any, y: Any, clean_mask: Any) -> None:
        """Run the algorithm."""
        self._check_parameters()
        estimator = self._chosen_estimator()
        self._check_estimator(estimator)
        X = unwrapped(X)
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        if has_columns(y):
            y = self._consensus(X, y, clean_mask, seed)
        has_label = ~self._read_labels(X, y)
        if not has_label.all():
            check_consistent_length(X, self.given_labels_)
        labels, trusted = present_labels(self.given_labels_, ~has_label), clean_mask
        if clean_mask is not None and not has_label.all():
            trusted = check_clean_mask(clean_mask, np.where(has_label, 0, -1))[has_label]
        self.selector_ = seeded(EchoSelect() if self.selector is None else self.selector, seed)
        self.selector_.fit(_rows(X, has_label), labels, clean_mask=trusted)  # steps 1, 2, Eq. 1
        self.classes_ = self.selector_.classes_
        check_several_classes(self.classes_)
        X = self._read(X)
        rows, labels, weights = self._refined(X[has_label], labels, estimator)  # step 3
        self.estimator_ = seeded(estimator, seed).fit(rows, labels, **weights)  # step 4
        self.support_ = np.zeros(len(X), dtype=bool)
        self.support_[has_label] = self.selector_.support_
        if self.finetune_epochs:
            originals = X[self.support_], self.given_labels_[self.support_]
            rate = FINE_TUNING_RATE * self.estimator_.optimizer_.defaults["lr"]
            self.estimator_.fine_tune(*originals, epochs=self.finetune_epochs, lr=rate)
        self.n_features_in_ = self.selector_.n_features_in_
        if hasattr(self.selector_, "feature_names_in_"):
            self.feature_names_in_ = self.selector_.feature_names_in_
        self._rate_labels(X, has_label, clean_mask)

    def _consensus(self, X: Any, y: Any, clean_mask: Any, seed: int) -> NDArray[Any]:
        """Return what votes stand for, as `CrossEntropyClassifier` finds it."""
        selector = EchoSelect() if self.selector is None else self.selector
        found = CrossEntropyClassifier(
            image_layout=selector.image_layout,
            missing_label=self.missing_label,
            random_state=seed,
        )
        found.fit(X, y, clean_mask=clean_mask)
        for name in OF_VOTES:
            setattr(self, name, getattr(found, name))
        return found.consensus_

    def _read(self, X: Any) -> NDArray[Any]:
        """Return X as the selector reads it: an array, whatever ``set_output`` says."""
        return self.selector_._read_rows(X, reset=False)

    def _default_estimator(self) -> Any:
        return CrossEntropyClassifier()

    def _check_estimator(self, estimator: Any) -> None:
        """Refuse what the classifier cannot do before a generator is trained."""
        name = type(estimator).__name__
        if self.modified_weight == "balanced" and not has_fit_parameter(estimator, "sample_weight"):
            raise ValueError(
                "modified_weight='balanced' needs a classifier whose fit takes sample_weight. Got "
                f"{name}. Pass another one, such as CrossEntropyClassifier, or a number."
            )
        if self.finetune_epochs and not hasattr(estimator, "fine_tune"):
            raise ValueError(
                "finetune_epochs needs a classifier that trains one network and can go on with it. "
                f"Got {name}. Pass CrossEntropyClassifier, or finetune_epochs=0."
            )

    def _refined(
        self, X: NDArray[Any], y: NDArray[Any], estimator: Any
    ) -> tuple[NDArray[Any], NDArray[Any], dict[str, NDArray[Any]]]:
        """Return the rows to learn from, their labels and, as arguments of fit, their weights."""
        original_rows, modified_rows = self._rows_to_learn_from()
        labels = np.concatenate([self.selector_.believed_labels_[original_rows], y[modified_rows]])
        rows = np.concatenate([X[original_rows], self.selector_.modified_[modified_rows]])
        weights = self._weights(original_rows, modified_rows)
        if not has_fit_parameter(estimator, "sample_weight"):
            weights = _counted(weights, type(estimator).__name__)
        learned = weights > 0
        self._check_rows(labels[learned])
        given = {"sample_weight": weights[learned]} if (weights[learned] != 1).any() else {}
        return rows[learned], labels[learned], given

    def _rows_to_learn_from(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the numbers of the originals, kept ones first, and of the modified rows."""
        support = self.selector_.support_
        rejected = np.flatnonzero(~support)
        every, none = np.arange(len(support)), np.arange(0)
        modified = {"rejected": rejected, "all": every, "none": none}[self.include_modified]
        kept_first = np.concatenate([np.flatnonzero(support), rejected])
        return kept_first if self.include_originals else none, modified

    def _weights(
        self, original_rows: NDArray[np.intp], modified_rows: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        """Return the weights of originals and of modified rows."""
        support = self.selector_.support_
        originals = np.where(support[original_rows], 1.0, self.rejected_weight)
        each = self.modified_weight
        if each == "balanced":
            each = originals.sum() / max(len(modified_rows), 1) or 1.0
        return np.concatenate([originals, np.full(len(modified_rows), each, dtype=float)])

    def _check_rows(self, labels: NDArray[Any]) -> None:
        """Refuse labels that lack a class, and fine-tuning without originals."""
        lost = np.setdiff1d(self.classes_, labels)
        if len(lost):
            raise ValueError(
                "Every class must keep a row to learn from. Got none for "
                f"{lost[:5].tolist()}. Lower the selector's threshold, pass "
                "threshold=('quantile', 0.4), or include_modified='rejected' with a "
                "modified_weight above 0 (1/2 for a classifier that takes no weights)."
            )
        n_kept = self.selector_.support_.sum()
        if self.finetune_epochs and n_kept < 2:
            raise ValueError(
                f"finetune_epochs needs at least two originals that are kept. Got {n_kept}. "
                "Lower the selector's threshold, or pass finetune_epochs=0."
            )

    def _rate_labels(self, X: NDArray[Any], has_label: NDArray[np.bool_], clean_mask: Any) -> None:
        """Write what the label protocol promises."""
        codes = self._encoded(self.given_labels_)
        rating = np.full(len(X), np.nan)
        rating[has_label] = self.selector_.label_quality_
        rating[check_clean_mask(clean_mask, codes)] = 1.0
        trust = np.where(self.support_, rating, 0.0)[:, None]
        if hasattr(self.estimator_, "predict_proba"):
            predicted = self.estimator_.predict_proba(X).astype(np.float64)
        else:
            guesses = np.searchsorted(self.classes_, self.estimator_.predict(X))
            predicted = np.eye(len(self.classes_))[guesses]
        beliefs = trust * np.eye(len(self.classes_))[codes] + (1 - trust) * predicted
        self._write_beliefs(codes, rating, beliefs)

    def label_issues(self) -> Any:
        """Return a frame of the training rows: which labels are wrong, and the right ones.

        An issue is a row whose original was not kept and whose most likely class is another.

        Returns
        -------
        pandas.DataFrame
            Columns ``is_label_issue``, ``label_quality``, ``given_label``, ``predicted_label``, one
            row per row of X, with the index of X or, if it has none, of y.
        """
        frame = super().label_issues()
        differs = frame["predicted_label"].to_numpy() != self.given_labels_
        has_label = ~self._lacks_label(self.given_labels_)
        frame["is_label_issue"] = ~self.support_ & differs & has_label
        return frame

    def score_labels(self, X: Any, y: Any) -> NDArray[np.float64]:
        """Rate the labels of new rows as `EchoSelect.score_labels` does; NaN without a label."""
        check_is_fitted(self)
        y = as_labels(y)
        has_label, rating = ~self._lacks_label(y), np.full(len(y), np.nan)
        rows = _rows(unwrapped(X), has_label)
        rating[has_label] = self.selector_.score_labels(rows, present_labels(y, ~has_label))
        return rating


def _rows(X: Any, chosen: NDArray[np.bool_]) -> Any:
    """Return some rows; of all, X itself, whatever it is."""
    return X if chosen.all() else take_rows(X, chosen)


def _counted(weights: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    """Return weights for a classifier that takes none: whether a row is learned from."""
    counted = (weights >= 0.5).astype(np.float64)
    if (counted != weights).any():
        warn(
            f"Weights need a classifier whose fit takes sample_weight. Got {name}: rows with a "
            "weight below 1/2 are left out, the others count once. Pass 0 or 1 as rejected_weight "
            "and modified_weight, or another classifier, such as CrossEntropyClassifier."
        )
    return counted
