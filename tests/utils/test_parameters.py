"""Every public parameter: what it takes works, all else is refused before training."""

import inspect
import pickle
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from functools import partial
from numbers import Real
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.utils._param_validation import Interval
from skorch.callbacks import Callback

from noisyfit import (
    CrossEntropyClassifier,
    EchoAlignClassifier,
    EchoMod,
    EchoSelect,
    datasets,
    metrics,
    noise,
    quality,
)
from noisyfit.benchmark import compare
from noisyfit.embedding.encoders import CLIPEmbedder, ContrastiveEmbedder
from noisyfit.estimator.base import NoisyLabelClassifier
from noisyfit.nn.generators import ConditionalDiffusion, ControlNetGenerator
from tests.helpers import all_estimators, blobs, quick

Estimator = type[NoisyLabelClassifier]
every_estimator = pytest.mark.parametrize("cls", all_estimators(), ids=lambda cls: cls.__name__)
NO_NUMBER: dict[str, Any] = {
    "bool": True,
    "numpy bool": np.True_,
    "NaN": float("nan"),
    "word": "x",
    "list": [1.0, 2.0],
    "complex": 1j,
    "array": np.array([0.5]),
    "object": object(),
    "fraction": Fraction(1, 2),
    "decimal": Decimal("0.5"),
}
TOO_LARGE = {
    "inf": float("inf"),
    "1e308": 1e308,
    "1e30, an int": 10**30,
    "1e400, an int": 10**400,
    "numpy": np.float64(1e40),
}


def ranges(cls: Any) -> dict[str, Interval]:
    """The range of every parameter that is a number, of the bases too."""
    constraints = cls._parameter_constraints.items()
    found = {name: [c for c in kinds if isinstance(c, Interval)] for name, kinds in constraints}
    return {name: kinds[0] for name, kinds in found.items() if kinds}


def own_ranges(cls: Estimator) -> dict[str, Interval]:
    """Those of a method that `CrossEntropyClassifier`, for the base class, does not have."""
    shared = {} if cls is CrossEntropyClassifier else ranges(CrossEntropyClassifier)
    return {name: kind for name, kind in ranges(cls).items() if kind is not shared.get(name)}


class Begins(Callback):
    """Notes that training has begun."""

    def __init__(self) -> None:
        self.has_begun = False

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        self.has_begun = True


def assert_refused(cls: Estimator, name: str, value: Any) -> None:
    X, y = blobs(30)
    begins = Begins()
    with pytest.raises((ValueError, TypeError), match=rf"{name}.* must be .*Got "):
        cls(callbacks=[begins], **{name: value}).fit(X, y)
    assert not begins.has_begun


@every_estimator
@pytest.mark.parametrize("value", NO_NUMBER.values(), ids=NO_NUMBER)
def test_number__what_is_none__is_refused(value: Any, cls: Estimator) -> None:
    for name in own_ranges(cls):
        assert_refused(cls, name, value)


@every_estimator
@pytest.mark.parametrize("value", TOO_LARGE.values(), ids=TOO_LARGE)
def test_number__too_large_for_a_tensor__is_refused(value: Any, cls: Estimator) -> None:
    """``jitter=1e308`` was an infinite loss, ``jitter=10**30`` an OverflowError."""
    for name, kind in own_ranges(cls).items():
        if kind.type is Real:
            assert_refused(cls, name, value)


@every_estimator
def test_number__below_its_range__is_refused(cls: Estimator) -> None:
    for name, kind in own_ranges(cls).items():
        assert_refused(cls, name, int(kind.left) - 1)
        if kind.closed in ("right", "neither"):
            assert_refused(cls, name, kind.left)


@pytest.mark.parametrize("name", ["module", "optimizer"])
@pytest.mark.parametrize("value", [1, 0.5, True, [1], {}], ids=str)
def test_what_is_called__is_no_number(name: str, value: Any) -> None:
    assert_refused(CrossEntropyClassifier, name, value)


