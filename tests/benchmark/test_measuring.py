from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from noisyfit import CrossEntropyClassifier, neg_clid, noise
from noisyfit.benchmark.cells import Cell, Problem, held_out, pose, source_of
from noisyfit.benchmark.contenders import make
from noisyfit.benchmark.measuring import COLUMNS, measure, run_cell
from noisyfit.metrics import detection_auroc, detection_average_precision
from tests.benchmark.test_cells import CELL, SETTINGS
from tests.helpers import Predictions, blobs


def test_row__holds_what_a_direct_fit_says() -> None:
    row, histogram = run_cell(CELL, SETTINGS)
    source, _ = source_of("digits", None)
    rows = np.random.default_rng(1).permutation(len(source.X))[:300]
    noisy = noise.symmetric(source.y[rows], 0.4, random_state=1)
    fit, held = held_out(noisy.labels, 0.1, 1)
    assert source.X_test is not None
    assert source.y_test is not None
    test = np.random.default_rng(0).permutation(len(source.X_test))[:100]
    X_val, y_val = source.X[rows][held], noisy.labels[held]
    watch = Predictions(source.X_test[test])
    clf = CrossEntropyClassifier(max_epochs=4, callbacks=[watch], device="cpu", random_state=1)
    clf.fit(source.X[rows][fit], noisy.labels[fit], X_val=X_val, y_val=y_val)

    curve = [np.mean(probs.argmax(1) == source.y_test[test]) for probs in watch.probs]
    assert row["accuracy_last"] == clf.score(source.X_test[test], source.y_test[test]) == curve[-1]
    ranked = watch.probs[-1].argsort(1)[:, -5:]
    within = [y in best for y, best in zip(source.y_test[test], ranked, strict=True)]
    assert row["top5_last"] == pytest.approx(np.mean(within))
    assert row["accuracy_oracle"] == max(curve)
    assert row["epoch_oracle"] == 1 + int(np.argmax(curve))
    valid = clf.history_[:, "valid_acc"]
    assert row["epoch_noisy_validation"] == 1 + int(np.argmax(valid))
    assert row["accuracy_noisy_validation"] == curve[int(np.argmax(valid))]
    assert row["noisy_validation"] == pytest.approx(valid[-1])
    assert row["neg_clid"] == pytest.approx(neg_clid(clf, X_val))
    flipped = noisy.flipped[fit]
    assert row["noise_rate"] == flipped.mean()
    assert row["auroc"] == detection_auroc(flipped, clf.label_quality_)
    assert row["average_precision"] == detection_average_precision(flipped, clf.label_quality_)
    assert (row["n_train"], row["n_test"], row["epochs"]) == (270, 100, 4)
    assert 0 < row["seconds"] < 60
    assert set(row) <= set(COLUMNS)
    assert sum(histogram["right"]) == pytest.approx(1)
    assert sum(histogram["wrong"]) == pytest.approx(1)


def test_epochs_are_chosen_by_their_scores_and_never_above_the_best() -> None:
    X, y = blobs(200)
    noisy = noise.symmetric(y, 0.4, random_state=0).labels
    problem = Problem(X[:100], noisy[:100], y[:100], X[100:150], noisy[100:150], X[150:], y[150:])
    clf = CrossEntropyClassifier(max_epochs=6, lr=0.3, device="cpu", random_state=0)
    row = measure(clf, problem)
    for name in ("clid", "noisy_validation", "oracle"):
        accuracy = clf.history_[:, "test_accuracy"][row[f"epoch_{name}"] - 1]
        assert row[f"accuracy_{name}"] == accuracy <= row["accuracy_oracle"]
    assert row["epoch_clid"] == 1 + int(np.argmax(clf.history_[:, "neg_clid"]))


