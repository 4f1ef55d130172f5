"""Successive halving against a clock that is in our hands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.naive_bayes import GaussianNB

from noisyfit import AutoClassifier, NoisyFitWarning, noise
from noisyfit.selection import race
from noisyfit.selection.race import Candidate, best
from tests.helpers import blobs


class Clock:
    """Time that passes only in fits."""

    now = 1000.0

    def time(self) -> float:
        return self.now

    perf_counter = time


CLOCK = Clock()


class Timed(GaussianNB):
    """Takes some seconds for each row."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.seconds = seconds

    def fit(self, X: Any, y: Any) -> Timed:
        CLOCK.now += self.seconds * len(X)
        super().fit(X, y)
        return self


class Guessing(Timed):
    """Believes in every class alike."""

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        return np.full((len(X), len(self.classes_)), 1 / len(self.classes_))


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "time", CLOCK)


def fitted(budget: float, /, **seconds: float) -> AutoClassifier:
    """Fit on 900 rows; the first round takes 200 of them, the others 600, the last fit all."""
    X, y = blobs(900)
    y = noise.symmetric(y, 0.3, random_state=0).labels
    candidates = [(name, Timed(cost)) for name, cost in seconds.items()]
    return AutoClassifier(candidates, time_budget=budget, random_state=0).fit(X, y)


def fits(auto: AutoClassifier) -> dict[str, int]:
    return dict(auto.leaderboard_["n_fits"])


def test_enough_time__each_finalist_is_fitted_on_every_fold_and_on_all_rows() -> None:
    auto = fitted(1e9, a=1.0, b=1.0)
    assert fits(auto) == {"a": 5, "b": 5}
    assert auto.leaderboard_["n_rows"].tolist() == [900, 900]
    assert auto.best_estimator_ is auto.members_[0][-1]


def test_little_time__finalists_that_would_not_end_are_not_begun() -> None:
    # a: 2 + 6 + 12 + 9 s; b: 20 + 60 s, and 120 more would be too many.
    began = CLOCK.now
    auto = fitted(180, a=0.01, b=0.1)
    assert fits(auto) == {"a": 5, "b": 2}
    assert CLOCK.now - began <= 180
    assert auto.weights_.tolist() == [1.0]


def test_less_time__the_second_round_is_left_to_the_cheap_ones() -> None:
    began = CLOCK.now
    assert fits(fitted(80, a=0.01, b=0.1)) == {"a": 5, "b": 1}
    assert CLOCK.now - began <= 80


def test_no_time_for_all_rows__the_folds_vote_alone() -> None:
    auto = fitted(23, a=0.01)  # 2 + 6 + 12 s, and 9 more would be too many
    assert fits(auto) == {"a": 4}
    assert "not fitted on all rows: a." in auto.explain()


def test_time_for_one_fold__the_others_are_rated_by_classifiers_that_have_seen_them() -> None:
    with pytest.warns(NoisyFitWarning, match="after those of 300 of 900 rows"):
        auto = fitted(18, a=0.01)  # 2 + 6 s, and 12 more would be too many
    assert fits(auto) == {"a": 2}
    assert not np.isnan(auto.label_quality_).any()


def test_first_candidate_takes_all_the_time__the_others_are_named() -> None:
    with pytest.warns(NoisyFitWarning, match="The time was up"):
        auto = fitted(90, a=0.2, b=0.2)
    assert fits(auto) == {"a": 1, "b": 0}
    assert "Without a result: b." in auto.explain()


def test_best_one_too_slow_for_all_folds__goes_on_alone__if_it_is_clearly_better() -> None:
    # guess: 0.2 + 0.6 s, good: 10 + 30 s; its other folds would take 60 more, all rows take 45.
    X, y = blobs(900)
    y = noise.symmetric(y, 0.3, random_state=0).labels
    candidates = [("guess", Guessing(0.001)), ("good", Timed(0.05))]
    began = CLOCK.now
    with pytest.warns(NoisyFitWarning, match="after those of 300 of 900 rows"):
        auto = AutoClassifier(candidates, time_budget=100, random_state=0).fit(X, y)
    assert fits(auto) == {"good": 3, "guess": 2}
    assert auto.leaderboard_["weight"].tolist() == [1.0, 0.0]
    assert CLOCK.now - began <= 100


def candidate(name: str, likelihoods: NDArray[np.float64]) -> Candidate:
    return Candidate(name, None, likelihoods=likelihoods)


def test_best__within_half_a_standard_error__the_first_one_is_chosen() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=400)
    apart = rng.normal(size=400)
    apart -= apart.mean()
    error = apart.std() / 20
    leader = candidate("leader", rows)
    near, far = (
        candidate(name, rows + apart - gap * error) for name, gap in (("near", 0.4), ("far", 0.6))
    )
    assert [c.name for c in best([near, leader], 1)] == ["near"]
    assert [c.name for c in best([far, leader], 1)] == ["leader"]
    assert [c.name for c in best([far, leader], 2)] == ["leader", "far"]
