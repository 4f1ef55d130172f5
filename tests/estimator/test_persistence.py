import io
import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.tree import DecisionTreeClassifier
from skorch.callbacks import Callback
from torch import Tensor
from torchvision.models import shufflenet_v2_x0_5

from noisyfit import (
    CoTeachingClassifier,
    CrossEntropyClassifier,
    EchoAlignClassifier,
    EchoMod,
    EchoSelect,
    FlywheelClassifier,
    NoisyFitError,
    NoisyFitWarning,
    NoisyLabelClassifier,
)
from noisyfit.embedding.encoders import ContrastiveEmbedder, StandardizedFeatures
from noisyfit.nn.generators import ConditionalDiffusion, PrecomputedModifier
from tests.helpers import (
    BRIEF,
    Perceptron,
    blobs,
    images,
    make_perceptron,
    quick,
    seeded_perceptron,
)


class Own(CrossEntropyClassifier):
    """A method defined outside the package."""


X0 = blobs(60)[0]


def reloaded(clf: Any, folder: Path, **params: Any) -> Any:
    clf.save(folder / "model")
    return type(clf).load(folder / "model", **{"device": "cpu"} | params)


def assert_alike(loaded: Any, clf: Any, X: Any) -> None:
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))
    np.testing.assert_array_equal(loaded.predict(X), clf.predict(X), strict=True)
    np.testing.assert_array_equal(loaded.label_quality_, clf.label_quality_)
    pd.testing.assert_frame_equal(loaded.label_issues(), clf.label_issues())


# What a file keeps.

LABELS: dict[str, Callable[[NDArray[Any]], Any]] = {
    "bool": lambda codes: codes > 0,
    "float": lambda codes: codes.astype(float),
    "dates": lambda codes: np.array(["2020-01-01", "2021-01-01"], "M8[D]")[codes % 2],
    "objects": lambda codes: np.array(["a", "b"], dtype=object)[codes % 2],
    "categories": lambda codes: pd.Series(np.array(["a", "b"])[codes % 2]).astype("category"),
    "uint8": lambda codes: codes.astype(np.uint8),
}


@pytest.mark.parametrize("make", LABELS.values(), ids=LABELS)
def test_labels_keep_their_type(make: Callable[[NDArray[Any]], Any], tmp_path: Path) -> None:
    X, codes = blobs(60)
    clf = quick(CrossEntropyClassifier, max_epochs=2).fit(X, make(codes))
    loaded = reloaded(clf, tmp_path)
    assert loaded.classes_.dtype == clf.classes_.dtype
    assert_alike(loaded, clf, X)


INDICES: dict[str, Any] = {
    "strings": [f"row{i}" for i in range(60)],
    "dates": pd.date_range("2020-01-01", periods=60, freq="h"),
    "two levels": pd.MultiIndex.from_product([["a", "b"], range(30)]),
    "mixed": [*range(30), *map(str, range(30))],
}


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
def test_index_of_the_frame_is_kept(index: Any, tmp_path: Path) -> None:
    X, y = blobs(60)
    frame = pd.DataFrame(X, index=index, columns=list("abcdefgh"))
    clf = quick(CrossEntropyClassifier, max_epochs=2).fit(frame, y)
    assert clf.label_issues().index.tolist() == frame.index.tolist()
    loaded = reloaded(clf, tmp_path)
    assert_alike(loaded, clf, frame)
    assert loaded.feature_names_in_.tolist() == list("abcdefgh")


HOURS = pd.date_range("2020-01-01", periods=60, freq="h")
OWN_TYPES: dict[str, Any] = {
    "times of a zone": HOURS.tz_localize("Europe/Berlin"),
    "times of UTC": HOURS.tz_localize("UTC"),
    "times of an offset": HOURS.tz_localize(timezone(timedelta(hours=2))),
    "times of Python": [datetime(2020, 1, 1, tzinfo=UTC), *map(date.fromordinal, range(1, 60))],
    "periods": pd.period_range("2020-01", periods=60, freq="M"),
    "intervals": pd.interval_range(0.0, periods=60, closed="left"),
    "durations": pd.to_timedelta(range(60), unit="h"),
    "levels with times": pd.MultiIndex.from_product([["a", "b"], HOURS[:30]]),
    "levels of a zone": pd.MultiIndex.from_product([[1, 2], HOURS[:30].tz_localize("UTC")]),
    "uuids": [UUID(int=i) for i in range(60)],
    "bytes": [bytes([i]) for i in range(60)],
    "decimals": [Decimal(i) / 8 for i in range(60)],
    "categories": pd.CategoricalIndex([f"row{i % 7}" for i in range(60)]),
    "missing entries": [None, pd.NaT, pd.NA, np.nan, *range(56)],
    "numbers of numpy": pd.Index([np.float32(0.1), np.int8(3), *range(58)], dtype=object),
    "nested": pd.Index([("a", (1, frozenset({2})))] * 60, tupleize_cols=False),
}


@pytest.mark.parametrize("index", OWN_TYPES.values(), ids=OWN_TYPES)
def test_index_of_the_frame__of_any_type__comes_back_as_it_was(index: Any, tmp_path: Path) -> None:
    X, y = blobs(60)
    frame = pd.DataFrame(X, columns=list("abcdefgh")).set_index(pd.Index(index))
    clf = quick(CrossEntropyClassifier, max_epochs=2).fit(frame, y)
    loaded = reloaded(clf, tmp_path)
    assert_alike(loaded, clf, frame)
    assert list(map(type, loaded.sample_index_)) == list(map(type, clf.sample_index_))
    assert list(map(repr, loaded.sample_index_)) == list(map(repr, clf.sample_index_))


