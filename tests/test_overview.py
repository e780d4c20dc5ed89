"""What there is to choose from: lines and pictures, by headers and single slices only."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from napari_oneseg import dicom_pixels
from napari_oneseg.overview import PICTURE_SIZE, candidate_pictures, list_candidates
from tests.dicom_files import UID, put_pixels, save, save_series, slice_dataset

HEIGHTS = [0.0, 3.0, 6.0, 9.0, 12.0]
SHAPE = (60, 40)


def corner(row: int, column: int, bright: int = 900) -> NDArray[np.int16]:
    """A slice in which one quarter, 0 or 1 along rows and columns, is bright."""
    image = noise()
    image[30 * row : 30 * row + 30, 20 * column : 20 * column + 20] += bright
    return image


def brightest(picture: NDArray[np.uint8]) -> tuple[int, int]:
    rows, columns = np.array(picture.shape) // 2
    quarters = [
        [picture[:rows, :columns], picture[:rows, columns:]],
        [picture[rows:, :columns], picture[rows:, columns:]],
    ]
    means = np.array([[quarter.mean() for quarter in row] for row in quarters])
    assert means.max() > 230
    assert np.sort(means.ravel())[-2] < 25
    row, column = np.unravel_index(means.argmax(), (2, 2))
    return int(row), int(column)


def study(folder: Path) -> Path:
    """Two series whose middle slices, and only those, are bright in the first and in the last quarter."""

    def middle(place: tuple[int, int]) -> object:
        def change(dataset: Dataset) -> None:
            put_pixels(dataset, corner(*place) if dataset.InstanceNumber == 3 else noise())

        return change

    save_series(folder / "one", HEIGHTS, middle((0, 0)), SeriesDescription="T1 axial")
    named = {"SeriesInstanceUID": f"{UID}.2", "SeriesNumber": 12, "SeriesDescription": "T2"}
    save_series(folder / "two", HEIGHTS, middle((1, 1)), **named)
    return folder


def test_series_are_described_and_shown_by_their_middle_slice(tmp_path: Path) -> None:
    found = list_candidates(study(tmp_path))
    assert [candidate.text for candidate in found] == [
        "7: T1 axial\nMR, 5 slices of 60 x 40\n3 x 0.75 x 0.5 mm",
        "12: T2\nMR, 5 slices of 60 x 40\n3 x 0.75 x 0.5 mm",
    ]
    assert [candidate.series for candidate in found] == [UID, f"{UID}.2"]
    pictures = dict(candidate_pictures(tmp_path, found))
    assert {number: brightest(picture) for number, picture in pictures.items()} == {0: (0, 0), 1: (1, 1)}
    # 45 mm high and 20 mm wide.
    assert {picture.shape for picture in pictures.values()} == {(PICTURE_SIZE, round(PICTURE_SIZE * 20 / 45))}


def test_only_one_slice_of_each_series_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = list_candidates(study(tmp_path))
    read: list[Path] = []
    parse = dicom_pixels.parse_with_pixels
    monkeypatch.setattr(dicom_pixels, "parse_with_pixels", lambda path: read.append(path) or parse(path))  # type: ignore[func-returns-value]
    assert len(list(candidate_pictures(tmp_path, found))) == 2
    assert len(read) == 2


def test_a_series_whose_slice_is_damaged_has_no_picture(tmp_path: Path) -> None:
    found = list_candidates(study(tmp_path))
    assert found[0].found is not None
    frame = found[0].found.frames[2]
    frame.header.path.write_bytes(frame.header.path.read_bytes()[:-2000])
    assert [number for number, _ in candidate_pictures(tmp_path, found)] == [1]


def test_a_ct_is_shown_in_the_soft_tissue_window(tmp_path: Path) -> None:
    values = np.array([-1000, -160, 40, 240, 1500, 1500])

    def change(dataset: Dataset) -> None:
        put_pixels(dataset, np.repeat(np.repeat(values, 16)[np.newaxis], 96, axis=0).astype(np.int16))
        dataset.PixelSpacing = [1, 1]

    save_series(tmp_path, HEIGHTS, change, Modality="CT")
    ((_, picture),) = candidate_pictures(tmp_path, list_candidates(tmp_path))
    np.testing.assert_allclose(picture[48, 8::16], [0, 0, 127.5, 255, 255, 255], atol=1)


def test_an_empty_slice_and_a_compressed_one(tmp_path: Path) -> None:
    for index, height in enumerate(HEIGHTS):
        dataset = slice_dataset(index, height)
        put_pixels(dataset, np.full(SHAPE, 5, np.int16))
        dataset.file_meta = pydicom_meta()
        dataset.compress(RLELossless, generate_instance_uid=False)
        save(dataset, tmp_path / f"{index}", RLELossless)
    ((_, picture),) = candidate_pictures(tmp_path, list_candidates(tmp_path))
    assert np.unique(picture).tolist() == [128]


def pydicom_meta() -> Dataset:
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return meta


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_volumes_of_a_file_are_shown_the_right_way_up(tmp_path: Path, ending: str) -> None:
    """The file's axes run to the right and to the front, as most NIfTI files have it; the picture's do not."""
    quarters = [(0, 0), (1, 1), (0, 1)]
    volumes = [np.stack([corner(*quarter)] * 4) for quarter in quarters]
    path = tmp_path / f"scan{ending}"
    images = [sitk.GetImageFromArray(volume) for volume in volumes]
    for image in images:
        image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
        image.SetSpacing((1, 1, 5))
    sitk.WriteImage(sitk.JoinSeries(images), str(path))
    found = list_candidates(path)
    assert [(candidate.text.splitlines()[0], candidate.frame) for candidate in found] == [
        ("Volume 0", 0), ("Volume 1", 1), ("Volume 2", 2)
    ]  # fmt: skip
    pictures = dict(candidate_pictures(path, found))
    assert {number: brightest(picture) for number, picture in pictures.items()} == {0: (1, 1), 1: (0, 0), 2: (1, 0)}


def noise() -> NDArray[np.int16]:
    return np.random.default_rng(0).integers(0, 9, SHAPE).astype(np.int16)


def test_scaled_volumes_with_an_empty_one(tmp_path: Path) -> None:
    volumes = np.stack([np.zeros((4, *SHAPE)), np.stack([corner(0, 1, bright=9000)] * 4)]).astype(np.int16)
    nib.save(nib.Nifti1Image(volumes.T, np.diag([-1, -1, 5, 1])), tmp_path / "scan.nii")
    content = bytearray((tmp_path / "scan.nii").read_bytes())
    content[112:116] = np.float32(-1).tobytes()  # what is stored as bright is dark
    (tmp_path / "scan.nii").write_bytes(content)
    ((number, picture),) = candidate_pictures(tmp_path / "scan.nii", list_candidates(tmp_path / "scan.nii"))
    assert number == 1
    assert brightest(255 - picture) == (0, 1)


def test_a_single_scan_leaves_nothing_to_choose(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.eye(4)), tmp_path / "scan.nii")
    ((candidate),) = list_candidates(tmp_path / "scan.nii")
    assert (candidate.series, candidate.frame) == (None, None)
    assert list(candidate_pictures(tmp_path / "scan.nii", [candidate])) == []
