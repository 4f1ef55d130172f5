"""From a file to the folder of an audit."""

from __future__ import annotations

import csv
import io
import json
import platform
import re
from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import sklearn
import torch

from noisyfit import __version__
from noisyfit.auditing import checks, known, page, reading
from noisyfit.auditing.audit import audit
from noisyfit.auditing.cards import make_cards
from noisyfit.auditing.findings import Audit
from noisyfit.auditing.labels import read_labels
from noisyfit.auditing.mapping import make_map
from noisyfit.auditing.request import Request
from noisyfit.auditing.source import LABELS, fingerprint
from noisyfit.auditing.subjects import Subject
from noisyfit.utils.files import explained, whole_file
from noisyfit.utils.interrupts import noticed_interrupts

if TYPE_CHECKING:
    import pandas as pd

ISSUES = ["row", "rank", "given", "suggested", "quality", "neighbours"]
HALF = re.compile(r"\.[0-9a-f]{32}-\d+-\d+$")


def read(request: Request) -> Subject:
    """Return the rows to audit.

    Raises
    ------
    ValueError, OSError
        If something cannot be read or audited, or the folder holds something else or cannot be
        written to.
    """
    checks.check_data(request)
    checks.check_folder(request)
    subject = reading.read(request)
    index = subject.y.index
    if index.nlevels > 1:
        raise ValueError(
            f"Rows must have one name each. Got an index of {index.nlevels} levels. Save the table "
            "after frame.reset_index()."
        )
    repeated = index[index.duplicated()].astype(str)
    if len(repeated):
        raise ValueError(
            f"Rows must have different names. Got {repeated[0]!r} more than once, and "
            f"{len(repeated)} such rows. Leave the repetitions out."
        )
    read_labels(subject.y, _missing_label(subject.y), request.folds)
    return subject


def rate(request: Request, subject: Subject) -> Audit:
    """Audit the rows; what people have decided is right, if the audit is made again.

    Raises
    ------
    OSError
        If what is finished cannot be kept.
    """
    y = subject.y
    try:
        with noticed_interrupts() as pressed:  # joblib passes over some
            found = audit(
                subject.X,
                y,
                detectors=subject.detectors(request.method, request.device),
                clean_mask=subject.trusted,
                decided=known.decided(request.out, y) if request.again else None,
                missing_label=_missing_label(y),
                n_splits=request.folds,
                memory=request.memory,
                n_jobs=request.jobs,
                random_state=request.seed,
                verbose=True,
            )
        if pressed:
            raise KeyboardInterrupt
        return found
    except OSError as error:
        raise explained(error, request.out, checks.FOLDER) from error
    finally:
        _remove_halves(request.out / "cache")


def _remove_halves(cache: Path) -> None:
    """Remove what joblib leaves of files that it could not write whole."""
    for file in cache.rglob("*"):
        if HALF.search(file.name):
            file.unlink(missing_ok=True)


def _missing_label(y: pd.Series) -> float | None:
    return np.nan if y.isna().any() else None


def write(request: Request, subject: Subject, found: Audit) -> None:
    """Write all files, ``audit.json`` last: it says that the audit is whole."""
    frame, out = found.to_frame(), request.out
    names = frame.index.astype(str)
    revised = (frame["given"] != subject.y.to_numpy()) & frame["given"].notna()
    labels = zip(
        names, subject.y.astype(object).where(subject.y.notna(), ""), frame["suggested"],
        frame["quality"].mask(revised, 0.0), frame["decision"], strict=True,
    )  # fmt: skip
    issues = found.issues_
    cards = make_cards(subject, found)  # before the first file: an image may have gone
    ranked = zip(
        issues.index.astype(str), issues["rank"], issues["given"], issues["suggested"],
        issues["quality"], _neighbours(cards, len(issues)), strict=True,
    )  # fmt: skip
    summary = _summary(request, subject, found)
    (out / "audit.json").unlink(missing_ok=True)
    _write_table(out / "labels.csv", LABELS, labels)
    _write_table(out / "issues.csv", ISSUES, ranked)
    page.write_report(out, summary, cards)
    share = found.wrong_share_
    facts = {
        "data": str(request.data.resolve()),
        "label": request.label or "",
        "kind": subject.kind,
        "sha256": fingerprint(request.data),
        "noisyfit": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "scikit-learn": sklearn.__version__,
        "method": request.method,
        "seed": request.seed,
        "folds": request.folds,
        "missing": request.missing_values,
        "trusted": found.n_trusted_,
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
