"""Images at the same position: how they are told apart, and what is said where they cannot be."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from napari_oneseg.dicom import number_places
from napari_oneseg.errors import InputError
from napari_oneseg.io import list_series, read_volume
from tests.dicom_files import UID, enhanced, grey, save, save_series, slice_dataset

STRAIGHT = np.eye(3)
OBLIQUE = np.linalg.qr(np.array([[0.9, 0.1, 0.3], [-0.2, 0.95, 0.1], [0.1, -0.3, 0.9]]))[0]


def message(path: Path, **choice: Any) -> str:
    with pytest.raises(InputError) as caught:
        read_volume(path, **choice)
    return str(caught.value)


# Positions that were measured anew for each image


def time_points(
    folder: Path, jitter: float, entries: Callable[[int, int], dict[str, Any]], gap: float = 3.0, axes: Any = STRAIGHT
) -> NDArray[Any]:
    """Save four volumes of six slices; image (time, k) holds grey(10 * time + k). Return the volumes' grey values."""
    rng = np.random.default_rng(5)
    normal = np.cross(axes[0], axes[1])
    for time in range(4):
        for k in range(6):
            dataset = slice_dataset(10 * time + k, 0, **entries(time, k))
            position = np.array([10, -20, 30]) + k * gap * normal + rng.uniform(-jitter, jitter, 3)
            dataset.ImagePositionPatient = [round(float(number), 6) for number in position]
            dataset.ImageOrientationPatient = [round(float(number), 8) for number in (*axes[0], *axes[1])]
            save(dataset, folder / f"{time}-{k}")
    return np.array([[grey(10 * time + k) for k in range(6)] for time in range(4)])


TOLD: dict[str, Callable[[int, int], dict[str, Any]]] = {
    "time point": lambda time, k: {"TemporalPositionIdentifier": time + 1},
    "trigger time": lambda time, k: {"TriggerTime": 33.5 * time},
    "acquisition": lambda time, k: {"AcquisitionNumber": time},
    "frame time": lambda time, k: {"FrameReferenceTime": 1000.0 * time, "InstanceNumber": 1},
    "acquisition time": lambda time, k: {"AcquisitionTime": f"1030{time:02}.50", "InstanceNumber": 1},
    "number by time": lambda time, k: {"InstanceNumber": 6 * time + k + 1},
    "number by slice": lambda time, k: {
        "InstanceNumber": 4 * k + time + 1,
        "AcquisitionTime": f"1030{4 * k + time:02}",
    },
    "number downwards": lambda time, k: {"InstanceNumber": 6 * time + 6 - k},
}


@pytest.mark.parametrize("jitter", [1e-5, 0.01])
@pytest.mark.parametrize("told", TOLD)
def test_time_points_whose_positions_differ_by_little(tmp_path: Path, told: str, jitter: float) -> None:
    expected = time_points(tmp_path, jitter, TOLD[told])
    found = list_series(tmp_path)
    assert [(series.problem, series.shape) for series in found] == [(None, (6, 5, 4))] * 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for series, array in zip(found, expected, strict=True):
            volume = read_volume(tmp_path, series=series.key)
            np.testing.assert_array_equal(volume.array, array)
            np.testing.assert_allclose(volume.origin, (10, -20, 30), atol=0.011)
            np.testing.assert_allclose(volume.spacing, (3, 0.75, 0.5), rtol=0.002)
    assert "4 DICOM series" in message(tmp_path)


@pytest.mark.parametrize("axes", [STRAIGHT, OBLIQUE, STRAIGHT[[1, 2, 0]]], ids=["axial", "oblique", "sagittal"])
@pytest.mark.parametrize("gap", [0.3, 1.0, 12.0])
def test_positions_that_differ_by_little_in_any_orientation(tmp_path: Path, axes: NDArray[Any], gap: float) -> None:
    time_points(tmp_path, 0.01, TOLD["time point"], gap, axes)
    assert [(series.problem, series.shape[0]) for series in list_series(tmp_path)] == [(None, 6)] * 4


