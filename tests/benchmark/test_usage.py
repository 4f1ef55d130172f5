"""What a user of the command gets wrong is said in one message, before anything is trained."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from noisyfit import NoisyLabelClassifier
from noisyfit.cli import main
from noisyfit.nn.backbones import weights

FILES: dict[str, bytes] = {
    "empty.csv": b"",
    "blank.csv": b"\n\n\n",
    "header.csv": b"a,b,label\n",
    "long_row.csv": b"a,label\n1,x\n2,y,3\n",
    "long_rows.csv": b"a,label\n1,x,3\n2,y,3\n",
    "short_row.csv": b"a,b,label\n1,2,x\n3\n",
    "latin.csv": "a,label\n1,Käse\n2,x\n".encode("latin-1"),
    "utf16.csv": "a,label\n1,x\n2,y\n".encode("utf-16"),
    "binary.csv": bytes(range(256)) * 9,
    "open_quote.csv": b'a,label\n1,"x\n2,y\n',
    "only_labels.csv": b"label\nx\ny\n",
    "empty_columns.csv": b"a,label\n,x\n,y\n",
    "no_label.csv": b"a,label\n1,\n2,\n",
    "one_class.csv": b"a,label\n1,x\n2,x\n",
    "scale.csv": b"a,label\n1,0.5\n2,1.5\n3,2.25\n",
    "two_labels.csv": b"a,label,label\n1,x,x\n2,y,y\n",
    "infinite.csv": b"a,label\n1,x\ninf,y\n3,x\n4,y\n",
    "huge.csv": b"a,label\n1,x\n1e300,y\n3,x\n4,y\n",
    "tiny.csv": b"a,label\n1,x\n2,y\n",
    "good.csv": b"a,label\n1,x\n2,y\n3,x\n4,y\n",
}
TABLES = {
    "empty.csv": "empty.csv must hold rows",
    "blank.csv": "blank.csv must hold rows",
    "header.csv": "must have rows with a label.*Got 0 rows",
    "long_row.csv": "3 fields in line 3, and 2 in the header",
    "long_rows.csv": "3 fields in line 2, and 2 in the header",
    "short_row.csv": "1 fields in line 3, and 3 in the header",
    "latin.csv": "latin.csv must be text in utf-8.*0xe4 in line 2",
    "utf16.csv": "utf16.csv must be text in utf-8.*utf-16",
    "binary.csv": "binary.csv must be text in utf-8",
    "open_quote.csv": "open_quote.csv must be a table in text.*quotation marks",
    "only_labels.csv": "other columns that are not empty",
    "empty_columns.csv": "other columns that are not empty",
    "no_label.csv": "must have rows with a label.*Got 0 rows",
    "one_class.csv": "a column of two classes or more. Got 'label', which is 'x' in every",
    "scale.csv": "must hold classes, floats only if they are whole",
    "two_labels.csv": "must name each column once.*label",
    "infinite.csv": "infinity",
    "huge.csv": "must be finite",
    "tiny.csv": "must leave two classes or more",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files to be misused, and an error if a network is built there."""

    def never(*args: Any, **kwargs: Any) -> None:
        pytest.fail("Training has begun.")

    monkeypatch.setattr(NoisyLabelClassifier, "_train", never)
    monkeypatch.chdir(tmp_path)
    for name, content in FILES.items():
        Path(name).write_bytes(content)
    for kind, colour in (("cat", "red"), ("dog", "blue")):
        for folder in ("broken", "cut", "text"):
            Path(folder, kind).mkdir(parents=True)
            Image.new("RGB", (6, 4), colour).save(Path(folder, kind, "a.png"))
    Path("broken/cat/b.png").write_bytes(b"no image")
    noisy = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    Image.fromarray(noisy).save("cut/dog/b.png")
    os.truncate("cut/dog/b.png", 1500)
    Path("text/cat/b.jpg").write_text("x" * 100)
    Path("nothing").mkdir()
    Path("one_kind/cat").mkdir(parents=True)
    Image.new("RGB", (6, 4)).save("one_kind/cat/a.png")
    Path("held/results.csv").mkdir(parents=True)
    Path("other").mkdir()
    Path("other/results.csv").write_text("something,else\n1,2\n")
    return tmp_path


def assert_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2
    said = capsys.readouterr()
    assert re.search(message, said.err.splitlines()[-1])
    assert not said.out


