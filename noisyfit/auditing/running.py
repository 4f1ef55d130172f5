"""From a file to the folder of an audit."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from joblib import Memory
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from noisyfit import __version__
from noisyfit.auditing import page, subjects
from noisyfit.auditing.audit import Audit, audit, read_labels
from noisyfit.auditing.source import LABELS, fingerprint
from noisyfit.auditing.subjects import Subject
from noisyfit.utils.files import explained, make_folder, whole_file
from noisyfit.utils.synonyms import did_you_mean

ISSUES = ["row", "rank", "given", "suggested", "quality"]
FOLDER = "folder of the audit"  # in errors
NEIGHBOURS = 2  # of each class
HALF = re.compile(r"\.[0-9a-f]{32}-\d+-\d+$")
MAPPED = 2000  # rows


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
        If something cannot be read or audited, or the folder holds something else or cannot be
        written to.
    """
    _check_data(request)
    _check_folder(request)
    subject = _read(request)
    subject.y = subject.y.mask(subject.y.map(_is_blank))
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
    read_labels(subject.y, _missing_label(subject), request.folds)
    return subject


def rate(request: Request, subject: Subject) -> Audit:
    """Audit the rows.

    Raises
    ------
    OSError
        If what is finished cannot be kept.
    """
    try:
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
    except OSError as error:
        raise explained(error, request.out, FOLDER) from error
    finally:
        _remove_halves(request.out / "cache")


def _remove_halves(cache: Path) -> None:
    """Remove what joblib leaves of files that it could not write whole."""
    for file in cache.rglob("*"):
        if HALF.search(file.name):
            file.unlink(missing_ok=True)


def _missing_label(subject: Subject) -> float | None:
    return np.nan if subject.y.isna().any() else None


def _is_blank(label: Any) -> bool:
    return isinstance(label, str) and not label.strip()


def _check_data(request: Request) -> None:
    """Refuse data that are not there, and options that they do not take."""
    data = request.data
    if not data.exists():
        beside = [file.name for file in data.parent.iterdir()] if data.parent.is_dir() else []
        raise FileNotFoundError(
            f"The data must exist. Got {str(data)!r}.{did_you_mean(data.name, beside)} Check the "
            f"path; it is relative to {str(Path.cwd())!r}."
        )
    if Path(os.path.realpath(data)) in Path(os.path.realpath(request.out)).parents:
        raise ValueError(
            f"The folder of the audit must not lie in the data. Got {str(request.out)!r} in "
            f"{str(data)!r}. Name another folder."
        )
    of_tables = {
        "--label": request.label, "--images": request.images, "--text": request.text,
        "--missing": request.missing_values,
    }  # fmt: skip
    given = [option for option, value in of_tables.items() if value]
    if given and (data.is_dir() or data.suffix == ".npz"):
        raise ValueError(
            f"Only tables take {', '.join(given)}. Got {'a folder' if data.is_dir() else 'arrays'},"
            f" {str(data)!r}. Leave the option out, or pass a table."
        )


def _check_folder(request: Request) -> None:
    """Make the folder ready for writing; refuse one whose files would be overwritten."""
    out = request.out
    make_folder(out, FOLDER)
    try:
        file = out / "audit.json"
        earlier = file.read_text("utf-8", "replace") if file.exists() else None
        TemporaryFile(dir=out).close()
    except OSError as error:
        raise explained(error, out, FOLDER) from error
    if earlier is not None:
        facts = {"sha256": fingerprint(request.data), "label": request.label or ""}
        if not _states(earlier, facts):
            raise ValueError(
                "The folder must be new, or that of an audit of the same labels. Got "
                f"{out}, which holds another audit. Name another folder."
            )
    elif any(out.iterdir()) and not (out / "cache").is_dir():
        raise ValueError(
            f"The folder must be new or empty. Got {out}, which holds other files. Name another."
        )


def _states(text: str, facts: Mapping[str, str]) -> bool:
    """Whether a text is a JSON object that has these facts among others."""
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return isinstance(found, dict) and facts.items() <= found.items()


def _read(request: Request) -> Subject:
    data, label, missing = request.data, request.label, request.missing_values
    if data.is_dir():
        return subjects.image_folder(data, request.memory)
    if data.suffix == ".npz":
        return subjects.arrays(data)
    if label is None:
        raise ValueError("A table needs the column of its labels. Pass --label COLUMN.")
    if request.images is not None:
        return subjects.image_list(data, request.images, label, missing, request.memory)
    if request.text is not None:
        return subjects.texts(data, request.text, label, missing)
    return subjects.table(data, label, missing)


