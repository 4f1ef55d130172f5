"""Files with other labels: only the label of each row is replaced, all else is kept as it is."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from json import JSONDecoder
from typing import Any, TypeVar
from zipfile import ZipFile

from noisyfit.auditing.source import Label, Source

ENCODINGS = ("utf-8", "cp1252", "latin-1")  # the last reads any bytes
BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
BOM = "\ufeff"
DELIMITERS = ",;\t|"
LINE_END = r"(?:\r\n|\r|\n|\Z)"
BLANKS = re.compile(r"\s*")
Raw = TypeVar("Raw")
Span = tuple[int, int]


def rewritten(source: Source, labels: Sequence[Label]) -> bytes:
    """Return the contents of a file with other labels.

    Parameters
    ----------
    source : Source
    labels : sequence of Label
        One a row, in the order of the file.

    Raises
    ------
    ValueError
        If the file is of a kind that cannot be rewritten, or its labels are not those that were
        audited.
    """
    rewrite = REWRITERS.get(source.data.suffix.lower())
    if rewrite is None:
        raise ValueError(
            f"noisyfit apply writes folders of images, and {', '.join(REWRITERS)}. Got "
            f"{source.data}. Take the labels from labels.csv."
        )
    return rewrite(source, labels)


def _delimited(source: Source, labels: Sequence[Label]) -> bytes:
    """Rewrite CSV or TSV: quotes, line ends, encoding and all other fields stay."""
    mark, text, encoding = _decoded(source.data.read_bytes())
    delimiter, column = _find_column(text, source)
    spans = list(_fields(text, delimiter, column, source))[1:]  # less the header
    old = [text[start:end] for start, end in spans]
    new = _replaced(old, labels, source, read=_unquoted, spell=str)
    quoted = [_quoted_as(a, b, delimiter) if a != b else a for a, b in zip(old, new, strict=True)]
    return (mark + _put(text, spans, quoted)).encode(encoding)


def _decoded(content: bytes) -> tuple[str, str, str]:
    """Return the byte order mark, the text, and the encoding that gives back the bytes."""
    encoding = BYTE_ORDER_MARKS.get(content[:2]) or _encoding_of(content)
    text = content.decode(encoding)
    mark = BOM if text.startswith(BOM) else ""
    return mark, text.removeprefix(BOM), encoding


def _encoding_of(content: bytes) -> str:
    for encoding in ENCODINGS[:-1]:
        try:
            content.decode(encoding)
        except UnicodeDecodeError:
            continue
        return encoding
    return ENCODINGS[-1]


def _find_column(text: str, source: Source) -> tuple[str, int]:
    """Return the delimiter by which the header has the column of the labels, and its number."""
    for delimiter in DELIMITERS:
        header = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
        if header.count(source.label) == 1:
            return delimiter, header.index(source.label)
    raise ValueError(
        f"One column of {source.data} must be called {source.label!r}. Got {text[:80]!r}... "
        "Take the labels from labels.csv."
    )


def _fields(text: str, delimiter: str, column: int, source: Source) -> Iterator[Span]:
    """Yield where each record has its label; blank lines are no records."""
    comma = re.escape(delimiter)
    field = rf'(?>"(?:[^"]|"")*+"[^{comma}\r\n]*+|[^{comma}\r\n]*+)'
    record = rf"(?:{field}{comma}){{{column}}}(?P<label>{field})(?:{comma}{field})*+{LINE_END}"
    line = re.compile(rf" *+(?:\r\n|\r|\n)|{record}")
    at = 0
    while at < len(text):
        found = line.match(text, at)
        if found is None:
            raise ValueError(
                f"Each line of {source.data} must have the column {source.label!r}. Got "
                f"{text[at : at + 80]!r}. Take the labels from labels.csv."
            )
        if found["label"] is not None:
            yield found.span("label")
        at = found.end()


def _unquoted(field: str) -> str:
    if field.startswith('"') and field.endswith('"') and len(field) > 1:
        return field[1:-1].replace('""', '"')
    return field


def _quoted_as(old: str, new: str, delimiter: str) -> str:
    """Return a field with quotes if the old one had them, or if it needs them."""
    text = _unquoted(new)
    if old.startswith('"') or any(sign in text for sign in (delimiter, '"', "\r", "\n")):
        return '"' + text.replace('"', '""') + '"'
    return text


def _json_lines(source: Source, labels: Sequence[Label]) -> bytes:
    """Rewrite an object a line; all outside the value of the label stays."""
    mark, text, encoding = _decoded(source.data.read_bytes())
    lines = [match for match in re.finditer(r"[^\n]+", text) if match[0].strip()]
    spans = [_value(text, line.start(), source) for line in lines]
    old = [text[start:end] for start, end in spans]
    new = _replaced(old, labels, source, read=_json_text, spell=json.dumps)
    return (mark + _put(text, spans, new)).encode(encoding)


def _value(text: str, at: int, source: Source) -> Span:
    """Return where the object at a place has the value of the label."""
    decoder = JSONDecoder()
    try:
        end = text.index("{", at)
        while text[end] in "{,":
            key, end = decoder.raw_decode(text, _after_blanks(text, end + 1))
            colon = _after_blanks(text, end)
            start = _after_blanks(text, colon + 1)
            _, end = decoder.raw_decode(text, start)
            if key == source.label:
                return start, end
            end = _after_blanks(text, end)
    except (ValueError, IndexError):
        pass
    raise ValueError(
        f"Each line of {source.data} must be an object with {source.label!r}. Got "
        f"{text[at : at + 80]!r}. Take the labels from labels.csv."
    )


def _after_blanks(text: str, at: int) -> int:
    found = BLANKS.match(text, at)
    return found.end() if found else at


def _json_text(raw: str) -> str:
    value = json.loads(raw)
    return value if isinstance(value, str) else "" if value is None else raw


def _parquet(source: Source, labels: Sequence[Label]) -> bytes:
    from pyarrow import parquet

    written = BytesIO()
    parquet.write_table(_relabelled(parquet.read_table(source.data), labels, source), written)
    return written.getvalue()


def _feather(source: Source, labels: Sequence[Label]) -> bytes:
    from pyarrow import feather

    written = BytesIO()
    feather.write_feather(_relabelled(feather.read_table(source.data), labels, source), written)
    return written.getvalue()


def _relabelled(table: Any, labels: Sequence[Label], source: Source) -> Any:
    """Return an Arrow table with another column of labels, of the same type."""
    import pyarrow

    number = table.schema.get_field_index(source.label)
    if number < 0:
        raise ValueError(
            f"One column of {source.data} must be called {source.label!r}. Got "
            f"{table.column_names}. Take the labels from labels.csv."
        )
    field = table.schema.field(number)
    new = _replaced(table.column(number).to_pylist(), labels, source, read=_text, spell=str)
    return table.set_column(number, field, pyarrow.array(new, type=field.type))


def _archive(source: Source, labels: Sequence[Label]) -> bytes:
    """Rewrite an ``.npz`` file; its other arrays are copied."""
    import numpy as np

    with np.load(source.data) as arrays:
        y = arrays[source.label]
    new = np.array(_replaced(y.tolist(), labels, source, read=_text, spell=str), dtype=y.dtype)
    written, column = BytesIO(), BytesIO()
    np.save(column, new)
    with ZipFile(source.data) as old, ZipFile(written, "w") as archive:
        for member in old.infolist():
            is_label = member.filename == f"{source.label}.npy"
            archive.writestr(member, column.getvalue() if is_label else old.read(member))
    return written.getvalue()


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _replaced(
    values: Sequence[Raw],
    labels: Sequence[Label],
    source: Source,
    *,
    read: Callable[[Raw], str],
    spell: Callable[[str], Any],
) -> list[Raw]:
    """Return the values for the final labels, each class as the file writes it elsewhere.

    Parameters
    ----------
    values : sequence
        As the file has them.
    labels : sequence of Label
    source : Source
    read : callable
        Returns the text of a value.
    spell : callable
        Returns the value of a class that the file does not have.
    """
    if len(values) != len(labels):
        raise ValueError(
            f"labels.csv must have a line for each of the {len(values)} rows of {source.data}. Got "
            f"{len(labels)} lines. Audit the data again."
        )
    spelling: dict[str, Raw] = {}
    for value, label in zip(values, labels, strict=True):
        if not _is_same(read(value), label.given):
            raise ValueError(
                f"labels.csv must have the labels of {source.data}. Got {label.given!r} where the "
                f"file has {read(value)!r}, for row {label.row!r}. Audit the data again."
            )
        spelling.setdefault(label.given, value)
    return [
        spelling.get(label.final, spell(label.final)) if label.changes else value
        for value, label in zip(values, labels, strict=True)
    ]


def _is_same(text: str, given: str) -> bool:
    """Whether a text is a label as readers of tables may write it: true, 1.0, or missing."""
    if not given or text.strip().casefold() == given.strip().casefold():
        return True
    try:
        return float(text) == float(given)
    except ValueError:
        return False


def _put(text: str, spans: Sequence[Span], fields: Sequence[str]) -> str:
    """Return a text with other contents at some places."""
    pieces, at = [], 0
    for (start, end), field in zip(spans, fields, strict=True):
        pieces += [text[at:start], field]
        at = end
    return "".join([*pieces, text[at:]])


REWRITERS: dict[str, Callable[[Source, Sequence[Label]], bytes]] = {
    ".csv": _delimited,
    ".tsv": _delimited,
    ".txt": _delimited,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".parquet": _parquet,
    ".feather": _feather,
    ".npz": _archive,
}
