"""What the tests of all displays share: a silent backend, and closed figures."""

from collections.abc import Iterator

import pytest

plt = pytest.importorskip("matplotlib.pyplot", reason="needs matplotlib, of noisyfit[plot]")


@pytest.fixture(autouse=True)
def figures() -> Iterator[None]:
    plt.switch_backend("Agg")
    yield
    plt.close("all")
