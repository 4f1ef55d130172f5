"""Files of every kind give the same rows; what is wrong with a file is said."""

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from noisyfit import CrossEntropyClassifier, NoisyFitWarning, tables

CSV = "age,town,member,label\n31,Rome,True,yes\n,Oslo,False,no\n52,,True,yes\n"
ROWS = [
    {"age": 31, "town": "Rome", "member": True, "label": "yes"},
    {"age": None, "town": "Oslo", "member": False, "label": "no"},
    {"age": 52, "town": None, "member": True, "label": "yes"},
]
JSON = "\n".join(json.dumps(row) for row in ROWS)


def write(folder: Path, content: str | bytes, name: str = "people.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def gz(content: str) -> bytes:
    return gzip.compress(content.encode())


def stored(write: Callable[..., Any]) -> Callable[[Path], Any]:
    return lambda path: write(pd.DataFrame(ROWS), path)


FILES: dict[str, Any] = {
    "people.csv": CSV,
    "people.CSV": CSV,
    "people.csv.gz": gz(CSV),
    "people.tsv": CSV.replace(",", "\t"),
    "people.tsv.gz": gz(CSV.replace(",", "\t")),
    "people.jsonl": JSON,
    "people.jsonl.gz": gz(JSON),
    "people.ndjson": f"{JSON}\n\n",
    "people.parquet": stored(pd.DataFrame.to_parquet),
    "people.feather": stored(pd.DataFrame.to_feather),
}


@pytest.mark.parametrize("name", FILES)
def test_read__the_same_rows_in_every_kind_of_file(tmp_path: Path, name: str) -> None:
    path, content = tmp_path / name, FILES[name]
    if callable(content):
        pytest.importorskip("pyarrow")
        content(path)
    else:
        write(tmp_path, content, name)
    X, y, left_out = tables.read(path, label="label")
    assert X["age"].fillna(0).tolist() == [31, 0, 52]
    assert X["town"].fillna("").tolist() == ["Rome", "Oslo", ""]
    assert X["member"].tolist() == [True, False, True]
    assert X["member"].dtype == bool
    assert y.tolist() == ["yes", "no", "yes"]
    assert y.name == "label"
    assert not left_out


def test_read__index_of_parquet__names_the_rows(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(ROWS, index=["Ann", "Bob", "Cem"])
    frame.to_parquet(tmp_path / "people.parquet")
    X, y, _ = tables.read(tmp_path / "people.parquet", label="label")
    assert X.index.tolist() == y.index.tolist() == ["Ann", "Bob", "Cem"]


def test_read__index__becomes_the_index_of_rows_and_labels(tmp_path: Path) -> None:
    path = write(tmp_path, "key,size,label\nb,1,x\na,2,y\n")
    X, y, _ = tables.read(path, label="label", index="key")
    assert X.columns.tolist() == ["size"]
    assert X.index.tolist() == y.index.tolist() == ["b", "a"]


@pytest.mark.parametrize(
    "encoding, given",
    [("utf-8-sig", "utf-8"), ("utf-8-sig", "utf-8-sig"), ("cp1252", "cp1252"), ("utf-16",) * 2],
)
def test_read__encodings__give_the_same_names(tmp_path: Path, encoding: str, given: str) -> None:
    path = write(tmp_path, "größe,label\n1,weiß\n2,rot\n".encode(encoding))
    X, y, _ = tables.read(path, label="label", encoding=given)
    assert X.columns.tolist() == ["größe"]
    assert y.tolist() == ["weiß", "rot"]


def test_read__other_separator_and_text_in_quotes(tmp_path: Path) -> None:
    path = write(tmp_path, 'note;label\n"one; two\nlines";a\n"say ""no""";b\n')
    X, y, _ = tables.read(path, label="label", sep=";")
    assert X["note"].tolist() == ["one; two\nlines", 'say "no"']


def test_read__very_long_text__is_read_and_leaves_the_csv_module_as_it_was(tmp_path: Path) -> None:
    limit, text = csv.field_size_limit(), "word " * 50_000
    path = write(tmp_path, f"note,label\n{text}1,a\nshort,b\n")
    assert len(tables.read(path, label="label").X["note"][0]) > limit
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize("name", ["people.csv", "people.jsonl"])
def test_read__missing_values__are_missing_in_numbers_text_and_labels(
    tmp_path: Path, name: str
) -> None:
    rows = [{"age": 31, "town": "?", "label": 1}, {"age": "?", "town": "Oslo", "label": 0}]
    rows += [{"age": -9, "town": "Rome", "label": "?"}]
    frame = pd.DataFrame(rows)
    text = frame.to_csv(index=False) if name.endswith("csv") else ""
    text = text.replace(",?", ", ?") or frame.to_json(orient="records", lines=True)
    X, y, _ = tables.read(write(tmp_path, text, name), label="label", missing_values=["?", -9])
    assert X["age"].isna().tolist() == [False, True, True]
    assert X["age"].dtype == np.float64
    assert X["town"].isna().tolist() == [True, False, False]
    assert y[:2].tolist() == [1, 0]
    assert y.isna().tolist() == [False, False, True]
    assert all(isinstance(value, int | np.integer) for value in y[:2])


def test_read__none__is_a_gap_in_columns_but_a_class_in_labels(tmp_path: Path) -> None:
    path = write(tmp_path, "size,disease\n1,None\nNone,flu\n3,NA\n4,flu\n")
    X, y, _ = tables.read(path, label="disease")
    assert X["size"].isna().tolist() == [False, True, False, False]
    assert y[:2].tolist() == ["None", "flu"]
    assert y.isna().tolist() == [False, False, True, False]


def test_read__labels_that_are_missing__are_left_to_the_estimator(tmp_path: Path) -> None:
    rows = "".join(f"{i / 7},{i % 2 if i % 5 else ''}\n" for i in range(40))
    X, y, _ = tables.read(write(tmp_path, f"size,label\n{rows}"), label="label")
    clf = CrossEntropyClassifier(missing_label=float("nan"), max_epochs=1).fit(X, y)
    assert clf.classes_.tolist() == [0, 1]
    assert clf.classes_.dtype.kind == "i"


FAULTS: dict[str, tuple[str, str | bytes, dict[str, Any], str]] = {
    "wrong column": ("t.csv", CSV, {"label": "lable"}, "'lable'.*'label'.*'age', 'town'"),
    "wrong keep": ("t.csv", CSV, {"keep": ["twon"]}, "keep must.*Did you mean 'town'"),
    "wrong index": ("t.csv", CSV, {"index": "id"}, "index must be a column of t.csv. Got 'id'"),
    "separator": ("t.csv", CSV.replace(",", ";"), {}, r"pass sep=';'"),
    "one class": ("t.csv", "a,label\n1,x\n2,x\n3,\n", {}, "two classes or more. Got 'x'"),
    "no labels": ("t.csv", "a,label\n1,\n2,?\n", {"missing_values": "?"}, "Got none in 2 rows"),
    "only a header": ("t.csv", "a,label\n", {}, "Got none below its header"),
    "real numbers": ("t.csv", "a,label\n1,2\n2,0.25\n", {}, "'label' of t.csv.*such as 0.25"),
    "many classes": (
        "t.csv",
        "a,label\n" + "".join(f"{i % 3},{i}\n" for i in range(30)),
        {},
        "30 different values in 30 rows",
    ),
    "latin": ("t.csv", "a,label\n1,x\n2,Köln\n".encode("latin-1"), {}, "0xf6 in line 3.*cp1252"),
    "utf-16": ("t.csv", CSV.encode("utf-16"), {}, 'line 1.*encoding="utf-16"'),
    "zeros": ("t.csv", "a,label\n1,x\n2,\0\n", {}, "Got a byte of zero in line 3"),
    "lists": ("t.jsonl", '{"a": 1, "label": [2]}\n', {}, r"one class a row. Got the list \[2\]"),
    "half a surrogate": ("t.jsonl", '{"label": "\\uD800"}\n', {}, "line 1: .*surrogates"),
    "mixed": ("t.csv", b"a,label\n1,\xc3\xb6\n2,\xf6\n", {}, "0xf6 in line 3.*mixes encodings"),
    "long line": ("t.csv", "a,label\n1,x\n2,y,z\n", {}, "3 fields in line 3, and 2 in the header"),
    "short line": ("t.csv", 'a,b,label\n"1\n",2,x\n3\n', {}, "1 fields in line 4, and 3"),
    "all lines long": ("t.csv", "a,label\n1,x,3\n2,y,3\n", {}, "3 fields in line 2, and 2"),
    "open quote": ("t.csv", 'a,label\n1,"x\n2,y\n', {}, "quotation marks"),
    "empty": ("t.csv", "", {}, "Got an empty file"),
    "blank": ("t.csv", "\n \n", {}, "Got an empty file"),
    "empty gzip": ("t.csv.gz", gz(""), {}, "Got an empty file"),
    "no gzip": ("t.csv.gz", CSV, {}, "must be compressed by gzip"),
    "half a gzip": ("t.csv.gz", gz(CSV)[:-9], {}, "must be compressed by gzip"),
    "names twice": ("t.csv", "a,a,label\n1,2,x\n", {}, r"once. Got \['a'\]"),
    "suffix": ("t.xlsx", "PK", {}, r"must end in .csv, .*Got 't.xlsx'"),
    "ids twice": (
        "t.csv",
        "k,a,label\n7,1,x\n8,2,y\n7,3,x\n",
        {"index": "k"},
        "Got 7 again in row 2",
    ),
    "no id": ("t.csv", "k,a,label\n7,1,x\n,2,y\n", {"index": "k"}, "Got no value in row 1"),
    "no columns": (
        "t.csv",
        "label\nx\ny\n",
        {},
        "columns to learn from beside the label. Got none",
    ),
    "empty columns": ("t.csv", "a,label\n,x\n,y\n", {}, r"Got 'a' \(it is empty\)"),
    "no JSON": ("t.jsonl", '{"a": 1, "label": 2}\n{"a": 1,\n', {}, "line 2: Expecting property"),
    "JSON list": ("t.jsonl", '[{"a": 1}]\n', {}, "line 1: a list.*orient='records'"),
    "no parquet": ("t.parquet", "PAR", {}, "must be a parquet file"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_read__what_is_wrong_with_the_file__is_said(tmp_path: Path, fault: str) -> None:
    name, content, params, message = FAULTS[fault]
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    with pytest.raises(ValueError, match=f"(?s){message}"):
        tables.read(write(tmp_path, content, name), **{"label": "label"} | params)


def test_read__file_that_is_missing__names_one_that_is_close(tmp_path: Path) -> None:
    write(tmp_path, CSV, "people.csv")
    with pytest.raises(FileNotFoundError, match=r"peple.csv'. Did you mean 'people.csv'"):
        tables.read(tmp_path / "peple.csv", label="label")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        tables.read(tmp_path / "nowhere" / "t.csv", label="label")


def test_read__folder__names_the_reader_of_images(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"noisyfit\.images\.from_folder"):
        tables.read(tmp_path, label="label")


# Columns that are left out.


def left_out_of(column: str, values: Any, **params: Any) -> bool:
    n = len(values)
    frame = pd.DataFrame({column: values, "other": np.arange(n) % 3, "label": np.arange(n) % 2})
    return column in tables.from_frame(frame, label="label", **params).left_out


N = np.arange(50)
RNG = np.random.default_rng(0)
SHUFFLED = RNG.permutation(1000)[:50]
USELESS: dict[str, tuple[str, Any]] = {
    "named, numbers": ("customer_id", SHUFFLED),
    "named in camels": ("PassengerId", SHUFFLED),
    "named, text": ("ID", [f"{a} {b}" for a, b in zip(SHUFFLED, N, strict=True)]),
    "of to_csv": ("Unnamed: 0", SHUFFLED),
    "counts": ("whatever", N + 17),
    "keys": ("user", [f"user{i:04}" for i in SHUFFLED]),
    "files": ("file", [f"img_{i}.png" for i in SHUFFLED]),
    "hashes": ("hash", [RNG.bytes(16).hex() for _ in N]),
    "one value": ("year", ["2024"] * 50),
    "nothing": ("note", [None] * 50),
    "lists": ("tags", [[i] for i in N]),
}
USEFUL: dict[str, tuple[str, Any]] = {
    "real numbers": ("size", RNG.normal(size=50)),
    "real numbers with the name": ("acid_id", RNG.normal(size=50)),
    "whole numbers, all different": ("income", SHUFFLED * 1000),
    "sorted, but not counting": ("time", np.sort(SHUFFLED)),
    "shares a value": ("user_id", np.append(SHUFFLED[:-1], SHUFFLED[0])),
    "name that ends alike": ("paid", SHUFFLED),
    "prices": ("price", [f"${i / 100:.2f}" for i in SHUFFLED]),
    "weights": ("weight", [f"{i}kg" for i in SHUFFLED]),
    "dates": ("day", [f"2024-{1 + i // 28:02}-{1 + i % 28:02}" for i in N]),
    "texts": ("review", [f"the {i}th was good" for i in N]),
    "molecules": ("molecule", ["C" * i + "O" for i in N]),
    "one value or none": ("flag", ["x", None] * 25),
    "few rows in order": ("rank", N[:8]),
}


@pytest.mark.parametrize("case", USELESS)
def test_columns__that_teach_nothing__are_left_out_with_a_warning(case: str) -> None:
    column, values = USELESS[case]
    with pytest.warns(NoisyFitWarning, match=rf"the frame.*'{column}' \(it .*keep="):
        assert left_out_of(column, values)
    assert not left_out_of(column, values, keep=column)


@pytest.mark.parametrize("case", USEFUL)
@pytest.mark.filterwarnings("error::noisyfit.NoisyFitWarning")
def test_columns__that_may_teach_something__are_kept(case: str) -> None:
    column, values = USEFUL[case]
    assert not left_out_of(column, values)


# Frames.


def test_from_frame__polars__is_as_from_pandas() -> None:
    pl = pytest.importorskip("polars")
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(ROWS)
    X, y, _ = tables.from_frame(pl.from_pandas(frame), label="label")
    assert_frame_equal(X, frame.drop(columns="label"), check_dtype=False)
    assert y.tolist() == ["yes", "no", "yes"]


def test_from_frame__category_labels_and_gaps__stay_what_they_are() -> None:
    frame = pd.DataFrame({"a": [1, 2, 3], "label": pd.Categorical(["x", "y", None])})
    y = tables.from_frame(frame, label="label").y
    assert y.cat.categories.tolist() == ["x", "y"]


def test_from_frame__columns_of_one_name__are_refused() -> None:
    frame = pd.DataFrame([[1, 2, "x"], [3, 4, "y"]], columns=["a", "a", "label"])
    with pytest.raises(ValueError, match="each column once"):
        tables.from_frame(frame, label="label")


def test_from_frame__no_frame__names_read() -> None:
    with pytest.raises(TypeError, match=r"Got str.*noisyfit\.tables\.read"):
        tables.from_frame("people.csv", label="label")
