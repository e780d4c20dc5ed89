"""Where a layer's voxels lie in the patient, also for layers that this plugin did not make.

napari knows no patient: a layer's transforms lead to its own world, whose axes are (z, y, x). Where a reader kept more
than that, or where the file is still there, that is used, so that labels land on the file's own grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Layer
from napari.utils.transforms import CompositeAffine
from numpy.typing import NDArray

from napari_oneseg.errors import InputError
from napari_oneseg.file_order import reorient
from napari_oneseg.image_formats import known_ending
from napari_oneseg.orientation import Orientation
from napari_oneseg.volume import Volume

__all__ = [
    "coarse_to_fine",
    "display_kwargs",
    "is_tilted",
    "on_file_grid",
    "patient_frame",
    "readable_path",
    "same_place",
    "scan_frame",
    "straight_kwargs",
    "straight_world",
    "volume_in",
    "world_frame",
]

Matrix = NDArray[np.float64]
"""4 x 4, from voxels in the order of the layer's array to mm."""

_REVERSED = np.eye(4)[[2, 1, 0, 3]]
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SAME_SPACING = 1e-3  # share of the spacing
_STRAIGHT = 1e-3  # of each component of the axes' unit vectors
_SAME_PLACE = 1e-4, 1e-2  # shares of the voxel: of its sides, and of where the first one lies
_SAME_VALUE = 1e-5  # of the largest grey value: readers scale in single or double precision
_SPARSE = (slice(None, None, 5),) * 3


def straight_kwargs(spacing: tuple[float, float, float]) -> dict[str, Any]:
    """Return what places a layer of this plugin in napari's world: voxel size along (z, y, x) in mm, and no more.

    napari paints beside the mouse on tilted layers, so origin and direction are kept in the metadata only.
    """
    return {"scale": spacing, "units": ("mm", "mm", "mm"), "axis_labels": ("z", "y", "x")}


def straight_world(spacing: Sequence[float]) -> Matrix:
    """Return the way from voxels to napari's world of a layer that :func:`straight_kwargs` has placed."""
    return np.diag([*spacing, 1.0])


def scan_frame(volume: Volume) -> Matrix:
    """Return the way from the voxels of a scan to the patient."""
    frame = np.eye(4)
    frame[:3, :3] = np.asarray(volume.direction) * np.asarray(volume.spacing)
    frame[:3, 3] = volume.origin
    return frame


def same_place(one: Matrix, other: Matrix) -> bool:
    """Whether two ways from voxels to mm lead to the same grid, but for what programs lose when they store numbers."""
    sides, first = _SAME_PLACE
    lengths = _lengths(other)
    linear = np.abs(one - other)[:3, :3] <= sides * lengths
    return bool(linear.all() and (np.abs(one - other)[:3, 3] <= first * lengths.min()).all())


def display_kwargs(layer: Layer, factors: NDArray[np.float64]) -> dict[str, Any]:
    """Return what places a layer in napari's world, for another layer that shall lie exactly on it.

    Parameters
    ----------
    layer
        A layer of three dimensions, or with axes of length 1 before them.
    factors
        How many of the layer's voxels, along (z, y, x), one voxel of the other layer stands for.
    """
    linear = _data_to_physical(layer)[:3, :3]
    shear = np.asarray(layer.shear)
    return {
        "scale": np.asarray(layer.scale)[-3:] * factors,
        # A voxel that stands for several lies in the middle of them.
        "translate": np.asarray(layer.translate)[-3:] + linear @ ((factors - 1) / 2),
        "rotate": layer.rotate[-3:, -3:],
        # As a vector it holds the upper triangle row by row, so that of the last three axes stands at its end.
        "shear": shear[-3:] if shear.ndim == 1 else shear[-3:, -3:],
        "affine": np.array(layer.affine.affine_matrix)[-4:, -4:],
        "units": layer.units[-3:],
        "axis_labels": layer.axis_labels[-3:],
    }


def world_frame(layer: Layer, factors: NDArray[np.float64]) -> Matrix:
    """Return the way from a layer's voxels to napari's world, (z, y, x) in mm; lengths in pixels are taken for mm."""
    placed = layer.affine.affine_matrix[-4:, -4:] @ _data_to_physical(layer)
    matrix: Matrix = placed @ coarse_to_fine(factors)
    return np.diag([*(_mm(unit) for unit in layer.units[-3:]), 1.0]) @ matrix


def coarse_to_fine(factors: NDArray[np.float64]) -> Matrix:
    """Return the way from voxels that stand for several to those: one lies in the middle of what it stands for."""
    matrix: Matrix = np.diag([*factors, 1.0])
    matrix[:3, 3] = (factors - 1) / 2
    return matrix


