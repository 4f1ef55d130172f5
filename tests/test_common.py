"""What every estimator promises: scikit-learn's checks, and ours."""

import copy
import io
import json
import os
import pickle
import re
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import has_fit_parameter
from skorch.callbacks import (
    BatchScoring,
    Callback,
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    Freezer,
    GradientNormClipping,
    LoadInitState,
    LRScheduler,
    PrintLog,
    ProgressBar,
    TrainEndCheckpoint,
)
from torch.utils._python_dispatch import TorchDispatchMode

from noisyfit import (
    CrossEntropyClassifier,
    EchoAlignClassifier,
    NoisyFitError,
    NoisyFitWarning,
    NoisyLabelClassifier,
)
from noisyfit.estimator.warmup import WarmUp
from noisyfit.noise import symmetric
from tests.common import (
    Arrays,
    CLIDDivideMixClassifier,
    ELRPlusClassifier,
    GradientNorms,
    LearningRates,
    Linear,
    PairDataset,
    Perceptron,
    Predictions,
    all_estimators,
    as_memmap,
    blobs,
    images,
    make_perceptron,
    optimizers,
    quick,
    seeded_perceptron,
)

ESTIMATORS = [*all_estimators(), ELRPlusClassifier, CLIDDivideMixClassifier]
FULL = {"CrossEntropyClassifier"}  # names that scikit-learn's checks run at their defaults
FEW: dict[str, Any] = {"max_epochs": 12}  # the others: their defaults take longer than 40 s
SEEDS = (0, 1, 2)

Estimator = type[NoisyLabelClassifier]
every_estimator = pytest.mark.parametrize("cls", ESTIMATORS, ids=lambda cls: cls.__name__)
every_classifier = pytest.mark.parametrize(
    "cls", [*ESTIMATORS, EchoAlignClassifier], ids=lambda cls: cls.__name__
)


def test_estimators_are_found_by_folder() -> None:
    names = {cls.__name__ for cls in ESTIMATORS}
    assert {"CrossEntropyClassifier", "FlywheelClassifier"} <= names


def not_promised(estimator: Any) -> dict[str, str]:
    """Name the checks that cannot hold, and why."""
    batches = "a row left out or repeated makes other mini-batches than a weight"
    check = "check_sample_weight_equivalence_on_dense_data"
    return {check: batches} if has_fit_parameter(estimator, "sample_weight") else {}


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [cls(**({} if cls.__name__ in FULL else FEW)) for cls in ESTIMATORS],
    expected_failed_checks=not_promised,
)
def test_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


# What it is for.


@every_estimator
def test_quality_ranks_flipped_labels_low(cls: Estimator) -> None:
    found = []
    for seed in SEEDS:
        X, y = blobs(300, 4, seed)
        noisy = symmetric(y, 0.3, random_state=seed)
        clf = quick(cls, max_epochs=15, random_state=seed).fit(X, noisy.labels)
        found.append(roc_auc_score(~noisy.flipped, clf.label_quality_))
    assert np.mean(found) >= 0.9


@every_estimator
def test_issues_name_mostly_flipped_labels(cls: Estimator) -> None:
    X, y = blobs(300)
    noisy = symmetric(y, 0.3, random_state=0)
    clf = quick(cls, max_epochs=15).fit(X, noisy.labels)
    issue = clf.label_issues()["is_label_issue"].to_numpy()
    assert noisy.flipped[issue].mean() > 0.8
    assert issue[noisy.flipped].mean() > 0.5
    assert (clf.corrected_labels_ == y).mean() > (noisy.labels == y).mean() + 0.1


@every_estimator
def test_clean_labels_do_no_harm(cls: Estimator) -> None:
    lost = []
    for seed in SEEDS:
        X, y = blobs(400, 4, seed)
        reference = LogisticRegression(max_iter=1000).fit(X[:300], y[:300])
        clf = quick(cls, max_epochs=15, random_state=seed).fit(X[:300], y[:300])
        lost.append(reference.score(X[300:], y[300:]) - clf.score(X[300:], y[300:]))
    assert np.mean(lost) <= 0.03


@every_estimator
def test_transition_matrix__symmetric_noise__has_its_diagonal_in_reach(cls: Estimator) -> None:
    X, y = blobs(400)
    noisy = symmetric(y, 0.3, random_state=0)
    clf = quick(cls, max_epochs=15).fit(X, noisy.labels)
    np.testing.assert_allclose(clf.transition_matrix_.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(clf.transition_matrix_.diagonal(), 0.7, atol=0.2)


# Reproducible, and without side effects.


@every_estimator
def test_same_random_state__gives_identical_bits(cls: Estimator) -> None:
    X, y = blobs()
    first, second = (quick(cls).fit(X, y) for _ in range(2))
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))
    np.testing.assert_array_equal(first.label_quality_, second.label_quality_)
    other = quick(cls, random_state=1).fit(X, y)
    assert not np.array_equal(first.predict_proba(X), other.predict_proba(X))


@every_estimator
@pytest.mark.parametrize("make", [blobs, partial(images, 150)], ids=["table", "image"])
@pytest.mark.filterwarnings("error")
def test_whole_life__gives_no_warning(
    cls: Estimator, make: Callable[[], Arrays], tmp_path: Path
) -> None:
    X, y = make()
    X.setflags(write=False)
    y.setflags(write=False)
    ends: dict[str, Any] = (
        {"warmup_epochs": 1} if issubclass(cls, WarmUp) else {}
    )  # else it would be said
    clf = quick(cls, max_epochs=20, validation_fraction=0.2, **ends).fit(X, y)
    clf.predict(X), clf.transform(X), clf.score_labels(X, y), clf.label_issues()
    clf.save(tmp_path / "model")
    pickle.loads(pickle.dumps(cls.load(tmp_path / "model", device="cpu")))


@every_estimator
def test_global_random_state_is_left_alone(cls: Estimator) -> None:
    X, y = blobs()
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state(legacy=False)
    clf = quick(cls, validation_fraction=0.2).fit(X, y)
    clf.predict(X), clf.transform(X), clf.score_labels(X, y)
    assert torch.equal(torch.get_rng_state(), torch_before)
    numpy_after = np.random.get_state(legacy=False)
    np.testing.assert_equal(numpy_after, numpy_before)


@every_estimator
def test_global_random_state_does_not_reach_a_seeded_fit(cls: Estimator) -> None:
    X, y = blobs()
    torch.manual_seed(1)
    first = quick(cls).fit(X, y).predict_proba(X)
    torch.manual_seed(2)
    np.testing.assert_array_equal(quick(cls).fit(X, y).predict_proba(X), first)


@every_estimator
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


@every_estimator
def test_fit_leaves_the_data_as_they_were(cls: Estimator) -> None:
    X, y = blobs()
    X = X.astype(np.float32)
    X_before, y_before = X.copy(), y.copy()
    quick(cls).fit(X, y).predict(X)
    np.testing.assert_array_equal(X, X_before)
    np.testing.assert_array_equal(y, y_before)


@every_estimator
def test_clone_carries_parameters_and_no_state(cls: Estimator) -> None:
    X, y = blobs()
    clf = quick(cls, module="mlp", module__width=16, optimizer__momentum=0.5).fit(X, y)
    fresh = clone(clf)
    assert fresh.get_params() == clf.get_params()
    assert [name for name in vars(fresh) if name.endswith("_")] == []
    assert not hasattr(fresh, "classes_")
    np.testing.assert_array_equal(fresh.fit(X, y).predict_proba(X), clf.predict_proba(X))


@every_estimator
def test_second_fit_starts_afresh(cls: Estimator) -> None:
    X, y = blobs()
    clf = quick(cls).fit(*blobs(100, 5, seed=3))
    clf.fit(X, y)
    np.testing.assert_array_equal(clf.predict_proba(X), quick(cls).fit(X, y).predict_proba(X))
    assert clf.label_quality_.shape == (240,)
    assert len(clf.history_) == clf.n_iter_ == 6


# Networks.

