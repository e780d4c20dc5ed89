"""Labels as a DICOM segmentation object (DICOM-SEG), for archives and viewers of hospitals.

The object refers to the images that the scan was read from, and takes the patient and the study from them; nothing else
about the patient goes into it. Each label becomes a binary segment; slices on which a segment is absent are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_oneseg import __version__
from napari_oneseg.dicom import SERIES, filled_slices
from napari_oneseg.dicom_file import mute_libraries
from napari_oneseg.dicom_series import files_at
from napari_oneseg.errors import InputError, OutputError
from napari_oneseg.file_order import in_file_order
from napari_oneseg.files import replacing
from napari_oneseg.segment_codes import Segment, code_of, segments_of
from napari_oneseg.volume import Volume, label_dtype

__all__ = ["write_dicom_seg"]

# The scan's grid and the images' agree within what SimpleITK loses on the way.
_SPACING_TOLERANCE = 1e-4  # share of the spacing
_PLACE_TOLERANCE = 1e-2  # share of the smallest spacing
_DIRECTION_TOLERANCE = 1e-3  # of each component of the unit vectors

# What DICOM lets be empty, but not be absent; many files lack it all the same.
_MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime",
)  # fmt: skip
_NEEDED = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Rows", "Columns",
    "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient",
)  # fmt: skip
_LONGEST_NAME = 64


def write_dicom_seg(
    path: str | Path,
    labels: NDArray[np.integer[Any]],
    volume: Volume,
    source_files: str | Path | Sequence[Path],
    segments: Mapping[int, Segment],
) -> None:
    """Write labels as a DICOM-SEG object that refers to the scan's own images.

    The file is written beside its final name, read back, compared voxel for voxel by the position of its frames, and
    only then renamed. The segments are numbered 1, 2, 3 ... by ascending label, as DICOM wants it; the label's own
    number stands in each segment's description.

    Parameters
    ----------
    path
        The file, ending in ``.dcm``.
    labels
        In the scan's order, shape (z, y, x), integers from 0 on, 0 = background; at most 65535 different ones. Slices
        that are missing in the series, and were filled in, have no image to refer to; what lies on them is left out.
    volume
        The scan that the labels were made on, as :func:`~napari_oneseg.io.read_volume` read it from a DICOM series.
    source_files
        The files of that series in any order, or the folder that holds them or folders with them; files of other
        series are passed over.
    segments
        Name, colour and code of each label. A label without one is called by its number; one that no voxel has is left
        out.

    Raises
    ------
    InputError
        If the labels do not fit the scan or are all 0, or the files are not the DICOM images that the scan shows.
    OutputError
        If the file cannot be written; nothing is left behind, and an older file stays as it was.
    """
    path = Path(path)
    if not path.name.lower().endswith(".dcm"):
        raise OutputError(f"{path.name} cannot be written: the name of a DICOM file must end in .dcm.")
    if not path.parent.is_dir():
        raise OutputError(f"{path} cannot be written: the folder {path.parent} does not exist; create it first.")
    present = _present(labels, volume)
    # The images lie along the file's first axis.
    labels, volume = volume.to_file.apply(labels), in_file_order(volume)
    images = _images(_files(source_files), volume)
    # The narrowest type: highdicom looks at all voxels once for each segment.
    numbers: NDArray[np.unsignedinteger] = np.searchsorted([0, *present], labels).astype(label_dtype(len(present)))
    numbers = numbers[_taken(volume)]
    mute_libraries()
    _write(path, numbers, volume, images, segments_of(present, segments))


def _write(
    path: Path,
    numbers: NDArray[np.unsignedinteger],
    volume: Volume,
    images: list[Any],
    segments: Mapping[int, Segment],
) -> None:
    try:
        segmentation = _segmentation(numbers, volume, images, segments)
    except (AttributeError, ValueError) as error:
        raise InputError(
            "The headers of this DICOM series are not complete enough for a DICOM-SEG to refer to them; export the "
            "labels as NRRD or NIfTI."
        ) from error
    with replacing(path) as part:
        segmentation.save_as(part)
        if not np.array_equal(_read_back(part, volume, images), numbers):
            raise OutputError(
                f"{path} was not written: what was read back differs from what was written; choose another disk."
            )


def _present(labels: NDArray[np.integer[Any]], volume: Volume) -> list[int]:
    """Return the labels that some voxel has, ascending."""
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"Labels must be integers, got {labels.dtype}.")
    if labels.shape != volume.array.shape:
        raise InputError(f"The scan's shape {volume.array.shape} (z, y, x) was expected, got {labels.shape}.")
    values = np.unique(labels)
    if values[0] < 0:
        raise InputError(f"Labels must be 0 or greater, got {values[0]}.")
    present = [int(value) for value in values if value]
    if not present:
        raise InputError("There are no labels to export: paint and propagate first.")
    if len(present) > 65535:
        raise InputError(f"DICOM-SEG holds at most 65535 labels, got {len(present)}.")
    return present


def _files(source: str | Path | Sequence[Path]) -> Sequence[Path]:
    if not isinstance(source, str | Path):
        return source
    folder = Path(source)
    if not folder.is_dir():
        raise InputError(
            f"{folder.name} is no folder with a DICOM series. DICOM-SEG refers to the DICOM images that the scan was "
            "read from; export a scan of another format as NRRD or NIfTI."
        )
    return files_at(folder)


def _images(files: Sequence[Path], volume: Volume) -> list[Any]:
    """Return the headers of the series that the scan was read from, in the order of its slices."""
    series: dict[str, list[Any]] = {}
    for file in files:
        image = _header(Path(file))
        if image is not None:
            series.setdefault(image.SeriesInstanceUID, []).append(image)
    # Others of the same study may lie at the same places.
    own = volume.header.get(SERIES)
    problems = []
    for images in [series[own]] if own in series else series.values():
        ordered = _by_position(images, volume)
        problem = _mismatch(ordered, volume)
        if problem is None:
            return ordered
        problems.append(problem)
    if not problems:
        raise InputError(
            "None of the given files is a DICOM image with a position in space. DICOM-SEG refers to the DICOM images "
            "that the scan was read from; export a scan of another format as NRRD or NIfTI."
        )
    raise InputError(
        f"The given DICOM files are not the images of this scan: {'; '.join(problems)}. Give the files that it was "
        "read from, or export it as NRRD or NIfTI."
    )


def _header(file: Path) -> Any | None:
    """Return an image's entries without its pixels, None for what is no DICOM image with a position."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        image = pydicom.dcmread(file, stop_before_pixels=True)
    except InvalidDicomError:
        return None
    except (OSError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise InputError(
            f"The DICOM file {file.name} cannot be read; it may be damaged or may have been moved."
        ) from error
    if any(not image.get(keyword) for keyword in _NEEDED):
        return None
    for keyword in _MAY_BE_EMPTY:
        if keyword not in image:
            setattr(image, keyword, "")
    return image


def _by_position(images: list[Any], volume: Volume) -> list[Any]:
    normal = np.asarray(volume.direction)[:, 0]
    return sorted(images, key=lambda image: float(np.dot(image.ImagePositionPatient, normal)))


def _mismatch(images: list[Any], volume: Volume) -> str | None:
    """Say in what the images, in the order of the slices, are not those of the scan; None if they are."""
    _, rows, columns = volume.array.shape
    if len(images) != len(_taken(volume)):
        return f"{len(images)} images instead of {len(_taken(volume))}"
    if any((image.Rows, image.Columns) != (rows, columns) for image in images):
        return f"images that have not {rows} rows and {columns} columns"
    spacing = np.array([image.PixelSpacing for image in images], dtype=float)
    if (np.abs(spacing - volume.spacing[1:]) > _SPACING_TOLERANCE * np.array(volume.spacing[1:])).any():
        return "another pixel spacing"
    axes = np.array([image.ImageOrientationPatient for image in images], dtype=float)
    along_row, along_column = np.asarray(volume.direction)[:, 2], np.asarray(volume.direction)[:, 1]
    if np.abs(axes - np.concatenate([along_row, along_column])).max() > _DIRECTION_TOLERANCE:
        return "another orientation"
    return _misplaced(np.array([image.ImagePositionPatient for image in images], dtype=float), volume)


def _taken(volume: Volume) -> NDArray[np.intp]:
    """Return the slices of which there are images: all but those that were missing and were filled in."""
    return np.setdiff1d(np.arange(volume.array.shape[0]), filled_slices(volume.header))


def _misplaced(positions: NDArray[np.float64], volume: Volume) -> str | None:
    """Say if images do not lie where the scan's slices lie.

    The slices of an unevenly spaced series stand for images that lie somewhat before or behind them, so only the first
    and the last must lie on their slice along the normal; all must lie straight above each other, each in a place of
    its own.
    """
    normal = np.asarray(volume.direction)[:, 0]
    offsets = positions - np.asarray(volume.origin)
    along = offsets @ normal
    tolerance = _PLACE_TOLERANCE * min(volume.spacing)
    ends = np.array([0.0, (volume.array.shape[0] - 1) * volume.spacing[0]])
    # The sides drift with the direction's own rounding.
    sideways = np.abs(offsets - along[:, np.newaxis] * normal).max()
    if np.abs(along[[0, -1]] - ends).max() > tolerance or sideways > tolerance + _DIRECTION_TOLERANCE * ends[1]:
        return "another position"
    return "several images at the same position" if np.diff(along).min() <= 0 else None


def _segmentation(
    numbers: NDArray[np.unsignedinteger], volume: Volume, images: list[Any], segments: Mapping[int, Segment]
) -> Any:
    import highdicom as hd

    first = images[0]
    if not first.get("SliceThickness"):
        first.SliceThickness = volume.spacing[0]
    return hd.seg.Segmentation(
        source_images=images,
        pixel_array=numbers,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _description(number, label, segment) for number, (label, segment) in enumerate(segments.items(), start=1)
        ],
        series_instance_uid=hd.UID(),
        series_number=1000 + int(first.get("SeriesNumber") or 0) % 1_000_000,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="OneSeg",
        manufacturer_model_name="napari-oneseg",
        software_versions=__version__,
        device_serial_number="0",
        content_label="SEGMENTATION",
        series_description="OneSeg segmentation",
        pixel_measures=hd.PixelMeasuresSequence(first.PixelSpacing, first.SliceThickness, volume.spacing[0]),
        # Names of labels may be in any script.
        specific_character_set="ISO_IR 192",
    )


