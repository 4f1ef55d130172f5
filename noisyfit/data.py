"""Rows on the device, sliced by index: no loader stands between the data and the network."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.masked import MaskedTensor
from torch.utils.data import Dataset

from noisyfit.exceptions import NoisyFitWarning
from noisyfit.validation import as_column, checked_value_range

CHANNEL_COUNTS = (1, 3, 4)
GPU_CHUNK = 8192  # rows augmented at once on a GPU, where kernel launches are what costs
COMPLEX = "X must be real. Complex data not supported. Pass X.real or abs(X)."
INFERENCE_BATCH = {"table": 4096, "image": 512}
KNOWN_RANGES = ((0.0, 1.0), (0.0, 255.0))
LARGEST_META_SET = 1000
OTHER_SCALE = 10  # times what the training images showed
OVERSHOOT = 0.25  # of the width; sharpening and bicubic interpolation leave the scale by less
SMALLEST_META_SET = 50  # rows
RESIDENT_FRACTION = 0.5  # of the free GPU memory that the rows may take
WORDS_OF_NUMPY = ("could not convert", "float() argument", "setting an array", "can't convert")
VIEWABLE = tuple(np.dtype(code) for code in "?bhilqBHILQefd")  # dtypes that torch has as well


class Augment(Protocol):
    """What ``TrainingData`` asks of an augmentation."""

    def weak(self, x: Tensor) -> Tensor:
        """Return a lightly changed copy of every row."""

    def strong(self, x: Tensor) -> Tensor:
        """Return a heavily changed copy of every row."""


@dataclass(frozen=True)
class CallableAugment:
    """A user's function as the view of both strengths."""

    function: Callable[[Tensor], Tensor]

    def weak(self, x: Tensor) -> Tensor:
        """Return ``function(x)``, if it is a changed copy of the rows."""
        writes = x._version
        view = self.function(x)
        if x._version != writes:
            raise self._refusal(
                "one that writes into the batch it is given", "Let it begin with x = x.clone()."
            )
        if not isinstance(view, Tensor):
            raise self._refusal(f"a {type(view).__name__}", "Let it return torch.as_tensor(...).")
        if view.shape != x.shape or view.device != x.device or view.is_complex():
            got = f"{view.dtype} of shape {tuple(view.shape)} on {view.device}"
            raise self._refusal(got, f"The batch was {tuple(x.shape)} on {x.device}.")
        return view

    strong = weak

    def _refusal(self, got: str, remedy: str) -> ValueError:
        return ValueError(
            "augmentation must return a changed copy of its batch: a real tensor of the same shape "
            f"on the same device. Got {got} from {self.function!r}. {remedy}"
        )


@dataclass(frozen=True)
class NoAugment:
    """Every view is the row itself."""

    def weak(self, x: Tensor) -> Tensor:
        """Return x."""
        return x

    strong = weak


def image_layout(shape: tuple[int, ...], requested: str = "auto") -> str:
    """Name the axes of one row: ``"table"``, ``"HW"``, ``"HWC"`` or ``"CHW"``.

    Parameters
    ----------
    shape : tuple of int
        Shape of X, rows first.
    requested : {"auto", "HW", "HWC", "CHW"}
        The user's word; ``"auto"`` looks for an axis of 1, 3 or 4 channels.

    Raises
    ------
    ValueError
        If the shape is no table and no image, or could be read in two ways.
    """
    if len(shape) == 2:
        return "table"
    if len(shape) not in (3, 4):
        raise ValueError(
            "X must be a table (n_samples, n_features) or images (n, H, W), (n, H, W, C) or "
            f"(n, C, H, W). Got shape {shape}. Reshape it, for example X.reshape(len(X), -1)."
        )
    if len(shape) == 3:
        if requested not in ("auto", "HW"):
            raise ValueError(
                f"image_layout={requested!r} needs 4 axes. Got shape {shape}. Add a channel axis."
            )
        return "HW"
    if requested in ("HWC", "CHW"):
        return requested
    if requested == "HW":
        raise ValueError(f"image_layout='HW' needs 3 axes (n, H, W). Got shape {shape}. Use 'HWC'.")
    first, last = shape[1] in CHANNEL_COUNTS, shape[3] in CHANNEL_COUNTS
    if first == last:
        how = "both the first and the last" if first else "neither the first nor the last"
        raise ValueError(
            f"Images must have one axis of 1, 3 or 4 channels. Got shape {shape}, where {how} "
            'could be it. Pass image_layout="HWC" or image_layout="CHW".'
        )
    return "CHW" if first else "HWC"


