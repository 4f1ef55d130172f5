import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

import noisyfit.datasets
from noisyfit import CrossEntropyClassifier, datasets
from noisyfit.data.rows import Rows, dataset_labels
from noisyfit.datasets import (
    ImageFiles,
    fetch_cifar10,
    fetch_cifar100,
    load_adult,
    load_animal10n,
    load_cifar10n,
    load_clothing1m,
    load_fashion_mnist,
    load_food101n,
    load_label_issues,
    load_music_genre,
    load_ood,
    load_red_mini_imagenet,
    load_sentiment_votes,
    load_table,
    load_tiny_imagenet,
    load_weak_text,
    load_webvision,
)
from noisyfit.datasets.ood import LAYOUTS

Labels = NDArray[np.int64]
OFFLINE: dict[str, tuple[Callable[..., Any], str]] = {
    "cifar10n": (load_cifar10n, "cifar10n.npz"),
    "fashion_mnist": (load_fashion_mnist, "fashion_mnist.npz"),
    "weak_text": (load_weak_text, "trec_weak.npz"),
    "music_genre": (load_music_genre, "music_genre_crowd.npz"),
    "sentiment_votes": (load_sentiment_votes, "sentiment_polarity_votes.npz"),
    "adult": (load_adult, "adult_census.npz"),
    "label_issues": (load_label_issues, "label_issues_cifar10_test.npz"),
    "table": (partial(load_table, "crx"), "tables.zip"),
}
ON_DISK: dict[str, Callable[..., ImageFiles]] = {
    "animal10n": load_animal10n,
    "food101n": load_food101n,
    "clothing1m": load_clothing1m,
    "webvision": load_webvision,
    "red_mini_imagenet": load_red_mini_imagenet,
    "tiny_imagenet": load_tiny_imagenet,
}
every_archive = pytest.mark.parametrize("name", OFFLINE)
every_layout = pytest.mark.parametrize("name", ON_DISK)


def percent_wrong(given: Labels, clean: Labels) -> float:
    labelled = given >= 0
    return round(100 * float(np.mean(given[labelled] != clean[labelled])), 1)


# Archives


@every_archive
def test_load__file_missing__names_folder_file_and_remedy(name: str, tmp_path: Path) -> None:
    load, file = OFFLINE[name]
    with pytest.raises(FileNotFoundError, match="Nothing is downloaded") as error:
        load(data_home=tmp_path)
    assert repr(str(tmp_path)) in str(error.value)
    assert repr(file) in str(error.value)
    assert "data_home=" in str(error.value)


@every_archive
def test_load__no_folder_named__says_how(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOISYFIT_DATA", raising=False)
    with pytest.raises(ValueError, match="Pass data_home=, or set NOISYFIT_DATA"):
        OFFLINE[name][0]()


@every_archive
def test_load__folder_does_not_exist__says_so(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="must exist.*nowhere"):
        OFFLINE[name][0](data_home=tmp_path / "nowhere")


@every_archive
def test_load__another_file_of_that_name__lists_what_lacks(name: str, tmp_path: Path) -> None:
    load, file = OFFLINE[name]
    np.savez(tmp_path / "other.npz", something=np.zeros(3))
    (tmp_path / "other.npz").rename(tmp_path / file)
    with pytest.raises((ValueError, FileNotFoundError), match="must hold .* replace it"):
        load(data_home=tmp_path)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: load_cifar10n("wrost"), r"labels must be one of 'worst', .*Did you mean 'worst'"),
        (lambda: load_cifar10n(subset="tset"), "subset must be one of 'train', 'test'"),
        (lambda: load_fashion_mnist(subset="valid"), "subset must be one of"),
        (lambda: load_weak_text("trek"), "name must be one of .*Did you mean 'trec'"),
        (lambda: load_weak_text(labels="single"), "labels must be one of 'majority', 'clean'"),
        (lambda: load_music_genre("worst"), "labels must be one of 'single'"),
        (lambda: load_adult("one-hot"), "categories must be one of .*Did you mean 'onehot'"),
        (lambda: load_table("vowels"), "name must be one of .*Did you mean 'vowel'"),
        (lambda: load_table("vowel", categories="code"), "categories must be one of .*'codes'"),
        (lambda: load_label_issues("cifar"), "name must be one of .*Did you mean 'cifar10'"),
        (lambda: load_ood("svnh"), "name must be one of 'svhn', .*Did you mean 'svhn'"),
        (lambda: fetch_cifar10("worse"), "labels must be one of .*Did you mean 'worst'"),
        (lambda: fetch_cifar100("worst"), "labels must be one of 'clean', 'noisy'"),
    ],
)
def test_load__unknown_name__lists_what_there_is(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def small_cifar10n(folder: Path) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(0)
    arrays: dict[str, NDArray[Any]] = {
        "x_train": rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8),
        "x_test": rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8),
        "y_test": np.arange(4),
        "train_index": np.arange(6),
        "test_index": np.arange(4),
        "test_human_counts": np.ones((4, 10), dtype=np.int64),
        "class_names": np.array(list("abcdefghij")),
    }
    names = ("clean", "aggre", "worst", "random1", "random2", "random3")
    arrays |= {f"y_{name}": rng.integers(0, 10, 6) for name in names}
    np.savez(folder / "cifar10n.npz", **arrays)  # type: ignore[arg-type]
    return arrays


def test_load_cifar10n__each_set_of_labels__is_that_of_the_file(tmp_path: Path) -> None:
    arrays = small_cifar10n(tmp_path)
    for name in ("worst", "aggre", "random1", "random2", "random3", "clean"):
        bunch = load_cifar10n(name, data_home=tmp_path)
        assert bunch.target.tolist() == arrays[f"y_{name}"].tolist()
        assert bunch.target_clean.tolist() == arrays["y_clean"].tolist()
        assert bunch.label_sets[name].tolist() == bunch.target.tolist()


