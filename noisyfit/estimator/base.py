"""The one place where scikit-learn's contract, skorch's engine and torch meet."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from math import ceil
from numbers import Integral, Real
from typing import Any, ClassVar, Self, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from skorch.dataset import Dataset as LabelledRows
from torch import Tensor
from torch.utils.data import Subset

from noisyfit import __version__
from noisyfit.data.rows import Rows, unwrapped
from noisyfit.data.training import TrainingData, scaled_weights
from noisyfit.data.views import Augment, CallableAugment, NoAugment
from noisyfit.estimator.bases import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from noisyfit.estimator.checkpoint import Checkpoint
from noisyfit.estimator.documentation import complete_documentation, hide_kwargs
from noisyfit.estimator.engine import Engine
from noisyfit.estimator.fitted import all_or_nothing
from noisyfit.estimator.identity import architecture, code_of, fingerprint, fold
from noisyfit.estimator.inputs import InputReader, is_lazy
from noisyfit.estimator.keywords import RoutedParameters
from noisyfit.estimator.labels import LabelProtocol
from noisyfit.estimator.persistence.savable import Savable
from noisyfit.exceptions import NoisyFitError
from noisyfit.nn import features
from noisyfit.nn.augment import ImageAugment, TableAugment
from noisyfit.utils.devices import resolve_device, resolve_precision
from noisyfit.utils.parameters import Interval, StrOptions
from noisyfit.utils.torch_state import seeded_generators, torch_defaults
from noisyfit.utils.validation import check_clean_mask, check_sample_weight

DEFAULT_EPOCHS = {"table": 60, "image": 30}
OF_SKORCH = ("_modules", "_criteria", "_optimizers")  # lists of what a fit has made
WARMUP_PART = 6  # by default the warm-up is one sixth of the epochs


class NoisyLabelClassifier(
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    ClassifierMixin,
    InputReader,
    LabelProtocol,
    Engine,
    Savable,
    BaseEstimator,
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
    lr_schedule : {"cosine", "cyclic", "constant"}, default="cosine"
        Cosine to zero over the epochs, or again and again over about twenty. A skorch
        ``LRScheduler`` callback takes its place.
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
    value_range : (float, float) or None, default=None
        Black and white of images. None takes 0 to 255 for uint8; for others 0 to 1 or 0 to 255,
        which an overshoot may leave by a quarter, or else the smallest and the largest value.
    validation_fraction : float in (0, 1) or None, default=None
        Share of the rows held out to record ``valid_loss`` and ``valid_acc`` against their given
        labels.
    missing_label : scalar or None, default=None
        Marks rows without a label, such as -1. NaN marks None, NaN, NaT and pandas' NA, and so
        does each of them but None, which says that every row has a label.
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
        ``module__*``, ``optimizer__*`` and ``callbacks__*`` as in skorch. Type checkers know those
        of the default networks and of torch's optimizers: pass them others by ``set_params``.

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
    get_metadata_routing = BaseEstimator.get_metadata_routing
    __repr__ = BaseEstimator.__repr__  # skorch's shows the module alone

    _uses_meta: ClassVar[bool] = False
    _needed: ClassVar[tuple[str, ...]] = (  # by every prediction
        "classes_", "feature_mean_", "feature_scale_", "input_shape_", "layout_", "n_classes_",
        "row_shape_", "value_range_",
    )  # fmt: skip
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "module": [str, callable, None],
        "optimizer": [callable],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "lr_schedule": [StrOptions({"cosine", "cyclic", "constant"})],
        "max_epochs": [Interval(Integral, 1, None, closed="left"), None],
        "batch_size": [Interval(Integral, 2, None, closed="left")],
        "augmentation": [StrOptions({"auto"}), callable, None],
        "jitter": [Interval(Real, 0, None, closed="left")],
        "masking": [Interval(Real, 0, 1, closed="left")],
        "flip": ["boolean"],
        "image_layout": [StrOptions({"auto", "HW", "HWC", "CHW"})],
        "value_range": [tuple, list, None],
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
        value_range: tuple[float, float] | None = None,
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
        **kwargs: Unpack[RoutedParameters],
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
        self.value_range = value_range
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
        """Add the shared parameters: their checks, documentation and place in the signature."""
        super().__init_subclass__(**kwargs)
        own = vars(cls).get("_parameter_constraints", {})
        cls._parameter_constraints = super(cls, cls)._parameter_constraints | own
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
                    f"{self._remedy(name)} Valid parameters are: {self._get_param_names()}."
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
        **refused: Any,
    ) -> Self:
        """Learn from labels of which some are wrong.

        Parameters
        ----------
        X : array-like, memmap, Tensor or torch Dataset
            A table (n_samples, n_features) or images (n, H, W), (n, H, W, C) or (n, C, H, W),
            of any real dtype. Images and memmaps are not copied.
        y : array-like of shape (n_samples,)
            Given labels of any type, ``missing_label`` where there is none.
        clean_mask : array-like of bool of shape (n_samples,), default=None
            Rows whose label is known to be right.
        X_meta, y_meta : arrays, default=None
            Rows with labels known to be right, for methods with a meta set.
        X_val, y_val : arrays, default=None
            Rows to record ``valid_loss`` and ``valid_acc`` on.
        **refused
            An error, in the name of the method.

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
        self._refuse(refused)
        with self._all_or_nothing():
            self._train(X, y, clean_mask, X_meta, y_meta, X_val, y_val)
        return self

    def _refuse(self, arguments: Iterable[str]) -> None:
        for name in arguments:
            raise TypeError(
                f"{type(self).__name__}.fit() got an unexpected keyword argument {name!r}."
                + self._remedy(name)
            )

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Check the parameters and forget the earlier fit; take it back if this one fails.

        An interrupt leaves what the epochs before it have made, if these were evaluated.
        """
        with all_or_nothing(self, private=OF_SKORCH, keeps=self._has_concluded):
            self._check_parameters()
            try:
                with torch_defaults():
                    yield
            finally:
                self._leave_checkpoint()

    def _has_concluded(self, error: BaseException) -> bool:
        return isinstance(error, KeyboardInterrupt) and "transition_matrix_" in vars(self)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        self._check_prefixes()

    def _train(
        self,
        X: Any,
        y: Any,
        clean_mask: Any,
        X_meta: Any,
        y_meta: Any,
        X_val: Any,
        y_val: Any,
        sample_weight: Any = None,
    ) -> None:
        self.device_ = resolve_device(self.device)
        X, X_val = unwrapped(X), unwrapped(X_val)
        rows = self._read(X, reset=True)
        codes = self._read_labels(X, y, len(rows))
        trusted = check_clean_mask(clean_mask, codes)
        weights = check_sample_weight(sample_weight, len(rows))
        self._resolve_epochs()
        meta = self._read_meta(len(rows), X_meta, y_meta)
        given_validation = self._read_validation(X_val, y_val)
        checkpoint = self._find_checkpoint(rows, codes, trusted, weights, meta, given_validation)
        stored = checkpoint.read() if checkpoint else None
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        self.seed_ = int(stored["seed"] if stored else seed)
        data, held_out = self._split(rows, codes, trusted)
        validation = held_out if given_validation is None else given_validation
        self.n_rows_ = len(data)
        data.meta = meta
        data.weights = scaled_weights(weights, data)
        self._datasets = self._callback_datasets(X, data, X_val, y_val)
        with self._training_conditions():
            self.initialize()
            self._autocast(resolve_precision(self.precision, self.device_, self.row_shape_))
            try:
                self.notify("on_train_begin", X=X, y=y)
                self._check_beginning()
                if stored:
                    self._restore_training_state(stored)
                self._run(data, validation)
            except KeyboardInterrupt:
                if checkpoint:
                    checkpoint.flush()
                self._drop_open_epoch()
                if self.history_:
                    self._conclude(rows, codes, trusted, data)
                raise
            self.notify("on_train_end", X=X, y=y)
            self._conclude(rows, codes, trusted, data)
        if checkpoint:
            checkpoint.remove()

    def _check_beginning(self) -> None:
        """Refuse a history that a callback has loaded: the method's state is not in it."""
        if self.history_:
            raise ValueError(
                "Training must begin with an empty history. Got one of "
                f"{len(self.history_)} epochs, from a callback such as LoadInitState: what the "
                "method has learned of the rows is not in it. Pass checkpoint_dir, which keeps "
                "everything and goes on by itself."
            )

    @contextmanager
    def _training_conditions(self) -> Iterator[None]:
        """Seed, with the user's generators put aside."""
        with seeded_generators(self.seed_, self.device_, deterministic=self.deterministic):
            try:
                yield
            except torch.OutOfMemoryError as error:
                raise NoisyFitError(
                    "Training must fit into the GPU's memory. Got batches of "
                    f"{self.batch_size} rows of shape {self.row_shape_}. "
                    "Lower batch_size, or choose a smaller module."
                ) from error
            finally:
                self._autocast(None)
                self.__dict__.pop("_datasets", None)

    def _autocast(self, dtype: torch.dtype | None) -> None:
        for name in (*self._networks, *self._copies):
            if hasattr(self, f"{name}_"):
                getattr(self, f"{name}_").autocast_dtype = dtype

    def _resolve_epochs(self) -> None:
        kind = "table" if self.layout_ == "table" else "image"
        self.max_epochs_ = self.max_epochs or DEFAULT_EPOCHS[kind]
        if not hasattr(self, "warmup_epochs"):
            return
        self.warmup_epochs_ = self.warmup_epochs
        if self.warmup_epochs is None:
            self.warmup_epochs_ = max(1, round(self.max_epochs_ / WARMUP_PART))
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
        n_held_out = ceil(self.validation_fraction * len(codes))
        n_kept = len(codes) - n_held_out
        if n_kept < 2:
            raise ValueError(
                f"validation_fraction must leave two rows to learn from. Got "
                f"{self.validation_fraction} of {len(codes)} rows. Lower it, or pass X_val and "
                "y_val to fit."
            )
        stratified = counts.min() > 1 and min(n_held_out, n_kept) >= len(counts)
        train, held_out = train_test_split(
            np.arange(len(codes)),
            test_size=self.validation_fraction,
            stratify=codes if stratified else None,
            random_state=self.seed_,
        )
        return (
            self._training_data(rows, codes, trusted, np.sort(train)),
            self._training_data(rows, codes, trusted, np.sort(held_out)),
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
        X = X if is_lazy(X) or hasattr(X, "iloc") else np.asarray(X)
        everything = LabelledRows(X, self.given_labels_)
        if X_val is not None:
            return {"dataset_train": everything, "dataset_valid": LabelledRows(X_val, y_val)}
        if data.index is None:
            return {"dataset_train": everything, "dataset_valid": None}
        kept = np.isin(np.arange(len(everything)), data.index.cpu().numpy())
        return {
            "dataset_train": Subset(everything, np.flatnonzero(kept).tolist()),
            "dataset_valid": Subset(everything, np.flatnonzero(~kept).tolist()),
        }

    def _find_checkpoint(self, rows: Rows, *known: Any) -> Checkpoint | None:
        """Own the folder of the run of these rows, and of all else that decides its result."""
        self._checkpoint = None
        if self.checkpoint_dir is None:
            return None
        cosmetic = ("verbose", "checkpoint_dir", "checkpoint_every")
        params = {k: v for k, v in self.get_params(deep=False).items() if k not in cosmetic}
        cls = type(self)
        method = __version__, cls.__module__, cls.__qualname__, code_of(cls)
        with seeded_generators(0):  # the weights do not matter
            network = architecture(self._make_network("module", independent=False))
        seen = self.classes_.tolist(), fold(rows.in_order()), *map(_as_seen, known)
        run = fingerprint(*method, params, network, *seen)
        self._checkpoint = Checkpoint.claim(self.checkpoint_dir, cls.__name__, run)
        return self._checkpoint

    def _leave_checkpoint(self) -> None:
        checkpoint = self.__dict__.pop("_checkpoint", None)
        if checkpoint:
            checkpoint.release()

    # ------------------------------------------------------------------------------- predict

    @torch_defaults()
    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Return the probabilities of the classes, shape (n_samples, n_classes)."""
        check_is_fitted(self)
        return self._probabilities(self._read(X, reset=False)).cpu().numpy()

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of each row, shape (n_samples,)."""
        probs = self.predict_proba(X)
        return self.classes_[probs.argmax(1)]

    @torch_defaults()
    def predict_logits(self, X: Any) -> NDArray[np.float32]:
        """Return the logits of ``module_``, shape (n_samples, n_classes), for two classes as well.

        Their softmax is ``predict_proba`` where one network predicts.
        """
        check_is_fitted(self)
        return self._predict(self.module_, self._read(X, reset=False)).cpu().numpy()

    @torch_defaults()
    def transform(self, X: Any) -> NDArray[np.float32]:
        """Return the embeddings, what the last layer sees, shape (n_samples, n_dims), float32."""
        check_is_fitted(self)
        network = self.module_
        embed = partial(features.embeddings, network)
        return self._evaluate(embed, network, self._read(X, reset=False)).cpu().numpy()


def _as_seen(known: Any) -> Any:
    """Return what a run is told, rows as the networks see them."""
    if isinstance(known, TrainingData):
        return fold(known.in_order()), known.labels
    return known


hide_kwargs(NoisyLabelClassifier)
