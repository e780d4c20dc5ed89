"""Scans in files, and layers as other plugins make them, for the tests of reading and writing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from napari.layers import Image
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

SHAPE = (6, 5, 4)
SPACING = (7.5, 1.25, 0.8)
ORIGIN = (12.5, -40.25, 101.0)

# Columns: patient's direction of the file's axes x, y, z.
DIRECTIONS = {
    "straight": np.eye(3),
    "flipped": np.diag([-1.0, -1.0, 1.0]),
    "upside down": np.diag([1.0, -1.0, -1.0]),
    "sagittal": np.array([[0, 0, 1], [1, 0, 0], [0, -1, 0]], float),
    "coronal": np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], float),
    "left-handed": np.diag([-1.0, 1.0, 1.0]),
    "oblique": Rotation.from_euler("xyz", [20, -15, 35], degrees=True).as_matrix(),
    "oblique sagittal": Rotation.from_euler("xyz", [12, 85, 8], degrees=True).as_matrix(),
}


def grey_values(shape: Sequence[int] = SHAPE) -> NDArray[np.int16]:
    """Values that no flip or permutation leaves as they are."""
    return np.random.default_rng(0).integers(0, 1000, shape).astype(np.int16)


def save_scan(path: Path, direction: NDArray[np.float64], array: NDArray[np.generic] | None = None) -> Path:
    """Write a scan (z, y, x) with SimpleITK alone."""
    image = sitk.GetImageFromArray(grey_values() if array is None else array)
    image.SetSpacing(SPACING[::-1])
    image.SetOrigin(ORIGIN)
    image.SetDirection(direction.ravel().tolist())
    sitk.WriteImage(image, str(path))
    return path


def stored(path: Path) -> NDArray[np.generic]:
    """The voxels of a file as it has them, (z, y, x), by SimpleITK."""
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def position(path: Path, index: Sequence[int]) -> NDArray[np.float64]:
    """Where a voxel of a file, (z, y, x), lies in the patient, by SimpleITK."""
    image = sitk.ReadImage(str(path))
    return np.array(image.TransformIndexToPhysicalPoint([int(k) for k in reversed(index)]))


def same_grid(path: Path, scan: Path) -> None:
    """Assert that two NIfTI files place their voxels identically, by nibabel: shape, both forms, both codes."""
    first, second = nib.load(path), nib.load(scan)
    assert first.shape == second.shape
    np.testing.assert_array_equal(first.affine, second.affine)
    np.testing.assert_array_equal(first.get_sform(), second.get_sform())
    np.testing.assert_array_equal(first.get_qform(), second.get_qform())
    for key in ("sform_code", "qform_code", "xyzt_units", "pixdim"):
        np.testing.assert_array_equal(first.header[key], second.header[key])


def napari_nifti_layer(path: Path) -> Image:
    """Return the layer that napari-nifti 0.0.20 makes of a NIfTI file: S, A, R order, shown straight and mirrored."""
    image = nib.as_closest_canonical(nib.load(path))
    array = np.asarray(image.dataobj).transpose(2, 1, 0)
    spacing = np.linalg.norm(image.affine[:3, :3], axis=0)[::-1]
    far = image.affine[:3, 3][::-1] + (np.array(array.shape) - 1) * spacing
    metadata = {"affine": image.affine, "spacing": spacing[::-1], "header": None, "coordinate_system": "RAS+"}
    return Image(array, name="scan", scale=-spacing, translate=far, metadata=metadata)
