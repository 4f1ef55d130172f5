import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from noisyfit.benchmark import figures
from noisyfit.benchmark.grid import QUALITY, TABLE
from noisyfit.benchmark.measuring import COLUMNS
from noisyfit.benchmark.page import MARK, write_page
from noisyfit.benchmark.report import write_report
from noisyfit.benchmark.summary import (
    against_baseline,
    differences,
    gap_recovery,
    recovery_table,
    summarize,
)
from noisyfit.benchmark.table import Table

LAST = {"cross_entropy": (0.60, 0.70), "flywheel": (0.80, 0.80), "cross_entropy_clean": (0.90, 0.8)}


def row(method: str, seed: int, **values: Any) -> dict[str, Any]:
    clean = method == "cross_entropy_clean"
    noise, rate = ("none", 0) if clean else ("symmetric", 0.4)
    defaults = {
        "data": "digits", "noise": noise, "rate": rate, "method": method, "seed": seed,
        "accuracy_last": LAST[method][seed], "auroc": None if clean else 0.9 + 0.01 * seed,
        "seconds": 1.5 + seed, "scoring_seconds": 0.1, "n_train": 100, "max_epochs": None,
        "epochs": 30,
        "device": "cpu", "version": "1", "key": f"{method}{seed}",
    }  # fmt: skip
    return defaults | values


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    table = Table(tmp_path / TABLE, COLUMNS)
    (tmp_path / QUALITY).mkdir()
    for method in LAST:
        for seed in (0, 1):
            table.append(row(method, seed))
    histogram = {"right": [0.1, 0.9], "wrong": [0.7, 0.3]}
    (tmp_path / QUALITY / "flywheel0.json").write_text(json.dumps(histogram))
    return tmp_path


def test_gap_recovery_is_the_part_won_back_for_each_seed(folder: Path) -> None:
    results = pd.read_csv(folder / TABLE)
    found = results.assign(gap=gap_recovery(results)).set_index(["method", "seed"])["gap"]
    assert found["flywheel", 0] == pytest.approx((0.8 - 0.6) / (0.9 - 0.6))
    assert found["flywheel", 1] == pytest.approx(1.0)
    assert found["cross_entropy", 0] == 0
    assert np.isnan(found["cross_entropy_clean", 0])


def test_gap_recovery__noise_cost_nothing_or_no_clean_run__is_not_known(folder: Path) -> None:
    results = pd.read_csv(folder / TABLE)
    results.loc[results["method"] == "cross_entropy_clean", "accuracy_last"] = 0.5
    assert gap_recovery(results).isna().all()
    without = results[results["method"] != "cross_entropy_clean"]
    assert gap_recovery(without).isna().all()


def test_recovery_table_has_the_mean_over_kinds_of_noise_and_its_spread_over_seeds() -> None:
    rows = [row(method, seed) for method in LAST for seed in (0, 1)]
    for method, accuracy in {"cross_entropy": 0.4, "flywheel": 0.5}.items():
        rows += [row(method, s, noise="pairflip", accuracy_last=accuracy) for s in (0, 1)]
    head, body = recovery_table(pd.DataFrame(rows))
    assert head == ["method", "mean", "digits, symmetric 40 %", "digits, pairflip 40 %"]
    parts = np.array([[200 / 3, 100.0], [20.0, 25.0]])  # noise by seed
    columns = [parts.mean(0), *parts]
    assert body == [["flywheel", *(f"{c.mean():.0f} ± {c.std(ddof=1):.0f}" for c in columns)]]


def test_against_baseline__counts_cells_and_names_the_worst() -> None:
    rows = [row(method, seed) for method in LAST for seed in (0, 1)]
    for data, noisy, ours, clean in (("a", 0.5, 0.48, 0.9), ("b", 0.7, 0.76, 0.705)):
        for seed in (0, 1):
            rows += [
                row("cross_entropy", seed, data=data, accuracy_last=noisy),
                row("flywheel", seed, data=data, accuracy_last=ours - 0.01 * seed),
                row("cross_entropy_clean", seed, data=data, accuracy_last=clean),
            ]
    results = pd.DataFrame(rows)
    points = differences(results).set_index("data")["difference"]
    expected = {"digits": 15.0, "a": -2.5, "b": 5.5}
    assert points.to_dict() == pytest.approx(expected)
    head, body = against_baseline(results)
    assert len(head) == len(body[0]) == 7
    spread = np.std(list(expected.values()), ddof=1)
    recovered = (100 * 15 / 20 + 100 * -2.5 / 40) / 2  # clean labels gain nothing on b
    assert body == [
        ["flywheel", "3", f"6.0 ± {spread:.1f}", "33", "-2.5 (a, symmetric 40 %)",
         f"{recovered:.0f}", "1.3"],
    ]  # fmt: skip


