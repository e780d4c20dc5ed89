"""Representative slices (paper 1.4): what to learn from, and the paper's choice of the one slice to paint.

The representative score of a slice within a set is its mean cosine similarity to the set's slices (the paper's sum,
divided by the set's size, so that scores of different sets compare). What stands for a slice is open in the paper: here
it is the mean of its features in each field of a 4 x 4 grid, less the scan's mean. The mean over all positions, which
knows nothing of where things lie, and features with the scan's mean left in, which are nearly the same in all slices,
were measured to choose much worse slices.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn import functional

from napari_oneseg.config import ScreeningConfig
from napari_oneseg.features.extractor import FeatureStack

__all__ = ["descriptors", "foreground", "representative_scores", "representatives"]

_FIELDS = 4


def descriptors(stack: FeatureStack, config: ScreeningConfig | None = None) -> NDArray[np.float32]:
    """Return one unit vector per slice, shape (n, C x 4 x 4)."""
    pooled = np.stack([_pooled(features).flatten().cpu().numpy() for features in stack.maps])
    pooled -= pooled[foreground(stack, config or ScreeningConfig())].mean(0)
    return np.asarray(pooled / np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def _pooled(features: Tensor) -> Tensor:
    """Return the mean of each of 4 x 4 fields, (C, rows, columns) to (C, 4, 4), single precision."""
    if any(side % _FIELDS for side in features.shape[1:]):
        return functional.adaptive_avg_pool2d(features.float(), _FIELDS)
    # The same, several times faster: it is most of the time in which a scan whose features are at hand is ready.
    fields = features.unflatten(2, (_FIELDS, -1)).unflatten(1, (_FIELDS, -1))
    means: Tensor = fields.mean((2, 4), dtype=torch.float32)
    return means


def foreground(stack: FeatureStack, config: ScreeningConfig) -> NDArray[np.bool_]:
    """Return which slices show more than background, shape (n,)."""
    return np.asarray(stack.content >= config.min_content * np.percentile(stack.content, 90))


def representative_scores(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return each slice's mean cosine similarity to all slices of its set (paper eq. 2, 3, 5 and 6).

    Parameters
    ----------
    vectors
        Unit vectors of the set's slices, shape (n, C).

    Returns
    -------
    Shape (n,), -1 to 1.
    """
    # The mean of the dot products with all vectors is the dot product with their mean.
    return np.asarray(vectors @ vectors.mean(0), dtype=np.float32)


def representatives(stack: FeatureStack, config: ScreeningConfig | None = None, seed: int = 0) -> list[int]:
    """Return one representative slice per cluster of similar slices, in slice order (paper eq. 2-4).

    Parameters
    ----------
    stack
        Features of a training scan.
    config
        Number of clusters; fewer where the scan has fewer different slices that show more than background.
    seed
        Of the k-means initialisation.
    """
    config = config or ScreeningConfig()
    candidates = np.flatnonzero(foreground(stack, config))
    vectors = descriptors(stack, config)[candidates]
    clusters = min(config.clusters, len(np.unique(vectors, axis=0)))
    assigned = KMeans(clusters, n_init=4, random_state=seed).fit_predict(vectors)
    chosen = []
    for cluster in np.unique(assigned):
        members = np.flatnonzero(assigned == cluster)
        chosen.append(int(candidates[members[np.argmax(representative_scores(vectors[members]))]]))
    return sorted(chosen)
