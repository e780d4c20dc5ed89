"""Screening: which slices to learn from, to paint first, and to paint next; and where a target begins and ends."""

from __future__ import annotations

from napari_oneseg.screening.extent import checked_voxel, coarse_grey, locate
from napari_oneseg.screening.next_slice import NextSlice, rank_next
from napari_oneseg.screening.planes import PlaneExtent, PlaneSuggestion, rank_planes
from napari_oneseg.screening.ranking import SliceSuggestion, rank_slices
from napari_oneseg.screening.representative import representatives
from napari_oneseg.slice_range import checked_range

__all__ = [
    "NextSlice",
    "PlaneExtent",
    "PlaneSuggestion",
    "SliceSuggestion",
    "checked_range",
    "checked_voxel",
    "coarse_grey",
    "locate",
    "rank_next",
    "rank_planes",
    "rank_slices",
    "representatives",
]
