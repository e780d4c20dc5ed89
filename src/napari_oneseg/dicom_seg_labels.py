"""A DICOM segmentation object (DICOM-SEG) read as labels on a scan's grid, where it lies on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_oneseg.dicom import FRAME_OF_REFERENCE
from napari_oneseg.dicom_file import DAMAGED, mute_libraries, parse_entries, parse_with_pixels
from napari_oneseg.dicom_frames import Frame, frames_of
from napari_oneseg.dicom_series import LARGEST, files_at
from napari_oneseg.errors import AnnotationError, InputError
from napari_oneseg.image_formats import READABLE, may_be_dicom
from napari_oneseg.volume import Volume, label_dtype

__all__ = ["read_segments"]

_DIRECTION_TOLERANCE = 1e-3  # of each component of the unit vectors
_SPACING_TOLERANCE = 1e-4  # share of the spacing
# Images may lie that far from their slice of the scan: shares of the voxel's sides across and along the slice.
_ACROSS, _ALONG = 0.1, 0.05

_INSTEAD = (
    "Open the scan that it was drawn on, or resample it to this one with nearest-neighbour interpolation, in 3D Slicer "
    "for instance, and save it as NRRD or NIfTI."
)


def read_segments(path: Path, volume: Volume) -> NDArray[np.unsignedinteger]:
    """Read a DICOM-SEG that was drawn on a scan: each segment becomes the label of its number.

    Parameters
    ----------
    path
        The file, or a folder that holds one such file.
    volume
        The scan. Each frame of the object must lie on a slice of it, pixel on voxel, in whichever plane; the frames of
        reference must be the same where both are known.

    Returns
    -------
    Labels, shape (z, y, x), the smallest unsigned integer type that holds them.

    Raises
    ------
    AnnotationError
        If it is no DICOM-SEG, does not lie on the scan's grid, or holds what no label image can: segments that overlap,
        or fractions.
    InputError
        If it is damaged, or compressed in a way that cannot be read.
    """
    file = _segmentation_in(path) if path.is_dir() else path
    mute_libraries()
    try:
        dataset = parse_with_pixels(file)
        _check_object(dataset, file.name, volume)
        frames = list(frames_of(file, dataset))
        images = _images(dataset, file.name)
        numbers = _segment_numbers(dataset, len(frames))
    except InputError:
        raise
    except (*DAMAGED, RuntimeError) as error:
        raise InputError(f"{file.name} is a damaged DICOM segmentation; copy or export it again.") from error
    labels = np.zeros(volume.array.shape, np.uint16)
    for frame, image, number in zip(frames, images, numbers, strict=True):
        region = _place(frame, volume, file.name).region(labels)
        drawn = image > 0
        held = region[drawn]
        values = image[drawn].astype(np.uint16) if number is None else np.uint16(number)
        other = held[(held != 0) & (held != values)]
        if other.size:
            raise AnnotationError(
                f"The segments of {file.name} overlap (number {other[0]} and another one): a voxel can have one label "
                "only. Export the segments that you need to files of their own, or take away what they share."
            )
        region[drawn] = values
    return labels.astype(label_dtype(int(labels.max())))


@dataclass(frozen=True, eq=False)
class _Place:
    """Where a frame lies on a scan: its axes (across, rows, columns) as the scan's, in which sense, and from where."""

    axes: tuple[int, ...]
    flipped: tuple[int, ...]
    start: tuple[int, ...]
    size: tuple[int, int]

    def region(self, labels: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """Return the part of an array on the scan's grid that the frame covers, (rows, columns): a view."""
        across, row, column = self.start
        turned = np.flip(labels.transpose(self.axes), self.flipped)
        return turned[across, row : row + self.size[0], column : column + self.size[1]]


def _segmentation_in(folder: Path) -> Path:
    """Return the one DICOM-SEG in a folder."""
    found = [file for file in files_at(folder) if _modality(file) == "SEG"]
    if len(found) != 1:
        there = f"{len(found)} DICOM segmentations" if found else "no DICOM segmentation"
        raise AnnotationError(
            f"The folder {folder.name} holds {there}; give one file as the annotation: a DICOM segmentation, or a "
            f"label image ending in {', '.join(READABLE)}."
        )
    return found[0]


def _modality(file: Path) -> str:
    if not may_be_dicom(file):
        return ""
    try:
        return str(parse_entries(file, ["Modality"]).get("Modality") or "")
    except (*DAMAGED, InputError):
        return ""


def _check_object(dataset: Any, name: str, volume: Volume) -> None:
    """Refuse what is no segmentation, or one in another space than the scan's."""
    modality = dataset.get("Modality")
    if modality != "SEG":
        wanted = f"a DICOM segmentation (SEG) was expected, or a label image ending in {', '.join(READABLE)}"
        if modality == "RTSTRUCT":
            raise AnnotationError(f"{name} holds contours (RTSTRUCT); {wanted}. 3D Slicer converts them.")
        raise AnnotationError(f"{name} is a DICOM file of modality {modality or 'unknown'}; {wanted}.")
    ours, theirs = volume.header.get(FRAME_OF_REFERENCE), dataset.get("FrameOfReferenceUID")
    if ours and theirs and ours != theirs:
        raise AnnotationError(
            f"{name} does not belong to this scan: it lies in another frame of reference (Frame of Reference UID), as "
            "that of another examination. Open the scan that it was drawn on."
        )


def _images(dataset: Any, name: str) -> NDArray[Any]:
    """Return the pixels of all frames, shape (frames, rows, columns): 0 where nothing was drawn."""
    from pydicom.pixels.utils import pixel_array

    shape = (int(dataset.get("NumberOfFrames") or 1), int(dataset.Rows), int(dataset.Columns))
    if np.prod(shape, dtype=float) > LARGEST:
        raise AnnotationError(f"{name} holds more than {LARGEST >> 30} GB of pixels; export fewer segments.")
    images: NDArray[Any] = np.asarray(pixel_array(dataset, raw=True)).reshape(shape)
    if dataset.get("SegmentationType") == "FRACTIONAL":
        fractions = np.setdiff1d(images, [0, int(dataset.get("MaximumFractionalValue") or 255)])
        if fractions.size:
            raise AnnotationError(
                f"{name} holds fractions or probabilities, not labels; apply a threshold first and export it as binary."
            )
    return images


def _segment_numbers(dataset: Any, count: int) -> Sequence[int | None]:
    """Return the number of each frame's segment; None where the pixels themselves are the numbers."""
    if dataset.get("SegmentationType") == "LABELMAP":
        return [None] * count
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [{}])[0]
    groups = dataset.PerFrameFunctionalGroupsSequence
    found = [group.get("SegmentIdentificationSequence") or shared["SegmentIdentificationSequence"] for group in groups]
    return [int(items[0].ReferencedSegmentNumber) for items in found]


