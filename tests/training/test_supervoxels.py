from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from napari_oneseg.config import TrainingConfig
from napari_oneseg.training.sequences import cut_sequence
from napari_oneseg.training.supervoxels import SCALES, Supervoxels, find_supervoxels

SHAPE = (10, 64, 72)
DISTANCE = 3.0


def body(noise: float = 0.05, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A bright ball that begins and ends within the stack, a dark tube beside it, and grey around them."""
    z, y, x = np.indices(SHAPE)
    truth = np.zeros(SHAPE, np.int64)
    truth[((z - 5) * DISTANCE) ** 2 + (y - 30) ** 2 + (x - 24) ** 2 < 12**2] = 1
    truth[(y - 20) ** 2 + (x - 54 - z) ** 2 < 4**2] = 2
    grey = np.array([0.0, 0.6, -0.7])[truth] + np.random.default_rng(seed).normal(0, noise, SHAPE)
    return grey.astype(np.float32), truth


def maps(found: Supervoxels) -> list[NDArray[np.int64]]:
    return [regions[found.basins.long()].numpy() for regions in found.regions]


def best_dice(regions: NDArray[np.int64], mask: NDArray[np.bool_]) -> float:
    sizes, inside = np.bincount(regions.ravel()), np.bincount(regions[mask])
    shared = np.zeros(len(sizes))
    shared[: len(inside)] = inside
    return float((2 * shared / (sizes + mask.sum())).max())


@pytest.mark.parametrize("seed", [0, 1])
def test_objects_are_found_with_their_ends(seed: int) -> None:
    grey, truth = body(seed=seed)
    scales = maps(find_supervoxels(grey, DISTANCE))
    for label in (1, 2):
        assert max(best_dice(regions, truth == label) for regions in scales) > 0.85
    ball = np.bincount(scales[-1][truth == 1]).argmax()
    held = np.flatnonzero((scales[-1] == ball).any((1, 2)))
    expected = np.flatnonzero((truth == 1).any((1, 2)))
    assert abs(held[0] - expected[0]) <= 1
    assert abs(held[-1] - expected[-1]) <= 1


def test_scales_are_nested_from_splinters_to_objects() -> None:
    found = find_supervoxels(body(noise=0.6)[0], DISTANCE)
    assert len(found.regions) == len(SCALES)
    counts = [int(regions.max()) + 1 for regions in found.regions]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 2 * counts[-1]
    for fine, coarse in zip(found.regions, found.regions[1:], strict=False):
        assert len(torch.unique(torch.stack([fine, coarse]), dim=1).T) == int(fine.max()) + 1
    for fine in found.regions:
        assert torch.equal(torch.unique(fine), torch.arange(int(fine.max()) + 1)), "numbers have no gap"


def test_regions_are_connected() -> None:
    for regions in maps(find_supervoxels(body()[0], DISTANCE)):
        for region in np.unique(regions):
            # Basins may hang together by a corner within their slice.
            touching = ndimage.generate_binary_structure(3, 2)
            assert ndimage.label(regions == region, touching)[1] == 1


def test_basins_meet_at_edges() -> None:
    grey, truth = body(noise=0.0)
    basins = find_supervoxels(grey, DISTANCE).basins.numpy()
    inner = ndimage.binary_erosion(truth == 1, np.ones((1, 5, 5)))
    outer = ~ndimage.binary_dilation(truth == 1, np.ones((1, 5, 5)))
    assert not set(np.unique(basins[inner])) & set(np.unique(basins[outer]))


def slow_costs(regions: NDArray[np.int64], grey: NDArray[np.float64], distance: float) -> dict[tuple[int, int], float]:
    """What merging two touching regions would cost, voxel by voxel."""
    borders: dict[tuple[int, int], float] = {}
    for axis, area in enumerate((1.0, distance, distance)):
        for place in np.ndindex(*(n - (k == axis) for k, n in enumerate(regions.shape))):
            beside = tuple(p + (k == axis) for k, p in enumerate(place))
            pair = tuple(sorted((int(regions[place]), int(regions[beside]))))
            if pair[0] != pair[1]:
                borders[pair] = borders.get(pair, 0.0) + area
    costs = {}
    for (a, b), border in borders.items():
        first, second = grey[regions == a], grey[regions == b]
        both = np.concatenate([first, second])
        error = [((values - values.mean()) ** 2).sum() * distance for values in (first, second, both)]
        surfaces = [sum(other for pair, other in borders.items() if region in pair) for region in (a, b)]
        costs[a, b] = (error[2] - error[0] - error[1]) / border / (border / min(surfaces)) ** 2
    return costs


def test_merging_ends_where_each_further_step_would_cost_more_than_the_scale() -> None:
    grey = ndimage.gaussian_filter(np.random.default_rng(3).normal(0, 1, (4, 20, 24)), (0, 2, 2))
    grey = (grey / np.abs(grey).max()).astype(np.float32)
    found = find_supervoxels(grey, 2.0, (0.002, 0.02))
    smooth = ndimage.gaussian_filter(grey, (0, 1.0, 1.0)).astype(np.float64)
    for regions, scale in zip(maps(found), (0.002, 0.02), strict=True):
        costs = slow_costs(regions, smooth, 2.0)
        assert len(costs) > 3
        assert min(costs.values()) >= scale * (1 - 1e-4)


@pytest.mark.parametrize(("distance", "regions"), [(0.5, 1), (8.0, 2)])
def test_thick_slices_are_not_merged_where_thin_ones_are(distance: float, regions: int) -> None:
    # Two stacked blocks of 2 slices: merging costs (difference / 2)^2 x distance x 4 slices.
    grey = np.zeros((4, 16, 16), np.float32)
    grey[2:] = 0.2
    found = find_supervoxels(grey, distance, (0.1,))
    assert int(found.regions[0].max()) + 1 == regions


@pytest.mark.parametrize("distance", [0.5, 8.0])
def test_within_slices_their_distance_makes_no_difference(distance: float) -> None:
    # Two blocks side by side, 16 pixels wide each: merging costs (difference / 2)^2 x 32 pixels, nearly.
    grey = np.zeros((4, 16, 32), np.float32)
    grey[:, :, 16:] = 0.2
    assert int(find_supervoxels(grey, distance, (0.25,)).regions[0].max()) + 1 == 2
    assert int(find_supervoxels(grey, distance, (0.35,)).regions[0].max()) + 1 == 1


def test_the_same_scan_gives_the_same_supervoxels() -> None:
    first, again = find_supervoxels(body()[0], DISTANCE), find_supervoxels(body()[0], DISTANCE)
    assert torch.equal(first.basins, again.basins)
    assert all(torch.equal(a, b) for a, b in zip(first.regions, again.regions, strict=True))


def test_an_even_stack_is_one_region() -> None:
    found = find_supervoxels(np.full((3, 16, 16), 0.5, np.float32), 2.0)
    assert all(not regions.any() for regions in found.regions)


def test_a_volume_has_the_regions_of_one_scale_in_random_order() -> None:
    grey, _ = body(noise=0.6)
    found = find_supervoxels(grey, DISTANCE)
    generator = torch.Generator().manual_seed(0)
    counts = [int(regions.max()) + 1 for regions in found.regions]
    seen, orders = set(), set()
    for _ in range(12):
        volume = found.volume(generator)
        scale = counts.index(volume.count)
        seen.add(scale)
        pairs = torch.unique(
            torch.stack([volume.regions.flatten(), torch.from_numpy(maps(found)[scale]).flatten()]), dim=1
        )
        assert pairs.shape[1] == volume.count, "one number for each region"
        assert torch.equal(pairs[0], torch.arange(volume.count))
        orders.add((scale, tuple(pairs[1].tolist())))
        assert volume.distance == DISTANCE
        assert np.array_equal(volume.image.numpy(), grey)
    assert seen == set(range(len(SCALES)))
    assert len(orders) > len(seen)


def test_large_regions_come_first_more_often() -> None:
    sizes = torch.tensor([900, 1, 1, 100])
    basins = torch.repeat_interleave(torch.arange(4), sizes).to(torch.int32)[None, None]
    found = Supervoxels(torch.zeros(basins.shape), basins, (torch.arange(4),), 1.0)
    generator = torch.Generator().manual_seed(0)
    firsts = torch.zeros(4)
    for _ in range(600):
        volume = found.volume(generator)
        number = volume.regions.flatten()[(sizes.cumsum(0) - 1)]
        firsts[int(number.argmin())] += 1
    assert firsts / 600 == pytest.approx(sizes / 1002, abs=0.05)


def test_sequences_can_be_cut_from_it() -> None:
    found = find_supervoxels(body()[0], DISTANCE)
    generator = torch.Generator().manual_seed(1)
    config = TrainingConfig(sequence=3, crop=48)
    volume = found.volume(generator)
    slices, labels, _ = cut_sequence(volume.image, volume, generator, 2, config)
    assert slices.shape == (3, 1, 48, 48)
    assert labels.shape[2:] == (24, 24)
    assert torch.allclose(labels.sum(1), torch.ones(3, 24, 24))
