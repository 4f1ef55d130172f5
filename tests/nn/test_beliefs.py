import pytest
import torch

from noisyfit.nn import beliefs


def test_given_probability__is_the_entry_of_the_label() -> None:
    probs = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.5, 0.4, 0.1]])
    found = beliefs.given_probability(probs, torch.tensor([1, 2, -1]))
    assert found.tolist()[:2] == [float(probs[0, 1]), float(probs[1, 2])]
    assert len(found) == 3


def test_sharpen_raises_to_the_inverse_temperature() -> None:
    got = beliefs.sharpen(torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64), 0.5)
    squares = torch.tensor([[0.25, 0.09, 0.04]], dtype=torch.float64)
    torch.testing.assert_close(got, squares / squares.sum(), rtol=1e-12, atol=0)


def test_refurbish__is_the_label_as_far_as_it_is_clean() -> None:
    probs = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], dtype=torch.float64)
    got = beliefs.refurbish(torch.tensor([0.25, 0.0]).double(), torch.tensor([2, -1]), probs)
    expected = [[0.75 * 0.7, 0.75 * 0.2, 0.25 + 0.75 * 0.1], [0.1, 0.1, 0.8]]
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64))


def test_newest_share__makes_a_mean_with_momentum_without_a_zero_start() -> None:
    values, mean = [3.0, 5.0, -2.0], 0.0
    for epoch, value in enumerate(values):
        mean += beliefs.newest_share(0.6, epoch) * (value - mean)
    weights = [0.6**2, 0.6, 1.0]
    total = sum(w * v for w, v in zip(weights, values, strict=True))
    assert mean == pytest.approx(total / sum(weights))


def test_refurbish__of_distributions__mixes_them() -> None:
    probs = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64)
    labels = torch.tensor([[0.5, 0.0, 0.5]], dtype=torch.float64)
    got = beliefs.refurbish(torch.tensor([0.25]).double(), labels, probs)
    expected = [[0.75 * 0.7 + 0.125, 0.75 * 0.2, 0.75 * 0.1 + 0.125]]
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64))
    assert probs.tolist() == [[0.7, 0.2, 0.1]]  # left alone


def test_one_hot__has_a_one_at_the_label__and_none_without() -> None:
    found = beliefs.one_hot(torch.tensor([2, -1, 0]), 3)
    assert found.tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]
    assert found.dtype == torch.float32


def test_mean_of__divides_by_the_number_of_epochs__uniform_before_the_first() -> None:
    sums = torch.tensor([[0.7 + 0.1, 0.3 + 0.9], [0.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor([[0.4, 0.6], [0.5, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(beliefs.mean_of(sums), expected)
