import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import csr_array
from sklearn.base import clone
from torch import Tensor
from torch.masked import masked_tensor
from torch.utils.data import Dataset, TensorDataset

from noisyfit import CrossEntropyClassifier, NoisyFitWarning
from noisyfit.data.rows import Rows, dataset_labels, dataset_row, extremes, scan
from noisyfit.data.training import TrainingData, batch_bounds, best_of_each_class, draw_evenly
from noisyfit.data.views import CallableAugment
from noisyfit.estimator.format import (
    check_finite,
    check_value_range,
    find_value_range,
    image_layout,
)
from tests.helpers import Arrays, PairDataset, as_memmap, blobs, images

CPU = torch.device("cpu")


def table(n: int = 10, d: int = 3) -> NDArray[Any]:
    return np.arange(n * d, dtype=np.float64).reshape(n, d)


def training(n: int, batch_size: int, labels: Any = None, **params: Any) -> TrainingData:
    codes = torch.arange(n) % 2 if labels is None else torch.as_tensor(labels)
    rows = Rows(table(n), "table", CPU)
    trusted = torch.zeros(len(codes), dtype=torch.bool)
    return TrainingData(rows, codes, trusted, 2, batch_size, **params)


# Batches.


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 9, 16, 17, 129])
@pytest.mark.parametrize("size", [2, 8, 128])
def test_batch_bounds_cut_the_range_into_batches_without_a_rest_of_one(n: int, size: int) -> None:
    bounds = batch_bounds(n, size)
    rows = [i for start, stop in bounds for i in range(start, stop)]
    lengths = [stop - start for start, stop in bounds]
    assert rows == list(range(n))
    assert lengths[:-1] == [size] * (len(lengths) - 1)
    assert 1 <= lengths[-1] <= size + 1
    assert lengths[-1] > 1 or n == 1
    assert lengths[-1] <= size or n % size == 1


def test_batch_bounds__no_rows__are_none() -> None:
    assert batch_bounds(0, 4) == []


@pytest.mark.parametrize("n, batch_size", [(10, 4), (9, 4), (5, 128), (129, 128), (1, 2)], ids=str)
def test_batches_serve_each_row_once_with_its_label(n: int, batch_size: int) -> None:
    data = training(n, batch_size)
    seen = []
    for idx, x, labels in data.batches("plain"):
        np.testing.assert_array_equal(x.numpy(), table(n)[idx.numpy()])
        assert labels.tolist() == [int(i) % 2 for i in idx]
        assert len(idx) > 1 or n == 1
        seen += idx.tolist()
    assert sorted(seen) == list(range(n))


def test_batches_come_in_a_new_order_each_time() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        data = training(64, 8)
        first, second = ([i for idx, *_ in data.batches() for i in idx.tolist()] for _ in range(2))
    assert first != second
    assert sorted(first) == sorted(second) == list(range(64))
    assert first != list(range(64))


def test_batches__labelled__leave_rows_without_a_label_out() -> None:
    labels = torch.tensor([0, -1, 1, -1, 0, 1, -1, 0, 1])
    data = training(9, 3, labels)
    seen = []
    for idx, x, given in data.batches("plain", labelled=True):
        assert (given >= 0).all()
        np.testing.assert_array_equal(given, labels[idx])
        np.testing.assert_array_equal(x.numpy(), table(9)[idx.numpy()])
        seen += idx.tolist()
    assert sorted(seen) == [0, 2, 4, 5, 7, 8]
    assert sorted(i for idx, *_ in data.batches() for i in idx.tolist()) == list(range(9))


def test_batches__labelled__rest_of_one_joins() -> None:
    data = training(8, 2, [0, 1, 0, -1, -1, -1, 1, 1])  # five labels
    lengths = [len(idx) for idx, *_ in data.batches(labelled=True)]
    assert lengths == [2, 3]


@pytest.mark.parametrize(
    "views", [(), ("weak",), ("plain", "strong"), ("weak", "strong", "strong")]
)
def test_batches_give_one_tensor_a_view(views: tuple[str, ...]) -> None:
    data = training(6, 4, augment=CallableAugment(lambda x: x + torch.rand(())))
    for idx, *seen, labels in data.batches(*views):
        plain = torch.as_tensor(table(6))[idx].float()
        assert len(seen) == max(1, len(views))
        assert len(labels) == len(idx)
        for x, name in zip(seen, views or ("weak",), strict=True):
            assert torch.equal(x, plain) == (name == "plain")
        assert len({float((x - plain)[0, 0]) for x in seen}) == len(seen)


def test_batches__of_some_rows__count_within_them() -> None:
    index = torch.tensor([8, 2, 5])
    data = training(10, 2, [1, 0, 1], index=index)
    assert len(data) == 3
    for idx, x, labels in data.batches("plain"):
        np.testing.assert_array_equal(x.numpy(), table(10)[index[idx].numpy()])
        np.testing.assert_array_equal(labels, torch.tensor([1, 0, 1])[idx])
    np.testing.assert_array_equal(torch.cat(list(data.in_order())), table(10)[[8, 2, 5]])


