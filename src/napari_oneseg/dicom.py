"""Whether the slices of a DICOM series make a grid, and which: most programs make one of any slices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_oneseg.errors import InputError
from napari_oneseg.volume import SHEARED

__all__ = ["FRAME_OF_REFERENCE", "SERIES", "SliceGrid", "filled_slices", "number_places", "slice_grid"]

SERIES = "series"
"""The entry of ``Volume.header`` that names the DICOM series a scan was read from: its key, as of ``list_series``."""

FRAME_OF_REFERENCE = "frame_of_reference"
"""The entry of ``Volume.header`` that names the space in which a DICOM series' positions are measured: its UID."""

# Images at the same position, as it was measured anew for each: within a share of the largest gap between slices (four
# times the usual one, where three are missing), and of the smaller pixel side. All of them, where they fill less than
# that, have no gap to be compared with.
_SAME_PLACE = 1e-3  # mm
_OF_LARGEST_GAP = 0.15
_ALL_AT_ONE_PLACE = 0.1  # of the smaller pixel side
_SIDEWAYS = 0.25  # of the smaller pixel side
_FLAT = 0.5  # length of the normal of an orientation that is none
_EVEN, _UNEVEN = 0.01, 0.1  # of the gap between slices
# Interpolating more than that would show anatomy that nobody has seen.
_MISSING, _IN_A_ROW = 0.1, 3
_FILLED = "filled_slices"
_FEW = 6  # positions that are listed


@dataclass(frozen=True, eq=False)
class SliceGrid:
    """A grid with perpendicular axes, and which of its slices there are.

    Parameters
    ----------
    order
        The indices of the slices as given, in the order of the scan, shape (n,).
    places
        Where they lie on the grid, shape (n,), ascending from 0; numbers left out are missing slices.
    spacing, origin, direction
        As in :class:`~napari_oneseg.volume.Volume`.
    remarks
        What the user must be told, a sentence each.
    """

    order: NDArray[np.intp]
    places: NDArray[np.intp]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: NDArray[np.float64]
    remarks: tuple[str, ...] = ()

    @property
    def header(self) -> dict[str, str]:
        """The entry of ``Volume.header`` that says which slices are missing, none if there is none."""
        missing = np.setdiff1d(np.arange(self.places[-1]), self.places)
        return {_FILLED: " ".join(map(str, missing))} if missing.size else {}


def filled_slices(header: Mapping[str, str]) -> NDArray[np.intp]:
    """Return the slices of a scan that were missing in its DICOM series, and were filled in from their neighbours.

    Parameters
    ----------
    header
        Of the scan, as :func:`~napari_oneseg.io.read_volume` read it.
    """
    return np.array(header.get(_FILLED, "").split(), np.intp)


def number_places(
    positions: NDArray[np.float64], orientation: NDArray[np.float64], pixel_spacing: tuple[float, float]
) -> NDArray[np.intp]:
    """Give each of the places at which parallel images lie a number; nearly the same position is the same place.

    Parameters
    ----------
    positions, orientation, pixel_spacing
        As in :func:`slice_grid`.

    Returns
    -------
    Shape (n,), from 0 on, without a gap.
    """
    pixel = min(pixel_spacing)
    row, column = orientation[:3], orientation[3:]
    axes = np.stack([np.cross(row, column), row, column])
    if np.linalg.norm(axes[0]) < _FLAT:
        axes = np.eye(3)
    along, *aside = axes @ positions.T
    numbers = [_runs(along, _ALL_AT_ONE_PLACE * pixel, _OF_LARGEST_GAP, _SIDEWAYS * pixel)]
    numbers += [_runs(values, 0, 1, _SIDEWAYS * pixel) for values in aside]
    return np.unique(np.stack(numbers, axis=1), axis=0, return_inverse=True)[1].reshape(-1)


def _runs(values: NDArray[np.float64], whole: float, share: float, most: float) -> NDArray[np.intp]:
    """Give each run of values that follow each other closely a number, shape (n,).

    Closely is within ``share`` of the largest gap, and ``most``. All are one run if they lie within ``whole``.
    """
    order = np.argsort(values, kind="stable")
    gaps = np.diff(values[order])
    close = max(_SAME_PLACE, min(share * gaps.max(initial=0), most), whole if gaps.sum() <= whole else 0)
    numbers = np.empty(len(values), np.intp)
    numbers[order] = np.concatenate([[0], np.cumsum(gaps > close)])
    return numbers


