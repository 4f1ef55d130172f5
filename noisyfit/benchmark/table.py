"""A CSV file that grows by one row at a time and survives SIGKILL."""

from __future__ import annotations

import csv
import io
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noisyfit.utils.files import whole_file

if TYPE_CHECKING:
    import pandas as pd
if sys.platform != "win32":
    import fcntl

Row = dict[str, str]
FORMULA = re.compile(r"'*(?:\t|\s*[=+\-@\uff1d\uff0b\uff0d\uff20])")  # half-width or full-width


class Table:
    """Rows on disk, each of which is there to stay once `append` returns.

    Opening a table drops a last line that was cut short by a kill or a power failure, and adds
    empty columns for those that an earlier version did not have.

    Parameters
    ----------
    path : path
        Created if it does not exist; its folder must exist.
    columns : sequence of str

    Raises
    ------
    ValueError
        If the file has columns that this version does not know, or has them in another order.
    """

    def __init__(self, path: str | os.PathLike[str], columns: Sequence[str]) -> None:
        self.path = Path(path)
        self.columns = list(columns)
        self.rows: list[Row] = []
        whole = self._whole_lines()
        stored = _fields(whole[0]) if whole else self.columns
        if not stored or stored != [name for name in self.columns if name in stored]:
            raise ValueError(
                f"{self.path} must have the columns of this version, or some of them. "
                f"Got {stored}. Choose another folder."
            )
        empty = dict.fromkeys(self.columns, "")
        self.rows = [empty | self._row(stored, line) for line in whole[1:]]
        text = b"".join(whole)
        if not whole or stored != self.columns:
            self.rewrite(self.rows)
        elif self.path.read_bytes() != text:
            _write_whole(self.path, text)

    def _whole_lines(self) -> list[bytes]:
        """Return the lines up to the first incomplete one; only the last can be incomplete."""
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        if lines and not _is_whole(lines[-1], len(_fields(lines[0])) if len(lines) > 1 else None):
            lines.pop()
        return lines

    def _row(self, columns: list[str], line: bytes) -> Row:
        try:
            return dict(zip(columns, map(_unquoted, _fields(line)), strict=True))
        except (ValueError, csv.Error) as error:
            raise ValueError(
                f"Each line of {self.path} must have {len(columns)} fields in UTF-8. Got "
                f"{line[:50]!r}. Mend it, or choose another folder."
            ) from error

    def append(self, row: dict[str, Any]) -> None:
        """Add a row and wait until it is on disk.

        Numbers are written with six digits, None and NaN as nothing. Text that a spreadsheet would
        run as a formula gets a leading apostrophe.
        """
        written = {name: _text(row.get(name)) for name in self.columns}
        with open(self.path, "ab") as file:
            file.write(_line(written.values()))
            file.flush()
            os.fsync(file.fileno())
        self.rows.append(written)

    def rewrite(self, rows: Sequence[dict[str, Any]]) -> None:
        """Replace all rows atomically."""
        self.rows = [{name: _text(row.get(name)) for name in self.columns} for row in rows]
        lines = [_line(self.columns), *(_line(row.values()) for row in self.rows)]
        _write_whole(self.path, b"".join(lines))


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Keep a second process from writing to a folder; a killed process releases it.

    Raises
    ------
    ValueError
        If another process is writing there.
    """
    with open(folder / ".lock", "w") as file:
        if sys.platform != "win32":
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"One run at a time may write to {folder}. Got a second. Wait for it, or "
                    "choose another folder."
                ) from None
        yield


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else one_line(str(value))


def one_line(text: str) -> str:
    """Return text as a table holds it: on one line and in valid UTF-8, whatever a file's name."""
    return " ".join(text.splitlines()).encode("utf-8", "backslashreplace").decode("utf-8")


def read_frame(path: Path, texts: Iterable[str]) -> pd.DataFrame:
    """Read a table written by `Table`, with these columns as text and the others as numbers.

    A name such as ``2024`` or ``NA`` stays a name.
    """
    import pandas as pd

    types = dict.fromkeys(texts, "str")
    frame = pd.read_csv(path, dtype=types, keep_default_na=False, na_values=[""])
    for name in frame.columns.intersection(list(types)):
        frame[name] = frame[name].map(_unquoted, na_action="ignore")
    return frame


def _quoted(text: str) -> str:
    """Put an apostrophe before text that a spreadsheet would run; numbers stay numbers."""
    return f"'{text}" if FORMULA.match(text) and not _is_number(text) else text


def _unquoted(field: str) -> str:
    return field[1:] if field.startswith("'") and FORMULA.match(field) else field


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _line(fields: Iterable[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(map(_quoted, fields))
    return text.getvalue().encode()


def _fields(line: bytes) -> list[str]:
    return next(csv.reader([line.decode()]), [])


def _is_whole(line: bytes, n_fields: int | None) -> bool:
    if not line.endswith(b"\n") or b"\0" in line:  # zeros: allocated, not yet written
        return False
    try:
        return n_fields is None or len(_fields(line)) == n_fields
    except (UnicodeDecodeError, csv.Error):
        return False


def _write_whole(path: Path, text: bytes) -> None:
    with whole_file(path, path.with_suffix(f".{os.getpid()}.tmp")) as file:
        file.write(text)
