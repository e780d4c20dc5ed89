"""What is read from the headers of DICOM images, and what only looks as if it belonged to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from napari_oneseg.errors import InputError
from napari_oneseg.io import list_series, read_volume
from tests.dicom_files import enhanced, grey, item, save, slice_dataset

HEIGHTS = [0.0, 2.0, 4.0]
FOREIGN = {
    "ImagePositionPatient": [99, 98, 97],
    "ImageOrientationPatient": [0, 1, 0, 0, 0, 1],
    "PixelSpacing": [9, 9],
    "RescaleSlope": 2.5,
    "RescaleIntercept": 7,
    "EchoTime": 3,
}
PHILIPS = (0x2005, 0x140F)


def put_foreign(holder: Dataset, tag: tuple[int, int] | str, **entries: Any) -> None:
    """Put a sequence in that says otherwise where the image lies, as a scanner's private ones do."""
    foreign = item(**(entries or FOREIGN))
    # What a macro holds in a private sequence is no macro, either.
    foreign.PlanePositionSequence = [item(ImagePositionPatient=[99, 98, 97])]
    foreign.PixelValueTransformationSequence = [item(RescaleSlope=2.5, RescaleIntercept=7)]
    if tag == PHILIPS:
        holder.add_new((0x2005, 0x0014), "LO", "Philips MR Imaging DD 005")
    holder.add_new(tag, "SQ", [foreign])


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("tag", [PHILIPS, "ReferencedImageSequence", "RealWorldValueMappingSequence"])
@pytest.mark.parametrize("place", ["file", "shared", "frame", "macro", "shared macro"])
def test_only_the_standards_own_groups_say_where_a_frame_lies(
    tmp_path: Path, place: str, tag: tuple[int, int] | str, syntax: str
) -> None:
    dataset = enhanced(HEIGHTS, PixelValueTransformationSequence__RescaleSlope=[2, 3, 4])
    shared = dataset.SharedFunctionalGroupsSequence[0]
    frames = dataset.PerFrameFunctionalGroupsSequence
    holders = {
        "file": [dataset],
        "shared": [shared],
        "frame": frames,
        "macro": [group.PlanePositionSequence[0] for group in frames],
        "shared macro": [shared.PixelMeasuresSequence[0]],
    }
    for holder in holders[place]:
        put_foreign(holder, tag)
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
    volume = read_volume(save(dataset, tmp_path / "scan.dcm", syntax))
    np.testing.assert_allclose(volume.origin, (10, -20, 0))
    np.testing.assert_allclose(volume.spacing, (2, 0.75, 0.5))
    np.testing.assert_allclose(volume.direction, np.eye(3)[:, ::-1])
    np.testing.assert_array_equal(volume.array, [grey(index) * (index + 2) for index in range(3)])


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_private_sequence_of_a_classic_image_says_nothing(tmp_path: Path, syntax: str) -> None:
    for index, height in enumerate(HEIGHTS):
        dataset = slice_dataset(index, height)
        put_foreign(dataset, PHILIPS)
        put_foreign(dataset, "ReferencedImageSequence")
        save(dataset, tmp_path / str(index), syntax)
    volume = read_volume(tmp_path)
    np.testing.assert_allclose(volume.origin, (10, -20, 0))
    np.testing.assert_array_equal(volume.array, [grey(index) for index in range(3)])


def test_a_position_that_only_a_private_sequence_has_is_none(tmp_path: Path) -> None:
    dataset = enhanced(HEIGHTS)
    dataset.ImagePositionPatient = [0, 0, 0]
    for group in dataset.PerFrameFunctionalGroupsSequence:
        put_foreign(group, PHILIPS)
        del group.PlanePositionSequence
    with pytest.raises(InputError, match="no position, so their order is unknown"):
        read_volume(save(dataset, tmp_path / "scan.dcm"))


@pytest.mark.parametrize(
    ("entry", "values", "told"),
    [
        ("FrameContentSequence__TemporalPositionIndex", [1, 2], "time point"),
        ("FrameContentSequence__StackID", ["a", "b"], "stack"),
        ("TemporalPositionSequence__TemporalPositionTimeOffset", [0.0, 4.5], "time"),
        ("CardiacSynchronizationSequence__NominalCardiacTriggerDelayTime", [0.0, 33.5], "trigger time"),
        ("MREchoSequence__EffectiveEchoTime", [2.5, 5.0], "echo time"),
        ("MRModifierSequence__InversionTimes", [150.0, 900.0], "inversion time"),
        ("MRImageFrameTypeSequence__FrameType", ["W", "F"], "kind"),
        ("CTImageFrameTypeSequence__FrameType", ["W", "F"], "kind"),
        ("CTReconstructionSequence__ConvolutionKernel", ["B30", "B70"], "kernel"),
        ("UnassignedPerFrameConvertedAttributesSequence__EchoTime", [2.5, 5.0], "echo time"),
    ],
)
def test_the_standards_groups_tell_frames_apart(tmp_path: Path, entry: str, values: list[Any], told: str) -> None:
    dataset = enhanced([0, 0, 2, 2, 4, 4], **{entry: values * 3})
    for group in dataset.PerFrameFunctionalGroupsSequence:
        put_foreign(group, PHILIPS, EchoTime=7)
    found = list_series(save(dataset, tmp_path / "scan.dcm"))
    assert [series.description for series in found] == [
        f"T1 axial, {told} {value:g}" if isinstance(value, float) else f"T1 axial, {told} {value}" for value in values
    ]


def test_the_direction_of_diffusion_tells_frames_apart(tmp_path: Path) -> None:
    dataset = enhanced([0, 0, 2, 2, 4, 4], MRDiffusionSequence__DiffusionBValue=[800.0] * 6)
    for index, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        direction = item(DiffusionGradientOrientation=[1.0, 0.0, 0.0] if index % 2 else [0.0, 1.0, 0.0])
        group.MRDiffusionSequence[0].DiffusionGradientDirectionSequence = [direction]
    found = list_series(save(dataset, tmp_path / "scan.dcm"))
    assert [series.description for series in found] == ["T1 axial, direction 0 1 0", "T1 axial, direction 1 0 0"]
