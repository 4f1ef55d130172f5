"""Modified rows, similarities, thresholds, the memory, and scikit-learn's contract."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import warnings
from pathlib import Path
from typing import Any, ClassVar

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.datasets import make_blobs
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import Pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks
from skorch.callbacks import Callback
from torch import Tensor, nn

from noisyfit import (
    CoTeachingClassifier,
    CrossEntropyClassifier,
    EchoAlignClassifier,
    EchoMod,
    EchoSelect,
    EchoSelectSampler,
    FlywheelClassifier,
    NoisyFitWarning,
    noise,
)
from noisyfit.embedding.encoders import ContrastiveEmbedder, StandardizedFeatures
from noisyfit.methods.echoalign.thresholds import (
    dip,
    find_threshold,
    form_two_groups,
    mixture_boundary,
    most_similar_half,
    otsu,
)
from noisyfit.metrics import detection_auroc
from noisyfit.nn.generators import ConditionalDiffusion, PrecomputedModifier
from noisyfit.utils.files import write_sealed
from tests.helpers import images

BRIEF = ConditionalDiffusion(n_train_steps=20, n_steps=3, width=16)
WHY = "as in TargetEncoder, training rows are transformed otherwise than rows to predict"
EXPECTED_FAILURES = {
    "check_transformer_general": WHY,
    "check_transformer_data_not_an_array": WHY,
}


def table(n: int = 60, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    X, y = make_blobs(n, 4, centers=3, cluster_std=0.5, random_state=seed)
    return X, y


class Counting:
    """Adds a random number to every row, and counts the rows it was given; then dies, if told."""

    seen: list[int] = []
    die_at: int | None = None

    def modify(self, x: Tensor, y: NDArray[Any], generator: torch.Generator) -> Tensor:
        Counting.seen.append(len(x))
        if Counting.die_at is not None and len(Counting.seen) > Counting.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return x + torch.rand((), generator=generator) + float(np.sum(y))


class Training(ConditionalDiffusion):
    """Counts its training steps; then dies, if told."""

    steps = 0
    die_at: ClassVar[int | None] = None

    def _loss(self, network: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
        Training.steps += 1
        if Training.steps == Training.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._loss(network, x, labels)


@pytest.fixture(autouse=True)
def _forget() -> None:
    Counting.seen, Counting.die_at = [], None
    Training.steps, Training.die_at = 0, None


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [EchoMod(BRIEF), EchoSelect(BRIEF, select_by="similarity", threshold=("quantile", 0.4))],
    expected_failed_checks=lambda estimator: EXPECTED_FAILURES,
)
def test_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


# What it is for.


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_similarity__is_lower_for_wrong_labels(seed: int) -> None:
    X, y = make_blobs(300, 8, centers=4, cluster_std=2.0, center_box=(-5, 5), random_state=seed)
    noisy = noise.symmetric(y, 0.3, random_state=seed)
    modifier = ConditionalDiffusion(n_train_steps=200, width=64)
    settings: dict[str, Any] = {"threshold": ("quantile", 0.3), "n_rounds": 1}
    echo = EchoSelect(modifier, select_by="similarity", **settings, random_state=seed)
    echo.fit(X, noisy.labels)
    assert detection_auroc(noisy.flipped, echo.similarities_) > 0.85
    assert noisy.flipped[echo.support_].mean() < 0.5 * noisy.flipped.mean()


def test_fit_transform__keeps_originals_above_the_threshold_and_modified_rows_below() -> None:
    X, y = table()
    modified = X.copy()
    modified[::3] *= -1  # cosine -1 to the original, else 1
    modifier = PrecomputedModifier(X, y, modified)
    echo = EchoSelect(modifier, lambda rows: rows, threshold=0.0)
    refined = echo.fit_transform(X, y)
    expected = np.where(np.arange(60) % 3 == 0, -1.0, 1.0)
    np.testing.assert_allclose(echo.similarities_, expected, atol=1e-6)
    np.testing.assert_array_equal(echo.support_, expected > 0)
    np.testing.assert_allclose(refined, modified, rtol=1e-6)
    np.testing.assert_array_equal(refined[echo.support_], X[echo.support_])
    np.testing.assert_array_equal(echo.transform(X), X)


def test_similarity__is_the_cosine_of_the_features() -> None:
    X, y = table(8)
    changed = X + np.random.default_rng(0).normal(size=X.shape)
    echo = EchoSelect(PrecomputedModifier(X, y, changed), np.square, threshold=0.5).fit(X, y)
    for i in range(8):
        a, b = X[i] ** 2, changed[i] ** 2
        cosine = sum(a * b) / (sum(a * a) ** 0.5 * sum(b * b) ** 0.5)
        assert echo.similarities_[i] == pytest.approx(cosine, abs=1e-5)


def test_relative_similarity__is_the_lead_over_the_best_other_label() -> None:
    X = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    y = np.repeat(["a", "b", "c"], 3)
    shift = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)

    def toward(x: Any, labels: Any, generator: Any) -> Any:
        return x + torch.tensor(shift[np.searchsorted(["a", "b", "c"], labels)])

    echo = EchoSelect(toward, lambda rows: rows, relative=True, threshold=0.0).fit(X, y)
    for i, code in enumerate(np.repeat([0, 1, 2], 3)):
        cosines = []
        for other in shift:
            a, b = X[i].astype(float), X[i].astype(float) + other
            cosines.append(sum(a * b) / (sum(a * a) ** 0.5 * sum(b * b) ** 0.5))
        lead = cosines[code] - max(c for k, c in enumerate(cosines) if k != code)
        assert echo.similarities_[i] == pytest.approx(lead, abs=1e-5)
    assert ((echo.label_quality_ >= 0) & (echo.label_quality_ <= 1)).all()
    np.testing.assert_allclose(echo.score_labels(X, y), echo.label_quality_, atol=1e-6)
    np.testing.assert_array_equal(echo.support_, echo.similarities_ >= 0)


def test_echo_mod__returns_modified_rows_and_predicts_on_originals() -> None:
    X, y = table()
    echo = EchoMod(lambda x, labels, generator: 2 * x)
    np.testing.assert_allclose(echo.fit_transform(X, y), 2 * X, rtol=1e-6)
    np.testing.assert_array_equal(echo.transform(X), X)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_fit__scores_of_one_peak__keeps_everything_and_says_so(seed: int) -> None:
    X, y = table(300, seed)
    rng = np.random.default_rng(seed)
    one_peak = X + rng.normal(0, 1, X.shape)
    two_peaks = np.where(np.arange(300)[:, None] % 3 == 0, -one_peak, one_peak)
    with pytest.warns(NoisyFitWarning, match="two groups.*Got one.*every original is kept"):
        echo = EchoSelect(PrecomputedModifier(X, y, one_peak)).fit(X, y)
    assert echo.support_.all()
    np.testing.assert_array_equal(echo.believed_labels_, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        echo = EchoSelect(PrecomputedModifier(X, y, two_peaks)).fit(X, y)
    assert (echo.support_ == (np.arange(300) % 3 != 0)).mean() > 0.8


def test_clean_mask__keeps_trusted_originals() -> None:
    X, y = table()
    trusted = np.arange(60) < 10
    echo = EchoSelect(lambda x, labels, generator: -x, lambda rows: rows, threshold=0.5)
    assert echo.fit(X, y, clean_mask=trusted).support_.tolist() == trusted.tolist()


@pytest.mark.parametrize("layout", ["HW", "HWC", "CHW"])
def test_images__come_back_in_their_layout_and_dtype(layout: str) -> None:
    X, y = images(30)
    X = {"HW": X[..., 0], "HWC": X, "CHW": np.ascontiguousarray(X.transpose(0, 3, 1, 2))}[layout]
    channels = 1 if layout == "HW" else 3

    def modify(x: Tensor, labels: Any, generator: Any) -> Tensor:
        assert x.shape[1:] == (channels, 12, 10)
        return 255 - x

    found = EchoMod(modify).fit_transform(X, y)
    np.testing.assert_array_equal(found, 255 - X)
    assert found.dtype == np.uint8


@pytest.mark.parametrize("make", [EchoMod, EchoAlignClassifier])
def test_fit__rows_that_cannot_be_read__are_refused(make: Any) -> None:
    X, y = table()
    model = make() if make is EchoMod else make(selector=EchoSelect(BRIEF, select_by="similarity"))
    with pytest.raises(ValueError, match="masked entries"):
        model.fit(np.ma.masked_equal(X, X[0, 0]), y)
    with pytest.raises(TypeError, match="to_dense"):
        model.fit(torch.as_tensor(X).to_sparse(), y)
    with pytest.raises(ValueError, match="rows of one shape"):
        model.fit([*X[:-1], X[-1][1:]], y)


def test_fit__reversed_rows_and_tensors_with_gradient__are_read() -> None:
    X, y = table()
    X = X.astype(np.float32)
    expected = EchoMod(BRIEF, random_state=0).fit_transform(X, y)
    for same in (X[::-1].copy()[::-1], torch.tensor(X, requires_grad=True), list(torch.tensor(X))):
        np.testing.assert_array_equal(
            EchoMod(BRIEF, random_state=0).fit_transform(same, y), expected
        )


def test_images__of_another_height_or_width__are_refused() -> None:
    X, y = images(30)
    echo = EchoMod(BRIEF, random_state=0).fit(X, y)
    for other in (X[:, :9], X[:, :, :9], X[..., 0]):
        with pytest.raises(ValueError, match=r"rows of shape \(12, 10, 3\), as in fit"):
            echo.transform(other)


def test_images__are_modified_by_the_embedded_generator() -> None:
    X, y = images(40)
    modifier = ConditionalDiffusion(n_train_steps=5, n_steps=2, width=8, control="edges")
    echo = EchoSelect(
        modifier, lambda rows: rows.reshape(len(rows), -1), select_by="similarity", random_state=0
    )
    refined = echo.fit_transform(X, y)
    assert refined.shape == X.shape
    assert refined.dtype == np.uint8
    assert (echo.modified_ != X).any()


def test_embedder__may_be_a_fitted_transformer() -> None:
    X, y = table()
    pca = PCA(2).fit(X)
    echo = EchoSelect(lambda x, labels, generator: x + 1, pca, threshold=0.0).fit(X, y)
    a, b = pca.transform(X), pca.transform(X + 1)
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(echo.similarities_, cosine, atol=1e-4)


def test_fit__leaves_the_modifier_it_was_given_alone() -> None:
    X, y = table()
    modifier = ConditionalDiffusion(n_train_steps=5, width=16)
    echo = EchoSelect(modifier, select_by="similarity", random_state=0).fit(X, y)
    assert not hasattr(modifier, "network_")
    assert echo.modifier_ is not modifier


def test_same_random_state__gives_identical_bits_and_leaves_the_global_one() -> None:
    X, y = table()
    before = torch.get_rng_state()
    echo = EchoSelect(BRIEF, select_by="similarity", random_state=0)
    first, second = (clone(echo).fit(X, y).similarities_ for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)
    assert not np.array_equal(first, echo.set_params(random_state=1).fit(X, y).similarities_)


# Ratings by an estimator.


class Rater(BaseEstimator):
    """Rates a label by the first column of its row; counts how often it is fitted."""

    n_fits = 0

    def __init__(self, random_state: int | None = None) -> None:
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Rater:
        Rater.n_fits += 1
        self.label_quality_ = self.score_labels(X, y)
        return self

    def score_labels(self, X: Any, y: Any) -> NDArray[Any]:
        return (X[:, 0] > 0).astype(np.float32)


def test_score__of_an_estimator__takes_the_place_of_the_similarity() -> None:
    X, y = table()
    modifier = PrecomputedModifier(X, y, np.where(np.arange(60)[:, None] % 3 == 0, -X, X))
    echo = EchoSelect(modifier, lambda rows: rows, threshold=0.5, select_by=Rater(), random_state=0)
    refined = echo.fit_transform(X, y)
    kept = X[:, 0] > 0
    np.testing.assert_array_equal(echo.support_, kept)
    np.testing.assert_array_equal(echo.label_quality_, kept)
    np.testing.assert_allclose(echo.similarities_, np.where(np.arange(60) % 3 == 0, -1, 1))
    np.testing.assert_allclose(refined, np.where(kept[:, None], X, echo.modified_), rtol=1e-6)
    np.testing.assert_array_equal(echo.score_labels(X[:9], y[:9]), kept[:9])
    assert echo.rater_.random_state == echo.seed_
    trusted = echo.fit(X, y, clean_mask=np.arange(60) < 10)
    np.testing.assert_array_equal(trusted.support_, kept | (np.arange(60) < 10))
    np.testing.assert_array_equal(trusted.label_quality_, kept)


def test_score__similarity__rates_labels_by_it() -> None:
    X, y = table()
    echo = EchoSelect(BRIEF, select_by="similarity", random_state=0).fit(X, y)
    np.testing.assert_array_equal(echo.label_quality_, (1 + echo.similarities_) / 2)
    np.testing.assert_array_equal(
        echo.score_labels(X[:9], y[:9]), (1 + echo.similarity(X[:9], y[:9])) / 2
    )
    assert echo.rater_ is None


class Trained(PrecomputedModifier):
    """Remembers the rows that it was trained on."""

    def fit(self, x: Tensor, y: NDArray[Any], generator: torch.Generator) -> Trained:
        self.rows_ = x.numpy().astype(float)
        return self


def test_score__auto__is_the_loss_if_the_generator_is_trained_on_these_rows() -> None:
    X, y = table(120)
    outside = PrecomputedModifier(X, y, X)
    inside = Trained(X, y, X)
    for modifier, score in ((None, "loss"), (inside, "loss"), (outside, "similarity")):
        assert EchoSelect(modifier)._chosen_way() == score
    found = EchoSelect(inside, random_state=0).fit(X, y)
    expected = CoTeachingClassifier(random_state=found.seed_).fit(X, y)
    np.testing.assert_array_equal(found.label_quality_, expected.label_quality_)
    np.testing.assert_array_equal(
        EchoSelect(inside, select_by="loss", random_state=0).fit(X, y).label_quality_,
        found.label_quality_,
    )
    assert EchoSelect(outside, random_state=0).fit(X, y).rater_ is None


def test_generator__is_trained_once_on_the_originals_that_a_classifier_keeps() -> None:
    X, y = table()
    settings: dict[str, Any] = {"threshold": 0.5, "n_rounds": 3, "select_by": Rater()}
    echo = EchoSelect(Trained(X, y, X), **settings, random_state=0).fit(X, y)
    chosen = echo.support_ | ~np.isin(y, y[echo.support_])  # and on all rows of classes without one
    np.testing.assert_allclose(echo.modifier_.rows_, X[chosen], rtol=1e-6)
    assert 0 < chosen.sum() < 60


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_score__small_loss__finds_scattered_wrong_labels(seed: int) -> None:
    X, y = make_blobs(300, 8, centers=4, cluster_std=2.0, center_box=(-5, 5), random_state=seed)
    noisy = noise.symmetric(y, 0.3, random_state=seed)
    rater = CrossEntropyClassifier(max_epochs=10)
    echo = EchoSelect(lambda x, labels, generator: x, select_by=rater, random_state=seed)
    echo.fit(X, noisy.labels)
    assert detection_auroc(noisy.flipped, echo.label_quality_) > 0.95
    assert noisy.flipped[echo.support_].mean() < 0.2 * noisy.flipped.mean()


def test_score__with_memory__is_fitted_once(tmp_path: Path) -> None:
    X, y = table()
    Rater.n_fits, found = 0, []
    for labels in (y, y, (y + 1) % 3):
        echo = EchoSelect(BRIEF, select_by=Rater(), memory=tmp_path, random_state=0).fit(X, labels)
        found.append(echo)
    assert Rater.n_fits == 2  # other labels are rated anew
    np.testing.assert_array_equal(found[0].label_quality_, found[1].label_quality_)
    np.testing.assert_array_equal(found[0].modified_, found[1].modified_)
    rater = CrossEntropyClassifier(max_epochs=2)
    first, second = (
        EchoSelect(BRIEF, select_by=rater, memory=tmp_path, random_state=0).fit(X, y)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.label_quality_, second.label_quality_)


def test_score__that_takes_labels_for_missing__is_an_error_before_any_modification() -> None:
    def modify(x: Tensor, labels: Any, generator: Any) -> Tensor:
        raise AssertionError("rows were modified")

    rater = CrossEntropyClassifier(max_epochs=1, missing_label=0)
    with pytest.raises(ValueError, match="must rate every label. Got CrossEntropyClassifier"):
        EchoSelect(modify, select_by=rater).fit(*table())


# Thresholds.


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("rule", ["otsu", "gmm"])
def test_threshold__one_group__keeps_everything_and_two_groups_are_split(
    rule: str, seed: int
) -> None:
    rng, codes = np.random.default_rng(seed), np.zeros(600, dtype=int)
    right = rng.beta(8, 1, size=600)  # as ratings of labels that are all right
    for one in (rng.normal(size=600), rng.uniform(size=600), right, np.ones(600)):
        assert not form_two_groups(one)
        assert find_threshold(one, codes, rule) == one.min()
    two = np.r_[rng.normal(0, 1, 200), rng.normal(5, 1, 400)]
    assert 1 < find_threshold(two, codes, rule) < 4


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_dip__is_the_distance_from_the_best_single_peak(seed: int) -> None:
    """By the definition, with convex functions sought by brute force."""
    peaks = np.array([0.0, 1.0, 2.0, 4.0, 5.0, 7.0])
    values = np.random.default_rng(seed).choice(peaks, 15)

    def above_convex(x: list[float], before: list[float], after: list[float]) -> float:
        found = 0.0
        for i in range(len(x) - 1):
            chords = [
                before[j] + (before[k] - before[j]) * (x[i] - x[j]) / (x[k] - x[j])
                for j in range(i)
                for k in range(i + 1, len(x))
            ]
            found = max(found, after[i] - min([before[i], *chords]))
        return found

    x = sorted(set(values))
    before = [float(np.mean(values < a)) for a in x]
    after = [float(np.mean(values <= a)) for a in x]
    expected = []
    for peak in range(len(x)):
        left = above_convex(x[: peak + 1], before, after)
        mirrored = [-a for a in x[peak:][::-1]]
        right = above_convex(mirrored, [1 - a for a in after[::-1]], [1 - a for a in before[::-1]])
        expected.append(max(left, right) / 2)
    assert dip(values) == pytest.approx(min(expected))


def test_otsu__is_the_best_of_all_splits() -> None:
    values = np.random.default_rng(0).normal(size=9)

    def variance_within(t: float) -> float:
        low, high = values[values < t], values[values >= t]
        return float(len(low) * low.var() + len(high) * high.var())

    found = otsu(values)
    others = [variance_within(t) for t in np.sort(values)[1:]]
    assert variance_within(found) == pytest.approx(min(others))
    assert otsu(np.ones(3)) == 1


def test_mixture_boundary__of_two_equal_normals__is_half_way() -> None:
    rng = np.random.default_rng(0)
    values = np.r_[rng.normal(0, 0.1, 2000), rng.normal(1, 0.1, 2000)]
    assert mixture_boundary(values) == pytest.approx(0.5, abs=0.03)
    assert mixture_boundary(np.ones(3)) == 1


def test_quantile__drops_the_same_share_of_each_label() -> None:
    codes, values = np.repeat([0, 1], 10), np.arange(20.0)
    found = find_threshold(values, codes, ("quantile", 0.2))
    assert isinstance(found, np.ndarray)
    assert ((values >= found[codes]).reshape(2, 10).sum(1) == 8).all()


def test_most_similar_half__is_taken_per_label() -> None:
    codes, values = np.repeat([0, 1], 4), np.arange(8.0)
    assert np.flatnonzero(most_similar_half(values, codes)).tolist() == [2, 3, 6, 7]


@pytest.mark.parametrize("threshold", ["otsy", 1.5, ("quantile", 1.0), ("quartile", 0.5), None])
def test_threshold__that_is_no_rule__is_an_error(threshold: Any) -> None:
    with pytest.raises(ValueError, match="threshold must be a similarity"):
        EchoSelect(BRIEF, select_by="similarity", threshold=threshold).fit(*table())


# Errors.


def test_modifier__of_another_shape__is_an_error() -> None:
    with pytest.raises(ValueError, match=r"shape it is given, \(60, 4\). Got \(60, 2\)"):
        EchoMod(lambda x, y, generator: x[:, :2]).fit_transform(*table())


def test_precomputed__row_that_is_not_among_them__is_an_error() -> None:
    X, y = table()
    with pytest.raises(ValueError, match="Got 30 of 60 that are not"):
        EchoMod(PrecomputedModifier(X[:30], y[:30], X[:30])).fit_transform(X, y)


def test_precomputed__shuffled_rows__find_what_belongs_to_them() -> None:
    X, y = table()
    order = np.random.default_rng(0).permutation(60)
    echo = EchoMod(PrecomputedModifier(X, y, 3 * X))
    np.testing.assert_allclose(echo.fit_transform(X[order], y[order]), 3 * X[order], rtol=1e-6)


# Memory.


def test_memory__second_fit_modifies_and_trains_nothing(tmp_path: Path) -> None:
    X, y = table()
    first = EchoMod(Counting(), memory=tmp_path, random_state=0).fit_transform(X, y)
    assert sum(Counting.seen) == 60
    second = EchoMod(Counting(), memory=tmp_path, random_state=0).fit_transform(X, y)
    assert sum(Counting.seen) == 60
    np.testing.assert_array_equal(first, second)


def test_memory__gives_what_a_fit_without_it_gives(tmp_path: Path) -> None:
    X, y = table()
    X = np.r_[X, X[:5]]  # some rows twice
    y = np.r_[y, y[:5]]
    plain = EchoSelect(BRIEF, select_by="similarity", random_state=0).fit(X, y)
    for _ in range(2):
        kept = EchoSelect(BRIEF, select_by="similarity", memory=tmp_path, random_state=0).fit(X, y)
        np.testing.assert_array_equal(plain.modified_, kept.modified_)


@pytest.mark.parametrize("change", ["labels", "seed", "settings"])
def test_memory__is_not_found_by_another_fit(tmp_path: Path, change: str) -> None:
    X, y = table()
    EchoMod(Counting(), memory=tmp_path, random_state=0).fit_transform(X, y)
    labels = (y + 1) % 3 if change == "labels" else y
    other = Counting()
    if change == "settings":
        other.strength = 1  # type: ignore[attr-defined]
    EchoMod(other, memory=tmp_path, random_state=int(change == "seed")).fit_transform(X, labels)
    assert sum(Counting.seen) == 120


def test_memory__folds_of_a_trained_generator__share_nothing(tmp_path: Path) -> None:
    """A row that is in two folds is modified by the generator of its own fold."""
    X, y = table(90)
    echo = EchoSelect(BRIEF, select_by="similarity", memory=tmp_path, n_rounds=1, random_state=0)
    fitted = [clone(echo).fit(X[part], y[part]) for part in (slice(0, 60), slice(30, 90))]
    alone = EchoSelect(BRIEF, select_by="similarity", n_rounds=1, random_state=0).fit(
        X[30:], y[30:]
    )
    np.testing.assert_array_equal(fitted[1].modified_, alone.modified_)
    assert not np.allclose(fitted[0].modified_[30:], fitted[1].modified_[:30])


def test_memory__cross_validation__is_that_without_memory(tmp_path: Path) -> None:
    X, y = table(90)
    found = []
    for memory in (None, tmp_path, tmp_path):
        echo = EchoSelect(BRIEF, select_by="similarity", memory=memory, random_state=0)
        steps = [("echo", echo), ("clf", FlywheelClassifier(max_epochs=4, random_state=0))]
        found.append(cross_val_predict(Pipeline(steps), X, y, cv=2, method="predict_proba"))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def doomed(memory: Path) -> None:
    Counting.die_at = 3
    EchoMod(Counting(), memory=memory, batch_size=10, random_state=0).fit_transform(*table())


def doomed_in_training(memory: Path) -> None:
    Training.die_at = 430
    echo_in_training(memory)


def echo_in_training(memory: Path | None) -> NDArray[Any]:
    modifier = Training(n_train_steps=450, n_steps=3, width=8)
    return EchoMod(modifier, memory=memory, random_state=0).fit_transform(*table())


def kill(target: Any, memory: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=target, args=(memory,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def test_memory__killed_training__goes_on_and_ends_with_the_same_rows(tmp_path: Path) -> None:
    kill(doomed_in_training, tmp_path)
    resumed = echo_in_training(tmp_path)
    assert Training.steps == 50  # 400 of 450 were written
    np.testing.assert_array_equal(resumed, echo_in_training(None))
    assert not list(tmp_path.rglob("checkpoint.pt"))


def test_memory__killed_run__goes_on_where_it_was(tmp_path: Path) -> None:
    kill(doomed, tmp_path)
    settings: dict[str, Any] = {"batch_size": 10, "random_state": 0}
    resumed = EchoMod(Counting(), memory=tmp_path, **settings).fit_transform(*table())
    assert Counting.seen == [10, 10, 10]  # three batches of six were done
    np.testing.assert_array_equal(EchoMod(Counting(), **settings).fit_transform(*table()), resumed)


def everything(memory: Path | None, X: Any = None, y: Any = None) -> EchoSelect:
    """A fit that keeps a generator, an encoder, a classifier and rows."""
    rows, labels = table()
    rater = CrossEntropyClassifier(max_epochs=2, device="cpu")
    echo = EchoSelect(BRIEF, select_by=rater, threshold=0.4, memory=memory, random_state=0)
    return echo.fit(rows if X is None else X, labels if y is None else y)


def assert_same_rows(found: EchoSelect, expected: EchoSelect) -> None:
    np.testing.assert_array_equal(found.modified_, expected.modified_)
    np.testing.assert_array_equal(found.similarities_, expected.similarities_)
    np.testing.assert_array_equal(found.label_quality_, expected.label_quality_)
    X, y = table()
    few = X[:9], y[:9]  # of which a memory holds modified rows, made in batches of another size
    np.testing.assert_allclose(found.similarity(*few), expected.similarity(*few), rtol=1e-6)
    np.testing.assert_array_equal(found.score_labels(*few), expected.score_labels(*few))


def contents(memory: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in sorted(memory.rglob("*")) if file.is_file()}


@pytest.mark.filterwarnings("error")
def test_memory__finds_all_that_it_keeps_and_holds_no_code(tmp_path: Path) -> None:
    first = everything(tmp_path)
    kept = contents(tmp_path)
    assert sorted({file.suffix for file in kept}) == [".keys", ".pt", ".rows"]
    assert len([file for file in kept if file.suffix == ".pt"]) == 3
    second = everything(tmp_path)
    assert contents(tmp_path) == kept
    assert_same_rows(second, first)
    assert second.rater_.get_params() == first.rater_.get_params()


def test_memory__is_found_by_the_same_values_in_other_containers(tmp_path: Path) -> None:
    X, y = table()
    words = np.array(["a", "b", "c"])[y]
    first = everything(tmp_path, X, pd.Series(words))
    kept = contents(tmp_path)
    again = everything(tmp_path, pd.DataFrame(np.asfortranarray(X)).copy(), words.tolist())
    assert contents(tmp_path) == kept
    np.testing.assert_array_equal(first.modified_, again.modified_)


@pytest.mark.filterwarnings("ignore:Every class")
@pytest.mark.filterwarnings("error")
def test_memory__of_a_classifier_with_code_of_the_users_own__finds_it_again(tmp_path: Path) -> None:
    """It was taken for damaged, and what no file holds was warned of."""
    X, y = table()
    rater = CrossEntropyClassifier(
        module=Deep,
        augmentation=torch.neg,
        callbacks=[Strikes("never")],
        max_epochs=2,
        random_state=0,
    ).set_params(module__make=nn.Tanh)
    echo = EchoSelect(BRIEF, select_by=rater, memory=tmp_path, n_rounds=1, random_state=0)
    first, kept = clone(echo).fit(X, y), contents(tmp_path)
    second = clone(echo).fit(X, y)
    assert contents(tmp_path) == kept
    assert_same_rows(second, first)
    assert second.rater_.get_params()["augmentation"] is torch.neg


class Deep(nn.Sequential):
    """A network that is made of a function."""

    def __init__(self, n_features: int, n_classes: int, make: Any) -> None:
        super().__init__(nn.Linear(n_features, 8), make(), nn.Linear(8, n_classes))


DAMAGES: dict[str, Any] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[:25],
    "one bit": lambda content: content[:30] + bytes([content[30] ^ 1]) + content[31:],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_memory__any_damaged_file__is_set_aside_and_made_again(damage: Any, tmp_path: Path) -> None:
    """One flipped bit gave other rows without a word; a cut file blocked every later fit."""
    whole, memory = everything(None), tmp_path / "memory"
    everything(memory)
    for file, content in (kept := contents(memory)).items():
        for other, as_written in kept.items():
            other.write_bytes(as_written)
        file.write_bytes(damage(content))
        torn = file.suffix == ".keys" and len(damage(content)) < 40  # as a killed writer leaves it
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert_same_rows(everything(memory), whole)
        said = any(f"Got {file} with other contents" in str(w.message) for w in caught)
        assert said is not torn
        assert file.with_name(f"{file.name}.damaged").exists() is not torn


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return open, (str(self.file), "w")


def test_memory__planted_code__is_never_run(tmp_path: Path) -> None:
    memory, harm = tmp_path / "memory", tmp_path / "harm"
    everything(memory)
    planted = io.BytesIO()
    torch.save(Payload(harm), planted)
    for file in contents(memory):
        joblib.dump(Payload(harm), file.with_suffix(".joblib"))
        if file.suffix == ".pt":
            write_sealed(file, planted.getvalue(), tmp_path / "tmp")
    with pytest.warns(NoisyFitWarning, match="other contents"):
        found = everything(memory)
    assert not harm.exists()
    assert_same_rows(found, everything(None))


def test_memory__rows_of_another_shape__are_passed_over(tmp_path: Path) -> None:
    X, y = table()
    settings: dict[str, Any] = {"memory": tmp_path, "random_state": 0}
    EchoMod(Counting(), **settings).fit_transform(X, y)
    EchoMod(Counting(), **settings).fit_transform(np.c_[X, X], y)
    EchoMod(Counting(), **settings).fit_transform(X, y)
    assert sum(Counting.seen) == 120


class Coded(Counting):
    """Learns a function, which only code can keep."""

    fits = 0

    def fit(self, x: Tensor, y: NDArray[Any], generator: torch.Generator) -> Coded:
        Coded.fits += 1
        self.learned = lambda rows: rows
        return self


def test_memory__of_a_generator_that_learns_code__says_that_it_trains_again(tmp_path: Path) -> None:
    for n_fits in (1, 2):
        with pytest.warns(NoisyFitWarning, match="Got a Coded that has more.*'learned'.*get_state"):
            EchoMod(Coded(), memory=tmp_path, random_state=0).fit_transform(*table())
        assert Coded.fits == n_fits


def test_memory__impossible_folder__is_an_error_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="memory.*choose another folder.*file"):
        EchoMod(Training(), memory=tmp_path / "file", random_state=0).fit(*table())
    assert Training.steps == 0


def test_memory__of_fits_at_once__is_that_of_one(tmp_path: Path) -> None:
    """The first to end removed the folder of the training under the others."""
    process = multiprocessing.get_context("fork").Process(target=echo_in_training, args=(tmp_path,))
    process.start()
    found = echo_in_training(tmp_path)
    process.join()
    assert process.exitcode == 0
    np.testing.assert_array_equal(found, echo_in_training(None))


def inverted(x: Tensor, labels: Any, generator: Any) -> Tensor:
    return 255 - x


@pytest.mark.parametrize("encoder", [ContrastiveEmbedder(n_train_steps=2), StandardizedFeatures()])
def test_memory__of_an_encoder__embeds_as_it_did(encoder: Any, tmp_path: Path) -> None:
    X, y = images(20)
    echo = EchoSelect(inverted, encoder, memory=tmp_path, random_state=0)
    first = clone(echo).fit(X, y).similarities_
    kept = contents(tmp_path)
    np.testing.assert_array_equal(clone(echo).fit(X, y).similarities_, first)
    assert contents(tmp_path) == kept


# Whole or not at all.


class Fault:
    """What goes wrong, and when: set by the test, unknown to the estimator."""

    moment: str | None = None
    error: type[BaseException] = ValueError

    @classmethod
    def strike(cls, moment: str) -> None:
        if moment == cls.moment:
            raise cls.error


class Fragile(ConditionalDiffusion):
    """A generator that breaks in its training or in its use."""

    def _loss(self, network: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
        Fault.strike("training of the generator")
        return super()._loss(network, x, labels)

    def modify(self, x: Tensor, y: NDArray[Any], generator: torch.Generator) -> Tensor:
        Fault.strike("modification")
        return super().modify(x, y, generator)


class FragileFeatures(StandardizedFeatures):
    """Features that break when they are learned, or when modified rows are compared."""

    def fit(self, x: Tensor, generator: torch.Generator) -> FragileFeatures:
        Fault.strike("training of the embedder")
        super().fit(x, generator)
        return self


class Strikes(Callback):
    """A classifier that breaks, in a moment of its own."""

    def __init__(self, moment: str) -> None:
        self.moment = moment

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        if len(net.history) == 2:
            Fault.strike(self.moment)


def fragile(kind: Any) -> Any:
    modifier = Fragile(n_train_steps=5, n_steps=2, width=8)
    if kind is EchoMod:
        return EchoMod(modifier, random_state=0)
    rater = CrossEntropyClassifier(max_epochs=3, callbacks=[Strikes("training of the rater")])
    selector = EchoSelect(modifier, FragileFeatures(), select_by=rater, random_state=0)
    if kind is EchoSelectSampler:
        return EchoSelectSampler(selector)
    if kind is EchoSelect:
        return selector
    inner = CrossEntropyClassifier(
        max_epochs=3, callbacks=[Strikes("training of the classifier")], random_state=0
    )
    return EchoAlignClassifier(inner, selector, random_state=0)


SELECTION = ("training of the embedder", "training of the rater", "training of the generator")
MOMENTS: dict[tuple[Any, str], tuple[str, ...]] = {
    (EchoMod, "fit"): ("training of the generator",),
    (EchoMod, "fit_transform"): ("training of the generator", "modification"),
    (EchoSelect, "fit"): (*SELECTION, "modification"),
    (EchoSelect, "fit_transform"): (*SELECTION, "modification"),
    (EchoSelectSampler, "fit"): ("modification",),
    (EchoSelectSampler, "fit_resample"): ("modification",),
    (EchoAlignClassifier, "fit"): (*SELECTION, "modification", "training of the classifier"),
}
BREAKS = [(*how, moment) for how, moments in MOMENTS.items() for moment in moments]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
@pytest.mark.parametrize(
    "kind, method, moment", BREAKS, ids=[f"{k.__name__}.{m}-{at}" for k, m, at in BREAKS]
)
def test_fit_that_is_broken_off__leaves_the_old_model_or_none(
    kind: Any,
    method: str,
    moment: str,
    error: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Classes, rows and labels of the new fit stood beside the old classifier."""
    X, y = table()
    frame = pd.DataFrame(X, columns=list("abcd"))
    fresh, model = fragile(kind), fragile(kind)
    model.fit(frame, y)
    before, said = dict(vars(model)), answers(model, frame, y)
    monkeypatch.setattr(Fault, "moment", moment)
    monkeypatch.setattr(Fault, "error", error)
    unfitted = dict(vars(fresh))
    for broken, expected in ((fresh, unfitted), (model, before)):
        with pytest.raises(error):
            getattr(broken, method)(X[::-1, :3], np.array(["x", "y", "z"])[y])
        assert vars(broken).keys() == expected.keys()
        assert all(vars(broken)[name] is value for name, value in expected.items())
    monkeypatch.setattr(Fault, "moment", None)
    for found, expected in zip(answers(model, frame, y), said, strict=True):
        np.testing.assert_array_equal(found, expected)


