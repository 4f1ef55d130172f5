from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from noisyfit import NoisyFitWarning
from noisyfit.benchmark.sources import (
    GROUPS,
    MOST_LEVELS,
    data_names,
    load,
    read_images,
    read_table,
)
from noisyfit.datasets.tables import TABLES

CSV = """age,town,member,empty,label
20,Rome,True,,yes
,Oslo,False,,no
40,Rome,True,,yes
50,,False,,
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "people.csv").write_text(CSV)
    return tmp_path / "people.csv"


def test_table__becomes_numbers__and_rows_without_a_label_are_left_out(table: Path) -> None:
    X, y = read_table(table, "label")
    assert y.tolist() == ["yes", "no", "yes"]
    assert X.dtype == np.float32
    numbers, towns = X[:, :2], X[:, 2:]
    assert numbers.tolist() == [[20, 1], [30, 0], [40, 1]]  # the median stands for the missing age
    assert towns.sum(1).tolist() == [1, 1, 1]
    np.testing.assert_array_equal(towns[0], towns[2])
    assert not np.array_equal(towns[0], towns[1])


def test_table__many_levels__share_a_column(tmp_path: Path) -> None:
    rows = [f"id{i},{i % 2}" for i in range(100)]
    (tmp_path / "t.csv").write_text("\n".join(["name,y", *rows]))
    assert read_table(tmp_path / "t.csv", "y")[0].shape == (100, MOST_LEVELS)


def test_load__own_table__knows_no_clean_label(table: Path) -> None:
    source = load(str(table), "label")
    assert source.y_clean is None
    assert source.X_test is None
    assert not source.is_clean


def test_load__digits__has_clean_labels() -> None:
    source = load("digits")
    assert source.is_clean
    assert source.X_test is not None
    assert len(source.X) + len(source.X_test) == 1797


def test_image_folder__gives_rows_in_the_order_of_the_folders(tmp_path: Path) -> None:
    for kind, color in {"cat": (250, 0, 0), "dog": (0, 250, 0)}.items():
        (tmp_path / kind / "more").mkdir(parents=True)
        Image.new("RGB", (6, 4), color).save(tmp_path / kind / "a.png")
        Image.new("RGB", (12, 8), color).save(tmp_path / kind / "more" / "b.png")
        (tmp_path / kind / "notes.txt").write_text("no image")
    Image.new("L", (6, 4), 7).save(tmp_path / "dog" / "c.png")
    with pytest.warns(NoisyFitWarning, match="2 others of 7.*cat/notes.txt"):
        X, y = read_images(tmp_path)
    assert y.tolist() == ["cat", "cat", "dog", "dog", "dog"]
    assert X.shape == (5, 4, 6, 3)
    assert X.dtype == np.uint8
    assert X[0, 0, 0].tolist() == X[1, 0, 0].tolist() == [250, 0, 0]
    assert X[3, 0, 0].tolist() == [7, 7, 7]


@pytest.mark.parametrize(
    "name, label, message",
    [
        ("digit", None, "Did you mean 'digits'"),
        ("people.csv", None, "needs the column of its labels"),
        ("people.csv", "labl", "must be a column of people.csv.*Did you mean 'label'"),
        (".", None, "must hold a folder of images for each of two classes"),
    ],
)
def test_load__what_cannot_be_used__says_what_to_do(
    table: Path, monkeypatch: pytest.MonkeyPatch, name: str, label: str | None, message: str
) -> None:
    monkeypatch.chdir(table.parent)
    with pytest.raises(ValueError, match=message):
        load(name, label)


def test_load__stored_set_without_a_folder__names_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NOISYFIT_DATA", raising=False)
    with pytest.raises(ValueError, match="NOISYFIT_DATA"):
        load("trec")


def test_groups__halves_of_the_tables__have_none_in_common() -> None:
    development, confirmation = GROUPS["tables_development"], GROUPS["tables_confirmation"]
    assert set(development) | set(confirmation) == set(GROUPS["tables"]) == set(TABLES)
    assert not set(development) & set(confirmation)
    assert len(development) == len(confirmation) == 8
    assert data_names(["digits", "tables_development", "crx"]) == ["digits", *development]


@pytest.mark.data
def test_tables__are_in_the_order_of_their_numbers_of_classes() -> None:
    sizes = [(len(np.unique(load(name).y)), name) for name in GROUPS["tables"]]
    assert sizes == sorted(sizes)


@pytest.mark.data
@pytest.mark.parametrize(
    "name, majority, n_annotators",
    [("music_genre_votes", "music_genre_majority", 44), ("trec_votes", "trec", 68)],
)
def test_load__votes__come_with_their_majority(name: str, majority: str, n_annotators: int) -> None:
    source, one_each = load(name), load(majority)
    assert source.votes is not None
    assert source.votes.shape == (len(source.y), n_annotators)
    assert (source.votes >= 0).any(1).all()
    assert (source.votes == source.y[:, None]).any(1).all()
    for part in ("X", "y", "y_clean", "X_test", "y_test"):
        np.testing.assert_array_equal(getattr(source, part), getattr(one_each, part))


@pytest.mark.data
def test_load__trec__leaves_out_rows_without_a_label() -> None:
    source = load("trec")
    assert (source.y >= 0).all()
    assert source.y_clean is not None
    assert np.mean(source.y != source.y_clean) == pytest.approx(0.458, abs=0.001)
