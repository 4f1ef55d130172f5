"""What the commands of an audit say of input that they cannot use: one message, nothing half."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from noisyfit.auditing.page import from_json
from noisyfit.auditing.source import CONFIDENT, read_labels
from noisyfit.cli import main
from tests.auditing.folders import write_audit
from tests.helpers import full_disk

COMMAND = [sys.executable, "-c", "import sys; from noisyfit.cli import main; sys.exit(main())"]
CSV = "age,town,member\n" + "".join(
    f"{age},{town},{'yes' if age > 45 else 'no'}\n"
    for age, town in zip(range(20, 60), ["Rome", "Oslo", "Lima", "Köln"] * 10, strict=True)
)
LABEL = ["--label", "member"]
TEXT = [*LABEL, "--text", "town"]
IMAGES = [*LABEL, "--images", "town"]


def refused(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """Return the one message with which a command ends."""
    with pytest.raises(SystemExit) as stopped:
        main([*map(str, argv)])
    assert stopped.value.code == 2
    usage, _, message = capsys.readouterr().err.partition("error: ")
    assert "usage: noisyfit" in usage
    assert message.count("\n") == 1
    return message.strip()


def is_clean(out: Path) -> bool:
    """Whether nothing is left of an audit but what is kept for the next."""
    return {file.name for file in out.iterdir()} <= {"cache"} if out.is_dir() else True


# ------------------------------------------------------------------------------------ tables


def column(values: list[Any], name: str = "member") -> str:
    """Return a table with another column."""
    frame = pd.DataFrame({"age": range(len(values)), "town": ["Rome", "Oslo"] * (len(values) // 2)})
    return str(frame.assign(**{name: values}).to_csv(index=False))


TABLES: dict[str, tuple[str, str | bytes, list[str], str]] = {
    "label unknown": ("t.csv", CSV, ["--label", "membre"], "'membre'. Did you mean 'member'?"),
    "label unknown, texts": (
        *("t.csv", CSV, ["--label", "membre", "--text", "town"]),
        "label must be a column of t.csv. Got 'membre'. Did you mean 'member'?",
    ),
    "text unknown": ("t.csv", CSV, [*LABEL, "--text", "twon"], "Did you mean 'town'?"),
    "images unknown": ("t.csv", CSV, [*LABEL, "--images", "twon"], "Did you mean 'town'?"),
    "text is label": ("t.csv", CSV, [*LABEL, "--text", "member"], "must be different columns"),
    "other separator": ("t.csv", CSV.replace(",", ";"), TEXT, "If ';' separates them, save it"),
    "no label": ("t.csv", CSV, [], "Pass --label COLUMN"),
    "one class": ("t.csv", column(["a"] * 20), LABEL, "must hold two classes or more. Got 'a'"),
    "one class, texts": ("t.csv", column(["a"] * 20), TEXT, "two classes or more. Got 'a'"),
    "no labels": ("t.csv", column([None] * 20), TEXT, "must hold labels. Got none in 20 rows"),
    "labels said to be none": (
        *("t.csv", column(["?"] * 20), [*TEXT, "--missing", "?"]),
        "must hold labels. Got none in 20 rows",
    ),
    "real numbers": ("t.csv", column([0.25, 1] * 20), LABEL, "Got real numbers, such as 0.25"),
    "real numbers, texts": ("t.csv", column([0.25, 1] * 20), TEXT, "such as 0.25"),
    "a class a row": ("t.csv", column(list(range(20))), TEXT, "20 different values in 20 rows"),
    "nested labels": ("t.jsonl", '{"a": 1, "member": [1]}\n' * 20, LABEL, "Got the list [1]"),
    "mixed labels": (
        *("t.jsonl", '{"a": 1, "member": 1}\n{"a": 2, "member": "x"}\n' * 9, LABEL),
        "labels of one type",
    ),
    "blank class": (
        *("t.jsonl", '{"a": 1, "member": " "}\n{"a": 2, "member": "x"}\n' * 9, LABEL),
        "at least two classes. Got ['x'] only",
    ),
    "latin": ("t.csv", CSV.encode("latin-1"), LABEL, "0xf6 in line 5. Save it as UTF-8"),
    "mixed encodings": (
        *("t.csv", CSV.encode() + "7,Köln,no\n".encode("latin-1"), TEXT),
        "0xf6 in line 42. The file mixes encodings",
    ),
    "utf-16": ("t.csv", CSV.encode("utf-16"), LABEL, "Save it as UTF-8"),
    "utf-16 without mark": (
        *("t.csv", CSV.replace("ö", "o").encode("utf-16-le"), TEXT),
        "Got a byte of zero in line 1",
    ),
    "zeros": ("t.csv", CSV.replace("Rome", "Ro\0me"), LABEL, "Got a byte of zero in line 2"),
    "half a surrogate": (
        *("t.jsonl", '{"a": "\\ud800", "member": "x"}\n{"a": 2, "member": "y"}\n', LABEL),
        "Got line 1: 'utf-8' codec can't encode character",
    ),
    "long line": ("t.csv", CSV + "1,2,3,4\n", TEXT, "Got 4 fields in line 42, and 3 in the header"),
    "short line": ("t.csv", CSV + "1,2\n", LABEL, "Got 2 fields in line 42, and 3 in the header"),
    "empty": ("t.csv", "", LABEL, "Got an empty file"),
    "header": ("t.csv", "age,town,member\n", LABEL, "must hold rows. Got none below its header"),
    "header, texts": ("t.csv", "age,town,member\n", TEXT, "Got none below its header"),
    "header, images": ("t.csv", "age,town,member\n", IMAGES, "Got none below its header"),
    "names twice": ("t.csv", "town,member,town\n1,2,3\n", TEXT, "Got ['town'] more than once"),
    "infinity": ("t.csv", column([1.5] * 19 + [np.inf], "x"), ["--label", "town"], "in row 19"),
    "numbers as paths": ("t.csv", CSV, [*LABEL, "--images", "age"], "Got 20 in row 0"),
    "no path": ("t.csv", CSV.replace("Oslo", ""), IMAGES, "Got none in row 1"),
    "no such images": ("t.csv", CSV, IMAGES, "Got 40 of 40 that cannot"),
    "no words": (
        *("t.csv", column([f"w{i}" for i in range(20)], "x"), ["--label", "town", "--text", "x"]),
        "must hold texts that share words",
    ),
    "three rows": ("t.csv", "a,b,member\n1,2,x\n3,4,y\n5,7,x\n", LABEL, "two labels or more"),
    "one fold": ("t.csv", CSV, [*LABEL, "--folds", "1"], "at least 2 folds"),
    "folds": ("t.csv", CSV, [*LABEL, "--folds", "99"], "at most 26, the number of labels"),
}


@pytest.mark.parametrize("case", TABLES)
def test_audit__table_that_cannot_be_used__is_said(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, content, options, says = TABLES[case]
    if "--images" in options:
        pytest.importorskip("PIL")
    data = tmp_path / name
    data.write_bytes(content.encode() if isinstance(content, str) else content)
    out = tmp_path / "out"
    assert says in refused(capsys, "audit", data, *options, "--out", out)
    assert is_clean(out)


def test_audit__file_that_is_missing__names_one_that_is_close(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "people.csv").write_text(CSV)
    said = refused(capsys, "audit", tmp_path / "peple.csv", *LABEL, "--out", tmp_path / "out")
    assert "peple.csv'. Did you mean 'people.csv'?" in said
    assert not (tmp_path / "out").exists()


def test_audit__names_of_rows_that_repeat_or_have_parts__are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"age": range(20), "town": list("abcd") * 5, "member": ["x", "y"] * 10})
    frame.set_axis([f"r{i // 2}" for i in range(20)]).to_parquet(tmp_path / "t.parquet")
    argv = ["audit", tmp_path / "t.parquet", *TEXT, "--out", tmp_path / "out"]
    assert "share words" in refused(capsys, *argv)  # letters are no words
    argv[2:-2] = LABEL
    assert "Got 'r0' more than once, and 10 such rows" in refused(capsys, *argv)
    parts = pd.MultiIndex.from_product([range(4), range(5)])
    frame.set_axis(parts).to_parquet(tmp_path / "t.parquet")
    assert "Got an index of 2 levels" in refused(capsys, *argv)


# ------------------------------------------------------------------------------------ arrays

ROWS = np.arange(40.0).reshape(20, 2)
CODES = np.arange(20) % 2
ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "no y": ({"X": ROWS}, "Got: y is not a file"),
    "NaN": ({"X": np.where(ROWS == 3, np.nan, ROWS), "y": CODES}, "Got X[1, 1] = nan"),
    "too large": ({"X": ROWS * 1e300, "y": CODES}, "X must be finite"),
    "objects": ({"X": ROWS.astype(object), "y": CODES}, "Got: Object arrays cannot be loaded"),
    "objects as labels": ({"X": ROWS, "y": np.array(["a", None] * 10)}, "y.astype(str)"),
    "words": ({"X": ROWS.astype(str), "y": CODES}, "must be numbers. Got dtype <U"),
    "complex": ({"X": ROWS + 1j, "y": CODES}, "must be numbers. Got dtype complex128"),
    "lengths": ({"X": ROWS, "y": CODES[:8]}, "Got shapes (20, 2) and (8,)"),
    "one number": ({"X": 3.0, "y": CODES}, "Got shapes () and (20,)"),
    "one-hot": ({"X": ROWS, "y": np.eye(20)}, "Got shapes (20, 2) and (20, 20)"),
    "no columns": ({"X": ROWS[:, :0], "y": CODES}, "Got shapes (20, 0) and (20,)"),
    "no rows": ({"X": ROWS[:0], "y": CODES[:0]}, "Got shapes (0, 2) and (0,)"),
    "one class": ({"X": ROWS, "y": CODES * 0}, "two classes"),
    "no labels": ({"X": ROWS, "y": CODES * np.nan}, "two classes. Got [] only"),
    "scale": ({"X": ROWS, "y": CODES + 0.5}, "continuous, such as 0.5"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_audit__arrays_that_cannot_be_used__are_said(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays, says = ARRAYS[case]
    np.savez(tmp_path / "t.npz", **arrays)
    out = tmp_path / "out"
    assert says in refused(capsys, "audit", tmp_path / "t.npz", "--out", out)
    assert is_clean(out)


@pytest.mark.parametrize("size", [0, 4, 300])
def test_audit__damaged_archive__is_said(
    size: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "whole.npz", X=ROWS, y=CODES)
    (tmp_path / "t.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:size])
    said = refused(capsys, "audit", tmp_path / "t.npz", "--out", tmp_path / "out")
    assert "damaged, or no .npz file" in said


def test_audit__options_of_tables__are_refused_for_arrays_and_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "t.npz", X=ROWS, y=CODES)
    out = ["--out", tmp_path / "out"]
    said = refused(capsys, "audit", tmp_path / "t.npz", *LABEL, *out)
    assert "Only tables take --label. Got arrays" in said
    (tmp_path / "photos").mkdir()
    said = refused(capsys, "audit", tmp_path / "photos", "--images", "path", *out)
    assert "Only tables take --images. Got a folder" in said


# ------------------------------------------------------------------------------------ images


def photos(folder: Path, kinds: tuple[str, ...] = ("cat", "dog"), n: int = 4) -> Path:
    image = pytest.importorskip("PIL.Image")
    for number, kind in enumerate(kinds):
        (folder / kind).mkdir(parents=True)
        for i in range(n):
            image.new("RGB", (16, 16), (40 * i, 90 * number, 30)).save(folder / kind / f"{i}.png")
    return folder


def _broken(folder: Path) -> str:
    (photos(folder) / "cat" / "9.png").write_bytes(b"none")
    return "Got 1 of 9 that cannot"


def _one_kind(folder: Path) -> str:
    photos(folder, ("cat",))
    (folder / "dog").mkdir()
    return "Got images in ['cat']"


def _no_folders(folder: Path) -> str:
    folder.mkdir()
    return "Got images in []"


@pytest.mark.parametrize("make", [_broken, _one_kind, _no_folders])
def test_audit__images_that_cannot_be_used__are_said(
    make: Callable[[Path], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    says, out = make(tmp_path / "photos"), tmp_path / "out"
    assert says in refused(capsys, "audit", tmp_path / "photos", "--out", out)
    assert is_clean(out)


def test_audit__findings_within_the_images__are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They would be a class of the next audit, and apply would find other data."""
    (tmp_path / "photos").mkdir()
    out = tmp_path / "photos" / "findings"
    said = refused(capsys, "audit", tmp_path / "photos", "--out", out)
    assert "must not lie in the data" in said
    assert not out.exists()


