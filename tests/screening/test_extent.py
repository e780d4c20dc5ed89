from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from napari_oneseg.errors import InputError
from napari_oneseg.features.extractor import FeatureStack
from napari_oneseg.preprocessing import WorkingGrid
from napari_oneseg.screening.extent import checked_voxel, coarse_grey, follow_point, locate
from napari_oneseg.volume import Volume
from tests.engine_fixtures import disc, moving_stack

COUNT, SHAPE = 16, (40, 40)


def body(
    first: int = 4, last: int = 11, drift: float = 1.0, radius: float = 6.0, alike: float = 0.0
) -> tuple[FeatureStack, NDArray[np.float32], NDArray[np.bool_]]:
    """A disc that drifts downwards from slice to slice and exists on some slices only, in a texture of its own.

    With ``alike``, what surrounds it has features like its own, and only the grey value tells them apart.
    """
    stack = moving_stack(COUNT, SHAPE, (0, 0))
    generator = torch.Generator().manual_seed(1)
    own = torch.nn.functional.normalize(torch.randn(32, generator=generator), dim=0) * 14.0
    shown = np.zeros((COUNT, *SHAPE), bool)
    for index in range(first, last + 1):
        shown[index] = disc(SHAPE, (14 + drift * (index - first), 20), radius)
    maps = stack.maps.float()
    within = torch.from_numpy(shown)[:, None]
    around = (1.0 - alike) * maps + alike * own[:, None, None]
    maps = torch.where(within, 0.2 * maps + own[:, None, None], around)
    return replace(stack, maps=maps.half()), np.where(shown, 0.5, -0.5).astype(np.float32), shown


def test_a_body_is_followed_from_its_first_to_its_last_slice() -> None:
    stack, grey, shown = body()
    areas = follow_point(stack, grey, 7, (17.0, 20.0))
    assert list(areas) == list(range(4, 12))
    for index, area in areas.items():
        assert area == pytest.approx(
            shown[index].sum(), rel=0.25
        )  # the rim is rubbed off where grey values are smoothed


@pytest.mark.parametrize(("index", "place"), [(4, (14.0, 20.0)), (11, (21.0, 20.0)), (8, (18.0, 23.0))])
def test_where_it_is_clicked_makes_no_difference(index: int, place: tuple[float, float]) -> None:
    stack, grey, _ = body()
    assert list(follow_point(stack, grey, index, place)) == list(range(4, 12))


def test_it_may_reach_both_ends_of_the_scan() -> None:
    stack, grey, _ = body(0, COUNT - 1, drift=0.5)
    assert list(follow_point(stack, grey, 9, (18.5, 20.0))) == list(range(COUNT))


def test_grey_values_tell_apart_what_features_do_not() -> None:
    stack, grey, shown = body(alike=1.0)
    areas = follow_point(stack, grey, 7, (17.0, 20.0))
    assert list(areas) == list(range(4, 12))
    assert max(areas.values()) < 1.5 * shown[7].sum()
    # Without grey values everything looks the same.
    assert list(follow_point(stack, np.zeros_like(grey), 7, (17.0, 20.0))) == list(range(COUNT))


def test_a_jump_ends_the_way() -> None:
    """What lies elsewhere on the next slice is something else, however alike it looks."""
    stack, grey, _ = body(drift=0.0)
    jumped = stack.maps.clone()
    jumped[9:] = stack.maps[9:].roll(18, 2)
    moved = grey.copy()
    moved[9:] = np.roll(grey[9:], 18, 1)
    assert list(follow_point(replace(stack, maps=jumped), moved, 6, (14.0, 20.0))) == list(range(4, 9))


def test_a_voxel_becomes_a_place_on_the_feature_grid() -> None:
    stack, grey, _ = body()
    fine = replace(stack, grid=WorkingGrid((80, 120), SHAPE, 1))
    assert locate(fine, grey, (7, 35, 61)) == (4, 11)
    # The same voxel on the scan's own grid would lie outside the body.
    assert locate(stack, grey, (7, 35, 39)) != (4, 11)


@pytest.mark.parametrize("wrong", [(-1, 0, 0), (16, 0, 0), (0, 40, 0), (0, 0, -1)])
def test_voxels_outside_the_scan_are_refused(wrong: tuple[int, int, int]) -> None:
    stack, grey, _ = body()
    with pytest.raises(InputError, match="16 slices of 40 rows and 40 columns"):
        locate(stack, grey, wrong)
    with pytest.raises(InputError):
        checked_voxel(wrong, (COUNT, *SHAPE))


@pytest.mark.parametrize("step", [1, -1], ids=["as it is", "a flipped view, as many a file is read"])
def test_grey_values_on_the_feature_grid(step: int) -> None:
    stack, _, _ = body()
    rng = np.random.default_rng(0)
    array = (rng.normal(size=(COUNT, 80, 80)).cumsum(1) * 100).astype(np.float32)
    volume = Volume(array[:, ::step, ::step], (3.0, 1.0, 1.0))
    grey = coarse_grey(volume, replace(stack, grid=WorkingGrid((80, 80), (80, 80), 2)))
    assert grey.shape == (COUNT, 40, 40)
    assert -1.0 <= grey.min() < -0.8
    assert 0.8 < grey.max() <= 1.0
    coarse = volume.slices.reshape(COUNT, 40, 2, 40, 2).mean((2, 4))
    assert np.corrcoef(grey.ravel(), coarse.ravel())[0, 1] > 0.85
