"""What the entries of a NIfTI header say of where voxels lie: their size, and a qform and an sform that may differ.

The entries are those that :func:`~napari_oneseg.nifti.read_geometry` returns, numbers as text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from napari_oneseg.errors import InputError
from napari_oneseg.volume import Volume

__all__ = ["check_places", "mended", "states_spacing", "with_spacing"]

_MILLIMETRES = {1: 1000.0, 3: 0.001}  # in metres and micrometres
_HALF_TURN = 1e-7
"""A square below which nifti1_io.c, and what rests on it, take it for 0: single precision says no more."""
_DISAGREE = 0.1  # of the smallest voxel side


def states_spacing(entries: Mapping[str, str]) -> bool:
    """Whether a header tells how large its voxels are: in pixdim, or in the matrix, where that is in use."""
    numbers = _as_numbers(entries)
    return bool((_is_length(numbers["pixdim"][1:4]) | _is_length(_sform_sides(numbers))).all())


def with_spacing(entries: Mapping[str, str], spacing: tuple[float, float, float]) -> dict[str, str]:
    """Return a header's entries with another voxel size, given along (z, y, x) in mm.

    The matrix, which cannot be right then, is taken out of use.
    """
    return _with_sides(entries, spacing[::-1]) | {"sform_code": "0", "xyzt_units": "2"}


def mended(entries: Mapping[str, str]) -> dict[str, str]:
    """Fill in voxel sizes that are 0 or NaN: those of the matrix, or else 1 mm."""
    numbers = _as_numbers(entries)
    sides, of_matrix = np.abs(numbers["pixdim"][1:4]), _sform_sides(numbers)
    if _is_length(sides).all():
        return dict(entries)
    stated = np.where(_is_length(of_matrix), of_matrix, 1.0)
    whole = {} if _is_length(of_matrix).all() else {"sform_code": "0"}
    return _with_sides(entries, np.where(_is_length(sides), sides, stated)) | whole


def _with_sides(entries: Mapping[str, str], sides: Iterable[float]) -> dict[str, str]:
    words = entries["pixdim"].split()
    words[1:4] = [repr(float(np.float32(side))) for side in sides]
    return {**entries, "pixdim": " ".join(words)}


def _as_numbers(entries: Mapping[str, str]) -> dict[str, NDArray[np.float64]]:
    return {name: np.array(entry.split(), float) for name, entry in entries.items()}


def _is_length(sides: NDArray[np.float64]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = np.isfinite(sides) & (sides != 0)
    return found


def _sform_sides(numbers: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the voxel size that the matrix tells, along (x, y, z); zeros where none is in use."""
    if numbers["sform_code"][0] <= 0:
        return np.zeros(3)
    sides: NDArray[np.float64] = np.linalg.norm(numbers["srow"].reshape(3, 4)[:, :3], axis=0)
    return sides


def check_places(volume: Volume) -> str | None:
    """Compare where a scan was put with what its file says in two ways, qform and sform.

    Returns
    -------
    What the user must be told, if the two contradict each other.

    Raises
    ------
    InputError
        If the scan lies where neither says, as where the voxel sizes beside a matrix are not those in it.
    """
    # The header of a DICOM series, NRRD or MetaImage file holds no such entries.
    numbers = _as_numbers(mended(volume.header)) if "pixdim" in volume.header else {}
    forms = {}
    if numbers and numbers["qform_code"][0] > 0:
        forms["qform"] = _qform(numbers)
    if numbers and numbers["sform_code"][0] > 0:
        forms["sform"] = numbers["srow"].reshape(3, 4)
    if not forms:
        return None
    depth, rows, columns = (size - 1 for size in volume.array.shape)
    corners = np.array([[x, y, z, 1] for x in (0, columns) for y in (0, rows) for z in (0, depth)])
    # The patient's frame here has x to the left and y to the back, NIfTI's the other way round.
    axes = (np.asarray(volume.direction) * volume.spacing)[:, ::-1]
    taken = np.column_stack([axes, volume.origin]) * np.array([[-1], [-1], [1]])
    unit = _MILLIMETRES.get(int(numbers["xyzt_units"][0]) & 7, 1.0)
    apart = {name: np.linalg.norm(corners @ (unit * form - taken).T, axis=1).max() for name, form in forms.items()}
    used, other = min(apart, key=apart.__getitem__), max(apart, key=apart.__getitem__)
    allowed = _DISAGREE * min(volume.spacing)
    if not apart[used] <= allowed:
        raise InputError(
            f"This NIfTI file contradicts itself: its voxel sizes (pixdim) or axes are not those of its {used}, by up "
            f"to {apart[used]:.3g} mm. Export it again, or correct its header with the program that made it."
        )
    if apart[other] <= allowed:
        return None
    return (
        "This NIfTI file says in two ways where its voxels lie, which contradict each other by up to "
        f"{apart[other]:.3g} mm: {used} is used, {other} is not. Check left and right, and whether other programs show "
        "the scan alike."
    )


def _qform(numbers: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return voxel to position, 3 x 4, from a quaternion: method 2 of nifti1.h."""
    quaternion = numbers["quatern"][:3]
    rest = float(1 - quaternion @ quaternion)
    if rest < _HALF_TURN:
        quaternion, rest = quaternion / np.sqrt(1 - rest), 0.0
    a, (b, c, d) = np.sqrt(rest), quaternion
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    flip = -1.0 if numbers["pixdim"][0] < 0 else 1.0
    return np.column_stack([rotation * numbers["pixdim"][1:4] * [1.0, 1.0, flip], numbers["quatern"][3:]])
