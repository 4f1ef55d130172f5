"""``noisyfit audit``: from a file to a folder of findings."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from noisyfit import noise
from noisyfit.auditing.page import from_json
from noisyfit.auditing.source import CONFIDENT, fingerprint, read_labels, read_source
from noisyfit.cli import main

WORDS = [["goal", "team", "match", "coach"], ["oven", "flour", "sugar", "bake"]]


def people(file: Path, n: int = 240) -> NDArray[np.bool_]:
    """Write a table with an id, gaps, categories and wrong labels; return which are wrong."""
    rng = np.random.default_rng(0)
    age, town = rng.integers(18, 90, n), rng.choice(["Rome", "Oslo", "Lima"], n)
    noisy = noise.symmetric((age > 50).astype(int), 0.15, random_state=0)
    frame = pd.DataFrame(
        {"id": np.arange(n), "age": age.astype(str), "town": town, "income": age + rng.random(n)}
    )
    frame.loc[rng.choice(n, 10), "age"] = "?"
    frame["member"] = np.array(["no", "<b>yes"])[noisy.labels]
    frame.to_csv(file, index=False)
    return noisy.flipped


def audited(*argv: object) -> int:
    return main(["audit", *map(str, argv)])


def issues(out: Path) -> list[dict[str, str]]:
    with open(out / "issues.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_audit__table_as_it_is__finds_wrong_labels_and_writes_all_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("skrub")
    data, out = tmp_path / "people.csv", tmp_path / "out"
    wrong = people(data)
    options = ("--label", "member", "--missing", "?", "--folds", "2", "--out", out)
    with pytest.warns(UserWarning, match="left out"):
        assert audited(data, *options) == 0
    said = capsys.readouterr().out
    assert "240 rows, 2 classes" in said
    assert "Left out: id" in said
    assert "noisyfit review" in said
    first = [int(issue["row"]) for issue in issues(out)][:10]
    assert wrong[first].mean() >= 0.8
    source = read_source(out)
    assert (source.kind, source.sha256) == ("table", fingerprint(data))
    labels = read_labels(out, CONFIDENT)
    assert [label.given for label in labels] == pd.read_csv(data)["member"].tolist()
    changed = np.array([label.changes for label in labels])
    assert changed.any()
    assert wrong[changed].mean() > 0.5
    summary, cards = from_json((out / "page.json").read_text())
    assert summary.classes == ["<b>yes", "no"]
    assert {neighbour.label for neighbour in cards[0].neighbours} == {"<b>yes", "no"}
    assert [json.loads(issue["neighbours"]) for issue in issues(out)] == [
        [neighbour.id for neighbour in card.neighbours] for card in cards
    ]
    assert {column for column, _, _ in cards[0].cells or ()} == {"age", "town", "income"}
    page = (out / "report.html").read_text()
    assert "<b>yes" not in page
    assert "&lt;b&gt;yes" in page
    share = json.loads((out / "audit.json").read_text())["wrong_share"]
    assert share["low"] < wrong.mean() < share["high"]


def test_audit__texts__topics_are_told_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=200)
    noisy = noise.symmetric(y, 0.15, random_state=0)
    body = [" ".join(rng.choice(WORDS[topic], 6)) for topic in y]
    pd.DataFrame({"body": body, "topic": noisy.labels}).to_csv(tmp_path / "mails.csv")
    out = tmp_path / "out"
    options = ("--text", "body", "--label", "topic", "--folds", "2", "--out", out)
    assert audited(tmp_path / "mails.csv", *options) == 0
    found = issues(out)
    assert noisy.flipped[[int(issue["row"]) for issue in found[:20]]].mean() > 0.9
    _, cards = from_json((out / "page.json").read_text())
    assert "".join(piece for piece, _ in cards[0].text or ()) == body[int(found[0]["row"])]
    of_suggested = WORDS[int(cards[0].suggested)]
    marked = {piece for piece, weight in cards[0].text or () if weight > 0.5}
    assert marked == {word for word in of_suggested if word in body[int(found[0]["row"])]}
    assert "Marked are words" in (out / "report.html").read_text()


def test_audit__arrays__called_again__keeps_the_folds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 4))
    y = noise.symmetric((X[:, 0] > 0).astype(int), 0.1, random_state=0).labels
    np.savez(tmp_path / "rows.npz", X=X, y=y)
    out = tmp_path / "out"
    assert audited(tmp_path / "rows.npz", "--folds", "2", "--out", out) == 0
    before = (out / "labels.csv").read_bytes()
    kept = {file: file.stat().st_mtime_ns for file in (out / "cache").rglob("output.pkl")}
    assert len(kept) == 4  # two detectors, two folds
    assert audited(tmp_path / "rows.npz", "--folds", "2", "--out", out) == 0
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert (out / "labels.csv").read_bytes() == before


def _no_column(folder: Path) -> list[Any]:
    people(folder / "people.csv", 40)
    return [folder / "people.csv", "--label", "membre"]


def _no_label(folder: Path) -> list[Any]:
    people(folder / "people.csv", 40)
    return [folder / "people.csv"]


def _no_text(folder: Path) -> list[Any]:
    people(folder / "people.csv", 40)
    return [folder / "people.csv", "--label", "member", "--text", "body"]


def _other_audit(folder: Path) -> list[Any]:
    people(folder / "people.csv", 40)
    (folder / "out").mkdir()
    (folder / "out" / "audit.json").write_text('{"sha256": "0"}')
    return [folder / "people.csv", "--label", "member"]


def _other_files(folder: Path) -> list[Any]:
    people(folder / "people.csv", 40)
    (folder / "out").mkdir()
    (folder / "out" / "issues.csv").write_text("mine")
    return [folder / "people.csv", "--label", "member"]


def _other_label(folder: Path) -> list[Any]:
    data = folder / "people.csv"
    people(data, 40)
    (folder / "out").mkdir()
    facts = {"sha256": fingerprint(data), "label": "town"}
    (folder / "out" / "audit.json").write_text(json.dumps(facts))
    return [data, "--label", "member"]


def _one_class(folder: Path) -> list[Any]:
    np.savez(folder / "rows.npz", X=np.zeros((9, 2)), y=np.zeros(9, int))
    return [folder / "rows.npz"]


def _repeated_paths(folder: Path) -> list[Any]:
    pytest.importorskip("PIL")
    from PIL import Image

    Image.new("RGB", (32, 32)).save(folder / "a.png")
    pd.DataFrame({"path": ["a.png"] * 4, "kind": [0, 1, 0, 1]}).to_csv(folder / "list.csv")
    return [folder / "list.csv", "--images", "path", "--label", "kind"]


def _no_arrays(folder: Path) -> list[Any]:
    np.savez(folder / "rows.npz", X=np.zeros((3, 2)))
    return [folder / "rows.npz"]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: [folder / "nothing.csv", "--label", "y"], "must exist"),
        (_no_column, "membre"),
        (_no_label, "Pass --label COLUMN"),
        (_no_text, "must have the columns body, member"),
        (_other_audit, "another audit"),
        (_other_label, "another audit"),
        (_other_files, "holds other files"),
        (_one_class, "at least two classes"),
        (_repeated_paths, "'a.png' more than once"),
        (_no_arrays, "must hold the arrays X"),
    ],
)
def test_audit__what_cannot_be_read__is_a_usage_error_and_nothing_is_written(
    make: Any, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = make(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        audited(*argv, "--out", tmp_path / "out")
    assert stopped.value.code == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out" / "labels.csv").exists()
