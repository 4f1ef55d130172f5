"""Sparse tables: what every method makes of them, and how much of them is dense at once."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from skorch.callbacks import EpochScoring

from noisyfit import (
    CrossEntropyClassifier,
    EchoAlignClassifier,
    EchoSelect,
    EchoSelectSampler,
    FlywheelClassifier,
)
from noisyfit.data.rows import LARGEST_BLOCK, Rows, scan
from noisyfit.estimator import format as format_of_rows
from noisyfit.estimator.format import LARGEST_BATCH, check_batch
from noisyfit.estimator.identity import fingerprint
from tests.common.zoo import Estimator, every_variant, of_the_base
from tests.helpers import (
    BRIEF,
    Arrays,
    Doom,
    Fate,
    LiveMemory,
    Mapped,
    Predictions,
    blobs,
    quick,
)

WORDS = {"farm": "cow hay barn plough milk field", "sea": "ship mast wave tide net harbour"}
FILLER = "the a of and in on".split()


def texts(n: int = 120, seed: int = 0) -> tuple[list[str], NDArray[Any]]:
    """Sentences of two subjects, one wrong label in five."""
    rng = np.random.default_rng(seed)
    y = np.array([*WORDS])[np.arange(n) % 2]
    said = [" ".join(rng.choice([*WORDS[label].split(), *FILLER], 12)) for label in y]
    wrong = rng.random(n) < 0.2
    return said, np.where(wrong, np.where(y == "sea", "farm", "sea"), y)


def sparse_blobs(n: int = 240) -> Arrays:
    """Blobs with two entries in five at zero, and one column that is rarely anything else."""
    X, y = blobs(n)
    X[np.abs(X) < 2] = 0
    X[:, 7] = np.arange(n) % 50 == 0
    return X, y


@pytest.fixture
def uncentred(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the mean of dense tables in the rows."""

    def scanned(rows: Any) -> Any:
        seen = scan(rows)
        return replace(seen, mean=torch.zeros_like(seen.mean))

    monkeypatch.setattr(format_of_rows, "scan", scanned)


@every_variant
@pytest.mark.usefixtures("uncentred")
def test_sparse_rows_are_learned_as_dense_ones_that_are_not_centred(cls: Estimator) -> None:
    X, y = sparse_blobs()
    dense, sparse = quick(cls).fit(X, y), quick(cls).fit(sp.csr_array(X), y)
    assert not sparse.feature_mean_.any()
    np.testing.assert_allclose(sparse.feature_scale_, dense.feature_scale_, rtol=1e-6)
    for rows in (X, sp.csr_array(X), sp.coo_matrix(X)):
        np.testing.assert_allclose(sparse.predict_proba(rows), dense.predict_proba(X), atol=1e-3)
    np.testing.assert_allclose(sparse.label_quality_, dense.label_quality_, atol=1e-3)
    rated = sparse.score_labels(sp.csr_array(X), y)
    np.testing.assert_allclose(rated, dense.score_labels(X, y), atol=1e-3)


def test_echoalign__sparse_rows__are_learned_as_dense_ones() -> None:
    X, y = sparse_blobs()
    given = np.where(np.arange(240) % 9 == 0, -1, y)
    clf = quick(EchoAlignClassifier).set_params(missing_label=-1)
    dense, sparse = clone(clf).fit(X, given), clone(clf).fit(sp.coo_array(X), given)
    np.testing.assert_array_equal(sparse.predict_proba(sp.csc_matrix(X)), dense.predict_proba(X))
    rated = sparse.score_labels(sp.coo_array(X), given)
    np.testing.assert_array_equal(rated, dense.score_labels(X, given))
    selector = EchoSelect(
        BRIEF, select_by="similarity", threshold=("quantile", 0.3), random_state=0
    )
    sampler = EchoSelectSampler(selector)
    kept, labels = sampler.fit_resample(sp.coo_array(X), y)
    assert sp.issparse(kept)
    assert len(labels) < 200
    np.testing.assert_array_equal(kept.toarray(), X[sampler.sample_indices_])


