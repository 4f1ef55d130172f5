"""skorch's engine with the loop turned inside out: the method iterates, the engine serves."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from math import cos, isfinite, pi
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skorch.callbacks import LRScheduler, ParamMapper
from skorch.history import History
from torch import Tensor, nn
from torch.nn import functional as F

from noisyfit.data.rows import Rows
from noisyfit.data.training import TrainingData
from noisyfit.estimator.net import IGNORED, NOT_CALLED, NOT_OFFERED, Net, optimizer_of
from noisyfit.estimator.param_groups import check_patterns, named_parameters, patterns_of
from noisyfit.estimator.run import Run
from noisyfit.exceptions import NoisyFitError
from noisyfit.nn.backbones.weights import without_weights
from noisyfit.nn.build import build_network
from noisyfit.nn.input_layer import Preprocessing, Standardized
from noisyfit.nn.parallel import average, average_statistics
from noisyfit.utils.devices import resolve_device
from noisyfit.utils.interrupts import noticed_interrupts
from noisyfit.utils.synonyms import remedy

SGD_DEFAULTS = {"momentum": 0.9, "weight_decay": 5e-4, "fused": True}
CYCLE = 20  # epochs between restarts of the cyclic learning rate, roughly
SMALLEST = torch.finfo(torch.float32).tiny  # keeps logarithms of probabilities finite
SMALLEST_BATCH = 32  # rows; smaller matrix products take another path and round differently


class Engine(Net):
    """Networks, optimizers, epochs, callbacks and checkpoints for the loop that a method defines.

    A method names its networks in the class attribute ``_networks``. ``module_`` predicts; any
    other name ``x`` adds a network ``x_`` with an optimizer ``x_optimizer_``, whose parameters
    are ``x__*`` and ``x_optimizer__*``.
    """

    module_: Any
    state_: Any  # an nn.Module whose buffers are the method's own
    device_: torch.device
    row_shape_: tuple[int, ...]
    n_classes_: int
    n_rows_: int
    max_epochs_: int
    device: Any
    lr_schedule: str
    checkpoint_every: int
    value_range_: tuple[float, float]
    feature_mean_: NDArray[np.float32]
    feature_scale_: NDArray[np.float32]
    seed_: int
    predict_logits: Any
    _read: Any
    _run: Run  # while fit runs

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse overrides that the loop of a method would ignore."""
        super().__init_subclass__(**kwargs)
        if cls._fit is Engine._fit or not cls._fit.__module__.startswith("noisyfit."):
            return  # a user's own loop may call anything
        for name, instead in (NOT_OFFERED | NOT_CALLED).items():
            if inspect.getattr_static(cls, name) is not inspect.getattr_static(Net, name):
                raise TypeError(
                    f"{cls.__name__} must not override {name}: {cls._fit.__qualname__} never calls "
                    f"it. {instead}"
                )
        for name in IGNORED:
            if inspect.getattr_static(cls, name) is not inspect.getattr_static(Net, name):
                raise TypeError(
                    f"{cls.__name__} must not set {name}: {cls._fit.__qualname__} never reads it."
                    + remedy(name, cls._signature_names())
                )

    # ---------------------------------------------------------------- networks and optimizers

    def initialize(self) -> Engine:
        """Create callbacks, networks, state and optimizers afresh."""
        if not hasattr(self, "row_shape_"):
            raise NoisyFitError(
                f"{type(self).__name__} makes its networks in fit, when the shape of X is known. "
                "Call fit(X, y)."
            )
        self._check_prefixes()
        self._check_callbacks()
        self._check_callback_names()
        self._initialize_callbacks()
        with self._current_init_context("module"):
            self.initialize_module()
        with self._current_init_context("criterion"):
            self.criterion_ = self.criterion()
        with self._current_init_context("optimizer"):
            self.initialize_optimizer()
        for group in self._param_groups(self._networks):
            group["first_lr"] = group["lr"]  # schedulers overwrite the initial rate
        for name, callback in self._user_callbacks:
            if isinstance(callback, ParamMapper):
                check_patterns(name, callback.patterns, [*self.get_all_learnable_params()])
        self._initialize_history()
        self.initialized_ = True
        return self

    def initialize_module(self) -> Engine:
        """Create ``module_``, the other networks and ``state_`` on the device."""
        for name in (*self._networks, *self._copies):
            setattr(self, f"{name}_", self._make_network(name, independent=name != "module"))
        self.state_ = State(self._whole_state(self.n_rows_, self.n_classes_), self.device_)
        return self

    def _whole_state(self, n: int, n_classes: int) -> dict[str, Tensor]:
        """Return the state of a method, together with that of its bases."""
        return self._init_state(n, n_classes)

    def _init_state(self, n: int, n_classes: int) -> dict[str, Tensor]:
        """Return the buffers of ``state_``, which outlive an epoch, for ``n`` training rows."""
        return {}

    def _network(self, name: str) -> nn.Module:
        network: nn.Module = getattr(self, f"{name}_")
        return network

    def _optimizer(self, name: str) -> torch.optim.Optimizer:
        """Return the optimizer of a network."""
        optimizer: torch.optim.Optimizer = getattr(self, f"{optimizer_of(name)}_")
        return optimizer

    def _rebuild(self, states: dict[str, dict[str, Tensor]], history: list[dict[str, Any]]) -> None:
        """Recreate the networks from their stored weights."""
        self.device_ = resolve_device(self.device)
        with self._current_init_context("module"), without_weights():
            for name in (*self._networks, *self._copies):
                network = self._make_network(name, independent=False)
                network.load_state_dict(states[name])
                setattr(self, f"{name}_", network)
        self.history_ = History(history)
        self.initialized_ = True

    def initialize_optimizer(self) -> Engine:
        """Create one optimizer per network."""
        self._check_trainable()
        for name in self._networks:
            optimizer = self._make_optimizer(name, self._network(name))
            setattr(self, f"{optimizer_of(name)}_", optimizer)
        return self

    def _make_network(self, name: str, *, independent: bool) -> nn.Module:
        params = self.get_params_for("module")
        params |= {} if name == "module" else self.get_params_for(name)
        network = build_network(
            self.module,
            self.row_shape_,
            self.n_classes_,
            params,
            prefix="module",
            independent=independent,
        )
        wrapped = self._standardized(network).to(self.device_)
        self._check_logits(wrapped)
        return wrapped

    def _standardized(self, network: nn.Module) -> Standardized:
        """Put the input layer in front: on the scale of the pretraining, otherwise on that of X."""
        scale = torch.as_tensor(self.feature_mean_), torch.as_tensor(self.feature_scale_)
        size, expects = None, getattr(network, "preprocessing", None)
        if isinstance(expects, Preprocessing):
            size = expects.size
            scale = expects.scale(self.row_shape_[0], *self.value_range_) or scale
        return Standardized(network, *scale, size)

    def _check_logits(self, network: nn.Module) -> None:
        probe = torch.zeros(2, *self.row_shape_, device=self.device_)
        with torch.no_grad():
            logits = network.eval()(probe)
        expected = (2, self.n_classes_)
        if not isinstance(logits, Tensor) or logits.shape != expected:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(
                f"The module must map a batch of 2 rows to logits of shape {expected}, one column "
                f"a class. Got {got}. Give it an n_classes parameter; it is filled in at fit."
            )

    def _make_optimizer(self, name: str, network: nn.Module) -> torch.optim.Optimizer:
        own = self.get_params_for(optimizer_of(name))
        shared = self.get_params_for("optimizer")
        defaults = SGD_DEFAULTS if self.optimizer is torch.optim.SGD else {}
        parameters = list(named_parameters(name, network))
        params = {"lr": self.lr} | defaults | shared | own
        grouped_by = optimizer_of(name) if "param_groups" in own else "optimizer"
        patterns = patterns_of(f"{grouped_by}__param_groups", params.pop("param_groups", []))
        check_patterns(f"{grouped_by}__param_groups", patterns, parameters)
        groups = self.get_params_for_optimizer(grouped_by, parameters)[0]
        known = inspect.signature(self.optimizer).parameters
        for key in params:
            if key not in known:
                prefix = f"{optimizer_of(name) if key in own else 'optimizer'}__"
                raise ValueError(
                    f"Invalid parameter {prefix + key!r} for {self.optimizer.__name__}."
                    + remedy(key, known, prefix)
                )
        return self.optimizer(*groups, **params)

    def get_all_learnable_params(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the parameters of all networks, named as in the user's network."""
        for name in self._networks:
            yield from named_parameters(name, self._network(name))

    # ------------------------------------------------------------------------- the loop

    def _loop(self, data: TrainingData) -> None:
        """Run the method's loop from where the history ends."""
        self._run.parameters = {
            name: list(named_parameters(name, self._network(name))) for name in self._networks
        }
        try:
            self._fit(data)
        finally:
            self._set_training(False)

    def _fit(self, data: TrainingData) -> None:
        """Train: the one thing that a method must define."""
        raise TypeError(f"{type(self).__name__} has no _fit(data): a method is a subclass with one")

    def _epochs(self) -> Iterator[int]:
        """Yield the remaining epochs, with networks in training mode and callbacks notified."""
        for epoch in range(len(self.history_), self.max_epochs_):
            self._set_training(True)
            self._set_learning_rates(epoch)
            self.notify("on_epoch_begin", **self._run.datasets)
            self._check_trainable()
            yield epoch
            self._record_epoch(epoch)
            if self._callbacks_stop():
                break
            self._save_epoch(epoch)

    def _check_trainable(self) -> None:
        """Refuse networks without a trainable parameter."""
        for name in self._networks:
            parameters = list(self._network(name).parameters())
            if not any(p.requires_grad for p in parameters):
                what = f"{len(parameters)} parameters, all of them frozen" if parameters else "none"
                raise ValueError(
                    f"The module must have parameters to train. Got {what}. Let requires_grad be "
                    "True for some, such as the last layer, or freeze less."
                )

    def _descend(self, loss: Tensor, network: str = "module") -> None:
        """Take one step of a network's optimizer on ``loss``: gradients, callbacks, step."""
        optimizer, predicts = self._optimizer(network), network == "module"
        if predicts:
            self.notify("on_batch_begin", batch=None, training=True)
        optimizer.zero_grad()
        loss.backward()
        average([parameter.grad for _, parameter in self._run.parameters[network]])
        self.notify(
            "on_grad_computed", named_parameters=self._run.parameters[network], training=True
        )
        optimizer.step()
        self._log("train_loss" if predicts else f"{network}_loss", loss)
        if predicts:
            self.notify("on_batch_end", batch=None, y_pred=None, loss=loss, training=True)
            self._follow_learning_rate()

    def _log(self, name: str, value: Tensor) -> None:
        """Log a value of this batch; the history gets the mean over the epoch as ``name``."""
        self._run.log(name, value)

    def _predict(
        self, network: nn.Module, data: TrainingData | Rows, view: str = "plain"
    ) -> Tensor:
        """Return logits (n_samples, n_classes) in float32, in evaluation mode, in order."""
        return self._evaluate(network, network, data, view)

    def _predict_probs(
        self, network: nn.Module, data: TrainingData | Rows, view: str = "plain"
    ) -> Tensor:
        """Return the softmax of `_predict`, without a second table."""
        return self._evaluate(lambda x: network(x).float().softmax(1), network, data, view)

    def _together(self, names: Sequence[str]) -> nn.ModuleList:
        """Return some networks as one module, in the mode of the first."""
        networks = nn.ModuleList(map(self._network, names))
        networks.training = networks[0].training
        return networks

    def _probabilities(self, rows: TrainingData | Rows) -> Tensor:
        """Return what ``predict_proba`` gives for the rows, (n_samples, n_classes)."""
        return self._predict_probs(self.module_, rows)

    @torch.no_grad()
    def _evaluate(
        self,
        function: Callable[[Tensor], Tensor],
        network: nn.Module,
        data: TrainingData | Rows,
        view: str = "plain",
    ) -> Tensor:
        """Map all rows with the network in evaluation mode, then restore its mode."""
        was_training = network.training
        if was_training:
            network.eval()
        average_statistics(network)
        try:
            end = 0
            for x in data.in_order(view):
                part = function(_padded(x))[: len(x)].float()
                if not end:
                    mapped = part.new_empty(len(data), *part.shape[1:])
                start, end = end, end + len(x)
                mapped[start:end] = part
        finally:
            if was_training:
                network.train()
        return mapped

    def _set_learning_rates(self, epoch: int) -> None:
        """Set every learning rate: by ``lr_schedule``, or as the user's LRScheduler does."""
        if not any(isinstance(cb, LRScheduler) for _, cb in self.callbacks_):
            for group in self.optimizer_.param_groups:
                group["lr"] = group["first_lr"] * self._share_of_learning_rate(epoch)
        self._follow_learning_rate()

    def _follow_learning_rate(self) -> None:
        """Scale the other learning rates like the first, which may change in any batch."""
        others = self._param_groups(self._networks[1:])
        moving = [group for group in self.optimizer_.param_groups if group["first_lr"]]
        if others and moving:
            scale = moving[0]["lr"] / moving[0]["first_lr"]
            for group in others:
                group["lr"] = group["first_lr"] * scale

    def _param_groups(self, networks: Sequence[str]) -> list[dict[str, Any]]:
        return [group for name in networks for group in self._optimizer(name).param_groups]

    def _share_of_learning_rate(self, epoch: int) -> float:
        """Return the fraction of the initial rate: a cosine to zero over each cycle."""
        if self.lr_schedule == "constant":
            return 1.0
        epochs = self.max_epochs_
        n_cycles = max(1, round(epochs / CYCLE)) if self.lr_schedule == "cyclic" else 1
        return (1 + cos(pi * (epoch * n_cycles % epochs) / epochs)) / 2

    def _record_epoch(self, epoch: int) -> None:
        """Write the epoch's mean losses to the history: one copy to the host."""
        losses = self._run.take_losses()
        if losses:
            means = torch.stack([values.mean() for values in losses.values()]).tolist()
            for (name, values), mean in zip(losses.items(), means, strict=True):
                if not isfinite(mean):
                    raise self._divergence(name, values, epoch)
                self._record(name, mean)
        if self._run.validation is not None:
            self._record_validation(self._run.validation)

    def _divergence(self, name: str, values: Tensor, epoch: int) -> NoisyFitError:
        batch = int((~torch.isfinite(values)).nonzero()[0, 0])
        return NoisyFitError(
            f"The loss must stay finite. Got {float(values[batch])} for {name!r} in "
            f"epoch {epoch + 1}, batch {batch + 1}. The learning rate is the likely cause "
            f"(lr={self.lr}): try lr={self.lr / 10:g}, or precision='fp32'. A module or an "
            "augmentation of your own must return finite numbers as well."
        )

    def _drop_open_epoch(self) -> None:
        """Drop an epoch that was interrupted."""
        if self.history_ and "train_loss" not in self.history_[-1]:
            self.history_.pop()

    def _record(self, name: str, value: float, best: Callable[..., float] = min) -> None:
        """Record a value and, as skorch's Checkpoint expects, whether it is the best so far."""
        earlier = [row[name] for row in self.history_[:-1] if name in row]
        self.history_.record(name, value)
        self.history_.record(f"{name}_best", value == best([*earlier, value]))

    def _record_validation(self, data: TrainingData) -> None:
        kept = data.has_label
        probs, labels = self._probabilities(data)[kept], data.labels[kept]
        self._record("valid_loss", float(F.nll_loss(probs.clamp(min=SMALLEST).log(), labels)))
        self._record("valid_acc", float((probs.argmax(1) == labels).float().mean()), best=max)

    def _callbacks_stop(self) -> bool:
        """Notify callbacks of the epoch's end; in skorch they stop early by KeyboardInterrupt."""
        try:
            with noticed_interrupts() as pressed:
                self.notify("on_epoch_end", **self._run.datasets)
        except KeyboardInterrupt:
            if pressed:
                raise
            return True
        except KeyError as error:
            if self._run.datasets["dataset_valid"] is not None or "in history" not in str(error):
                raise
            raise ValueError(
                "What a callback watches must be in the history, and scores of held-out rows need "
                f"such rows. Got no held-out rows: {error.args[0]} Pass validation_fraction, or "
                "X_val and y_val, or watch train_loss."
            ) from error
        return False

    # ------------------------------------------------------------------- checkpoints, pickles

    def _save_epoch(self, epoch: int) -> None:
        checkpoint = self._run.checkpoint
        if checkpoint is None or epoch + 1 == self.max_epochs_:
            return
        checkpoint.hold(self._training_state())
        if (epoch + 1) % self.checkpoint_every == 0:
            checkpoint.flush()

    def _training_state(self) -> dict[str, Any]:
        parts = {f"{n}_": getattr(self, f"{n}_") for n in [*self._modules, *self._optimizers]}
        on_gpu = self.device_.type == "cuda"
        return {
            "seed": self.seed_,
            "parts": {name: part.state_dict() for name, part in parts.items()},
            "history": list(self.history_),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device_) if on_gpu else None,
            "callbacks": {name: _fitted_state(callback) for name, callback in self._user_callbacks},
        }

    def _restore_training_state(self, state: dict[str, Any]) -> None:
        for name, part in state["parts"].items():
            getattr(self, name).load_state_dict(part)
        self.history_.extend(state["history"])
        for name, callback in self._user_callbacks:
            for attribute, value in state["callbacks"][name].items():
                current: Any = getattr(callback, attribute, None)
                if hasattr(current, "load_state_dict"):
                    current.load_state_dict(value)
                else:
                    setattr(callback, attribute, value)
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"], self.device_)


def _padded(x: Tensor) -> Tensor:
    """Pad small batches, so that a row's result does not depend on the size of its batch."""
    missing = SMALLEST_BATCH - len(x)
    return x if missing <= 0 else torch.cat([x, x[:1].expand(missing, *x.shape[1:])])


class State(nn.Module):
    """Tensors that are saved and restored with the networks.

    Flags and counters decide what the program does. They stay on the CPU, as reading one from a GPU
    would wait for all its kernels.
    """

    def __init__(self, buffers: dict[str, Tensor], device: torch.device) -> None:
        super().__init__()
        for name, value in buffers.items():
            is_read = value.ndim == 0 and not value.is_floating_point()
            self.register_buffer(name, value if is_read else value.to(device))


def _fitted_state(callback: Any) -> dict[str, Any]:
    """Return the fitted attributes of a callback: plain values and objects with a state_dict."""
    plain = (int, float, str, bool, dict, list, type(None))
    attributes = vars(callback).items()
    fitted = {k: v for k, v in attributes if k.endswith("_") and not isinstance(v, type)}
    state = {k: v for k, v in fitted.items() if isinstance(v, plain)}
    return state | {k: v.state_dict() for k, v in fitted.items() if hasattr(v, "load_state_dict")}
