from collections.abc import Iterator

import numpy as np
import pytest
import torch

from noisyfit.data.rows import Rows
from noisyfit.data.training import TrainingData, batch_bounds, best_of_each_class, draw_evenly
from tests.helpers import table, training


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 9, 16, 17, 129])
@pytest.mark.parametrize("size", [2, 8, 128])
def test_batch_bounds_cut_the_range_into_batches_without_a_rest_of_one(n: int, size: int) -> None:
    bounds = batch_bounds(n, size)
    rows = [i for start, stop in bounds for i in range(start, stop)]
    lengths = [stop - start for start, stop in bounds]
    assert rows == list(range(n))
    assert lengths[:-1] == [size] * (len(lengths) - 1)
    assert 1 <= lengths[-1] <= size + 1
    assert lengths[-1] > 1 or n == 1
    assert lengths[-1] <= size or n % size == 1


def test_batch_bounds__no_rows__are_none() -> None:
    assert batch_bounds(0, 4) == []


@pytest.mark.parametrize("n, batch_size", [(10, 4), (9, 4), (5, 128), (129, 128), (1, 2)], ids=str)
def test_batches_serve_each_row_once_with_its_label(n: int, batch_size: int) -> None:
    data = training(n, batch_size)
    seen = []
    for idx, x, labels in data.batches("plain"):
        np.testing.assert_array_equal(x.numpy(), table(n)[idx.numpy()])
        assert labels.tolist() == [int(i) % 2 for i in idx]
        assert len(idx) > 1 or n == 1
        seen += idx.tolist()
    assert sorted(seen) == list(range(n))


def test_batches_come_in_a_new_order_each_time() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        data = training(64, 8)
        first, second = ([i for idx, *_ in data.batches() for i in idx.tolist()] for _ in range(2))
    assert first != second
    assert sorted(first) == sorted(second) == list(range(64))
    assert first != list(range(64))


def test_batches__labelled__leave_rows_without_a_label_out() -> None:
    labels = torch.tensor([0, -1, 1, -1, 0, 1, -1, 0, 1])
    data = training(9, 3, labels)
    seen = []
    for idx, x, given in data.batches("plain", labelled=True):
        assert (given >= 0).all()
        np.testing.assert_array_equal(given, labels[idx])
        np.testing.assert_array_equal(x.numpy(), table(9)[idx.numpy()])
        seen += idx.tolist()
    assert sorted(seen) == [0, 2, 4, 5, 7, 8]
    assert sorted(i for idx, *_ in data.batches() for i in idx.tolist()) == list(range(9))


def test_batches__labelled__rest_of_one_joins() -> None:
    data = training(8, 2, [0, 1, 0, -1, -1, -1, 1, 1])  # five labels
    lengths = [len(idx) for idx, *_ in data.batches(labelled=True)]
    assert lengths == [2, 3]


def test_batches__of_some_rows__count_within_them() -> None:
    index = torch.tensor([8, 2, 5])
    data = training(10, 2, [1, 0, 1], index=index)
    assert len(data) == 3
    for idx, x, labels in data.batches("plain"):
        np.testing.assert_array_equal(x.numpy(), table(10)[index[idx].numpy()])
        np.testing.assert_array_equal(labels, torch.tensor([1, 0, 1])[idx])
    np.testing.assert_array_equal(torch.cat(list(data.in_order())), table(10)[[8, 2, 5]])


@pytest.mark.parametrize("batch_size", [3, 4, 128])
def test_chunks__of_many_batches__serve_the_same_batches(
    batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def batches(data: TrainingData) -> Iterator[tuple[list[int], list[list[float]]]]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for idx, x, _ in data.batches("plain"):
                yield idx.tolist(), x.tolist()

    data = training(25, batch_size)
    one_by_one = list(batches(data))
    bounds = batch_bounds(25, batch_size)
    monkeypatch.setattr(
        data,
        "_chunks",
        lambda n: iter([(0, n, bounds)]),  # as on a GPU, where chunks hold many batches
    )
    assert list(batches(data)) == one_by_one


@pytest.mark.gpu
def test_on_a_gpu__batches_serve_each_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noisyfit.data.training.GPU_CHUNK", 8)
    gpu = torch.device("cuda")
    rows = Rows(table(25), "table", gpu)
    codes = torch.arange(25, device=gpu)
    data = TrainingData(rows, codes, codes < 0, 25, 3)
    seen = []
    for idx, x, labels in data.batches("plain"):
        np.testing.assert_array_equal(x.cpu().numpy(), table(25)[idx.cpu().numpy()])
        assert torch.equal(labels, idx)
        seen += idx.tolist()
    assert sorted(seen) == list(range(25))


def test_best_of_each_class__takes_the_same_share_of_every_class() -> None:
    labels = torch.tensor([0, 0, 0, 0, 1, 1, -1, 2])
    rating = torch.tensor([0.1, 0.9, 0.5, 0.4, 0.2, 0.3, 1.0, 0.0])
    assert best_of_each_class(rating, labels, 0.5, 4).tolist() == [1, 2, 5, 7]
    assert best_of_each_class(rating, labels, 0.0, 4).tolist() == []


def drawn_by_hand(rating: list[float], labels: list[int], n_classes: int) -> list[int]:
    """The classes take turns; none gives more than half of its rows."""
    queues = []
    for code in range(n_classes):
        rows = sorted(
            (i for i in range(len(labels)) if labels[i] == code), key=lambda i: -rating[i]
        )
        queues.append(rows[: len(rows) // 2])
    found: list[int] = []
    while any(queues):
        found += [queue.pop(0) for queue in queues if queue]
    return sorted(found[: min(1000, len(labels) // 2)])


@pytest.mark.parametrize(
    "sizes", [[40, 40, 40], [100, 6, 1], [3, 0, 90], [1, 1, 1], [3000, 200, 900]], ids=str
)
def test_draw_evenly__equals_turns_of_the_classes(sizes: list[int]) -> None:
    labels = torch.tensor([code for code, size in enumerate([*sizes, 5]) for _ in range(size)])
    labels = labels.masked_fill(labels == len(sizes), -1)
    torch.manual_seed(0)
    labels, rating = labels[torch.randperm(len(labels))], torch.rand(len(labels))
    found = draw_evenly(rating, labels, 3)
    assert found.tolist() == drawn_by_hand(rating.tolist(), labels.tolist(), 3)


def test_draw_evenly__classes_of_any_size__are_as_even_as_half_of_each_allows() -> None:
    labels = torch.tensor([0] * 3000 + [1] * 200 + [2] * 900)
    found = draw_evenly(torch.rand(len(labels)), labels, 3)
    assert torch.bincount(labels[found]).tolist() == [450, 100, 450]