MODULES: dict[str, dict[str, Any]] = {
    "name": {"module": "mlp"},
    "class": {"module": Perceptron, "module__hidden": 24},
    "factory": {"module": make_perceptron},
    "instance": {"module": seeded_perceptron()},
}


@every_estimator
@pytest.mark.parametrize("params", MODULES.values(), ids=MODULES)
def test_module__every_form__learns(cls: Estimator, params: dict[str, Any]) -> None:
    X, y = blobs()
    clf = quick(cls, max_epochs=12, batch_size=24, **params).fit(X, y)
    assert clf.score(X, y) > 0.9
    if "module__hidden" in params:
        assert clf.transform(X).shape == (240, 24)


@every_estimator
def test_module__parameters_are_routed_through_a_grid_search_in_a_pipeline(cls: Estimator) -> None:
    X, y = blobs(150)
    pipeline = make_pipeline(StandardScaler(), quick(cls, max_epochs=4))
    step = pipeline.steps[-1][0]
    grid = {f"{step}__module__width": [8, 16]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X, y)
    best = search.best_params_[f"{step}__module__width"]
    assert search.best_estimator_.transform(X).shape == (150, best)
    assert search.best_estimator_[-1].get_params()["module__width"] == best


# Labels.


def as_series(codes: NDArray[Any]) -> pd.Series:
    index = [f"row{i}" for i in range(len(codes))][::-1]
    return pd.Series(np.array(["cat", "dog"])[codes], index=index)


LABELS: dict[str, Callable[[NDArray[Any]], Any]] = {
    "strings": lambda codes: np.array(["cat", "dog"])[codes],
    "object strings": lambda codes: np.array(["cat", "dog"], dtype=object)[codes],
    "bool": lambda codes: codes.astype(bool),
    "5 and 7": lambda codes: np.array([5, 7])[codes],
    "-1 and 1": lambda codes: np.array([-1, 1])[codes],
    "list": lambda codes: np.array(["cat", "dog"])[codes].tolist(),
    "series": as_series,
    "categorical series": lambda codes: as_series(codes).astype("category"),
    "tensor": lambda codes: torch.as_tensor(codes),
}


@every_estimator
@pytest.mark.parametrize("make", LABELS.values(), ids=LABELS)
def test_labels__any_kind__come_back_as_they_came(
    cls: Estimator, make: Callable[[NDArray[Any]], Any]
) -> None:
    X, codes = blobs(150, 2)
    y = make(codes)
    given = np.asarray(y)
    clf = quick(cls).fit(X, y)
    predicted = clf.predict(X)
    assert clf.classes_.tolist() == sorted(set(given.tolist()))
    assert predicted.dtype == clf.corrected_labels_.dtype == clf.classes_.dtype
    assert isinstance(predicted.tolist()[0], type(given.tolist()[0]))
    assert (predicted == given).mean() > 0.9
    assert (clf.corrected_labels_ == given).mean() > 0.9
    assert (clf.score_labels(X, y) > 0.5).mean() > 0.8
    np.testing.assert_array_equal(
        clf.label_quality_, quick(cls).fit(X, codes).label_quality_, strict=True
    )


@every_estimator
def test_label_issues_has_the_index_of_the_frame_and_the_columns_of_cleanlab(
    cls: Estimator,
) -> None:
    X, y = blobs(60)
    index = [f"id{i}" for i in range(60)][::-1]
    frame = pd.DataFrame(X, index=index, columns=[f"c{i}" for i in range(8)])
    clf = quick(cls).fit(frame, pd.Series(y, index=index))
    issues = clf.label_issues()
    assert issues.index.tolist() == index
    assert issues.columns.tolist() == [
        "is_label_issue", "label_quality", "given_label", "predicted_label",
    ]  # fmt: skip
    assert issues["is_label_issue"].dtype == bool
    assert issues["given_label"].tolist() == y.tolist()
    np.testing.assert_array_equal(issues["label_quality"], clf.label_quality_)
    np.testing.assert_array_equal(
        issues["predicted_label"], clf.classes_[clf.label_distribution_.argmax(1)]
    )


@every_estimator
def test_class_with_one_row__is_kept(cls: Estimator) -> None:
    X, y = blobs(60, 2)
    y[7] = 9
    clf = quick(cls).fit(X, y)
    assert clf.classes_.tolist() == [0, 1, 9]
    assert clf.predict_proba(X).shape == clf.label_distribution_.shape == (60, 3)
    assert np.isfinite(clf.predict_proba(X)).all()
    assert (clf.predict(np.delete(X, 7, 0)) == np.delete(y, 7)).mean() > 0.85


