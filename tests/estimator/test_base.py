import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback, EarlyStopping
from torch import Tensor

from noisyfit import (
    CrossEntropyClassifier,
    EchoAlignClassifier,
    EchoSelect,
    FlywheelClassifier,
    NoisyFitError,
    NoisyLabelClassifier,
)
from noisyfit.data.training import TrainingData
from noisyfit.estimator.fitted import fitted_names
from noisyfit.estimator.net import IGNORED
from noisyfit.nn import features
from noisyfit.nn.backbones.mlp import MLP
from noisyfit.nn.build import parameter_names
from noisyfit.noise import symmetric
from noisyfit.utils import devices
from noisyfit.utils.devices import resolve_device, resolve_precision
from noisyfit.utils.synonyms import NAMES, REMEDIES
from tests.helpers import LearningRates, Linear, Perceptron, blobs, images, optimizers, quick


class Plain(NoisyLabelClassifier):
    """The shortest method, as a newcomer would write it."""

    def _fit(self, data: TrainingData) -> None:
        for _ in self._epochs():
            for _, x, labels in data.batches("plain", labelled=True):
                self._descend(torch.nn.functional.cross_entropy(self.module_(x), labels))

    def _beliefs(self, data: TrainingData) -> tuple[Tensor, Tensor]:
        probs = self._predict(self.module_, data).softmax(1)
        return probs.gather(1, data.labels.clamp(min=0)[:, None])[:, 0], probs


# A method of one's own.


def test_method_of_two_functions_is_a_whole_estimator() -> None:
    X, y = blobs()
    noisy = symmetric(y, 0.2, random_state=0)
    clf = quick(Plain, max_epochs=12).fit(X, noisy.labels)
    assert clf.score(X, y) > 0.9
    assert roc_auc_score(~noisy.flipped, clf.label_quality_) > 0.9
    assert cross_val_score(quick(Plain), X, y, cv=3).mean() > 0.9


def test_base_class__alone__says_that_it_is_no_method() -> None:
    with pytest.raises(TypeError, match=r"has no _fit\(data\): a method is a subclass"):
        quick(NoisyLabelClassifier).fit(*blobs(60))


def test_evaluation_leaves_the_mode_of_the_network() -> None:
    clf = quick(Plain).fit(*blobs(60))
    for training in (True, False):
        clf.module_.train(training)
        clf.predict(blobs(60)[0])
        assert clf.module_.training == training


def test_predictions_are_those_of_the_network_in_evaluation_mode() -> None:
    X, y = blobs(60)
    clf = quick(Plain, module__dropout=0.5).fit(X, y)
    x = torch.as_tensor(X).float()
    with torch.no_grad():
        expected = clf.module_.eval()(x).softmax(1)
    np.testing.assert_allclose(clf.predict_proba(X), expected, rtol=1e-5)


def test_train_loss_is_the_mean_over_the_batches_of_the_epoch() -> None:
    X, y = blobs(90)
    losses: list[list[float]] = []

    class Watched(Plain):
        def _fit(self, data: TrainingData) -> None:
            for _ in self._epochs():
                losses.append([])
                for _, x, labels in data.batches("plain"):
                    loss = torch.nn.functional.cross_entropy(self.module_(x), labels)
                    losses[-1].append(float(loss.detach()))
                    self._descend(loss)

    clf = quick(Watched, batch_size=32).fit(X, y)
    assert [len(epoch) for epoch in losses] == [3] * 6
    expected = [sum(epoch) / 3 for epoch in losses]
    np.testing.assert_allclose(clf.history_[:, "train_loss"], expected, rtol=1e-5)


def test_loss_not_finite__names_epoch_and_batch() -> None:
    class Broken(Plain):
        def _fit(self, data: TrainingData) -> None:
            for epoch in self._epochs():
                for batch, (_, x, labels) in enumerate(data.batches("plain")):
                    loss = torch.nn.functional.cross_entropy(self.module_(x), labels)
                    self._descend(loss * (float("inf") if (epoch, batch) == (2, 1) else 1.0))

    with pytest.raises(NoisyFitError, match=r"Got inf for 'train_loss' in epoch 3, batch 2"):
        quick(Broken, batch_size=32).fit(*blobs(90))


# Devices and precision.


def test_resolve_device__auto__is_a_gpu_if_there_is_one() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert resolve_device("auto").type == expected


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")], ids=str)
def test_resolve_device__given__is_taken(device: Any) -> None:
    assert resolve_device(device) == torch.device("cpu")


