"""What a card shows of a row, and which confirmed rows stand beside it."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from noisyfit.auditing.cards import NEIGHBOURS, make_cards
from noisyfit.auditing.reading import read
from noisyfit.auditing.request import Request
from noisyfit.auditing.subjects import Subject, TableSubject


class Found:
    """As much of an audit as cards need."""

    def __init__(self, y: list[str], quality: list[float], suggested: list[str]) -> None:
        self.given_labels_, self.classes_ = np.array(y), np.unique(y)
        self.label_quality_ = np.array(quality)
        self.sample_index_ = np.array([f"row;{i}" for i in range(len(y))])
        columns = {"given": y, "suggested": suggested, "quality": quality}
        frame = pd.DataFrame(columns, index=self.sample_index_)
        frame = frame[frame["quality"] < 0.5].sort_values("quality")
        frame.insert(0, "rank", np.arange(1, len(frame) + 1))
        self.issues_ = frame


def test_make_cards__neighbours__are_those_of_plain_loops() -> None:
    rng = np.random.default_rng(0)
    y = rng.choice(["a", "b", "c"], 60).tolist()
    features, quality = rng.normal(size=(60, 20)), rng.random(60).tolist()
    suggested = [{"a": "b", "b": "c", "c": "a"}[label] for label in y]
    found: Any = Found(y, quality, suggested)
    cards = make_cards(Subject("arrays", features, pd.Series(y), features), found)
    assert [card.quality for card in cards] == sorted(q for q in quality if q < 0.5)
    for card in cards:
        row = int(card.id.removeprefix("row;"))
        expected = []
        for label in (card.given, card.suggested):
            confirmed = [i for i in range(60) if y[i] == label and quality[i] > 0.5]
            far = {i: float(((features[i] - features[row]) ** 2).sum()) for i in confirmed}
            expected += sorted(confirmed, key=far.__getitem__)[:NEIGHBOURS]
        assert [near.id for near in card.neighbours] == [f"row;{i}" for i in expected]
        assert [near.label for near in card.neighbours] == [card.given] * 2 + [card.suggested] * 2


def test_make_cards__class_without_confirmed_rows__has_no_neighbours() -> None:
    features = np.arange(4.0)[:, None]
    found: Any = Found(["a", "a", "b", "b"], [0.1, 0.9, 0.2, 0.3], ["b", "a", "a", "a"])
    cards = make_cards(Subject("arrays", features, pd.Series(list("aabb")), features), found)
    assert [[near.id for near in card.neighbours] for card in cards] == [["row;1"]] * 3


def test_make_cards__suggested_class_is_the_given_one__neighbours_are_named_once() -> None:
    features = np.arange(4.0)[:, None]
    found: Any = Found(["a", "a", "a", "b"], [0.4, 0.9, 0.9, 0.9], ["a", "a", "a", "b"])
    (card,) = make_cards(Subject("arrays", features, pd.Series(list("aaab")), features), found)
    assert [near.id for near in card.neighbours] == ["row;1", "row;2"]


def test_make_cards__table__neighbours_show_the_columns_that_are_unusual_in_the_row() -> None:
    shown = pd.DataFrame(
        {
            "age": [99.0, 1, 2, 3, 2],
            "town": ["Rome"] * 5,
            "since": pd.to_datetime(["2020-05-01", None, "2020-01-02", "2020-01-03", "2020-01-02"]),
            "note": ["x" * 10_000, None, "y", "y", "y"],
            "born": [2**62 + 1, 1, 1, 1, 1],
        }
    )
    y = pd.Series(["a"] * 4 + ["b"])
    features = np.arange(5.0)[:, None]
    found: Any = Found(y.tolist(), [0.1, 0.9, 0.9, 0.9, 0.9], ["b", "a", "a", "a", "b"])
    (card,) = make_cards(TableSubject("table", shown, y, features, shown), found)
    cells = {column: value for column, value, _ in card.cells or ()}
    assert list(cells) == ["age", "born", "since", "note", "town"]
    assert cells["note"] == "x" * 80 + "…"
    assert (cells["since"], cells["born"]) == ("2020-05-01", str(2**62 + 1))
    assert [near.text for near in card.neighbours] == [
        "age 1, born 1, since missing",
        "age 2, born 1, since 2020-01-02",
        "age 2, born 1, since 2020-01-02",
    ]


def mails(file: Path) -> Subject:
    return read(Request(file, file.parent / "out", label="topic", text="body"))


def test_show__texts_that_are_missing__say_so(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"body": ["the goal", "the goal", None, "the oven"], "topic": list("aabb")}
    )
    frame.to_csv(tmp_path / "mails.csv")
    subject = mails(tmp_path / "mails.csv")
    assert subject.show(2, "a") == {"text": [("missing", 0.0)]}
    assert subject.show_beside(2, 0) == {"text": "missing"}


def test_texts__chinese__characters_are_learned_from_and_marked(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "body": ["球队赢了", "踢球吧!", "面包好吃", "烤面包", "足球 match"],
            "topic": list("aabbb"),
        }
    )
    frame.to_csv(tmp_path / "posts.csv")
    subject = mails(tmp_path / "posts.csv")
    assert subject.features.any(1).all()
    pieces = subject.show(4, "a")["text"]
    assert [piece for piece, _ in pieces] == ["足", "球", " match"]
    assert [weight > 0 for _, weight in pieces] == [False, True, False]
