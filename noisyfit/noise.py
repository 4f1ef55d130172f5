"""Simulate label noise, and record which labels it changed.

Every function takes clean labels ``y`` of shape (n_samples,), in which each distinct value is a
class, and a ``random_state`` (int, Generator, RandomState; None draws a fresh seed). NumPy's global
state is left untouched. All return `NoisyLabels`, with labels of the type of ``y``, and raise
`ValueError` if a parameter is out of range, or if ``y`` has rows without a label, numbers that are
not whole, or fewer than two classes.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from scipy.stats import truncnorm

from noisyfit.utils.parameters import check_number
from noisyfit.utils.validation import as_column, present_labels

RandomState: TypeAlias = int | np.random.RandomState | np.random.Generator | None
_Floats: TypeAlias = NDArray[np.float64]
_Codes: TypeAlias = NDArray[np.intp]

# Superclass -> its five classes, in the order of the coarse labels.
_CIFAR100_TREE = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
_SUPERCLASSES = [names.split() for names in _CIFAR100_TREE.values()]
_COARSE = {name: coarse for coarse, names in enumerate(_SUPERCLASSES) for name in names}
_FINE = {name: fine for fine, name in enumerate(sorted(_COARSE))}

CIFAR100_SUPERCLASSES: tuple[int, ...] = tuple(_COARSE[name] for name in _FINE)
"""Coarse label of each of the 100 fine labels; both are numbered alphabetically."""

CIFAR100_MAP: Mapping[int, int] = {
    _FINE[name]: _FINE[names[(i + 1) % 5]]
    for names in _SUPERCLASSES
    for i, name in enumerate(names)
}
"""Each fine label -> the next one of its superclass, circular."""

CIFAR10_MAP: Mapping[int, int] = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}
"""Truck -> automobile, bird -> airplane, deer -> horse, cat <-> dog."""

_HUMAN_PERCENT = [
    [61, 4, 10, 3, 2, 2, 2, 2, 10, 4],  # airplane
    [3, 60, 1, 2, 1, 1, 1, 2, 4, 25],  # automobile
    [8, 2, 58, 7, 6, 5, 7, 4, 2, 1],  # bird
    [2, 2, 5, 49, 6, 21, 8, 5, 1, 1],  # cat
    [2, 1, 6, 6, 55, 8, 5, 15, 1, 1],  # deer
    [1, 1, 4, 18, 5, 60, 3, 6, 1, 1],  # dog
    [2, 1, 9, 10, 6, 5, 63, 2, 1, 1],  # frog
    [2, 2, 3, 3, 8, 6, 1, 72, 1, 2],  # horse
    [13, 6, 2, 2, 1, 1, 2, 1, 66, 6],  # ship
    [3, 28, 1, 2, 1, 1, 1, 2, 4, 57],  # truck
]
HUMAN_LIKE_CIFAR10: _Floats = np.array(_HUMAN_PERCENT) / 100
"""How a hasty person confuses ten kinds of pictures; rows true class, columns given class."""
HUMAN_LIKE_CIFAR10.setflags(write=False)

_CHUNK = 1024  # rows cast to float64 at a time


class NoisyLabels(NamedTuple):
    """Noisy labels, and what only a simulator knows about them.

    Parameters
    ----------
    labels : ndarray of shape (n_samples,)
        The noisy labels, of the same type as the clean ones.
    flipped : ndarray of bool, shape (n_samples,)
        Where the noisy label differs from the clean one.
    rate : float
        Realised fraction of flipped labels.
    transition : ndarray of shape (n_classes, n_classes)
        Probability of each observed class (column) given the true class (row), in sorted order.
    """

    labels: NDArray[Any]
    flipped: NDArray[np.bool_]
    rate: float
    transition: _Floats


def symmetric(
    y: ArrayLike,
    rate: float,
    *,
    own_class: bool = False,
    exact: bool = False,
    random_state: RandomState = None,
) -> NoisyLabels:
    """Replace labels with classes drawn uniformly.

    Papers mean two things by "symmetric noise of rate r": never the own class (Han et al.,
    Co-teaching, NeurIPS 2018) or any class (Li et al., DivideMix, ICLR 2020).

    Parameters
    ----------
    rate : float
        Probability that a label is redrawn. In [0, (n_classes - 1) / n_classes) without the own
        class, and in [0, 1) with it: at higher rates the true class is no longer the most likely
        one.
    own_class : bool, default=False
        False: redraw from the other classes, so the realised rate is ``rate`` on average. True:
        redraw from all classes, so it is ``rate * (n_classes - 1) / n_classes``.
    exact : bool, default=False
        Redraw exactly ``round(rate * n_samples)`` labels instead of deciding for each
        independently.

    Examples
    --------
    >>> noisy = symmetric([0, 1] * 50, 0.2, exact=True, random_state=0)
    >>> noisy.rate, int(noisy.flipped.sum())
    (0.2, 20)
    """
    classes, codes = _encode(y)
    n, n_classes = len(codes), len(classes)
    _check_flags(own_class=own_class, exact=exact)
    rate = _checked_rate(rate, 1.0 if own_class else (n_classes - 1) / n_classes)
    rng = _generator(random_state)
    stay = np.eye(n_classes)
    redraw = np.ones_like(stay) / n_classes if own_class else (1 - stay) / (n_classes - 1)
    if exact:
        chosen = rng.permutation(n)[:, None] < round(rate * n)
        rate = round(rate * n) / n
    else:
        chosen = rng.random((n, 1)) < rate
    noisy = _flip(classes, codes, lambda c, rows: np.where(chosen[rows], redraw[c], stay[c]), rng)
    return noisy._replace(transition=(1 - rate) * stay + rate * redraw)


def asymmetric(
    y: ArrayLike, rate: float, mapping: Mapping[Any, Any], *, random_state: RandomState = None
) -> NoisyLabels:
    """Mistake some classes for one similar class each (Patrini et al., CVPR 2017).

    Parameters
    ----------
    rate : float in [0, 0.5)
        Probability that a label of a mapped class flips. The realised rate is on average ``rate``
        times the fraction of rows in mapped classes: about half of ``rate`` for `CIFAR10_MAP`.
        At 0.5 two classes mapped to each other can no longer be told apart.
    mapping : dict
        Maps a true class to the class it is mistaken for; other classes keep their labels.
        `CIFAR100_MAP` follows the true superclasses, not blocks of five consecutive labels as in
        much code.

    Examples
    --------
    >>> asymmetric(["cat", "dog"], 0.4, {"cat": "dog"}).transition
    array([[0.6, 0.4],
           [0. , 1. ]])
    """
    classes, codes = _encode(y)
    rate = _checked_rate(rate, 0.5)
    if not isinstance(mapping, Mapping):
        raise ValueError(
            f"mapping must be a dict from classes to classes. Got {mapping!r}. Pass CIFAR10_MAP, "
            "for example."
        )
    code_of = {label: code for code, label in enumerate(classes.tolist())}
    unknown = [label for pair in mapping.items() for label in pair if label not in code_of]
    if unknown:
        raise ValueError(
            f"mapping must name classes of y. Got {unknown[0]!r}, but y holds {_listing(classes)}."
        )
    transition = np.eye(len(classes))
    for true_class, mistaken_for in mapping.items():
        transition[code_of[true_class], code_of[true_class]] -= rate
        transition[code_of[true_class], code_of[mistaken_for]] += rate
    return _flip_by_matrix(classes, codes, transition, _generator(random_state))


def pairflip(y: ArrayLike, rate: float, *, random_state: RandomState = None) -> NoisyLabels:
    """Mistake every class for the next in sorted order (Han et al., Co-teaching, NeurIPS 2018).

    The last class is mistaken for the first.

    Parameters
    ----------
    rate : float in [0, 0.5)
        Probability that a label flips, and the realised rate on average.

    Examples
    --------
    >>> pairflip([3, 1, 2], 0.25).transition
    array([[0.75, 0.25, 0.  ],
           [0.  , 0.75, 0.25],
           [0.25, 0.  , 0.75]])
    """
    classes, codes = _encode(y)
    rate = _checked_rate(rate, 0.5)
    stay = np.eye(len(classes))
    transition = (1 - rate) * stay + rate * np.roll(stay, 1, axis=1)
    return _flip_by_matrix(classes, codes, transition, _generator(random_state))


def instance_dependent(
    y: ArrayLike,
    X: ArrayLike | None,
    rate: float,
    *,
    scale: Literal["unit_variance", "raw"] = "unit_variance",
    sharpness: float = 1.0,
    random_state: RandomState = None,
) -> NoisyLabels:
    """Flip each label with a probability, and to a class, that depend on the row's features.

    Every row has its own flip rate, drawn from a normal distribution truncated to [0, 1]. The class
    it flips to is drawn from a softmax over the other classes, applied to a random linear map of
    the features, one map per true class. A label never flips to its own class. Follows Xia et al.,
    Part-dependent label noise, NeurIPS 2020. The returned ``transition`` is the mean of the rows'
    own probabilities within each true class.

    Parameters
    ----------
    X : array-like of shape (n_samples, ...)
        Features or images. Standardise features in very different units first; otherwise the widest
        alone would decide.
    rate : float in [0, (n_classes - 1) / n_classes)
        Mean of the normal distribution (standard deviation 0.1) *before* truncation. The realised
        rate is on average the mean after it: 0.101 for 0.05, 0.129 for 0.1, 0.206 for 0.2, and
        ``rate`` itself from 0.3 to 0.7. Zero means no noise.
    scale : {"unit_variance", "raw"}, default="unit_variance"
        "unit_variance" centres the features and divides the logits of each class by their standard
        deviation, so units do not matter. "raw" uses the features unchanged, as in the paper: with
        pixels in 0-255 every row then has a single possible wrong class.
    sharpness : float, default=1.0
        Factor on the logits. 0 makes all wrong classes equally likely; the larger it is, the more
        the features determine the wrong class.
    """
    classes, codes = _encode(y)
    n_classes = len(classes)
    rate = _checked_rate(rate, (n_classes - 1) / n_classes)
    check_number("sharpness", sharpness)
    if scale not in ("unit_variance", "raw") or not 0 <= sharpness < np.inf:
        raise ValueError(
            "scale must be 'unit_variance' or 'raw', and sharpness finite and not negative. "
            f"Got scale={scale!r}, sharpness={sharpness!r}."
        )
    sharpness = float(sharpness)
    features, mean = _features(X, len(codes))
    center = np.zeros_like(mean) if scale == "raw" else mean
    rng = _generator(random_state)
    flip_rates = _flip_rates(rate, len(codes), rng)

    def class_probs(own: int, rows: _Codes) -> _Floats:
        projection = rng.standard_normal((len(center), n_classes))
        logits = _project(features, rows, center, projection)
        if scale == "unit_variance":
            logits /= logits.std() or 1.0  # equal rows: all logits are zero
        logits *= sharpness
        logits[:, own] = -np.inf
        probs: _Floats = flip_rates[rows, None] * softmax(logits, axis=1)
        probs[:, own] = 1 - flip_rates[rows]
        return probs

    return _flip(classes, codes, class_probs, rng)


def from_confusion(
    y: ArrayLike, transition: ArrayLike, *, random_state: RandomState = None
) -> NoisyLabels:
    """Draw each label from the row of its true class in a given matrix.

    Parameters
    ----------
    transition : array-like of shape (n_classes, n_classes)
        Probability of each observed class (column) given the true class (row), classes in sorted
        order. The realised rate is on average one minus the diagonal, averaged over the rows of y.

    Examples
    --------
    >>> from_confusion(["no", "yes", "yes"], [[0, 1], [1, 0]]).labels.tolist()
    ['yes', 'no', 'no']
    """
    classes, codes = _encode(y)
    matrix = np.array(transition, dtype=np.float64)
    shape = (len(classes), len(classes))
    if matrix.shape != shape:
        raise ValueError(
            f"transition must have shape {shape}: y holds {_listing(classes)}. Got {matrix.shape}."
        )
    if not (matrix >= 0).all() or not np.allclose(matrix.sum(axis=1), 1, rtol=0, atol=1e-6):
        raise ValueError(
            "transition must have entries >= 0 and rows that sum to 1. Got a smallest entry of "
            f"{matrix.min():g} and row sums {matrix.sum(axis=1)}. Divide each row by its sum."
        )
    return _flip_by_matrix(classes, codes, matrix, _generator(random_state))


def human_like(y: ArrayLike, *, random_state: RandomState = None) -> NoisyLabels:
    """Confuse the ten classes of CIFAR-10 roughly as one careless annotator would.

    Draws from `HUMAN_LIKE_CIFAR10`, which has about 40 % wrong labels. Its diagonal and strongest
    confusions are rounded from what is known of the "worst" labels of CIFAR-10N (Wei et al., ICLR
    2022); the smaller entries are invented. Unlike real human noise it ignores the picture. ``y``
    must hold exactly ten classes, which in sorted order stand for those of CIFAR-10.
    """
    return from_confusion(y, HUMAN_LIKE_CIFAR10, random_state=random_state)


def _encode(y: ArrayLike) -> tuple[NDArray[Any], _Codes]:
    labels = as_column(y)
    if labels.ndim != 1:
        raise ValueError(f"y must have shape (n_samples,). Got {labels.shape}. Use y.ravel().")
    classes, codes = np.unique(present_labels(labels), return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"y must hold two or more classes. Got {_listing(classes)}. Pass all classes at once."
        )
    return classes, codes


def _listing(classes: NDArray[Any]) -> str:
    shown = ", ".join(map(repr, classes[:10].tolist()))
    return f"{len(classes)} classes ({shown}{', ...' if len(classes) > 10 else ''})"


def _checked_rate(rate: float, limit: float) -> float:
    check_number("rate", rate)
    if not 0 <= rate < limit:
        raise ValueError(
            f"rate must lie in [0, {limit:.4g}), or the true class would no longer be the most "
            f"likely one. Got {rate!r}. Choose a lower rate, as a fraction of 1."
        )
    return float(rate)


def _generator(random_state: RandomState) -> np.random.Generator:
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(2**32, dtype=np.uint32))
    try:
        if isinstance(random_state, bool | np.bool_):
            raise TypeError("it is a truth value")
        return np.random.default_rng(random_state)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "random_state must be None, a whole number of at least 0, a Generator or a "
            f"RandomState. Got {random_state!r}: {error}. Pass a number such as 0."
        ) from error


def _check_flags(**flags: bool) -> None:
    for name, flag in flags.items():
        if not isinstance(flag, bool | np.bool_):
            raise ValueError(f"{name} must be True or False. Got {flag!r}. Pass one of the two.")


def _features(X: ArrayLike | None, n: int) -> tuple[NDArray[Any], _Floats]:
    features = np.asarray(X)
    if X is None or features.ndim < 2 or len(features) != n:
        raise ValueError(
            f"X must be a dense array of shape ({n}, ...), features of every row of y. Got "
            f"{'None' if X is None else features.shape}. Pass them, or choose another noise."
        )
    center = features.mean(axis=0, dtype=np.float64).ravel()
    if not np.isfinite(center).all():
        raise ValueError("X must be finite. Got NaN or infinity. Impute or drop those rows.")
    return features, center


def _flip_rates(rate: float, n: int, rng: np.random.Generator) -> _Floats:
    if rate == 0:  # truncation alone would flip 8 % of the labels
        return np.zeros(n)
    std = 0.1
    normal = truncnorm((0 - rate) / std, (1 - rate) / std, loc=rate, scale=std)
    return np.asarray(normal.rvs(n, random_state=rng))


def _project(features: NDArray[Any], rows: _Codes, center: _Floats, projection: _Floats) -> _Floats:
    chunks = np.array_split(rows, -(-len(rows) // _CHUNK))
    flat = (features[chunk].reshape(len(chunk), -1).astype(np.float64) for chunk in chunks)
    return np.concatenate([(chunk - center) @ projection for chunk in flat])


def _flip_by_matrix(
    classes: NDArray[Any], codes: _Codes, transition: _Floats, rng: np.random.Generator
) -> NoisyLabels:
    return _flip(classes, codes, lambda c, rows: transition[c : c + 1], rng)


def _flip(
    classes: NDArray[Any],
    codes: _Codes,
    class_probs: Callable[[int, _Codes], _Floats],
    rng: np.random.Generator,
) -> NoisyLabels:
    """Draw noisy labels, one true class at a time.

    ``class_probs(true_class, rows)`` has shape (n_rows, n_classes), or (1, n_classes) for all rows.
    """
    noisy = np.empty_like(codes)
    transition = np.empty((len(classes), len(classes)))
    for true_class in range(len(classes)):
        rows = np.flatnonzero(codes == true_class)
        probs = class_probs(true_class, rows)
        transition[true_class] = probs.mean(axis=0)
        cumulative = probs.cumsum(axis=1)
        cumulative /= cumulative[:, -1:]  # exactly 1 from the last possible class on
        noisy[rows] = (rng.random((len(rows), 1)) >= cumulative).sum(axis=1)
    flipped = noisy != codes
    return NoisyLabels(classes[noisy], flipped, float(flipped.mean()), transition)