def rare_class() -> tuple[NDArray[Any], NDArray[Any]]:
    """Two classes that are easy to tell apart, one of 3 % of the rows, and wrong labels in it."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 8)) + 4 * (np.arange(300) >= 291)[:, None]
    y = np.where(np.arange(300) >= 291, "rare", "common")
    y[:4] = "rare"
    return X, y


@every_estimator
@pytest.mark.parametrize("max_epochs", [2, 30])
def test_rare_class__is_predicted_or_its_loss_is_said(cls: Estimator, max_epochs: int) -> None:
    X, y = rare_class()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clf = quick(cls, max_epochs=max_epochs).fit(X, y)
    said = [str(w.message) for w in caught if "Got none for 1 of 2: 'rare'" in str(w.message)]
    lost = "rare" not in clf.predict(X)
    assert bool(said) == lost
    assert not said or "(13 labels)" in said[0]


@every_estimator
@pytest.mark.parametrize("n", [2, 3, 129])
def test_few_rows_or_a_rest_of_one__are_trained_on(cls: Estimator, n: int) -> None:
    X, y = blobs(n, 2)
    y[:2] = 0, 1
    clf = quick(cls).fit(X, y)
    assert clf.label_quality_.shape == (n,)
    assert np.isfinite(clf.label_quality_).all()
    assert np.isfinite(clf.history_[:, "train_loss"]).all()
    assert clf.predict_proba(X[:1]).shape == (1, 2)


@every_estimator
@pytest.mark.parametrize("make", [blobs, images], ids=["table", "image"])
def test_one_row_is_predicted_as_in_a_crowd(cls: Estimator, make: Callable[[], Arrays]) -> None:
    X, y = make()
    clf = quick(cls, max_epochs=3).fit(X, y)
    alone = np.concatenate([clf.predict_proba(row[None]) for row in X[:5]])
    np.testing.assert_allclose(alone, clf.predict_proba(X)[:5], rtol=1e-5)


@every_estimator
def test_beliefs_are_probabilities(cls: Estimator) -> None:
    X, y = blobs()
    clf = quick(cls).fit(X, symmetric(y, 0.3, random_state=0).labels)
    np.testing.assert_allclose(clf.label_distribution_.sum(1), 1, rtol=1e-5)
    assert ((clf.label_quality_ >= 0) & (clf.label_quality_ <= 1)).all()
    assert np.unique(clf.label_quality_).size > 100


# Rows without a label, trusted rows, meta and validation sets.

MISSING: dict[str, tuple[Any, Callable[[NDArray[Any]], NDArray[Any]], Any]] = {
    "-1": (-1, lambda codes: codes.copy(), -1),
    "nan among numbers": (np.nan, lambda codes: codes.astype(float), np.nan),
    "nan among objects": (np.nan, lambda codes: np.array(list("abc"), object)[codes], np.nan),
    "None among objects": (np.nan, lambda codes: np.array(list("abc"), object)[codes], None),
    "empty string": ("", lambda codes: np.array(list("abc"))[codes], ""),
}


@every_estimator
@pytest.mark.parametrize("marker, make, mark", MISSING.values(), ids=MISSING)
def test_rows_without_a_label__are_predicted_and_never_issues(
    cls: Estimator, marker: Any, make: Callable[[NDArray[Any]], NDArray[Any]], mark: Any
) -> None:
    X, codes = blobs(150)
    y = make(codes)
    complete = y.copy()
    y[::5] = mark
    right = []
    for seed in range(6):
        clf = quick(cls, max_epochs=10, missing_label=marker, random_state=seed).fit(X, y)
        assert clf.classes_.tolist() == np.unique(complete).tolist()
        assert np.isnan(clf.label_quality_[::5]).all()
        assert np.isnan(clf.label_quality_).sum() == 30
        assert clf.corrected_labels_[::5].tolist() == clf.predict(X[::5]).tolist()
        right.append((clf.corrected_labels_[::5] == complete[::5]).mean())
        assert not clf.label_issues()["is_label_issue"].to_numpy()[::5].any()
        assert np.isnan(clf.score_labels(X, y)[::5]).all()
        assert np.isfinite(clf.transition_matrix_).all()
    assert np.mean(right) > 0.9


@every_estimator
def test_rows_without_a_label__in_every_row__is_an_error(cls: Estimator) -> None:
    X, _ = blobs(20)
    with pytest.raises(ValueError, match="y must have labels"):
        quick(cls, missing_label=-1).fit(X, np.full(20, -1))


@every_estimator
def test_trusted_rows__are_of_quality_one_and_never_corrected(cls: Estimator) -> None:
    X, y = blobs(150)
    noisy, flipped, *_ = symmetric(y, 0.3, random_state=0)
    trusted = np.arange(150) % 3 == 0
    trusted[flipped & (np.arange(150) > 20)] = False  # a few wrong labels are trusted on purpose
    assert 0 < flipped[trusted].sum() < 10
    clf = quick(cls, max_epochs=15).fit(X, noisy, clean_mask=trusted)
    assert (clf.label_quality_[trusted] == 1).all()
    assert (clf.label_quality_[~trusted] < 1).any()
    np.testing.assert_array_equal(clf.corrected_labels_[trusted], noisy[trusted])
    assert (clf.corrected_labels_[~trusted] != noisy[~trusted]).any()
    assert not clf.label_issues()["is_label_issue"].to_numpy()[trusted].any()


@every_estimator
def test_trusted_rows__none_marked__change_nothing(cls: Estimator) -> None:
    X, y = blobs(100)
    clf = quick(cls).fit(X, y, clean_mask=np.zeros(100, dtype=bool))
    np.testing.assert_array_equal(clf.label_quality_, quick(cls).fit(X, y).label_quality_)


@every_estimator
@pytest.mark.parametrize(
    "mask, message",
    [
        (np.arange(20) == 3, "Every trusted row must have a label.* row 3"),
        (np.arange(5), "clean_mask must be one boolean for each of the 20 rows"),
        (np.ones(19, dtype=bool), "clean_mask must be one boolean for each of the 20 rows"),
    ],
    ids=["row without a label", "row numbers", "too short"],
)
def test_trusted_rows__bad_mask__is_an_error(
    cls: Estimator, mask: NDArray[Any], message: str
) -> None:
    X, y = blobs(20)
    y[3] = -1
    with pytest.raises(ValueError, match=message):
        quick(cls, missing_label=-1).fit(X, y, clean_mask=mask)


@every_estimator
def test_meta_set__of_a_method_that_cannot_use_it__is_ignored_with_a_warning(
    cls: Estimator,
) -> None:
    if quick(cls)._has_meta_set():
        pytest.skip("uses its meta set")
    X, y = blobs(60)
    with pytest.warns(NoisyFitWarning, match="ignores X_meta.*clean_mask"):
        clf = quick(cls).fit(X, y, X_meta=X[:10], y_meta=y[:10])
    np.testing.assert_array_equal(clf.predict_proba(X), quick(cls).fit(X, y).predict_proba(X))


@every_estimator
@pytest.mark.filterwarnings("ignore:.*ignores X_meta")
def test_meta_set__as_long_as_X__warns_of_slicing(cls: Estimator) -> None:
    X, y = blobs(60)
    with pytest.warns(NoisyFitWarning, match="as many rows as X.*Drop a row"):
        quick(cls).fit(X, y, X_meta=X, y_meta=y)


@every_estimator
@pytest.mark.filterwarnings("ignore:.*ignores X_meta")
def test_meta_set__with_an_unseen_class__is_an_error(cls: Estimator) -> None:
    X, y = blobs(60)
    with pytest.raises(ValueError, match=r"among the classes seen in fit.*\['9'\]"):
        quick(cls).fit(X, y, X_meta=X[:10], y_meta=np.full(10, 9))


@every_estimator
def test_validation_fraction__is_recorded_and_all_rows_are_rated(cls: Estimator) -> None:
    X, y = blobs()
    noisy = symmetric(y, 0.3, random_state=0)
    clf = quick(cls, max_epochs=15, validation_fraction=0.25).fit(X, noisy.labels)
    assert len(clf.history_[:, ("valid_loss", "valid_acc")]) == 15
    assert clf.label_quality_.shape == clf.corrected_labels_.shape == (240,)
    assert clf.label_distribution_.shape == (240, 3)
    assert len(clf.label_issues()) == 240
    assert roc_auc_score(~noisy.flipped, clf.label_quality_) > 0.9


@every_estimator
def test_validation_fraction__rows_held_out__are_not_trained_on(cls: Estimator) -> None:
    X, y = blobs()
    seen: set[float] = set()

    def watch(x: torch.Tensor) -> torch.Tensor:
        seen.update(x[:, 0].tolist())
        return x

    clf = quick(cls, validation_fraction=0.25, augmentation=watch).fit(X, y)
    trained_on = np.isin(X[:, 0].astype(np.float32), list(seen))
    assert trained_on.sum() == 180
    held_out = clf.score(X[~trained_on], y[~trained_on])
    assert clf.history_[-1]["valid_acc"] == pytest.approx(held_out)
    shares = np.bincount(y[~trained_on]) / np.bincount(y)
    np.testing.assert_allclose(shares, 0.25, atol=0.02)


@every_estimator
def test_validation_set__is_recorded_as_scored_by_hand(cls: Estimator) -> None:
    X, y = blobs(300)
    seen = Predictions(X[200:])
    clf = quick(cls, callbacks=[seen]).fit(X[:200], y[:200], X_val=X[200:], y_val=y[200:])
    for recorded, probs in zip(clf.history_, seen.probs, strict=True):
        own = [probs[i, y[200 + i]] for i in range(100)]
        assert recorded["valid_loss"] == pytest.approx(-np.log(own).mean(), rel=1e-4)
        assert recorded["valid_acc"] == pytest.approx((probs.argmax(1) == y[200:]).mean())
    unwatched = quick(cls).fit(X[:200], y[:200])
    np.testing.assert_array_equal(unwatched.predict_proba(X), clf.predict_proba(X))


@every_estimator
def test_other_sets__rows_or_labels_alone__are_an_error(cls: Estimator) -> None:
    X, y = blobs(60)
    for sets in ({"X_val": X}, {"y_val": y}, {"y_meta": y}):
        with pytest.raises(ValueError, match=r"y_(val|meta) must come with its rows"):
            quick(cls).fit(X, y, **sets)


@every_estimator
@pytest.mark.filterwarnings("ignore:.*ignores X_meta")
def test_other_sets__no_label__is_an_error(cls: Estimator) -> None:
    X, y = blobs(60)
    nothing = np.full(50, -1)
    for name in ("val", "meta"):
        sets = {f"X_{name}": X[:50], f"y_{name}": nothing}
        with pytest.raises(ValueError, match=rf"y_{name} must have labels. Got -1 in every row"):
            quick(cls, missing_label=-1).fit(X, y, **sets)


# Kinds of X.

IMAGES: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "HW uint8": lambda x: x[..., 0],
    "HW float": lambda x: x[..., 0] / 255.0,
    "HWC uint8": lambda x: x,
    "HWC float32": lambda x: (x / 255).astype(np.float32),
    "CHW uint8": lambda x: x.transpose(0, 3, 1, 2),
    "CHW float to 255": lambda x: x.transpose(0, 3, 1, 2).astype(float),
}


@every_estimator
@pytest.mark.parametrize("make", IMAGES.values(), ids=IMAGES)
def test_images__every_layout_and_dtype__are_learned(
    cls: Estimator, make: Callable[[NDArray[Any]], NDArray[Any]]
) -> None:
    pictures, y = images()
    X = make(pictures)
    y = y if X.ndim == 4 else (y == 0).astype(int)  # one channel tells one class
    clf = quick(cls, max_epochs=8, batch_size=16, lr=0.02).fit(X, y)
    assert clf.score(X, y) > 0.9
    assert clf.label_quality_.shape == (60,)
    assert clf.transform(X).ndim == 2


@every_estimator
def test_images__HWC_and_CHW__give_the_same_predictions(cls: Estimator) -> None:
    X, y = images()
    last = quick(cls, batch_size=16).fit(X, y)
    first = quick(cls, batch_size=16).fit(np.ascontiguousarray(X.transpose(0, 3, 1, 2)), y)
    np.testing.assert_array_equal(
        first.predict_proba(X.transpose(0, 3, 1, 2)), last.predict_proba(X)
    )
    np.testing.assert_array_equal(first.label_quality_, last.label_quality_)


@every_estimator
@pytest.mark.parametrize(
    "shape", [(30, 3, 9, 3), (30, 9, 8, 7)], ids=["two channel axes", "no channel axis"]
)
def test_images__ambiguous_layout__is_an_error_that_names_the_parameter(
    cls: Estimator, shape: tuple[int, ...]
) -> None:
    X = np.random.default_rng(0).random(shape)
    with pytest.raises(ValueError, match='image_layout="HWC"'):
        quick(cls).fit(X, np.arange(30) % 2)
    clf = quick(cls, max_epochs=2, image_layout="CHW").fit(X, np.arange(30) % 2)
    assert clf.predict(X).shape == (30,)


@every_estimator
@pytest.mark.parametrize(
    "fitted, other",
    [
        (lambda x: x / 255.0, lambda x: x),
        (lambda x: x / 255.0, lambda x: x.astype(float)),
        (lambda x: x / 255.0, lambda x: x / 127.5 - 1),
    ],
    ids=["unit, bytes", "unit, to 255", "unit, signed"],
)
def test_images__on_another_scale_at_predict__is_an_error(
    cls: Estimator,
    fitted: Callable[[NDArray[Any]], NDArray[Any]],
    other: Callable[[NDArray[Any]], NDArray[Any]],
) -> None:
    X, y = images(30)
    clf = quick(cls, max_epochs=2, batch_size=16).fit(fitted(X), y)
    with pytest.raises(ValueError, match="scale of fit.*Rescale"):
        clf.predict(other(X))


@every_estimator
@pytest.mark.parametrize("fitted", [np.asarray, np.float32], ids=["bytes", "to 255"])
def test_images__that_are_almost_black_on_the_scale_of_fit__are_warned_of(
    cls: Estimator, fitted: Callable[[NDArray[Any]], NDArray[Any]]
) -> None:
    X, y = images(30)
    clf = quick(cls, max_epochs=2, batch_size=16).fit(fitted(X), y)
    with pytest.warns(NoisyFitWarning, match="almost black.*Rescale"):
        clf.predict(X / 255.0)


@every_estimator
def test_images__narrow__are_trained_without_garbage(cls: Estimator) -> None:
    # On processors with bfloat16 some convolutions over narrow maps read memory they do not own.
    X, y = images()
    X = np.concatenate([X[:, :, :8], X[:, :, :8]], 1)
    first, second = (quick(cls, batch_size=16).fit(X, y) for _ in range(2))
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))


@every_estimator
def test_images__bytes_and_the_same_as_float__are_predicted_alike(cls: Estimator) -> None:
    X, y = images(30)
    clf = quick(cls, max_epochs=2, batch_size=16).fit(X, y)
    np.testing.assert_array_equal(clf.predict_proba(X.astype(float)), clf.predict_proba(X))


@every_estimator
@pytest.mark.parametrize("shape", [(5, 3, 12, 10), (5, 12, 10, 1), (5, 12, 10), (5, 360)], ids=str)
def test_images__of_another_shape_at_predict__are_an_error(
    cls: Estimator, shape: tuple[int, ...]
) -> None:
    X, y = images(30)
    clf = quick(cls, max_epochs=2, batch_size=16).fit(X, y)
    with pytest.raises(ValueError, match=r"as in fit|features"):
        clf.predict(np.zeros(shape, dtype=np.uint8))


@every_estimator
def test_columns__of_any_scale__are_learned_as_well(cls: Estimator) -> None:
    X, y = blobs(300)
    factors, offsets = 10.0 ** np.arange(-3, 5), np.linspace(-2e4, 2e4, 8)
    offsets[:4] = 0
    plain = quick(cls, max_epochs=12).fit(X, y).score(X, y)
    scaled = X * factors + offsets
    assert quick(cls, max_epochs=12).fit(scaled, y).score(scaled, y) > plain - 0.03


@every_estimator
@pytest.mark.parametrize("factor", [2.0**-100, 2.0**60], ids=["2^-100", "2^60"])
def test_columns__in_another_unit__have_the_same_bits(cls: Estimator, factor: float) -> None:
    """Columns with a deviation below 1e-12 counted as constant, and nothing was learnt."""
    X, y = blobs(60)
    plain = quick(cls).fit(X, y).predict_proba(X)
    scaled = (X * factor).astype(np.float32)
    np.testing.assert_array_equal(quick(cls).fit(scaled, y).predict_proba(scaled), plain)


@every_estimator
def test_columns__constant__do_no_harm(cls: Estimator) -> None:
    X, y = blobs()
    X = np.column_stack([X, np.full(len(X), 7e3)])
    assert quick(cls, max_epochs=12).fit(X, y).score(X, y) > 0.9


@every_estimator
@pytest.mark.parametrize("kind", ["table", "image"])
@pytest.mark.parametrize("container", ["memmap", "tensor", "dataset", "list"])
def test_containers__any__give_the_bits_of_numpy(
    cls: Estimator, kind: str, container: str, tmp_path: Path
) -> None:
    X, y = blobs(90) if kind == "table" else images(36)
    if kind == "image" and container == "list":
        X = X / 255.0
    converted = {
        "memmap": lambda: as_memmap(X, tmp_path),
        "tensor": lambda: torch.as_tensor(X),
        "dataset": lambda: PairDataset(X, y),
        "list": lambda: X.tolist(),
    }[container]()
    params = {"max_epochs": 3, "batch_size": 16}
    expected = quick(cls, **params).fit(X, y)
    clf = quick(cls, **params).fit(converted, None if container == "dataset" else y)
    np.testing.assert_array_equal(clf.predict_proba(converted), expected.predict_proba(X))
    np.testing.assert_array_equal(clf.label_quality_, expected.label_quality_)
    np.testing.assert_array_equal(clf.transform(converted), expected.transform(X))


class LargestOutput(TorchDispatchMode):
    """Measure the largest tensor that any operation of torch made outside the memory of X."""

    def __init__(self, X: NDArray[Any]) -> None:
        super().__init__()
        self.start, self.stop = X.ctypes.data, X.ctypes.data + X.nbytes
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if not self.start <= storage.data_ptr() < self.stop:
                    self.bytes = max(self.bytes, storage.nbytes())
        return result


@every_estimator
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_memmap__is_never_copied_whole(cls: Estimator, dtype: Any, tmp_path: Path) -> None:
    shape = (20_000, 64) if dtype != np.uint8 else (16_000, 16, 16, 3)
    X = as_memmap(np.random.default_rng(0).integers(0, 250, shape).astype(dtype), tmp_path)
    y = np.arange(len(X)) % 2
    params: dict[str, Any] = {"max_epochs": 2, "module__width": 8, "batch_size": 250}
    if dtype == np.uint8:
        params["module"] = Pooled
        del params["module__width"]
    tracemalloc.start()
    with LargestOutput(X) as largest:
        clf = quick(cls, **params).fit(X, y)
        clf.predict(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0 < largest.bytes < X.nbytes
    assert peak < X.nbytes


class Pooled(torch.nn.Module):
    """The smallest network for images."""

    def __init__(self, in_channels: int, n_classes: int) -> None:
        super().__init__()
        self.head = torch.nn.Linear(in_channels, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(x.mean((2, 3)))
        return logits


# Callbacks of skorch.


@every_estimator
def test_early_stopping__stops(cls: Estimator) -> None:
    X, y = blobs()
    never_better = EarlyStopping(
        "train_loss", patience=3, threshold=1e9, threshold_mode="abs", sink=lambda *_: None
    )
    clf = quick(cls, max_epochs=12, callbacks=[never_better]).fit(X, y)
    assert clf.n_iter_ == len(clf.history_) == 4
    assert clf.label_quality_.shape == (240,)


@every_estimator
def test_early_stopping__load_best__predicts_with_the_best_epoch(cls: Estimator) -> None:
    X, y = blobs()
    seen = Predictions(X)
    stop = EarlyStopping(
        "train_loss",
        patience=3,
        threshold=1e9,
        threshold_mode="abs",
        load_best=True,
        sink=lambda *_: None,
    )
    clf = quick(cls, max_epochs=12, callbacks=[stop, seen]).fit(X, y)
    assert not np.array_equal(seen.probs[0], seen.probs[-1])
    np.testing.assert_array_equal(clf.predict_proba(X), seen.probs[0])


@every_estimator
def test_checkpoint_callback__load_best__predicts_with_the_best_epoch(
    cls: Estimator, tmp_path: Path
) -> None:
    X, y = blobs()
    y = symmetric(y, 0.4, random_state=0).labels
    seen = Predictions(X)
    save_best = Checkpoint(dirname=str(tmp_path), load_best=True)
    clf = quick(
        cls, max_epochs=8, lr=0.3, validation_fraction=0.3, callbacks=[seen, save_best]
    ).fit(X, y)
    losses = json_history(tmp_path)
    best = int(np.argmin(losses))
    assert (tmp_path / "params.pt").exists()
    np.testing.assert_array_equal(clf.predict_proba(X), seen.probs[best])


def json_history(folder: Path) -> list[float]:
    return [row["valid_loss"] for row in json.loads((folder / "history.json").read_text())]


def _raise_then_fall(epoch: int) -> float:
    return [0.1, 0.5, 1.0, 1.0, 0.3, 0.1][min(epoch, 5)]


@every_estimator
def test_lr_scheduler__moves_every_optimizer(cls: Estimator) -> None:
    X, y = blobs(60)
    rates = LearningRates()
    schedule = LRScheduler(policy=torch.optim.lr_scheduler.LambdaLR, lr_lambda=_raise_then_fall)
    clf = quick(cls, lr=0.2, callbacks=[schedule, rates]).fit(X, y)
    expected = [_raise_then_fall(epoch) for epoch in range(6)]
    assert rates.rates.keys() == optimizers(clf).keys()
    for name, found in rates.rates.items():
        first = optimizers(clf)[name].param_groups[0]["first_lr"]
        np.testing.assert_allclose(found, np.multiply(first, expected), rtol=1e-6)
    np.testing.assert_allclose(rates.rates["optimizer_"], np.multiply(0.2, expected), rtol=1e-6)


@every_estimator
def test_load_init_state__with_a_history__is_an_error_that_names_the_remedy(
    cls: Estimator, tmp_path: Path
) -> None:
    """It trained for no epoch: networks of an old fit, and the same quality for all rows."""
    X, y = blobs(60)
    quick(cls, callbacks=[TrainEndCheckpoint(dirname=str(tmp_path))]).fit(X, y)
    end = TrainEndCheckpoint(dirname=str(tmp_path))
    again = quick(cls, callbacks=[end, LoadInitState(end)])
    with pytest.raises(ValueError, match=r"empty history. Got one of 6 epochs.*checkpoint_dir"):
        again.fit(X, y)
    assert not hasattr(again, "module_")


class Breaks(Callback):
    """Ends the fit at a moment."""

    def __init__(self, moment: str, error: type[BaseException]) -> None:
        self.moment, self.error = moment, error

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        self._break("train begins")

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        self._break(f"epoch {len(net.history)} begins")

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        self._break("train ends")

    def _break(self, moment: str) -> None:
        if moment == self.moment:
            raise self.error


class BreaksWhenRead(PairDataset):
    def __getitem__(self, i: int) -> Any:
        raise KeyboardInterrupt


BREAKS: dict[str, tuple[str, type[BaseException]]] = {
    "Ctrl-C before the first epoch": ("train begins", KeyboardInterrupt),
    "Ctrl-C in the first epoch": ("epoch 1 begins", KeyboardInterrupt),
    "Ctrl-C in the final pass": ("train ends", KeyboardInterrupt),
    "exit before the first epoch": ("epoch 1 begins", SystemExit),
    "exit later": ("epoch 3 begins", SystemExit),
    "exit in the final pass": ("train ends", SystemExit),
}


@every_estimator
@pytest.mark.parametrize("moment, error", BREAKS.values(), ids=BREAKS)
def test_fit_that_is_broken_off__without_a_whole_new_model__leaves_the_old_one(
    moment: str, error: type[BaseException], cls: Estimator
) -> None:
    X, y = blobs(60)
    never = quick(cls, callbacks=[Breaks(moment, error)])
    with pytest.raises(error):
        never.fit(X, y)
    assert not [name for name in vars(never) if name.endswith("_")]
    clf = quick(cls).fit(X, y)
    before = clf.predict_proba(X), clf.label_quality_, len(clf.history_)
    clf.set_params(callbacks=[Breaks(moment, error)], max_epochs=8, random_state=1)
    with pytest.raises(error):
        clf.fit(X[::-1], y)
    np.testing.assert_array_equal(clf.predict_proba(X), before[0])
    assert clf.label_quality_ is before[1]
    assert len(clf.history_) == before[2]


def test_fit_that_is_broken_off__while_X_is_read__leaves_the_old_one() -> None:
    X, y = blobs(60)
    clf = quick(CrossEntropyClassifier).fit(X, y)
    before = clf.predict_proba(X)
    with pytest.raises(KeyboardInterrupt):
        clf.fit(BreaksWhenRead(X, y))
    np.testing.assert_array_equal(clf.predict_proba(X), before)


class RatesOfSteps(Callback):
    """The learning rate of every optimizer at every step, as a share of its own first one."""

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        self.shares: list[list[float]] = []

    def on_grad_computed(self, net: Any, *args: Any, **kwargs: Any) -> None:
        groups = [optimizer.param_groups[0] for optimizer in optimizers(net).values()]
        self.shares.append([group["lr"] / group["first_lr"] for group in groups])


@every_estimator
@pytest.mark.parametrize("step_every", ["batch", "epoch"])
def test_lr_scheduler__of_absolute_rates__is_the_same_for_every_optimizer(
    step_every: str, cls: Estimator
) -> None:
    """With OneCycleLR(max_lr=0.05) the second network had 1.24; within an epoch it stood still."""
    X, y = blobs(60)
    cyclic = {"base_lr": 0.02, "max_lr": 0.1, "step_size_up": 2, "cycle_momentum": False}
    schedule = LRScheduler(
        policy=torch.optim.lr_scheduler.CyclicLR, step_every=step_every, **cyclic
    )
    steps = RatesOfSteps()
    quick(cls, lr=0.2, batch_size=20, callbacks=[schedule, steps]).fit(X, y)
    shares = np.array(steps.shares)
    assert (shares.min(), shares.max()) == pytest.approx((0.1, 0.5))
    np.testing.assert_allclose(shares, shares[:, :1].repeat(shares.shape[1], 1), rtol=1e-12)


@every_estimator
def test_every_network_is_left_in_evaluation_mode(cls: Estimator) -> None:
    """Calling ``module_`` changed later predictions, and differed from them."""
    X, y = images()
    clf = quick(cls, augmentation=None).fit(X, y)
    networks = [value for name, value in vars(clf).items() if isinstance(value, torch.nn.Module)]
    assert len(networks) > 1
    for network in networks:
        assert not any(part.training for part in network.modules())
    before = clf.predict_logits(X)
    with torch.no_grad():
        logits = clf.module_(torch.as_tensor(X).permute(0, 3, 1, 2))
    np.testing.assert_allclose(logits, before, atol=1e-4)
    np.testing.assert_array_equal(clf.predict_logits(X), before)


@every_estimator
def test_learning_rates_of_every_optimizer_follow_the_cosine(cls: Estimator) -> None:
    X, y = blobs(60)
    rates = LearningRates()
    clf = quick(cls, lr=0.2, callbacks=[rates]).fit(X, y)
    assert rates.rates.keys() == optimizers(clf).keys()
    assert rates.rates["optimizer_"][0] == 0.2
    for found in rates.rates.values():
        expected = [found[0] * (1 + np.cos(np.pi * e / 6)) / 2 for e in range(6)]
        assert found == pytest.approx(expected)


@every_estimator
def test_epoch_scoring__on_validation_rows__is_their_accuracy(cls: Estimator) -> None:
    X, y = blobs()
    y = np.array(["a", "b", "c"])[symmetric(y, 0.3, random_state=0).labels]
    score = EpochScoring("accuracy", lower_is_better=False, name="acc")
    clf = quick(cls, validation_fraction=0.25, callbacks=[score]).fit(X, y)
    assert clf.history_[:, "acc"] == pytest.approx(clf.history_[:, "valid_acc"])


@every_estimator
def test_epoch_scoring__on_training_rows__is_their_accuracy(cls: Estimator) -> None:
    X, y = blobs()
    score = EpochScoring("accuracy", lower_is_better=False, name="acc", on_train=True)
    clf = quick(cls, callbacks=[score]).fit(X, y)
    assert clf.history_[-1]["acc"] == pytest.approx(clf.score(X, y))


@every_estimator
def test_gradient_norm_clipping__bounds_every_step(cls: Estimator) -> None:
    X, y = blobs()
    free, clipped = GradientNorms(), GradientNorms()
    quick(cls, max_epochs=3, callbacks=[free]).fit(X, y)
    quick(cls, max_epochs=3, callbacks=[GradientNormClipping(0.01), clipped]).fit(X, y)
    assert max(free.norms) > 0.1
    assert len(clipped.norms) == len(free.norms)
    assert max(clipped.norms) <= 0.01 * 1.001


@every_estimator
def test_progress_bar__shows_the_batches(
    cls: Estimator, capsys: pytest.CaptureFixture[str]
) -> None:
    X, y = blobs(60)
    bar = ProgressBar(detect_notebook=False)
    quick(cls, batch_size=20, callbacks=[bar]).fit(X, y)
    assert "0/3" in capsys.readouterr().err
    assert bar.pbar_.n == bar.pbar_.total == 3


@every_estimator
def test_print_log__verbose__shows_a_row_an_epoch(
    cls: Estimator, capsys: pytest.CaptureFixture[str]
) -> None:
    X, y = blobs(60)
    quick(cls, max_epochs=4).fit(X, y)
    assert capsys.readouterr().out == ""
    quick(cls, max_epochs=4, verbose=1, validation_fraction=0.3).fit(X, y)
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 6
    for column in ("epoch", "train_loss", "valid_loss", "valid_acc", "dur"):
        assert column in lines[0]


@every_estimator
def test_print_log__of_the_user__works_beside_ours(cls: Estimator) -> None:
    X, y = blobs(60)
    lines: list[str] = []
    quick(cls, max_epochs=4, callbacks=[PrintLog(sink=lines.append)]).fit(X, y)
    assert len(lines) == 6


@every_estimator
def test_freezer__holds_the_named_layers(cls: Estimator) -> None:
    X, y = blobs(60)
    network = seeded_perceptron()
    freeze = Freezer("0.*")
    clf = quick(cls, module=network, callbacks=[freeze]).fit(X, y)
    first, last = clf.module_.network[0], clf.module_.network[2]
    assert torch.equal(first.weight, network.get_parameter("0.weight"))
    assert not torch.equal(last.weight, network.get_parameter("2.weight"))


@every_estimator
def test_optimizer__groups__are_named_as_in_the_network(cls: Estimator) -> None:
    X, y = blobs(60)
    groups = [("0.*", {"lr": 0.0, "weight_decay": 0.0})]
    network = seeded_perceptron()
    clf = quick(cls, module=network, optimizer__param_groups=groups).fit(X, y)
    first, last = clf.module_.network[0], clf.module_.network[2]
    assert torch.equal(first.weight, network.get_parameter("0.weight"))
    assert not torch.equal(last.weight, network.get_parameter("2.weight"))


@every_estimator
@pytest.mark.parametrize(
    "settings",
    [
        {"callbacks": [Freezer(["0.*", "network.2.*"])]},
        {"callbacks": [("freeze", Freezer(lambda name: name == "network.2.weight"))]},
        {"optimizer__param_groups": [("network.2.*", {"lr": 0.1})]},
    ],
    ids=["callback", "function", "groups"],
)
def test_patterns_of_names__that_match_nothing__are_an_error(
    cls: Estimator, settings: dict[str, Any]
) -> None:
    clf = quick(cls, module=seeded_perceptron(), **settings)
    with pytest.raises(
        ValueError, match=r"must match names of parameters.*none of the \d+: 0\.weight"
    ):
        clf.fit(*blobs(60))


@every_estimator
def test_params_of_skorch__load_into_the_users_own_network(cls: Estimator, tmp_path: Path) -> None:
    X, y = blobs(60)
    clf = quick(cls, module=seeded_perceptron()).fit(X, y)
    clf.save_params(f_params=tmp_path / "params.pt")
    network = seeded_perceptron()
    network.load_state_dict(torch.load(tmp_path / "params.pt"))
    scaled = (X - X.mean(0)) / X.std(0)
    logits = network(torch.as_tensor(scaled, dtype=torch.float32))
    np.testing.assert_allclose(logits.detach(), clf.predict_logits(X), atol=1e-4)
    other = quick(cls, module=seeded_perceptron(), max_epochs=2).fit(X, y)
    other.load_params(f_params=tmp_path / "params.pt")
    np.testing.assert_array_equal(other.predict_logits(X), clf.predict_logits(X))


class Untrainable(torch.nn.Module):
    def __init__(self, frozen: bool) -> None:
        super().__init__()
        if frozen:
            self.layer = torch.nn.Linear(2, 2).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) if hasattr(self, "layer") else x


@every_estimator
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


@every_estimator
def test_callbacks__parameters__are_routed(cls: Estimator) -> None:
    X, y = blobs(60)
    stop = EarlyStopping("train_loss", patience=5, threshold=1e9, threshold_mode="abs")
    clf = quick(cls, callbacks=[("stop", stop)], callbacks__stop__patience=2).fit(X, y)
    assert clf.n_iter_ == 3


@every_estimator
def test_callbacks__that_need_predictions_of_batches__are_an_error_at_fit(cls: Estimator) -> None:
    clf = quick(cls, callbacks=[BatchScoring("accuracy")])
    with pytest.raises(ValueError, match="BatchScoring.*EpochScoring"):
        clf.fit(*blobs(60))


# Pickles and files.

COPIES: dict[str, Callable[[Any, Path], Any]] = {
    "pickle": lambda clf, folder: pickle.loads(pickle.dumps(clf)),
    "deepcopy": lambda clf, folder: copy.deepcopy(clf),
    "joblib": lambda clf, folder: joblib.load(joblib.dump(clf, folder / "clf.joblib")[0]),
}


@every_estimator
@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_copies__of_a_fitted_estimator__predict_and_can_be_refitted(
    cls: Estimator, copied: Callable[[Any, Path], Any], tmp_path: Path
) -> None:
    X, y = blobs()
    clf = quick(cls, device="auto").fit(X, y)
    other = copied(clf, tmp_path)
    assert other.device == "auto"
    np.testing.assert_array_equal(other.predict_proba(X), clf.predict_proba(X))
    np.testing.assert_array_equal(other.label_quality_, clf.label_quality_)
    assert other.label_issues().equals(clf.label_issues())
    assert other.history_ == clf.history_
    other.fit(X[:60], y[:60])
    np.testing.assert_array_equal(
        other.predict_proba(X), clone(clf).fit(X[:60], y[:60]).predict_proba(X)
    )


@every_estimator
def test_copies__of_an_unfitted_estimator__stay_unfitted(cls: Estimator) -> None:
    other = pickle.loads(pickle.dumps(quick(cls)))
    assert other.get_params() == quick(cls).get_params()
    assert not hasattr(other, "classes_")


SAVED: dict[str, tuple[Callable[[NDArray[Any]], Any], dict[str, Any]]] = {
    "int": (lambda y: y, {}),
    "strings": (lambda y: np.array(["a", "b", "c"])[y], {"module__width": np.int64(16)}),
    "objects with None": (
        lambda y: np.where(np.arange(len(y)) % 9 == 0, None, np.array(list("abc"), object)[y]),
        {"missing_label": np.nan},
    ),
    "series": (lambda y: pd.Series(y, index=pd.date_range("2020-01-01", periods=len(y))), {}),
}


@every_estimator
@pytest.mark.filterwarnings("ignore:.*callbacks")
@pytest.mark.parametrize("make, params", SAVED.values(), ids=SAVED)
def test_saved_and_loaded__predicts_and_explains_the_same(
    cls: Estimator, make: Callable[[NDArray[Any]], Any], params: dict[str, Any], tmp_path: Path
) -> None:
    X, codes = blobs()
    y = make(codes)
    frame = pd.DataFrame(X, index=y.index) if isinstance(y, pd.Series) else X
    clf = quick(cls, validation_fraction=0.2, callbacks=[GradientNorms()], **params).fit(frame, y)
    clf.save(tmp_path / "model.noisyfit")
    reader = NoisyLabelClassifier if cls in all_estimators() else cls  # others must be named
    loaded = reader.load(tmp_path / "model.noisyfit", device="cpu")
    assert type(loaded) is cls
    assert_same_fitted_state(loaded, clf)
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))
    np.testing.assert_array_equal(loaded.transform(X), clf.transform(X))
    np.testing.assert_array_equal(loaded.score_labels(X, y), clf.score_labels(X, y))
    assert loaded.label_issues().equals(clf.label_issues())
    assert list(loaded.history_) == list(clf.history_)
    assert loaded.get_feature_names_out().tolist() == clf.get_feature_names_out().tolist()
    own = {"callbacks", "device"}
    for name, value in clf.get_params().items():
        if name not in own:
            np.testing.assert_equal(loaded.get_params()[name], value)
    refitted = loaded.fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(refitted, clf.predict_proba(X))


def assert_same_fitted_state(found: Any, expected: Any) -> None:
    """Compare what the user reads: fitted attributes that are numbers or arrays."""
    plain = (np.ndarray, int, float, str, tuple)
    names = [
        name
        for name, value in vars(expected).items()
        if name.endswith("_") and not name.startswith("_") and isinstance(value, plain)
    ]
    assert {"classes_", "label_quality_", "corrected_labels_", "transition_matrix_"} <= set(names)
    for name in names:
        np.testing.assert_equal(getattr(found, name), getattr(expected, name), err_msg=name)


@every_classifier
def test_saved__own_network__must_be_passed_to_load(cls: Estimator, tmp_path: Path) -> None:
    X, y = blobs(60)
    clf = quick(cls, module=Perceptron, module__hidden=8).fit(X, y)
    clf.save(tmp_path / "model")
    with pytest.raises(NoisyFitError, match=r"Perceptron.*load\(path, (estimator__)?module=...\)"):
        cls.load(tmp_path / "model")
    loaded = cls.load(tmp_path / "model", module=Perceptron, device="cpu")
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))


class Burglar:
    """Runs code when it is unpickled."""

    def __init__(self, loot: Path) -> None:
        self.loot = loot

    def __reduce__(self) -> Any:
        return Path.touch, (self.loot,)


def burgled(member: str, loot: Path, good: bytes) -> bytes:
    buffer = io.BytesIO()
    if member == "networks.pt":
        torch.save({"module": Burglar(loot)}, buffer)
    else:
        arrays = dict(np.load(io.BytesIO(good)))
        arrays["classes_"] = np.array([Burglar(loot)], dtype=object)
        np.savez(buffer, allow_pickle=True, **arrays)
    return buffer.getvalue()


@every_classifier
@pytest.mark.parametrize("member", ["networks.pt", "arrays.npz"])
def test_saved__foreign_code_in_the_file__is_not_run(
    cls: Estimator, member: str, tmp_path: Path
) -> None:
    quick(cls, max_epochs=2).fit(*blobs(60)).save(tmp_path / "model")
    loot = tmp_path / "loot"
    with (
        zipfile.ZipFile(tmp_path / "model") as good,
        zipfile.ZipFile(tmp_path / "bad", "w") as bad,
    ):
        for name in good.namelist():
            content = good.read(name)
            bad.writestr(name, burgled(name, loot, content) if name == member else content)
    with pytest.raises((pickle.UnpicklingError, ValueError)):
        cls.load(tmp_path / "bad")
    assert not loot.exists()


@every_classifier
def test_saving__disk_full__leaves_the_older_file(
    cls: Estimator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = blobs(60)
    clf = quick(cls, max_epochs=2).fit(X, y)
    clf.save(tmp_path / "model")

    def refuse(*args: Any) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as full:
        full.setattr(zipfile.ZipFile, "writestr", refuse)
        with pytest.raises(OSError, match="No space left"):
            quick(cls, max_epochs=3).fit(X, y).save(tmp_path / "model")
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
    loaded = cls.load(tmp_path / "model", device="cpu")
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))


# Interruptions and errors.


class CtrlC(Callback):
    """Press Ctrl-C in the middle of a step."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.steps = 0

    def on_grad_computed(self, net: Any, **kwargs: Any) -> None:
        self.steps += 1
        if self.steps == self.step:
            raise KeyboardInterrupt