def test_load_cifar10n__features__are_of_the_first_rows(tmp_path: Path) -> None:
    arrays = small_cifar10n(tmp_path)
    seen = {"X_train": np.ones((5, 7), np.float16), "X_test": np.zeros((4, 7), np.float16)}
    np.savez(tmp_path / "cifar10n_features.npz", **seen)  # type: ignore[arg-type]
    bunch = load_cifar10n(features=True, data_home=tmp_path)
    assert bunch.data.shape == (5, 7)
    assert bunch.data_test.shape == (4, 7)
    assert bunch.data.dtype == np.float32
    assert bunch.target.tolist() == arrays["y_worst"][:5].tolist()
    assert bunch.target_clean.tolist() == arrays["y_clean"][:5].tolist()


def test_load__return_X_y__gives_the_rows_of_the_subset(tmp_path: Path) -> None:
    arrays = small_cifar10n(tmp_path)
    X, y = load_cifar10n(data_home=str(tmp_path), return_X_y=True)
    np.testing.assert_array_equal(X, arrays["x_train"])
    np.testing.assert_array_equal(y, arrays["y_worst"])
    X, y = load_cifar10n(subset="test", data_home=tmp_path, return_X_y=True)
    np.testing.assert_array_equal(X, arrays["x_test"])
    np.testing.assert_array_equal(y, arrays["y_test"])


def test_load__data_home__comes_before_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOISYFIT_DATA", str(tmp_path / "elsewhere"))
    small_cifar10n(tmp_path)
    bunch = load_cifar10n(data_home=tmp_path)
    assert bunch.filename == str(tmp_path / "cifar10n.npz")
    assert bunch.DESCR.startswith("Load half of CIFAR-10")
    monkeypatch.setenv("NOISYFIT_DATA", str(tmp_path))
    assert load_cifar10n().filename == bunch.filename


@pytest.mark.data
def test_cifar10n__has_the_noise_that_its_page_states() -> None:
    bunch = load_cifar10n()
    assert (bunch.data.dtype, bunch.data.shape) == (np.uint8, (25000, 32, 32, 3))
    assert (bunch.data_test.dtype, bunch.data_test.shape) == (np.uint8, (5000, 32, 32, 3))
    assert bunch.target.dtype == bunch.target_test.dtype == np.int64
    found = {k: percent_wrong(y, bunch.target_clean) for k, y in bunch.label_sets.items()}
    rates = {"worst": 40.6, "aggre": 9.1, "random1": 17.3, "random2": 18.3, "random3": 18.0}
    assert found == rates | {"clean": 0.0}
    assert np.bincount(bunch.target_clean).tolist() == [2500] * 10
    assert bunch.votes_test.shape == (5000, 10)
    assert bunch.target_names[9] == "truck"
    most_frequent = bunch.votes_test.argmax(axis=1)
    assert percent_wrong(most_frequent, bunch.target_test) == 0.7


@pytest.mark.data
def test_fashion_mnist__is_balanced() -> None:
    bunch = load_fashion_mnist()
    assert (bunch.data.dtype, bunch.data.shape) == (np.uint8, (60000, 28, 28))
    assert (bunch.data_test.dtype, bunch.data_test.shape) == (np.uint8, (10000, 28, 28))
    assert np.bincount(bunch.target).tolist() == [6000] * 10
    assert np.bincount(bunch.target_test).tolist() == [1000] * 10
    assert not np.shares_memory(bunch.target, bunch.target_clean)


@pytest.mark.data
@pytest.mark.parametrize(
    "name, rows, n_rules, n_classes, covered, wrong",
    [
        ("trec", (5033, 500, 500), 68, 6, 95.2, 45.8),
        ("youtube_spam", (1586, 120, 250), 10, 2, 87.7, 13.0),
        ("hausa_news", (2045, 290, 582), 5, 5, 99.1, 50.4),
    ],
)
def test_weak_text__has_the_noise_that_its_page_states(
    name: str, rows: tuple[int, ...], n_rules: int, n_classes: int, covered: float, wrong: float
) -> None:
    bunch = load_weak_text(name)
    for n, suffix in zip(rows, ("", "_valid", "_test"), strict=True):
        assert bunch[f"data{suffix}"].shape == (n, 128)
        assert bunch[f"data{suffix}"].dtype == np.float32
        assert bunch[f"votes{suffix}"].shape == (n, n_rules)
        assert len(bunch[f"text{suffix}"]) == len(bunch[f"target{suffix}"]) == n
    assert (bunch.target.dtype, len(bunch.target_names)) == (np.int64, n_classes)
    assert round(100 * float(np.mean(bunch.target >= 0)), 1) == covered
    assert percent_wrong(bunch.target, bunch.target_clean) == wrong
    assert (load_weak_text(name, "clean").target == bunch.target_clean).all()
    X, y = load_weak_text(name, subset="valid", return_X_y=True)
    assert len(X) == len(y) == rows[1]
    assert y.min() == 0  # the true classes


