"""From a file to the folder of an audit."""

from __future__ import annotations

import csv
import io
import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Memory

from noisyfit import __version__
from noisyfit.auditing import page, subjects
from noisyfit.auditing.audit import Audit, audit, read_labels
from noisyfit.auditing.cards import make_cards
from noisyfit.auditing.mapping import make_map
from noisyfit.auditing.source import LABELS, fingerprint
from noisyfit.auditing.subjects import Subject
from noisyfit.utils.files import make_folder, whole_file

ISSUES = ["row", "rank", "given", "suggested", "quality", "neighbours"]


@dataclass(frozen=True)
class Request:
    """What to audit, and where the findings go.

    Parameters
    ----------
    data : path
        A table, a folder of images, or an ``.npz`` file.
    out : path
    label, images, text : str or None
        Columns of labels, of paths of images, of texts.
    missing_values : sequence of str
        Entries that mean that there is none.
    seed, folds : int
    jobs : int or None
    """

    data: Path
    out: Path
    label: str | None = None
    images: str | None = None
    text: str | None = None
    missing_values: tuple[str, ...] = ()
    seed: int = 0
    folds: int = 5
    jobs: int | None = None

    @property
    def memory(self) -> Memory:
        """Where finished work is kept, for a command that was stopped."""
        return Memory(self.out / "cache", verbose=0)


def read(request: Request) -> Subject:
    """Return the rows to audit.

    Raises
    ------
    ValueError, OSError
        If something cannot be read or audited, or the folder holds something else.
    """
    if not request.data.exists():
        raise FileNotFoundError(f"The data must exist. Got {str(request.data)!r}. Check the path.")
    _check_folder(request)
    make_folder(request.out)
    subject = _read(request)
    repeated = subject.y.index[subject.y.index.duplicated()].astype(str)
    if len(repeated):
        raise ValueError(
            f"Rows must have different names. Got {repeated[0]!r} more than once, and "
            f"{len(repeated)} such rows. Leave the repetitions out."
        )
    read_labels(subject.y, _missing_label(subject), request.folds)
    return subject


def rate(request: Request, subject: Subject) -> Audit:
    """Audit the rows."""
    return audit(
        subject.X,
        subject.y,
        detectors=subject.detectors,
        missing_label=_missing_label(subject),
        n_splits=request.folds,
        memory=request.memory,
        n_jobs=request.jobs,
        random_state=request.seed,
    )


def _missing_label(subject: Subject) -> float | None:
    return np.nan if subject.y.isna().any() else None


def _check_folder(request: Request) -> None:
    """Refuse a folder whose files would be overwritten."""
    out, file = request.out, request.out / "audit.json"
    if file.exists():
        earlier = json.loads(file.read_text("utf-8"))
        ours = {"sha256": fingerprint(request.data), "label": request.label or ""}
        if any(earlier.get(name) != value for name, value in ours.items()):
            raise ValueError(
                "The folder must be new, or that of an audit of the same labels. Got "
                f"{out}, which holds another audit. Name another folder."
            )
    elif out.is_dir() and any(out.iterdir()) and not (out / "cache").is_dir():
        raise ValueError(
            f"The folder must be new or empty. Got {out}, which holds other files. Name another."
        )


def _read(request: Request) -> Subject:
    data, label, memory = request.data, request.label, request.memory
    if data.is_dir():
        return subjects.image_folder(data, memory)
    if data.suffix == ".npz":
        return subjects.arrays(data)
    if label is None:
        raise ValueError("A table needs the column of its labels. Pass --label COLUMN.")
    if request.images is not None:
        return subjects.image_list(data, request.images, label, memory)
    if request.text is not None:
        return subjects.texts(data, request.text, label)
    return subjects.table(data, label, request.missing_values)


def write(request: Request, subject: Subject, found: Audit) -> None:
    """Write all files, ``audit.json`` last: it says that the audit is whole."""
    frame, out = found.to_frame(), request.out
    names = frame.index.astype(str)
    labels = zip(
        names, frame["given"], frame["suggested"], frame["quality"], frame["decision"], strict=True
    )
    issues, cards = found.issues_, make_cards(subject, found)
    ranked = zip(
        issues.index.astype(str), issues["rank"], issues["given"], issues["suggested"],
        issues["quality"], _neighbours(cards, len(issues)), strict=True,
    )  # fmt: skip
    _write_table(out / "labels.csv", LABELS, labels)
    _write_table(out / "issues.csv", ISSUES, ranked)
    page.write_report(out, _summary(request, subject, found), cards)
    share = found.wrong_share_
    facts = {
        "data": str(request.data.resolve()),
        "label": request.label or "",
        "kind": subject.kind,
        "sha256": fingerprint(request.data),
        "noisyfit": __version__,
        "python": platform.python_version(),
        "seed": request.seed,
        "folds": request.folds,
        "wrong_share": share._asdict(),
        "cautions": found.cautions_,
    }
    with whole_file(out / "audit.json", out / "audit.json.tmp") as file:
        file.write(json.dumps(facts, indent=1).encode())


def _neighbours(cards: Sequence[page.Card], n_issues: int) -> Iterator[str]:
    """Return the neighbours on each card as a JSON list, then nothing for other issues."""
    for card in cards:
        yield json.dumps([near.id for near in card.neighbours], ensure_ascii=False)
    yield from repeat("", n_issues - len(cards))


def _write_table(file: Path, header: list[str], rows: Any) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    with whole_file(file, file.with_suffix(".tmp")) as stream:
        stream.write(text.getvalue().encode("utf-8", "surrogateescape"))


def _summary(request: Request, subject: Subject, found: Audit) -> page.Summary:
    share, precision, by_class = found.wrong_share_, found.expected_precision_, found.by_class_
    n_labels = int(by_class["n_labels"].sum())
    return page.Summary(
        title=request.data.name,
        facts=[
            ("Rows", f"{len(subject.y):,}"),
            ("Classes", str(len(found.classes_))),
            (
                "Wrong labels, estimated",
                f"{100 * share.value:.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f} %)",
            ),
            ("Which is", f"{share.value * n_labels:,.0f} labels"),
            ("Issues", f"{len(found.issues_):,}"),
            ("Found of labels made wrong on purpose", f"{100 * found.injected_.found:.0f} %"),
        ],
        cautions=found.cautions_,
        classes=[str(label) for label in found.classes_],
        precision=page.PrecisionByRank(
            precision.index.tolist(), *(precision[c].tolist() for c in ("precision", "low", "high"))
        ),
        transition=found.transition_matrix_.tolist(),
        class_quality=(1 - by_class["wrong_share"]).tolist(),
        class_issues=by_class["n_issues"].tolist(),
        map=make_map(subject.features, found, request.seed),
    )