def write(request: Request, subject: Subject, found: Audit) -> None:
    """Write all files, ``audit.json`` last: it says that the audit is whole."""
    frame, out = found.to_frame(), request.out
    names = frame.index.astype(str)
    given = frame["given"].astype(object).where(frame["given"].notna(), "")
    labels = zip(names, given, frame["suggested"], frame["quality"], frame["decision"], strict=True)
    issues = found.issues_
    ranked = zip(
        issues.index.astype(str), issues["rank"], issues["given"], issues["suggested"],
        issues["quality"], strict=True,
    )  # fmt: skip
    cards = list(_cards(subject, found))  # before the first file: an image may have gone
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
        "seed": request.seed,
        "folds": request.folds,
        "wrong_share": share._asdict(),
        "cautions": found.cautions_,
    }
    with whole_file(out / "audit.json", out / "audit.json.tmp") as file:
        file.write(json.dumps(facts, indent=1).encode())


def _write_table(file: Path, header: list[str], rows: Any) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    with whole_file(file, file.with_suffix(".tmp")) as stream:
        stream.write(text.getvalue().encode("utf-8", "surrogateescape"))


def _cards(subject: Subject, found: Audit) -> Iterator[page.Card]:
    near = _Neighbours(subject, found)
    places = {name: row for row, name in enumerate(found.sample_index_.tolist())}
    for name, issue in found.issues_.head(page.MOST_CARDS).iterrows():
        row = places[name]
        given, suggested = issue["given"], issue["suggested"]
        yield page.Card(
            str(name), issue["rank"], str(given), str(suggested), issue["quality"],
            neighbours=[*near.of(row, given), *near.of(row, suggested)], **subject.show(row),
        )  # fmt: skip


class _Neighbours:
    """The nearest rows whose labels are confirmed."""

    def __init__(self, subject: Subject, found: Audit) -> None:
        self.subject, self.names = subject, found.sample_index_
        self.confirmed: Mapping[Any, NDArray[np.intp]] = {
            label: np.flatnonzero((found.given_labels_ == label) & (found.label_quality_ > 0.5))
            for label in found.classes_.tolist()
        }
        self.trees = {
            label: NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(rows))).fit(
                subject.features[rows]
            )
            for label, rows in self.confirmed.items()
            if len(rows)
        }

    def of(self, row: int, label: Any) -> list[page.Neighbour]:
        """Return the nearest confirmed rows with a label."""
        if label not in self.trees:
            return []
        (nearest,) = self.trees[label].kneighbors(
            self.subject.features[row : row + 1], return_distance=False
        )
        rows = self.confirmed[label][nearest]
        return [
            page.Neighbour(str(self.names[near]), str(label), **self.subject.name(near))
            for near in rows
        ]


def _summary(request: Request, subject: Subject, found: Audit) -> page.Summary:
    share, precision, by_class = found.wrong_share_, found.expected_precision_, found.by_class_
    n_labels = int(by_class["n_labels"].sum())
    return page.Summary(
        title=request.data.name,
        facts=[
            ("Rows", f"{len(subject.y):,}"),
            ("Classes", str(len(found.classes_))),
            ("Wrong labels, estimated", f"{share.value:.1%} ({share.low:.1%} to {share.high:.1%})"),
            ("Which is", f"{share.value * n_labels:,.0f} labels"),
            ("Issues", f"{len(found.issues_):,}"),
            ("Found of labels made wrong on purpose", f"{found.injected_.found:.0%}"),
        ],
        cautions=found.cautions_,
        classes=[str(label) for label in found.classes_],
        precision=page.PrecisionByRank(
            precision.index.tolist(), *(precision[c].tolist() for c in ("precision", "low", "high"))
        ),
        transition=found.transition_matrix_.tolist(),
        class_quality=(1 - by_class["wrong_share"]).tolist(),
        class_issues=by_class["n_issues"].tolist(),
        map=_map(subject, found, request.seed),
    )


def _map(subject: Subject, found: Audit, seed: int) -> page.Map:
    labelled = np.flatnonzero(~np.isnan(found.label_quality_))
    chosen = np.random.default_rng(seed).permutation(labelled)[:MAPPED]
    features = subject.features[chosen]
    spread = features.std(0)
    size = min(2, *features.shape)
    plane = PCA(size, random_state=seed).fit_transform(features / np.where(spread > 0, spread, 1))
    plane = np.pad(plane, [(0, 0), (0, 2 - size)])
    return page.Map(
        plane[:, 0].tolist(),
        plane[:, 1].tolist(),
        [str(label) for label in found.given_labels_[chosen]],
        (found.label_quality_[chosen] < 0.5).tolist(),
    )