@pytest.mark.parametrize("cls", [EchoMod, EchoSelect, EchoAlignClassifier])
def test_echo__number__what_is_none__is_refused(cls: Any) -> None:
    X, y = blobs(30)
    for name in ranges(cls):
        for value in NO_NUMBER.values():
            with pytest.raises((ValueError, TypeError), match=rf"{name}.* must be .*Got "):
                cls(**{name: value}).fit(X, y)


def numbers(cls: Estimator) -> Iterator[tuple[str, Any]]:
    """The numbers that a short fit has."""
    params = quick(cls).get_params()
    return ((name, params[name]) for name in ranges(cls) if params[name] is not None)


def probabilities(cls: Estimator, params: dict[str, Any]) -> NDArray[Any]:
    X, y = blobs(60)
    return quick(cls, **params).fit(X, y).predict_proba(X)


@every_estimator
def test_number__of_numpy__has_the_bits_of_python(cls: Estimator) -> None:
    python = dict(numbers(cls))
    numpy = {k: np.float64(v) if isinstance(v, float) else np.int64(v) for k, v in python.items()}
    np.testing.assert_array_equal(probabilities(cls, numpy), probabilities(cls, python))


@every_estimator
def test_number__int_for_float__has_the_bits_of_the_float(cls: Estimator) -> None:
    """``mixup_alpha=2`` ended in the middle of the fit."""
    kinds = ranges(cls)
    ints = {
        name: 2 if 2 in kinds[name] else 1
        for name, value in numbers(cls)
        if isinstance(value, float) and name != "lr" and 1 in kinds[name]
    }
    floats = {name: float(value) for name, value in ints.items()}
    found = probabilities(cls, ints)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found, probabilities(cls, floats))


# What is no estimator: generators, encoders, functions and loaders.

WHOLE = {"1.5": 1.5, "whole float": 2.0, "numpy float": np.float64(2), "-1": -1}
NO_NUMBER_AT_ALL = NO_NUMBER | {"None": None}
NO_FLAG = {"0": 0, "None": None, "word": "yes", "NaN": float("nan"), "list": [True]}
NO_SEED = {
    name: NO_NUMBER[name] for name in ("bool", "numpy bool", "NaN", "word", "list", "complex")
} | {"-1": -1, "1.5": 1.5, "object": object(), "fraction": Fraction(1)}
NO_DEVICE: dict[str, Any] = {
    "word": "tpu",
    "cuda:99": "cuda:99",
    "empty": "",
    "None": None,
    "1.5": 1.5,
    "list": [],
}
NO_RANGE = {"descending": (1, 0), "equal": (1, 1), "one": (1,), "three": (0, 1, 2), "None": None,
            "NaN": (0, float("nan")), "inf": (0, float("inf")), "words": ("a", "b"), "text": "01",
            "huge": (0, 10**400)}  # fmt: skip
real = NO_NUMBER_AT_ALL | TOO_LARGE | {"-1": -1}
whole = NO_NUMBER_AT_ALL | WHOLE | {"inf": float("inf"), "0": 0}
LABELS = np.arange(12) % 3
PROBS = np.full((12, 3), 1 / 3)
ROWS = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randint(256, (12, 3, 12, 12), generator=torch.Generator().manual_seed(0)).byte()


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def diffusion(**params: Any) -> Any:
    settings: dict[str, Any] = {
        "n_train_steps": 3,
        "width": 8,
        "n_steps": 2,
        "batch_size": 8,
    } | params
    rows = IMAGES if settings.get("network") else ROWS
    fitted = ConditionalDiffusion(**settings).fit(rows, LABELS, generator())
    return fitted.modify(rows, LABELS, generator())


def contrastive(**params: Any) -> Any:
    embedder = ContrastiveEmbedder(**{"n_train_steps": 3, "batch_size": 8} | params)
    return embedder.fit(IMAGES, generator()).embed(IMAGES)


def clip_embedder(**params: Any) -> Any:
    model = torch.nn.Sequential(torch.nn.Flatten())
    return CLIPEmbedder(model, **params).fit(IMAGES, generator())