@pytest.mark.data
def test_music_genre__has_the_noise_that_its_page_states() -> None:
    bunch = load_music_genre()
    assert (bunch.data.dtype, bunch.data.shape) == (np.float32, (700, 58))
    assert (bunch.data_test.shape, bunch.annotations.shape) == ((300, 58), (700, 44))
    assert percent_wrong(bunch.target, bunch.target_clean) == 45.3
    assert percent_wrong(bunch.label_sets["majority"], bunch.target_clean) == 30.3
    voted = bunch.annotations >= 0
    assert voted.sum() == 2945
    truth = np.broadcast_to(bunch.target_clean[:, None], voted.shape)
    assert percent_wrong(bunch.annotations[voted], truth[voted]) == 44.0
    assert (len(bunch.feature_names), len(bunch.target_names), len(bunch.song)) == (58, 10, 700)


@pytest.mark.data
def test_sentiment_votes__has_the_noise_that_its_page_states() -> None:
    bunch = load_sentiment_votes()
    assert bunch.annotations.shape == (4999, 203)
    assert (bunch.annotations >= 0).sum() == len(bunch.label) == 27746
    assert percent_wrong(bunch.label, bunch.target_clean[bunch.item]) == 21.1
    assert percent_wrong(bunch.target, bunch.target_clean) == 11.8
    assert np.bincount(bunch.target_clean).tolist() == [2497, 2502]


def test_sentiment_votes__tie__goes_to_class_1(tmp_path: Path) -> None:
    votes = {"item": [0, 0, 1, 1, 2], "worker": [0, 1, 0, 2, 1], "label": [0, 1, 0, 0, 1]}
    arrays = {key: np.array(values) for key, values in votes.items()}
    arrays |= {"y": np.array([0, 0, 1]), "item_id": np.array([2, 3, 4])}
    np.savez(tmp_path / "sentiment_polarity_votes.npz", **arrays)  # type: ignore[arg-type]
    bunch = load_sentiment_votes(data_home=tmp_path)
    assert bunch.annotations.tolist() == [[0, 1, -1], [0, -1, 0], [-1, 1, -1]]
    assert bunch.target.tolist() == [1, 0, 1]


@pytest.mark.data
@pytest.mark.parametrize("categories, width", [("onehot", 108), ("codes", 14), ("drop", 6)])
def test_adult__each_coding_has_its_columns(categories: str, width: int) -> None:
    bunch = load_adult(categories)
    assert (bunch.data.dtype, bunch.data.shape) == (np.float32, (32561, width))
    assert bunch.data_test.shape == (16281, width)
    assert len(bunch.feature_names) == width
    assert round(100 * float(bunch.target.mean()), 1) == 24.1
    assert round(100 * float(bunch.target_test.mean()), 1) == 23.6
    if categories == "onehot":
        assert (bunch.data[:, 6:].sum(axis=1) == 8).all()
        codes = load_adult("codes")
        level = bunch.levels["sex"].index("Female")
        female = bunch.data[:, bunch.feature_names.index("sex=Female")]
        column = codes.data[:, codes.feature_names.index("sex")]
        np.testing.assert_array_equal(female == 1, column == level)


@pytest.mark.parametrize(
    "categories, names, rows",
    [
        ("onehot", ["age", "town=Oslo", "town=Rome"], [[20, 0, 1], [3.5, 1, 0], [-1, 0, 1]]),
        ("codes", ["age", "town"], [[20, 1], [3.5, 0], [-1, 1]]),
        ("drop", ["age"], [[20], [3.5], [-1]]),
    ],
)
def test_load_table__each_coding_has_its_columns(
    categories: str, names: list[str], rows: list[list[float]], tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "tables.zip", "w") as archive:
        archive.writestr("crx.csv", "town,age,class\nRome,20,yes\nOslo,3.5,no\nRome,-1,yes\n")
    bunch = load_table("crx", categories=categories, data_home=tmp_path)
    assert (bunch.feature_names, bunch.data.tolist()) == (names, rows)
    assert bunch.data.dtype == np.float32
    assert (bunch.target.tolist(), bunch.target_names) == ([1, 0, 1], ["no", "yes"])
    assert bunch.levels == {"town": ["Oslo", "Rome"]}
    X, y = load_table("crx", categories=categories, data_home=tmp_path, return_X_y=True)
    assert (X.tolist(), y.tolist()) == (rows, [1, 0, 1])


@pytest.mark.data
@pytest.mark.parametrize(
    "name, n_rows, n_numbers, n_texts, n_classes",
    [("german", 1000, 7, 13, 2), ("splice", 3190, 0, 60, 3), ("vowel", 990, 13, 0, 11)],
)
def test_tables__have_the_columns_that_their_page_states(
    name: str, n_rows: int, n_numbers: int, n_texts: int, n_classes: int
) -> None:
    bunch = load_table(name)
    n_columns = n_numbers + sum(len(texts) for texts in bunch.levels.values())
    assert bunch.data.shape == (n_rows, n_columns)
    assert len(bunch.feature_names) == n_columns
    assert len(bunch.levels) == n_texts
    assert len(bunch.target_names) == len(np.unique(bunch.target)) == n_classes
    assert (bunch.data[:, n_numbers:].sum(axis=1) == n_texts).all()


@pytest.mark.data
@pytest.mark.parametrize(
    "name, shape, reviewed, errors",
    [("cifar10", (5000, 10), 159, 32), ("20news", (7532, 20), 93, 82)],
)
def test_label_issues__has_the_errors_that_its_page_states(
    name: str, shape: tuple[int, int], reviewed: int, errors: int
) -> None:
    bunch = load_label_issues(name)
    assert (bunch.pred_probs.shape, bunch.pred_probs.dtype) == (shape, np.float32)
    assert (len(bunch.reviewed), int(bunch.is_error.sum())) == (reviewed, errors)
    assert (bunch.votes.sum(axis=1) == 5).all()
    given_alone = bunch.votes[:, bunch.vote_names.index("given")]
    np.testing.assert_array_equal(bunch.is_error, given_alone < 3)


