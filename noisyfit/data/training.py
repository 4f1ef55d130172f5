"""The training rows with their given labels, in shuffled batches of views."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from noisyfit.data.rows import Rows
from noisyfit.data.views import Augment, NoAugment
from noisyfit.exceptions import warn
from noisyfit.nn.beliefs import one_hot

GPU_CHUNK = 8192  # rows augmented at once on a GPU, where kernel launches are what costs
LARGEST_META_SET = 1000
SMALLEST_META_SET = 50  # rows


@dataclass
class TrainingData:
    """Rows, given labels and trust, served as shuffled batches of views on the device.

    Parameters
    ----------
    rows : Rows
        All rows of X.
    labels : Tensor of shape (n_samples,)
        Codes 0..K-1 of the given labels, -1 for a row without a label.
    trusted : Tensor of shape (n_samples,)
        True if the label is known to be right.
    n_classes : int
    batch_size : int
    augment : Augment
        Makes the weak and strong views.
    index : Tensor of shape (n_samples,) or None
        Indices of the rows of X that take part; None means all.
    meta : TrainingData or None
        Rows with labels known to be right, for methods that learn from them.
    weights : Tensor of shape (n_samples,) or None
        Weight of each row in the loss, 1 on average; None means equal weights.
    given : Tensor of shape (n_samples, n_classes) or None
        The distribution that each label stands for, if labels are soft; ``labels`` has the most
        probable class of each. None means that each label is one class.
    votes : Tensor of shape (n_samples, n_annotators) or None
        Codes of what each annotator said, -1 for nothing.
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
    given: Tensor | None = None
    votes: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        """Device of the batches."""
        return self.rows.device

    @property
    def has_label(self) -> Tensor:
        """(n,) boolean."""
        return self.labels >= 0

    def take(self, idx: Tensor) -> Tensor:
        """Return rows ``idx`` of the training data."""
        return self.rows.take(self._places(idx))

    def stream(self, groups: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield `take` of each group of rows."""
        return self.rows.stream([self._places(idx) for idx in groups])

    def _places(self, idx: Tensor) -> Tensor:
        """Return where rows of the training data are in X."""
        return idx if self.index is None else self.index[idx]

    def subset(self, idx: Tensor) -> TrainingData:
        """Return rows ``idx`` as separate data."""
        return replace(
            self,
            labels=self.labels[idx],
            trusted=self.trusted[idx],
            weights=None if self.weights is None else self.weights[idx],
            given=None if self.given is None else self.given[idx],
            votes=None if self.votes is None else self.votes[idx],
            index=idx if self.index is None else self.index[idx],
        )

    def targets(self, idx: Tensor | slice = slice(None)) -> Tensor:
        """Return what cross-entropy learns from rows: their labels, or their distributions."""
        return (self.labels if self.given is None else self.given)[idx]

    def distributions(self, idx: Tensor | slice = slice(None)) -> Tensor:
        """Return `targets` as distributions, (n_samples, n_classes); zeros without a label."""
        if self.given is not None:
            return self.given[idx]
        return one_hot(self.labels[idx], self.n_classes)

    def weighed(self, values: Tensor, idx: Tensor) -> Tensor:
        """Return values (B, ...) of rows ``idx``, each multiplied by the weight of its row."""
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
            A fresh view of the same rows each; no name means one weak view.
        labelled : bool, default=False
            Leave out rows without a label.
        """
        pool = self.has_label.nonzero()[:, 0] if labelled else None
        n = len(self) if pool is None else len(pool)
        order = torch.randperm(n, device=self.device)
        order = order if pool is None else pool[order]
        chunks = list(self._chunks(n))
        groups = [order[start:stop] for start, stop, _ in chunks]
        for (_, _, bounds), chunk, x in zip(chunks, groups, self.stream(groups), strict=True):
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
            batches = self.rows.in_order()
        else:
            batches = self.rows.stream(self.index.split(self.rows.inference_batch))
        for x in batches:
            yield self.view(x, view)

    def _chunks(self, n: int) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
        """Group batches so that augmentation sees large chunks on a GPU, elsewhere one batch.

        So it does of a Dataset: a GPU need not wait for more rows than the next step takes.
        """
        is_large = self.device.type == "cuda" and not self.rows.is_dataset
        per_chunk = max(1, self.rows.at_once(GPU_CHUNK) // self.batch_size) if is_large else 1
        batches = batch_bounds(n, self.batch_size)
        for i in range(0, len(batches), per_chunk):
            group = batches[i : i + per_chunk]
            start, stop = group[0][0], group[-1][1]
            yield start, stop, [(a - start, b - start) for a, b in group]


def batch_bounds(n: int, batch_size: int) -> list[tuple[int, int]]:
    """Cut ``range(n)`` into batches; a single remaining row joins the previous batch.

    >>> batch_bounds(129, 64)
    [(0, 64), (64, 129)]
    """
    starts = list(range(0, n, batch_size))
    if len(starts) > 1 and n - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], n][: len(starts)], strict=True))


def draw_meta_rows(n: int) -> Tensor:
    """Draw the rows that judge a method without known labels: half, at most 1,000."""
    return torch.randperm(n)[: min(LARGEST_META_SET, n // 2)].sort().values


def draw_evenly(rating: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """Return the rows that judge a method by their labels: half, at most 1,000, from all classes.

    The classes take turns, each with its highest-rated row, until there are enough rows. A class
    drops out when half of its rows are taken, so that the other half remains to learn from.

    Parameters
    ----------
    rating : Tensor of shape (n_samples,)
        Random numbers give a random draw.
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
    """Warn about a meta set that is too small."""
    if len(meta) < SMALLEST_META_SET:
        warn(
            f"A meta set should have at least {SMALLEST_META_SET} rows. Got {len(meta)}: what is "
            "learned from it is mostly noise. Use more rows, or CrossEntropyClassifier."
        )


def best_of_each_class(rating: Tensor, labels: Tensor, share: float, n_classes: int) -> Tensor:
    """Return the highest-rated rows, the same share of every class, rounded up.

    Parameters
    ----------
    rating : Tensor of shape (n_samples,)
    labels : Tensor of shape (n_samples,)
        Rows with -1 are left out.
    share : float in [0, 1]
    n_classes : int
    """
    codes = labels + 1  # 0 for none
    rows = rating.argsort(descending=True)
    rows = rows[codes[rows].argsort(stable=True)]  # class by class
    n_rows = codes.bincount(minlength=n_classes + 1)
    first = n_rows.cumsum(0) - n_rows
    place = torch.arange(len(rows), device=rows.device) - first[codes[rows]]
    n_kept = (share * n_rows.double()).ceil()
    n_kept[0] = 0
    return rows[place < n_kept[codes[rows]]]


def scaled_weights(weights: np.ndarray[Any, Any] | None, data: TrainingData) -> Tensor | None:
    """Return the weights of the training rows, 1 on average over those with a label.

    None if all are equal, so that the loss is exactly the plain mean.

    Parameters
    ----------
    weights : float64 ndarray or None
        One weight for each row of X.
    data : TrainingData
        The rows that take part.

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
