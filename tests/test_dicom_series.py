"""Which scans a folder of DICOM files holds, and how one of them is chosen."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset

from napari_oneseg import dicom_series
from napari_oneseg.errors import InputError
from napari_oneseg.file_order import in_file_order
from napari_oneseg.io import Series, list_series, read_volume
from tests.dicom_files import UID, enhanced, grey, item, save, save_series, slice_dataset

HEIGHTS = [0.0, 2.0, 4.0]
OTHER = f"{UID}.2"


def refused(path: Path, match: str, **choice: Any) -> None:
    with pytest.raises(InputError, match=match):
        read_volume(path, **choice)


def two_series(folder: Path) -> Path:
    save_series(folder, HEIGHTS)
    return save_series(
        folder, [1.0, 4.0], first=3, SeriesInstanceUID=OTHER, SeriesDescription="T2 axial", SeriesNumber=12
    )


# Listing


def test_series_are_described_without_the_patient(tmp_path: Path) -> None:
    folder = two_series(tmp_path)
    first, second = list_series(str(folder))
    assert isinstance(first, Series)
    assert (first.key, first.uid, first.number, first.description, first.modality) == (UID, UID, 7, "T1 axial", "MR")
    assert (first.shape, first.spacing, first.problem) == ((3, 5, 4), (2.0, 0.75, 0.5), None)
    assert (second.key, second.number, second.shape, second.spacing) == (OTHER, 12, (2, 5, 4), (3.0, 0.75, 0.5))
    assert str(first) == "7: 'T1 axial', 3 slices"
    assert "Secret" not in repr([first, first.frames, second])
    assert str(tmp_path) not in repr([first, first.frames])


def test_other_files_and_odd_names_are_passed_over(tmp_path: Path) -> None:
    folder = save_series(tmp_path, HEIGHTS)
    for path, name in zip(sorted(folder.iterdir()), ["scan ä.nii.gz", "noending", "x.txt"], strict=True):
        path.rename(folder / name)
    (folder / "notes.txt").write_text("nothing to see here, but rather long " * 10)
    (folder / "empty").touch()
    (folder / "photo.jpg").write_bytes(bytes(range(256)) * 10)
    (folder / "old.bin").write_bytes(b"\x08\x00\x05\x00" + bytes(range(256)) * 4)
    report = slice_dataset(5, 0)
    for name in ("Rows", "Columns", "PixelData"):
        delattr(report, name)
    save(report, folder / "DICOMDIR")
    save(slice_dataset(6, 0, Modality="SEG"), folder / "labels.dcm")
    np.testing.assert_array_equal(read_volume(folder).array, np.stack([grey(index) for index in range(3)]))


def test_folders_one_level_below_are_looked_into(tmp_path: Path) -> None:
    save_series(tmp_path / "study" / "a", HEIGHTS)
    save_series(tmp_path / "study" / "b", [6.0], first=3)
    save_series(tmp_path / "study" / "b" / "deep", [8.0], first=4)
    save_series(tmp_path / "study" / ".hidden", [10.0], first=5)
    (series,) = list_series(tmp_path / "study")
    assert series.shape == (4, 5, 4)
    assert list_series(tmp_path) == []


def test_what_lies_in_the_folder_itself_comes_before_what_lies_below(tmp_path: Path) -> None:
    save_series(tmp_path, HEIGHTS)
    save_series(tmp_path / "other", [1.0, 4.0], first=3, SeriesInstanceUID=OTHER, SeriesDescription="T2")
    with pytest.warns(UserWarning, match="7: 'T1 axial', 3 slices is opened. Left out: 7: 'T2', 2 slices"):
        assert read_volume(tmp_path).array.shape == (3, 5, 4)


def test_copies_count_once(tmp_path: Path) -> None:
    save_series(tmp_path, HEIGHTS)
    shutil.copytree(tmp_path, tmp_path.parent / "copy")
    shutil.move(tmp_path.parent / "copy", tmp_path / "copy")
    assert read_volume(tmp_path).array.shape == (3, 5, 4)


def test_images_of_the_same_name_but_not_equal_are_no_copies(tmp_path: Path) -> None:
    save_series(tmp_path, HEIGHTS, SOPInstanceUID="1.2.3")
    assert read_volume(tmp_path).array.shape == (3, 5, 4)


def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_series, "_MOST_FILES", 3)
    refused(save_series(tmp_path, [*HEIGHTS, 6.0]), "more than 3 files; give the folder of one study")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    folder = save_series(tmp_path, HEIGHTS)
    path = min(folder.iterdir())
    path.write_bytes(path.read_bytes().replace(b"\\-20", b"\\-2x"))
    refused(folder, f"{path.name} is a damaged DICOM file; copy or export it again")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="missing cannot be read: No such file"):
        list_series(tmp_path / "missing")


# Choosing


@pytest.mark.parametrize("choice", ["12", OTHER, "T2 axial", "t2 AXIAL", " 12 "])
def test_a_series_is_chosen_by_number_uid_or_description(tmp_path: Path, choice: str) -> None:
    volume = read_volume(two_series(tmp_path), series=choice)
    np.testing.assert_array_equal(volume.array, np.stack([grey(3), grey(4)]))
    np.testing.assert_allclose(volume.origin, (10, -20, 1))


def test_who_does_not_choose_is_told_the_series(tmp_path: Path) -> None:
    refused(two_series(tmp_path), r"2 DICOM series \(7: 'T1 axial', 3 slices; 12: 'T2 axial', 2 slices\); choose one")


def test_a_choice_that_fits_none_or_several(tmp_path: Path) -> None:
    refused(two_series(tmp_path), rf"'T3' names no DICOM series .*7: 'T1 axial', 3 slices \({UID}\); 12", series="T3")
    save_series(tmp_path, HEIGHTS, first=7, SeriesInstanceUID=f"{UID}.3")
    refused(tmp_path, "'7' names 2 DICOM series", series="7")
    assert read_volume(tmp_path, series=f"{UID}.3").array[0, 0, 0] == 140


def test_a_series_of_a_file_that_is_no_dicom_file(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.stack([grey(0), grey(1)])), str(tmp_path / "scan.nii"))
    refused(tmp_path / "scan.nii", "scan.nii is no DICOM file, so there is no series '7'", series="7")


def test_a_scout_does_not_stand_in_the_way(tmp_path: Path) -> None:
    save_series(tmp_path, HEIGHTS)
    save_series(tmp_path, [0.0], first=3, SeriesInstanceUID=OTHER, SeriesDescription="scout", SeriesNumber=1)
    with pytest.warns(UserWarning, match="7: 'T1 axial', 3 slices is opened. Left out: 1: 'scout', 1 image"):
        assert read_volume(tmp_path).array.shape == (3, 5, 4)
    refused(tmp_path, "single DICOM file; a scan needs at least two slices", series="scout")


# Several scans in one series


def interleaved(folder: Path, name: str, values: list[Any], heights: list[float] = HEIGHTS) -> list[Series]:
    """One series in which each position is taken once for each value of an entry."""
    for index, (height, value) in enumerate((height, value) for height in heights for value in values):
        save(slice_dataset(index, height, **{name: value}), folder / str(index))
    return list_series(folder)


@pytest.mark.parametrize(
    ("name", "values", "told"),
    [
        ("EchoTime", [4.6, 2.3], ["echo time 4.6", "echo time 2.3"]),
        ("EchoNumbers", [1, 2], ["echo 1", "echo 2"]),
        ("DiffusionBValue", [0, 400.0, 1000.0], ["b-value 0", "b-value 400", "b-value 1000"]),
        ("ImageType", [["ORIGINAL", "W"], ["ORIGINAL", "F"]], ["kind ORIGINAL W", "kind ORIGINAL F"]),
        ("SequenceName", ["ep_b0", "ep_b1000"], ["sequence ep_b0", "sequence ep_b1000"]),
        ("TemporalPositionIdentifier", [1, 2], ["time point 1", "time point 2"]),
        ("TriggerTime", [0.0, 33.5], ["trigger time 0", "trigger time 33.5"]),
        ("AcquisitionNumber", [1, 2], ["acquisition 1", "acquisition 2"]),
        ("ConvolutionKernel", ["B30f", "B70f"], ["kernel B30f", "kernel B70f"]),
        ("PatientComments", ["", ""], ["image 1 of 2 at each position", "image 2 of 2 at each position"]),
    ],
)
def test_one_series_with_several_scans(tmp_path: Path, name: str, values: list[Any], told: list[str]) -> None:
    found = interleaved(tmp_path, name, values)
    assert [series.description for series in found] == [f"T1 axial, {words}" for words in told]
    assert [series.key for series in found] == [UID, f"{UID}#2", f"{UID}#3"][: len(values)]
    refused(tmp_path, f"{len(values)} DICOM series .*{told[0]}', 3 slices; .*{told[1]}', 3 slices")
    refused(tmp_path, f"'7' names {len(values)} DICOM series", series="7")
    for which, series in enumerate(found):
        expected = np.stack([grey(which + len(values) * index) for index in range(3)])
        for choice in (series.key, series.description):
            if which or choice != UID:
                np.testing.assert_array_equal(read_volume(tmp_path, series=choice).array, expected)


def test_what_differs_from_slice_to_slice_tears_no_scan_apart(tmp_path: Path) -> None:
    # Two echoes, each taken in two turns of every other slice.
    heights = [0.0, 2.0, 4.0, 6.0]
    for index in range(8):
        turn, echo = index % 2, index // 4
        entries = {"AcquisitionNumber": 1 + turn + 2 * echo, "SequenceName": f"turn {turn}"}
        save(slice_dataset(index, heights[index % 4], **entries), tmp_path / str(index))
    found = list_series(tmp_path)
    assert [series.shape[0] for series in found] == [4, 4]
    assert all(series.problem is None for series in found)
    np.testing.assert_array_equal(
        read_volume(tmp_path, series=found[1].key).array, np.stack([grey(index) for index in range(4, 8)])
    )


def test_an_echo_that_lacks_a_slice(tmp_path: Path) -> None:
    save_series(tmp_path, HEIGHTS, EchoTime=2)
    save_series(tmp_path, HEIGHTS[:2], first=3, EchoTime=5)
    assert [(series.description, series.shape[0]) for series in list_series(tmp_path)] == [
        ("T1 axial, echo time 2", 3),
        ("T1 axial, echo time 5", 2),
    ]


def test_three_planes_in_one_series(tmp_path: Path) -> None:
    for count, (row, column) in enumerate([([1, 0, 0], [0, 1, 0]), ([1, 0, 0], [0, 0, -1]), ([0, 1, 0], [0, 0, -1])]):
        normal = np.cross(row, column)

        def change(dataset: Dataset, normal: Any = normal, plane: list[int] = row + column) -> None:
            dataset.ImagePositionPatient = (normal * dataset.ImagePositionPatient[2]).tolist()
            dataset.ImageOrientationPatient = plane

        save_series(tmp_path, HEIGHTS, change, first=3 * count)
    found = list_series(tmp_path)
    assert [(series.shape[0], series.problem) for series in found] == [(3, None)] * 3
    directions = [read_volume(tmp_path, series=series.key).direction for series in found[1:]]
    for direction in directions:  # in patient order, whatever plane was taken
        np.testing.assert_allclose(direction, np.eye(3)[:, ::-1])


# Multi-frame files


def test_a_multi_frame_file(tmp_path: Path) -> None:
    heights = [4.0, 0.0, 2.0]
    path = save(enhanced(heights), tmp_path / "a" / "scan.dcm")
    for place in (path, tmp_path / "a"):
        volume = read_volume(place)
        np.testing.assert_array_equal(volume.array, np.stack([grey(index) for index in (1, 2, 0)]))
        np.testing.assert_allclose(volume.spacing, (2, 0.75, 0.5))
        np.testing.assert_allclose(volume.origin, (10, -20, 0))
        np.testing.assert_allclose(volume.direction, np.eye(3)[:, ::-1])


def test_a_multi_frame_file_with_several_scans_and_scales(tmp_path: Path) -> None:
    dataset = enhanced(
        [0, 0, 2, 2, 4, 4],
        MRDiffusionSequence__DiffusionBValue=[0.0, 800.0] * 3,
        PixelValueTransformationSequence__RescaleSlope=[1, 2, 3, 4, 5, 6],
    )
    path = save(dataset, tmp_path / "scan.dcm")
    assert [series.description for series in list_series(path)] == ["T1 axial, b-value 0", "T1 axial, b-value 800"]
    volume = read_volume(path, series="T1 axial, b-value 800")
    np.testing.assert_array_equal(volume.array, np.stack([grey(1) * 2, grey(3) * 4, grey(5) * 6]))


def test_a_multi_frame_file_with_a_missing_frame_and_a_tilted_one(tmp_path: Path) -> None:
    path = save(enhanced([float(height) for height in range(12) if height != 5]), tmp_path / "scan.dcm")
    with pytest.warns(UserWarning, match="1 of 12 slices are missing, at 5 mm"):
        assert read_volume(path).array.shape[0] == 12
    dataset = enhanced(HEIGHTS)
    for group, shift in zip(dataset.PerFrameFunctionalGroupsSequence, HEIGHTS, strict=True):
        group.PlanePositionSequence = [item(ImagePositionPatient=[10, shift, shift])]
    refused(save(dataset, tmp_path / "tilted.dcm"), "tilted by 45.0 degrees")


def test_frames_without_positions(tmp_path: Path) -> None:
    dataset = enhanced(HEIGHTS)
    del dataset.PerFrameFunctionalGroupsSequence
    dataset.ImagePositionPatient = [0, 0, 0]
    refused(save(dataset, tmp_path / "scan.dcm"), "no position, so their order is unknown")


def test_more_descriptions_than_frames(tmp_path: Path) -> None:
    dataset = enhanced(HEIGHTS)
    dataset.NumberOfFrames = 2
    refused(save(dataset, tmp_path / "scan.dcm"), "scan.dcm is a damaged DICOM file")


def test_a_single_image_as_a_file(tmp_path: Path) -> None:
    refused(
        save(slice_dataset(0, 0), tmp_path / "scan.dcm"), "single DICOM file; .*give the folder of the whole series"
    )


def test_slices_that_do_not_say_how_large_their_pixels_are(tmp_path: Path) -> None:
    refused(save_series(tmp_path, HEIGHTS, PixelSpacing=None), "does not say how large its pixels are")
    refused(save_series(tmp_path, HEIGHTS, PixelSpacing=[0, 1]), "does not say how large its pixels are")


def test_an_orientation_that_is_none(tmp_path: Path) -> None:
    refused(save_series(tmp_path, HEIGHTS, ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "not two perpendicular")


# Beside SimpleITK


def test_the_real_series_is_what_simpleitk_reads(data_dir: Path) -> None:
    folder = data_dir / "vs_seg_dicom"
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    image = sitk.ReadImage(files)
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(image))
    assert volume.array.dtype == sitk.GetArrayFromImage(image).dtype
    np.testing.assert_allclose(volume.spacing[::-1], image.GetSpacing(), rtol=1e-9)
    np.testing.assert_allclose(volume.origin, image.GetOrigin(), atol=1e-9)
    np.testing.assert_allclose(volume.direction[:, ::-1].ravel(), image.GetDirection(), atol=1e-9)
    (series,) = list_series(folder)
    assert (series.number, series.description, series.modality) == (2, "t1_mpr_tra_gk_v4", "MR")


@pytest.mark.parametrize("seed", range(8))
def test_any_orientation_is_what_simpleitk_reads(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    row, column = axes[:, 0], axes[:, 1]
    normal, gap = np.cross(row, column), rng.uniform(0.5, 8)
    spacing, start = rng.uniform(0.2, 2, 2), rng.uniform(-300, 300, 3)

    def change(dataset: Dataset) -> None:
        position = start + gap * normal * (dataset.InstanceNumber - 1)
        dataset.ImagePositionPatient = [round(float(number), 8) for number in position]
        dataset.ImageOrientationPatient = [round(float(number), 8) for number in (*row, *column)]
        dataset.PixelSpacing = [round(float(number), 8) for number in spacing]

    folder = save_series(tmp_path, rng.permutation(5).tolist(), change)
    image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    volume = in_file_order(read_volume(folder))
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(image))
    np.testing.assert_allclose(volume.spacing[::-1], image.GetSpacing(), rtol=1e-6)
    np.testing.assert_allclose(volume.origin, image.GetOrigin(), atol=1e-6)
    np.testing.assert_allclose(volume.direction[:, ::-1].ravel(), image.GetDirection(), atol=1e-6)
