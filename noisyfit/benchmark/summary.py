"""Means and spreads over the seeds of a grid, and how much of the loss a method recovers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from noisyfit.benchmark.contenders import BASELINE, CLEAN

if TYPE_CHECKING:
    import pandas as pd

PLACE = ["data", "noise", "rate", "labels"]
ALL_LABELS = "all"
ACCURACIES = {
    "accuracy_last": "last epoch",
    "accuracy_clid": "chosen by CLID",
    "accuracy_noisy_validation": "chosen by noisy validation",
    "accuracy_oracle": "best on test",
}
COST = ["seconds", "ratio_to_cross_entropy", "rows_per_second", "peak_memory_mb"]
PERCENT = [*ACCURACIES, "noisy_validation"]


def placed(results: pd.DataFrame) -> pd.DataFrame:
    """Return results whose column ``labels`` is text to group by.

    It is ``"all"`` where it is empty, and in results of earlier versions, which had none.
    """
    stored = results.reindex(columns=["labels"])["labels"].fillna(ALL_LABELS)
    return results.assign(labels=[n if isinstance(n, str) else f"{n:g}" for n in stored])


def gap_recovery(results: pd.DataFrame) -> pd.Series:
    """Return how much of what noise cost cross-entropy each row recovers.

    This is ``(accuracy - noisy) / (clean - noisy)``, where noisy and clean are the accuracies of
    cross-entropy after its last epoch on noisy and clean labels, for the same data, number of
    labels and seed.

    Parameters
    ----------
    results : DataFrame
        Rows of ``results.csv``.

    Returns
    -------
    Series
        1 is as good as clean labels, 0 as good as cross-entropy. NaN where either of them was not
        run, or where noise cost nothing.
    """
    results = placed(results)
    method, fit = results["method"], ["data", "labels", "seed"]
    clean = results[method == CLEAN].groupby(fit)["accuracy_last"].last()
    top = results.join(clean.rename("top"), on=fit)["top"]
    bottom = _baseline(results)
    gap = (top - bottom).where(top > bottom)
    part = (results["accuracy_last"] - bottom) / gap
    return part.where(method != CLEAN)


def _baseline(results: pd.DataFrame) -> pd.Series:
    """Return the accuracy of cross-entropy on the rows and labels of each row."""
    noisy = results[results["method"] == BASELINE]
    noisy = noisy.groupby([*PLACE, "seed"])["accuracy_last"].last()
    return results.join(noisy.rename("bottom"), on=[*PLACE, "seed"])["bottom"]


def summarize(results: pd.DataFrame) -> pd.DataFrame:
    """Return mean and standard deviation over seeds, one row per method and kind of noise.

    Parameters
    ----------
    results : DataFrame
        Rows of ``results.csv``.

    Returns
    -------
    DataFrame
        Its columns are those of ``PLACE``, ``method``, ``runs``, and ``name`` and ``name_std`` for
        each measure. Spreads of a single run are NaN, and so are measures that an earlier version
        did not record.
    """
    measures = [
        *PERCENT, "top5_last", "gap_recovery", "neg_clid", "auroc", "average_precision", *COST,
    ]  # fmt: skip
    speed = results["n_train"] * results["epochs"] / results["seconds"]
    of = placed(results).assign(gap_recovery=gap_recovery(results), rows_per_second=speed)
    of[measures] = of.reindex(columns=measures).astype(np.float64)
    groups = of.groupby([*PLACE, "method"], sort=False)[measures]
    means, spreads = groups.mean(), groups.std(ddof=1).add_suffix("_std")
    return means.join(spreads).assign(runs=groups.size()).reset_index()


def recovery_table(results: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of a table of the gap recovery, the best method first.

    There is a column for each kind of noise and one for their mean. The spread of the mean is over
    the seeds that have all kinds. Methods that lack a kind have no mean.

    Parameters
    ----------
    results : DataFrame
        Rows of ``results.csv``.
    """
    import pandas as pd

    of = placed(results).assign(recovery=100 * gap_recovery(results)).dropna(subset="recovery")
    of = of[of["method"] != BASELINE]
    places = list(dict.fromkeys(of[PLACE].itertuples(index=False, name=None)))
    means = of.pivot_table("recovery", "method", PLACE).mean(axis=1, skipna=False)
    by_seed = of.pivot_table("recovery", ["method", "seed"], PLACE).mean(axis=1, skipna=False)
    overall = pd.DataFrame({"mean": means, "std": by_seed.groupby("method").std()})
    overall = overall.sort_values("mean", ascending=False)
    by_place = of.groupby([*PLACE, "method"])["recovery"].agg(["mean", "std"])
    columns = [overall, *(by_place.loc[place].reindex(overall.index) for place in places)]
    rows = [
        [str(method), *(written(c["mean"][method], c["std"][method], 0) for c in columns)]
        for method in overall.index
    ]
    return ["method", "mean", *(title_of(*place) for place in places)], rows


