"""What a person sees of a suspicious label: its row, and confirmed rows near it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from noisyfit.auditing.findings import Audit
from noisyfit.auditing.page import MOST_CARDS, Card, Neighbour
from noisyfit.auditing.subjects import Subject

NEIGHBOURS = 2  # of each class


def make_cards(subject: Subject, found: Audit) -> list[Card]:
    """Return the cards of the first issues, the most suspicious first.

    Parameters
    ----------
    subject : Subject
        What was audited.
    found : Audit
        With unique names of rows.

    Returns
    -------
    list of Card
        At most ``MOST_CARDS``. Neighbours with the given label come before those with the suggested
        one.
    """
    issues = found.issues_.head(MOST_CARDS)
    places = {name: row for row, name in enumerate(found.sample_index_.tolist())}
    rows = np.array([places[name] for name in issues.index], np.intp)
    near = zip(
        _nearest(subject, found, rows, issues["given"].to_numpy()),
        _nearest(subject, found, rows, issues["suggested"].to_numpy()),
        strict=True,
    )
    facts = issues[["rank", "given", "suggested", "quality"]].itertuples()
    return [
        Card(
            str(name),
            rank,
            str(given),
            str(suggested),
            quality,
            neighbours=[
                Neighbour(
                    str(found.sample_index_[other]),
                    str(found.given_labels_[other]),
                    **subject.show_beside(other, row),
                )
                for other in dict.fromkeys(np.concatenate(others).tolist())
            ],
            **subject.show(row, suggested),
        )
        for row, others, (name, rank, given, suggested, quality) in zip(
            rows.tolist(), near, facts, strict=True
        )
    ]


def _nearest(
    subject: Subject, found: Audit, rows: NDArray[np.intp], labels: NDArray[Any]
) -> list[NDArray[np.intp]]:
    """Return, for each row, the nearest confirmed rows with a label; one search a class."""
    nearest = [np.empty(0, np.intp)] * len(rows)
    for label in found.classes_.tolist():
        asking = np.flatnonzero(labels == label)
        confirmed = np.flatnonzero((found.given_labels_ == label) & (found.label_quality_ > 0.5))
        if not len(asking) or not len(confirmed):
            continue
        search = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(confirmed)))
        search.fit(subject.features[confirmed])
        chosen = search.kneighbors(subject.features[rows[asking]], return_distance=False)
        for place, those in zip(asking, confirmed[chosen], strict=True):
            nearest[place] = those
    return nearest