@every_estimator
@pytest.mark.parametrize("step", [40, 60], ids="step {}".format)
def test_keyboard_interrupt__leaves_a_fitted_estimator_and_is_raised_again(
    cls: Estimator, step: int
) -> None:
    X, y = blobs()
    clf = quick(cls, max_epochs=20, batch_size=64, callbacks=[CtrlC(step)])
    with pytest.raises(KeyboardInterrupt):
        clf.fit(X, y)
    assert clf.predict(X).shape == clf.label_quality_.shape == clf.corrected_labels_.shape == (240,)
    assert np.isfinite(clf.label_distribution_).all()
    assert clf.n_iter_ < 20
    assert len(clf.label_issues()) == 240
    finished = [row for row in clf.history_ if "train_loss" in row]
    assert clf.n_iter_ == len(finished)
    assert clf.set_params(callbacks=None).fit(X, y).n_iter_ == 20


class Interrupted(Perceptron):
    """A network in which Ctrl-C is pressed at the n-th forward pass."""

    left = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        type(self).left -= 1
        if type(self).left == 0:
            raise KeyboardInterrupt
        logits: torch.Tensor = super().forward(x)
        return logits


@every_estimator
@pytest.mark.parametrize("n_passes", [6, 23, 42], ids="pass {}".format)
def test_keyboard_interrupt__within_the_network__leaves_a_fitted_estimator_or_none(
    cls: Estimator, n_passes: int
) -> None:
    X, y = blobs()
    Interrupted.left = n_passes
    clf = quick(cls, module=Interrupted, max_epochs=20, batch_size=64)
    with pytest.raises(KeyboardInterrupt):
        clf.fit(X, y)
    Interrupted.left = 0
    if "history_" not in vars(clf):  # before the end of the first epoch
        assert not [name for name in vars(clf) if name.endswith("_")]
        return
    assert clf.predict(X).shape == clf.label_quality_.shape == (240,)
    assert np.isfinite(clf.label_distribution_).all()


