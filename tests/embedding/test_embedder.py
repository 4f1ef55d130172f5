import pickle
import struct
import subprocess
import sys
import weakref
import zlib
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from torch import Tensor

from noisyfit import EchoSelect, ImageEmbedder, NoisyFitWarning, RLDClassifier
from noisyfit.embedding import images
from noisyfit.nn.input_layer import resized

RNG = np.random.default_rng(0)
PHOTOS = RNG.integers(0, 256, (10, 12, 12, 3), dtype=np.uint8)


class Network:
    """Means of the channels and of the left half; counts the images that it gets."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, x: Tensor) -> Tensor:
        self.calls.append(len(x))
        return torch.cat([x.mean((2, 3)), x[..., : x.shape[3] // 2].mean((2, 3))], 1)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # the count is no part of what it is

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.calls = []


def mean_of(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def files(folder: Path, photos: NDArray[np.uint8] = PHOTOS) -> list[Path]:
    paths = [folder / f"{i:03}.png" for i in range(len(photos))]
    for path, photo in zip(paths, photos, strict=True):
        Image.fromarray(photo).save(path)
    return paths


def embed(X: Any, **params: Any) -> NDArray[np.float32]:
    result: NDArray[np.float32] = ImageEmbedder(mean_of, size=8, **params).fit_transform(X)
    return result


# What X may be


def test_features__float32_one_row_an_image() -> None:
    found = embed(PHOTOS)
    assert found.shape == (10, 3)
    assert found.dtype == np.float32


@pytest.mark.parametrize("white", [1.0, 255.0])
def test_arrays__other_layouts_and_scales__same_features(white: float) -> None:
    expected = embed(PHOTOS)
    rows = PHOTOS.astype(np.float64) * white / 255
    for X in (rows, rows.transpose(0, 3, 1, 2), torch.tensor(rows), list(rows)):
        np.testing.assert_allclose(embed(X), expected, atol=1e-5)


def test_arrays__order_of_axes_is_not_clear__image_layout_tells() -> None:
    wide = PHOTOS[:, :3]
    np.testing.assert_array_equal(
        embed(wide, image_layout="HWC"), embed(wide.transpose(0, 3, 1, 2))
    )


def test_grey_array__same_features_as_three_equal_channels() -> None:
    grey = PHOTOS[..., 0]
    np.testing.assert_array_equal(embed(grey), embed(np.stack([grey] * 3, 3)))


def test_files__in_any_list__same_features_as_their_arrays(tmp_path: Path) -> None:
    paths = files(tmp_path)
    names = list(map(str, paths))
    given = [
        paths,
        names,
        tuple(paths),
        np.array(names),
        np.array(paths, object)[:, None],
        pd.Series(names, index=range(5, 15)),
        pd.DataFrame({"file": names}),
    ]
    for X in given:
        np.testing.assert_array_equal(embed(X, n_jobs=2), embed(PHOTOS))


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([], "0 sample"),
        (np.empty((0, 4, 4, 3)), "0 sample"),
        ("photos", "single path 'photos'.*glob"),
        (np.ones((3, 4)), r"Got shape \(3, 4\)"),
        (np.full((1, 5, 5, 3), 4095.0), "0 to 255.*Got values from 4095 to 4095"),
        (np.full((1, 5, 5, 3), np.nan), "finite"),
        (np.ones((2, 3, 5, 3)), 'Pass image_layout="HWC"'),
    ],
)
def test_what_is_no_images__error_says_what_came(X: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        embed(X)


# Files that cannot be read


@pytest.fixture
def damaged(tmp_path: Path) -> list[Path]:
    """Two good files, and five that are not: truncated, text, empty, a folder, none at all."""
    good = files(tmp_path, RNG.integers(0, 256, (2, 40, 40, 3), dtype=np.uint8))
    truncated, text, empty, folder = (tmp_path / n for n in ("t.png", "x.jpg", "e.png", "d.png"))
    truncated.write_bytes(good[0].read_bytes()[:2000])
    text.write_text("no image")
    empty.touch()
    folder.mkdir()
    return [good[0], truncated, text, empty, folder, tmp_path / "none.png", good[1]]


def test_damaged_files__error_names_them_and_how_many(damaged: list[Path]) -> None:
    with pytest.raises(OSError, match="5 of 7 that cannot") as caught:
        embed(damaged, batch_size=2)
    message = str(caught.value)
    assert all(repr(str(path)) in message for path in damaged[1:6])
    for reason in ("truncated", "no image", "empty", "Is a directory", "No such file"):
        assert reason in message
    assert "on_error='nan'" in message


def test_damaged_files__on_error_nan__rows_of_nan_and_a_warning(damaged: list[Path]) -> None:
    with pytest.warns(NoisyFitWarning, match="5 of 7 that cannot"):
        found = embed(damaged, batch_size=2, on_error="nan")
    assert np.isnan(found).all(1).tolist() == [False, *[True] * 5, False]
    np.testing.assert_array_equal(found[[0, 6]], embed([damaged[0], damaged[6]]))


def test_file_that_claims_to_be_huge__error_names_it_before_it_is_decoded(tmp_path: Path) -> None:
    (bomb,) = files(tmp_path, PHOTOS[:1])
    content = bomb.read_bytes()
    header = b"IHDR" + struct.pack(">II", 60_000, 60_000) + content[24:29]
    bomb.write_bytes(content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:])
    with pytest.raises(OSError, match=r"1 of 1 that cannot.*000\.png.*3600000000 pixels.*bomb"):
        embed([bomb])


def test_empty_folder__error_says_where_to_look(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one image.*Check the folder and the pattern"):
        embed(sorted(tmp_path.glob("*.jpg")))


def test_list_with_gaps__on_error_nan__rows_of_nan(tmp_path: Path) -> None:
    paths = [None, float("nan"), *files(tmp_path)[:1]]
    with pytest.warns(NoisyFitWarning, match="no path"):
        found = embed(paths, on_error="nan")
    assert np.isnan(found).all(1).tolist() == [True, True, False]


@pytest.mark.parametrize("shape", [(1, 1, 3), (20, 20_000, 3)])
def test_odd_sizes__are_embedded(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    path = tmp_path / "odd.png"
    Image.fromarray(np.full(shape, 200, np.uint8)).save(path)
    np.testing.assert_allclose(
        embed([path]), embed(np.full((1, 5, 5, 3), 200, np.uint8)), atol=1e-4
    )


# Memory


def test_memory__nothing_is_embedded_twice(tmp_path: Path) -> None:
    network = Network()
    make = ImageEmbedder(network, size=8, batch_size=4, memory=tmp_path)
    first = make.fit(PHOTOS).transform(PHOTOS)
    assert sum(network.calls) == 1 + 10  # one to count the features
    more = np.concatenate([PHOTOS[::-1], PHOTOS, PHOTOS[:1] // 2])
    again = clone(make).set_params(backbone=network, batch_size=7).fit_transform(more)
    assert sum(network.calls) == 11 + 1 + 1
    np.testing.assert_array_equal(again[:10], first[::-1])
    np.testing.assert_array_equal(again[10:20], first)


def test_memory__equal_images_in_one_call__are_embedded_once(tmp_path: Path) -> None:
    network = Network()
    ImageEmbedder(network, size=8, batch_size=4, memory=tmp_path).fit_transform(PHOTOS[[0] * 9])
    assert sum(network.calls) == 1 + 1


@pytest.mark.parametrize("change", [{"size": 6}, {"views": 2}, {"precision": "bf16"}])
def test_memory__other_settings__finds_nothing(tmp_path: Path, change: dict[str, Any]) -> None:
    network = Network()
    make = ImageEmbedder(network, size=8, memory=tmp_path).fit(PHOTOS)
    make.transform(PHOTOS)
    network.calls.clear()
    make.set_params(**change).fit_transform(PHOTOS)
    assert sum(network.calls) == 1 + 10 * change.get("views", 1)


def test_memory__other_weights__finds_nothing(tmp_path: Path) -> None:
    def features(seed: int) -> NDArray[np.float32]:
        torch.manual_seed(seed)
        return ImageEmbedder(torch.nn.Conv2d(3, 4, 3), size=8, memory=tmp_path).fit_transform(
            PHOTOS
        )

    assert not np.allclose(features(0), features(1))


def test_memory__of_joblib_and_files(tmp_path: Path) -> None:
    paths = files(tmp_path)
    memory = joblib.Memory(tmp_path / "memory", verbose=0)
    network = Network()
    make = ImageEmbedder(network, size=8, memory=memory).fit(paths)
    first = make.transform(paths)
    moved = [path.rename(path.with_suffix(".image")) for path in paths]
    np.testing.assert_array_equal(make.transform(moved), first)
    assert sum(network.calls) == 1 + 10
    assert (tmp_path / "memory").is_dir()
    embed(paths[:0] or moved, memory=joblib.Memory(None))  # keeps nothing


def test_memory__of_a_run_that_meets_a_damaged_file__keeps_what_came_before(tmp_path: Path) -> None:
    paths = files(tmp_path)
    paths[7].write_text("no image")
    network = Network()
    make = ImageEmbedder(network, size=8, batch_size=2, memory=tmp_path / "memory").fit()
    with pytest.raises(OSError, match="1 of 10 that cannot"):
        make.transform(paths)
    assert sum(network.calls) == 1 + 6
    Image.fromarray(PHOTOS[7]).save(paths[7])
    np.testing.assert_array_equal(make.transform(paths), embed_with(Network(), PHOTOS))
    assert sum(network.calls) == 1 + 6 + 4


def embed_with(network: Network, X: Any) -> NDArray[np.float32]:
    result: NDArray[np.float32] = ImageEmbedder(network, size=8).fit_transform(X)
    return result


KILLED = """
import os, signal, sys
import numpy as np
from noisyfit import ImageEmbedder