class Colour(Enum):
    RED = 1


def test_index_of_the_frame__of_a_users_class__is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    X, y = blobs(60)
    clf = quick(CrossEntropyClassifier, max_epochs=2)
    clf.fit(pd.DataFrame(X, index=[Colour.RED] * 60), y)
    with pytest.raises(NoisyFitError, match="Got Colour in sample_index_"):
        clf.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


NOTES: dict[str, Any] = {
    "float32": np.float32(0.1),
    "tensor": torch.arange(3.0),
    "bfloat16": torch.tensor([0.1], dtype=torch.bfloat16),
    "array": np.arange(4, dtype=np.int16).reshape(2, 2),
    "strings": np.array(["a", None], dtype=object),
    "tuple": (1, "a", (2.5, None)),
    "dict": {1: "one", "two": [np.int8(2)]},
    "nan": float("nan"),
    "time": datetime(2020, 1, 1, 12, tzinfo=UTC),
    "path": Path("runs/1"),
}


class Notes(Callback):
    """Write a value of its own into the history."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        net.history.record("note", self.value)


@pytest.mark.filterwarnings("ignore:.*callbacks")
@pytest.mark.parametrize("value", NOTES.values(), ids=NOTES)
def test_history__with_values_of_any_type__comes_back_as_it_was(value: Any, tmp_path: Path) -> None:
    clf = quick(CrossEntropyClassifier, max_epochs=2, callbacks=[Notes(value)]).fit(*blobs(60))
    loaded = reloaded(clf, tmp_path)
    assert isinstance(loaded.history_, type(clf.history_))
    for row in loaded.history_:
        assert type(row["note"]) is type(value)
        assert getattr(row["note"], "dtype", None) == getattr(value, "dtype", None)
        assert repr(row["note"]) == repr(value)


def test_history__with_an_object__is_refused(tmp_path: Path) -> None:
    clf = quick(CrossEntropyClassifier, max_epochs=2, callbacks=[Notes(Notes(1))]).fit(*blobs(60))
    with pytest.raises(NoisyFitError, match="Got Notes in history_"):
        clf.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


PARAMETERS: dict[str, dict[str, Any]] = {
    "optimizer": {"optimizer": torch.optim.AdamW, "lr": 0.01, "optimizer__betas": (0.8, 0.9)},
    "numpy numbers": {"lr": np.float64(0.02), "batch_size": np.int64(32)},
    "list of numpy numbers": {
        "optimizer": torch.optim.Adam,
        "optimizer__betas": list(np.array([0.8, 0.9])),
    },
    "missing nan": {"missing_label": np.nan},
    "device": {"device": torch.device("cpu")},
    "path": {"checkpoint_dir": Path("checkpoints")},
    "augmentation": {"augmentation": torch.nn.functional.relu},
    "random state": {"random_state": np.random.RandomState(3)},
    "activation": {"module__dropout": 0.25, "optimizer": torch.optim.Adam},
}


LEFT_OUT = ("augmentation", "callbacks", "checkpoint_dir")


@pytest.mark.filterwarnings("ignore:.*(augmentation|checkpoint_dir)")
@pytest.mark.parametrize("params", PARAMETERS.values(), ids=PARAMETERS)
def test_parameters_are_kept(
    params: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    X, y = blobs(60)
    clf = quick(CrossEntropyClassifier, max_epochs=2, **params).fit(X, y)
    loaded = reloaded(clf, tmp_path)
    assert_alike(loaded, clf, X)
    for name in params.keys() - {*LEFT_OUT, "random_state", "device"}:
        found, expected = loaded.get_params()[name], clf.get_params()[name]
        assert type(found) is type(expected)
        np.testing.assert_equal(found, expected)
    refitted = loaded.set_params(**{k: v for k, v in params.items() if k in LEFT_OUT}).fit(X, y)
    np.testing.assert_array_equal(refitted.predict_proba(X), clf.fit(X, y).predict_proba(X))


@pytest.mark.parametrize(
    "params",
    [
        {"augmentation": torch.nn.functional.relu},
        {"callbacks": [Notes(1)]},
        {"checkpoint_dir": "runs"},
    ],
    ids=LEFT_OUT,
)
def test_parameters__that_a_file_cannot_hold__are_named_and_can_be_passed_to_load(
    params: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ((name, value),) = params.items()
    clf = quick(CrossEntropyClassifier, max_epochs=2, **params).fit(*blobs(60))
    with pytest.warns(NoisyFitWarning, match=rf"{name} will be left out.*load\(path, {name}=...\)"):
        clf.save(tmp_path / "model")
    with pytest.warns(NoisyFitWarning, match=f"fitted with {name}.*defaults"):
        loaded = CrossEntropyClassifier.load(tmp_path / "model")
    assert loaded.get_params()[name] == CrossEntropyClassifier().get_params()[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = CrossEntropyClassifier.load(tmp_path / "model", **params)
    assert loaded.get_params()[name] is value


def test_parameters__of_the_network_that_a_file_cannot_hold__must_be_passed(tmp_path: Path) -> None:
    def initialise(network: Any) -> None:
        torch.nn.init.zeros_(network[0].weight)

    def make(n_features: int, n_classes: int, init: Any) -> torch.nn.Module:
        network = Perceptron(n_features, n_classes)
        init(network)
        return network

    own: dict[str, Any] = {"module": make, "module__init": initialise}
    clf = quick(CrossEntropyClassifier, max_epochs=2, **own).fit(*blobs(60))
    clf.save(tmp_path / "model")
    with pytest.raises(NoisyFitError, match=r"its own module__init.*load\(path, module__init="):
        CrossEntropyClassifier.load(tmp_path / "model", module=make)
    loaded = CrossEntropyClassifier.load(tmp_path / "model", **own)
    np.testing.assert_array_equal(loaded.predict_proba(X0), clf.predict_proba(X0))


def test_attributes__of_a_users_method__are_kept_and_others_named(tmp_path: Path) -> None:
    class Richer(CrossEntropyClassifier):
        def _conclude(self, *args: Any) -> None:
            super()._conclude(*args)
            self.extra_ = {"a": (1, np.float32(2.5))}

    clf = quick(Richer, max_epochs=2).fit(*blobs(60))
    clf.note_ = 5
    with pytest.warns(NoisyFitWarning, match="methods of Richer write: note_ will be left out"):
        clf.save(tmp_path / "model")
    loaded = Richer.load(tmp_path / "model")
    assert repr(loaded.extra_) == repr(clf.extra_)
    assert not hasattr(loaded, "note_")


def test_set_output_is_kept(tmp_path: Path) -> None:
    clf = quick(CrossEntropyClassifier, max_epochs=2).set_output(transform="pandas")
    loaded = reloaded(clf.fit(*blobs(60)), tmp_path)
    pd.testing.assert_frame_equal(loaded.transform(X0), clf.transform(X0))


def test_images__layout_and_scale__are_still_checked(tmp_path: Path) -> None:
    X, y = images(30)
    clf = quick(FlywheelClassifier, max_epochs=2, batch_size=16).fit(X, y)
    loaded = reloaded(clf, tmp_path)
    assert_alike(loaded, clf, X)
    with pytest.raises(ValueError, match="scale of fit"):
        loaded.predict(X * 100.0)
    with pytest.raises(ValueError, match="as in fit"):
        loaded.predict(X[..., 0])


@pytest.mark.parametrize(
    "given",
    [Perceptron, make_perceptron, seeded_perceptron()],
    ids=["class", "factory", "instance"],
)
def test_own_network__is_passed_in_any_form(given: Any, tmp_path: Path) -> None:
    X, y = blobs(60)
    clf = quick(FlywheelClassifier, module=given, max_epochs=2).fit(X, y)
    clf.save(tmp_path / "model")
    with pytest.raises(NoisyFitError, match="files hold no code. Pass it"):
        FlywheelClassifier.load(tmp_path / "model")
    assert_alike(reloaded(clf, tmp_path, module=given), clf, X)


def test_own_network__of_another_shape__is_an_error(tmp_path: Path) -> None:
    clf = quick(CrossEntropyClassifier, module=Perceptron, max_epochs=2).fit(*blobs(60))
    clf.save(tmp_path / "model")
    with pytest.raises((RuntimeError, ValueError), match="size mismatch|shape"):
        CrossEntropyClassifier.load(tmp_path / "model", module=Perceptron(8, 3, hidden=4))


# Which file fits which class.


def test_own_class__is_loaded_by_itself_alone(tmp_path: Path) -> None:
    X, y = blobs(60)
    clf = quick(Own, max_epochs=2).fit(X, y)
    assert_alike(reloaded(clf, tmp_path), clf, X)
    with pytest.raises(NoisyFitError, match="Own. Call load of that class"):
        NoisyLabelClassifier.load(tmp_path / "model")


def test_other_class__is_an_error_that_names_the_right_one(tmp_path: Path) -> None:
    quick(CrossEntropyClassifier, max_epochs=2).fit(*blobs(60)).save(tmp_path / "model")
    with pytest.raises(NoisyFitError, match="must hold a FlywheelClassifier.*CrossEntropy"):
        FlywheelClassifier.load(tmp_path / "model")


def rewritten(path: Path, **changes: Any) -> None:
    """Change entries of the file's description."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["meta.json"] = json.dumps(json.loads(members["meta.json"]) | changes).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_other_format__is_an_error_that_names_it(tmp_path: Path) -> None:
    quick(CrossEntropyClassifier, max_epochs=2).fit(*blobs(60)).save(tmp_path / "model")
    rewritten(tmp_path / "model", format=99)
    with pytest.raises(NoisyFitError, match="Got format 99.*version of noisyfit"):
        CrossEntropyClassifier.load(tmp_path / "model")


