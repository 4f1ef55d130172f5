"""``noisyfit audit``: from a file to a folder of findings."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from noisyfit import noise
from noisyfit.auditing import decisions
from noisyfit.auditing.known import flags
from noisyfit.auditing.page import from_json
from noisyfit.auditing.source import CONFIDENT, DECIDED, fingerprint, read_labels, read_source
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
        (_no_text, "text must be a column of people.csv. Got 'body'"),
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


# What is known before.

QUICK = ("--folds", "2", "--method", "cross_entropy")


def rows_with_noise(file: Path, n: int = 200) -> tuple[NDArray[Any], NDArray[Any]]:
    """Write arrays of which one label in five is wrong; return true and given labels."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 4))
    truth = (X[:, 0] > 0).astype(int)
    given = noise.symmetric(truth, 0.2, random_state=0).labels
    np.savez(file, X=X, y=given)
    return truth, given


def final_labels(out: Path, only: str = DECIDED) -> list[str]:
    return [label.final for label in read_labels(out, only)]


def test_audit__again__trusts_what_was_decided_and_asks_about_other_rows(tmp_path: Path) -> None:
    data, out = tmp_path / "rows.npz", tmp_path / "out"
    truth, given = rows_with_noise(data)
    assert audited(data, *QUICK, "--out", out) == 0
    looked_at = [int(issue["row"]) for issue in issues(out)[:10]]
    kept, *others = looked_at
    decisions.open_log(out / decisions.NAME)
    decisions.append(out / decisions.NAME, str(kept), decisions.KEEP, str(given[kept]))
    for row in others:
        decisions.append(out / decisions.NAME, str(row), decisions.OTHER, str(truth[row]))
    assert audited(data, *QUICK, "--again", "--out", out) == 0
    assert not {int(issue["row"]) for issue in issues(out)} & {*looked_at}
    assert json.loads((out / "audit.json").read_text())["trusted"] == 10
    stored = pd.read_csv(out / "labels.csv")
    assert stored["given"].tolist() == given.tolist()  # those of the data, which apply changes
    revised = np.flatnonzero(truth[others] != given[others])
    assert (stored["quality"][np.array(others)[revised]] == 0).all()
    assert stored["quality"][kept] == 1
    expected = given.copy()
    expected[others] = truth[others]
    assert final_labels(out) == expected.astype(str).tolist()


def test_audit__rows_that_a_file_trusts__are_no_issues(tmp_path: Path) -> None:
    data, out = tmp_path / "rows.npz", tmp_path / "out"
    rows_with_noise(data)
    assert audited(data, *QUICK, "--out", out) == 0
    first = [issue["row"] for issue in issues(out)[:5]]
    (tmp_path / "right.txt").write_text("\n".join([*first, ""]))
    trusted = ("--trusted", tmp_path / "right.txt")
    assert audited(data, *QUICK, "--out", tmp_path / "second", *trusted) == 0
    assert not {issue["row"] for issue in issues(tmp_path / "second")} & {*first}


def test_audit__column_of_trusted_rows__is_not_learned_from(tmp_path: Path) -> None:
    pytest.importorskip("skrub")
    data, out = tmp_path / "people.csv", tmp_path / "out"
    wrong = people(data)
    frame = pd.read_csv(data)
    frame["checked"] = np.where(wrong, "no", "Yes")
    frame.loc[frame.index % 4 > 0, "checked"] = None
    frame.to_csv(data, index=False)
    options = ("--label", "member", "--missing", "?", *QUICK, "--out", out)
    with pytest.warns(UserWarning, match="left out"):
        assert audited(data, *options, "--trusted", "checked") == 0
    trusted = pd.read_csv(out / "labels.csv")["quality"][frame["checked"] == "Yes"]
    assert len(trusted)
    assert (trusted == 1).all()
    _, cards = from_json((out / "page.json").read_text())
    assert "checked" not in {column for card in cards for column, _, _ in card.cells or ()}


def test_audit__labels_that_mean_none__are_given_one(tmp_path: Path) -> None:
    data, out = tmp_path / "rows.npz", tmp_path / "out"
    truth, given = rows_with_noise(data)
    y = np.where(np.arange(len(given)) < 40, "unknown", given.astype(str))
    np.savez(data, X=np.load(data)["X"], y=y)
    assert audited(data, *QUICK, "--out", out, "--missing", "unknown") == 0
    stored = pd.read_csv(out / "labels.csv")
    assert stored["given"].isna().sum() == 40
    assert (stored["decision"][:40] == "none").all()
    assert (stored["believed"][:40].astype(int) == truth[:40]).mean() > 0.7


def test_audit__embeddings__are_learned_from_instead(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    topic = rng.integers(2, size=200)
    noisy = noise.symmetric(topic, 0.15, random_state=0)
    body = rng.choice(["one", "two three"], 200)  # tells nothing
    pd.DataFrame({"body": body, "topic": noisy.labels}).to_csv(tmp_path / "mails.csv")
    np.save(tmp_path / "vectors.npy", rng.normal(size=(200, 3)) + 4 * topic[:, None])
    out = tmp_path / "out"
    options = ("--text", "body", "--label", "topic", *QUICK, "--out", out)
    vectors = ("--embeddings", tmp_path / "vectors.npy")
    assert audited(tmp_path / "mails.csv", *options, *vectors) == 0
    assert noisy.flipped[[int(issue["row"]) for issue in issues(out)[:20]]].mean() > 0.9


def test_audit__method__is_the_only_detector(tmp_path: Path) -> None:
    rows_with_noise(tmp_path / "rows.npz")
    out = tmp_path / "out"
    options = (*QUICK, "--out", out)
    assert audited(tmp_path / "rows.npz", *options) == 0
    assert len(list((out / "cache").rglob("output.pkl"))) == 2
    assert json.loads((out / "audit.json").read_text())["method"] == "cross_entropy"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--method", "flywhel"], "--method must be one of auto, cross_entropy,.*Got 'flywhel'"),
        (["--again"], "--again goes on with an audit. Got .*out, which holds none"),
        (["--trusted", "nowhere"], "a column of the data, or a file.*'nowhere', which is neither"),
        (["--trusted", "names.txt"], "names.txt must name rows.*'1000', and 1 that are not there"),
        (["--embeddings", "three.npy"], "one row for each of 40 rows.*float64 of shape .3, 2."),
    ],
)
def test_audit__what_is_known__that_cannot_be_used__is_refused(
    options: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    people(tmp_path / "people.csv", 40)
    (tmp_path / "names.txt").write_text("1\n1000\n")
    np.save(tmp_path / "three.npy", np.zeros((3, 2)))
    with pytest.raises(SystemExit) as ended:
        audited("people.csv", "--label", "member", "--text", "town", "--out", "out", *options)
    assert ended.value.code == 2
    assert re.search(said, " ".join(capsys.readouterr().err.split()))
    assert not Path("out", "audit.json").exists()


def test_trusted_column__that_says_neither_yes_nor_no__is_refused() -> None:
    assert flags(pd.Series(["Yes", None, "f", "1"])).tolist() == [True, False, False, True]
    assert flags(pd.Series([True, False])).tolist() == [True, False]
    assert flags(pd.Series([1.0, np.nan, 0.0])).tolist() == [True, False, False]
    with pytest.raises(ValueError, match="'checked', must say yes or no.*Got 'maybe'"):
        flags(pd.Series(["yes", "maybe"], name="checked"))
