import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from noisyfit import (
    CrossEntropyClassifier,
    FlywheelClassifier,
    NoisyFitError,
    NoisyLabelClassifier,
)
from tests.common import Perceptron, blobs, images, make_perceptron, quick, seeded_perceptron


class Own(CrossEntropyClassifier):
    """A method defined outside the package."""


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


def test_index_of_the_frame__that_json_cannot_hold__comes_back_as_text(tmp_path: Path) -> None:
    X, y = blobs(60)
    index = pd.date_range("2020-01-01", periods=60, freq="h", tz="UTC")
    clf = quick(CrossEntropyClassifier, max_epochs=2).fit(pd.DataFrame(X, index=index), y)
    loaded = reloaded(clf, tmp_path)
    assert loaded.label_issues().index.tolist() == [str(entry) for entry in index]


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
}


@pytest.mark.parametrize("params", PARAMETERS.values(), ids=PARAMETERS)
def test_parameters_are_kept_or_left_out_without_harm(
    params: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    X, y = blobs(60)
    clf = quick(CrossEntropyClassifier, max_epochs=2, **params).fit(X, y)
    loaded = reloaded(clf, tmp_path)
    assert_alike(loaded, clf, X)
    for name in params.keys() - {"device", "augmentation", "random_state", "checkpoint_dir"}:
        found, expected = loaded.get_params()[name], params[name]
        np.testing.assert_equal(
            list(found) if isinstance(found, tuple) else found,
            list(expected) if isinstance(expected, tuple) else expected,
        )
    loaded.fit(X, y)


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
    [["os", "system"], ["noisyfit.persistence", "save"], ["noisyfit.base", "Callable"]],
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