@pytest.mark.parametrize(
    "stored",
    [
        ["os", "system"],
        ["noisyfit.estimator.persistence.savable", "save"],
        ["noisyfit.estimator.base", "Callable"],
    ],
    ids="{0[0]}.{0[1]}".format,
)
def test_foreign_class__in_the_file__is_refused(stored: list[str], tmp_path: Path) -> None:
    quick(CrossEntropyClassifier, max_epochs=2).fit(*blobs(60)).save(tmp_path / "model")
    rewritten(tmp_path / "model", **{"class": stored})
    with pytest.raises((NoisyFitError, TypeError), match=stored[1]):
        NoisyLabelClassifier.load(tmp_path / "model")


def test_file_is_arrays_numbers_and_weights(tmp_path: Path) -> None:
    clf = quick(FlywheelClassifier, max_epochs=2, callbacks=[]).fit(*blobs(60))
    clf.save(tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "model") as archive:
        assert sorted(archive.namelist()) == ["arrays.npz", "meta.json", "networks.pt"]
        arrays = np.load(io.BytesIO(archive.read("arrays.npz")), allow_pickle=False)
        assert {arrays[name].dtype.kind for name in arrays.files} <= set("biufUM")
        networks = torch.load(io.BytesIO(archive.read("networks.pt")), weights_only=True)
    assert networks.keys() == {"module", "main"}