@pytest.mark.parametrize(
    "precision, row_shape, expected",
    [
        ("fp32", (8,), None),
        ("fp32", (3, 32, 32), None),
        ("bf16", (8,), torch.bfloat16),
        ("bf16", (3, 32, 32), torch.bfloat16),
        ("auto", (8,), None),
        ("auto", (3, 28, 8), None),  # where torch's bfloat16 convolutions are wrong
    ],
)
def test_resolve_precision__on_a_cpu__is_bfloat16_only_where_it_is_safe(
    precision: str, row_shape: tuple[int, ...], expected: torch.dtype | None
) -> None:
    assert resolve_precision(precision, torch.device("cpu"), row_shape) == expected


@pytest.mark.parametrize("known", [True, False])
def test_resolve_precision__bf16_on_a_cpu__is_said_to_be_slow_without_instructions(
    monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    monkeypatch.setattr(devices, "cpu_has_bf16", lambda: known)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert resolve_precision("bf16", torch.device("cpu"), (8,)) == torch.bfloat16
    assert [w for w in said if "Leave precision at 'auto'" in str(w.message)] == said
    assert len(said) == (not known)


def test_device_is_resolved_at_fit_and_the_parameter_kept() -> None:
    clf = CrossEntropyClassifier(max_epochs=2).fit(*blobs(60))
    assert clf.device == "auto"
    assert clf.device_ == resolve_device("auto")
    assert next(clf.module_.parameters()).device.type == clf.device_.type


def test_precision__of_training__leaves_prediction_in_float32() -> None:
    X, y = blobs()
    exact = quick(CrossEntropyClassifier, precision="fp32").fit(X, y)
    coarse = quick(CrossEntropyClassifier, precision="bf16").fit(X, y)
    assert coarse.predict_proba(X).dtype == np.float32
    assert not np.array_equal(coarse.predict_proba(X), exact.predict_proba(X))
    np.testing.assert_allclose(coarse.predict_proba(X), exact.predict_proba(X), atol=0.1)
    with torch.no_grad():
        logits = coarse.module_.eval()(torch.as_tensor(X).float())
    assert logits.dtype == torch.float32
    np.testing.assert_allclose(coarse.predict_proba(X), logits.softmax(1), rtol=1e-5)


def test_deterministic__setting_of_torch__is_put_back() -> None:
    before = torch.are_deterministic_algorithms_enabled()
    quick(CrossEntropyClassifier, deterministic=True, max_epochs=2).fit(*blobs(60))
    assert torch.are_deterministic_algorithms_enabled() == before


# Schedules and defaults.


@pytest.mark.parametrize("max_epochs", [1, 2, 7])
def test_cosine__follows_its_formula_epoch_by_epoch(max_epochs: int) -> None:
    rates = LearningRates()
    params: dict[str, Any] = {"lr": 0.3, "max_epochs": max_epochs, "callbacks": [rates]}
    quick(CrossEntropyClassifier, **params).fit(*blobs(60))
    expected = [0.15 * (1 + np.cos(np.pi * e / max_epochs)) for e in range(max_epochs)]
    assert rates.rates["optimizer_"] == pytest.approx(expected)


def test_constant__keeps_the_learning_rate() -> None:
    rates = LearningRates()
    params: dict[str, Any] = {"lr": 0.3, "lr_schedule": "constant", "callbacks": [rates]}
    quick(FlywheelClassifier, **params).fit(*blobs(60))
    assert rates.rates == {"optimizer_": [0.3] * 6, "main_optimizer_": [0.3] * 6}


def test_cosine__own_rate_of_the_second_optimizer__keeps_its_ratio() -> None:
    rates = LearningRates()
    params: dict[str, Any] = {"lr": 0.1, "main_optimizer__lr": 0.4, "callbacks": [rates]}
    quick(FlywheelClassifier, **params).fit(*blobs(60))
    first, second = rates.rates["optimizer_"], rates.rates["main_optimizer_"]
    assert second == pytest.approx([4 * rate for rate in first])


def test_optimizer__defaults_and_choices__reach_every_network() -> None:
    X, y = blobs(60)
    plain = quick(FlywheelClassifier).fit(X, y)
    for optimizer in optimizers(plain).values():
        group = optimizer.param_groups[0]
        assert (group["momentum"], group["weight_decay"]) == (0.9, 5e-4)
    chosen = quick(FlywheelClassifier, optimizer__momentum=0.5, main_optimizer__weight_decay=0.1)
    chosen.fit(X, y)
    first, second = chosen.optimizer_.param_groups[0], chosen.main_optimizer_.param_groups[0]
    assert (first["momentum"], first["weight_decay"]) == (0.5, 5e-4)
    assert (second["momentum"], second["weight_decay"]) == (0.5, 0.1)
    adam = quick(CrossEntropyClassifier, optimizer=torch.optim.AdamW, lr=0.01).fit(X, y)
    assert isinstance(adam.optimizer_, torch.optim.AdamW)
    assert adam.score(X, y) > 0.9


@pytest.mark.parametrize("kind, epochs, warmup", [("table", 60, 10), ("image", 30, 5)])
def test_epochs_and_warm_up__by_default__depend_on_the_data(
    kind: str, epochs: int, warmup: int
) -> None:
    X, y = blobs(20, 2) if kind == "table" else (images(20)[0], np.arange(20) % 2)
    clf = FlywheelClassifier(random_state=0, device="cpu").fit(X, y)
    assert clf.max_epochs is None
    assert clf.warmup_epochs is None
    assert (clf.n_iter_, clf.warmup_epochs_) == (epochs, warmup)


@pytest.mark.parametrize("max_epochs, warmup", [(2, 1), (3, 1), (9, 2), (15, 2), (24, 4)])
def test_warm_up__by_default__is_a_sixth(max_epochs: int, warmup: int) -> None:
    clf = FlywheelClassifier(max_epochs=max_epochs, device="cpu").fit(*blobs(20, 2))
    assert clf.warmup_epochs_ == warmup == max(1, round(max_epochs / 6))


@pytest.mark.parametrize("max_epochs, warmup", [(1, None), (3, 3), (3, 5)], ids=str)
def test_warm_up__that_leaves_no_epoch__is_an_error(max_epochs: int, warmup: int | None) -> None:
    clf = quick(FlywheelClassifier, max_epochs=max_epochs, warmup_epochs=warmup)
    with pytest.raises(ValueError, match=f"max_epochs must be greater.*max_epochs={max_epochs}"):
        clf.fit(*blobs(20, 2))


# Augmentation.


def test_augmentation__callable__sees_rows_in_the_units_of_the_user() -> None:
    X, y = blobs(90)
    X = X * 100 + 1000
    seen: list[Tensor] = []

    def watch(x: Tensor) -> Tensor:
        seen.append(x.clone())
        return x

    watched = quick(CrossEntropyClassifier, max_epochs=1, augmentation=watch).fit(X, y)
    rows = torch.cat(seen).double().numpy()
    order = np.lexsort(rows.T), np.lexsort(X.astype(np.float32).T)
    np.testing.assert_array_equal(rows[order[0]], X.astype(np.float32)[order[1]])
    bare = quick(CrossEntropyClassifier, max_epochs=1, augmentation=None).fit(X, y)
    np.testing.assert_array_equal(watched.predict_proba(X), bare.predict_proba(X))


@pytest.mark.parametrize("params", [{"jitter": 0.0}, {"masking": 0.0}], ids=str)
def test_augmentation__its_strength__changes_the_run(params: dict[str, Any]) -> None:
    X, y = blobs(90)
    usual = quick(CrossEntropyClassifier).fit(X, y)
    other = quick(CrossEntropyClassifier, **params).fit(X, y)
    assert not np.array_equal(usual.predict_proba(X), other.predict_proba(X))


@pytest.mark.parametrize(
    "groups",
    [{"0.*": {"lr": 0.1}}, [{"lr": 0.1}], [("0.*", 0.1)], [("0.*",)], ["0.*"], [(0, {})], "0.*"],
    ids=str,
)
def test_groups_of_parameters__that_are_no_pairs__are_an_error(groups: Any) -> None:
    clf = quick(CrossEntropyClassifier, module=Perceptron, optimizer__param_groups=groups)
    with pytest.raises(ValueError, match="optimizer__param_groups must be a list of pairs.*Got"):
        clf.fit(*blobs(60))


def test_groups_of_parameters__of_the_second_network__are_its_own() -> None:
    X, y = blobs(60)
    still: dict[str, Any] = {"lr": 0.0, "weight_decay": 0.0}
    groups: dict[str, Any] = {"main_optimizer__param_groups": [("0.*", still)]}
    clf = quick(FlywheelClassifier, module=Perceptron, max_epochs=3, **groups).fit(X, y)
    grouped, plain = clf.main_optimizer_.param_groups, clf.optimizer_.param_groups
    assert grouped[0]["lr"] == 0 < grouped[1]["lr"]
    assert all(group["lr"] > 0 for group in plain)
    with pytest.raises(ValueError, match="Patterns of main_optimizer__param_groups must match"):
        quick(FlywheelClassifier, main_optimizer__param_groups=[("nope", still)]).fit(X, y)


@pytest.mark.parametrize(
    ("augmentation", "got"),
    [
        (lambda x: x[:-1], r"float32 of shape \(59, 8\) on cpu"),
        (lambda x: x[:, :5], r"float32 of shape \(60, 5\) on cpu"),
        (lambda x: x[..., None], r"float32 of shape \(60, 8, 1\)"),
        (lambda x: x.to("meta"), "on meta"),
        (lambda x: x.to(torch.complex64), "complex64"),
        (lambda x: x.numpy(), "a ndarray"),
        (lambda x: None, "a NoneType"),
        (lambda x: (x, x), "a tuple"),
        (lambda x: x.mul_(2), "writes into the batch"),
    ],
    ids=["rows", "columns", "axes", "device", "complex", "array", "nothing", "pair", "in place"],
)
def test_augmentation__that_is_no_changed_copy__is_an_error(augmentation: Any, got: str) -> None:
    clf = quick(CrossEntropyClassifier, augmentation=augmentation)
    with pytest.raises(ValueError, match=f"augmentation must return a changed copy.*Got .*{got}"):
        clf.fit(*blobs(60))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int16])
