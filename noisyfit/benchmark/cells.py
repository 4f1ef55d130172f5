"""One cell of a grid: the rows and labels from which a method learns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from noisyfit import __version__, noise
from noisyfit.benchmark.contenders import CLEAN, make
from noisyfit.benchmark.sources import Source, load
from noisyfit.benchmark.table import one_line
from noisyfit.embedding import ImageEmbedder
from noisyfit.estimator.identity import fingerprint
from noisyfit.utils.devices import device_name
from noisyfit.utils.validation import take_rows

GIVEN = "given"  # the data's own noise
NO_VOTE = -1


@dataclass(frozen=True)
class Settings:
    """What all cells of a grid share.

    Parameters
    ----------
    rows, test_rows : int or None
        Maximum numbers of training and test rows.
    epochs : int or None
        None means each method's default.
    holdout : float in [0, 1)
        Fraction of the training rows held out from all methods, to choose an epoch on.
    module : str or None
        Name of the network of all methods except scikit-learn's. None means the one that suits
        the data.
    device : str
    label : str or None
        Column of a CSV file that holds the labels.
    trusted : int or None
        Number of training rows, drawn with the seed, that get their true label; methods that can
        use this are told which rows.
    features : str or None
        Name of a pretrained network, whose features take the place of images.
    memory : str or None
        Folder that keeps these features.
    """

    rows: int | None = None
    test_rows: int | None = 5000
    epochs: int | None = None
    holdout: float = 0.1
    module: str | None = None
    device: str = "auto"
    label: str | None = None
    trusted: int | None = None
    features: str | None = None
    memory: str | None = None

    @property
    def columns(self) -> dict[str, Any]:
        """Return, by column of the table, what all rows of one data set must have in common."""
        return {
            "max_epochs": self.epochs,
            "module": self.module,
            "device": device_name(self.device),
            "version": __version__,
            "trusted": self.trusted,
            "features": self.features,
        }


@dataclass(frozen=True)
class Cell:
    """One fit: which method, on which data, with which noise, seed and number of labels.

    ``labels`` is the number of training rows that keep their label; None means all.
    """

    method: str
    data: str
    noise: str
    rate: float
    seed: int
    labels: int | None = None

    @property
    def name(self) -> str:
        """Return one line for people to read."""
        rate = f" {100 * self.rate:g} %" if self.rate else ""
        labels = "" if self.labels is None else f", {self.labels} labels"
        noise = f"{self.noise}{rate}{labels}"
        return f"{self.method}, {one_line(self.data)}, {noise}, seed {self.seed}"


@dataclass(frozen=True)
class Problem:
    """Rows to learn from, rows to choose an epoch on, and rows to score.

    ``y`` has a label for every row. Those outside ``labelled`` are not shown to a method. Where
    there are ``votes``, (n, n_annotators), ``y`` is their majority.
    """

    X: Any
    y: Any
    y_clean: Any = None
    X_val: Any = None
    y_val: Any = None
    X_test: Any = None
    y_test: Any = None
    trusted: NDArray[np.bool_] | None = None
    votes: NDArray[Any] | None = None
    labelled: NDArray[np.bool_] | None = None

    @property
    def shown(self) -> tuple[NDArray[Any], Any]:
        """Return the labels or votes to learn from, and what stands for those that are missing.

        None stands for them if there are none.
        """
        if self.votes is not None:
            voted = self.votes.copy()
            if self.labelled is not None:
                voted[~self.labelled] = NO_VOTE
            return voted, NO_VOTE
        if self.labelled is None:
            return self.y, None
        labels = np.array(self.y, dtype=object)  # in which -1 may be a class of its own
        labels[~self.labelled] = None
        return labels, float("nan")

    @property
    def one_label_each(self) -> Problem:
        """Return the problem for methods that need one label in every row."""
        if self.labelled is None:
            return replace(self, votes=None)
        kept, parts = self.labelled, (self.y_clean, self.trusted)
        y_clean, trusted = (_taken(part, kept) for part in parts)
        X, y = take_rows(self.X, kept), self.y[kept]
        return replace(self, X=X, y=y, y_clean=y_clean, trusted=trusted, votes=None, labelled=None)

    @property
    def wrong(self) -> NDArray[np.bool_] | None:
        """Return which labels are wrong, (n,), where that is known."""
        return None if self.y_clean is None else np.asarray(self.y != self.y_clean)


@lru_cache(maxsize=3)
def source_of(name: str, label: str | None) -> tuple[Source, str]:
    """Return data and the hash of their arrays, which identifies them."""
    source = load(name, label)
    return source, fingerprint(_if_used(vars(source), "votes"))


def key_of(cell: Cell, settings: Settings) -> str:
    """Return what identifies a cell, the same on every day and in every process."""
    params = make(cell.method, random_state=cell.seed).get_params()
    plain = {k: type(v).__name__ if hasattr(v, "fit") else v for k, v in params.items()}
    shared = asdict(settings) | {"device": device_name(settings.device)}
    del shared["memory"]
    shared = _if_used(shared, "trusted", "features")
    where = source_of(cell.data, settings.label)[1]
    which = _if_used(asdict(cell), "labels") | {"data": where}
    return fingerprint(__version__, which, shared, plain)[:16]


def _if_used(values: dict[str, Any], *names: str) -> dict[str, Any]:
    """Leave these out where they are None, so that older tables, without them, stay valid."""
    return {key: v for key, v in values.items() if key not in names or v is not None}


def pose(source: Source, cell: Cell, settings: Settings) -> Problem:
    """Draw rows, inject noise, hold rows out, hide labels and repair some, all with the seed."""
    n, rng = len(source.X), np.random.default_rng(cell.seed)
    few = settings.rows is not None and settings.rows < n
    idx = rng.permutation(n)[: settings.rows] if few else np.arange(n)
    X, y = source.X[idx], source.y[idx]
    y_clean, votes = _taken(source.y_clean, idx), _taken(source.votes, idx)
    if cell.method == CLEAN and y_clean is not None:
        y, votes = y_clean, None
    elif cell.noise in NOISES:
        y = NOISES[cell.noise](y, X, cell.rate, cell.seed)
    test = source.X_test, source.y_test
    if source.X_test is not None and settings.test_rows is not None:
        order = np.random.default_rng(0).permutation(len(source.X_test))[: settings.test_rows]
        test = source.X_test[order], np.asarray(source.y_test)[order]
    X, test = _seen(X, settings), (_seen(test[0], settings), test[1])
    if settings.holdout:
        fit, held = held_out(y, settings.holdout, cell.seed)
        clean, votes = _taken(y_clean, fit), _taken(votes, fit)
        problem = Problem(X[fit], y[fit], clean, X[held], y[held], *test, votes=votes)
    else:
        problem = Problem(X, y, y_clean, None, None, *test, votes=votes)
    if cell.labels is not None:
        problem = replace(problem, labelled=stratified(problem.y, cell.labels, cell.seed))
    return problem if settings.trusted is None else _repaired(problem, settings.trusted, cell.seed)


def _taken(array: Any, rows: NDArray[Any]) -> Any:
    return None if array is None else array[rows]


def stratified(y: Any, n: int, seed: int) -> NDArray[np.bool_]:
    """Draw ``n`` rows, from each class in proportion but at least one if there are enough.

    Returns
    -------
    ndarray of bool of shape (n_samples,)
        More rows include those that fewer would have been.
    """
    order = np.random.default_rng(seed).permutation(len(y))
    codes = np.unique(np.asarray(y)[order], return_inverse=True)[1]
    place = np.zeros(len(y))
    for code in range(codes.max() + 1):
        members = codes == code
        place[members] = np.arange(members.sum()) / members.sum()
    drawn = np.zeros(len(y), bool)
    drawn[order[place.argsort(kind="stable")[:n]]] = True
    return drawn


def _seen(X: Any, settings: Settings) -> Any:
    """Return images as a pretrained network sees them; tables as they are."""
    if settings.features is None or X is None or X.ndim == 2:
        return X
    embedder = ImageEmbedder(
        settings.features,
        weights="DEFAULT",
        device=settings.device,
        memory=settings.memory,
    )
    return embedder.fit_transform(X)


def _repaired(problem: Problem, n: int, seed: int) -> Problem:
    """Give ``n`` rows, of those with a label, their true label, and mark them."""
    trusted = np.zeros(len(problem.y), bool)
    order = np.random.default_rng(seed).permutation(len(trusted))
    if problem.labelled is not None:
        order = order[problem.labelled[order]]
    trusted[order[:n]] = True
    votes = problem.votes
    if votes is not None:
        cast = trusted[:, None] & (votes != NO_VOTE)
        votes = np.where(cast, problem.y_clean[:, None], votes)
    y = np.where(trusted, problem.y_clean, problem.y)
    return replace(problem, y=y, votes=votes, trusted=trusted)


NOISES: dict[str, Callable[..., NDArray[Any]]] = {
    "symmetric": lambda y, X, rate, seed: noise.symmetric(y, rate, random_state=seed).labels,
    "pairflip": lambda y, X, rate, seed: noise.pairflip(y, rate, random_state=seed).labels,
    "instance": lambda y, X, rate, seed: (
        noise.instance_dependent(y, X, rate, random_state=seed).labels
    ),
}


def held_out(y: Any, share: float, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Split row numbers, stratified by class if possible; both parts are in order."""
    counts = np.unique(np.asarray(y), return_counts=True)[1]
    enough = counts.min() > 1 and min(share, 1 - share) * len(y) >= len(counts)
    fit, held = train_test_split(
        np.arange(len(y)), test_size=share, stratify=y if enough else None, random_state=seed
    )
    return np.sort(fit), np.sort(held)