# CIFAR by way of torchvision


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with six training and three test images of both data sets, in their layouts."""
    from torchvision.datasets import CIFAR10, CIFAR100

    rng = np.random.default_rng(0)

    def write(path: Path, content: dict[str, Any]) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pickle.dumps(content))

    def batch(key: str, labels: list[int]) -> dict[str, Any]:
        data = rng.integers(0, 256, (len(labels), 3072), dtype=np.uint8)
        return {"data": data, key: labels}

    ten, hundred = tmp_path / "cifar-10-batches-py", tmp_path / "cifar-100-python"
    write(ten / "data_batch_1", batch("labels", [0, 1, 2]))
    write(ten / "data_batch_2", batch("labels", [2, 1, 0]))
    write(ten / "test_batch", batch("labels", [0, 1, 2]))
    write(ten / "batches.meta", {"label_names": ["a", "b", "c"]})
    write(hundred / "train", batch("fine_labels", [0, 1, 2, 2, 1, 0]))
    write(hundred / "test", batch("fine_labels", [0, 1, 2]))
    write(hundred / "meta", {"fine_label_names": ["a", "b", "c"]})
    # The sums of the real files; None accepts any file.
    lists = {"train_list": [["data_batch_1", None], ["data_batch_2", None]]}
    lists |= {"test_list": [["test_batch", None]]}
    for name, value in lists.items():
        monkeypatch.setattr(CIFAR10, name, value)
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": None})
    monkeypatch.setattr(CIFAR100, "train_list", [["train", None]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", None]])
    monkeypatch.setattr(CIFAR100, "meta", CIFAR100.meta | {"md5": None})
    return tmp_path


CLEAN = np.array([0, 1, 2, 2, 1, 0])
HUMAN = {
    "clean_label": CLEAN,
    "aggre_label": np.array([0, 1, 2, 2, 1, 1]),
    "worse_label": np.array([1, 2, 0, 2, 1, 1]),
    "random_label1": np.array([0, 1, 2, 2, 1, 1]),
    "random_label2": np.array([1, 2, 0, 2, 1, 1]),
    "random_label3": np.array([0, 1, 2, 2, 1, 1]),
}


def test_fetch_cifar10__clean__is_what_torchvision_reads(cifar: Path) -> None:
    bunch = fetch_cifar10(data_home=cifar)
    assert (bunch.data.dtype, bunch.data.shape) == (np.uint8, (6, 32, 32, 3))
    assert (bunch.data_test.shape, bunch.target_names) == ((3, 32, 32, 3), ["a", "b", "c"])
    assert bunch.target.dtype == np.int64
    assert bunch.target.tolist() == bunch.target_clean.tolist() == CLEAN.tolist()
    assert bunch.target_test.tolist() == [0, 1, 2]


@pytest.mark.parametrize("numpy_core", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_fetch_cifar10__labels_of_people__come_from_the_authors_file(
    numpy_core: str, cifar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        rebuild = np._core.multiarray._reconstruct  # type: ignore[attr-defined]
        patch.setattr(rebuild, "__module__", numpy_core)  # as NumPy 1 and 2 write the file
        torch.save(HUMAN, cifar / "CIFAR-10_human.pt")
    bunch = fetch_cifar10("worst", data_home=cifar)
    assert bunch.target.tolist() == HUMAN["worse_label"].tolist()
    assert bunch.target_clean.tolist() == CLEAN.tolist()
    X, y = fetch_cifar10("aggre", data_home=cifar, return_X_y=True)
    assert (X.shape[0], y.tolist()) == (6, HUMAN["aggre_label"].tolist())


def test_fetch_cifar100__labels_of_people__come_from_the_file(cifar: Path) -> None:
    labels = {"clean_label": CLEAN, "noisy_label": CLEAN[::-1], "clean_coarse_label": CLEAN}
    np.savez(cifar / "labels.npz", **labels)  # type: ignore[arg-type]
    bunch = fetch_cifar100("noisy", label_file=cifar / "labels.npz", data_home=cifar)
    assert bunch.target.tolist() == CLEAN[::-1].tolist()
    assert bunch.data.shape == (6, 32, 32, 3)


def test_fetch_cifar10__labels_in_another_order__is_refused(cifar: Path) -> None:
    shifted = {key: np.roll(labels, 1) for key, labels in HUMAN.items()}
    np.savez(cifar / "labels.npz", **shifted)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="in its order.* differs in 4 of 6 rows, first in row 1"):
        fetch_cifar10("worst", label_file=cifar / "labels.npz", data_home=cifar)


@pytest.mark.parametrize(
    "labels, message",
    [
        ({"worse_label": CLEAN}, "must hold 'worse_label' and 'clean_label'.*holds"),
        ({"clean_label": CLEAN[:3], "worse_label": CLEAN[:3]}, "must label 6 images.*labels 3"),
    ],
)
def test_fetch_cifar10__file_of_something_else__is_refused(
    labels: dict[str, Labels], message: str, cifar: Path
) -> None:
    np.savez(cifar / "labels.npz", **labels)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        fetch_cifar10("worst", label_file=cifar / "labels.npz", data_home=cifar)


class Unsafe:
    """Would print on being unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("run",)