def test_report__several_cells__compares_over_all_of_them(folder: Path) -> None:
    assert "All cells" not in markdown_of(folder)
    table = Table(folder / TABLE, COLUMNS)
    for method in ("cross_entropy", "flywheel"):
        table.append(row(method, 0, noise="pairflip", accuracy_last=0.5, key=f"p{method}"))
    text = markdown_of(folder)
    assert "## All cells" in text
    assert "+0.0 (digits, pairflip 40 %)" in text
    assert "(figure_all_above_cross-entropy.png)" in text
    assert (folder / "figure_all_above_cross-entropy.png").is_file()
    assert "<h2>All cells</h2>" in (folder / "report.html").read_text(encoding="utf-8")


def test_report__trusted_rows__are_said(tmp_path: Path) -> None:
    table = Table(tmp_path / TABLE, COLUMNS)
    table.append(row("flywheel", 0, trusted=40))
    write_report(tmp_path)
    assert "Training rows: digits: 100. 40 of them trusted." in markdown_of(tmp_path)


def test_report__labels_of_some_rows__have_tables_of_their_own(folder: Path) -> None:
    table = Table(folder / TABLE, COLUMNS)
    last = {"cross_entropy": 0.3, "flywheel": 0.4, "cross_entropy_clean": 0.5}
    for method, accuracy in last.items():
        key = f"{method}0_50"
        table.append(row(method, 0, labels=50, accuracy_last=accuracy, key=key))
    (folder / QUALITY / "flywheel0_50.json").write_text('{"right": [0.5, 0.5], "wrong": [1, 0]}')
    results = pd.read_csv(folder / TABLE)
    found = gap_recovery(results)[results["method"] == "flywheel"]
    assert found.tolist() == pytest.approx([(0.8 - 0.6) / (0.9 - 0.6), 1.0, 0.5])
    summary = summarize(results).set_index(["method", "labels"])
    assert summary["runs"]["flywheel", "all"] == 2
    assert summary["accuracy_last"]["flywheel", "50"] == pytest.approx(0.4)
    text = markdown_of(folder)
    assert "### digits, symmetric 40 %\n" in text
    assert "### digits, symmetric 40 %, 50 labels\n" in text
    assert "quality_symmetric_0.4.png" in text
    assert "quality_symmetric_0.4_50.png" in text
    page = folder / "page.md"
    page.write_text(f"{MARK}\n")
    write_page([folder], page)
    assert "## digits, symmetric 40 %, 50 labels\n" in page.read_text(encoding="utf-8")


def test_report__features__are_said(tmp_path: Path) -> None:
    table = Table(tmp_path / TABLE, COLUMNS)
    table.append(row("flywheel", 0, features="efficientnet_lite0"))
    write_report(tmp_path)
    assert "Images are features of efficientnet" in markdown_of(tmp_path)


def markdown_of(folder: Path) -> str:
    write_report(folder)
    return (folder / "report.md").read_text(encoding="utf-8")


def test_page__tables_after_the_mark_are_replaced(folder: Path) -> None:
    page = folder / "page.md"
    page.write_text(f"# Ours\n\n{MARK}\n\nold")
    write_page([folder], page)
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# Ours\n\n{MARK}\n")
    assert "old" not in text
    assert "| flywheel | 83 ± 24 | 83 ± 24 |" in text
    assert "## digits, symmetric 40 %" in text
    assert "65.0 ± 7.1" in text
    assert "seconds" not in text
    page.write_text("# Without a place for tables")
    with pytest.raises(ValueError, match="must have the line"):
        write_page([folder], page)


def test_summary_has_means_and_spreads_over_seeds(folder: Path) -> None:
    summary = summarize(pd.read_csv(folder / TABLE)).set_index("method")
    baseline = summary.loc["cross_entropy"]
    assert baseline["accuracy_last"] == pytest.approx(0.65)
    assert baseline["accuracy_last_std"] == pytest.approx(np.std([0.6, 0.7], ddof=1))
    assert baseline["runs"] == 2


def test_report_contains_the_numbers_and_the_figures(folder: Path) -> None:
    said = write_report(folder)
    assert len(said) == 3
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    page = (folder / "report.html").read_text(encoding="utf-8")
    for text in (markdown, page):
        assert "digits, symmetric 40 %" in text
        for number in ("65.0 ± 7.1", "80.0 ± 0.0", "85.0 ± 7.1", "0.905 ± 0.007", "83 ± 24"):
            assert number in text
    line = next(li for li in markdown.splitlines() if li.startswith("| flywheel"))
    speed = (100 * 30 / 1.5 + 100 * 30 / 2.5) / 2
    assert line.startswith("| flywheel | 80.0 ± 0.0 | 83 ± 24 | 0.905 ± 0.007 | 2.0 ± 0.7 |")
    assert line.endswith(f"| {speed:.0f} ± 566 | 2 |")
    pictures = sorted(file.name for file in folder.glob("*.png"))
    assert len(pictures) == 3
    assert all(f"({name})" in markdown for name in pictures)
    assert page.count("data:image/png;base64,") == 3


