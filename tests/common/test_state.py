"""What a fit leaves behind: copies, files, and after an interruption or an error."""

import copy
import io
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from skorch.callbacks import Callback

from noisyfit import (
    CrossEntropyClassifier,
    EchoAlignClassifier,
    NoisyFitError,
    NoisyLabelClassifier,
    SemiSupervisedClassifier,
)
from tests.common.zoo import (
    TYPICAL,
    Estimator,
    every_method,
    every_variant,
    every_way_to,
    of_the_base,
    on,
)
from tests.helpers import (
    GradientNorms,
    Linear,
    PairDataset,
    Perceptron,
    all_estimators,
    blobs,
    quick,
    seeded_perceptron,
)

of_the_base_and_echo = on([*TYPICAL, EchoAlignClassifier])

# Copies.

COPIES: dict[str, Callable[[Any, Path], Any]] = {
    "pickle": lambda clf, folder: pickle.loads(pickle.dumps(clf)),
    "deepcopy": lambda clf, folder: copy.deepcopy(clf),
    "joblib": lambda clf, folder: joblib.load(joblib.dump(clf, folder / "clf.joblib")[0]),
}


@of_the_base
@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_copies__of_a_fitted_estimator__predict_and_can_be_refitted(
    cls: Estimator, copied: Callable[[Any, Path], Any], tmp_path: Path
) -> None:
    assert_copy_predicts_and_can_be_refitted(cls, copied, tmp_path)


@every_variant
def test_pickle__of_a_fitted_estimator__predicts_and_can_be_refitted(
    cls: Estimator, tmp_path: Path
) -> None:
    assert_copy_predicts_and_can_be_refitted(cls, COPIES["pickle"], tmp_path)


def assert_copy_predicts_and_can_be_refitted(
    cls: Estimator, copied: Callable[[Any, Path], Any], folder: Path
) -> None:
    X, y = blobs(100)
    clf = quick(cls, device="auto").fit(X, y)
    other = copied(clf, folder)
    assert other.device == "auto"
    np.testing.assert_array_equal(other.predict_proba(X), clf.predict_proba(X))
    np.testing.assert_array_equal(other.label_quality_, clf.label_quality_)
    assert other.label_issues().equals(clf.label_issues())
    assert other.history_ == clf.history_
    other.fit(X[:60], y[:60])
    np.testing.assert_array_equal(
        other.predict_proba(X), clone(clf).fit(X[:60], y[:60]).predict_proba(X)
    )


@of_the_base
def test_copies__of_an_unfitted_estimator__stay_unfitted(cls: Estimator) -> None:
    other = pickle.loads(pickle.dumps(quick(cls)))
    assert other.get_params() == quick(cls).get_params()
    assert not hasattr(other, "classes_")


@every_way_to("_make_network")
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


# Files.

SAVED: dict[str, tuple[Callable[[NDArray[Any]], Any], dict[str, Any]]] = {
    "int": (lambda y: y, {}),
    "strings": (lambda y: np.array(["a", "b", "c"])[y], {"module__width": np.int64(16)}),
    "objects with None": (
        lambda y: np.where(np.arange(len(y)) % 9 == 0, None, np.array(list("abc"), object)[y]),
        {"missing_label": np.nan},
    ),
    "series": (lambda y: pd.Series(y, index=pd.date_range("2020-01-01", periods=len(y))), {}),
}


@of_the_base
@pytest.mark.filterwarnings("ignore:.*callbacks")
@pytest.mark.parametrize("make, params", SAVED.values(), ids=SAVED)
def test_saved_and_loaded__any_label__predicts_and_explains_the_same(
    cls: Estimator, make: Callable[[NDArray[Any]], Any], params: dict[str, Any], tmp_path: Path
) -> None:
    assert_loaded_is_as_saved(cls, make, params, tmp_path)


@every_variant
@pytest.mark.filterwarnings("ignore:.*callbacks")
def test_saved_and_loaded__predicts_and_explains_the_same(cls: Estimator, tmp_path: Path) -> None:
    assert_loaded_is_as_saved(cls, lambda y: y, {}, tmp_path)