def answers(model: Any, X: Any, y: Any) -> list[Any]:
    """All that a fitted model says."""
    found = [
        getattr(model, name)(X) for name in ("transform", "predict_proba") if hasattr(model, name)
    ]
    if hasattr(model, "score_labels"):
        found += [model.score_labels(X, y), model.label_quality_]
    return found


def test_memory__set_after_the_fit__is_that_of_the_next_fit(tmp_path: Path) -> None:
    """Similarities of new rows asked for a folder that no fit had chosen."""
    X, y = table()
    echo = EchoSelect(BRIEF, select_by="similarity", n_rounds=1, random_state=0).fit(X, y)
    expected = echo.similarity(X[:9], y[:9])
    np.testing.assert_array_equal(
        echo.set_params(memory=tmp_path).similarity(X[:9], y[:9]), expected
    )
    assert not list(tmp_path.iterdir())


def test_fit__again_without_names__forgets_those_of_the_earlier_fit() -> None:
    """feature_names_in_ of the earlier fit stayed."""
    X, y = table()
    for kind in (EchoSelectSampler, EchoAlignClassifier):
        model = fragile(kind).fit(pd.DataFrame(X, columns=list("abcd")), y)
        assert not hasattr(model.fit(X, y), "feature_names_in_")


# In pipelines.


