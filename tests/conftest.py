"""Settings and data shared by all tests."""

import os
import signal
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

# A shell's background jobs ignore Ctrl+C, and so would the processes that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    no_gpu = pytest.mark.skip(reason="needs a CUDA device")
    no_data = pytest.mark.skip(reason="needs the folder named by NOISYFIT_DATA")
    for item in items:
        if isinstance(item, pytest.DoctestItem) and "methods" in item.path.parts:
            item.add_marker(pytest.mark.slow)  # each fits the digits
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(no_gpu)
        if item.get_closest_marker("data") and "NOISYFIT_DATA" not in os.environ:
            item.add_marker(no_data)


@pytest.fixture
def data_folder() -> Path:
    return Path(os.environ["NOISYFIT_DATA"])
