"""Every parameter of every estimator: what it takes works, all else is refused before training."""

from collections.abc import Iterator
from numbers import Real
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.utils._param_validation import Interval
from skorch.callbacks import Callback

from noisyfit import CrossEntropyClassifier, EchoAlignClassifier, EchoMod, EchoSelect
from noisyfit.base import NoisyLabelClassifier
from tests.common import all_estimators, blobs, quick

Estimator = type[NoisyLabelClassifier]
every_estimator = pytest.mark.parametrize("cls", all_estimators(), ids=lambda cls: cls.__name__)
NO_NUMBER: dict[str, Any] = {
    "bool": True,
    "numpy bool": np.True_,
    "NaN": float("nan"),
    "word": "x",
    "list": [1.0, 2.0],
    "complex": 1j,
    "array": np.array([0.5]),
    "object": object(),
}
TOO_LARGE = {"inf": float("inf"), "1e308": 1e308, "1e30, an int": 10**30, "numpy": np.float64(1e40)}


def ranges(cls: Any) -> dict[str, Interval]:
    """The range of every parameter that is a number, of the bases too."""
    constraints = cls._parameter_constraints.items()
    found = {name: [c for c in kinds if isinstance(c, Interval)] for name, kinds in constraints}
    return {name: kinds[0] for name, kinds in found.items() if kinds}


class Begins(Callback):
    """Notes that training has begun."""

    def __init__(self) -> None:
        self.has_begun = False

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        self.has_begun = True


def assert_refused(cls: Estimator, name: str, value: Any) -> None:
    X, y = blobs(30)
    begins = Begins()
    with pytest.raises((ValueError, TypeError), match=rf"{name}.* must be .*Got "):
        cls(callbacks=[begins], **{name: value}).fit(X, y)
    assert not begins.has_begun


@every_estimator
@pytest.mark.parametrize("value", NO_NUMBER.values(), ids=NO_NUMBER)
def test_number__what_is_none__is_refused(value: Any, cls: Estimator) -> None:
    for name in ranges(cls):
        assert_refused(cls, name, value)


@every_estimator
@pytest.mark.parametrize("value", TOO_LARGE.values(), ids=TOO_LARGE)
def test_number__too_large_for_a_tensor__is_refused(value: Any, cls: Estimator) -> None:
    """``jitter=1e308`` was an infinite loss, ``jitter=10**30`` an OverflowError."""
    for name, kind in ranges(cls).items():
        if kind.type is Real:
            assert_refused(cls, name, value)


@every_estimator
def test_number__below_its_range__is_refused(cls: Estimator) -> None:
    for name, kind in ranges(cls).items():
        assert_refused(cls, name, int(kind.left) - 1)
        if kind.closed in ("right", "neither"):
            assert_refused(cls, name, kind.left)


@pytest.mark.parametrize("name", ["module", "optimizer"])
@pytest.mark.parametrize("value", [1, 0.5, True, [1], {}], ids=str)
def test_what_is_called__is_no_number(name: str, value: Any) -> None:
    assert_refused(CrossEntropyClassifier, name, value)


@pytest.mark.parametrize("cls", [EchoMod, EchoSelect, EchoAlignClassifier])
def test_echo__number__what_is_none__is_refused(cls: Any) -> None:
    X, y = blobs(30)
    for name in ranges(cls):
        for value in NO_NUMBER.values():
            with pytest.raises((ValueError, TypeError), match=rf"{name}.* must be .*Got "):
                cls(**{name: value}).fit(X, y)


def numbers(cls: Estimator) -> Iterator[tuple[str, Any]]:
    """The numbers that a short fit has."""
    params = quick(cls).get_params()
    return ((name, params[name]) for name in ranges(cls) if params[name] is not None)


def probabilities(cls: Estimator, params: dict[str, Any]) -> NDArray[Any]:
    X, y = blobs(60)
    return quick(cls, **params).fit(X, y).predict_proba(X)


@every_estimator
def test_number__of_numpy__has_the_bits_of_python(cls: Estimator) -> None:
    python = dict(numbers(cls))
    numpy = {k: np.float64(v) if isinstance(v, float) else np.int64(v) for k, v in python.items()}
    np.testing.assert_array_equal(probabilities(cls, numpy), probabilities(cls, python))


@every_estimator
def test_number__int_for_float__has_the_bits_of_the_float(cls: Estimator) -> None:
    """``mixup_alpha=2`` ended in the middle of the fit."""
    kinds = ranges(cls)
    ints = {
        name: 2 if 2 in kinds[name] else 1
        for name, value in numbers(cls)
        if isinstance(value, float) and name != "lr" and 1 in kinds[name]
    }
    floats = {name: float(value) for name, value in ints.items()}
    found = probabilities(cls, ints)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found, probabilities(cls, floats))
