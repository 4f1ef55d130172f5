"""How a text is shown: cut to what matters, with the words marked that speak for a class."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 600  # characters
ROOM = 60  # characters in which a cut looks for the end of a word
QUIET = 0.15  # weights below are those of words that both classes use; 1.4 times as common
CUT = "…"


class Span(NamedTuple):
    """Where a marked word is in its text, and its weight."""

    start: int
    end: int
    weight: float


class Wording:
    """Which terms each class uses.

    Parameters
    ----------
    vectorizer : TfidfVectorizer
        As fitted on the texts. Its tokens are the words that are marked.
    terms : sparse matrix of shape (n_texts, n_terms)
        What it made of the texts.
    labels : Series of shape (n_texts,)
        Given labels.
    """

    def __init__(self, vectorizer: Any, terms: Any, labels: pd.Series) -> None:
        self.terms = csr_array(terms != 0, dtype=np.int32)
        self.names = vectorizer.get_feature_names_out()
        self.token = re.compile(vectorizer.token_pattern)
        self.preprocess = vectorizer.build_preprocessor()
        self.codes, classes = labels.factorize()
        self.classes = {name: code for code, name in enumerate(classes.tolist())}
        labelled = np.flatnonzero(self.codes >= 0)
        places = self.codes[labelled], labelled
        shape = len(classes), len(labels)
        membership = csr_array((np.ones(len(labelled), np.int32), places), shape=shape)
        self.n_texts = membership.sum(1)
        self.n_texts_with = membership @ self.terms  # (n_classes, n_terms)

    def weights(self, row: int, suggested: Any) -> dict[str, float]:
        """Return how far each term of a text speaks for a class other than its own.

        Parameters
        ----------
        row : int
            A text with a label.
        suggested : object
            The other class.

        Returns
        -------
        dict of float from -1 to 1
            The decimal logarithm of how many times as common the term is in texts with the
            suggested label: 1 is ten times. One text more of the smaller class, with every term, is
            added to both, as what is rare in both says little. The text itself does not count.
            Terms that both classes use alike are left out.
        """
        terms = self.terms[[row]].indices
        given, other = self.codes[row], self.classes[suggested]
        n_given, n_other = max(1, self.n_texts[given] - 1), max(1, self.n_texts[other])
        for_given = (self.n_texts_with[[given]].toarray()[0, terms] - 1) / n_given
        for_other = self.n_texts_with[[other]].toarray()[0, terms] / n_other
        more = 1 / min(n_given, n_other)
        weights = np.log10((for_other + more) / (for_given + more)).clip(-1, 1)
        pairs = zip(self.names[terms], weights.tolist(), strict=True)
        return {name: weight for name, weight in pairs if abs(weight) >= QUIET}

    def spans(self, text: str, weights: Mapping[str, float]) -> list[Span]:
        """Return where the terms with weights are."""
        found = (
            (word, weights.get(self.preprocess(word[0]))) for word in self.token.finditer(text)
        )
        return [Span(*word.span(), weight) for word, weight in found if weight]


def marked(text: str, spans: Sequence[Span]) -> list[tuple[str, float]]:
    """Return pieces of a text and their weights, cut to where the strongest words are."""
    start, end = _window(text, spans)
    pieces = [(CUT, 0.0)] if start else []
    pieces += _pieces(text, [span for span in spans if start <= span.start < end], start, end)
    return pieces + [(CUT, 0.0)] if end < len(text) else pieces


def shortened(text: str, length: int) -> str:
    """Return the beginning of a text, to the end of a word if there is one."""
    if len(text) <= length:
        return text
    return text[: _end_of_word(text, length)].rstrip() + CUT


def _pieces(text: str, spans: Sequence[Span], start: int, end: int) -> Iterator[tuple[str, float]]:
    """Return stretches that make up ``text[start:end]``, with and without a weight."""
    at = start
    for span in spans:
        if at < span.start:
            yield text[at : span.start], 0.0
        yield text[span.start : min(span.end, end)], span.weight
        at = min(span.end, end)
    if at < end:
        yield text[at:end], 0.0


def _window(text: str, spans: Sequence[Span]) -> tuple[int, int]:
    """Return where to cut a text: around the strongest words, not within one."""
    first, last = _strongest(spans)
    start = max(0, min((first + last - SHOWN) // 2, len(text) - SHOWN))
    end = min(start + SHOWN, len(text))
    return (
        _start_of_word(text, start) if start else 0,
        _end_of_word(text, end) if end < len(text) else end,
    )


def _strongest(spans: Sequence[Span]) -> tuple[int, int]:
    """Return the stretch that can be shown with the largest sum of weights."""
    best, strongest, first, total = (0, 0), 0.0, 0, 0.0
    for last, span in enumerate(spans):
        total += abs(span.weight)
        while first < last and span.end - spans[first].start > SHOWN - 2 * ROOM:
            total -= abs(spans[first].weight)
            first += 1
        if total > strongest + 1e-9:
            best, strongest = (spans[first].start, span.end), total
    return best


def _start_of_word(text: str, at: int) -> int:
    """Return the next place where a word starts, or the same place in writing without spaces."""
    for gap in (r"\s+", r"\W+"):
        if found := re.compile(gap).search(text, max(0, at - 1), at + ROOM):
            return found.end()
    return at


def _end_of_word(text: str, at: int) -> int:
    """Return the last place where a word ends, or the same place in writing without spaces."""
    for gap in (r"\s", r"\W"):
        if found := [*re.compile(gap).finditer(text, max(1, at - ROOM), at + 1)]:
            return found[-1].start()
    return at
