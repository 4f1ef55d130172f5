"""The similarity, or quality, from which a row is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture

from noisyfit.utils.parameters import is_number

GRID = 1000  # points between the two means where a mixture's boundary is looked for
SEPARATED = 0.8  # share of the variance between two groups; 0.64 of a normal, 0.75 of a uniform


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
    """Whether Otsu's two groups explain clearly more of the variance than halves of one group do.

    The BIC of two normals against one does not tell: it prefers two for whatever is skewed, such as
    the ratings of labels that are all right.
    """
    if np.ptp(values) == 0:
        return False
    upper = values >= otsu(values)
    gap = values[upper].mean() - values[~upper].mean()
    between = upper.mean() * (1 - upper.mean()) * gap**2
    return bool(between > SEPARATED * values.var())


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
