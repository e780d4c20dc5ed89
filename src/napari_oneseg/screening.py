"""Representative slices (paper 1.4): what to learn from, and the one slice to paint.

A slice is described by the mean of its features over all positions. The representative score of a slice within a set
is its mean cosine similarity to the set's slices (the paper's sum, divided by the set's size, so that scores of
different sets compare).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from napari_oneseg.config import ScreeningConfig
from napari_oneseg.errors import InputError
from napari_oneseg.features.extractor import FeatureStack

__all__ = ["SliceSuggestion", "checked_range", "rank_slices", "representative_scores", "representatives"]


@dataclass(frozen=True)
class SliceSuggestion:
    """A slice worth painting: its index along the slice axis, from 0, and its representative score, -1 to 1."""

    index: int
    score: float


def checked_range(slice_range: tuple[int, int] | None, count: int) -> tuple[int, int]:
    """Return the first and last slice of a range, both included; the whole scan by default.

    Raises
    ------
    InputError
        If the range is reversed or reaches outside the scan.
    """
    if slice_range is None:
        return 0, count - 1
    first, last = slice_range
    if not 0 <= first <= last < count:
        raise InputError(
            f"Slice range {first}:{last} does not fit: expected FIRST:LAST with 0 <= FIRST <= LAST <= {count - 1}."
        )
    return int(first), int(last)


def descriptors(stack: FeatureStack) -> NDArray[np.float32]:
    """Return one unit vector per slice, shape (n, C)."""
    pooled = np.stack([features.float().mean((1, 2)).cpu().numpy() for features in stack.maps])
    return np.asarray(pooled / np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-12), dtype=np.float32)


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


def rank_slices(
    stack: FeatureStack, slice_range: tuple[int, int] | None = None, config: ScreeningConfig | None = None
) -> list[SliceSuggestion]:
    """Rank the slices for painting, most representative first (paper eq. 5-7).

    Parameters
    ----------
    stack
        Features of the scan.
    slice_range
        First and last slice to consider, both included, for instance the rough extent of an organ.

    Returns
    -------
    All slices of the range that show more than background.

    Raises
    ------
    InputError
        If the range does not fit the scan, or holds only background.
    """
    config = config or ScreeningConfig()
    first, last = checked_range(slice_range, len(stack.maps))
    candidates = np.flatnonzero(foreground(stack, config)[first : last + 1]) + first
    if candidates.size == 0:
        raise InputError(f"Slices {first} to {last} show only background; choose a range that shows the target.")
    scores = representative_scores(descriptors(stack)[candidates])
    order = np.argsort(-scores, kind="stable")
    return [SliceSuggestion(int(candidates[k]), float(scores[k])) for k in order]


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
    vectors = descriptors(stack)[candidates]
    clusters = min(config.clusters, len(np.unique(vectors, axis=0)))
    assigned = KMeans(clusters, n_init=4, random_state=seed).fit_predict(vectors)
    chosen = []
    for cluster in np.unique(assigned):
        members = np.flatnonzero(assigned == cluster)
        chosen.append(int(candidates[members[np.argmax(representative_scores(vectors[members]))]]))
    return sorted(chosen)
