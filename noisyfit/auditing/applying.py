"""``noisyfit apply``: the audited data with the labels that were decided."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from noisyfit.auditing import moving
from noisyfit.auditing.rewriting import rewritten
from noisyfit.auditing.source import Label, Source, read_labels, read_source
from noisyfit.utils.files import whole_file

IMAGES = "images"


def write_cleaned(folder: Path, to: Path, *, only: str, force: bool) -> str:
    """Write a copy of the data with the final labels; the original stays as it is.

    Parameters
    ----------
    folder : path
        The folder of the audit.
    to : path
        A file of the same kind, or a folder of images. It appears whole or not at all.
    only : {"decided", "confident"}
        As in `noisyfit.auditing.source.read_labels`.
    force : bool
        Whether to replace a file.

    Returns
    -------
    str
        What was done.

    Raises
    ------
    ValueError, OSError
        If something is not as it must be. Nothing is written.
    """
    source = read_source(folder)
    _check_target(source, to, force=force)
    source.check_unchanged()
    labels = read_labels(folder, only)
    if source.kind == IMAGES:
        moving.copy(source.data, to, moving.plan(source.data, labels))
    else:
        content = rewritten(source, labels)
        with whole_file(to, to.with_name(f".{to.name}.{os.getpid()}.tmp")) as file:
            file.write(content)
    return f"Written: {to}. {_changes(labels)}"


def move_images(folder: Path, *, only: str) -> str:
    """Move images into the folders of their final labels; say what was done.

    A journal in the folder of the audit makes it possible to go on after a kill, and to undo.

    Raises
    ------
    ValueError, OSError
        If the data are no folder of images, have changed, or were moved before.
    """
    source, journal = _images(folder), folder / moving.JOURNAL
    if journal.exists():
        n_moved = moving.finish(source.data, journal)
        return f"{n_moved:,} images have moved. To move them anew, first --undo."
    source.check_unchanged()
    labels = read_labels(folder, only)
    moving.move(source.data, moving.plan(source.data, labels), journal)
    return f"{source.data}: {_changes(labels)} To go back: --undo."


def undo_moves(folder: Path) -> str:
    """Move images back to where the audit found them; say what was done.

    Raises
    ------
    ValueError, OSError
        If nothing was moved, or a file is not where it was moved to.
    """
    source, journal = _images(folder), folder / moving.JOURNAL
    if not journal.exists():
        raise ValueError(f"--undo needs images that were moved. Got {folder} without {journal}.")
    return f"{moving.undo(source.data, journal):,} images are back in {source.data}."


def _images(folder: Path) -> Source:
    source = read_source(folder)
    if source.kind != IMAGES:
        raise ValueError(
            f"--move and --undo need a folder of images. Got {source.data}, which is of kind "
            f"{source.kind!r}. Use --to."
        )
    return source


def _check_target(source: Source, to: Path, *, force: bool) -> None:
    if to.resolve() == source.data.resolve() or source.data.resolve() in to.resolve().parents:
        raise ValueError(f"--to must not be the data themselves. Got {to}. Choose another name.")
    if source.kind != IMAGES and to.suffix.lower() != source.data.suffix.lower():
        raise ValueError(
            f"--to must end with {source.data.suffix}, as the data do. Got {to}. Convert the "
            "file afterwards."
        )
    if to.is_dir() or (to.exists() and source.kind == IMAGES):
        raise ValueError(f"--to must not be there yet. Got {to}. Choose another name.")
    if to.exists() and not force:
        raise ValueError(f"--to must not be there yet. Got {to}. Pass --force to replace it.")
    if not to.absolute().parent.is_dir():
        raise ValueError(f"--to must lie in a folder that exists. Got {to}. Create the folder.")


def _changes(labels: Sequence[Label]) -> str:
    n_changes = sum(label.changes for label in labels)
    return f"{n_changes:,} of {len(labels):,} labels changed."