def test_augmentation__of_another_type__is_converted(dtype: torch.dtype) -> None:
    X, y = blobs(60)
    X = X.round()
    typed = quick(CrossEntropyClassifier, augmentation=lambda x: x.to(dtype)).fit(X, y)
    plain = quick(CrossEntropyClassifier, augmentation=None).fit(X, y)
    np.testing.assert_array_equal(typed.predict_proba(X), plain.predict_proba(X))


def test_augmentation__switched_off_piece_by_piece__equals_none_but_for_chance() -> None:
    X, y = blobs(90, 2)
    params: dict[str, Any] = {"jitter": 0.0, "masking": 0.0}
    off = quick(CrossEntropyClassifier, max_epochs=1, batch_size=90, **params).fit(X, y)
    none = quick(CrossEntropyClassifier, max_epochs=1, batch_size=90, augmentation=None).fit(X, y)
    np.testing.assert_allclose(off.predict_proba(X), none.predict_proba(X), atol=1e-5)


# Names that other libraries use.

ELSEWHERE: dict[str, str] = {
    "learning_rate": "Did you mean 'lr'",
    "eta0": "Did you mean 'lr'",
    "weight_decay": "Did you mean 'optimizer__weight_decay'",
    "momentum": "Did you mean 'optimizer__momentum'",
    "early_stopping": r"callbacks=\[skorch.callbacks.EarlyStopping",
    "patience": r"callbacks=\[skorch.callbacks.EarlyStopping",
    "tol": r"callbacks=\[skorch.callbacks.EarlyStopping",
    "n_jobs": r"It has none: .*torch.set_num_threads",
    "class_weight": "It has none: .*sample_weight",
    "warm_start": "It has none: .*fine_tune",
    "train_split": "Did you mean 'validation_fraction'",
    "criterion": r"It has none: .*_fit\(data\)",
    "compile": "It has none",
    "epochs": "Did you mean 'max_epochs'",
    "n_epochs": "Did you mean 'max_epochs'",
    "max_iter": "Did you mean 'max_epochs'",
    "batch": "Did you mean 'batch_size'",
    "optimizer_params": "optimizer__momentum=0.9",
    "dropout": "Did you mean 'module__dropout'",
    "hidden_layer_sizes": "Did you mean 'module__width'",
    "random_seed": "Did you mean 'random_state'",
    "seed": "Did you mean 'random_state'",
    "model": "Did you mean 'module'",
    "n_classes": "It has none: .*from y",
    "predict_nonlinearity": "It has none: predict_proba",
    "validation_data": "X_val and y_val",
    "Learning_Rate": "Did you mean 'lr'",
    "criterion__weight": "It has none",
    "iterator_train__shuffle": "It has none",
    "train_split__cv": "Did you mean 'validation_fraction'",
    "optimizer__learning_rate": "Did you mean 'lr'",
    "optimizer__l2": "Did you mean 'optimizer__weight_decay'",
    "module__hidden_layer_sizes": "Did you mean 'module__width'",
    "module__n_layers": "Did you mean 'module__depth'",
    "optimizer_momentum": "Did you mean 'optimizer__momentum'",
    "module_depht": "Did you mean 'module__depth'",
    "callbacks__EarlyStopping__patience": "one of the callbacks.*'epoch_timer'.*'EarlyStopping'",
}


