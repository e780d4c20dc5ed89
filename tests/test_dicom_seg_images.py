"""The images that a DICOM-SEG refers to: multi-frame files, time points, and headers that lack something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from napari_oneseg.dicom_seg import write_dicom_seg
from napari_oneseg.errors import InputError
from napari_oneseg.io import list_series, read_volume
from napari_oneseg.volume import Volume
from tests.dicom_files import UID, enhanced, item, save, save_series, slice_dataset
from tests.test_dicom_seg import label_of, labels_on, points_of

HEIGHTS = [0.0, 2.0, 4.0, 6.0, 8.0]


def referable(dataset: Dataset) -> Dataset:
    """Give a generated image what a DICOM-SEG needs."""
    dataset.FrameOfReferenceUID = f"{UID}.8"
    return dataset


def labelled_points(path: Path) -> dict[tuple[float, ...], int]:
    """Read with pydicom's decoder (SimpleITK's fails where frames do not fill whole bytes) by what each frame says."""
    image = pydicom.dcmread(path)
    shared = image.SharedFunctionalGroupsSequence[0]
    rows, columns = (float(side) for side in shared.PixelMeasuresSequence[0].PixelSpacing)
    axes = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    names = {entry.SegmentNumber: label_of(entry) for entry in image.SegmentSequence}
    found: dict[tuple[float, ...], int] = {}
    for entry, frame in zip(image.PerFrameFunctionalGroupsSequence, image.pixel_array, strict=True):
        for row, column in np.argwhere(frame):
            position = np.array(entry.PlanePositionSequence[0].ImagePositionPatient, float)
            point = position + column * columns * axes[0] + row * rows * axes[1]
            key = tuple(np.round(point, 2) + 0.0)
            assert key not in found
            found[key] = names[entry.SegmentIdentificationSequence[0].ReferencedSegmentNumber]
    return found


def written(path: Path, volume: Volume, source: Any) -> pydicom.Dataset:
    """Write labels, compare where another reader finds them, and return the object."""
    labels = labels_on(volume)
    write_dicom_seg(path, labels, volume, source, {})
    assert labelled_points(path) == points_of(labels, volume)
    return pydicom.dcmread(path)


def check_references(segmentation: pydicom.Dataset, source: Dataset) -> None:
    """Each frame refers to the frame of the source that lies where it lies."""
    for entry in segmentation.PerFrameFunctionalGroupsSequence:
        (image,) = entry.DerivationImageSequence[0].SourceImageSequence
        assert image.ReferencedSOPInstanceUID == source.SOPInstanceUID
        referred = source.PerFrameFunctionalGroupsSequence[image.ReferencedFrameNumber - 1]
        position = referred.PlanePositionSequence[0].ImagePositionPatient
        assert entry.PlanePositionSequence[0].ImagePositionPatient == position


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [3, 0, 4, 1, 2]])
@pytest.mark.parametrize("whole", [True, False])
def test_a_multi_frame_file_is_referred_to_by_frame(tmp_path: Path, order: list[int], whole: bool) -> None:
    dataset = referable(enhanced([HEIGHTS[index] for index in order]))
    path = save(dataset, tmp_path / "scan" / "scan.dcm")
    volume = read_volume(path)
    check_references(written(tmp_path / "seg.dcm", volume, path if whole else path.parent), dataset)


def oblique(dataset: Dataset, shared: bool) -> Dataset:
    """Tilt a multi-frame file, and say the orientation and the pixels' size once, or for each frame."""
    row, column = np.array([0.8, 0.6, 0]), np.array([-0.36, 0.48, 0.8])
    normal = np.cross(row, column)
    groups = dataset.PerFrameFunctionalGroupsSequence
    common = dataset.SharedFunctionalGroupsSequence[0]
    common.PlaneOrientationSequence[0].ImageOrientationPatient = [*row, *column]
    common.PixelMeasuresSequence[0].SliceThickness = 1.5
    for group, height in zip(groups, HEIGHTS, strict=True):
        group.PlanePositionSequence[0].ImagePositionPatient = [round(float(x), 6) for x in 5 + height * normal]
        if not shared:
            group.PlaneOrientationSequence = common.PlaneOrientationSequence
            group.PixelMeasuresSequence = common.PixelMeasuresSequence
    if not shared:
        dataset.SharedFunctionalGroupsSequence = [Dataset()]
    return dataset


@pytest.mark.parametrize("shared", [True, False])
def test_an_oblique_multi_frame_file(tmp_path: Path, shared: bool) -> None:
    dataset = oblique(referable(enhanced(HEIGHTS)), shared)
    path = save(dataset, tmp_path / "scan.dcm")
    segmentation = written(tmp_path / "seg.dcm", read_volume(path, slice_axis=0), path)
    check_references(segmentation, dataset)
    assert segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness == 1.5


@pytest.mark.parametrize("point", [0, 1])
def test_a_time_point_of_a_multi_frame_file(tmp_path: Path, point: int) -> None:
    heights = [height for height in HEIGHTS for _ in range(2)]
    dataset = referable(enhanced(heights, FrameContentSequence__TemporalPositionIndex=[1, 2] * 5))
    path = save(dataset, tmp_path / "scan.dcm")
    volume = read_volume(path, series=list_series(path)[point].key)
    segmentation = written(tmp_path / "seg.dcm", volume, path)
    check_references(segmentation, dataset)
    for entry in segmentation.PerFrameFunctionalGroupsSequence:
        assert entry.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber % 2 == (point + 1) % 2


