"""The most suspicious labels, with their images or rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.sparse import csr_array

from noisyfit import CrossEntropyClassifier, LabelIssuesDisplay, quality
from tests.helpers import Mapped, as_memmap, noisy_blobs

plt = pytest.importorskip("matplotlib.pyplot")
RATING = [0.4, np.nan, 0.1, 0.9, 0.2, 0.0]
IS_ISSUE = [True, False, True, False, True, False]
ISSUES = quality.label_issues_frame(
    IS_ISSUE, RATING, list("aabbcc"), list("bbccaa"), index=[f"img{i}" for i in range(6)]
)
SHOWN = [2, 4, 0]  # by quality


def titles(display: LabelIssuesDisplay) -> list[str]:
    return [axes.get_title() for axes in display.axes_]


def cells(display: LabelIssuesDisplay) -> list[list[str]]:
    assert display.table_ is not None
    found = display.table_.get_celld()
    n_rows, n_columns = (1 + max(place[k] for place in found) for k in (0, 1))
    return [
        [found[row, column].get_text().get_text() for column in range(n_columns)]
        for row in range(n_rows)
    ]


def pictures(display: LabelIssuesDisplay) -> list[Any]:
    return [np.asarray(image.get_array()) for image in display.images_]


@pytest.fixture
def grey() -> Any:
    return np.random.default_rng(0).random((6, 5, 4))


def test_images__are_the_issues__the_worst_first(grey: Any) -> None:
    display = LabelIssuesDisplay.from_predictions(ISSUES, grey)
    assert titles(display) == [
        "img2, quality 0.10\ngiven b\nsuggested c",
        "img4, quality 0.20\ngiven c\nsuggested a",
        "img0, quality 0.40\ngiven a\nsuggested b",
    ]
    for picture, row in zip(pictures(display), SHOWN, strict=True):
        np.testing.assert_allclose(picture, grey[row], rtol=1e-6)
    assert display.table_ is None


def test_images__n_issues__limits(grey: Any) -> None:
    display = LabelIssuesDisplay.from_predictions(ISSUES, grey, n_issues=2, n_columns=1)
    assert len(display.images_) == len(display.axes_) == 2
    first, second = (axes.get_position() for axes in display.axes_)
    assert first.x0 == pytest.approx(second.x0)
    assert first.y0 > second.y1


@pytest.mark.parametrize("low, high", [(0, 16), (-1, 1), (0, 255), (3, 3)])
def test_images__floats_on_any_scale__span_black_to_white(low: float, high: float) -> None:
    X = np.full((6, 2, 2), low, dtype=float)
    X[:, 0, 0] = high
    picture = pictures(LabelIssuesDisplay.from_predictions(ISSUES, X))[0]
    assert picture[1, 1] == 0
    assert picture[0, 0] == float(high > low)


def test_images__bytes__keep_their_scale() -> None:
    X = np.full((6, 2, 2, 3), 51, dtype=np.uint8)
    picture = pictures(LabelIssuesDisplay.from_predictions(ISSUES, X))[0]
    np.testing.assert_allclose(picture, 0.2, rtol=1e-6)


@pytest.mark.parametrize("container", ["array", "list", "tensor", "memmap", "dataset"])
@pytest.mark.parametrize("layout", ["HWC", "CHW"])
def test_images__any_container_and_layout(container: str, layout: str, tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).random((6, 5, 4, 3)).astype(np.float32)
    X = rgb if layout == "HWC" else np.ascontiguousarray(rgb.transpose(0, 3, 1, 2))
    made: dict[str, Any] = {
        "array": lambda: X,
        "list": lambda: list(X),
        "tensor": lambda: torch.as_tensor(X),
        "memmap": lambda: as_memmap(X, tmp_path),
        "dataset": lambda: Mapped([torch.as_tensor(x) for x in X]),
    }
    display = LabelIssuesDisplay.from_predictions(
        ISSUES, made[container](), image_layout=layout if layout == "CHW" else "auto"
    )
    for picture, row in zip(pictures(display), SHOWN, strict=True):
        np.testing.assert_allclose(picture, rgb[row], rtol=1e-6)


@pytest.mark.parametrize("container", ["paths", "strings", "series", "frame"])
def test_images__files(container: str, tmp_path: Path) -> None:
    files = [tmp_path / f"{i}.png" for i in range(6)]
    for i, file in enumerate(files):
        Image.new("RGB", (4, 3), (40 * i, 0, 255)).save(file)
    names = [str(file) for file in files]
    made: dict[str, Any] = {
        "paths": files,
        "strings": names,
        "series": pd.Series(names),
        "frame": pd.DataFrame({"file": names}),
    }
    shown = pictures(LabelIssuesDisplay.from_predictions(ISSUES, made[container]))
    assert [picture.shape for picture in shown] == [(3, 4, 3)] * 3
    assert [round(255 * picture[0, 0, 0]) for picture in shown] == [80, 160, 0]


@pytest.mark.parametrize("container", ["array", "list", "sparse", "tensor", "dataset"])
def test_table__numbers__first_columns(container: str) -> None:
    X = np.arange(42.0).reshape(6, 7)
    made: dict[str, Any] = {
        "array": X,
        "list": X.tolist(),
        "sparse": csr_array(X),
        "tensor": torch.as_tensor(X),
        "dataset": Mapped(list(X)),
    }
    display = LabelIssuesDisplay.from_predictions(ISSUES, made[container])
    assert cells(display) == [
        ["row", "given", "suggested", "quality", "0", "1", "2", "3", "4"],
        ["img2", "b", "c", "0.10", "14", "15", "16", "17", "18"],
        ["img4", "c", "a", "0.20", "28", "29", "30", "31", "32"],
        ["img0", "a", "b", "0.40", "0", "1", "2", "3", "4"],
    ]
    assert not display.images_
    assert not display.axes_


def test_table__frame__chosen_columns_of_any_type() -> None:
    X = pd.DataFrame(
        {"n": [1.23456, 2, 3, 4, 5, np.nan], "city_$": list("uvwxyz"), "z": [None] * 6}
    )
    display = LabelIssuesDisplay.from_predictions(ISSUES, X, features=["city_$", "z", "n"])
    assert [line[4:] for line in cells(display)] == [
        ["city_$", "z", "n"],
        ["w", "None", "3"],
        ["y", "None", "5"],
        ["u", "None", "1.235"],
    ]


def test_table__texts__are_shortened() -> None:
    texts = [f"text {i} " + 30 * "spam " for i in range(6)]
    display = LabelIssuesDisplay.from_predictions(ISSUES, texts)
    shown = [line[4] for line in cells(display)]
    assert shown[0] == "text"
    assert [text[:7] for text in shown[1:]] == ["text 2 ", "text 4 ", "text 0 "]
    assert {len(text) for text in shown[1:]} == {60}


@pytest.mark.parametrize("style, ink", [("default", "black"), ("dark_background", "white")])
def test_table__can_be_read_in_every_style(style: str, ink: str) -> None:
    with plt.style.context(style):
        display = LabelIssuesDisplay.from_predictions(ISSUES, np.zeros((6, 2)))
    assert display.table_ is not None
    for cell in display.table_.get_celld().values():
        assert np.isclose(cell.get_facecolor(), 0).all()  # the figure shows through
        assert cell.get_text().get_color() == ink


def test_no_issue__is_said(grey: Any) -> None:
    calm = quality.label_issues_frame([False] * 6, RATING, list("aabbcc"), list("aabbcc"))
    display = LabelIssuesDisplay.from_predictions(calm, grey)
    assert [text.get_text() for text in display.ax_.texts] == ["No label looks wrong."]
    assert display.images_ == []


def test_one_row() -> None:
    display = LabelIssuesDisplay.from_predictions(ISSUES[:1], [[1.5]])
    assert cells(display)[1] == ["img0", "a", "b", "0.40", "1.5"]


def test_from_estimator__shows_the_issues_of_the_fit() -> None:
    X, given, _ = noisy_blobs()
    names = np.array(["$a$", "b_c", "d"], dtype=object)
    y = names[given]
    y[:20] = None
    clf = CrossEntropyClassifier(max_epochs=5, missing_label=np.nan, random_state=0).fit(X, y)
    display = LabelIssuesDisplay.from_estimator(clf, X, n_issues=4)
    frame = clf.label_issues()
    expected = sorted(
        (r, i)
        for i, (r, f) in enumerate(zip(frame.label_quality, frame.is_label_issue, strict=True))
        if f
    )[:4]
    suggested = clf.classes_[clf.label_distribution_.argmax(1)]
    assert [line[:4] for line in cells(display)[1:]] == [
        [str(i), y[i], suggested[i], f"{r:.2f}"] for r, i in expected
    ]


def test_images__keywords_reach_the_artists(grey: Any) -> None:
    display = LabelIssuesDisplay.from_predictions(
        ISSUES, grey, im_kw={"cmap": "gray_r"}, text_kw={"size": 5}
    )
    assert display.images_[0].get_cmap().name == "gray_r"
    assert display.axes_[0].title.get_fontsize() == 5


@pytest.mark.parametrize("n_rows, n_issues", [(5, 12), (6, 0)])
def test_rows_that_do_not_fit__is_an_error(n_rows: int, n_issues: int) -> None:
    with pytest.raises(ValueError, match=f"Got {n_rows} rows, 6 issues and n_issues={n_issues}"):
        LabelIssuesDisplay.from_predictions(ISSUES, np.zeros((n_rows, 2)), n_issues=n_issues)
