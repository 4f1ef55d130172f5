"""When methods begin, on images that they learn from nothing, and what they say if they do not."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from noisyfit import CrossEntropyClassifier, NoisyFitWarning, noise
from noisyfit.estimator.warmup import WarmUp
from noisyfit.metrics import detection_auroc
from tests.helpers import all_estimators, blobs, images

METHODS = [cls for cls in all_estimators() if issubclass(cls, WarmUp)]
SMALL: dict[str, Any] = {"batch_size": 32, "device": "cpu"}


@pytest.mark.slow
@pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.__name__)
def test_warm_up_that_lasts_to_the_end__finds_wrong_labels_all_the_same(cls: type) -> None:
    X, y = images(420)
    found = []
    for seed in range(3):
        noisy = noise.symmetric(y, 0.3, random_state=seed)
        clf = cls(max_epochs=6, module__width=8, random_state=seed, **SMALL)
        with pytest.warns(NoisyFitWarning, match="was cross-entropy, corrected .* to the end"):
            clf.fit(X, noisy.labels)
        assert clf.warmup_epochs_ == clf.n_iter_ == 6
        assert clf.score(X, y) > 0.9
        found.append(detection_auroc(noisy.flipped, clf.label_quality_))
    assert np.mean(found) > 0.9


@pytest.mark.parametrize("make", [lambda: blobs(150), lambda: images(150)], ids=["table", "image"])
@pytest.mark.parametrize("cls", all_estimators(), ids=lambda cls: cls.__name__)
def test_no_method__is_cross_entropy__without_saying_so(cls: type, make: Any) -> None:
    if cls is CrossEntropyClassifier:
        return
    X, y = make()
    given = noise.symmetric(y, 0.3, random_state=0).labels
    params: dict[str, Any] = {"max_epochs": 4, "random_state": 0, **SMALL}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        clf = cls(**params).fit(X, given)
    says = any(
        issubclass(w.category, NoisyFitWarning) and "was cross-entropy" in str(w.message)
        for w in said
    )
    if issubclass(cls, WarmUp):
        assert says == (int(clf.state_.first_epoch) < 0)
    else:
        plain = CrossEntropyClassifier(**params).fit(X, given)
        assert not says
        assert np.abs(clf.predict_proba(X) - plain.predict_proba(X)).max() > 0.01
