"""One estimator that chooses among others without clean labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_digits, make_blobs
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks

from noisyfit import (
    AutoClassifier,
    CrossEntropyClassifier,
    ELRClassifier,
    NoisyFitError,
    NoisyFitWarning,
    noise,
)
from noisyfit.metrics import detection_auroc
from noisyfit.selection.candidates import default_candidates

BRIEF: dict[str, Any] = {"max_epochs": 4, "random_state": 0, "device": "cpu"}
BAYES_AND_TREE = [("bayes", GaussianNB()), ("tree", DecisionTreeClassifier(max_depth=3))]


class Counted(GaussianNB):
    """Writes a line for each fit, and can fail."""

    def __init__(self, log: Path | None = None, fails: bool = False) -> None:
        super().__init__()
        self.log = log
        self.fails = fails

    def fit(self, X: Any, y: Any) -> Counted:
        if self.fails:
            raise ValueError("Rows must not be blue.")
        assert self.log is not None
        with self.log.open("a") as file:
            file.write(f"{len(X)}\n")
        return super().fit(X, y)


class Stopped(Counted):
    """Is interrupted as long as a file is there."""

    def fit(self, X: Any, y: Any) -> Stopped:
        assert self.log is not None
        if self.log.with_suffix(".stop").exists():
            raise KeyboardInterrupt
        super().fit(X, y)
        return self


class Told(ClassifierMixin, BaseEstimator):
    """Predicts the class in its first column, and remembers which rows are trusted."""

    def fit(self, X: Any, y: Any, clean_mask: Any = None) -> Told:
        self.classes_, self.trusted_ = np.unique(y), clean_mask
        return self

    def predict_proba(self, X: Any) -> NDArray[Any]:
        return np.eye(len(self.classes_))[np.asarray(X)[:, 0].astype(int)] * 0.9 + 0.1 / 3

    def predict(self, X: Any) -> NDArray[Any]:
        return self.classes_[self.predict_proba(X).argmax(1)]


def noisy_table(n: int = 300, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Rows, labels of which three in ten are wrong, and the right ones."""
    X, y = make_blobs(n, 6, centers=3, cluster_std=2.0, center_box=(-5, 5), random_state=seed)
    return X, noise.symmetric(y, 0.3, random_state=seed).labels, y


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([AutoClassifier(BAYES_AND_TREE, n_candidates=1, random_state=0)])
def test_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


# What it is for.


@pytest.mark.parametrize("kind", [noise.symmetric, noise.pairflip])
def test_choice__wrong_labels__falls_on_what_generalises(kind: Any) -> None:
    X, y = load_digits(return_X_y=True)
    candidates = [
        ("nearest", KNeighborsClassifier(1)),
        ("stump", DecisionTreeClassifier(max_depth=1)),
        ("neighbors", KNeighborsClassifier(25)),
    ]
    gains = []
    for seed in range(3):
        noisy = kind(y[:900], 0.35, random_state=seed)
        auto = AutoClassifier(candidates, n_candidates=2, random_state=seed)
        auto.fit(X[:900], noisy.labels)
        assert auto.leaderboard_.index[0] == "neighbors"
        assert auto.leaderboard_.loc["neighbors", "weight"] > 0.6
        assert detection_auroc(noisy.flipped, auto.label_quality_) > 0.9
        of_a_fold = KNeighborsClassifier(25).fit(X[:600], noisy.labels[:600])
        gains.append(auto.score(X[900:], y[900:]) - of_a_fold.score(X[900:], y[900:]))
    assert np.mean(gains) > -0.02  # three seeds of 897 rows: a standard error is 0.01


def test_cost__halving__takes_less_than_half_of_all_fits(tmp_path: Path) -> None:
    X, y, _ = noisy_table(900)
    candidates = [(f"bayes{k}", Counted(tmp_path / "fits")) for k in range(12)]
    AutoClassifier(candidates, random_state=0).fit(X, y)
    fits = [int(line) for line in (tmp_path / "fits").read_text().split()]
    assert sum(n < 300 for n in fits) == 12
    assert fits.count(600) == 4 + 2 * 3
    assert fits.count(900) == len(fits) - 12 - 10 == 3
    assert sum(fits) < 12 * (3 * 600 + 900) / 2


def test_candidates_that_are_alike__the_cheaper_one_goes_on() -> None:
    X, y, _ = noisy_table()
    candidates = [(name, GaussianNB()) for name in ("first", "second", "third")]
    auto = AutoClassifier(candidates, n_candidates=1, random_state=0).fit(X, y)
    assert auto.leaderboard_.index[0] == "first"