def test_unfitted__cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not fitted"):
        CrossEntropyClassifier().save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_saving__over_an_older_file__replaces_it(tmp_path: Path) -> None:
    X, y = blobs(60)
    quick(CrossEntropyClassifier, max_epochs=2).fit(X, y).save(str(tmp_path / "model"))
    newer = quick(CrossEntropyClassifier, max_epochs=4).fit(X, y)
    assert_alike(reloaded(newer, tmp_path), newer, X)
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


# What `save` does not write on.


def test_saving__into_a_missing_folder__names_the_folder(tmp_path: Path) -> None:
    clf = quick(CrossEntropyClassifier, max_epochs=2).fit(*blobs(60))
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere. Make it first") as error:
        clf.save(tmp_path / "nowhere" / "model")
    assert ".tmp" not in str(error.value)


def test_saving__over_what_is_no_file__is_refused(tmp_path: Path) -> None:
    clf = quick(CrossEntropyClassifier, max_epochs=2).fit(*blobs(60))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for name, kind in ("pipe", "a pipe"), ("folder", "a folder"), ("link", "a pipe"):
        with pytest.raises(ValueError, match=f"must write a file. Got .*{name}, which is.*{kind}"):
            clf.save(tmp_path / name)
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder", "link", "pipe"]
    with pytest.raises(ValueError, match="a device"):
        clf.save("/dev/null")


def test_saving__through_a_link__replaces_the_file_behind_it(tmp_path: Path) -> None:
    clf = quick(CrossEntropyClassifier, max_epochs=2).fit(*blobs(60))
    (tmp_path / "model").symlink_to(tmp_path / "file")
    for _ in range(2):  # the file does not exist, then it does
        assert_alike(reloaded(clf, tmp_path), clf, X0)
    assert (tmp_path / "model").is_symlink()
    assert not (tmp_path / "file").is_symlink()


def test_saving__that_fails__names_the_file_and_not_the_temporary_one(tmp_path: Path) -> None:
    clf = quick(CrossEntropyClassifier, max_epochs=2).fit(*blobs(60))
    with pytest.raises(OSError, match="name too long") as error:
        clf.save(tmp_path / ("m" * 300))
    assert ".tmp" not in str(error.value)


# What `load` does not believe.

CONTENTS: dict[str, tuple[bytes, str]] = {
    "pickle": (pickle.dumps({}), "a pickle, which joblib.load"),
    "nothing": (b"", "an empty file"),
    "text": (b"hello", "something else"),
    "another archive": (b"PK\x05\x06" + bytes(18), "another archive"),
}


@pytest.mark.parametrize("content, kind", CONTENTS.values(), ids=CONTENTS)
def test_other_files__are_named(content: bytes, kind: str, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(content)
    with pytest.raises(NoisyFitError, match=f"that save has written. Got {kind}"):
        CrossEntropyClassifier.load(tmp_path / "model")


FORGED: dict[str, tuple[str, dict[str, Any], str]] = {
    "folder of checkpoints": ("params", {"checkpoint_dir": "/tmp/x"}, "'checkpoint_dir'"),
    "device": ("params", {"device": "cuda"}, "'device'"),
    "unknown parameter": ("params", {"predict": 1}, "parameters of.*'predict'"),
    "private parameter": ("params", {"_networks": 1}, "'_networks'"),
    "class": ("params", {"__class__": 1}, "'__class__'"),
    "method": ("params", {"predict__x": 1}, "'predict__x'"),
    "value": ("params", {"lr": "high"}, "'lr' parameter of"),
    "method as attribute": ("fitted", {"predict": 1}, "attributes of.*'predict'"),
    "unknown attribute": ("fitted", {"surprise_": 1}, "'surprise_'"),
    "attribute of the engine": ("fitted", {"callbacks_": 1}, "'callbacks_'"),
    "attribute of Python": ("fitted", {"__dict__": 1}, "'__dict__'"),
    "kind of value": ("fitted", {"gamma_": {"eval": "1"}}, "meta.json is damaged"),
    "class of a value": ("params", {"optimizer": {"torch.optim": "os"}}, "meta.json is damaged"),
    "module of a value": ("params", {"optimizer": {"os": "system"}}, "meta.json is damaged"),
}


@pytest.mark.parametrize("part, change, message", FORGED.values(), ids=FORGED)
def test_forged_file__is_refused(
    part: str, change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    quick(FlywheelClassifier, max_epochs=2).fit(*blobs(60)).save(tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "model") as archive:
        meta = json.loads(archive.read("meta.json"))
    rewritten(tmp_path / "model", **{part: meta[part] | change})
    with pytest.raises((NoisyFitError, ValueError), match=message):
        FlywheelClassifier.load(tmp_path / "model")


@pytest.mark.parametrize("lost", ["classes_", "row_shape_", "networks"])
def test_file__without_what_prediction_needs__is_refused(lost: str, tmp_path: Path) -> None:
    quick(CrossEntropyClassifier, max_epochs=2).fit(*blobs(60)).save(tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "model") as archive:
        fitted = json.loads(archive.read("meta.json"))["fitted"]
    fitted.pop(lost, None)
    other = {"class": ["noisyfit.methods.flywheel", "FlywheelClassifier"]}
    rewritten(tmp_path / "model", **{"fitted": fitted} | (other if lost == "networks" else {}))
    with pytest.raises(ValueError, match="is damaged or was put in by others"):
        NoisyLabelClassifier.load(tmp_path / "model")


def test_forged_file__of_a_foreign_class_with_a_known_name__is_refused(tmp_path: Path) -> None:
    quick(CrossEntropyClassifier, max_epochs=2).fit(*blobs(60)).save(tmp_path / "model")
    rewritten(tmp_path / "model", **{"class": ["evil", "CrossEntropyClassifier"]})
    with pytest.raises(NoisyFitError, match="Got a evil.CrossEntropyClassifier"):
        CrossEntropyClassifier.load(tmp_path / "model")


def test_pretrained_weights_of_a_factory__are_not_fetched_by_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = images(12)
    network = {"module": shufflenet_v2_x0_5, "module__num_classes": 3}
    clf = quick(CrossEntropyClassifier, max_epochs=1, **network).fit(X, y)
    clf.set_params(module__weights="DEFAULT").save(tmp_path / "model")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    given = {"device": "cpu", "module": shufflenet_v2_x0_5}
    loaded = CrossEntropyClassifier.load(tmp_path / "model", **given)
    assert not (tmp_path / "empty").exists()
    assert loaded.get_params()["module__weights"] == "DEFAULT"
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))