def control_net(**params: Any) -> Any:
    drawn = SimpleNamespace(images=np.zeros((12, 16, 16, 3)))
    names = {k: str(k) for k in range(3)}
    settings: dict[str, Any] = {
        "class_names": names,
        "image_size": 16,
        "progress": False,
        "batch_size": 12,
    }
    pipeline = Pipeline(drawn)
    return ControlNetGenerator(pipeline, **settings | params).modify(IMAGES, LABELS, generator())


class Pipeline:
    def __init__(self, drawn: Any) -> None:
        self.drawn = drawn

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.drawn

    def set_progress_bar_config(self, **kwargs: Any) -> None:
        pass

    def to(self, device: Any) -> None:
        pass


def image_files(tmp_path: Path, **params: Any) -> Any:
    Image.fromarray(IMAGES[0].permute(1, 2, 0).numpy()).save(tmp_path / "a.png")
    threads = {name: params.pop(name) for name in list(params) if name == "n_threads"}
    files = datasets.ImageFiles(tmp_path, ["a.png"], [0], **params)
    return files.to_memmap(tmp_path / "all.npy", **threads)


def scores(**params: Any) -> Any:
    train = {"train_embeddings": ROWS.numpy()}
    return metrics.ood_scores(PROBS, ROWS.numpy(), **train | params)


def echo(**params: Any) -> Any:
    settings: dict[str, Any] = {
        "modifier": lambda x, y, generator: x + 1,
        "random_state": 0,
    } | params
    return EchoSelect(**settings).fit(*blobs(30)).support_


