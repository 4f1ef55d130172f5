"""Files to frames: text in columns, JSON lines, and what Arrow stores."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noisyfit.datasets.files import PathLike
from noisyfit.tables.columns import check_names
from noisyfit.utils.synonyms import did_you_mean

if TYPE_CHECKING:
    import pandas as pd

SEPARATORS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = (".jsonl", ".ndjson")
TEXTS = (*SEPARATORS, *JSON_LINES)
ARROW = (".parquet", ".feather")
SUFFIXES = (*TEXTS, *(f"{suffix}.gz" for suffix in TEXTS), *ARROW)
ENDING = re.compile(r"\.[a-z]\w*$")
INSTALL = 'pip install "noisyfit[tables]"'
WORDS = (  # of pandas, but for "None", which may be a class
    *("", " ", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND"),
    *("1.#QNAN", "<NA>", "N/A", "NA", "NULL", "NaN", "n/a", "nan", "null"),
)


def read_frame(
    path: PathLike,
    *,
    label: str | None = None,
    missing_values: Any = (),
    sep: str | None = None,
    encoding: str = "utf-8",
) -> pd.DataFrame:
    """Return all columns of a file as they are.

    Parameters
    ----------
    path, label, missing_values, sep, encoding
        As for `read`.

    Returns
    -------
    DataFrame
    """
    path = Path(path)
    _check_file(path)
    suffix = _kind(path)
    if suffix in SEPARATORS:
        text = _text(path, encoding)
        return _delimited(text, sep or SEPARATORS[suffix], label, missing_values, path)
    is_json = suffix in JSON_LINES
    frame = _json_lines(_text(path, encoding), path) if is_json else _arrow(path, suffix)
    return with_gaps(frame, missing_values)


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise ValueError(
            f"The table must be a file. Got the folder {str(path)!r}. Pass folders of images to "
            "noisyfit.images.from_folder."
        )
    if not path.is_file():
        siblings = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        raise FileNotFoundError(
            f"The file must exist. Got {str(path)!r}.{did_you_mean(path.name, siblings)} Check the "
            f"path; it is relative to {str(Path.cwd())!r}."
        )


def _kind(path: Path) -> str:
    name = path.name.lower()
    if not ENDING.search(name):
        return ".csv"
    found = [suffix for suffix in SUFFIXES if name.endswith(suffix)]
    if not found:
        raise ValueError(
            f"The file must end in {', '.join(SUFFIXES)}. Got {path.name!r}. Save it as one of "
            "these, for example as CSV."
        )
    return found[0].removesuffix(".gz")


def _text(path: Path, encoding: str) -> str:
    content = path.read_bytes()
    if path.suffix.lower() == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(
                f"{path.name} must be compressed by gzip. Got: {error}. Compress it anew."
            ) from error
    try:
        text = content.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path.name} must be text in {encoding}. Got the byte 0x{content[error.start]:02x} in "
            f"line {line}. {_encoding_hint(content[: error.start + 1])}"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(
            f"{path.name} must be text in {encoding}. Got a byte of zero in line {line}: it is "
            "damaged, no text at all, or in another encoding. Save it as UTF-8, or write it anew."
        )
    if not text.strip():
        raise ValueError(f"{path.name} must hold rows. Got an empty file. Check what wrote it.")
    return text


def _encoding_hint(beginning: bytes) -> str:
    """Say what to do about bytes of which only the last is not in the encoding."""
    if beginning[:1] in (b"\xff", b"\xfe") and len(beginning) == 1:
        return 'Save it as UTF-8 or, in Python, pass encoding="utf-16".'
    if beginning[:-1].isascii():
        return (
            'Save it as UTF-8 or, in Python, pass encoding="cp1252" for text of Windows, or '
            '"latin-1".'
        )
    return (
        "The file mixes encodings, as text before it is not plain ASCII and yet right. Save that "
        'line in the encoding of the others or, in Python, pass encoding="cp1252" if all are of '
        "Windows."
    )


def _delimited(
    text: str, sep: str, label: str | None, missing_values: Any, path: Path
) -> pd.DataFrame:
    import pandas as pd

    header = _check_lines(text, sep, path)
    check_names([name for name in header if name], path.name)
    names = [name or f"Unnamed: {i}" for i, name in enumerate(header)]
    words = [*WORDS, *_listed(missing_values)]
    try:
        return pd.read_csv(
            io.StringIO(text),
            sep=sep,
            skipinitialspace=True,
            na_values={name: words if name == label else [*words, "None"] for name in names},
            keep_default_na=False,
            low_memory=False,
        )
    except pd.errors.ParserError as error:
        raise ValueError(
            f"{path.name} must be a table in text. Got: {error}. Check its quotation marks."
        ) from error


def _check_lines(text: str, sep: str, path: Path) -> list[str]:
    """Return the header of lines that all have its length."""
    with _long_fields():
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=sep, skipinitialspace=True)
        header = next((line for line in lines if line), [])
        start = lines.line_num + 1
        for line in lines:
            if line and len(line) != len(header):
                raise ValueError(
                    f"{path.name} must have lines of one length. Got {len(line)} fields in line "
                    f"{start}, and {len(header)} in the header. Mend the line: text with {sep!r} "
                    "needs quotation marks, and each of them a second one."
                )
            start = lines.line_num + 1
    return header


@contextmanager
def _long_fields() -> Iterator[None]:
    """Have the csv module read fields of any length."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _json_lines(text: str, path: Path) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"a {type(row).__name__}")
            if "\\ud" in line.lower():
                json.dumps(row, ensure_ascii=False).encode()  # not half of a pair of surrogates
        except ValueError as error:
            raise ValueError(
                f"{path.name} must have one JSON object in each line. Got line {number}: {error}. "
                "Mend the line; a file that is one JSON list is written anew by "
                "pandas.read_json(file).to_json(file, orient='records', lines=True)."
            ) from error
        rows.append(row)
    return pd.DataFrame.from_records(rows)


def _arrow(path: Path, suffix: str) -> pd.DataFrame:
    import pandas as pd

    read = pd.read_parquet if suffix == ".parquet" else pd.read_feather
    try:
        return read(path)
    except ImportError as error:
        raise ImportError(f"{suffix} files need pyarrow. Install it: {INSTALL}.") from error
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path.name} must be a {suffix[1:]} file. Got: {error}. Write it anew."
        ) from error


def with_gaps(frame: pd.DataFrame, missing_values: Any) -> pd.DataFrame:
    """Return a frame in which these values are missing."""
    values = _listed(missing_values)
    return frame.mask(frame.isin(values)).infer_objects() if values else frame


def _listed(values: Any) -> list[Any]:
    return list(values) if isinstance(values, list | tuple | set | frozenset) else [values]
