import math

import pytest
import torch
from torch import Tensor

from noisyfit.nn import losses
from noisyfit.nn.mixing import mixup
from tests.helpers import LiveMemory


def make(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradient(loss: Tensor, *inputs: Tensor) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss.sum(), inputs)])


def softmax_by_hand(row: list[float]) -> list[float]:
    weights = [math.exp(value - max(row)) for value in row]
    return [weight / sum(weights) for weight in weights]


def cosine_by_hand(a: list[float], b: list[float]) -> float:
    dot = sum(p * q for p, q in zip(a, b, strict=True))
    return dot / math.sqrt(sum(p * p for p in a) * sum(q * q for q in b))


def supervised_contrastive_by_hand(
    first: Tensor,
    second: Tensor,
    labels: list[int],
    temperature: float,
    reliability: list[float] | None = None,
) -> list[float]:
    weights = 2 * (reliability or [1.0] * len(labels))
    rows = first.double().tolist() + second.double().tolist()
    classes = labels + labels
    result = []
    for i in range(len(rows)):
        others = [j for j in range(len(rows)) if j != i]
        scores = {j: math.exp(cosine_by_hand(rows[i], rows[j]) / temperature) for j in others}
        positives = [j for j in others if classes[j] == classes[i]]
        terms = [-weights[j] * math.log(scores[j] / sum(scores.values())) for j in positives]
        result.append(weights[i] * sum(terms) / len(terms))
    return result


def clid_by_hand(embeddings: Tensor, probs: Tensor, temperature: float) -> list[float]:
    z, q = embeddings.double().tolist(), probs.double().tolist()
    rows = range(len(z))
    result = []
    for i in rows:
        scores = [math.exp(cosine_by_hand(z[i], z[j]) / temperature) for j in rows]
        affinities = [cosine_by_hand(q[i], q[j]) for j in rows]
        terms = [affinities[j] / sum(affinities) * math.log(scores[j] / sum(scores)) for j in rows]
        result.append(-sum(terms))
    return result


def neighbors_by_hand(probs: Tensor, n_neighbors: int) -> list[list[int]]:
    """Each row and the other rows whose predictions are most like its own."""
    q, rows = probs.double().tolist(), range(len(probs))
    return [
        [i, *sorted((j for j in rows if j != i), key=lambda j: -cosine_by_hand(q[i], q[j]))][
            : n_neighbors + 1
        ]
        for i in rows
    ]


def sparse_clid_by_hand(embeddings: Tensor, probs: Tensor, n_neighbors: int) -> list[float]:
    z, q = embeddings.double().tolist(), probs.double().tolist()
    result = []
    for i, connected in enumerate(neighbors_by_hand(probs, n_neighbors)):
        scores = {j: math.exp(cosine_by_hand(z[i], z[j]) / 0.5) for j in connected}
        affinities = {j: cosine_by_hand(q[i], q[j]) for j in connected}
        total, mass = sum(scores.values()), sum(affinities.values())
        terms = [affinities[j] / mass * math.log(scores[j] / total) for j in connected]
        result.append(-sum(terms))
    return result


def clid_literally(
    embeddings: Tensor, probs: Tensor, temperature: float, normalizer_grad: bool
) -> Tensor:
    """Eq. 7-9 line by line, with the two detached parts of the authors' code."""
    z = embeddings / embeddings.norm(dim=1, keepdim=True)
    q = probs / probs.norm(dim=1, keepdim=True)
    embedding_graph = torch.exp(z @ z.T / temperature).detach()
    class_graph = q @ q.T
    total = class_graph.sum(dim=1, keepdim=True)
    class_graph = class_graph / (total if normalizer_grad else total.detach())
    embedding_graph = embedding_graph / embedding_graph.sum(dim=1, keepdim=True)
    return -(class_graph * torch.log(embedding_graph)).sum(dim=1)


# Cross-entropy ------------------------------------------------------------------------------------


def test_cross_entropy__class_indices__equals_loops() -> None:
    logits, targets = make(5, 3, scale=3.0), [0, 2, 1, 1, 0]
    expected = [
        -math.log(softmax_by_hand(row)[target])
        for row, target in zip(logits.double().tolist(), targets, strict=True)
    ]
    result = losses.cross_entropy(logits, torch.tensor(targets))
    torch.testing.assert_close(result, torch.tensor(expected))


