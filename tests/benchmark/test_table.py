import csv
import re
from pathlib import Path

import pytest

from noisyfit.benchmark.table import Table, only_writer, read_frame

COLUMNS = ["method", "accuracy"]
HEAD = b"method,accuracy\n"


def stored(path: Path) -> list[dict[str, str]]:
    return Table(path, COLUMNS).rows


def test_rows_are_there_when_append_returns(tmp_path: Path) -> None:
    table = Table(tmp_path / "t.csv", COLUMNS)
    table.append({"method": 'a "name", with comma', "accuracy": 1 / 3})
    table.append({"method": "two\nlines", "accuracy": float("nan"), "unknown": 1})
    assert stored(table.path) == [
        {"method": 'a "name", with comma', "accuracy": "0.333333"},
        {"method": "two lines", "accuracy": ""},
    ]


@pytest.mark.parametrize(
    "torn",
    [b"b,0.", b"b", b"b,0.5", b'"b', b"b\n", b"\0\0\0\0", b"b,0.\0\0\0\n", b"\xff,1\n"],
)
def test_torn_last_line__is_dropped__and_the_next_row_takes_its_place(
    tmp_path: Path, torn: bytes
) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(HEAD + b"a,1\n" + torn)
    table = Table(path, COLUMNS)
    assert table.rows == [{"method": "a", "accuracy": "1"}]
    table.append({"method": "b", "accuracy": 2})
    assert path.read_bytes() == HEAD + b"a,1\nb,2\n"


@pytest.mark.parametrize("cut", range(len(HEAD) + len(b"a,1\nb,2\n") + 1))
def test_file_cut_at_any_byte__loses_only_the_row_that_was_cut(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes((HEAD + b"a,1\nb,2\n")[:cut])
    whole = path.read_bytes().count(b"\n")
    assert len(stored(path)) == max(0, whole - 1)
    assert path.read_bytes().startswith(HEAD)


def test_other_columns__are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("something,else\n1,2\n")
    with pytest.raises(ValueError, match="must have the columns of this version.*something"):
        Table(tmp_path / "t.csv", COLUMNS)
    assert (tmp_path / "t.csv").read_text() == "something,else\n1,2\n"


def test_columns_of_an_earlier_version__are_kept_and_the_new_one_is_empty(tmp_path: Path) -> None:
    """A folder could not be resumed or reported once the table had one column more."""
    path = tmp_path / "t.csv"
    path.write_bytes(b"method\na\nb\n")
    table = Table(path, COLUMNS)
    assert table.rows == [{"method": "a", "accuracy": ""}, {"method": "b", "accuracy": ""}]
    table.append({"method": "c", "accuracy": 2})
    assert path.read_bytes() == HEAD + b"a,\nb,\nc,2\n"
    path.write_bytes(b"method\na\nb")
    assert stored(path) == [{"method": "a", "accuracy": ""}]


@pytest.mark.parametrize("head", ["accuracy,method", "method,else", ""])
def test_columns_in_another_order_or_unknown__are_refused(tmp_path: Path, head: str) -> None:
    (tmp_path / "t.csv").write_text(f"{head}\n1,2\n")
    with pytest.raises(ValueError, match="must have the columns of this version"):
        Table(tmp_path / "t.csv", COLUMNS)
    assert (tmp_path / "t.csv").read_text() == f"{head}\n1,2\n"


def test_whole_file__is_not_written_again_when_it_is_read(tmp_path: Path) -> None:
    Table(tmp_path / "t.csv", COLUMNS).append({"method": "a", "accuracy": 1})
    before = (tmp_path / "t.csv").stat()
    stored(tmp_path / "t.csv")
    assert (tmp_path / "t.csv").stat().st_ino == before.st_ino


def test_rewrite_replaces_all_rows(tmp_path: Path) -> None:
    table = Table(tmp_path / "t.csv", COLUMNS)
    table.append({"method": "a", "accuracy": 1})
    table.rewrite([row | {"accuracy": 2} for row in table.rows])
    assert stored(table.path) == [{"method": "a", "accuracy": "2"}]
    assert [file.name for file in tmp_path.iterdir()] == ["t.csv"]


def test_second_writer__is_refused__until_the_first_has_ended(tmp_path: Path) -> None:
    with only_writer(tmp_path), pytest.raises(ValueError, match="One run at a time"):
        with only_writer(tmp_path):
            pass
    with only_writer(tmp_path):
        pass


@pytest.mark.parametrize(
    "text",
    [
        "=1+1", "+cmd", "-2+3", "@SUM(A1)", "\t=1", "\tx", " =1", "\uff1d1", "'=1", "''@x", "-",
        "=", "--1", "'plain", "plain", "a=b", "-0.5", "+5", "-1e-05", "-inf", "1-2", "'-0.5",
    ],
)  # fmt: skip
def test_text__that_a_spreadsheet_would_run__is_quoted_in_the_file_and_read_as_it_was(
    tmp_path: Path, text: str
) -> None:
    table = Table(tmp_path / "t.csv", COLUMNS)
    table.append({"method": text, "accuracy": -0.5})
    first = list(csv.reader(table.path.read_text(encoding="utf-8").splitlines()))[1][0]
    numbers = ("-0.5", "+5", "-1e-05", "-inf")
    assert first in numbers or not re.match(r"\t|\s*[=+\-@\uff1d]", first)
    assert (first == text) == (text in (*numbers, "plain", "'plain", "a=b", "1-2"))
    assert stored(table.path) == table.rows == [{"method": text, "accuracy": "-0.5"}]
    table.rewrite(table.rows)
    assert stored(table.path) == [{"method": text, "accuracy": "-0.5"}]
    frame = read_frame(table.path, ["method"])
    assert frame.to_dict("records") == [{"method": text, "accuracy": -0.5}]


@pytest.mark.parametrize("text", ["2024", "007", "NA", "nan", "None", "1e5", "True", "inf"])
def test_frame__names_that_look_like_something_else__stay_names(tmp_path: Path, text: str) -> None:
    """A folder of images called 2024 could be fitted but not reported."""
    table = Table(tmp_path / "t.csv", COLUMNS)
    table.append({"method": text, "accuracy": None})
    frame = read_frame(table.path, ["method", "of a later version"])
    assert frame["method"].tolist() == [text]
    assert frame["accuracy"].isna().all()


def test_name__of_several_lines_or_no_text__is_one_line_of_utf8(tmp_path: Path) -> None:
    table = Table(tmp_path / "t.csv", COLUMNS)
    table.append({"method": "a\r\nb\u2028c\udcff"})
    assert stored(table.path) == table.rows == [{"method": "a b c\\udcff", "accuracy": ""}]


@pytest.mark.parametrize("line", [b"a,1,2\n", b"a\n", b"\xff,1\n"])
def test_line__that_no_version_has_written__is_named(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(HEAD + line + b"b,2\n")
    with pytest.raises(ValueError, match="t.csv must have 2 fields in UTF-8"):
        stored(tmp_path / "t.csv")