def test_in_order__view__is_applied() -> None:
    data = training(5, 2, augment=CallableAugment(lambda x: -x))
    np.testing.assert_array_equal(torch.cat(list(data.in_order())), table(5))
    np.testing.assert_array_equal(torch.cat(list(data.in_order("weak"))), -table(5))


@pytest.mark.parametrize("batch_size", [3, 4, 128])
def test_chunks__of_many_batches__serve_the_same_batches(
    batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def batches(data: TrainingData) -> Iterator[tuple[list[int], list[list[float]]]]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for idx, x, _ in data.batches("plain"):
                yield idx.tolist(), x.tolist()

    data = training(25, batch_size)
    one_by_one = list(batches(data))
    bounds = batch_bounds(25, batch_size)
    monkeypatch.setattr(
        data,
        "_chunks",
        lambda n: iter([(0, n, bounds)]),  # as on a GPU, where chunks hold many batches
    )
    assert list(batches(data)) == one_by_one


@pytest.mark.gpu
def test_on_a_gpu__batches_serve_each_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noisyfit.data.training.GPU_CHUNK", 8)
    gpu = torch.device("cuda")
    rows = Rows(table(25), "table", gpu)
    codes = torch.arange(25, device=gpu)
    data = TrainingData(rows, codes, codes < 0, 25, 3)
    seen = []
    for idx, x, labels in data.batches("plain"):
        np.testing.assert_array_equal(x.cpu().numpy(), table(25)[idx.cpu().numpy()])
        assert torch.equal(labels, idx)
        seen += idx.tolist()
    assert sorted(seen) == list(range(25))


# Rows.


@pytest.mark.parametrize(
    "shape, requested, expected",
    [
        ((9, 5), "auto", "table"),
        ((9, 8, 8), "auto", "HW"),
        ((9, 8, 8), "HW", "HW"),
        ((9, 8, 8, 3), "auto", "HWC"),
        ((9, 8, 8, 1), "auto", "HWC"),
        ((9, 4, 8, 8), "auto", "CHW"),
        ((9, 3, 8, 3), "HWC", "HWC"),
        ((9, 3, 8, 3), "CHW", "CHW"),
        ((9, 7, 8, 8), "CHW", "CHW"),
    ],
)
def test_image_layout_is_read_from_the_shape(
    shape: tuple[int, ...], requested: str, expected: str
) -> None:
    assert image_layout(shape, requested) == expected


@pytest.mark.parametrize(
    "shape, requested, message",
    [
        ((9,), "auto", "must be a table"),
        ((9, 2, 2, 2, 2), "auto", "must be a table.*reshape"),
        ((9, 3, 8, 3), "auto", 'both the first and the last.*image_layout="HWC"'),
        ((9, 8, 8, 8), "auto", 'neither the first nor the last.*image_layout="HWC"'),
        ((9, 8, 8), "HWC", "needs 4 axes"),
        ((9, 8, 8, 3), "HW", "image_layout='HW'"),
    ],
)
def test_image_layout__unclear__is_an_error(
    shape: tuple[int, ...], requested: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        image_layout(shape, requested)


@pytest.mark.parametrize("layout", ["HW", "HWC", "CHW"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64, np.int32])
def test_take_gives_channels_first(layout: str, dtype: Any) -> None:
    pictures, _ = images(12)
    channels_first = pictures.transpose(0, 3, 1, 2)
    X = {"HW": pictures[..., 0], "HWC": pictures, "CHW": channels_first}[layout].astype(dtype)
    rows = Rows(X, layout, CPU)
    taken = rows.take(torch.tensor([7, 0, 7]))
    expected = channels_first[[7, 0, 7]][:, : 1 if layout == "HW" else 3]
    assert taken.dtype == (torch.uint8 if dtype == np.uint8 else torch.float32)
    np.testing.assert_array_equal(taken, expected)
    assert rows.row_shape == expected.shape[1:]
    np.testing.assert_array_equal(torch.cat(list(rows.in_order()))[[7, 0, 7]], expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int64, bool])
def test_take__table__is_float32(dtype: Any) -> None:
    X = table().astype(dtype)
    taken = Rows(X, "table", CPU).take(torch.tensor([3, 1]))
    assert taken.dtype == torch.float32
    np.testing.assert_array_equal(taken, X[[3, 1]].astype(np.float32))


@pytest.mark.parametrize("writeable", [True, False])
def test_rows__of_an_array_or_memmap__are_a_view(writeable: bool, tmp_path: Path) -> None:
    X = np.memmap(tmp_path / "X", dtype=np.float64, mode="w+", shape=(20, 3))
    X[:] = table(20)
    X.flush()
    mapped = np.memmap(tmp_path / "X", dtype=np.float64, mode="r+" if writeable else "r").reshape(
        20, 3
    )
    for source in (mapped, table(20)):
        rows = Rows(source, "table", CPU)
        assert isinstance(rows.source, Tensor)
        assert rows.source.data_ptr() == source.ctypes.data
        assert len(rows) == 20
        np.testing.assert_array_equal(rows.take(torch.tensor([19])), table(20)[[19]])


@pytest.mark.parametrize("n", [1, 511, 512, 513, 1100])
def test_in_order_yields_every_row_once(n: int) -> None:
    X = np.random.default_rng(0).integers(0, 255, (n, 4, 4), dtype=np.uint8)
    batches = list(Rows(X, "HW", CPU).in_order())
    assert max(map(len, batches)) <= 512
    np.testing.assert_array_equal(torch.cat(batches)[:, 0], X)


def test_rows__of_a_dataset__are_those_of_the_array() -> None:
    X = table(9)
    for dataset in (
        PairDataset(X, np.zeros(9)),
        TensorDataset(torch.as_tensor(X), torch.zeros(9)),
        TensorDataset(torch.as_tensor(X)),
    ):
        rows = Rows(dataset, "table", CPU)
        assert len(rows) == 9
        np.testing.assert_array_equal(rows.take(torch.tensor([8, 2])), X[[8, 2]])
        np.testing.assert_array_equal(torch.cat(list(rows.in_order())), X)
        np.testing.assert_array_equal(dataset_row(dataset, 4), X[4])


def test_dataset_labels_are_found_in_attributes_or_pairs() -> None:
    X, y = torch.as_tensor(table(4)), np.array([3, 1, 1, 2])
    plain = PairDataset(X.numpy(), y)
    assert dataset_labels(plain).tolist() == y.tolist()  # type: ignore[union-attr]
    plain.targets = [0, 0, 0, 1]  # type: ignore[attr-defined]
    assert dataset_labels(plain).tolist() == [0, 0, 0, 1]  # type: ignore[union-attr]
    assert dataset_labels(TensorDataset(X, torch.as_tensor(y))).tolist() == y.tolist()  # type: ignore[union-attr]


# Statistics.


@pytest.mark.parametrize("offset", [0.0, 1e3, -1e6], ids=str)
def test_scan__table__is_that_of_numpy_in_float64(offset: float) -> None:
    X = np.random.default_rng(0).normal(offset, [1.0, 5.0, 40.0], size=(9000, 3))
    X = X.astype(np.float32)
    seen = scan(Rows(X, "table", CPU))
    exact = X.astype(np.float64)
    np.testing.assert_allclose(seen.mean, exact.mean(0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(seen.std, exact.std(0), rtol=1e-5)
    assert seen.low == exact.min()
    assert seen.high == exact.max()


@pytest.mark.parametrize("layout", ["HWC", "CHW"])
def test_scan__images__is_per_channel(layout: str) -> None:
    pictures, _ = images(700)
    X = pictures if layout == "HWC" else np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))
    seen = scan(Rows(X, layout, CPU))
    exact = pictures.astype(np.float64)
    assert seen.mean.shape == seen.std.shape == (3, 1, 1)
    np.testing.assert_allclose(seen.mean[:, 0, 0], exact.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(seen.std[:, 0, 0], exact.std((0, 1, 2)), rtol=1e-6)
    assert (seen.low, seen.high) == (pictures.min(), pictures.max())


@pytest.mark.parametrize("value", [0.0, 3.0, 1e-9, -1e6], ids=str)
def test_scan__near_constant_column__gets_one(value: float) -> None:
    X = np.column_stack([np.full(5000, value), np.arange(5000.0)]).astype(np.float32)
    X[7, 0] = np.nextafter(X[7, 0], np.float32(1e9))
    seen = scan(Rows(X, "table", CPU))
    assert seen.std[0] == 1
    assert seen.std[1] == pytest.approx(np.arange(5000.0).std(), rel=1e-6)


def test_scan__small_but_real_spread__is_kept() -> None:
    X = np.random.default_rng(0).normal(0, 1e-4, size=(100, 1)).astype(np.float32)
    assert scan(Rows(X, "table", CPU)).std[0] == pytest.approx(X.std(), rel=1e-4)


def test_scan__drifting_rows__stay_accurate() -> None:
    # The first batch is far from the rest: sums around its mean must not lose the small spread.
    X = np.concatenate([np.full(4096, 1e5), np.random.default_rng(0).normal(size=40960)])
    seen = scan(Rows(X[:, None], "table", CPU))
    exact = X.astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(seen.std, exact.std(), rtol=1e-5)
    np.testing.assert_allclose(seen.mean, exact.mean(), rtol=1e-5)


def test_scan__one_row__has_unit_spread() -> None:
    seen = scan(Rows(table(1), "table", CPU))
    assert seen.mean.tolist() == [0, 1, 2]
    assert seen.std.tolist() == [1, 1, 1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("row", [0, 5000])
def test_extremes__nan_or_infinity__is_found_and_refused(bad: float, row: int) -> None:
    X = np.zeros((6000, 2))
    X[row, 1] = bad
    for low, high in (
        extremes(Rows(X, "table", CPU)),
        (scan(Rows(X, "table", CPU)).low, scan(Rows(X, "table", CPU)).high),
    ):
        with pytest.raises(ValueError, match="NaN or infinity"):
            check_finite(low, high)


def test_extremes__finite__passes() -> None:
    low, high = extremes(Rows(table(), "table", CPU))
    assert (low, high) == (0, 29)
    check_finite(low, high)


@pytest.mark.parametrize(
    "values, expected",
    [
        (np.array([3, 9], np.uint8), (0, 255)),
        (np.array([0, 1], np.uint8), (0, 255)),
        (np.array([0.0, 1.0]), (0, 1)),
        (np.array([0.2, 0.7]), (0, 1)),
        (np.array([0.0, 200.0]), (0, 255)),
        (np.array([-1.0, 1.0]), (-1, 1)),
        (np.array([-2.5, 3.5]), (-2.5, 3.5)),
        (np.array([0.0, 4000.0]), (0, 4000)),
        (np.array([0.0, 16.0]), (0, 255)),
        (np.array([0.0, 1.03]), (0, 1)),
        (np.array([-0.02, 1.03]), (0, 1)),
        (np.array([-0.125, 0.875]), (-0.125, 0.875)),
        (np.array([-0.4375, 2.875]), (-0.4375, 2.875)),
        (np.array([-9.0, 268.0]), (0, 255)),
        (np.array([0.0, 268.0]), (0, 255)),
        (np.array([-3.0, -3.0]), (-3, -2)),
    ],
    ids=[
        "bytes",
        "dark bytes",
        "unit",
        "within unit",
        "to 255",
        "signed",
        "z-scores",
        "12 bit",
        "digits",
        "bright overshoot",
        "overshoot",
        "centred",
        "z-scores of MNIST",
        "overshoot of 255",
        "bright overshoot of 255",
        "constant",
    ],
)
def test_find_value_range_is_the_scale_of_the_images(
    values: NDArray[Any], expected: tuple[float, float]
) -> None:
    X = np.resize(values, (2, 4, 4))
    rows = Rows(X, "HW", CPU)
    assert find_value_range(rows, *extremes(rows), None) == expected


@pytest.mark.parametrize("values", [(0.2, 0.7), (0.0, 200.0), (-0.2, 1.2)], ids=str)
def test_find_value_range__given__is_taken(values: tuple[float, float]) -> None:
    X = np.resize(values, (2, 4, 4))
    rows = Rows(X, "HW", CPU)
    white = 1 if values[1] < 2 else 255
    assert find_value_range(rows, *extremes(rows), (0, white)) == (0, white)
    with pytest.raises(ValueError, match="Images must be on the scale.*-9 to -8.*Rescale"):
        find_value_range(rows, *extremes(rows), [-9, -8])


@pytest.mark.parametrize("given", [(1, 0), (0, 0), (0,), (0, 1, 2), ("a", 1), (0, np.inf)], ids=str)
def test_find_value_range__given_no_pair__is_refused(given: Any) -> None:
    rows = Rows(np.zeros((2, 4, 4)), "HW", CPU)
    with pytest.raises(ValueError, match="value_range must be a pair.*Got.*Pass"):
        find_value_range(rows, 0.0, 0.0, given)


def test_find_value_range__of_bytes__cannot_be_another() -> None:
    rows = Rows(np.ones((2, 4, 4), np.uint8), "HW", CPU)
    assert find_value_range(rows, 1.0, 1.0, (0, 255)) == (0, 255)
    with pytest.raises(ValueError, match="uint8.*Convert"):
        find_value_range(rows, 1.0, 1.0, (0, 1))


@pytest.mark.parametrize(
    "fitted, low, high, fits",
    [
        ((0.0, 1.0), 0.0, 1.0, True),
        ((0.0, 1.0), 0.3, 0.4, True),
        ((0.0, 1.0), -0.02, 1.03, True),
        ((0.0, 1.0), 0.0, 255.0, False),
        ((0.0, 1.0), -1.0, 1.0, False),
        ((0.0, 255.0), 0.0, 255.0, True),
        ((0.0, 255.0), 17.0, 80.0, True),
        ((0.0, 255.0), -3.0, 262.0, True),
        ((0.0, 255.0), 0.0, 4000.0, False),
        ((0.0, 255.0), 0.0, 0.0, True),
        ((-2.5, 3.5), -9.0, 9.0, True),
        ((-2.5, 3.5), 0.0, 255.0, False),
        ((1000.0, 1001.0), 980.0, 1100.0, True),
    ],
)
def test_value_range__other_than_that_of_fit__is_refused(
    fitted: tuple[float, float], low: float, high: float, fits: bool
) -> None:
    closed = fitted[0] == 0
    if fits:
        check_value_range(fitted, low, high, closed=closed)
    else:
        with pytest.raises(ValueError, match="scale of fit.*Rescale"):
            check_value_range(fitted, low, high, closed=closed)


def test_value_range__almost_black__is_warned_of() -> None:
    with pytest.warns(NoisyFitWarning, match="almost black.*another scale"):
        check_value_range((0.0, 255.0), 0.0, 0.8, closed=True)


def test_best_of_each_class__takes_the_same_share_of_every_class() -> None:
    labels = torch.tensor([0, 0, 0, 0, 1, 1, -1, 2])
    rating = torch.tensor([0.1, 0.9, 0.5, 0.4, 0.2, 0.3, 1.0, 0.0])
    assert best_of_each_class(rating, labels, 0.5, 4).tolist() == [1, 2, 5, 7]
    assert best_of_each_class(rating, labels, 0.0, 4).tolist() == []


def drawn_by_hand(rating: list[float], labels: list[int], n_classes: int) -> list[int]:
    """The classes take turns; none gives more than half of its rows."""
    queues = []
    for code in range(n_classes):
        rows = sorted(
            (i for i in range(len(labels)) if labels[i] == code), key=lambda i: -rating[i]
        )
        queues.append(rows[: len(rows) // 2])
    found: list[int] = []
    while any(queues):
        found += [queue.pop(0) for queue in queues if queue]
    return sorted(found[: min(1000, len(labels) // 2)])


@pytest.mark.parametrize(
    "sizes", [[40, 40, 40], [100, 6, 1], [3, 0, 90], [1, 1, 1], [3000, 200, 900]], ids=str
)
def test_draw_evenly__equals_turns_of_the_classes(sizes: list[int]) -> None:
    labels = torch.tensor([code for code, size in enumerate([*sizes, 5]) for _ in range(size)])
    labels = labels.masked_fill(labels == len(sizes), -1)
    torch.manual_seed(0)
    labels, rating = labels[torch.randperm(len(labels))], torch.rand(len(labels))
    found = draw_evenly(rating, labels, 3)
    assert found.tolist() == drawn_by_hand(rating.tolist(), labels.tolist(), 3)


def test_draw_evenly__classes_of_any_size__are_as_even_as_half_of_each_allows() -> None:
    labels = torch.tensor([0] * 3000 + [1] * 200 + [2] * 900)
    found = draw_evenly(torch.rand(len(labels)), labels, 3)
    assert torch.bincount(labels[found]).tolist() == [450, 100, 450]


# Arrays as they come: layouts, byte orders, dtypes and containers.


def unaligned(A: NDArray[Any]) -> NDArray[Any]:
    padded = np.zeros(A.nbytes + 1, np.uint8)
    padded[1:] = A.view(np.uint8).ravel()
    return padded[1:].view(A.dtype).reshape(A.shape)


def with_a_field(A: NDArray[Any]) -> NDArray[Any]:
    return np.rec.fromarrays([A, A > 0], dtype=[("x", A.dtype), ("flag", "?")])


def as_rows_of_objects(A: NDArray[Any]) -> NDArray[Any]:
    rows = np.empty(len(A), dtype=object)
    rows[:] = list(A)
    return rows


def pictures_of_pil(A: NDArray[Any]) -> list[Any]:
    return [Image.fromarray(row) for row in A.astype(np.uint8)]


Make = Callable[[NDArray[Any]], Any]
STORED: dict[str, tuple[Make, Make]] = {  # as it lies in memory or a file, as it is handed over
    "rows reversed": (lambda A: A[::-1], lambda S: S[::-1]),
    "last axis reversed": (lambda A: A[..., ::-1], lambda S: S[..., ::-1]),
    "all axes reversed": (np.flip, np.flip),
    "every other row": (lambda A: A.repeat(2, 0), lambda S: S[::2]),
    "every other row from the end": (lambda A: A[::-1].repeat(2, 0), lambda S: S[::-2]),
    "transposed": (lambda A: A.T, lambda S: S.T),
    "big-endian": (lambda A: A.astype(A.dtype.newbyteorder(">")), lambda S: S),
    "big-endian shorts": (lambda A: A.astype(">i2"), lambda S: S),
    "big-endian doubles reversed": (lambda A: A.astype(">f8")[::-1], lambda S: S[::-1]),
    "float16": (lambda A: A.astype(np.float16), lambda S: S),
    "longdouble": (lambda A: A.astype(np.longdouble), lambda S: S),
    "uint16": (lambda A: abs(A).astype(np.uint16), lambda S: S),
    "int64": (lambda A: A.astype(np.int64), lambda S: S),
    "bool": (lambda A: A % 2 > 0, lambda S: S),
    "bool reversed": (lambda A: A[::-1] % 2 > 0, lambda S: S[::-1]),
    "field of a record": (with_a_field, lambda S: S["x"]),
    "masked nowhere": (lambda A: A, lambda S: np.ma.array(S, mask=False)),
}
CONTAINED: dict[str, Make] = {
    "read-only": lambda A: np.frombuffer(A.tobytes(), A.dtype).reshape(A.shape),
    "unaligned": unaligned,
    "Fortran order": np.asfortranarray,
    "objects": lambda A: A.astype(object),
    "array of rows": as_rows_of_objects,
    "list of arrays": list,
    "tuple of reversed arrays": lambda A: tuple(row[..., ::-1] for row in A),
    "list of lists": lambda A: A.tolist(),
    "tensor": torch.tensor,
    "tensor with gradient": lambda A: torch.tensor(A, requires_grad=True),
    "parameter": lambda A: torch.nn.Parameter(torch.tensor(A)),
    "tensor transposed": lambda A: torch.tensor(A).transpose(0, -1).contiguous().transpose(0, -1),
    "tensor of bfloat16": lambda A: torch.tensor(A).bfloat16(),
    "tensor of uint16": lambda A: torch.tensor(abs(A)).to(torch.uint16),
    "list of tensors": lambda A: list(torch.tensor(A, requires_grad=True)),
    "Dataset of reversed arrays": lambda A: Mapped([row[..., ::-1] for row in A]),
    "Dataset of big-endian arrays": lambda A: Mapped(list(A.astype(">f4"))),
    "Dataset of tensors with gradient": lambda A: Mapped(list(torch.tensor(A, requires_grad=True))),
}
OF_TABLES: dict[str, Make] = {
    "frame of float16": lambda A: pd.DataFrame(A.astype(np.float16)),
    "frame of nullable integers": lambda A: pd.DataFrame(A).astype("Int16"),
    "frame of mixed dtypes": lambda A: pd.DataFrame(A).astype({0: "float64", 1: "int8", 2: object}),
    "frame of booleans": lambda A: pd.DataFrame(A > 0),
}
OF_IMAGES: dict[str, Make] = {
    "list of PIL images": pictures_of_pil,
    "Dataset of PIL images": lambda A: Mapped(pictures_of_pil(A)),
}
ZOO = [
    *((kind, name) for kind in ("table", "image") for name in {**STORED, **CONTAINED}),
    *((kind, name) for kind in ("memmap table", "memmap image") for name in STORED),
    *(("table", name) for name in OF_TABLES),
    *(("image", name) for name in OF_IMAGES),
]


class Mapped(Dataset[Any]):
    """A Dataset of rows without labels."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Any:
        return self.rows[i]


def whole_numbers(kind: str) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Rows that every dtype can hold, and labels."""
    X, y = blobs(30) if "table" in kind else images(30)
    return X.round().astype(np.float32), y


def handed_over(A: NDArray[np.float32], kind: str, name: str, folder: Path) -> Any:
    if name not in STORED:
        return {**CONTAINED, **OF_TABLES, **OF_IMAGES}[name](A)
    store, view = STORED[name]
    stored = np.array(store(A), order="C")
    return view(as_memmap(stored, folder) if "memmap" in kind else stored)


def plain(X: Any) -> NDArray[np.float32]:
    """The same values, contiguous and native."""
    rows = list(X) if isinstance(X, list | tuple | Dataset) or X.ndim == 1 else [X]
    rows = [row.detach().float() if isinstance(row, Tensor) else row for row in rows]
    rows = [np.array(row.tolist() if hasattr(row, "tolist") else row, np.float32) for row in rows]
    return np.stack(rows) if len(rows) > 1 else rows[0]


def small_fit(X: Any, y: Any) -> Any:
    return CrossEntropyClassifier(max_epochs=1, random_state=0, device="cpu").fit(X, y)


@pytest.mark.parametrize("kind, name", ZOO)
def test_array__however_it_is_handed_over__gives_the_bits_of_a_plain_one(
    kind: str, name: str, tmp_path: Path
) -> None:
    A, y = whole_numbers(kind)
    X = handed_over(A, kind, name, tmp_path)
    same = np.array(X, np.float32) if isinstance(X, pd.DataFrame) else plain(X)
    expected, clf = small_fit(same, y), small_fit(X, y)
    np.testing.assert_array_equal(clf.predict_proba(same), expected.predict_proba(same))
    np.testing.assert_array_equal(clf.label_quality_, expected.label_quality_)
    if not isinstance(X, pd.DataFrame):  # it has names that fit has not seen
        clf = expected
    np.testing.assert_array_equal(clf.predict_proba(X), expected.predict_proba(same))


@pytest.mark.parametrize("name", ["rows reversed", "big-endian", "longdouble", "field of a record"])
def test_rows__of_a_memmap_that_torch_cannot_view__are_read_slice_by_slice(
    name: str, tmp_path: Path
) -> None:
    A = np.random.default_rng(0).integers(0, 9, (60_000, 16)).astype(np.float32)
    X = handed_over(A, "memmap table", name, tmp_path)
    tracemalloc.start()
    rows = Rows(X, "table", CPU)
    assert scan(rows).high == 8
    taken = rows.take(torch.tensor([59_999, 0]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(taken, A[[59_999, 0]])
    assert peak < A.nbytes / 4


REFUSED: dict[str, tuple[Make, str]] = {
    "masked": (lambda A: np.ma.masked_equal(A, A[0, 0]), "complete.*masked entries.*Impute"),
    "list of masked": (lambda A: list(np.ma.masked_equal(A, A[0, 0])), "complete.*Impute"),
    "Dataset of masked": (lambda A: Mapped(list(np.ma.masked_equal(A, A[0, 0]))), "complete"),
    "masked tensor": (lambda A: masked_tensor(torch.tensor(A), torch.tensor(A > 0)), "complete"),
    "sparse tensor": (lambda A: torch.tensor(A).to_sparse(), r"dense.*to_dense"),
    "compressed tensor": (lambda A: torch.tensor(A).flatten(1).to_sparse_csr(), r"dense.*to_dense"),
    "sparse matrix": (lambda A: csr_array(A.reshape(len(A), -1)), r"dense.*sparse_output=False"),
    "list of sparse tensors": (lambda A: [torch.tensor(row).to_sparse() for row in A], "to_dense"),
    "nested tensor": (
        lambda A: torch.nested.nested_tensor(list(torch.tensor(A)), layout=torch.jagged),
        "rows of one shape.*Pad",
    ),
    "ragged list": (lambda A: [*A[:-1], A[-1][1:]], "rows of one shape.*Got rows of shape.*Resize"),
    "ragged list of lists": (lambda A: [*A[:-1].tolist(), A[-1][1:].tolist()], "rows of one shape"),
    "ragged within a row": (lambda A: [[[1], [2, 3]]] * len(A), "rows of one shape"),
    "ragged tensors": (lambda A: [torch.tensor(row) for row in [*A[:-1], A[-1][1:]]], "one shape"),
    "ragged array": (
        lambda A: as_rows_of_objects(np.array([*A[:-1], A[-1][1:]], dtype=object)),
        "rows of one shape",
    ),
    "ragged Dataset": (lambda A: Mapped([*A[:-1], A[-1][1:]]), "rows of one shape"),
    "empty Dataset": (lambda A: Mapped([]), "have a row and a feature.*0 sample"),
    "number": (lambda A: np.array(3.0), "(?i)array|table"),
    "tensor of a number": (lambda A: torch.tensor(3.0), "must be a table"),
    "memmap of a number": (
        lambda A: np.array(3.0).view(np.memmap),
        "must be a table",
    ),
    "dates": (lambda A: A.astype("M8[s]"), "hold numbers.*datetime64"),
    "memmap of text": (lambda A: A.astype("U5").view(np.memmap), "hold numbers.*<U5"),
    "records": (with_a_field, "hold numbers"),
    "list of dates": (lambda A: list(A.astype("M8[s]")), "hold numbers.*datetime64"),
    "frame of dates": (lambda A: pd.DataFrame({0: pd.to_datetime(A.ravel())}), "hold numbers"),
    "frame of text": (lambda A: pd.DataFrame({0: ["a"] * len(A)}), "hold numbers.*Encode"),
    "Series of rows": (lambda A: pd.Series(list(A)), "hold numbers"),
    "Dataset of text": (lambda A: Mapped([["a"]] * len(A)), "hold numbers.*Encode"),
    "list of dicts": (lambda A: [{}] * len(A), "hold numbers.*Encode"),
    "no columns": (lambda A: torch.tensor(A[..., :0]), "have a row and a feature.*0 feature"),
    "meta tensor": (lambda A: torch.tensor(A, device="meta"), "meta device"),
    "text": (lambda A: np.full(A.shape, "a"), "hold numbers.*Encode"),
    "complex": (lambda A: A * 1j, "(?i)complex"),
    "reversed complex memmap": (lambda A: (A[::-1] * 1j).view(np.memmap)[::-1], "(?i)complex"),
    "Dataset of complex": (lambda A: Mapped(list(A * 1j)), "(?i)complex"),
    "quantized": (
        lambda A: torch.quantize_per_tensor(torch.tensor(A), 1.0, 0, torch.quint8),
        "dequantize",
    ),
}


@pytest.mark.parametrize("kind", ["table", "image"])
@pytest.mark.parametrize("name", REFUSED)
def test_array__that_cannot_be_read__is_refused_at_fit_and_at_predict(kind: str, name: str) -> None:
    A, y = whole_numbers(kind)
    make, message = REFUSED[name]
    X = make(A)
    with pytest.raises((ValueError, TypeError), match=message):
        small_fit(X, y)
    clf = small_fit(A, y)
    with pytest.raises((ValueError, TypeError), match=f"{message}|rows of shape"):
        clf.predict(X)


def test_polars_frames__are_tables_and_dates_in_them_are_refused() -> None:
    pl = pytest.importorskip("polars")
    A, y = whole_numbers("table")
    expected = small_fit(A, y).predict_proba(A)
    frame = pl.DataFrame(A, schema=[f"column {i}" for i in range(A.shape[1])])
    for same in (frame, frame.cast(pl.Int16), frame.cast(pl.String)):
        np.testing.assert_array_equal(small_fit(same, y).predict_proba(same), expected)
    with pytest.raises(TypeError, match="hold numbers.*Date"):
        small_fit(frame.cast(pl.Int32).cast(pl.Date), y)


# The scale and the size of images, from fit to predict.


def on_scale(black: float, white: float) -> Arrays:
    """Float images that reach both ends of a scale, and labels."""
    X, y = images(30)
    X = X / X.max()
    return black + (white - black) * X.astype(np.float32), y


@pytest.mark.parametrize(
    "container", [np.asarray, torch.tensor, Mapped, list], ids=lambda kind: kind.__name__
)
@pytest.mark.parametrize("low, high", [(0.0, 1.0), (0.0, 1.03), (-0.02, 1.03)])
def test_images__with_an_overshoot__are_on_the_scale_that_they_overshoot(
    container: Any, low: float, high: float
) -> None:
    X, y = on_scale(low, high)
    clf = small_fit(container(X), y)
    assert clf.value_range_ == (0, 1)
    for other in (on_scale(0, 1)[0], on_scale(-0.05, 1.1)[0], on_scale(0, 0.1)[0], X * 0):
        assert clf.predict(container(other)).shape == (30,)
    for other in (on_scale(0, 255)[0], on_scale(-1, 1)[0], on_scale(0, 2)[0]):
        with pytest.raises(ValueError, match="scale of fit, 0 to 1.*Rescale"):
            clf.predict(container(other))


def test_images__of_a_dark_frame__are_predicted_with_a_warning_and_no_other() -> None:
    X, y = on_scale(0, 255)
    clf = small_fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf.predict(X * 0)
        clf.predict(X * 0.02)
    with pytest.warns(NoisyFitWarning, match="almost black"):
        clf.predict(X[:1] * 0.003)


def test_value_range__given__is_the_scale_of_the_views_and_of_predict(tmp_path: Path) -> None:
    X, y = on_scale(0, 1)
    params: dict[str, Any] = {"max_epochs": 1, "random_state": 0, "device": "cpu"}
    clf = CrossEntropyClassifier(value_range=(0, 4), **params)
    clf = clone(clf.set_params(value_range=(np.float32(0), np.uint8(4)))).fit(X, y)
    assert clf.value_range_ == clf._augment().value_range == (0, 4)
    clf.save(tmp_path / "model")
    for model in (clf, CrossEntropyClassifier.load(tmp_path / "model")):
        assert model.predict(4.5 * X).shape == (30,)
        with pytest.raises(ValueError, match="scale of fit, 0 to 4"):
            model.predict(255 * X)
    with pytest.raises(ValueError, match="scale of fit, 0 to 0.5"):
        CrossEntropyClassifier(value_range=(0, 0.5), **params).fit(X, y)
    with pytest.raises(ValueError, match="'value_range' parameter"):
        CrossEntropyClassifier(**params).set_params(value_range="unit").fit(X, y)


def test_value_range__given__leaves_tables_alone() -> None:
    X, y = blobs(30)
    clf = CrossEntropyClassifier(value_range=(0, 1), max_epochs=1, device="cpu").fit(X, y)
    assert clf.predict(1000 * X).shape == (30,)


def test_bytes__of_a_dataset__are_on_the_scale_of_bytes() -> None:
    X, y = images(30)
    X = (X > 50).astype(np.uint8)
    assert small_fit(Mapped(list(X)), y).value_range_ == small_fit(X, y).value_range_ == (0, 255)


@pytest.mark.parametrize("layout", ["HW", "HWC", "CHW", "table"])
@pytest.mark.parametrize(
    "container", [np.asarray, torch.tensor, Mapped, list, as_memmap], ids=lambda kind: kind.__name__
)
@pytest.mark.parametrize("axis", [1, 2])
def test_rows__of_another_height_or_width_at_predict__are_refused(
    layout: str, container: Any, axis: int, tmp_path: Path
) -> None:
    X, y = images(30)
    X = {"HW": X[..., 0], "HWC": X, "CHW": X.transpose(0, 3, 1, 2), "table": X[:, 0, :, 0]}[layout]
    axis = {"table": 1, "CHW": axis + 1}.get(layout, axis)
    clf = small_fit(X, y)
    wide = X.repeat(2, axis)
    handed = as_memmap(wide, tmp_path) if container is as_memmap else container(wide)
    message = "as in fit" if layout != "table" else "as in fit|features"
    with pytest.raises(ValueError, match=message):
        clf.predict(handed)
