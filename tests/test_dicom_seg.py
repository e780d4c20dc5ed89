"""DICOM-SEG: labels of a DICOM series, read back by the position of each frame with two other readers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from napari_oneseg import __version__, dicom_seg
from napari_oneseg.dicom_seg import write_dicom_seg
from napari_oneseg.errors import InputError, OutputError
from napari_oneseg.file_order import in_file_order
from napari_oneseg.io import read_volume, write_labels
from napari_oneseg.segment_codes import Segment
from napari_oneseg.volume import Volume

ROOT = "1.2.826.0.1.3680043.8.498"
STRAIGHT = np.eye(3)
SEGMENTS = {
    1: Segment("Left kidney", (1.0, 0.0, 0.0)),
    2: Segment("Tumour", (0.0, 0.5, 0.0)),
    300: Segment("Leber \\ größer", (0.0, 0.0, 1.0)),
}


def turned() -> NDArray[np.float64]:
    """Columns: along a row, along a column, across the slices; none along the patient's axes."""
    a, b = np.deg2rad(25), np.deg2rad(-15)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    return about_z @ about_x


def series(
    folder: Path,
    axes: NDArray[np.float64] = STRAIGHT,
    depth: int = 7,
    backwards: bool = False,
    heights: list[float] | None = None,
    uid: str = f"{ROOT}.1",
    columns: int = 4,
) -> Path:
    """Write a CT of (depth, 6, columns) voxels of 2.5 x 0.75 x 0.5 mm; backwards: named from the last slice on."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(4)
    for index in range(depth):
        image = Dataset()
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = CTImageStorage
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"{uid}.{index + 1}"
        image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = f"{ROOT}.2", uid, f"{ROOT}.3"
        image.SpecificCharacterSet, image.PatientName, image.PatientID = "ISO_IR 100", "Müller^Eva", "0815"
        image.Modality, image.SeriesNumber, image.InstanceNumber = "CT", 4, index + 1
        image.ImageComments = "Telephone of the patient"
        height = 2.5 * index if heights is None else heights[index]
        image.ImagePositionPatient = [round(float(x), 6) for x in np.array([-10, 20, 5]) + height * axes[:, 2]]
        image.ImageOrientationPatient = [round(float(x), 9) for x in np.concatenate([axes[:, 0], axes[:, 1]])]
        image.PixelSpacing, image.SliceThickness = [0.75, 0.5], 2.5
        image.Rows, image.Columns, image.SamplesPerPixel, image.PhotometricInterpretation = 6, columns, 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 1
        image.PixelData = rng.integers(-1000, 1000, (6, columns)).astype("<i2").tobytes()
        name = depth - index if backwards else index
        image.save_as(folder / f"{uid[-1]}-{name:03}.dcm", enforce_file_format=True)
    return folder


def labels_on(volume: Volume) -> NDArray[np.uint16]:
    """Three labels in no symmetry: 300 on a single image, the first and the last image empty."""
    shape = in_file_order(volume).array.shape
    labels = np.random.default_rng(1).choice([0, 0, 1, 2], shape).astype(np.uint16)
    labels[[0, -1]] = 0
    labels[2, 4, 1:3] = 300
    return volume.to_file.inverse.apply(labels)


def world(volume: Volume, index: tuple[int, ...]) -> NDArray[np.float64]:
    return volume.origin + np.asarray(volume.direction) @ (np.asarray(volume.spacing) * index)


def label_of(description: Dataset) -> int:
    return int(description.SegmentDescription.removeprefix("Label "))


def labelled_points(path: Path) -> dict[tuple[float, ...], int]:
    """Read with SimpleITK's own decoder: the label of each point of the patient that has one."""
    image = pydicom.dcmread(path)
    frames = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    frames = frames.reshape(-1, image.Rows, image.Columns)
    shared = image.SharedFunctionalGroupsSequence[0]
    step = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, float)
    axes = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    names = {entry.SegmentNumber: label_of(entry) for entry in image.SegmentSequence}
    found: dict[tuple[float, ...], int] = {}
    for entry, frame in zip(image.PerFrameFunctionalGroupsSequence, frames, strict=True):
        position = np.array(entry.PlanePositionSequence[0].ImagePositionPatient, float)
        for row, column in np.argwhere(frame):
            point = position + column * step[1] * axes[0] + row * step[0] * axes[1]
            key = tuple(np.round(point, 2) + 0.0)
            assert key not in found
            found[key] = names[entry.SegmentIdentificationSequence[0].ReferencedSegmentNumber]
    return found


