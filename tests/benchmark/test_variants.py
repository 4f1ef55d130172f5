from functools import cache
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from noisyfit import EchoSelect, noise
from noisyfit.benchmark.contenders import make
from noisyfit.benchmark.variants import VARIANTS
from noisyfit.nn.generators import ConditionalDiffusion


@cache
def fitted(name: str) -> tuple[Any, Any]:
    """Fit on 120 digits, 50 of which are trusted; return the estimator and predictions."""
    X, y = load_digits(return_X_y=True)
    given = noise.symmetric(y[:120], 0.4, random_state=0).labels
    trusted = np.arange(120) < 50
    given[trusted] = y[:120][trusted]
    clf = make(name, max_epochs=4, device="cpu", random_state=0)
    if "warmup_epochs" in clf.get_params():
        clf.set_params(warmup_epochs=1)
    if name.startswith("echo_align"):
        quick = ConditionalDiffusion(n_train_steps=60, n_steps=3, width=32)
        clf.set_params(selector__modifier=quick, estimator__max_epochs=4)
        if clf.selector.select_by != "similarity":
            clf.set_params(selector__select_by__max_epochs=2)
        if clf.selector.threshold == "otsu":  # so few rows form one group, and all would be kept
            clf.set_params(selector__threshold=("quantile", 0.4))
    clf.fit(X[:120], given, clean_mask=trusted)
    return clf, clf.predict_proba(X[120:220])


@pytest.mark.parametrize(
    "name, rated, gated, contrasted",
    [
        ("base", False, False, False),
        ("base+coupled", True, False, False),
        ("base+cdcl", True, False, True),
        ("base+ram+grg", True, True, False),
        ("base+contrast", False, False, True),
        ("base+mixing", False, False, False),
        ("no_ram", True, False, True),
        ("no_cdcl", True, True, False),
        ("no_grg", True, False, True),
        ("symmetric_ram", True, True, True),
    ],
)
def test_variants_of_hrp__have_the_parts_that_they_name(
    name: str, rated: bool, gated: bool, contrasted: bool
) -> None:
    clf, _ = fitted(f"hrp:{name}")
    assert (np.ptp(clf.label_reliability_) > 0) == rated  # else there is no meta-learning
    assert ("gate" in clf.history_[-1]) == gated
    assert ("pair_agreement" in clf.history_[-1]) == contrasted


def test_variants_of_hrp__base_and_one_part__do_not_reweight_the_cross_entropy() -> None:
    for name in ("hrp:base+cdcl", "hrp:base+ram+grg"):
        assert VARIANTS[name]["reweighting"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("method", ["clid_meta", "gce", "hrp", "rld", "echo_align"])
def test_variants__learn_something_else_than_their_method_and_each_other(method: str) -> None:
    names = [name for name in VARIANTS if name.startswith(f"{method}:")]
    names += [method] if method != "echo_align" else []  # which is a mixture of two of them
    found = [fitted(name)[1] for name in names]  # the same settings would give the same bits
    for i, probs in enumerate(found):
        for k, others in enumerate(found[:i]):
            assert not np.array_equal(probs, others), (names[i], names[k])


def test_thresholds_of_echoalign__higher_ones_keep_less() -> None:
    kept = [fitted(f"echo_align:threshold_{t}")[0].support_[50:].mean() for t in (0.0, 0.8)]
    assert kept[0] > kept[1]


def test_variants__are_not_changed_by_those_that_use_them() -> None:
    make("echo_align:similarity", random_state=0).set_params(selector__threshold=0.123)
    again = make("echo_align:similarity", random_state=0)
    assert again.selector.threshold == EchoSelect().threshold
