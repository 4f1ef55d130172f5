"""Labels cleaned out of fold by one classifier, and learned from by another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from cleanlab.filter import find_label_issues
from joblib import parallel_config
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import make_blobs
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks

from noisyfit import CrossEntropyClassifier, LabelCleaner, NoisyFitError, NoisyFitWarning, noise
from noisyfit.benchmark.sources import synthetic
from noisyfit.quality import transition_matrix

HOWS = ("drop", "correct", "weight", "abstain")
BRIEF = CrossEntropyClassifier(max_epochs=3, random_state=0, device="cpu")


class Recording(LogisticRegression):
    """Remembers what it was fitted on."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Recording:
        self.rows_, self.labels_, self.weights_ = X, y, sample_weight
        return super().fit(X, y, sample_weight)


class Oracle(ClassifierMixin, BaseEstimator):
    """Predicts the probabilities in its columns, and remembers what it was told in fit."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None, clean_mask: Any = None) -> Oracle:
        self.classes_ = np.unique(y)
        self.told_ = X, y, sample_weight, clean_mask
        return self

    def predict_proba(self, X: Any) -> NDArray[Any]:
        return np.asarray(X)[:, :3]

    def predict(self, X: Any) -> NDArray[Any]:
        return self.classes_[self.predict_proba(X).argmax(1)]


def noisy_table(seed: int = 0) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Rows, labels of which three in ten are wrong, and the right ones."""
    X, y = make_blobs(300, 6, centers=3, cluster_std=2.0, center_box=(-5, 5), random_state=seed)
    return X, noise.symmetric(y, 0.3, random_state=seed).labels, y