@pytest.mark.slow
def test_audit__folders_of_any_name_and_depth__are_read(tmp_path: Path) -> None:
    folder = photos(tmp_path / "meine Bilder", ("schöne Katze", "<b>", "lone"))
    for file in list((folder / "lone").iterdir())[1:]:
        file.unlink()
    (folder / "empty").mkdir()
    (folder / "<b>" / "deep").mkdir()
    os.rename(folder / "<b>" / "0.png", folder / "<b>" / "deep" / "0 ü.png")
    out = tmp_path / "aus gäbe"
    assert main(["audit", str(folder), "--folds", "2", "--out", str(out)]) == 0
    given = {label.row: label.given for label in read_labels(out, CONFIDENT)}
    assert given["<b>/deep/0 ü.png"] == "<b>"
    assert len(given) == 9


# ----------------------------------------------------------------------------------- folders


def _file(out: Path) -> str:
    out.write_text("mine")
    return "Got 'File exists'"


def _not_json(out: Path) -> str:
    out.mkdir()
    (out / "audit.json").write_bytes(b"\xff{")
    return "holds another audit"


def _list(out: Path) -> str:
    out.mkdir()
    (out / "audit.json").write_text("[1]")
    return "holds another audit"


def _loop(out: Path) -> str:
    out.symlink_to(out)
    return "Got 'File exists'"


