"""DICOM series of a few tiny slices, made for each test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from napari_oneseg.errors import InputError
from napari_oneseg.io import WRITABLE, read_labels, read_volume, write_labels


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
    refused(tmp_path, "holds no DICOM files; give the folder")


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


def test_a_missing_slice_is_said(tmp_path: Path) -> None:
    folder = dicom(tmp_path, [0, 2, 4, 8, 10])
    with pytest.warns(
        UserWarning, match=r"gaps of 2 to 4 mm, the widest between slices 2 and 3.*2\.5 mm apart"
    ) as caught:
        volume = read_volume(folder)
    assert volume.slice_spacing == pytest.approx(2.5)
    assert caught[0].filename == __file__


def test_a_tilted_gantry(tmp_path: Path) -> None:
    refused(dicom(tmp_path, [0, 2, 4, 6], shift=0.2), "sheared .*gantry.*resample")


def test_time_points_in_one_series(tmp_path: Path) -> None:
    dicom(tmp_path, [0, 2, 4])
    refused(dicom(tmp_path, [0, 2, 4], first=10), "several images at the same position")


def test_slices_that_are_not_parallel(tmp_path: Path) -> None:
    dicom(tmp_path, [0, 2, 4])
    refused(dicom(tmp_path, [6], first=10, tags={"0020|0037": "1\\0\\0\\0\\0\\1"}), "not parallel")


def test_slices_of_different_size(tmp_path: Path) -> None:
    dicom(tmp_path, [0, 2, 4])
    refused(dicom(tmp_path, [6], first=10, shape=(3, 3)), "cannot be read: .*slices differ in size")


def test_slices_without_a_position(tmp_path: Path) -> None:
    for path in dicom(tmp_path, [0, 2, 4]).iterdir():
        dataset = pydicom.dcmread(path)
        del dataset.ImagePositionPatient
        dataset.save_as(path)
    refused(tmp_path, "no position, so their order is unknown")


def test_a_colour_series(tmp_path: Path) -> None:
    refused(dicom(tmp_path, [0, 2, 4], shape=(5, 4, 3)), "colour images; one grey value per voxel")
