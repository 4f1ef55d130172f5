"""Modified rows on disk, found again by what they were made of."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

KEY_SIZE = 20  # bytes


class RowStore:
    """A folder of rows, each under a key of 20 bytes.

    Every writer appends to a pair of files of its own, rows and keys, so that processes can share a
    folder. A row counts as soon as its key is complete: what a killed process has finished is
    there for the next one.

    Parameters
    ----------
    folder : path
        Made when the first row is written.
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
        self._files: tuple[BinaryIO, BinaryIO] | None = None
        for file in sorted(self.folder.glob("*.keys")):
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
        """Return the rows under keys that are in the store."""
        found = np.empty((len(keys), *self.row_shape), self.dtype)
        for i, key in enumerate(keys):
            rows, position = self._places[key]
            found[i] = rows[position]
        return found

    def put(self, keys: list[bytes], rows: NDArray[Any]) -> None:
        """Append rows and then, once they are on the disk, their keys."""
        if self._files is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            name = self.folder / uuid.uuid4().hex
            self._files = open(f"{name}.rows", "wb"), open(f"{name}.keys", "wb")
        rows = np.ascontiguousarray(rows, self.dtype)
        for file, content in zip(self._files, (rows.tobytes(), b"".join(keys)), strict=True):
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self._places |= {key: (rows, i) for i, key in enumerate(keys)}

    def _index(self, file: Path) -> None:
        content = file.read_bytes()
        n_rows = len(content) // KEY_SIZE
        if n_rows == 0:
            return
        shape = (n_rows, *self.row_shape)
        rows = np.memmap(file.with_suffix(".rows"), self.dtype, "r", shape=shape)
        for i in range(n_rows):
            self._places[content[i * KEY_SIZE : (i + 1) * KEY_SIZE]] = rows, i