def slice_grid(
    positions: NDArray[np.float64], orientation: NDArray[np.float64], pixel_spacing: tuple[float, float]
) -> SliceGrid:
    """Find the grid of parallel slices.

    Parameters
    ----------
    positions
        Image Position (Patient) of each slice, in any order, shape (n, 3) with n of at least 2, in mm.
    orientation
        Image Orientation (Patient) of all slices, shape (6,): unit vectors along a row and along a column.
    pixel_spacing
        Distance between rows, and between columns, in mm.

    Returns
    -------
    The grid. No slice lies farther from its place than a tenth of the gap between slices and a quarter of a pixel.

    Raises
    ------
    InputError
        If several slices lie at the same position, they are shifted against each other as with a tilted gantry, they
        are spaced too unevenly, or more than a tenth of them, or more than three in a row, are missing.
    """
    row, column = _perpendicular(orientation)
    normal = np.cross(row, column)
    along = positions @ normal
    _check_single(number_places(positions, orientation, pixel_spacing), along)
    order = np.argsort(along, kind="stable")
    positions, along = positions[order], along[order]
    _check_straight(positions, along, normal, min(pixel_spacing))
    places, gap, remarks = _places(along)
    first = positions[0]
    return SliceGrid(
        order,
        places,
        (gap, *pixel_spacing),
        (float(first[0]), float(first[1]), float(first[2])),
        np.stack([normal, column, row], axis=1),
        remarks,
    )


def _check_single(numbers: NDArray[np.intp], along: NDArray[np.float64]) -> None:
    """Refuse images of which several lie at the same place."""
    first, count = np.unique(numbers, return_index=True, return_counts=True)[1:]
    if count.size == numbers.size:
        return
    where = _listed(np.sort(along[first[count > 1]]))
    raise InputError(
        f"This DICOM series holds several images at the same position: {numbers.size} images at {count.size} "
        f"positions, up to {count.max()} of them at {where}, and nothing in their headers tells them apart as time "
        "points or echoes. Give a folder with one image for each position."
    )


def _perpendicular(orientation: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Undo the rounding of the two unit vectors in the file."""
    row, column = orientation[:3], orientation[3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if np.abs(np.subtract(lengths, 1)).max() > 0.01 or abs(row @ column) > 0.01:
        raise InputError(
            "The orientation of the slices of this DICOM series is not two perpendicular directions; export it again."
        )
    row = row / lengths[0]
    column = column - (column @ row) * row
    return row, column / np.linalg.norm(column)


def _check_straight(
    positions: NDArray[np.float64], along: NDArray[np.float64], normal: NDArray[np.float64], pixel: float
) -> None:
    """Refuse slices that do not lie straight above each other."""
    aside = positions - np.outer(along, normal)
    aside = aside - aside[0]
    if np.linalg.norm(aside, axis=1).max() <= _SIDEWAYS * pixel:
        return
    height = along - along[0]
    slope = height @ aside / (height @ height)
    if np.linalg.norm(aside - np.outer(height, slope), axis=1).max() <= _SIDEWAYS * pixel:
        degrees = np.degrees(np.arctan(np.linalg.norm(slope)))
        raise InputError(
            f"This DICOM series cannot be used: its slices are tilted by {degrees:.1f} degrees against the direction "
            f"in which they follow each other, so {SHEARED}. Converting it to NIfTI with dcm2niix does that."
        )
    raise InputError(
        "The slices of this DICOM series are shifted sideways against each other, so they make no regular grid; "
        "resample them to one, or give a series that was taken in one go."
    )


def _places(along: NDArray[np.float64]) -> tuple[NDArray[np.intp], float, tuple[str, ...]]:
    """Return where slices at these heights lie on an even grid, its gap in mm, and what is to be said of it."""
    gaps = np.diff(along)
    steps = np.maximum(1, np.round(gaps / np.median(gaps)))
    places = np.concatenate([[0], np.cumsum(steps)]).astype(np.intp)
    gap = float((along[-1] - along[0]) / places[-1])
    off = np.abs(along - along[0] - places * gap)
    if off.max() > _UNEVEN * gap:
        raise InputError(
            f"The slices of this DICOM series are spaced too unevenly: gaps of {gaps.min():.4g} to {gaps.max():.4g} "
            f"mm, so that the slice at {along[off.argmax()]:.4g} mm would lie {off.max():.3g} mm from its place. "
            "Resample it to even gaps, or give a series that has them."
        )
    remarks = []
    missing = np.setdiff1d(np.arange(places[-1]), places)
    if missing.size:
        where = f"{missing.size} of {places[-1] + 1} slices are missing, at {_listed(along[0] + missing * gap)}"
        if missing.size > _MISSING * (places[-1] + 1) or steps.max() - 1 > _IN_A_ROW:
            raise InputError(
                f"In this DICOM series {where}: more than can be filled in (a tenth of all, three in a row). Export it "
                "again with all slices."
            )
        remarks.append(
            f"In this DICOM series {where}. They are filled in from their neighbours (slices {_listed(missing, '')}), "
            "so that all others lie where they belong; do not paint them, and export the series again if you can."
        )
    if off.max() > _EVEN * gap:
        worst = int(off.argmax())
        remarks.append(
            f"The slices of this DICOM series are not evenly spaced: gaps of {gaps.min():.4g} to {gaps.max():.4g} mm. "
            f"They are treated as {gap:.4g} mm apart, which puts slice {places[worst]} (at {along[worst]:.4g} mm) "
            f"{off[worst]:.2g} mm from its place, and the others less."
        )
    return places, gap, tuple(remarks)


def _listed(values: NDArray[np.generic], unit: str = " mm") -> str:
    more = "" if values.size <= _FEW else f" and {values.size - _FEW} more"
    return ", ".join(f"{value:.4g}" for value in values[:_FEW]) + more + unit
