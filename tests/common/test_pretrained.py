"""Pretrained networks by name, as the module of any method."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from torchvision import models

from noisyfit import CoTeachingClassifier, CrossEntropyClassifier, ImageEmbedder
from noisyfit.nn.backbones.efficientnet_lite import EfficientNetLite
from tests.common.zoo import Estimator, every_variant
from tests.helpers import images, quick

pytestmark = pytest.mark.filterwarnings("ignore:Every class should be predicted")
NAME = "shufflenet_v2_x0_5"
HEAD = ("fc.weight", "fc.bias")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a network with the statistics of some images."""
    torch.manual_seed(0)
    network = models.get_model(NAME, weights=None)
    network(torch.randn(8, 3, 64, 64))
    path: Path = tmp_path_factory.mktemp("weights") / "w.pt"
    torch.save(network.state_dict(), path)
    return path


def pretrained(cls: Any, file: Path, **params: Any) -> Any:
    settings = {"module__weights": file, "module__size": 32, "batch_size": 12, "max_epochs": 3}
    return quick(cls, module=NAME, **settings | params)


def changed(network: Any, file: Path) -> set[str]:
    """Name the weights and statistics that are not those of the file."""
    before = torch.load(file)
    return {
        name
        for name, value in network.network.state_dict().items()
        if name in HEAD or not torch.equal(value, before[name])
    }


@every_variant
@pytest.mark.filterwarnings("ignore::noisyfit.NoisyFitWarning")
def test_frozen__every_method_and_network__learns_the_last_layer_only(
    cls: Estimator, file: Path
) -> None:
    X, y = images(24)
    untrained = pretrained(cls, file, lr=1e-9).fit(X, y)
    clf = pretrained(cls, file, module__frozen=True).fit(X, y)
    for name in clf._networks:
        if hasattr(network := getattr(clf, f"{name}_"), "network"):
            assert changed(network, file) == {*HEAD}
            was = getattr(untrained, f"{name}_").network.fc.weight
            assert not torch.allclose(network.network.fc.weight, was, atol=1e-6)


@pytest.mark.parametrize("module__frozen", ["bn", False])
def test_frozen__otherwise__what_learns(module__frozen: Any, file: Path) -> None:
    X, y = images(24)
    clf = pretrained(CrossEntropyClassifier, file, module__frozen=module__frozen).fit(X, y)
    names = set(clf.module_.network.state_dict())
    norms = {
        f"{layer}.{part}"
        for layer, module in clf.module_.network.named_modules()
        if isinstance(module, torch.nn.BatchNorm2d)
        for part in module.state_dict()
    }
    assert changed(clf.module_, file) == names - (norms if module__frozen else set())


def test_two_networks__same_body__other_last_layers(file: Path) -> None:
    clf = pretrained(CoTeachingClassifier, file, module__frozen=True, lr=1e-9).fit(*images(24))
    one, other = (clf._network(name).network.state_dict() for name in ("module", "peer"))
    assert {name for name in one if not torch.equal(one[name], other[name])} == {*HEAD}


# What the network sees.


@pytest.fixture
def lite(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = EfficientNetLite(3, 1000)
    network(torch.randn(8, 3, 64, 64))
    torch.save(network.state_dict(), tmp_path / "lite.pt")
    return tmp_path / "lite.pt"


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x,
        lambda x: x.astype(np.float32) / 255,
        lambda x: x[..., 0],
        lambda x: x.transpose(0, 3, 1, 2),
    ],
    ids=["bytes", "floats", "grey", "channels first"],
)
def test_frozen__embeddings_are_the_features_of_image_embedder(change: Any, lite: Path) -> None:
    X, y = images(12)
    X = change(np.ascontiguousarray(X))
    params = {"module__weights": lite, "module__frozen": True, "module__size": 48}
    clf = quick(CrossEntropyClassifier, module="efficientnet_lite0", max_epochs=1, **params)
    expected = ImageEmbedder("efficientnet_lite0", weights=lite, size=48).fit_transform(X)
    found = clf.fit(X, y).transform(X)
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


def test_weights__none__scale_of_the_data_and_no_resizing(file: Path) -> None:
    X, y = images(24)
    clf = quick(CrossEntropyClassifier, module=NAME, max_epochs=1).fit(X, y)
    assert clf.module_.size is None
    np.testing.assert_allclose(clf.module_.mean[:, 0, 0], X.mean((0, 1, 2)), rtol=1e-4)
    clf = pretrained(CrossEntropyClassifier, file, max_epochs=1).fit(X, y)
    assert clf.module_.size == 32
    np.testing.assert_allclose(clf.module_.mean[:, 0, 0], 255 * np.array([0.485, 0.456, 0.406]))


# Files, copies and messages.


def moved_on(clf: Any, X: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """Return predictions after one more epoch, in which frozen parts must stay frozen."""
    result: NDArray[Any] = clf.fine_tune(X, y, epochs=1, lr=0.01).predict_proba(X)
    return result


@pytest.mark.parametrize("module__frozen", [True, "bn"])
def test_saved_and_pickled__without_the_file_of_weights__is_the_same_model(
    module__frozen: Any, file: Path, tmp_path: Path
) -> None:
    X, y = images(24)
    own = tmp_path / "own.pt"
    own.write_bytes(file.read_bytes())
    clf = pretrained(CrossEntropyClassifier, own, module__frozen=module__frozen).fit(X, y)
    clf.save(tmp_path / "model")
    own.unlink()
    loaded = CrossEntropyClassifier.load(tmp_path / "model", device="cpu")
    copied = pickle.loads(pickle.dumps(clf))
    expected = clf.predict_proba(X)
    assert loaded.get_params()["module__weights"] == own
    for other in (loaded, copied):
        np.testing.assert_array_equal(other.predict_proba(X), expected)
    expected = moved_on(clf, X, y)
    for other in (loaded, copied):
        np.testing.assert_allclose(moved_on(other, X, y), expected, atol=1e-5)


def test_parameters__set_later_and_cloned__reach_the_network(file: Path) -> None:
    X, y = images(24)
    clf = quick(CrossEntropyClassifier, max_epochs=1)
    clf.set_params(module=NAME, module__weights=file, module__frozen=True, module__size=40)
    clf = clone(clf).fit(X, y)
    assert changed(clf.module_, file) == {*HEAD}
    assert clf.module_.size == 40


@pytest.mark.parametrize(
    "params, message",
    [
        ({"module": "resnet19"}, "classifier of images in torchvision.*'resnet19'.*Did you mean"),
        ({"module": "efficientnet_lit0"}, "Did you mean 'efficientnet_lite0'"),
        (
            {"module": NAME, "module__weight": "DEFAULT"},
            "'module__weight' for shufflenet_v2_x0_5.*Did you mean 'module__weights'",
        ),
        ({"module": NAME, "module_frozen": True}, "module__frozen"),
        ({"module": NAME, "module__weights": "nowhere.pt"}, "path of a file.*nowhere.pt"),
    ],
)
def test_unknown_names__error_names_the_closest(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quick(CrossEntropyClassifier, **params).fit(*images(12))


def test_weights__not_on_the_disk__nothing_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    clf = quick(CrossEntropyClassifier, module=NAME, module__weights="DEFAULT")
    with pytest.raises(FileNotFoundError, match="Nothing is downloaded.*download.pytorch.org"):
        clf.fit(*images(12))
    assert not (tmp_path / "torch").exists()
