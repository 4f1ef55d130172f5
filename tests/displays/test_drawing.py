"""What all displays promise."""

import sys
from typing import Any

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from noisyfit import (
    BeliefTrajectoryDisplay,
    CrossEntropyClassifier,
    LabelIssuesDisplay,
    LabelQualityDisplay,
    TrainingHistoryDisplay,
    TransitionMatrixDisplay,
    quality,
)
from noisyfit.displays.drawing import last_step, shortened
from tests.helpers import blobs, small_fit

plt = pytest.importorskip("matplotlib.pyplot")

NAMES = ["$x_{", r"\alpha $5$", "a_b^c", "100%"]
ISSUES = quality.label_issues_frame([True], [0.1], [NAMES[0]], [NAMES[1]], index=[NAMES[2]])
UNPLOTTED = {
    "transition": TransitionMatrixDisplay(np.eye(4), display_labels=NAMES),
    "quality": LabelQualityDisplay([0.1, 0.9], name=NAMES[0]),
    "history": TrainingHistoryDisplay([{"train_loss": 1.0, NAMES[0]: 2.0, f"{NAMES[0]}_loss": 1}]),
    "images": LabelIssuesDisplay(ISSUES, [np.zeros((3, 3))]),
    "table": LabelIssuesDisplay.from_predictions(ISSUES, [[NAMES[3]]]),
    "beliefs": BeliefTrajectoryDisplay(np.full((2, 1, 2), 0.5), given=[0]),
}
DISPLAYS = list(dict.fromkeys(map(type, UNPLOTTED.values())))
every_display = pytest.mark.parametrize("display", UNPLOTTED.values(), ids=UNPLOTTED.keys())


@every_display
def test_plot__no_axes__makes_a_figure(display: Any) -> None:
    assert display.plot() is display
    assert display.figure_.get_axes()[0] is display.ax_
    assert plt.gcf() is display.figure_


@every_display
def test_plot__axes__draws_there_and_nowhere_else(display: Any) -> None:
    figure, (left, right) = plt.subplots(1, 2)
    display.plot(ax=right)
    assert display.ax_ is right
    assert display.figure_ is figure
    assert plt.get_fignums() == [figure.number]
    assert not left.has_data()


@every_display
def test_names_with_signs_of_latex_are_drawn_as_they_are(display: Any) -> None:
    """A single odd ``$`` would be an error, a pair a formula."""
    display.plot()
    texts = display.figure_.findobj(plt.Text)
    if getattr(display, "table_", None):
        texts += [cell.get_text() for cell in display.table_.get_celld().values()]
    named = [text for text in texts if any(sign in text.get_text() for sign in r"$\^%")]
    assert named or display is UNPLOTTED["beliefs"]
    assert not any(text.get_parse_math() or text.get_usetex() for text in named)
    display.figure_.canvas.draw()


@every_display
def test_plot__no_matplotlib__names_the_extra(
    display: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"need matplotlib.*noisyfit\[plot\]"):
        display.plot()


@pytest.mark.parametrize("display", [UNPLOTTED["history"], UNPLOTTED["images"]])
def test_plot__axes_placed_by_hand_cannot_be_divided(display: Any) -> None:
    ax = plt.figure().add_axes((0, 0, 1, 1))
    with pytest.raises(ValueError, match=r"must be a subplot.*placed by hand"):
        display.plot(ax=ax)


def test_last_step__search_over_a_pipeline__returns_the_classifier() -> None:
    pipe = make_pipeline(StandardScaler(), CrossEntropyClassifier(max_epochs=1, random_state=0))
    search = GridSearchCV(pipe, {"standardscaler__with_mean": [True]}, cv=2).fit(*blobs(40))
    assert last_step(search, "history_") is search.best_estimator_[-1]


def test_last_step__not_fitted__says_so() -> None:
    with pytest.raises(NotFittedError):
        TransitionMatrixDisplay.from_estimator(CrossEntropyClassifier())


@pytest.mark.parametrize("display", DISPLAYS)
def test_from_estimator__classifier_of_scikit_learn__says_what_it_lacks(display: Any) -> None:
    X, y = blobs(20)
    needs_X = display in (LabelIssuesDisplay, BeliefTrajectoryDisplay)
    with pytest.raises(TypeError, match="must have .*Got DummyClassifier"):
        display.from_estimator(DummyClassifier().fit(X, y), *[X] * needs_X)


def test_from_estimator__keywords_reach_the_plot() -> None:
    clf = small_fit(*blobs(40))
    _, ax = plt.subplots()
    display = LabelQualityDisplay.from_estimator(clf, bins=7, ax=ax, fc="red")
    assert display.ax_ is ax
    assert np.shape(display.histograms_[0].get_data()[0]) == (7,)
    assert display.histograms_[0].get_facecolor()[:3] == (1, 0, 0)


def test_shortened__long__keeps_both_ends() -> None:
    assert shortened("a name\nof two lines", 30) == "a name of two lines"
    assert shortened("0123456789", 10) == "0123456789"
    assert shortened("0123456789x", 10) == "0123…6789x"
