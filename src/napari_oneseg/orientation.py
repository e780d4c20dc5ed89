"""How a scan is shown: its axes permuted and flipped, so that they lie closest to the patient's own.

A file may store its voxels in any order. The session and the viewer work on the *shown* scan, in which every patient
lies the same way; labels go back to the *source*, the file's own order, when they are exported. Both hold the same
voxels: nothing is interpolated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_oneseg.volume import Volume

__all__ = ["Orientation", "reorient", "shown"]

Scalar = TypeVar("Scalar", bound=np.generic)

# Rows of Volume.direction, (x to the left, y to the back, z to the head), that shown axes 0, 1 and 2 follow.
_PATIENT_AXES = (2, 1, 0)


@dataclass(frozen=True)
class Orientation:
    """Which axes of the source the shown scan has, and in which sense they run.

    Parameters
    ----------
    axes
        The source's axis that becomes shown axis 0, 1 and 2.
    flips
        Whether shown axis 0, 1 and 2 runs against the source's.
    """

    axes: tuple[int, int, int] = (0, 1, 2)
    flips: tuple[bool, bool, bool] = (False, False, False)

    def to_shown(self, array: NDArray[Scalar]) -> NDArray[Scalar]:
        """Bring an array on the source's grid, (z, y, x), to the shown scan's: a view."""
        return array.transpose(self.axes)[self._steps]

    def to_source(self, array: NDArray[Scalar]) -> NDArray[Scalar]:
        """Bring an array on the shown scan's grid back to the source's, (z, y, x): a view."""
        first, second, third = (self.axes.index(axis) for axis in range(3))
        return array[self._steps].transpose(first, second, third)

    @property
    def inverse(self) -> Orientation:
        """The way from the shown scan back to the source."""
        first, second, third = (self.axes.index(axis) for axis in range(3))
        return Orientation((first, second, third), (self.flips[first], self.flips[second], self.flips[third]))

    @property
    def _steps(self) -> tuple[slice, ...]:
        return tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)


def shown(volume: Volume) -> tuple[Volume, Orientation]:
    """Turn a scan so that its axes lie closest to the patient's.

    Axis 0 then runs to the head, axis 1 to the back and axis 2 to the patient's left (what DICOM calls LPS). Each axis
    of an oblique scan is taken for the patient's axis that is nearest to it, each of them once.

    Parameters
    ----------
    volume
        The scan as it was read.

    Returns
    -------
    The scan as it is shown, its array a view of the source's, and the way there and back.
    """
    orientation = _nearest(np.asarray(volume.direction))
    return reorient(volume, orientation), orientation


def reorient(volume: Volume, orientation: Orientation) -> Volume:
    """Turn a scan in a given way: every voxel keeps its position in space.

    The source's header belongs to the order of its axes and is left out.
    """
    axes, flips = orientation.axes, orientation.flips
    spacing = (volume.spacing[axes[0]], volume.spacing[axes[1]], volume.spacing[axes[2]])
    columns = np.asarray(volume.direction, dtype=float)[:, axes]
    origin = np.asarray(volume.origin, dtype=float)
    for axis in range(3):
        if flips[axis]:
            origin = origin + (volume.array.shape[axes[axis]] - 1) * spacing[axis] * columns[:, axis]
    x, y, z = (float(part) for part in origin)
    return replace(
        volume,
        array=orientation.to_shown(volume.array),
        spacing=spacing,
        origin=(x, y, z),
        direction=columns * np.where(flips, -1.0, 1.0),
        slice_axis=axes.index(volume.axis),
        header={},
    )


def _nearest(direction: NDArray[np.float64]) -> Orientation:
    """Pair the scan's axes with the patient's: the two that are closest first, then the next of those left.

    That is the order in which ITK pairs them. At 45 degrees two pairings are equally close, and one of them is taken.
    """
    closeness = np.abs(direction[_PATIENT_AXES, :])
    taken = {}
    for _ in range(3):
        target, source = (int(index) for index in np.unravel_index(closeness.argmax(), (3, 3)))
        taken[target] = source
        closeness[target, :] = closeness[:, source] = -1.0
    axes = (taken[0], taken[1], taken[2])
    against = direction[_PATIENT_AXES, axes] < 0
    return Orientation(axes, (bool(against[0]), bool(against[1]), bool(against[2])))
