"""Paths and texts in the place of numbers: the error is the line to write."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from noisyfit import EchoAlignClassifier, EchoMod, EchoSelect, ELRClassifier
from tests.helpers import blobs, quick

EMBEDDER = "make_pipeline(noisyfit.ImageEmbedder(), estimator).fit(X, y)"
TABLES = "noisyfit.tables.pipeline(estimator).fit(X, y)"
TEXTS = "make_pipeline(TfidfVectorizer(), TruncatedSVD(100), estimator).fit(X, y)"
FOLDER = "noisyfit.images.from_folder('photos'), then " + EMBEDDER
FILE = "noisyfit.tables.read('people.csv', label=...), then " + TABLES
FRAME = pd.DataFrame({"age": [1.0, 2.0], "town": ["Rome", "Oslo"]})

REFUSED: dict[str, tuple[Any, str]] = {
    "folder": ("photos", FOLDER),
    "folder as path": (Path("photos"), FOLDER),
    "table": (Path("people.csv"), FILE),
    "compressed table": ("people.jsonl.gz", "noisyfit.tables.read('people.jsonl.gz'"),
    "one image": ("a.jpg", "noisyfit.images.from_paths(paths, labels), then " + EMBEDDER),
    "images": (["a.png", "b.JPG"], EMBEDDER),
    "images as paths": ([Path("a"), Path("b")], EMBEDDER),
    "images in an array": (np.array(["a.png", "b.png"]), EMBEDDER),
    "images in a Series": (pd.Series([None, "a.png"]), EMBEDDER),
    "images in a frame": (pd.DataFrame({"file": ["a.png", "b.png"]}), EMBEDDER),
    "texts": (["a good film", "a bad one"], TEXTS),
    "texts in an array": (np.array(["a good film", "a bad one"], dtype=object), TEXTS),
    "texts in a Series": (pd.Series(["a good film", "a bad one"]), TEXTS),
    "texts in a frame": (FRAME[["town"]], TABLES),
}


@pytest.mark.parametrize("case", REFUSED)
def test_paths_and_texts__are_refused_with_the_line_to_write(case: str) -> None:
    X, line = REFUSED[case]
    with pytest.raises(ValueError, match=re.escape(line)):
        ELRClassifier().fit(X, [0, 1])
    with pytest.raises(ValueError, match="Write "):
        ELRClassifier().fit(X)


def test_paths__at_predict__are_refused_too() -> None:
    X, y = blobs(60)
    clf = quick(ELRClassifier).fit(X, y)
    with pytest.raises(ValueError, match=re.escape(EMBEDDER)):
        clf.predict(["a.png"])


@pytest.mark.parametrize("method", [EchoAlignClassifier(), EchoSelect(), EchoMod()])
def test_paths__in_other_estimators__are_refused_too(method: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(EMBEDDER)):
        method.fit(["a.png", "b.png"], [0, 1])


COLUMNS: dict[str, Any] = {
    "text": FRAME,
    "categories": FRAME.assign(town=FRAME["town"].astype("category")),
    "text in an array": FRAME.to_numpy(),
    "dates": FRAME.assign(town=pd.to_datetime(["2024-01-01", "2024-01-02"])),
    "gaps of pandas": FRAME.assign(town=pd.array([1, None], dtype=object)).assign(age=pd.NA),
}


@pytest.mark.parametrize("case", COLUMNS)
def test_columns_that_are_no_numbers__are_refused_with_the_pipeline_of_tables(case: str) -> None:
    with pytest.raises((ValueError, TypeError), match=r"noisyfit\.tables\.pipeline\(estimator\)"):
        ELRClassifier().fit(COLUMNS[case], [0, 1])


def test_numbers_as_text__are_still_numbers() -> None:
    X, y = blobs(60)
    texts = X.round(3).astype(str)
    clf = quick(ELRClassifier, max_epochs=1)
    expected = clf.fit(X.round(3), y).predict_proba(X)
    np.testing.assert_allclose(clf.fit(texts, y).predict_proba(X), expected, atol=1e-5)
    one = pd.DataFrame({"size": texts[:, 0]})
    assert clf.fit(one, (X[:, 0] > 0).astype(int)).n_features_in_ == 1
