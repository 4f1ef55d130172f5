"""Folders of images with other labels: files move between the folders of the classes."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from noisyfit.auditing.source import Label
from noisyfit.utils.files import whole_file

JOURNAL = "moves.csv"
COLUMNS = ["from", "to"]


class Move(NamedTuple):
    """A file by its old and its new name within the folder, with slashes."""

    old: str
    new: str


def plan(root: Path, labels: Sequence[Label]) -> list[Move]:
    """Return the moves that put each image into the folder of its final label.

    No file takes the name of another: two that swap classes get a number.

    Raises
    ------
    ValueError
        If a row is not a file in a folder of a class, or a label cannot name a folder.
    """
    taken = {file.relative_to(root).as_posix() for file in root.rglob("*")}
    moves = []
    for label in labels:
        if label.changes:
            old = _within(root, label)
            new = _free(PurePosixPath(_folder_name(label.final), *old.parts[1:]), taken)
            taken.add(new)
            moves.append(Move(old.as_posix(), new))
    return moves


def copy(root: Path, to: Path, moves: Sequence[Move]) -> None:
    """Copy a folder and make the moves in the copy, which is there whole or not at all."""
    temporary = to.with_name(f".{to.name}.{os.getpid()}.tmp")
    try:
        shutil.copytree(root, temporary)
        for move in moves:
            _rename(temporary, move.old, move.new)
        os.rename(temporary, to)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def move(root: Path, moves: Sequence[Move], journal: Path) -> None:
    """Move files, after noting where they came from.

    Killed halfway, `finish` goes on and `undo` goes back.
    """
    with whole_file(journal, journal.with_suffix(".tmp")) as stream:
        stream.write(_lines(moves))
    finish(root, journal)


def finish(root: Path, journal: Path) -> int:
    """Make the moves of a journal that are not made yet; return how many it has."""
    moves = read_journal(journal)
    for one in moves:
        _rename(root, one.old, one.new)
    return len(moves)


def undo(root: Path, journal: Path) -> int:
    """Move files back and forget the journal; return how many it had."""
    moves = read_journal(journal)
    for one in reversed(moves):
        _rename(root, one.new, one.old)
    journal.unlink()
    return len(moves)


def read_journal(journal: Path) -> list[Move]:
    """Return the moves that were noted."""
    with open(journal, encoding="utf-8", errors="surrogateescape", newline="") as stream:
        return [Move(*record) for record in csv.reader(stream, strict=True)][1:]


def _rename(root: Path, old: str, new: str) -> None:
    """Move a file unless that is done."""
    start, end = root / old, root / new
    if end.exists() and not start.exists():
        return
    if end.exists() or not start.exists():
        raise ValueError(
            f"{start} must be there and {end} must not. Got "
            f"{'both' if end.exists() else 'neither'}. Move the file by hand, then go on."
        )
    end.parent.mkdir(parents=True, exist_ok=True)
    os.rename(start, end)


def _within(root: Path, label: Label) -> PurePosixPath:
    """Return the name of a row's file within the folder."""
    path = Path(label.row)
    inside = path.relative_to(root) if path.is_absolute() and path.is_relative_to(root) else path
    if inside.is_absolute() or ".." in inside.parts or len(inside.parts) < 2:
        raise ValueError(
            f"A row must be an image in a class' folder of {root}. Got {label.row!r}. Audit the "
            "folder again."
        )
    if not (root / inside).is_file():
        raise ValueError(f"{root / inside} must be a file. Got none. Audit the folder again.")
    return PurePosixPath(inside.as_posix())


def _folder_name(label: str) -> str:
    if label in ("", ".", "..") or Path(label).name != label:
        raise ValueError(
            f"A class of images must be the name of a folder. Got {label!r}. Mend decisions.csv."
        )
    return label


def _free(wanted: PurePosixPath, taken: set[str]) -> str:
    """Return the name, with a number before its ending if it is taken."""
    return next(name for name in _names(wanted) if name not in taken)


def _names(wanted: PurePosixPath) -> Iterator[str]:
    yield wanted.as_posix()
    for number in count(2):
        yield wanted.with_name(f"{wanted.stem} ({number}){wanted.suffix}").as_posix()


def _lines(moves: Sequence[Move]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([COLUMNS, *moves])
    return text.getvalue().encode("utf-8", "surrogateescape")
