"""The DICOM images that a scan was read from, found again: those that a DICOM segmentation refers to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_oneseg.dicom import SERIES, SliceGrid, filled_slices
from napari_oneseg.dicom_file import DAMAGED, mute_libraries
from napari_oneseg.dicom_frames import Frame
from napari_oneseg.dicom_series import Series, files_at, series_of
from napari_oneseg.errors import InputError
from napari_oneseg.image_formats import may_be_dicom
from napari_oneseg.volume import Volume

__all__ = ["SourceImages", "find_images", "slices_taken"]

# The scan's grid and the images' agree within what SimpleITK loses on the way.
_SPACING_TOLERANCE = 1e-4  # share of the spacing
_PLACE_TOLERANCE = 1e-2  # share of the smallest spacing
_DIRECTION_TOLERANCE = 1e-3  # of each component of the unit vectors

# What DICOM lets be empty, but not be absent; many files lack it all the same.
_MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime",
)  # fmt: skip
_NEEDED = {
    "FrameOfReferenceUID": "Frame of Reference UID",
    "SOPClassUID": "SOP Class UID",
    "SOPInstanceUID": "SOP Instance UID",
    "StudyInstanceUID": "Study Instance UID",
    "SeriesInstanceUID": "Series Instance UID",
}


@dataclass(frozen=True, eq=False)
class SourceImages:
    """The images of a scan, one of each slice that was there.

    Parameters
    ----------
    headers
        The entries of their files, without pixels, as pydicom reads them: one of each image in the order of the slices,
        or the one of a multi-frame file, with the frames of the scan only, in that order.
    positions
        Image Position (Patient) of each image, shape (n, 3), in mm.
    thickness
        Of the slices, in mm; the gap between them where the files do not say it.
    frame_numbers
        Of a multi-frame file, the number of each image in it, from 1 on; none of other files.
    """

    headers: list[Any]
    positions: NDArray[np.float64]
    thickness: float
    frame_numbers: tuple[int, ...] = ()


def find_images(source: str | Path | Sequence[Path], volume: Volume) -> SourceImages:
    """Find the images that a scan was read from.

    Parameters
    ----------
    source
        Their files in any order, or the folder that holds them or folders with them, or the one multi-frame file.
    volume
        The scan, as :func:`~napari_oneseg.io.read_volume` read it from them.

    Raises
    ------
    InputError
        If they are not among the files, or lack what an object must have to refer to them.
    """
    try:
        found = series_of(_files(source))
    except OSError as error:
        raise InputError("One of the DICOM files cannot be read; it may have been moved.") from error
    # Others of the same study, or time points of the same series, may lie at the same places.
    own = [series for series in found if series.key == volume.header.get(SERIES)]
    problems = []
    for series in own or found:
        problem = _mismatch(series, volume)
        if problem is None:
            return _images(series)
        problems.append(problem)
    if not problems:
        raise InputError(
            "None of the given files is a DICOM image of a scan. DICOM-SEG refers to the DICOM images that the scan "
            "was read from; export a scan of another format as NRRD or NIfTI."
        )
    raise InputError(
        f"The given DICOM files are not the images of this scan: {'; '.join(dict.fromkeys(problems))}. Give the files "
        "that it was read from, or export it as NRRD or NIfTI."
    )


def slices_taken(volume: Volume) -> NDArray[np.intp]:
    """Return the slices of which there are images: all but those that were missing and were filled in."""
    return np.setdiff1d(np.arange(volume.array.shape[0]), filled_slices(volume.header))


def _files(source: str | Path | Sequence[Path]) -> Sequence[Path]:
    if not isinstance(source, str | Path):
        return [Path(file) for file in source]
    path = Path(source)
    if path.is_dir() or (path.is_file() and may_be_dicom(path)):
        return files_at(path)
    raise InputError(
        f"{path.name} is no folder with a DICOM series, and no multi-frame DICOM file. DICOM-SEG refers to the DICOM "
        "images that the scan was read from; export a scan of another format as NRRD or NIfTI."
    )


def _mismatch(series: Series, volume: Volume) -> str | None:
    """Say in what the images of a series are not those of the scan; None if they are."""
    if series.grid is None:
        return (series.problem or "").rstrip(".")
    taken = slices_taken(volume)
    if len(series.frames) != len(taken):
        return f"{len(series.frames)} images instead of {len(taken)}"
    if series.shape[1:] != volume.array.shape[1:]:
        return "images that have not {} rows and {} columns".format(*volume.array.shape[1:])
    same_places = np.array_equal(series.grid.places, taken)
    return _other_grid(series.grid, volume) or (None if same_places else "other slices are missing")


def _other_grid(grid: SliceGrid, volume: Volume) -> str | None:
    spacing, wanted = np.array(grid.spacing), np.array(volume.spacing)
    if (np.abs(spacing - wanted) > _SPACING_TOLERANCE * wanted)[1:].any():
        return "another pixel spacing"
    if np.abs(grid.direction - volume.direction).max() > _DIRECTION_TOLERANCE:
        return "another orientation"
    first = np.abs(np.subtract(grid.origin, volume.origin)).max()
    last = abs(spacing[0] - wanted[0]) * volume.array.shape[0]
    return "another position" if max(first, last) > _PLACE_TOLERANCE * min(volume.spacing) else None


def _images(series: Series) -> SourceImages:
    assert series.grid is not None
    frames = [series.frames[index] for index in series.grid.order]
    paths = list(dict.fromkeys(frame.header.path for frame in frames))
    numbers = tuple(frame.index + 1 for frame in frames) if frames[0].header.shape[0] > 1 else ()
    if numbers and len(paths) > 1:
        raise InputError(
            f"The images of this scan lie in {len(paths)} multi-frame DICOM files, and a DICOM-SEG can refer to one "
            "only. Export the series as a single file or as single images, or export the labels as NRRD or NIfTI."
        )
    mute_libraries()
    headers = [_header(path) for path in paths]
    _check_references(headers)
    if numbers:
        thickness = _keep_frames(headers[0], numbers, frames[0])
    else:
        thickness = headers[0].get("SliceThickness")
        for header in headers:
            header.ImageOrientationPatient = headers[0].ImageOrientationPatient  # but for rounding, it is the same
            header.SliceThickness = thickness or series.grid.spacing[0]
    positions = np.array([frame.position for frame in frames], float)
    return SourceImages(headers, positions, float(thickness or series.grid.spacing[0]), numbers)


def _header(path: Path) -> Any:
    """Return a file's entries without its pixels; those that may be empty are there."""
    import pydicom

    try:
        image = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    except DAMAGED as error:
        raise InputError(f"The DICOM file {path.name} cannot be read; it may be damaged or have been moved.") from error
    for keyword in _MAY_BE_EMPTY:
        if keyword not in image:
            setattr(image, keyword, "")
    return image


