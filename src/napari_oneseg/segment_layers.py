"""Segmentations of 3D Slicer in several layers (``.seg.nrrd``): one label image, where no two segments overlap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from napari_oneseg.errors import AnnotationError
from napari_oneseg.image_files import read_image
from napari_oneseg.nrrd import key_values, listed_volumes

__all__ = ["has_layers", "read_layers"]


def has_layers(path: Path) -> bool:
    """Whether a file is a segmentation that holds its segments in more than one layer."""
    is_nrrd = path.is_file() and path.name.lower().endswith((".nrrd", ".nhdr"))
    return is_nrrd and listed_volumes(path) > 1 and "Segment0_LabelValue" in key_values(path)


def read_layers(path: Path) -> tuple[sitk.Image, int]:
    """Read all layers as one label image; the number, always 0, is that of voxels that are NaN.

    Raises
    ------
    AnnotationError
        If two segments share a voxel, or two segments in different layers have the same label value.
    InputError
        If the file is damaged.
    """
    images = [read_image(path, layer) for layer in range(listed_volumes(path))]
    merged: NDArray[np.generic] = np.zeros(images[0].GetSize()[::-1], np.int64)
    seen: set[int] = set()
    for image in images:
        array = sitk.GetArrayViewFromImage(image)
        values = {int(value) for value in np.unique(array) if value}
        if seen & values or (merged.astype(bool) & array.astype(bool)).any():
            raise AnnotationError(_overlapping(path, len(images)))
        seen |= values
        merged[array != 0] = array[array != 0]
    whole = sitk.GetImageFromArray(merged)
    whole.CopyInformation(images[0])
    return whole, 0


def _overlapping(path: Path, layers: int) -> str:
    entries = key_values(path)
    names = [value for key, value in entries.items() if key.startswith("Segment") and key.endswith("_Name")]
    return (
        f"{path.name} is a segmentation in {layers} layers, whose segments ({', '.join(names)}) overlap or have the "
        "same label value; one label for each voxel was expected. In 3D Slicer, export the segments as a label map "
        "(Segmentations, Export/import models and labelmaps), then give that file."
    )