def test_interrupt_while_an_epoch_is_scored__ends_the_cell_and_is_no_early_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*args: Any) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr("noisyfit.benchmark.measuring.neg_clid", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_cell(CELL, SETTINGS)


def test_own_data__have_no_accuracy_but_the_scores_without_clean_labels(tmp_path: Path) -> None:
    X, y = blobs(80)
    lines = [",".join(map(str, [*row, f"class {k}"])) for row, k in zip(X, y, strict=True)]
    head = ",".join([*(f"x{i}" for i in range(8)), "kind"])
    (tmp_path / "own.csv").write_text("\n".join([head, *lines]))
    settings = replace(SETTINGS, holdout=0.3, label="kind", epochs=2)
    cell = Cell("cross_entropy", str(tmp_path / "own.csv"), "given", 0.0, 0)
    row, histogram = run_cell(cell, settings)
    assert row["accuracy_last"] is None
    assert row.get("auroc") is None
    assert 0 < row["noisy_validation"] <= 1
    assert np.isfinite(row["neg_clid"])
    assert row["epoch_clid"] in (1, 2)
    assert not histogram


def test_top_five__of_five_classes_or_fewer__is_not_measured() -> None:
    X, y = blobs(60)
    problem = Problem(X, y, X_test=X, y_test=y)
    clf = CrossEntropyClassifier(max_epochs=2, device="cpu", random_state=0)
    assert measure(clf, problem)["top5_last"] is None


def test_top_five__class_without_a_training_row__is_missed_and_no_error() -> None:
    """The cell failed after its fit, where accuracies had been measured."""
    X, y = blobs(300, 8)
    fit = (np.arange(300) < 200) & (y != 3)
    problem = Problem(X[fit], y[fit], X_test=X[200:], y_test=y[200:])
    clf = CrossEntropyClassifier(max_epochs=4, device="cpu", random_state=0)
    row = measure(clf, problem)
    ranked = clf.classes_[clf.predict_proba(X[200:]).argsort(1)[:, -5:]]
    within = [label in best for label, best in zip(y[200:], ranked, strict=True)]
    assert row["top5_last"] == pytest.approx(np.mean(within))
    assert 0 < row["accuracy_last"] <= row["top5_last"] <= np.mean(y[200:] != 3)
    unknown = Problem(X[fit], y[fit], X_test=X[y == 3], y_test=y[y == 3])
    assert measure(clf, unknown)["top5_last"] == 0


def test_labels__of_some_rows__methods_of_the_package_see_all_rows() -> None:
    cell = replace(CELL, labels=60)
    row, histogram = run_cell(cell, SETTINGS)
    problem = pose(source_of("digits", None)[0], cell, SETTINGS)
    wrong, labelled = problem.wrong, problem.labelled
    assert wrong is not None
    assert labelled is not None
    y = np.where(labelled, problem.y, -1)
    clf = CrossEntropyClassifier(max_epochs=4, missing_label=-1, device="cpu", random_state=1)
    clf.fit(problem.X, y, X_val=problem.X_val, y_val=problem.y_val)
    assert row["accuracy_last"] == clf.score(problem.X_test, problem.y_test)
    assert row["auroc"] == detection_auroc(wrong[labelled], clf.label_quality_[labelled])
    assert row["noise_rate"] == wrong[labelled].mean()
    assert (row["labels"], row["n_train"]) == (60, 270)
    assert sum(histogram["wrong"]) == pytest.approx(1)


@pytest.mark.parametrize("method", ["sklearn+neighbors", "cleanlab+logistic"])
def test_labels__of_some_rows__other_methods_see_no_other_rows(method: str) -> None:
    cell = replace(CELL, method=method, labels=100)
    row, _ = run_cell(cell, SETTINGS)
    problem = pose(source_of("digits", None)[0], cell, SETTINGS)
    kept, wrong = problem.labelled, problem.wrong
    assert kept is not None
    assert wrong is not None
    clf = make(method, max_epochs=4, random_state=1).fit(problem.X[kept], problem.y[kept])
    assert row["accuracy_last"] == np.mean(clf.predict(problem.X_test) == problem.y_test)
    assert row["noise_rate"] == wrong[kept].mean()
    assert row["n_train"] == 270
    if method == "cleanlab+logistic":
        assert row["auroc"] == detection_auroc(wrong[kept], clf.label_quality_)


def test_labels__that_are_text__may_be_missing(tmp_path: Path) -> None:
    X, y = blobs(80)
    lines = [",".join(map(str, [*row, f"class {k}"])) for row, k in zip(X, y, strict=True)]
    head = ",".join([*(f"x{i}" for i in range(8)), "kind"])
    (tmp_path / "own.csv").write_text("\n".join([head, *lines]))
    cell = Cell("cross_entropy", str(tmp_path / "own.csv"), "given", 0.0, 0, 20)
    row, _ = run_cell(cell, replace(SETTINGS, label="kind", epochs=2))
    assert 0 < row["noisy_validation"] <= 1


@pytest.mark.parametrize("method", ["cross_entropy", "cleanlab+logistic"])
def test_votes__what_rates_no_majority_has_no_auroc(method: str) -> None:
    X, y = blobs(200)
    votes = np.where(
        np.random.default_rng(0).random((200, 3)) < 0.3, (y[:, None] + 1) % 3, y[:, None]
    )
    votes[::2, 1] = -1
    majority = np.array([np.bincount(row[row >= 0]).argmax() for row in votes])
    problem = Problem(X[:150], majority[:150], y[:150], X_test=X[150:], y_test=y[150:])
    problem = replace(problem, votes=votes[:150])
    clf = make(method, max_epochs=4, device="cpu", random_state=0)
    row = measure(clf, problem)
    assert problem.wrong is not None
    assert row["noise_rate"] == problem.wrong.mean()
    assert row["accuracy_last"] > 0.5
    if method == "cross_entropy":
        np.testing.assert_array_equal(clf.votes_, votes[:150])
        assert "auroc" not in row
    else:
        assert row["auroc"] == detection_auroc(problem.wrong, clf.label_quality_)


@pytest.mark.parametrize("method", ["cross_entropy", "sklearn+logistic"])
def test_trusted_rows__are_told_to_those_that_can_be_told__and_are_not_rated(method: str) -> None:
    row, _ = run_cell(replace(CELL, method=method), replace(SETTINGS, trusted=100))
    source, _ = source_of("digits", None)
    problem = pose(source, CELL, replace(SETTINGS, trusted=100))
    wrong, trusted = problem.wrong, problem.trusted
    assert wrong is not None
    assert trusted is not None
    assert row["trusted"] == 100
    assert row["noise_rate"] == wrong.mean()
    if method != "cross_entropy":
        assert row["accuracy_last"] > 0.5
        return
    clf = CrossEntropyClassifier(max_epochs=4, device="cpu", random_state=1)
    clf.fit(problem.X, problem.y, clean_mask=trusted, X_val=problem.X_val, y_val=problem.y_val)
    assert row["accuracy_last"] == clf.score(problem.X_test, problem.y_test)
    assert row["auroc"] == detection_auroc(wrong[~trusted], clf.label_quality_[~trusted])