ZOO: dict[str, tuple[Callable[..., Any], dict[str, dict[str, Any]]]] = {
    "ConditionalDiffusion": (
        diffusion,
        {
            "strength": real | {"0": 0, "1.1": 1.1},
            "guidance": real,
            "n_steps": whole,
            "n_train_steps": {k: v for k, v in whole.items() if k != "None"},
            "batch_size": whole,
            "lr": real | {"0": 0},
            "width": {k: v for k, v in whole.items() if k != "None"},
            "network": {"word": "resnet", "1": 1, "NaN": float("nan")},
            "control": {"word": "lines", "1": 1, "bool": True},
            "device": NO_DEVICE,
        },
    ),
    "U-Net": (
        partial(diffusion, network="unet"),
        {"width": {"4": 4, "12": 12, "numpy": np.int64(4)}},
    ),
    "ContrastiveEmbedder": (
        contrastive,
        {
            "module": {"word": "resnet81", "None": None, "1": 1},
            "n_train_steps": whole,
            "batch_size": whole | {"1": 1},
            "lr": real | {"0": 0},
            "temperature": real | {"0": 0},
            "flip": NO_FLAG,
            "device": NO_DEVICE,
        },
    ),
    "CLIPEmbedder": (
        clip_embedder,
        {"image_size": whole, "value_range": NO_RANGE, "device": NO_DEVICE},
    ),
    "ControlNetGenerator": (
        control_net,
        {
            "n_steps": whole,
            "guidance": real,
            "image_size": whole | {"12": 12},
            "low_threshold": real,
            "high_threshold": real,
            "batch_size": whole,
            "edges_at": {"word": "pixels", "None": None, "1": 1},
            "value_range": NO_RANGE,
            "progress": NO_FLAG,
            "prompt": {
                "key": "a {class}",
                "place": "a {}",
                "open": "a {label",
                "1": 1,
                "None": None,
            },
            "class_names": {"list": ["a"], "word": "a"},
            "device": {k: v for k, v in NO_DEVICE.items() if k != "None"},
        },
    ),
    "EchoSelect": (
        echo,
        {
            "modifier": {"word": "x", "1": 1},
            "embedder": {"word": "x", "1": 1},
            "image_layout": {"word": "WH", "1": 1, "None": None},
            "device": NO_DEVICE,
            "threshold": real | {"2": 2, "-1": -1.5, "rule": "ostu", "one": ("quantile",)},
        },
    ),
    "EchoSelect, quantile": (
        lambda share: echo(threshold=("quantile", share)),
        {"share": real | {"1": 1}},
    ),
    "small_loss_probability": (
        quality.small_loss_probability,
        {
            "losses": {
                "NaN": [0.0, float("nan")],
                "inf": [0.0, float("inf")],
                "column": [[0.0], [1.0]],
                "0": 0.0,
            }
        },
    ),
    "fetch_cifar10": (
        partial(datasets.fetch_cifar10, data_home="."),
        {"download": NO_FLAG, "labels": {"word": "worse", "1": 1}},
    ),
    "symmetric": (
        partial(noise.symmetric, LABELS),
        {"rate": real | {"1": 1}, "own_class": NO_FLAG, "exact": NO_FLAG, "random_state": NO_SEED},
    ),
    "asymmetric": (
        partial(noise.asymmetric, LABELS),
        {
            "rate": real | {"0.5": 0.5},
            "mapping": {"None": None, "pairs": [(0, 1)], "unknown": {0: 7}, "number": 1},
            "random_state": NO_SEED,
        },
    ),
    "pairflip": (
        partial(noise.pairflip, LABELS),
        {"rate": real | {"0.5": 0.5}, "random_state": NO_SEED},
    ),
    "instance_dependent": (
        partial(noise.instance_dependent, LABELS, ROWS.numpy()),
        {
            "rate": real | {"1": 1},
            "sharpness": real,
            "scale": {"word": "unit", "None": None, "1": 1},
            "random_state": NO_SEED,
        },
    ),
    "from_confusion": (
        partial(noise.from_confusion, LABELS, np.eye(3)),
        {"random_state": NO_SEED},
    ),
    "corrected_labels": (
        partial(quality.corrected_labels, LABELS, PROBS),
        {"margin": real | {"1.1": 1.1}},
    ),
    "precision_at_n": (
        partial(metrics.precision_at_n, LABELS == 0, PROBS[:, 0]),
        {"n": {k: v for k, v in whole.items() if k != "None"} | {"13": 13}},
    ),
    "clid": (
        partial(metrics.clid, ROWS, PROBS),
        {"temperature": real | {"0": 0}},
    ),
    "ood_scores": (
        scores,
        {
            "temperature": real | {"0": 0},
            "method": {"word": "energi", "None": None, "1": 1},
        },
    ),
    "ood_scores, knn": (partial(scores, method="knn"), {"n_neighbors": whole}),
    "load_ood": (
        partial(datasets.load_ood, "svhn", data_home="."),
        {"size": whole, "n_samples": {k: v for k, v in whole.items() if k != "None"}},
    ),
    "load_red_mini_imagenet": (
        partial(datasets.load_red_mini_imagenet, "."),
        {"rate": real | {"0.45": 0.45}},
    ),
    "load_webvision": (partial(datasets.load_webvision, "."), {"n_classes": whole}),
    "load_table": (
        partial(datasets.load_table, data_home="."),
        {"name": {"word": "crxx", "None": None, "1": 1, "list": ["crx"]}},
    ),
    "compare": (
        partial(compare, ["sklearn+forest"], ROWS.numpy(), LABELS),
        {
            "holdout": real | {"0": 0, "1": 1},
            "cv": {k: v for k, v in whole.items() if k != "None"} | {"1": 1, "13": 13},
            "max_epochs": {k: v for k, v in whole.items() if k != "None"},
            "device": NO_DEVICE,
            "random_state": {k: v for k, v in NO_SEED.items() if "bool" not in k},
        },
    ),
}
WRONG = [
    pytest.param(
        function, {"mapping": {0: 1}, "rate": 0.2}, name, value, id=f"{owner}-{name}-{kind}"
    )
    for owner, (function, names) in ZOO.items()
    for name, values in names.items()
    for kind, value in values.items()
]


@pytest.mark.parametrize("function, others, name, value", WRONG)
def test_function__wrong_parameter__is_refused(
    function: Callable[..., Any], others: dict[str, Any], name: str, value: Any
) -> None:
    known = inspect.signature(function).parameters
    given = {key: other for key, other in others.items() if key in known} | {name: value}
    with pytest.raises(ValueError, match=r"must (.|\n)*Got ") as error_info:
        function(**given)
    assert name in str(error_info.value)


