from __future__ import annotations

import pytest

from napari_oneseg.screening.planes import PlaneExtent, rank_planes


def extents(*millimetres: int, spacing: float = 2.0) -> list[PlaneExtent]:
    names = ("axial", "coronal", "sagittal")
    return [PlaneExtent(k, names[k], 7, 0, mm // 2 - 1, spacing) for k, mm in enumerate(millimetres)]


@pytest.mark.parametrize(
    ("millimetres", "best"),
    [((300, 60, 80), 1), ((110, 70, 60), 2), ((100, 98, 90), 0), ((60, 60, 60), 0), ((20, 200, 200), 0)],
)
def test_the_plane_with_the_shortest_way_comes_first_if_it_is_clearly_shorter(
    millimetres: tuple[int, ...], best: int
) -> None:
    ranked = rank_planes(extents(*millimetres), 0)
    assert ranked[0].extent.plane == best
    assert len(ranked) == 3


def test_the_reason_is_said_in_words() -> None:
    first, *_, last = rank_planes(extents(300, 60, 280), 0)
    assert first.reason == "one coronal slice crosses 150 axial ones, and only 60 mm over 30 slices are left to go"
    assert "no clear gain" in last.reason
    assert "own plane" in rank_planes(extents(60, 60, 60), 0)[0].reason
