"""Pseudo-objects of a scan without labels: supervoxels, which begin, end and follow real edges.

Strategy: each slice is cut into the basins of its gradient, a few dozen pixels each, whose borders lie on every edge.
Basins of the whole stack are then merged into 3D regions as in the piecewise constant model of Mumford and Shah: two
regions become one where this costs less squared grey-value error than a scale times the border that goes with it. But
organs of nearly equal grey values that touch would become one long before all of an organ's parts do. Parts share much
of their surface with the rest, neighbours little: so the scale is multiplied by the square of the share of the smaller
region's surface that the border is. A small scale leaves vessels and parts of organs, a large one whole organs.

Basins are found slice by slice, because between thick slices the gradient says nothing. Anisotropy enters where regions
are merged: a voxel's volume and its four sides grow with the distance between slices, its top and bottom do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from napari_oneseg.training.generate import GeneratedVolume

__all__ = ["SCALES", "Supervoxels", "find_supervoxels"]

SCALES = (0.15, 0.3, 0.7)
"""Scales of merging, in squared grey values (of a range of -1 to 1) times pixels. On two MR and two CT scans of the
abdomen, 0.87, 0.82 and 0.73 of a region lie in the organ that it is part of, and hold 0.35, 0.6 and 0.77 of it."""

_SMOOTHING = 1.0  # pixels; with less, noise doubles the number of basins and organs leak more
_ABSORBS = 16  # a region of so many times the volume hardly changes by what it takes in

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Supervoxels:
    """A stack of slices, cut into regions at several scales.

    Attributes
    ----------
    image
        Normalised slices, shape (n, rows, columns), float32, -1 to 1.
    basins
        Smallest region of each voxel, same shape, int32.
    regions
        For each scale, the region of each basin, shape (basins,), int64, 0 to regions - 1.
    distance
        Distance between neighbouring slices in pixels.
    """

    image: Tensor
    basins: Tensor
    regions: tuple[Tensor, ...]
    distance: float

    def volume(self, generator: torch.Generator) -> GeneratedVolume:
        """Return the stack with the regions of a random scale, like a volume of generated anatomy.

        Regions are numbered in random order, larger ones first in proportion to their size: sequences are cut so that
        labels go to the first regions, and most of the many regions of a fine scale are splinters.
        """
        scale = int(torch.randint(len(self.regions), (1,), generator=generator))
        regions = self.regions[scale]
        count = int(regions.max()) + 1
        sizes = torch.bincount(self.basins.flatten(), minlength=len(regions)).double()
        weights = torch.zeros(count, dtype=torch.float64).index_add_(0, regions, sizes)
        # Drawing without replacement, in proportion to the weights (Efraimidis and Spirakis 2006).
        order = (torch.rand(count, generator=generator, dtype=torch.float64).log() / weights).argsort(descending=True)
        number = torch.empty(count, dtype=torch.int64)
        number[order] = torch.arange(count)
        return GeneratedVolume(self.image, number[regions][self.basins.long()], count, self.distance)


def find_supervoxels(slices: NDArray[np.float32], distance: float, scales: tuple[float, ...] = SCALES) -> Supervoxels:
    """Cut a stack of slices into regions of even grey values.

    Parameters
    ----------
    slices
        Normalised slices on the working grid, shape (n, rows, columns), -1 to 1.
    distance
        Distance between neighbouring slices in working pixels.
    scales
        Scales of merging, ascending.
    """
    # Across slices only where they are closer than pixels: otherwise it would blur what begins and ends.
    across = _SMOOTHING / distance if distance < _SMOOTHING else 0.0
    smooth = ndimage.gaussian_filter(slices.astype(np.float32), (across, _SMOOTHING, _SMOOTHING))
    basins = _basins(np.hypot(*np.gradient(smooth, axis=(1, 2))))
    graph = _region_graph(basins, smooth, distance)
    current = np.arange(len(graph.volume))
    regions = []
    for scale in scales:
        graph, merged = _merged(graph, scale)
        current = merged[current]
        regions.append(torch.from_numpy(current))
    return Supervoxels(
        torch.from_numpy(np.ascontiguousarray(slices, dtype=np.float32)),
        torch.from_numpy(basins.astype(np.int32)),
        tuple(regions),
        distance,
    )


def _basins(gradient: NDArray[np.float32]) -> Integers:
    """Return the basin of each pixel: from each, the way leads to its lowest neighbour until there is none lower.

    Where values are equal the lower index counts as lower, so that flat ground drains too.
    """
    count, rows, columns = gradient.shape
    index = np.arange(gradient.size).reshape(gradient.shape)
    lowest, way = gradient.copy(), index.copy()
    for dy, dx in product((-1, 0, 1), repeat=2):
        here = (slice(None), slice(max(0, -dy), rows - max(0, dy)), slice(max(0, -dx), columns - max(0, dx)))
        there = (slice(None), slice(max(0, dy), rows - max(0, -dy)), slice(max(0, dx), columns - max(0, -dx)))
        lower = (gradient[there] < lowest[here]) | ((gradient[there] == lowest[here]) & (index[there] < way[here]))
        lowest[here] = np.where(lower, gradient[there], lowest[here])
        way[here] = np.where(lower, index[there], way[here])
    basins: Integers = np.unique(_followed(way.ravel()), return_inverse=True)[1]
    return basins.reshape(count, rows, columns)


def _followed(way: Integers) -> Integers:
    """Return where each index leads in the end."""
    while True:
        further = way[way]
        if np.array_equal(further, way):
            return way
        way = further


@dataclass(frozen=True, eq=False)
class _Graph:
    """Regions and their borders: ``volume`` and sum of grey values by region; two regions and the area by border."""

    volume: Floats
    total: Floats
    first: Integers
    second: Integers
    area: Floats


def _region_graph(regions: Integers, image: NDArray[np.float32], distance: float) -> _Graph:
    count = int(regions.max()) + 1
    volume = _sums(regions.ravel(), np.full(regions.size, distance), count)
    total = _sums(regions.ravel(), distance * image.ravel(), count)
    pairs, areas = [], []
    for axis, area in enumerate((1.0, distance, distance)):
        along = np.moveaxis(regions, axis, 0)
        pair = np.stack([along[:-1].ravel(), along[1:].ravel()])
        pair = pair[:, pair[0] != pair[1]]
        pairs.append(pair)
        areas.append(np.full(pair.shape[1], area))
    return _Graph(volume, total, *_borders(np.concatenate(pairs, 1), np.concatenate(areas), count))


def _borders(pairs: Integers, areas: Floats, count: int) -> tuple[Integers, Integers, Floats]:
    """Add up the areas of equal pairs of regions."""
    keys: Integers
    keys, inverse = np.unique(pairs.min(0) * count + pairs.max(0), return_inverse=True)
    return keys // count, keys % count, _sums(inverse, areas, len(keys))


def _sums(numbers: NDArray[np.intp], values: NDArray[np.floating[Any]], count: int) -> Floats:
    """Add up the values of each number from 0 to ``count - 1``."""
    return np.asarray(np.bincount(numbers, values, count), dtype=np.float64)


def _merged(graph: _Graph, scale: float) -> tuple[_Graph, Integers]:
    """Merge regions while that costs less than ``scale``; return the graph and each old region's new number.

    In each round every region looks for the neighbour that it would merge with at least cost. Those that choose each
    other become one; so does a region with one so large that its own part in it does not count. That comes to nearly
    what merging the cheapest pair of all, one after the other, would do, in some dozens of rounds of array operations.
    """
    merged = np.arange(len(graph.volume))
    while True:
        volume, a, b = graph.volume, graph.first, graph.second
        mean = graph.total / volume
        surface = _sums(a, graph.area, len(volume)) + _sums(b, graph.area, len(volume))
        share = graph.area / np.minimum(surface[a], surface[b])
        error = volume[a] * volume[b] / (volume[a] + volume[b]) * (mean[a] - mean[b]) ** 2
        cost = error / (graph.area * share**2)
        cheap = np.flatnonzero(cost < scale)
        if cheap.size == 0:
            return graph, merged
        cheap = cheap[np.argsort(-cost[cheap], kind="stable")]
        best = np.full(len(volume), -1)
        # Assigned in order of falling cost, so the cheapest neighbour remains.
        best[np.stack([a[cheap], b[cheap]], 1).ravel()] = np.stack([b[cheap], a[cheap]], 1).ravel()
        small = np.flatnonzero(best >= 0)
        large = best[small]
        grows = (volume[large] > volume[small]) | ((volume[large] == volume[small]) & (large < small))
        joins = grows & ((best[large] == small) | (volume[large] > _ABSORBS * volume[small]))
        into = np.arange(len(volume))
        into[small[joins]] = large[joins]
        numbers = np.unique(_followed(into), return_inverse=True)[1]
        count = int(numbers.max()) + 1
        pairs = numbers[np.stack([a, b])]
        kept = pairs[0] != pairs[1]
        graph = _Graph(
            _sums(numbers, volume, count),
            _sums(numbers, graph.total, count),
            *_borders(pairs[:, kept], graph.area[kept], count),
        )
        merged = numbers[merged]
