"""Successive halving [1]_: all candidates on few rows, the better ones on more.

Each candidate is judged by rows that it has not seen: by how probable it makes their given labels
(`noisyfit.nn.held_out`). The first round takes a part of the rows of one fold, the second all rows
of that fold, the last one the other folds. Two fifths of the candidates go on to the second round,
as many as are asked for to the last. These are fitted on all rows as well. If there is no time for
all folds of the best candidate, and it is clearly better than those that there is time for, it wins
by the one fold.

References
----------
.. [1] Jamieson and Talwalkar. Non-stochastic Best Arm Identification and Hyperparameter
   Optimization. AISTATS, 2016. arXiv:1502.07943
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil, inf, nan, sqrt
from operator import attrgetter
from traceback import walk_tb
from typing import Any, NamedTuple

import numpy as np
import torch
from joblib import Memory
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.parallel import Parallel, delayed
from skorch.callbacks import Callback

from noisyfit.estimator.delegation import beliefs_of, fit_on, seeded
from noisyfit.exceptions import NoisyFitWarning
from noisyfit.nn.held_out import explain
from noisyfit.utils.validation import take_rows

Rows = NDArray[np.intp]
Fold = tuple[Rows, Rows]

FIRST_PART = 1 / 3  # of the rows of a fold
FEWEST_ROWS = 150  # of that part; with fewer there is no such round
KEPT = 0.4  # of the candidates, after that round
TOLERANCE = 0.5  # of a standard error, within which a cheaper candidate is preferred
ROUND_ENDS = (0.4, 0.7, 0.9)  # of the time there is; the rest is for the vote
ABOUT_A_FIT = (NoisyFitWarning, ConvergenceWarning)


class Data(NamedTuple):
    """What there is to learn from.

    Attributes
    ----------
    X : array-like
    codes : ndarray of shape (n_samples,)
        Given classes, -1 for none.
    trusted : ndarray of bool of shape (n_samples,)
    classes : ndarray of shape (n_classes,)
    """

    X: Any
    codes: NDArray[np.int64]
    trusted: NDArray[np.bool_]
    classes: NDArray[Any]


class Part(NamedTuple):
    """A classifier fitted on some rows, and what it says of others.

    Attributes
    ----------
    classifier : classifier
    seen, unseen : ndarray of int
        Those with a label that it was fitted on, and those that it has not seen, which may be none.
    beliefs : ndarray of shape (n_unseen, n_classes)
    seconds : float
    said : list of str
        Its warnings.
    """

    classifier: Any
    seen: Rows
    unseen: Rows
    beliefs: NDArray[np.float64]
    seconds: float
    said: list[str]


@dataclass(eq=False)
class Candidate:
    """A classifier in the race, and how far it came.

    Parameters
    ----------
    name : str
    estimator : classifier
    parts : list of Part
        Of the folds that it was fitted on as a whole, and of all rows; before that, of a part of
        a fold.
    likelihoods : ndarray
        Log-probability of each given label that it was judged by, in nats.
    temperature : float
        By which its beliefs are softened in a vote.
    accuracy : float
        Share of these labels that it predicts.
    seconds : float
        What all its fits have taken.
    n_fits : int
    error : float
        Of the difference of its score to the best one of the round.
    failure : Exception or None
        Why it left the race.
    """

    name: str
    estimator: Any
    parts: list[Part] = field(default_factory=list)
    likelihoods: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    temperature: float = 1.0
    accuracy: float = 0.0
    seconds: float = 0.0
    n_fits: int = 0
    error: float = 0.0
    failure: Exception | None = None

    @property
    def score(self) -> float:
        """Mean log-probability of the given labels."""
        return float(self.likelihoods.mean()) if len(self.likelihoods) else -inf

    @property
    def pace(self) -> float:
        """Seconds for a row."""
        return self.parts[-1].seconds / len(self.parts[-1].seen) if self.parts else 0.0

    @property
    def unseen(self) -> Rows:
        """Rows that one of its fits has not seen."""
        return np.concatenate([part.unseen for part in self.parts])

    @property
    def n_fitted(self) -> int:
        """Rows of the largest fit."""
        return max((len(part.seen) for part in self.parts), default=0)

    @property
    def said(self) -> list[str]:
        """What its fits have warned of."""
        return list(dict.fromkeys(said for part in self.parts for said in part.said))

    def agreement(self, classes: NDArray[np.intp]) -> float:
        """Return for which share of the rows that it has not seen it predicts these classes."""
        same = [part.beliefs.argmax(1) == classes[part.unseen] for part in self.parts]
        return float(np.concatenate(same).mean()) if same else nan

    def error_below(self, other: Candidate) -> float:
        """Return the standard error of the difference to one that was judged by the same rows."""
        difference = other.likelihoods - self.likelihoods
        return float(difference.std() / sqrt(len(difference)))

    def judge(self, data: Data, parts: list[Part]) -> None:
        """Take the fits of a round, and what they say of given labels that may be wrong."""
        self.parts, unseen = parts, np.concatenate([part.unseen for part in parts])
        beliefs = np.concatenate([part.beliefs for part in parts])
        judged = (data.codes[unseen] >= 0) & ~data.trusted[unseen]
        given = torch.as_tensor(data.codes[unseen[judged]])
        believed = torch.as_tensor(beliefs[judged]).float()
        self.temperature, likelihoods = explain(believed, given)
        self.likelihoods = likelihoods.double().numpy()
        self.accuracy = float((believed.argmax(1) == given).double().mean())


class OutOfTimeError(Exception):
    """A fit would not end in time."""


class Race:
    """Successive halving.

    Parameters
    ----------
    data : Data
    folds : sequence of (seen, unseen)
    memory : Memory
        Keeps finished fits.
    seed : int
    n_jobs : int or None
        Number of fits at once.
    time_budget : float or None
        Seconds, from now on.
    bar : progress bar
    """

    def __init__(
        self,
        data: Data,
        folds: Sequence[Fold],
        *,
        memory: Memory,
        seed: int,
        n_jobs: int | None,
        time_budget: float | None,
        bar: Any,
    ) -> None:
        self.data = data
        self.folds = folds
        self.fit = memory.cache(_fit, ignore=["deadline"])
        self.seed = seed
        self.n_jobs = n_jobs
        self.bar = bar
        began, budget = time.time(), inf if time_budget is None else time_budget
        self.ends = [began + part * budget for part in ROUND_ENDS]  # so in all processes

    def run(self, candidates: Sequence[Candidate], n_finalists: int) -> list[Candidate]:
        """Return the finalists, the best one first.

        Raises
        ------
        Exception
            What a candidate raised, if none could be fitted.
        """
        (seen, unseen), others = self.folds[0], self.folds[1:]
        left, first = list(candidates), _part_of(seen, self.data.codes, self.seed)
        if len(first) >= FEWEST_ROWS:
            left = self._round(left, [(first, unseen)], 0)
            left = best(left, n_kept(len(left), n_finalists))
        left = self._round(left, [(seen, unseen)], 1) or left
        ranked = best(left, len(left))
        finalists = self._affordable(ranked, others, n_finalists)
        if _is_clearly_better(ranked[0], finalists):
            finalists = ranked[:1]  # without the other folds
        else:
            finalists = best(self._round(finalists, others, 2) or left, n_finalists)
        self._fit_on_all_rows(finalists)
        return finalists

    def _affordable(
        self, candidates: Sequence[Candidate], folds: Sequence[Fold], n: int
    ) -> list[Candidate]:
        """Choose the first candidates that can be fitted on folds in the time that is left."""
        left, chosen = self.ends[2] - time.time(), list[Candidate]()
        for candidate in candidates:
            cost = candidate.pace * sum(len(seen) for seen, _ in folds)
            if cost <= left and len(chosen) < n:
                chosen.append(candidate)
                left -= cost
        return chosen

    def _round(
        self, candidates: Sequence[Candidate], folds: Sequence[Fold], number: int
    ) -> list[Candidate]:
        """Fit each candidate on folds, and return those that were fitted on all of them.

        The first candidate that is fitted at all may take all the time there is.
        """
        is_first = bool(candidates) and not any(candidate.parts for candidate in candidates)
        tasks = [
            (candidate, fold, self.ends[-1 if is_first and candidate is candidates[0] else number])
            for candidate in candidates
            for fold in folds
        ]
        outcomes: dict[Candidate, list[Part | Exception]] = {c: [] for c in candidates}
        for (candidate, _, _), outcome in zip(tasks, self._attempts(tasks), strict=True):
            outcomes[candidate].append(outcome)
        left = [c for c in candidates if self._take(c, outcomes[c], more=number == 2)]
        if is_first and not left:
            raise _most_helpful([c.failure for c in candidates if c.failure is not None])
        for candidate in left:
            candidate.error = candidate.error_below(max(left, key=by_score))
        return left

    def _fit_on_all_rows(self, finalists: Sequence[Candidate]) -> None:
        """Fit the finalists once more in what time the folds have left.

        What they are judged by stays.
        """
        rows = np.arange(len(self.data.codes))
        tasks = [(finalist, (rows, rows[:0]), self.ends[-1]) for finalist in finalists]
        for finalist, outcome in zip(finalists, self._attempts(tasks), strict=True):
            if isinstance(outcome, Part):
                finalist.parts = [*finalist.parts, outcome]
                finalist.seconds += outcome.seconds
                finalist.n_fits += 1
            else:
                finalist.failure = outcome

    def _attempts(
        self, tasks: Sequence[tuple[Candidate, Fold, float]]
    ) -> Iterator[Part | Exception]:
        """Fit candidates on folds, each until its deadline."""
        fits = Parallel(n_jobs=self.n_jobs, return_as="generator")(
            delayed(_attempt)(
                self.fit, seeded(candidate.estimator, self.seed), self.data, fold,
                candidate.pace * len(fold[0]), deadline,
            )
            for candidate, fold, deadline in tasks
        )  # fmt: skip
        for outcome in fits:
            yield outcome
            self.bar.update()

    def _take(self, candidate: Candidate, outcomes: list[Part | Exception], *, more: bool) -> bool:
        """Judge a candidate by its fits, if all of them ended well."""
        parts = [outcome for outcome in outcomes if isinstance(outcome, Part)]
        candidate.seconds += sum(part.seconds for part in parts)
        candidate.n_fits += len(parts)
        candidate.failure = next((o for o in outcomes if isinstance(o, Exception)), None)
        if candidate.failure is None:
            candidate.judge(self.data, [*candidate.parts, *parts] if more else parts)
        return candidate.failure is None


by_score = attrgetter("score")


def n_kept(n: int, n_finalists: int) -> int:
    """Return how many of n candidates go on after the first round."""
    return max(n_finalists, int(KEPT * n))


def best(candidates: Sequence[Candidate], n: int) -> list[Candidate]:
    """Choose candidates one after the other; of those that are hardly apart, the cheapest.

    These are not below the best one by more than a part of the standard error of their difference.
    Candidates are listed from cheap to costly.
    """
    left, chosen = list(candidates), list[Candidate]()
    while left and len(chosen) < n:
        leader = max(left, key=by_score)
        equal = (c for c in left if leader.score - c.score <= TOLERANCE * c.error_below(leader))
        chosen.append(next(equal))
        left.remove(chosen[-1])
    return chosen


def _is_clearly_better(candidate: Candidate, others: Sequence[Candidate]) -> bool:
    """Whether a candidate is above all others, if there are any, by more than a standard error."""
    return bool(others) and all(
        candidate.score - other.score > other.error_below(candidate) for other in others
    )


def _most_helpful(failures: Sequence[Exception]) -> Exception:
    """Choose the one to raise: that of a classifier of this package names the line to write."""
    told = [failure for failure in failures if not isinstance(failure, OutOfTimeError)]
    ours = [failure for failure in told if _raised_in(failure).startswith("noisyfit.")]
    return (ours or told or failures)[0]


def _raised_in(failure: Exception) -> str:
    """Return the module in which an error arose; other processes do not tell."""
    modules = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(failure.__traceback__)]
    return modules[-1] if modules else ""


def _part_of(rows: Rows, codes: NDArray[np.int64], seed: int) -> Rows:
    """Return a part of the rows with a label, as much of each class."""
    order = np.random.default_rng(seed).permutation(rows)
    of_class = [order[codes[order] == k] for k in np.unique(codes[rows]) if k >= 0]
    return np.sort(np.concatenate([of[: ceil(FIRST_PART * len(of))] for of in of_class]))


def _attempt(
    fit: Any, estimator: Any, data: Data, fold: Fold, expected: float, deadline: float
) -> Part | Exception:
    """Fit, unless that would take too long; finished fits are at hand. Return what goes wrong."""
    late = time.time() + expected > deadline
    if late and not fit.check_call_in_cache(estimator, data, fold, deadline):
        return OutOfTimeError()
    try:
        return fit(estimator, data, fold, deadline)
    except Exception as error:
        return error


def _fit(estimator: Any, data: Data, fold: Fold, deadline: float) -> Part:
    """Fit a classifier on some rows, and let it say what it believes of others."""
    began, (seen, unseen) = time.perf_counter(), fold
    rows = seen[data.codes[seen] >= 0]
    labels = data.classes[data.codes]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _stop_at(deadline, estimator)
        fit_on(estimator, data.X, labels, rows, {"clean_mask": data.trusted})
        beliefs = np.empty((0, len(data.classes)))
        if len(unseen):
            beliefs = beliefs_of(estimator, take_rows(data.X, unseen), data.classes)
    for other in caught:
        if not issubclass(other.category, ABOUT_A_FIT):
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    said = [str(it.message) for it in caught if issubclass(it.category, ABOUT_A_FIT)]
    seconds = time.perf_counter() - began
    return Part(estimator, rows, unseen, beliefs, seconds, list(dict.fromkeys(said)))


def _stop_at(deadline: float, estimator: Any) -> None:
    """Let networks stop when the time is up."""
    if deadline == inf:
        return
    for name, callbacks in estimator.get_params().items():
        if name.split("__")[-1] == "callbacks" and callbacks != "disable":
            stop = ("deadline", _Deadline(deadline))
            estimator.set_params(**{name: [*(callbacks or []), stop]})


class _Deadline(Callback):
    def __init__(self, deadline: float) -> None:
        self.deadline = deadline

    def on_batch_end(self, net: Any, *args: Any, **kwargs: Any) -> None:
        if time.time() > self.deadline:
            raise OutOfTimeError