@pytest.mark.parametrize("name, message", ELSEWHERE.items(), ids=ELSEWHERE)
def test_parameter__by_the_name_of_another_library__gets_the_remedy(
    name: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        quick(CrossEntropyClassifier, **{name: 1}).fit(*blobs(20, 2))
    if "__" not in name:
        with pytest.raises(ValueError, match=message):
            CrossEntropyClassifier().set_params(**{name: 1})
    hinted = re.findall(r"Did you mean '(\w+)'", str(error.value))
    params = {h: CrossEntropyClassifier().get_params().get(h, 0.5) for h in hinted}
    for own in params.keys() & {"module__width", "module__depth"}:
        params[own] = 2
    quick(CrossEntropyClassifier, **params | {"max_epochs": 1, "batch_size": 8, "lr": 0.1}).fit(
        *blobs(20, 2)
    )


@pytest.mark.parametrize(
    "name", ["foo", "alphabet", "module_foo", "optimizer_foo", "module__foo", "optimizer__foo"]
)
def test_parameter__like_no_other__gets_no_suggestion(name: str) -> None:
    with pytest.raises(ValueError, match=f"Invalid parameter '{name}'") as error:
        quick(CrossEntropyClassifier, **{name: 1}).fit(*blobs(20, 2))
    assert "Did you mean" not in str(error.value)


def test_synonyms__lead_to_parameters_that_exist() -> None:
    own = FlywheelClassifier().get_params().keys() | parameter_names(FlywheelClassifier)
    optimizers = torch.optim.SGD, torch.optim.Adam
    takes = {"module": parameter_names(MLP)}
    takes["optimizer"] = {name for kind in optimizers for name in parameter_names(kind)}
    for ours in set(NAMES.values()):
        prefix, _, rest = ours.partition("__")
        assert (rest in takes[prefix]) if rest else (ours in own), ours
    assert not NAMES.keys() & (REMEDIES.keys() | own)
    assert not REMEDIES.keys() & own


@pytest.mark.parametrize("device", ["gpu", "cuda:99", 99, "mps:5", "Cuda", None, 1.5, "meta"])
def test_device__that_is_not_there__is_an_error_in_our_words(device: Any) -> None:
    with pytest.raises(ValueError, match="device must be one that torch can use.*Pass 'auto'"):
        quick(CrossEntropyClassifier, device=device).fit(*blobs(20, 2))


# What skorch has and a method has not.


@pytest.mark.parametrize("name", IGNORED)
def test_attribute_of_skorch__in_a_subclass__is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=rf"Own must not set {name}: .* never reads it\. \w+"):
        type("Own", (CrossEntropyClassifier,), {name: object()})


