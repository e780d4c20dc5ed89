"""A scan in the order of its file's axes, and in the patient's, in which the whole program works.

A file may store its voxels in any order. :func:`~napari_oneseg.io.read_volume` turns a scan once, to the patient's
axes, so that every patient lies the same way and a slice has one number everywhere. The way back stays with the scan,
and what is written goes that way.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from napari_oneseg.orientation import Grid, Orientation
from napari_oneseg.volume import Volume

__all__ = ["FILE_ORIGIN", "file_grid", "file_slice", "in_file_order", "reorient"]

FILE_ORIGIN = "file_origin"
"""The entry of ``Volume.header`` that keeps the file's own origin: turned there and back, it would be rounded."""

_ROUNDING = 1e-6  # of the smallest spacing


def reorient(volume: Volume, way: Orientation) -> Volume:
    """Turn a scan in a given way; its array becomes a view, its slices stay the slices, its file stays its file."""
    return _on(volume, volume.grid.turned(way), way)


def in_file_order(volume: Volume) -> Volume:
    """Return a scan in the order of its file, on :func:`file_grid`; its array is a view."""
    return _on(volume, file_grid(volume), volume.to_file)


def file_grid(volume: Volume) -> Grid:
    """Return the grid of a scan's file, to the last bit; of a scan that was cropped or moved since, its own."""
    grid = volume.grid.turned(volume.to_file)
    if FILE_ORIGIN not in volume.header:
        return grid
    x, y, z = map(float, volume.header[FILE_ORIGIN].split())
    is_rounding = np.allclose(grid.origin, (x, y, z), rtol=0, atol=_ROUNDING * min(grid.spacing))
    return replace(grid, origin=(x, y, z)) if is_rounding else grid


def _on(volume: Volume, grid: Grid, way: Orientation) -> Volume:
    return replace(
        volume,
        array=way.apply(volume.array),
        spacing=grid.spacing,
        origin=grid.origin,
        direction=grid.direction,
        slice_axis=way.axes.index(volume.axis),
        to_file=way.inverse.then(volume.to_file),
    )


def file_slice(volume: Volume, index: int) -> tuple[int, int]:
    """Say where a slice of a scan lies in the scan's file, for programs that index the file's own array.

    Parameters
    ----------
    volume
        The scan.
    index
        The slice, counted along the scan's slice axis.

    Returns
    -------
    The axis and the index in the array ``data[i, j, k]`` of the file, axes and indices counted from 0. The first axis
    is the one whose voxels lie next to each other in a NIfTI, NRRD or MetaImage file. In a DICOM series i is the
    column, j the row, and k the slice's place in the series, sorted by position in the sense of the normal, row times
    column.
    """
    axis = volume.to_file.axes.index(volume.axis)
    return 2 - axis, volume.n_slices - 1 - index if volume.to_file.flips[axis] else index