def test_default_candidates__are_those_of_the_data() -> None:
    table, image = np.zeros((100, 4)), np.zeros((100, 8, 8, 3))
    names = {what: [name for name, _ in default_candidates(X, max_epochs=2)] for what, X in {
        "table": table, "sparse": sp.csr_array(table), "wide": np.zeros((9, 300)), "image": image,
    }.items()}  # fmt: skip
    assert names["table"][:4] == ["logistic", "neighbors", "boosting", "cross_entropy"]
    assert "boosting" not in names["sparse"] + names["wide"]
    assert "logistic" in names["sparse"]
    assert names["image"][0] == "cross_entropy"
    assert all(names["image"][1:] == found[-9:] for found in names.values())
    for _, network in default_candidates(image, max_epochs=2):
        assert 2 in (network.get_params().get(f"{part}max_epochs") for part in ("", "estimator__"))


# What is known of the labels.


def test_held_out__each_row_is_rated_by_classifiers_that_have_not_seen_it() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(400, 4)), rng.integers(0, 2, 400)
    auto = AutoClassifier([("nearest", KNeighborsClassifier(1))], random_state=0).fit(X, y)
    right = (auto.classes_[auto.held_out_vote_.argmax(1)] == y).mean()
    assert 0.4 < right < 0.6  # a classifier that has seen them knows all of them by heart


def test_trusted_rows__are_certain__and_candidates_are_told() -> None:
    _, y, truth = noisy_table()
    trusted = np.arange(300) < 100
    y[trusted] = truth[trusted]
    auto = AutoClassifier([("told", Told())], random_state=0)
    auto.fit(truth[:, None], y, clean_mask=trusted)
    assert (auto.label_quality_[trusted] == 1).all()
    np.testing.assert_array_equal(auto.corrected_labels_[trusted], y[trusted])
    told = [member.trusted_.sum() for member in auto.members_[0]]
    assert sum(told) == 3 * 100  # each row is in two of three folds' fits, and in the last one


def test_missing_labels__get_a_belief_and_no_rating() -> None:
    X, y, truth = noisy_table()
    y = y.astype(float)
    y[:60] = np.nan
    auto = AutoClassifier(BAYES_AND_TREE, missing_label=np.nan, random_state=0).fit(X, y)
    np.testing.assert_array_equal(np.isnan(auto.label_quality_), np.arange(300) < 60)
    assert (auto.corrected_labels_[:60] == truth[:60]).mean() > 0.8


def test_labels_of_strings__in_a_grid_search__are_predicted() -> None:
    X, y, truth = noisy_table()
    names = np.array(["ash", "elm", "oak"])
    auto = AutoClassifier(BAYES_AND_TREE, random_state=0)
    search = GridSearchCV(auto, {"n_candidates": [1, 2], "tree__max_depth": [2]}, cv=2)
    search.fit(X, names[y])
    assert search.score(X, names[truth]) > 0.85
    assert search.best_estimator_.best_estimator_.predict(X[:1])[0] in names
    frame = search.best_estimator_.label_issues()
    assert set(frame["predicted_label"]) <= set(names)


def test_explain__says_what_won__how_much_is_wrong_and_what_to_doubt() -> None:
    X, y, _ = noisy_table(600)
    network = ("network", CrossEntropyClassifier(**BRIEF))
    with pytest.warns(NoisyFitWarning, match="blue left the race: Rows must not be blue"):
        auto = AutoClassifier(
            [*BAYES_AND_TREE, network, ("blue", Counted(fails=True))], random_state=0
        ).fit(X, y)
    said = auto.explain()
    winner = auto.leaderboard_.index[0]
    assert said.startswith("4 candidates were tried")
    assert f"{winner} won" in said
    share = float(said.split("About ")[1].split(" %")[0])
    assert abs(share - 30) < 8
    assert "Without a result: blue." in said


# What can go wrong.


def test_all_candidates_fail__the_first_one_says_why() -> None:
    X, y, _ = noisy_table()
    auto = AutoClassifier(BAYES_AND_TREE, random_state=0).fit(X, y)
    before = auto.predict(X)
    auto.set_params(bayes=Counted(fails=True), tree=Counted(fails=True))
    with pytest.raises(ValueError, match="Rows must not be blue"):
        auto.fit(X, y)
    np.testing.assert_array_equal(auto.predict(X), before)


def test_table_with_words__the_line_to_write_is_named() -> None:
    X, y, _ = noisy_table()
    frame = pd.DataFrame({"x": X[:, 0], "town": np.array(["Ulm", "Bonn", "Kiel"])[y]})
    with pytest.raises(ValueError, match=r"tables\.pipeline"):
        AutoClassifier(max_epochs=1, random_state=0).fit(frame, y)


