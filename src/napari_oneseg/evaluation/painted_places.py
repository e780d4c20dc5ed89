"""Where on a reference something is painted: slices of an organ, its range, its middle, and what is copied."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_oneseg.volume import Annotation, LabelArray, label_dtype

__all__ = ["copied", "deepest_voxel", "evenly_spaced", "organ_extent", "widened_extent"]

RANGE_MARGIN = 0.1
"""Share of the organ's extent by which a rough range is wider than it, at both ends."""


def copied(reference: LabelArray, slices: Mapping[int, Iterable[int]]) -> Annotation:
    """Copy labels from the reference, each on the given slices; slices on which nothing is copied are left out.

    Parameters
    ----------
    reference
        Shape (n, rows, columns), in slice order.
    slices
        Slices by label.
    """
    dtype = label_dtype(max(slices, default=0))
    images: dict[int, LabelArray] = {}
    for label, indices in slices.items():
        for index in indices:
            image = images.setdefault(index, np.zeros(reference.shape[1:], dtype))
            image[reference[index] == label] = label
    return Annotation({index: image for index, image in sorted(images.items()) if image.any()})


def evenly_spaced(mask: NDArray[np.bool_], count: int) -> tuple[int, ...]:
    """Return the slices of the ``evenly`` protocol, ascending; fewer where the organ has fewer, or a gap.

    Parameters
    ----------
    mask
        The organ, not empty, boolean, shape (n, rows, columns).
    count
        Number of slices.
    """
    areas = np.count_nonzero(mask, axis=(1, 2))
    held = np.flatnonzero(areas)
    if count == 1:
        return (int(areas.argmax()),)
    if len(held) <= count:
        return tuple(int(index) for index in held)
    first, last = held[0], held[-1]
    centres = first - 0.5 + (2 * np.arange(count) + 1) * (last - first + 1) / (2 * count)
    # Where the organ has a gap, the nearest slice that shows it.
    nearest = held[np.abs(held - centres[:, None]).argmin(axis=1)]
    return tuple(int(index) for index in np.unique(nearest))


def organ_extent(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Return the first and the last slice of an organ that is not empty, boolean, shape (n, rows, columns)."""
    held = np.flatnonzero(mask.any(axis=(1, 2)))
    return int(held[0]), int(held[-1])


def widened_extent(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Return the rough range that a user would give for an organ: its extent and a tenth more at both ends.

    At least one slice is added at each end, as far as the scan goes.

    Parameters
    ----------
    mask
        The organ, not empty, boolean, shape (n, rows, columns).
    """
    first, last = organ_extent(mask)
    margin = max(1, round(RANGE_MARGIN * (last - first + 1)))
    return max(0, first - margin), min(len(mask) - 1, last + margin)


def deepest_voxel(mask: NDArray[np.bool_], spacing: tuple[float, float, float]) -> tuple[int, int, int]:
    """Return the voxel that lies deepest in an organ that is not empty, (slice, row, column); the scan's borders count.

    Parameters
    ----------
    mask
        Boolean, shape (n, rows, columns).
    spacing
        Of (slices, rows, columns) in mm.
    """
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    depth = ndimage.distance_transform_edt(np.pad(mask[box], 1), spacing)[1:-1, 1:-1, 1:-1]
    place = np.unravel_index(int(depth.argmax()), depth.shape)
    index, row, column = (int(at) + side.start for at, side in zip(place, box, strict=True))
    return index, row, column