@pytest.mark.parametrize("name", TABLES)
def test_table__that_cannot_be_used__is_refused(
    name: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_refused(["benchmark", "--data", name, "--label", "label"], TABLES[name], capsys)
    assert not Path("noisyfit-benchmark").exists()


@pytest.mark.parametrize(
    "name, message",
    [
        ("broken", r"Each image .*broken/cat/b\.png"),
        ("cut", r"Each image .*cut/dog/b\.png"),
        ("text", r"Each image .*text/cat/b\.jpg"),
        ("nothing", "a folder of images for each of two classes"),
        ("one_kind", "a folder of images for each of two classes"),
        ("no_such", "Data must be one of"),
        ("", "Data must be one of"),
        ("x" * 5000, "File name too long"),
        ("trec", "NOISYFIT_DATA"),
        ("good.csv", "needs the column of its labels"),
    ],
)
def test_data__that_cannot_be_used__are_refused(
    name: str,
    message: str,
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NOISYFIT_DATA", raising=False)
    assert_refused(["benchmark", "--data", name], message, capsys)


@pytest.mark.parametrize(
    "name, message",
    [
        ("efficientnet_lite_0", "Did you mean 'efficientnet_lite0'"),
        ("efficientnet_lite0", r'pip install "noisyfit\[images\]"'),
        ("resnet18", "must be on the disk. Got no file"),
    ],
)
def test_features__of_a_network_that_is_not_there__are_refused(
    name: str,
    message: str,
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(weights, "find_spec", lambda package: None)
    monkeypatch.setenv("TORCH_HOME", str(here))
    assert_refused(["benchmark", "--features", name], message, capsys)


@pytest.mark.parametrize(
    "home, message",
    [
        ("nothing", "must hold 'trec_weak.npz'"),
        ("no_such", "must exist"),
        ("good.csv", "must exist"),
        ("~no_such_user/data", "must exist"),
        ("damaged", "trec_weak.npz.* must be .*damaged"),
    ],
)
def test_stored_data__that_are_not_there__are_refused(
    home: str,
    message: str,
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("damaged").mkdir()
    np.savez("damaged/trec_weak.npz", X=np.arange(1000))
    os.truncate("damaged/trec_weak.npz", 3000)
    monkeypatch.setenv("NOISYFIT_DATA", home)
    assert_refused(["benchmark", "--data", "trec"], message, capsys)


@pytest.mark.parametrize(
    "option, values",
    [
        ("--rates", ["nan", "inf", "-0.1", "1", "1e400", "x", "", "0.95"]),
        ("--seeds", ["-1", "0.5", "nan", "x", "", "4294967296", "1e3"]),
        ("--rows", ["0", "-5", "1.5", "nan", "x", "1", "9" * 30]),
        ("--test-rows", ["0", "-5", "nan"]),
        ("--trusted", ["0", "-5", "1.5"]),
        ("--labels", ["0", "-5", "1.5", "nan", "x", "9", "1132"]),
        ("--jobs", ["0", "-1", "nan", "x", "9" * 30]),
        ("--epochs", ["0", "1", "-3", "nan", "2.5", "9" * 30]),
        ("--holdout", ["-0.1", "1", "nan", "x", "0.9999"]),
        ("--device", ["tpu", "cuda:99", "", "cuda:x", "meta", "hpu", "privateuseone", "mps"]),
        ("--module", ["preact_resnet81", ""]),
        ("--methods", ["no_such", "", "c", "hrp:no_such", "flywheel:all", "c:all", "hrp:"]),
        ("--again", ["no_such"]),
        ("--noise", ["pair", ""]),
        ("--out", ["good.csv", "good.csv/out", "/proc/no_such", "/dev/full", "held", "other"]),
    ],
)
def test_option__wrong_value__is_refused(
    option: str, values: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = r"error: .*(must|invalid choice)"
    for value in values:
        assert_refused(["benchmark", f"{option}={value}"], message, capsys)


@pytest.mark.parametrize(
    "output", ["nothing", "no_such/x.png", "good.csv/x.png", "/proc/x.png", "/dev/full", "x" * 300]
)
def test_demo__picture_that_cannot_be_written__is_refused(
    output: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was found out after all training."""
    before = sorted(here.rglob("*"))
    message = "--output must be a file that can be written, in a folder that exists"
    assert_refused(["demo", "--output", output], message, capsys)
    assert sorted(here.rglob("*")) == before


def test_demo__picture_that_is_there__is_kept_until_the_new_one_is_drawn(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noisyfit.benchmark.demo.compare_two", lambda output, epochs: None)
    Path("old.png").write_bytes(b"old")
    assert main(["demo", "--output", "old.png"]) == 0
    assert Path("old.png").read_bytes() == b"old"
    assert main(["demo", "--output", "new.png"]) == 0
    assert not Path("new.png").exists()


def test_values_given_twice__are_one(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["benchmark", "--methods", "sklearn+forest", "sklearn+forest", "--data", "digits"]
    command += ["digits", "--seeds", "0", "0", "--rates", "0.4", "0.4", "auto", "--dry-run"]
    assert main([*command, "--rows", "100"]) == 0
    assert "1 cells" in capsys.readouterr().out


@pytest.mark.parametrize("n", [9, 271])
def test_labels__fewer_than_classes_or_more_than_rows__are_refused(
    n: int, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = (
        "--labels must be at least the number of classes, 10, and at most that of training rows, "
        f"270. Got {n} for digits."
    )
    assert_refused(["benchmark", "--rows", "300", "--labels", "20", str(n)], message, capsys)


def test_trusted_rows_of_data_without_true_labels__are_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = "--trusted needs data whose true labels are known. Got good.csv"
    data = ["--data", "good.csv", "--label", "label"]
    assert_refused(["benchmark", *data, "--trusted", "2"], message, capsys)