def _description(number: int, label: int, segment: Segment) -> Any:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    code = segment.code or code_of(segment.name)
    red, green, blue = (round(255 * part) for part in segment.colour)
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=_text(segment.name) or f"Label {label}",
        segmented_property_category=_concept(code.category),
        segmented_property_type=_concept(code.type),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name="OneSeg", family=codes.cid7162.ArtificialIntelligence, version=__version__
        ),
        display_color=hd.color.CIELabColor.from_rgb(red, green, blue),
    )
    description.SegmentDescription = f"Label {label}"
    if code.side is not None:
        description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [
            _concept(code.side)
        ]
    return description


def _concept(concept: tuple[str, str]) -> Any:
    import highdicom as hd

    value, meaning = concept
    return hd.sr.CodedConcept(value, "SCT", meaning)


def _text(name: str) -> str:
    """Return a name as DICOM takes it: no backslash, which separates values, no control characters, 64 in length."""
    return "".join(letter if letter.isprintable() and letter != "\\" else " " for letter in name).strip()[
        :_LONGEST_NAME
    ]


def _read_back(path: Path, volume: Volume, images: list[Any]) -> NDArray[np.unsignedinteger]:
    """Return the segments' numbers on the scan's grid, by what the file says of each frame: its segment and its place.

    Raises
    ------
    OutputError
        If two segments hold the same voxel, or the file is not readable.
    """
    import pydicom

    normal = np.asarray(volume.direction)[:, 0]
    places = np.array([np.dot(image.ImagePositionPatient, normal) for image in images])
    image = pydicom.dcmread(path)
    numbers = np.zeros((len(images), *volume.array.shape[1:]), np.uint16)
    for number, entry in enumerate(image.PerFrameFunctionalGroupsSequence):
        position = _group(image, entry, "PlanePositionSequence").ImagePositionPatient
        index = int(np.abs(places - np.dot(position, normal)).argmin())
        painted = _frame(image.PixelData, number, (image.Rows, image.Columns))
        if numbers[index][painted].any():
            raise OutputError(
                f"{path.name} was not written: segments overlap in what was read back; choose another disk."
            )
        numbers[index][painted] = _group(image, entry, "SegmentIdentificationSequence").ReferencedSegmentNumber
    return numbers


def _group(image: Any, entry: Any, name: str) -> Any:
    """Return what is said of a frame; what is the same for all frames, as with a single segment, is said once."""
    holder = entry if name in entry else image.SharedFunctionalGroupsSequence[0]
    return getattr(holder, name)[0]


def _frame(bits: bytes, number: int, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Unpack a frame: one bit per pixel, the lowest first, frames following each other without a gap (PS3.5, 8.1.1)."""
    size = shape[0] * shape[1]
    first = number * size
    packed = np.frombuffer(bits[first // 8 : -(-(first + size) // 8)], np.uint8)
    unpacked: NDArray[np.bool_] = np.unpackbits(packed, bitorder="little")[first % 8 :][:size].astype(bool)
    return unpacked.reshape(shape)
