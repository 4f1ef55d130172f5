"""What X may be: tables, images, containers, other sets, and what it may not be."""

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from noisyfit import (
    CLIDMetaClassifier,
    CrossEntropyClassifier,
    FlywheelClassifier,
    NoisyFitWarning,
)
from noisyfit.noise import symmetric
from tests.common.zoo import Estimator, every_method, every_variant, every_way_to, of_the_base
from tests.helpers import Arrays, Linear, PairDataset, Predictions, as_memmap, blobs, images, quick


@every_variant
@pytest.mark.parametrize("n", [2, 3, 129])
def test_few_rows_or_a_rest_of_one__are_trained_on(cls: Estimator, n: int) -> None:
    X, y = blobs(n, 2)
    y[:2] = 0, 1
    clf = quick(cls).fit(X, y)
    assert clf.label_quality_.shape == (n,)
    assert np.isfinite(clf.label_quality_).all()
    assert np.isfinite(clf.history_[:, "train_loss"]).all()
    assert clf.predict_proba(X[:1]).shape == (1, 2)


@every_way_to("_probabilities")
@pytest.mark.parametrize("make", [blobs, images], ids=["table", "image"])
def test_one_row_is_predicted_as_in_a_crowd(cls: Estimator, make: Callable[[], Arrays]) -> None:
    X, y = make()
    clf = quick(cls, max_epochs=3).fit(X, y)
    alone = np.concatenate([clf.predict_proba(row[None]) for row in X[:5]])
    np.testing.assert_allclose(alone, clf.predict_proba(X)[:5], rtol=1e-5)


# Images.

IMAGES: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "HW uint8": lambda x: x[..., 0],
    "HW float": lambda x: x[..., 0] / 255.0,
    "HWC uint8": lambda x: x,
    "HWC float32": lambda x: (x / 255).astype(np.float32),
    "CHW uint8": lambda x: x.transpose(0, 3, 1, 2),
    "CHW float to 255": lambda x: x.transpose(0, 3, 1, 2).astype(float),
}


@of_the_base
@pytest.mark.parametrize("make", IMAGES.values(), ids=IMAGES)
def test_images__every_layout_and_dtype__are_learned(
    cls: Estimator, make: Callable[[NDArray[Any]], NDArray[Any]]
) -> None:
    pictures, y = images()
    X = make(pictures)
    y = y if X.ndim == 4 else (y == 0).astype(int)  # one channel tells one class
    assert_images_are_learned(cls, X, y)


@every_variant
def test_images__are_learned(cls: Estimator) -> None:
    assert_images_are_learned(cls, *images())


def assert_images_are_learned(cls: Estimator, X: NDArray[Any], y: NDArray[Any]) -> None:
    clf = quick(cls, max_epochs=8, batch_size=16, lr=0.02).fit(X, y)
    assert clf.score(X, y) > 0.9
    assert clf.label_quality_.shape == (60,)
    assert clf.transform(X).ndim == 2


@of_the_base
def test_images__HWC_and_CHW__give_the_same_predictions(cls: Estimator) -> None:
    X, y = images()
    last = quick(cls, batch_size=16).fit(X, y)
    first = quick(cls, batch_size=16).fit(np.ascontiguousarray(X.transpose(0, 3, 1, 2)), y)
    np.testing.assert_array_equal(
        first.predict_proba(X.transpose(0, 3, 1, 2)), last.predict_proba(X)
    )
    np.testing.assert_array_equal(first.label_quality_, last.label_quality_)


@of_the_base
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


@of_the_base
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


@of_the_base
@pytest.mark.parametrize("fitted", [np.asarray, np.float32], ids=["bytes", "to 255"])
def test_images__that_are_almost_black_on_the_scale_of_fit__are_warned_of(
    cls: Estimator, fitted: Callable[[NDArray[Any]], NDArray[Any]]
) -> None:
    X, y = images(30)
    clf = quick(cls, max_epochs=2, batch_size=16).fit(fitted(X), y)
    with pytest.warns(NoisyFitWarning, match="almost black.*Rescale"):
        clf.predict(X / 255.0)


