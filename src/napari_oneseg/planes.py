"""What the planes of a scan are called: the one place that ties a name to an axis.

The axes are those of a scan in patient order, which :func:`~napari_oneseg.io.read_volume` returns: axis 0 runs to the
head, 1 to the back and 2 to the patient's left, each as closely as the scan allows. Slices along an axis lie in the
plane across it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_oneseg.errors import InputError

__all__ = ["PLANES", "plane_axis", "plane_name"]

PLANES = ("axial", "coronal", "sagittal")
"""The planes across axis 0, 1 and 2 of a scan in patient order."""

# Rows of a direction, (x to the left, y to the back, z to the head), that are normal to the planes.
_NORMALS = (2, 1, 0)
# From 45 degrees on, a second plane would be as close.
_CLOSE = np.sqrt(0.5) + 1e-6


def plane_name(direction: NDArray[np.float64], axis: int) -> str:
    """Name the plane of the slices along an axis.

    Parameters
    ----------
    direction
        As in :class:`~napari_oneseg.volume.Volume`: column k is the unit vector of array axis k in the patient's frame
        (x to the left, y to the back, z to the head).
    axis
        The axis of the array that the slices follow each other along, 0, 1 or 2.

    Returns
    -------
    ``axial``, ``coronal`` or ``sagittal`` where the axis lies within 45 degrees of that plane's normal, whatever the
    order of the array; otherwise ``axis 0``, ``axis 1`` or ``axis 2``.
    """
    closeness = np.abs(np.asarray(direction, dtype=float)[_NORMALS, axis])
    nearest = int(closeness.argmax())
    return PLANES[nearest] if closeness[nearest] > _CLOSE else f"axis {axis}"


def plane_axis(name: str) -> int:
    """Return the axis of a scan in patient order that slices of a plane follow each other along.

    Parameters
    ----------
    name
        ``axial``, ``coronal`` or ``sagittal``, in capitals or not.

    Raises
    ------
    InputError
        If it is none of them.
    """
    plain = name.strip().lower()
    if plain not in PLANES:
        raise InputError(f"A plane must be {', '.join(PLANES[:-1])} or {PLANES[-1]}, got {name!r}.")
    return PLANES.index(plain)