class Rows:
    """The rows of X, wherever they live, as tensors on one device.

    Arrays and memmaps are viewed, never copied whole, unless the device is a GPU with room for
    them; what torch cannot view stays with numpy and is converted slice by slice. Images keep their
    dtype until the network's input layer.

    Parameters
    ----------
    X : ndarray, memmap, Tensor or torch Dataset
        Rows first. A Dataset yields ``x`` or ``(x, y)``.
    layout : str
        As named by `image_layout`.
    device : torch.device
        Where `take` puts the rows.
    """

    def __init__(self, X: Any, layout: str, device: torch.device) -> None:
        self.layout = layout
        self.device = device
        self.source = X if isinstance(X, Dataset) else _as_source(X, device)

    def __len__(self) -> int:
        return len(self.source)  # type: ignore[arg-type]

    def take(self, idx: Tensor) -> Tensor:
        """Return rows ``idx`` as (B, d) float32 or (B, C, H, W) of the source's dtype."""
        if isinstance(self.source, Tensor):
            x = self.source.index_select(0, idx.to(self.source.device))
        elif isinstance(self.source, np.ndarray):
            x = as_tensor(self.source[idx.cpu().numpy()])
        else:
            x = _stacked([dataset_row(self.source, int(i)) for i in idx.cpu()])
        return self._arrange(x)

    def in_order(self, view: str = "plain") -> Iterator[Tensor]:
        """Yield all rows in batches for inference; a bare table has no other view."""
        size = self.inference_batch
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            if isinstance(self.source, Dataset):
                yield self.take(torch.arange(start, stop))
            else:
                yield self._arrange(as_tensor(self.source[start:stop]).contiguous())

    @property
    def is_bytes(self) -> bool:
        """Whether the source holds uint8, which is finite and on the scale 0 to 255."""
        first = dataset_row(self.source, 0) if isinstance(self.source, Dataset) else self.source
        return first.dtype in (torch.uint8, np.uint8)

    @property
    def inference_batch(self) -> int:
        """Rows a forward pass without gradients takes at once."""
        return INFERENCE_BATCH["table" if self.layout == "table" else "image"]

    @property
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
    """Return what `Rows` and scikit-learn can read: lists and masked arrays as plain arrays.

    Raises
    ------
    ValueError, TypeError
        If an entry is masked, the rows differ in shape, or X is sparse or no numbers.
    """
    if isinstance(X, list | tuple) or (isinstance(X, np.ndarray) and _is_array_of_rows(X)):
        X = _as_one_array(list(X))
    if isinstance(X, Tensor):
        _check_tensor(X)
        return X.detach()
    if isinstance(X, np.ma.MaskedArray):
        X = _unmasked(X)
    if hasattr(X, "toarray") and hasattr(X, "nnz"):
        raise TypeError(
            f"X must be dense. Got a sparse {type(X).__name__} of shape {X.shape}. Have it dense "
            "where it is made, as by OneHotEncoder(sparse_output=False), make fewer columns, as by "
            "TruncatedSVD, or put FunctionTransformer(lambda X: X.toarray(), accept_sparse=True) "
            "before this step."
        )
    is_frame = hasattr(X, "columns")
    for dtype in X.dtypes if is_frame else [getattr(X, "dtype", None)]:
        _check_numbers(dtype, isinstance(X, np.memmap))
    return X


@contextmanager
def entries_as_numbers() -> Iterator[None]:
    """Say in our words what numpy says of an entry that it cannot convert."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if not str(error).startswith(WORDS_OF_NUMPY):
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(
            f"X must hold numbers. Got an entry that is none ({error}). Encode or drop it."
        ) from error


def as_tensor(array: Any) -> Tensor:
    """Return a tensor or array as a tensor: the view that torch can have of it, else a copy."""
    array = unwrapped(array)
    if isinstance(array, Tensor):
        return array
    array = np.asarray(array)
    if not _is_viewable(array):
        dtype = array.dtype.newbyteorder("=")
        with entries_as_numbers():
            array = np.array(array, dtype if dtype in VIEWABLE else np.float32, order="C")
    with warnings.catch_warnings():  # read-only arrays are only ever read
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.as_tensor(array)


def dataset_row(dataset: Dataset[Any], i: int) -> Tensor:
    """Return x of row ``i`` of a Dataset of ``x`` or ``(x, y)``."""
    row = dataset[i]
    return as_tensor(row[0] if isinstance(row, tuple | list) else row)


def check_row_shape(shape: tuple[int, ...], fitted: tuple[int, ...]) -> None:
    """Refuse rows of another shape than those of fit."""
    if shape[1:] != fitted:
        raise ValueError(
            f"X must have rows of shape {fitted}, as in fit. Got shape {shape}. Resize, crop or "
            "reshape them."
        )


def shape_of(X: Any) -> tuple[int, ...]:
    """Return the shape of an array, or that of a Dataset's rows stacked."""
    if not isinstance(X, Dataset):
        return tuple(np.shape(X))
    return (len(X), *dataset_row(X, 0).shape) if len(X) else (0,)  # type: ignore[arg-type]


