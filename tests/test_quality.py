from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from noisyfit.quality import (
    corrected_labels,
    find_label_issues,
    is_label_issue,
    label_issues_frame,
    normalized_margin,
    self_confidence,
    small_loss_probability,
)

PROBS = np.array([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4], [0.0, 1.0, 0.0], [0.5, 0.5, 0.0]])
LABELS = np.array([0, 1, 0, 1])


def test_self_confidence_is_the_probability_of_the_given_label() -> None:
    expected = [PROBS[i][LABELS[i]] for i in range(4)]
    assert self_confidence(LABELS, PROBS).tolist() == expected


def test_normalized_margin_is_the_lead_over_the_best_other_class() -> None:
    expected = []
    for i in range(4):
        others = [PROBS[i][k] for k in range(3) if k != LABELS[i]]
        expected.append((PROBS[i][LABELS[i]] - max(others) + 1) / 2)
    np.testing.assert_allclose(normalized_margin(LABELS, PROBS), expected, rtol=1e-12)
    assert normalized_margin([0, 1], [[1.0, 0.0], [1.0, 0.0]]).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("score", [self_confidence, normalized_margin])
def test_scores__no_label__are_nan(score: Callable[..., NDArray[Any]]) -> None:
    quality = score([-1, 2], PROBS[:2])
    assert np.isnan(quality[0])
    assert not np.isnan(quality[1])


@pytest.mark.parametrize("score", [self_confidence, normalized_margin])
def test_scores__no_rows_or_one_class__work(score: Callable[..., NDArray[Any]]) -> None:
    assert score(np.empty(0, dtype=int), np.empty((0, 3))).shape == (0,)
    assert score([0, 0], [[1.0], [1.0]]).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("score", [self_confidence, normalized_margin])
def test_scores__float32_above_one__stay_within_bounds(score: Callable[..., NDArray[Any]]) -> None:
    quality = score([0], np.array([[1.0000002, 0.0]], dtype=np.float32))
    assert quality.dtype == np.float64
    assert quality.tolist() == [1.0]


def test_probabilities_are_left_alone() -> None:
    probs = PROBS.copy()
    normalized_margin(LABELS, probs)
    np.testing.assert_array_equal(probs, PROBS)


def test_issue_needs_another_belief_and_a_low_quality() -> None:
    belief = [[0.9, 0.1], [0.1, 0.9], [0.1, 0.9], [0.9, 0.1]]
    quality = [0.9, 0.9, 0.1, 0.1]
    assert is_label_issue([0, 0, 0, 0], belief, quality).tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    "label, quality, expected",
    [(0, 0.5, False), (0, 0.49, True), (0, np.nan, False), (-1, 0.1, False), (-1, np.nan, False)],
)
def test_issue__boundary_or_unknown__is_none(label: int, quality: float, expected: bool) -> None:
    assert is_label_issue([label], [[0.2, 0.8]], [quality]).tolist() == [expected]


def test_issue__tie_with_the_given_label__is_none() -> None:
    assert is_label_issue([1], [[0.4, 0.4, 0.2]], [0.4]).tolist() == [False]


def test_issue__quality_of_another_length__is_refused() -> None:
    with pytest.raises(ValueError, match=r"quality must have one entry per label, shape \(4,\)"):
        is_label_issue(LABELS, PROBS, [0.5])


@pytest.mark.parametrize("margin", [0.0, 0.15, 1.0])
def test_corrected_labels_keep_the_given_one_within_the_margin(margin: float) -> None:
    labels = [0, 0, 2, -1]
    expected = []
    for i in range(4):
        best = max(range(3), key=lambda k: PROBS[i][k])
        near = labels[i] >= 0 and max(PROBS[i]) - PROBS[i][labels[i]] <= margin
        expected.append(labels[i] if near else best)
    assert corrected_labels(labels, PROBS, margin).tolist() == expected


def test_corrected_labels__tie__keeps_the_given_one() -> None:
    assert corrected_labels([0, 1, 2], [[0.4, 0.4, 0.2]] * 3).tolist() == [0, 1, 0]


@pytest.mark.parametrize("margin", [-0.1, 1.1, float("nan")])
def test_corrected_labels__bad_margin__is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match=r"margin must lie in \[0, 1\]"):
        corrected_labels(LABELS, PROBS, margin)


