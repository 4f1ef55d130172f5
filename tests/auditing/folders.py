"""Folders as an audit leaves them, of made-up data."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from noisyfit.auditing.page import (
    Card,
    Map,
    Neighbour,
    PrecisionByRank,
    Summary,
    write_report,
)
from noisyfit.auditing.source import LABELS, fingerprint
from noisyfit.auditing.thumbnails import thumbnail

WORDS = "the engine of this small car has never been repaired but still sounds like new".split()
Row = tuple[str, str, str, str]  # row, given, believed, decision


def write_audit(
    folder: Path, data: Path, rows: Sequence[Row], *, label: str = "kind", kind: str = "table"
) -> Path:
    """Write a folder in which the rows whose label is believed to be another are issues."""
    folder.mkdir(exist_ok=True)
    facts = {"data": str(data), "label": label, "kind": kind, "sha256": fingerprint(data)}
    (folder / "audit.json").write_text(json.dumps(facts))
    with open(folder / "labels.csv", "w", encoding="utf-8", newline="") as stream:
        lines = csv.writer(stream)
        lines.writerow(LABELS)
        lines.writerows([row, given, believed, 0.1, what] for row, given, believed, what in rows)
    issues = [row for row in rows if row[1] != row[2]]
    cards = [
        Card(row, rank, given, believed, 0.1)
        for rank, (row, given, believed, _) in enumerate(issues, 1)
    ]
    classes = sorted({name for row in rows for name in row[1:3] if name})
    write_report(folder, Summary(data.name, classes=classes), cards)
    return folder


def summary_of(classes: Sequence[str], title: str = "vehicles.csv", n_rows: int = 600) -> Summary:
    """Return a summary with all plots."""
    rng = np.random.default_rng(0)
    n = len(classes)
    transition = 0.75 * np.eye(n) + 0.25 * rng.dirichlet(np.full(n, 0.4), n)
    ranks = [*range(10, 501, 10)]
    expected = [0.55 + 0.4 * np.exp(-rank / 300) for rank in ranks]
    truth = rng.integers(n, size=n_rows)
    around = rng.normal(size=(n, 2)) * 3
    places = around[truth] + rng.normal(size=(n_rows, 2))
    return Summary(
        title=title,
        facts=[
            ("Rows", f"{n_rows:,}"),
            ("Classes", str(n)),
            ("Wrong labels", "18 % (15 to 21 %)"),
            ("Suspicious labels", "512"),
            ("Method", "ELRClassifier, 5 folds"),
        ],
        cautions=["Of the labels that were flipped on purpose, one in five was not found."],
        classes=classes,
        precision=PrecisionByRank(
            ranks,
            expected,
            [p - 0.03 - r / 8000 for p, r in zip(expected, ranks, strict=True)],
            [min(1.0, p + 0.03 + r / 8000) for p, r in zip(expected, ranks, strict=True)],
        ),
        transition=transition.tolist(),
        class_quality=rng.uniform(0.6, 0.98, n).tolist(),
        class_issues=rng.integers(5, 90, n).tolist(),
        learning_curves={
            "training loss": (2 * np.exp(-np.arange(30) / 8) + 0.2).tolist(),
            "accuracy on given labels": (0.85 - 0.6 * np.exp(-np.arange(30) / 5)).tolist(),
        },
        map=Map(
            places[:, 0].tolist(),
            places[:, 1].tolist(),
            [classes[k] for k in truth],
            (rng.random(n_rows) < 0.12).tolist(),
        ),
    )


def picture_cards(n: int) -> tuple[Summary, list[Card]]:
    """Return handwritten digits with wrong labels."""
    from sklearn.datasets import load_digits

    images, digits = load_digits().images, load_digits().target
    pictures = [thumbnail(enlarged(image)) for image in images[: n + 200]]
    rng = np.random.default_rng(1)
    cards = []
    for i in range(n):
        given = str((digits[i] + rng.integers(1, 10)) % 10)
        near = [
            *(j for j in range(n, n + 200) if str(digits[j]) == given),
        ][:3] + [j for j in range(n, n + 200) if digits[j] == digits[i]][:3]
        neighbours = [Neighbour(f"{j:04}.png", str(digits[j]), pictures[j]) for j in near]
        cards.append(
            Card(
                f"{given}/{i:04}.png",
                i + 1,
                given,
                str(digits[i]),
                0.002 + 0.4 * i / n,
                pictures[i],
                neighbours=neighbours,
            )
        )
    return summary_of([*"0123456789"], "digits", 1797), cards


def enlarged(image: Any) -> Any:
    return np.kron(255 - image * 15.9, np.ones((10, 10))).astype(np.uint8)


def table_cards(n: int, classes: Sequence[str] = ("bus", "saab", "van")) -> list[Card]:
    """Return rows of a table."""
    return [
        Card(
            f"{137 * i % 900}",
            i + 1,
            classes[i % len(classes)],
            classes[(i + 1) % len(classes)],
            0.01 + 0.5 * i / n,
            cells=[
                ("registered", f"20{i % 30:02}-03-17", 0.98),
                ("weight", f"{1800 - i} kg", 0.83),
                ("colour of the left front door", "?", 0.4),
            ],
            neighbours=[
                Neighbour(f"{i + 11}", classes[i % len(classes)], text="1,910 kg, 2014-01-02"),
                Neighbour(
                    f"{i + 29}", classes[(i + 1) % len(classes)], text="1,805 kg, 2001-12-30"
                ),
            ],
        )
        for i in range(n)
    ]


def text_cards(n: int) -> list[Card]:
    """Return texts with marked words."""
    rng = np.random.default_rng(2)
    return [
        Card(
            f"t{i}",
            i + 1,
            "praise",
            "complaint",
            0.02 + 0.01 * i,
            text=[
                (f"{word} ", float(weight) if abs(weight) > 0.6 else 0.0)
                for word, weight in zip(WORDS * 3, rng.normal(size=3 * len(WORDS)), strict=True)
            ],
            neighbours=[Neighbour("t90", "praise", text="runs like new, never a problem")],
        )
        for i in range(n)
    ]
