import os
import signal
import threading
from typing import Any

import numpy as np
import pytest
from skorch.callbacks import Callback

from noisyfit import CrossEntropyClassifier
from noisyfit.utils.interrupts import noticed_interrupts
from tests.helpers import blobs, quick


def test_interrupt__that_somebody_passes_over__is_noticed() -> None:
    before = signal.getsignal(signal.SIGINT)
    with noticed_interrupts() as pressed:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            signal.pause()
        except KeyboardInterrupt:
            pass
    assert pressed == [signal.SIGINT]
    assert signal.getsignal(signal.SIGINT) is before


def test_interrupt__in_another_thread__none_is_expected() -> None:
    found: list[Any] = []

    def work() -> None:
        with noticed_interrupts() as pressed:
            found.append(pressed)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [[]]


class AtTheEnd(Callback):
    """Ends the second epoch as skorch's callbacks do, or as a person does."""

    def __init__(self, how: str) -> None:
        self.how = how

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        if len(net.history) == 2 and self.how == "callback":
            raise KeyboardInterrupt
        if len(net.history) == 2:
            os.kill(os.getpid(), signal.SIGINT)
            signal.pause()


def test_ctrl_c__while_callbacks_run__is_no_early_stopping() -> None:
    X, y = blobs(60)
    stopped = quick(CrossEntropyClassifier, callbacks=[AtTheEnd("callback")]).fit(X, y)
    assert len(stopped.history_) == 2
    clf = quick(CrossEntropyClassifier, callbacks=[AtTheEnd("person")])
    with pytest.raises(KeyboardInterrupt):
        clf.fit(X, y)
    np.testing.assert_array_equal(clf.predict(X), stopped.predict(X))  # what is done stays
