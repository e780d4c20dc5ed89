from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_oneseg.errors import AnnotationError
from napari_oneseg.painted_planes import annotations_on, find_painted

SHAPE = (40, 44, 48)


def organ() -> NDArray[np.uint8]:
    z, y, x = np.indices(SHAPE)
    return ((((z - 20) / 17) ** 2 + ((y - 22) / 9) ** 2 + ((x - 24) / 12) ** 2) < 1).astype(np.uint8)


def painted(*places: tuple[int, int]) -> NDArray[np.uint8]:
    out = np.zeros(SHAPE, np.uint8)
    for axis, index in places:
        np.moveaxis(out, axis, 0)[index] = np.moveaxis(organ(), axis, 0)[index]
    return out


@pytest.mark.parametrize("main", [0, 1, 2])
@pytest.mark.parametrize(
    "places",
    [
        [(1, 22)],
        [(2, 24)],
        [(0, 20), (1, 22)],
        [(0, 20), (1, 22), (2, 24)],
        [(1, 19), (1, 25)],
        [(0, 14), (0, 20), (0, 26)],
    ],
)
def test_few_painted_slices_are_found_whatever_plane_they_are_of(main: int, places: list[tuple[int, int]]) -> None:
    expected: dict[int, tuple[int, ...]] = {}
    for axis, index in places:
        expected[axis] = (*expected.get(axis, ()), index)
    assert find_painted(painted(*places), main) == expected


def test_an_organ_labelled_as_a_whole_is_painted_in_the_scans_own_plane() -> None:
    for main in (0, 1, 2):
        held = np.unique(np.argwhere(organ())[:, main])
        assert find_painted(organ(), main) == {main: tuple(held.tolist())}
    thin = organ()
    thin[:, :21] = thin[:, 24:] = 0  # three coronal slices side by side: not what anybody paints
    assert list(find_painted(thin, 0)) == [0]


def test_slices_of_the_own_plane_are_left_what_they_are_unless_others_are_far_fewer() -> None:
    few = np.zeros(SHAPE, np.uint8)
    few[[10, 20, 30], 22, 20:28] = 1  # one coronal slice holds them too, but three are not more than three times one
    assert find_painted(few, 0) == {0: (10, 20, 30)}
    few[15, 22, 20:28] = 1
    assert find_painted(few, 0) == {1: (22,)}
    assert find_painted(np.zeros(SHAPE, np.uint8), 0) == {}


def test_named_slices_hold_what_is_painted() -> None:
    labels = painted((0, 20), (1, 22))
    found = annotations_on(labels, {0: [20], 1: [22]}, {1: [22]})
    assert found[1].complete == {22}
    assert not found[0].complete
    np.testing.assert_array_equal(found[1].slices[22], labels[:, 22])
    with pytest.raises(AnnotationError, match="outside the slices that are named"):
        annotations_on(labels, {1: [22]})
    with pytest.raises(AnnotationError, match="lie outside the scan"):
        annotations_on(labels, {0: [20], 1: [44]})