def dataset_labels(dataset: Dataset[Any]) -> np.ndarray[Any, Any] | None:
    """Return the labels of a Dataset: its ``targets`` or ``y``, else the second of every pair."""
    for name in ("targets", "y", "labels"):
        if hasattr(dataset, name):
            return as_column(getattr(dataset, name))
    if not isinstance(dataset[0], tuple | list):
        return None
    return as_column([np.asarray(dataset[i][1])[()] for i in range(len(dataset))])  # type: ignore[arg-type]


def _as_source(X: Any, device: torch.device) -> Any:
    """Return X as a tensor, on a GPU where it has room, or as it is where torch cannot view it."""
    source = X if isinstance(X, np.ndarray) and not _is_viewable(X) else as_tensor(X)
    if device.type != "cuda" or isinstance(X, np.memmap):
        return source
    free, _ = torch.cuda.mem_get_info(device)
    if source.nbytes > RESIDENT_FRACTION * free:
        return source
    return as_tensor(source).to(device)


def _is_viewable(array: np.ndarray[Any, Any]) -> bool:
    """Whether torch can have a view of the array: byte order, alignment and strides are plain."""
    steps = all(step >= 0 and step % array.itemsize == 0 for step in array.strides)
    return array.dtype in VIEWABLE and array.flags.aligned and steps


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
    rows = [unwrapped(row) for row in rows]
    if all(isinstance(row, Tensor) for row in rows):
        return _stacked(rows)
    rows = [np.asarray(row) for row in rows]
    _check_one_shape(rows)
    return np.stack(rows)


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
        raise TypeError(f"X must hold numbers. Got dtype {dtype}. Convert it to numbers.")


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
    """What one pass over the rows tells; (d,) for tables, (C, 1, 1) for images."""

    mean: Tensor
    std: Tensor
    low: float
    high: float


def scan(rows: Rows) -> Statistics:
    """Scan the rows once, in slices, with sums in float64; near-constant columns get std 1."""
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
    std = variance.sqrt()
    smallest = (1e-6 * mean.abs()).clamp(min=torch.finfo(torch.float32).tiny)
    std = torch.where(std > smallest, std, torch.ones_like(std))
    shape = (-1,) if rows.layout == "table" else (-1, 1, 1)
    mean, std = (t.reshape(shape).float().cpu() for t in (mean, std))
    return Statistics(mean, std, low, high)


def extremes(rows: Rows) -> tuple[float, float]:
    """Return the smallest and the largest value; NaN if there is one."""
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


def check_finite(low: float, high: float) -> None:
    """Refuse NaN and infinity in X."""
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(
            f"X must be finite. Input X contains NaN or infinity (range {low} to {high}). "
            "Impute or drop those rows."
        )


def find_value_range(rows: Rows, low: float, high: float, given: Any) -> tuple[float, float]:
    """Return the scale of images from ``low`` to ``high``: what the user says, else a guess.

    Bytes are on 0 to 255. Floats are on 0 to 1 or 0 to 255 if they do not leave it, but for an
    overshoot at the bright end or at both; otherwise their scale is what they show.
    """
    if given is not None:
        found = _checked_value_range(given, rows)
        check_value_range(found, low, high, closed=True)
        return found
    if rows.is_bytes:
        return KNOWN_RANGES[-1]
    for black, white in KNOWN_RANGES:
        slack = OVERSHOOT * (white - black)
        overshoots = black - slack <= low and white < high
        if (black <= low or overshoots) and high <= white + slack:
            return black, white
    return low, high if low < high else low + 1


def _checked_value_range(given: Any, rows: Rows) -> tuple[float, float]:
    low, high = checked_value_range(given)
    if rows.is_bytes and (low, high) != KNOWN_RANGES[-1]:
        raise ValueError(
            f"Images of uint8 must have value_range (0, 255) or None. Got {given!r}. Convert them "
            "to float32 to have them on another scale."
        )
    return low, high


