"""``report.md`` and ``report.html``: the tables and figures for a grid."""

from __future__ import annotations

import base64
import html
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noisyfit.benchmark.grid import QUALITY, TABLE
from noisyfit.benchmark.measuring import COLUMNS, TEXTS
from noisyfit.benchmark.summary import (
    ALL_LABELS,
    PLACE,
    against_baseline,
    differences,
    placed,
    summarize,
    table_of,
    title_of,
)
from noisyfit.benchmark.table import Table, one_line, read_frame

if TYPE_CHECKING:
    import pandas as pd

NOTES = (
    "Means and standard deviations over seeds. Accuracies are on clean test labels. Rows that are "
    "held out of training carry noisy labels; CLID looks at no label, noisy validation at those. "
    "Best on test looks at the clean test labels: nobody can choose so, it is a bound. Gap "
    "recovery: 0 % is cross-entropy on the noisy labels, 100 % on the clean ones, last epoch. "
    "AUROC and AP: finding the wrong labels by label_quality_. Seconds are of fit, with one thread "
    "on a CPU; memory is above what the process held before."
)
STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:75em;margin:2em auto;padding:0 1em;color:#1d2733}"
    "table{border-collapse:collapse;font-size:14px}td,th{padding:.3em .7em;text-align:right;"
    "border-bottom:1px solid #d5dbe3}td:first-child,th:first-child{text-align:left}"
    "img{max-width:100%}"
)
MARKS = re.compile(r"[\\`*|\[\]~#$]|(?<![^\W_])_|_(?![^\W_])")  # but no _ within a word
ALL = ""  # key of the figures over all data
Figures = dict[str, list[tuple[str, Path]]]


def write_report(folder: Path) -> list[str]:
    """Write the report of a grid next to its table.

    Parameters
    ----------
    folder : path
        The folder passed to `noisyfit.benchmark.grid.run_grid`.

    Returns
    -------
    list of str
        Lines on what was written and, if there are no figures, on how to get them.
    """
    stored = Table(folder / TABLE, COLUMNS)
    if not stored.rows:
        return ["No cell has finished: there is nothing to report."]
    results = read_frame(folder / TABLE, TEXTS)
    said = []
    try:
        figures = draw_figures(folder, results)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "matplotlib":
            raise
        figures = {}
        said.append("The report has no figures, as matplotlib is missing. Install noisyfit[plot].")
    summary = summarize(results)
    (folder / "report.md").write_text(_markdown(summary, results, figures), encoding="utf-8")
    (folder / "report.html").write_text(_html(summary, results, figures), encoding="utf-8")
    return [*said, *(f"Written: {folder / name}" for name in (TABLE, "report.md", "report.html"))]


def draw_figures(folder: Path, results: pd.DataFrame) -> Figures:
    """Draw the figures of each data set as PNG files; return titles and paths by data set.

    Raises
    ------
    ModuleNotFoundError
        If matplotlib is not installed.
    """
    from matplotlib import rc_context

    from noisyfit.benchmark import figures

    with rc_context({"text.parse_math": False}):  # a $ is a $
        return _drawn(folder, results, figures)


def _drawn(folder: Path, results: pd.DataFrame, figures: Any) -> Figures:
    summary, results = summarize(results), placed(results)
    found: Figures = {}
    drawn: dict[str, Any] = {}
    if _compares_cells(results):
        drawn["above cross-entropy"] = figures.above_baseline(differences(results))
        if summary["gap_recovery"].notna().any():
            drawn["gap recovery"] = figures.gap_recovery(summary)
            drawn["gap recovery by cost"] = figures.gap_recovery_by_cost(summary)
        found[ALL] = [
            (title, _save(figure, folder / f"figure_all_{title.replace(' ', '_')}.png"))
            for title, figure in drawn.items()
        ]
    for number, (data, part) in enumerate(summary.groupby("data", sort=False)):
        drawn = {}
        if part["accuracy_last"].notna().any():
            drawn["accuracy"] = figures.accuracy(part)
            drawn["cost"] = figures.cost(part)
        for place, rows in results[results["data"] == data].groupby(PLACE, sort=False):
            histograms = _histograms(folder, rows)
            if histograms:
                name = _figure_name(*place[1:])
                drawn[name] = figures.separation(histograms, title_of(*place))
        found[str(data)] = [
            (title, _save(figure, folder / f"figure_{number}_{title}.png"))
            for title, figure in drawn.items()
        ]
    return found


def _figure_name(kind: str, rate: float, labels: str) -> str:
    return f"quality_{kind}_{rate:g}" + ("" if labels == ALL_LABELS else f"_{labels}")


