"""What is learned from, what is said of the labels, and any classifier inside."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_digits, make_blobs, make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks
from skorch.callbacks import Callback

from noisyfit import (
    CrossEntropyClassifier,
    EchoAlignClassifier,
    EchoSelect,
    NoisyFitWarning,
    RLDClassifier,
    noise,
)
from noisyfit.benchmark.recipes import recipe
from noisyfit.metrics import detection_auroc
from noisyfit.nn.generators import ConditionalDiffusion, PrecomputedModifier
from noisyfit.quality import transition_matrix

BRIEF = EchoSelect(
    ConditionalDiffusion(n_train_steps=20, n_steps=3, width=16), select_by="similarity"
)


def noisy_table(seed: int = 0) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
    X, y = make_blobs(240, 6, centers=3, cluster_std=1.5, center_box=(-5, 5), random_state=seed)
    flipped = np.arange(240) < 96
    return X, np.where(flipped, (y + 1) % 3, y), flipped


def by_truth(flipped: NDArray[np.bool_], X: NDArray[Any]) -> EchoSelect:
    """A selector that knows which labels are wrong: their rows are turned around."""
    sign = {row.astype(np.float32).tobytes(): -1.0 for row in X[flipped]}

    def modify(x: Any, y: Any, generator: Any) -> Any:
        factors = [sign.get(row.numpy().tobytes(), 1.0) for row in x]
        return x * x.new_tensor(factors)[:, None]

    return EchoSelect(modify, lambda rows: rows, threshold=0.0)


class Recording(LogisticRegression):
    """Remembers what it was fitted on."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Recording:
        self.rows_, self.labels_, self.weights_ = X, y, sample_weight
        return super().fit(X, y)


class Unweighted(LogisticRegression):
    """Takes no weights, and remembers what it was fitted on."""

    def fit(self, X: Any, y: Any) -> Unweighted:  # type: ignore[override]
        self.rows_, self.labels_ = X, y
        return super().fit(X, y)


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([EchoAlignClassifier(DecisionTreeClassifier(random_state=0), BRIEF)])
def test_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_wrong_labels__cost_less_than_with_cross_entropy(seed: int) -> None:
    X, y = make_blobs(400, 8, centers=4, cluster_std=2.5, center_box=(-5, 5), random_state=seed)
    noisy = noise.symmetric(y[:300], 0.4, random_state=seed)
    modifier = ConditionalDiffusion(n_train_steps=120, width=64)
    ours = EchoAlignClassifier(
        selector=EchoSelect(modifier, select_by="similarity", n_rounds=1), random_state=seed
    )
    plain = CrossEntropyClassifier(augmentation=None, random_state=seed)
    accuracy = ours.fit(X[:300], noisy.labels).score(X[300:], y[300:])
    assert accuracy > plain.fit(X[:300], noisy.labels).score(X[300:], y[300:]) + 0.05


PAPER: dict[str, Any] = {"rejected_weight": 0.0, "modified_weight": 1.0}