def check_value_range(
    fitted: tuple[float, float], low: float, high: float, *, closed: bool
) -> None:
    """Refuse images outside the scale of fit, and warn of such as are almost black on it.

    Parameters
    ----------
    fitted : tuple of float
        Scale of fit.
    low, high : float
        The smallest and the largest value.
    closed : bool
        Whether the scale is known, so that only an overshoot leaves it; otherwise it is what the
        training images showed.
    """
    black, white = fitted
    width = white - black
    slack = OVERSHOOT * width if closed else OTHER_SCALE * max(abs(black), abs(white))
    if low < black - slack or high > white + slack:
        raise ValueError(
            f"Images must be on the scale of fit, {black:g} to {white:g}. Got values from {low:g} "
            f"to {high:g}. Rescale them, or fit with the value_range of all images."
        )
    if black < high <= black + width / 255:
        warnings.warn(
            f"Images should fill the scale of fit, {black:g} to {white:g}. Got values from {low:g} "
            f"to {high:g}, almost black. Rescale them if they are on another scale.",
            NoisyFitWarning,
            stacklevel=5,
        )


def batch_bounds(n: int, batch_size: int) -> list[tuple[int, int]]:
    """Cut ``range(n)`` into batches; a rest of one row joins the previous batch.

    >>> batch_bounds(129, 64)
    [(0, 64), (64, 129)]
    """
    starts = list(range(0, n, batch_size))
    if len(starts) > 1 and n - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], n][: len(starts)], strict=True))