def test_fetch_cifar10__pickle_that_runs_code__is_refused(
    cifar: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(HUMAN | {"more": Unsafe()}, cifar / "CIFAR-10_human.pt")
    with pytest.raises(ValueError, match="must hold arrays only"):
        fetch_cifar10("worst", data_home=cifar)
    assert capsys.readouterr().out == ""


def test_fetch_cifar10__labels_missing__says_where_they_are(cifar: Path) -> None:
    with pytest.raises(FileNotFoundError, match="UCSC-REAL/cifar-10-100n"):
        fetch_cifar10("worst", data_home=cifar)


def test_fetch_cifar10__npy_file__is_refused(cifar: Path) -> None:
    np.save(cifar / "CIFAR-10_human_ordered.npy", CLEAN)
    file = cifar / "CIFAR-10_human_ordered.npy"
    with pytest.raises(ValueError, match="must be a .pt or .npz file"):
        fetch_cifar10("worst", label_file=file, data_home=cifar)


def test_fetch__images_missing__names_download(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="cifar-10-batches-py.*download=True"):
        fetch_cifar10(data_home=tmp_path)
    with pytest.raises(FileNotFoundError, match="cifar-100-python.*download=True"):
        fetch_cifar100(data_home=tmp_path)
    assert list(tmp_path.iterdir()) == []


# Image files


def draw(path: Path, shade: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, 0, 255 - shade)).convert(mode).save(path)


def lines(path: Path, *content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(content) + "\n")


def make_animal10n(root: Path) -> None:
    for label, number, shade in ((3, 10, 30), (0, 2, 0), (9, 1, 90)):
        draw(root / "training" / f"{label}_{number}.jpg", shade)
    draw(root / "testing" / "1_5.jpg", 10)
    (root / "training" / "Thumbs.db").write_text("not an image")


def make_food101n(root: Path) -> None:
    keys = ("waffles/b.jpg", "apple_pie/a.jpg", "apple_pie/c.jpg")
    for i, key in enumerate(keys):
        draw(root / "images" / key, 10 * i, (12, 8))
    lines(root / "meta/imagelist.tsv", "class_name/key", *keys)
    lines(root / "meta/classes.txt", "class_name", "waffles", "apple_pie")
    head = "class_name/key\tverification_label"
    lines(root / "meta/verified_train.tsv", head, "apple_pie/a.jpg\t1", "waffles/a.jpg\t0")
    lines(root / "meta/verified_val.tsv", head, "waffles/b.jpg\t0")
    lines(root / "meta/test.txt", "waffles/7", "apple_pie/8")
    draw(root / "images/waffles/7.jpg", 70)
    draw(root / "images/apple_pie/8.jpg", 80)


def make_clothing1m(root: Path) -> None:
    keys = [f"images/{i}/{i}.jpg" for i in range(4)]
    for i, key in enumerate(keys):
        draw(root / key, 10 * i)
    lines(root / "noisy_label_kv.txt", *(f"{key} {i}" for i, key in enumerate(keys[:3])))
    lines(root / "clean_label_kv.txt", f"{keys[1]} 5", f"{keys[2]} 2", f"{keys[3]} 3")
    lines(root / "noisy_train_key_list.txt", keys[1], keys[0], keys[2])
    lines(root / "clean_train_key_list.txt", keys[2], keys[3])
    lines(root / "clean_val_key_list.txt", keys[1])
    lines(root / "clean_test_key_list.txt", keys[3])
    lines(root / "category_names_eng.txt", *(f"kind {i}" for i in range(14)))


def make_webvision(root: Path) -> None:
    names = {"google/q1/a.jpg": 0, "google/q9/b.jpg": 50, "google/q2/c.jpg": 49}
    for name in names:
        draw(root / name, 20)
    lines(root / "info/train_filelist_google.txt", *(f"{k} {v}" for k, v in names.items()))
    lines(root / "info/train_filelist_flickr.txt", "flickr/q1/d.jpg 1")
    draw(root / "flickr/q1/d.jpg", 40)
    lines(root / "info/val_filelist.txt", "val1.jpg 49", "val2.jpg 700")
    draw(root / "val_images_256/val1.jpg", 60)


def make_red_mini_imagenet(root: Path) -> None:
    names = {"n0153282900000005.jpg": 0, "5922767e5677aef4.jpg": 0, "n0274737700000009.jpg": 7}
    for i, name in enumerate(names):
        draw(root / "all_images" / name, 10 * i)
    lines(root / "split/red_noise_nl_0.4", *(f"{k} {v}" for k, v in names.items()))
    lines(root / "split/red_noise_nl_0.0", "n0153282900000005.jpg 0")
    lines(root / "split/clean_validation", "ILSVRC2012_val_00000010.jpg 7")
    draw(root / "validation/n02747177/ILSVRC2012_val_00000010.jpg", 50)


def make_tiny_imagenet(root: Path) -> None:
    lines(root / "wnids.txt", "n02", "n01")
    for name, number in (("n01", 1), ("n01", 0), ("n02", 0)):
        draw(root / "train" / name / "images" / f"{name}_{number}.JPEG", number)
    lines(root / "val/val_annotations.txt", "val_1.JPEG\tn02\t0\t0\t9\t9", "val_0.JPEG\tn01\t0\t0")
    for number in (0, 1):
        draw(root / "val/images" / f"val_{number}.JPEG", number, mode="L")


MAKERS = {name: globals()[f"make_{name}"] for name in ON_DISK}
TRAIN_TARGETS = {
    "animal10n": [0, 3, 9],
    "food101n": [1, 0, 0],
    "clothing1m": [1, 0, 2],
    "webvision": [0, 49],
    "red_mini_imagenet": [0, 0, 7],
    "tiny_imagenet": [0, 0, 1],
}
TEST_TARGETS = {
    "animal10n": [1],
    "food101n": [1, 0],
    "clothing1m": [3],
    "webvision": [49],
    "red_mini_imagenet": [7],
    "tiny_imagenet": [1, 0],
}