@pytest.mark.parametrize(
    "candidates, words",
    [
        ([], "candidates must hold a classifier"),
        ([("tree", DecisionTreeClassifier)], "candidates must be classifiers with predict_proba"),
        ([("a", GaussianNB()), ("a", GaussianNB())], "unique"),
    ],
)
def test_candidates__that_cannot_be_used__are_refused(candidates: Any, words: str) -> None:
    X, y, _ = noisy_table()
    with pytest.raises(ValueError, match=words):
        AutoClassifier(candidates).fit(X, y)


def test_time_budget__what_takes_longer__leaves_the_race() -> None:
    X, y, truth = noisy_table()
    endless = CrossEntropyClassifier(max_epochs=10**6, random_state=0, device="cpu")
    candidates = [("bayes", GaussianNB()), ("endless", endless)]
    auto = AutoClassifier(candidates, time_budget=1, random_state=0).fit(X, y)
    assert auto.leaderboard_.loc["endless", "n_fits"] == 0
    assert "Without a result: endless." in auto.explain()
    assert auto.score(X, truth) > 0.85


def test_time_budget__too_short_for_one_fit__is_said() -> None:
    X, y, _ = noisy_table()
    endless = CrossEntropyClassifier(max_epochs=10**6, random_state=0, device="cpu")
    with pytest.raises(NoisyFitError, match="time_budget must be long enough.*0.5 seconds"):
        AutoClassifier([("endless", endless)], time_budget=0.5).fit(X, y)


def test_stopped_and_started_again__no_finished_fit_is_repeated(tmp_path: Path) -> None:
    X, y, _ = noisy_table(900)
    logs = [tmp_path / f"{k}.log" for k in range(3)]
    candidates = [(f"bayes{k}", Stopped(log)) for k, log in enumerate(logs)]
    auto = AutoClassifier(candidates, memory=tmp_path / "memory", random_state=0)
    stop = logs[2].with_suffix(".stop")
    stop.touch()
    with pytest.raises(KeyboardInterrupt):
        auto.fit(X, y)
    stop.unlink()
    auto.fit(X, y)
    fits = [line for log in logs for line in log.read_text().split()]
    assert len(fits) == 3 + 3 + 2 * 3 + 3


# What stays.


def test_same_random_state__gives_identical_bits() -> None:
    X, y, _ = noisy_table()
    network = ("network", CrossEntropyClassifier(max_epochs=4, device="cpu"))
    fits = [AutoClassifier([*BAYES_AND_TREE, network], random_state=3).fit(X, y) for _ in "ab"]
    for name in ("label_quality_", "label_distribution_", "weights_"):
        np.testing.assert_array_equal(getattr(fits[0], name), getattr(fits[1], name))
    np.testing.assert_array_equal(fits[0].predict_proba(X), fits[1].predict_proba(X))


def test_save__classifiers_of_this_package__predict_and_explain_the_same(tmp_path: Path) -> None:
    X, y, _ = noisy_table()
    candidates = [("ce", CrossEntropyClassifier(**BRIEF)), ("elr", ELRClassifier(**BRIEF))]
    auto = AutoClassifier(candidates, random_state=0).fit(X, y)
    auto.save(tmp_path / "model")
    loaded = AutoClassifier.load(tmp_path / "model", device="cpu")
    np.testing.assert_array_equal(loaded.predict_proba(X), auto.predict_proba(X))
    assert loaded.explain() == auto.explain()


def test_save__other_classifiers__are_left_to_joblib(tmp_path: Path) -> None:
    X, y, _ = noisy_table()
    auto = AutoClassifier([("tree", DecisionTreeClassifier())], random_state=0).fit(X, y)
    with pytest.raises(NoisyFitError, match="DecisionTreeClassifier.*joblib"):
        auto.save(tmp_path / "model")


def test_two_processes__find_the_same() -> None:
    X, y, _ = noisy_table()
    auto = AutoClassifier(BAYES_AND_TREE, random_state=0)
    alone = auto.fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(auto.set_params(n_jobs=2).fit(X, y).predict_proba(X), alone)
    with pytest.raises(ValueError, match="Input X contains infinity"):
        auto.fit(np.full_like(X, np.inf), y)


def test_sparse_rows__are_taken(tmp_path: Path) -> None:
    X, y, truth = noisy_table()
    candidates = [("logistic", LogisticRegression()), ("forest", RandomForestClassifier(20))]
    auto = AutoClassifier(candidates, random_state=0).fit(sp.csr_array(X), y)
    assert auto.score(sp.csr_array(X), truth) > 0.85