def _place(frame: Frame, volume: Volume, name: str) -> _Place:
    """Find a frame on a scan's grid.

    Raises
    ------
    AnnotationError
        If it does not lie there, pixel on voxel.
    """
    if frame.position is None or frame.orientation is None or frame.pixel_spacing is None:
        raise AnnotationError(f"{name} does not say where its frames lie. {_INSTEAD}")
    direction, spacing = np.asarray(volume.direction, float), np.array(volume.spacing)
    row, column = np.array(frame.orientation[3:]) @ direction, np.array(frame.orientation[:3]) @ direction
    steps = np.stack([np.cross(row, column), row, column])
    axes = np.abs(steps).argmax(axis=1)
    straight = np.zeros((3, 3))
    straight[range(3), axes] = np.sign(steps[range(3), axes])
    if len(set(axes.tolist())) < 3 or np.abs(steps - straight)[1:].max() > _DIRECTION_TOLERANCE:
        raise AnnotationError(f"{name} is not on the scan's grid: its slices have another orientation. {_INSTEAD}")
    sides = spacing[axes[1:]]
    if (np.abs(np.array(frame.pixel_spacing) - sides) > _SPACING_TOLERANCE * sides).any():
        theirs, ours = (" x ".join(f"{side:g}" for side in both) for both in (frame.pixel_spacing, sides))
        raise AnnotationError(
            f"{name} is not on the scan's grid: its pixels are {theirs} mm large, the scan's {ours} mm. {_INSTEAD}"
        )
    offset = ((np.array(frame.position) - volume.origin) @ direction / spacing)[axes]
    nearest = np.round(offset)
    if (np.abs(offset - nearest) > (_ACROSS, _ALONG, _ALONG)).any():
        raise AnnotationError(f"{name} is not on the scan's grid: its frames lie between the scan's voxels. {_INSTEAD}")
    there = np.array(volume.array.shape)[axes]
    against = straight[range(3), axes] < 0
    start = np.where(against, there - 1 - nearest, nearest).astype(int)
    size = frame.header.shape[1:]
    if (start < 0).any() or (start + np.array([1, *size]) > there).any():
        raise AnnotationError(f"{name} is not on the scan's grid: parts of it lie outside of the scan. {_INSTEAD}")
    return _Place(tuple(axes.tolist()), tuple(np.flatnonzero(against).tolist()), tuple(start.tolist()), size)