@pytest.fixture
def tree(name: str, tmp_path: Path) -> Path:
    MAKERS[name](tmp_path)
    return tmp_path


@every_layout
@pytest.mark.parametrize("subset, targets", [("train", TRAIN_TARGETS), ("test", TEST_TARGETS)])
def test_layout__every_row_is_an_image_and_its_label(
    name: str, subset: str, targets: dict[str, list[int]], tree: Path
) -> None:
    data = ON_DISK[name](tree, subset)
    assert isinstance(data, ImageFiles)
    assert data.targets.dtype == np.int64
    assert data.targets.tolist() == targets[name]
    assert len(data) == len(data.files) == len(targets[name])
    for i, label in enumerate(targets[name]):
        image, given = data[i]
        assert (image.dtype, image.shape) == (torch.uint8, (3, data.image_size, data.image_size))
        assert (type(given), given) == (int, label)
    if subset == "test":
        assert (data.verified == 1).all()
        assert data.clean_targets.tolist() == targets[name]


@every_layout
def test_layout__image_size__sets_height_and_width(name: str, tree: Path) -> None:
    data = ON_DISK[name](tree, image_size=5)
    assert data[0][0].shape == (3, 5, 5)


@every_layout
def test_layout__unknown_subset__lists_those_there_are(name: str, tree: Path) -> None:
    with pytest.raises(ValueError, match="subset must be one of 'train', .*Did you mean 'train'"):
        ON_DISK[name](tree, "trian")


@every_layout
def test_layout__another_folder__names_what_it_lacks(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="The folder must hold .* without .*archive"):
        ON_DISK[name](tmp_path)
    with pytest.raises(FileNotFoundError, match="must exist"):
        ON_DISK[name](tmp_path / "nowhere")


@every_layout
def test_layout__no_image_is_opened_before_it_is_asked_for(name: str, tree: Path) -> None:
    for path in tree.rglob("*.[jJ]*"):
        path.write_bytes(b"broken")
    data = ON_DISK[name](tree)
    with pytest.raises(OSError, match="must be an image.*row 1.*subset"):
        data[1]


def test_animal10n__file_of_another_name__is_named(tmp_path: Path) -> None:
    draw(tmp_path / "training/cat.jpg", 0)
    with pytest.raises(ValueError, match=r"<label>_<number>.jpg. Got \['cat.jpg'\]"):
        load_animal10n(tmp_path)


def test_animal10n__labels_have_names(tmp_path: Path) -> None:
    make_animal10n(tmp_path)
    data = load_animal10n(tmp_path)
    assert data.class_names is not None
    assert [data.class_names[k] for k in data.targets] == ["cat", "coyote", "guinea pig"]
    assert (data.verified == -1).all()


def test_food101n__verified_lists__mark_right_and_wrong_labels(tmp_path: Path) -> None:
    make_food101n(tmp_path)
    data = load_food101n(tmp_path)
    assert data.class_names == ["apple_pie", "waffles"]
    assert data.verified.tolist() == [0, 1, -1]
    assert data.clean_targets.tolist() == [-1, 0, -1]


def test_food101n__image_of_an_unknown_class__is_named(tmp_path: Path) -> None:
    make_food101n(tmp_path)
    lines(tmp_path / "meta/imagelist.tsv", "class_name/key", "pizza/1.jpg")
    with pytest.raises(ValueError, match="classes.txt. Got 'pizza/1.jpg'"):
        load_food101n(tmp_path)


def test_clothing1m__labels_of_people__verify_those_of_the_shop(tmp_path: Path) -> None:
    make_clothing1m(tmp_path)
    train = load_clothing1m(tmp_path)
    assert train.clean_targets.tolist() == [5, -1, 2]
    assert train.verified.tolist() == [0, -1, 1]
    assert load_clothing1m(tmp_path, "clean_train").targets.tolist() == [2, 3]
    assert load_clothing1m(tmp_path, "clean_train", labels="noisy").targets.tolist() == [2, -1]
    assert load_clothing1m(tmp_path, "valid").targets.tolist() == [5]
    assert len(train.class_names or []) == 14


def test_clothing1m__images_without_their_folder__are_found(tmp_path: Path) -> None:
    make_clothing1m(tmp_path)
    for path in (tmp_path / "images").iterdir():
        path.rename(tmp_path / path.name)
    (tmp_path / "images").rmdir()
    assert load_clothing1m(tmp_path).files[0] == "1/1.jpg"
    assert load_clothing1m(tmp_path)[0][0].shape == (3, 256, 256)


def test_webvision__all_classes_and_sources(tmp_path: Path) -> None:
    make_webvision(tmp_path)
    data = load_webvision(tmp_path, n_classes=1000, sources=("google", "flickr"))
    assert data.targets.tolist() == [0, 50, 49, 1]
    assert data.files[-1] == "flickr/q1/d.jpg"
    with pytest.raises(ValueError, match="sources must be one of 'google', 'flickr'"):
        load_webvision(tmp_path, sources=("bing",))


def test_webvision__line_without_label__is_named(tmp_path: Path) -> None:
    make_webvision(tmp_path)
    lines(tmp_path / "info/train_filelist_google.txt", "google/q1/a.jpg 0", "google/q1/b.jpg")
    with pytest.raises(ValueError, match="a file name, a space and a label.*as line 2"):
        load_webvision(tmp_path)