def points_of(labels: NDArray[Any], volume: Volume) -> dict[tuple[float, ...], int]:
    return {
        tuple(np.round(world(volume, tuple(index)), 2) + 0.0): int(labels[tuple(index)])
        for index in np.argwhere(labels)
    }


def with_highdicom(path: Path, folder: Path, volume: Volume) -> NDArray[np.uint16]:
    """Read with highdicom, frame by frame of the source's own images."""
    segmentation = hd.seg.segread(path)
    normal = np.asarray(in_file_order(volume).direction)[:, 0]
    images = sorted(
        (pydicom.dcmread(file) for file in folder.iterdir()),
        key=lambda image: np.dot(image.ImagePositionPatient, normal),
    )
    numbers = segmentation.get_pixels_by_source_instance(
        [image.SOPInstanceUID for image in images], combine_segments=True, assert_missing_frames_are_empty=True
    )
    table = np.array([0, *(label_of(entry) for entry in segmentation.SegmentSequence)])
    return volume.to_file.inverse.apply(table[numbers].astype(np.uint16))


@pytest.mark.parametrize("axes", [STRAIGHT, turned(), STRAIGHT[:, [1, 2, 0]]], ids=["axial", "oblique", "sagittal"])
@pytest.mark.parametrize("backwards", [False, True])
def test_other_readers_find_the_same_voxels(tmp_path: Path, axes: NDArray[np.float64], backwards: bool) -> None:
    folder = series(tmp_path / "ct", axes, backwards=backwards)
    volume = read_volume(folder, slice_axis=0)
    labels = labels_on(volume)
    write_dicom_seg(tmp_path / "seg.dcm", labels, volume, folder, SEGMENTS)
    assert labelled_points(tmp_path / "seg.dcm") == points_of(labels, volume)
    np.testing.assert_array_equal(with_highdicom(tmp_path / "seg.dcm", folder, volume), labels)


def test_frames_need_not_fill_whole_bytes(tmp_path: Path) -> None:
    # Not with SimpleITK: the last pixels of such a file it takes from memory that nothing was written to.
    folder = series(tmp_path / "ct", columns=5)
    volume = read_volume(folder)
    write_dicom_seg(tmp_path / "seg.dcm", labels_on(volume), volume, folder, SEGMENTS)
    np.testing.assert_array_equal(with_highdicom(tmp_path / "seg.dcm", folder, volume), labels_on(volume))


def test_files_may_be_given_in_any_order(tmp_path: Path) -> None:
    folder = series(tmp_path / "ct")
    volume = read_volume(folder)
    files = sorted(folder.iterdir(), key=lambda file: hash(file.name[::-1]))
    write_dicom_seg(tmp_path / "seg.dcm", labels_on(volume), volume, files, SEGMENTS)
    assert labelled_points(tmp_path / "seg.dcm") == points_of(labels_on(volume), volume)


def test_other_series_in_the_folder_are_passed_over(tmp_path: Path) -> None:
    folder = series(tmp_path / "ct")
    volume = read_volume(folder)
    series(folder, uid=f"{ROOT}.9", depth=3)
    (folder / "notes.txt").write_text("no image")
    write_dicom_seg(folder / "seg.dcm", labels_on(volume), volume, folder, SEGMENTS)
    # Written once more, beside the first.
    write_dicom_seg(folder / "seg2.dcm", labels_on(volume), volume, folder, SEGMENTS)
    assert labelled_points(folder / "seg2.dcm") == points_of(labels_on(volume), volume)


