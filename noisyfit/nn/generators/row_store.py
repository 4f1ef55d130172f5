"""Modified rows on disk, found by their origin."""

from __future__ import annotations

import hashlib
import os
import uuid
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from noisyfit.utils.files import explained, set_aside

KEY_SIZE = 20  # bytes; as many of a digest of the key and its row follow in the file of keys


class RowStore:
    """A folder of rows, each under a 20-byte key.

    Every writer appends to its own pair of files, rows and keys, so processes can share a folder. A
    row counts once its key is complete: what a killed process has finished is available to the next
    one. Files whose rows are not what was written are set aside.

    Parameters
    ----------
    folder : path
        Created when the first row is written. Rows of other shapes in it are skipped.
    row_shape : tuple of int
    dtype : dtype
        Of the rows in the files.
    """

    def __init__(
        self, folder: str | os.PathLike[str], row_shape: tuple[int, ...], dtype: Any
    ) -> None:
        self.folder = Path(folder)
        self.row_shape = row_shape
        self.dtype = np.dtype(dtype)
        self._places: dict[bytes, tuple[NDArray[Any], int]] = {}
        self._files: tuple[FileIO, FileIO] | None = None
        self._kind = f"{'x'.join(map(str, row_shape))}-{self.dtype.name}"
        for file in sorted(self.folder.glob(f"*.{self._kind}.keys")):
            self._index(file)

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._files is not None:
            for file in self._files:
                file.close()

    def get(self, keys: list[bytes]) -> NDArray[Any]:
        """Return the rows for those keys that are in the store."""
        found = np.empty((len(keys), *self.row_shape), self.dtype)
        for i, key in enumerate(keys):
            rows, position = self._places[key]
            found[i] = rows[position]
        return found

    def put(self, keys: list[bytes], rows: NDArray[Any]) -> None:
        """Append rows and then, once they are on the disk, their keys."""
        rows = np.ascontiguousarray(rows, self.dtype)
        entries = [key + _digest(key, row) for key, row in zip(keys, rows, strict=True)]
        try:
            self._append(rows.tobytes(), b"".join(entries))
        except OSError as error:
            raise explained(error, self.folder) from error
        self._places |= {key: (rows, i) for i, key in enumerate(keys)}

    def _append(self, *contents: bytes) -> None:
        """Write rows and keys, or nothing."""
        if self._files is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            name = self.folder / f"{uuid.uuid4().hex}.{self._kind}"
            self._files = open(f"{name}.rows", "wb", 0), open(f"{name}.keys", "wb", 0)
        sizes = [file.tell() for file in self._files]
        try:
            for file, content in zip(self._files, contents, strict=True):
                _write(file, content)
        except OSError:
            for file, size in zip(self._files, sizes, strict=True):
                file.truncate(size)
            raise

    def _index(self, file: Path) -> None:
        content = file.read_bytes()
        size = 2 * KEY_SIZE
        entries = [content[i : i + size] for i in range(0, len(content) - size + 1, size)]
        rows = self._rows(file.with_suffix(".rows"), len(entries))
        keys = [entry[:KEY_SIZE] for entry in entries]
        if entries != [key + _digest(key, row) for key, row in zip(keys, rows, strict=False)]:
            set_aside(file.with_suffix(".rows"))
            set_aside(file)
            return
        self._places |= {key: (rows, i) for i, key in enumerate(keys)}

    def _rows(self, file: Path, n_rows: int) -> NDArray[Any]:
        """Map the rows of a file, up to a maximum number."""
        row_size = self.dtype.itemsize * int(np.prod(self.row_shape))
        n_found = min(n_rows, file.stat().st_size // row_size) if file.exists() else 0
        shape = (n_found, *self.row_shape)
        if n_found == 0:
            return np.empty(shape, self.dtype)
        return np.memmap(file, self.dtype, "r", shape=shape)


def _write(file: FileIO, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]
    os.fsync(file.fileno())


def _digest(key: bytes, row: NDArray[Any]) -> bytes:
    return hashlib.sha1(key + row.tobytes()).digest()
