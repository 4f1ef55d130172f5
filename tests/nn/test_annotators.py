"""What votes and predictions say together, again row by row in float64."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from noisyfit.nn.annotators import Votes, agree, confusion_matrices, right_votes, vote_counts

CODES = np.array([[0, 1, -1], [0, 0, 2], [2, -1, 2], [-1, 1, 1], [1, 1, 0], [-1, -1, -1]])


def counts_of(beliefs: NDArray[Any]) -> NDArray[Any]:
    counts = np.zeros((3, 3, 3))
    for row, votes in enumerate(CODES):
        for annotator, vote in enumerate(votes):
            for true in range(3):
                if vote >= 0:
                    counts[annotator, true, vote] += beliefs[row, true]
    return counts


def shared_mistakes(counts: NDArray[Any]) -> NDArray[Any]:
    shared = counts.sum(0) + np.eye(3) + 0.1
    shared /= shared.sum(1, keepdims=True)
    average = sum(counts[a, k, k] for a in range(3) for k in range(3)) / counts.sum()
    found = np.zeros((3, 3, 3))
    for a in range(3):
        right = sum(counts[a, k, k] for k in range(3))
        share = (right + 5 * average) / (counts[a].sum() + 5)
        for k in range(3):
            own = min(max(share * shared[k, k] / average, 0.02), 0.98)
            others = 1 - shared[k, k]
            for v in range(3):
                found[a, k, v] = own if v == k else (1 - own) * shared[k, v] / others
    return found


def example() -> tuple[NDArray[Any], NDArray[Any], Votes]:
    beliefs = np.random.default_rng(0).dirichlet([1, 1, 1], 6)
    shares = np.array([[np.sum(v == k) / max(1, np.sum(v >= 0)) for k in range(3)] for v in CODES])
    return beliefs, shares, Votes.of(torch.tensor(CODES), 3)


def joined(beliefs: NDArray[Any], matrices: NDArray[Any]) -> NDArray[Any]:
    turn = np.zeros((6, 3))
    for row in range(6):
        for true in range(3):
            said = (matrices[a, true, v] for a, v in enumerate(CODES[row]) if v >= 0)
            turn[row, true] = max(beliefs[row, true], 1e-3) * math.prod(said)
    return turn / turn.sum(1, keepdims=True)


def test_agree__is_bayes_rule_in_turns_with_the_annotators() -> None:
    beliefs, joint, votes = example()
    found = agree(torch.tensor(beliefs), votes, torch.tensor(joint))
    for _ in range(20):
        joint = joined(beliefs, shared_mistakes(counts_of(joint)))
    np.testing.assert_allclose(found.numpy(), joint, rtol=1e-8)


def own_mistakes(counts: NDArray[Any]) -> NDArray[Any]:
    expected = counts + 10 * shared_mistakes(counts)
    return expected / expected.sum(2, keepdims=True)  # type: ignore[no-any-return]


def test_confusion__joins_once_more_and_adds_ten_votes_like_those_of_all() -> None:
    beliefs, shares, votes = example()
    expected = own_mistakes(counts_of(joined(beliefs, own_mistakes(counts_of(shares)))))
    found = confusion_matrices(torch.tensor(beliefs), votes, torch.tensor(shares))
    np.testing.assert_allclose(found, expected)


def test_right_votes__are_the_mean_belief_in_what_was_said() -> None:
    beliefs, _, votes = example()
    for annotator, found in enumerate(right_votes(torch.tensor(beliefs), votes)):
        said = [beliefs[row, v] for row, v in enumerate(CODES[:, annotator]) if v >= 0]
        assert float(found) == pytest.approx(np.mean(said))
    assert vote_counts(votes).tolist() == [2, 3, 2, 2, 3, 0]


def test_right_votes__nobody_voted__is_nan() -> None:
    votes = Votes.of(torch.tensor([[0, -1], [1, -1]]), 2)
    assert right_votes(torch.eye(2), votes).isnan().tolist() == [False, True]