def draw_meta_rows(n: int) -> Tensor:
    """Draw the rows that judge a method where no labels are known: half, at most 1,000."""
    return torch.randperm(n)[: min(LARGEST_META_SET, n // 2)].sort().values


def draw_evenly(rating: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """Return the rows that judge a method by their labels: half, at most 1,000, from all classes.

    The classes take turns, each with its row of the highest rating, until enough rows are found. A
    class drops out when half of its rows are taken: the other half is there to learn from.

    Parameters
    ----------
    rating : Tensor of shape (n_samples,)
        Random numbers make a random draw.
    labels : Tensor of shape (n_samples,)
        Rows with -1 are left out.
    n_classes : int
    """
    turns, found = [], []
    for code in range(n_classes):
        rows = (labels == code).nonzero()[:, 0]
        best = rating[rows].argsort(descending=True, stable=True)[: len(rows) // 2]
        found.append(rows[best])
        turns.append(torch.arange(len(best), device=rows.device))
    in_turn = torch.cat(found)[torch.cat(turns).argsort(stable=True)]
    return in_turn[: min(LARGEST_META_SET, len(labels) // 2)].sort().values


def check_meta_set(meta: TrainingData) -> None:
    """Warn of a meta set that is too small."""
    if len(meta) < SMALLEST_META_SET:
        warnings.warn(
            f"A meta set should have at least {SMALLEST_META_SET} rows. Got {len(meta)}: what is "
            "learned from it is mostly noise. Use more rows, or CrossEntropyClassifier.",
            NoisyFitWarning,
            stacklevel=6,
        )


def best_of_each_class(rating: Tensor, labels: Tensor, share: float, n_classes: int) -> Tensor:
    """Return the rows of the highest rating, the same share of every class, rounded up.

    Parameters
    ----------
    rating : Tensor of shape (n_samples,)
    labels : Tensor of shape (n_samples,)
        Rows with -1 are left out.
    share : float in [0, 1]
    n_classes : int
    """
    kept = []
    for code in range(n_classes):
        rows = (labels == code).nonzero()[:, 0]
        best = rating[rows].argsort(descending=True)
        kept.append(rows[best[: ceil(share * len(rows))]])
    return torch.cat(kept)


def scaled_weights(weights: np.ndarray[Any, Any] | None, data: TrainingData) -> Tensor | None:
    """Return the weights of the training rows, 1 on average over those with a label.

    None where all are equal, so that the loss is the plain mean to the bit.

    Parameters
    ----------
    weights : float64 ndarray or None
        One for each row of X.
    data : TrainingData
        Which rows take part.

    Raises
    ------
    ValueError
        If no row is left to learn from.
    """
    if weights is None:
        return None
    own = torch.as_tensor(weights)
    own = own if data.index is None else own[data.index.cpu()]
    labelled = own[data.has_label.cpu()]
    if not labelled.any():
        raise ValueError(
            "sample_weight must not be zero for all rows that are learned from, which have a label "
            f"and are not held out. Got zero for all {len(labelled)}. Weigh some of them."
        )
    if (labelled == labelled[0]).all():
        return None
    return (own / labelled.mean()).float().to(data.device)


@dataclass
class TrainingData:
    """Rows, given labels and trust, served as shuffled batches of views on the device.

    Parameters
    ----------
    rows : Rows
        All rows of X.
    labels : Tensor of shape (n_samples,)
        Codes 0..K-1 of the given labels, -1 where there is none.
    trusted : Tensor of shape (n_samples,)
        True where the label is known to be right.
    n_classes : int
    batch_size : int
    augment : Augment
        Makes the weak and strong views.
    index : Tensor of shape (n_samples,) or None
        Row numbers of X that take part; None means all.
    meta : TrainingData or None
        Rows with labels known to be right, for methods that learn from them.
    weights : Tensor of shape (n_samples,) or None
        What each row counts in the loss, 1 on average; None means all alike.
    """

    rows: Rows
    labels: Tensor
    trusted: Tensor
    n_classes: int
    batch_size: int
    augment: Augment = field(default_factory=NoAugment)
    index: Tensor | None = None
    meta: TrainingData | None = None
    weights: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        """Where the batches are."""
        return self.rows.device

    @property
    def has_label(self) -> Tensor:
        """(n,) boolean."""
        return self.labels >= 0

    def take(self, idx: Tensor) -> Tensor:
        """Return rows ``idx`` of the training data."""
        return self.rows.take(idx if self.index is None else self.index[idx])

    def subset(self, idx: Tensor) -> TrainingData:
        """Return rows ``idx`` as data of their own."""
        return replace(
            self,
            labels=self.labels[idx],
            trusted=self.trusted[idx],
            weights=None if self.weights is None else self.weights[idx],
            index=idx if self.index is None else self.index[idx],
        )

    def weighed(self, values: Tensor, idx: Tensor) -> Tensor:
        """Return values (B, ...) of rows ``idx``, each times the weight of its row."""
        if self.weights is None:
            return values
        return self.weights[idx].view(-1, *[1] * (values.ndim - 1)) * values

    def known(self) -> TrainingData | None:
        """Return the rows whose labels are known to be right, None if there are none."""
        if self.meta is not None or not self.trusted.any():
            return self.meta
        return self.subset(self.trusted.nonzero()[:, 0])

    def draw(self, n_rows: int, view: str = "weak") -> tuple[Tensor, Tensor]:
        """Return a view of random rows and their labels; all rows if there are fewer."""
        idx = torch.randperm(len(self), device=self.device)[:n_rows]
        return self.view(self.take(idx), view), self.labels[idx]

    def batches(self, *views: str, labelled: bool = False) -> Iterator[tuple[Tensor, ...]]:
        """Yield ``(idx, *views, labels)`` over all rows in a new random order.

        Parameters
        ----------
        *views : {"plain", "weak", "strong"}
            Each a fresh view of the same rows; none means one weak view.
        labelled : bool, default=False
            Leave rows without a label out.
        """
        pool = self.has_label.nonzero()[:, 0] if labelled else None
        n = len(self) if pool is None else len(pool)
        order = torch.randperm(n, device=self.device)
        order = order if pool is None else pool[order]
        for start, stop, bounds in self._chunks(n):
            chunk = order[start:stop]
            x = self.take(chunk)
            seen = [self.view(x, name) for name in views or ("weak",)]
            labels = self.labels.index_select(0, chunk)
            for a, b in bounds:
                yield chunk[a:b], *(v[a:b] for v in seen), labels[a:b]

    def view(self, x: Tensor, name: str) -> Tensor:
        """Return the named view of a batch."""
        return x if name == "plain" else getattr(self.augment, name)(x)

    def in_order(self, view: str = "plain") -> Iterator[Tensor]:
        """Yield one view of all rows, in order, in batches for inference."""
        if self.index is None:
            for x in self.rows.in_order():
                yield self.view(x, view)
        else:
            size = INFERENCE_BATCH["table" if self.rows.layout == "table" else "image"]
            for idx in torch.arange(len(self), device=self.device).split(size):
                yield self.view(self.take(idx), view)

    def _chunks(self, n: int) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
        """Group batches so that augmentation sees large chunks on a GPU, one batch on a CPU."""
        per_chunk = max(1, GPU_CHUNK // self.batch_size) if self.device.type == "cuda" else 1
        batches = batch_bounds(n, self.batch_size)
        for i in range(0, len(batches), per_chunk):
            group = batches[i : i + per_chunk]
            start, stop = group[0][0], group[-1][1]
            yield start, stop, [(a - start, b - start) for a, b in group]