@pytest.mark.parametrize(
    "settings, weights",
    [  # of kept originals, rejected originals and, for both, modified rows
        ({}, (1, 0.5, 0, 0.1)),
        (PAPER, (1, 0, 0, 1)),
        (PAPER | {"include_modified": "none"}, (1, 0, 0, 0)),
        (PAPER | {"include_modified": "all"}, (1, 0, 1, 1)),
        (PAPER | {"include_modified": "all", "include_originals": False}, (0, 0, 1, 1)),
        ({"rejected_weight": 2.0, "modified_weight": 0.0}, (1, 2, 0, 0)),
        ({"include_modified": "all", "modified_weight": 3.0}, (1, 0.5, 3, 3)),
        (PAPER | {"modified_weight": "balanced"}, (1, 0, 0, 144 / 96)),
        ({"modified_weight": "balanced"}, (1, 0.5, 0, (144 + 48) / 96)),
        ({"include_modified": "all", "modified_weight": "balanced"}, (1, 0.5, 0.8, 0.8)),
        ({"include_modified": "none", "modified_weight": "balanced"}, (1, 0.5, 0, 0)),
        (
            {"include_modified": "all", "include_originals": False, "modified_weight": "balanced"},
            (0, 0, 1, 1),
        ),
    ],
)
def test_weights__are_those_of_originals_and_modified_rows(
    settings: dict[str, Any], weights: tuple[float, float, float, float]
) -> None:
    X, labels, flipped = noisy_table()
    clf = EchoAlignClassifier(Recording(), by_truth(flipped, X), **settings).fit(X, labels)
    kept, rejected, modified_kept, modified_rejected = weights
    expected = [(X[i], labels[i], kept) for i in np.flatnonzero(~flipped)]
    believed = clf.selector_.believed_labels_
    expected += [(X[i], believed[i], rejected) for i in np.flatnonzero(flipped)]
    for i in range(240):
        row, weight = (-X[i], modified_rejected) if flipped[i] else (X[i], modified_kept)
        expected.append((row, labels[i], weight))
    expected = [(row, label, weight) for row, label, weight in expected if weight]
    learned = clf.estimator_
    np.testing.assert_allclose(learned.rows_, [row for row, _, _ in expected], rtol=1e-6)
    np.testing.assert_array_equal(learned.labels_, [label for _, label, _ in expected])
    if all(weight == 1 for _, _, weight in expected):
        assert learned.weights_ is None
    else:
        np.testing.assert_allclose(learned.weights_, [weight for _, _, weight in expected])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rejected_originals__are_learned_from_under_the_label_of_the_nearest_kept_ones(
    seed: int,
) -> None:
    X, labels, flipped = noisy_table(seed)
    clf = EchoAlignClassifier(Recording(), by_truth(flipped, X)).fit(X, labels)
    believed, directions = [], X / np.linalg.norm(X, axis=1, keepdims=True)
    for i in np.flatnonzero(flipped):
        kept = [(-directions[i] @ directions[j], labels[j]) for j in np.flatnonzero(~flipped)]
        believed.append(np.bincount([label for _, label in sorted(kept)[:10]]).argmax())
    np.testing.assert_array_equal(clf.selector_.believed_labels_[flipped], believed)
    np.testing.assert_array_equal(clf.selector_.believed_labels_[~flipped], labels[~flipped])
    np.testing.assert_array_equal(clf.estimator_.labels_[144:240], believed)


def test_rejected_originals__are_learned_from_under_the_label_that_the_rater_believes() -> None:
    X, y, _ = noisy_table()
    noisy = noise.symmetric(y, 0.3, random_state=0).labels
    words = np.array(["ant", "bee", "cow"])[noisy]
    rater = CrossEntropyClassifier(max_epochs=8, random_state=3)
    selector = EchoSelect(lambda x, labels, g: -x, select_by=rater, threshold=("quantile", 0.3))
    clf = EchoAlignClassifier(Recording(), selector).fit(X, words)
    most_likely = rater.fit(X, words).label_distribution_.argmax(1)
    rejected = ~clf.support_
    expected = np.array(["ant", "bee", "cow"])[most_likely[rejected]]
    np.testing.assert_array_equal(
        clf.estimator_.labels_[clf.support_.sum() :][: len(expected)], expected
    )
    assert (expected != words[rejected]).any()


def test_paper_form__is_algorithm_1() -> None:
    """Each step with plain loops: modify, cosine, threshold, union, classifier."""
    X, labels, _ = noisy_table()
    modified = X + np.random.default_rng(0).normal(0, 3, X.shape)
    rows, given = [], []
    for i in range(240):
        dot = sum(a * b for a, b in zip(X[i], modified[i], strict=True))
        similarity = dot / sum(X[i] ** 2) ** 0.5 / sum(modified[i] ** 2) ** 0.5
        if similarity >= 0.52:
            rows.append(X[i])
            given.append(labels[i])
    for i in range(240):
        if not any(np.array_equal(X[i], row) for row in rows):
            rows.append(modified[i])
            given.append(labels[i])
    params = recipe("echoalign", "cifar10") | {"estimator": Recording()}
    clf = EchoAlignClassifier(**params)
    clf.set_params(
        selector__modifier=PrecomputedModifier(X, labels, modified),
        selector__embedder=lambda rows: rows,
    )
    learned = clf.fit(X, labels).estimator_
    np.testing.assert_allclose(learned.rows_, rows, rtol=1e-5)
    np.testing.assert_array_equal(learned.labels_, given)
    assert learned.weights_ is None
    assert 0 < clf.support_.sum() < 240