def test_pipeline__fits_predicts_and_is_searched() -> None:
    X, y = table(90)
    noisy = noise.symmetric(y, 0.2, random_state=0).labels
    steps = [
        ("echo", EchoSelect(BRIEF, select_by="similarity", random_state=0)),
        ("clf", FlywheelClassifier(max_epochs=6, random_state=0)),
    ]
    pipeline = Pipeline(steps).fit(X, noisy)
    assert pipeline.score(X, y) > 0.8
    grid = {"echo__threshold": [0.2, "otsu"], "echo__modifier__strength": [0.5, 0.9]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X, noisy)
    assert search.predict(X).shape == (90,)
    assert len(search.cv_results_["params"]) == 4


def test_sampler__drops_rows_as_imbalanced_learn_does() -> None:
    X, y = table()
    echo = EchoSelect(BRIEF, select_by="similarity", random_state=0)
    sampler = clone(EchoSelectSampler(echo))
    X_kept, y_kept = sampler.fit_resample(X, y)
    kept = np.flatnonzero(echo.fit(X, y).support_)
    np.testing.assert_array_equal(sampler.sample_indices_, kept)
    np.testing.assert_array_equal(X_kept, X[kept])
    np.testing.assert_array_equal(y_kept, y[kept])


def test_sampler__frames__stay_frames_under_their_index() -> None:
    X, y = table()
    frame = pd.DataFrame(X, columns=[f"c{i}" for i in range(X.shape[1])]).add_suffix("!")
    frame.index = [f"row {i}" for i in range(len(X))]
    labels = pd.Series(y, frame.index, name="kind")
    sampler = EchoSelectSampler(EchoSelect(BRIEF, select_by="similarity", random_state=0))
    X_kept, y_kept = sampler.fit_resample(frame, labels)
    pd.testing.assert_frame_equal(X_kept, frame.iloc[sampler.sample_indices_])
    pd.testing.assert_series_equal(y_kept, labels.iloc[sampler.sample_indices_])
    assert sampler.n_features_in_ == X.shape[1]
    assert sampler.feature_names_in_.tolist() == frame.columns.tolist()


def test_sampler__stands_in_a_pipeline_of_imbalanced_learn() -> None:
    imblearn = pytest.importorskip("imblearn.pipeline")
    X, y = table()
    sampler = EchoSelectSampler(EchoSelect(BRIEF, select_by="similarity", random_state=0))
    classify = FlywheelClassifier(max_epochs=4, random_state=0)
    pipeline = imblearn.Pipeline([("sample", sampler), ("clf", classify)]).fit(X, y)
    assert len(pipeline["clf"].label_quality_) == len(pipeline["sample"].sample_indices_)
    assert pipeline.predict(X).shape == (60,)