def test_cross_entropy__soft_targets__equals_loops() -> None:
    logits, targets = make(5, 3, scale=3.0), make(5, 3, seed=1).softmax(1)
    expected = [
        -sum(t * math.log(p) for t, p in zip(target, softmax_by_hand(row), strict=True))
        for row, target in zip(logits.double().tolist(), targets.double().tolist(), strict=True)
    ]
    torch.testing.assert_close(losses.cross_entropy(logits, targets), torch.tensor(expected))


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.float64])
def test_cross_entropy__one_hot_targets_of_any_type__equal_indices(dtype: torch.dtype) -> None:
    logits, labels = make(4, 3), torch.tensor([0, 2, 1, 1])
    one_hot = torch.nn.functional.one_hot(labels, 3).to(dtype)
    torch.testing.assert_close(
        losses.cross_entropy(logits, one_hot), losses.cross_entropy(logits, labels)
    )


def test_cross_entropy__half_precision_logits__is_computed_in_single_precision() -> None:
    logits, labels = make(4, 3).bfloat16(), torch.tensor([0, 2, 1, 1])
    result = losses.cross_entropy(logits, labels)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, losses.cross_entropy(logits.float(), labels))


def test_cross_entropy__huge_logits__has_finite_values_and_gradients() -> None:
    logits = make(4, 3, scale=1e4).requires_grad_()
    for targets in (torch.tensor([0, 2, 1, 1]), make(4, 3, seed=1).softmax(1)):
        result = losses.cross_entropy(logits, targets)
        assert result.isfinite().all()
        assert gradient(result, logits).isfinite().all()


# Confidence regulariser ---------------------------------------------------------------------------


def test_confidence_regularizer__equals_loops() -> None:
    logits, prior = make(5, 3, scale=3.0), [0.5, 0.3, 0.2]
    expected = [
        sum(q * math.log(p + 1e-8) for q, p in zip(prior, softmax_by_hand(row), strict=True))
        for row in logits.double().tolist()
    ]
    result = losses.confidence_regularizer(logits, torch.tensor(prior))
    torch.testing.assert_close(result, torch.tensor(expected))


def test_confidence_regularizer__is_lower_for_a_confident_prediction() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0], [4.0, 0.0, 0.0]])
    unsure, confident = losses.confidence_regularizer(logits, torch.full((3,), 1 / 3))
    assert confident < unsure - 1


def test_confidence_regularizer__huge_logits__stays_in_its_bounds_with_finite_gradients() -> None:
    logits = make(6, 3, scale=1e4).requires_grad_()
    result = losses.confidence_regularizer(logits, torch.tensor([0.5, 0.3, 0.2]))
    assert (result >= math.log(1e-8) - 1e-4).all()
    assert (result <= 1e-6).all()
    assert gradient(result, logits).isfinite().all()


def test_confidence_regularizer__class_without_prior__is_ignored() -> None:
    logits = torch.tensor([[0.0, 0.0, -1e4]])
    result = losses.confidence_regularizer(logits, torch.tensor([0.5, 0.5, 0.0]))
    torch.testing.assert_close(result, torch.tensor([math.log(0.5)]))


def test_confidence_regularizer__under_autocast__equals_single_precision() -> None:
    logits, prior = make(5, 3, scale=3.0), torch.tensor([0.5, 0.3, 0.2])
    expected = losses.confidence_regularizer(logits, prior)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = losses.confidence_regularizer(logits, prior)
    torch.testing.assert_close(result, expected)


# Contrastive losses -------------------------------------------------------------------------------


def test_contrastive__equals_loops() -> None:
    first, second = make(4, 3), make(4, 3, seed=1)
    expected = supervised_contrastive_by_hand(first, second, [0, 1, 2, 3], temperature=0.2)
    result = losses.contrastive(first, second, temperature=0.2)
    torch.testing.assert_close(result, torch.tensor(expected))


def test_contrastive__equal_views_of_orthogonal_rows__has_its_closed_form() -> None:
    # Three rows, so four other rows at cosine 0 and the own other view at cosine 1.
    result = losses.contrastive(torch.eye(3), 7 * torch.eye(3), temperature=0.5)
    expected = -math.log(math.exp(2) / (math.exp(2) + 4))
    torch.testing.assert_close(result, torch.full((6,), expected))


@pytest.mark.parametrize(
    "labels", [[0, 1, 0, 2], [1, 1, 1, 1], [0, 1, 2, 3]], ids=["mixed", "one class", "all differ"]
)
def test_reliability_contrastive__of_ones__is_supervised_contrast(labels: list[int]) -> None:
    first, second = make(4, 3), make(4, 3, seed=1)
    expected = supervised_contrastive_by_hand(first, second, labels, temperature=0.1)
    result = losses.reliability_contrastive(first, second, torch.tensor(labels), torch.ones(4))
    torch.testing.assert_close(result, torch.tensor(expected))