def _check_references(headers: list[Any]) -> None:
    """Refuse images that lack what an object refers to them by, or that do not share one frame of reference."""
    lacking = [name for keyword, name in _NEEDED.items() if any(not image.get(keyword) for image in headers)]
    if lacking:
        raise InputError(
            f"The images of this DICOM series have no {' and no '.join(lacking)}, by which a DICOM-SEG refers to them "
            "and says where its segments lie; it was probably lost when the series was anonymised or converted. Export "
            "the series again from where it was taken, or export the labels as NRRD or NIfTI."
        )
    if len({image.FrameOfReferenceUID for image in headers}) > 1:
        raise InputError(
            "The images of this DICOM series have different frames of reference (Frame of Reference UID), so a "
            "DICOM-SEG cannot say where its segments lie; export the labels as NRRD or NIfTI."
        )


def _keep_frames(image: Any, numbers: Sequence[int], first: Frame) -> float | None:
    """Keep of a multi-frame file the frames of the scan only, in its order, and return their thickness, if it is known.

    What is the same for all of them is said once, as highdicom expects it.
    """
    from pydicom.dataset import Dataset

    frames, shared = image.PerFrameFunctionalGroupsSequence, image.get("SharedFunctionalGroupsSequence") or []
    groups = [frames[number - 1] for number in numbers]
    found = [group.PixelMeasuresSequence[0] for group in (groups[0], *shared) if group.get("PixelMeasuresSequence")]
    thickness = found[0].get("SliceThickness") if found else None
    measures, orientation, common = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = list(first.pixel_spacing or ()), thickness
    orientation.ImageOrientationPatient = list(first.orientation or ())
    common.PixelMeasuresSequence, common.PlaneOrientationSequence = [measures], [orientation]
    image.SharedFunctionalGroupsSequence, image.PerFrameFunctionalGroupsSequence = [common], groups
    image.NumberOfFrames = len(groups)
    return thickness