def test_a_multi_frame_file_with_a_missing_frame(tmp_path: Path) -> None:
    dataset = referable(enhanced([float(height) for height in range(12) if height != 3]))
    path = save(dataset, tmp_path / "scan.dcm")
    with pytest.warns(UserWarning, match="1 of 12 slices are missing"):
        volume = read_volume(path)
    labels = labels_on(volume)
    write_dicom_seg(tmp_path / "seg.dcm", labels, volume, path, {})
    labels[3] = 0
    assert labelled_points(tmp_path / "seg.dcm") == points_of(labels, volume)


@pytest.mark.parametrize("point", [0, 1])
def test_a_time_point_of_single_images(tmp_path: Path, point: int) -> None:
    for number in (0, 1):
        save_series(tmp_path / "scan", HEIGHTS, referable, first=5 * number, TemporalPositionIdentifier=number + 1)
    volume = read_volume(tmp_path / "scan", series=list_series(tmp_path / "scan")[point].key)
    segmentation = written(tmp_path / "seg.dcm", volume, tmp_path / "scan")
    (referred,) = segmentation.ReferencedSeriesSequence
    numbers = {int(one.ReferencedSOPInstanceUID.split(".")[-1]) for one in referred.ReferencedInstanceSequence}
    assert numbers == set(range(5 * point, 5 * point + 5))


def test_orientations_that_differ_by_rounding(tmp_path: Path) -> None:
    def change(dataset: Dataset) -> None:
        dataset.ImageOrientationPatient = [1, 1e-6 * dataset.InstanceNumber, 0, -1e-6 * dataset.InstanceNumber, 1, 0]
        referable(dataset)

    folder = save_series(tmp_path / "scan", HEIGHTS, change)
    written(tmp_path / "seg.dcm", read_volume(folder), folder)


def test_files_of_old_programs_without_a_mark(tmp_path: Path) -> None:
    (tmp_path / "scan").mkdir()
    for index, height in enumerate(HEIGHTS):
        dataset = referable(slice_dataset(index, height))
        pydicom.dcmwrite(tmp_path / "scan" / str(index), dataset, implicit_vr=True, little_endian=True)
    written(tmp_path / "seg.dcm", read_volume(tmp_path / "scan"), tmp_path / "scan")


def refused(volume: Volume, source: Path, match: str) -> None:
    path = source.parent / "seg.dcm"
    with pytest.raises(InputError, match=match):
        write_dicom_seg(path, labels_on(volume), volume, source, {})
    assert not path.exists()


@pytest.mark.parametrize("multi_frame", [True, False])
@pytest.mark.parametrize(
    ("keyword", "name"),
    [
        ("FrameOfReferenceUID", "Frame of Reference UID"),
        ("StudyInstanceUID", "Study Instance UID"),
    ],
)
@pytest.mark.parametrize("empty", [True, False])
def test_what_cannot_be_referred_to_is_named(
    tmp_path: Path, keyword: str, name: str, empty: bool, multi_frame: bool
) -> None:
    def change(dataset: Dataset) -> Dataset:
        referable(dataset)
        if empty:
            setattr(dataset, keyword, "")
        else:
            delattr(dataset, keyword)
        return dataset

    if multi_frame:
        source = save(change(enhanced(HEIGHTS)), tmp_path / "scan.dcm")
    else:
        source = save_series(tmp_path / "scan", HEIGHTS, change)
    refused(read_volume(source), source, f"have no {name}, by which a DICOM-SEG refers .*anonymised.*NRRD or NIfTI")


def test_several_frames_of_reference(tmp_path: Path) -> None:
    def change(dataset: Dataset) -> None:
        dataset.FrameOfReferenceUID = f"{UID}.{dataset.InstanceNumber}"

    folder = save_series(tmp_path / "scan", HEIGHTS, change)
    refused(read_volume(folder), folder, "different frames of reference .*NRRD or NIfTI")


def test_several_multi_frame_files(tmp_path: Path) -> None:
    for number in (0, 1):
        dataset = referable(enhanced([10.0 * number + height for height in HEIGHTS]))
        dataset.SOPInstanceUID, dataset.InstanceNumber = f"{UID}.{number}", 1 + 5 * number
        save(dataset, tmp_path / "scan" / str(number))
    volume = read_volume(tmp_path / "scan")
    assert volume.array.shape[0] == 10
    refused(volume, tmp_path / "scan", "lie in 2 multi-frame DICOM files, .*one only.*single file or as single images")


def test_another_multi_frame_file_is_refused(tmp_path: Path) -> None:
    path = save(referable(enhanced(HEIGHTS)), tmp_path / "scan.dcm")
    other = referable(enhanced(HEIGHTS))
    for group in other.PerFrameFunctionalGroupsSequence:
        group.PlanePositionSequence = [item(ImagePositionPatient=[11, *group.PlanePositionSequence[0][0x200032][1:]])]
    refused(read_volume(path), save(other, tmp_path / "other.dcm"), "not the images of this scan: another position")