FORMATS = ["bsr", "coo", "csc", "csr", "dia", "dok", "lil"]


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csr_array], ids=["matrix", "array"])
@pytest.mark.parametrize("name", FORMATS)
def test_sparse_rows__of_any_format__are_the_same_rows(name: str, kind: Any) -> None:
    X, y = sparse_blobs(60)
    expected = quick(CrossEntropyClassifier).fit(sp.csr_array(X), y).predict_proba(X)
    handed = kind(X).asformat(name)
    before = handed.copy()
    clf = quick(CrossEntropyClassifier).fit(handed, y)
    np.testing.assert_array_equal(clf.predict_proba(handed), expected)
    assert (handed != before).nnz == 0
    assert handed.format == name


def scattered(X: NDArray[Any]) -> Any:
    """The rows with their entries in no order, some in two halves, some zeros stored."""
    rows, columns = np.indices(X.shape).reshape(2, -1)
    halves = np.tile(X.ravel() / 2, 2)
    order = np.random.default_rng(0).permutation(halves.size)
    coo = sp.coo_array((halves[order], (np.tile(rows, 2)[order], np.tile(columns, 2)[order])))
    return sp.csr_array(
        (coo.data[np.argsort(coo.row, kind="stable")],
         coo.col[np.argsort(coo.row, kind="stable")].astype(np.int64),
         np.arange(len(X) + 1) * 2 * X.shape[1]),
        shape=X.shape,
    )  # fmt: skip


def test_sparse_rows__entries_stored_in_parts__are_added_up_in_a_copy() -> None:
    X, y = sparse_blobs(60)
    handed = scattered(X)
    assert not handed.has_canonical_format
    n_stored = handed.nnz
    expected = quick(CrossEntropyClassifier).fit(sp.csr_array(X), y)
    clf = quick(CrossEntropyClassifier).fit(handed, y)
    np.testing.assert_allclose(clf.feature_scale_, expected.feature_scale_, rtol=1e-6)
    np.testing.assert_allclose(clf.predict_proba(handed), expected.predict_proba(X), atol=1e-5)
    assert handed.nnz == n_stored


def test_sparse_frame_of_pandas_is_read_with_its_names() -> None:
    X, y = sparse_blobs(60)
    frame = pd.DataFrame.sparse.from_spmatrix(sp.csr_matrix(X), columns=list("abcdefgh"))
    clf = quick(CrossEntropyClassifier).fit(frame, y)
    expected = quick(CrossEntropyClassifier).fit(sp.csr_array(X), y)
    assert clf.feature_names_in_.tolist() == list("abcdefgh")
    np.testing.assert_array_equal(clf.predict_proba(frame), expected.predict_proba(X))


# Texts.


@pytest.mark.parametrize("cls", [FlywheelClassifier, CrossEntropyClassifier])
def test_texts__behind_a_vectorizer__simply_work(cls: Estimator, tmp_path: Path) -> None:
    said, y = texts()
    pipeline = make_pipeline(TfidfVectorizer(), quick(cls, max_epochs=20)).fit(said, y)
    clf, X = pipeline[-1], pipeline[:-1].transform(said)
    truth = np.array([*WORDS])[np.arange(120) % 2]
    assert (pipeline.predict(said) == truth).mean() > 0.9
    assert pipeline.score(said, truth) > 0.9
    issues = clf.label_issues()
    assert issues["is_label_issue"].to_numpy()[y != truth].mean() > 0.7
    assert clf.score_labels(X, truth).mean() > clf.score_labels(X, y).mean()
    clf.save(tmp_path / "model")
    loaded = cls.load(tmp_path / "model", device="cpu")
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))
    np.testing.assert_array_equal(loaded.transform(X), clf.transform(X))


def test_texts__in_a_grid_search__are_sliced() -> None:
    said, y = texts()
    pipeline = make_pipeline(TfidfVectorizer(), quick(CrossEntropyClassifier))
    grid = {
        "crossentropyclassifier__module__width": [8, 16],
        "tfidfvectorizer__max_features": [5, None],
    }
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(said, y)
    assert search.best_params_["tfidfvectorizer__max_features"] is None
    assert search.best_score_ > 0.6


