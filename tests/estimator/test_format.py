import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.base import clone

from noisyfit import CrossEntropyClassifier, NoisyFitWarning
from noisyfit.data.rows import Rows, extremes, scan
from noisyfit.estimator.format import (
    check_finite,
    check_value_range,
    find_value_range,
    image_layout,
)
from tests.helpers import CPU, Arrays, Mapped, as_memmap, blobs, images, small_fit


@pytest.mark.parametrize(
    "shape, requested, expected",
    [
        ((9, 5), "auto", "table"),
        ((9, 8, 8), "auto", "HW"),
        ((9, 8, 8), "HW", "HW"),
        ((9, 8, 8, 3), "auto", "HWC"),
        ((9, 8, 8, 1), "auto", "HWC"),
        ((9, 4, 8, 8), "auto", "CHW"),
        ((9, 3, 8, 3), "HWC", "HWC"),
        ((9, 3, 8, 3), "CHW", "CHW"),
        ((9, 7, 8, 8), "CHW", "CHW"),
    ],
)
def test_image_layout_is_read_from_the_shape(
    shape: tuple[int, ...], requested: str, expected: str
) -> None:
    assert image_layout(shape, requested) == expected


@pytest.mark.parametrize(
    "shape, requested, message",
    [
        ((9,), "auto", "must be a table"),
        ((9, 2, 2, 2, 2), "auto", "must be a table.*reshape"),
        ((9, 3, 8, 3), "auto", 'both the first and the last.*image_layout="HWC"'),
        ((9, 8, 8, 8), "auto", 'neither the first nor the last.*image_layout="HWC"'),
        ((9, 8, 8), "HWC", "needs 4 axes"),
        ((9, 8, 8, 3), "HW", "image_layout='HW'"),
    ],
)
def test_image_layout__unclear__is_an_error(
    shape: tuple[int, ...], requested: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        image_layout(shape, requested)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("row", [0, 5000])
def test_extremes__nan_or_infinity__is_found_and_refused(bad: float, row: int) -> None:
    X = np.zeros((6000, 2))
    X[row, 1] = bad
    for low, high in (
        extremes(Rows(X, "table", CPU)),
        (scan(Rows(X, "table", CPU)).low, scan(Rows(X, "table", CPU)).high),
    ):
        with pytest.raises(ValueError, match="NaN or infinity"):
            check_finite(low, high)


@pytest.mark.parametrize(
    "values, expected",
    [
        (np.array([3, 9], np.uint8), (0, 255)),
        (np.array([0, 1], np.uint8), (0, 255)),
        (np.array([0.0, 1.0]), (0, 1)),
        (np.array([0.2, 0.7]), (0, 1)),
        (np.array([0.0, 200.0]), (0, 255)),
        (np.array([-1.0, 1.0]), (-1, 1)),
        (np.array([-2.5, 3.5]), (-2.5, 3.5)),
        (np.array([0.0, 4000.0]), (0, 4000)),
        (np.array([0.0, 16.0]), (0, 255)),
        (np.array([0.0, 1.03]), (0, 1)),
        (np.array([-0.02, 1.03]), (0, 1)),
        (np.array([-0.125, 0.875]), (-0.125, 0.875)),
        (np.array([-0.4375, 2.875]), (-0.4375, 2.875)),
        (np.array([-9.0, 268.0]), (0, 255)),
        (np.array([0.0, 268.0]), (0, 255)),
        (np.array([-3.0, -3.0]), (-3, -2)),
    ],
    ids=[
        "bytes",
        "dark bytes",
        "unit",
        "within unit",
        "to 255",
        "signed",
        "z-scores",
        "12 bit",
        "digits",
        "bright overshoot",
        "overshoot",
        "centred",
        "z-scores of MNIST",
        "overshoot of 255",
        "bright overshoot of 255",
        "constant",
    ],
)
def test_find_value_range_is_the_scale_of_the_images(
    values: NDArray[Any], expected: tuple[float, float]
) -> None:
    X = np.resize(values, (2, 4, 4))
    rows = Rows(X, "HW", CPU)
    assert find_value_range(rows, *extremes(rows), None) == expected


@pytest.mark.parametrize("values", [(0.2, 0.7), (0.0, 200.0), (-0.2, 1.2)], ids=str)
def test_find_value_range__given__is_taken(values: tuple[float, float]) -> None:
    X = np.resize(values, (2, 4, 4))
    rows = Rows(X, "HW", CPU)
    white = 1 if values[1] < 2 else 255
    assert find_value_range(rows, *extremes(rows), (0, white)) == (0, white)
    with pytest.raises(ValueError, match="Images must be on the scale.*-9 to -8.*Rescale"):
        find_value_range(rows, *extremes(rows), [-9, -8])


@pytest.mark.parametrize("given", [(1, 0), (0, 0), (0,), (0, 1, 2), ("a", 1), (0, np.inf)], ids=str)
def test_find_value_range__given_no_pair__is_refused(given: Any) -> None:
    rows = Rows(np.zeros((2, 4, 4)), "HW", CPU)
    with pytest.raises(ValueError, match="value_range must be a pair.*Got.*Pass"):
        find_value_range(rows, 0.0, 0.0, given)


def test_find_value_range__of_bytes__cannot_be_another() -> None:
    rows = Rows(np.ones((2, 4, 4), np.uint8), "HW", CPU)
    assert find_value_range(rows, 1.0, 1.0, (0, 255)) == (0, 255)
    with pytest.raises(ValueError, match="uint8.*Convert"):
        find_value_range(rows, 1.0, 1.0, (0, 1))


@pytest.mark.parametrize(
    "fitted, low, high, fits",
    [
        ((0.0, 1.0), 0.0, 1.0, True),
        ((0.0, 1.0), 0.3, 0.4, True),
        ((0.0, 1.0), -0.02, 1.03, True),
        ((0.0, 1.0), 0.0, 255.0, False),
        ((0.0, 1.0), -1.0, 1.0, False),
        ((0.0, 255.0), 0.0, 255.0, True),
        ((0.0, 255.0), 17.0, 80.0, True),
        ((0.0, 255.0), -3.0, 262.0, True),
        ((0.0, 255.0), 0.0, 4000.0, False),
        ((0.0, 255.0), 0.0, 0.0, True),
        ((-2.5, 3.5), -9.0, 9.0, True),
        ((-2.5, 3.5), 0.0, 255.0, False),
        ((1000.0, 1001.0), 980.0, 1100.0, True),
    ],
)
def test_value_range__other_than_that_of_fit__is_refused(
    fitted: tuple[float, float], low: float, high: float, fits: bool
) -> None:
    closed = fitted[0] == 0
    if fits:
        check_value_range(fitted, low, high, closed=closed)
    else:
        with pytest.raises(ValueError, match="scale of fit.*Rescale"):
            check_value_range(fitted, low, high, closed=closed)


def test_value_range__almost_black__is_warned_of() -> None:
    with pytest.warns(NoisyFitWarning, match="almost black.*another scale"):
        check_value_range((0.0, 255.0), 0.0, 0.8, closed=True)


def on_scale(black: float, white: float) -> Arrays:
    """Float images that reach both ends of a scale, and labels."""
    X, y = images(30)
    X = X / X.max()
    return black + (white - black) * X.astype(np.float32), y


@pytest.mark.parametrize(
    "container", [np.asarray, torch.tensor, Mapped, list], ids=lambda kind: kind.__name__
)
@pytest.mark.parametrize("low, high", [(0.0, 1.0), (0.0, 1.03), (-0.02, 1.03)])
def test_images__with_an_overshoot__are_on_the_scale_that_they_overshoot(
    container: Any, low: float, high: float
) -> None:
    X, y = on_scale(low, high)
    clf = small_fit(container(X), y)
    assert clf.value_range_ == (0, 1)
    for other in (on_scale(0, 1)[0], on_scale(-0.05, 1.1)[0], on_scale(0, 0.1)[0], X * 0):
        assert clf.predict(container(other)).shape == (30,)
    for other in (on_scale(0, 255)[0], on_scale(-1, 1)[0], on_scale(0, 2)[0]):
        with pytest.raises(ValueError, match="scale of fit, 0 to 1.*Rescale"):
            clf.predict(container(other))


def test_images__of_a_dark_frame__are_predicted_with_a_warning_and_no_other() -> None:
    X, y = on_scale(0, 255)
    clf = small_fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf.predict(X * 0)
        clf.predict(X * 0.02)
    with pytest.warns(NoisyFitWarning, match="almost black"):
        clf.predict(X[:1] * 0.003)


def test_value_range__given__is_the_scale_of_the_views_and_of_predict(tmp_path: Path) -> None:
    X, y = on_scale(0, 1)
    params: dict[str, Any] = {"max_epochs": 1, "random_state": 0, "device": "cpu"}
    clf = CrossEntropyClassifier(value_range=(0, 4), **params)
    clf = clone(clf.set_params(value_range=(np.float32(0), np.uint8(4)))).fit(X, y)
    assert clf.value_range_ == clf._augment().value_range == (0, 4)
    clf.save(tmp_path / "model")
    for model in (clf, CrossEntropyClassifier.load(tmp_path / "model")):
        assert model.predict(4.5 * X).shape == (30,)
        with pytest.raises(ValueError, match="scale of fit, 0 to 4"):
            model.predict(255 * X)
    with pytest.raises(ValueError, match="scale of fit, 0 to 0.5"):
        CrossEntropyClassifier(value_range=(0, 0.5), **params).fit(X, y)
    with pytest.raises(ValueError, match="'value_range' parameter"):
        CrossEntropyClassifier(**params).set_params(value_range="unit").fit(X, y)


def test_value_range__given__leaves_tables_alone() -> None:
    X, y = blobs(30)
    clf = CrossEntropyClassifier(value_range=(0, 1), max_epochs=1, device="cpu").fit(X, y)
    assert clf.predict(1000 * X).shape == (30,)


def test_bytes__of_a_dataset__are_on_the_scale_of_bytes() -> None:
    X, y = images(30)
    X = (X > 50).astype(np.uint8)
    assert small_fit(Mapped(list(X)), y).value_range_ == small_fit(X, y).value_range_ == (0, 255)


@pytest.mark.parametrize("layout", ["HW", "HWC", "CHW", "table"])
@pytest.mark.parametrize(
    "container", [np.asarray, torch.tensor, Mapped, list, as_memmap], ids=lambda kind: kind.__name__
)
@pytest.mark.parametrize("axis", [1, 2])
def test_rows__of_another_height_or_width_at_predict__are_refused(
    layout: str, container: Any, axis: int, tmp_path: Path
) -> None:
    X, y = images(30)
    X = {"HW": X[..., 0], "HWC": X, "CHW": X.transpose(0, 3, 1, 2), "table": X[:, 0, :, 0]}[layout]
    axis = {"table": 1, "CHW": axis + 1}.get(layout, axis)
    clf = small_fit(X, y)
    wide = X.repeat(2, axis)
    handed = as_memmap(wide, tmp_path) if container is as_memmap else container(wide)
    message = "as in fit" if layout != "table" else "as in fit|features"
    with pytest.raises(ValueError, match=message):
        clf.predict(handed)