@every_estimator
def test_keyboard_interrupt__in_the_last_passes__leaves_all_that_a_fit_leaves_or_nothing(
    cls: Estimator,
) -> None:
    """The number of embeddings was missing."""
    X, y = blobs(60)
    Interrupted.left = 0
    whole = quick(cls, module=Interrupted, max_epochs=2).fit(X, y)
    n_passes = -Interrupted.left
    for n in range(n_passes - 3, n_passes + 1):
        Interrupted.left = n
        clf = quick(cls, module=Interrupted, max_epochs=2)
        with pytest.raises(KeyboardInterrupt):
            clf.fit(X, y)
        Interrupted.left = 0
        fitted = [name for name in vars(clf) if name.endswith("_")]
        assert not fitted or vars(clf).keys() >= vars(whole).keys()


BAD_DATA: dict[str, tuple[Callable[[Arrays], tuple[Any, Any]], str]] = {
    "nan": (lambda d: (np.where(d[0] > 3, np.nan, d[0]), d[1]), "NaN"),
    "inf": (lambda d: (np.where(d[0] > 3, np.inf, d[0]), d[1]), "infinity"),
    "nan in a tensor": (
        lambda d: (torch.as_tensor(np.where(d[0] > 3, np.nan, d[0])), d[1]),
        "NaN or infinity.*Impute",
    ),
    "nan in images": (
        lambda d: (np.full((60, 8, 8), np.nan), d[1]),
        "NaN or infinity.*Impute",
    ),
    "empty": (lambda d: (d[0][:0], d[1][:0]), r"0 sample"),
    "no images": (lambda d: (np.zeros((0, 8, 8, 3), np.uint8), d[1][:0]), r"0 sample"),
    "no columns": (lambda d: (d[0][:, :0], d[1]), r"0 feature"),
    "one class": (lambda d: (d[0], np.zeros(60)), "at least two classes.*one class"),
    "no y": (lambda d: (d[0], None), "requires y to be passed"),
    "y too short": (lambda d: (d[0], d[1][:-1]), "inconsistent numbers of samples"),
    "y of floats": (lambda d: (d[0], d[0][:, 0]), "(?i)unknown label type"),
    "nan in y": (lambda d: (d[0], np.where(d[1] > 1, np.nan, d[1])), "NaN"),
    "complex": (lambda d: (d[0] * 1j, d[1]), "(?i)complex"),
    "complex tensor": (lambda d: (torch.as_tensor(d[0] * 1j), d[1]), "(?i)complex"),
    "complex memmap": (lambda d: ((d[0] * 1j).view(np.memmap), d[1]), "(?i)complex"),
    "one axis": (lambda d: (d[0][:, 0], d[1]), "(?i)array"),
    "five axes": (lambda d: (np.zeros((60, 2, 2, 2, 2)), d[1]), "reshape"),
}