@pytest.mark.parametrize(
    "labels, probs, message",
    [
        ([0, 1], PROBS, r"labels must have shape \(n_samples,\)"),
        ([0], [0.5], r"labels must have shape \(n_samples,\)"),
        ([[0, 1, 0, 1]], PROBS, r"labels must have shape \(n_samples,\)"),
        ([0, 1, 0, 3], PROBS, "integer codes from 0 to 2"),
        ([0, 1, 0, -2], PROBS, "integer codes from 0 to 2"),
        ([0.0, 1.0, 0.0, 1.0], PROBS, "integer codes from 0 to 2"),
        (["a", "b", "a", "b"], PROBS, "integer codes from 0 to 2"),
        ([True, False, True, False], PROBS, "integer codes from 0 to 2"),
        (LABELS, PROBS * 9, "Apply a softmax"),
        (LABELS, -PROBS, "Apply a softmax"),
        (LABELS, PROBS * np.nan, "leave out rows with NaN"),
    ],
)
@pytest.mark.parametrize(
    "function",
    [
        self_confidence,
        normalized_margin,
        corrected_labels,
        find_label_issues,
        lambda labels, probs: is_label_issue(labels, probs, np.ones(4)),
    ],
)
def test_input__does_not_fit__says_what_must_hold(
    function: Callable[..., Any], labels: Any, probs: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        function(labels, probs)


@pytest.mark.parametrize(
    "given",
    [["cat", "dog"], [True, False], [5, 7], np.array(["x", 3], dtype=object)],
)
def test_frame_has_the_columns_of_cleanlab_and_the_index_of_the_user(given: Any) -> None:
    index = pd.Index(["row 9", "row 4"], name="file")
    frame = label_issues_frame([True, False], [0.1, np.nan], given, given[::-1], index)
    assert list(frame.columns) == [
        "is_label_issue",
        "label_quality",
        "given_label",
        "predicted_label",
    ]
    assert frame.index.equals(index)
    assert frame["is_label_issue"].dtype == bool
    assert frame["given_label"].tolist() == list(given)
    assert frame["predicted_label"].tolist() == list(given[::-1])


def test_frame__series_with_their_own_index__are_taken_in_order() -> None:
    given = pd.Series(["a", "b"], index=[7, 3])
    frame = label_issues_frame([True, False], pd.Series([0.1, 0.9]), given, given, index=[3, 7])
    assert frame["given_label"].tolist() == ["a", "b"]
    assert frame["label_quality"].tolist() == [0.1, 0.9]
    assert label_issues_frame([True], [0.1], ["a"], ["b"]).index.tolist() == [0]


def test_frame__columns_of_different_lengths__names_the_lengths() -> None:
    with pytest.raises(ValueError, match="'label_quality': 1"):
        label_issues_frame([True, False], [0.1], ["a", "b"], ["a", "b"])


def _easy_problem(seed: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(seed)
    clean = np.arange(300) % 3
    probs = np.full((300, 3), 0.05)
    probs[np.arange(300), clean] = 0.9
    flipped = rng.random(300) < 0.1
    return np.where(flipped, (clean + 1) % 3, clean), flipped, probs


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_confident_learning_finds_wrong_labels(seed: int) -> None:
    labels, flipped, probs = _easy_problem(seed)
    issues = find_label_issues(labels, probs)
    assert issues.dtype == bool
    assert (issues & flipped).sum() >= 0.9 * flipped.sum()
    assert not issues[~flipped].any()


def test_confident_learning__rows_without_a_label__are_no_issue_and_change_nothing() -> None:
    labels, _, probs = _easy_problem(0)
    unlabelled = np.arange(300) % 4 == 0
    issues = find_label_issues(np.where(unlabelled, -1, labels), probs)
    assert not issues[unlabelled].any()
    expected = find_label_issues(labels[~unlabelled], probs[~unlabelled])
    np.testing.assert_array_equal(issues[~unlabelled], expected)
    assert expected.any()


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [-1, -1, -1, -1], [1, -1, 1, -1]])
def test_confident_learning__fewer_than_two_classes__is_refused(labels: list[int]) -> None:
    with pytest.raises(ValueError, match="labels must hold at least two classes"):
        find_label_issues(labels, PROBS)


def test_confident_learning__class_without_labels__works() -> None:
    labels, _, probs = _easy_problem(0)
    rows = labels != 2
    with pytest.warns(UserWarning, match="class: 2"):
        issues = find_label_issues(labels[rows], probs[rows])
    assert issues.shape == (rows.sum(),)


def test_small_loss_probability_tells_two_groups_apart() -> None:
    rng = np.random.default_rng(0)
    small, large = rng.normal(0.3, 0.1, 600), rng.normal(2.0, 0.5, 400)
    found = small_loss_probability(np.concatenate([small, large]))
    assert (found[:600] > 0.5).mean() > 0.99
    assert (found[600:] < 0.5).mean() > 0.95


@pytest.mark.parametrize("few", ["small", "large"])
def test_small_loss_probability__unequal_groups__are_not_swapped(few: str) -> None:
    rng = np.random.default_rng(0)
    sizes = (20, 400) if few == "small" else (400, 20)
    losses = np.concatenate([rng.normal(0.3, 0.05, sizes[0]), rng.normal(3.0, 0.3, sizes[1])])
    found = small_loss_probability(losses)
    assert found[: sizes[0]].min() > 0.5 > found[sizes[0] :].max()


@pytest.mark.parametrize("losses", [[], [2.0], [1.5] * 7], ids=["none", "one", "equal"])
def test_small_loss_probability__nothing_to_tell_apart__believes_all(losses: list[float]) -> None:
    assert small_loss_probability(np.array(losses)).tolist() == [1.0] * len(losses)


@pytest.mark.filterwarnings("error")
def test_small_loss_probability__two_distinct_losses__gives_no_warning() -> None:
    assert small_loss_probability(np.array([0.0, 1.0])).tolist() == pytest.approx([1, 0], abs=1e-6)