@pytest.mark.parametrize("make", [_file, _not_json, _list, _loop])
def test_audit__folder_that_cannot_be_used__is_left_as_it_is(
    make: Callable[[Path], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.csv").write_text(CSV)
    out = tmp_path / "out"
    says = make(out)
    before = sorted(tmp_path.rglob("*"))
    said = refused(capsys, "audit", tmp_path / "t.csv", *LABEL, "--out", out)
    assert says in said
    assert str(out) in said
    assert "cache" not in said
    assert sorted(tmp_path.rglob("*")) == before


def test_audit__folder_without_rights__is_said_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir(mode=0o500)
    if os.access(out, os.W_OK):
        pytest.skip("rights do not bind this user")
    (tmp_path / "t.csv").write_text(CSV)
    said = refused(capsys, "audit", tmp_path / "t.csv", *LABEL, "--out", out)
    assert f"folder of the audit must be one that can be written to.*{out}" in said


# ------------------------------------------------------------------------- disks and signals


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3))
    np.savez(tmp_path / "rows.npz", X=X, y=(X[:, 0] > 0).astype(int))
    return tmp_path / "rows.npz"


@pytest.mark.filterwarnings("ignore:Unable to")
@pytest.mark.parametrize(
    ("size", "where"),
    [(100, r"out(/labels\.csv)?"), (700, "labels.csv"), (3000, "report.html")],
    ids=["code of the folds", "folds", "report"],
)
def test_audit__full_disk__names_the_file_and_leaves_no_half(
    size: int, where: str, arrays: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with full_disk(size):
        said = refused(capsys, "audit", arrays, "--folds", "2", "--out", out)
    assert re.search(f"File too large.*Free space.*{where}$", said)
    left = [file.name for file in out.rglob("*") if file.is_file()]
    assert not {"audit.json", "report.html"} & {*left}
    assert not [name for name in left if name.endswith(".tmp") or "pkl." in name]


@pytest.mark.slow
def test_audit__full_disk_the_second_time__is_no_whole_audit(
    arrays: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first audit.json stayed, beside tables of the second audit."""
    argv = ["audit", str(arrays), "--folds", "2", "--out", str(tmp_path / "out")]
    assert main([*argv, "--seed", "1"]) == 0
    with full_disk(3000):
        refused(capsys, *argv)
    assert not (tmp_path / "out" / "audit.json").exists()
    assert main(argv) == 0
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["seed"] == 0


@pytest.mark.slow
def test_audit__interrupted__says_so_and_goes_on_the_next_time(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 3))
    np.savez(tmp_path / "rows.npz", X=X, y=(X[:, 0] > 0).astype(int))
    out = tmp_path / "out"
    argv = [*COMMAND, "audit", str(tmp_path / "rows.npz"), "--folds", "3", "--out", str(out)]
    argv += ["--method", "cross_entropy"]
    first = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not list(out.rglob("output.pkl")) and first.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    first.send_signal(signal.SIGINT)
    _, said = first.communicate()
    assert first.returncode == 130
    assert said.splitlines()[-1] == "Stopped. The same command goes on."
    assert "Traceback" not in said
    assert is_clean(out)
    kept = {file: file.stat().st_mtime_ns for file in out.rglob("output.pkl")}
    subprocess.run(argv, check=True)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert (out / "audit.json").exists()


# ---------------------------------------------------------------------------- what must work


@pytest.mark.slow
def test_audit__odd_classes__are_shown_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Markup, blanks, case, a byte order mark, gaps and a class of one row."""
    names = ["<script>alert(1)</script>", "b,\n\"'"] * 20
    names[:4] = ["", "  ", "lone", "B, \"'"]
    names[5:9:2] = ["<SCRIPT>alert(1)</script>"] * 2
    text = [f"{'red green blue'.split()[i % 2]} {i % 3} thing{i % 5}" for i in range(40)]
    data, out = tmp_path / "tä ble.csv", tmp_path / "out"
    frame = pd.DataFrame({"kind": names, "body": text})
    frame.to_csv(data, index=False, encoding="utf-8-sig")
    options = ["--text", "body", "--label", "kind", "--folds", "2", "--out", str(out)]
    assert main(["audit", str(data), *options]) == 0
    said = capsys.readouterr().out
    assert "these labels are not rated" in said
    assert "Classes should differ by more than blanks and case" in said
    labels = read_labels(out, CONFIDENT)
    assert [label.given.strip() for label in labels] == [name.strip() for name in names]
    assert not any(label.changes for label in labels[:4])
    page = (out / "report.html").read_text()
    assert "<script>alert" not in page
    summary, _ = from_json((out / "page.json").read_text())
    assert "lone" not in summary.classes
    to = tmp_path / "cleaned.csv"
    assert main(["apply", str(out), "--to", str(to), "--only", "confident"]) == 0
    assert pd.read_csv(to)["body"].tolist() == text


# --------------------------------------------------------------------------- review and apply

HEADER = "row,given,believed,quality,decision\n"
FOLDERS: dict[str, tuple[str, str, str | None, str]] = {
    "no audit": ("apply", "audit.json", None, "must be one that noisyfit audit wrote"),
    "audit cut short": ("apply", "audit.json", '{"data": ', "JSONDecodeError in audit.json"),
    "no audit but a list": ("apply", "audit.json", "[]", "must be one that noisyfit audit wrote"),
    "no labels": ("apply", "labels.csv", None, "labels.csv"),
    "labels of others": ("apply", "labels.csv", "a,b\n", "Got: the columns ['a', 'b']"),
    "line cut short": ("apply", "labels.csv", f"{HEADER}0,cat\n1,a,b,0,keep\n", "Got: line 2"),
    "file cut short": ("apply", "labels.csv", f"{HEADER}0,cat,cat,0,keep\n", "Got 1 lines"),
    "quotes cut short": ("apply", "labels.csv", f'{HEADER}0,"cat,', "unexpected end of data"),
    "decisions of others": ("apply", "decisions.csv", "a,b\n", "The first line of"),
    "decision unknown": (
        *("review", "decisions.csv", "time,row,decision,label\n1,0,maybe,x\n"),
        "Got '1,0,maybe,x'",
    ),
    "no page": ("review", "page.json", None, "which has no page.json"),
    "page cut short": ("review", "page.json", '{"summary": ', "page.json must be as"),
    "page of others": ("review", "page.json", '{"summary": 1, "cards": 2}', "page.json must be as"),
    "page as bytes": ("review", "page.json", "\udcff", "page.json must be as"),
    "no data": ("apply", "../pets.csv", None, "Got no "),
    "other data": ("apply", "../pets.csv", "kind,name\n", "with other contents"),
}


@pytest.fixture
def findings(tmp_path: Path) -> Path:
    (tmp_path / "pets.csv").write_text("kind,name\ncat,Tom\ndog,Rex\n")
    rows = [("0", "cat", "dog", "change"), ("1", "dog", "dog", "keep")]
    return write_audit(tmp_path / "audit", tmp_path / "pets.csv", rows)


@pytest.mark.parametrize("case", FOLDERS)
def test_review_and_apply__folder_that_is_damaged__is_said(
    case: str, findings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, name, content, says = FOLDERS[case]
    if command == "review":
        pytest.importorskip("starlette")
        pytest.importorskip("uvicorn")
    if content is None:
        (findings / name).unlink()
    else:
        (findings / name).write_text(content, errors="surrogateescape")
    to = findings.parent / "cleaned.csv"
    options = ["--to", to] if command == "apply" else []
    assert says in refused(capsys, command, findings, *options)
    assert not to.exists()


def test_apply__full_disk__names_the_file_and_leaves_no_half(
    findings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(findings.parent.rglob("*"))
    to = findings.parent / "cleaned.csv"
    with full_disk(5):
        said = refused(capsys, "apply", findings, "--to", to)
    assert said.endswith(f"Got 'File too large'. Free space, or choose another: {to}")
    assert sorted(findings.parent.rglob("*")) == before
