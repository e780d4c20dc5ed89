"""A rough range of slices for a target, from one place in it.

Strategy. Round the place a region is grown: what is connected to it and looks like it, in features and in grey values
(features alone do not know how bright a tissue is). The region travels from slice to slice by the attention that labels
travel with, but of what arrives only the best place counts: there a region is grown anew, not much farther than the
last one reached. So it neither wears out nor has to be outlined well. A way ends where nothing arrives any more, where
nothing looks like the target any more, or where almost nothing is left of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from napari_oneseg.config import PreprocessingConfig
from napari_oneseg.errors import InputError
from napari_oneseg.features.extractor import FeatureStack
from napari_oneseg.preprocessing import normalise
from napari_oneseg.propagation.attention import local_affinity, readout
from napari_oneseg.volume import Volume

__all__ = ["checked_voxel", "coarse_grey", "follow_point", "locate"]

# Measured on training scans; lengths are in feature positions.
_WINDOW = 13
_SEED = 2.5  # radius of the disc that says what the target looks like
_ALIKE = 0.5  # least likeness of what belongs to the region
_TOLERANCE = 0.6  # difference in grey value, which runs from -1 to 1, that takes all likeness away
_ARRIVED = 0.3  # least share of the best place that must have come from the region
_REACH = 4  # how far a region may grow beyond the last one
_LEFT = 0.03, 4  # least area of a region: as a share of the largest so far, and in positions
_RENEWAL = 0.2  # share of its looks that the target takes from each new slice
_MARGIN = _REACH + _WINDOW // 2  # what a step has to see round the last region

Place = tuple[float, float]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class _Looks:
    """What the target looks like: features (C,) and grey value."""

    features: Tensor
    grey: float

    def likeness(self, features: Tensor, grey: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return how much each position looks like the target, shape (rows, columns), at most 1."""
        alike = functional.cosine_similarity(features, self.features[:, None, None], dim=0).cpu().numpy()
        return np.asarray(np.minimum(alike, 1.0 - np.abs(grey - self.grey) / _TOLERANCE), dtype=np.float32)

    def renewed(self, now: _Looks) -> _Looks:
        """Return the same with a little of how the target looks now."""
        kept = 1.0 - _RENEWAL
        return _Looks(kept * self.features + _RENEWAL * now.features, kept * self.grey + _RENEWAL * now.grey)


def coarse_grey(
    volume: Volume, stack: FeatureStack, preprocessing: PreprocessingConfig | None = None
) -> NDArray[np.float32]:
    """Return normalised grey values on the feature grid, shape (n, rows, columns), -1 to 1."""
    if stack.refinement is not None:  # it needs them too
        return np.asarray(stack.refinement.grey[:, 0].float().cpu().numpy(), dtype=np.float32)
    # First the mapping, then the mean: padding and metal would weigh on the mean of what lies beside them.
    slices = volume.to_slices(normalise(volume.array, preprocessing, volume.padding))
    maps = [
        stack.grid.to_features(torch.from_numpy(np.ascontiguousarray(image, np.float32))[None, None])[0, 0].numpy()
        for image in slices
    ]
    return np.stack(maps)


