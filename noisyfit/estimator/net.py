"""skorch's net: what works for every method, and what is refused in favour of something else."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from skorch.callbacks import BatchScoring, EpochTimer, InputShapeSetter, PrintLog
from torch import Tensor, nn

from noisyfit.estimator.bases import NeuralNet
from noisyfit.nn.build import parameter_names
from noisyfit.nn.input_layer import Standardized
from noisyfit.nn.parallel import is_first
from noisyfit.utils.synonyms import NAMES, REMEDIES, did_you_mean, remedy

LOADING = "Call save(path), and load(path), which brings the networks without their optimizers."
PREDICTING = "Call forward(X), infer(X) or predict_proba(X)."
READING = "Pass X and y to fit."
TRAINING = "Write the loop in _fit(data) of a subclass of NoisyLabelClassifier."
PARAMETERS = "Pass parameters to the constructor or to set_params; fit reads them."
NETWORK = "Pass module: a class, a function that returns a network, or an instance."
IGNORED = (  # attributes of skorch's, with their defaults
    "compile", "criterion", "dataset", "iterator_train", "iterator_valid", "predict_nonlinearity",
    "train_split", "warm_start",
)  # fmt: skip
NOT_OFFERED = {  # functions of skorch's, and what to use instead
    "check_data": READING, "check_training_readiness": READING, "evaluation_step": PREDICTING,
    "fit_loop": READING, "get_dataset": READING, "get_iterator": READING,
    "get_loss": TRAINING, "get_split_datasets": READING, "get_train_step_accumulator": TRAINING,
    "initialize_criterion": TRAINING, "initialize_virtual_params": PARAMETERS,
    "initialized_instance": NETWORK, "run_single_epoch": TRAINING, "torch_compile": NETWORK,
    "train_step": TRAINING, "train_step_single": TRAINING, "trim_for_prediction": LOADING,
    "validation_step": TRAINING,
}  # fmt: skip
NOT_INHERITED = {  # subclasses may have them: scikit-learn adds set_fit_request
    "partial_fit": "Call fit.", "set_fit_request": "Call it on a method.",
    "set_partial_fit_request": "Call set_fit_request.",
}  # fmt: skip
NOT_CALLED = dict.fromkeys(("forward", "forward_iter", "infer"), TRAINING)  # by no loop
PRIVATE = (  # names of skorch's that are called or overridden here
    "_criteria", "_current_init_context", "_default_callbacks", "_get_param_names",
    "_initialize_callbacks", "_initialize_history", "_modules", "_optimizers", "_set_training",
    "_uniquely_named_callbacks",
)  # fmt: skip


class NotOffered:
    """Replaces a function of skorch's that makes no sense here; hasattr does not find it."""

    def __init__(self, name: str, remedy: str) -> None:
        self.name, self.remedy = name, remedy

    def __get__(self, instance: Any, owner: type[Any]) -> Any:
        raise AttributeError(
            f"{owner.__name__} has no {self.name} of skorch's: its loop is its own. {self.remedy}"
        )