n_images = 0

def network(x):
    global n_images
    if n_images > 12:
        os.kill(os.getpid(), signal.SIGKILL)
    n_images += len(x)
    return x.mean((2, 3))

X = np.random.default_rng(0).integers(0, 256, (int(sys.argv[1]), 9, 9, 3), dtype=np.uint8)
features = ImageEmbedder(network, size=8, batch_size=4, memory=sys.argv[2]).fit_transform(X)
print(n_images, np.isfinite(features).all())
"""


@pytest.mark.slow
def test_killed_run__the_next_one_embeds_only_what_is_missing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, "20", str(tmp_path)]
    killed = subprocess.run(command, capture_output=True, text=True)
    assert killed.returncode == -9
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(1 + 20 - 12), "True"]


def test_decoded_images__never_more_than_a_batch_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: weakref.WeakSet[Tensor] = weakref.WeakSet()
    most = 0

    def watched(x: Tensor, size: int) -> Tensor:
        nonlocal most
        result = resized(x, size)
        alive.add(result)
        most = max(most, len(alive))
        return result

    monkeypatch.setattr(images, "resized", watched)
    embed(files(tmp_path) * 20, batch_size=4, n_jobs=2)
    assert most == 4


# Views


def test_views__first_is_the_image_second_its_mirror_image__all_are_of_one_shape() -> None:
    x = torch.rand(2, 3, 16, 16)
    views = list(images.views_of(x, 12))
    torch.testing.assert_close(views[0], x)
    for one, mirrored in zip(views[::2], views[1::2], strict=True):
        assert one.shape == x.shape
        torch.testing.assert_close(mirrored, one.flip(3))
    assert len({tuple(view[0, 0, 0].tolist()) for view in views}) > 6


def test_views__features_are_the_mean() -> None:
    network = Network()
    one, mirrored = embed_with(network, PHOTOS), embed_with(network, PHOTOS[:, :, ::-1])
    both = ImageEmbedder(network, size=8, views=2).fit_transform(PHOTOS)
    np.testing.assert_allclose(both, (one + mirrored) / 2, atol=1e-6)


# scikit-learn's contract


def test_parameters__clone_and_pickle_keep_them() -> None:
    make = ImageEmbedder(mean_of, size=8, views=3).fit(PHOTOS)
    assert clone(make).get_params() == make.get_params()
    restored = pickle.loads(pickle.dumps(make))
    np.testing.assert_array_equal(restored.transform(PHOTOS), make.transform(PHOTOS))


def test_transform__needs_no_fit() -> None:
    unfitted = ImageEmbedder(mean_of, size=8)
    np.testing.assert_array_equal(unfitted.transform(PHOTOS), embed(PHOTOS))


def test_set_output__frame_with_names_and_the_index_of_the_files(tmp_path: Path) -> None:
    names = pd.Series(list(map(str, files(tmp_path))), index=range(5, 15))
    make = ImageEmbedder(mean_of, size=8).set_output(transform="pandas")
    frame = make.fit_transform(names)
    assert list(frame.columns) == list(make.get_feature_names_out())
    assert list(frame.columns) == ["imageembedder0", "imageembedder1", "imageembedder2"]
    assert list(frame.index) == list(range(5, 15))


def test_pipeline__search_over_the_size__with_memory(tmp_path: Path) -> None:
    y = np.arange(40) % 2
    X = np.where(y[:, None, None, None], 200, 50) + RNG.integers(-40, 40, (40, 12, 12, 3))
    make = ImageEmbedder(Network(), memory=tmp_path)
    pipeline = make_pipeline(make, RLDClassifier(max_epochs=2, random_state=0))
    grid = {"imageembedder__size": [4, 8], "imageembedder__backbone": [Network(), mean_of]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(X.astype(np.uint8), y)
    assert search.predict(X.astype(np.uint8)).shape == (40,)
    kept = {tuple(file.name for file in tmp_path.glob("embeddings/*"))}
    assert len(next(iter(kept))) == 4  # of two networks and two sizes


def test_module_of_the_user__is_copied_and_not_changed() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    ImageEmbedder(network, size=8).fit_transform(PHOTOS)
    assert network.training
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"views": 13}, "views.*13"),
        ({"size": 0}, "size.*0"),
        ({"on_error": "skip"}, "on_error.*skip"),
        ({"precision": "fp16"}, "precision.*fp16"),
        ({"device": "tpu"}, "device must be.*tpu"),
        ({"weights": "w.pt"}, "weights must be None.*w.pt"),
    ],
)
def test_parameter_out_of_range__error_names_it(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageEmbedder(mean_of, **params).fit(PHOTOS)


def test_network_that_returns_no_rows__error_says_what_it_must_return() -> None:
    with pytest.raises(ValueError, match=r"features \(n, d\).*Wrap it"):
        ImageEmbedder(lambda x: x.mean(), size=8).fit(PHOTOS)


def test_network_that_does_not_take_the_size__error_says_so() -> None:
    with pytest.raises(ValueError, match=r"\(n, 3, 2, 2\).*another size"):
        ImageEmbedder(torch.nn.Conv2d(3, 4, 3), size=2).fit(PHOTOS)


def test_memory__function_without_a_name__error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="memory, needs.*top of a module"):
        ImageEmbedder(lambda x: x.mean((2, 3)), size=8, memory=tmp_path).fit_transform(PHOTOS)


def test_progress_bar__only_if_asked_for_or_on_a_terminal(
    capfd: pytest.CaptureFixture[str],
) -> None:
    embed(PHOTOS)
    assert capfd.readouterr().err == ""
    embed(PHOTOS, verbose=1)
    assert "10/10" in capfd.readouterr().err


def test_echo_select__takes_it_as_an_encoder() -> None:
    y = np.arange(20) % 2
    X = np.where(y[:, None, None, None], 200, 50) * np.ones((20, 12, 12, 3), np.uint8)

    def mirrored(x: Tensor, y: Any, generator: torch.Generator) -> Tensor:
        return x.flip(3)

    select = EchoSelect(mirrored, embedder=ImageEmbedder(mean_of, size=8), random_state=0)
    select.fit(X.astype(np.uint8), y)
    np.testing.assert_allclose(select.similarities_, 1, atol=1e-5)


def test_fit__that_fails__leaves_the_embedder_as_it_was() -> None:
    embedder = ImageEmbedder(mean_of, size=8).fit()
    before = embedder.transform(PHOTOS)
    embedder.set_params(backbone=lambda x: x.mean((1, 2, 3)), size=16)
    with pytest.raises(ValueError, match="features"):
        embedder.fit()
    assert embedder.size_ == 8
    np.testing.assert_array_equal(embedder.transform(PHOTOS), before)