def checked_voxel(voxel: tuple[int, int, int], shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return a voxel (slice, row, column) as plain integers.

    Raises
    ------
    InputError
        If it lies outside a scan of ``shape`` (n, rows, columns).
    """
    if not all(0 <= at < side for at, side in zip(voxel, shape, strict=True)):
        raise InputError(
            f"There is no voxel in slice {voxel[0]}, row {voxel[1]}, column {voxel[2]}: the scan has {shape[0]} slices "
            f"of {shape[1]} rows and {shape[2]} columns, counted from 0."
        )
    return int(voxel[0]), int(voxel[1]), int(voxel[2])


def locate(stack: FeatureStack, grey: NDArray[np.float32], voxel: tuple[int, int, int]) -> tuple[int, int]:
    """Return roughly the first and the last slice of what lies at a voxel, both included.

    Parameters
    ----------
    stack
        Features of the scan.
    grey
        From :func:`coarse_grey`.
    voxel
        Slice, row and column on the scan's grid, well within the target.

    Raises
    ------
    InputError
        If the voxel lies outside the scan.
    """
    source, features = stack.grid.source, stack.grid.features
    index, row, column = checked_voxel(voxel, (len(stack.maps), *source))
    place = ((row + 0.5) * features[0] / source[0] - 0.5, (column + 0.5) * features[1] / source[1] - 0.5)
    held = follow_point(stack, grey, index, place)
    return min(held), max(held)


@torch.inference_mode()
def follow_point(stack: FeatureStack, grey: NDArray[np.float32], index: int, place: Place) -> dict[int, int]:
    """Follow what lies at a place through the slices, in both directions.

    Parameters
    ----------
    stack
        Features of the scan.
    grey
        Normalised grey values on the feature grid, shape (n, rows, columns), -1 to 1.
    index, place
        Slice, and row and column on the feature grid.

    Returns
    -------
    Area of the region, in feature positions, on each slice that shows it: a run of neighbours that holds ``index``.
    """
    # A mean over 3 x 3 positions takes away most of the noise.
    smooth = _Smoothed(grey)
    seed = _disc(grey.shape[1:], place, _SEED)
    features = stack.maps[index].float()
    looks = _looks_of(features, smooth[index], seed)
    region = _grown(looks.likeness(features, smooth[index]), place)
    areas = {index: int(region.sum())}
    for order in (range(index + 1, len(stack.maps)), range(index - 1, -1, -1)):
        areas.update(_follow(stack, smooth, index, order, region, looks))
    return dict(sorted(areas.items()))


class _Smoothed:
    """Grey values averaged over 3 x 3 positions, slice by slice as they are asked for."""

    def __init__(self, grey: NDArray[np.float32]) -> None:
        self.grey = grey

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        return np.asarray(ndimage.uniform_filter(self.grey[index], 3), dtype=np.float32)


def _follow(
    stack: FeatureStack, smooth: _Smoothed, start: int, order: Sequence[int], region: Mask, looks: _Looks
) -> Iterator[tuple[int, int]]:
    """Yield slice and area until the target has ended."""
    bias = 0.0 if stack.null_bias is None else stack.null_bias
    before, largest = start, int(region.sum())
    for index in order:
        box = _box(region, _MARGIN)
        here, there = (stack.maps[k][(slice(None), *box)].float() for k in (index, before))
        last = region[box]
        mark = torch.from_numpy(last).to(here.device)[None, None].float()
        arrived = readout(local_affinity(here[None], there[None], _WINDOW, null_bias=bias), mark)[0, 0].cpu().numpy()
        grey = smooth[index][box]
        likeness = looks.likeness(here, grey)
        best = np.unravel_index(int((arrived * likeness.clip(0.0)).argmax()), arrived.shape)
        if arrived[best] < _ARRIVED or likeness[best] < _ALIKE:
            return
        near = ndimage.binary_dilation(last, iterations=_REACH)
        grown = _grown(np.where(near, likeness, -1.0), (float(best[0]), float(best[1]))) & near
        area = int(grown.sum())
        largest = max(largest, area)
        if area < max(_LEFT[0] * largest, _LEFT[1]):
            return
        yield index, area
        looks = looks.renewed(_looks_of(here, grey, grown))
        region = np.zeros_like(region)
        region[box] = grown
        before = index


def _looks_of(features: Tensor, grey: NDArray[np.float32], region: Mask) -> _Looks:
    return _Looks(features[:, torch.from_numpy(region).to(features.device)].mean(1), float(grey[region].mean()))


def _grown(likeness: NDArray[np.float32], place: Place) -> Mask:
    """Return what is alike and connected to a place, thin bridges cut and holes filled, (rows, columns)."""
    seed = _disc(likeness.shape, place, 1.5)
    alike = ndimage.binary_opening((likeness >= _ALIKE) | seed) | seed
    parts, _ = ndimage.label(alike)
    row, column = (int(np.clip(round(x), 0, side - 1)) for x, side in zip(place, likeness.shape, strict=True))
    return np.asarray(ndimage.binary_fill_holes(parts == parts[row, column]))


def _disc(shape: tuple[int, ...], place: Place, radius: float) -> Mask:
    """Return the positions within ``radius`` of a place, and always the one nearest to it, (rows, columns)."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    distance = np.hypot(rows - place[0], columns - place[1])
    return np.asarray(distance <= max(radius, distance.min()))


def _box(region: Mask, margin: int) -> tuple[slice, slice]:
    """Return rows and columns of the smallest box round a region, widened."""
    spans = []
    for axis, side in ((1, region.shape[0]), (0, region.shape[1])):
        held = np.flatnonzero(region.any(axis))
        spans.append(slice(max(0, int(held[0]) - margin), min(side, int(held[-1]) + 1 + margin)))
    return spans[0], spans[1]