def differences(results: pd.DataFrame) -> pd.DataFrame:
    """Return how many points each method is above cross-entropy, for each data set and noise.

    Parameters
    ----------
    results : DataFrame
        Rows of ``results.csv``.

    Returns
    -------
    DataFrame
        The columns of ``PLACE``, ``method``, and ``difference``: the difference between accuracies
        after the last epoch on the same rows and labels, averaged over seeds.
    """
    of = placed(results[results["method"] != CLEAN])
    of = of.assign(difference=100 * (of["accuracy_last"].astype(np.float64) - _baseline(of)))
    of = of[of["method"] != BASELINE].dropna(subset="difference")
    return of.groupby([*PLACE, "method"], sort=False)["difference"].mean().reset_index()


def against_baseline(results: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of a table over all cells, the best mean rank first.

    A cell is one kind of noise on one data set, with one number of labels. Gap recovery is computed
    from means over seeds and clipped to between -100 and 100, on cells where clean labels gain at
    least one point.
    """
    results = placed(results)
    points = differences(results)
    accuracy = 100 * results["accuracy_last"].astype(np.float64)
    means = accuracy.groupby([results[name] for name in (*PLACE, "method")]).mean()
    wide = means.unstack("method").drop(columns=CLEAN, errors="ignore").dropna(how="all")
    ranks = wide.rank(axis=1, ascending=False).mean()
    has_clean = (results["method"] == CLEAN).any()
    clean = means.xs(CLEAN, level="method") if has_clean else None
    rows = []
    for method, part in points.groupby("method"):
        worst = part.loc[part["difference"].idxmin()]
        rows.append(
            [
                str(method),
                str(len(part)),
                written(part["difference"].mean(), part["difference"].std(ddof=1)),
                f"{100 * (part['difference'] < -1).mean():.0f}",
                f"{worst['difference']:+.1f} ({title_of(*worst[PLACE])})",
                written(_recovered(wide, clean, str(method)), float("nan"), 0),
                f"{ranks[method]:.1f}",
            ]
        )
    head = [
        *("method", "cells", "points above cross-entropy", "% of cells below by more than 1"),
        *("worst cell", "gap recovery %", "mean rank"),
    ]
    return head, sorted(rows, key=lambda row: float(row[-1]))


def _recovered(wide: pd.DataFrame, clean: pd.Series | None, method: str) -> float:
    """Return how much of the gap a method recovers on average, in per cent."""
    if clean is None:
        return float("nan")
    fit = ["data", "labels"]
    top = wide.index.droplevel(["noise", "rate"]).map(clean.groupby(fit).mean())
    gap = np.asarray(top, np.float64) - wide[BASELINE]
    part = (100 * (wide[method] - wide[BASELINE]) / gap).clip(-100, 100)
    return float(part[gap >= 1].mean())


def written(mean: float, spread: float, digits: int = 1) -> str:
    """Format a mean and its spread, or ``-`` if there is none.

    Examples
    --------
    >>> written(96.04, 0.71), written(96.04, float("nan")), written(float("nan"), 0.0)
    ('96.0 ± 0.7', '96.0', '-')
    """
    if np.isnan(mean):
        return "-"
    return f"{mean:.{digits}f}" + ("" if np.isnan(spread) else f" ± {spread:.{digits}f}")


def table_of(part: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of the table of one kind of noise, without empty columns.

    Parameters
    ----------
    part : DataFrame
        Rows of `summarize`.
    """
    columns = {
        **{name: (f"accuracy %, {title}", 100.0, 1) for name, title in ACCURACIES.items()},
        "top5_last": ("top-5 accuracy %, last epoch", 100.0, 1),
        "gap_recovery": ("gap recovery %", 100.0, 0),
        "noisy_validation": ("noisy validation %", 100.0, 1),
        "neg_clid": ("CLID", 1.0, 3),
        "auroc": ("AUROC", 1.0, 3),
        "average_precision": ("AP", 1.0, 3),
        "seconds": ("seconds", 1.0, 1),
        "ratio_to_cross_entropy": ("x cross-entropy", 1.0, 1),
        "rows_per_second": ("rows/s", 1.0, 0),
        "peak_memory_mb": ("peak MB", 1.0, 0),
    }
    shown = {name: how for name, how in columns.items() if part[name].notna().any()}
    head = ["method", *(title for title, _, _ in shown.values()), "runs"]
    rows = [
        [
            row["method"],
            *(
                written(scale * row[name], scale * row[f"{name}_std"], digits)
                for name, (_, scale, digits) in shown.items()
            ),
            str(row["runs"]),
        ]
        for row in part.to_dict("records")
    ]
    return head, rows


def title_of(data: str, noise: str, rate: float, labels: str = ALL_LABELS) -> str:
    """Describe a kind of noise, and how many rows have labels, to people."""
    kind = {"given": "labels as given", "none": "clean labels"}.get(noise)
    parts = [Path(data).name, kind or f"{noise} {100 * rate:g} %"]  # it may be a file or folder
    return ", ".join(parts if labels == ALL_LABELS else [*parts, f"{labels} labels"])