def _compares_cells(results: pd.DataFrame) -> bool:
    """Whether there are several cells in which to compare a method with cross-entropy."""
    points = differences(results)
    return len(points[PLACE].drop_duplicates()) > 1


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=110)
    return path


def _histograms(folder: Path, rows: pd.DataFrame) -> dict[str, dict[str, list[float]]]:
    """Return the histograms by method, averaged over seeds."""
    import numpy as np

    found: dict[str, list[dict[str, list[float]]]] = {}
    for method, key in zip(rows["method"], rows["key"], strict=True):
        path = folder / QUALITY / f"{key}.json"
        if path.is_file():
            found.setdefault(method, []).append(json.loads(path.read_text()))
    return {
        method: {side: np.mean([h[side] for h in several], axis=0).tolist() for side in several[0]}
        for method, several in found.items()
    }


def facts(results: pd.DataFrame) -> str:
    """Say in one line what was run."""
    sizes = ", ".join(
        f"{data}: {rows['n_train'].min()}" for data, rows in results.groupby("data", sort=False)
    )
    versions = ", ".join(sorted(set(results["version"].astype(str))))
    devices = ", ".join(sorted(set(results["device"])))
    networks = ", ".join(sorted(set(results["module"].dropna())))
    trusted = sorted(set(results["trusted"].dropna())) if "trusted" in results else []
    features = sorted(set(results["features"].dropna())) if "features" in results else []
    return (
        f"noisyfit {versions}, {devices}{networks and f', {networks}'}. {len(results)} fits, "
        f"{results['seconds'].sum() / 60:.1f} minutes of training. Training rows: {sizes}."
        + "".join(f" {n:.0f} of them trusted." for n in trusted)
        + "".join(f" Images are features of {name}." for name in features)
    )


def _markdown(summary: pd.DataFrame, results: pd.DataFrame, figures: Figures) -> str:
    lines = ["# Comparison of methods", "", markdown_text(facts(results)), "", NOTES, ""]
    if _compares_cells(results):
        lines += ["## All cells", "", markdown_table(*against_baseline(results)), ""]
        lines += [f"![{title}]({path.name})\n" for title, path in figures.get(ALL, [])]
    for data, part in summary.groupby("data", sort=False):
        lines += [f"## {markdown_text(str(data))}", ""]
        for place, rows in part.groupby(PLACE, sort=False):
            title = markdown_text(title_of(*place))
            lines += [f"### {title}", "", markdown_table(*table_of(rows)), ""]
        lines += [f"![{title}]({path.name})\n" for title, path in figures.get(str(data), [])]
    return "\n".join(lines)


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    written = ([markdown_text(field) for field in fields] for fields in (head, *rows))
    first, *others = (f"| {' | '.join(fields)} |" for fields in written)
    return "\n".join([first, f"|{' --- |' * len(head)}", *others])


def markdown_text(text: str) -> str:
    """Escape text so that Markdown shows it as it is, on one line.

    Examples
    --------
    >>> markdown_text("<cross_entropy>")
    '&lt;cross_entropy&gt;'
    """
    return MARKS.sub(r"\\\g<0>", html.escape(one_line(text), quote=False))


def _html(summary: pd.DataFrame, results: pd.DataFrame, figures: Figures) -> str:
    """Return one self-contained file."""
    parts = [f"<h1>Comparison of methods</h1><p>{_safe(facts(results))}</p><p>{NOTES}</p>"]
    if _compares_cells(results):
        parts.append(f"<h2>All cells</h2>{_table(*against_baseline(results))}")
        parts += [_picture(title, path) for title, path in figures.get(ALL, [])]
    for data, part in summary.groupby("data", sort=False):
        parts.append(f"<h2>{_safe(data)}</h2>")
        for place, rows in part.groupby(PLACE, sort=False):
            parts.append(f"<h3>{_safe(title_of(*place))}</h3>{_table(*table_of(rows))}")
        parts += [_picture(title, path) for title, path in figures.get(str(data), [])]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Comparison of methods</title>'
        f"<style>{STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    return f"<table>{_row(head, 'th')}{''.join(_row(row, 'td') for row in rows)}</table>"


def _picture(title: str, path: Path) -> str:
    picture = base64.b64encode(path.read_bytes()).decode()
    return f'<p><img alt="{_safe(title)}" src="data:image/png;base64,{picture}"></p>'


def _row(fields: list[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{_safe(field)}</{tag}>" for field in fields) + "</tr>"


def _safe(text: Any) -> str:
    return html.escape(str(text))