# Models in models.


class Turned:
    """A user's generator without training."""

    def modify(self, x: Tensor, y: NDArray[Any], generator: torch.Generator) -> Tensor:
        return -x


class Shifted:
    """A user's generator that learns numbers, and a function it does not need to keep."""

    fits = 0

    def __init__(self, scale: Any = abs) -> None:
        self.scale = scale

    def fit(self, x: Tensor, y: NDArray[Any], generator: torch.Generator) -> "Shifted":
        Shifted.fits += 1
        self.shift = x.mean(0) + torch.rand((), generator=generator)
        return self

    def modify(self, x: Tensor, y: NDArray[Any], generator: torch.Generator) -> Tensor:
        return x + self.scale(self.shift)


class Wider(ConditionalDiffusion):
    """A user's generator with a network."""


class Centred(StandardizedFeatures):
    """A user's encoder."""


class OwnSelect(EchoSelect):
    """A selector defined outside the package."""


class Secretive(Shifted):
    def fit(self, x: Tensor, y: NDArray[Any], generator: torch.Generator) -> "Secretive":
        super().fit(x, y, generator)
        self.secret = lambda rows: rows
        return self


def squared(rows: Any) -> Any:
    return np.asarray(rows).reshape(len(rows), -1) ** 2.0


def by_similarity(*parts: Any, **params: Any) -> EchoSelect:
    settings: dict[str, Any] = {"select_by": "similarity", "n_rounds": 1} | params
    return EchoSelect(*parts, **settings)


def aligned(selector: EchoSelect, estimator: Any = None, **params: Any) -> EchoAlignClassifier:
    inner = quick(CrossEntropyClassifier, max_epochs=3) if estimator is None else estimator
    return EchoAlignClassifier(inner, selector, random_state=0, **params)


def assert_same_model(loaded: Any, clf: Any, X: Any, y: Any) -> None:
    assert_alike(loaded, clf, X)
    np.testing.assert_array_equal(loaded.score_labels(X, y), clf.score_labels(X, y))
    for name in vars(clf):
        if name.endswith("_") and name not in ("estimator_", "selector_"):
            np.testing.assert_equal(getattr(loaded, name), getattr(clf, name), err_msg=name)
    for name in (
        "similarities_",
        "threshold_",
        "modified_",
        "support_",
        "believed_labels_",
        "classes_",
        "seed_",
    ):
        found, expected = getattr(loaded.selector_, name), getattr(clf.selector_, name)
        np.testing.assert_array_equal(found, expected, err_msg=name)
        assert getattr(found, "dtype", None) == getattr(expected, "dtype", None)
    np.testing.assert_array_equal(loaded.estimator_.label_quality_, clf.estimator_.label_quality_)


SELECTORS: dict[str, Callable[[], EchoSelect]] = {
    "similarity": lambda: by_similarity(BRIEF, n_rounds=2),
    "quantiles": lambda: by_similarity(BRIEF, threshold=("quantile", 0.3)),
    "classifier that rates": lambda: EchoSelect(
        BRIEF, n_rounds=1, select_by=quick(FlywheelClassifier, max_epochs=3)
    ),
}


