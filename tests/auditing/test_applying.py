"""The cleaned data differ from the audited ones in labels that were decided, and in nothing."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from noisyfit.auditing import decisions
from noisyfit.auditing.applying import move_images, undo_moves, write_cleaned
from noisyfit.auditing.decisions import ACCEPT, KEEP, OTHER, SKIP, UNDO
from noisyfit.auditing.moving import JOURNAL, plan
from noisyfit.auditing.source import CONFIDENT, DECIDED, Label, fingerprint
from tests.auditing.folders import Row, write_audit
from tests.helpers import full_disk

ROWS: list[Row] = [
    ("a", "cat", "dog", "change"),
    ("b", "dog", "dog", "keep"),
    ("c", "dog", "cat", "change"),
    ("d", "cat", "dog", "unsure"),
    ("e", "dog", "cat", "change"),
]
CSV = b"id,kind,note\n" + b"".join(
    f"{row},{given},note {row}\n".encode() for row, given, *_ in ROWS
)


def decide(folder: Path, *made: tuple[str, str, str]) -> None:
    file = folder / decisions.NAME
    decisions.open_log(file)
    for row, decision, label in made:
        decisions.append(file, row, decision, label)


def audited(folder: Path, content: bytes = CSV, name: str = "pets.csv", **facts: Any) -> Path:
    """Return the folder of an audit of a file, in which two labels are decided to be others."""
    data = folder / name
    data.write_bytes(content)
    audit = write_audit(folder / "audit", data, facts.pop("rows", ROWS), **facts)
    decide(audit, ("a", ACCEPT, "dog"), ("d", OTHER, "cow"), ("c", KEEP, "dog"))
    return audit


def cleaned(audit: Path, *, only: str = DECIDED, name: str = "cleaned.csv") -> bytes:
    to = audit.parent / name
    write_cleaned(audit, to, only=only, force=True)
    return to.read_bytes()


def test_only__decided__changes_what_a_person_decided(tmp_path: Path) -> None:
    expected = CSV.replace(b"a,cat", b"a,dog").replace(b"d,cat", b"d,cow")
    assert cleaned(audited(tmp_path)) == expected


def test_only__confident__also_changes_what_nobody_decided(tmp_path: Path) -> None:
    expected = CSV.replace(b"a,cat", b"a,dog").replace(b"d,cat", b"d,cow")
    expected = expected.replace(b"e,dog", b"e,cat")  # but not c, which a person kept
    assert cleaned(audited(tmp_path), only=CONFIDENT) == expected


def test_skipped_and_undone_decisions__leave_the_label(tmp_path: Path) -> None:
    audit = audited(tmp_path)
    decide(audit, ("a", UNDO, ""), ("d", SKIP, ""))
    assert cleaned(audit) == CSV


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimited__all_but_the_labels_stays_byte_for_byte(
    tmp_path: Path, encoding: str, end: str, delimiter: str
) -> None:
    lines = [
        ["Größe", '"the ""kind"""', "x"],
        ['" a"', '"cat"', "1.50"],
        ["", "", ""],
        [f'"two{end}lines"', "dog", ' 5" pipe'],
        ["é", "DOG ", '"q""q"'],
        ['"a\n"', "cat", "no end"],
    ]
    text = end.join(delimiter.join(line) for line in lines)
    text = text.replace(delimiter * 2, "")  # a blank line, which is no row
    rows: list[Row] = [
        ("a", "cat", "dog", "change"),
        ("b", "dog", "cat", "change"),
        ("c", "DOG", "cow", "keep"),
        ("d", "cat", "cow", "change"),
    ]
    data = tmp_path / "odd.csv"
    data.write_bytes(text.encode(encoding))
    audit = write_audit(tmp_path / "audit", data, rows, label='the "kind"')
    decide(audit, ("d", OTHER, f'c"{delimiter}w'))
    expected = text.replace('"cat"', '"dog"').replace(f"dog{delimiter} 5", f"cat{delimiter} 5")
    expected = expected.replace(f"cat{delimiter}no", f'"c""{delimiter}w"{delimiter}no')
    assert cleaned(audit, only=CONFIDENT) == expected.encode(encoding)


def test_delimited__class__is_spelled_as_in_the_file(tmp_path: Path) -> None:
    rows: list[Row] = [("1", "1", "2", "change"), ("2", "2", "2", ""), ("3", "", "1", "change")]
    audit = audited(tmp_path, b"x,kind\n5,01\n6,02.0\n7,NA\n", rows=rows)
    (audit / decisions.NAME).unlink()
    assert cleaned(audit, only=CONFIDENT) == b"x,kind\n5,02.0\n6,02.0\n7,01\n"