def test_red_mini_imagenet__pictures_from_the_web__are_known_to_be_wrong(tmp_path: Path) -> None:
    make_red_mini_imagenet(tmp_path)
    data = load_red_mini_imagenet(tmp_path, rate=0.4)
    assert data.verified.tolist() == [1, 0, 1]
    assert data.clean_targets.tolist() == [0, -1, 7]
    assert len(load_red_mini_imagenet(tmp_path, rate=0)) == 1
    with pytest.raises(ValueError, match="rate must be one of '0.0', .*Got '0.45'"):
        load_red_mini_imagenet(tmp_path, rate=0.45)


def test_tiny_imagenet__classes__are_numbered_in_sorted_order(tmp_path: Path) -> None:
    make_tiny_imagenet(tmp_path)
    data = load_tiny_imagenet(tmp_path)
    assert data.class_names == ["n01", "n02"]
    assert [Path(file).name for file in data.files] == ["n01_0.JPEG", "n01_1.JPEG", "n02_0.JPEG"]
    lines(tmp_path / "val/val_annotations.txt", "val_1.JPEG\tn03")
    with pytest.raises(ValueError, match="wnids.txt. Got 'n03'"):
        load_tiny_imagenet(tmp_path, "test")


def some_files(folder: Path, n: int = 6, size: int = 8, **params: Any) -> ImageFiles:
    for i in range(n):
        draw(folder / f"{i}.png", 40 * i, (size, size))
    return ImageFiles(folder, [f"{i}.png" for i in range(n)], np.arange(n) % 2, **params)


def test_image_files__pixels__are_those_of_the_file(tmp_path: Path) -> None:
    data = some_files(tmp_path)
    image, _ = data[2]
    assert image.shape == (3, 8, 8)
    assert image[:, 0, 0].tolist() == [80, 0, 175]


def test_image_files__wide_image__keeps_the_middle(tmp_path: Path) -> None:
    wide = np.zeros((4, 12, 3), dtype=np.uint8)
    wide[:, 4:8] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    data = ImageFiles(tmp_path, ["wide.png"], [0], image_size=4)
    assert (data[0][0] == 255).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_image_files__any_mode__becomes_rgb(mode: str, tmp_path: Path) -> None:
    draw(tmp_path / "image.tif", 255, mode=mode)
    assert ImageFiles(tmp_path, ["image.tif"], [0])[0][0].shape == (3, 8, 8)


def test_image_files__file_missing__is_named(tmp_path: Path) -> None:
    data = ImageFiles(tmp_path, ["gone.png"], [0])
    with pytest.raises(FileNotFoundError, match="must exist.*gone.png.*row 0"):
        data[0]


@pytest.mark.parametrize("targets", [[0, 1], [0.5] * 6, [[0]] * 6, ["a"] * 6])
def test_image_files__targets_that_do_not_fit__are_refused(targets: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="targets must be one whole number for each of the 6"):
        some_files(tmp_path).with_targets(targets)


def test_image_files__other_targets__verify_against_the_clean_ones(tmp_path: Path) -> None:
    data = some_files(tmp_path, clean_targets=[0, 1, 0, 1, -1, 1])
    assert data.verified.tolist() == [1, 1, 1, 1, -1, 1]
    noisy = data.with_targets([1, 1, 0, -1, 0, 1])
    assert noisy.verified.tolist() == [0, 1, 1, -1, -1, 1]
    assert noisy[0][1] == 1
    assert data.targets.tolist() == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize("rows", [[4, 1], np.array([False, True] * 3)])
def test_image_files__subset__takes_numbers_and_masks(rows: Any, tmp_path: Path) -> None:
    data = some_files(tmp_path, clean_targets=[1] * 6, class_names=["a", "b"])
    part = data.subset(rows)
    chosen = np.arange(6)[rows].tolist()
    assert part.files == [f"{i}.png" for i in chosen]
    assert part.targets.tolist() == [i % 2 for i in chosen]
    assert part.verified.tolist() == [i % 2 for i in chosen]
    assert part.class_names == ["a", "b"]


def test_image_files__pickled__reads_the_same(tmp_path: Path) -> None:
    data = some_files(tmp_path)
    again = pickle.loads(pickle.dumps(data))
    assert torch.equal(again[3][0], data[3][0])
    assert repr(again) == f"ImageFiles(6 files, 2 classes, root={str(tmp_path)!r})"


def test_image_files__to_memmap__holds_the_rows_stacked(tmp_path: Path) -> None:
    data = some_files(tmp_path / "images", image_size=5)
    images = data.to_memmap(tmp_path / "images.npy", n_threads=2)
    assert isinstance(images, np.memmap)
    stacked = torch.stack([data[i][0] for i in range(6)]).numpy()
    np.testing.assert_array_equal(images, stacked)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "images.npy"]


def test_image_files__to_memmap__broken_file__leaves_none_of_that_name(tmp_path: Path) -> None:
    data = some_files(tmp_path / "images")
    (tmp_path / "images/4.png").write_bytes(b"broken")
    with pytest.raises(OSError, match="row 4"):
        data.to_memmap(tmp_path / "images.npy", n_threads=1)
    assert not (tmp_path / "images.npy").exists()


def test_image_files__are_rows_for_an_estimator(tmp_path: Path) -> None:
    data = some_files(tmp_path)
    rows = Rows(data, "CHW", torch.device("cpu"))
    assert rows.take(torch.tensor([5, 0])).dtype == torch.uint8
    assert rows.row_shape == (3, 8, 8)
    labels = dataset_labels(data)
    assert labels is not None
    assert labels.tolist() == [0, 1] * 3


def test_image_files__estimator_learns_and_predicts_from_them(tmp_path: Path) -> None:
    train = some_files(tmp_path, n=6, size=16)
    clf = CrossEntropyClassifier(max_epochs=1, random_state=0)
    clf.fit(train, clean_mask=train.verified == 1)
    assert clf.classes_.tolist() == [0, 1]
    assert 0 <= clf.score(train, train.targets) <= 1
    decoded = train.to_memmap(tmp_path / "all.npy")
    np.testing.assert_allclose(clf.predict_proba(decoded), clf.predict_proba(train), atol=1e-6)


