import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import csr_array
from torch import Tensor
from torch.masked import masked_tensor
from torch.utils.data import Dataset, TensorDataset

from noisyfit.data.rows import Rows, dataset_labels, dataset_row, extremes, scan
from noisyfit.estimator.format import (
    check_finite,
)
from tests.helpers import (
    CPU,
    Mapped,
    PairDataset,
    as_memmap,
    blobs,
    images,
    small_fit,
    table,
)


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


class ReadBy(Mapped):
    """A Dataset whose rows tell the process that reads them."""

    def __getitem__(self, i: int) -> Any:
        return torch.tensor([float(self.rows[i]), os.getpid()], dtype=torch.float64)


class Drawn(Mapped):
    """A Dataset of random rows."""

    def __getitem__(self, i: int) -> Any:
        return torch.rand(3)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_stream__of_a_dataset__is_read_in_order_by_workers(num_workers: int) -> None:
    rows = Rows(ReadBy(list(range(90))), "table", CPU, num_workers)
    groups = torch.randperm(90).split(7)
    state = torch.get_rng_state()
    streamed = list(rows.stream(groups))
    assert torch.equal(torch.get_rng_state(), state)
    for x, idx in zip(streamed, groups, strict=True):
        assert x[:, 0].tolist() == idx.tolist()
    readers = {int(pid) for pid in torch.cat(streamed)[:, 1]}
    assert len(readers) == max(1, num_workers)
    assert (os.getpid() in readers) == (not num_workers)


def test_stream__a_dataset_that_draws__draws_anew_in_each_pass() -> None:
    rows = Rows(Drawn([0] * 8), "table", CPU, 2)
    first = torch.cat(list(rows.stream(torch.randperm(8).split(2))))
    again = torch.cat(list(rows.stream(torch.randperm(8).split(2))))
    assert len(torch.unique(torch.cat([first, again]))) == 48


@pytest.mark.parametrize(
    ("shape", "layout"), [((224, 224, 3), "HWC"), ((3, 224, 224), "CHW"), ((150_528,), "table")]
)
def test_large_rows__few_of_them_are_dense_at_once(shape: tuple[int, ...], layout: str) -> None:
    rows = Rows(np.broadcast_to(np.uint8(0), (10_000, *shape)), layout, CPU)
    for n in (rows.inference_batch, rows.at_once(8192)):
        assert n * np.prod(shape) * 4 <= 2**27 < (n + 1) * np.prod(shape) * 4


def test_dataset_labels_are_found_in_attributes_or_pairs() -> None:
    X, y = torch.as_tensor(table(4)), np.array([3, 1, 1, 2])
    plain = PairDataset(X.numpy(), y)
    assert dataset_labels(plain).tolist() == y.tolist()  # type: ignore[union-attr]
    plain.targets = [0, 0, 0, 1]  # type: ignore[attr-defined]
    assert dataset_labels(plain).tolist() == [0, 0, 0, 1]  # type: ignore[union-attr]
    assert dataset_labels(TensorDataset(X, torch.as_tensor(y))).tolist() == y.tolist()  # type: ignore[union-attr]


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


def test_extremes__finite__passes() -> None:
    low, high = extremes(Rows(table(), "table", CPU))
    assert (low, high) == (0, 29)
    check_finite(low, high)


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
    "list of sparse rows": (
        lambda A: [csr_array(row.reshape(1, -1)) for row in A],
        "dense.*vstack",
    ),
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
    "frame of text": (lambda A: pd.DataFrame({0: ["a"] * len(A)}), "be rows of numbers.*Write"),
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
