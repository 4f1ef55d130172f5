"""Which classes are mistaken for which."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from noisyfit import TransitionMatrixDisplay, noise
from tests.helpers import blobs, small_fit

plt = pytest.importorskip("matplotlib.pyplot")
TRUE = np.array(["cat", "cat", "cat", "dog", "dog", "emu"])
GIVEN = np.array(["cat", "dog", "cat", "dog", "emu", "emu"])


def naive_matrix(true: Any, given: Any, classes: list[Any]) -> NDArray[np.float64]:
    """Count pair by pair."""
    matrix = np.zeros((len(classes), len(classes)))
    for i, a in enumerate(classes):
        n = sum(t == a for t in true)
        for j, b in enumerate(classes):
            hits = sum(t == a and g == b for t, g in zip(true, given, strict=True))
            matrix[i, j] = hits / n if n else i == j
    return matrix


def values_of(display: TransitionMatrixDisplay) -> Any:
    return display.im_.get_array()


def names_on(axis: Any) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def test_from_estimator__draws_its_matrix_with_its_classes() -> None:
    X, y = blobs(60)
    clf = small_fit(X, np.array(["a", "b", "c"])[y])
    display = TransitionMatrixDisplay.from_estimator(clf)
    np.testing.assert_allclose(values_of(display), clf.transition_matrix_)
    assert names_on(display.ax_.xaxis) == names_on(display.ax_.yaxis) == ["a", "b", "c"]
    assert display.im_.get_clim() == (0, 1)
    assert display.ax_.get_ylabel() == "True class"


def test_from_predictions__cells_are_shares_of_each_true_class() -> None:
    display = TransitionMatrixDisplay.from_predictions(TRUE, GIVEN)
    expected = naive_matrix(TRUE, GIVEN, ["cat", "dog", "emu"])
    np.testing.assert_allclose(values_of(display), expected)
    assert display.text_ is not None
    for cell, value in zip(display.text_.flat, expected.flat, strict=True):
        assert cell.get_text() == f"{value:.2f}"
    corner = display.text_[0, 1]  # true cat, given dog: second column of the first row
    assert corner.get_position() == (1, 0)
    assert corner.get_text() == "0.33"


@pytest.mark.parametrize(
    "names",
    [[1, 2, 3], [1.0, 2.0, 3.0], ["a", "b", "c"], np.array(["2020", "2021", "2022"], "M8[Y]")],
    ids=["int", "float", "str", "date"],
)
def test_from_predictions__classes_of_any_type(names: Any) -> None:
    classes = np.asarray(names)
    codes = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2])
    display = TransitionMatrixDisplay.from_predictions(*(classes[c] for c in codes))
    assert names_on(display.ax_.xaxis) == [str(c) for c in classes]
    np.testing.assert_allclose(values_of(display), naive_matrix(*codes, [0, 1, 2]))


def test_from_predictions__booleans() -> None:
    display = TransitionMatrixDisplay.from_predictions([True, False, True], [True, True, False])
    assert names_on(display.ax_.xaxis) == ["False", "True"]
    np.testing.assert_allclose(values_of(display), np.array([[0.0, 1.0], [0.5, 0.5]]))


@pytest.mark.parametrize("gap, marker", [(None, np.nan), (np.nan, None), ("?", "?")])
def test_from_predictions__rows_without_a_label_do_not_count(gap: Any, marker: Any) -> None:
    true, given = [*TRUE, gap, "cat", gap], [*GIVEN, "cat", gap, gap]
    marker = {"missing_label": marker} if isinstance(marker, str) else {}
    display = TransitionMatrixDisplay.from_predictions(true, given, **marker)
    expected = naive_matrix(TRUE, GIVEN, ["cat", "dog", "emu"])
    np.testing.assert_allclose(values_of(display), expected)


def test_from_predictions__labels_give_order_and_classes_without_rows() -> None:
    order = ["yak", "emu", "dog", "cat"]
    display = TransitionMatrixDisplay.from_predictions(TRUE, GIVEN, labels=order)
    np.testing.assert_allclose(values_of(display), naive_matrix(TRUE, GIVEN, order))
    assert names_on(display.ax_.yaxis) == order


def test_plot__one_class() -> None:
    display = TransitionMatrixDisplay.from_predictions(["a"], ["a"])
    assert display.text_ is not None
    assert display.text_[0, 0].get_text() == "1.00"


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_plot__values_can_be_read_on_their_cells(style: str) -> None:
    with plt.style.context(style):
        display = TransitionMatrixDisplay([[1.0, 0.0], [0.45, 0.55]]).plot()
    assert display.text_ is not None
    assert display.text_[0, 0].get_color() == "black"  # on yellow
    assert display.text_[0, 1].get_color() == "white"  # on violet


def overlap(axis: Any, side: str) -> bool:
    """Whether names cover each other along an axis."""
    extents = [label.get_window_extent() for label in axis.get_ticklabels() if label.get_text()]
    spans = sorted((getattr(e, f"{side}0"), getattr(e, f"{side}1")) for e in extents)
    return any(before[1] > after[0] for before, after in pairwise(spans))


@pytest.mark.parametrize("n_classes", [2, 10, 100])
@pytest.mark.parametrize("name", ["{}", "class {}", "a class with a name of many words, {}"])
def test_plot__names_do_not_overlap(n_classes: int, name: str) -> None:
    names = [name.format(k) for k in range(n_classes)]
    display = TransitionMatrixDisplay(np.eye(n_classes), display_labels=names).plot()
    display.figure_.canvas.draw()
    assert not overlap(display.ax_.xaxis, "x")
    assert not overlap(display.ax_.yaxis, "y")
    assert len(names_on(display.ax_.yaxis)) >= min(n_classes, 5)


def test_plot__small_axes__names_do_not_overlap() -> None:
    figure, axes = plt.subplots(2, 3, figsize=(6, 3))
    display = TransitionMatrixDisplay(np.eye(12)).plot(ax=axes[0, 0])
    figure.canvas.draw()
    assert not overlap(display.ax_.xaxis, "x")
    assert not overlap(display.ax_.yaxis, "y")
    assert display.text_ is None


def test_plot__ten_digits__all_are_named_and_all_values_shown() -> None:
    display = TransitionMatrixDisplay(np.eye(10)).plot()
    assert names_on(display.ax_.xaxis) == [str(k) for k in range(10)]
    assert display.text_ is not None
    display.figure_.canvas.draw()
    widths = [text.get_window_extent().width for text in display.text_.flat]
    assert max(widths) < display.ax_.get_window_extent().width / 10


def test_plot__a_hundred_classes__has_no_values_and_names_in_their_places() -> None:
    names = [f"class {k}" for k in range(100)]
    display = TransitionMatrixDisplay(np.eye(100), display_labels=names).plot()
    assert display.text_ is None
    assert not display.ax_.texts
    for place, name in zip(display.ax_.get_yticks(), names_on(display.ax_.yaxis), strict=True):
        assert name == f"class {place:.0f}"


def test_plot__values_asked_for__are_written_however_small() -> None:
    display = TransitionMatrixDisplay(np.eye(30)).plot(include_values=True, values_format=".0%")
    assert display.text_ is not None
    assert display.text_[0, 0].get_text() == "100%"
    assert TransitionMatrixDisplay(np.eye(2)).plot(include_values=False).text_ is None


def test_plot__keywords_reach_the_artists() -> None:
    looks: dict[str, Any] = {"im_kw": {"vmax": 0.5}, "text_kw": {"size": 7, "c": "red"}}
    display = TransitionMatrixDisplay(np.eye(2)).plot(cmap="gray", colorbar=False, **looks)
    assert display.im_.get_clim() == (0, 0.5)
    assert display.im_.get_cmap().name == "gray"
    assert display.text_ is not None
    assert (display.text_[0, 0].get_fontsize(), display.text_[0, 0].get_color()) == (7, "red")
    assert display.figure_.get_axes() == [display.ax_]


def test_plot__norm__replaces_the_scale() -> None:
    norm = plt.matplotlib.colors.LogNorm(0.01, 0.5)
    assert TransitionMatrixDisplay(np.full((2, 2), 0.5)).plot(im_kw={"norm": norm}).im_.norm is norm


def test_plot__simulated_matrix() -> None:
    noisy = noise.pairflip(np.arange(50) % 5, 0.4, random_state=0)
    display = TransitionMatrixDisplay(noisy.transition).plot()
    np.testing.assert_allclose(values_of(display), noisy.transition)


@pytest.mark.parametrize("matrix, names", [(np.eye(3)[:2], None), (np.eye(2), ["a"]), ([], None)])
def test_plot__wrong_shape__says_what_came(matrix: Any, names: Any) -> None:
    with pytest.raises(ValueError, match=r"must have shape \(n_classes, n_classes\).* Got shape"):
        TransitionMatrixDisplay(matrix, display_labels=names).plot()