def patient_frame(world: Matrix, metadata: Mapping[str, Any]) -> Matrix:
    """Return the way from a layer's voxels to the patient: x to the left, y to the back, z to the head, in mm.

    napari-nifti shows a scan straight, and keeps how it really lies in the metadata: ``affine``, from voxels in the
    order (x, y, z) to a frame with x to the right and y to the front. For any other layer napari's world is taken for
    the patient's frame, with its axes in the order (z, y, x).
    """
    kept = np.asarray(metadata.get("affine"))
    if "coordinate_system" in metadata and kept.shape == (4, 4):
        frame: Matrix = _RAS_TO_LPS @ kept.astype(float) @ _REVERSED
        # The layer may have been scaled since.
        return frame @ np.diag([*(_lengths(world) / _lengths(frame)), 1.0])
    return _REVERSED @ world


def volume_in(array: NDArray[np.generic], frame: Matrix) -> Volume:
    """Return an array as a scan that lies as a patient frame says.

    Raises
    ------
    InputError
        If the frame is sheared or flat, or the array is no scan.
    """
    spacing = _lengths(frame)
    if not (np.isfinite(frame).all() and (spacing > 0).all()):
        raise InputError("The layer's scale and affine must be finite numbers other than 0; reset its transform.")
    z, y, x = (float(length) for length in spacing)
    left, back, head = (float(part) for part in frame[:3, 3])
    return Volume(array, (z, y, x), (left, back, head), frame[:3, :3] / spacing)


def is_tilted(world: Matrix) -> bool:
    """Whether the layer's axes do not run along those of napari's world."""
    axes = np.abs(world[:3, :3] / _lengths(world))
    return bool((np.minimum(axes, 1 - axes) > _STRAIGHT).any())


def readable_path(layer: Layer) -> Path | None:
    """Return the file or folder that a layer was opened from, if it is there and could be read."""
    if not layer.source.path:
        return None
    path = Path(layer.source.path)
    if path.is_dir() or (path.is_file() and known_ending(path)):
        return path
    return None


def on_file_grid(array: NDArray[np.generic], frame: Matrix, path: Path) -> Volume | None:
    """Find out how a layer's array lies in the file that it was opened from.

    Readers permute and flip axes each in their own way, so the voxels themselves are compared; the frame says what is
    tried first.

    Returns
    -------
    The scan in the order of the layer's array, with the way to the file's; None if the file cannot be read or does not
    hold these voxels, or the layer was given another voxel size than the file's.
    """
    from napari_oneseg.io import read_volume

    try:
        file = read_volume(path)
    except InputError:
        return None
    for orientation in _most_likely_first(np.asarray(file.direction), frame):
        turned = orientation.apply(file.array)
        if not _sized_like(frame, np.take(file.spacing, orientation.axes)):
            continue
        if turned.shape == array.shape and _same(turned[_SPARSE], array[_SPARSE]) and _same(turned, array):
            # The layer's own array, so that the scan is not held twice.
            return replace(reorient(file, orientation), array=array)
    return None


def _sized_like(frame: Matrix, spacing: NDArray[np.float64]) -> bool:
    """Whether a layer has voxels of a size, or none of its own: other readers leave out what they do not know."""
    lengths = _lengths(frame)
    return bool(np.allclose(lengths, spacing, rtol=_SAME_SPACING, atol=0) or np.allclose(lengths, 1.0))


def _most_likely_first(direction: NDArray[np.float64], frame: Matrix) -> Iterator[Orientation]:
    cosines = (frame[:3, :3] / _lengths(frame)).T @ direction

    def agreement(orientation: Orientation) -> float:
        signs = np.where(orientation.flips, -1.0, 1.0)
        return float((signs * cosines[(0, 1, 2), orientation.axes]).sum())

    ways = [
        Orientation((first, second, third), (a, b, c))
        for first, second, third in permutations((0, 1, 2))
        for a, b, c in product((False, True), repeat=3)
    ]
    return iter(sorted(ways, key=agreement, reverse=True))


def _same(first: NDArray[Any], second: NDArray[Any]) -> bool:
    if first.dtype.kind in "iu" and second.dtype.kind in "iu":
        return bool(np.array_equal(first, second))
    first, second = first.astype(np.float32), second.astype(np.float32)
    return bool(np.abs(first - second).max() <= _SAME_VALUE * max(1e-30, float(np.abs(first).max())))


def _data_to_physical(layer: Layer) -> Matrix:
    placed = CompositeAffine(scale=layer.scale, translate=layer.translate, rotate=layer.rotate, shear=layer.shear)
    return np.array(placed.affine_matrix)[-4:, -4:]


def _lengths(matrix: Matrix) -> NDArray[np.float64]:
    return np.linalg.norm(matrix[:3, :3], axis=0)


def _mm(unit: Any) -> float:
    """Return a pint unit in mm; 1 for pixels and whatever else is no length."""
    return float((1.0 * unit).to("millimeter").magnitude) if unit.dimensionality == {"[length]": 1} else 1.0
