"""Change rows until they fit their labels, and tell from the change which labels were wrong."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from copy import deepcopy
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.base import clone
from sklearn.neighbors import KNeighborsClassifier
from sklearn.utils import check_random_state
from sklearn.utils.validation import (
    check_is_fitted,
    column_or_1d,
    has_fit_parameter,
    validate_data,
)
from torch import Tensor
from torch.nn import functional as F

from noisyfit.data.rows import shape_of, unwrapped
from noisyfit.embedding.encoders import ContrastiveEmbedder, Embedder, StandardizedFeatures
from noisyfit.estimator.bases import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from noisyfit.estimator.checkpoint import Checkpoint
from noisyfit.estimator.delegation import seeded
from noisyfit.estimator.fitted import FittedAttributes, all_or_nothing
from noisyfit.estimator.format import check_row_shape, image_layout
from noisyfit.estimator.identity import fingerprint
from noisyfit.estimator.labels import as_labels
from noisyfit.estimator.persistence.models import code_in, learned
from noisyfit.estimator.persistence.savable import Savable
from noisyfit.exceptions import warn
from noisyfit.methods.coteaching import CoTeachingClassifier
from noisyfit.methods.echoalign.memory import restored, stored
from noisyfit.methods.echoalign.thresholds import (
    check_threshold,
    find_threshold,
    most_similar_half,
)
from noisyfit.nn.generators import ConditionalDiffusion, Modifier, Trainable
from noisyfit.nn.generators.conditional_diffusion import SMALL_IMAGE
from noisyfit.nn.generators.row_store import RowStore
from noisyfit.utils.devices import resolve_device
from noisyfit.utils.files import make_folder
from noisyfit.utils.parameters import HasMethods, Interval, StrOptions
from noisyfit.utils.torch_state import torch_defaults
from noisyfit.utils.validation import (
    as_column,
    check_clean_mask,
    check_given,
    check_lengths,
    find_classes,
    present_labels,
    take_rows,
)

WAYS = ("auto", "similarity", "loss")
LARGEST_TABLE = 2**27  # entries of a sparse table that may be made dense: 512 MiB in float32
N_NEIGHBORS = 10  # that say what a row is, if no classifier does


class EchoMod(FittedAttributes, OneToOneFeatureMixin, TransformerMixin, Savable, BaseEstimator):
    """Modify every row until it fits its label: the first part of EchoAlign.

    See section 4.1 of [1]_. ``fit_transform(X, y)`` returns modified rows for training.
    ``transform(X)`` returns rows unchanged, because at prediction there are no labels to align them
    with. The two differ, as in scikit-learn's ``TargetEncoder``.

    Parameters
    ----------
    modifier : None, `Modifier` or callable, default=None
        Generator with ``modify(x, y, generator)``, or a function with the same arguments. None is
        `noisyfit.nn.generators.ConditionalDiffusion`, trained on the rows and their labels. A
        generator with ``fit`` is copied and trained.
    batch_size : int >= 1, default=512
        Number of rows modified at once; `memory` is written in the same batches.
    memory : path or None, default=None
        Folder that keeps trained generators and modified rows, keyed by their content, label, seed,
        the settings of the generator and everything it was trained on. If a fit was killed, calling
        it again resumes where it stopped, in the training of the generator or with the rows that
        are missing. Another fold or other labels never find these rows.
    image_layout : {"auto", "HW", "HWC", "CHW"}, default="auto"
        Order of the axes of one image.
    device : str or torch.device, default="auto"
        Device of the default generator and encoder; others choose their own.
    random_state : int, RandomState instance or None, default=None
        With None every fit is different and finds nothing in `memory`.

    Attributes
    ----------
    modifier_ : object
        The trained generator.
    n_features_in_ : int
    layout_ : str
        ``"table"`` or the order of the axes of one image.

    References
    ----------
    .. [1] Zheng, Han, Yin, Gao, Liu. Can We Treat Noisy Labels as Accurate? 2024. arXiv:2405.12969

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from noisyfit import EchoMod
    >>> from noisyfit.nn.generators import ConditionalDiffusion
    >>> X, y = load_iris(return_X_y=True)
    >>> quick = ConditionalDiffusion(n_train_steps=50, width=32)
    >>> EchoMod(quick, random_state=0).fit_transform(X, y).shape
    (150, 4)
    """

    layout_: str
    input_shape_: tuple[int, ...]
    _folder: Path | None = None  # of what the generator has made, in the memory of the fit
    _made_of: ClassVar[Mapping[str, str]] = {"modifier_": "modifier"}
    _needed: ClassVar[tuple[str, ...]] = (
        "input_shape_",
        "layout_",
        "modifier_",
        "n_features_in_",
        "seed_",
    )
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "modifier": [HasMethods("modify"), callable, None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "memory": [str, os.PathLike, None],
        "image_layout": [StrOptions({"auto", "HW", "HWC", "CHW"})],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        modifier: Any = None,
        *,
        batch_size: int = 512,
        memory: str | os.PathLike[str] | None = None,
        image_layout: str = "auto",
        device: str | torch.device = "auto",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.modifier = modifier
        self.batch_size = batch_size
        self.memory = memory
        self.image_layout = image_layout
        self.device = device
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.three_d_array = True
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    @torch_defaults()
    def fit(self, X: Any, y: Any) -> Self:
        """Train the generator on rows (n_samples, ...) and their labels (n_samples,)."""
        with all_or_nothing(self):
            X, y = self._read_training_rows(X, y)
            self.modifier_ = self._trained_modifier(self._as_tensor(X), y)
        return self

    @torch_defaults()
    def fit_transform(  # type: ignore[override]  # y is needed
        self, X: Any, y: Any
    ) -> NDArray[Any]:
        """Return modified rows, in the shape and dtype of X."""
        with all_or_nothing(self):
            X, y = self._read_training_rows(X, y)
            x = self._as_tensor(X)
            self.modifier_ = self._trained_modifier(x, y)
            return self._as_array(self._modified(x, y), X)

    def transform(self, X: Any) -> NDArray[Any]:
        """Return X unchanged."""
        check_is_fitted(self)
        return self._read_rows(X, reset=False)

    # ------------------------------------------------------------------------------- reading

    def _check_parameters(self) -> None:
        super()._check_parameters()
        resolve_device(self.device)

    def _read_training_rows(self, X: Any, y: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        self._check_parameters()
        check_given(y, type(self).__name__)
        X = self._read_rows(X, reset=True)
        y = as_labels(y)
        check_lengths(len(X), len(y))
        y = present_labels(y)
        self.classes_ = find_classes(y)
        self.seed_ = int(check_random_state(self.random_state).randint(2**31 - 1))
        return X, y

    def _read_rows(self, X: Any, *, reset: bool) -> NDArray[Any]:
        X = unwrapped(X)
        if not reset and self.layout_ != "table":  # scikit-learn takes the height for features
            check_row_shape(shape_of(X), self.input_shape_)
        X = validate_data(
            self,
            X,
            reset=reset,
            dtype="numeric",
            accept_sparse=True,
            allow_nd=True,
            ensure_min_samples=2 - (not reset),
        )
        X = _densified(X)
        if reset:
            self.layout_ = image_layout(X.shape, self.image_layout)
            self.input_shape_ = X.shape[1:]
        return X

    def _as_tensor(self, X: NDArray[Any]) -> Tensor:
        """Return rows as a generator takes them: (n, d) or (n, C, H, W), uint8 or float32."""
        bytes_of_images = X.dtype == np.uint8 and self.layout_ != "table"
        x = torch.as_tensor(np.array(X, np.uint8 if bytes_of_images else np.float32))
        if self.layout_ == "HWC":
            return x.permute(0, 3, 1, 2)
        return x[:, None] if self.layout_ == "HW" else x

    def _as_array(self, x: Tensor, like: NDArray[Any]) -> NDArray[Any]:
        """Undo `_as_tensor`."""
        if self.layout_ == "HWC":
            x = x.permute(0, 2, 3, 1)
        rows = (x[:, 0] if self.layout_ == "HW" else x).numpy()
        whole = like.dtype.kind in "iu" and rows.dtype.kind == "f"
        return np.ascontiguousarray((rows.round() if whole else rows).astype(like.dtype))

    # -------------------------------------------------------------------------- modification

    def _trained_modifier(self, x: Tensor, y: NDArray[Any]) -> Any:
        """Return a copy of the generator, trained if it can be."""
        modifier = deepcopy(self.modifier)
        if modifier is None:
            modifier = ConditionalDiffusion(device=resolve_device(self.device))
        if not isinstance(modifier, Trainable):
            self._remember(_identity(modifier), self.seed_)
            return modifier
        self._remember(_identity(modifier), self.seed_, x, y.tolist())
        return self._kept("generator", modifier, x, y, self._generator(b"fit"))

    def _kept(self, name: str, model: Any, *data: Any) -> Any:
        """Return what was trained before from the same origin, or train and keep it."""
        if self._folder is None:
            return model.fit(*data)
        file = self._folder / f"{name}.pt"
        known = restored(model, file)
        if known is not None:
            return known
        checkpoint = Checkpoint.claim(self._folder, "training")
        try:
            resumes = has_fit_parameter(model, "checkpoint")
            code = code_in(model)
            trained = model.fit(*data, **{"checkpoint": checkpoint} if resumes else {})
            content = stored(trained, code)
            if content is not None:
                checkpoint.write(file, content)
            checkpoint.remove()
        finally:
            checkpoint.release()
        return trained

    def _state_of(self, attribute: str) -> Any:
        """Return what a user's own generator has learned."""
        if not isinstance(self.modifier_, Trainable):
            return None
        return learned(self.modifier_, code_in(self.modifier))

    def _remember(self, *origin: Any) -> None:
        """Choose the folder for this origin; `memory` keeps nothing else in it."""
        self._folder = None
        if self.memory is not None:
            self._folder = Path(self.memory) / fingerprint(*origin)
            make_folder(self._folder)

    def _generator(self, purpose: bytes) -> torch.Generator:
        """Return a random generator that depends only on the seed and a purpose."""
        digest = hashlib.sha1(self.seed_.to_bytes(8, "little") + purpose).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))

    def _modified(self, x: Tensor, y: NDArray[Any]) -> Tensor:
        """Modify rows batch by batch; with `memory`, only those it does not hold."""
        keys = _row_keys(x, y)
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        if self._folder is None:
            parts = [self._modified_batch(x, y, keys, part) for part in self._parts(first.values())]
            place = {key: n for n, key in enumerate(sorted(first, key=first.__getitem__))}
            return torch.cat(parts)[[place[key] for key in keys]]
        dtype = np.uint8 if x.dtype == torch.uint8 else np.float32
        with RowStore(self._folder, tuple(x.shape[1:]), dtype) as store:
            missing = [i for key, i in first.items() if key not in store]
            for part in self._parts(missing):
                rows = self._modified_batch(x, y, keys, part)
                store.put([keys[i] for i in part], rows.numpy())
            return torch.as_tensor(store.get(keys))

    def _parts(self, rows: Any) -> list[list[int]]:
        order = sorted(rows)
        return [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]

    def _modified_batch(
        self, x: Tensor, y: NDArray[Any], keys: list[bytes], part: list[int]
    ) -> Tensor:
        batch = x[part]
        modify = self.modifier_.modify if isinstance(self.modifier_, Modifier) else self.modifier_
        purpose = b"".join(keys[i] for i in part)
        found = torch.as_tensor(modify(batch, y[part], self._generator(purpose))).detach().cpu()
        if found.shape != batch.shape:
            raise ValueError(
                f"A modifier must return rows of the shape it is given, {tuple(batch.shape)}. "
                f"Got {tuple(found.shape)} from {type(self.modifier_).__name__}."
            )
        return found.to(x.dtype)