def test_function_of_skorch__in_a_method_of_ones_own__may_be_a_helper() -> None:
    class WithStep(Plain):
        def train_step(self, x: Tensor, labels: Tensor) -> None:
            self._descend(torch.nn.functional.cross_entropy(self.module_(x), labels))

        def _fit(self, data: TrainingData) -> None:
            for _ in self._epochs():
                for _, x, labels in data.batches("plain", labelled=True):
                    self.train_step(x, labels)

    X, y = blobs(60)
    np.testing.assert_array_equal(
        quick(WithStep).fit(X, y).predict_proba(X), quick(Plain).fit(X, y).predict_proba(X)
    )


# Before and during fit.

FITTED = ["label_quality_", "classes_", "module_", "corrected_labels_", "n_iter_", "n_features_in_"]


@pytest.mark.parametrize("name", FITTED)
def test_fitted_attribute__before_fit__says_fit_first(name: str) -> None:
    estimators: Any = [FlywheelClassifier(), EchoAlignClassifier(), EchoSelect()]
    for estimator in estimators:
        assert not hasattr(estimator, name)
        if name in fitted_names(estimator.__class__):
            with pytest.raises(NotFittedError, match=rf"{name} is known when.*Call fit\(X, y\)"):
                getattr(estimator, name)


def test_attribute__that_nothing_writes__is_an_ordinary_error() -> None:
    with pytest.raises(AttributeError, match="object has no attribute 'surprise_'") as error:
        CrossEntropyClassifier().surprise_  # type: ignore[attr-defined]  # noqa: B018
    assert not isinstance(error.value, NotFittedError)
    fitted = quick(CrossEntropyClassifier, max_epochs=1).fit(*blobs(20, 2))
    with pytest.raises(AttributeError, match="object has no attribute 'feature_names_in_'"):
        fitted.feature_names_in_  # noqa: B018


