"""Which slice to paint first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_oneseg.config import ScreeningConfig
from napari_oneseg.errors import InputError
from napari_oneseg.features.extractor import FeatureStack
from napari_oneseg.screening.contained import contained_share
from napari_oneseg.screening.representative import descriptors, foreground, representative_scores
from napari_oneseg.slice_range import checked_range

__all__ = ["SliceSuggestion", "rank_slices"]


@dataclass(frozen=True)
class SliceSuggestion:
    """A slice worth painting.

    Attributes
    ----------
    index
        Slice index, from 0.
    score
        What it was chosen for: the share of it that is contained in the range, 0 to 1, or its representative score, -1
        to 1. Scores compare within one ranking.
    """

    index: int
    score: float


def rank_slices(
    stack: FeatureStack, slice_range: tuple[int, int] | None = None, config: ScreeningConfig | None = None
) -> list[SliceSuggestion]:
    """Rank the slices for painting, best first.

    Parameters
    ----------
    stack
        Features of the scan.
    slice_range
        First and last slice to consider, both included: the rough extent of the target, better too wide than too
        narrow.
    config
        The score: how much of a slice is contained in the range (:mod:`~napari_oneseg.screening.contained`), or how
        well the slice stands for the others of the range (paper eq. 5-7). Without a range there is nothing to be
        contained in, and the representative score is taken.

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
    if config.score == "contained" and slice_range is not None:
        scores = contained_share(stack, first, last)[candidates - first]
    else:
        scores = representative_scores(descriptors(stack, config)[candidates])
    # Among equals the one nearest to the middle, where the most is in reach.
    order = np.lexsort((np.abs(candidates - (first + last) / 2), -scores))
    return [SliceSuggestion(int(candidates[k]), float(scores[k])) for k in order]
