"""In which plane to paint what lies at a place: where labels have the shortest way to go.

Strategy. What lies at the place is followed along every axis, as :mod:`napari_oneseg.screening.extent` does. Labels are
copied from slice to slice, and each copy costs a little; so the plane suits best across which the target is shortest: a
vessel that runs from head to foot is long across axial slices and short across coronal ones. The extents are rough, and
where they are alike the scan's own plane is at least as good, so another one has to be clearly shorter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["PlaneExtent", "PlaneSuggestion", "rank_planes"]

_CLEARLY = 0.6
"""Another plane is taken before the scan's own where the way is shorter than this share of the own plane's."""


@dataclass(frozen=True)
class PlaneExtent:
    """How far the target goes across one plane.

    Attributes
    ----------
    plane, name
        The axis of the scan's array that the slices lie across, and what the plane is called.
    index
        The slice to paint in this plane.
    first, last
        Roughly the target's first and last slice, both included.
    spacing
        Distance of the slices in mm.
    """

    plane: int
    name: str
    index: int
    first: int
    last: int
    spacing: float

    @property
    def slices(self) -> int:
        """How many slices show the target."""
        return self.last + 1 - self.first

    @property
    def millimetres(self) -> float:
        """How far the target goes across the plane, in mm."""
        return self.slices * self.spacing


@dataclass(frozen=True)
class PlaneSuggestion:
    """A plane and a slice of it to paint.

    Attributes
    ----------
    extent
        The plane, the slice, and how far the target goes across it.
    reason
        Why, in words.
    """

    extent: PlaneExtent
    reason: str


def rank_planes(extents: Sequence[PlaneExtent], main: int) -> list[PlaneSuggestion]:
    """Rank the planes for one painted slice, best first.

    Parameters
    ----------
    extents
        How far the target goes across each plane.
    main
        The scan's own plane, which must be among them.
    """
    own = next(extent for extent in extents if extent.plane == main)
    # As if the own plane were shorter than it is: the others have to make up for the doubt.
    order = sorted(extents, key=lambda e: (e.millimetres * (_CLEARLY if e.plane == main else 1.0), e.plane != main))
    return [PlaneSuggestion(extent, _reason(extent, own)) for extent in order]


def _reason(extent: PlaneExtent, own: PlaneExtent) -> str:
    way = f"{extent.millimetres:.0f} mm over {extent.slices} slices"
    if extent.plane == own.plane:
        return f"the scan's own plane; what lies there goes across {way}"
    if extent.millimetres < _CLEARLY * own.millimetres:
        return f"one {extent.name} slice crosses {own.slices} {own.name} ones, and only {way} are left to go"
    return f"{way} across, no clear gain over {own.millimetres:.0f} mm in {own.name} slices"
