"""Scans in files, what to paint on them, and how a hand would."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation
from skimage.measure import find_contours

from napari_oneseg.phantom import phantom

Labels = NDArray[np.integer[Any]]
Mask = NDArray[np.bool_]
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Scan:
    """A file, and the organs in it.

    Attributes
    ----------
    path
        The scan.
    truth
        Its organs on the grid that the widget shows, LPS, (z, y, x).
    organs
        Labels of two organs to paint.
    """

    path: Path
    truth: Labels
    organs: tuple[int, int]

    def masks(self, index: int) -> list[Mask]:
        """Return what to paint on a slice: each organ, where it shows one; else its two largest."""
        image = self.truth[index]
        values = [value for value in self.organs if np.count_nonzero(image == value) > 150]
        if len(values) < 2:
            sizes = {int(value): np.count_nonzero(image == value) for value in np.unique(image[image > 0])}
            values = sorted(sizes, key=lambda value: -sizes[value])[:2]
        return [largest_part(image == value) for value in values]


def save_phantom(path: Path, slices: slice = slice(None)) -> Scan:
    """Write the phantom as a scanner may: voxels from right to left and front to back, oblique, with both forms."""
    sample = phantom()
    stored = sample.volume.array[slices, ::-1, ::-1]
    turn = Rotation.from_euler("xyz", [9, -6, 12], degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-1.0, -1.0, 1.0]) @ np.diag(sample.volume.spacing[::-1])
    affine[:3, 3] = 140.5, 122.25, -88.0
    image = nib.Nifti1Image(stored.transpose(2, 1, 0), LPS_TO_RAS @ affine)
    image.set_qform(LPS_TO_RAS @ affine, 1)
    image.set_sform(LPS_TO_RAS @ affine, 2)
    nib.save(image, path)
    names = {name: value for value, name in sample.names.items()}
    return Scan(path, sample.labels[slices], (names["liver"], names["left kidney"]))


def real_scan(image: Path, labels: Path) -> Scan:
    """Return a scan with its expert's labels."""
    truth = sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(str(labels)), "LPS"))
    return Scan(image, truth, (1, 4))


def shown_labels(path: Path) -> Labels:
    """Return an exported file's labels as the widget shows them, by SimpleITK alone."""
    array: Labels = sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS"))
    return array


def largest_part(mask: Mask) -> Mask:
    parts, count = ndimage.label(mask)
    if count < 2:
        return mask
    return np.asarray(parts == 1 + np.argmax(np.bincount(parts.ravel())[1:]))


def strokes_over(mask: Mask, brush: int) -> list[tuple[float, float]]:
    """Return a way for a brush, (row, column), that covers an area and stays in it: along its edge, then to and fro."""
    inside = largest_part(ndimage.distance_transform_edt(mask) > brush / 2 - 0.5)
    if np.count_nonzero(inside) < 4:
        row, column = np.argwhere(mask).mean(axis=0)
        return [(row, column), (row, column + 1)]
    edge = max(find_contours(np.pad(inside, 1).astype(float), 0.5), key=len) - 1.0
    way = [(float(row), float(column)) for row, column in (*edge[::5], edge[0])]
    rows = np.flatnonzero(inside.any(axis=1))
    for turn, row in enumerate(rows[brush // 2 :: brush - 2]):
        runs, _ = ndimage.label(inside[row])
        longest = np.flatnonzero(runs == 1 + np.argmax(np.bincount(runs)[1:]))
        ends = [(float(row), float(longest[0])), (float(row), float(longest[-1]))]
        way += ends if turn % 2 == 0 else ends[::-1]
    return way