def test_classifier__that_takes_no_weights__learns_from_rows_of_half_a_weight_or_more() -> None:
    X, labels, flipped = noisy_table()
    clf = EchoAlignClassifier(Unweighted(), by_truth(flipped, X))
    with pytest.warns(NoisyFitWarning, match="Got Unweighted: rows with a weight below 1/2"):
        clf.fit(X, labels)
    np.testing.assert_array_equal(clf.estimator_.rows_, np.r_[X[~flipped], X[flipped]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf.set_params(**PAPER).fit(X, labels)
    np.testing.assert_allclose(clf.estimator_.rows_, np.r_[X[~flipped], -X[flipped]], rtol=1e-6)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"modified_weight": "balanced"}, "fit takes sample_weight. Got KNeighborsClassifier"),
        ({"finetune_epochs": 1}, "can go on with it. Got KNeighborsClassifier"),
        ({"modified_weight": "balanced", "estimator": RLDClassifier()}, "sample_weight. Got RLD"),
        ({"finetune_epochs": 1, "estimator": RLDClassifier()}, "can go on with it. Got RLD"),
    ],
)
def test_classifier__that_cannot_do_it__is_refused_before_any_training(
    settings: dict[str, Any], message: str
) -> None:
    X, labels, _ = noisy_table()

    def modify(x: Any, y: Any, generator: Any) -> Any:
        raise AssertionError("was trained")

    settings = {"estimator": KNeighborsClassifier()} | settings
    clf = EchoAlignClassifier(selector=EchoSelect(modify), **settings)
    with pytest.raises(ValueError, match=message):
        clf.fit(X, labels)


def test_score__by_a_classifier__decides_by_its_label_quality() -> None:
    X, labels, flipped = noisy_table()
    rater = CrossEntropyClassifier(max_epochs=8, random_state=3)
    turned = by_truth(flipped, X).set_params(select_by=rater, threshold=("quantile", 0.5))
    clf = EchoAlignClassifier(LogisticRegression(), turned, random_state=0).fit(X, labels)
    quality = rater.fit(X, labels).label_quality_
    np.testing.assert_array_equal(clf.label_quality_, quality)
    for label in range(3):
        own = labels == label
        kept = quality[own] >= np.quantile(quality[own], 0.5)
        np.testing.assert_array_equal(clf.support_[own], kept)
    np.testing.assert_array_equal(clf.score_labels(X, labels), rater.score_labels(X, labels))
    np.testing.assert_allclose(clf.selector_.similarities_, np.where(flipped, -1, 1), atol=1e-6)


def test_score__that_rates_nothing__is_an_error() -> None:
    X, labels, flipped = noisy_table()
    turned = by_truth(flipped, X).set_params(select_by=LogisticRegression())
    with pytest.raises(ValueError, match="select_by must be .*or a classifier of noisyfit"):
        turned.fit(X, labels)


def test_label_protocol__comes_from_the_similarities() -> None:
    X, labels, flipped = noisy_table()
    index = pd.Index([f"row {i}" for i in range(240)])
    frame = pd.DataFrame(X, index=index, columns=list("abcdef"))
    clf = EchoAlignClassifier(LogisticRegression(), by_truth(flipped, X)).fit(frame, labels)
    np.testing.assert_allclose(clf.label_quality_, np.where(flipped, 0, 1), atol=1e-6)
    predicted = clf.estimator_.predict_proba(X)
    given = np.eye(3)[labels]
    expected = np.where(flipped[:, None], predicted, given)
    np.testing.assert_allclose(clf.label_distribution_, expected, atol=1e-6)
    np.testing.assert_array_equal(clf.corrected_labels_, clf.label_distribution_.argmax(1))
    np.testing.assert_allclose(
        clf.transition_matrix_, transition_matrix(labels, clf.label_distribution_)
    )
    issues = clf.label_issues()
    assert issues.index.equals(index)
    changed = clf.corrected_labels_ != labels
    np.testing.assert_array_equal(issues["is_label_issue"], flipped & changed)
    np.testing.assert_allclose(clf.score_labels(frame, labels), clf.label_quality_, atol=1e-6)
    assert clf.feature_names_in_.tolist() == list("abcdef")


