"""Words that speak for a class are marked, and texts are cut to where they are."""

import math
from typing import Any

import pandas as pd
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from noisyfit.auditing.texts import CUT, SHOWN, Span, Wording, marked, shortened

TEXTS = ["goal team", "goal match", "goal oven", "oven flour", "oven bake", "oven match", "Goal"]
TOPICS = ["sport"] * 3 + ["cooking"] * 3 + ["cooking"]


def wording(texts: list[str], labels: Any) -> Wording:
    vectorizer = TfidfVectorizer(sublinear_tf=True)
    return Wording(vectorizer, vectorizer.fit_transform(texts), pd.Series(labels))


def joined(pieces: list[tuple[str, float]]) -> str:
    return "".join(piece for piece, _ in pieces)


def test_weights__by_hand__are_the_logarithm_of_how_many_times_as_common() -> None:
    weights = wording(TEXTS, TOPICS).weights(6, "sport")
    # Of three texts on sport all have the word, of three other ones on cooking none.
    assert weights == {"goal": pytest.approx(math.log10((3 / 3 + 1 / 3) / (0 / 3 + 1 / 3)))}


def test_weights__word_of_the_given_class__is_negative_and_the_text_itself_does_not_count() -> None:
    weights = wording(TEXTS, TOPICS).weights(5, "sport")
    # Oven: in 2 of 3 other texts on cooking, 1 of 3 on sport. Match: in 0 of 3 and 1 of 3.
    expected = {"oven": (1 / 3 + 1 / 3) / (2 / 3 + 1 / 3), "match": (1 / 3 + 1 / 3) / (1 / 3)}
    assert weights == {word: pytest.approx(math.log10(ratio)) for word, ratio in expected.items()}


def test_weights__words_of_all_classes__are_left_out_and_the_strongest_is_one() -> None:
    texts = ["the goal"] * 50 + ["the oven"] * 50 + ["the goal"]
    weights = wording(texts, ["sport"] * 50 + ["cooking"] * 51).weights(100, "sport")
    assert weights == {"goal": 1.0}


def test_weights__word_in_a_single_text_of_a_large_class__is_weak() -> None:
    texts = ["goal rare"] + ["goal"] * 99 + ["oven"] * 100 + ["rare"]
    weights = wording(texts, ["sport"] * 100 + ["cooking"] * 101).weights(200, "sport")
    assert weights == {"rare": pytest.approx(math.log10(2))}


def test_weights__class_of_a_single_text_and_texts_without_a_label__are_finite() -> None:
    found = wording(["goal", "goal oven", "oven"], ["sport", None, "cooking"])
    assert found.weights(0, "cooking") == {}
    assert found.weights(2, "sport") == {}


@pytest.mark.parametrize(
    "text, word",
    [
        ("Das Übermaß, naïve Größe", "größe"),
        ("рыба и хлеб\r\nИ РЫБА", "рыба"),
        ("مرحبا بالعالم", "مرحبا"),
        ("今天 天气 很好。", "天气"),
        ("cafe\u0301 <b>bold</b> &amp; \u200bnoch", "bold"),
        ("👩‍👩‍👧 family\x00word", "family"),
        ("caf\udce9 shop", "shop"),
    ],
)
def test_marked__any_writing__every_byte_is_kept_and_the_word_is_marked(
    text: str, word: str
) -> None:
    found = wording([text, "other words"], ["a", "b"])
    pieces = marked(text, found.spans(text, {word: 0.5}))
    assert joined(pieces) == text
    assert {piece.lower() for piece, weight in pieces if weight == 0.5} == {word}


def test_marked__long_text__is_cut_around_the_strongest_words_between_words() -> None:
    text = "filler " * 500 + "Goal by the team. " + "stuffing " * 500
    found = wording(["goal team", "filler stuffing"], ["a", "b"])
    pieces = marked(text, found.spans(text, {"goal": 0.9, "team": -0.4}))
    assert [piece for piece in pieces if piece[1]] == [("Goal", 0.9), ("team", -0.4)]
    assert pieces[0] == pieces[-1] == (CUT, 0.0)
    shown = joined(pieces[1:-1])
    assert shown in text
    assert SHOWN - 120 <= len(shown) <= SHOWN
    assert set(shown.split()) == {"filler", "Goal", "by", "the", "team.", "stuffing"}
    assert shown.index("Goal") == pytest.approx(len(shown) / 2, abs=60)


@pytest.mark.parametrize("at", [0, 3000])
def test_marked__strongest_words_at_an_end__only_the_other_end_is_cut(at: int) -> None:
    text = "word " * 600
    pieces = marked(text, [Span(max(0, at - 5), max(4, at - 1), 1.0)])
    assert [piece for piece, _ in pieces].count(CUT) == 1
    assert joined(pieces).strip(CUT) in text
    assert (pieces[-1 if at == 0 else 0][0]) == CUT


def test_marked__no_word_is_telling__is_the_beginning() -> None:
    text = "word " * 600
    assert marked(text, []) == [(text[: SHOWN - 1], 0.0), (CUT, 0.0)]


@pytest.mark.parametrize("text", ["x" * 10_000, "好" * 10_000, "", " " * 10_000])
def test_marked__writing_without_spaces__is_cut_all_the_same(text: str) -> None:
    spans = [Span(0, len(text), 0.5)] if text.strip() else []
    pieces = marked(text, spans)
    assert joined(pieces).strip(CUT) in text
    assert len(joined(pieces)) <= SHOWN + 2


def test_shortened__long_text__ends_with_a_word() -> None:
    assert shortened("one two three", 13) == "one two three"
    assert shortened("one two three", 9) == "one two" + CUT
    assert shortened("one two three", 7) == "one two" + CUT
    assert shortened("x" * 20, 9) == "x" * 9 + CUT
