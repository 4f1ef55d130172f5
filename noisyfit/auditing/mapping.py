"""The map of the rows: their features in two dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from noisyfit.auditing.findings import Audit
from noisyfit.auditing.page import Map

MAPPED = 2000  # rows
FEWEST = 50  # different rows for UMAP, whose neighbourhoods have 15
BY_UMAP = "UMAP: rows that are alike are near one another"


def make_map(features: NDArray[Any], found: Audit, seed: int) -> Map:
    """Return the map of some rows with labels: by UMAP if umap-learn is installed, else by PCA.

    Parameters
    ----------
    features : ndarray of shape (n_samples, n_features)
    found : Audit
    seed : int
        Chooses the rows, 2,000 at most, and starts UMAP.

    Returns
    -------
    Map
    """
    labelled = np.flatnonzero(~np.isnan(found.label_quality_))
    chosen = np.random.default_rng(seed).permutation(labelled)[:MAPPED]
    spread = features[chosen].std(0)
    rows = features[chosen] / np.where(spread > 0, spread, 1)
    plane = _by_umap(rows, seed)
    method = BY_UMAP
    if plane is None:
        plane, method = _by_components(rows, seed), Map.method
    return Map(
        plane[:, 0].tolist(),
        plane[:, 1].tolist(),
        [str(label) for label in found.given_labels_[chosen]],
        (found.label_quality_[chosen] < 0.5).tolist(),
        method,
    )


def _by_umap(rows: NDArray[Any], seed: int) -> NDArray[Any] | None:
    try:
        from umap import UMAP
    except ImportError:
        return None
    if len(np.unique(rows, axis=0)) < FEWEST:
        return None
    return UMAP(n_components=2, random_state=seed, n_jobs=1).fit_transform(rows)


def _by_components(rows: NDArray[Any], seed: int) -> NDArray[Any]:
    """Return two principal components; what has fewer is on a line or a point."""
    n_components = min(2, *rows.shape)
    plane = np.zeros((len(rows), 2))
    if (rows != rows[:1]).any():
        plane[:, :n_components] = PCA(n_components, random_state=seed).fit_transform(rows)
    return plane
