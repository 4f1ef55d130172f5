"""The transition matrix that explains given labels, against matrices that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from noisyfit.nn import transition
from noisyfit.nn.transition import (
    _Fitted,
    _mean,
    calibrate,
    deconvolve,
    fit_transition,
    posterior,
)

PAIRS = 0.6 * np.eye(5) + 0.4 * np.roll(np.eye(5), 1, axis=1)
SPREAD = 0.5 * np.eye(5) + 0.5 * (1 - np.eye(5)) / 4
NONE = np.eye(5)


def problem(matrix: NDArray[np.float64], seed: int, n: int = 600) -> tuple[Tensor, ...]:
    """Draw true classes, given labels, and what a good network says of the given labels."""
    rng = np.random.default_rng(seed)
    n_classes = len(matrix)
    true = rng.integers(n_classes, size=n)
    logits = 4 * np.eye(n_classes)[true] + rng.normal(size=(n, n_classes))
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    true = np.array([rng.choice(n_classes, p=p) for p in probs])
    given = np.array([rng.choice(n_classes, p=matrix[k]) for k in true])
    seen = np.log(np.clip(probs @ matrix, 1e-3, None)) + rng.normal(scale=0.3, size=probs.shape)
    seen = np.exp(seen) / np.exp(seen).sum(1, keepdims=True)
    return torch.tensor(seen).float(), torch.tensor(given), torch.tensor(true)


@pytest.mark.parametrize(
    "matrix",
    [
        pytest.param(PAIRS, id="pairs", marks=pytest.mark.slow),
        pytest.param(SPREAD, id="spread", marks=pytest.mark.long),
        pytest.param(NONE, id="none", marks=pytest.mark.long),
    ],
)
def test_fit_transition__known_matrix__is_found(matrix: NDArray[np.float64]) -> None:
    for seed in range(3):
        seen, given, true = problem(matrix, seed)
        found, beliefs = fit_transition(seen, given)
        assert np.abs(found.numpy() - matrix).sum(1).mean() < 0.2
        right = (posterior(beliefs, given, found).argmax(1) == true).float().mean()
        assert right > (given == true).float().mean() + 0.2 or matrix is NONE and right > 0.95


@pytest.mark.long
def test_fit_transition__many_rows_sorted_by_label__finds_the_mistakes_of_all() -> None:
    """Only the first 5,000 rows were read: of a folder of images, those of the first classes."""
    matrix = 0.6 * np.eye(3) + 0.4 * (1 - np.eye(3)) / 2
    seen, given, _ = problem(matrix, 0, 9000)
    order = given.argsort()
    found = fit_transition(seen[order], given[order]).matrix.numpy()
    assert np.abs(found - matrix).sum(1).max() < 0.2


def test_fit_transition__two_classes__finds_how_many_are_wrong() -> None:
    matrix = np.array([[0.7, 0.3], [0.3, 0.7]])
    for seed in range(3):
        found = fit_transition(*problem(matrix, seed, 2000)[:2]).matrix
        assert np.abs(found.numpy() - matrix).max() < 0.1


def test_fit_transition__rows_without_a_label__are_believed_and_do_not_count() -> None:
    seen, given, _ = problem(PAIRS, 0)
    extra = torch.full_like(seen[:50], 0.2)
    both = fit_transition(torch.cat([seen, extra]), torch.cat([given, torch.full((50,), -1)]))
    alone = fit_transition(seen, given)
    assert torch.equal(both.matrix, alone.matrix)
    torch.testing.assert_close(both.beliefs[:600], alone.beliefs, rtol=1e-5, atol=1e-8)
    assert both.beliefs.shape == (650, 5)


def test_evidence__classes_that_changed_places__are_not_allowed() -> None:
    seen, given, _ = problem(PAIRS, 0)
    evidence = transition._Evidence(seen, given)
    right = torch.tensor(PAIRS).float()
    swapped = torch.tensor(0.55 * np.eye(5) + 0.45 * np.roll(np.eye(5), -1, axis=1)).float()
    assert evidence.allows(right)
    assert not evidence.allows(swapped)
    assert not evidence.allows(1 - right)


def test_deconvolve__is_the_rule_of_richardson_and_lucy() -> None:
    seen = problem(PAIRS, 1, 20)[0]
    expected = seen.double().numpy()
    for _ in range(transition.DECONVOLUTION_STEPS):
        for i in range(20):
            ratio = seen.double().numpy()[i] / (expected[i] @ PAIRS)
            factors = np.array([sum(PAIRS[k] * ratio) for k in range(5)])
            step = expected[i] * factors**transition.ACCELERATION
            expected[i] = step / step.sum()
    got = deconvolve(seen, torch.tensor(PAIRS).float())
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-5)


def test_deconvolve__without_mistakes__changes_nothing() -> None:
    seen = problem(NONE, 1, 20)[0]
    torch.testing.assert_close(deconvolve(seen, torch.eye(5)), seen)


def test_posterior__is_the_rule_of_bayes() -> None:
    beliefs = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7], [0.3, 0.3, 0.4]])
    matrix = torch.tensor([[0.6, 0.4, 0.0], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
    got = posterior(beliefs, torch.tensor([1, 0, -1]), matrix)
    joint = np.array([0.7 * 0.4, 0.2 * 0.8, 0.1 * 0.2])
    np.testing.assert_allclose(got[0].numpy(), joint / joint.sum(), rtol=1e-6)
    joint = np.array([0.1 * 0.6, 0.2 * 0.1, 0.7 * 0.2])
    np.testing.assert_allclose(got[1].numpy(), joint / joint.sum(), rtol=1e-6)
    assert torch.equal(got[2], beliefs[2])


def test_posterior__label_that_cannot_be__leaves_the_belief() -> None:
    belief = torch.tensor([[1.0, 0.0]])
    assert torch.equal(posterior(belief, torch.tensor([1]), torch.eye(2)), belief)


def test_calibrate__takes_the_most_probable_mixture() -> None:
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.full(4, 0.3), size=300)
    labels = np.where(rng.random(300) < 0.5, probs.argmax(1), rng.integers(4, size=300))
    got, likelihood = calibrate(torch.tensor(probs).float(), torch.tensor([*labels[:-1], -1]))
    shares = np.bincount(labels[:-1], minlength=4) / 299
    mixtures = [a * probs + (1 - a) * shares for a in transition.PREDICTED_SHARES]
    given = [np.log(m[np.arange(299), labels[:-1]]) for m in mixtures]
    best = int(np.argmax([values.mean() for values in given]))
    assert 0 < best < len(mixtures) - 1
    np.testing.assert_allclose(got.numpy(), mixtures[best], atol=1e-5)
    np.testing.assert_allclose(likelihood.numpy(), given[best], atol=1e-4)


def test_mean__forms_count_by_their_likelihood() -> None:
    right, wrong = torch.eye(3), torch.eye(3).roll(1, 0)
    cost = 0.01  # a row
    for nats in (0.0, 3.0, 30.0):
        found = [_Fitted(cost, right), _Fitted(cost + nats / 200, wrong), _Fitted(math.inf, wrong)]
        share = math.exp(-nats / 3) / (1 + math.exp(-nats / 3))
        expected = (1 - share) * right + share * wrong
        np.testing.assert_allclose(_mean(found, 200), expected, atol=1e-5)


def test_posterior__of_a_distribution__is_the_mean_over_the_labels_it_may_be() -> None:
    rng = np.random.default_rng(0)
    beliefs, given = rng.dirichlet([1, 1, 1], 5), rng.dirichlet([1, 1, 1], 5)
    matrix = rng.dirichlet([1, 1, 1], 3)
    given[4] = 0  # without a label
    expected = np.zeros((5, 3))
    for row in range(5):
        for label in range(3):
            joint = beliefs[row] * matrix[:, label]
            expected[row] += given[row, label] * joint / joint.sum()
    expected[4] = beliefs[4]
    found = posterior(*map(torch.tensor, (beliefs, given, matrix)))
    np.testing.assert_allclose(found, expected)