def assert_loaded_is_as_saved(
    cls: Estimator, make: Callable[[NDArray[Any]], Any], params: dict[str, Any], folder: Path
) -> None:
    X, codes = blobs(100)
    y = make(codes)
    frame = pd.DataFrame(X, index=y.index) if isinstance(y, pd.Series) else X
    clf = quick(cls, validation_fraction=0.2, callbacks=[GradientNorms()], **params).fit(frame, y)
    clf.save(folder / "model.noisyfit")
    reader = NoisyLabelClassifier if cls in all_estimators() else cls  # others must be named
    loaded = reader.load(folder / "model.noisyfit", device="cpu")
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


@of_the_base_and_echo
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


@of_the_base_and_echo
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


@of_the_base_and_echo
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


# Interruptions.


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


@of_the_base
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


class CtrlC(Callback):
    """Press Ctrl-C in the middle of a step."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.steps = 0

    def on_grad_computed(self, net: Any, **kwargs: Any) -> None:
        self.steps += 1
        if self.steps == self.step:
            raise KeyboardInterrupt


@every_variant
@pytest.mark.parametrize("step", [20, 30], ids="step {}".format)
def test_keyboard_interrupt__leaves_a_fitted_estimator_and_is_raised_again(
    cls: Estimator, step: int
) -> None:
    X, y = blobs()
    step *= 3 if cls is SemiSupervisedClassifier else 1  # its epochs have 32 steps
    clf = quick(cls, max_epochs=10, batch_size=64, callbacks=[CtrlC(step)])
    with pytest.raises(KeyboardInterrupt):
        clf.fit(X, y)
    assert clf.predict(X).shape == clf.label_quality_.shape == clf.corrected_labels_.shape == (240,)
    assert np.isfinite(clf.label_distribution_).all()
    assert clf.n_iter_ < 10
    assert len(clf.label_issues()) == 240
    finished = [row for row in clf.history_ if "train_loss" in row]
    assert clf.n_iter_ == len(finished)
    assert clf.set_params(callbacks=None).fit(X, y).n_iter_ == 10


class Interrupted(Perceptron):
    """A network in which Ctrl-C is pressed at the n-th forward pass."""

    left = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        type(self).left -= 1
        if type(self).left == 0:
            raise KeyboardInterrupt
        logits: torch.Tensor = super().forward(x)
        return logits


@every_variant
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


@every_method
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


# Failures.


@every_method
def test_diverging_loss__is_an_error_with_epoch_and_batch(cls: Estimator) -> None:
    X, y = blobs()
    clf = quick(cls, module=Linear, lr=1e30, batch_size=32)
    with pytest.raises(NoisyFitError, match=r"epoch 1, batch [1-8]\. .*lr=1e\+30.*try lr=1e\+29"):
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


@every_method
@pytest.mark.parametrize("max_epochs", [2, 3])
def test_diverging_weights__in_the_last_step__are_an_error(cls: Estimator, max_epochs: int) -> None:
    X, y = blobs(60)
    last_step = DivergeAt(max_epochs - 1)
    clf = quick(cls, max_epochs=max_epochs, callbacks=[last_step])
    with pytest.raises(NoisyFitError, match="finite"):
        clf.fit(X, y)


FAILURES: dict[str, dict[str, Any]] = {
    "parameter": {"lr": -1.0},
    "network": {"module__typo": 3},
    "in training": {"module": Linear, "lr": 1e30},
}


@of_the_base
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


@of_the_base
def test_failed_first_fit__leaves_an_unfitted_estimator(cls: Estimator) -> None:
    clf = quick(cls)
    with pytest.raises(ValueError, match="requires y"):
        clf.fit(blobs(60)[0])
    assert not hasattr(clf, "classes_")
    with pytest.raises(ValueError, match=re.escape(f"{cls.__name__} instance is not fitted")):
        clf.predict(blobs(60)[0])
