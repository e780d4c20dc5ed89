"""DICOM segmentations as annotations: those of this program, of highdicom, and what does not fit the scan."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from napari_oneseg.dicom_seg import write_dicom_seg
from napari_oneseg.dicom_seg_images import find_images
from napari_oneseg.errors import AnnotationError, InputError
from napari_oneseg.file_order import reorient
from napari_oneseg.io import read_labels, read_volume, write_image
from napari_oneseg.orientation import Orientation
from napari_oneseg.volume import Volume
from tests.dicom_files import enhanced, save
from tests.test_dicom_seg import ROOT, STRAIGHT, labels_on, series, turned
from tests.test_dicom_seg_images import HEIGHTS, referable

SEGMENT = hd.sr.CodedConcept("85756007", "SCT", "Tissue")


def segmented(folder: Path, **choice: Any) -> tuple[Volume, NDArray[Any], Path]:
    """Return a scan, labels on it whose segments' numbers are 1, 2 and 3, and the DICOM-SEG that holds them."""
    volume = read_volume(folder, **choice)
    labels = labels_on(volume)
    path = folder.parent / "seg.dcm"
    write_dicom_seg(path, labels, volume, folder, {})
    return volume, np.where(labels == 300, 3, labels), path


def by_highdicom(
    path: Path, folder: Path, array: NDArray[Any], kind: str, numbers: tuple[int, ...] = (1,), **options: Any
) -> Path:
    """Write a DICOM-SEG of another program; the array is (slices, rows, columns), or with a last axis of segments."""
    images = find_images(folder, read_volume(folder)).headers
    segments = [
        hd.seg.SegmentDescription(number, f"Segment {number}", SEGMENT, SEGMENT, "MANUAL") for number in numbers
    ]
    segmentation = hd.seg.Segmentation(
        images, array, kind, segments, hd.UID(), 1, hd.UID(), 1, "Maker", "Model", "1", "1", **options
    )
    segmentation.save_as(path)
    return path


# What is read


@pytest.mark.parametrize("axes", [STRAIGHT, turned(), STRAIGHT[:, [1, 2, 0]]], ids=["axial", "oblique", "sagittal"])
@pytest.mark.parametrize("columns", [4, 5])
def test_what_this_program_writes(tmp_path: Path, axes: NDArray[np.float64], columns: int) -> None:
    volume, labels, path = segmented(series(tmp_path / "ct", axes, columns=columns))
    read = read_labels(path, volume)
    np.testing.assert_array_equal(read, labels)
    assert read.dtype == np.uint8


@pytest.mark.parametrize(
    "way",
    [
        Orientation((0, 1, 2), (True, False, False)),
        Orientation((0, 1, 2), (False, True, True)),
        Orientation((2, 0, 1), (False, False, False)),
        Orientation((1, 2, 0), (True, True, False)),
        Orientation((2, 1, 0), (True, True, True)),
    ],
)
def test_whatever_the_order_of_the_scans_axes(tmp_path: Path, way: Orientation) -> None:
    volume, labels, path = segmented(series(tmp_path / "ct", turned()))
    np.testing.assert_array_equal(read_labels(path, reorient(volume, way)), way.apply(labels))


def test_a_scan_that_was_converted(tmp_path: Path) -> None:
    volume, labels, path = segmented(series(tmp_path / "ct", turned()))
    write_image(tmp_path / "scan.nii.gz", volume.array.astype(np.float32), volume)
    np.testing.assert_array_equal(read_labels(path, read_volume(tmp_path / "scan.nii.gz")), labels)


def test_uneven_slices_and_a_missing_one(tmp_path: Path) -> None:
    folder = series(tmp_path / "ct", depth=10, heights=[0, 2.6, 5, 7.4, 10, 15, 17.5, 20.1, 22.5, 25])
    with pytest.warns(UserWarning, match="missing|evenly"):
        volume, labels, path = segmented(folder)
    labels[5] = 0
    np.testing.assert_array_equal(read_labels(path, volume), labels)


