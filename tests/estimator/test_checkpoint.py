import io
import multiprocessing
import os
import pickle
import signal
import threading
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from skorch.callbacks import Callback, EarlyStopping, LRScheduler

from noisyfit import (
    CLIDMetaClassifier,
    CoTeachingClassifier,
    CrossEntropyClassifier,
    DivideMixClassifier,
    FlywheelClassifier,
    GCEClassifier,
    NoisyFitWarning,
    NoisyLabelClassifier,
)
from noisyfit.estimator.checkpoint import Checkpoint, decode, encode
from noisyfit.estimator.identity import fingerprint
from noisyfit.estimator.warmup import WarmUp
from noisyfit.noise import symmetric
from noisyfit.utils.files import write_sealed
from tests.helpers import (
    Arrays,
    CLIDDivideMixClassifier,
    Doom,
    ELRPlusClassifier,
    Fate,
    PairDataset,
    Perceptron,
    all_estimators,
    as_memmap,
    blobs,
    doomed_fit,
    full_disk,
    images,
    seeded_perceptron,
)

RUNS = {
    "cross-entropy": (CrossEntropyClassifier, {}),
    "flywheel": (FlywheelClassifier, {"warmup_epochs": 3}),
}
EVERY_METHOD = [*all_estimators(), ELRPlusClassifier, CLIDDivideMixClassifier]
WITH_PILOT = [cls for cls in EVERY_METHOD if issubclass(cls, WarmUp)]
IN_BRIEF: type = CoTeachingClassifier  # whose pilot is checked in every run; the others' are slow
OTHER_STATE: dict[str, Any] = {  # than a method has with its defaults
    "gce, pruned": (GCEClassifier, {"truncation": 0.5}),
    "clid, patient": (CLIDMetaClassifier, {"warmup_epochs": 2, "meta_patience": 1}),
    "clid, by labels": (
        CLIDMetaClassifier,
        {"warmup_epochs": 2, "meta_objective": "ce_pseudo_clean"},
    ),
    "dividemix, wnet": (DivideMixClassifier, {"warmup_epochs": 2, "meta_model": "wnet"}),
}
MOMENTS = {  # epoch, batches of it that were begun
    "in the warm-up": (1, 2),
    "at the phase boundary": (2, 0),
    "after the phase boundary": (4, 1),
}

every_method = pytest.mark.parametrize("cls", EVERY_METHOD, ids=lambda cls: cls.__name__)
every_run = pytest.mark.parametrize("cls, own", RUNS.values(), ids=RUNS)
every_moment = pytest.mark.parametrize("epoch, batch", MOMENTS.values(), ids=MOMENTS)


@pytest.fixture(autouse=True)
def no_fate() -> Iterator[None]:
    yield
    Fate.epoch, Fate.batch, Fate.kill, Fate.begun = None, 0, False, []


