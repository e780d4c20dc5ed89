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
from napari_oneseg.dicom_file import mute_libraries
from napari_oneseg.dicom_seg_images import SourceImages, find_images, slices_taken
from napari_oneseg.errors import InputError, OutputError
from napari_oneseg.file_order import in_file_order
from napari_oneseg.files import replacing
from napari_oneseg.segment_codes import Segment, code_of, segments_of
from napari_oneseg.volume import Volume, label_dtype

__all__ = ["write_dicom_seg"]

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
        The files of that series in any order, or the folder that holds them or folders with them, or the multi-frame
        file; files of other series are passed over.
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
    images = find_images(source_files, volume)
    # The narrowest type: highdicom looks at all voxels once for each segment.
    numbers: NDArray[np.unsignedinteger] = np.searchsorted([0, *present], labels).astype(label_dtype(len(present)))
    numbers = numbers[slices_taken(volume)]
    mute_libraries()
    _write(path, numbers, volume, images, segments_of(present, segments))


def _write(
    path: Path,
    numbers: NDArray[np.unsignedinteger],
    volume: Volume,
    images: SourceImages,
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


def _segmentation(
    numbers: NDArray[np.unsignedinteger], volume: Volume, images: SourceImages, segments: Mapping[int, Segment]
) -> Any:
    import highdicom as hd

    segmentation = hd.seg.Segmentation(
        source_images=images.headers,
        pixel_array=numbers,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _description(number, label, segment) for number, (label, segment) in enumerate(segments.items(), start=1)
        ],
        series_instance_uid=hd.UID(),
        series_number=1000 + int(images.headers[0].get("SeriesNumber") or 0) % 1_000_000,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="OneSeg",
        manufacturer_model_name="napari-oneseg",
        software_versions=__version__,
        device_serial_number="0",
        content_label="SEGMENTATION",
        series_description="OneSeg segmentation",
        pixel_measures=hd.PixelMeasuresSequence(volume.spacing[1:], images.thickness, volume.spacing[0]),
        # Names of labels may be in any script.
        specific_character_set="ISO_IR 192",
    )
    if images.frame_numbers:
        _refer_to_frames(segmentation, images.frame_numbers)
    return segmentation


def _refer_to_frames(segmentation: Any, numbers: Sequence[int]) -> None:
    """Let frames refer to those of the whole multi-frame file; highdicom knows those of the scan only."""
    # Frames of several segments share one item.
    images = {
        id(image): image
        for entry in segmentation.PerFrameFunctionalGroupsSequence
        for derivation in entry.get("DerivationImageSequence", ())
        for image in derivation.SourceImageSequence
    }
    for image in images.values():
        image.ReferencedFrameNumber = numbers[int(image.ReferencedFrameNumber) - 1]


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


def _read_back(path: Path, volume: Volume, images: SourceImages) -> NDArray[np.unsignedinteger]:
    """Return the segments' numbers on the scan's grid, by what the file says of each frame: its segment and its place.

    Raises
    ------
    OutputError
        If two segments hold the same voxel, or the file is not readable.
    """
    import pydicom

    normal = np.asarray(volume.direction)[:, 0]
    places = images.positions @ normal
    image = pydicom.dcmread(path)
    numbers = np.zeros((len(places), *volume.array.shape[1:]), np.uint16)
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
