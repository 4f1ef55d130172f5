"""The public use of an audit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits, make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from noisyfit import CrossEntropyClassifier, NoisyFitWarning, audit, noise
from noisyfit.estimator.delegation import boosted_trees
from tests.helpers import blobs

RATES = [0.1, 0.25, 0.5, 0.5, 0.6]  # of wrong votes
QUICK: dict[str, Any] = {"detectors": [LogisticRegression(max_iter=1000)], "random_state": 0}


def digits(seed: int) -> tuple[NDArray[Any], NDArray[Any], Any]:
    X, y = load_digits(return_X_y=True)
    return X, y, noise.symmetric(y, 0.25, random_state=seed)


def calm() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01))


def test_audit__digits__states_how_many_are_wrong_and_how_often_it_is_right() -> None:
    inside = []
    for seed in range(3):
        X, y, noisy = digits(seed)
        found = audit(X, noisy.labels, detectors=[calm()], random_state=seed)
        wrong, share = noisy.flipped, found.wrong_share_
        assert share.low < wrong.mean() < share.high
        order = np.argsort(found.label_quality_)
        for rank, row in found.expected_precision_.iterrows():
            inside.append(row["low"] - 1e-9 <= wrong[order[:rank]].mean() <= row["high"] + 1e-9)
        assert (found.corrected_labels_ == y).mean() > (noisy.labels == y).mean() + 0.05
    assert np.mean(inside) >= 0.8


def test_audit__right_labels__are_left_alone() -> None:
    for seed in range(3):
        X, y = make_classification(
            600, 10, n_informative=6, n_classes=3, class_sep=0.7, flip_y=0, random_state=seed
        )
        found = audit(X, y, **QUICK)
        assert (found.corrected_labels_ == y).mean() > 0.99


def test_audit__labels_without_relation_to_rows__says_not_to_be_trusted() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(400, 5)), rng.integers(2, size=400)
    with pytest.warns(NoisyFitWarning, match="cannot be trusted"):
        found = audit(X, y, **QUICK)
    assert any("cannot be trusted" in caution for caution in found.cautions_)
    assert (found.corrected_labels_ == y).mean() > 0.95


def test_audit__frame_with_index_and_strings__keeps_names() -> None:
    X, y = blobs(150)
    names = np.array(["ant", "bee", "cow", "dog", "eel"])[y]
    names[3] = names[y != y[3]][0]
    frame = pd.DataFrame(X, index=[f"row {i}" for i in range(150)])
    found = audit(frame, pd.Series(names, index=frame.index), **QUICK)
    assert found.issues_.index[0] == "row 3"
    assert found.issues_["suggested"].iloc[0] == ["ant", "bee", "cow", "dog", "eel"][y[3]]
    assert found.to_frame().index.tolist() == frame.index.tolist()
    assert found.by_class_["n_labels"].sum() == 150


def test_audit__rows_without_a_label__get_a_suggestion_and_no_decision() -> None:
    X, y = blobs(150)
    given = y.astype(float)
    given[:10] = np.nan
    found = audit(X, given, missing_label=np.nan, **QUICK)
    frame = found.to_frame()
    assert (frame["suggested"].to_numpy()[:10] == y[:10]).mean() > 0.8
    assert (frame["decision"][:10] == "none").all()
    assert np.isnan(found.label_quality_[:10]).all()
    assert np.isnan(found.corrected_labels_[:10]).all()


def test_audit__trusted_rows__are_never_issues() -> None:
    X, y = blobs(200)
    noisy = noise.symmetric(y, 0.3, random_state=0)
    trusted = np.arange(200) < 50
    found = audit(X, noisy.labels, clean_mask=trusted, **QUICK)
    assert (found.label_quality_[:50] == 1).all()
    assert not found.issues_.index.isin(range(50)).any()


def test_decide__then_apply__changes_what_was_decided() -> None:
    X, y = blobs(200)
    noisy = noise.symmetric(y, 0.3, random_state=0)
    found = audit(X, noisy.labels, **QUICK)
    row = int(np.flatnonzero(noisy.labels == y)[0])
    other = (y[row] + 1) % 3
    found.decide({row: other})
    decided = found.apply(only="decided")
    assert decided[row] == other
    assert (np.delete(decided, row) == np.delete(noisy.labels, row)).all()
    assert found.apply()[row] == other
    with pytest.raises(ValueError, match="Rows must be in the audit"):
        found.decide({-1: 0})
    with pytest.raises(ValueError, match="Labels must be among"):
        found.decide({0: "zebra"})
    with pytest.raises(ValueError, match="only must be"):
        found.apply(only="all")


def test_audit__stopped_and_called_again__keeps_the_folds_it_has(tmp_path: Path) -> None:
    X, y = blobs(120)
    params: dict[str, Any] = {"max_epochs": 2, "device": "cpu", "module__width": 8}
    detector = CrossEntropyClassifier(random_state=0, **params)
    options: dict[str, Any] = {"memory": str(tmp_path), "random_state": 0}
    first = audit(X, y, detectors=[detector], **options)
    kept = sorted(tmp_path.rglob("output.pkl"))
    assert len(kept) == 5
    written = [file.stat().st_mtime_ns for file in kept]
    again = audit(X, y, detectors=[detector], **options)
    assert [file.stat().st_mtime_ns for file in kept] == written
    np.testing.assert_array_equal(first.label_quality_, again.label_quality_)


def test_decided__rows_of_an_earlier_audit__are_trusted_and_fitted_on_what_was_there(
    tmp_path: Path,
) -> None:
    X, y = blobs(300)
    noisy = noise.symmetric(y, 0.25, random_state=0)
    frame = pd.DataFrame(X, index=[f"row{k}" for k in range(300)])
    options: dict[str, Any] = QUICK | {"memory": str(tmp_path)}
    first = audit(frame, noisy.labels, **options)
    looked_at = first.issues_.index[:30]
    truth = pd.Series(y, index=frame.index)
    again = audit(frame, noisy.labels, decided=truth[looked_at].to_dict(), **options)
    assert len([*tmp_path.rglob("output.pkl")]) == 2 * 5  # those of the first one are at hand
    assert again.n_trusted_ == 30
    np.testing.assert_array_equal(again.transition_matrix_, first.transition_matrix_)
    table = again.to_frame()
    assert (table.loc[looked_at, "given"] == truth[looked_at]).all()
    assert (table.loc[looked_at, "quality"] == 1).all()
    assert (again.corrected_labels_ == y).mean() > (first.corrected_labels_ == y).mean()
    rest = ~frame.index.isin(looked_at)
    assert again.wrong_share_.low <= noisy.flipped[rest].mean() <= again.wrong_share_.high


@pytest.mark.parametrize(
    "decided, says",
    [
        ({-1: 0}, "Rows must be in the audit"),
        ({0: "zebra"}, "Labels must be among"),
        (dict.fromkeys(range(150), 0), "decided must leave labels to audit"),
    ],
)
def test_decided__that_cannot_be__is_refused(decided: Any, says: str) -> None:
    X, y = blobs(150)
    with pytest.raises(ValueError, match=says):
        audit(X, y, decided=decided, **QUICK)


def test_decide__names_that_are_not_unique__are_refused() -> None:
    X, y = blobs(150)
    found = audit(pd.DataFrame(X, index=[0, *range(149)]), y, **QUICK)
    with pytest.raises(ValueError, match="different names"):
        found.decide({3: 0})


def test_audit__trusted_rows__are_known_to_the_detectors() -> None:
    X, y = blobs(150)
    trusted = np.arange(150) < 60
    told: list[int] = []

    class Listening(LogisticRegression):
        def fit(self, X: Any, y: Any, clean_mask: Any = None) -> Listening:
            told.append(clean_mask.sum())
            return super().fit(X, y)

    audit(X, y, detectors=[Listening()], clean_mask=trusted, random_state=0)
    assert sum(told) == 4 * 60  # each trusted row is in four of five folds


def test_boosted_trees__class_of_one_row_in_many__is_learned() -> None:
    """Early stopping, on by itself from 10,000 rows, cannot divide a class of one row."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(10_500, 1)), rng.integers(2, size=10_500)
    y[0] = 2
    assert boosted_trees().set_params(max_iter=1).fit(X, y).classes_.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("y", "says"),
    [
        ([0] * 20, "at least two classes"),
        ([0] * 19 + [1], "two labels"),
        ([0, 1] * 2 + [0], "at most 3, the number of labels"),
        ([0.5, 1.5] * 10, "continuous|whole numbers|classes"),
    ],
)
def test_audit__labels_that_cannot_be_audited__are_refused(y: Any, says: str) -> None:
    X = np.random.default_rng(0).normal(size=(len(y), 3))
    with pytest.raises(ValueError, match=says):
        audit(X, y, **QUICK)