class Net(NeuralNet):
    """Parameters, callbacks, predictions and pickles as in skorch."""

    # skorch's constructor writes fitted attributes, which scikit-learn forbids. It is never called;
    # the constants that it would set are here instead.
    history_: Any = None
    initialized_ = False
    virtual_params_: Mapping[str, Any] = MappingProxyType({})
    criterion = nn.CrossEntropyLoss
    dataset = None
    train_split = None
    iterator_train = iterator_valid = None
    predict_nonlinearity = None
    warm_start = False
    compile = False
    use_caching = False
    torch_load_kwargs = None

    _networks: ClassVar[tuple[str, ...]] = ("module",)
    _copies: ClassVar[tuple[str, ...]] = ()  # networks that follow others and are not trained

    module_: Any
    device: Any
    device_: torch.device
    predict_logits: Any
    _read: Any

    def __setattr__(self, name: str, value: Any) -> None:
        if name.endswith("_"):
            super().__setattr__(name, value)
        else:  # a parameter; skorch would refuse an nn.Module instance
            object.__setattr__(self, name, value)

    def __dir__(self) -> list[str]:
        """List our own, scikit-learn's and fitted attributes, but not skorch's others."""
        bases = [base for base in type(self).__mro__ if base is not NeuralNet]
        ours = {name for base in bases for name in vars(base)}
        fitted = vars(self).keys() - vars(NeuralNet).keys()
        idle = inspect.signature(NeuralNet).parameters.keys() - self._signature_names()
        shown = (ours | fitted) - idle - {"criterion_", "virtual_params_"}
        return [name for name in super().__dir__() if name in shown]

    # ----------------------------------------------------------------------------- parameters

    @classmethod
    def _signature_names(cls) -> set[str]:
        """Return the parameters of the constructors of this class and its bases."""
        own = cls.__mro__[: cls.__mro__.index(NeuralNet)]
        constructors = [vars(c)["__init__"] for c in own if "__init__" in vars(c)]
        parameters = [p for c in constructors for p in inspect.signature(c).parameters.values()]
        return {p.name for p in parameters if p.kind is not p.VAR_KEYWORD} - {"self"}

    def _check_prefixes(self) -> None:
        """Refuse parameters that nothing reads."""
        routed = ["callbacks", *self._networks, *map(optimizer_of, self._networks)]
        known = self._signature_names()
        for key in vars(self):
            prefix, dunder, _ = key.partition("__")
            if dunder and prefix and not key.startswith("_") and prefix not in routed:
                raise ValueError(
                    f"Invalid parameter {key!r} for {type(self).__name__}: its prefixes are "
                    f"{[f'{p}__' for p in routed]}." + remedy(prefix, known | {*routed})
                )
            if not dunder and key in self._get_param_names() and key not in known:
                raise ValueError(
                    f"Invalid parameter {key!r} for {type(self).__name__}.{self._remedy(key)}"
                )

    def _remedy(self, name: str) -> str:
        """Return what to do instead of passing ``name``."""
        if name.lower() not in NAMES | REMEDIES:
            for prefix, takes in ("module", self.module), ("optimizer", self.optimizer):
                if name.startswith(f"{prefix}_"):
                    rest = name.removeprefix(f"{prefix}_")
                    return did_you_mean(rest, parameter_names(takes), f"{prefix}__")
        return remedy(name, self._signature_names())

    # ---------------------------------------------------------------------------- predictions

    def forward(self, X: Any, *, device: str | torch.device = "cpu") -> Tensor:
        """Return the logits of ``module_``, shape (n_samples, n_classes), as in prediction."""
        return torch.as_tensor(self.predict_logits(X), device=device)

    def forward_iter(self, X: Any, *, device: str | torch.device = "cpu") -> Iterator[Tensor]:
        """Yield the logits of ``module_``, ``batch_size`` rows at a time."""
        yield from self.forward(X, device=device).split(self.batch_size)

    def infer(self, X: Any) -> Tensor:
        """Return the logits of ``module_`` in its current mode, with gradients."""
        network = self.module_  # raises NotFittedError before fit
        return torch.cat([network(x) for x in self._read(X, reset=False).in_order()])

    # ------------------------------------------------------------------------------ callbacks

    def get_default_callbacks(self) -> list[tuple[str, Any]]:
        """Return the timer and the table of epochs; the loop records the losses."""
        return self._default_callbacks

    @property
    def _default_callbacks(self) -> list[tuple[str, Any]]:
        table = PrintLog(sink=print if is_first() else _in_silence)
        return [("epoch_timer", EpochTimer()), ("print_log", table)]

    @property
    def _user_callbacks(self) -> list[tuple[str, Any]]:
        own = dict(self._default_callbacks)
        return [(name, callback) for name, callback in self.callbacks_ if name not in own]

    def _restores_an_epoch(self) -> bool:
        """Whether a callback will restore the weights of the best epoch in ``module_``."""
        return any(getattr(callback, "load_best", False) for _, callback in self._user_callbacks)

    def _check_callbacks(self) -> None:
        for entry in self.callbacks or []:
            callback = entry[1] if isinstance(entry, tuple) else entry
            kind = callback if isinstance(callback, type) else type(callback)
            if issubclass(kind, BatchScoring | InputShapeSetter):
                raise ValueError(
                    f"Callbacks must work without per-batch predictions and module parameters set "
                    f"during training. Got {kind.__name__}. Use EpochScoring for scores; shapes "
                    "are filled in at fit."
                )

    def _check_callback_names(self) -> None:
        """Refuse parameters of callbacks that do not exist: skorch would ignore them."""
        named = {} if self.callbacks == "disable" else dict(self._uniquely_named_callbacks())
        for key in vars(self):
            prefix, _, rest = key.partition("__")
            name = rest.partition("__")[0]
            if prefix == "callbacks" and rest and name not in named:
                raise ValueError(
                    f"{key} must name one of the callbacks, which are {list(named)}. Got "
                    f"{name!r}. Add it: callbacks=[({name!r}, ...)]."
                )

    # -------------------------------------------------------------------------------- pickles

    @contextmanager
    def _resolved_device(self) -> Iterator[None]:
        """Let skorch see ``device_`` where it reads ``device``."""
        requested = self.device
        object.__setattr__(self, "device", str(self.device_))
        try:
            yield
        finally:
            object.__setattr__(self, "device", requested)

    @contextmanager
    def _bare_networks(self) -> Iterator[None]:
        """Let skorch see the user's networks, without the layer that standardises."""
        names = [f"{name}_" for name in (*self._networks, *self._copies)]
        attributes = self.__dict__
        wrapped = {
            n: v for n, v in attributes.items() if n in names and isinstance(v, Standardized)
        }
        attributes.update({name: network.network for name, network in wrapped.items()})
        try:
            yield
        finally:
            attributes.update(wrapped)

    def save_params(self, *args: Any, **kwargs: Any) -> None:
        """Save parameters as skorch does, so that the user's own network can load them."""
        with self._bare_networks():
            super().save_params(*args, **kwargs)

    def load_params(self, *args: Any, **kwargs: Any) -> None:
        """Load parameters as skorch does, onto the device of the fit; the scale of X stays."""
        with self._resolved_device(), self._bare_networks():
            super().load_params(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in super().__getstate__().items() if k != "_run"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        requested = state["device"]
        fitted_on = state.get("device_", torch.device("cpu"))
        super().__setstate__(state | {"device": str(fitted_on)})
        if "device_" in state:  # skorch has mapped the tensors to a device that exists
            self.device_ = torch.device(self.device)
        self.device = requested


for _name, _remedy in (NOT_OFFERED | NOT_INHERITED).items():
    setattr(Net, _name, NotOffered(_name, _remedy))


def optimizer_of(network: str) -> str:
    """Return the name of a network's optimizer in parameters and attributes."""
    return "optimizer" if network == "module" else f"{network}_optimizer"


def _in_silence(*_: Any) -> None:
    """Print nothing: the first process does."""
