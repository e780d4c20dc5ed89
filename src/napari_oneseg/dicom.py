"""Whether the slices of a DICOM series make a grid: SimpleITK makes one of any slices."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from napari_oneseg.errors import InputError
from napari_oneseg.volume import SHEARED

__all__ = ["check_slices"]

_TURNED = 1e-3  # of a component of the axes' unit vectors
_SAME_PLACE = 1e-3  # mm
# 0.3 degrees: more than scanners lose by rounding, less than a gantry is tilted by.
_TILTED = 0.005
_UNEVEN = 0.01  # of the mean gap


def check_slices(positions: NDArray[np.float64], orientations: NDArray[np.float64]) -> None:
    """Check that slices are parallel, one at each position, straight above each other and evenly spaced.

    Parameters
    ----------
    positions
        Image Position (Patient) of each slice, in the order of the scan, shape (n, 3), in mm.
    orientations
        Image Orientation (Patient) of each slice, shape (n, 6): unit vectors along a row and along a column.

    Raises
    ------
    InputError
        If the slices are turned or shifted against each other, or several lie at the same position.

    Warns
    -----
    UserWarning
        If the gaps between slices differ by more than 1 %, as when a slice is missing.
    """
    if np.abs(orientations - orientations[0]).max() > _TURNED:
        raise InputError("The slices of this DICOM series are not parallel; give a series of parallel slices.")
    normal = np.cross(orientations[0, :3], orientations[0, 3:])
    along = positions @ normal
    # Slices at the same position leave the series unsorted.
    gaps = np.diff(np.sort(along))
    if gaps.min() < _SAME_PLACE:
        raise InputError(
            "This DICOM series holds several images at the same position (time points or echoes); give a folder with "
            "one image for each position."
        )
    step = (positions[-1] - positions[0]) / (along[-1] - along[0])
    if np.linalg.norm(step - normal) > _TILTED:
        raise InputError(f"This DICOM series cannot be used: {SHEARED}.")
    if gaps.max() - gaps.min() > _UNEVEN * gaps.mean():
        widest = int(gaps.argmax())
        warnings.warn(
            f"The slices of this DICOM series are not evenly spaced: gaps of {gaps.min():.4g} to {gaps.max():.4g} mm, "
            f"the widest between slices {widest} and {widest + 1}. They are treated as {gaps.mean():.4g} mm apart, so "
            "volumes and distances are approximate; check whether slices are missing.",
            stacklevel=4,
        )
