"""What out-of-fold beliefs and given labels say together, and how far to believe that.

A detector that has not seen a row believes in its classes. Calibrated beliefs and all given labels
yield the transition matrix (`noisyfit.nn.transition`), and so the probability that each label is
wrong. Their sum is the number of wrong labels, and their mean over the first rows of a ranking its
expected precision.

Two checks say how far that goes. *Inject and recover*: every row is given a wrong label on purpose,
drawn by the transition matrix; as no detector has seen the row, what it would say of that label is
known without a new fit. And the errors that such estimates had on data whose true labels are known
widen every interval (``ERROR_OF_SHARE``, ``ERROR_OF_PRECISION``).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score
from torch import Tensor

from noisyfit.nn import annotators
from noisyfit.nn.annotators import Votes
from noisyfit.nn.transition import (
    Transition,
    calibrate,
    deconvolve,
    fit_transition,
    posterior,
)

_Floats = NDArray[np.float64]
_Codes = NDArray[np.int64]
_Flags = NDArray[np.bool_] | bool

TEMPERATURES = (0.25, 0.35, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0)
ERROR_OF_SHARE = 0.25  # standard deviation, of the logit
ERROR_OF_PRECISION = 1.0
SUREST = 0.95  # a precision above it is not told from it
NORMAL = 1.645  # standard deviations on either side hold 90 %
RANKS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)


class Estimate(NamedTuple):
    """A value and the interval that holds it in nine of ten data sets."""

    value: float
    low: float
    high: float


class Trust(NamedTuple):
    """What is known of the true classes.

    Attributes
    ----------
    unseen : ndarray of shape (n_samples, n_classes)
        Probabilities of the true classes, without the label of the row.
    distribution : ndarray of shape (n_samples, n_classes)
        The same, given the label.
    transition : ndarray of shape (n_classes, n_classes)
        True classes in rows, given classes in columns; rows sum to 1.
    accuracy : float
        Share of rows whose most likely class, without the label, is expected to be the true one.
    labels_right : float
        Share of the labels, before any decisions, that are expected to be right.
    """

    unseen: _Floats
    distribution: _Floats
    transition: _Floats
    accuracy: float
    labels_right: float


class Before(NamedTuple):
    """What there was before anybody decided about labels.

    Attributes
    ----------
    beliefs : ndarray of shape (n_samples, n_classes)
    codes : ndarray of shape (n_samples,)
        Given classes; -1 for none, or where it is not known.
    """

    beliefs: _Floats
    codes: _Codes


class Injected(NamedTuple):
    """What became of labels that were made wrong on purpose.

    Attributes
    ----------
    quality, given : ndarray of shape (n_labelled,)
        Their quality and that of the given labels, by the detectors, sorted.
    auroc : float
        Probability that such a label is rated lower than a right one.
    found : float
        Share of them that are rated below one half.
    """

    quality: _Floats
    given: _Floats
    auroc: float
    found: float


def weigh(
    beliefs: _Floats,
    codes: _Codes,
    trusted: NDArray[np.bool_],
    votes: _Codes | None = None,
    before: Before | None = None,
) -> Trust:
    """Estimate the transition matrix and the true classes.

    Parameters
    ----------
    beliefs : ndarray of shape (n_samples, n_classes)
        Of detectors that have not seen the row.
    codes : ndarray of shape (n_samples,)
        Given classes; -1 for rows without a label.
    trusted : ndarray of bool of shape (n_samples,)
        Rows whose label is right.
    votes : ndarray of shape (n_samples, n_annotators), default=None
        What each annotator said, -1 for nothing, if the given class is the most frequent vote. Then
        the true classes are what all votes say.
    before : Before or None, default=None
        If rows are trusted because somebody has decided about what seemed wrong, what there was
        before. Labels without the worst ones seem better than they are, and so do detectors that
        have learned from decisions; how often labels are wrong shows in what there was before.
    """
    first = Before(beliefs, np.where(trusted, -1, codes)) if before is None else before
    labels = torch.as_tensor(first.codes)
    matrix = fit_transition(_calibrated(first.beliefs, labels), labels).matrix
    transition = Transition(matrix, deconvolve(_calibrated(beliefs, labels), matrix))
    believed = posterior(transition.beliefs, labels, transition.matrix)
    if votes is not None:
        cast = Votes.of(torch.as_tensor(votes), beliefs.shape[1])
        believed = annotators.agree(transition.beliefs, cast, believed)
    distribution = believed.double().numpy()
    distribution[trusted] = np.eye(beliefs.shape[1])[codes[trusted]]
    return Trust(
        transition.beliefs.double().numpy(),
        distribution,
        transition.matrix.double().numpy(),
        float(_given(distribution, beliefs.argmax(1)).mean()),
        float(np.nanmean(label_quality(distribution, first.codes))),
    )


def _calibrated(beliefs: _Floats, labels: Tensor) -> Tensor:
    return calibrate(torch.as_tensor(beliefs).float(), labels, TEMPERATURES)[0]


def inject(trust: Trust, codes: _Codes, rng: np.random.Generator) -> Injected:
    """Give every label that may be wrong a wrong one, drawn by the transition matrix, and rate it.

    Parameters
    ----------
    trust : Trust
    codes : ndarray of shape (n_samples,)
        Given classes; -1 for rows without a label, or with one that is right.
    rng : Generator
    """
    rows = np.flatnonzero(codes >= 0)
    unseen, given = trust.unseen[rows], codes[rows]

    def rated(labels: _Codes) -> _Floats:
        believed = posterior(*map(torch.as_tensor, (unseen, labels, trust.transition)))
        return _given(believed.numpy(), labels)

    wrong = rated(_drawn_wrong(trust.transition, given, rng))
    right = rated(given)
    auroc = roc_auc_score(
        np.repeat([0, 1], len(rows)),
        np.concatenate([wrong, right]),
        sample_weight=np.concatenate([np.ones(len(rows)), right]),
    )
    found = float((wrong < 0.5).mean())
    return Injected(np.sort(wrong), np.sort(right), float(auroc), found)


def label_quality(distribution: _Floats, codes: _Codes) -> _Floats:
    """Return the probability that each label is right; NaN without a label."""
    return np.where(codes >= 0, _given(distribution, codes.clip(min=0)), np.nan)


def right_votes(distribution: _Floats, votes: _Codes) -> _Floats:
    """Return the share of each annotator's votes that is right; NaN without a vote."""
    cast = Votes.of(torch.as_tensor(votes), distribution.shape[1])
    shares: _Floats = annotators.right_votes(torch.as_tensor(distribution), cast).numpy()
    return shares