@pytest.mark.parametrize("name", ["image_size", "n_threads"])
def test_image_files__wrong_number__is_refused(name: str, tmp_path: Path) -> None:
    for value in [value for key, value in whole.items() if key != "None"]:
        with pytest.raises(ValueError, match=f"{name}.* must be .*Got "):
            image_files(tmp_path, **{name: value})
    for kind in (int, np.int64, np.uint8):
        assert image_files(tmp_path, **{name: kind(3)}).shape[0] == 1


RIGHT: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    (diffusion, {"strength": 0.5, "guidance": 2.0, "lr": 0.25, "n_steps": 3, "n_train_steps": 4,
                 "batch_size": 5, "width": 16}),
    (partial(diffusion, network="unet"), {"width": 16, "n_train_steps": 2}),
    (contrastive, {"lr": 0.25, "temperature": 0.5, "n_train_steps": 2, "batch_size": 5}),
    (control_net, {"guidance": 7.5, "low_threshold": 50.0, "n_steps": 2, "image_size": 16,
                   "batch_size": 12}),
    (partial(noise.symmetric, LABELS), {"rate": 0.25, "random_state": 3}),
    (partial(noise.pairflip, LABELS), {"rate": 0.25, "random_state": 3}),
    (partial(noise.instance_dependent, LABELS, ROWS.numpy()),
     {"rate": 0.25, "sharpness": 2.0, "random_state": 3}),
    (partial(quality.corrected_labels, LABELS, PROBS), {"margin": 0.5}),
    (partial(metrics.precision_at_n, LABELS == 0, PROBS[:, 0]), {"n": 5}),
    (partial(metrics.clid, ROWS, PROBS), {"temperature": 0.5}),
    (scores, {"temperature": 0.5}),
    (echo, {"threshold": 0.5, "n_rounds": 1, "batch_size": 7}),
    (partial(scores, method="knn"), {"n_neighbors": 2}),
]  # fmt: skip


@pytest.mark.parametrize("function, params", RIGHT)
def test_function__number_of_numpy__has_the_bits_of_python(
    function: Callable[..., Any], params: dict[str, Any]
) -> None:
    """An n_train_steps of int64 ended in torch, and an lr of float32 was another one."""

    def bits(given: dict[str, Any]) -> bytes:
        found = function(**{"random_state": 0} | given) if "rate" in params else function(**given)
        return pickle.dumps(found.tolist() if hasattr(found, "tolist") else found)

    expected = bits(params)
    for whole_type, real_type in (
        (np.int64, np.float64),
        (np.uint8, np.float32),
        (np.int8, np.float16),
    ):
        numpy = {
            k: (real_type if isinstance(v, float) else whole_type)(v) for k, v in params.items()
        }
        if "rate" in params:
            numpy["random_state"] = np.int64(params["random_state"])
        assert bits(numpy) == expected


@pytest.mark.parametrize(
    "function, params",
    [
        (diffusion, {"strength": 1, "guidance": 1, "lr": 1}),
        (contrastive, {"lr": 1, "temperature": 1}),
        (partial(metrics.clid, ROWS, PROBS), {"temperature": 2}),
        (scores, {"temperature": 2}),
        (partial(quality.corrected_labels, LABELS, PROBS), {"margin": 1}),
    ],
)
def test_function__int_for_float__has_the_bits_of_the_float(
    function: Callable[..., Any], params: dict[str, Any]
) -> None:
    floats = {name: float(value) for name, value in params.items()}
    np.testing.assert_array_equal(function(**params), function(**floats))


@pytest.mark.parametrize("embedder", [ContrastiveEmbedder(), CLIPEmbedder(torch.nn.Identity())])
def test_encoder_of_images__table__is_refused(embedder: Any) -> None:
    with pytest.raises(ValueError, match=r"must have images .*Got rows of shape \(4,\)"):
        embedder.fit(ROWS, generator())


@pytest.mark.parametrize("function", [diffusion, contrastive])
def test_generator__auto__is_the_device_that_is_there(function: Callable[..., Any]) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    np.testing.assert_array_equal(function(device="auto"), function(device=device))