@pytest.mark.parametrize("chosen", ["4", "5"])
def test_of_two_series_at_the_same_places_the_one_that_was_opened_is_meant(tmp_path: Path, chosen: str) -> None:
    """Each in a folder of its own, below that of the study: two sequences of one examination."""
    for number in ("4", "5"):
        series(tmp_path / number, uid=f"{ROOT}.{number}")
    volume = read_volume(tmp_path, series=f"{ROOT}.{chosen}")
    write_dicom_seg(tmp_path / "out.dcm", labels_on(volume), volume, tmp_path, SEGMENTS)
    (referred,) = pydicom.dcmread(tmp_path / "out.dcm").ReferencedSeriesSequence
    assert referred.SeriesInstanceUID == f"{ROOT}.{chosen}"
    assert labelled_points(tmp_path / "out.dcm") == points_of(labels_on(volume), volume)


def test_a_missing_slice_leaves_every_label_on_its_own_image(tmp_path: Path) -> None:
    there = [0, 1, 2, *range(4, 11)]
    folder = series(tmp_path / "ct", depth=10, heights=[2.5 * index for index in there])
    with pytest.warns(UserWarning, match="1 of 11 slices are missing, at 12.5 mm"):
        volume = read_volume(folder)
    labels = labels_on(volume)
    assert labels[3].any()
    write_dicom_seg(tmp_path / "seg.dcm", labels, volume, folder, SEGMENTS)
    np.testing.assert_array_equal(with_highdicom(tmp_path / "seg.dcm", folder, volume), labels[there])
    labels[3] = 0
    assert labelled_points(tmp_path / "seg.dcm") == points_of(labels, volume)


def test_a_real_series(tmp_path: Path, data_dir: Path) -> None:
    folder = data_dir / "vs_seg_dicom"
    volume = read_volume(folder)
    labels = np.zeros(volume.array.shape, np.uint8)
    labels[3:20, 200:300, 150:190] = 1
    labels[5, 10:20, 300:400] = 2
    write_dicom_seg(tmp_path / "seg.dcm", labels, volume, folder, {1: Segment("Tumour", (1.0, 0.0, 0.0))})
    np.testing.assert_array_equal(with_highdicom(tmp_path / "seg.dcm", folder, volume), labels)
    frames = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "seg.dcm")))
    np.testing.assert_array_equal(frames[:17] > 0, labels[3:20] == 1)
    np.testing.assert_array_equal(frames[17] > 0, labels[5] == 2)


def test_segments_say_what_they_are(tmp_path: Path) -> None:
    folder = series(tmp_path / "ct")
    volume = read_volume(folder)
    write_dicom_seg(tmp_path / "seg.dcm", labels_on(volume), volume, folder, {**SEGMENTS, 8: Segment("?", (0, 0, 0))})
    image = pydicom.dcmread(tmp_path / "seg.dcm")
    kidney, tumour, liver = image.SegmentSequence
    assert [entry.SegmentLabel for entry in image.SegmentSequence] == ["Left kidney", "Tumour", "Leber   größer"]
    assert kidney.SegmentedPropertyTypeCodeSequence[0].CodeValue == "64033007"
    side = kidney.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0]
    assert (side.CodeValue, side.CodeMeaning) == ("7771000", "Left")
    assert tumour.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    assert liver.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Tissue"
    assert kidney.SegmentAlgorithmType == "SEMIAUTOMATIC"
    algorithm = kidney.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("OneSeg", __version__)
    colour = hd.color.CIELabColor.from_dicom_value(kidney.RecommendedDisplayCIELabValue).to_rgb(clip=True)
    assert np.abs(np.subtract(colour, (255, 0, 0))).max() <= 2


def test_the_object_refers_to_the_images_and_takes_only_patient_and_study_from_them(tmp_path: Path) -> None:
    folder = series(tmp_path / "ct")
    volume = read_volume(folder)
    write_dicom_seg(tmp_path / "seg.dcm", labels_on(volume), volume, folder, SEGMENTS)
    image = pydicom.dcmread(tmp_path / "seg.dcm")
    assert (image.Modality, str(image.PatientName), image.PatientID) == ("SEG", "Müller^Eva", "0815")
    assert (image.StudyInstanceUID, image.FrameOfReferenceUID) == (f"{ROOT}.2", f"{ROOT}.3")
    assert image.SeriesInstanceUID != f"{ROOT}.1"
    referred = image.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert {entry.ReferencedSOPInstanceUID for entry in referred} == {f"{ROOT}.1.{k}" for k in range(1, 8)}
    assert "Telephone" not in str(image)