def doubted(trust: Trust, codes: _Codes) -> NDArray[np.bool_]:
    """Return which labels are not the most likely class of their row.

    Where classes overlap, right labels are doubted as well. If the detectors are right less often
    than the labels are expected to be, only a prior tells overlap from mistakes, and so all of
    these labels may be wrong.
    """
    return trust.unseen.argmax(1) != codes


def wrong_share(quality: _Floats, may_be_wrong: _Flags = False) -> Estimate:
    """Estimate the share of wrong labels; the interval includes that of those that may be."""
    known = ~np.isnan(quality)
    return _with_interval(1 - quality, ERROR_OF_SHARE, may_be_wrong, known)


def precision_at(quality: _Floats, rank: int, may_be_wrong: _Flags = False) -> Estimate:
    """Estimate the share of wrong labels among the `rank` lowest qualities, like `wrong_share`."""
    error = np.interp(rank / len(quality), (0.0, 1.0), (ERROR_OF_PRECISION, ERROR_OF_SHARE))
    first = np.argsort(quality, kind="stable")[:rank]
    return _with_interval(1 - quality, float(error), may_be_wrong, first)


def is_sure(distribution: _Floats) -> NDArray[np.bool_]:
    """Return where the most likely class is right more often than not, by more than the error."""
    return distribution.max(1) > expit(ERROR_OF_PRECISION)


def _with_interval(wrong: _Floats, error: float, may_be_wrong: _Flags, rows: Any) -> Estimate:
    """Return the mean of probabilities, and an interval of sampling and of systematic error."""
    wrong, most = wrong[rows], np.broadcast_to(may_be_wrong, wrong.shape)[rows].mean()
    value, n = float(wrong.mean()), len(wrong)
    inner = float(np.clip(value, min(0.01, 0.5 / n), max(SUREST, 0.5)))
    sampling = np.sqrt((wrong * (1 - wrong)).sum()) / n / (inner * (1 - inner))
    width = NORMAL * np.hypot(sampling, error)
    low, high = expit(logit(inner) + width * np.array([-1.0, 1.0]))
    highest = max(high, value, float(most))
    whole = np.floor(min(low, value) * n) / n, np.ceil(highest * n) / n  # rows
    return Estimate(value, float(whole[0]), float(whole[1]))


def _drawn_wrong(transition: _Floats, codes: _Codes, rng: np.random.Generator) -> _Codes:
    """Draw another class for each label, as often as the matrix mistakes it for that one."""
    chances = transition.clip(min=1e-9)
    np.fill_diagonal(chances, 0.0)
    chances /= chances.sum(axis=1, keepdims=True)
    edges = chances.cumsum(axis=1)[codes]
    drawn = (rng.random(len(codes))[:, None] * edges[:, -1:] >= edges).sum(axis=1)
    return drawn.clip(max=transition.shape[1] - 1)


def _given(distribution: _Floats, codes: _Codes) -> _Floats:
    return np.take_along_axis(distribution, codes[:, None], axis=1)[:, 0]