def beliefs(n: int = 90, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Probabilities of three classes, as rows that an `Oracle` reads, and noisy labels."""
    y = np.arange(n) % 3
    p = np.random.default_rng(seed).dirichlet([0.7] * 3, n) + 0.5 * np.eye(3)[y]
    return p / p.sum(1, keepdims=True), noise.symmetric(y, 0.3, random_state=seed).labels


def not_promised(estimator: Any) -> dict[str, str]:
    """Name the checks that cannot hold, and why."""
    if isinstance(estimator.detector, GaussianNB):
        return {}
    return {
        "check_sample_weight_equivalence_on_dense_data": "other rows make other mini-batches",
        "check_estimators_nan_inf": "the detector refuses NaN in fit, gradient boosting takes it",
    }


BAYES = LabelCleaner(GaussianNB(), LogisticRegression(), random_state=0)
BOOSTING = LabelCleaner(BRIEF, HistGradientBoostingClassifier(max_iter=5), random_state=0)


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [*(clone(BAYES).set_params(how=how) for how in ("correct", "weight", "abstain")), BOOSTING],
    expected_failed_checks=not_promised,
)
def test_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


# What it is for.


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_wrong_labels__cost_gradient_boosting_less_once_they_are_dropped(seed: int) -> None:
    data = synthetic()
    X, y = data.X[:600], noise.symmetric(data.y[:600], 0.4, random_state=seed).labels
    boosting = HistGradientBoostingClassifier(max_iter=20, random_state=seed)
    detector = CrossEntropyClassifier(max_epochs=20, device="cpu")
    cleaner = LabelCleaner(detector, boosting, random_state=seed).fit(X, y)
    plain = boosting.fit(X, y).score(data.X_test, data.y_test)
    assert cleaner.score(data.X_test, data.y_test) > plain + 0.04


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_out_of_fold__labels_without_meaning_are_not_learned_by_heart(seed: int) -> None:
    """A detector that remembers its rows finds no issue in them, but half of them out of fold."""
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(400, 4)), rng.integers(0, 2, 400)
    memory = KNeighborsClassifier(1)
    assert memory.fit(X, y).score(X, y) == 1
    cleaner = LabelCleaner(memory, LogisticRegression(), how="weight", random_state=seed).fit(X, y)
    believed = cleaner.label_distribution_.argmax(1)
    assert 0.35 < np.mean(believed != y) < 0.65


# How, by the formulas.


def reference(how: str, p: Any, y: Any) -> tuple[list[int], list[int], list[float]]:
    """Rows, labels and weights to learn from, with plain loops."""
    issue = find_label_issues(y, p, n_jobs=1)
    threshold = [np.mean([p[i][k] for i in range(len(y)) if y[i] == k]) for k in range(3)]
    rows, labels, weights = [], [], []
    for i in range(len(y)):
        k = max(range(3), key=lambda c: p[i][c])
        sure = p[i][k] >= threshold[k] and p[i][k] >= 0.5
        label, weight = y[i], 1.0
        if how == "weight":
            weight = p[i][y[i]]
        elif issue[i] and (how == "drop" or (how == "abstain" and not sure)):
            continue
        elif issue[i]:
            label = k
        rows.append(i)
        labels.append(label)
        weights.append(weight)
    return rows, labels, weights


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("how", HOWS)
def test_how__rows_labels_and_weights_are_those_of_the_formula(how: str, seed: int) -> None:
    X, y = beliefs(seed=seed)
    cleaner = LabelCleaner(Oracle(), Recording(), how=how, random_state=seed).fit(X, y)
    rows, labels, weights = reference(how, X, y)
    learned = cleaner.estimator_
    np.testing.assert_array_equal(np.flatnonzero(cleaner.support_), rows)
    np.testing.assert_array_equal(learned.rows_, X[rows])
    np.testing.assert_array_equal(learned.labels_, labels)
    if how == "weight":
        np.testing.assert_allclose(learned.weights_, weights)
    else:
        assert learned.weights_ is None
    if how in ("correct", "abstain"):
        np.testing.assert_array_equal(cleaner.corrected_labels_[rows], labels)


def test_abstain__differs_from_the_others_where_the_belief_is_not_sure() -> None:
    X, y = beliefs()
    kept = {how: reference(how, X, y)[:2] for how in HOWS}
    assert len(kept["drop"][0]) < len(kept["abstain"][0]) < len(kept["correct"][0])
    cleaner = LabelCleaner(Oracle(), Recording(), how="abstain").fit(X, y)
    unsure = cleaner.is_label_issue_ & ~cleaner.support_
    assert unsure.any()
    np.testing.assert_array_equal(cleaner.corrected_labels_[unsure], y[unsure])


def test_beliefs__are_what_the_label_protocol_says() -> None:
    X, y = beliefs()
    frame = pd.DataFrame(X, index=[f"r{i}" for i in range(90)])
    cleaner = LabelCleaner(Oracle(), Recording()).fit(frame, y)
    np.testing.assert_array_equal(cleaner.label_distribution_, X)
    np.testing.assert_allclose(cleaner.label_quality_, X[np.arange(90), y])
    np.testing.assert_allclose(cleaner.transition_matrix_, transition_matrix(y, X))
    issues = cleaner.label_issues()
    assert issues.index[7] == "r7"
    np.testing.assert_array_equal(issues["is_label_issue"], find_label_issues(y, X, n_jobs=1))
    np.testing.assert_array_equal(issues["predicted_label"], X.argmax(1))
    np.testing.assert_array_equal(issues["given_label"], y)


def test_folds__each_row_is_rated_by_the_detector_that_has_not_seen_it() -> None:
    X, y, _ = noisy_table()
    splitter = StratifiedKFold(4, shuffle=True, random_state=7)
    cleaner = LabelCleaner(BRIEF, DecisionTreeClassifier(), cv=splitter).fit(X, y)
    assert len(cleaner.detectors_) == 4
    for train, test in splitter.split(X, y):
        detector = clone(BRIEF).fit(X[train], y[train])
        np.testing.assert_array_equal(
            cleaner.label_quality_[test], detector.score_labels(X[test], y[test])
        )
        np.testing.assert_array_equal(
            cleaner.label_distribution_[test], detector.predict_proba(X[test])
        )


def test_score_labels__is_the_mean_over_the_detectors() -> None:
    X, y, _ = noisy_table()
    cleaner = LabelCleaner(BRIEF, DecisionTreeClassifier(), missing_label=-1).fit(X, y)
    with_gap = np.where(np.arange(300) == 5, -1, y)
    expected = np.mean([d.score_labels(X, y) for d in cleaner.detectors_], axis=0)
    expected[5] = np.nan
    np.testing.assert_allclose(cleaner.score_labels(X, with_gap), expected)


# Metadata.


def test_clean_mask__trusted_rows_stay_and_the_detector_is_told() -> None:
    X, y = beliefs()
    trusted = np.arange(90) % 2 == 0
    plain = LabelCleaner(Oracle(), Recording()).fit(X, y)
    assert (plain.is_label_issue_ & trusted).any()
    cleaner = LabelCleaner(Oracle(), Recording()).fit(X, y, clean_mask=trusted)
    assert cleaner.support_[trusted].all()
    assert (cleaner.label_quality_[trusted] == 1).all()
    np.testing.assert_array_equal(cleaner.corrected_labels_[trusted], y[trusted])
    others = ~trusted
    np.testing.assert_array_equal(cleaner.support_[others], plain.support_[others])
    for detector in cleaner.detectors_:
        rows, _, _, mask = detector.told_
        by_row = dict(zip(map(tuple, X), trusted, strict=True))
        np.testing.assert_array_equal(mask, [by_row[tuple(row)] for row in rows])


def test_sample_weight__goes_to_both_and_multiplies_the_quality() -> None:
    X, y = beliefs()
    weights = np.random.default_rng(0).uniform(0.5, 2, 90)
    cleaner = LabelCleaner(Oracle(), Recording(), how="weight").fit(X, y, weights)
    np.testing.assert_allclose(cleaner.estimator_.weights_, weights * X[np.arange(90), y])
    by_row = dict(zip(map(tuple, X), weights, strict=True))
    rows, _, told, _ = cleaner.detectors_[0].told_
    np.testing.assert_array_equal(told, [by_row[tuple(row)] for row in rows])


def test_sample_weight__reaches_the_last_step_of_a_pipeline() -> None:
    X, y = beliefs()
    pipeline = make_pipeline(StandardScaler(), Recording())
    cleaner = LabelCleaner(Oracle(), pipeline, how="weight").fit(X, y)
    np.testing.assert_allclose(cleaner.estimator_[-1].weights_, X[np.arange(90), y])


def test_metadata_routing__a_pipeline_hands_over_the_mask() -> None:
    X, y = beliefs()
    trusted = np.arange(90) < 45
    with config_context(enable_metadata_routing=True):
        cleaner = LabelCleaner(Oracle(), Recording()).set_fit_request(sample_weight=True)
        pipeline = make_pipeline("passthrough", cleaner)
        pipeline.fit(X, y, clean_mask=trusted, sample_weight=np.full(90, 2.0))
    assert pipeline[-1].support_[trusted].all()
    assert (pipeline[-1].estimator_.weights_ == 2).all()


def test_grid_search__over_what_is_within() -> None:
    X, y, _ = noisy_table()
    cleaner = LabelCleaner(GaussianNB(), DecisionTreeClassifier(), random_state=0)
    grid = {
        "labelcleaner__estimator__max_depth": [1, 4],
        "labelcleaner__detector__var_smoothing": [1e-9, 1e-3],
        "labelcleaner__how": ["drop", "correct"],
    }
    search = GridSearchCV(make_pipeline(StandardScaler(), cleaner), grid, cv=2).fit(X, y)
    best = search.best_estimator_[-1]
    assert best.estimator_.max_depth == search.best_params_["labelcleaner__estimator__max_depth"]
    smoothing = search.best_params_["labelcleaner__detector__var_smoothing"]
    assert {d.var_smoothing for d in best.detectors_} == {smoothing}


def test_parameters__fit_leaves_them_as_they_were() -> None:
    X, y, _ = noisy_table()
    detector, estimator = GaussianNB(), DecisionTreeClassifier()
    cleaner = LabelCleaner(detector, estimator, random_state=0).fit(X, y)
    assert cleaner.detector is detector
    assert cleaner.estimator is estimator
    assert not hasattr(detector, "classes_")
    assert not hasattr(estimator, "classes_")
    assert estimator.random_state is None
    assert isinstance(cleaner.estimator_.random_state, int)


def test_random_state__decides_everything_whatever_the_number_of_jobs() -> None:
    X, y, _ = noisy_table()
    detector = DecisionTreeClassifier(max_depth=3, max_features=2)
    one, two = (
        LabelCleaner(detector, DecisionTreeClassifier(max_features=2), random_state=4, n_jobs=jobs)
        for jobs in (None, 2)
    )
    with parallel_config("threading"):
        np.testing.assert_array_equal(one.fit(X, y).label_quality_, two.fit(X, y).label_quality_)
    np.testing.assert_array_equal(one.predict_proba(X), two.predict_proba(X))
    other = clone(one).set_params(random_state=5).fit(X, y)
    assert (other.label_quality_ != one.label_quality_).any()


def test_random_state__reaches_the_steps_of_a_pipeline_and_keeps_their_own() -> None:
    X, y, _ = noisy_table()
    pipeline = make_pipeline(StandardScaler(), DecisionTreeClassifier())
    cleaner = LabelCleaner(pipeline, DecisionTreeClassifier(random_state=7), random_state=4)
    seeds = {detector[-1].random_state for detector in cleaner.fit(X, y).detectors_}
    assert {type(seed) for seed in seeds} == {int}
    assert cleaner.estimator_.random_state == 7


# Rows and labels of every kind.


def test_frames__reach_detector_and_estimator_as_frames() -> None:
    X, y, right = noisy_table()
    frame = pd.DataFrame({"a": X[:, 0], "b": X[:, 1]})
    frame["kind"] = pd.Categorical(np.array(["u", "v", "w"])[right])
    codes = make_column_transformer((OrdinalEncoder(), ["kind"]), remainder="passthrough")
    detector = make_pipeline(codes, GaussianNB())
    boosting = HistGradientBoostingClassifier(
        categorical_features="from_dtype", max_iter=10, random_state=0
    )
    cleaner = LabelCleaner(detector, boosting, random_state=0).fit(frame, y)
    assert cleaner.estimator_.is_categorical_.tolist() == [False, False, True]
    assert cleaner.feature_names_in_.tolist() == ["a", "b", "kind"]
    assert cleaner.score(frame, right) > 0.95


@pytest.mark.parametrize(
    "as_rows", [sp.csr_matrix, sp.coo_array, list, torch.as_tensor, pd.DataFrame]
)
def test_rows__in_any_container__give_the_same(as_rows: Any) -> None:
    X, y, _ = noisy_table()
    cleaner = LabelCleaner(LogisticRegression(), LogisticRegression(), random_state=0)
    expected = clone(cleaner).fit(X, y)
    rows = as_rows(X.copy())
    np.testing.assert_array_equal(cleaner.fit(rows, y).support_, expected.support_)
    np.testing.assert_allclose(cleaner.score_labels(rows, y), expected.score_labels(X, y))
    np.testing.assert_array_equal(cleaner.predict(rows), expected.predict(X))


def test_sparse_rows__stay_sparse() -> None:
    X, y, _ = noisy_table()
    cleaner = LabelCleaner(LogisticRegression(), Recording()).fit(sp.csr_array(X), y)
    assert sp.issparse(cleaner.estimator_.rows_)


def test_images__pass_through() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    X = rng.normal(0, 0.2, (60, 8, 8)) + y[:, None, None]
    cleaner = LabelCleaner(BRIEF, BRIEF, random_state=0).fit(X, y)
    assert cleaner.estimator_.input_shape_ == (8, 8)
    assert cleaner.predict(X).shape == (60,)


@pytest.mark.parametrize(
    "classes", [["a", "b", "c"], [3, 7, 9], [-2.0, 0.0, 1.0]], ids=["text", "gaps", "floats"]
)
def test_labels__of_any_type__come_back(classes: list[Any]) -> None:
    X, y, _ = noisy_table()
    names = np.array(classes)
    cleaner = LabelCleaner(GaussianNB(), DecisionTreeClassifier(), how="correct", random_state=0)
    coded = clone(cleaner).fit(X, y)
    cleaner.fit(X, names[y])
    np.testing.assert_array_equal(cleaner.classes_, names)
    np.testing.assert_array_equal(cleaner.corrected_labels_, names[coded.corrected_labels_])
    np.testing.assert_array_equal(cleaner.predict(X), names[coded.predict(X)])


@pytest.mark.parametrize("how", HOWS)
def test_missing_labels__are_believed_but_not_learned(how: str) -> None:
    X, y, right = noisy_table()
    missing = np.arange(300) % 4 == 0
    given = np.where(missing, None, np.array(["a", "b", "c"], dtype=object)[y])
    cleaner = LabelCleaner(
        GaussianNB(), DecisionTreeClassifier(), how=how, missing_label=np.nan, random_state=0
    ).fit(X, given)
    assert cleaner.classes_.tolist() == ["a", "b", "c"]
    assert not cleaner.support_[missing].any()
    np.testing.assert_array_equal(np.isnan(cleaner.label_quality_), missing)
    assert not cleaner.label_issues()["is_label_issue"][missing].any()
    believed = cleaner.corrected_labels_[missing]
    assert np.mean(believed == np.array(["a", "b", "c"])[right[missing]]) > 0.9


@pytest.mark.filterwarnings("ignore")  # cleanlab and the networks name the class
def test_rare_class__that_is_trusted__is_learned() -> None:
    X, y, _ = noisy_table()
    y[0], X[0] = 3, 50.0
    trusted = np.arange(300) == 0
    cleaner = LabelCleaner(BRIEF, DecisionTreeClassifier(), random_state=0)
    cleaner.fit(X, y, clean_mask=trusted)
    assert cleaner.predict(X[:1]) == [3]
    assert cleaner.label_distribution_.shape == (300, 4)


# What it cannot do.


def never_fitted() -> Any:
    class Untouchable(GaussianNB):
        def fit(self, *args: Any, **kwargs: Any) -> Any:
            raise AssertionError("was trained")

    return Untouchable()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "detector is none": ({"detector": "ce"}, "detector must be a classifier.*Got 'ce'"),
    "detector is a class": ({"detector": GaussianNB}, "detector must be a classifier"),
    "detector regresses": ({"detector": LinearRegression()}, "detector must be .*LinearRegression"),
    "detector is never sure": ({"detector": LinearSVC()}, "predict_proba. Got LinearSVC"),
    "estimator regresses": ({"estimator": LinearRegression()}, "estimator must be .*LinearRegr"),
    "no weights": (
        {"estimator": KNeighborsClassifier(), "how": "weight"},
        "how='weight' needs .* sample_weight. Got KNeighborsClassifier.*how='drop'",
    ),
    "how": ({"how": "fix"}, "'how' parameter of LabelCleaner"),
    "one fold": ({"cv": 1}, "'cv' parameter of LabelCleaner"),
    "folds of few rows": ({"cv": 150}, r"cv must be at most .*Got cv=150 and 100 of 300 rows"),
    "folds that overlap": (
        {"cv": [(np.arange(200), np.arange(100, 300))]},
        "exactly one test part. Got 200 of 300 rows in 200 places",
    ),
    "folds of one class": (
        {"cv": [(np.arange(100, 300), np.arange(100)), (np.arange(100), np.arange(100, 300))]},
        r"Got none for \[0\]. Leave the class out",
    ),
}


@pytest.mark.parametrize("settings, message", REFUSED.values(), ids=REFUSED)
def test_refused__before_any_training(settings: dict[str, Any], message: str) -> None:
    X, y = np.zeros((300, 2)), np.repeat([0, 1, 2], 100)
    params = {"detector": never_fitted(), "estimator": never_fitted()} | settings
    with pytest.raises(ValueError, match=message):
        LabelCleaner(**params).fit(X, y)


def test_class__of_a_single_row__is_refused_by_name() -> None:
    X, y, _ = noisy_table()
    names = np.array(["ant", "bee", "cow", "dodo"])[np.where(np.arange(300) == 9, 3, y)]
    with pytest.raises(ValueError, match=r"Got none for \['dodo'\].*clean_mask"):
        LabelCleaner(GaussianNB(), DecisionTreeClassifier()).fit(X, names)


def test_class__that_loses_all_rows__is_an_error_that_says_what_to_do() -> None:
    X, y = beliefs()
    X[y == 1] = [0.8, 0.0, 0.2]
    cleaner = LabelCleaner(Oracle(), Recording(), how="weight").fit(*beliefs())
    before = vars(cleaner).copy()
    with pytest.raises(ValueError, match=r"Got none for \[1\] by how='weight'.*another detector"):
        cleaner.fit(X, y)
    assert vars(cleaner) == before


@pytest.mark.parametrize("how", ["drop", "correct", "abstain"])
def test_class__that_is_believed_nowhere__keeps_a_row_and_is_named_in_a_warning(how: str) -> None:
    X, y = beliefs()
    X[y == 1] = [0.8, 0.0, 0.2]
    X[:, 1] = 0.0
    names = np.array(["ant", "bee", "cow"])[y]
    with pytest.warns(NoisyFitWarning, match=r"Got none for \['bee'\].*clean_mask"):
        cleaner = LabelCleaner(Oracle(), Recording(), how=how).fit(X / X.sum(1)[:, None], names)
    assert "bee" in cleaner.estimator_.labels_


def test_weights__for_an_estimator_that_takes_none__are_refused() -> None:
    X, y, _ = noisy_table()
    cleaner = LabelCleaner(never_fitted(), KNeighborsClassifier())
    with pytest.raises(ValueError, match="sample_weight needs .*KNeighbors.*leave the weights"):
        cleaner.fit(X, y, np.ones(300))


def test_predict_proba__is_there_if_the_estimator_has_it() -> None:
    assert hasattr(LabelCleaner(), "predict_proba")
    assert not hasattr(LabelCleaner(estimator=GaussianNB()), "decision_function")
    assert not hasattr(LabelCleaner(estimator=LinearSVC()), "predict_proba")
    assert hasattr(LabelCleaner(estimator=LinearSVC()), "decision_function")


# Files.


def test_save__classifiers_of_this_package__predict_and_rate_the_same(tmp_path: Path) -> None:
    X, y, _ = noisy_table()
    cleaner = LabelCleaner(BRIEF, BRIEF, random_state=0).fit(X, y)
    cleaner.save(tmp_path / "model")
    loaded = LabelCleaner.load(tmp_path / "model", device="cpu")
    np.testing.assert_array_equal(loaded.predict_proba(X), cleaner.predict_proba(X))
    np.testing.assert_array_equal(loaded.score_labels(X, y), cleaner.score_labels(X, y))
    pd.testing.assert_frame_equal(loaded.label_issues(), cleaner.label_issues())


def test_save__other_classifiers__are_left_to_joblib(tmp_path: Path) -> None:
    X, y, _ = noisy_table()
    cleaner = LabelCleaner(BRIEF, DecisionTreeClassifier()).fit(X, y)
    with pytest.raises(NoisyFitError, match="DecisionTreeClassifier in estimator_.*joblib"):
        cleaner.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_splitter__without_classes__is_taken_as_it_is() -> None:
    X, y, _ = noisy_table()
    cleaner = LabelCleaner(GaussianNB(), DecisionTreeClassifier(), cv=KFold(3)).fit(X, y)
    detector = GaussianNB().fit(X[100:], y[100:])
    np.testing.assert_allclose(
        cleaner.label_quality_[:100], detector.predict_proba(X[:100])[np.arange(100), y[:100]]
    )