@pytest.fixture(scope="module")
def processes() -> Any:
    """Processes that are forked from one that has the package loaded and has not trained."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.helpers", "noisyfit.methods.flywheel"])
    return context


def noisy_blobs() -> Arrays:
    X, y = blobs(150)
    return X, symmetric(y, 0.3, random_state=0).labels


def settings(folder: Path | None, **params: Any) -> dict[str, Any]:
    common = {"max_epochs": 9, "batch_size": 32, "random_state": 0, "device": "cpu"}
    return common | {"checkpoint_dir": None if folder is None else str(folder)} | params


def killed(
    processes: Any, cls: type[NoisyLabelClassifier], params: dict[str, Any], data: Any, *moment: int
) -> None:
    """Fit in a process of its own that SIGKILL ends."""
    process = processes.Process(target=doomed_fit, args=(cls, params, data, *moment))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL


def interrupted(clf: Any, *data: Any, epoch: int, batch: int = 0) -> Any:
    """Fit until Ctrl-C at a given moment; leave no fate behind."""
    Fate.epoch, Fate.batch = epoch, batch
    with pytest.raises(KeyboardInterrupt):
        clf.fit(*data)
    Fate.epoch, Fate.begun = None, []
    return clf


def epochs_begun(clf: Any, *data: Any) -> list[int]:
    """Fit and tell which epochs were trained."""
    Fate.begun = []
    clf.fit(*data)
    return Fate.begun


def assert_same_run(found: Any, expected: Any, X: Any) -> None:
    np.testing.assert_array_equal(found.predict_proba(X), expected.predict_proba(X))
    np.testing.assert_array_equal(found.label_quality_, expected.label_quality_)
    np.testing.assert_array_equal(found.label_distribution_, expected.label_distribution_)
    assert found.history_[:, "train_loss"] == expected.history_[:, "train_loss"]
    assert found.history_[:, "epoch"] == expected.history_[:, "epoch"]
    assert found.n_iter_ == expected.n_iter_


# SIGKILL.


def assert_goes_on_after_a_kill(
    processes: Any, cls: Any, folder: Path, epoch: int, batch: int, **own: Any
) -> None:
    data = noisy_blobs()
    killed(processes, cls, settings(folder, **own), data, epoch, batch)
    resumed = cls(callbacks=[Doom()], **settings(folder, **own))
    assert epochs_begun(resumed, *data) == list(range(epoch, own["max_epochs"]))
    whole = cls(callbacks=[Doom()], **settings(None, **own)).fit(*data)
    assert_same_run(resumed, whole, data[0])
    assert list(folder.rglob("*.pt")) == []


@every_method
@every_moment
def test_killed__fitted_again__ends_bit_identical(
    cls: Any, epoch: int, batch: int, processes: Any, tmp_path: Path
) -> None:
    own = {"warmup_epochs": 2} if issubclass(cls, WarmUp) else {}
    assert_goes_on_after_a_kill(processes, cls, tmp_path, epoch, batch, max_epochs=6, **own)


@pytest.mark.parametrize("cls, own", OTHER_STATE.values(), ids=OTHER_STATE)
def test_killed__with_more_state__ends_bit_identical(
    cls: Any, own: dict[str, Any], processes: Any, tmp_path: Path
) -> None:
    assert_goes_on_after_a_kill(processes, cls, tmp_path, 4, 1, max_epochs=6, **own)


@pytest.mark.filterwarnings("ignore:The warm-up")
@pytest.mark.parametrize(
    "cls",
    [pytest.param(cls, marks=() if cls is IN_BRIEF else pytest.mark.slow) for cls in WITH_PILOT],
    ids=lambda cls: cls.__name__,
)
def test_killed__with_a_pilot__ends_bit_identical(cls: Any, processes: Any, tmp_path: Path) -> None:
    assert_goes_on_after_a_kill(processes, cls, tmp_path, 2, 1, max_epochs=4)


@every_run
@pytest.mark.parametrize("epoch, start", [(2, 0), (3, 3), (5, 3), (6, 6)], ids=str)
def test_killed__with_checkpoint_every_3__goes_on_from_the_last_multiple(
    cls: Any, own: dict[str, Any], epoch: int, start: int, processes: Any, tmp_path: Path
) -> None:
    data = noisy_blobs()
    params = settings(tmp_path, checkpoint_every=3, **own)
    killed(processes, cls, params, data, epoch, 1)
    resumed = cls(callbacks=[Doom()], **params)
    assert epochs_begun(resumed, *data) == list(range(start, 9))
    whole = cls(callbacks=[Doom()], **settings(None, **own)).fit(*data)
    assert_same_run(resumed, whole, data[0])


@every_run
def test_killed__images_with_validation_rows__ends_bit_identical(
    cls: Any, own: dict[str, Any], processes: Any, tmp_path: Path
) -> None:
    data = images()
    own = own | {"validation_fraction": 0.25, "max_epochs": 6}
    params = settings(tmp_path, **own)
    killed(processes, cls, params, data, 4, 1)
    resumed = cls(callbacks=[Doom()], **params)
    assert epochs_begun(resumed, *data) == [4, 5]
    whole = cls(callbacks=[Doom()], **settings(None, **own)).fit(*data)
    assert_same_run(resumed, whole, data[0])
    assert resumed.history_[:, "valid_loss"] == whole.history_[:, "valid_loss"]


def test_killed__network_instance__goes_on(processes: Any, tmp_path: Path) -> None:
    data = noisy_blobs()
    params = settings(tmp_path, module=seeded_perceptron())
    killed(processes, CrossEntropyClassifier, params, data, 4, 1)
    params["module"] = seeded_perceptron()
    resumed = CrossEntropyClassifier(callbacks=[Doom()], **params)
    assert epochs_begun(resumed, *data) == list(range(4, 9))


def test_killed__frame_with_string_labels__goes_on(processes: Any, tmp_path: Path) -> None:
    X, y = noisy_blobs()
    index = [f"row{i}" for i in range(len(X))]
    frame = pd.DataFrame(X, index=index, columns=[f"c{i}" for i in range(8)])
    labels = pd.Series(np.array(["a", "b", "c"])[y], index=index, name="label")
    params = settings(tmp_path)
    killed(processes, CrossEntropyClassifier, params, (frame, labels), 4, 1)
    resumed = CrossEntropyClassifier(callbacks=[Doom()], **params)
    assert epochs_begun(resumed, frame.copy(), labels.copy()) == list(range(4, 9))


@every_run
def test_killed__before_the_first_checkpoint__trains_from_the_start(
    cls: Any, own: dict[str, Any], processes: Any, tmp_path: Path
) -> None:
    data = noisy_blobs()
    params = settings(tmp_path, **own)
    killed(processes, cls, params, data, 0, 2)
    assert epochs_begun(cls(callbacks=[Doom()], **params), *data) == list(range(9))


# Ctrl-C.


@every_run
@pytest.mark.parametrize("every", [1, 100], ids="every {}".format)
def test_keyboard_interrupt__within_an_epoch__keeps_the_last_finished_one(
    cls: Any, own: dict[str, Any], every: int, tmp_path: Path
) -> None:
    data = noisy_blobs()
    params = settings(tmp_path, checkpoint_every=every, **own)
    interrupted(cls(callbacks=[Doom()], **params), *data, epoch=5, batch=2)
    resumed = cls(callbacks=[Doom()], **params)
    assert epochs_begun(resumed, *data) == list(range(5, 9))
    whole = cls(callbacks=[Doom()], **settings(None, **own)).fit(*data)
    assert_same_run(resumed, whole, data[0])


@every_run
def test_keyboard_interrupt__same_estimator_fitted_again__goes_on(
    cls: Any, own: dict[str, Any], tmp_path: Path
) -> None:
    data = noisy_blobs()
    stop = EarlyStopping("train_loss", patience=20)
    clf = cls(callbacks=[Doom(), stop], **settings(tmp_path, **own))
    interrupted(clf, *data, epoch=5)
    assert epochs_begun(clf, *data) == list(range(5, 9))


@every_run
def test_early_stopping__interrupted__keeps_its_counters(
    cls: Any, own: dict[str, Any], tmp_path: Path
) -> None:
    data = noisy_blobs()

    def make(folder: Path | None) -> Any:
        stop = EarlyStopping(
            "train_loss",
            patience=5,
            threshold=1e9,
            threshold_mode="abs",
            load_best=True,
            sink=print,
        )
        return cls(callbacks=[Doom(), stop], **settings(folder, **own))

    whole = make(None).fit(*data)
    assert whole.n_iter_ == 6
    interrupted(make(tmp_path), *data, epoch=4)
    resumed = make(tmp_path)
    assert epochs_begun(resumed, *data) == [4, 5]
    assert_same_run(resumed, whole, data[0])


@every_run
def test_lr_scheduler__interrupted__goes_on_with_its_schedule(
    cls: Any, own: dict[str, Any], tmp_path: Path
) -> None:
    data = noisy_blobs()

    def make(folder: Path | None) -> Any:
        schedule = LRScheduler(policy=torch.optim.lr_scheduler.StepLR, step_size=2, gamma=0.5)
        return cls(callbacks=[Doom(), schedule], **settings(folder, **own))

    whole = make(None).fit(*data)
    assert whole.history_[:, "event_lr"] == [0.05 * 0.5 ** (epoch // 2) for epoch in range(9)]
    interrupted(make(tmp_path), *data, epoch=5)
    resumed = make(tmp_path)
    assert epochs_begun(resumed, *data) == list(range(5, 9))
    assert resumed.history_[:, "event_lr"] == whole.history_[:, "event_lr"]
    assert_same_run(resumed, whole, data[0])


@every_run
def test_random_state_none__interrupted__goes_on_with_the_drawn_seed(
    cls: Any, own: dict[str, Any], tmp_path: Path
) -> None:
    data = noisy_blobs()
    params = settings(tmp_path, random_state=None, **own)
    first = interrupted(cls(callbacks=[Doom()], **params), *data, epoch=5)
    resumed = cls(callbacks=[Doom()], **params)
    assert epochs_begun(resumed, *data) == list(range(5, 9))
    assert resumed.seed_ == first.seed_
    losses = [row["train_loss"] for row in first.history_ if "train_loss" in row]
    assert resumed.history_[:5, "train_loss"] == losses


# Who shares a checkpoint.


def test_same_arguments__but_verbosity_and_interval__share_a_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = noisy_blobs()
    clf = CrossEntropyClassifier(callbacks=[Doom()], **settings(tmp_path))
    interrupted(clone(clf), *data, epoch=5)
    louder = clone(clf).set_params(verbose=1, checkpoint_every=2)
    assert epochs_begun(louder, *data) == list(range(5, 9))
    assert "train_loss" in capsys.readouterr().out


X, Y = noisy_blobs()
X32 = X.astype(np.float32)
TEXT = np.array(["a", "b", "c"])[Y]
SAME: dict[str, tuple[Callable[[], tuple[Any, Any]], Callable[[], tuple[Any, Any]]]] = {
    "Fortran order": (lambda: (X, Y), lambda: (np.asfortranarray(X), Y)),
    "precision that is not read": (lambda: (X, Y), lambda: (X32, Y.astype(np.int32))),
    "lists": (lambda: (X32, Y), lambda: (X32.tolist(), Y.tolist())),
    "rows of a larger array": (lambda: (X, Y), lambda: (np.repeat(X, 2, 0)[::2], Y)),
    "tensor": (lambda: (X32, Y), lambda: (torch.as_tensor(X32), torch.as_tensor(Y))),
    "dataset": (lambda: (X32, Y), lambda: (PairDataset(X32, Y), Y)),
    "frame": (lambda: (X, Y), lambda: (pd.DataFrame(X), pd.Series(Y))),
    "copy of a frame": (
        lambda: (pd.DataFrame(X), pd.Series(Y)),
        lambda: (pd.DataFrame(X).copy(), pd.Series(Y).copy()),
    ),
    "list of text": (lambda: (X, pd.Series(TEXT)), lambda: (X, TEXT.tolist())),
    "objects": (lambda: (X, TEXT), lambda: (X, TEXT.astype(object))),
    "categories": (lambda: (X, TEXT), lambda: (X, pd.Series(TEXT, dtype="category"))),
}


@pytest.mark.parametrize("first, again", SAME.values(), ids=SAME)
def test_same_values__in_another_container__share_a_checkpoint(
    first: Callable[[], Any], again: Callable[[], Any], tmp_path: Path
) -> None:
    """A killed fit began anew, without a word, after ``df.copy()``."""
    clf = CrossEntropyClassifier(callbacks=[Doom()], **settings(tmp_path))
    interrupted(clone(clf), *first(), epoch=5)
    assert epochs_begun(clone(clf), *again()) == list(range(5, 9))


def test_same_values__of_metadata_and_parameters__share_a_checkpoint(tmp_path: Path) -> None:
    def metadata(*, copied: bool) -> dict[str, Any]:
        mask, weights = np.arange(150) < 9, 1.0 + np.arange(150)
        if not copied:
            return {
                **{"clean_mask": mask, "sample_weight": weights},
                **{"X_val": pd.DataFrame(X[:9]), "y_val": pd.Series(Y[:9])},
            }
        return {
            **{"clean_mask": mask.tolist(), "sample_weight": pd.Series(weights)},
            **{"X_val": np.asfortranarray(X[:9]), "y_val": Y[:9].tolist()},
        }

    clf = CrossEntropyClassifier(callbacks=[Doom()], **settings(tmp_path))
    Fate.epoch = 5
    with pytest.raises(KeyboardInterrupt):
        clone(clf).fit(X, Y, **metadata(copied=False))
    Fate.epoch, Fate.begun = None, []
    same = clone(clf).set_params(lr=np.float64(0.05), batch_size=np.int64(32))
    same.fit(X, Y, **metadata(copied=True))
    assert Fate.begun == list(range(5, 9))


def test_same_values__of_polars__share_a_checkpoint(tmp_path: Path) -> None:
    pl = pytest.importorskip("polars")
    clf = CrossEntropyClassifier(callbacks=[Doom()], **settings(tmp_path))
    interrupted(clone(clf), pl.DataFrame(X), pl.Series(Y), epoch=5)
    assert epochs_begun(clone(clf), pl.DataFrame(X), pl.Series(Y)) == list(range(5, 9))


OTHERS: dict[str, tuple[dict[str, Any], tuple[Any, Any], dict[str, Any]]] = {
    "one value of X": ({}, (np.where(np.arange(8 * 150).reshape(150, 8) == 77, 9, X), Y), {}),
    "order of rows": ({}, (X[::-1].copy(), Y[::-1].copy()), {}),
    "fewer rows": ({}, (X[:-1], Y[:-1]), {}),
    "one label": ({}, (X, np.where(np.arange(150) == 77, (Y + 1) % 3, Y)), {}),
    "learning rate": ({"lr": 0.04}, (X, Y), {}),
    "seed": ({"random_state": 1}, (X, Y), {}),
    "epochs": ({"max_epochs": 10}, (X, Y), {}),
    "network": ({"module__width": 16}, (X, Y), {}),
    "network class": ({"module": Perceptron}, (X, Y), {}),
    "callbacks": ({"callbacks": [Doom(), EarlyStopping("train_loss")]}, (X, Y), {}),
    "patience": ({"callbacks": [Doom(), EarlyStopping("train_loss", patience=9)]}, (X, Y), {}),
    "trusted rows": ({}, (X, Y), {"clean_mask": np.arange(150) < 9}),
    "weights of rows": ({}, (X, Y), {"sample_weight": 1 + np.arange(150)}),
    "validation set": ({}, (X, Y), {"X_val": X[:9], "y_val": Y[:9]}),
}


@pytest.mark.parametrize("params, data, metadata", OTHERS.values(), ids=OTHERS)
def test_other_arguments__never_share_a_checkpoint(
    params: dict[str, Any], data: Arrays, metadata: dict[str, Any], tmp_path: Path
) -> None:
    first = CrossEntropyClassifier(**{"callbacks": [Doom()]} | settings(tmp_path))
    interrupted(first, *noisy_blobs(), epoch=5)
    both = {"callbacks": [Doom()]} | settings(tmp_path, **params)
    with pytest.warns(NoisyFitWarning, match="Got 1 stopped with other parameters, data, code"):
        other = CrossEntropyClassifier(**both).fit(*data, **metadata)
    assert Fate.begun == list(range(both["max_epochs"]))
    alone = CrossEntropyClassifier(**both | {"checkpoint_dir": None}).fit(*data, **metadata)
    assert_same_run(other, alone, data[0])
    assert len(list(tmp_path.rglob("*.pt"))) == 1  # of the first, which may still go on


def test_other_class__never_shares_a_checkpoint(tmp_path: Path) -> None:
    data = noisy_blobs()
    params = settings(tmp_path, callbacks=[Doom()])
    interrupted(CrossEntropyClassifier(**params), *data, epoch=5)
    assert epochs_begun(GCEClassifier(**params), *data) == list(range(9))


@pytest.mark.parametrize("kind", ["dataset", "dataset of tensors", "tensor", "memmap"])
def test_other_rows_or_labels__in_any_container__never_share_a_checkpoint(
    kind: str, tmp_path: Path
) -> None:
    def container(X: Any, y: Any, name: str) -> Any:
        if kind == "dataset":
            return (PairDataset(X, y),)
        if kind == "dataset of tensors":
            return (torch.utils.data.TensorDataset(torch.as_tensor(X), torch.as_tensor(y)),)
        if kind == "tensor":
            return torch.as_tensor(X), torch.as_tensor(y)
        mapped = np.memmap(tmp_path / name, dtype=X.dtype, mode="w+", shape=X.shape)
        mapped[:] = X
        return mapped, y

    middle = np.arange(150) == 77
    clf = CrossEntropyClassifier(callbacks=[Doom()], **settings(tmp_path))
    interrupted(clone(clf), *container(X, Y, "one"), epoch=5)
    other_labels = container(X, np.where(middle, (Y + 1) % 3, Y), "two")
    assert epochs_begun(clone(clf), *other_labels) == list(range(9))
    other_rows = container(np.where(middle[:, None], 9.0, X), Y, "three")
    assert epochs_begun(clone(clf), *other_rows) == list(range(9))
    assert epochs_begun(clone(clf), *container(X, Y, "four")) == list(range(5, 9))


@every_run
def test_finished_run__leaves_nothing_and_trains_anew(
    cls: Any, own: dict[str, Any], tmp_path: Path
) -> None:
    data = noisy_blobs()
    params = settings(tmp_path, callbacks=[Doom()], **own)
    first = cls(**params).fit(*data)
    assert list(tmp_path.iterdir()) == []
    second = cls(**params)
    assert epochs_begun(second, *data) == list(range(9))
    assert_same_run(second, first, data[0])


class Wide(Perceptron):
    """A network whose code a test changes."""

    def forward(self, x: Any) -> Any:
        return super().forward(x)


def test_changed_forward__never_shares_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = noisy_blobs()
    clf = CrossEntropyClassifier(callbacks=[Doom()], **settings(tmp_path, module=Wide))
    interrupted(clone(clf), *data, epoch=5)
    monkeypatch.setattr(Wide, "forward", lambda self, x: 2 * Perceptron.forward(self, x))
    with pytest.warns(NoisyFitWarning, match="so this one starts from the first epoch"):
        assert epochs_begun(clone(clf), *data) == list(range(9))


class Plan:
    """From elsewhere, such as a file."""

    hidden = 16
    dropout = 0.0


def planned(n_features: int, n_classes: int) -> torch.nn.Module:
    network = Perceptron(n_features, n_classes, Plan.hidden)
    return torch.nn.Sequential(torch.nn.Dropout(Plan.dropout), network)


@pytest.mark.parametrize("change", [("hidden", 8), ("dropout", 0.5)], ids=lambda pair: pair[0])
def test_factory_that_makes_another_network__never_shares_a_checkpoint(
    change: tuple[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clf = CrossEntropyClassifier(callbacks=[Doom()], **settings(tmp_path, module=planned))
    interrupted(clone(clf), X, Y, epoch=5)
    monkeypatch.setattr(Plan, *change)
    with pytest.warns(NoisyFitWarning, match="so this one starts from the first epoch"):
        assert epochs_begun(clone(clf), X, Y) == list(range(9))


def test_dataset_with_rows_in_another_order__never_shares_a_checkpoint(tmp_path: Path) -> None:
    """Rows were known by their number, mean and deviation alone."""
    clf = CrossEntropyClassifier(callbacks=[Doom()], **settings(tmp_path))
    order = np.arange(150)
    first, second = np.flatnonzero(Y == 0)[:2]
    order[[first, second]] = order[[second, first]]  # of the same label
    interrupted(clone(clf), PairDataset(X, Y), epoch=5)
    with pytest.warns(NoisyFitWarning, match="stopped with other"):
        assert epochs_begun(clone(clf), PairDataset(X[order], Y)) == list(range(9))


def test_no_stopped_run_of_the_method__is_not_spoken_of(tmp_path: Path) -> None:
    params = settings(tmp_path, callbacks=[Doom()])
    interrupted(GCEClassifier(**params), X, Y, epoch=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NoisyFitWarning)
        for data in (X, Y), (X[:-1], Y[:-1]):
            assert epochs_begun(CrossEntropyClassifier(**params), *data) == list(range(9))


# Runs that are live.


class Meanwhile(Callback):  # type: ignore[misc]
    """Fit, in an epoch, the estimator that waits."""

    waiting: list[Any] = []

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        if len(net.history) == 3 and Meanwhile.waiting:
            Meanwhile.waiting.pop().fit(X, Y)


def at_once(*fits: Callable[[], Any]) -> None:
    """Call each in a thread of its own; raise what they raise."""
    errors: list[BaseException] = []

    def guarded(fit: Callable[[], Any]) -> None:
        try:
            fit()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(fit,)) for fit in fits]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("random_state", [None, 0])
def test_live_runs_with_the_same_arguments__have_folders_of_their_own(
    random_state: int | None, tmp_path: Path
) -> None:
    """The first to end removed the folder under the others, and all had one seed."""
    params = settings(tmp_path, callbacks=[Meanwhile()], random_state=random_state, max_epochs=5)
    fitted = [CrossEntropyClassifier(**params) for _ in range(2)]
    Meanwhile.waiting.append(fitted[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error", NoisyFitWarning)
        fitted[0].fit(X, Y)
    assert (fitted[0].seed_ == fitted[1].seed_) is (random_state is not None)
    assert list(tmp_path.iterdir()) == []


def test_claim__a_live_run_keeps_its_folder__a_released_one_gives_it_back(tmp_path: Path) -> None:
    first, second = (Checkpoint.claim(tmp_path, "run", "key") for _ in range(2))
    assert first.file.parent.name == "run-key"
    assert second.file.parent.name == "run-key-2"
    first.remove()
    second.hold({"epoch": 1})
    second.flush()
    second.release()
    third = Checkpoint.claim(tmp_path, "run", "key")
    assert third.read() == {"epoch": 1}
    third.remove()
    assert list(tmp_path.iterdir()) == []


def hold_and_die(folder: Path) -> None:
    checkpoint = Checkpoint.claim(folder, "run", "key")
    checkpoint.hold({"epoch": 1})
    checkpoint.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def test_claim__a_killed_owner__leaves_its_folder_to_the_next(
    processes: Any, tmp_path: Path
) -> None:
    process = processes.Process(target=hold_and_die, args=(tmp_path,))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    checkpoint = Checkpoint.claim(tmp_path, "run", "key")
    assert checkpoint.file.parent.name == "run-key"
    assert checkpoint.read() == {"epoch": 1}


def test_claim__by_many_at_once__never_shares_a_folder(tmp_path: Path) -> None:
    owned: set[Path] = set()

    def work() -> None:
        for _ in range(20):
            checkpoint = Checkpoint.claim(tmp_path, "run", "key")
            assert checkpoint.file not in owned
            owned.add(checkpoint.file)
            checkpoint.hold({})
            checkpoint.flush()
            owned.remove(checkpoint.file)
            checkpoint.remove()

    at_once(*[work] * 4)
    assert list(tmp_path.iterdir()) == []


def test_failed_fit__leaves_the_folder_to_the_next(tmp_path: Path) -> None:
    clf = CrossEntropyClassifier(callbacks=[Doom()], **settings(tmp_path, lr=1e30))
    with pytest.raises(RuntimeError, match="must stay finite") as caught:
        clf.fit(X, Y)
    assert list(tmp_path.iterdir()) == []
    del caught


def test_fitting__an_estimator__can_be_pickled_and_copied(tmp_path: Path) -> None:
    checkpoint = Checkpoint.claim(tmp_path, "run", "key")
    copied = pickle.loads(pickle.dumps(checkpoint))
    copied.release()
    assert Checkpoint.claim(tmp_path, "run", "key").file.parent.name == "run-key-2"
    checkpoint.remove()


# Files that are not what was written.


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return open, (str(self.file), "w")


def stopped_run(folder: Path) -> tuple[CrossEntropyClassifier, Path]:
    """An estimator whose fit was stopped before epoch 5, and its file."""
    clf = CrossEntropyClassifier(callbacks=[Doom()], **settings(folder))
    interrupted(clone(clf), X, Y, epoch=5)
    (file,) = folder.rglob("checkpoint.pt")
    return clf, file


def foreign(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "garbled": lambda content: bytes(len(content)),
    "one bit": lambda content: content[:2000] + bytes([content[2000] ^ 1]) + content[2001:],
    "longer": lambda content: content + b"rest",
    "of another program": lambda content: foreign({"seed": 0}),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_checkpoint__is_set_aside_and_the_fit_starts_anew(
    damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    """It blocked every later fit; with one bit flipped the result was another one."""
    clf, file = stopped_run(tmp_path)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.warns(NoisyFitWarning, match=rf"Got {file} with other contents.*pt\.damaged"):
        assert epochs_begun(clf, X, Y) == list(range(9))
    whole = CrossEntropyClassifier(callbacks=[Doom()], **settings(None)).fit(X, Y)
    assert_same_run(clf, whole, X)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [
        "checkpoint.pt.damaged"
    ]


@pytest.mark.parametrize("sealed", [False, True])
def test_planted_code__is_never_run(sealed: bool, tmp_path: Path) -> None:
    clf, file = stopped_run(tmp_path)
    planted = foreign(Payload(tmp_path / "harm"))
    if sealed:
        write_sealed(file, planted, tmp_path / "tmp")
    else:
        file.write_bytes(planted)
    with pytest.warns(NoisyFitWarning, match="other contents"):
        assert epochs_begun(clf, X, Y) == list(range(9))
    assert not (tmp_path / "harm").exists()


def test_encode__what_is_no_code__comes_back_as_it_was() -> None:
    norm = torch.nn.BatchNorm1d(2).state_dict()
    state: dict[Any, Any] = {
        **{
            "norm": norm,
            "ints": np.arange(3),
            "zero": np.array(2.0),
            "text": np.array(["a", "bc"]),
        },
        **{"mixed": np.array(["a", None, 1], dtype=object), "pair": (1, [np.float64(0.5), "x"])},
        torch.device("cpu"): torch.ones(2, dtype=torch.bfloat16),
    }
    found = decode(encode(state))
    assert list(found) == list(state)
    for name in ("ints", "zero", "text", "mixed"):
        np.testing.assert_array_equal(found[name], state[name])
        assert found[name].dtype == state[name].dtype
    assert found["pair"] == (1, [0.5, "x"])
    assert found["norm"]._metadata == norm._metadata  # type: ignore[attr-defined]
    assert torch.equal(found[torch.device("cpu")], state[torch.device("cpu")])


def test_encode__anything_else__is_an_error_that_says_where_it_is() -> None:
    with pytest.raises(ValueError, match=r"Got a Payload in the state\['callbacks'\]\['mine'\]"):
        encode({"callbacks": {"mine": [Payload(Path())]}})


# Folders that cannot be written to.


@pytest.mark.parametrize("place", ["file", "file/folder", "/proc/none"])
def test_impossible_folder__is_an_error_before_training(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    clf = CrossEntropyClassifier(callbacks=[Doom()], **settings(tmp_path / place))
    with pytest.raises(OSError, match=f"checkpoint_dir.*choose another folder.*{place}"):
        clf.fit(X, Y)
    assert Fate.begun == []


@pytest.mark.filterwarnings("ignore")
def test_full_disk__leaves_the_last_checkpoint_and_names_the_folder(tmp_path: Path) -> None:
    clf, file = stopped_run(tmp_path)
    before = file.read_bytes()
    with full_disk(1000), pytest.raises(OSError, match=f"with space left.*{file}"):
        clone(clf).fit(X, Y)
    assert file.read_bytes() == before
    assert {path.name for path in file.parent.iterdir()} == {"checkpoint.pt", "lock"}
    assert epochs_begun(clf, X, Y) == list(range(5, 9))


def test_unpicklable_parameter__is_an_error_that_says_where_to_define_it(tmp_path: Path) -> None:
    clf = CrossEntropyClassifier(augmentation=lambda x: x, **settings(tmp_path))
    with pytest.raises(
        ValueError, match="checkpoint_dir, or memory, needs parameters.*top of a module"
    ):
        clf.fit(*noisy_blobs())


# The parts.


def test_fingerprint__equal_values__are_equal() -> None:
    parts = [
        ({"a": 1, "b": np.arange(3)}, {"a": 1, "b": np.arange(3)}),
        (torch.arange(3), torch.arange(3)),
        (seeded_perceptron(), seeded_perceptron()),
        ({"module": seeded_perceptron()}, {"module": seeded_perceptron()}),
        ({"callbacks": [EarlyStopping()]}, {"callbacks": [EarlyStopping()]}),
        (None, None),
    ]
    for one, other in parts:
        assert fingerprint(one) == fingerprint(other), one


@pytest.mark.parametrize(
    "one, other",
    [
        (np.arange(3), np.arange(4)),
        (np.arange(3), np.arange(3.0)),
        (np.arange(4), np.arange(4).reshape(2, 2)),
        (torch.arange(3), torch.tensor([0, 1, 3])),
        (seeded_perceptron(), Perceptron(8, 3, 8)),
        (1, None),
    ],
    ids=["length", "dtype", "shape", "tensor", "weights", "none"],
)
def test_fingerprint__different_values__differ(one: Any, other: Any) -> None:
    assert fingerprint(one) != fingerprint(other)


def test_fingerprint__of_a_reversed_memmap__reads_it_in_slices(tmp_path: Path) -> None:
    X = np.random.default_rng(0).random((40_000, 16))
    rows = as_memmap(X, tmp_path)[::-1]
    tracemalloc.start()
    found = fingerprint(rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < X.nbytes / 2
    assert found == fingerprint(as_memmap(X, tmp_path)[::-1])
    X[-1, 0] += 1
    assert found != fingerprint(as_memmap(X, tmp_path)[::-1])


def test_fingerprint__of_a_tensor_of_bfloat16__knows_its_values() -> None:
    x = torch.ones(3, dtype=torch.bfloat16)
    assert fingerprint(x) == fingerprint(x.clone()) != fingerprint(2 * x)


def test_checkpoint__held_state__is_written_by_flush_as_it_was(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "run")
    assert checkpoint.read() is None
    weights = torch.zeros(3)
    checkpoint.hold({"weights": weights, "epoch": 4})
    weights += 1
    assert checkpoint.read() is None
    checkpoint.flush()
    stored = checkpoint.read()
    assert stored is not None
    assert stored["epoch"] == 4
    assert stored["weights"].tolist() == [0, 0, 0]
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["checkpoint.pt"]
    checkpoint.remove()
    assert checkpoint.read() is None
    assert list(tmp_path.iterdir()) == []


def test_checkpoint__nothing_held__flush_keeps_the_older_one(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "run")
    checkpoint.hold({"epoch": 1})
    checkpoint.flush()
    checkpoint.flush()
    stored = checkpoint.read()
    assert stored == {"epoch": 1}


@pytest.mark.gpu
@every_run
def test_on_a_gpu__deterministic__interrupted_run_ends_bit_identical(
    cls: Any, own: dict[str, Any], tmp_path: Path
) -> None:
    data = noisy_blobs()
    gpu = own | {"device": "cuda", "deterministic": True}
    interrupted(cls(callbacks=[Doom()], **settings(tmp_path, **gpu)), *data, epoch=5, batch=1)
    resumed = cls(callbacks=[Doom()], **settings(tmp_path, **gpu))
    assert epochs_begun(resumed, *data) == list(range(5, 9))
    whole = cls(callbacks=[Doom()], **settings(None, **gpu)).fit(*data)
    assert_same_run(resumed, whole, data[0])
