"""The page shows what it is given, as text, and loads nothing."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from noisyfit.auditing import charts
from noisyfit.auditing.decisions import ACCEPT, KEEP, OTHER, SKIP, Decision
from noisyfit.auditing.page import (
    LARGEST_PAGE,
    MOST_CARDS,
    Card,
    Map,
    Neighbour,
    PrecisionByRank,
    Review,
    Summary,
    from_json,
    render,
    said,
    to_json,
    write_report,
)
from tests.auditing.folders import summary_of, table_cards, text_cards

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "\"'><b>bold</b>",
    "{{ 7 * 7 }}",
    "&amp;<!--",
    "\u2028line\u2029",
    "a\r\nb\tc",
]
SUMMARY = Summary("Pets", classes=["cat", "dog"])


class Words(HTMLParser):
    """What a page shows, and its elements and attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def everywhere(text: str) -> tuple[Summary, list[Card]]:
    """Return a page with a text in each place that takes one."""
    summary = replace(
        summary_of([text, "other"]),
        title=text,
        facts=[(text, text)],
        cautions=[text],
        learning_curves={text: [1.0, 2.0]},
    )
    near = [Neighbour(text, text, None, text), Neighbour(text, text, b"\x89PNG")]
    card = Card(text, 1, text, "other", 0.5, None, [(text, text, 0.5)], [(text, 1.0)], near)
    return summary, [card]


@pytest.mark.parametrize("text", HOSTILE)
def test_render__whatever_a_user_typed__is_shown_as_text(text: str) -> None:
    plain, hostile = (
        Words(render(*everywhere(one), review=Review({one: Decision("", one, OTHER, one)})))
        for one in ("plain", text)
    )
    assert hostile.tags == plain.tags
    assert [name for name, _ in hostile.attributes] == [name for name, _ in plain.attributes]
    assert hostile.text.count(text) == plain.text.count("plain") > 15


def test_render__text_that_is_no_unicode__is_shown_with_backslashes() -> None:
    page = render(*everywhere("caf\udce9"))
    assert "caf\\udce9" in Words(page).text
    page.encode("utf-8")


def test_render__loads_nothing_and_lets_nothing_else_run() -> None:
    page = Words(render(summary_of(["a", "b"]), table_cards(3)))
    addresses = {name: value for name, value in page.attributes if name in ("src", "href")}
    assert addresses == {"href": "data:,"}
    assert not re.search(r"url\(|@import|https?://", render(summary_of(["a"]), []))
    policy = next(value for name, value in page.attributes if value and "default-src" in value)
    assert "default-src 'none'" in policy
    assert "connect-src 'none'" in policy
    assert "unsafe-inline" not in policy.split("style-src")[0]


def test_render__pictures__are_in_the_page() -> None:
    card = Card("1", 1, "cat", "dog", 0.1, picture=b"\x89PNG...")
    near = [Neighbour("2", "cat", picture=b"\xff\xd8...")]
    page = render(SUMMARY, [replace(card, neighbours=near)])
    assert "data:image/png;base64,iVBORy4uLg==" in page
    assert "data:image/jpeg;base64,/9guLi4=" in page


@pytest.mark.parametrize(
    "quality, shown", [(0, "0 %"), (0.001, "&lt; 1 %"), (0.126, "13 %"), (0.999, "&gt; 99 %")]
)
def test_render__quality__is_never_rounded_to_certainty(quality: float, shown: str) -> None:
    assert f"{shown} likely right" in render(SUMMARY, [Card("1", 1, "cat", "dog", quality)])


def test_render__too_many_cards__says_how_many_are_left_out() -> None:
    page = render(SUMMARY, table_cards(MOST_CARDS + 1234))
    assert page.count('<li class="card"') == MOST_CARDS
    assert "1,234 more are in <code>issues.csv</code>" in re.sub(r"\s+", " ", page)


def test_render__fewer_cards_than_issues__says_how_many_are_left_out() -> None:
    summary = replace(SUMMARY, class_quality=[0.5, 0.5], class_issues=[10, 5])
    assert "12 more are in" in re.sub(r"\s+", " ", render(summary, table_cards(3)))


def test_render__large_pictures_or_texts__keep_the_page_under_10_mb() -> None:
    large = [b"\xff" * 20_000, b"\xff" * 5_000]
    near = [Neighbour("n", "cat", large[1])] * 6
    cards = [
        Card(str(i), i, "cat", "dog", 0.1, large[0], text=[("ü" * 500, 0.0)] * 10, neighbours=near)
        for i in range(MOST_CARDS)
    ]
    page = render(SUMMARY, cards)
    assert LARGEST_PAGE * 0.9 < len(page.encode()) < 10_000_000
    assert "more are in" in page


def test_render__100_000_rows__stay_under_10_mb() -> None:
    classes = [f"class {i}" for i in range(300)]
    cards = table_cards(MOST_CARDS, classes)
    page = render(summary_of(classes, n_rows=100_000), cards)
    assert len(page.encode()) < 3_000_000
    assert page.count("<circle") <= charts.MOST_POINTS


def test_render__nothing_but_a_title__says_that_nothing_was_found() -> None:
    page = Words(render(Summary("Pets"), []))
    assert "None were found." in page.text
    assert "figure" not in page.tags


def test_render__review__has_buttons_and_what_was_decided() -> None:
    cards = table_cards(2)
    plain = render(SUMMARY, cards)
    page = render(SUMMARY, cards, review=Review({"0": Decision("", "0", ACCEPT, "saab")}))
    assert "<button" not in plain
    assert page.count('<button type="button" data-do="keep">') == 2
    assert page.count("Becomes saab") == 1