@every_estimator
@pytest.mark.parametrize("make, message", BAD_DATA.values(), ids=BAD_DATA)
def test_data__that_cannot_be_used__is_a_value_error(
    cls: Estimator, make: Callable[[Arrays], tuple[Any, Any]], message: str
) -> None:
    X, y = make(blobs(60))
    with pytest.raises(ValueError, match=message):
        quick(cls).fit(X, y)


@every_estimator
def test_data__sparse__is_refused_with_the_remedy(cls: Estimator) -> None:
    X, y = blobs(60)
    with pytest.raises(TypeError, match="toarray"):
        quick(cls).fit(csr_array(X), y)


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


@every_estimator
@pytest.mark.parametrize("params, message", BAD_PARAMETERS.values(), ids=BAD_PARAMETERS)
def test_parameters__wrong__are_reported_at_fit_with_a_suggestion(
    cls: Estimator, params: dict[str, Any], message: str
) -> None:
    clf = quick(cls, **params)
    with pytest.raises((ValueError, RuntimeError), match=message):
        clf.fit(*blobs(60))


@every_estimator
def test_parameters__set_by_a_wrong_name__are_refused_at_once(cls: Estimator) -> None:
    with pytest.raises(ValueError, match="'max_epoch'.*Did you mean 'max_epochs'"):
        quick(cls).set_params(max_epoch=3)


