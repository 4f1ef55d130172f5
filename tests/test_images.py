"""Image files with labels: class names, file names, and torchvision's folders."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.pipeline import make_pipeline
from torch import Tensor
from torchvision.datasets import ImageFolder
from torchvision.transforms import PILToTensor

from noisyfit import CrossEntropyClassifier, ImageEmbedder, NoisyFitWarning
from noisyfit.images import from_folder, from_paths


def mean_colour(x: Tensor) -> Tensor:
    return x.mean((2, 3))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Dark cats and bright dogs of different sizes, one of each mislabelled."""
    rng = np.random.default_rng(0)
    for i in range(40):
        bright = i % 2
        kind = "dog" if bright != (i in (6, 7)) else "cat"
        file = tmp_path / kind / ("deeper" if i % 3 else ".") / f"{i:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 60, (8 + i % 3, 9, 3)) + 150 * bright
        Image.fromarray(pixels.astype(np.uint8)).save(file)
    return tmp_path


def classifier() -> Any:
    clf = CrossEntropyClassifier(random_state=0, batch_size=8, max_epochs=20)
    return make_pipeline(ImageEmbedder(mean_colour, size=8), clf)


def test_from_folder__class_names_and_file_names_reach_the_issues(photos: Path) -> None:
    clf = classifier().fit(*from_folder(photos))
    assert clf[-1].classes_.tolist() == ["cat", "dog"]
    issues = clf[-1].label_issues()
    assert "cat/00.png" in issues.index
    wrong = issues.index[issues.is_label_issue]
    assert wrong.tolist() == ["cat/deeper/07.png", "dog/06.png"]
    assert issues.loc["dog/06.png", "predicted_label"] == "cat"


def test_from_folder__hidden_files_and_loose_ones__do_not_count(photos: Path) -> None:
    n = len(from_folder(photos).X)
    (photos / ".cache").mkdir()
    for name in (".cache/a.png", "cat/._01.png", "loose.png"):
        (photos / name).touch()
    assert len(from_folder(photos).X) == n


def test_from_folder__files_that_are_no_images__are_left_out_with_a_warning(photos: Path) -> None:
    n = len(from_folder(photos).X)
    for i in range(4):
        (photos / "cat" / f"{i}.heic").touch()
    with pytest.warns(NoisyFitWarning, match=r"4 others of 44.*cat/0.heic.*and more.*Convert"):
        assert len(from_folder(photos).X) == n


def test_from_folder__what_is_no_folder_of_classes__is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="must exist.*'nowhere'"):
        from_folder("nowhere")
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.png").touch()
    with pytest.raises(ValueError, match=r"two classes.*\['cat'\].*from_paths"):
        from_folder(tmp_path)


def test_from_paths__labels_of_a_frame__are_taken_in_order(photos: Path) -> None:
    rows = from_folder(photos)
    frame = pd.DataFrame({"file": rows.X.index, "kind": rows.y.to_numpy()}).sample(
        frac=1, random_state=0
    )
    X, y = from_paths(frame["file"], frame["kind"], root=photos)
    assert X.index.tolist() == y.index.tolist() == frame["file"].tolist()
    assert y.tolist() == frame["kind"].tolist()
    assert X[rows.X.index].tolist() == rows.X.tolist()


def test_from_paths__another_number_of_labels__is_refused() -> None:
    with pytest.raises(ValueError, match="2 paths and 1 labels"):
        from_paths(["a.png", Path("b.png")], ["cat"])


def test_image_folder__in_an_embedder__is_read_from_its_files(photos: Path) -> None:
    embedder = ImageEmbedder(mean_colour, size=8)
    folder = ImageFolder(photos)  # images of different sizes, which it cannot stack
    files = from_folder(photos).X
    order = [str(path) for path, _ in folder.samples]
    rows = pd.Series(list(embedder.transform(files)), index=files)
    np.testing.assert_array_equal(embedder.transform(folder), np.stack(rows[order].tolist()))


def test_image_folder__its_own_transform__is_used(photos: Path) -> None:
    def black(image: Any) -> Tensor:
        return PILToTensor()(image.resize((8, 8))) * 0

    features = ImageEmbedder(mean_colour, size=8).transform(ImageFolder(photos, transform=black))
    np.testing.assert_array_equal(features, features[[0] * len(features)])


def test_image_folder__in_a_classifier__gives_class_names_and_file_names(photos: Path) -> None:
    def pixels(image: Any) -> Tensor:
        return PILToTensor()(image.resize((8, 8)))

    clf = CrossEntropyClassifier(random_state=0, batch_size=8, max_epochs=9, augmentation=None)
    clf.fit(ImageFolder(photos, transform=pixels))
    assert clf.classes_.tolist() == ["cat", "dog"]
    issues = clf.label_issues()
    assert set(issues.index) == set(from_folder(photos).X.index)
    assert (issues.given_label == [name.split("/")[0] for name in issues.index]).all()