def test_reliability_contrastive__equals_loops() -> None:
    first, second = make(4, 3), make(4, 3, seed=1)
    labels, reliability = [0, 1, 0, 2], [0.9, 0.2, 0.0, 1.0]
    expected = supervised_contrastive_by_hand(first, second, labels, 0.2, reliability)
    result = losses.reliability_contrastive(
        first, second, torch.tensor(labels), torch.tensor(reliability), temperature=0.2
    )
    torch.testing.assert_close(result, torch.tensor(expected))


@pytest.mark.parametrize("n_samples", [0, 1])
def test_contrastive__fewer_than_two_samples__is_zero_and_differentiable(n_samples: int) -> None:
    first = make(n_samples, 3).requires_grad_()
    second = make(n_samples, 3, seed=1).requires_grad_()
    labels = torch.zeros(n_samples, dtype=torch.int64)
    for result in (
        losses.contrastive(first, second),
        losses.reliability_contrastive(first, second, labels, torch.ones(len(first))),
    ):
        torch.testing.assert_close(result, torch.zeros(2 * n_samples))
        found = gradient(result, first, second)
        torch.testing.assert_close(found, torch.zeros(6 * n_samples))


def test_contrastive__huge_projections__has_finite_values_and_gradients() -> None:
    first, second = (make(4, 3, seed=seed, scale=1e4).requires_grad_() for seed in (0, 1))
    result = losses.contrastive(first, second, temperature=0.01)
    assert result.isfinite().all()
    assert gradient(result, first, second).isfinite().all()


def test_contrastive__row_of_zeros__gets_no_gradient() -> None:
    # Dividing by the floor of the norm alone would multiply this row's gradient by 1e12.
    first, second = torch.zeros(2, 3, requires_grad=True), make(2, 3).requires_grad_()
    result = losses.contrastive(first, second)
    assert result.isfinite().all()
    from_first, from_second = torch.autograd.grad(result.sum(), (first, second))
    assert not from_first.any()
    assert from_second.any()


def test_contrastive__under_autocast__equals_single_precision() -> None:
    first, second = make(4, 3), make(4, 3, seed=1)
    expected = losses.contrastive(first, second)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = losses.contrastive(first, second)
    torch.testing.assert_close(result, expected)


def test_reliability_contrastive__gradient__equals_finite_differences_of_the_loops() -> None:
    first, second, labels = make(3, 2).requires_grad_(), make(3, 2, seed=1), [0, 1, 0]
    result = losses.reliability_contrastive(
        first, second, torch.tensor(labels), torch.ones(3), temperature=0.5
    )
    found = gradient(result, first)
    for entry in range(first.numel()):
        step = torch.zeros(6, dtype=torch.float64)
        step[entry] = 1e-6
        above, below = (
            sum(supervised_contrastive_by_hand(moved.reshape(3, 2), second, labels, 0.5))
            for moved in (first.detach().flatten() + step, first.detach().flatten() - step)
        )
        assert found[entry].item() == pytest.approx((above - below) / 2e-6, rel=1e-4, abs=1e-5)


# CLID ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_clid__equals_loops(temperature: float) -> None:
    embeddings, probs = make(7, 3).double(), make(7, 4, seed=1, scale=2.0).double().softmax(1)
    expected = torch.tensor(clid_by_hand(embeddings, probs, temperature), dtype=torch.float64)
    for normalizer_grad in (False, True):
        result = losses.clid(
            embeddings, probs, temperature=temperature, normalizer_grad=normalizer_grad
        )
        torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("normalizer_grad", [False, True])
def test_clid__gradient__equals_that_of_the_literal_formula(normalizer_grad: bool) -> None:
    embeddings, logits = make(9, 3).double(), make(9, 4, seed=1).double().requires_grad_()
    weight = torch.arange(1, 10)  # each row counts
    ours = losses.clid(embeddings, logits.softmax(1), normalizer_grad=normalizer_grad)
    theirs = clid_literally(embeddings, logits.softmax(1), 0.5, normalizer_grad)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(gradient(weight * ours, logits), gradient(weight * theirs, logits))


def test_clid__constant_or_differentiated_normalizer__has_another_gradient() -> None:
    embeddings, logits = make(9, 3), make(9, 4, seed=1).requires_grad_()
    found = [
        gradient(losses.clid(embeddings, logits.softmax(1), normalizer_grad=flag), logits)
        for flag in (False, True)
    ]
    assert not torch.allclose(found[0], found[1], rtol=0.1)


