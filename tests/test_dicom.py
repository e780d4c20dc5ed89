"""DICOM series of a few tiny slices, made for each test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from napari_oneseg.errors import InputError
from napari_oneseg.image_formats import WRITABLE
from napari_oneseg.io import read_labels, read_volume, write_labels


def painted(shape: tuple[int, int, int] = (6, 5, 4)) -> NDArray[np.uint8]:
    labels = np.zeros(shape, np.uint8)
    labels[1, 2, 3] = 3
    return labels


def refused(path: Path, match: str) -> None:
    with pytest.raises(InputError, match=match):
        read_volume(path)


def dicom(
    folder: Path,
    heights: Sequence[float],
    uid: str = "1.2.826.0.1.3680043.2.1125.1",
    shift: float = 0.0,
    tags: dict[str, str] | None = None,
    first: int = 0,
    shape: tuple[int, ...] = (5, 4),
) -> Path:
    """Write one slice per height in mm, named in reverse so that names are no help; slice k holds k and k + 1."""
    folder.mkdir(exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for index, height in enumerate(heights):
        array = np.full((1, *shape), index, np.int16 if len(shape) == 2 else np.uint8)
        array[0, 0, 0] = index + 1
        image = sitk.GetImageFromArray(array, isVector=len(shape) == 3)
        image.SetSpacing((0.5, 0.75, 2.0))
        entries = {
            "0008|0060": "MR",
            "0008|103e": "T1 axial",
            "0010|0010": "Secret^Name",
            "0020|000e": uid,
            "0020|000d": "1.2.826.0.1.3680043.2.1125.9",
            "0008|0018": f"{uid}.{index + first}",
            "0020|0032": f"{10 + shift * height}\\-20\\{height}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0020|0013": "1",
        }
        for key, value in {**entries, **(tags or {})}.items():
            image.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{uid}-{99 - index - first:02}.dcm"))
        writer.Execute(image)
    return folder


def test_a_series_is_sorted_by_position(tmp_path: Path) -> None:
    volume = read_volume(dicom(tmp_path, [1.0, 3.0, 5.0, 7.0]))
    np.testing.assert_array_equal(volume.array[:, 1, 1], [0, 1, 2, 3])
    assert volume.array.dtype == np.int16
    np.testing.assert_allclose(volume.spacing, (2.0, 0.75, 0.5))
    np.testing.assert_allclose(volume.origin, (10, -20, 1))
    np.testing.assert_allclose(volume.direction, np.eye(3)[:, ::-1], atol=1e-9)
    assert "Secret" not in str(dict(volume.header))


def test_labels_of_a_series_can_be_written_and_read(tmp_path: Path) -> None:
    volume = read_volume(dicom(tmp_path / "series", [1.0, 3.0, 5.0, 7.0]))
    for ending in WRITABLE:
        write_labels(tmp_path / f"labels{ending}", painted((4, 5, 4)), volume)
        np.testing.assert_array_equal(read_labels(tmp_path / f"labels{ending}", volume), painted((4, 5, 4)))


def test_a_folder_without_dicom(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing to see")
    refused(tmp_path, "holds no DICOM files with images of a scan; give the folder")


def test_several_series_are_named_without_the_patient(tmp_path: Path) -> None:
    dicom(tmp_path, [0, 1, 2])
    dicom(tmp_path, [0, 1], uid="1.2.826.0.1.3680043.2.1125.2", tags={"0008|103e": "scout"})
    with pytest.raises(InputError, match=r"2 DICOM series .*move the files of one series") as caught:
        read_volume(tmp_path)
    assert "'T1 axial', 3 slices" in str(caught.value)
    assert "'scout', 2 slices" in str(caught.value)
    assert "Secret" not in str(caught.value)


def test_a_single_dicom_file(tmp_path: Path) -> None:
    refused(dicom(tmp_path, [0]), "single DICOM file; a scan needs at least two slices")


def test_missing_slices_are_filled_in_and_said(tmp_path: Path) -> None:
    heights = [2.0 * index for index in range(23) if index not in (3, 10, 11)]
    folder = dicom(tmp_path, heights)
    with pytest.raises(InputError, match=r"3 of 23 slices are missing, at 6, 20, 22 mm: more than can be filled in"):
        read_volume(folder)
    dicom(tmp_path, [6.0], first=40)
    with pytest.warns(
        UserWarning, match=r"2 of 23 slices are missing, at 20, 22 mm\. .*neighbours .slices 10, 11.*do not paint them"
    ) as caught:
        volume = read_volume(folder)
    assert caught[0].filename == __file__
    assert volume.slice_spacing == pytest.approx(2)
    assert volume.array.shape == (23, 5, 4)
    # Slice k of those that were written holds k; the gap lies between the 9th and the 10th.
    np.testing.assert_array_equal(volume.array[[9, 10, 11, 12], 1, 1], [8, 8, 9, 9])
    np.testing.assert_array_equal(volume.array[[2, 4, 22], 1, 1], [2, 3, 19])


def test_four_missing_in_a_row_are_refused(tmp_path: Path) -> None:
    heights = [float(index) for index in range(50) if not 20 <= index < 24]
    refused(dicom(tmp_path, heights), "4 of 50 slices are missing, at 20, 21, 22, 23 mm: more than can be filled in")


def test_slightly_uneven_slices_are_said(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"gaps of 1\.9 to 2\.1 mm.*slice 1 .at 2\.1 mm. 0\.1 mm from its place"):
        volume = read_volume(dicom(tmp_path, [0, 2.1, 4, 6, 8]))
    np.testing.assert_allclose(volume.spacing, (2.0, 0.75, 0.5))


def test_uneven_slices_are_refused(tmp_path: Path) -> None:
    refused(dicom(tmp_path, [0, 2, 4, 7, 9]), "spaced too unevenly: gaps of 2 to 3 mm, so that .*Resample it")


def test_a_tilted_gantry(tmp_path: Path) -> None:
    refused(dicom(tmp_path, [0, 2, 4, 6], shift=0.2), r"tilted by 11\.3 degrees .*sheared .*gantry.*resample.*dcm2niix")


def test_a_tilt_within_a_quarter_of_a_pixel_is_rounding(tmp_path: Path) -> None:
    volume = read_volume(dicom(tmp_path, [0, 2, 4, 6], shift=0.12 / 6))
    np.testing.assert_allclose(volume.direction, np.eye(3)[:, ::-1])
    refused(dicom(tmp_path / "more", [0, 2, 4, 6], shift=0.13 / 6), "tilted by 1.2 degrees")


def test_a_slice_shifted_sideways(tmp_path: Path) -> None:
    dicom(tmp_path, [0, 2, 6])
    refused(dicom(tmp_path, [4], first=10, shift=0.2), "shifted sideways against each other")


def test_time_points_that_nothing_tells_apart(tmp_path: Path) -> None:
    dicom(tmp_path, [0, 2, 4])
    refused(dicom(tmp_path, [0, 2, 4], first=10), "several images at the same position")


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"tags": {"0020|0037": "1\\0\\0\\0\\0\\1"}}, "plane coronal"),
        ({"tags": {"0020|0037": "1\\0\\0\\0\\0.8\\0.6"}}, "plane axial, turned by 36.9 degrees"),
        ({"shape": (3, 3)}, "size 3 x 3"),
    ],
    ids=["orientation", "turned", "size"],
)
def test_an_image_that_does_not_belong_is_left_out(tmp_path: Path, other: dict[str, Any], told: str) -> None:
    dicom(tmp_path, [0, 2, 4])
    with pytest.warns(UserWarning, match=f"'T1 axial', 3 slices is opened. Left out: 'T1 axial, {told}', 1 image"):
        assert read_volume(dicom(tmp_path, [6], first=10, **other)).array.shape == (3, 5, 4)


def test_slices_without_a_position(tmp_path: Path) -> None:
    for path in dicom(tmp_path, [0, 2, 4]).iterdir():
        dataset = pydicom.dcmread(path)
        del dataset.ImagePositionPatient
        dataset.save_as(path)
    refused(tmp_path, "no position, so their order is unknown")


def test_a_colour_series(tmp_path: Path) -> None:
    refused(dicom(tmp_path, [0, 2, 4], shape=(5, 4, 3)), "colour images; one grey value per voxel")
