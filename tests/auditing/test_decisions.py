"""Decisions are on disk once they are said to be, and come back as they were written."""

from pathlib import Path

import pytest

from noisyfit import NoisyFitWarning
from noisyfit.auditing.decisions import (
    ACCEPT,
    KEEP,
    OTHER,
    SKIP,
    UNDO,
    Decision,
    append,
    open_log,
    read,
    standing,
)
from tests.helpers import full_disk

ODD = ["plain", 'a,"b"', "line\nbreak", "carriage\rreturn", "\u2028", "\udcff", "=1+1", "", " "]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    file = tmp_path / "decisions.csv"
    open_log(file)
    return file


def test_append__any_text__comes_back_as_it_was(log: Path) -> None:
    for text in ODD:
        append(log, f"row {text}", OTHER, text)
    assert [(one.row, one.label) for one in read(log)] == [(f"row {text}", text) for text in ODD]


def test_append__time__is_iso_in_utc(log: Path) -> None:
    append(log, "1", KEEP, "cat")
    assert read(log)[0].time.endswith("+00:00")


def test_open_log__again__keeps_what_is_there(log: Path) -> None:
    append(log, "1", KEEP, "cat")
    before = log.read_bytes()
    open_log(log)
    assert log.read_bytes() == before


def test_open_log__a_line_cut_anywhere__is_set_aside_with_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "decisions.csv"
    open_log(file)
    append(file, "1", KEEP, "cat")
    whole = file.read_bytes()
    append(file, "row\n2", ACCEPT, 'say "dog"')
    for n in range(len(whole) + 1, len(file.read_bytes())):
        torn = tmp_path / str(n) / "decisions.csv"
        torn.parent.mkdir()
        torn.write_bytes(file.read_bytes()[:n])
        with pytest.warns(NoisyFitWarning, match="must be whole"):
            open_log(torn)
        assert torn.read_bytes() == whole
        rest = torn.with_name("decisions.csv.torn").read_bytes()
        assert whole + rest[:-1] == file.read_bytes()[:n]


def test_read__torn_line__is_passed_over_with_a_warning(log: Path) -> None:
    append(log, "1", KEEP, "cat")
    with open(log, "a") as file:
        file.write("2026-01-01,2,acc")
    with pytest.warns(NoisyFitWarning, match="passed over"):
        assert [one.row for one in read(log)] == ["1"]


@pytest.mark.parametrize(
    "line, message", [("a,b,c\r\n", "must be a time"), ("t,1,kep,\r\n", "one of keep, accept")]
)
def test_read__line_that_is_no_decision__says_what_it_must_be(
    log: Path, line: str, message: str
) -> None:
    with open(log, "a") as file:
        file.write(line)
    with pytest.raises(ValueError, match=message):
        read(log)


def test_read__another_table__is_refused(log: Path) -> None:
    log.write_text("row,label\r\n1,cat\r\n")
    with pytest.raises(ValueError, match="must be time,row,decision,label"):
        open_log(log)


def test_append__on_a_full_disk__leaves_the_file_as_it_was(log: Path) -> None:
    append(log, "1", KEEP, "cat")
    before = log.read_bytes()
    with full_disk(len(before) + 10), pytest.raises(OSError, match="."):
        append(log, "2", KEEP, "cat")
    assert log.read_bytes() == before


def said(*decisions: tuple[str, str]) -> dict[str, str]:
    made = [Decision("", row, what, "") for row, what in decisions]
    return {row: one.decision for row, one in standing(made).items()}


def test_standing__last_decision_of_a_row_wins() -> None:
    assert said(("1", KEEP), ("2", SKIP), ("1", ACCEPT)) == {"1": ACCEPT, "2": SKIP}


def test_standing__undo__brings_back_the_decision_before() -> None:
    assert said(("1", KEEP), ("1", ACCEPT), ("1", UNDO)) == {"1": KEEP}
    assert said(("1", KEEP), ("1", UNDO), ("1", UNDO), ("2", UNDO)) == {}