def test_label_issues__in_a_callback__says_that_fit_must_end() -> None:
    class Curious(Callback):
        def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
            net.label_issues()

    with pytest.raises(NotFittedError, match="known when fit has ended. Got a call while it runs"):
        quick(CrossEntropyClassifier, callbacks=[Curious()]).fit(*blobs(20, 2))


def test_label_issues__in_a_pipeline__has_the_index_of_y() -> None:
    X, y = blobs(60)
    index = pd.Index([f"row{i}" for i in range(60)])
    pipeline = make_pipeline(StandardScaler(), quick(CrossEntropyClassifier, max_epochs=2))
    pipeline.fit(pd.DataFrame(X, index=index), pd.Series(y, index=index))
    assert pipeline[-1].label_issues().index.tolist() == index.tolist()


def test_repr__shows_what_was_set() -> None:
    clf = CrossEntropyClassifier(lr=0.3, max_epochs=5, module__width=4)
    assert repr(clf) == "CrossEntropyClassifier(lr=0.3, max_epochs=5, module__width=4)"
    assert repr(clf.fit(*blobs(20, 2))) == repr(clone(clf))


# Rows held out.


def test_validation_fraction__of_fewer_rows_than_classes__holds_out_what_it_can() -> None:
    X, y = np.random.default_rng(0).normal(size=(200, 4)), np.arange(200) % 40
    clf = quick(CrossEntropyClassifier, max_epochs=2, validation_fraction=0.1).fit(X, y)
    assert clf.n_rows_ == 180
    assert np.isfinite(clf.history_[:, "valid_loss"]).all()
    most = quick(CrossEntropyClassifier, max_epochs=2, validation_fraction=0.9).fit(X, y)
    assert most.n_rows_ == 20


def test_validation_fraction__that_leaves_no_row__is_an_error_in_our_words() -> None:
    with pytest.raises(ValueError, match="validation_fraction must leave two rows.*0.99 of 20"):
        quick(CrossEntropyClassifier, validation_fraction=0.99).fit(*blobs(20, 2))


# Embeddings.