def test_a_multi_frame_scan(tmp_path: Path) -> None:
    save(referable(enhanced(HEIGHTS[::-1])), tmp_path / "scan" / "scan.dcm")
    volume, labels, path = segmented(tmp_path / "scan")
    np.testing.assert_array_equal(read_labels(path, volume), labels)


def test_a_folder_with_the_one_segmentation(tmp_path: Path) -> None:
    volume, labels, path = segmented(series(tmp_path / "ct"))
    path.rename(tmp_path / "ct" / "beside")
    np.testing.assert_array_equal(read_labels(tmp_path / "ct", volume), labels)


@pytest.mark.parametrize(
    ("kind", "syntax"),
    [
        *((kind, ExplicitVRLittleEndian) for kind in ("BINARY", "LABELMAP", "FRACTIONAL")),
        *((kind, RLELossless) for kind in ("LABELMAP", "FRACTIONAL")),
    ],
)
def test_segments_of_another_program(tmp_path: Path, kind: str, syntax: str) -> None:
    folder = series(tmp_path / "ct")
    volume = read_volume(folder)
    labels = (labels_on(volume) == 1).astype(np.uint8)
    path = by_highdicom(tmp_path / "seg.dcm", folder, labels.copy(), kind, transfer_syntax_uid=syntax)
    np.testing.assert_array_equal(read_labels(path, volume), labels)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_the_numbers_of_segments_are_the_labels(tmp_path: Path, kind: str) -> None:
    folder = series(tmp_path / "ct")
    volume = read_volume(folder)
    labels = np.where(labels_on(volume) == 300, 3, labels_on(volume)).astype(np.uint8)
    path = by_highdicom(tmp_path / "seg.dcm", folder, labels, kind, (1, 2, 3))
    dataset = pydicom.dcmread(path)
    if kind == "BINARY":
        # As after a segment was taken away in another program: the number of one that is left stays.
        for entry in dataset.PerFrameFunctionalGroupsSequence:
            number = entry.SegmentIdentificationSequence[0]
            number.ReferencedSegmentNumber = {1: 1, 2: 7, 3: 420}[number.ReferencedSegmentNumber]
        dataset.save_as(path)
        labels = np.array([0, 1, 7, 420])[labels]
    read = read_labels(path, volume)
    np.testing.assert_array_equal(read, labels)
    assert read.dtype == ("uint16" if kind == "BINARY" else "uint8")


def test_a_part_of_the_slices_and_of_their_pixels(tmp_path: Path) -> None:
    volume, labels, path = segmented(series(tmp_path / "ct", turned(), columns=6))
    dataset = pydicom.dcmread(path)
    pixels = dataset.pixel_array[:, 2:5, 1:5]
    axes = np.array(dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient)
    for entry in dataset.PerFrameFunctionalGroupsSequence:
        place = entry.PlanePositionSequence[0]
        position = np.array(place.ImagePositionPatient, float) + 2 * 0.75 * axes[3:] + 1 * 0.5 * axes[:3]
        place.ImagePositionPatient = [round(float(number), 6) for number in position]
    dataset.Rows, dataset.Columns = 3, 4
    bits = np.packbits(pixels.ravel(), bitorder="little").tobytes()
    dataset.PixelData = bits + bytes(len(bits) % 2)
    dataset.save_as(path)
    expected = np.zeros_like(labels)
    expected[:, 2:5, 1:5] = labels[:, 2:5, 1:5]
    np.testing.assert_array_equal(read_labels(path, volume), expected)


# What is not


def refused(path: Path, volume: Volume, match: str, error: type[InputError] = AnnotationError) -> None:
    with pytest.raises(error, match=match):
        read_labels(path, volume)


