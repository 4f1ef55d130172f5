"""The classes that a check runs on: all where the method decides, few where the base class does.

A method decides by what it overrides. `test_methods_override_nothing_but_hooks` fails when one
overrides anything else, of which the checks marked `of_the_base` would then know nothing.
"""

import inspect
from collections.abc import Sequence

import pytest

from noisyfit import CoTeachingClassifier, GCEClassifier, NoisyLabelClassifier
from tests.helpers import CLIDDivideMixClassifier, ELRPlusClassifier, all_estimators

Estimator = type[NoisyLabelClassifier]

ESTIMATORS = all_estimators()
VARIANTS = [ELRPlusClassifier, CLIDDivideMixClassifier]  # other networks of the same method
TYPICAL = [GCEClassifier, CoTeachingClassifier]  # one network, and two after a warm-up
HOOKS = {
    "_beliefs",
    "_callbacks_stop",
    "_conclude",
    "_copies",
    "_fit",
    "_has_meta_set",
    "_init_state",
    "_make_network",
    "_make_optimizer",
    "_networks",
    "_probabilities",
    "_rate",
    "_set_training",
    "_uses_meta",
    "_whole_state",
    "fit",
    "initialize_module",
    "initialize_optimizer",
}
OF_EVERY_CLASS = {
    "__annotations__",
    "__dict__",
    "__doc__",
    "__init__",
    "__init_subclass__",
    "__module__",
    "__weakref__",
    "_parameter_constraints",
    "_sklearn_auto_wrap_output_keys",
    "set_fit_request",
    "set_score_request",
}


def overridden(cls: Estimator) -> set[str]:
    """Name what a method has of its own in the place of something of the base class."""
    base = NoisyLabelClassifier
    names = set(dir(base)) - OF_EVERY_CLASS
    return {name for name in names if implementation(cls, name) is not implementation(base, name)}


def implementation(cls: Estimator, name: str) -> object:
    return inspect.getattr_static(cls, name)


def with_every_way_to(*hooks: str) -> list[Estimator]:
    """Return the typical classes, and one for each further implementation of a hook."""
    assert set(hooks) <= HOOKS
    classes = [*TYPICAL]
    for cls in ESTIMATORS:
        known = {implementation(other, hook) for other in classes for hook in hooks}
        if not known.issuperset(implementation(cls, hook) for hook in hooks):
            classes.append(cls)
    return classes


def on(classes: Sequence[type]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("cls", classes, ids=lambda cls: cls.__name__)


every_variant = on([*ESTIMATORS, *VARIANTS])
every_method = on(ESTIMATORS)
of_the_base = on(TYPICAL)


def every_way_to(*hooks: str) -> pytest.MarkDecorator:
    """Run a check of the base class in which these hooks have a say."""
    return on(with_every_way_to(*hooks))
