"""Orders of axes: one array becomes another whose axes are permuted and flipped, and its grid with it.

Every array that is turned is a view of the other; nothing is interpolated.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Grid", "Orientation", "nearest_orientation"]

Scalar = TypeVar("Scalar", bound=np.generic)
Triple = tuple[float, float, float]

# Rows of Volume.direction, (x to the left, y to the back, z to the head), that axes 0, 1 and 2 follow in patient order.
_PATIENT_AXES = (2, 1, 0)

# Two grids are the same within what programs lose when they store them in single precision or as short decimal numbers.
_SPACING_TOLERANCE = 1e-4  # share of the spacing
_ORIGIN_TOLERANCE = 1e-2  # share of the smallest spacing
_DIRECTION_TOLERANCE = 1e-3  # of each component of the unit vectors


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

    def differences(self, wanted: Grid) -> list[str]:
        """Say in what this grid differs from another, with both values.

        Returns
        -------
        One entry for each part that differs. An empty list where the grids are the same: spacing within 0.01 %, origin
        within 1 % of the smallest voxel side, components of the axes' directions within 0.001.
        """
        found = []
        if self.shape != wanted.shape:
            found.append(f"shape {_numbers(self.shape)} instead of {_numbers(wanted.shape)} (z, y, x)")
        if (np.abs(np.subtract(self.spacing, wanted.spacing)) > np.multiply(_SPACING_TOLERANCE, wanted.spacing)).any():
            found.append(f"spacing {_numbers(self.spacing)} instead of {_numbers(wanted.spacing)} mm (z, y, x)")
        if np.abs(np.subtract(self.origin, wanted.origin)).max() > _ORIGIN_TOLERANCE * min(wanted.spacing):
            found.append(f"origin {_numbers(self.origin)} instead of {_numbers(wanted.origin)} mm")
        if np.abs(self.direction - wanted.direction).max() > _DIRECTION_TOLERANCE:
            axes, others = self.direction.T.ravel(), wanted.direction.T.ravel()
            found.append(f"axes {_numbers(axes)} instead of {_numbers(others)} (z, y, x)")
        return found

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


def _numbers(values: Iterable[float]) -> str:
    return "(" + ", ".join(f"{value + 0.0:.6g}" for value in values) + ")"