@pytest.mark.filterwarnings("ignore:Every class")
@pytest.mark.parametrize("make", SELECTORS.values(), ids=SELECTORS)
def test_echoalign__comes_back_as_it_was(make: Callable[[], EchoSelect], tmp_path: Path) -> None:
    X, codes = blobs(60)
    y = np.array(["ant", "bee", None], dtype=object)[codes]
    frame = pd.DataFrame(X, index=INDICES["dates"], columns=list("abcdefgh"))
    clf = aligned(make(), missing_label=np.nan).fit(
        frame, y, clean_mask=np.arange(60) == codes.argmin()
    )
    loaded = reloaded(clf, tmp_path)
    assert type(loaded) is EchoAlignClassifier
    assert_same_model(loaded, clf, frame, y)
    assert repr(loaded.set_params(selector__device="auto")) == repr(clf)
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(frame[list("hgfedcba")])
    np.testing.assert_array_equal(
        loaded.fit(frame, y).predict_proba(frame), clf.fit(frame, y).predict_proba(frame)
    )


def test_echoalign__at_its_defaults__comes_back_as_it_was(tmp_path: Path) -> None:
    X, y = blobs(120)
    clf = EchoAlignClassifier(selector=EchoSelect(BRIEF), random_state=0)
    clf._default_estimator = lambda: CrossEntropyClassifier(max_epochs=2)  # type: ignore[method-assign]
    clf.fit(X, y)
    loaded = reloaded(clf, tmp_path)
    assert_same_model(loaded, clf, X, y)
    assert loaded.get_params(deep=False)["estimator"] is None
    assert loaded.selector.select_by == "auto"
    assert type(loaded.selector_.rater_) is CoTeachingClassifier


@pytest.mark.filterwarnings("ignore:Every class")
@pytest.mark.parametrize(
    "embedder",
    [ContrastiveEmbedder(n_train_steps=2, device="cpu"), None],
    ids=["encoder", "pixels"],
)
def test_echoalign__of_images__comes_back_as_it_was(embedder: Any, tmp_path: Path) -> None:
    X, y = images(30)
    unet = ConditionalDiffusion(n_train_steps=2, n_steps=2, width=8, control="edges")
    clf = aligned(by_similarity(unet, embedder)).fit(X, y)
    loaded = reloaded(clf, tmp_path)
    assert_same_model(loaded, clf, X, y)
    with pytest.raises(ValueError, match="as in fit"):
        loaded.predict(X[:, :9])


@pytest.mark.filterwarnings("ignore:Every class")
def test_file_that_names_a_module_of_earlier__loads(tmp_path: Path) -> None:
    X, y = blobs(60)
    clf = aligned(EchoSelect(BRIEF, n_rounds=1)).fit(X, y)
    clf.save(tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "model") as archive:
        meta = json.loads(archive.read("meta.json"))
    earlier = ["noisyfit.nn.embedders", "StandardizedFeatures"]
    where = f"{SELECTOR}/fitted/embedder_/part/class"
    rewritten(tmp_path / "model", **forged(meta, where, earlier))
    loaded = EchoAlignClassifier.load(tmp_path / "model", device="cpu")
    assert type(loaded.selector_.embedder_) is StandardizedFeatures
    assert_same_model(loaded, clf, X, y)


def test_echoalign__with_rows_modified_elsewhere__comes_back_as_it_was(tmp_path: Path) -> None:
    X, y = blobs(60)
    selector = EchoSelect(PrecomputedModifier(X, y, X[::-1]))
    clf = aligned(selector, include_modified="all").fit(X, y)
    assert_same_model(reloaded(clf, tmp_path), clf, X, y)


