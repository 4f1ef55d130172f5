"""Why `AutoClassifier` chose what it chose, in words."""

from __future__ import annotations

from typing import Any

import numpy as np

from noisyfit import trust

FEW_AGREE = 0.9


def in_words(auto: Any) -> str:
    """Return a paragraph about a fitted `AutoClassifier`."""
    return " ".join([*_tried(auto), *_noise(auto), *_doubts(auto)])


def _tried(auto: Any) -> list[str]:
    standings = auto.standings_
    first, *others = standings
    finalists = [row for row in standings if row["weight"] > 0]
    said = [
        f"{len(standings)} candidates were tried, each judged by labels of rows that it had not "
        "seen.",
        f"{first['name']} won, and predicts {100 * first['accuracy']:.1f} % of the given labels.",
    ]
    if len(finalists) > 1:
        second = finalists[1]
        lead = first["score"] - second["score"]
        error = max(first["error"], second["error"])
        told = "more than chance" if abs(lead) > error else "not told from chance"
        said.append(
            f"Its mean log-probability of these labels is {lead:+.3f} against {second['name']} "
            f"(standard error {error:.3f}: {told})."
        )
    vote = ", ".join(f"{row['name']} {100 * row['weight']:.0f} %" for row in finalists)
    return [*said, f"The vote is {vote}."]


def _noise(auto: Any) -> list[str]:
    share = trust.wrong_share(auto.label_quality_)
    said = [
        f"About {100 * share.value:.0f} % of the labels look wrong ({100 * share.low:.0f} to "
        f"{100 * share.high:.0f} %)."
    ]
    mistakes = auto.transition_matrix_.copy()
    np.fill_diagonal(mistakes, 0)
    true, given = np.unravel_index(mistakes.argmax(), mistakes.shape)
    if mistakes[true, given] > 0:
        said.append(
            f"The most frequent mistake calls {auto.classes_[true]!s} {auto.classes_[given]!s}: "
            f"{100 * mistakes[true, given]:.0f} % of that class."
        )
    return said


def _doubts(auto: Any) -> list[str]:
    said = list(auto.doubts_)
    agreement = min(row["agreement"] for row in auto.standings_ if row["weight"] > 0)
    if agreement < FEW_AGREE:
        said.append(f"A finalist agrees with the vote on only {100 * agreement:.0f} % of the rows.")
    finalists = [row for row in auto.standings_ if row["weight"] > 0]
    others = [row for row in auto.standings_ if not row["weight"] > 0]
    failed = [row["name"] for row in others if row["failure"] or not row["n_fits"]]
    if failed:
        said.append(f"Without a result: {', '.join(failed)}.")
    n_labels = np.count_nonzero(~np.isnan(auto.label_quality_))
    partly = [row["name"] for row in finalists if row["n_rows"] < n_labels]
    if partly:
        said.append(f"Finalists that were not fitted on all rows: {', '.join(partly)}.")
    return ["To doubt:", *said] if said else []
