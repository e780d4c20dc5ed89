"""Headers of DICOM files: what is needed to put images together to a scan, and nothing that names the patient.

A file with one image and a multi-frame ("enhanced") file are read alike: as frames, each with its position.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom

from napari_oneseg.dicom_file import DAMAGED, mute_libraries, parse_entries
from napari_oneseg.errors import InputError
from napari_oneseg.image_formats import has_dicom_mark, may_be_dicom

__all__ = ["TRAITS", "Frame", "Header", "frames_of", "read_frames"]

_NO_SCANS = {"SEG", "RTDOSE"}  # modalities that are drawn on scans

# Entries of files and of frames, with the words they are shown with.
_TRAITS = {
    "StackID": "stack",
    "EchoNumbers": "echo",
    "EchoTime": "echo time",
    "EffectiveEchoTime": "echo time",
    "InversionTime": "inversion time",
    "InversionTimes": "inversion time",
    "DiffusionBValue": "b-value",
    "DiffusionGradientOrientation": "direction",
    "ImageType": "kind",
    "FrameType": "kind",
    "SequenceName": "sequence",
    "TemporalPositionIdentifier": "time point",
    "TemporalPositionIndex": "time point",
    "TemporalPositionTimeOffset": "time",
    "TriggerTime": "trigger time",
    "NominalCardiacTriggerDelayTime": "trigger time",
    "AcquisitionNumber": "acquisition",
    "FrameAcquisitionNumber": "acquisition",
    "ConvolutionKernel": "kernel",
    "ReconstructionDiameter": "field of view",
    "FrameReferenceTime": "frame time",
    "AcquisitionTime": "acquisition time",
    "ContentTime": "content time",
}
TRAITS = tuple(dict.fromkeys(_TRAITS.values()))
"""What may tell images at the same position apart, the most telling first."""

_PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
_OF_FRAMES = {*_TRAITS, *_PLACE, "SliceLocation", "RescaleSlope", "RescaleIntercept"}
_OF_FILES = (
    *("SOPInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "InstanceNumber"),
    *("SeriesNumber", "SeriesDescription", "Modality"),
    *("NumberOfFrames", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
_SIEMENS = (0x0019, "SIEMENS MR HEADER")
_IMAGES_IN_MOSAIC = 0x0A
_OF_SIEMENS = (0x0019_0010, 0x0019_1000 | _IMAGES_IN_MOSAIC)
_ENTRIES: tuple[str | int, ...] = (*sorted({*_OF_FRAMES, *_OF_FILES}), *_OF_SIEMENS)

# The standard's functional groups that hold entries of frames, each with those that it holds (PS3.3, C.7.6.16 and the
# macros of enhanced CT, MR and PET). What lies elsewhere, as in a scanner's private sequences, means something else.
_FRAME_TYPES = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence")
_MACROS: dict[tuple[str, ...], tuple[str, ...]] = {
    # Entries of a classic object that has become a multi-frame one, without a macro of their own; macros count more.
    ("UnassignedSharedConvertedAttributesSequence",): tuple(_TRAITS),
    ("UnassignedPerFrameConvertedAttributesSequence",): tuple(_TRAITS),
    ("PlanePositionSequence",): ("ImagePositionPatient",),
    ("PlaneOrientationSequence",): ("ImageOrientationPatient",),
    ("PixelMeasuresSequence",): ("PixelSpacing",),
    ("PixelValueTransformationSequence",): ("RescaleSlope", "RescaleIntercept"),
    ("FrameContentSequence",): ("StackID", "TemporalPositionIndex", "FrameAcquisitionNumber"),
    ("TemporalPositionSequence",): ("TemporalPositionTimeOffset",),
    ("CardiacSynchronizationSequence",): ("NominalCardiacTriggerDelayTime",),
    ("MREchoSequence",): ("EffectiveEchoTime",),
    ("MRModifierSequence",): ("InversionTimes",),
    ("MRDiffusionSequence",): ("DiffusionBValue",),
    ("MRDiffusionSequence", "DiffusionGradientDirectionSequence"): ("DiffusionGradientOrientation",),
    ("CTReconstructionSequence",): ("ConvolutionKernel", "ReconstructionDiameter"),
    **{(sequence,): ("FrameType",) for sequence in _FRAME_TYPES},
}


@dataclass(frozen=True, slots=True, eq=False)
class Header:
    """What a DICOM file says of all its images.

    ``bits`` are allocated, stored, and the highest one's number; ``padding`` holds the lowest and the highest stored
    value that stand for no measurement, both included.
    """

    path: Path = field(repr=False)
    instance: str
    series: str
    frame_of_reference: str
    number: int | None
    description: str
    modality: str
    shape: tuple[int, int, int]
    is_grey: bool
    is_inverted: bool
    bits: tuple[int, int, int]
    is_signed: bool
    padding: tuple[int, int] | None
    is_mosaic: bool


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One image of a file: where it lies, in mm, how its grey values are scaled, and what sets it apart from others.

    ``slice_location`` is where it lies along some axis, in mm; it is not known along which.
    """

    header: Header = field(repr=False)
    index: int
    instance_number: int
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    pixel_spacing: tuple[float, ...] | None
    slice_location: float | None
    slope: float
    intercept: float
    traits: Mapping[str, str]


def read_frames(path: Path) -> list[Frame]:
    """Read the headers of the images in a file; none if it is no DICOM file, or one without images of a scan.

    Raises
    ------
    InputError
        If the file is a DICOM file, but damaged.
    """
    if not may_be_dicom(path):
        return []
    try:
        mute_libraries()
        dataset = parse_entries(path, _ENTRIES)
        if not dataset.get("Rows") or not dataset.get("Columns") or dataset.get("Modality") in _NO_SCANS:
            return []
        return list(frames_of(path, dataset))
    except InputError:
        raise
    except DAMAGED as error:
        if not has_dicom_mark(path):  # so it is a file of another kind
            return []
        raise InputError(
            f"{path.name} is a damaged DICOM file; copy or export it again, or take it out of the folder."
        ) from error


