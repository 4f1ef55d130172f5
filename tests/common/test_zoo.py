"""The checks of the base class run on all classes that could fail them."""

from typing import Any

from noisyfit import CrossEntropyClassifier, RLDClassifier
from tests.common.zoo import (
    ESTIMATORS,
    HOOKS,
    TYPICAL,
    Estimator,
    every_variant,
    overridden,
    with_every_way_to,
)


def test_estimators_are_found_by_folder() -> None:
    names = {cls.__name__ for cls in ESTIMATORS}
    assert {"CrossEntropyClassifier", "FlywheelClassifier"} <= names


@every_variant
def test_methods_override_nothing_but_hooks(cls: Estimator) -> None:
    """Add a new hook to `HOOKS`, and to the checks in which it has a say by `every_way_to`."""
    assert overridden(cls) <= HOOKS


def test_hooks__each__is_overridden_by_a_method() -> None:
    assert set().union(*map(overridden, ESTIMATORS)) == HOOKS


def test_overridden__names_what_a_method_replaces() -> None:
    class Own(CrossEntropyClassifier):
        def predict(self, X: Any) -> Any:
            return super().predict(X)

    assert "predict" in overridden(Own)
    assert overridden(Own) - overridden(CrossEntropyClassifier) == {"predict"}


def test_with_every_way_to__hook_of_one_method__adds_that_method() -> None:
    assert with_every_way_to("_callbacks_stop") == [*TYPICAL, RLDClassifier]