OWN: dict[str, tuple[Callable[[], EchoSelect], dict[str, Any]]] = {
    "generator": (lambda: by_similarity(Turned()), {"selector__modifier": Turned()}),
    "generator that learns": (
        lambda: by_similarity(Shifted()), {"selector__modifier": Shifted()}
    ),
    "generator with a network": (
        lambda: by_similarity(Wider(n_train_steps=3, n_steps=2, width=8)),
        {"selector__modifier": Wider(n_train_steps=3, n_steps=2, width=8)},
    ),
    "encoder": (lambda: by_similarity(BRIEF, squared), {"selector__embedder": squared}),
    "encoder that learns": (
        lambda: by_similarity(BRIEF, Centred()), {"selector__embedder": Centred()}
    ),
    "transformer": (
        lambda: by_similarity(BRIEF, FrozenEstimator(PCA(3).fit(X0))),
        {"selector__embedder": FrozenEstimator(PCA(3).fit(X0))},
    ),
    "rater": (
        lambda: EchoSelect(BRIEF, select_by=quick(Own, max_epochs=2), n_rounds=1),
        {"selector__select_by": quick(Own, max_epochs=2)},
    ),
    "network of the rater": (
        lambda: EchoSelect(
            BRIEF, select_by=quick(CrossEntropyClassifier, max_epochs=2, module=Perceptron),
            n_rounds=1,
        ),
        {"selector__select_by__module": Perceptron},
    ),
    "selector": (lambda: OwnSelect(BRIEF, n_rounds=1), {"selector": OwnSelect(BRIEF, n_rounds=1)}),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Every class")
@pytest.mark.parametrize("make, own", OWN.values(), ids=OWN)
def test_echoalign__with_code_of_the_users_own__asks_for_it_and_has_learned_the_rest(
    make: Callable[[], EchoSelect], own: dict[str, Any], tmp_path: Path
) -> None:
    X, y = blobs(60)
    clf = aligned(make()).fit(X, y)
    clf.save(tmp_path / "model")
    Shifted.fits = 0
    ((name, _),) = own.items()
    with pytest.raises(NoisyFitError, match=rf"own ({name}|network) .*load\(path, {name}=...\)"):
        EchoAlignClassifier.load(tmp_path / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same_model(reloaded(clf, tmp_path, **own), clf, X, y)
    assert Shifted.fits == 0


@pytest.mark.filterwarnings("ignore:Every class")
def test_echoalign__with_a_method_of_the_users_own__asks_for_it(tmp_path: Path) -> None:
    X, y = blobs(60)
    own = quick(Own, max_epochs=2, module=Perceptron)
    clf = aligned(by_similarity(BRIEF), own).fit(X, y)
    clf.save(tmp_path / "model")
    with pytest.raises(NoisyFitError, match=r"own estimator Own.*load\(path, estimator=...\)"):
        EchoAlignClassifier.load(tmp_path / "model")
    loaded = reloaded(clf, tmp_path, estimator=own)
    assert type(loaded.estimator_) is Own
    assert_same_model(loaded, clf, X, y)


def test_echoalign__what_a_file_cannot_hold__is_named_and_can_be_passed_to_load(
    tmp_path: Path,
) -> None:
    X, y = blobs(60)
    inner = quick(CrossEntropyClassifier, max_epochs=2, callbacks=[Notes(1)])
    clf = aligned(by_similarity(BRIEF, memory=tmp_path / "memory"), inner).fit(X, y)
    named = "estimator__callbacks, selector__memory"
    with pytest.warns(NoisyFitWarning, match=f"{named} will be left out"):
        clf.save(tmp_path / "model")
    with pytest.warns(NoisyFitWarning, match=f"fitted with {named}.*defaults"):
        loaded = EchoAlignClassifier.load(tmp_path / "model")
    assert_same_model(loaded, clf, X, y)
    given = {"estimator__callbacks": None, "selector__memory": tmp_path / "other"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = EchoAlignClassifier.load(tmp_path / "model", **given)
    assert_same_model(loaded, clf, X, y)
    assert loaded.get_params()["selector__memory"] == loaded.selector_.memory == tmp_path / "other"
    with pytest.raises(ValueError, match="Invalid parameter 'selector__memoria' for EchoSelect"):
        EchoAlignClassifier.load(tmp_path / "model", selector__memoria=1)
    with pytest.raises(ValueError, match="Invalid parameter 'selector__modifier__steps' for Cond"):
        EchoAlignClassifier.load(tmp_path / "model", selector__modifier__steps=1)


def test_echoalign__code_set_after_the_fit__is_named_as_left_out(tmp_path: Path) -> None:
    clf = aligned(by_similarity(BRIEF)).fit(*blobs(60))
    clf.set_params(estimator__module=Perceptron, selector__modifier=Turned())
    named = "estimator__module, selector__modifier"
    with pytest.warns(NoisyFitWarning, match=f"{named} will be left out"):
        clf.save(tmp_path / "model")
    with pytest.warns(NoisyFitWarning, match=f"{named}, which the file does not hold"):
        loaded = EchoAlignClassifier.load(tmp_path / "model")
    assert_same_model(loaded, clf, *blobs(60))


@pytest.mark.parametrize("parameter", ["estimator", "selector__select_by"])
def test_echoalign__with_a_classifier_of_scikit_learn__is_refused_by_name(
    parameter: str, tmp_path: Path
) -> None:
    X, y = blobs(60)
    clf = aligned(by_similarity(BRIEF)).set_params(**{parameter: RatingTree()}).fit(X, y)
    attribute = {"estimator": "estimator_", "selector__select_by": "rater_"}[parameter]
    with pytest.raises(
        NoisyFitError, match=f"Got a RatingTree in {attribute}.*joblib or skops.*classifier of"
    ):
        clf.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


class RatingTree(DecisionTreeClassifier):
    """A classifier of scikit-learn that rates labels."""

    def fit(self, X: Any, y: Any) -> "RatingTree":
        super().fit(X, y)
        self.label_quality_ = np.ones(len(y))
        return self

    def score_labels(self, X: Any, y: Any) -> NDArray[Any]:
        return np.ones(len(y))


def test_echoalign__with_a_generator_that_learns_code__is_refused(tmp_path: Path) -> None:
    clf = aligned(by_similarity(Secretive())).fit(*blobs(60))
    with pytest.raises(NoisyFitError, match="a Secretive has learned.*Got <lambda>.*get_state"):
        clf.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_echoalign__file_is_arrays_numbers_and_weights(tmp_path: Path) -> None:
    aligned(by_similarity(BRIEF)).fit(*blobs(60)).save(tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "model") as archive:
        assert sorted(archive.namelist()) == ["arrays.npz", "meta.json", "networks.pt"]
        arrays = np.load(io.BytesIO(archive.read("arrays.npz")), allow_pickle=False)
        assert {arrays[name].dtype.kind for name in arrays.files} <= set("biufUM")
        torch.load(io.BytesIO(archive.read("networks.pt")), weights_only=True)


@pytest.mark.parametrize("kind", [EchoMod, EchoSelect])
def test_selector__alone__comes_back_as_it_was(kind: Any, tmp_path: Path) -> None:
    X, y = images(30)
    echo = kind(ConditionalDiffusion(n_train_steps=2, n_steps=2, width=8), random_state=0)
    echo.fit(X, y)
    loaded = reloaded(echo, tmp_path)
    np.testing.assert_array_equal(loaded.transform(X), echo.transform(X))
    assert loaded.seed_ == echo.seed_
    if kind is EchoSelect:
        np.testing.assert_array_equal(loaded.similarity(X, y), echo.similarity(X, y))


def forged(description: Any, path: str, value: Any) -> dict[str, Any]:
    """Return the entry of the description that holds ``path``, with a value in its place."""
    names = path.split("/")
    *outer, last = names
    inside = description
    for name in outer:
        inside = inside[name]
    inside[last] = value
    return {names[0]: description[names[0]]}


ESTIMATOR, SELECTOR = "fitted/estimator_/model", "fitted/selector_/model"
FORGED_PARTS: dict[str, tuple[str, Any, str]] = {
    "class of the classifier": (f"{ESTIMATOR}/class", ["os", "system"], "Got a os.system"),
    "class that is no model": (
        f"{ESTIMATOR}/class", ["noisyfit.data", "Rows"], "Got a noisyfit.data.Rows"
    ),
    "class of the generator": (
        f"{SELECTOR}/fitted/modifier_/part/class", ["builtins", "eval"], "Got a builtins.eval"
    ),
    "generator that downloads": (
        f"{SELECTOR}/fitted/modifier_/part/class",
        ["noisyfit.nn.generators.controlnet", "ControlNetGenerator"],
        "ControlNetGenerator",
    ),
    "encoder that downloads": (
        f"{SELECTOR}/fitted/embedder_/part/class",
        ["noisyfit.embedding.encoders", "CLIPEmbedder"],
        "CLIPEmbedder",
    ),
    "parameter of the generator": (
        f"{SELECTOR}/params/modifier/part/params/modify", 1, "parameters of Cond.*'modify'"
    ),
    "device of the generator": (
        f"{SELECTOR}/params/modifier/part/params/device", "cuda", "'device'"
    ),
    "learned by the generator": (
        f"{SELECTOR}/fitted/modifier_/part/learned/dict", [["modify", 1]], "attributes of Cond.*mod"
    ),
    "learned by the encoder": (
        f"{SELECTOR}/fitted/embedder_/part/learned/dict", [["embed", 1]], "attributes of Stand.*emb"
    ),
    "nothing learned by the generator": (
        f"{SELECTOR}/fitted/modifier_/part/learned/dict", [], "is damaged or was put in"
    ),
    "method of the selector": (f"{SELECTOR}/fitted/similarity", 1, "attributes of.*'similarity'"),
    "folder of the selector": (f"{SELECTOR}/params/memory", "/tmp", "'memory'"),
    "folder in use": (f"{SELECTOR}/fitted/_folder", {"Path": ["/tmp"]}, "'_folder'"),
    "value of the selector": (f"{SELECTOR}/params/batch_size", 0, "'batch_size' parameter of"),
    "rule of the selector": (f"{SELECTOR}/params/threshold", "otsy", "threshold must be"),
    "routed parameter": ("params/estimator__lr", 1, "parameters of Echo.*'estimator__lr'"),
    "number for the classifier": ("fitted/estimator_", 1, "is damaged or was put in"),
    "code for the generator": (
        f"{SELECTOR}/fitted/modifier_", {"own": None}, "is damaged or was put in"
    ),
    "networks of the classifier": (f"{ESTIMATOR}/networks", {"dict": []}, "is damaged or was put"),
    "history of the classifier": (f"{ESTIMATOR}/history", 3, "is damaged or was put"),
    "list for a model": (ESTIMATOR, [1], "is damaged or was put"),
}  # fmt: skip


@pytest.mark.parametrize("where, value, message", FORGED_PARTS.values(), ids=FORGED_PARTS)
def test_forged_file__of_models_in_models__is_refused(
    where: str, value: Any, message: str, tmp_path: Path
) -> None:
    aligned(by_similarity(BRIEF)).fit(*blobs(60)).save(tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "model") as archive:
        meta = json.loads(archive.read("meta.json"))
    rewritten(tmp_path / "model", **forged(meta, where, value))
    with pytest.raises((NoisyFitError, ValueError), match=message):
        EchoAlignClassifier.load(tmp_path / "model")


@pytest.mark.parametrize(
    "lost", ["fitted/estimator_", "fitted/selector_", f"{SELECTOR}/fitted/modifier_"]
)
def test_file_of_models__without_one_of_them__is_refused(lost: str, tmp_path: Path) -> None:
    aligned(by_similarity(BRIEF)).fit(*blobs(60)).save(tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "model") as archive:
        meta = json.loads(archive.read("meta.json"))
    *outer, last = lost.split("/")
    inside = meta
    for name in outer:
        inside = inside[name]
    del inside[last]
    rewritten(tmp_path / "model", fitted=meta["fitted"])
    with pytest.raises(ValueError, match="is damaged or was put in by others"):
        EchoAlignClassifier.load(tmp_path / "model")


def test_attribute__that_is_a_model__comes_back_as_it_was(tmp_path: Path) -> None:
    class Paired(CrossEntropyClassifier):
        def _conclude(self, *args: Any) -> None:
            super()._conclude(*args)
            self.teachers_ = [quick(FlywheelClassifier, max_epochs=2).fit(*blobs(60))]

    clf = quick(Paired, max_epochs=2).fit(*blobs(60))
    (found,), (expected,) = reloaded(clf, tmp_path).teachers_, clf.teachers_
    np.testing.assert_array_equal(found.predict_proba(X0), expected.predict_proba(X0))