def refused(tmp_path: Path, volume: Volume, source: Any, match: str, labels: NDArray[Any] | None = None) -> None:
    path = tmp_path / "out" / "seg.dcm"
    path.parent.mkdir(exist_ok=True)
    with pytest.raises(InputError, match=match):
        write_dicom_seg(path, labels_on(volume) if labels is None else labels, volume, source, SEGMENTS)
    assert not list(path.parent.iterdir())


def test_images_of_another_scan_are_refused(tmp_path: Path) -> None:
    volume = read_volume(series(tmp_path / "ct"))
    refused(tmp_path, volume, series(tmp_path / "short", depth=6), "6 images instead of 7")
    refused(tmp_path, volume, series(tmp_path / "turned", turned()), "another orientation")
    refused(tmp_path, volume, series(tmp_path / "wide", heights=[3.0 * k for k in range(7)]), "another position")
    upside_down = series(tmp_path / "down", heights=[-2.5 * k for k in range(7)])
    refused(tmp_path, volume, upside_down, "another position")
    refused(tmp_path, volume, series(tmp_path / "double", heights=[0, 2.5, 2.5, 7.5, 10, 12.5, 15]), "same position")


def test_a_scan_of_another_format_is_refused(tmp_path: Path) -> None:
    volume = read_volume(series(tmp_path / "ct"))
    write_labels(tmp_path / "scan.nii.gz", labels_on(volume), volume)
    refused(
        tmp_path, volume, tmp_path / "scan.nii.gz", "no folder with a DICOM series, and no multi-frame DICOM file.*NRRD"
    )
    (tmp_path / "empty").mkdir()
    refused(tmp_path, volume, tmp_path / "empty", "None of the given files is a DICOM image")
    refused(tmp_path, volume, [tmp_path / "scan.nii.gz"], "None of the given files is a DICOM image")
    refused(tmp_path, volume, [tmp_path / "gone.dcm"], "cannot be read")


def test_labels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    folder = series(tmp_path / "ct")
    volume = read_volume(folder)
    refused(tmp_path, volume, folder, "no labels", np.zeros(volume.array.shape, np.uint8))
    refused(tmp_path, volume, folder, "shape", np.ones((3, 6, 4), np.uint8))
    refused(tmp_path, volume, folder, "0 or greater", np.full(volume.array.shape, -1))
    refused(tmp_path, volume, folder, "integers", np.ones(volume.array.shape))


def test_what_cannot_be_written_leaves_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = series(tmp_path / "ct")
    volume = read_volume(folder)
    path = tmp_path / "out" / "seg.dcm"
    with pytest.raises(OutputError, match="does not exist"):
        write_dicom_seg(path, labels_on(volume), volume, folder, SEGMENTS)
    with pytest.raises(OutputError, match=r"\.dcm"):
        write_dicom_seg(tmp_path / "seg.nrrd", labels_on(volume), volume, folder, SEGMENTS)
    path.parent.mkdir()
    path.write_text("older")
    monkeypatch.setattr(dicom_seg, "_read_back", lambda *_: np.zeros(volume.array.shape))
    with pytest.raises(OutputError, match="differs"):
        write_dicom_seg(path, labels_on(volume), volume, folder, SEGMENTS)
    assert [file.read_text() for file in path.parent.iterdir()] == ["older"]


def test_headers_that_lack_what_may_be_empty_are_enough(tmp_path: Path) -> None:
    folder = series(tmp_path / "ct")
    for file in folder.iterdir():
        image = pydicom.dcmread(file)
        del image.PatientID, image.PatientName, image.SliceThickness, image.SeriesNumber
        image.save_as(file)
    volume = read_volume(folder)
    write_dicom_seg(tmp_path / "seg.dcm", labels_on(volume), volume, folder, SEGMENTS)
    assert labelled_points(tmp_path / "seg.dcm") == points_of(labels_on(volume), volume)
