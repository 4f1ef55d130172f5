import torch
from torch import Tensor

from noisyfit.nn.mixing import mixup


def make(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_mixup__rows_are_what_one_share_and_one_permutation_make_of_the_batch() -> None:
    x, targets = make(6, 4), make(6, 3, seed=1).softmax(1)
    torch.manual_seed(0)
    mixed_x, mixed_targets = mixup(x, targets)
    torch.manual_seed(0)
    ones = torch.ones(())
    share = torch.distributions.Beta(4 * ones, 4 * ones).sample().item()
    share = max(share, 1 - share)
    idx = torch.randperm(6).tolist()
    for i, j in enumerate(idx):
        for mixed, source in ((mixed_x, x), (mixed_targets, targets)):
            expected = [
                share * own + (1 - share) * other
                for own, other in zip(
                    source[i].double().tolist(), source[j].double().tolist(), strict=True
                )
            ]
            torch.testing.assert_close(mixed[i], torch.tensor(expected))


def test_mixup__each_sample_keeps_the_larger_share_and_targets_stay_distributions() -> None:
    torch.manual_seed(0)
    smallest, largest = 1.0, 0.0
    for _ in range(200):
        _, mixed = mixup(torch.zeros(3, 1), torch.eye(3))
        torch.testing.assert_close(mixed.sum(1), torch.ones(3))
        share = mixed.diagonal().min().item()
        assert share >= 0.5
        smallest, largest = min(smallest, share), max(largest, share)
    assert smallest < 0.55
    assert largest > 0.75


def test_mixup__larger_alpha__mixes_more_evenly() -> None:
    torch.manual_seed(0)

    def mean_share(alpha: float) -> float:
        shares = [
            mixup(torch.zeros(8, 1), torch.eye(8), alpha=alpha)[1].diagonal().min()
            for _ in range(100)
        ]
        return torch.stack(shares).mean().item()

    assert mean_share(50.0) < mean_share(4.0) < mean_share(0.2)


def test_mixup__one_sample__is_returned_exactly() -> None:
    x, targets = make(1, 4), torch.tensor([[0.1, 0.2, 0.7]])
    mixed_x, mixed_targets = mixup(x, targets)
    assert torch.equal(mixed_x, x)
    assert torch.equal(mixed_targets, targets)


def test_mixup__bytes__become_floats() -> None:
    x = torch.arange(256, dtype=torch.uint8).reshape(4, 1, 8, 8)
    mixed_x, _ = mixup(x, torch.eye(4))
    assert mixed_x.dtype == torch.float32
    assert mixed_x.shape == x.shape
    assert mixed_x.min() >= 0
    assert mixed_x.max() <= 255


def test_mixup__same_seed__gives_the_same_batch() -> None:
    x, targets = make(6, 4), torch.eye(6)
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        results.append(mixup(x, targets)[0])
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
