"""``report.html``: an audit as one page that needs no network.

The page is HTML from the start, which jinja2 escapes; its script only hides, sorts and decides.
Plots are SVG from a template and not from matplotlib: they follow the reader's light or dark
colours, and a report needs no optional package.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noisyfit import __version__
from noisyfit.auditing import charts
from noisyfit.auditing.decisions import ACCEPT, KEEP, OTHER, SKIP, Decision
from noisyfit.utils.files import whole_file

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

MOST_CARDS = 500
LARGEST_PAGE = 9_000_000  # bytes of cards
MARKUP = 3_000  # bytes of a card without its pictures and texts, about
PNG = b"\x89PNG"
SAID = {KEEP: "Stays {}", ACCEPT: "Becomes {}", OTHER: "Becomes {}", SKIP: "Skipped"}


@dataclass(frozen=True)
class Neighbour:
    """A confirmed row near a suspicious one.

    Parameters
    ----------
    id : str
    label : str
        Its class.
    picture : bytes or None
        A small PNG or JPEG file.
    text : str
        What is shown where there is no picture.
    """

    id: str
    label: str
    picture: bytes | None = None
    text: str = ""


@dataclass(frozen=True)
class Card:
    """A suspicious row, as the page shows it.

    Parameters
    ----------
    id : str
        Of the row, as in ``labels.csv``.
    rank : int
        1 is the most suspicious.
    given, suggested : str
        Names of classes.
    quality : float in [0, 1]
        Probability that the given label is right.
    picture : bytes or None
        A small PNG or JPEG file, as `noisyfit.auditing.thumbnails.thumbnail` makes it.
    cells : sequence of (column, value, unusual), or None
        The most telling cells of a table's row; 1 is as unusual as can be, 0 is ordinary.
    text : sequence of (piece, weight), or None
        Pieces that follow one another. Weights above 0 speak for the suggested class, below 0 for
        the given one; the strongest is drawn strongest.
    neighbours : sequence of Neighbour
        Near rows of both classes whose labels are confirmed.
    """

    id: str
    rank: int
    given: str
    suggested: str
    quality: float
    picture: bytes | None = None
    cells: Sequence[tuple[str, str, float]] | None = None
    text: Sequence[tuple[str, float]] | None = None
    neighbours: Sequence[Neighbour] = ()


@dataclass(frozen=True)
class PrecisionByRank:
    """The share of wrong labels among the first ``ranks`` issues, and an interval for it."""

    ranks: Sequence[int]
    expected: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True)
class Map:
    """Rows in two dimensions: coordinates, names of classes, which are issues, and what it is."""

    x: Sequence[float]
    y: Sequence[float]
    classes: Sequence[str]
    is_issue: Sequence[bool]
    method: str = "The first two principal components"


@dataclass(frozen=True)
class Summary:
    """An audit, apart from its rows.

    Parameters
    ----------
    title : str
    facts : sequence of (name, value)
    cautions : sequence of str
        Sentences on how far not to trust it, shown on top.
    classes : sequence of str
        All class names.
    precision : PrecisionByRank or None
    transition : sequence of sequences of float, shape (n_classes, n_classes), or None
        Row i is how labels of true class i are given.
    class_quality : sequence of float, shape (n_classes,)
        Mean quality of the labels of a class; may be empty.
    class_issues : sequence of int, shape (n_classes,)
        Issues among them; may be empty.
    learning_curves : mapping of str to sequence of float
        One value an epoch.
    map : Map or None
    """

    title: str
    facts: Sequence[tuple[str, str]] = ()
    cautions: Sequence[str] = ()
    classes: Sequence[str] = ()
    precision: PrecisionByRank | None = None
    transition: Sequence[Sequence[float]] | None = None
    class_quality: Sequence[float] = ()
    class_issues: Sequence[int] = ()
    learning_curves: Mapping[str, Sequence[float]] | None = None
    map: Map | None = None


@dataclass(frozen=True)
class Review:
    """What a person has decided so far, by row id; a page with it takes decisions."""

    standing: Mapping[str, Decision]


def render(summary: Summary, cards: Sequence[Card], *, review: Review | None = None) -> str:
    """Return the page.

    Parameters
    ----------
    summary : Summary
    cards : sequence of Card
        By rank. Those beyond the first 500, or beyond what fits 10 MB, are left out. The page says
        how many issues it does not show.
    review : Review, optional
        Makes a page that takes decisions, for ``noisyfit review``.

    Returns
    -------
    str
        HTML that loads nothing. Text that is no valid Unicode is shown with backslashes.
    """
    shown = cards[: _fitting(cards)]
    script = _template("page.js")
    page = (
        _environment()
        .get_template("page.html")
        .render(
            policy=_policy(script, connects=review is not None),
            script=script,
            style=_template("page.css"),
            version=__version__,
            said=said,
            summary=summary,
            cards=shown,
            n_left_out=max(len(cards), sum(summary.class_issues)) - len(shown),
            pairs=_pairs(shown),
            review=review,
            standing=review.standing if review else {},
            precision=charts.precision(summary.precision),
            curves=charts.learning_curves(summary.learning_curves or {}),
            map=charts.scatter(summary.map, summary.classes),
            map_method=summary.map.method if summary.map else "",
            matrix=charts.matrix(summary),
            classes=charts.class_bars(summary),
        )
    )
    return page.encode("utf-8", "backslashreplace").decode("utf-8")


def said(decision: Decision | None) -> str:
    """Say what was decided."""
    return SAID[decision.decision].format(decision.label) if decision else ""


def write_report(folder: Path, summary: Summary, cards: Sequence[Card]) -> None:
    """Write ``report.html`` and ``page.json``, from which a review makes its page."""
    contents = {"report.html": render(summary, cards), "page.json": to_json(summary, cards)}
    for name, content in contents.items():
        with whole_file(folder / name, folder / f"{name}.tmp") as file:
            file.write(content.encode("utf-8"))


def to_json(summary: Summary, cards: Iterable[Card]) -> str:
    """Return what `from_json` reads."""
    page = {"summary": asdict(summary), "cards": [asdict(card) for card in cards]}
    return json.dumps(page, default=_encoded)


def from_json(text: str) -> tuple[Summary, list[Card]]:
    """Return the summary and the cards that `to_json` wrote.

    Raises
    ------
    ValueError
        If the text is something else.
    """
    try:
        page = json.loads(text)
        return _summary(page["summary"]), [_card(card) for card in page["cards"]]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            "page.json must be as noisyfit audit of this version writes it. Got "
            f"{text[:40]!r}... ({error}). Run the audit again."
        ) from error


def _summary(stored: dict[str, Any]) -> Summary:
    precision, map_ = stored.pop("precision"), stored.pop("map")
    return Summary(
        precision=precision and PrecisionByRank(**precision), map=map_ and Map(**map_), **stored
    )


def _card(stored: dict[str, Any]) -> Card:
    neighbours = [Neighbour(**_with_picture(one)) for one in stored.pop("neighbours")]
    return Card(neighbours=neighbours, **_with_picture(stored))


def _with_picture(stored: dict[str, Any]) -> dict[str, Any]:
    picture = stored["picture"]
    return stored | {"picture": None if picture is None else base64.b64decode(picture)}


def _encoded(value: Any) -> Any:
    """Return bytes as base64, and the numbers and arrays of NumPy as Python's."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value.tolist()