def test_many_time_points(tmp_path: Path) -> None:
    """The 1353 images of the report: 33 volumes of 41 slices."""
    positions = np.zeros((33, 41, 3))
    positions[..., 2] = 3 * np.arange(41) + np.random.default_rng(0).uniform(0, 0.02, (33, 41))
    numbers = number_places(positions.reshape(-1, 3), np.array([1.0, 0, 0, 0, 1, 0]), (1.0, 1.0))
    np.testing.assert_array_equal(numbers.reshape(33, 41), [range(41)] * 33)


@pytest.mark.parametrize("gap", [0.02, 0.1, 0.5, 5.0])
def test_thin_slices_are_not_taken_for_one(gap: float) -> None:
    """Also where two stations lie far apart, and pixels are as small as slices are thin."""
    heights = gap * np.concatenate([np.arange(20), np.arange(2000, 2020)])
    positions = np.stack([np.zeros(40), np.zeros(40), heights], axis=1)
    numbers = number_places(positions, np.array([1.0, 0, 0, 0, 1, 0]), (min(gap, 0.7), 0.7))
    np.testing.assert_array_equal(numbers, range(40))


def test_images_side_by_side_are_not_at_the_same_place() -> None:
    positions = np.array([[x, 0, z] for z in (0.0, 3.0) for x in (0.0, 200.0)])
    assert len(set(number_places(positions, np.array([1.0, 0, 0, 0, 1, 0]), (0.7, 0.7)))) == 4


def test_a_time_point_that_was_broken_off(tmp_path: Path) -> None:
    time_points(tmp_path, 0.01, TOLD["time point"])
    for k in (2, 3, 4, 5):
        (tmp_path / f"3-{k}").unlink()
    assert [(series.problem, series.shape[0]) for series in list_series(tmp_path)] == [(None, 6)] * 3 + [(None, 2)]


def test_slices_taken_two_at_a_time_are_not_torn_apart(tmp_path: Path) -> None:
    time_points(tmp_path, 0.0, lambda time, k: {"AcquisitionTime": f"1030{3 * time + k % 3:02}", "InstanceNumber": 1})
    (series,) = list_series(tmp_path)
    assert "24 images at 6 positions, up to 4 of them at 30, 33, 36, 39, 42, 45 mm" in (series.problem or "")


def test_one_slice_that_is_there_twice_is_named(tmp_path: Path) -> None:
    save_series(tmp_path, [0.0, 2.0, 4.0, 6.0, 8.0])
    save_series(tmp_path, [4.005], first=7)
    said = message(tmp_path)
    assert "6 images at 5 positions, up to 2 of them at 4 mm" in said
    assert "one image for each position" in said


def test_parts_that_differ_in_pixel_size_can_be_told_apart_and_chosen(tmp_path: Path) -> None:
    save_series(tmp_path, [0.0, 2.0, 4.0])
    save_series(tmp_path, [6.0, 8.0], first=3, PixelSpacing=[0.8, 0.5])
    said = message(tmp_path)
    assert "2 DICOM series (7: 'T1 axial', 3 slices; 7: 'T1 axial, pixels 0.8 x 0.5 mm', 2 slices)" in said
    assert read_volume(tmp_path, series="T1 axial, pixels 0.8 x 0.5 mm").array[0, 0, 0] == grey(3)[0, 0]


# A single position