class EchoSelect(EchoMod):
    """Keep rows that stay similar when modified, replace the others.

    Aligning a row with its label changes little if the label is right; if it is wrong, the row has
    to become something else. The cosine similarity between the features of the original and the
    modified row (Eq. 1 and Algorithm 1 of [1]_) tells the two apart.

    ``fit_transform(X, y)`` returns the refined rows for training: the original where the similarity
    is at least the threshold, the modified row elsewhere. The number of rows and the labels do not
    change, so it can precede a classifier in a ``Pipeline``. ``transform(X)`` returns rows
    unchanged.

    A generator that learned from the same wrong labels knows less of them than the loss of a
    network. Where it is the default one, a classifier therefore decides which originals to keep
    (`select_by`), and the generator is trained on these.

    Step by step, if the similarity decides: 1. train the generator on all rows (or use an external
    one); 2. modify every row; 3. compare original and modified rows; 4. train the generator again,
    on the most similar half of each label's rows, and repeat from 2., `n_rounds` times in all;
    5. apply the threshold. If a classifier decides: 1. rate the labels and apply the threshold;
    2. train the generator on the kept rows; 3. modify every row.

    Parameters
    ----------
    modifier : None, `Modifier` or callable, default=None
        As in `EchoMod`.
    embedder : None, `Embedder`, fitted transformer or callable, default=None
        The features in which similarity is measured. None uses standardised columns for tables,
        standardised pixels for images of up to 1,024 values, and for larger images an encoder
        trained on them without labels. Objects with ``embed`` receive tensors and are trained first
        if they have ``fit``; objects with ``transform``, and functions, receive arrays in your own
        shape. When the selector is cloned, as in `EchoAlignClassifier`, wrap a fitted transformer
        in scikit-learn's ``FrozenEstimator`` to keep it fitted. Never pass a classifier trained on
        the same labels.
    select_by : {"auto", "similarity", "loss"} or classifier, default="auto"
        What decides which originals to keep. ``"similarity"`` is the paper's. ``"loss"`` is the
        quality of the labels in `CoTeachingClassifier`, whose networks learn from rows of small
        loss. ``"auto"`` is the loss if the generator is trained on these rows, and the similarity
        if it comes from elsewhere. A classifier of this package, or any with ``score_labels`` whose
        ``fit`` sets ``label_quality_``, is cloned, fitted on the rows, and rates their labels:
        ``CrossEntropyClassifier(max_epochs=70)`` is the small-loss selector of the released code,
        with mean probabilities of the given labels in place of mean losses. It is not told which
        rows are trusted; these are kept whatever their score.
    relative : bool, default=False
        Whether a similarity counts by how much it exceeds that of the best other label, in [-2, 2]
        instead of [-1, 1]. Rows are then modified toward every class. On 1,000 digits with 40 %
        wrong labels, one seed, similarities find them with an AUROC of 0.98 instead of 0.94
        (symmetric) and 0.78 instead of 0.69 (pairflip). The paper looks at the own label only.
    threshold : float in [-1, 1], {"otsu", "gmm"} or ("quantile", float), default="otsu"
        Similarity, or quality in [0, 1] if a classifier rates, from which an original is kept.
        "otsu" splits the values into the two groups of least variance; "gmm" splits where the
        posteriors of a mixture of two normals are equal. Both keep everything, with a
        warning, if the values do not form two groups. ("quantile", q) drops the share `q` of each
        label's rows, for scores that differ between labels.
    n_rounds : int >= 1, default=2
        How often the generator is trained if the similarity decides; 1 is the paper's algorithm.
        Generators without ``fit`` have one round.
    batch_size, memory, image_layout, device, random_state
        As in `EchoMod`.

    Attributes
    ----------
    similarities_ : ndarray of shape (n_samples,)
        In [-1, 1]; low means suspicious.
    label_quality_ : ndarray of shape (n_samples,)
        In [0, 1]: ``(1 + similarity) / 2``, or the quality from ``rater_``.
    support_ : ndarray of bool of shape (n_samples,)
        Rows whose originals are kept.
    believed_labels_ : ndarray of shape (n_samples,)
        The given labels of kept rows. Of the others, the most likely class: what ``rater_``
        believes or, if the similarity decides, the most frequent label of the ten most similar
        originals that are kept.
    threshold_ : float or ndarray of shape (n_classes,)
        An array, in the order of ``classes_``, for quantiles.
    modified_ : ndarray of the shape of X
        All modified rows.
    classes_ : ndarray of shape (n_classes,)
    modifier_, embedder_ : objects
    rater_ : classifier or None
        The classifier that rated the labels; None for similarity.
    n_features_in_ : int
    layout_ : str

    References
    ----------
    .. [1] Zheng, Han, Yin, Gao, Liu. Can We Treat Noisy Labels as Accurate? 2024. arXiv:2405.12969

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from noisyfit import EchoSelect
    >>> from noisyfit.nn.generators import ConditionalDiffusion
    >>> X, y = load_iris(return_X_y=True)
    >>> quick = ConditionalDiffusion(n_train_steps=50, width=32)
    >>> echo = EchoSelect(quick, random_state=0)
    >>> refined = echo.fit_transform(X, y)
    >>> bool((refined[echo.support_] == X[echo.support_]).all())
    True
    """

    similarities_: NDArray[np.float64]
    __metadata_request__fit: ClassVar = {"clean_mask": True}
    _parameter_constraints: ClassVar = {
        **EchoMod._parameter_constraints,
        "embedder": [HasMethods("embed"), HasMethods("transform"), callable, None],
        "relative": ["boolean"],
        "n_rounds": [Interval(Integral, 1, None, closed="left")],
    }
    _made_of: ClassVar[Mapping[str, str]] = {
        **EchoMod._made_of,
        "embedder_": "embedder",
        "rater_": "select_by",
    }
    _needed: ClassVar[tuple[str, ...]] = (
        *EchoMod._needed,
        "classes_",
        "embedder_",
        "rater_",
        "threshold_",
    )
    _module_parameter: ClassVar = "select_by__module"

    def __init__(
        self,
        modifier: Any = None,
        embedder: Any = None,
        *,
        select_by: Any = "auto",
        relative: bool = False,
        threshold: float | str | tuple[str, float] = "otsu",
        n_rounds: int = 2,
        batch_size: int = 512,
        memory: str | os.PathLike[str] | None = None,
        image_layout: str = "auto",
        device: str | torch.device = "auto",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(
            modifier,
            batch_size=batch_size,
            memory=memory,
            image_layout=image_layout,
            device=device,
            random_state=random_state,
        )
        self.embedder = embedder
        self.select_by = select_by
        self.relative = relative
        self.threshold = threshold
        self.n_rounds = n_rounds

    @torch_defaults()
    def fit(self, X: Any, y: Any, *, clean_mask: Any = None) -> Self:
        """Modify all rows and decide which originals to keep.

        Parameters
        ----------
        X : array-like or sparse matrix
            A table (n_samples, n_features), or images (n, H, W), (n, H, W, C) or (n, C, H, W). A
            sparse table is made dense: what a generator returns has no zeros.
        y : array-like of shape (n_samples,)
            Given labels of any type.
        clean_mask : array-like of bool of shape (n_samples,), default=None
            Rows whose label is known to be right; their originals are kept.
        """
        with all_or_nothing(self):
            self._align(X, y, clean_mask)
        return self

    @torch_defaults()
    def fit_transform(  # type: ignore[override]
        self, X: Any, y: Any, *, clean_mask: Any = None
    ) -> NDArray[Any]:
        """Return the refined rows; parameters as in `fit`."""
        with all_or_nothing(self):
            X = self._align(X, y, clean_mask)
            return np.where(_column(self.support_, X), X, self.modified_)

    @torch_defaults()
    def similarity(self, X: Any, y: Any) -> NDArray[np.float64]:
        """Return how similar new rows stay when aligned with their labels, (n_samples,)."""
        check_is_fitted(self)
        x = self._as_tensor(self._read_rows(X, reset=False))
        y = present_labels(column_or_1d(as_column(y)))
        return self._compared(x, y, self._features(x), self._modified(x, y))

    def score_labels(self, X: Any, y: Any) -> NDArray[np.float64]:
        """Rate the labels of new rows, in [0, 1]; low means suspicious."""
        check_is_fitted(self)
        if self.rater_ is None:
            return self._as_rating(self.similarity(X, y))
        return self.rater_.score_labels(self._read_rows(X, reset=False), y)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_threshold(self.threshold)
        check_select_by(self.select_by)

    def _align(self, X: Any, y: Any, clean_mask: Any) -> NDArray[Any]:
        """Run the algorithm and return X as it was read."""
        X, y = self._read_training_rows(X, y)
        codes = np.searchsorted(self.classes_, y)
        trusted = check_clean_mask(clean_mask, codes)
        self.rater_ = self._trained_rater(X, y)
        x = self._as_tensor(X)
        self.embedder_ = self._trained_embedder(x)
        originals = self._features(x)
        chosen = np.ones(len(y), dtype=bool)
        if self.rater_ is not None:
            chosen = self._decide(self._quality(), codes, trusted)
        for _ in range(self._count_rounds()):
            self.modifier_ = self._modifier_for(chosen, x, y)
            modified = self._modified(x, y)  # step 1 of Algorithm 1
            self.similarities_ = self._compared(x, y, originals, modified)  # step 2, Eq. 1
            chosen = most_similar_half(self.similarities_, codes) | trusted
        self.modified_, self.label_quality_ = self._as_array(modified, X), self._quality()
        if self.rater_ is None:
            self._decide(self.similarities_, codes, trusted)
        self.believed_labels_ = self._believed_labels(y, originals)
        return X

    def _quality(self) -> NDArray[np.float64]:
        if self.rater_ is None:
            return self._as_rating(self.similarities_)
        return np.asarray(self.rater_.label_quality_, dtype=float)

    def _decide(
        self, scores: NDArray[np.float64], codes: NDArray[Any], trusted: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Keep the originals whose score is at least the threshold."""
        self.threshold_ = find_threshold(scores, codes, self.threshold)
        high = scores >= _at(self.threshold_, codes)
        self.support_ = high | trusted
        if isinstance(self.threshold, str) and high.all():
            warn(
                "Scores must form two groups for a threshold to be found between them. Got one, so "
                "every original is kept, under its given label. That is right if the labels are; "
                "otherwise pass a number, or the share to reject: threshold=('quantile', 0.3)."
            )
        return self.support_

    def _modifier_for(self, chosen: NDArray[np.bool_], x: Tensor, y: NDArray[Any]) -> Any:
        """Train the generator on chosen rows, and on all of a class of which none is chosen."""
        chosen = chosen | ~np.isin(y, y[chosen])
        return self._trained_modifier(x[chosen], y[chosen])

    def _believed_labels(self, y: NDArray[Any], originals: Tensor) -> NDArray[Any]:
        """Return the given labels of kept rows, the most likely ones of the others."""
        kept, believed = self.support_, y.copy()
        if hasattr(self.rater_, "label_distribution_"):
            most_likely = self.rater_.label_distribution_[~kept].argmax(1)
            believed[~kept] = self.rater_.classes_[most_likely]
        elif kept.any() and not kept.all():
            nearest = KNeighborsClassifier(min(N_NEIGHBORS, kept.sum()), metric="cosine")
            rows = originals.cpu().numpy()
            believed[~kept] = nearest.fit(rows[kept], y[kept]).predict(rows[~kept])
        return believed

    def _state_of(self, attribute: str) -> Any:
        """Return what a user's own generator or encoder has learned."""
        if attribute == "modifier_":
            return super()._state_of(attribute)
        if attribute == "rater_":
            return Savable._state_of(self, attribute)
        return learned(self.embedder_, code_in(self.embedder)) if _learns(self.embedder_) else None

    def _trained_rater(self, X: NDArray[Any], y: NDArray[Any]) -> Any:
        """Return the classifier that rates the labels, None if the similarity does."""
        way = self._chosen_way()
        if way == "similarity":
            return None
        rater = seeded(self._default_rater() if way == "loss" else way, self.seed_)
        kind = type(rater)
        self._remember(kind.__module__, kind.__name__, rater.get_params(deep=False), X, y.tolist())
        rater = self._kept("rater", rater, X, y)
        if np.isnan(rater.label_quality_).any():
            raise ValueError(
                "The classifier in select_by must rate every label. Got "
                f"{kind.__name__}, which takes some for missing. Leave its missing_label away; "
                "EchoAlignClassifier has one for rows without a label."
            )
        return rater

    def _chosen_way(self) -> Any:
        """Return `select_by`, or what "auto" stands for."""
        if isinstance(self.select_by, str) and self.select_by == "auto":
            return "loss" if self._trains_generator() else "similarity"
        return self.select_by

    def _count_rounds(self) -> int:
        return self.n_rounds if self.rater_ is None and self._trains_generator() else 1

    def _default_rater(self) -> CoTeachingClassifier:
        return CoTeachingClassifier(image_layout=self.image_layout, device=self.device)

    def _trains_generator(self) -> bool:
        return self.modifier is None or isinstance(self.modifier, Trainable)

    def _trained_embedder(self, x: Tensor) -> Any:
        embedder = deepcopy(self.embedder)
        small = self.layout_ == "table" or x[0].numel() <= SMALL_IMAGE
        if embedder is None and small:
            embedder = StandardizedFeatures()
        elif embedder is None:
            embedder = ContrastiveEmbedder(device=resolve_device(self.device))
        if not _learns(embedder):
            return embedder
        self._remember(_identity(embedder), self.seed_, x)
        return self._kept("embedder", embedder, x, self._generator(b"embed"))

    def _features(self, x: Tensor) -> Tensor:
        if isinstance(self.embedder_, Embedder):
            return self.embedder_.embed(x)
        rows = self._as_array(x, np.empty(0, np.uint8 if x.dtype == torch.uint8 else np.float32))
        embed = getattr(self.embedder_, "transform", self.embedder_)
        return torch.as_tensor(np.asarray(embed(rows), np.float32)).flatten(1)

    def _compared(
        self, x: Tensor, y: NDArray[Any], originals: Tensor, modified: Tensor
    ) -> NDArray[np.float64]:
        """Return how similar rows stay, if asked for relative to the best other label."""
        own = self._similarities(originals, modified)
        if not self.relative:
            return own
        best = np.full(len(y), -1.0)
        for label in self.classes_:
            toward = self._similarities(originals, self._modified(x, np.full_like(y, label)))
            best = np.where(y == label, best, np.maximum(best, toward))
        return own - best

    def _as_rating(self, similarities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map similarities to [0, 1]."""
        return (similarities + 2) / 4 if self.relative else (similarities + 1) / 2

    def _similarities(self, originals: Tensor, modified: Tensor) -> NDArray[np.float64]:
        found = F.cosine_similarity(originals.double(), self._features(modified).double(), dim=1)
        return found.cpu().numpy().clip(-1, 1)


class EchoSelectSampler(FittedAttributes, BaseEstimator):
    """Drop the rows whose originals `EchoSelect` does not keep.

    A sampler for imbalanced-learn's ``Pipeline``.

    Parameters
    ----------
    selector : EchoSelect or None, default=None
        Cloned at fit. None uses the defaults.

    Attributes
    ----------
    selector_ : EchoSelect
    sample_indices_ : ndarray of shape (n_kept,)
        Indices of the rows that are kept.
    n_features_in_ : int

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from noisyfit import EchoSelect, EchoSelectSampler
    >>> from noisyfit.nn.generators import ConditionalDiffusion
    >>> X, y = load_iris(return_X_y=True)
    >>> quick = ConditionalDiffusion(n_train_steps=50, width=32)
    >>> sampler = EchoSelectSampler(EchoSelect(quick, random_state=0))
    >>> X_kept, y_kept = sampler.fit_resample(X, y)
    >>> len(X_kept) == len(y_kept) == len(sampler.sample_indices_)
    True
    """

    def __init__(self, selector: EchoSelect | None = None) -> None:
        self.selector = selector

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.sparse = True
        return tags

    def fit(self, X: Any, y: Any) -> Self:
        """Decide which rows to keep."""
        selector = EchoSelect() if self.selector is None else clone(self.selector)
        with all_or_nothing(self):
            self.selector_ = selector.fit(X, y)
            self.sample_indices_ = np.flatnonzero(selector.support_)
            self.n_features_in_ = self.selector_.n_features_in_
            if hasattr(self.selector_, "feature_names_in_"):
                self.feature_names_in_ = self.selector_.feature_names_in_
        return self

    def fit_resample(self, X: Any, y: Any) -> tuple[Any, Any]:
        """Return the rows that are kept and their labels, in the containers of X and y."""
        self.fit(X, y)
        kept = self.sample_indices_
        return take_rows(X, kept), take_rows(y, kept)


def _densified(X: Any) -> NDArray[Any]:
    """Make a sparse table dense, which modified rows are."""
    if not issparse(X):
        return X  # type: ignore[no-any-return]
    if X.shape[0] * X.shape[1] > LARGEST_TABLE:
        raise ValueError(
            "EchoAlign makes sparse rows dense, because modified rows have no zeros; they must "
            f"have at most {LARGEST_TABLE:,} entries. Got {X.shape[0]:,} x {X.shape[1]:,}. Make "
            "fewer columns, as by TruncatedSVD(100) before this step, pass fewer rows, or choose "
            "another method, which takes a sparse table as it is."
        )
    return np.asarray(X.toarray())


def check_select_by(way: Any) -> None:
    """Refuse what cannot rate labels."""
    rates = hasattr(way, "fit") and hasattr(way, "score_labels")
    if not rates and not (isinstance(way, str) and way in WAYS):
        raise ValueError(
            "select_by must be 'auto', 'similarity', 'loss' or a classifier of noisyfit, which "
            f"rates labels. Got {way!r}. Pass CrossEntropyClassifier(), for example."
        )


def _learns(embedder: Any) -> bool:
    """Whether an encoder is trained on the rows; a transformer was fitted elsewhere."""
    return isinstance(embedder, Embedder) and hasattr(embedder, "fit")


def _identity(thing: Any) -> Any:
    """Return the identity of a generator or encoder."""
    return thing.identity() if hasattr(thing, "identity") else thing


def _row_keys(x: Tensor, y: NDArray[Any]) -> list[bytes]:
    """Return a 20-byte digest of each row and its label."""
    rows = np.ascontiguousarray(x.numpy())
    return [
        hashlib.sha1(row.tobytes() + repr(label).encode()).digest()
        for row, label in zip(rows, y.tolist(), strict=True)
    ]


def _at(threshold: float | NDArray[np.float64], codes: NDArray[Any]) -> Any:
    return threshold[codes] if isinstance(threshold, np.ndarray) else threshold


def _column(mask: NDArray[np.bool_], X: NDArray[Any]) -> NDArray[np.bool_]:
    """Return one value per row, to broadcast against rows."""
    return mask.reshape(-1, *[1] * (X.ndim - 1))
