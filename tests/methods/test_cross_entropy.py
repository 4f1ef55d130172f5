"""The loss with weights of rows by hand, and a fitted network that goes on learning."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.utils.validation import has_fit_parameter
from torch import Tensor, nn

from noisyfit import (
    CrossEntropyClassifier,
    ELRClassifier,
    GCEClassifier,
    MixUpClassifier,
    NoisyFitError,
    NoisyFitWarning,
    SymmetricCrossEntropyClassifier,
)
from noisyfit.benchmark.memory import peak_memory
from noisyfit.data.rows import Rows
from noisyfit.data.training import TrainingData
from tests.helpers import Arrays, Doom, Fate, Linear, all_estimators, blobs, images, quick

WEIGHING: dict[str, Any] = {
    "cross-entropy": (CrossEntropyClassifier, {}),
    "ELR": (ELRClassifier, {}),
    "ELR+": (ELRClassifier, {"n_networks": 2}),
    "GCE": (GCEClassifier, {"warmup_epochs": 0}),
    "MixUp": (MixUpClassifier, {}),
    "symmetric": (SymmetricCrossEntropyClassifier, {}),
}
every_weighing = pytest.mark.parametrize(("cls", "own"), WEIGHING.values(), ids=WEIGHING)
REFUSING = [cls for cls in all_estimators() if not vars(cls).get("_weighs_rows")]
REFUSING.remove(CrossEntropyClassifier)
OWN_LOSSES = [cls for cls in all_estimators() if cls is not CrossEntropyClassifier]
PLAIN_STEPS: dict[str, Any] = {
    "optimizer__momentum": 0.0,
    "optimizer__weight_decay": 0.0,
    "augmentation": None,
    "lr_schedule": "constant",
}


class Zero(nn.Sequential):
    """A linear layer that starts at zero."""

    def __init__(self, n_features: int, n_classes: int) -> None:
        layer = nn.Linear(n_features, n_classes)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        super().__init__(layer)


def layer_of(clf: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    layer = clf.module_.network[0]
    weight, bias = (p.detach().numpy().astype(np.float64) for p in (layer.weight, layer.bias))
    return weight, bias


def step(
    weight: NDArray[Any], bias: NDArray[Any], X: NDArray[Any], y: Any, weights: Any, lr: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    """One step of gradient descent on the weighted mean of the cross-entropy."""
    slope, offset = np.zeros_like(weight), np.zeros_like(bias)
    for x, label, w in zip(X, y, weights, strict=True):
        logits = weight @ x + bias
        probs = np.exp(logits) / np.exp(logits).sum()
        for k in range(len(bias)):
            error = w / sum(weights) * (probs[k] - (label == k))
            slope[k] += error * x
            offset[k] += error
    return weight - lr * slope, bias - lr * offset


def few_rows() -> Arrays:
    X = np.random.default_rng(0).normal(3, 2, size=(8, 4))
    return X, np.array([0, 1, 2, 0, 1, 2, 0, 1])


# Weights of rows.


def test_weights__one_step__descends_the_weighted_mean() -> None:
    X, y = few_rows()
    weights = np.array([1.0, 0.0, 3.0, 0.5, 2.0, 0.0, 1.0, 4.0])
    clf = quick(CrossEntropyClassifier, module=Zero, max_epochs=1, lr=0.5, **PLAIN_STEPS)
    found = layer_of(clf.fit(X, y, sample_weight=weights))
    scaled = (X - X.mean(0)) / X.std(0)
    expected = step(np.zeros((3, 4)), np.zeros(3), scaled, y, weights, 0.5)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-6)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-6)


@every_weighing
def test_weights__one_step__is_the_weighted_mean_of_the_steps_of_each_row(
    cls: Any, own: dict[str, Any]
) -> None:
    X, y = few_rows()
    start = quick(cls, module=Linear, max_epochs=1, lr=1e-12, **PLAIN_STEPS, **own).fit(X, y)

    def moved(weights: Any) -> NDArray[np.float64]:
        clf = quick(cls, module=Linear, max_epochs=1, lr=0.5, **PLAIN_STEPS, **own)
        return layer_of(clf.fit(X, y, sample_weight=weights))[0] - layer_of(start)[0]

    weights = np.array([1.0, 0.0, 3.0, 0.5, 2.0, 0.0, 1.0, 4.0])
    alone = [moved(row) for row in np.eye(8)]
    expected = sum(w * step for w, step in zip(weights, alone, strict=True)) / sum(weights)
    assert np.ptp(alone, axis=0).max() > 0.05
    np.testing.assert_allclose(moved(weights), expected, atol=1e-5)


@every_weighing
@pytest.mark.parametrize("weight", [1.0, 0.3, 7.0])
def test_weights__all_equal__give_the_bits_of_none(
    cls: Any, own: dict[str, Any], weight: float
) -> None:
    X, y = blobs()
    plain = quick(cls, **own).fit(X, y)
    weighted = quick(cls, **own).fit(X, y, sample_weight=np.full(240, weight))
    np.testing.assert_array_equal(weighted.predict_proba(X), plain.predict_proba(X))
    np.testing.assert_array_equal(weighted.label_quality_, plain.label_quality_)


def test_weights__in_another_unit__change_nothing() -> None:
    X, y = blobs()
    weights = np.random.default_rng(0).random(240)
    first, second = (
        quick(CrossEntropyClassifier).fit(X, y, sample_weight=list(factor * weights))
        for factor in (1, 2.0**-160)  # zero in single precision
    )
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))


@every_weighing
def test_weights__zero__leave_a_label_out_of_the_loss_and_it_is_rated(
    cls: Any, own: dict[str, Any]
) -> None:
    X, y = blobs()
    left_out = np.arange(240) % 4 == 0
    other = np.where(left_out, (y + 1) % 3, y)
    first, second = (
        quick(cls, max_epochs=12, **own).fit(X, given, sample_weight=~left_out)
        for given in (y, other)
    )
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))
    right, wrong = first.label_quality_[left_out], second.label_quality_[left_out]
    assert right.mean() > wrong.mean() + 0.2


def test_weights__rows_held_out__have_none() -> None:
    X, y = blobs()
    seen: set[float] = set()

    def watch(x: Tensor) -> Tensor:
        seen.update(x[:, 0].tolist())
        return x

    settings: dict[str, Any] = {"validation_fraction": 0.25}
    quick(CrossEntropyClassifier, augmentation=watch, **settings).fit(X, y)
    trained_on = np.isin(X[:, 0].astype(np.float32), list(seen))
    weights = np.random.default_rng(0).random(240)
    other = np.where(trained_on, weights, weights[::-1])
    first, second = (
        quick(CrossEntropyClassifier, **settings).fit(X, y, sample_weight=w)
        for w in (weights, other)
    )
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))
    with pytest.raises(ValueError, match="not be zero for all rows that are learned from.*180"):
        quick(CrossEntropyClassifier, **settings).fit(X, y, sample_weight=~trained_on)


def test_weights__follow_their_rows_into_a_subset() -> None:
    rows = Rows(torch.arange(6.0)[:, None], "table", torch.device("cpu"))
    labels, trusted = torch.arange(6) % 2, torch.zeros(6, dtype=torch.bool)
    data = TrainingData(rows, labels, trusted, 2, 4, weights=torch.arange(6.0))
    part = data.subset(torch.tensor([5, 2, 3])).subset(torch.tensor([2, 0]))
    for values in (torch.tensor([1.0, 10.0]), torch.tensor([[1.0], [10.0]])):
        found = part.weighed(values, torch.tensor([0, 1]))
        assert torch.equal(found, torch.tensor([3.0, 50.0]).view(values.shape))


@pytest.mark.parametrize(
    "weights, got",
    [
        (np.ones(239), r"shape \(239,\)"),
        (np.ones((240, 1)), r"shape \(240, 1\)"),
        (3.0, r"shape \(\)"),
        (np.r_[np.ones(239), -1], "values from -1.0 to 1.0"),
        (np.r_[np.ones(239), np.nan], "values from nan"),
        (np.r_[np.ones(239), np.inf], "values from 1.0 to inf"),
        (np.zeros(240), "values from 0.0 to 0.0"),
    ],
)
def test_weights__that_are_none__are_an_error(weights: Any, got: str) -> None:
    message = f"sample_weight must be a finite number of at least 0 for each of the 240.*Got.*{got}"
    with pytest.raises(ValueError, match=message):
        quick(CrossEntropyClassifier).fit(*blobs(), sample_weight=weights)


def test_weights__equal_where_there_is_a_label__give_the_bits_of_none() -> None:
    X, y = blobs()
    y[:100] = -1
    clf = quick(CrossEntropyClassifier, missing_label=-1)
    plain = clf.fit(X, y).predict_proba(X)
    weights = np.where(y < 0, np.arange(240), 0.3)
    np.testing.assert_array_equal(clf.fit(X, y, sample_weight=weights).predict_proba(X), plain)


def test_weights__zero_where_there_is_a_label__are_an_error() -> None:
    X, y = blobs()
    y[:100] = -1
    with pytest.raises(ValueError, match="must not be zero for all rows.*Got zero for all 140"):
        quick(CrossEntropyClassifier, missing_label=-1).fit(X, y, sample_weight=np.arange(240) < 9)


def test_weights__are_part_of_the_run_that_a_checkpoint_is_of(tmp_path: Path) -> None:
    X, y = blobs()
    first, second = np.random.default_rng(0).random((2, 240))
    settings: dict[str, Any] = {"checkpoint_dir": tmp_path, "callbacks": [Doom()]}
    Fate.epoch, Fate.batch, Fate.kill = 3, 0, False
    with pytest.raises(KeyboardInterrupt):
        quick(CrossEntropyClassifier, **settings).fit(X, y, sample_weight=first)
    Fate.epoch = None
    for weights, epochs in ((second, [0, 1, 2, 3, 4, 5]), (first, [3, 4, 5])):
        Fate.begun = []
        clf = quick(CrossEntropyClassifier, **settings).fit(X, y, sample_weight=weights)
        assert Fate.begun == epochs
        alone = quick(CrossEntropyClassifier).fit(X, y, sample_weight=weights)
        np.testing.assert_array_equal(clf.predict_proba(X), alone.predict_proba(X))
    Fate.begun = []


def test_weights__are_routed_and_sliced_by_cross_validation() -> None:
    X, y = blobs()
    weights = np.random.default_rng(0).random(240)
    with config_context(enable_metadata_routing=True):
        clf = quick(CrossEntropyClassifier).set_fit_request(sample_weight=True)
        settings: dict[str, Any] = {"cv": KFold(2), "method": "predict_proba"}
        found = cross_val_predict(clf, X, y, params={"sample_weight": weights}, **settings)
    for fit, held in KFold(2).split(X):
        alone = quick(CrossEntropyClassifier).fit(X[fit], y[fit], sample_weight=weights[fit])
        np.testing.assert_array_equal(found[held], alone.predict_proba(X[held]))


@pytest.mark.parametrize("cls", REFUSING, ids=lambda cls: cls.__name__)
def test_weights__of_a_method_that_weighs_labels_itself__are_refused(cls: Any) -> None:
    X, y = blobs(60)
    assert not has_fit_parameter(cls, "sample_weight")
    assert "sample_weight" not in cls().get_metadata_routing().fit.requests
    message = rf"^{cls.__name__}.fit\(\) got an unexpected keyword argument 'sample_weight'"
    with pytest.raises(TypeError, match=message):
        quick(cls).fit(X, y, sample_weight=np.ones(60))


def test_weights__of_a_subclass_with_its_own_loop__are_not_ignored() -> None:
    """They were, in a subclass that nobody had listed."""

    class Own(CrossEntropyClassifier):
        def _fit(self, data: TrainingData) -> None:
            for _ in self._epochs():
                for _, x, labels in data.batches("weak", labelled=True):
                    self._descend(nn.functional.cross_entropy(self.module_(x), labels))

    assert not has_fit_parameter(Own, "sample_weight")
    with pytest.raises(TypeError, match="unexpected keyword argument 'sample_weight'"):
        quick(Own).fit(*blobs(60), sample_weight=np.ones(60))


def test_warnings_of_fit__point_to_the_line_that_called_it() -> None:
    """A second fit around the first one made them point into the package."""
    X, y = blobs(60)
    with pytest.warns(NoisyFitWarning, match="ignores X_meta") as found:
        quick(CrossEntropyClassifier).fit(X, y, X_meta=X[:10], y_meta=y[:10])
    assert found[0].filename == __file__


def test_weights__of_a_subclass_that_weighs_its_losses__are_taken() -> None:
    class Doubled(CrossEntropyClassifier):
        _weighs_rows: ClassVar = True

        def _fit(self, data: TrainingData) -> None:
            for _ in self._epochs():
                for idx, x, labels in data.batches("weak", labelled=True):
                    losses = 2 * nn.functional.cross_entropy(
                        self.module_(x), labels, reduction="none"
                    )
                    self._descend(data.weighed(losses, idx).mean())

    X, y = blobs(60)
    assert has_fit_parameter(Doubled, "sample_weight")
    weights = np.arange(60)
    weighted, plain = (quick(Doubled).fit(X, y, sample_weight=w) for w in (weights, None))
    assert not np.array_equal(weighted.predict_proba(X), plain.predict_proba(X))
    assert not hasattr(weighted, "fine_tune")


# A fitted network that goes on learning.


def test_fine_tune__one_step__descends_the_mean_under_the_old_input_layer() -> None:
    X, y = few_rows()
    clf = quick(CrossEntropyClassifier, module=Linear, max_epochs=2, lr=0.5, **PLAIN_STEPS)
    before = layer_of(clf.fit(X, y))
    given = np.arange(3), [0, 0, 2]  # no row of class 1, and other columns than in fit
    rows = X[given[0]] + 5
    clf.fine_tune(rows, given[1], epochs=1, lr=0.1)
    scaled = (rows - X.mean(0)) / X.std(0)
    expected = step(*before, scaled, given[1], np.ones(3), 0.1)
    for found, wanted in zip(layer_of(clf), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert clf.predict_proba(X).shape == (8, 3)


def test_fine_tune__groups_of_parameters__keep_their_ratio() -> None:
    X, y = few_rows()
    rates = {"optimizer__lr": 0.2, "optimizer__param_groups": [("0.bias", {"lr": 0.1})]}
    clf = quick(CrossEntropyClassifier, module=Linear, **PLAIN_STEPS, **rates).fit(X, y)
    before, scaled = layer_of(clf), (X - X.mean(0)) / X.std(0)
    clf.fine_tune(X, y, epochs=1, lr=0.3)
    weight, _ = step(*before, scaled, y, np.ones(8), 0.3)
    _, bias = step(*before, scaled, y, np.ones(8), 0.15)
    np.testing.assert_allclose(layer_of(clf)[0], weight, atol=1e-5)
    np.testing.assert_allclose(layer_of(clf)[1], bias, atol=1e-5)


def test_fine_tune__what_is_said_of_the_training_rows__stays() -> None:
    X, y = blobs()
    clf = quick(CrossEntropyClassifier).fit(X, y)
    probs = clf.predict_proba(X)
    kept = {name: vars(clf)[name] for name in ("label_quality_", "label_distribution_", "n_iter_")}
    epochs = len(clf.history_)
    assert clf.fine_tune(X[:40], y[:40], epochs=2, lr=0.01) is clf
    assert not np.array_equal(clf.predict_proba(X), probs)
    assert all(vars(clf)[name] is value for name, value in kept.items())
    assert len(clf.history_) == epochs


def test_fine_tune__twice_the_same__gives_identical_bits_and_leaves_the_global_state() -> None:
    X, y = blobs()
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        clf = quick(CrossEntropyClassifier).fit(X, y).fine_tune(X, y, epochs=2, lr=0.01)
        found.append(clf.predict_proba(X))
        assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(*found)


def test_fine_tune__rows_without_a_label__are_left_out() -> None:
    X, y = blobs()
    part = y[:60].copy()
    part[::2] = -1
    found = []
    for rows, labels in ((X[:60], part), (X[:60][part >= 0], part[part >= 0])):
        clf = quick(CrossEntropyClassifier, module=Linear, missing_label=-1, **PLAIN_STEPS)
        clf.fit(X, y).fine_tune(rows, labels, epochs=1, lr=0.1)
        found.append(clf.predict_proba(X))
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_fine_tune__of_a_loaded_model__goes_on(tmp_path: Path) -> None:
    X, y = images()
    clf = quick(CrossEntropyClassifier, max_epochs=2).fit(X, y)
    clf.save(tmp_path / "model")
    loaded = CrossEntropyClassifier.load(tmp_path / "model", device="cpu")
    for model in (clf, loaded):
        model.fine_tune(X, y, epochs=2, lr=0.01)
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))


def test_fine_tune__data_that_cannot_be_used__are_an_error() -> None:
    X, y = images()
    clf = quick(CrossEntropyClassifier, max_epochs=2, missing_label=-1)
    with pytest.raises(NotFittedError):
        clf.fine_tune(X, y, epochs=1, lr=0.01)
    clf.fit(X, y)
    for rows, labels, params, message in (
        (X, y + 1, {}, r"among the classes seen in fit.*Got \['3'\]"),
        (X * 100.0, y, {}, "scale of fit"),
        (X[..., :1], y, {}, "as in fit"),
        (X, y[:9], {}, "as many rows"),
        (X[:3], [0, -1, -1], {}, "at least two rows with a label. Got 1 of 3"),
        (X, y, {"epochs": 0}, "'epochs' parameter of fine_tune must be an int.*Got 0"),
        (X, y, {"lr": 0.0}, "'lr' parameter of fine_tune must be a float.*Got 0.0"),
    ):
        with pytest.raises(ValueError, match=message):
            clf.fine_tune(rows, labels, **{"epochs": 1, "lr": 0.01} | params)


def test_fine_tune__that_diverges__leaves_the_network_as_it_was() -> None:
    X, y = blobs()
    clf = quick(CrossEntropyClassifier, module=Linear).fit(X, y)
    probs = clf.predict_proba(X)
    with pytest.raises(NoisyFitError, match=r"fine_tune with lr=1e\+30.*Try lr=1e\+29"):
        clf.fine_tune(X, y, epochs=3, lr=1e30)
    np.testing.assert_array_equal(clf.predict_proba(X), probs)


@pytest.mark.parametrize("cls", OWN_LOSSES)
def test_fine_tune__of_a_method_with_another_loss__is_not_offered(cls: Any) -> None:
    assert not hasattr(cls(), "fine_tune")
    with pytest.raises(AttributeError, match=f"'{cls.__name__}'.* has no attribute 'fine_tune'"):
        cls().fine_tune(*blobs(60), epochs=1, lr=0.01)


def test_peak_memory__is_that_of_a_few_beliefs_of_all_rows() -> None:
    n, n_classes = 40_000, 500
    X, y = np.ones((n, 2), dtype=np.float32), np.arange(n) % n_classes
    clf = CrossEntropyClassifier(Linear, max_epochs=1, batch_size=1000, device="cpu")
    clf.fit(X[:1000], y[:1000])  # allocates what stays
    peak = peak_memory(lambda: clf.fit(X, y), on_gpu=False)
    if np.isnan(peak):
        pytest.skip("the system does not report the memory of a process")
    beliefs = 4 * n * n_classes / 1e6
    assert peak < 5 * beliefs  # and what batches need; freed memory may stay with the process
