"""Files that are written whole or not at all, and read only if they are unchanged."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from noisyfit.exceptions import warn

CHECKPOINTS = "folder of checkpoints (checkpoint_dir, or memory)"
DIGEST_SIZE = hashlib.sha256().digest_size


def write_sealed(file: Path, content: bytes, temporary: Path) -> None:
    """Write a file with a checksum, whole or not at all.

    Raises
    ------
    OSError
        With the name of the file, if it cannot be written. Nothing of it remains.
    """
    try:
        with whole_file(file, temporary) as stream:
            stream.write(hashlib.sha256(content).digest())
            stream.write(content)
    except OSError as error:
        raise explained(error, file) from error


@contextmanager
def whole_file(file: Path, temporary: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its name only once all of it is on the disk.

    Parameters
    ----------
    file, temporary : path
        In the same folder. Nothing remains under the temporary name.

    Raises
    ------
    OSError
        With the name of the file, if it cannot be written.
    """
    try:
        with open(temporary, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # as of a full disk
            error.filename = os.fspath(file)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def read_sealed(file: Path) -> bytes | None:
    """Return what was written; None if the file is missing, or damaged, and then set aside."""
    try:
        found = file.read_bytes()
    except FileNotFoundError:
        return None
    digest, content = found[:DIGEST_SIZE], found[DIGEST_SIZE:]
    if digest == hashlib.sha256(content).digest():
        return content
    set_aside(file)
    return None


def set_aside(file: Path) -> None:
    """Rename a file that is not what was written, and tell."""
    damaged = file.with_name(f"{file.name}.damaged")
    with suppress(FileNotFoundError):  # another process was faster
        os.replace(file, damaged)
    warn(
        f"A stored file must be what was written. Got {file} with other contents; it is now "
        f"{damaged.name}, and what it held is computed anew. Delete it, and check the disk."
    )


def make_folder(folder: Path, purpose: str = CHECKPOINTS) -> None:
    """Create a folder, with an error that says what it is for.

    Parameters
    ----------
    folder : path
    purpose : str
        What the error calls it.

    Raises
    ------
    OSError
        If it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explained(error, folder, purpose) from error


def explained(error: OSError, path: str | os.PathLike[str], purpose: str = CHECKPOINTS) -> OSError:
    """Return an error of the same kind that names the file and the remedy."""
    return OSError(
        error.errno,
        f"The {purpose} must be one that can be written to, with space left. Got "
        f"{error.strerror!r}. Free space, or choose another folder",
        os.fspath(path),
    )
