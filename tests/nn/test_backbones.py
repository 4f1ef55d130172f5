import pickle
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from noisyfit.nn.backbones import BACKBONES, default_backbone
from noisyfit.nn.backbones.cnn import CNN
from noisyfit.nn.backbones.mlp import MLP
from noisyfit.nn.backbones.preact_resnet import PreActBlock, preact_resnet18
from noisyfit.nn.features import embedding_size, logits_and_embeddings

# Those that run in a moment on one thread; the others run without data, on the meta device.
SMALL = ["cnn", "preact_resnet18", "resnet18", "wrn_28_2"]
EMBEDDING_SIZES = {
    "mlp": 128,
    "cnn": 128,
    "preact_resnet18": 512,
    "preact_resnet34": 512,
    "resnet18": 512,
    "resnet34": 512,
    "resnet50": 2048,
    "wrn_28_2": 128,
    "wrn_28_10": 640,
    "vgg19_bn": 4096,
}
IMAGE_BACKBONES = sorted(set(EMBEDDING_SIZES) - {"mlp"})


def on_meta(name: str, n_inputs: int, n_classes: int, **settings: object) -> nn.Module:
    """Shapes only: no memory, no arithmetic."""
    with torch.device("meta"):
        return BACKBONES[name](n_inputs, n_classes, **settings)


def n_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def forward_gflop(name: str, shape: tuple[int, ...]) -> float:
    """A multiply-add counts as two."""
    module = on_meta(name, shape[0], 10).eval()
    with FlopCounterMode(display=False) as counter:
        module(torch.empty(1, *shape, device="meta"))
    return counter.get_total_flops() / 1e9


@pytest.mark.parametrize(
    "name, millions",
    [
        ("preact_resnet18", 11.17),
        ("preact_resnet34", 21.28),
        ("wrn_28_2", 1.47),
        ("wrn_28_10", 36.48),
        ("resnet18", 11.18),
        ("resnet50", 23.53),
    ],
)
def test_backbone__three_channels_and_ten_classes__has_the_published_size(
    name: str, millions: float
) -> None:
    assert n_parameters(on_meta(name, 3, 10)) / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize("name, gflop", [("preact_resnet18", 1.111), ("preact_resnet34", 2.319)])
def test_preact_resnet__one_32x32_image__costs_the_published_gflop(name: str, gflop: float) -> None:
    assert forward_gflop(name, (3, 32, 32)) == pytest.approx(gflop, abs=0.0006)


@pytest.mark.parametrize("name", IMAGE_BACKBONES)
@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 33, 47), (4, 64, 32)])
def test_image_backbone__any_shape__gives_logits_and_embeddings(
    name: str, shape: tuple[int, int, int]
) -> None:
    module = on_meta(name, shape[0], 7)
    logits, z = logits_and_embeddings(module, torch.empty(2, *shape, device="meta"))
    assert logits.shape == (2, 7)
    assert z.shape == (2, EMBEDDING_SIZES[name])


@pytest.mark.parametrize("name", ["cnn", "preact_resnet18", "preact_resnet34", "wrn_28_2"])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (28, 28)])
def test_small_image_backbone__tiny_or_odd_images__gives_logits(
    name: str, size: tuple[int, int]
) -> None:
    module = on_meta(name, 1, 2)
    assert module(torch.empty(2, 1, *size, device="meta")).shape == (2, 2)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_mlp__any_depth__has_that_many_hidden_layers(depth: int) -> None:
    module = MLP(5, 3, width=8, depth=depth)
    assert sum(isinstance(layer, nn.BatchNorm1d) for layer in module) == depth
    assert module(torch.zeros(4, 5)).shape == (4, 3)
    assert embedding_size(module, torch.zeros(4, 5)) == (8 if depth else 5)


def test_mlp__default__has_two_hidden_layers_of_128() -> None:
    module = BACKBONES["mlp"](5, 3)
    shapes = [layer.weight.shape for layer in module.modules() if isinstance(layer, nn.Linear)]
    assert shapes == [(128, 5), (128, 128), (3, 128)]
    assert embedding_size(module, torch.zeros(2, 5)) == EMBEDDING_SIZES["mlp"]


def test_mlp__dropout__acts_in_training_only() -> None:
    torch.manual_seed(0)
    module, x = MLP(5, 3, dropout=0.5), torch.randn(4, 5)
    assert not torch.equal(module(x), module(x))
    module.eval()
    assert torch.equal(module(x), module(x))


