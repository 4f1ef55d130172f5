"""How training went, epoch by epoch."""

from typing import Any

import numpy as np
import pytest
from skorch.callbacks import EpochScoring

from noisyfit import CrossEntropyClassifier, EchoAlignClassifier, EchoSelect, TrainingHistoryDisplay
from noisyfit.estimator.base import NoisyLabelClassifier
from noisyfit.metrics import relabelled_share
from tests.helpers import BRIEF, all_estimators, noisy_blobs, quick

plt = pytest.importorskip("matplotlib.pyplot")
HISTORY = [
    {"epoch": 1, "train_loss": 2.0, "train_loss_best": True, "valid_acc": 0.5, "dur": 0.1},
    {"epoch": 2, "train_loss": 1.0, "train_loss_best": True, "valid_acc": 0.7, "gate": 0.4},
    {"epoch": 3, "train_loss": 1.5, "valid_loss": 3.0, "valid_acc": 0.6, "gate": 0.2},
]


def points(line: Any) -> list[tuple[float, float]]:
    return [tuple(point) for point in line.get_xydata().tolist()]


def titles(display: TrainingHistoryDisplay) -> list[str]:
    return [panel.get_title() for panel in display.axes_]


def test_plot__each_quantity_is_drawn_over_its_epochs() -> None:
    display = TrainingHistoryDisplay(HISTORY).plot()
    assert {name: points(line) for name, line in display.lines_.items()} == {
        "train_loss": [(1, 2.0), (2, 1.0), (3, 1.5)],
        "valid_loss": [(3, 3.0)],
        "valid_acc": [(1, 0.5), (2, 0.7), (3, 0.6)],
        "gate": [(2, 0.4), (3, 0.2)],
    }


def test_plot__losses_share_a_panel() -> None:
    display = TrainingHistoryDisplay(HISTORY).plot()
    assert titles(display) == ["Loss", "Accuracy", "Gate"]
    assert display.lines_["train_loss"].axes is display.lines_["valid_loss"].axes
    legend = display.axes_[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["train_loss", "valid_loss"]
    assert len(display.figure_.get_axes()) == 4  # the panels, and what they divide
    assert not display.ax_.axison


def test_plot__one_epoch__is_a_visible_point() -> None:
    display = TrainingHistoryDisplay(HISTORY[:1]).plot()
    assert display.lines_["train_loss"].get_marker() == "."
    ticks = display.axes_[0].get_xticks()
    assert all(tick == int(tick) for tick in ticks)


def test_plot__names__chooses() -> None:
    display = TrainingHistoryDisplay(HISTORY).plot(names=["valid_acc"], c="red")
    assert list(display.lines_) == ["valid_acc"]
    assert display.lines_["valid_acc"].get_color() == "red"


@pytest.mark.parametrize("names", [["valid_ac"], ["dur"], ["train_loss_best"], []])
def test_plot__names_that_are_not_there__says_which_are(names: list[str]) -> None:
    with pytest.raises(ValueError, match=r"\['train_loss', 'valid_acc', 'gate', 'valid_loss'\]"):
        TrainingHistoryDisplay(HISTORY).plot(names=names)


def test_plot__empty_history__is_an_error() -> None:
    with pytest.raises(ValueError, match="names must be among"):
        TrainingHistoryDisplay([]).plot()


@pytest.mark.parametrize("cls", all_estimators(), ids=lambda cls: cls.__name__)
def test_from_estimator__every_method(cls: type[NoisyLabelClassifier]) -> None:
    X, given, _ = noisy_blobs()
    clf = quick(cls, max_epochs=3).fit(X, given)
    display = TrainingHistoryDisplay.from_estimator(clf)
    expected = {
        name: [(i + 1, epoch[name]) for i, epoch in enumerate(clf.history_) if name in epoch]
        for name in clf.history_[-1]
        if name not in ("batches", "epoch", "dur") and not name.endswith("_best")
    }
    assert {name: points(line) for name, line in display.lines_.items()} == expected
    assert "train_loss" in display.lines_


def test_from_estimator__classifier_in_a_classifier() -> None:
    X, given, _ = noisy_blobs()
    select = EchoSelect(BRIEF, select_by="similarity", n_rounds=1, threshold=("quantile", 0.3))
    clf = quick(EchoAlignClassifier, max_epochs=2).set_params(selector=select).fit(X, given)
    display = TrainingHistoryDisplay.from_estimator(clf)
    assert points(display.lines_["train_loss"]) == [
        (epoch["epoch"], epoch["train_loss"]) for epoch in clf.estimator_.history_
    ]


def test_from_estimator__share_of_relabelled_rows() -> None:
    X, given, _ = noisy_blobs()
    y = given.astype(object)
    y[:40] = None
    share = EpochScoring(relabelled_share, on_train=True)
    clf = CrossEntropyClassifier(
        max_epochs=2, callbacks=[share], missing_label=np.nan, random_state=0
    ).fit(X, y)
    line = TrainingHistoryDisplay.from_estimator(clf).lines_["relabelled_share"]
    last = sum(p != g for p, g in zip(clf.predict(X)[40:], given[40:], strict=True)) / 200
    assert points(line)[-1] == pytest.approx((2, last))
    assert 0 < last < 1
