"""Every public name of skorch's net: it works here as a user of skorch expects, or is refused."""

import ast
import re
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import sklearn
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from skorch import NeuralNet
from skorch.callbacks import Callback

from noisyfit import CLIDMetaClassifier, ELRClassifier, FlywheelClassifier, HRPClassifier
from noisyfit.estimator.net import NOT_CALLED, NOT_INHERITED, NOT_OFFERED, PRIVATE
from tests.helpers import blobs, quick
from tests.test_floors import MODULES

X, y = blobs(120)
REFUSED = NOT_OFFERED | NOT_INHERITED
del REFUSED["set_fit_request"]  # scikit-learn writes it for the fit of each method
every_method = pytest.mark.parametrize(
    "cls",
    [ELRClassifier, FlywheelClassifier, CLIDMetaClassifier, HRPClassifier],
    ids=lambda cls: cls.__name__,
)


@cache
def trained(cls: Any) -> Any:
    return quick(cls, max_epochs=3).fit(X, y)


def fitted(cls: Any) -> Any:
    return deepcopy(trained(cls))


class Calls(Callback):
    """Write down which events came."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        self.events.append("on_train_begin")


def optimized(clf: Any) -> set[int]:
    optimizers = [getattr(clf, f"{name}_") for name in clf._optimizers]
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    return {id(parameter) for group in groups for parameter in group["params"]}


def check_is_fitted(clf: Any) -> None:
    clf.check_is_fitted()
    with pytest.raises(NotFittedError):
        clone(clf).check_is_fitted()


def fit(clf: Any) -> None:
    before = clf.predict_proba(X)
    np.testing.assert_array_equal(clf.fit(X, y).predict_proba(X), before)


def forward(clf: Any) -> None:
    logits = clf.forward(X)
    assert isinstance(logits, torch.Tensor)
    np.testing.assert_array_equal(logits, clf.predict_logits(X))


def forward_iter(clf: Any) -> None:
    batches = list(clf.set_params(batch_size=50).forward_iter(X))
    assert [len(batch) for batch in batches] == [50, 50, 20]
    assert torch.equal(torch.cat(batches), clf.forward(X))


def infer(clf: Any) -> None:
    np.testing.assert_allclose(clf.infer(X).detach(), clf.predict_logits(X), atol=1e-5)
    clf.module_.zero_grad()
    clf.infer(X).sum().backward()
    assert all(p.grad is not None for p in clf.module_.parameters() if p.requires_grad)
    with torch.no_grad():
        assert not clf.infer(X).requires_grad


def get_all_learnable_params(clf: Any) -> None:
    parameters = {id(p) for _, p in clf.get_all_learnable_params()}
    assert {id(p) for p in clf.module_.parameters()} <= parameters <= optimized(clf)


def get_default_callbacks(clf: Any) -> None:
    assert [name for name, _ in clf.get_default_callbacks()] == ["epoch_timer", "print_log"]


def get_metadata_routing(clf: Any) -> None:
    assert clf.get_metadata_routing().fit.requests["clean_mask"] is True


def get_params(clf: Any) -> None:
    assert clf.get_params()["max_epochs"] == 3


def get_params_for(clf: Any) -> None:
    assert clf.set_params(module__width=7).get_params_for("module") == {"width": 7}


def get_params_for_optimizer(clf: Any) -> None:
    clf.set_params(optimizer__param_groups=[("*bias", {"lr": 0.5})])
    named = [("bias", "b"), ("weight", "w")]
    groups = [{"params": ["b"], "lr": 0.5}, {"params": ["w"]}]
    assert clf.get_params_for_optimizer("optimizer", named)[0] == (groups,)


def history(clf: Any) -> None:
    assert clf.history is clf.history_
    assert len(clf.history) == 3


def initialize(clf: Any) -> None:
    before = clf.predict_logits(X)
    clf.initialize()
    assert not clf.history
    assert not np.allclose(clf.predict_logits(X), before)
    assert {id(p) for _, p in clf.get_all_learnable_params()} <= optimized(clf)


def initialize_callbacks(clf: Any) -> None:
    clf.set_params(callbacks=[("calls", Calls())]).initialize_callbacks()
    assert [name for name, _ in clf.callbacks_] == ["epoch_timer", "calls", "print_log"]


def initialize_history(clf: Any) -> None:
    assert not clf.initialize_history().history


def initialize_module(clf: Any) -> None:
    before = clf.module_
    assert clf.initialize_module().module_ is not before


def initialize_optimizer(clf: Any) -> None:
    clf.initialize_module()
    assert {id(p) for p in clf.module_.parameters()}.isdisjoint(optimized(clf))
    clf.initialize_optimizer()
    assert {id(p) for p in clf.module_.parameters()} <= optimized(clf)


def save_and_load_params(clf: Any) -> None:
    file, before = BytesIO(), clf.predict_logits(X)
    clf.save_params(f_params=file)
    file.seek(0)
    clf.initialize_module().load_params(f_params=file)
    np.testing.assert_array_equal(clf.predict_logits(X), before)


def notify(clf: Any) -> None:
    clf.set_params(callbacks=[("calls", Calls())]).initialize_callbacks()
    clf.notify("on_train_begin", X=X, y=y)
    assert dict(clf.callbacks_)["calls"].events == ["on_train_begin"]


def hook(name: str) -> Callable[[Any], None]:
    """Events of a net reach a function of that name in a subclass, during fit."""

    def is_called(clf: Any) -> None:
        calls = []

        def override(self: Any, *args: Any, **kwargs: Any) -> None:
            calls.append(name)
            getattr(NeuralNet, name)(self, *args, **kwargs)

        cls = type("Own", (type(clf),), {name: override})
        quick(cls, max_epochs=3).fit(X, y)
        assert len(calls) >= (1 if "train" in name else 3)

    return is_called


def predict(clf: Any) -> None:
    assert set(clf.predict(X)) <= set(clf.classes_)


def predict_proba(clf: Any) -> None:
    np.testing.assert_allclose(clf.predict_proba(X).sum(1), 1, rtol=1e-5)


def set_params(clf: Any) -> None:
    assert clf.set_params(max_epochs=2).fit(X, y).n_iter_ == 2


def set_fit_request(clf: Any) -> None:
    """``set_fit_request`` of skorch took any name."""
    with sklearn.config_context(enable_metadata_routing=True):
        asked = clf.set_fit_request(clean_mask=False).get_metadata_routing()
        with pytest.raises(TypeError, match="nonsense"):
            clf.set_fit_request(nonsense=True)
    assert asked.fit.requests["clean_mask"] is False


def prefixes(clf: Any) -> None:
    assert {"module", "callbacks", *clf._optimizers} <= {*clf.prefixes_}


def cuda_dependent_attributes(clf: Any) -> None:
    parts = {name for name, value in vars(clf).items() if isinstance(value, torch.nn.Module)}
    assert {name for name in parts if name.endswith("_")} <= {*clf.cuda_dependent_attributes_}


def init_context(clf: Any) -> None:
    assert clf.init_context_ is None


WORKS: dict[str, Callable[[Any], None]] = {
    "check_is_fitted": check_is_fitted,
    "cuda_dependent_attributes_": cuda_dependent_attributes,
    "fit": fit,
    "forward": forward,
    "forward_iter": forward_iter,
    "get_all_learnable_params": get_all_learnable_params,
    "get_default_callbacks": get_default_callbacks,
    "get_metadata_routing": get_metadata_routing,
    "get_params": get_params,
    "get_params_for": get_params_for,
    "get_params_for_optimizer": get_params_for_optimizer,
    "history": history,
    "infer": infer,
    "init_context_": init_context,
    "initialize": initialize,
    "initialize_callbacks": initialize_callbacks,
    "initialize_history": initialize_history,
    "initialize_module": initialize_module,
    "initialize_optimizer": initialize_optimizer,
    "load_params": save_and_load_params,
    "notify": notify,
    "predict": predict,
    "predict_proba": predict_proba,
    "prefixes_": prefixes,
    "save_params": save_and_load_params,
    "set_fit_request": set_fit_request,
    "set_params": set_params,
} | {name: hook(name) for name in dir(NeuralNet) if name.startswith("on_")}


def test_every_public_name_works_or_is_refused() -> None:
    public = {name for name in dir(NeuralNet) if not name.startswith("_")}
    generated = {f"set_{method}_request" for method in ("score", "predict", "predict_proba")}
    assert public - generated == WORKS.keys() | REFUSED.keys()
    assert not WORKS.keys() & REFUSED.keys()


@pytest.mark.filterwarnings("ignore:A meta set should have")
@every_method
@pytest.mark.parametrize("name", WORKS)
def test_name_of_skorch__works(cls: type[Any], name: str) -> None:
    WORKS[name](fitted(cls))


@every_method
@pytest.mark.parametrize("name", REFUSED)
def test_name_of_skorch__is_refused_in_our_words(cls: type[Any], name: str) -> None:
    for owner in cls, cls(), fitted(cls):
        assert not hasattr(owner, name)
        with pytest.raises(
            AttributeError,
            match=f"{cls.__name__} has no {name} of skorch's.*{re.escape(REFUSED[name])}",
        ):
            getattr(owner, name)


@pytest.mark.parametrize("name", NOT_OFFERED | NOT_CALLED)
def test_name_of_skorch__that_no_loop_calls__must_not_be_overridden(name: str) -> None:
    with pytest.raises(TypeError, match=f"Own must not override {name}: ELR.*_fit never calls"):
        type("Own", (ELRClassifier,), {name: lambda self, *args: None})


@every_method
def test_completion_shows_what_is_ours_or_scikit_learns_or_fitted(cls: type[Any]) -> None:
    clf = fitted(cls)
    shown = {name for name in dir(clf) if not name.startswith("_")}
    ours = {name for base in cls.__mro__ if base is not NeuralNet for name in vars(base)}
    assert shown <= ours | {*vars(clf)}
    assert not shown & (REFUSED.keys() | {"criterion", "dataset", "notify", "on_epoch_end"})
    assert not shown & {"prefixes_", "init_context_", "criterion_", "train_split"}
    parameters = {name for name in clf.get_params() if "__" not in name}
    assert parameters | {"fit", "score", "label_quality_", "module_", "forward"} <= shown
    assert all(hasattr(clf, name) for name in parameters)


# Private names.


def is_private_of_skorch(name: str) -> bool:
    return (
        name.startswith("_")
        and not name.startswith("__")
        and hasattr(NeuralNet, name)
        and (name == "_get_param_names" or not hasattr(BaseEstimator, name))
    )


@pytest.mark.parametrize("name", PRIVATE)
def test_private_name__is_in_the_installed_skorch(name: str) -> None:
    assert is_private_of_skorch(name)


def test_private_names__that_the_package_uses__are_listed() -> None:
    used = set()
    for file in MODULES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute):
                used.add(node.attr)
            elif isinstance(node, ast.FunctionDef):
                used.add(node.name)
    assert {name for name in used if is_private_of_skorch(name)} == {*PRIVATE} - {"_criteria"}