@pytest.mark.parametrize(
    "entries",
    [
        lambda k: {"TriggerTime": 10.0 * k},
        lambda k: {"AcquisitionNumber": k},
        lambda k: {"InstanceNumber": k},
        lambda k: {"InstanceNumber": 1},
        lambda k: {"EchoTime": k // 2},
        lambda k: {"ImagePositionPatient": [0, 0, 1e-5 * k]},
        lambda k: {"ImagePositionPatient": [0.001 * k, 0, 0.002 * k]},
    ],
)
@pytest.mark.parametrize("lost", [False, True])
def test_all_images_at_one_place(tmp_path: Path, entries: Callable[[int], dict[str, Any]], lost: bool) -> None:
    for k in range(10):
        own = {"ImagePositionPatient": [0, 0, 0], "SliceLocation": 3 * k * lost} | entries(k)
        save(slice_dataset(k, 0, **own), tmp_path / str(k))
    (series,) = list_series(tmp_path)
    assert str(series) == "7: 'T1 axial', 10 images"
    said = message(tmp_path)
    assert said.startswith("All 10 images of this DICOM series lie at the same position (0, 0, 0 mm)")
    assert ("slices from 0 to 27 mm (Slice Location)" in said) == lost
    assert "Image Position (Patient)" in said


def test_all_frames_at_one_place(tmp_path: Path) -> None:
    dataset = enhanced(
        [5.0] * 4, CardiacSynchronizationSequence__NominalCardiacTriggerDelayTime=[0.0, 10.0, 20.0, 30.0]
    )
    said = message(save(dataset, tmp_path / "cine.dcm"))
    assert (
        "All 4 images of this DICOM series lie at the same position (10, -20, 5 mm): a single slice at several" in said
    )


def test_a_cine_beside_a_scan_is_left_out(tmp_path: Path) -> None:
    save_series(tmp_path, [0.0, 2.0, 4.0])
    for k in range(5):
        save(slice_dataset(k, 0, SeriesInstanceUID=f"{UID}.2", SeriesNumber=8, TriggerTime=k), tmp_path / str(k))
    with pytest.warns(UserWarning, match="7: 'T1 axial', 3 slices is opened. Left out: 8: 'T1 axial', 5 images"):
        assert read_volume(tmp_path).array.shape == (3, 5, 4)


def test_where_no_series_can_be_read_each_reason_is_given_once(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        own = {"SeriesInstanceUID": f"{UID}.{number}", "SeriesNumber": number}
        for k in range(3):
            path = tmp_path / f"{number}-{k}"
            save(slice_dataset(k, 0, **own, **({"ImagePositionPatient": None} if number == 3 else {})), path)
    said = message(tmp_path)
    assert said.startswith(
        f"None of the 3 DICOM series in {tmp_path} can be opened. (1) 1: 'T1 axial', 3 images: All 3"
    )
    assert said.count("All 3 images") == 1
    assert "(2) 3: 'T1 axial', 3 images: The slices of this DICOM series have no position" in said


# Mosaics


def mark_type(dataset: Dataset) -> None:
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]


def mark_type_otherwise(dataset: Dataset) -> None:
    dataset.ImageType = ["DERIVED", "SECONDARY", "DIFFUSION", "TRACEW", "NORM", "MOSAIC", "DIS2D"]


def mark_by_siemens(dataset: Dataset) -> None:
    dataset.private_block(0x19, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", 16)


@pytest.mark.parametrize("mark", [mark_type, mark_type_otherwise, mark_by_siemens])
@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("apart", ["nothing", "time", "position", "orientation"])
def test_a_mosaic_is_called_one(tmp_path: Path, mark: Callable[[Dataset], None], count: int, apart: str) -> None:
    """Also where the scanner follows the head, so that the images seem to be slices of a scan."""
    for k in range(count):
        own = {
            "nothing": {"ImagePositionPatient": [0, 0, 0]},
            "time": {"ImagePositionPatient": [0, 0, 0], "AcquisitionTime": f"1030{k:02}"},
            "position": {"ImagePositionPatient": [0, 0, 0.5 * k]},
            "orientation": {"ImageOrientationPatient": [1, 0, 0, 0, np.cos(0.01 * k), np.sin(0.01 * k)]},
        }
        dataset = slice_dataset(k, 0, **own[apart])
        mark(dataset)
        save(dataset, tmp_path / str(k))
    assert len(list_series(tmp_path)) == 1
    said = message(tmp_path)
    assert "is a mosaic" in said
    assert ("its image holds" if count == 1 else "each of its 4 images holds") in said
    assert "dcm2niix" in said


def test_a_mosaic_beside_a_scan_is_left_out(tmp_path: Path) -> None:
    save_series(tmp_path, [0.0, 2.0, 4.0])
    save_series(tmp_path, [0.0, 2.0], mark_type, first=7, SeriesInstanceUID=f"{UID}.2", SeriesNumber=8)
    with pytest.warns(UserWarning, match="7: 'T1 axial', 3 slices is opened. Left out: 8: 'T1 axial', 2 images"):
        assert read_volume(tmp_path).array.shape == (3, 5, 4)
    assert "is a mosaic" in message(tmp_path, series="8")
