"""What scikit-learn asks of every estimator, and of its parameters."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import has_fit_parameter
from skorch.callbacks import Freezer

from noisyfit import CoTeachingClassifier, CrossEntropyClassifier, SemiSupervisedClassifier
from tests.common.zoo import ESTIMATORS, Estimator, every_method, every_variant, of_the_base
from tests.helpers import Arrays, GradientNorms, Perceptron, blobs, images, quick, seeded_perceptron

SHORT = {"max_epochs": 12, "device": "auto"}  # their defaults take longer than 40 s each
CONFIGURATIONS: dict[Estimator, Any] = {cls: quick(cls, **SHORT) for cls in ESTIMATORS} | {
    CrossEntropyClassifier: CrossEntropyClassifier(),
    CoTeachingClassifier: CoTeachingClassifier(max_epochs=12),  # with a pilot
    SemiSupervisedClassifier: quick(SemiSupervisedClassifier, max_epochs=3),  # of 32 steps
}


def not_promised(estimator: Any) -> dict[str, str]:
    """Name the checks that cannot hold, and why."""
    batches = "a row left out or repeated makes other mini-batches than a weight"
    check = "check_sample_weight_equivalence_on_{}_data"
    kinds = ("dense", "sparse") if has_fit_parameter(estimator, "sample_weight") else ()
    return {check.format(kind): batches for kind in kinds}


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([*CONFIGURATIONS.values()], expected_failed_checks=not_promised)
def test_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


# Without side effects.


@every_variant
@pytest.mark.parametrize(
    "data, network",
    [(blobs(), {}), (images(150), {"module__width": 16})],
    ids=["table", "image"],
)
@pytest.mark.filterwarnings("error")
def test_whole_life__gives_no_warning(
    cls: Estimator, data: Arrays, network: dict[str, Any], tmp_path: Path
) -> None:
    X, y = data
    X.setflags(write=False)
    y.setflags(write=False)
    clf = quick(cls, max_epochs=8, validation_fraction=0.2, **network).fit(X, y)
    clf.predict(X), clf.transform(X), clf.score_labels(X, y), clf.label_issues()
    clf.save(tmp_path / "model")
    pickle.loads(pickle.dumps(cls.load(tmp_path / "model", device="cpu")))


@every_variant
def test_fit_leaves_constructor_parameters_as_they_were(cls: Estimator) -> None:
    X, y = blobs()
    network = seeded_perceptron()
    weights = copy.deepcopy(network.state_dict())
    clf = quick(cls, module=network, callbacks=[("norms", GradientNorms())], device="auto")
    before = clf.get_params(deep=False)
    callbacks = list(before["callbacks"])
    clf.fit(X, y)
    clf.predict(X)
    after = clf.get_params(deep=False)
    assert after.keys() == before.keys()
    assert all(after[name] is before[name] for name in before)
    assert after["callbacks"] == callbacks
    assert network.training
    assert all(torch.equal(network.state_dict()[name], weights[name]) for name in weights)
    assert all(p.grad is None for p in network.parameters())


@every_method
def test_fit_leaves_the_data_as_they_were(cls: Estimator) -> None:
    X, y = blobs()
    X = X.astype(np.float32)
    X_before, y_before = X.copy(), y.copy()
    quick(cls).fit(X, y).predict(X)
    np.testing.assert_array_equal(X, X_before)
    np.testing.assert_array_equal(y, y_before)


@of_the_base
def test_clone_carries_parameters_and_no_state(cls: Estimator) -> None:
    X, y = blobs()
    clf = quick(cls, module="mlp", module__width=16, optimizer__momentum=0.5).fit(X, y)
    fresh = clone(clf)
    assert fresh.get_params() == clf.get_params()
    assert [name for name in vars(fresh) if name.endswith("_")] == []
    assert not hasattr(fresh, "classes_")
    np.testing.assert_array_equal(fresh.fit(X, y).predict_proba(X), clf.predict_proba(X))


@of_the_base
def test_module__parameters_are_routed_through_a_grid_search_in_a_pipeline(cls: Estimator) -> None:
    X, y = blobs(150)
    pipeline = make_pipeline(StandardScaler(), quick(cls, max_epochs=4))
    step = pipeline.steps[-1][0]
    grid = {f"{step}__module__width": [8, 16]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X, y)
    best = search.best_params_[f"{step}__module__width"]
    assert search.best_estimator_.transform(X).shape == (150, best)
    assert search.best_estimator_[-1].get_params()["module__width"] == best


# Wrong parameters.

BAD_PARAMETERS: dict[str, tuple[dict[str, Any], str]] = {
    "module__": ({"module__widht": 3}, "'module__widht' for MLP. Did you mean 'module__width'"),
    "optimizer__": ({"optimizer__momentun": 0.5}, "Did you mean 'optimizer__momentum'"),
    "prefix": ({"modul__width": 3}, "'modul__width'.*Did you mean 'module'"),
    "plain": ({"max_epoch": 3}, "'max_epoch'.*Did you mean 'max_epochs'"),
    "one underscore": ({"module_width": 3}, "'module_width'.*Did you mean 'module__width'"),
    "name of a network": ({"module": "mpl"}, "Got 'mpl'. Did you mean 'mlp'"),
    "range": ({"lr": -1}, "'lr' parameter of .* Got -1 instead"),
    "type": ({"batch_size": 12.5}, "'batch_size' parameter of .* must be a whole number. Got 12.5"),
    "device": ({"device": "gpu3"}, "device"),
}


@of_the_base
@pytest.mark.parametrize("params, message", BAD_PARAMETERS.values(), ids=BAD_PARAMETERS)
def test_parameters__wrong__are_reported_at_fit_with_a_suggestion(
    cls: Estimator, params: dict[str, Any], message: str
) -> None:
    clf = quick(cls, **params)
    with pytest.raises((ValueError, RuntimeError), match=message):
        clf.fit(*blobs(60))


@of_the_base
def test_parameters__set_by_a_wrong_name__are_refused_at_once(cls: Estimator) -> None:
    with pytest.raises(ValueError, match="'max_epoch'.*Did you mean 'max_epochs'"):
        quick(cls).set_params(max_epoch=3)


@of_the_base
def test_module__with_too_few_logits__is_an_error(cls: Estimator) -> None:
    X, y = blobs(60)
    with pytest.raises(ValueError, match=r"shape \(2, 3\).*Got \(2, 2\)"):
        quick(cls, module=Perceptron(8, 2)).fit(X, y)


class Untrainable(torch.nn.Module):
    def __init__(self, frozen: bool) -> None:
        super().__init__()
        if frozen:
            self.layer = torch.nn.Linear(2, 2).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) if hasattr(self, "layer") else x


@of_the_base
@pytest.mark.parametrize(
    ("settings", "got"),
    [
        ({"module": lambda: Untrainable(frozen=True)}, "to train. Got 2 parameters, all.*frozen"),
        ({"module": lambda: Untrainable(frozen=False)}, "to train. Got none|must end in an nn.Lin"),
        ({"callbacks": [Freezer("*")]}, "to train. Got .* parameters, all of them frozen"),
    ],
    ids=["frozen", "no parameters", "frozen by a callback"],
)
def test_module__with_nothing_to_train__is_an_error(
    cls: Estimator, settings: dict[str, Any], got: str
) -> None:
    X, y = blobs(60)
    with pytest.raises(ValueError, match=got):
        quick(cls, **settings).fit(X[:, :2], y > 0)