def test_said__of_each_decision__names_the_label() -> None:
    texts = [said(Decision("", "1", one, "cat")) for one in (KEEP, ACCEPT, OTHER, SKIP)]
    assert texts == ["Stays cat", "Becomes cat", "Becomes cat", "Skipped"]
    assert said(None) == ""


def test_json__gives_back_summary_and_cards() -> None:
    summary = summary_of(["cat\udcff", "</script>"])
    near = [Neighbour("é", "cat", b"\x00\xff"), Neighbour("2", "dog", text="short")]
    cards = [*table_cards(2), *text_cards(1), Card("x", 9, "a", "b", 0.5, b"PNG", None, None, near)]
    again = from_json(to_json(summary, cards))
    assert render(*again) == render(summary, cards)
    assert to_json(*again) == to_json(summary, cards)
    assert again[1][-1] == cards[-1]


def test_json__numpy__is_written_as_numbers() -> None:
    summary = Summary(
        "x",
        class_quality=np.array([0.5]),  # type: ignore[arg-type]
        map=Map(np.zeros(1), np.ones(1), ["a"], np.array([True])),  # type: ignore[arg-type]
    )
    found, cards = from_json(to_json(summary, [Card("1", 1, "a", "b", np.float32(0.5))]))  # type: ignore[arg-type]
    assert found.map == Map([0.0], [1.0], ["a"], [True])
    assert cards[0].quality == 0.5


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"summary": {}, "cards": []}'])
def test_json__something_else__is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be as noisyfit audit"):
        from_json(text)


def test_write_report__leaves_two_whole_files(tmp_path: Path) -> None:
    write_report(tmp_path, SUMMARY, table_cards(2))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["page.json", "report.html"]
    assert (tmp_path / "report.html").read_text("utf-8") == render(SUMMARY, table_cards(2))


# Plots


def test_precision__curve_and_band__lie_where_the_values_are() -> None:
    plot = charts.precision(
        PrecisionByRank([0, 50, 100], [1, 0.5, 0], [0.9, 0.4, 0], [1, 0.6, 0.1])
    )
    assert plot is not None
    middle = (charts.LEFT + charts.RIGHT) / 2, (charts.TOP + charts.BOTTOM) / 2
    assert plot.lines == [
        f"{charts.LEFT},{charts.TOP} {middle[0]:g},{middle[1]:g} {charts.RIGHT},{charts.BOTTOM}"
    ]
    assert len(plot.band.split()) == 6
    assert [tick.name for tick in plot.x_ticks] == ["0", "20", "40", "60", "80", "100"]
    assert [tick.name for tick in plot.y_ticks] == ["0 %", "25 %", "50 %", "75 %", "100 %"]


def test_learning_curves__missing_values__are_gaps() -> None:
    nan = float("nan")
    plots = charts.learning_curves({"loss": [3, 2, nan, 1, nan], "none": [nan], "empty": []})
    assert [*plots] == ["loss"]
    assert [len(line.split()) for line in plots["loss"].lines] == [2, 2]
    assert plots["loss"].lines[1].split()[0] == plots["loss"].lines[1].split()[1]  # a dot


@pytest.mark.parametrize("values", [[0.0], [5.0, 5.0], [1e-12, 2e-12], [-1e9, 1e9], [0.5]])
def test_learning_curves__any_range__has_ticks_within_the_plot(values: list[float]) -> None:
    (plot,) = charts.learning_curves({"x": values}).values()
    assert 2 <= len(plot.y_ticks) <= 7
    assert all(charts.TOP <= tick.at <= charts.BOTTOM for tick in plot.y_ticks)
    assert len({tick.name for tick in plot.y_ticks}) == len(plot.y_ticks)


def test_scatter__many_classes__have_one_color() -> None:
    few = [str(i % charts.MOST_COLORS) for i in range(40)]
    many = [str(i) for i in range(40)]
    found = [
        charts.scatter(Map([*range(40)], [*range(40)], k, [False] * 40), []) for k in (few, many)
    ]
    assert [len({color for *_, color in one.points}) for one in found if one] == [10, 1]


def test_scatter__points_at_infinity__are_left_out() -> None:
    plot = charts.scatter(Map([0, 1, float("nan")], [0, 1, 2], ["a"] * 3, [True, False, True]), [])
    assert plot is not None
    assert (len(plot.points), len(plot.issues)) == (1, 1)
    assert charts.scatter(Map([float("inf")], [0], ["a"], [True]), []) is None


def test_matrix__many_classes__keeps_those_that_are_confused() -> None:
    n = charts.MOST_CLASSES + 2
    transition = np.eye(n)
    transition[3, 3], transition[3, n - 1] = 0.6, 0.4
    found = charts.matrix(
        Summary("x", classes=[*map(str, range(n))], transition=transition.tolist())
    )
    assert found is not None
    assert found.n_left_out == 2
    assert {"3", str(n - 1)} <= {*found.names}
    assert found.strongest == 0.4


def test_class_bars__the_worst_class_comes_first() -> None:
    summary = Summary("x", classes=["a", "b"], class_quality=[0.9, 0.2], class_issues=[1, 5])
    assert charts.class_bars(summary) == [("b", 0.2, 5), ("a", 0.9, 1)]
    assert charts.class_bars(Summary("x", classes=["a"], class_quality=[0.9]))[0].n_issues is None