def test_json_lines__only_the_value_changes(tmp_path: Path) -> None:
    lines = [
        '{"x": {"kind": "cat"}, "kind" :  "cat", "t": "\\u00e9"}',
        '{"kind":"dog"}',
        "",
        '{"kind": "dog", "x": [1.50, "},{"]}',
        ' {"x": "kind", "kind": "cat" }',
        '{"kind": null}',
    ]
    rows = [*ROWS[:4], ("e", "", "cat", "change")]
    audit = audited(tmp_path, "\r\n".join(lines).encode(), "pets.jsonl", rows=rows)
    lines[0] = lines[0].replace(':  "cat"', ':  "dog"')
    lines[4] = lines[4].replace('"cat"', '"cow"')
    lines[5] = lines[5].replace("null", '"cat"')
    expected = "\r\n".join(lines).encode()
    assert cleaned(audit, only=CONFIDENT, name="cleaned.jsonl") == expected


def test_archive__other_arrays_stay(tmp_path: Path) -> None:
    X, y = np.arange(10.0).reshape(5, 2), np.array([0, 1, 1, 0, 1])
    np.savez(tmp_path / "source.npz", X=X, y=y)
    rows: list[Row] = [(row, *pair, "change") for row, pair in zip("abcde", PAIRS, strict=True)]
    content = (tmp_path / "source.npz").read_bytes()
    audit = audited(tmp_path, content, "data.npz", rows=rows, label="y", kind="arrays")
    (audit / decisions.NAME).unlink()
    write_cleaned(audit, tmp_path / "cleaned.npz", only=CONFIDENT, force=False)
    with np.load(tmp_path / "cleaned.npz") as arrays:
        np.testing.assert_array_equal(arrays["X"], X)
        np.testing.assert_array_equal(arrays["y"], [1, 1, 0, 0, 1])
        assert arrays["y"].dtype == y.dtype


PAIRS = [("0", "1"), ("1", "1"), ("1", "0"), ("0", "0"), ("1", "1")]


@pytest.mark.parametrize("ending", ["parquet", "feather"])
def test_arrow__other_columns_and_the_type_stay(tmp_path: Path, ending: str) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
    feather = pytest.importorskip("pyarrow.feather")
    parquet = pytest.importorskip("pyarrow.parquet")
    kinds = pyarrow.array([row[1] for row in ROWS]).dictionary_encode()
    table = pyarrow.table({"x": [1, None, 3, 4, 5], "kind": kinds, "t": ["é"] * 5})
    write = parquet.write_table if ending == "parquet" else feather.write_feather
    read = parquet.read_table if ending == "parquet" else feather.read_table
    write(table, tmp_path / f"source.{ending}")
    content = (tmp_path / f"source.{ending}").read_bytes()
    audit = audited(tmp_path, content, f"pets.{ending}")
    write_cleaned(audit, tmp_path / f"cleaned.{ending}", only=DECIDED, force=False)
    found = read(tmp_path / f"cleaned.{ending}")
    assert found.schema == table.schema
    assert found.drop_columns("kind") == table.drop_columns("kind")
    assert found["kind"].to_pylist() == ["dog", "dog", "dog", "cow", "dog"]


# What is refused, before anything is written


def refused(audit: Path, to: Path, match: str, *, force: bool = False) -> None:
    before = sorted(audit.parent.rglob("*"))
    with pytest.raises((ValueError, OSError), match=match):
        write_cleaned(audit, to, only=DECIDED, force=force)
    assert sorted(audit.parent.rglob("*")) == before


def test_data_that_changed_since__are_refused(tmp_path: Path) -> None:
    audit = audited(tmp_path)
    (tmp_path / "pets.csv").write_bytes(CSV + b"f,cat,new\n")
    refused(audit, tmp_path / "cleaned.csv", "as they were at the audit")
    (tmp_path / "pets.csv").unlink()
    refused(audit, tmp_path / "cleaned.csv", "where the audit found them")


def test_target_that_is_there__is_refused_without_force(tmp_path: Path) -> None:
    audit, to = audited(tmp_path), tmp_path / "cleaned.csv"
    to.write_text("mine")
    refused(audit, to, "Pass --force")
    assert to.read_text() == "mine"
    assert b"a,dog" in cleaned(audit)


def test_target_that_is_the_data__is_refused_even_with_force(tmp_path: Path) -> None:
    audit = audited(tmp_path)
    (tmp_path / "link.csv").symlink_to(tmp_path / "pets.csv")
    refused(audit, tmp_path / "pets.csv", "not be the data themselves", force=True)
    refused(audit, tmp_path / "link.csv", "not be the data themselves", force=True)


@pytest.mark.parametrize(
    "to, match", [("cleaned.tsv", "must end with .csv"), ("no/cleaned.csv", "folder that exists")]
)
def test_target_that_cannot_be__is_refused(tmp_path: Path, to: str, match: str) -> None:
    refused(audited(tmp_path), tmp_path / to, match)


def test_labels_that_are_not_those_of_the_file__are_refused(tmp_path: Path) -> None:
    other = [*ROWS[:2], ("c", "cow", "cat", "change"), *ROWS[3:]]
    refused(audited(tmp_path, rows=other), tmp_path / "cleaned.csv", "Got 'cow' where .* 'dog'")


def test_labels_of_other_many_rows__are_refused(tmp_path: Path) -> None:
    audit = audited(tmp_path, rows=ROWS[:4])
    refused(audit, tmp_path / "cleaned.csv", "each of the 5 rows of .* Got 4")