def test_transform_gives_the_embeddings_of_the_network() -> None:
    X, y = blobs(60)
    clf = quick(CrossEntropyClassifier, module=Perceptron, module__hidden=5).fit(X, y)
    x = torch.as_tensor(X).float()
    network = clf.module_.network.eval()
    hidden = network[1](network[0]((x - clf.module_.mean) / clf.module_.std))
    np.testing.assert_allclose(clf.transform(X), hidden.detach(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        clf.transform(X), features.embeddings(clf.module_.eval(), x).detach(), rtol=1e-4, atol=1e-5
    )
    assert clf.transform(X).dtype == np.float32
    assert clf.transform(X).shape == (60, 5)


@pytest.mark.parametrize("kind", ["table", "image"])
def test_fit_transform_is_fit_then_transform(kind: str) -> None:
    X, y = blobs(60) if kind == "table" else images(60)
    clf = quick(CrossEntropyClassifier, max_epochs=2)
    np.testing.assert_array_equal(clf.fit_transform(X, y), clf.fit(X, y).transform(X))


def test_feature_names_count_the_embeddings() -> None:
    clf = quick(CrossEntropyClassifier, module__width=4).fit(*blobs(60))
    expected = [f"crossentropyclassifier{i}" for i in range(4)]
    assert clf.get_feature_names_out().tolist() == expected


def test_set_output__pandas__gives_a_frame_with_the_index_of_the_rows() -> None:
    X, y = blobs(60)
    frame = pd.DataFrame(X, index=range(100, 160), columns=list("abcdefgh"))
    clf = quick(CrossEntropyClassifier, module__width=4).set_output(transform="pandas")
    embedded = clf.fit(frame, y).transform(frame)
    assert embedded.columns.tolist() == clf.get_feature_names_out().tolist()
    assert embedded.index.tolist() == frame.index.tolist()
    plain = quick(CrossEntropyClassifier, module__width=4).fit(X, y).transform(X)
    np.testing.assert_array_equal(embedded.to_numpy(), plain)


# Labels.


@pytest.mark.parametrize("cls", [CrossEntropyClassifier, FlywheelClassifier, Plain])
def test_score_labels__new_rows__are_low_where_flipped(cls: type[NoisyLabelClassifier]) -> None:
    X, y = blobs(500)
    noisy = symmetric(y, 0.3, random_state=0)
    clf = quick(cls, max_epochs=15).fit(X[:300], noisy.labels[:300])
    scores = clf.score_labels(X[300:], noisy.labels[300:])
    assert scores.shape == (200,)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert roc_auc_score(~noisy.flipped[300:], scores) > 0.9


def test_score_labels__unknown_label__is_an_error() -> None:
    clf = quick(CrossEntropyClassifier).fit(*blobs(60))
    with pytest.raises(ValueError, match=r"among the classes seen in fit.*\['9'\]"):
        clf.score_labels(blobs(60)[0], np.full(60, 9))


def test_score_labels__other_number_of_rows__is_an_error() -> None:
    X, y = blobs(60)
    clf = quick(CrossEntropyClassifier).fit(X, y)
    with pytest.raises(ValueError, match="as many rows|inconsistent"):
        clf.score_labels(X, y[:-1])


def test_validation_set__other_number_of_labels__is_an_error() -> None:
    X, y = blobs(60)
    with pytest.raises(ValueError, match="as many rows|inconsistent"):
        quick(CrossEntropyClassifier).fit(X, y, X_val=X[:10], y_val=y[:9])


@pytest.mark.parametrize("margin", [0.0, 0.4, 1.0])
def test_correction_margin__keeps_labels_that_are_believed_nearly_as_much(margin: float) -> None:
    X, y = blobs()
    labels = symmetric(y, 0.3, random_state=0).labels
    clf = quick(CrossEntropyClassifier, correction_margin=margin).fit(X, labels)
    expected = []
    for i in range(len(X)):
        belief = clf.label_distribution_[i]
        kept = belief.max() - belief[labels[i]] <= margin
        expected.append(labels[i] if kept else belief.argmax())
    assert clf.corrected_labels_.tolist() == expected
    assert ((clf.corrected_labels_ != labels).sum() > 0) == (margin < 1)


def test_transition_matrix_covers_all_rows() -> None:
    X, y = blobs()
    labels = symmetric(y, 0.3, random_state=0).labels
    clf = quick(CrossEntropyClassifier, validation_fraction=0.3).fit(X, labels)
    expected = np.zeros((3, 3))
    for i in range(len(X)):
        for true in range(3):
            expected[true, labels[i]] += clf.label_distribution_[i, true]
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(clf.transition_matrix_, expected, rtol=1e-5)


def test_flywheel__its_own_attributes__cover_the_training_rows() -> None:
    X, y = blobs()
    clf = quick(FlywheelClassifier, max_epochs=12).fit(X, symmetric(y, 0.3, random_state=0).labels)
    assert clf.clean_probability_.shape == (240,)
    assert 0 < clf.gamma_ < 1
    np.testing.assert_allclose(clf.corruption_matrix_.sum(1), 1, rtol=1e-5)
    assert (clf.corruption_matrix_.diagonal() == 0).all()


# Within scikit-learn.


def test_cross_val_predict__probabilities__come_in_the_order_of_the_rows() -> None:
    X, y = blobs()
    probs = cross_val_predict(quick(CrossEntropyClassifier), X, y, cv=3, method="predict_proba")
    assert (probs.argmax(1) == y).mean() > 0.9


def test_clean_mask__in_cross_validation__is_sliced_with_the_rows() -> None:
    X, y = blobs(90)
    y[:30] = -1
    mask = np.arange(90) >= 60  # without slicing, a trusted row would have no label
    clf = quick(CrossEntropyClassifier, missing_label=-1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = cross_val_score(
            clf, X[:90], y, cv=3, params={"clean_mask": mask}, error_score="raise"
        )
    assert np.isfinite(scores).all()


def test_pipeline__passes_the_embeddings_on() -> None:
    X, y = blobs()
    pipeline = make_pipeline(quick(CrossEntropyClassifier), StandardScaler(), quick(Plain))
    assert pipeline.fit(X, y).score(X, y) > 0.9


def test_no_partial_fit_is_offered() -> None:
    assert not hasattr(CrossEntropyClassifier(), "partial_fit")


def test_parameters__in_the_signature__are_those_of_get_params() -> None:
    params = FlywheelClassifier().get_params()
    assert {"lr", "max_epochs", "warmup_epochs", "device"} <= params.keys()
    assert not [name for name in params if name.startswith("_") or name.endswith("_")]
    assert not {"kwargs", "criterion", "iterator_train"} & params.keys()


def test_initialize__before_fit__is_an_error_that_says_so() -> None:
    with pytest.raises(NoisyFitError, match=r"Call fit\(X, y\)"):
        CrossEntropyClassifier().initialize()


def test_networks__of_two__start_differently() -> None:
    clf = quick(FlywheelClassifier, max_epochs=2, lr=1e-9).fit(*blobs(60))
    first, second = clf.module_.network, clf.main_.network
    assert not torch.allclose(first[0].weight, second[0].weight, atol=1e-3)


def test_networks__of_two__from_an_instance__start_differently() -> None:
    network = Linear(8, 3)
    clf = quick(FlywheelClassifier, module=network, max_epochs=2, lr=1e-9).fit(*blobs(60))
    assert torch.allclose(clf.module_.network[0].weight, network[0].weight, atol=1e-4)  # type: ignore[arg-type]
    assert not torch.allclose(clf.main_.network[0].weight, network[0].weight, atol=1e-3)  # type: ignore[arg-type]


def test_networks__of_two__from_a_trained_instance__ask_for_a_factory() -> None:
    trained = quick(CrossEntropyClassifier).fit(*blobs(60)).module_.network
    with pytest.raises(ValueError, match="it was trained before. Pass a class or a function"):
        quick(FlywheelClassifier, module=trained).fit(*blobs(60))


def test_input_statistics_are_those_of_the_rows() -> None:
    X, y = blobs()
    clf = quick(CrossEntropyClassifier, max_epochs=2).fit(X, y)
    np.testing.assert_allclose(clf.module_.mean, X.mean(0), rtol=1e-5)
    np.testing.assert_allclose(clf.module_.std, X.std(0), rtol=1e-5)


@pytest.mark.gpu
def test_on_a_gpu__auto_device_and_precision__are_used() -> None:
    X, y = images()
    clf = CrossEntropyClassifier(max_epochs=4, batch_size=16, random_state=0).fit(X, y)
    assert clf.device_.type == "cuda"
    assert resolve_precision("auto", clf.device_, (3, 12, 10)) == torch.bfloat16
    assert clf.score(X, y) > 0.8


# Callbacks.


def test_callback_that_watches_held_out_rows__without_any__says_how_to_hold_rows_out() -> None:
    X, y = blobs()
    clf = quick(CrossEntropyClassifier, callbacks=[EarlyStopping()])
    with pytest.raises(ValueError, match="held-out rows.*'valid_loss'.*Pass validation_fraction"):
        clf.fit(X, y)
    clf.set_params(validation_fraction=0.2).fit(X, y)
    clf.set_params(callbacks=[EarlyStopping("valid_los")])
    with pytest.raises(KeyError, match="valid_los' was not found"):
        clf.fit(X, y)


# Found by mutants.


def test_best_losses__of_every_epoch__are_the_smallest_so_far() -> None:
    X, y = blobs(60)
    clf = quick(CrossEntropyClassifier, max_epochs=8, lr=0.5).fit(X, y)
    losses = clf.history_[:, "train_loss"]
    assert clf.history_[:, "train_loss_best"] == [
        loss == min(losses[: i + 1]) for i, loss in enumerate(losses)
    ]
    assert losses != sorted(losses, reverse=True)  # else it would say nothing


def test_load_params__leaves_the_device_as_the_user_named_it(tmp_path: Path) -> None:
    X, y = blobs(60)
    clf = quick(CrossEntropyClassifier, device="auto").fit(X, y)
    clf.save_params(f_params=tmp_path / "weights.pt")
    clf.load_params(f_params=tmp_path / "weights.pt")
    assert clf.device == "auto"


def test_validation_fraction__a_row_for_each_class__holds_out_each_once() -> None:
    X, y = blobs(60)
    held_out: list[Any] = []

    class Watcher(Callback):
        def on_epoch_begin(self, net: Any, dataset_valid: Any = None, **kwargs: Any) -> None:
            held_out.append(sorted(int(dataset_valid[i][1]) for i in range(len(dataset_valid))))

    n_classes = len(np.unique(y))
    fraction = n_classes / len(y)
    callbacks = [Watcher()]
    quick(CrossEntropyClassifier, validation_fraction=fraction, callbacks=callbacks).fit(X, y)
    assert held_out[0] == list(range(n_classes))


def test_seeds__of_many_states__are_drawn_from_far_and_wide() -> None:
    X, y = blobs(12)
    brief = {"max_epochs": 1, "module": "mlp"}
    seeds = [
        quick(CrossEntropyClassifier, **brief | {"random_state": s}).fit(X, y).seed_
        for s in range(3)
    ]
    assert max(seeds) > 10**6