def test_clean_mask__trusted_rows_are_kept_and_of_quality_one() -> None:
    X, labels, flipped = noisy_table()
    clf = EchoAlignClassifier(LogisticRegression(), by_truth(flipped, X))
    clf.fit(X, labels, clean_mask=flipped)
    assert clf.support_.all()
    np.testing.assert_array_equal(clf.label_quality_[flipped], 1)
    np.testing.assert_array_equal(clf.corrected_labels_, labels)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rows_without_a_label__are_predicted_and_never_issues(seed: int) -> None:
    X, y, flipped = noisy_table(seed)
    words, missing = np.array(list("abc"), object)[y], np.arange(240) % 5 == 0
    words[missing] = None
    clf = EchoAlignClassifier(LogisticRegression(), by_truth(flipped, X), missing_label=np.nan)
    clf.fit(X, words)
    same = EchoAlignClassifier(LogisticRegression(), by_truth(flipped, X))
    same.fit(X[~missing], words[~missing])
    np.testing.assert_array_equal(clf.predict_proba(X), same.predict_proba(X))
    assert clf.classes_.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(np.isnan(clf.label_quality_), missing)
    np.testing.assert_array_equal(np.isnan(clf.score_labels(X, words)), missing)
    np.testing.assert_array_equal(clf.support_, ~flipped & ~missing)
    assert clf.corrected_labels_[missing].tolist() == clf.predict(X[missing]).tolist()
    assert not clf.label_issues()["is_label_issue"][missing].any()
    with pytest.raises(ValueError, match="Every trusted row must have a label"):
        clf.fit(X, words, clean_mask=missing)
    with pytest.raises(ValueError, match="y must have labels"):
        clf.fit(X, np.full(240, None))


def test_labels__may_be_words() -> None:
    X, labels, flipped = noisy_table()
    words = np.array(["ant", "bee", "cow"])[labels]
    clf = EchoAlignClassifier(LogisticRegression(), BRIEF, random_state=0).fit(X, words)
    assert set(clf.predict(X)) <= {"ant", "bee", "cow"}
    assert clf.corrected_labels_.dtype == words.dtype


@pytest.mark.parametrize("where", ["global", "selector"])
def test_output_as_a_frame__is_for_the_user_alone(where: str) -> None:
    """Under ``transform_output="pandas"`` fit and predict ended with a KeyError."""
    X, y = make_blobs(60, 4, centers=2, random_state=0)
    plain = EchoAlignClassifier(LogisticRegression(), selector=BRIEF, random_state=0).fit(X, y)
    selector = clone(BRIEF)
    if where == "selector":
        selector.set_output(transform="pandas")
    with config_context(transform_output="pandas" if where == "global" else "default"):
        clf = EchoAlignClassifier(LogisticRegression(), selector=selector, random_state=0)
        found = clf.fit(X, y).predict_proba(X)
        assert isinstance(clf.selector_.transform(X), pd.DataFrame)
    np.testing.assert_array_equal(found, plain.predict_proba(X))


def test_estimator__without_probabilities__has_none() -> None:
    X, labels, flipped = noisy_table()
    clf = EchoAlignClassifier(LinearSVC(), by_truth(flipped, X))
    assert not hasattr(clf, "predict_proba")
    assert clf.fit(X, labels).decision_function(X).shape == (240, 3)
    assert set(np.unique(clf.label_distribution_.round(9))) <= {0.0, 1.0}


def test_finetuning__moves_the_network_towards_the_originals() -> None:
    X, labels, flipped = noisy_table()
    estimator = CrossEntropyClassifier(max_epochs=4, random_state=0)
    settings: dict[str, Any] = {"selector": by_truth(flipped, X), "random_state": 0}
    plain, tuned = (
        EchoAlignClassifier(estimator, finetune_epochs=n, **settings).fit(X, labels) for n in (0, 5)
    )
    kept = X[~flipped], labels[~flipped]
    loss = [-np.log(clf.predict_proba(kept[0])[np.arange(144), kept[1]]).mean()
            for clf in (plain, tuned)]  # fmt: skip
    assert loss[1] < loss[0]
    # The originals' mean and deviation were measured again, under a network trained with others.
    for name, value in plain.estimator_.module_.named_buffers():
        if name in ("mean", "std"):
            assert torch.equal(value, dict(tuned.estimator_.module_.named_buffers())[name])


def test_finetuning__class_without_an_original__is_still_known() -> None:
    """It failed after the whole training."""
    X, labels, _ = noisy_table()
    estimator = CrossEntropyClassifier(max_epochs=4, random_state=0)
    clf = EchoAlignClassifier(estimator, by_truth(labels == 2, X), finetune_epochs=2)
    assert clf.fit(X, labels).predict_proba(X).shape == (240, 3)
    assert not clf.support_[labels == 2].any()


def test_finetuning__goes_on_at_a_hundredth_of_the_rate_of_training() -> None:
    X, labels, flipped = noisy_table()
    rates: dict[str, Any] = {"optimizer__lr": 0.2, "module__width": 16}
    estimator = CrossEntropyClassifier(max_epochs=4, random_state=0, **rates)
    settings: dict[str, Any] = {"selector": by_truth(flipped, X), "random_state": 0}
    plain, tuned = (
        EchoAlignClassifier(estimator, finetune_epochs=n, **settings).fit(X, labels) for n in (0, 5)
    )
    plain.estimator_.fine_tune(X[~flipped], labels[~flipped], epochs=5, lr=0.002)
    np.testing.assert_array_equal(plain.predict_proba(X), tuned.predict_proba(X))


