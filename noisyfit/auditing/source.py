"""The data behind an audit, and what it says about their labels."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from noisyfit.auditing import decisions
from noisyfit.auditing.decisions import ACCEPT, OTHER

DECIDED, CONFIDENT = "decided", "confident"
CHANGE = "change"  # in the column ``decision`` of labels.csv
LABELS = ["row", "given", "believed", "quality", "decision"]


class Label(NamedTuple):
    """The label of a row: as given, and as it is to be."""

    row: str
    given: str
    final: str

    @property
    def changes(self) -> bool:
        """Whether it is another."""
        return self.given != self.final


@dataclass(frozen=True)
class Source:
    """What was audited.

    Parameters
    ----------
    data : path
        A file, or a folder of images.
    label : str
        The column of the labels.
    kind : str
        ``"table"``, ``"images"``, ``"image_list"``, ``"texts"`` or ``"arrays"``.
    sha256 : str
        `fingerprint` of the data.
    """

    data: Path
    label: str
    kind: str
    sha256: str

    def check_unchanged(self) -> None:
        """Raise ValueError unless the data are those that were audited."""
        if not self.data.exists():
            raise ValueError(
                f"The data must be where the audit found them. Got no {self.data}. Move them back, "
                "or audit them where they are now."
            )
        if fingerprint(self.data) != self.sha256:
            raise ValueError(
                f"The data must be as they were at the audit. Got {self.data} with other contents. "
                "Restore them, or audit them again."
            )


def fingerprint(data: Path) -> str:
    """Return the SHA-256 of a file, or of the names and contents of all files of a folder."""
    if data.is_file():
        with open(data, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    names = {file.relative_to(data).as_posix(): file for file in data.rglob("*") if file.is_file()}
    for name in sorted(names):
        digest.update(f"{fingerprint(names[name])} {name}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def read_source(folder: Path) -> Source:
    """Return what the folder of an audit says about its data.

    Raises
    ------
    ValueError
        If it is not such a folder.
    """
    file = folder / "audit.json"
    try:
        facts: dict[str, Any] = json.loads(file.read_text("utf-8"))
        return Source(Path(facts["data"]), str(facts["label"]), facts["kind"], facts["sha256"])
    except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"The folder must be one that noisyfit audit wrote. Got {folder} "
            f"({type(error).__name__} in audit.json: {error}). Name the folder after --out."
        ) from error


def read_labels(folder: Path, only: str) -> list[Label]:
    """Return the label of each row, in the order of the data.

    Parameters
    ----------
    folder : path
        The folder of the audit.
    only : {"decided", "confident"}
        Whether labels change only where a person has decided so, or also where the audit is
        confident and nobody has decided. A person who keeps or skips a row leaves its label.

    Raises
    ------
    ValueError
        If a file is not as it should be, or a decision is about a row that is not there.
    """
    standing = decisions.standing(decisions.read(folder / decisions.NAME))
    labels = []
    for stored in _stored_labels(folder / "labels.csv"):
        decision = standing.pop(stored["row"], None)
        final = stored["given"]
        if decision is None:
            if only == CONFIDENT and stored["decision"] == CHANGE:
                final = stored["believed"]
        elif decision.decision in (ACCEPT, OTHER):
            final = decision.label
        labels.append(Label(stored["row"], stored["given"], final))
    if standing:
        raise ValueError(
            f"Decisions must be about rows of labels.csv. Got one about {min(standing)!r}. Were "
            "they made in another audit? Move decisions.csv back to its folder."
        )
    return labels


def _stored_labels(file: Path) -> Iterator[dict[str, str]]:
    with open(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        lines = csv.DictReader(stream, strict=True)
        try:
            if lines.fieldnames is None or not {*LABELS} <= {*lines.fieldnames}:
                raise csv.Error(f"the columns {lines.fieldnames}")
            for line in lines:
                if None in line or None in line.values():
                    raise csv.Error(f"line {lines.line_num} of another length")
                yield line
        except csv.Error as error:
            raise ValueError(
                f"{file} must have the columns {', '.join(LABELS)} in each line. Got: {error}. Run "
                "the audit again."
            ) from error
