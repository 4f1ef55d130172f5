"""How well beliefs explain labels, and how much each of several predictors has to say."""

from typing import Any

import numpy as np
import pytest
import torch

from noisyfit import noise
from noisyfit.nn import held_out
from noisyfit.nn.held_out import explain, mixture_weights, softened


def test_explain__is_what_expectation_maximisation_finds() -> None:
    rng = np.random.default_rng(0)
    beliefs, labels = rng.dirichlet([0.5] * 3, 40), rng.integers(0, 3, 40)
    prior, best = held_out.PRIOR_LABELS / 3, (-np.inf, 0.0)
    for temperature in held_out.TEMPERATURES:
        p = beliefs ** (1 / temperature)
        p /= p.sum(1, keepdims=True)
        matrix = np.full((3, 3), prior)
        for n in range(40):
            matrix[:, labels[n]] += p[n]
        matrix /= matrix.sum(1, keepdims=True)
        for _ in range(held_out.N_STEPS):
            counts = np.full((3, 3), prior)
            for n in range(40):
                joint = p[n] * matrix[:, labels[n]]
                counts[:, labels[n]] += joint / joint.sum()
            matrix = counts / counts.sum(1, keepdims=True)
        best = max(
            best, (np.mean([np.log((p[n] @ matrix)[labels[n]]) for n in range(40)]), temperature)
        )
    found = explain(torch.as_tensor(beliefs), torch.as_tensor(labels))
    assert found.temperature == best[1]
    assert float(found.likelihoods.mean()) == pytest.approx(best[0], rel=1e-6)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_explain__beliefs_that_are_too_sure__are_softened(seed: int) -> None:
    rng = np.random.default_rng(seed)
    honest = torch.as_tensor(rng.dirichlet([0.5] * 4, 4000))
    truth = torch.multinomial(honest, 1, generator=torch.Generator().manual_seed(seed))[:, 0]
    given = torch.as_tensor(noise.symmetric(truth.numpy(), 0.2, random_state=seed).labels)
    assert explain(softened(honest, 0.5), given).temperature in (1.5, 2.0, 3.0)
    assert explain(honest, given).temperature in (0.7, 1.0, 1.5)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("kind", [noise.symmetric, noise.pairflip])
def test_explain__wrong_labels__the_truth_explains_them_better_than_mistakes(
    kind: Any, seed: int
) -> None:
    """A classifier that predicts the true class, and one that is wrong in one row of ten."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, 1000)
    given = torch.as_tensor(kind(truth, 0.4, random_state=seed).labels)
    mistaken = np.where(rng.random(1000) < 0.1, rng.integers(0, 4, 1000), truth)
    right, wrong = (
        explain(torch.eye(4)[torch.as_tensor(classes)] * 0.96 + 0.01, given).likelihoods
        for classes in (truth, mistaken)
    )
    difference = right - wrong
    assert difference.mean() > 2 * difference.std() / 1000**0.5


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_mixture_weights__labels_drawn_from_a_mixture__are_its_shares(seed: int) -> None:
    rng = np.random.default_rng(seed)
    predictors = rng.dirichlet([0.3] * 4, (2, 5000))
    source = (rng.random(5000) < 0.3).astype(int)  # the second one in three rows of ten
    truth = np.array([rng.choice(4, p=predictors[k, n]) for n, k in enumerate(source)])
    for labels in (truth, noise.pairflip(truth, 0.2, random_state=seed).labels):
        weights = mixture_weights(torch.as_tensor(predictors), torch.as_tensor(labels))
        np.testing.assert_allclose(weights.numpy(), [0.7, 0.3], atol=0.06)
        assert float(weights.sum()) == pytest.approx(1)


def test_mixture_weights__is_what_expectation_maximisation_finds() -> None:
    rng = np.random.default_rng(0)
    p, labels = rng.dirichlet([0.5] * 3, (2, 40)), rng.integers(0, 3, 40)
    prior = held_out.PRIOR_LABELS / 3
    weights, matrix = np.full(2, 0.5), np.full((3, 3), prior)
    for n in range(40):
        matrix[:, labels[n]] += (p[0, n] + p[1, n]) / 2
    matrix /= matrix.sum(1, keepdims=True)
    for _ in range(held_out.N_STEPS):
        shares, counts = np.zeros(2), np.full((3, 3), prior)
        for n in range(40):
            joint = np.array([weights[m] * p[m, n] * matrix[:, labels[n]] for m in range(2)])
            joint /= joint.sum()
            shares += joint.sum(1) / 40
            counts[:, labels[n]] += joint.sum(0)
        weights, matrix = shares, counts / counts.sum(1, keepdims=True)
    found = mixture_weights(torch.as_tensor(p), torch.as_tensor(labels))
    np.testing.assert_allclose(found.numpy(), weights, rtol=1e-6)