@of_the_base
def test_images__narrow__are_trained_without_garbage(cls: Estimator) -> None:
    # On processors with bfloat16 some convolutions over narrow maps read memory they do not own.
    X, y = images()
    X = np.concatenate([X[:, :, :8], X[:, :, :8]], 1)
    first, second = (quick(cls, batch_size=16).fit(X, y) for _ in range(2))
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))


@of_the_base
def test_images__bytes_and_the_same_as_float__are_predicted_alike(cls: Estimator) -> None:
    X, y = images(30)
    clf = quick(cls, max_epochs=2, batch_size=16).fit(X, y)
    np.testing.assert_array_equal(clf.predict_proba(X.astype(float)), clf.predict_proba(X))


@of_the_base
@pytest.mark.parametrize("shape", [(5, 3, 12, 10), (5, 12, 10, 1), (5, 12, 10), (5, 360)], ids=str)
def test_images__of_another_shape_at_predict__are_an_error(
    cls: Estimator, shape: tuple[int, ...]
) -> None:
    X, y = images(30)
    clf = quick(cls, max_epochs=2, batch_size=16).fit(X, y)
    with pytest.raises(ValueError, match=r"as in fit|features"):
        clf.predict(np.zeros(shape, dtype=np.uint8))


# Tables.


@every_way_to("_make_network")
def test_columns__of_any_scale__are_learned_as_well(cls: Estimator) -> None:
    X, y = blobs(300)
    factors, offsets = 10.0 ** np.arange(-3, 5), np.linspace(-2e4, 2e4, 8)
    offsets[:4] = 0
    plain = quick(cls, max_epochs=12).fit(X, y).score(X, y)
    scaled = X * factors + offsets
    assert quick(cls, max_epochs=12).fit(scaled, y).score(scaled, y) > plain - 0.03


@every_way_to("_make_network")
@pytest.mark.parametrize("factor", [2.0**-100, 2.0**60], ids=["2^-100", "2^60"])
def test_columns__in_another_unit__have_the_same_bits(cls: Estimator, factor: float) -> None:
    """Columns with a deviation below 1e-12 counted as constant, and nothing was learnt."""
    X, y = blobs(60)
    plain = quick(cls).fit(X, y).predict_proba(X)
    scaled = (X * factor).astype(np.float32)
    np.testing.assert_array_equal(quick(cls).fit(scaled, y).predict_proba(scaled), plain)


@every_way_to("_make_network")
def test_columns__constant__do_no_harm(cls: Estimator) -> None:
    X, y = blobs()
    X = np.column_stack([X, np.full(len(X), 7e3)])
    assert quick(cls, max_epochs=12).fit(X, y).score(X, y) > 0.9


# Containers.


@of_the_base
@pytest.mark.parametrize("kind", ["table", "image"])
@pytest.mark.parametrize("container", ["memmap", "tensor", "dataset", "list"])
def test_containers__any__give_the_bits_of_numpy(
    cls: Estimator, kind: str, container: str, tmp_path: Path
) -> None:
    assert_container_gives_the_bits_of_numpy(cls, kind, container, tmp_path)


@every_method
def test_memmap__gives_the_bits_of_numpy(cls: Estimator, tmp_path: Path) -> None:
    assert_container_gives_the_bits_of_numpy(cls, "table", "memmap", tmp_path)