@pytest.mark.parametrize(
    ("other", "match"),
    [
        ({"axes": turned()}, "another orientation.*Open the scan that it was drawn on, or resample"),
        ({"heights": [1.0 + 2.5 * k for k in range(7)]}, "between the scan's voxels.*nearest-neighbour"),
        ({"heights": [5.0 + 2.5 * k for k in range(7)]}, "outside of the scan"),
        ({"heights": [2.8 * k for k in range(7)]}, "between the scan's voxels"),
        ({"columns": 5}, "outside of the scan"),
    ],
)
def test_segments_on_another_grid(tmp_path: Path, other: dict[str, Any], match: str) -> None:
    volume = read_volume(series(tmp_path / "ct"))
    refused(segmented(series(tmp_path / "other", **other))[2], volume, match)


def changed(path: Path, change: Callable[[pydicom.Dataset], object]) -> Path:
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)
    return path


def test_other_pixels_or_no_positions(tmp_path: Path) -> None:
    volume, _, path = segmented(series(tmp_path / "ct"))

    def stretch(dataset: Dataset) -> None:
        dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [0.75, 0.51]

    refused(changed(path, stretch), volume, r"pixels are 0\.75 x 0\.51 mm large, the scan's 0\.75 x 0\.5 mm")

    def strip(dataset: Dataset) -> None:
        for entry in dataset.PerFrameFunctionalGroupsSequence:
            del entry.PlanePositionSequence

    refused(changed(path, strip), volume, "does not say where its frames lie")


def test_segments_in_another_frame_of_reference(tmp_path: Path) -> None:
    volume, _, path = segmented(series(tmp_path / "ct"))

    def move(dataset: Dataset) -> None:
        dataset.FrameOfReferenceUID = f"{ROOT}.77"

    refused(changed(path, move), volume, "does not belong to this scan: .*another frame of reference")


def test_segments_that_overlap(tmp_path: Path) -> None:
    folder = series(tmp_path / "ct")
    volume = read_volume(folder)
    both = np.zeros((*volume.array.shape, 2), np.uint8)
    both[2, 1:4, 1:3, 0] = both[2, 3:5, 1:3, 1] = 1
    path = by_highdicom(tmp_path / "seg.dcm", folder, both, "BINARY", (1, 2))
    refused(path, volume, r"segments of seg\.dcm overlap \(number 1 and another one\).*files of their own")


def test_probabilities(tmp_path: Path) -> None:
    folder = series(tmp_path / "ct")
    volume = read_volume(folder)
    chance = np.zeros(volume.array.shape)
    chance[2, 2:4, 1:3] = 0.4
    refused(by_highdicom(tmp_path / "seg.dcm", folder, chance, "FRACTIONAL"), volume, "probabilities.*threshold")


@pytest.mark.parametrize(("modality", "match"), [("RTSTRUCT", "holds contours .*3D Slicer"), ("CT", "of modality CT")])
def test_other_dicom_files(tmp_path: Path, modality: str, match: str) -> None:
    volume, _, path = segmented(series(tmp_path / "ct"))
    refused(changed(path, lambda dataset: setattr(dataset, "Modality", modality)), volume, match)


def test_folders_without_or_with_several_segmentations(tmp_path: Path) -> None:
    folder = series(tmp_path / "ct")
    volume = read_volume(folder)
    refused(folder, volume, "ct holds no DICOM segmentation; give one file as the annotation")
    for name in ("a", "b"):
        write_dicom_seg(folder / f"{name}.dcm", labels_on(volume), volume, folder, {})
    refused(folder, volume, "ct holds 2 DICOM segmentations; give one file")


@pytest.mark.parametrize("where", [700, -200, -7])
def test_a_damaged_segmentation(tmp_path: Path, where: int) -> None:
    volume, _, path = segmented(series(tmp_path / "ct", depth=20))
    path.write_bytes(path.read_bytes()[:where])
    refused(path, volume, r"(seg\.dcm is|damaged)", InputError)
