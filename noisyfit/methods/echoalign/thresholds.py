"""The similarity, or quality, from which a row is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture

from noisyfit.utils.parameters import is_number

GRID = 1000  # points between the two means where a mixture's boundary is looked for
DIP = 0.47  # over the root of the sample size; 5 % of uniform samples have a larger one
EXPLAINED = 0.8  # 0.64 of a normal, 0.75 of a uniform distribution
N_PEAKS = 21  # tried for the dip


def check_threshold(threshold: Any) -> None:
    """Refuse an invalid threshold rule."""
    if isinstance(threshold, str) and threshold in ("otsu", "gmm"):
        return
    if is_number(threshold) and -1 <= threshold <= 1:
        return
    if isinstance(threshold, tuple | list) and len(threshold) == 2:
        rule, share = threshold
        is_quantile = isinstance(rule, str) and rule == "quantile"
        if is_quantile and is_number(share) and 0 <= share < 1:
            return
    raise ValueError(
        "threshold must be a similarity in [-1, 1] (of a classifier a quality in [0, 1]), 'otsu', "
        f"'gmm' or ('quantile', share) with a share in [0, 1). Got {threshold!r}."
    )


def find_threshold(
    ratings: NDArray[np.float64], codes: NDArray[Any], rule: Any
) -> float | NDArray[np.float64]:
    """Return the rating from which originals are kept, one per class for quantiles.

    "otsu" and "gmm" keep everything if the ratings do not form two groups.

    Parameters
    ----------
    ratings : ndarray of shape (n_samples,)
    codes : integer ndarray of shape (n_samples,)
        Labels as 0..K-1, all of which occur.
    rule : float, "otsu", "gmm" or ("quantile", float)
    """
    if rule in ("otsu", "gmm"):
        if not form_two_groups(ratings):
            return float(ratings.min())
        return otsu(ratings) if rule == "otsu" else mixture_boundary(ratings)
    if isinstance(rule, tuple | list):
        by_class = [ratings[codes == c] for c in range(codes.max() + 1)]
        return np.array([np.quantile(values, rule[1]) for values in by_class])
    return float(rule)


def otsu(values: NDArray[np.float64]) -> float:
    """Split values into two groups with the largest variance between them (Otsu, 1979).

    Returns
    -------
    float
        The smallest value of the upper group; if all values are equal, that value.
    """
    ordered = np.sort(values)
    n, sums = len(ordered), np.cumsum(ordered)
    below = np.arange(1, n)
    gap = (sums[-1] - sums[:-1]) / (n - below) - sums[:-1] / below
    between = below * (n - below) * gap**2
    return float(ordered[0] if np.ptp(ordered) == 0 else ordered[between.argmax() + 1])


def form_two_groups(values: NDArray[np.float64]) -> bool:
    """Whether values have more than one peak, or Otsu's groups explain most of their variance.

    The first is the dip test (Hartigan and Hartigan, 1985), which small samples seldom pass. The
    BIC of two normals against one does not tell: it prefers two for whatever is skewed, such as
    the ratings of labels that are all right.
    """
    return dip(values) > DIP / len(values) ** 0.5 or _explained(values) > EXPLAINED


def _explained(values: NDArray[np.float64]) -> float:
    """Return the share of the variance that lies between Otsu's two groups."""
    if np.ptp(values) == 0:
        return 0.0
    upper = values >= otsu(values)
    gap = values[upper].mean() - values[~upper].mean()
    return float(upper.mean() * (1 - upper.mean()) * gap**2 / values.var())


def dip(values: NDArray[np.float64]) -> float:
    """Return the distance of values from the nearest distribution that has one peak.

    The distribution function of such a distribution is convex up to the peak and concave after it.
    The dip is half the largest distance from these, at the best of some peaks.
    """
    points, counts = np.unique(values, return_counts=True)
    after = np.cumsum(counts) / len(values)  # each step of the distribution function
    before = after - counts / len(values)
    peaks = np.unique(np.linspace(0, len(points) - 1, N_PEAKS).astype(int))
    distances = [
        max(
            _above_convex(points[: peak + 1], before, after),
            _above_convex(-points[peak:][::-1], 1 - after[::-1], 1 - before[::-1]),
        )
        for peak in peaks
    ]
    return min(distances) / 2


def _above_convex(
    points: NDArray[np.float64], before: NDArray[np.float64], after: NDArray[np.float64]
) -> float:
    """Return how far a function with steps is above the largest convex one below it."""
    corners = [0]
    for i in range(1, len(points)):
        while len(corners) > 1 and _bends_down(points, before, corners[-2], corners[-1], i):
            corners.pop()
        corners.append(i)
    convex = np.interp(points, points[corners], before[corners])
    return float((after[: len(points)] - convex)[:-1].max(initial=0))


def _bends_down(x: NDArray[np.float64], y: NDArray[np.float64], i: int, j: int, k: int) -> bool:
    return bool((y[j] - y[i]) * (x[k] - x[i]) >= (y[k] - y[i]) * (x[j] - x[i]))


def mixture_boundary(values: NDArray[np.float64]) -> float:
    """Return where two normals, fitted to the values, are equally likely, between their means."""
    if np.ptp(values) == 0:
        return float(values[0])
    mixture = GaussianMixture(2, random_state=0).fit(values[:, None])
    upper = int(mixture.means_.argmax())
    grid = np.linspace(mixture.means_.min(), mixture.means_.max(), GRID)
    return float(grid[(mixture.predict(grid[:, None]) == upper).argmax()])


def most_similar_half(similarities: NDArray[np.float64], codes: NDArray[Any]) -> NDArray[np.bool_]:
    """Mark the rows of each label whose similarity is at least the label's median."""
    chosen = np.zeros(len(codes), dtype=bool)
    for c in np.unique(codes):
        own = codes == c
        chosen[own] = similarities[own] >= np.median(similarities[own])
    return chosen
