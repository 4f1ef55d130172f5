"""WebVision 1.0: pictures found by queries for the classes of ImageNet."""

from __future__ import annotations

from collections.abc import Sequence

from noisyfit.datasets.files import PathLike, choose, local_root, read_labels
from noisyfit.datasets.images import ImageFiles
from noisyfit.utils.parameters import AT_LEAST_ONE, check_parameters

SOURCES = ("google", "flickr")
TEST_FOLDER = "val_images_256"


def load_webvision(
    root: PathLike,
    subset: str = "train",
    *,
    n_classes: int = 50,
    sources: Sequence[str] = ("google",),
    image_size: int = 256,
) -> ImageFiles:
    """Load WebVision 1.0 from a local copy, by default the part known as WebVision-50.

    The first 50 classes have 65,944 training images from Google and 2,500 test images, whose labels
    people have checked. About 20 % of the training labels are wrong.

    Parameters
    ----------
    root : str or path
        Folder with ``info/train_filelist_google.txt``, ``info/val_filelist.txt``, ``google/`` and
        ``val_images_256/``: the archive of small images, unpacked.
    subset : {"train", "test"}, default="train"
    n_classes : int >= 1, default=50
        Number of classes, from the first; 1000 is all.
    sources : sequence of {"google", "flickr"}, default=("google",)
        Where training images come from.
    image_size : int, default=256
        Height and width in pixels to which images are resized and cropped.

    Returns
    -------
    ImageFiles
        In the order of the authors' lists.

    Raises
    ------
    ValueError
        If the subset or a source is unknown, or a line of a list cannot be read.
    FileNotFoundError
        If the folder is not laid out as above.

    References
    ----------
    .. [1] Li, Wang, Li, Agustsson and Van Gool. WebVision database: visual learning and
       understanding from web data. arXiv:1708.02862, 2017. https://data.vision.ee.ethz.ch/cvl/webvision
    """
    choose("subset", subset, ("train", "test"))
    check_parameters({"n_classes": [AT_LEAST_ONE]}, {"n_classes": n_classes}, "load_webvision")
    for source in sources:
        choose("sources", source, SOURCES)
    listings = [f"info/train_filelist_{source}.txt" for source in sources]
    if subset == "test":
        listings = ["info/val_filelist.txt"]
    folder = local_root(root, *listings, *([TEST_FOLDER] if subset == "test" else []))
    rows = [row for listing in listings for row in read_labels(folder / listing)]
    files = [name for name, label in rows if label < n_classes]
    targets = [label for _, label in rows if label < n_classes]
    return ImageFiles(
        folder / TEST_FOLDER if subset == "test" else folder,
        files,
        targets,
        clean_targets=targets if subset == "test" else None,
        image_size=image_size,
    )
