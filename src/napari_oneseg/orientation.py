"""The order of a scan's axes: the patient's, in which the whole program works, and the file's.

A file may store its voxels in any order. :func:`~napari_oneseg.io.read_volume` turns a scan once, to the patient's
axes, so that every patient lies the same way and a slice has one number everywhere; the way back stays with the scan,
and what is written goes that way. Both orders hold the same voxels: axes are permuted and flipped, nothing is
interpolated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari_oneseg.volume import Volume

__all__ = [
    "FILE_ORIGIN", "Grid", "Orientation", "file_grid", "file_slice", "in_file_order", "nearest_orientation", "reorient",
]  # fmt: skip

Scalar = TypeVar("Scalar", bound=np.generic)
Triple = tuple[float, float, float]

# Rows of Volume.direction, (x to the left, y to the back, z to the head), that axes 0, 1 and 2 follow in patient order.
_PATIENT_AXES = (2, 1, 0)

FILE_ORIGIN = "file_origin"
"""The entry of ``Volume.header`` that keeps the file's own origin: turned there and back, it would be rounded."""


@dataclass(frozen=True)
class Orientation:
    """A way from one order of axes to another: which axis becomes which, and in which sense it runs.

    Parameters
    ----------
    axes
        The axis of the array that becomes axis 0, 1 and 2 of the turned one.
    flips
        Whether axis 0, 1 and 2 of the turned array runs against that axis.
    """

    axes: tuple[int, int, int] = (0, 1, 2)
    flips: tuple[bool, bool, bool] = (False, False, False)

    def apply(self, array: NDArray[Scalar]) -> NDArray[Scalar]:
        """Turn an array of three dimensions: a view."""
        return array.transpose(self.axes)[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]

    @property
    def inverse(self) -> Orientation:
        """The way back."""
        first, second, third = (self.axes.index(axis) for axis in range(3))
        return Orientation((first, second, third), (self.flips[first], self.flips[second], self.flips[third]))

    def then(self, other: Orientation) -> Orientation:
        """Return the one way that leads where this and then another one do."""
        first, second, third = (self.axes[axis] for axis in other.axes)
        a, b, c = (self.flips[axis] != flip for axis, flip in zip(other.axes, other.flips, strict=True))
        return Orientation((first, second, third), (a, b, c))


def nearest_orientation(direction: NDArray[np.float64]) -> Orientation:
    """Return the way to the order of axes that lies closest to the patient's.

    Axis 0 then runs to the head, axis 1 to the back and axis 2 to the patient's left (what DICOM calls LPS). Each axis
    of an oblique scan is taken for the patient's axis that is nearest to it, each of them once: the two that are
    closest are paired first, then the next of those left. That is the order in which ITK pairs them. At 45 degrees two
    pairings are equally close, and one of them is taken.

    Parameters
    ----------
    direction
        As in :class:`~napari_oneseg.volume.Volume`.
    """
    closeness = np.abs(np.asarray(direction)[_PATIENT_AXES, :])
    taken = {}
    for _ in range(3):
        target, source = (int(index) for index in np.unravel_index(closeness.argmax(), (3, 3)))
        taken[target] = source
        closeness[target, :] = closeness[:, source] = -1.0
    axes = (taken[0], taken[1], taken[2])
    against = np.asarray(direction)[_PATIENT_AXES, axes] < 0
    return Orientation(axes, (bool(against[0]), bool(against[1]), bool(against[2])))


@dataclass(frozen=True, eq=False)
class Grid:
    """Where voxels lie, without their values.

    Parameters
    ----------
    shape
        How many there are along each axis of the array.
    spacing, origin, direction
        As in :class:`~napari_oneseg.volume.Volume`.
    """

    shape: tuple[int, ...]
    spacing: Triple
    origin: Triple
    direction: NDArray[np.float64]

    def turned(self, way: Orientation) -> Grid:
        """Return the grid of an array that was turned: every voxel keeps its position in space."""
        first, second, third = (float(self.spacing[axis]) for axis in way.axes)
        columns = np.asarray(self.direction, dtype=float)[:, way.axes]
        place = np.asarray(self.origin, dtype=float)
        for axis, (source, flip) in enumerate(zip(way.axes, way.flips, strict=True)):
            if flip:
                place = place + (self.shape[source] - 1) * self.spacing[source] * columns[:, axis]
        x, y, z = (float(part) for part in place)
        shape = tuple(self.shape[axis] for axis in way.axes)
        return Grid(shape, (first, second, third), (x, y, z), columns * np.where(way.flips, -1.0, 1.0))


def reorient(volume: Volume, way: Orientation) -> Volume:
    """Turn a scan in a given way; its array becomes a view, its slices stay the slices, its file stays its file."""
    return _on(volume, _grid(volume).turned(way), way)


def in_file_order(volume: Volume) -> Volume:
    """Return a scan in the order of its file, on :func:`file_grid`; its array is a view."""
    return _on(volume, file_grid(volume), volume.to_file)


def file_grid(volume: Volume) -> Grid:
    """Return the grid of a scan's file, to the last bit."""
    grid = _grid(volume).turned(volume.to_file)
    if FILE_ORIGIN not in volume.header:
        return grid
    x, y, z = map(float, volume.header[FILE_ORIGIN].split())
    return replace(grid, origin=(x, y, z))


def _grid(volume: Volume) -> Grid:
    return Grid(volume.array.shape, volume.spacing, volume.origin, np.asarray(volume.direction, dtype=float))


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