@pytest.mark.parametrize("n_samples", [1, 100, 1024])
def test_clid__same_embeddings__is_the_logarithm_of_the_number_of_rows(n_samples: int) -> None:
    result = losses.clid(torch.ones(n_samples, 3), make(n_samples, 4).softmax(1))
    torch.testing.assert_close(result, torch.full((n_samples,), math.log(n_samples)))


@pytest.mark.parametrize("normalizer_grad", [False, True])
def test_clid__blocks__equal_all_pairs_at_once(
    normalizer_grad: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n_samples, block_size in ((50, 120), (50, 1), (50, 10**6), (1025, 2**20)):
        embeddings = make(n_samples, 6).double()
        logits = make(n_samples, 4, seed=1).double().requires_grad_()
        embeddings[3], weight = 0.0, make(n_samples, seed=2).double()
        values, gradients = [], []
        for direct_rows in (0, 10**6):
            monkeypatch.setattr(losses, "_DIRECT_ROWS", direct_rows)
            monkeypatch.setattr(losses, "_BLOCK_SIZE", block_size)
            probs = logits.softmax(1) * (torch.arange(n_samples) != 5)[:, None]
            values.append(losses.clid(embeddings, probs, normalizer_grad=normalizer_grad))
            gradients.append(gradient(weight * values[-1], logits))
        torch.testing.assert_close(values[0], values[1], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("block_size", [2**20, 20, 1])
@pytest.mark.parametrize("n_neighbors", [1, 2, 5])
def test_clid__neighbors__equals_loops_over_the_kept_connections(
    n_neighbors: int, block_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "_BLOCK_SIZE", block_size)
    embeddings, probs = make(8, 3).double(), make(8, 4, seed=1, scale=2.0).double().softmax(1)
    expected = torch.tensor(
        sparse_clid_by_hand(embeddings, probs, n_neighbors), dtype=torch.float64
    )
    for normalizer_grad in (False, True):
        result = losses.clid(
            embeddings, probs, normalizer_grad=normalizer_grad, n_neighbors=n_neighbors
        )
        torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n_samples", [9, 1030])
def test_clid__as_many_neighbors_as_rows__is_the_value_of_all_pairs(n_samples: int) -> None:
    embeddings, probs = make(n_samples, 3), make(n_samples, 4, seed=1).softmax(1)
    dense = losses.clid(embeddings, probs)
    for n_neighbors in (n_samples - 1, n_samples, 2 * n_samples):
        assert torch.equal(losses.clid(embeddings, probs, n_neighbors=n_neighbors), dense)
    nearly = losses.clid(embeddings, probs, n_neighbors=n_samples - 2)
    torch.testing.assert_close(nearly, dense, rtol=0.2, atol=0)
    assert not torch.equal(nearly, dense)


@pytest.mark.parametrize("normalizer_grad", [False, True])
def test_clid__neighbors_of_many_rows__equal_the_literal_formula_on_a_masked_graph(
    normalizer_grad: bool,
) -> None:
    embeddings = make(1030, 5).double()
    logits = make(1030, 3, seed=1).double().requires_grad_()
    z = embeddings / embeddings.norm(dim=1, keepdim=True)
    q = logits.softmax(1) / logits.softmax(1).norm(dim=1, keepdim=True)
    nearest = (q @ q.T - 2 * torch.eye(1030)).topk(10, dim=1).indices
    kept = torch.eye(1030).scatter(1, nearest, 1.0).double()
    embedding_graph, class_graph = kept * torch.exp(z @ z.T / 0.5), kept * (q @ q.T)
    total = class_graph.sum(1, keepdim=True)
    class_graph = class_graph / (total if normalizer_grad else total.detach())
    shares = embedding_graph / embedding_graph.sum(1, keepdim=True)
    theirs = -(class_graph * torch.where(kept > 0, shares, 1.0).log()).sum(1)
    ours = losses.clid(
        embeddings, logits.softmax(1), normalizer_grad=normalizer_grad, n_neighbors=10
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        gradient(ours, logits), gradient(theirs, logits), rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("probs", ["zeros", "equal"])
def test_clid__neighbors_of_predictions_without_a_difference__stay_finite(probs: str) -> None:
    rows = torch.zeros(6, 4) if probs == "zeros" else torch.full((6, 4), 0.25)
    rows.requires_grad_()
    result = losses.clid(make(6, 3), rows, n_neighbors=2)
    (found,) = torch.autograd.grad(result.sum(), rows)
    assert result.isfinite().all()
    assert found.isfinite().all()
    assert bool(result.any()) == (probs == "equal")


@pytest.mark.parametrize("n_samples", [1024, 1025])
def test_clid__on_both_sides_of_the_limit__equals_the_literal_formula(n_samples: int) -> None:
    embeddings = make(n_samples, 5).double()
    logits = make(n_samples, 3, seed=1).double().requires_grad_()
    ours = losses.clid(embeddings, logits.softmax(1))
    theirs = clid_literally(embeddings, logits.softmax(1), 0.5, normalizer_grad=False)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        gradient(ours, logits), gradient(theirs, logits), rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("n_samples", [6, 1030])
def test_clid__rows_of_zeros__stay_finite(n_samples: int) -> None:
    embeddings, probs = make(n_samples, 3), make(n_samples, 4, seed=1).softmax(1)
    embeddings[0], probs[1] = 0.0, 0.0
    probs.requires_grad_()
    for normalizer_grad in (False, True):
        result = losses.clid(embeddings, probs, normalizer_grad=normalizer_grad)
        (found,) = torch.autograd.grad(result.sum(), probs)
        assert result.isfinite().all()
        assert result[1] == 0
        assert found.isfinite().all()
        assert found.abs().max() < 100
        assert not found[1].any()


def test_clid__embeddings__get_no_gradient() -> None:
    embeddings, logits = make(6, 3).requires_grad_(), make(6, 4, seed=1).requires_grad_()
    losses.clid(embeddings, logits.softmax(1)).mean().backward()
    assert embeddings.grad is None
    assert logits.grad is not None


def test_clid__double_stays_double__half_becomes_single() -> None:
    embeddings, probs = make(6, 3), make(6, 4, seed=1).softmax(1)
    assert losses.clid(embeddings, probs.double()).dtype == torch.float64
    result = losses.clid(embeddings.half(), probs.bfloat16())
    assert result.dtype == torch.float32
    expected = losses.clid(embeddings.half().float(), probs.bfloat16().float())
    torch.testing.assert_close(result, expected)


def test_clid__tiny_temperature_and_huge_embeddings__has_finite_values_and_gradients() -> None:
    embeddings, logits = make(6, 3, scale=1e4), make(6, 4, seed=1, scale=1e2).requires_grad_()
    result = losses.clid(embeddings, logits.softmax(1), temperature=1e-3)
    assert result.isfinite().all()
    assert gradient(result, logits).isfinite().all()


@pytest.mark.parametrize("n_samples", [6, 1030])
def test_clid__under_autocast__equals_single_precision(n_samples: int) -> None:
    embeddings, probs = make(n_samples, 3), make(n_samples, 4, seed=1).softmax(1)
    expected = losses.clid(embeddings, probs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = losses.clid(embeddings, probs)
    torch.testing.assert_close(result, expected)


def test_clid__many_rows__takes_at_most_80_megabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, logits = make(4096, 512), make(4096, 10, seed=1).requires_grad_()
    peaks = []
    for direct_rows in (losses._DIRECT_ROWS, 4096):
        monkeypatch.setattr(losses, "_DIRECT_ROWS", direct_rows)
        with LiveMemory() as memory:
            losses.clid(embeddings, logits.softmax(1)).mean().backward()
        peaks.append(memory.peak)
    assert peaks[0] < 80
    assert peaks[1] > 3 * 4096**2 * 4 / 1e6 - 10  # all pairs at once: what is measured is real


@pytest.mark.gpu
def test_losses__on_a_gpu__stay_there_and_wait_for_nothing() -> None:
    first, second = make(4, 3).cuda(), make(4, 3, seed=1).cuda()
    labels = torch.tensor([0, 1, 0, 2], device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        results = [
            losses.cross_entropy(first, labels % 3),
            losses.confidence_regularizer(first, first[0].softmax(0)),
            losses.contrastive(first, second),
            losses.reliability_contrastive(first, second, labels, torch.ones(len(first))),
            losses.clid(first, second.softmax(1)),
            losses.clid(first.repeat(300, 1), second.softmax(1).repeat(300, 1)),
            *mixup(first, second),
        ]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(result.is_cuda for result in results)


@pytest.mark.parametrize("loss", ["generalized_cross_entropy", "reverse_cross_entropy"])
def test_losses_of_labels__of_a_distribution__are_the_mean_over_its_classes(loss: str) -> None:
    function = getattr(losses, loss)
    logits, given = torch.randn(6, 4), torch.rand(6, 4).softmax(1)
    each = torch.stack([function(logits, torch.full((6,), k)) for k in range(4)], 1)
    torch.testing.assert_close(function(logits, given), (given * each).sum(1))
