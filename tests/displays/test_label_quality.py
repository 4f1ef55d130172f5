"""How far apart the qualities of right and wrong labels are."""

from typing import Any

import numpy as np
import pytest

from noisyfit import CrossEntropyClassifier, LabelQualityDisplay
from noisyfit.metrics import detection_auroc
from tests.helpers import noisy_blobs

plt = pytest.importorskip("matplotlib.pyplot")


def naive_counts(values: Any, n_bins: int) -> list[int]:
    """Count value by value; the last bin includes 1."""
    counts = [0] * n_bins
    for value in values:
        counts[min(int(value * n_bins), n_bins - 1)] += 1
    return counts


def counts_of(display: LabelQualityDisplay) -> list[list[int]]:
    return [histogram.get_data()[0].tolist() for histogram in display.histograms_]


def legend_of(display: LabelQualityDisplay) -> tuple[str, list[str]]:
    legend = display.ax_.get_legend()
    assert legend is not None
    return legend.get_title().get_text(), [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize("seed", range(3))
def test_from_predictions__right_and_wrong_labels_are_counted_apart(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rating, flipped = np.round(rng.random(200), 3), rng.random(200) < 0.3
    display = LabelQualityDisplay.from_predictions(rating, flipped=flipped, bins=8)
    assert counts_of(display) == [
        naive_counts(rating[~flipped], 8),
        naive_counts(rating[flipped], 8),
    ]
    assert display.auroc == detection_auroc(flipped, rating)
    title, names = legend_of(display)
    assert title == f"(AUROC = {display.auroc:.2f})"
    assert names == [f"right labels ({(~flipped).sum()})", f"wrong labels ({flipped.sum()})"]


def test_from_estimator__truth_known_or_not() -> None:
    X, given, flipped = noisy_blobs()
    true = np.where(flipped, (given + 1) % 3, given)
    clf = CrossEntropyClassifier(max_epochs=3, random_state=0).fit(X, given)
    plain = LabelQualityDisplay.from_estimator(clf, bins=5)
    assert counts_of(plain) == [naive_counts(clf.label_quality_, 5)]
    assert legend_of(plain) == ("CrossEntropyClassifier", ["labels (240)"])
    told = LabelQualityDisplay.from_estimator(clf, y_true=true, bins=5)
    parts = clf.label_quality_[~flipped], clf.label_quality_[flipped]
    assert counts_of(told) == [naive_counts(part, 5) for part in parts]
    auroc = detection_auroc(flipped, clf.label_quality_)
    assert legend_of(told)[0] == f"CrossEntropyClassifier (AUROC = {auroc:.2f})"


def test_from_estimator__rows_without_a_given_or_a_true_label_are_left_out() -> None:
    X, given, _ = noisy_blobs()
    names = np.array(["a", "b", "c"], dtype=object)
    y, true = names[given], names[given]
    y[:10], true[5:30] = None, None
    true[-1] = "a" if true[-1] != "a" else "b"
    clf = CrossEntropyClassifier(max_epochs=1, missing_label=np.nan, random_state=0).fit(X, y)
    display = LabelQualityDisplay.from_estimator(clf, y_true=true)
    assert [sum(counts) for counts in counts_of(display)] == [209, 1]
    assert display.auroc == np.mean(clf.label_quality_[30:-1] > clf.label_quality_[-1])


@pytest.mark.parametrize("wrong", [False, True])
def test_from_predictions__all_right_or_all_wrong__has_no_auroc(wrong: bool) -> None:
    display = LabelQualityDisplay.from_predictions([0.2], flipped=[wrong], bins=2, name="one row")
    assert display.auroc is None
    assert counts_of(display) == [[int(not wrong), 0], [int(wrong), 0]]
    assert legend_of(display)[0] == "one row"


def test_plot__values_beyond_0_to_1__are_all_drawn() -> None:
    display = LabelQualityDisplay.from_predictions([-1.0, -0.5, 0.5, np.nan], bins=4)
    values, edges, _ = display.histograms_[0].get_data()
    assert np.asarray(values).tolist() == [1, 1, 0, 1]
    np.testing.assert_allclose(edges, [-1, -0.5, 0, 0.5, 1])


def test_plot__nothing_rated__is_an_error() -> None:
    with pytest.raises(ValueError, match="must hold a number. Got NaN in all of 2 rows"):
        LabelQualityDisplay.from_predictions([np.nan, np.nan])


@pytest.mark.parametrize("flipped", [[True], [0.5, 1.0], [[True, False]]])
def test_from_predictions__mask_that_does_not_fit__is_an_error(flipped: Any) -> None:
    with pytest.raises(ValueError, match="flipped be a boolean mask of the same shape"):
        LabelQualityDisplay.from_predictions([0.1, 0.2], flipped=flipped)


def test_from_estimator__truth_of_other_rows__is_an_error() -> None:
    X, given, _ = noisy_blobs()
    clf = CrossEntropyClassifier(max_epochs=1, random_state=0).fit(X, given)
    with pytest.raises(ValueError, match=r"one label for each row of fit, shape \(240,\)"):
        LabelQualityDisplay.from_estimator(clf, y_true=given[:-1])
