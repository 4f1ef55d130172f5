"""The user's input to a command: checked before the work begins, refused in one message."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EDQUOT, EEXIST, EFBIG, ENOSPC
from functools import partial, wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

Number = TypeVar("Number", int, float)
Arguments = ParamSpec("Arguments")
INTERRUPTED = 130  # what shells report for a program that Ctrl+C ended
NOBODY_READS = 141  # what shells report for a program whose reader went away
FULL = (ENOSPC, EDQUOT, EFBIG)
LARGEST_COUNT = 2**31 - 1
LARGEST_PORT = 2**16 - 1
LARGEST_SEED = 2**32 - 1  # numpy's RandomState takes no larger one
say_at_once = partial(print, flush=True)  # seen even if the process is killed right afterwards


def ends_with_its_reader(main: Callable[Arguments, int]) -> Callable[Arguments, int]:
    """Let a command end silently when its output is no longer read, as with ``| head``.

    Parameters
    ----------
    main : callable
        Returns the exit status.
    """

    @wraps(main)
    def quiet(*args: Arguments.args, **kwargs: Arguments.kwargs) -> int:
        try:
            try:
                return main(*args, **kwargs)
            finally:
                sys.stdout.flush()  # too late at exit
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return NOBODY_READS

    return quiet


class UsageError(ValueError):
    """Input that cannot be used; the command ends with this message and no traceback."""


@contextmanager
def as_usage_errors(
    kinds: tuple[type[Exception], ...] = (ValueError, OSError),
) -> Iterator[None]:
    """Turn errors of reading and writing into `UsageError`.

    Do not train inside: errors of training are not the user's.

    Parameters
    ----------
    kinds : tuple of type
        Types of errors to turn.
    """
    try:
        yield
    except kinds as error:
        raise UsageError(" ".join(_told(error).split())) from error


def count(text: str) -> int:
    """Read a count from the command line."""
    return _whole_number(text, 1, LARGEST_COUNT)


def epochs(text: str) -> int:
    """Read a number of epochs, one of which is the warm-up."""
    return _whole_number(text, 2, LARGEST_COUNT)


def seed(text: str) -> int:
    """Read a seed."""
    return _whole_number(text, 0, LARGEST_SEED)


def port(text: str) -> int:
    """Read the number of a port, or 0 for any."""
    return _whole_number(text, 0, LARGEST_PORT)


def share(text: str) -> float:
    """Read a fraction of the rows or labels, less than all of them."""
    value = _number(text, float)
    if value is None or not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must lie in [0, 1). Got {text!r}.")
    return value


def device(text: str) -> str:
    """Read the name of a device that torch can use on this machine."""
    from noisyfit.utils.devices import resolve_device

    try:
        resolve_device(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def check_writable(file: Path, option: str) -> None:
    """Raise UsageError unless a file can be written; it is left as it is.

    Parameters
    ----------
    file : path
    option : str
        The option that named it.
    """
    is_new = not os.path.lexists(file)
    try:
        if file.exists() and not file.is_file():
            raise FileExistsError(EEXIST, "it is no file")
        file.open("ab").close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"{option} must be a file that can be written, in a folder that exists. Got {file}: "
            f"{reason}. Choose another."
        ) from error
    if is_new:
        file.unlink()


def _told(error: Exception) -> str:
    """Return what an error says, with a remedy where the system only names the fault."""
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    where = "" if error.filename is None else f": {os.fspath(error.filename)}"
    if error.strerror != os.strerror(error.errno):
        return f"{error.strerror}{where}"
    remedy = (
        "Free space, or choose" if error.errno in FULL else "Check it and its rights, or choose"
    )
    return f"Files must be readable and writable. Got {error.strerror!r}. {remedy} another{where}"


def _whole_number(text: str, smallest: int, largest: int) -> int:
    value = _number(text, int)
    if value is None or not smallest <= value <= largest:
        raise argparse.ArgumentTypeError(
            f"must be at least {smallest} and at most {largest}, a whole number. Got {text!r}."
        )
    return value


def _number(text: str, kind: Callable[[str], Number]) -> Number | None:
    try:
        return kind(text)
    except ValueError:
        return None
