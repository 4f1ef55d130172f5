"""``decisions.csv``: what people decided about the rows of an audit, one line a decision."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from errno import ENOSPC
from pathlib import Path
from typing import NamedTuple

from noisyfit.exceptions import warn
from noisyfit.utils.files import whole_file

NAME = "decisions.csv"
COLUMNS = ["time", "row", "decision", "label"]
KEEP, ACCEPT, OTHER, SKIP, UNDO = "keep", "accept", "other", "skip", "undo"
KNOWN = (KEEP, ACCEPT, OTHER, SKIP, UNDO)
ENCODING = {"encoding": "utf-8", "errors": "surrogateescape"}  # names of files are any bytes


class Decision(NamedTuple):
    """A line of the file; ``label`` is that which the row has from then on, or empty."""

    time: str
    row: str
    decision: str
    label: str


def read(file: Path) -> list[Decision]:
    """Return all decisions, the oldest first; none if there is no file.

    A last line that was cut short by a crash is passed over with a warning.

    Raises
    ------
    ValueError
        If a line is not a decision.
    """
    decisions, torn = _read(file)
    if torn:
        warn(
            f"The last line of {file} must be whole. Got {torn[:80]!r}; it is passed over. "
            "Decide about that row again."
        )
    return decisions


def standing(decisions: Iterable[Decision]) -> dict[str, Decision]:
    """Return the decision that holds for each row: the last, less those that were undone."""
    stacks = defaultdict[str, list[Decision]](list)
    for decision in decisions:
        stack = stacks[decision.row]
        if decision.decision != UNDO:
            stack.append(decision)
        elif stack:
            stack.pop()
    return {row: stack[-1] for row, stack in stacks.items() if stack}


def open_log(file: Path) -> None:
    """Make the file ready for `append`: create it, or set a torn last line aside.

    Raises
    ------
    ValueError
        If a line is not a decision.
    """
    if not file.exists():
        _write(file, _line(COLUMNS))
        return
    _, torn = _read(file)
    if not torn:
        return
    beside = file.with_name(f"{file.name}.torn")
    with open(beside, "ab") as rest:
        rest.write(torn + b"\n")
    _write(file, file.read_bytes().removesuffix(torn) or _line(COLUMNS))
    warn(
        f"The last line of {file} must be whole. Got {torn[:80]!r}; it is now in {beside.name}. "
        "Decide about that row again."
    )


def append(file: Path, row: str, decision: str, label: str = "") -> None:
    """Add a decision, which is on the disk when this returns.

    Raises
    ------
    OSError
        If it cannot be written. The file is as it was.
    """
    line = _line([datetime.now(UTC).isoformat(timespec="milliseconds"), row, decision, label])
    with open(file, "ab", buffering=0) as stream:
        size = stream.tell()
        try:
            if stream.write(line) != len(line):
                raise OSError(ENOSPC, os.strerror(ENOSPC), str(file))
            os.fsync(stream.fileno())
        except OSError:
            stream.truncate(size)
            raise


def _read(file: Path) -> tuple[list[Decision], bytes]:
    """Return the decisions, and what follows the last whole line."""
    if not file.exists():
        return [], b""
    text = file.read_bytes().decode(**ENCODING)
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    records, n_lines = _whole_records(lines)
    if records[:1] not in ([], [COLUMNS]):
        raise ValueError(
            f"The first line of {file} must be {','.join(COLUMNS)}. Got {lines[0].strip()!r}. "
            "Restore it, or move the file away."
        )
    torn = "".join(lines[n_lines:]).encode(**ENCODING)
    return [_decision(record, file) for record in records[1:]], torn


def _whole_records(lines: Sequence[str]) -> tuple[list[list[str]], int]:
    """Return the records that end with a line, and how many lines they take."""
    reader = csv.reader(lines, strict=True)
    records, n_lines = [], 0
    with suppress(csv.Error):  # within quotes at the end
        for record in reader:
            if not lines[reader.line_num - 1].endswith("\n"):
                break
            records.append(record)
            n_lines = reader.line_num
    return records, n_lines


def _decision(record: Sequence[str], file: Path) -> Decision:
    if len(record) != len(COLUMNS) or record[2] not in KNOWN:
        raise ValueError(
            f"A line of {file} must be a time, a row, one of {', '.join(KNOWN)}, and a label. Got "
            f"{','.join(record)!r}. Mend or delete the line."
        )
    return Decision(*record)


def _line(fields: Sequence[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow(fields)
    return text.getvalue().encode(**ENCODING)


def _write(file: Path, content: bytes) -> None:
    with whole_file(file, file.with_name(f"{file.name}.tmp")) as stream:
        stream.write(content)
