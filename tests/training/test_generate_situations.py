"""Hard situations in generated anatomy: each really occurs, as the record says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scipy import ndimage
from torch import Tensor

from napari_oneseg.config import AnatomyConfig
from napari_oneseg.training.anatomy.bodies import paint_look_alikes, paint_organs
from napari_oneseg.training.anatomy.cavities import paint_hollow
from napari_oneseg.training.anatomy.imaging import imaged, shift_slices
from napari_oneseg.training.anatomy.scene import Kind, Scene, SceneObject
from napari_oneseg.training.anatomy.surroundings import paint_background, paint_dome, paint_outside
from napari_oneseg.training.anatomy.tubes import paint_long_tube, paint_loop, paint_split_organ
from napari_oneseg.training.generate import generate_volume

CONFIG = AnatomyConfig(slices=12, size=96)
SEEDS = range(16)


def scene(seed: int, config: AnatomyConfig = CONFIG) -> Scene:
    """Return a scene of plain background in which nothing has been placed yet."""
    made = Scene(torch.Generator().manual_seed(seed), config)
    paint_background(made, plain=True)
    return made


def shown(made: Scene, kind: Kind) -> list[SceneObject]:
    return [entry for entry in made.remaining() if entry.kind == kind]


def mask(made: Scene, regions: tuple[int, ...]) -> Tensor:
    return torch.isin(made.regions, torch.tensor(regions))


def grown(inside: Tensor) -> Tensor:
    """Return a mask grown by two pixels in the plane."""
    return torch.from_numpy(ndimage.binary_dilation(inside.numpy(), torch.ones(1, 5, 5).numpy()))


def test_every_situation_occurs_and_most_volumes_have_few() -> None:
    kinds: list[set[Kind]] = []
    for seed in range(60):
        volume = generate_volume(torch.Generator().manual_seed(seed), replace(CONFIG, size=64))
        kinds.append({entry.kind for entry in volume.objects})
        assert all(region < volume.count for entry in volume.objects for region in entry.regions + entry.alike)
    for kind in ("alike", "split", "wall", "cavity", "hollow", "loop", "tube", "sheet", "rim", "bone", "level"):
        share = sum(kind in found for found in kinds) / len(kinds)
        assert 0.02 < share < 0.95, kind


def test_no_situations_where_none_are_wanted() -> None:
    config = replace(CONFIG, size=64, situations=(0, 0), rims=0.0)
    for seed in range(8):
        objects = generate_volume(torch.Generator().manual_seed(seed), config).objects
        assert {entry.kind for entry in objects} <= {"organ", "vessel"}


def test_look_alikes_share_a_tissue_and_lie_side_by_side() -> None:
    near, shifted, together, cases = 0, 0, 0, 0
    for seed in SEEDS:
        made = scene(seed)
        paint_look_alikes(made)
        for entry in shown(made, "alike")[:1]:
            cases += 1
            assert abs(made.tissue[entry.regions[0]] - made.tissue[entry.alike[0]]) <= 0.025
            organ, neighbour = mask(made, entry.regions), mask(made, entry.alike)
            near += bool((grown(grown(organ)) & neighbour).any())
            ours, theirs = (torch.nonzero(part.any(2).any(1)).flatten() for part in (organ, neighbour))
            shifted += bool(ours[0] != theirs[0] or ours[-1] != theirs[-1])
            together += bool(torch.isin(ours, theirs).any())
    assert cases >= len(SEEDS) - 2
    assert near >= 0.8 * cases, "they touch, or only a rim is between them"
    assert shifted >= 0.8 * cases, "one begins or ends where the other goes on"
    assert together >= 0.8 * cases, "some slices show both"


def test_rims_are_thin_and_of_another_tissue() -> None:
    config, rims = replace(CONFIG, rims=1.0, organs=(1, 1)), 0
    for seed in SEEDS:
        made = scene(seed, config)
        paint_organs(made)
        organs = {entry.regions[0] for entry in shown(made, "organ")}
        for entry in shown(made, "rim"):
            rims += 1
            rim = mask(made, entry.regions)
            thick = ndimage.distance_transform_edt(rim.numpy(), sampling=(100, 1, 1)).max()
            assert thick <= 6, "a layer, whose middle is near its borders"
            if entry.regions[0] + 1 in organs:
                assert abs(made.tissue[entry.regions[0]] - made.tissue[entry.regions[0] + 1]) > 0.08
    assert rims > 8


def test_walls_surround_cavities_and_air_lies_over_fluid() -> None:
    closed, walls, levels = 0, 0, 0
    for seed in range(30):
        made = scene(seed)
        paint_hollow(made)
        for entry in shown(made, "hollow"):
            wall, inside = mask(made, entry.regions[:1]), mask(made, entry.regions[1:])
            walls += 1
            # On a closed ring's slice, filling the wall's holes covers the cavity.
            filled = torch.stack([torch.from_numpy(ndimage.binary_fill_holes(plane.numpy())) for plane in wall])
            closed += bool((filled & inside).sum() > 0.5 * inside.sum()) and bool(inside.any())
        for entry in shown(made, "level"):
            levels += 1
            fluid, air = (mask(made, (region,)).any(2).any(0).nonzero() for region in entry.regions)
            assert int(air.max()) < int(fluid.min()), "a horizontal line parts them"
    assert walls > 20
    assert closed > 0.6 * walls
    assert levels > 3


def test_long_tubes_cross_the_canvas_in_more_than_one_direction() -> None:
    crossing = {"slices": 0, "plane": 0}
    for seed in SEEDS:
        made = scene(seed)
        paint_long_tube(made)
        for entry in shown(made, "tube"):
            tube = mask(made, entry.regions)
            assert made.texture[entry.regions[0]] == 0.0
            crossing["slices"] += bool(tube.any(2).any(1).all())
            spans = [torch.nonzero(tube.any(0).any(axis)).flatten() for axis in (0, 1)]
            crossing["plane"] += any(int(span[-1] - span[0]) > 0.8 * CONFIG.size for span in spans)
    assert crossing["slices"] >= 6
    assert crossing["plane"] >= 2


def test_loops_fold_through_the_plane_and_split_organs_split() -> None:
    folded, split = 0, 0
    for seed in SEEDS:
        for kind, paint in (("loop", paint_loop), ("split", paint_split_organ)):
            made = scene(seed, replace(CONFIG, slices_per_size=(0.3, 0.4)))
            paint(made)
            entry = made.objects[0]
            assert entry.kind == kind
            body = mask(made, entry.regions).numpy()
            assert ndimage.label(body)[1] == 1, "it hangs together"
            several = any(ndimage.label(plane)[1] > 1 for plane in body)
            folded += several and kind == "loop"
            split += several and kind == "split"
    assert folded > 8
    assert split > 8


@pytest.mark.parametrize("layers", [1, 3])
def test_the_wall_of_the_body_is_thin_layers(layers: int) -> None:
    for seed in SEEDS:
        made = scene(seed)
        paint_outside(made, air=True, layers=layers)
        sheets = [entry for entry in made.objects if entry.kind == "sheet"]
        assert len(sheets) == layers
        for entry in sheets:
            sheet = mask(made, entry.regions).numpy()
            assert ndimage.distance_transform_edt(sheet, sampling=(100, 1, 1)).max() < 9


def test_a_dome_is_a_thin_sheet() -> None:
    thin = []
    for seed in SEEDS:
        made = scene(seed)
        paint_dome(made)
        sheet = mask(made, made.objects[0].regions).numpy()
        if sheet.any():
            thin.append(ndimage.distance_transform_edt(sheet, sampling=(100, 1, 1)).max())
    assert len(thin) > 8
    assert sorted(thin)[len(thin) // 2] < 6


def test_regions_move_with_slices_that_moved() -> None:
    for seed in range(4):
        made = scene(seed)
        paint_organs(made)
        still = made.regions
        image = imaged(made)
        moved = shift_slices(made, image)
        assert moved.shape == image.shape
        assert not torch.equal(made.regions, still)
        assert set(made.regions.unique().tolist()) <= set(still.unique().tolist())
