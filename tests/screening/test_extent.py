from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_oneseg.errors import InputError
from napari_oneseg.features.extractor import FeatureStack
from napari_oneseg.preprocessing import WorkingGrid
from napari_oneseg.screening.contained import contained_share
from napari_oneseg.screening.extent import follow_point, locate
from napari_oneseg.screening.ranking import rank_slices
from tests.engine_fixtures import disc

SHAPE = (32, 32)
COUNT = 12


def organ_stack(first: int = 3, last: int = 8) -> tuple[FeatureStack, np.ndarray]:
    """Background of one tissue through all slices, with an organ of another one on some of them."""
    generator = torch.Generator().manual_seed(0)
    tissue, background = torch.nn.functional.normalize(torch.randn(2, 32, generator=generator), dim=1) * 14
    texture = torch.nn.functional.normalize(torch.randn(32, *SHAPE, generator=generator), dim=0) * 3
    inside = torch.from_numpy(disc(SHAPE, (16, 14), 6))
    maps, grey = [], []
    for index in range(COUNT):
        here = inside if first <= index <= last else torch.zeros_like(inside)
        maps.append(torch.where(here, tissue[:, None, None], background[:, None, None]) + texture)
        grey.append(torch.where(here, 0.5, -0.3))
    stack = FeatureStack(torch.stack(maps).half(), WorkingGrid(SHAPE, SHAPE, 1), np.ones(COUNT, np.float32))
    return stack, torch.stack(grey).numpy().astype(np.float32)


def test_one_place_tells_where_the_organ_begins_and_ends() -> None:
    stack, grey = organ_stack()
    assert locate(stack, grey, (5, 16, 14)) == (3, 8)
    assert locate(stack, grey, (3, 14, 12)) == (3, 8)
    areas = follow_point(stack, grey, 6, (16.0, 14.0))
    assert sorted(areas) == list(range(3, 9))
    true = int(disc(SHAPE, (16, 14), 6).sum())
    assert all(0.6 * true < area < 1.3 * true for area in areas.values())


def test_grey_values_alone_end_it_too() -> None:
    stack, grey = organ_stack(0, COUNT - 1)
    grey[:4] = -0.9
    assert locate(stack, grey, (6, 16, 14)) == (4, COUNT - 1)


def test_a_place_on_a_finer_grid_and_outside_of_it() -> None:
    stack, grey = organ_stack()
    finer = replace(stack, grid=WorkingGrid((64, 64), SHAPE, 1))
    assert locate(finer, grey, (5, 33, 29)) == (3, 8)
    for place in ((COUNT, 5, 5), (0, -1, 5), (0, 5, 32)):
        with pytest.raises(InputError, match="no voxel"):
            locate(stack, grey, place)


def test_the_organ_that_a_range_holds_is_what_counts() -> None:
    stack, _ = organ_stack()
    share = contained_share(stack, 1, 10)
    assert share.shape == (10,)
    assert share[0] == share[-1] == 0
    assert min(share[2:8]) > 3 * max(share[1], share[8])
    ranked = rank_slices(stack, (1, 10))
    assert {entry.index for entry in ranked[:6]} == set(range(3, 9))


def test_what_leaves_the_range_is_not_contained() -> None:
    stack, _ = organ_stack(0, 6)
    inside = contained_share(organ_stack(3, 6)[0], 1, 10)
    leaving = contained_share(stack, 1, 10)
    assert float(leaving.sum()) < 0.7 * float(inside.sum())