def test_report__no_matplotlib__has_tables_and_says_how_to_get_figures(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "noisyfit.benchmark.figures", raising=False)
    monkeypatch.delattr("noisyfit.benchmark.figures", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    said = write_report(folder)
    assert "matplotlib is missing. Install noisyfit[plot]." in said[0]
    assert "65.0 ± 7.1" in (folder / "report.md").read_text(encoding="utf-8")
    assert "65.0 ± 7.1" in (folder / "report.html").read_text(encoding="utf-8")
    assert not list(folder.glob("*.png"))


def test_report__own_data__has_no_accuracy(tmp_path: Path) -> None:
    table = Table(tmp_path / TABLE, COLUMNS)
    own = {"data": "a|b/<own>.csv", "noise": "given", "rate": 0.0, "accuracy_last": None}
    table.append(row("flywheel", 0, **own, noisy_validation=0.61, neg_clid=0.432, auroc=None))
    write_report(tmp_path)
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| flywheel | 61.0 | 0.432 | 1.5 | 2000 | 1 |" in markdown
    assert "accuracy %" not in markdown
    assert "&lt;own&gt;.csv" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name, shown",
    [
        ("a|b.csv", r"a\|b.csv"),
        ("<script>alert(1)<\\script>", "&lt;script&gt;alert(1)&lt;\\\\script&gt;"),
        ("a&lt;b", "a&amp;lt;b"),
        ("a\nb\n# c", r"a b \# c"),
        ("`code`", r"\`code\`"),
        ("[x](javascript:y)", r"\[x\](javascript:y)"),
        ("![x](y.png)", r"!\[x\](y.png)"),
        ("*a* __b__ a_b ~~c~~", r"\*a\* \_\_b\_\_ a_b \~\~c\~\~"),
        ("$x^$ $\\frac{", r"\$x^\$ \$\\frac{"),
        ("=1+1", "=1+1"),
        ("2024", "2024"),
        ("NA", "NA"),
        ("\udcff.csv", r"\\udcff.csv"),
    ],
)
def test_report_and_page__name_of_data__is_shown_as_it_is(
    folder: Path, name: str, shown: str
) -> None:
    """``$`` was a formula of matplotlib's, 2024 a number: both ended in an error."""
    table = Table(folder / TABLE, COLUMNS)
    table.rewrite([line | {"data": name} for line in table.rows])
    write_report(folder)
    (folder / "page.md").write_text(f"{MARK}\n")
    write_page([folder], folder / "page.md")
    shown_in_titles = shown.rpartition("/")[2]
    for file in ("report.md", "page.md"):
        markdown = (folder / file).read_text(encoding="utf-8")
        assert f"# {shown_in_titles}, symmetric 40 %\n" in markdown
        assert f"Training rows: {shown}: 100.\n" in markdown
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert len(list(folder.glob("*.png"))) == 3


def test_report__nothing_finished__says_so(tmp_path: Path) -> None:
    assert write_report(tmp_path) == ["No cell has finished: there is nothing to report."]


def test_report_and_page__table_of_an_earlier_version__have_what_it_has(folder: Path) -> None:
    """The column top5_last was demanded of tables that were written before there was one."""
    expected = markdown_of(folder)
    pd.read_csv(folder / TABLE).drop(columns="top5_last").to_csv(folder / TABLE, index=False)
    page = folder / "page.md"
    page.write_text(f"{MARK}\n")
    write_page([folder], page)
    assert "cross_entropy" in page.read_text()
    assert markdown_of(folder) == expected


def test_gap_recovery__figures__show_the_means_of_cells_at_their_place() -> None:
    summary = pd.DataFrame(
        [
            {"data": data, "noise": "symmetric", "rate": 0.4, "labels": "all", "method": method,
             "gap_recovery": part, "seconds": seconds}
            for data, method, part, seconds in [
                ("a", "rld", 0.5, 4.0), ("b", "rld", -3.0, 8.0),
                ("a", "hrp", 0.25, 20.0), ("b", "hrp", 0.75, 40.0),
                ("a", "elr", 0.9, 1.0),  # not in all cells
            ]
        ]
    )  # fmt: skip
    (axes,) = figures.gap_recovery(summary).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["hrp", "rld"]
    assert [text.get_text() for text in axes.texts] == ["25", "75", "50", "-100"]
    (axes,) = figures.gap_recovery_by_cost(summary).axes
    points = {text.get_text(): text.xy for text in axes.texts}  # type: ignore[attr-defined]
    assert points == {"hrp": (30.0, 50.0), "rld": (6.0, -25.0)}
