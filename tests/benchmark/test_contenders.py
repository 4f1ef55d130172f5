from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from noisyfit.benchmark.contenders import (
    AUTO,
    BASELINE,
    CLEAN,
    CLEANLAB,
    SKLEARN,
    make,
    method_names,
    package_methods,
    short_name,
)
from noisyfit.benchmark.variants import VARIANTS
from noisyfit.metrics import detection_auroc
from tests.helpers import all_estimators, images, noisy_blobs


def test_methods_of_the_package_are_found_by_folder() -> None:
    found = package_methods()
    assert next(iter(found)) == BASELINE
    assert set(all_estimators()) <= set(found.values())


@pytest.mark.parametrize(
    "name, expected",
    [("CLIDMetaClassifier", "clid_meta"), ("HRPClassifier", "hrp"), ("MixUp", "mix_up")],
)
def test_short_name_splits_words(name: str, expected: str) -> None:
    assert short_name(name) == expected


def test_names__in_any_form__are_found_once() -> None:
    given = ["Flywheel", "flywheel", "FlywheelClassifier", "crossentropy", "clid", "cleanlab+ce"]
    assert method_names(given) == ["flywheel", BASELINE, "clid_meta", "cleanlab+ce"]
    assert method_names(["package"]) == list(package_methods())
    assert method_names(["all"]) == [*package_methods(), AUTO, CLEAN, *CLEANLAB, *SKLEARN]


def test_names__of_variants__are_found_once_or_all_of_a_method() -> None:
    assert method_names(["GCE:Truncated", "clid:vri", "gce:all"]) == [
        "gce:truncated",
        "clid_meta:vri",
    ]
    assert method_names(["hrp:all"]) == [name for name in VARIANTS if name.startswith("hrp:")]


@pytest.mark.parametrize(
    "name, message",
    [
        ("flywhel", "Did you mean 'flywheel'"),
        ("cleanlab", "could be cleanlab"),
        ("hrp:no_gate", "one of .*'hrp:no_grg'"),
        ("hrp:base+c", "could be hrp:base+coupled or hrp:base+cdcl"),
        ("flywheel:all", "A variant must be one of"),
    ],
)
def test_names__unknown_or_ambiguous__are_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("+", r"\+")):
        method_names([name])


@pytest.mark.parametrize("name", sorted({*method_names(["all"])} - {*SKLEARN}))
def test_make_hands_over_seed_network_and_epochs(name: str) -> None:
    clf = make(name, module="mlp", max_epochs=7, device="cpu", random_state=3)
    params = clf.get_params()
    assert params["random_state"] == 3
    assert 7 in (params.get("max_epochs"), params.get("estimator__max_epochs"))
    assert "mlp" in (params.get("module"), params.get("estimator__module"))


@pytest.mark.parametrize(
    "name, theirs",
    [
        ("sklearn+logistic", make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))),
        ("sklearn+forest", RandomForestClassifier(random_state=5)),
        ("sklearn+boosting", HistGradientBoostingClassifier(random_state=5)),
        ("sklearn+neighbors", make_pipeline(StandardScaler(), KNeighborsClassifier(6))),  # of 40
    ],
)
def test_sklearn__is_its_own_classifier_on_flat_rows(name: str, theirs: Any) -> None:
    X, y = images()
    flat = X.reshape(len(X), -1)
    clf = make(name, max_epochs=3, device="cpu", random_state=5).fit(X[:40], y[:40])
    expected = theirs.fit(flat[:40], y[:40])
    np.testing.assert_array_equal(clf.predict_proba(X[40:]), expected.predict_proba(flat[40:]))
    np.testing.assert_array_equal(clf.predict(X[40:]), expected.predict(flat[40:]))


def test_cleanlab__around_cross_entropy__trains_the_given_network() -> None:
    X, y, _ = noisy_blobs()
    clf = make("cleanlab+ce", module="mlp", max_epochs=2, random_state=0).fit(X, y)
    assert clf.learning_.clf.module == "mlp"


@pytest.mark.parametrize("name", CLEANLAB)
def test_cleanlab__rates_labels_of_any_type__and_leaves_the_global_generator_alone(
    name: str,
) -> None:
    X, y, flipped = noisy_blobs()
    names = np.array(["a", "b", "c"])
    before = np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    clf = make(name, max_epochs=8, device="cpu", random_state=0).fit(X, names[y])
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # type: ignore[index, arg-type]
    assert detection_auroc(flipped, clf.label_quality_) > 0.8
    assert set(clf.predict(X)) <= set(names)
    assert clf.predict_proba(X).shape == (len(X), 3)