@every_estimator
def test_module__with_too_few_logits__is_an_error(cls: Estimator) -> None:
    X, y = blobs(60)
    with pytest.raises(ValueError, match=r"shape \(2, 3\).*Got \(2, 2\)"):
        quick(cls, module=Perceptron(8, 2)).fit(X, y)


@every_estimator
def test_diverging_loss__is_an_error_with_epoch_and_batch(cls: Estimator) -> None:
    X, y = blobs()
    clf = quick(cls, module=Linear, lr=1e30, batch_size=32)
    with pytest.raises(NoisyFitError, match=r"epoch 1, batch [1-8]\. .*lr=1e\+30.*try lr=1e\+29"):
        clf.fit(X, y)


@every_estimator
@pytest.mark.parametrize("max_epochs", [2, 3])
def test_diverging_weights__in_the_last_step__are_an_error(cls: Estimator, max_epochs: int) -> None:
    X, y = blobs(60)
    last_step = DivergeAt(max_epochs - 1)
    clf = quick(cls, max_epochs=max_epochs, callbacks=[last_step])
    with pytest.raises(NoisyFitError, match="finite"):
        clf.fit(X, y)


class DivergeAt(Callback):
    """Spoil all gradients of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_grad_computed(self, net: Any, named_parameters: Any, **kwargs: Any) -> None:
        if len(net.history) - 1 == self.epoch:
            for _, parameter in named_parameters:
                if parameter.grad is not None:
                    parameter.grad.fill_(float("nan"))


FAILURES: dict[str, dict[str, Any]] = {
    "parameter": {"lr": -1.0},
    "network": {"module__typo": 3},
    "in training": {"module": Linear, "lr": 1e30},
}


@every_estimator
@pytest.mark.parametrize("params", FAILURES.values(), ids=FAILURES)
def test_failed_fit__leaves_the_earlier_model(cls: Estimator, params: dict[str, Any]) -> None:
    X, y = blobs()
    clf = quick(cls).fit(X, y)
    probs = clf.predict_proba(X)
    clf.set_params(**params)
    with pytest.raises((ValueError, NoisyFitError)):
        clf.fit(X[:90], y[:90])
    np.testing.assert_array_equal(clf.predict_proba(X), probs)
    assert clf.label_quality_.shape == (240,)
    assert clf.n_iter_ == 6


@every_estimator
def test_failed_first_fit__leaves_an_unfitted_estimator(cls: Estimator) -> None:
    clf = quick(cls)
    with pytest.raises(ValueError, match="requires y"):
        clf.fit(blobs(60)[0])
    assert not hasattr(clf, "classes_")
    with pytest.raises(ValueError, match=re.escape(f"{cls.__name__} instance is not fitted")):
        clf.predict(blobs(60)[0])


# On a GPU.


@pytest.mark.gpu
@every_estimator
def test_on_a_gpu__learns_and_is_unpickled_on_a_cpu(cls: Estimator, tmp_path: Path) -> None:
    X, y = blobs()
    clf = quick(cls, max_epochs=12, device="cuda").fit(X, y)
    assert clf.score(X, y) > 0.9
    assert next(clf.module_.parameters()).is_cuda
    clf.save(tmp_path / "model")
    loaded = cls.load(tmp_path / "model", device="cpu")
    assert not next(loaded.module_.parameters()).is_cuda
    np.testing.assert_allclose(loaded.predict_proba(X), clf.predict_proba(X), atol=1e-4)
    code = (
        "import pickle, sys, torch; assert not torch.cuda.is_available();"
        "clf, X = pickle.load(open(sys.argv[1], 'rb')); print(clf.device_, clf.predict(X).shape)"
    )
    with open(tmp_path / "pickle", "wb") as file:
        pickle.dump((clf, X), file)
    done = run_without_gpu(code, tmp_path / "pickle")
    assert done.split() == ["cpu", "(240,)"]


def run_without_gpu(code: str, *args: Any) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, args)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.gpu
@every_estimator
def test_on_a_gpu__deterministic__gives_identical_bits(cls: Estimator) -> None:
    X, y = images()
    params = {"device": "cuda", "deterministic": True, "batch_size": 16}
    first, second = (quick(cls, **params).fit(X, y).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(first, second)