def test_decision_about_an_unknown_row__is_refused(tmp_path: Path) -> None:
    audit = audited(tmp_path)
    decide(audit, ("z", ACCEPT, "dog"))
    refused(audit, tmp_path / "cleaned.csv", "Got one about 'z'")


@pytest.mark.parametrize("content", ["", "[]", '{"data": "x"}'])
def test_folder_without_an_audit__is_refused(tmp_path: Path, content: str) -> None:
    audit = audited(tmp_path)
    (audit / "audit.json").write_text(content)
    refused(audit, tmp_path / "cleaned.csv", "one that noisyfit audit wrote")


def test_column_that_is_not_there__is_refused(tmp_path: Path) -> None:
    audit = audited(tmp_path)
    facts = json.loads((audit / "audit.json").read_text())
    (audit / "audit.json").write_text(json.dumps(facts | {"label": "sort"}))
    refused(audit, tmp_path / "cleaned.csv", "must be called 'sort'")


def test_full_disk__leaves_nothing(tmp_path: Path) -> None:
    audit = audited(tmp_path)
    with full_disk(50):
        refused(audit, tmp_path / "cleaned.csv", ".")


# Images


IMAGES: list[Row] = [
    ("cat/1.png", "cat", "dog", "change"),
    ("dog/1.png", "dog", "cat", "change"),
    ("dog/deep/2.png", "dog", "cat", "change"),
    ("dog/3.png", "dog", "dog", ""),
    ("cat/3.png", "cat", "dog", "change"),
]
MOVED = {
    "cat/1.png": "dog/1 (2).png",
    "dog/1.png": "cat/1 (2).png",
    "dog/deep/2.png": "cat/deep/2.png",
    "dog/3.png": "dog/3.png",
    "cat/3.png": "dog/3 (2).png",
    "dog/notes.txt": "dog/notes.txt",
}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return the folder of an audit of images, two of which swap their classes and one name."""
    for name in MOVED:
        file = tmp_path / "pets" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"was {name}")
    return write_audit(tmp_path / "audit", tmp_path / "pets", IMAGES, kind="images")


def contents(root: Path) -> dict[str, str]:
    files = [file for file in root.rglob("*") if file.is_file()]
    return {file.relative_to(root).as_posix(): file.read_text() for file in files}


AFTERWARDS = {new: f"was {old}" for old, new in MOVED.items()}


def test_images__to__copies_and_leaves_the_originals(images: Path) -> None:
    root, to = images.parent / "pets", images.parent / "cleaned"
    before = fingerprint(root)
    write_cleaned(images, to, only=CONFIDENT, force=False)
    assert contents(to) == AFTERWARDS
    assert fingerprint(root) == before
    assert not [*images.parent.glob(".*")]
    with pytest.raises(ValueError, match="must not be there yet"):
        write_cleaned(images, to, only=CONFIDENT, force=True)


def test_images__move_and_undo__give_back_what_was_there(images: Path) -> None:
    root = images.parent / "pets"
    before = fingerprint(root)
    assert "4 of 5 labels changed" in move_images(images, only=CONFIDENT)
    assert contents(root) == AFTERWARDS
    assert "have moved. To move them anew" in move_images(images, only=DECIDED)
    assert contents(root) == AFTERWARDS
    undo_moves(images)
    assert fingerprint(root) == before
    with pytest.raises(ValueError, match="needs images that were moved"):
        undo_moves(images)


@pytest.mark.parametrize("n_made", range(4))
def test_images__killed_while_moving__goes_on_and_goes_back(images: Path, n_made: int) -> None:
    root = images.parent / "pets"
    before = contents(root)
    move_images(images, only=CONFIDENT)
    for old, new in list(MOVED.items())[n_made:]:  # as if these had not been made
        os.replace(root / new, root / old)
    move_images(images, only=CONFIDENT)
    assert contents(root) == AFTERWARDS
    for old, new in list(MOVED.items())[n_made:]:
        os.replace(root / new, root / old)
    undo_moves(images)
    assert contents(root) == before


def test_images__a_name_taken_meanwhile__is_not_overwritten(images: Path) -> None:
    root = images.parent / "pets"
    move_images(images, only=CONFIDENT)
    (root / "cat/1.png").write_text("new")
    with pytest.raises(ValueError, match="Got both"):
        undo_moves(images)
    assert (root / "cat/1.png").read_text() == "new"
    assert (images / JOURNAL).exists()


@pytest.mark.parametrize("label", ["..", "", "a/b"])
def test_images__class_that_names_no_folder__is_refused(images: Path, label: str) -> None:
    with pytest.raises(ValueError, match="must be the name of a folder"):
        plan(images.parent / "pets", [Label("cat/1.png", "cat", label)])


@pytest.mark.parametrize("row", ["../pets/cat/1.png", "/etc/passwd", "1.png"])
def test_images__row_outside_the_folder__is_refused(images: Path, row: str) -> None:
    with pytest.raises(ValueError, match="must be an image in a class' folder"):
        plan(images.parent / "pets", [Label(row, "cat", "dog")])


def test_move__of_a_table__is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="need a folder of images"):
        move_images(audited(tmp_path), only=DECIDED)