def test_cnn__width__sets_the_channels() -> None:
    convolutions = [layer for layer in CNN(3, 10, width=8) if isinstance(layer, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [
        (3, 8),
        (8, 16),
        (16, 32),
        (32, 32),
    ]
    assert all(c.stride == (2, 2) and c.bias is None for c in convolutions)


def test_preact_block__same_shape__passes_its_input_through_the_shortcut() -> None:
    torch.manual_seed(0)
    block, x = PreActBlock(4, 4, 1), torch.randn(2, 4, 5, 5)
    nn.init.zeros_(block.get_parameter("residual.3.weight"))
    assert torch.equal(block(x), x)


def test_preact_block__new_shape__equals_its_definition() -> None:
    torch.manual_seed(0)
    block, x = PreActBlock(2, 3, 2).eval(), torch.randn(1, 2, 5, 5)
    # Fresh statistics are mean 0 and variance 1.
    activated = (x / (1 + 1e-5) ** 0.5).relu()
    first, second = (block.get_parameter(f"residual.{i}.weight") for i in (0, 3))
    hidden = torch.conv2d(activated, first, stride=2, padding=1)
    residual = torch.conv2d((hidden / (1 + 1e-5) ** 0.5).relu(), second, padding=1)
    assert isinstance(block.shortcut, nn.Conv2d)
    expected = residual + torch.conv2d(activated, block.shortcut.weight, stride=2)
    assert block(x).shape == (1, 3, 3, 3)
    torch.testing.assert_close(block(x), expected)


def test_preact_resnet18__narrow__has_narrow_embeddings() -> None:
    assert embedding_size(preact_resnet18(1, 2, width=4), torch.zeros(2, 1, 8, 8)) == 32


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_resnet__small_stem__keeps_height_and_width(name: str) -> None:
    x = torch.empty(1, 3, 32, 32, device="meta")
    sizes = {}
    for small_stem in (False, True):
        module = on_meta(name, 3, 10, small_stem=small_stem)
        seen: list[Tensor] = []
        module.get_submodule("layer1").register_forward_pre_hook(
            lambda _, inputs, seen=seen: seen.append(inputs[0])  # type: ignore[misc]
        )
        module.eval()(x)
        sizes[small_stem] = seen[0].shape[2:]
    assert sizes == {False: (8, 8), True: (32, 32)}


def test_vgg19_bn__small_stem__ends_in_one_linear() -> None:
    x = torch.empty(2, 1, 32, 32, device="meta")
    module = on_meta("vgg19_bn", 1, 10, small_stem=True)
    assert module(x).shape == (2, 10)
    assert sum(isinstance(layer, nn.Linear) for layer in module.modules()) == 1
    assert embedding_size(module, x) == 512


def small_network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return BACKBONES[name](3, 4)


@pytest.mark.parametrize(
    "make_network",
    [
        *[pytest.param(lambda name=name: small_network(name), id=name) for name in SMALL],
        pytest.param(lambda: BACKBONES["resnet18"](3, 4, small_stem=True), id="resnet18 small"),
        pytest.param(lambda: BACKBONES["vgg19_bn"](3, 4, small_stem=True), id="vgg19_bn small"),
        pytest.param(lambda: MLP(3 * 32 * 32, 4), id="mlp"),
    ],
)
def test_backbone__a_training_step__reaches_every_parameter(
    make_network: Callable[[], nn.Module],
) -> None:
    module = make_network()
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    x = x.flatten(1) if isinstance(module, MLP) else x
    nn.functional.cross_entropy(module(x), torch.tensor([0, 1, 2])).backward()
    unreached = [
        name
        for name, parameter in module.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all() or not parameter.grad.any()
    ]
    assert unreached == []


@pytest.mark.parametrize("name", [*SMALL, "mlp"])
def test_backbone__pickled__gives_the_same_logits(name: str) -> None:
    module = small_network(name).eval()
    x = torch.randn(2, 3) if name == "mlp" else torch.randn(2, 3, 8, 8)
    restored = pickle.loads(pickle.dumps(module))
    assert torch.equal(restored(x), module(x))


@pytest.mark.parametrize(
    "shape, name",
    [
        ((20,), "mlp"),
        ((1, 28, 28), "cnn"),
        ((3, 64, 64), "cnn"),
        ((100, 8, 8), "cnn"),
        ((3, 32, 65), "resnet18"),
        ((3, 224, 224), "resnet18"),
    ],
)
def test_default_backbone__fits_the_shape(shape: tuple[int, ...], name: str) -> None:
    assert default_backbone(shape) == name
    assert name in BACKBONES


@pytest.mark.parametrize("shape", [(), (28, 28), (3, 4, 5, 6)])
def test_default_backbone__neither_table_nor_image__says_what_to_do(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="Reshape the data, or pass a network") as error:
        default_backbone(shape)
    assert str(shape) in str(error.value)


def test_torchvision__whose_import_takes_seconds__waits_until_it_is_asked_for() -> None:
    code = (
        "import sys, numpy as np, noisyfit\n"
        "X, y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 3\n"
        "noisyfit.CrossEntropyClassifier(max_epochs=1, device='cpu').fit(X, y).predict(X)\n"
        "print('torchvision' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"