def assert_container_gives_the_bits_of_numpy(
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


class ReadElsewhere(PairDataset):
    """A Dataset that refuses to be read by the process that made it, once it is `shut`."""

    def __init__(self, X: NDArray[Any], y: NDArray[Any]) -> None:
        super().__init__(X, y)
        self.maker = os.getpid()
        self.targets, self.shut = y, False

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        if self.shut and i > 0 and os.getpid() == self.maker:  # the first one tells the shape
            raise AssertionError("read by the process that learns")
        return super().__getitem__(i)


@pytest.mark.parametrize("cls", [CrossEntropyClassifier, FlywheelClassifier, CLIDMetaClassifier])
def test_dataset_read_by_workers__gives_the_bits_of_numpy(cls: Estimator) -> None:
    X, y = images(36)
    params = {"max_epochs": 3, "batch_size": 16, "validation_fraction": 0.2}
    expected = quick(cls, **params).fit(X, y)
    rows = ReadElsewhere(X, y)
    clf = quick(cls, num_workers=2, **params)
    rows.shut = cls is CrossEntropyClassifier  # others draw some rows at random
    clf.fit(rows)
    np.testing.assert_array_equal(clf.predict_proba(rows), expected.predict_proba(X))
    np.testing.assert_array_equal(clf.label_quality_, expected.label_quality_)


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


@of_the_base
@pytest.mark.parametrize(
    ("dtype", "shape"),
    [(np.float32, (20_000, 64)), (np.float64, (20_000, 64)), (np.uint8, (8_000, 12, 12, 3))],
    ids=["float32", "float64", "uint8"],
)
def test_memmap__of_any_type__is_never_copied_whole(
    cls: Estimator, dtype: Any, shape: tuple[int, ...], tmp_path: Path
) -> None:
    X = as_memmap(np.random.default_rng(0).integers(0, 250, shape).astype(dtype), tmp_path)
    network = Pooled if dtype == np.uint8 else Linear
    assert_is_never_copied_whole(cls, X, max_epochs=2, module=network, batch_size=500)


@every_method
def test_memmap__is_never_copied_whole(cls: Estimator, tmp_path: Path) -> None:
    X = as_memmap(np.random.default_rng(0).random((1_500, 24, 24), np.float32), tmp_path)
    assert_is_never_copied_whole(cls, X, max_epochs=2, module=Pooled, batch_size=100)


def assert_is_never_copied_whole(cls: Estimator, X: NDArray[Any], **params: Any) -> None:
    y = np.arange(len(X)) % 2
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


# Other sets.


@every_method
def test_validation_fraction__is_recorded_and_all_rows_are_rated(cls: Estimator) -> None:
    X, y = blobs()
    noisy = symmetric(y, 0.3, random_state=0)
    clf = quick(cls, max_epochs=15, validation_fraction=0.25).fit(X, noisy.labels)
    assert len(clf.history_[:, ("valid_loss", "valid_acc")]) == 15
    assert clf.label_quality_.shape == clf.corrected_labels_.shape == (240,)
    assert clf.label_distribution_.shape == (240, 3)
    assert len(clf.label_issues()) == 240
    assert roc_auc_score(~noisy.flipped, clf.label_quality_) > 0.9


@of_the_base
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


@every_way_to("_probabilities")
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


@of_the_base
def test_other_sets__rows_or_labels_alone__are_an_error(cls: Estimator) -> None:
    X, y = blobs(60)
    for sets in ({"X_val": X}, {"y_val": y}, {"y_meta": y}):
        with pytest.raises(ValueError, match=r"y_(val|meta) must come with its rows"):
            quick(cls).fit(X, y, **sets)


@of_the_base
@pytest.mark.filterwarnings("ignore:.*ignores X_meta")
def test_other_sets__no_label__is_an_error(cls: Estimator) -> None:
    X, y = blobs(60)
    nothing = np.full(50, -1)
    for name in ("val", "meta"):
        sets = {f"X_{name}": X[:50], f"y_{name}": nothing}
        with pytest.raises(ValueError, match=rf"y_{name} must have labels. Got -1 in every row"):
            quick(cls, missing_label=-1).fit(X, y, **sets)


# What cannot be used.

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


@of_the_base
@pytest.mark.parametrize("make, message", BAD_DATA.values(), ids=BAD_DATA)
def test_data__that_cannot_be_used__is_a_value_error(
    cls: Estimator, make: Callable[[Arrays], tuple[Any, Any]], message: str
) -> None:
    X, y = make(blobs(60))
    with pytest.raises(ValueError, match=message):
        quick(cls).fit(X, y)
