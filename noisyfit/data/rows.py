"""Rows on the device, sliced by index, with no loader between the data and the network."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse
from torch import Tensor
from torch.masked import MaskedTensor
from torch.utils.data import DataLoader, Dataset

from noisyfit.data.hints import TABLES, refuse_files_and_texts
from noisyfit.utils.validation import as_column, folder_files

COMPLEX = "X must be real. Complex data not supported. Pass X.real or abs(X)."
INFERENCE_BATCH = {"table": 4096, "image": 512}
LARGEST_BLOCK = 2**25  # entries of rows made dense, or changed, at once: 128 MiB in float32
RESIDENT_FRACTION = 0.5  # of the free GPU memory that the rows may take
WORDS_OF_NUMPY = ("could not convert", "float() argument", "setting an array", "can't convert")
VIEWABLE = tuple(np.dtype(code) for code in "?bhilqBHILQefd")  # dtypes that torch has as well


class Rows:
    """The rows of X, wherever they are stored, as tensors on one device.

    Arrays and memmaps are viewed, never copied whole, unless the device is a GPU with room for
    them; where torch cannot view them, they stay with numpy and are converted slice by slice.
    Images keep their dtype until the network's input layer. A sparse table stays sparse: what is
    taken of it becomes dense on the device.

    Parameters
    ----------
    X : ndarray, memmap, Tensor, CSR matrix or torch Dataset
        Rows first. A Dataset yields ``x`` or ``(x, y)``.
    layout : str
        As named by `image_layout`.
    device : torch.device
        Where `take` puts the rows.
    num_workers : int >= 0
        Processes that read the rows of a Dataset ahead; with none they are read when needed.
    """

    def __init__(self, X: Any, layout: str, device: torch.device, num_workers: int = 0) -> None:
        self.layout = layout
        self.device = device
        self.num_workers = num_workers
        self.source: Any = X if isinstance(X, Dataset) else _as_source(X, device)

    def __len__(self) -> int:
        return self.source.shape[0] if self.is_sparse else len(self.source)

    def take(self, idx: Tensor) -> Tensor:
        """Return rows ``idx`` as (B, d) float32 or (B, C, H, W) of the source's dtype."""
        if isinstance(self.source, Tensor):
            x = self.source.index_select(0, idx.to(self.source.device))
        elif isinstance(self.source, np.ndarray):
            x = as_tensor(self.source[idx.cpu().numpy()])
        elif self.is_sparse:
            x = _dense(self.source[idx.cpu().numpy()], self.device)
        else:
            x = _stacked_rows([self.source[i] for i in idx.tolist()])
        return self._arrange(x)

    def stream(self, groups: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield `take` of each group of indices; workers read those of a Dataset ahead."""
        if not self.num_workers or not self.is_dataset:
            yield from map(self.take, groups)
            return
        loader = DataLoader(
            self.source,
            batch_sampler=[idx.tolist() for idx in groups],
            num_workers=self.num_workers,
            collate_fn=_stacked_rows,
            pin_memory=self.device.type == "cuda",
            generator=_generator_aside(self.device),
        )
        yield from map(self._arrange, loader)

    def in_order(self, view: str = "plain") -> Iterator[Tensor]:
        """Yield all rows in batches for inference; a bare table has no other view."""
        size = self.inference_batch
        if self.is_dataset or self.is_sparse:
            yield from self.stream(torch.arange(len(self)).split(size))
            return
        for start in range(0, len(self), size):
            yield self._arrange(as_tensor(self.source[start : start + size]).contiguous())

    @property
    def is_dataset(self) -> bool:
        """Whether the source is a Dataset, whose rows are read one by one."""
        return isinstance(self.source, Dataset)

    @property
    def is_sparse(self) -> bool:
        """Whether the source is a sparse matrix."""
        return bool(issparse(self.source))

    @property
    def is_bytes(self) -> bool:
        """Whether the source is uint8, which is finite and on the scale 0 to 255."""
        first = dataset_row(self.source, 0) if self.is_dataset else self.source
        return first.dtype in (torch.uint8, np.uint8)

    @property
    def inference_batch(self) -> int:
        """Number of rows in a forward pass without gradients."""
        return self.at_once(INFERENCE_BATCH["table" if self.layout == "table" else "image"])

    def at_once(self, n_rows: int) -> int:
        """Return ``n_rows``, or as many large rows as may be dense at once."""
        return min(n_rows, max(1, LARGEST_BLOCK // prod(self.row_shape)))

    @cached_property
    def row_shape(self) -> tuple[int, ...]:
        """(d,) or (C, H, W)."""
        return tuple(self.take(torch.zeros(1, dtype=torch.long)).shape[1:])

    def _arrange(self, x: Tensor) -> Tensor:
        x = x.to(self.device, non_blocking=True)
        if x.dtype != torch.uint8 or self.layout == "table":
            x = x.float()
        if self.layout == "HW":
            return x.unsqueeze(1)
        if self.layout == "HWC":
            return x.permute(0, 3, 1, 2)  # contiguous rows seen channels first = channels_last
        return x


def unwrapped(X: Any) -> Any:
    """Convert lists, masked arrays and sparse matrices to what `Rows` and scikit-learn can read.

    Raises
    ------
    ValueError, TypeError
        If an entry is masked, the rows differ in shape, or X is not numeric or a path.
    """
    refuse_files_and_texts(X)
    return _unwrapped(X)


def _unwrapped(X: Any) -> Any:
    if isinstance(X, list | tuple) or (isinstance(X, np.ndarray) and _is_array_of_rows(X)):
        X = _as_one_array(list(X))
    if isinstance(X, Tensor):
        _check_tensor(X)
        return X.detach()
    if isinstance(X, np.ma.MaskedArray):
        X = _unmasked(X)
    if issparse(X):
        X = _compressed(X)
    is_frame = hasattr(X, "columns")
    for dtype in X.dtypes if is_frame else [getattr(X, "dtype", None)]:
        _check_numbers(dtype, isinstance(X, np.memmap))
    return X


@contextmanager
def entries_as_numbers() -> Iterator[None]:
    """Replace numpy's error about an entry that it cannot convert with our own."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if not str(error).startswith(WORDS_OF_NUMPY):
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(
            f"X must hold numbers. Got an entry that is none ({error}). Encode it, as {TABLES} "
            "does for text, categories and gaps, or drop it."
        ) from error


def as_tensor(array: Any) -> Tensor:
    """Return a tensor or array as a tensor: a view if torch can have one, else a copy."""
    array = _unwrapped(array)
    if isinstance(array, Tensor):
        return array
    array = _as_array(array)
    if not _is_viewable(array):
        dtype = array.dtype.newbyteorder("=")
        with entries_as_numbers():
            array = np.array(array, dtype if dtype in VIEWABLE else np.float32, order="C")
    with warnings.catch_warnings():  # read-only arrays are only ever read
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.as_tensor(array)


def dataset_row(dataset: Dataset[Any], i: int) -> Tensor:
    """Return x of row ``i`` of a Dataset of ``x`` or ``(x, y)``."""
    return _x_of(dataset[i])


def _x_of(row: Any) -> Tensor:
    return as_tensor(row[0] if isinstance(row, tuple | list) else row)


def _stacked_rows(rows: list[Any]) -> Tensor:
    return _stacked([_x_of(row) for row in rows])


def _generator_aside(device: torch.device) -> torch.Generator:
    """Return a generator for workers that follows from the device's own, which stays as it is.

    So a fit does not depend on the number of workers, unless the Dataset itself draws.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        seed = int(torch.randint(2**62, (), device=device))
    return torch.Generator().manual_seed(seed)


def shape_of(X: Any) -> tuple[int, ...]:
    """Return the shape of an array, or that of a Dataset's rows stacked."""
    if not isinstance(X, Dataset):
        return tuple(np.shape(X))
    return (len(X), *dataset_row(X, 0).shape) if len(X) else (0,)  # type: ignore[arg-type]


def dataset_labels(dataset: Dataset[Any]) -> np.ndarray[Any, Any] | None:
    """Return a Dataset's labels: its ``targets`` or ``y``, else the second of every pair.

    Those of torchvision's ``ImageFolder`` are the names of its classes.
    """
    if folder_files(dataset) is not None:
        return np.array(dataset.classes)[np.asarray(dataset.targets)]  # type: ignore[attr-defined]
    for name in ("targets", "y", "labels"):
        if hasattr(dataset, name):
            return as_column(getattr(dataset, name))
    if not isinstance(dataset[0], tuple | list):
        return None
    return as_column([np.asarray(dataset[i][1])[()] for i in range(len(dataset))])  # type: ignore[arg-type]


def _as_source(X: Any, device: torch.device) -> Any:
    """Return X as a tensor, on a GPU with room for it, or as it is if torch cannot view it."""
    if issparse(X):
        return _canonical(X)
    source = X if isinstance(X, np.ndarray) and not _is_viewable(X) else as_tensor(X)
    if device.type != "cuda" or isinstance(X, np.memmap):
        return source
    free, _ = torch.cuda.mem_get_info(device)
    if source.nbytes > RESIDENT_FRACTION * free:
        return source
    return as_tensor(source).to(device)


def _is_viewable(array: np.ndarray[Any, Any]) -> bool:
    """Whether torch can view the array: its byte order, alignment and strides are plain."""
    steps = all(step >= 0 and step % array.itemsize == 0 for step in array.strides)
    return array.dtype in VIEWABLE and array.flags.aligned and steps


def _compressed(X: Any) -> Any:
    """Return a sparse matrix as one of which rows can be taken."""
    if X.ndim != 2:
        raise ValueError(
            f"A sparse X must be a table (n_samples, n_features). Got shape {X.shape}. Reshape it, "
            "or pass X.toarray()."
        )
    return X.tocsr()


def _canonical(X: Any) -> Any:
    """Return a sparse matrix in which each entry is stored once; the user's stays as it is."""
    if not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    return X


def _dense(rows: Any, device: torch.device) -> Tensor:
    """Make sparse rows dense on the device: only what they store is moved."""
    stored = rows.tocoo()
    row, column, values = (
        torch.as_tensor(part).to(device) for part in (*stored.coords, stored.data)
    )
    dense = torch.zeros(rows.shape, dtype=values.dtype, device=device)
    dense[row, column] = values
    return dense


def _unmasked(X: np.ma.MaskedArray[Any, Any]) -> np.ndarray[Any, Any]:
    if np.ma.is_masked(X):
        raise ValueError(
            f"X must be complete. Got a masked array with {np.ma.count_masked(X)} masked entries. "
            "Impute or drop those rows."
        )
    return X.data


def _is_array_of_rows(X: np.ndarray[Any, Any]) -> bool:
    return X.dtype == object and X.ndim == 1


def _as_one_array(rows: list[Any]) -> Any:
    if not rows or np.isscalar(_first_leaf(rows)):
        return _as_array_of_numbers(rows)
    rows = [_unwrapped(row) for row in rows]
    if all(isinstance(row, Tensor) for row in rows):
        return _stacked(rows)
    rows = [_as_array(row) for row in rows]
    _check_one_shape(rows)
    return np.stack(rows)


def _as_array(row: Any) -> np.ndarray[Any, Any]:
    if issparse(row):
        raise TypeError(
            f"The rows of a list or a Dataset must be dense. Got a sparse {type(row).__name__}. "
            "Pass one matrix, scipy.sparse.vstack(rows)."
        )
    return np.asarray(row)


def _first_leaf(rows: Any) -> Any:
    while isinstance(rows, list | tuple) and rows:
        rows = rows[0]
    return rows


def _as_array_of_numbers(rows: Any) -> np.ndarray[Any, Any]:
    try:
        return np.asarray(rows)
    except ValueError as error:
        raise ValueError(
            f"X must have rows of one shape. Got rows of unequal parts ({error}). Pad or crop them."
        ) from error


def _stacked(rows: list[Tensor]) -> Tensor:
    _check_one_shape(rows)
    return torch.stack(rows)


def _check_one_shape(rows: list[Any]) -> None:
    shapes = {tuple(row.shape): None for row in rows}
    if len(shapes) > 1:
        first, second, *_ = shapes
        raise ValueError(
            f"X must have rows of one shape. Got rows of shape {first} and {second}. Resize, crop "
            "or pad them."
        )


def _check_numbers(dtype: Any, is_memmap: bool) -> None:
    kind = getattr(dtype, "kind", "")
    if kind == "c":
        raise ValueError(COMPLEX)
    is_time = kind in tuple("mM") or (hasattr(dtype, "is_temporal") and dtype.is_temporal())
    if is_time or kind == "V" or (is_memmap and kind in tuple("SU")):  # others may hold "1.5"
        raise TypeError(
            f"X must hold numbers. Got dtype {dtype}. Convert it to numbers, as {TABLES} does for "
            "dates."
        )


def _check_tensor(X: Tensor) -> None:
    if X.is_meta:
        raise ValueError(
            "X must hold numbers. Got a tensor on the meta device. Pass one with data."
        )
    if X.is_complex():
        raise ValueError(COMPLEX)
    if isinstance(X, MaskedTensor):
        raise ValueError("X must be complete. Got a MaskedTensor. Pass X.to_tensor(value).")
    if X.is_nested:
        raise ValueError("X must have rows of one shape. Got a nested tensor. Pad or crop them.")
    if X.layout != torch.strided:
        raise TypeError(f"X must be dense. Got a tensor of {X.layout}. Pass X.to_dense().")
    if X.is_quantized:
        raise TypeError(f"X must hold plain numbers. Got {X.dtype}. Pass X.dequantize().")


@dataclass(frozen=True)
class Statistics:
    """Results of one pass over the rows; (d,) for tables, (C, 1, 1) for images.

    The mean of a sparse table is given as zero, so that entries that are not stored stay zero.
    """

    mean: Tensor
    std: Tensor
    low: float
    high: float


def scan(rows: Rows) -> Statistics:
    """Scan the rows once, in slices, with sums in float64; near-constant columns get std 1."""
    if rows.is_sparse:
        return _scan_sparse(rows)
    total = square = torch.zeros((), dtype=torch.float64)
    count, low, high = 0, float("inf"), float("-inf")
    shift: Tensor | None = None
    for x in rows.in_order():
        x = x.double().transpose(0, 1).reshape(x.shape[1], -1) if x.ndim == 4 else x.double().T
        if shift is None:
            shift = x.mean(1, keepdim=True)  # keeps the difference of squares accurate
            total = square = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        total = total + (x - shift).sum(1)
        square = square + (x - shift).square().sum(1)
        count += x.shape[1]
        low, high = _widen(low, high, x)
    assert shift is not None
    offset = total / count
    mean = shift[:, 0] + offset
    variance = (square / count - offset.square()).clamp(min=0)
    std = _spread(mean, variance)
    shape = (-1,) if rows.layout == "table" else (-1, 1, 1)
    mean, std = (t.reshape(shape).float().cpu() for t in (mean, std))
    return Statistics(mean, std, low, high)


def _scan_sparse(rows: Rows) -> Statistics:
    from sklearn.utils.sparsefuncs import mean_variance_axis

    mean, variance = (
        torch.as_tensor(v, dtype=torch.float64) for v in mean_variance_axis(rows.source, axis=0)
    )
    return Statistics(torch.zeros(mean.shape), _spread(mean, variance).float(), *extremes(rows))


def _spread(mean: Tensor, variance: Tensor) -> Tensor:
    """Return the standard deviation, 1 where it is next to nothing."""
    std = variance.sqrt()
    smallest = (1e-6 * mean.abs()).clamp(min=torch.finfo(torch.float32).tiny)
    return torch.where(std > smallest, std, torch.ones_like(std))


def extremes(rows: Rows) -> tuple[float, float]:
    """Return the smallest and the largest value; NaN if the rows contain one."""
    if rows.is_sparse:
        return _widen(0.0, 0.0, torch.as_tensor(rows.source.data))
    low, high = float("inf"), float("-inf")
    for x in rows.in_order():
        low, high = _widen(low, high, x)
    return low, high


def _widen(low: float, high: float, x: Tensor) -> tuple[float, float]:
    if x.numel() == 0:
        return low, high
    smallest, largest = torch.aminmax(x)
    if smallest != smallest:  # NaN, which Python's min would lose
        return float("nan"), float("nan")
    return min(low, float(smallest)), max(high, float(largest))
