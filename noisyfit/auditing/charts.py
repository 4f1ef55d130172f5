"""The plots of the page: where their lines, ticks and points go; templates draw them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from noisyfit.auditing.page import Map, PrecisionByRank, Summary

WIDTH, HEIGHT = 420, 240
LEFT, RIGHT, TOP, BOTTOM = 44, 408, 10, 206
MOST_CLASSES = 25  # in the matrix
MOST_COLORS = 10
MOST_POINTS = 5000
STEPS = (1, 2, 5, 10)


class Tick(NamedTuple):
    """A place on an axis, in the units of the drawing, and what it is called."""

    at: float
    name: str


class Scale(NamedTuple):
    """A linear way from data to the drawing."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return where a value lies in the drawing."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


@dataclass(frozen=True)
class Lines:
    """A line, in pieces where values are missing, and a band around it."""

    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    lines: Sequence[str]
    band: str = ""


@dataclass(frozen=True)
class Dots:
    """Points by color, and the class of each color; issues are drawn on top."""

    points: Sequence[tuple[float, float, int]]
    issues: Sequence[tuple[float, float, int]]
    colors: Sequence[str]


class Bar(NamedTuple):
    """A class, the mean quality of its labels, and the issues among them."""

    name: str
    quality: float
    n_issues: int | None


@dataclass(frozen=True)
class Matrix:
    """The transition matrix, cut to the classes that are confused most."""

    names: Sequence[str]
    rows: Sequence[Sequence[float]]
    strongest: float  # off the diagonal
    n_left_out: int


def precision(found: PrecisionByRank | None) -> Lines | None:
    """Return the expected precision by rank, with its band."""
    if found is None or not len(found.ranks):
        return None
    last = max(found.ranks)
    x = Scale(0, last, LEFT, RIGHT)
    y = Scale(0, 1, BOTTOM, TOP)
    expected = list(zip(found.ranks, found.expected, strict=True))
    around = [*zip(found.ranks, found.high, strict=True)]
    around += reversed([*zip(found.ranks, found.low, strict=True)])
    return Lines(
        _ticks(x, whole=True),
        [Tick(y(share), f"{share:.0%}".replace("%", " %")) for share in (0, 0.25, 0.5, 0.75, 1)],
        _lines(expected, x, y),
        _path([point for point in around if _is_finite(point)], x, y),
    )


def learning_curves(curves: Mapping[str, Sequence[float]]) -> dict[str, Lines]:
    """Return a plot for each curve that has values; they have different units."""
    return {name: plot for name, values in curves.items() if (plot := _curve(values))}


def _curve(values: Sequence[float]) -> Lines | None:
    points = [(epoch, value) for epoch, value in enumerate(values, 1)]
    finite = [value for _, value in points if math.isfinite(value)]
    if not finite:
        return None
    x = Scale(1, max(len(points), 2), LEFT, RIGHT)
    y = Scale(*_widened(min(finite), max(finite)), BOTTOM, TOP)
    return Lines(_ticks(x, whole=True), _ticks(y, n=4), _lines(points, x, y))


def scatter(found: Map | None, classes: Sequence[str]) -> Dots | None:
    """Return the map; classes have colors while there are few of them."""
    if found is None or not len(found.x):
        return None
    rows = zip(found.x, found.y, found.classes, found.is_issue, strict=True)
    finite = [row for row in rows if _is_finite(row[:2])]
    kept = finite[:: math.ceil(len(finite) / MOST_POINTS) or 1]
    if not kept:
        return None
    names = [*dict.fromkeys([*classes, *found.classes])]
    colors = {name: i for i, name in enumerate(names)} if len(names) <= MOST_COLORS else {}
    x = Scale(*_widened(*_extremes(row[0] for row in kept)), 8, WIDTH - 8)
    y = Scale(*_widened(*_extremes(row[1] for row in kept)), HEIGHT + 52, 8)
    placed = [(x(a), y(b), colors.get(name, 0), issue) for a, b, name, issue in kept]
    return Dots(
        [point[:3] for point in placed if not point[3]],
        [point[:3] for point in placed if point[3]],
        list(colors),
    )


def class_bars(summary: Summary) -> list[Bar]:
    """Return the classes, the worst labels first."""
    issues: list[int | None] = [*summary.class_issues] or [None] * len(summary.class_quality)
    if not len(summary.class_quality):
        return []
    bars = zip(summary.classes, summary.class_quality, issues, strict=True)
    return sorted((Bar(*bar) for bar in bars), key=lambda bar: bar.quality)


def matrix(summary: Summary) -> Matrix | None:
    """Return the transition matrix of the classes whose labels are confused most."""
    if summary.transition is None or not len(summary.transition):
        return None
    rows, names = summary.transition, summary.classes
    confused = [
        sum(row) - row[i] + sum(other[i] for other in rows) - row[i] for i, row in enumerate(rows)
    ]
    worst = sorted(range(len(names)), key=lambda i: -confused[i])[:MOST_CLASSES]
    kept = sorted(worst)
    return Matrix(
        [names[i] for i in kept],
        [[rows[i][j] for j in kept] for i in kept],
        max((rows[i][j] for i in kept for j in kept if i != j), default=0) or 1,
        len(names) - len(kept),
    )


def _lines(points: Sequence[tuple[float, float]], x: Scale, y: Scale) -> list[str]:
    """Return the stretches of finite points; a point alone is a line to itself, a dot."""
    stretches = (list(part) for finite, part in groupby(points, _is_finite) if finite)
    return [_path(part if len(part) > 1 else part * 2, x, y) for part in stretches]


def _path(points: Iterable[tuple[float, float]], x: Scale, y: Scale) -> str:
    return " ".join(f"{x(a):g},{y(b):g}" for a, b in points)


def _ticks(scale: Scale, *, n: int = 5, whole: bool = False) -> list[Tick]:
    """Return about ``n`` round numbers within a scale."""
    rough = (scale.high - scale.low) / n
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in STEPS if factor * power >= rough)
    if whole:
        step = max(1.0, step)
    first = math.ceil(scale.low / step - 1e-9)
    last = math.floor(scale.high / step + 1e-9)
    return [Tick(scale(i * step), _number(i * step, step)) for i in range(first, last + 1)]


def _number(value: float, step: float) -> str:
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:,.{decimals}f}"


def _widened(low: float, high: float) -> tuple[float, float]:
    """Return a range that is not empty, with a little room on both sides."""
    room = (high - low) * 0.04 or abs(low) * 0.1 or 1.0
    return low - room, high + room


def _extremes(values: Iterable[float]) -> tuple[float, float]:
    found = list(values)
    return min(found), max(found)


def _is_finite(point: Sequence[float]) -> bool:
    return all(map(math.isfinite, point))
