"""How the belief about rows moves."""

from typing import Any

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from noisyfit import BeliefTrajectoryDisplay, RLDClassifier
from tests.helpers import noisy_blobs, quick

plt = pytest.importorskip("matplotlib.pyplot")
NAMES = np.array(["a", "b", "c"])


def walks(seed: int = 0, n: int = 6, n_steps: int = 5) -> Any:
    return np.random.default_rng(seed).dirichlet(np.ones(3), size=(n_steps, n))


def heights(lines: Any) -> list[list[float]]:
    return [line.get_ydata().tolist() for line in lines]


def test_from_predictions__lines_of_the_given_class_and_of_the_class_at_the_end() -> None:
    probs, y = walks(), NAMES[[0, 1, 2, 0, 1, 2]]
    display = BeliefTrajectoryDisplay.from_predictions(probs, y, classes=NAMES)
    given, reached = [], []
    for row in range(6):
        column = NAMES.tolist().index(y[row])
        given.append([float(step[row][column]) for step in probs])
        best = max(range(3), key=lambda k: probs[-1][row][k])
        if best != column:
            reached.append([float(step[row][best]) for step in probs])
    assert 0 < len(reached) < 6
    assert heights(display.given_lines_) == given
    assert heights(display.reached_lines_) == reached
    assert np.asarray(display.given_lines_[0].get_xdata()).tolist() == [1, 2, 3, 4, 5]
    assert display.ax_.get_xlabel() == "Epoch"
    legend = display.ax_.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "given label (6)",
        f"another class, reached at the end ({len(reached)})",
    ]


def test_from_predictions__row_without_a_label__has_only_its_end() -> None:
    probs = walks(n=2)
    display = BeliefTrajectoryDisplay.from_predictions(probs, ["a", None], classes=NAMES)
    best = int(probs[-1, 1].argmax())
    assert heights(display.given_lines_) == [probs[:, 0, 0].tolist()]
    assert heights(display.reached_lines_)[-1] == probs[:, 1, best].tolist()


def test_from_predictions__no_labels() -> None:
    probs = walks(n=1, n_steps=1)
    display = BeliefTrajectoryDisplay.from_predictions(probs)
    assert display.given_lines_ == []
    assert heights(display.reached_lines_) == [[probs.max()]]


def test_from_estimator__draws_the_walk_of_each_label() -> None:
    X, given, _ = noisy_blobs()
    pipe = make_pipeline(StandardScaler(), quick(RLDClassifier, max_epochs=3))
    pipe.fit(X, NAMES[given])
    y = NAMES[given][:8]
    display = BeliefTrajectoryDisplay.from_estimator(pipe, X[:8], y, lw=3)
    walked = pipe[-1].denoise(pipe[:-1].transform(X[:8]), y, return_trajectory=True)
    assert heights(display.given_lines_) == [walked[:, i, given[i]].tolist() for i in range(8)]
    assert display.given_lines_[0].get_linewidth() == 3
    ends = walked[-1].argmax(1)
    assert len(display.reached_lines_) == (ends != given[:8]).sum()


def test_from_estimator__without_labels__starts_at_the_prediction() -> None:
    X, given, _ = noisy_blobs()
    clf = quick(RLDClassifier, max_epochs=3).fit(X, given)
    display = BeliefTrajectoryDisplay.from_estimator(clf, X[:2])
    walked = clf.denoise(X[:2], return_trajectory=True)
    ends = walked[-1].argmax(1)
    assert heights(display.reached_lines_) == [walked[:, i, ends[i]].tolist() for i in range(2)]


@pytest.mark.parametrize("shape", [(3, 2), (0, 2, 2), (2, 0, 3)])
def test_plot__wrong_shape__says_what_came(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must have shape \(n_steps, n_samples, n_classes\)"):
        BeliefTrajectoryDisplay(np.zeros(shape)).plot()


def test_plot__labels_of_other_rows__is_an_error() -> None:
    with pytest.raises(ValueError, match="one label for each of 6 rows"):
        BeliefTrajectoryDisplay.from_predictions(walks(), ["a"], classes=NAMES)


def test_from_predictions__unknown_label__is_an_error() -> None:
    with pytest.raises(ValueError, match=r"classes seen in fit.*Got \['z'\]"):
        BeliefTrajectoryDisplay.from_predictions(walks(n=1), ["z"], classes=NAMES)