def _header(path: Path, dataset: pydicom.Dataset) -> Header:
    allocated = int(dataset.get("BitsAllocated") or 16)
    # Files of floats do not say it.
    stored = int(dataset.get("BitsStored") or 0)
    high_bit = dataset.get("HighBit")
    modality = str(dataset.get("Modality") or "").strip()
    photometric = str(dataset.get("PhotometricInterpretation") or "MONOCHROME2").strip()
    is_signed = int(dataset.get("PixelRepresentation") or 0) == 1
    return Header(
        path,
        str(dataset.get("SOPInstanceUID") or ""),
        str(dataset.get("SeriesInstanceUID") or ""),
        str(dataset.get("FrameOfReferenceUID") or ""),
        _number(dataset.get("SeriesNumber")),
        str(dataset.get("SeriesDescription") or "").strip(),
        modality,
        (max(1, int(dataset.get("NumberOfFrames") or 1)), int(dataset.Rows), int(dataset.Columns)),
        int(dataset.get("SamplesPerPixel") or 1) == 1 and photometric in ("MONOCHROME1", "MONOCHROME2"),
        # Hounsfield units mean the same however they are displayed.
        photometric == "MONOCHROME1" and modality != "CT",
        (allocated, stored, stored - 1 if high_bit is None else int(high_bit)),
        is_signed,
        _padding(dataset, allocated, is_signed),
        _is_mosaic(dataset),
    )


def _is_mosaic(dataset: pydicom.Dataset) -> bool:
    """Whether each image is a mosaic of Siemens: all slices of a time point as its tiles, which nothing public says."""
    if "MOSAIC" in _text(dataset.get("ImageType") or "").upper().split():
        return True
    try:
        return _IMAGES_IN_MOSAIC in dataset.private_block(*_SIEMENS)
    except KeyError:
        return False


def _padding(dataset: pydicom.Dataset, allocated: int, is_signed: bool) -> tuple[int, int] | None:
    """Return the lowest and the highest stored value of padding; the file may give them in either order."""
    ends = [dataset.get(keyword) for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if not isinstance(ends[0], int):
        return None
    # Many programs write -2000 as 63536, or the other way round: the same bits, read with the sign of the pixels.
    low = -(1 << allocated - 1) if is_signed else 0
    values = [(end - low) % (1 << allocated) + low for end in ends if isinstance(end, int)]
    return min(values), max(values)


def frames_of(path: Path, dataset: pydicom.Dataset) -> Iterator[Frame]:
    """Yield the frames of a file that was parsed, in its order; one of :data:`DAMAGED` is raised if it is damaged."""
    header = _header(path, dataset)
    instance = _number(dataset.get("InstanceNumber")) or 0
    entries = {keyword: dataset.get(keyword) for keyword in _OF_FRAMES if dataset.get(keyword) is not None}
    if header.shape[0] > 1:
        entries.pop("ImagePositionPatient", None)  # that of one frame at most
    for group in (dataset.get("SharedFunctionalGroupsSequence") or [])[:1]:
        entries |= _entries_of(group)
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or []
    if not groups:
        yield _frame(header, 0, instance, entries)
        return
    if len(groups) != header.shape[0]:
        raise ValueError("as many descriptions as frames were expected")
    for index, group in enumerate(groups):
        yield _frame(header, index, instance + index, entries | _entries_of(group))


def _entries_of(group: pydicom.Dataset) -> dict[str, Any]:
    """Return the entries of frames that a functional group holds where the standard puts them."""
    found: dict[str, Any] = {}
    for sequences, keywords in _MACROS.items():
        item: pydicom.Dataset | None = group
        for sequence in sequences:
            item = next(iter(item.get(sequence) or ()), None) if item is not None else None
        if item is not None:
            found |= {keyword: item.get(keyword) for keyword in keywords if item.get(keyword) is not None}
    return found


def _frame(header: Header, index: int, instance: int, entries: Mapping[str, Any]) -> Frame:
    position, orientation, spacing = (
        _numbers(entries.get(keyword), count) for keyword, count in zip(_PLACE, (3, 6, 2), strict=True)
    )
    height, slope, intercept = (
        entries.get(keyword) for keyword in ("SliceLocation", "RescaleSlope", "RescaleIntercept")
    )
    traits = {keyword: _text(entries[keyword]) for keyword in _TRAITS if entries.get(keyword) not in (None, "")}
    return Frame(
        header,
        index,
        instance,
        position,
        orientation,
        spacing,
        float(height) if isinstance(height, float) else None,
        1.0 if slope is None else float(slope),
        0.0 if intercept is None else float(intercept),
        {_TRAITS[keyword]: value for keyword, value in traits.items()},
    )


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """Return an entry of several finite numbers, None if it is empty or missing."""
    if value is None or value == "" or len(value) == 0:
        return None
    numbers = tuple(float(number) for number in value)
    if len(numbers) != count or not all(abs(number) < 1e6 for number in numbers):
        raise ValueError(f"{count} finite numbers were expected")
    return numbers


def _number(value: Any) -> int | None:
    return None if value is None or value == "" else int(value)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value.strip()
    parts = list(value) if isinstance(value, (list, pydicom.multival.MultiValue)) else [value]
    return " ".join(f"{part:.6g}" if isinstance(part, float) else str(part) for part in parts)