def test_audit__probabilities_of_ones_own__are_audited_without_a_fit() -> None:
    X, y, noisy = digits(0)
    detector = make_pipeline(StandardScaler(), LogisticRegression(C=0.01))
    probs = cross_val_predict(detector, X, noisy.labels, cv=3, method="predict_proba")
    found = audit(None, noisy.labels, pred_probs=probs, random_state=0)
    share = found.wrong_share_
    assert share.low < noisy.flipped.mean() < share.high
    assert noisy.flipped[found.issues_.index[:100]].mean() > 0.9
    names = np.array([f"number {k}" for k in range(10)])
    named = audit(None, names[noisy.labels], pred_probs=probs, random_state=0)
    np.testing.assert_array_equal(named.label_quality_, found.label_quality_)
    for wrong, got in ((probs[:, :9], "1797, 9"), (2 * probs, "sums from 2"), (-probs, "sums")):
        with pytest.raises(ValueError, match=f"pred_probs must have a row.*10 classes.*{got}"):
            audit(None, noisy.labels, pred_probs=wrong)


def test_audit__a_class_that_is_mistaken_one_way__interval_holds_the_truth() -> None:
    """Labels that are missing from one class alone look like rows that are hard to tell."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        y = rng.integers(2, size=400)
        X = rng.normal(size=(400, 1)) + 8 * y[:, None]
        wrong = (y == 1) & (rng.random(400) < 0.25)
        found = audit(X, y ^ wrong, **QUICK)
        assert found.wrong_share_.low <= wrong.mean() <= found.wrong_share_.high
        at_50 = found.expected_precision_.loc[50]
        ranked = np.argsort(found.label_quality_, kind="stable")
        assert at_50["low"] <= wrong[ranked[:50]].mean() <= at_50["high"]
        assert (found.corrected_labels_ == y).mean() >= (~wrong).mean()
        if found.wrong_share_.value < 0.06:
            assert any("every label they doubt" in caution for caution in found.cautions_)


def test_audit__trusted_rows__array_of_the_user_is_left_as_it_is() -> None:
    X, y = blobs(150)
    names = np.array(["ant", "bee", "cow", "dog", "eel"], dtype=object)[y]
    names[7] = "one of a kind"
    trusted = np.zeros(150, bool)
    trusted[5:9] = True
    found = audit(X, names, clean_mask=trusted, **QUICK)
    assert trusted.sum() == 4
    assert np.isnan(found.label_quality_[7])


def test_audit__votes__knows_more_than_of_the_majority() -> None:
    rng = np.random.default_rng(0)
    X, y = digits(0)[:2]
    votes = np.stack(
        [noise.symmetric(y, rate, random_state=seed).labels for seed, rate in enumerate(RATES)], 1
    )
    votes[rng.random(votes.shape) < 0.4] = -1
    counts = np.stack([(votes == k).sum(1) for k in range(10)], 1)
    voted = counts.any(1)
    majority = np.where(voted, counts.argmax(1), -1)
    names = ["ann", "bob", "cid", "dan", "eve"]
    found = audit(
        X, pd.DataFrame(votes, columns=names), missing_label=-1, detectors=[calm()], random_state=0
    )
    single = audit(X, majority, missing_label=-1, detectors=[calm()], random_state=0)
    np.testing.assert_array_equal(found.given_labels_, majority)
    np.testing.assert_allclose(found.annotator_quality_[names], 1 - np.array(RATES), atol=0.03)
    wrong = (majority != y)[voted]
    assert found.wrong_share_.low < wrong.mean() < found.wrong_share_.high
    assert (found.corrected_labels_ == y)[voted].mean() > 1 - wrong.mean() / 2
    aurocs = [roc_auc_score(wrong, -a.label_quality_[voted]) for a in (found, single)]
    assert aurocs[0] > aurocs[1] - 0.005
    row = found.issues_.iloc[0]
    against = [
        name
        for name, vote in zip(names, votes[row.name], strict=True)
        if vote != row["suggested"] and vote >= 0
    ]
    assert row["disagreeing_annotators"] == against
    assert row["n_votes"] == (votes[row.name] >= 0).sum()
    with pytest.raises(AttributeError, match="annotator_quality_ needs the votes"):
        _ = single.annotator_quality_


def test_audit__rules_that_know_one_class_each__change_nothing_and_say_so() -> None:
    X, y = blobs(240)
    for seed in range(3):
        fires = np.random.default_rng(seed).random((240, 6)) < 0.5
        wrong = noise.symmetric(y, 0.4, random_state=seed).labels[:, None] == np.arange(6) % 3
        votes = np.where(fires & wrong, np.arange(6) % 3, -1)
        found = audit(X, votes, missing_label=-1, **QUICK)
        assert (found.to_frame()["decision"] != "change").all()
        assert any("Got 6 of 6 who do not" in caution for caution in found.cautions_)
