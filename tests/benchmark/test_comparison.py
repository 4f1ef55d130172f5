from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from noisyfit import CrossEntropyClassifier, benchmark, neg_clid
from noisyfit.benchmark import compare
from noisyfit.benchmark.cells import held_out
from tests.helpers import blobs, noisy_blobs


def quick(methods: Any, *args: Any, **params: Any) -> pd.DataFrame:
    settings: dict[str, Any] = {"max_epochs": 3, "device": "cpu", "random_state": 0}
    return compare(methods, *args, **settings | params)


def test_compare_is_public_on_the_subpackage() -> None:
    assert benchmark.compare is compare


def test_without_clean_labels__scores_and_agreement_are_those_of_direct_fits() -> None:
    X, y, _ = noisy_blobs()
    own = CrossEntropyClassifier(max_epochs=3, device="cpu", random_state=5)
    table = quick({"net": own, "lines": LogisticRegression()}, X, y)
    assert list(table.index) == ["net", "lines"]
    assert "accuracy" not in table
    assert not hasattr(own, "classes_")  # the user's object stays unfitted

    fit, held = held_out(y, 0.2, int(np.random.RandomState(0).randint(2**31 - 1)))
    own.fit(X[fit], y[fit], X_val=X[held], y_val=y[held])
    lines = LogisticRegression().fit(X[fit], y[fit])
    assert table.loc["net", "noisy_validation"] == own.score(X[held], y[held])
    assert table.loc["lines", "noisy_validation"] == lines.score(X[held], y[held])
    assert table.loc["net", "neg_clid"] == pytest.approx(neg_clid(own, X[held]))
    assert np.isnan(table.loc["lines", "neg_clid"])
    agreement = np.mean(own.predict(X[held]) == lines.predict(X[held]))
    assert table["agreement"].tolist() == pytest.approx([agreement, agreement])
    assert table.loc["net", "suspicious"] == np.mean(own.label_quality_ < 0.5)


def test_with_clean_test_rows__accuracy_is_theirs() -> None:
    X, y = blobs(300)
    table = quick(["cross_entropy", "flywheel"], X[:200], y[:200], X_test=X[200:], y_test=y[200:])
    assert list(table.index) == ["cross_entropy", "flywheel"]
    assert table["accuracy"].between(0.5, 1).all()
    assert table["accuracy_clid"].notna().all()


def test_folds__give_means_and_spreads__and_a_frame_of_strings_will_do() -> None:
    X, y, _ = noisy_blobs()
    frame = pd.DataFrame(X, index=np.arange(len(X)) + 1000)
    names = pd.Series(np.array(["a", "b", "c"])[y])
    table = quick([KNeighborsClassifier(), KNeighborsClassifier(1)], frame, names, cv=3)
    assert list(table.index) == ["KNeighborsClassifier", "KNeighborsClassifier (2)"]
    assert (table["noisy_validation_std"] > 0).all()
    assert set(table) == {
        "noisy_validation", "agreement", "seconds",
        "noisy_validation_std", "agreement_std", "seconds_std",
    }  # fmt: skip


def test_same_random_state__gives_the_same_table() -> None:
    X, y, _ = noisy_blobs()
    tables = [quick(["cross_entropy"], X, y).drop(columns="seconds") for _ in range(2)]
    pd.testing.assert_frame_equal(*tables)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"methods": []}, "at least one method"),
        ({"methods": ["flywhel"]}, "Did you mean 'flywheel'"),
        ({"holdout": 0.0}, r"holdout must lie in \(0, 1\)"),
        ({"X_test": np.zeros((2, 8))}, "must be given together"),
    ],
)
def test_compare__wrong_arguments__says_what_must_hold(
    change: dict[str, Any], message: str
) -> None:
    X, y, _ = noisy_blobs()
    methods = change.pop("methods", ["cross_entropy"])
    with pytest.raises(ValueError, match=message):
        quick(methods, X, y, **change)
