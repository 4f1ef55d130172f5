"""The one place where scikit-learn's contract, skorch's engine and torch meet."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.model_selection import train_test_split
from sklearn.utils import assert_all_finite, check_consistent_length, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions, validate_parameter_constraints
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data
from skorch.dataset import Dataset as LabelledRows
from torch import Tensor
from torch.utils.data import Dataset, Subset

from noisyfit import __version__, persistence, quality
from noisyfit.checkpoint import Checkpoint, fingerprint
from noisyfit.data import (
    Augment,
    CallableAugment,
    NoAugment,
    Rows,
    TrainingData,
    check_finite,
    check_value_range,
    dataset_labels,
    dataset_row,
    guess_value_range,
    image_layout,
    scan,
    value_range,
)
from noisyfit.documentation import complete_documentation, hide_kwargs
from noisyfit.engine import Engine, resolve_device, resolve_precision
from noisyfit.exceptions import NoisyFitError, NoisyFitWarning
from noisyfit.nn import features
from noisyfit.nn.augment import ImageAugment, TableAugment
from noisyfit.validation import check_clean_mask, did_you_mean, encode, is_missing

DEFAULT_EPOCHS = {"table": 60, "image": 30}
WARMUP_PART = 6  # by default the warm-up is one sixth of the epochs


class NoisyLabelClassifier(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClassifierMixin, Engine, BaseEstimator
):
    """Base class of all estimators: what every method takes, gives and promises.

    A method is a subclass that writes ``_fit(data)``, its loop, and ``_beliefs(data)``, what it has
    come to believe about the given labels. Everything else is here: scikit-learn's contract,
    networks and optimizers in skorch's conventions, and one protocol for labels.

    Parameters
    ----------
    module : None, str, module class, factory or instance, default=None
        The network. None takes an MLP for tables, a small CNN for images up to 64 pixels and a
        ResNet-18 above. A name is one of ``"mlp"``, ``"cnn"``, ``"preact_resnet18"``,
        ``"preact_resnet34"``, ``"resnet18"``, ``"resnet34"``, ``"resnet50"``, ``"wrn_28_2"``,
        ``"wrn_28_10"``, ``"vgg19_bn"``. A class or function that returns a network is called with
        ``module__*`` and, if its signature has them, ``n_features`` or ``in_channels`` and
        ``n_classes``. An instance is copied, never trained in place.
    optimizer : torch optimizer class, default=torch.optim.SGD
        SGD gets momentum 0.9 and weight decay 5e-4 unless ``optimizer__*`` says otherwise.
    lr : float > 0, default=0.05
        Learning rate per mean-reduced batch at the start of the schedule.
    lr_schedule : {"cosine", "constant"}, default="cosine"
        Cosine to zero over the epochs. A skorch ``LRScheduler`` callback takes its place.
    max_epochs : int or None, default=None
        None means 60 for tables and 30 for images.
    batch_size : int >= 2, default=128
    augmentation : "auto", None or callable, default="auto"
        Weak views are jitter and feature masking for tables, crop and flip for images. A callable
        maps a batch of rows, in the user's units, to a changed copy.
    jitter : float >= 0, default=0.3
        Standard deviation of the noise on tables, in standard deviations of each feature.
    masking : float in [0, 1), default=0.2
        Share of entries of tables that are replaced by the mean of their feature.
    flip : bool, default=True
        Whether images may be mirrored left to right.
    image_layout : {"auto", "HW", "HWC", "CHW"}, default="auto"
        Order of the axes of one image.
    validation_fraction : float in (0, 1) or None, default=None
        Share of the rows held out to record ``valid_loss`` and ``valid_acc`` against their given
        labels.
    missing_label : scalar or None, default=None
        Marks rows without a label, such as -1; NaN marks NaN and None.
    correction_margin : float in [0, 1], default=0.0
        ``corrected_labels_`` keeps the given label while the belief in it is within this margin of
        the strongest belief.
    callbacks : list of skorch callbacks or None, default=None
    checkpoint_dir : path or None, default=None
        Folder of checkpoints. A killed fit called again with the same arguments goes on where it
        was, and ends with the same result.
    checkpoint_every : int >= 1, default=1
        Epochs between checkpoints.
    device : str or torch.device, default="auto"
        ``"auto"`` is a CUDA GPU if there is one. Resolved at fit into ``device_``.
    precision : {"auto", "fp32", "bf16"}, default="auto"
        Of the forward passes during training; prediction is always float32.
    deterministic : bool, default=False
        Use only deterministic CUDA kernels.
    random_state : int, RandomState instance or None, default=None
    verbose : int, default=0
        1 prints a table of epochs.
    **kwargs
        ``module__*``, ``optimizer__*`` and ``callbacks__*`` as in skorch.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    label_quality_ : ndarray of shape (n_samples,)
        In [0, 1]; low means suspicious. 1 for trusted rows, NaN for rows without a label.
    label_distribution_ : ndarray of shape (n_samples, n_classes)
        Belief about the true class of each training row.
    corrected_labels_ : ndarray of shape (n_samples,)
    transition_matrix_ : ndarray of shape (n_classes, n_classes)
        Probability of the observed class (column) given the true class (row).
    given_labels_ : ndarray of shape (n_samples,)
    module_ : torch.nn.Module
        The network that predicts, behind a layer that standardises its input.
    history_ : skorch.history.History
    device_ : torch.device
    n_iter_ : int
        Epochs trained.
    """

    __metadata_request__fit: ClassVar = {
        "clean_mask": True, "X_meta": True, "y_meta": True, "X_val": True, "y_val": True
    }  # fmt: skip
    partial_fit: Any = property(doc="Not offered: hides skorch's from hasattr.")
    get_metadata_routing = BaseEstimator.get_metadata_routing

    _uses_meta: ClassVar[bool] = False
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "lr": [Interval(Real, 0, None, closed="neither")],
        "lr_schedule": [StrOptions({"cosine", "constant"})],
        "max_epochs": [Interval(Integral, 1, None, closed="left"), None],
        "batch_size": [Interval(Integral, 2, None, closed="left")],
        "augmentation": [StrOptions({"auto"}), callable, None],
        "jitter": [Interval(Real, 0, None, closed="left")],
        "masking": [Interval(Real, 0, 1, closed="left")],
        "flip": ["boolean"],
        "image_layout": [StrOptions({"auto", "HW", "HWC", "CHW"})],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither"), None],
        "correction_margin": [Interval(Real, 0, 1, closed="both")],
        "callbacks": [list, StrOptions({"disable"}), None],
        "checkpoint_dir": [str, os.PathLike, None],
        "checkpoint_every": [Interval(Integral, 1, None, closed="left")],
        "precision": [StrOptions({"auto", "fp32", "bf16"})],
        "deterministic": ["boolean"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        module: Any = None,
        *,
        optimizer: type[torch.optim.Optimizer] = torch.optim.SGD,
        lr: float = 0.05,
        lr_schedule: str = "cosine",
        max_epochs: int | None = None,
        batch_size: int = 128,
        augmentation: str | Callable[[Tensor], Tensor] | None = "auto",
        jitter: float = 0.3,
        masking: float = 0.2,
        flip: bool = True,
        image_layout: str = "auto",
        validation_fraction: float | None = None,
        missing_label: Any = None,
        correction_margin: float = 0.0,
        callbacks: list[Any] | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        checkpoint_every: int = 1,
        device: str | torch.device = "auto",
        precision: str = "auto",
        deterministic: bool = False,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
        **kwargs: Any,
    ) -> None:
        self.module = module
        self.optimizer = optimizer
        self.lr = lr
        self.lr_schedule = lr_schedule
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.augmentation = augmentation
        self.jitter = jitter
        self.masking = masking
        self.flip = flip
        self.image_layout = image_layout
        self.validation_fraction = validation_fraction
        self.missing_label = missing_label
        self.correction_margin = correction_margin
        self.callbacks = callbacks
        self.checkpoint_dir = checkpoint_dir
        self.checkpoint_every = checkpoint_every
        self.device = device
        self.precision = precision
        self.deterministic = deterministic
        self.random_state = random_state
        self.verbose = verbose
        for name, value in kwargs.items():  # checked at fit
            setattr(self, name, value)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Write the shared parameters and attributes into a method's docstring and signature."""
        super().__init_subclass__(**kwargs)
        complete_documentation(cls, NoisyLabelClassifier)

    def _get_param_names(self) -> list[str]:
        return sorted(k for k in vars(self) if not k.startswith("_") and not k.endswith("_"))

    def set_params(self, **params: Any) -> Self:
        """Store parameters for the next fit.

        A misspelt ``prefix__name`` is reported by ``fit``, when the prefix can be looked up.
        """
        for name in params:
            if "__" not in name and name not in self._signature_names():
                raise ValueError(
                    f"Invalid parameter {name!r} for estimator {type(self).__name__}."
                    + did_you_mean(name, self._signature_names())
                    + f" Valid parameters are: {self._get_param_names()}."
                )
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters as given."""
        return BaseEstimator.get_params(self, deep=deep)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return bool(self.initialized_)

    # ------------------------------------------------------------------------------- fit

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        clean_mask: Any = None,
        X_meta: Any = None,
        y_meta: Any = None,
        X_val: Any = None,
        y_val: Any = None,
    ) -> Self:
        """Learn from labels of which some are wrong.

        Parameters
        ----------
        X : array-like, memmap, Tensor or torch Dataset
            A table (n_samples, n_features) or images (n, H, W), (n, H, W, C) or (n, C, H, W),
            uint8 or float. uint8 images and memmaps are not copied.
        y : array-like of shape (n_samples,)
            Given labels of any type, ``missing_label`` where there is none.
        clean_mask : array-like of bool of shape (n_samples,), default=None
            Rows whose label is known to be right.
        X_meta, y_meta : arrays, default=None
            Rows with labels known to be right, for methods with a meta set.
        X_val, y_val : arrays, default=None
            Rows to record ``valid_loss`` and ``valid_acc`` on.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If a parameter or the data cannot be used; the estimator stays as it was.
        NoisyFitError
            If the loss becomes infinite or the GPU's memory is exhausted.
        """
        before = vars(self).copy()
        try:
            self._forget()
            validate_parameter_constraints(
                self._parameter_constraints, self.get_params(deep=False), type(self).__name__
            )
            self._check_prefixes()
            self._train(X, y, clean_mask, X_meta, y_meta, X_val, y_val)
        except Exception:
            vars(self).clear()
            vars(self).update(before)
            raise
        return self

    def _train(
        self, X: Any, y: Any, clean_mask: Any, X_meta: Any, y_meta: Any, X_val: Any, y_val: Any
    ) -> None:
        self.device_ = resolve_device(self.device)
        rows = self._read(X, reset=True)
        codes = self._read_labels(X, y, len(rows))
        trusted = check_clean_mask(clean_mask, codes)
        self._resolve_epochs()
        checkpoint = self._find_checkpoint(X, y, clean_mask, X_meta, y_meta, X_val, y_val)
        stored = checkpoint.read() if checkpoint else None
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        self.seed_ = int(stored["seed"] if stored else seed)
        data, validation = self._split(rows, codes, trusted)
        if X_val is not None:
            validation = self._labelled(X_val, y_val, "y_val")
        self.n_rows_ = len(data)
        data.meta = self._read_meta(len(rows), X_meta, y_meta)
        self._datasets = self._callback_datasets(X, data, X_val, y_val)
        self._checkpoint = checkpoint
        with self._training_conditions():
            self.initialize()
            self._autocast(resolve_precision(self.precision, self.device_, len(self.row_shape_) > 1))
            try:
                self.notify("on_train_begin", X=X, y=y)
                if stored:
                    self._restore_training_state(stored)
                self.fit_loop(data, validation)
            except KeyboardInterrupt:
                if checkpoint:
                    checkpoint.flush()
                self._conclude(rows, codes, trusted, data)
                raise
            self.notify("on_train_end", X=X, y=y)
            self._conclude(rows, codes, trusted, data)
        if checkpoint:
            checkpoint.remove()

    def _forget(self) -> None:
        """Drop what an earlier fit left."""
        for name in list(vars(self)):
            if name.endswith("_") or name in ("_modules", "_criteria", "_optimizers"):
                del vars(self)[name]

    @contextmanager
    def _training_conditions(self) -> Iterator[None]:
        """Seed inside a fork of the global RNG, so that the user's stays where it is."""
        gpu = self.device_.type == "cuda"
        was_deterministic = torch.are_deterministic_algorithms_enabled()
        with torch.random.fork_rng(devices=[self.device_] if gpu else []):
            torch.manual_seed(self.seed_)
            torch.use_deterministic_algorithms(self.deterministic or was_deterministic)
            try:
                yield
            except torch.OutOfMemoryError as error:
                raise NoisyFitError(
                    "Training must fit into the GPU's memory. Got batches of "
                    f"{self.batch_size} rows of shape {self.row_shape_}. "
                    "Lower batch_size, or choose a smaller module."
                ) from error
            finally:
                torch.use_deterministic_algorithms(was_deterministic)
                self._autocast(None)
                for name in ("_datasets", "_checkpoint"):
                    vars(self).pop(name, None)

    def _autocast(self, dtype: torch.dtype | None) -> None:
        for name in self._networks:
            if hasattr(self, f"{name}_"):
                getattr(self, f"{name}_").autocast_dtype = dtype

    def _resolve_epochs(self) -> None:
        kind = "table" if self.layout_ == "table" else "image"
        self.max_epochs_ = self.max_epochs or DEFAULT_EPOCHS[kind]
        if not hasattr(self, "warmup_epochs"):
            return
        self.warmup_epochs_ = self.warmup_epochs or max(1, round(self.max_epochs_ / WARMUP_PART))
        if self.max_epochs_ <= self.warmup_epochs_:
            raise ValueError(
                f"max_epochs must be greater than the warm-up. Got max_epochs={self.max_epochs_} "
                f"and {self.warmup_epochs_} warm-up epochs. Raise max_epochs."
            )

    def _split(
        self, rows: Rows, codes: NDArray[np.int64], trusted: NDArray[np.bool_]
    ) -> tuple[TrainingData, TrainingData | None]:
        """Hold out ``validation_fraction`` of the rows, each class in proportion if it can be."""
        if self.validation_fraction is None:
            return self._training_data(rows, codes, trusted, None), None
        counts = np.unique(codes, return_counts=True)[1]
        train, held_out = train_test_split(
            np.arange(len(codes)),
            test_size=self.validation_fraction,
            stratify=codes if counts.min() > 1 else None,
            random_state=self.seed_,
        )
        return (
            self._training_data(rows, codes, trusted, np.sort(train)),
            self._training_data(rows, codes, trusted, np.sort(held_out)),
        )

    def _training_data(
        self,
        rows: Rows,
        codes: NDArray[np.int64],
        trusted: NDArray[np.bool_],
        index: NDArray[np.int64] | None,
    ) -> TrainingData:
        chosen = slice(None) if index is None else index
        return TrainingData(
            rows,
            torch.as_tensor(codes[chosen], device=self.device_),
            torch.as_tensor(trusted[chosen], device=self.device_),
            self.n_classes_,
            self.batch_size,
            self._augment(),
            None if index is None else torch.as_tensor(index, device=self.device_),
        )

    def _augment(self) -> Augment:
        if self.augmentation is None:
            return NoAugment()
        if callable(self.augmentation):
            return CallableAugment(self.augmentation)
        if self.layout_ == "table":
            mean, scale = (
                torch.as_tensor(a, device=self.device_)
                for a in (self.feature_mean_, self.feature_scale_)
            )
            return TableAugment(mean, scale, self.jitter, self.masking)
        side = min(self.row_shape_[1:])
        padding = min(max(1, side // 8), side - 1)
        return ImageAugment(padding, flip=self.flip, value_range=self.value_range_)

    def _callback_datasets(
        self, X: Any, data: TrainingData, X_val: Any, y_val: Any
    ) -> dict[str, Any]:
        """Return the data sets that skorch's callbacks score, in the user's own terms."""
        X = X if _is_lazy(X) or hasattr(X, "iloc") else np.asarray(X)
        everything = LabelledRows(X, self.given_labels_)
        if X_val is not None:
            return {"dataset_train": everything, "dataset_valid": LabelledRows(X_val, y_val)}
        if data.index is None:
            return {"dataset_train": everything, "dataset_valid": None}
        kept = np.isin(np.arange(len(everything)), data.index.cpu().numpy())
        return {
            "dataset_train": Subset(everything, np.flatnonzero(kept)),
            "dataset_valid": Subset(everything, np.flatnonzero(~kept)),
        }

    def _find_checkpoint(self, *data: Any) -> Checkpoint | None:
        if self.checkpoint_dir is None:
            return None
        cosmetic = ("verbose", "checkpoint_dir", "checkpoint_every")
        params = {k: v for k, v in self.get_params(deep=False).items() if k not in cosmetic}
        name = type(self).__name__
        run = fingerprint(__version__, type(self).__module__, name, params, *data)
        return Checkpoint(os.path.join(self.checkpoint_dir, f"{name}-{run}"))

    # ---------------------------------------------------------------------- reading the input

    def _read(self, X: Any, *, reset: bool) -> Rows:
        """Check X against the contract (made when ``reset``) and put it on the device."""
        if not _is_lazy(X):
            X = validate_data(self, X, reset=reset, dtype=np.float32, allow_nd=True)
        elif not isinstance(X, Dataset):
            validate_data(self, X, reset=reset, skip_check_array=True)
        shape = (len(X), *dataset_row(X, 0).shape) if isinstance(X, Dataset) else tuple(X.shape)
        if shape[0] == 0:
            raise ValueError(f"X must have at least one row. Got 0 sample(s) (shape {shape}).")
        layout = image_layout(shape, self.image_layout) if reset else self.layout_
        if reset:
            self.layout_ = layout
        elif len(shape) != len(self.input_shape_) + 1:
            raise ValueError(
                f"X must have rows of shape {self.input_shape_}, as in fit. Got shape {shape}."
            )
        rows = Rows(X, layout, self.device_)
        self._check_contents(rows, shape[1:], reset=reset)
        return rows

    def _check_contents(self, rows: Rows, shape: tuple[int, ...], *, reset: bool) -> None:
        """Scan the values once: finite, and on the scale of fit."""
        if reset:
            seen = scan(rows)
            check_finite(seen.low, seen.high)
            self.input_shape_, self.row_shape_ = shape, rows.row_shape
            self.feature_mean_, self.feature_scale_ = seen.mean.numpy(), seen.std.numpy()
            self.value_range_ = guess_value_range(rows, seen.low, seen.high)
            return
        same_channels = rows.row_shape[0] == self.row_shape_[0]
        if not same_channels or (rows.layout == "table" and shape != self.input_shape_):
            raise ValueError(
                f"X must have rows of shape {self.input_shape_}, as in fit. Got {shape}."
            )
        if not rows.is_bytes:
            low, high = value_range(rows)
            check_finite(low, high)
            if rows.layout != "table":
                check_value_range(self.value_range_, low, high)

    def _read_labels(self, X: Any, y: Any, n: int) -> NDArray[np.int64]:
        """Learn ``classes_`` and return codes, -1 where there is no label."""
        if y is None and isinstance(X, Dataset):
            y = dataset_labels(X)
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y "
                "is None."
            )
        self.sample_index_ = np.asarray(X.index if hasattr(X, "iloc") else range(n))
        y = _as_column(y)
        if len(y) != n:
            raise ValueError(
                f"X and y must have as many rows. Got inconsistent numbers of samples: [{n}, {len(y)}]."
            )
        missing = is_missing(y, self.missing_label)
        present = y[~missing]
        if len(present) == 0:
            raise ValueError(f"y must have labels. Got {self.missing_label!r} in every row.")
        if present.dtype.kind == "f":
            assert_all_finite(present, input_name="y")
        check_classification_targets(present)
        self.classes_ = np.unique(present)
        self.n_classes_ = len(self.classes_)
        if self.n_classes_ < 2:
            raise ValueError(
                "y must have at least two classes. Classifier can't train when only one class is "
                f"present: {self.classes_[0]!r}."
            )
        self.given_labels_ = y
        return encode(y, self.classes_, missing)

    def _labelled(self, X: Any, y: Any, name: str) -> TrainingData:
        """Read rows with labels of the known classes: a validation set or a meta set."""
        if y is None:
            raise ValueError(f"{name} must come with its rows. Got None. Pass both.")
        rows = self._read(X, reset=False)
        y = _as_column(y)
        codes = encode(y, self.classes_, is_missing(y, self.missing_label))
        return self._training_data(rows, codes, np.zeros(len(codes), dtype=bool), None)

    def _read_meta(self, n: int, X_meta: Any, y_meta: Any) -> TrainingData | None:
        if X_meta is None:
            return None
        if not self._uses_meta:
            warnings.warn(
                f"{type(self).__name__} has no meta set and ignores X_meta. Append its rows to X "
                "and mark them in clean_mask.",
                NoisyFitWarning,
                stacklevel=4,
            )
        if len(X_meta) == n:
            warnings.warn(
                "X_meta has as many rows as X: scikit-learn's cross-validation takes such metadata "
                "for aligned with X and slices it. Drop a row of X_meta.",
                NoisyFitWarning,
                stacklevel=4,
            )
        return self._labelled(X_meta, y_meta, "y_meta")

    # ------------------------------------------------------------------------ the label protocol

    def _beliefs(self, data: TrainingData) -> tuple[Tensor, Tensor]:
        """Return label quality (n,) and the distribution of the true class (n, K) after training."""
        raise TypeError(f"{type(self).__name__} has no _beliefs(data)")

    def _conclude(
        self, rows: Rows, codes: NDArray[np.int64], trusted: NDArray[np.bool_], data: TrainingData
    ) -> None:
        """Write the fitted attributes that every method has."""
        self.n_iter_ = len(self.history_)
        own_quality, own_distribution = self._beliefs(data)
        probs = self._predict(self.module_, rows).softmax(1).cpu().numpy()
        trained = slice(None) if data.index is None else data.index.cpu().numpy()
        distribution, rating = probs.copy(), quality.self_confidence(np.maximum(codes, 0), probs)
        distribution[trained] = own_distribution.cpu().numpy()
        rating[trained] = own_quality.cpu().numpy()
        distribution[codes < 0], rating[codes < 0] = probs[codes < 0], np.nan
        distribution[trusted], rating[trusted] = np.eye(self.n_classes_)[codes[trusted]], 1.0
        self.label_distribution_, self.label_quality_ = distribution, rating
        corrected = quality.corrected_labels(codes, distribution, self.correction_margin)
        self.corrected_labels_ = self.classes_[corrected]
        labelled = codes >= 0
        self.transition_matrix_ = quality.transition_matrix(codes[labelled], distribution[labelled])
        self._n_features_out = features.embedding_size(
            self.module_, torch.zeros(2, *self.row_shape_, device=self.device_)
        )

    def label_issues(self) -> Any:
        """Return a frame of the training rows: which labels are wrong, and what they should be.

        Returns
        -------
        pandas.DataFrame
            Columns ``is_label_issue``, ``label_quality``, ``given_label``, ``predicted_label``, one
            row per row of X, under the index of X.
        """
        check_is_fitted(self)
        missing = is_missing(self.given_labels_, self.missing_label)
        codes = encode(self.given_labels_, self.classes_, missing)
        issue = quality.is_label_issue(codes, self.label_distribution_, self.label_quality_)
        predicted = self.classes_[self.label_distribution_.argmax(1)]
        return quality.label_issues_frame(
            issue, self.label_quality_, self.given_labels_, predicted, index=self.sample_index_
        )

    def score_labels(self, X: Any, y: Any) -> NDArray[np.float64]:
        """Rate the labels of new rows.

        Parameters
        ----------
        X : array-like
            Rows as in `fit`.
        y : array-like of shape (n_samples,)
            Their given labels.

        Returns
        -------
        ndarray of shape (n_samples,)
            In [0, 1], low = suspicious; NaN where there is no label.
        """
        check_is_fitted(self)
        data = self._labelled(X, y, "y")
        rating = self._rate(data).double().cpu().numpy()
        return np.where(data.has_label.cpu().numpy(), rating, np.nan)

    def _rate(self, data: TrainingData) -> Tensor:
        """Return the quality (n,) of the labels of new rows: the probability given to them."""
        probs = self._predict(self.module_, data).softmax(1)
        return probs.gather(1, data.labels.clamp(min=0)[:, None])[:, 0]

    # ------------------------------------------------------------------------------- predict

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Return the probabilities of the classes, shape (n_samples, n_classes)."""
        check_is_fitted(self)
        logits = self._predict(self.module_, self._read(X, reset=False))
        return logits.softmax(1).cpu().numpy()

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of each row, shape (n_samples,)."""
        probs = self.predict_proba(X)
        return self.classes_[probs.argmax(1)]

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Return the embeddings, what the last layer sees, shape (n_samples, n_dims), float32."""
        check_is_fitted(self)
        network = self.module_
        embed = partial(features.embeddings, network)
        return self._evaluate(embed, network, self._read(X, reset=False)).cpu().numpy()

    # ----------------------------------------------------------------------------- save and load

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything that prediction and the fitted attributes need to one file.

        The file holds arrays, numbers and weights, no code: see `load`.
        """
        check_is_fitted(self)
        persistence.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, module: Any = None, device: Any = "auto") -> Self:
        """Read what `save` wrote.

        Parameters
        ----------
        path : path
        module : module class, factory or instance
            Needed when the model was fitted with one's own network: code is never stored.
        device : str or torch.device, default="auto"
        """
        return persistence.load(cls, path, module=module, device=device)


hide_kwargs(NoisyLabelClassifier)


def _as_column(y: Any) -> NDArray[Any]:
    return column_or_1d(y.cpu().numpy() if isinstance(y, Tensor) else y, warn=True)


def _is_lazy(X: Any) -> bool:
    """Whether X must not be converted: a memmap, a tensor, images as bytes, a Dataset."""
    if isinstance(X, np.memmap | Tensor | Dataset):
        return True
    return isinstance(X, np.ndarray) and X.ndim > 2 and X.dtype.kind in "uif"