@pytest.mark.parametrize("n_kept", [0, 1])
def test_finetuning__on_fewer_than_two_originals__is_an_error_before_the_classifier(
    n_kept: int,
) -> None:
    """It failed after the whole training."""
    X, labels, _ = noisy_table()
    estimator = CrossEntropyClassifier(callbacks=[Forbidden()])
    clf = EchoAlignClassifier(estimator, by_truth(np.arange(240) >= n_kept, X), finetune_epochs=1)
    with pytest.raises(ValueError, match=f"at least two originals that are kept. Got {n_kept}"):
        clf.fit(X, labels)


class Forbidden(Callback):
    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        raise AssertionError("the classifier was trained")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_score__trusted_rows_and_rows_without_a_label__are_as_everywhere(seed: int) -> None:
    X, y, _ = noisy_table(seed)
    noisy = noise.symmetric(y, 0.3, random_state=seed).labels
    noisy[:20], trusted = -1, np.arange(240) >= 220
    rater = CrossEntropyClassifier(max_epochs=8, random_state=seed)
    selector = EchoSelect(
        lambda x, labels, g: -x, lambda rows: rows, select_by=rater, random_state=0
    )
    clf = EchoAlignClassifier(LogisticRegression(), selector, missing_label=-1)
    frame = pd.DataFrame(X)
    clf.fit(frame, noisy, clean_mask=trusted)
    alone = clone(rater).fit(X[20:], noisy[20:])
    expected = np.r_[np.full(20, np.nan), alone.label_quality_]
    np.testing.assert_allclose(clf.label_quality_, np.where(trusted, 1, expected))
    kept = alone.label_quality_.astype(float) >= clf.selector_.threshold_
    np.testing.assert_array_equal(clf.support_, np.r_[np.zeros(20, bool), kept | trusted[20:]])
    new = clf.score_labels(frame, noisy)
    np.testing.assert_allclose(new[20:], alone.score_labels(X[20:], noisy[20:]))
    assert np.isnan(new[:20]).all()


def test_class_without_a_row__is_an_error_that_names_it() -> None:
    X, labels, _ = noisy_table()
    clf = EchoAlignClassifier(
        LogisticRegression(), by_truth(labels == 2, X), include_modified="none"
    )
    with pytest.raises(ValueError, match=r"Got none for \[2\]"):
        clf.fit(X, labels)


@pytest.mark.slow
def test_loss__sees_class_dependent_noise() -> None:
    """The generator learns the noise: here similarities were no better than chance."""
    gained, found = [], []
    for seed in range(3):
        X, y = make_classification(
            800, 10, n_informative=8, n_redundant=0, n_classes=4, n_clusters_per_class=1,
            class_sep=1.5, random_state=seed,
        )  # fmt: skip
        noisy = noise.pairflip(y[:400], 0.4, random_state=seed)
        clf = EchoAlignClassifier(selector=clone(BRIEF).set_params(select_by="loss"))
        clf.set_params(random_state=seed).fit(X[:400], noisy.labels)
        plain = CrossEntropyClassifier(random_state=seed).fit(X[:400], noisy.labels)
        gained.append(clf.score(X[400:], y[400:]) - plain.score(X[400:], y[400:]))
        found.append(detection_auroc(noisy.flipped, clf.label_quality_))
    assert np.mean(gained) > 0.05
    assert np.mean(found) > 0.85


@pytest.mark.long
@pytest.mark.parametrize("kind", [noise.symmetric, noise.pairflip])
def test_default__digits__is_well_above_cross_entropy(kind: Any) -> None:
    X, y = load_digits(return_X_y=True)
    gained = []
    for seed in range(3):
        rows = np.random.default_rng(seed).permutation(len(X))
        train, test = rows[:1000], rows[1000:]
        given = kind(y[train], 0.4, random_state=seed).labels
        ours = EchoAlignClassifier(selector=EchoSelect(BRIEF.modifier), random_state=seed)
        plain = CrossEntropyClassifier(random_state=seed).fit(X[train], given)
        score = ours.fit(X[train], given).score(X[test], y[test])
        gained.append(score - plain.score(X[test], y[test]))
    assert min(gained) > 0.05
