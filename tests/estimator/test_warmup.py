"""What every method with a warm-up does on images that it has not learned yet."""

from __future__ import annotations

import numpy as np
import pytest

from noisyfit import NoisyFitWarning, noise
from noisyfit.estimator.warmup import WarmUp
from noisyfit.metrics import detection_auroc
from tests.helpers import all_estimators, images

METHODS = [cls for cls in all_estimators() if issubclass(cls, WarmUp)]


@pytest.mark.slow
@pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.__name__)
def test_warm_up_that_lasts_to_the_end__finds_wrong_labels_all_the_same(cls: type) -> None:
    X, y = images(420)
    found = []
    for seed in range(3):
        noisy = noise.symmetric(y, 0.3, random_state=seed)
        small = {"module__width": 8, "batch_size": 32, "device": "cpu"}
        clf = cls(max_epochs=6, random_state=seed, **small)
        with pytest.warns(NoisyFitWarning, match="was cross-entropy to the end"):
            clf.fit(X, noisy.labels)
        assert clf.warmup_epochs_ == clf.n_iter_ == 6
        assert clf.score(X, y) > 0.9
        found.append(detection_auroc(noisy.flipped, clf.label_quality_))
    assert np.mean(found) > 0.9