@of_the_base
def test_sparse_rows__with_trusted_and_held_out_ones(cls: Estimator) -> None:
    X, y = sparse_blobs()
    trusted = np.arange(240) % 3 == 0
    rows = sp.csr_array(X)
    clf = quick(cls, validation_fraction=0.2).fit(rows, y, clean_mask=trusted)
    assert (clf.label_quality_[trusted] == 1).all()
    clf = quick(cls).fit(rows[:200], y[:200], X_val=rows[200:], y_val=y[200:])
    expected = (clf.predict(rows[200:]) == y[200:]).mean()
    assert clf.history_[-1]["valid_acc"] == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:.*ignores X_meta")
def test_sparse_rows__as_a_meta_set__are_counted() -> None:
    X, y = sparse_blobs()
    rows = sp.csr_array(X)
    with pytest.warns(UserWarning, match="as many rows as X"):
        quick(CrossEntropyClassifier).fit(rows, y, X_meta=rows, y_meta=y)


def test_sparse_rows__with_weights__are_weighed() -> None:
    X, y = sparse_blobs()
    rows, weights = sp.csr_array(X), np.where(y == 0, 0.0, 1.0)
    clf = quick(CrossEntropyClassifier, max_epochs=15).fit(rows, y, sample_weight=weights)
    assert (clf.predict(rows)[y == 0] == 0).mean() < 0.1
    clf.fine_tune(rows[y != 1], y[y != 1], epochs=20, lr=0.05)
    assert (clf.predict(rows)[y == 0] == 0).mean() > 0.5


@pytest.mark.parametrize("fraction", [None, 0.2])
def test_callbacks__see_sparse_rows(fraction: float | None) -> None:
    X, y = sparse_blobs()
    rows = sp.csr_array(X)
    seen = Predictions(rows)
    scores = EpochScoring("accuracy", name="acc", on_train=fraction is None)
    clf = quick(CrossEntropyClassifier, callbacks=[seen, scores], validation_fraction=fraction)
    probs = clf.fit(rows, y).predict_proba(rows)
    np.testing.assert_array_equal(seen.probs[-1], probs)
    expected = clf.score(rows, y) if fraction is None else clf.history_[-1]["valid_acc"]
    assert clf.history_[-1]["acc"] == pytest.approx(expected)


# Checkpoints.


@of_the_base
def test_sparse_rows__of_a_killed_fit__are_known_again(cls: Estimator, tmp_path: Path) -> None:
    X, y = sparse_blobs()
    expected = quick(cls, callbacks=[Doom()]).fit(sp.csr_array(X), y).predict_proba(X)
    clf = quick(cls, callbacks=[Doom()], checkpoint_dir=tmp_path)
    Fate.epoch, Fate.batch, Fate.kill = 3, 0, False
    with pytest.raises(KeyboardInterrupt):
        clone(clf).fit(sp.csr_array(X), y)
    Fate.epoch, Fate.begun = None, []
    resumed = clf.fit(sp.csc_matrix(X), y)
    assert Fate.begun == [3, 4, 5]
    np.testing.assert_array_equal(resumed.predict_proba(X), expected)


def changed(X: NDArray[Any]) -> Any:
    other = sp.csr_array(X)
    other.data[3] += 1
    return other


def test_fingerprint__of_a_sparse_matrix__is_that_of_its_entries() -> None:
    X, _ = sparse_blobs(60)
    same = [kind(X).asformat(f) for kind in (sp.csr_array, sp.csr_matrix) for f in FORMATS]
    same.append(scattered(X))
    different = [changed(X), sp.csr_array(X.T), sp.csr_array(np.hstack([X, 0 * X])), X]
    assert len({*map(fingerprint, same)}) == 1
    assert len({*map(fingerprint, [same[0], *different])}) == 5


# Size.