# Images of other classes


def make_svhn(root: Path) -> None:
    (root / "svhn").mkdir()
    shades = np.arange(0, 50, 10, dtype=np.uint8)
    images = np.broadcast_to(shades, (32, 32, 3, 5))
    savemat(root / "svhn/test_32x32.mat", {"X": images, "y": np.array([[1], [2], [3], [4], [10]])})


def make_lsun(root: Path) -> None:
    for i in range(5):
        draw(root / f"lsun/scene{i % 2}/ab/{i}.webp", 10 * i, (40, 20))


def make_places365(root: Path) -> None:
    for i in range(5):
        draw(root / f"places365/val_256/{i}.jpg", 10 * i, (256, 256))
    lines(root / "places365/categories_places365.txt", "/a/airfield 0", "/a/airport 1")
    lines(root / "places365/places365_val.txt", *(f"{i}.jpg {i % 2}" for i in range(5)))


def make_textures(root: Path) -> None:
    files = [f"banded/banded_{i}.jpg" for i in range(5)]
    for i, file in enumerate(files):
        draw(root / "dtd/dtd/images" / file, 10 * i, (30, 50))
    lines(root / "dtd/dtd/labels/test1.txt", *files)


def make_mnist(root: Path) -> None:
    folder = root / "MNIST/raw"
    folder.mkdir(parents=True)
    images = np.repeat(np.arange(0, 50, 10, dtype=np.uint8), 28 * 28).tobytes()
    for part in ("train", "t10k"):
        head = struct.pack(">4i", 2051, 5, 28, 28)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(head + images)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i5B", 2049, 5, *range(5)))


OTHER_IMAGES = {name: globals()[f"make_{name}"] for name in LAYOUTS}
every_set = pytest.mark.parametrize("name", LAYOUTS)


@pytest.fixture
def any_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torchvision take files that are not the real ones."""
    from torchvision.datasets import SVHN, Places365

    monkeypatch.setattr(SVHN, "split_list", {"test": ["", "test_32x32.mat", None]})
    monkeypatch.setattr(Places365, "_CATEGORIES_META", ("categories_places365.txt", None))
    monkeypatch.setattr(Places365, "_FILE_LIST_META", {"val": ("places365_val.txt", None)})


@every_set
@pytest.mark.usefixtures("any_sum")
def test_load_ood__each_set__is_square_images_in_order(name: str, tmp_path: Path) -> None:
    OTHER_IMAGES[name](tmp_path)
    bunch = load_ood(name, size=16, data_home=tmp_path)
    assert (bunch.data.dtype, bunch.data.shape) == (np.uint8, (5, 16, 16, 3))
    reds = bunch.data[:, 8, 8, 0].astype(int)
    shades = [0, 20, 40, 10, 30] if name == "lsun" else [0, 10, 20, 30, 40]  # scene by scene
    assert np.abs(reds - shades).max() <= 3  # JPEG
    assert load_ood(name, data_home=tmp_path).data.shape == (5, 32, 32, 3)
    assert bunch.filename == str(tmp_path)


@pytest.mark.usefixtures("any_sum")
def test_load_ood__n_samples__is_a_choice_that_the_seed_repeats(tmp_path: Path) -> None:
    make_svhn(tmp_path)
    chosen = [
        load_ood("svhn", n_samples=3, random_state=seed, data_home=tmp_path).data[:, 0, 0, 0]
        for seed in (0, 0, 1, 2, 3)
    ]
    assert chosen[0].tolist() == chosen[1].tolist() == sorted(chosen[0])
    assert len({tuple(rows) for rows in chosen}) > 1
    assert len(load_ood("svhn", n_samples=9, data_home=tmp_path).data) == 5


@every_set
def test_load_ood__not_there__says_what_to_put_where(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing is downloaded") as error:
        load_ood(name, data_home=tmp_path)
    assert LAYOUTS[name] in str(error.value)
    assert repr(str(tmp_path)) in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_load_ood__another_file_of_that_name__is_refused(tmp_path: Path) -> None:
    make_svhn(tmp_path)  # the real file has another sum
    with pytest.raises(FileNotFoundError, match="missing or damaged"):
        load_ood("svhn", data_home=tmp_path)


@pytest.mark.parametrize("params", [{"size": 0}, {"n_samples": 0}], ids=str)
def test_load_ood__number_below_one__is_an_error(params: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be an int in the range .1, inf.*Got 0"):
        load_ood("mnist", data_home=tmp_path, **params)  # type: ignore[arg-type]


# The package


@pytest.mark.parametrize("name", datasets.__all__)
def test_every_loader_is_exported_and_documented(name: str) -> None:
    loader = getattr(noisyfit.datasets, name)
    assert name in dir(noisyfit.datasets)
    assert loader.__name__ == name
    assert "Parameters" in loader.__doc__


def test_unknown_loader__raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'load_cifar'"):
        noisyfit.datasets.load_cifar  # noqa: B018


def test_reading_an_archive_loads_no_torch(tmp_path: Path) -> None:
    small_cifar10n(tmp_path)
    heavy = ["torch", "torchvision", "PIL"]
    code = (
        "import sys, noisyfit.datasets as datasets; cheap = 'sklearn' not in sys.modules\n"
        f"datasets.load_cifar10n(data_home={str(tmp_path)!r})\n"
        f"print(cheap, [name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True []"