def _fitting(cards: Sequence[Card]) -> int:
    """Return how many cards the page has room for."""
    sizes = accumulate(_size(card) for card in cards[:MOST_CARDS])
    return sum(size <= LARGEST_PAGE for size in sizes)


def _size(card: Card) -> int:
    pictures = [card.picture, *(one.picture for one in card.neighbours)]
    texts = [piece for piece, _ in card.text or ()]
    texts += [f"{column}{value}" for column, value, _ in card.cells or ()]
    return (
        MARKUP
        + sum(len(picture) * 4 // 3 for picture in pictures if picture)
        + sum(len(text.encode("utf-8", "backslashreplace")) + 60 for text in texts)
    )


def _pairs(cards: Sequence[Card]) -> dict[tuple[str, str], tuple[int, int]]:
    """Return number and count of each pair of given and suggested class, the commonest first."""
    counts = Counter((card.given, card.suggested) for card in cards)
    return {pair: (i, count) for i, (pair, count) in enumerate(counts.most_common())}


def _as_address(picture: bytes) -> str:
    kind = "png" if picture.startswith(PNG) else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def _as_percent(share: float) -> str:
    """Return a share as people say it; never 0 % or 100 % of what is neither."""
    if 0 < share < 0.01:
        return "< 1 %"
    if 0.99 < share < 1:
        return "> 99 %"
    return f"{share:.0%}".replace("%", " %")


def _policy(script: str, *, connects: bool) -> str:
    """Return a content security policy under which nothing runs but our script."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        f"img-src data:; connect-src '{'self' if connects else 'none'}'; base-uri 'none'; "
        "form-action 'none'"
    )


@cache
def _template(name: str) -> Markup:
    from markupsafe import Markup

    file = resources.files("noisyfit.auditing").joinpath("templates", name)
    return Markup(file.read_text("utf-8"))


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("noisyfit.auditing"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"address": _as_address, "percent": _as_percent}
    return environment
