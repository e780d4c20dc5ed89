"""How large voxels are where a file does not say it: what is assumed, and what the user gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from napari_oneseg.errors import InputError
from napari_oneseg.image_files import states_spacing
from napari_oneseg.nifti import is_nifti, read_geometry
from napari_oneseg.nifti_geometry import with_spacing

__all__ = ["VoxelSize", "check_given", "takes_size_of_scan", "voxel_size"]

Spacing = tuple[float, float, float]

_ASSUMED = "assumed spacing"
"""Entry of a scan's header: the voxel size (z, y, x) that programs assume where its file states none."""
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class VoxelSize:
    """How large the voxels of a file are taken to be.

    Attributes
    ----------
    spacing
        Along (z, y, x) of the file in mm.
    is_known
        Whether the file, or the user, has said so.
    header
        Entries that the scan keeps of its file; those of a NIfTI file have this voxel size.
    remarks
        What the user must be told.
    """

    spacing: Spacing
    is_known: bool
    header: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def voxel_size(path: Path, image: sitk.Image, given: Spacing | None = None) -> VoxelSize:
    """Return how large the voxels of a file are: as it says, as the user gives it, or 1 mm along unknown axes.

    Parameters
    ----------
    path
        The file.
    image
        What SimpleITK has read from it.
    given
        Along (z, y, x) of the file in mm.

    Raises
    ------
    InputError
        If the file says another size than is given.
    """
    x, y, z = image.GetSpacing()
    header = read_geometry(path) if is_nifti(path) else {}
    if states_spacing(path):
        check_given(path.name, given, (z, y, x))
        return VoxelSize((z, y, x), True, header)
    header[_ASSUMED] = f"{z!r} {y!r} {x!r}"
    if given is not None:
        return VoxelSize(given, True, with_spacing(header, given) if is_nifti(path) else header)
    remark = (
        f"{path.name} does not say how large its voxels are: {_told((z, y, x))} are taken, so lengths and volumes (mL) "
        "may be wrong. Give the size with --spacing Z,Y,X on the command line, or correct the file."
    )
    return VoxelSize((z, y, x), False, header, (remark,))


def check_given(name: str, given: Spacing | None, stated: Spacing) -> None:
    """Refuse a voxel size that is not the one that a file states.

    Raises
    ------
    InputError
        If they differ.
    """
    if given is not None and not np.allclose(given, stated, rtol=_TOLERANCE, atol=0):
        raise InputError(
            f"{name} says how large its voxels are: {_told(stated)}, not {_told(given)} (z, y, x). A spacing is for "
            "files that do not say it; leave it out, or correct the file."
        )


def takes_size_of_scan(path: Path, image: sitk.Image, header: Mapping[str, str]) -> bool:
    """Whether a label file has the scan's voxel size without saying so.

    That is so where it says none, or the one that another program has assumed for a scan whose file says none.
    """
    if not states_spacing(path):
        return True
    assumed = header.get(_ASSUMED)
    return assumed is not None and np.allclose(
        image.GetSpacing()[::-1], [float(word) for word in assumed.split()], rtol=_TOLERANCE, atol=0
    )


def _told(spacing: Spacing) -> str:
    return " x ".join(f"{side:.6g}" for side in spacing) + " mm"
