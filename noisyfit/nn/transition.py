"""How classes are mistaken for each other, from out-of-sample predictions of given labels.

A network that has not seen a row predicts its *given* label: ``q = p @ T``, where ``p`` is the
probabilities of the true classes and ``T`` is the transition matrix. Neither is observed. Here
``T`` is the matrix that, with the best ``p`` for each row, makes the given labels most probable.
Rows that are all split between two classes in one proportion are explained by mistakes; rows that
are split in many proportions are explained by classes that look alike. Where the likelihood does
not decide, the matrix with more mistakes is taken, following the minimum-volume principle of [1]_,
and the simpler one.

References
----------
.. [1] Li, Liu, Han, Niu and Sugiyama. Provably End-to-end Label-Noise Learning without Anchor
   Points. ICML, 2021. arXiv:2102.02400
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, log
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from noisyfit.nn.beliefs import sharpen

__all__ = ["Transition", "calibrate", "deconvolve", "fit_transition", "posterior"]

SMALLEST = 1e-8  # of a probability
PREDICTED_SHARES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.98)  # the rest are the class shares
DECONVOLUTION_STEPS, ACCELERATION = 12, 1.8
LARGEST_SAMPLE = 5000  # rows
FEW, MANY = 0.05, 0.4  # mistakes to start from
SPREAD = 0.1  # to start from, the part of a class's mistakes that does not go to its partner
N_PARTNERS = 4  # that are tried for a class
SWEEPS = 2
STEPS, LR = 40, 0.1
VOLUME_WEIGHT = 0.004
RATE_ROWS = 50.0  # a priori, of each class: as many mistakes as in the others
PATTERN_ROWS = 0.3  # a priori, of each kind of mistake: all wrong classes alike
PARAMETER_PRICE = 0.25  # in nats, of each entry of a full matrix
MOST = 0.58  # of the rows
NATS = 3.0  # more than 1, as predictions are not exact


class Transition(NamedTuple):
    """A transition matrix, and the probabilities of the true classes under it.

    Attributes
    ----------
    matrix : Tensor of shape (n_classes, n_classes)
        True classes in rows, given classes in columns; rows sum to 1. No mistake is more frequent
        than the right label.
    beliefs : Tensor of shape (n_samples, n_classes)
    """

    matrix: Tensor
    beliefs: Tensor


def calibrate(
    probs: Tensor, labels: Tensor, temperatures: Sequence[float] = (1.0,)
) -> tuple[Tensor, Tensor]:
    """Mix predictions with the class shares as far as it makes the given labels more probable.

    Parameters
    ----------
    probs : Tensor of shape (n_samples, n_classes)
        Out-of-sample predictions.
    labels : Tensor of shape (n_samples,)
        -1 for rows without a label.
    temperatures : sequence of float, default=(1.0,)
        By which to soften the predictions first; the one that makes the labels most probable.

    Returns
    -------
    Tensor of shape (n_samples, n_classes), Tensor of shape (n_labelled,)
        The mixture, and the logarithm of the probability it gives to each label.
    """
    known = labels >= 0
    given = labels[known]
    shares = given.bincount(minlength=probs.shape[1]) / len(given)
    softened = (
        [probs]
        if len(temperatures) == 1
        else [sharpen(probs.clamp(min=SMALLEST), temperature) for temperature in temperatures]
    )
    mixtures = [_mixed(soft, shares, known, given) for soft in softened]
    return max(mixtures, key=lambda found: float(found[1].mean()))


def _mixed(probs: Tensor, shares: Tensor, known: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
    seen, prior = probs[known].gather(1, given[:, None])[:, 0], shares[given]
    predicted = probs.new_tensor(PREDICTED_SHARES)[:, None]
    likelihoods = (predicted * seen + (1 - predicted) * prior).log()
    best = int(likelihoods.mean(1).argmax())
    return torch.lerp(shares, probs, PREDICTED_SHARES[best]), likelihoods[best]


def deconvolve(probs: Tensor, matrix: Tensor) -> Tensor:
    """Return the probabilities of the true classes, from those of the given labels.

    A few steps of Richardson and Lucy's rule, which lowers the divergence of ``beliefs @ matrix``
    from ``probs`` and stays a distribution; each step goes almost twice as far.

    Parameters
    ----------
    probs : Tensor of shape (n_samples, n_classes)
    matrix : Tensor of shape (n_classes, n_classes)
    """
    observed = probs.T.contiguous()  # a CPU multiplies many columns faster than many rows
    beliefs, logits = observed, observed.log()
    for _ in range(DECONVOLUTION_STEPS):
        ratio = observed / (matrix.T @ beliefs).clamp(min=SMALLEST)
        logits = logits + ACCELERATION * (matrix @ ratio).clamp(min=SMALLEST).log()
        beliefs = logits.softmax(0)
    return beliefs.T


def posterior(beliefs: Tensor, labels: Tensor, matrix: Tensor) -> Tensor:
    """Return the probabilities of the true classes, given the labels as well.

    Parameters
    ----------
    beliefs : Tensor of shape (n_samples, n_classes)
    labels : Tensor of shape (n_samples,) or (n_samples, n_classes)
        Classes, or distributions over them: the posterior is then the mean over the classes that
        the label may be. For rows without a label, -1 or zeros, the beliefs are returned unchanged.
    matrix : Tensor of shape (n_classes, n_classes)
    """
    if labels.ndim == 2:
        explained = (beliefs @ matrix).clamp(min=SMALLEST)
        joint = beliefs * ((labels / explained) @ matrix.T)
    else:
        joint = beliefs * matrix.T[labels.clamp(min=0)] * (labels >= 0)[:, None]
    total = joint.sum(1, keepdim=True)
    return torch.where(total > SMALLEST, joint / total.clamp(min=SMALLEST), beliefs)


def fit_transition(probs: Tensor, labels: Tensor) -> Transition:
    """Find the transition matrix that best explains the given labels.

    Three forms compete, by likelihood against number of parameters: each class has its own share of
    mistakes, spread over all others; some classes have a partner that most of their mistakes go to;
    or every entry is free. The result is their mean, weighted by likelihood, because few rows do
    not distinguish a circle of mistakes from one that runs the other way.

    Parameters
    ----------
    probs : Tensor of shape (n_samples, n_classes)
        Calibrated out-of-sample probabilities of the given labels.
    labels : Tensor of shape (n_samples,)
        -1 for rows without a label.
    """
    rows = _sample((labels >= 0).nonzero()[:, 0])
    evidence = _Evidence(probs[rows], labels[rows])
    none = [None] * probs.shape[1]
    found = [_fit_partners(evidence, none, FEW)]
    if probs.shape[1] > 2:
        found.append(_fit_partners(evidence, _partners(evidence), MANY))
        uniform = _with_partners(none, probs.new_full((len(none),), MANY))
        found += [_fit_entries(evidence, start) for start in (found[-1].matrix, uniform)]
        other_way = F.normalize(_cheapest(found).matrix.T, p=1, dim=1)
        found.append(_fit_entries(evidence, other_way))
    matrix = _mean(found, len(rows))
    return Transition(matrix, deconvolve(probs, matrix))


def _sample(rows: Tensor) -> Tensor:
    """Draw as many rows as are needed, the same each time; rows may be sorted by class."""
    if len(rows) <= LARGEST_SAMPLE:
        return rows
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    return rows[order[:LARGEST_SAMPLE].to(rows.device)]


class _Fitted(NamedTuple):
    cost: float
    matrix: Tensor


def _cheapest(found: Sequence[_Fitted]) -> _Fitted:
    return min(found, key=lambda fitted: fitted.cost)


def _mean(found: Sequence[_Fitted], n: int) -> Tensor:
    """Return the mean of the matrices; `NATS` more likelihood gives e times the weight."""
    matrices = torch.stack([fitted.matrix for fitted in found])
    costs = matrices.new_tensor([fitted.cost for fitted in found]) * n
    return torch.einsum("f,fij->ij", (-costs / NATS).softmax(0), matrices)


class _Evidence(NamedTuple):
    probs: Tensor
    labels: Tensor

    def allows(self, matrix: Tensor) -> bool:
        """Whether right labels lead in each class and most rows keep their most probable class.

        Otherwise classes that are mistaken for each other in a circle can swap places.
        """
        leads = matrix.diagonal() >= matrix.amax(1) - 1e-6
        kept = deconvolve(self.probs, matrix).argmax(1) == self.probs.argmax(1)
        return bool(leads.all()) and bool(kept.float().mean() > MOST)

    def cost(self, matrix: Tensor) -> Tensor:
        """Return the negative log-likelihood of the labels, with volume and a prior on rates."""
        explained = matrix.T @ deconvolve(self.probs, matrix).T
        likelihood = explained.gather(0, self.labels[None]).clamp(min=SMALLEST).log().mean()
        volume = torch.linalg.slogdet(matrix)[1] / len(matrix)
        rates = _rates(matrix)
        mean = rates.mean()
        alike = mean * (rates / mean).log() + (1 - mean) * ((1 - rates) / (1 - mean)).log()
        prior = RATE_ROWS * alike.sum() / len(self.labels)
        return -likelihood + VOLUME_WEIGHT * volume - prior


def _rates(matrix: Tensor) -> Tensor:
    """Return the share of mistakes in each class, (n_classes,)."""
    return (1 - matrix.diagonal()).clamp(1e-6, 1 - 1e-6)


def _with_partners(
    partners: Sequence[int | None], rates: Tensor, spread: Tensor | float = SPREAD
) -> Tensor:
    """Return the matrix in which mistakes go to the partner of a class, if it has one."""
    n_classes = len(partners)
    same = torch.eye(n_classes, device=rates.device)
    others = (1 - same) / (n_classes - 1)
    favoured = [others[k] if other is None else same[other] for k, other in enumerate(partners)]
    mistakes = torch.lerp(torch.stack(favoured), others, torch.as_tensor(spread).to(others))
    return torch.lerp(same, mistakes, rates[:, None])


def _price_of_partners(partners: Sequence[int | None]) -> float:
    return (len(partners) - partners.count(None)) * log(max(2, len(partners) - 1))


@torch.no_grad()
def _partners(evidence: _Evidence) -> list[int | None]:
    """Choose a partner for each class in turn, if one explains more."""
    probs, n_classes = evidence.probs, evidence.probs.shape[1]
    predicted = F.one_hot(probs.argmax(1), n_classes).to(probs.dtype)
    together = predicted.T @ probs
    together = (together + together.T).fill_diagonal_(0)
    candidates = together.topk(min(N_PARTNERS, n_classes - 1), 1).indices.tolist()
    rates = probs.new_full((n_classes,), MANY)

    def cost(partners: Sequence[int | None]) -> float:
        value = float(evidence.cost(_with_partners(partners, rates)))
        return value + _price_of_partners(partners) / len(probs)

    partners: list[int | None] = [None] * n_classes
    best = cost(partners)
    for _ in range(SWEEPS):
        for k, others in enumerate(candidates):
            for other in (None, *others):
                changed = [*partners[:k], other, *partners[k + 1 :]]
                if changed != partners and (value := cost(changed)) < best:
                    best, partners = value, changed
    return partners


def _fit_partners(evidence: _Evidence, partners: Sequence[int | None], rate: float) -> _Fitted:
    """Fit the share of mistakes in each class, and the share of these that spread."""
    n_classes, price = len(partners), _price_of_partners(partners) / len(evidence.labels)
    start = evidence.probs.new_tensor([rate, SPREAD]).logit()
    raw = start[:, None].repeat(1, n_classes)

    def matrix(raw: Tensor) -> Tensor:
        rates, spread = raw.sigmoid()
        return _with_partners(partners, rates, spread[:, None])

    return _climb(evidence, raw, matrix, lambda _, matrix: evidence.cost(matrix) + price)


def _fit_entries(evidence: _Evidence, start: Tensor) -> _Fitted:
    """Fit every entry."""
    n_classes, n = len(start), len(evidence.labels)
    wrong = ~torch.eye(n_classes, dtype=torch.bool, device=start.device)
    price = PARAMETER_PRICE * n_classes * (n_classes - 2)

    def cost(raw: Tensor, matrix: Tensor) -> Tensor:
        pattern = raw.log_softmax(1) - _rates(matrix).log()[:, None] + log(n_classes - 1)
        return evidence.cost(matrix) + (price - PATTERN_ROWS * pattern[wrong].sum()) / n

    raw = torch.lerp(start, torch.full_like(start, 1 / n_classes), 0.02).log()
    return _climb(evidence, raw, lambda raw: raw.softmax(1), cost)


def _climb(
    evidence: _Evidence,
    raw: Tensor,
    matrix: Callable[[Tensor], Tensor],
    cost: Callable[[Tensor, Tensor], Tensor],
) -> _Fitted:
    """Lower the cost, and return the best allowed matrix; infinite cost if there is none."""
    raw = raw.detach().clone().requires_grad_(True)
    optimizer, best = torch.optim.Adam([raw], lr=LR), _Fitted(inf, matrix(raw).detach())
    for _ in range(STEPS + 1):
        current = matrix(raw)
        value = cost(raw, current)
        if value.detach() < best.cost and evidence.allows(current.detach()):
            best = _Fitted(float(value.detach()), current.detach())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return best