def wide(n: int, d: int = 50_000) -> tuple[Any, NDArray[Any]]:
    """Rows of about twenty entries, two of which tell the class."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    columns = np.hstack([rng.integers(2, d, (n, 20)), y[:, None]])
    rows = np.repeat(np.arange(n), 21)
    values = np.ones(rows.size, np.float32)
    return sp.csr_array((values, (rows, columns.ravel())), shape=(n, d)), y


SIZES = [
    pytest.param(4_000, id="4,000"),
    pytest.param(100_000, marks=pytest.mark.long, id="100,000"),
]


@pytest.mark.parametrize("n", SIZES)
def test_wide_sparse_rows__are_never_dense_together(n: int) -> None:
    X, y = wide(n)
    block = 4 * LARGEST_BLOCK / 1e6
    clf = CrossEntropyClassifier(
        max_epochs=1, augmentation=None, module__width=8, device="cpu", random_state=0
    )
    with LiveMemory() as memory:
        clf.fit(X, y)
    assert memory.peak < 4 * block < 4 * X.shape[0] * X.shape[1] / 1e6
    assert clf.score(X[:100], y[:100]) > 0.9


def test_sparse_rows__too_wide_for_a_batch__say_what_to_do() -> None:
    n_columns = LARGEST_BATCH // 128 + 1
    X = sp.csr_array((np.ones(40), (np.arange(40), np.arange(40))), shape=(40, n_columns))
    y = np.arange(40) % 2
    with pytest.raises(ValueError, match="TruncatedSVD.*lower batch_size to 127"):
        CrossEntropyClassifier().fit(X, y)


def test_sparse_rows__too_wide_for_two__are_not_asked_to_come_in_smaller_batches() -> None:
    with pytest.raises(ValueError, match="max_features of a vectorizer.$"):
        check_batch(2, LARGEST_BATCH)


@pytest.mark.gpu
def test_sparse_rows__on_a_gpu__become_dense_there() -> None:
    X, y = sparse_blobs()
    rows = Rows(sp.csr_array(X), "table", torch.device("cuda"))
    taken = rows.take(torch.tensor([7, 7, 0], device="cuda"))
    assert taken.device.type == "cuda"
    np.testing.assert_array_equal(taken.cpu(), X[[7, 7, 0]].astype(np.float32))
    clf = quick(CrossEntropyClassifier, max_epochs=15, device="cuda", deterministic=True)
    assert clf.fit(sp.csr_array(X), y).score(X, y) > 0.8


def test_echoalign__sparse_rows_too_large_when_dense__say_what_to_do() -> None:
    X = sp.csr_array((np.ones(40), (np.arange(40), np.arange(40))), shape=(40, 2**23))
    for clf in (EchoAlignClassifier(), EchoSelect()):
        with pytest.raises(ValueError, match="40 x 8,388,608.*TruncatedSVD"):
            clf.fit(X, np.arange(40) % 2)


# What cannot be used.

REFUSED: dict[str, tuple[Callable[[NDArray[Any]], Any], str]] = {
    "NaN": (lambda X: sp.csr_array(np.where(X == X.max(), np.nan, X)), r"finite.*in 1 of 60 rows"),
    "complex": (lambda X: sp.csr_array(X * 1j), "(?i)complex"),
    "list of rows": (lambda X: [sp.csr_array(row[None]) for row in X], "scipy.sparse.vstack"),
    "Dataset": (lambda X: Mapped([sp.csr_array(row[None]) for row in X]), "scipy.sparse.vstack"),
    "one axis": (lambda X: sp.coo_array(X[:, 0]), "sparse X must be a table"),
    "no rows": (lambda X: sp.csr_array((0, 8)), "0 sample"),
    "no columns": (lambda X: sp.csr_array((60, 0)), "0 feature"),
}


@pytest.mark.parametrize("make, message", REFUSED.values(), ids=REFUSED)
def test_sparse_rows__that_cannot_be_used__say_what_must_hold(
    make: Callable[[NDArray[Any]], Any], message: str
) -> None:
    X, y = sparse_blobs(60)
    with pytest.raises((TypeError, ValueError), match=message):
        quick(CrossEntropyClassifier).fit(make(X), y)


def test_sparse_rows__not_finite__are_named() -> None:
    X, y = sparse_blobs(60)
    for row, column in itertools.product((3, 7), (2, 5)):
        X[row, column] = np.inf
    message = r"X\[3, 2\] = inf, and NaN or infinity in 2 of 60 rows"
    with pytest.raises(ValueError, match=message):
        quick(CrossEntropyClassifier).fit(sp.csr_array(X), y)


def test_sparse_rows__of_another_width_at_predict__are_refused() -> None:
    X, y = sparse_blobs(60)
    clf = quick(CrossEntropyClassifier).fit(sp.csr_array(X), y)
    with pytest.raises(ValueError, match="features"):
        clf.predict(sp.csr_array(X[:, :5]))
