"""The one place where scikit-learn's contract, skorch's engine and torch meet."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, Self, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from noisyfit import __version__, quality
from noisyfit.data.rows import unwrapped
from noisyfit.data.training import TrainingData, scaled_weights
from noisyfit.estimator.annotators import AGGREGATIONS, Annotators
from noisyfit.estimator.bases import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from noisyfit.estimator.checkpoint import Checkpoint
from noisyfit.estimator.documentation import complete_documentation, hide_kwargs
from noisyfit.estimator.engine import Engine
from noisyfit.estimator.fitted import all_or_nothing
from noisyfit.estimator.format import FITTED, is_lazy
from noisyfit.estimator.identity import architecture, code_of, fingerprint, fold
from noisyfit.estimator.keywords import RoutedParameters
from noisyfit.estimator.persistence.savable import Savable
from noisyfit.estimator.reading import Reader
from noisyfit.estimator.run import Run, scored_by_callbacks
from noisyfit.exceptions import NoisyFitError, warn
from noisyfit.nn import features
from noisyfit.nn.beliefs import given_probability
from noisyfit.nn.parallel import all_processes, check_same, from_first, is_first
from noisyfit.utils.devices import resolve_device, resolve_precision
from noisyfit.utils.parameters import Interval, StrOptions
from noisyfit.utils.torch_state import seeded_generators, torch_defaults
from noisyfit.utils.validation import (
    check_sample_weight,
)

DEFAULT_EPOCHS = {"table": 60, "image": 30}
COSMETIC = ("verbose", "checkpoint_dir", "checkpoint_every", "num_workers")  # change no result
OF_SKORCH = ("_modules", "_criteria", "_optimizers")  # lists of what a fit has created
WARMUP_PART = 6  # by default the warm-up is one sixth of the epochs


class NoisyLabelClassifier(
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    Reader,
    Annotators,
    Engine,
    Savable,
    BaseEstimator,
):
    """Base class of all estimators: what every method accepts, returns and guarantees.

    A method is a subclass that defines ``_fit(data)``, its training loop, and ``_beliefs(data)``,
    what it has come to believe about the given labels. Everything else is here: scikit-learn's
    contract, networks and optimizers following skorch's conventions, and one protocol for labels.

    Parameters
    ----------
    module : None, str, module class, factory or instance, default=None
        The network. None means an MLP for tables, a small CNN for images up to 64 pixels and a
        ResNet-18 for larger ones. Names are ``"mlp"``, ``"cnn"``, ``"preact_resnet18"``,
        ``"preact_resnet34"``, ``"wrn_28_2"``, ``"wrn_28_10"``, ``"efficientnet_lite0"``,
        ``"efficientnet_lite1"``, ``"efficientnet_lite2"`` and those of torchvision, such as
        ``"resnet50"``, with ``module__weights`` and ``module__frozen`` for pretrained weights. A
        class, or a function that returns a network, is called with ``module__*`` and, if its
        signature has them, with ``n_features`` or ``in_channels`` and with ``n_classes``. An
        instance is copied, never trained in place.
    optimizer : torch optimizer class, default=torch.optim.SGD
        SGD gets momentum 0.9 and weight decay 5e-4 unless ``optimizer__*`` says otherwise.
    lr : float > 0, default=0.05
        Learning rate per mean-reduced batch at the start of the schedule.
    lr_schedule : {"cosine", "cyclic", "constant"}, default="cosine"
        ``"cosine"`` decays to zero over all epochs; ``"cyclic"`` does so again and again, over
        about twenty epochs each time. A skorch ``LRScheduler`` callback takes precedence.
    max_epochs : int or None, default=None
        None means 60 for tables and 30 for images.
    batch_size : int >= 2, default=128
    augmentation : "auto", None or callable, default="auto"
        How weak views are made. ``"auto"`` is jitter and feature masking for tables, crops and
        flips for images. A callable maps a batch of rows, in the units of X, to a changed copy.
    jitter : float >= 0, default=0.3
        Standard deviation of the noise added to tables, in standard deviations of each feature.
    masking : float in [0, 1), default=0.2
        Fraction of the entries of a table that are replaced by the mean of their feature.
    flip : bool, default=True
        Whether images may be mirrored left to right.
    image_layout : {"auto", "HW", "HWC", "CHW"}, default="auto"
        Order of the axes of one image.
    value_range : (float, float) or None, default=None
        Values of black and white in images. None means 0 to 255 for uint8. Other dtypes are taken
        to be on 0 to 1 or 0 to 255, with an overshoot of up to a quarter, or else to range from
        their smallest to their largest value.
    validation_fraction : float in (0, 1) or None, default=None
        Fraction of the rows held out to record ``valid_loss`` and ``valid_acc`` on their given
        labels.
    missing_label : scalar or None, default=None
        Value that marks rows without a label, such as -1. NaN, NaT and pandas' NA each stand for
        all of None, NaN, NaT and NA. None means that every row has a label.
    soft_labels : bool, default=False
        Whether y holds probabilities of the classes, (n_samples, n_classes). The given label is
        then the most probable class.
    classes : array-like of shape (n_classes,) or None, default=None
        With ``soft_labels``, the classes that the columns of y stand for. None means the names of
        the columns of a data frame, otherwise 0 to n_classes - 1.
    annotator_aggregation : {"majority", "dawid_skene", "glad", "mace"}, default="majority"
        What the votes of several people stand for until networks have beliefs: the share of each
        class among the votes on a row, or what a method of crowd-kit makes of all votes.
    correction_margin : float in [0, 1], default=0.0
        ``corrected_labels_`` keeps the given label if its probability is within this margin of
        the highest.
    callbacks : list of skorch callbacks or None, default=None
    checkpoint_dir : path or None, default=None
        Folder of checkpoints. A killed fit that is called again with the same arguments resumes
        where it stopped and ends with the same result.
    checkpoint_every : int >= 1, default=1
        Epochs between checkpoints.
    device : str or torch.device, default="auto"
        ``"auto"`` is a CUDA GPU if there is one, else the CPU. ``fit`` stores its choice in
        ``device_``.
    num_workers : int >= 0, default=0
        Processes that read the rows of a torch Dataset while the network learns, as in torch's
        DataLoader. Arrays need none.
    precision : {"auto", "fp32", "bf16"}, default="auto"
        Precision of the forward passes during training; prediction is always in float32. A warning
        says if the CPU has no instructions for ``"bf16"``, which then takes several times as long.
    deterministic : bool, default=False
        Use only deterministic CUDA kernels.
    random_state : int, RandomState instance or None, default=None
    verbose : int, default=0
        1 prints a line for each epoch.
    **kwargs
        ``module__*``, ``optimizer__*`` and ``callbacks__*`` as in skorch. Type checkers know only
        those of named networks and of torch's optimizers; set others with ``set_params``.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    label_quality_ : ndarray of shape (n_samples,)
        In [0, 1]; low means suspicious. 1 for trusted rows, NaN for rows without a label.
    label_distribution_ : ndarray of shape (n_samples, n_classes)
        Probabilities of the true class of each training row.
    corrected_labels_ : ndarray of shape (n_samples,)
    transition_matrix_ : ndarray of shape (n_classes, n_classes)
        Probability of the observed class (column) given the true class (row).
    given_labels_ : ndarray of shape (n_samples,)
        Of votes, what they stand for: see ``consensus_``.
    consensus_ : ndarray of shape (n_samples,)
        Only if y holds votes: the classes that are most probable given the votes and the
        predictions of networks that have not seen the rows.
    annotators_ : ndarray of shape (n_annotators,)
        Only if y holds votes: the names or numbers of its columns.
    votes_ : ndarray of shape (n_samples, n_annotators)
        Only if y holds votes: their positions in ``classes_``, -1 where there is none.
    annotator_quality_ : ndarray of shape (n_annotators,)
        Only if y holds votes: the share of right votes of each annotator; NaN without a vote.
    annotator_confusion_ : ndarray of shape (n_annotators, n_classes, n_classes)
        Only if y holds votes: the probability of each vote (column) given the true class (row).
    module_ : torch.nn.Module
        The network that predicts, preceded by a layer that standardises its input.
    history_ : skorch.history.History
    device_ : torch.device
    n_iter_ : int
        Epochs trained.
    """

    __metadata_request__fit: ClassVar = {
        "clean_mask": True, "X_meta": True, "y_meta": True, "X_val": True, "y_val": True
    }  # fmt: skip
    get_metadata_routing = BaseEstimator.get_metadata_routing
    __repr__ = BaseEstimator.__repr__  # skorch's shows only the module

    _uses_meta: ClassVar[bool] = False
    _needed: ClassVar[tuple[str, ...]] = (*FITTED, "classes_", "n_classes_")  # to predict
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
        "soft_labels": ["boolean"],
        "classes": ["array-like", None],
        "annotator_aggregation": [StrOptions({"majority", *AGGREGATIONS})],
        "correction_margin": [Interval(Real, 0, 1, closed="both")],
        "callbacks": [list, StrOptions({"disable"}), None],
        "checkpoint_dir": [str, os.PathLike, None],
        "checkpoint_every": [Interval(Integral, 1, None, closed="left")],
        "num_workers": [Interval(Integral, 0, None, closed="left")],
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
        soft_labels: bool = False,
        classes: Any = None,
        annotator_aggregation: str = "majority",
        correction_margin: float = 0.0,
        callbacks: list[Any] | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        checkpoint_every: int = 1,
        device: str | torch.device = "auto",
        num_workers: int = 0,
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
        self.soft_labels = soft_labels
        self.classes = classes
        self.annotator_aggregation = annotator_aggregation
        self.correction_margin = correction_margin
        self.callbacks = callbacks
        self.checkpoint_dir = checkpoint_dir
        self.checkpoint_every = checkpoint_every
        self.device = device
        self.num_workers = num_workers
        self.precision = precision
        self.deterministic = deterministic
        self.random_state = random_state
        self.verbose = verbose
        for name, value in kwargs.items():  # checked at fit
            setattr(self, name, value)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Add the shared parameters to the checks, the documentation and the signature."""
        super().__init_subclass__(**kwargs)
        own = vars(cls).get("_parameter_constraints", {})
        cls._parameter_constraints = super(cls, cls)._parameter_constraints | own
        complete_documentation(cls, NoisyLabelClassifier)

    def _get_param_names(self) -> list[str]:
        return sorted(k for k in vars(self) if not k.startswith("_") and not k.endswith("_"))

    def set_params(self, **params: Any) -> Self:
        """Store parameters for the next fit.

        A misspelt ``prefix__name`` is reported by ``fit``, which knows all prefixes.
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
        """Return the parameters as they were given."""
        return BaseEstimator.get_params(self, deep=deep)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.sparse = True
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
        """Learn from labels some of which are wrong.

        Parameters
        ----------
        X : array-like, sparse matrix, memmap, Tensor or torch Dataset
            A table (n_samples, n_features) or images (n, H, W), (n, H, W, C) or (n, C, H, W),
            of any real dtype. Images and memmaps are not copied. A sparse table stays sparse; only
            batches of it become dense.
        y : array-like of shape (n_samples,) or (n_samples, n_annotators)
            Given labels of any type, or the votes of several people; ``missing_label`` where there
            is none. With ``soft_labels``, probabilities of shape (n_samples, n_classes).
        clean_mask : array-like of bool of shape (n_samples,), default=None
            True for rows whose label is known to be right.
        X_meta, y_meta : arrays, default=None
            Rows with labels known to be right, for methods with a meta set.
        X_val, y_val : arrays, default=None
            Rows on which ``valid_loss`` and ``valid_acc`` are recorded.
        **refused
            Anything else is an error that names the method.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If a parameter or the data cannot be used; the estimator is left as it was.
        NoisyFitError
            If the loss becomes infinite or the GPU runs out of memory.
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
        """Check the parameters and drop the earlier fit; restore it if this one fails.

        An interrupted fit keeps the model of the completed epochs once they have been evaluated.
        """
        with all_or_nothing(self, private=OF_SKORCH, keeps=self._has_concluded):
            self._check_parameters()
            with torch_defaults(), all_processes():
                yield

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
        everything = self._read_training_rows(X, y, clean_mask)
        weights = check_sample_weight(sample_weight, len(everything))
        check_same(partial(self._describe, everything))
        self._resolve_epochs()
        meta = self._read_meta(len(everything), X_meta, y_meta)
        given_validation = self._read_validation(X_val, y_val)
        with self._claimed(everything, weights, meta, given_validation) as checkpoint:
            stored = from_first(checkpoint.read() if checkpoint else None)
            seed = from_first(check_random_state(self.random_state).randint(2**31 - 1))
            self.seed_ = int(stored["seed"] if stored else seed)
            data, held_out = self._split(everything)
            self.n_rows_ = len(data)
            data.meta, data.weights = meta, scaled_weights(weights, data)
            validation = held_out if given_validation is None else given_validation
            stays = is_lazy(X) or issparse(X) or hasattr(X, "iloc")
            seen = X if stays else np.asarray(X)
            scored = scored_by_callbacks(seen, self.given_labels_, data, X_val, y_val)
            with self._running(Run(everything, data, validation, scored, checkpoint)):
                self._train_networks(X, y, stored)
            if checkpoint:
                checkpoint.remove()

    def _describe(self, everything: TrainingData) -> dict[str, Any]:
        """Return what must be the same on all processes, by what it is."""
        params = self._params_but(*COSMETIC, "callbacks", "device")
        return {
            "rows": (len(everything), self.row_shape_),
            "labels": fingerprint(everything.labels.cpu().numpy()),
            "parameters": fingerprint(type(self).__qualname__, params),
        }

    def _params_but(self, *names: str) -> dict[str, Any]:
        return {k: v for k, v in self.get_params(deep=False).items() if k not in names}

    def _train_networks(self, X: Any, y: Any, stored: dict[str, Any] | None) -> None:
        self.initialize()
        self._autocast(resolve_precision(self.precision, self.device_, self.row_shape_))
        try:
            self.notify("on_train_begin", X=X, y=y)
            self._check_beginning()
            if stored:
                self._restore_training_state(stored)
            if self._run.data.votes is not None:
                if not stored:
                    self._weigh_votes(self._run.data)
                self._learn_consensus(self._run.data, self._run.everything)
            self._loop(self._run.data)
        except KeyboardInterrupt:
            self._run.flush()
            self._drop_open_epoch()
            if self.history_:
                self._conclude()
            raise
        self.notify("on_train_end", X=X, y=y)
        self._conclude()

    @contextmanager
    def _running(self, run: Run) -> Iterator[None]:
        """Hold what a fit needs while it runs, and set its seed and precision."""
        self._run = run
        try:
            with self._training_conditions():
                yield
        finally:
            del self._run

    def _check_beginning(self) -> None:
        """Refuse a history loaded by a callback: it lacks the method's state."""
        if self.history_:
            raise ValueError(
                "Training must begin with an empty history. Got one of "
                f"{len(self.history_)} epochs, from a callback such as LoadInitState: what the "
                "method has learned of the rows is not in it. Pass checkpoint_dir, which keeps "
                "everything and goes on by itself."
            )

    @contextmanager
    def _training_conditions(self) -> Iterator[None]:
        """Seed the generators, and restore the user's afterwards."""
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

    def _autocast(self, dtype: torch.dtype | None) -> None:
        for name in (*self._networks, *self._copies):
            if hasattr(self, f"{name}_"):
                network: Any = self._network(name)
                network.autocast_dtype = dtype

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

    @contextmanager
    def _claimed(self, everything: TrainingData, *known: Any) -> Iterator[Checkpoint | None]:
        """Own the folder of the run defined by these rows and all else that decides its result."""
        if self.checkpoint_dir is None or not is_first():
            yield None
            return
        params, cls = self._params_but(*COSMETIC), type(self)
        method = __version__, cls.__module__, cls.__qualname__, code_of(cls)
        with seeded_generators(0):  # the weights do not matter
            network = architecture(self._make_network("module", independent=False))
        seen = map(_as_seen, (everything, *known))
        run = fingerprint(*method, params, network, self.classes_.tolist(), *seen)
        checkpoint = Checkpoint.claim(self.checkpoint_dir, cls.__name__, run)
        try:
            yield checkpoint
        finally:
            checkpoint.release()

    # ------------------------------------------------------------------------------ conclude

    def _beliefs(self, data: TrainingData) -> tuple[Tensor, Tensor]:
        """Return label quality (n,) and the distribution of the true class (n, K), a new tensor."""
        raise TypeError(f"{type(self).__name__} has no _beliefs(data)")

    def _conclude(self) -> None:
        """Write the fitted attributes from what the networks and the method believe at the end."""
        everything, data = self._run.everything, self._run.data
        self.n_iter_ = len(self.history_)
        probs = self._probabilities(everything.rows).cpu().numpy()
        if not np.isfinite(probs).all():
            raise NoisyFitError(
                f"Predictions must be finite. Got NaN after epoch {self.n_iter_}: the weights have "
                f"diverged. Try lr={self.lr / 10:g}, or precision='fp32'."
            )
        codes, trusted = everything.labels.cpu().numpy(), everything.trusted.cpu().numpy()
        self._warn_of_lost_classes(codes, probs)
        rating = quality.self_confidence(np.maximum(codes, 0), probs)
        trained = np.arange(len(codes)) if data.index is None else data.index.cpu().numpy()
        predicted = np.setdiff1d(np.arange(len(codes)), trained[codes[trained] >= 0])
        predictions = probs[predicted]
        del probs  # a table less beside those of the method
        own_quality, own_distribution = self._beliefs(data)
        distribution = own_distribution.float().cpu().numpy()
        if data.index is not None:
            distribution = np.empty((len(codes), self.n_classes_), dtype=np.float32)
            distribution[trained] = own_distribution.cpu()
        distribution[predicted] = predictions
        distribution[trusted], distribution[trusted, codes[trusted]] = 0.0, 1.0
        rating[trained] = own_quality.cpu()
        rating[codes < 0], rating[trusted] = np.nan, 1.0
        self._n_features_out = features.embedding_size(
            self.module_, torch.zeros(2, *self.row_shape_, device=self.device_)
        )
        self._write_beliefs(codes, rating, distribution, self.correction_margin)
        if everything.votes is not None:
            self._rate_annotators(everything)

    def _warn_of_lost_classes(self, codes: NDArray[np.int64], probs: NDArray[Any]) -> None:
        lost = np.setdiff1d(np.arange(self.n_classes_), probs.argmax(1))
        if len(lost):
            labels = np.bincount(codes[codes >= 0], minlength=self.n_classes_)
            classes = self.classes_.tolist()
            named = ", ".join(f"{classes[k]!r} ({labels[k]} labels)" for k in lost[:5])
            warn(
                "Every class should be predicted for some training row. Got none for "
                f"{len(lost)} of {self.n_classes_}: {named}. All their labels may be taken for "
                "wrong: a rare class looks like mistakes. Train longer (max_epochs), mark rows "
                "that are right (clean_mask), or try another method."
            )

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
        """Return the logits of ``module_``, shape (n_samples, n_classes), even for two classes.

        Their softmax is ``predict_proba`` if only one network predicts.
        """
        check_is_fitted(self)
        return self._predict(self.module_, self._read(X, reset=False)).cpu().numpy()

    @torch_defaults()
    def transform(self, X: Any) -> NDArray[np.float32]:
        """Return the embeddings, the input of the last layer, (n_samples, n_dims), in float32."""
        check_is_fitted(self)
        network = self.module_
        embed = partial(features.embeddings, network)
        return self._evaluate(embed, network, self._read(X, reset=False)).cpu().numpy()

    def score_labels(self, X: Any, y: Any) -> NDArray[np.float64]:
        """Rate the labels of new rows.

        Parameters
        ----------
        X : array-like
            Rows like those of `fit`.
        y : array-like of shape (n_samples,)
            Their given labels.

        Returns
        -------
        ndarray of shape (n_samples,)
            In [0, 1]; low means suspicious, NaN means that there is no label.
        """
        check_is_fitted(self)
        data = self._labelled(X, y, "y")
        if data.votes is not None:
            raise ValueError(
                "score_labels rates one label a row. Got votes of shape "
                f"{tuple(data.votes.shape)}. Rate one column at a time."
            )
        rating = self._rate(data).double().cpu().numpy()
        return np.where(data.has_label.cpu().numpy(), rating, np.nan)

    def _rate(self, data: TrainingData) -> Tensor:
        """Return the quality (n,) of the labels of new rows: their predicted probability."""
        return given_probability(self._probabilities(data), data.labels)


def _as_seen(known: Any) -> Any:
    """Return an argument of `fit`, with rows as the networks see them."""
    if isinstance(known, TrainingData):
        rows = known.rows.source if known.rows.is_sparse else fold(known.in_order())
        return rows, known.labels, known.trusted, known.given, known.votes
    return known


hide_kwargs(NoisyLabelClassifier)
