"""Grey values of DICOM images: every way in which they are stored comes out as the same numbers."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)

from napari_oneseg import dicom_series
from napari_oneseg.errors import InputError
from napari_oneseg.io import list_series, read_volume
from tests.dicom_files import enhanced, grey, put_pixels, save, save_series, slice_dataset

HEIGHTS = [0.0, 2.0, 4.0]
STORED = np.stack([grey(index) for index in range(3)])


def read(folder: Path) -> NDArray[Any]:
    return read_volume(folder).array


def refused(path: Path, match: str) -> None:
    with pytest.raises(InputError, match=match):
        read_volume(path)


def by_simpleitk(folder: Path) -> sitk.Image:
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    return sitk.ReadImage(files)


# How numbers are stored


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32"])
def test_types_are_kept(tmp_path: Path, dtype: str) -> None:
    def change(dataset: Dataset) -> None:
        array = grey(dataset.InstanceNumber - 1, dtype)
        array[0, 1:3] = np.iinfo(dtype).min, np.iinfo(dtype).max
        put_pixels(dataset, array)

    array = read(save_series(tmp_path, HEIGHTS, change))
    assert array.dtype == dtype
    np.testing.assert_array_equal(array[:, 1:], STORED[:, 1:])
    assert (array[:, 0, 1:3] == (np.iinfo(dtype).min, np.iinfo(dtype).max)).all()


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("high", [11, 13])
def test_bits_that_are_not_in_use_are_no_grey_values(tmp_path: Path, signed: bool, high: int) -> None:
    values = np.array([0, 1, 2047, *([-1, -2048, -7] if signed else [4095, 2048, 3])] * 4)[:20].reshape(5, 4)

    def change(dataset: Dataset) -> None:
        bits = (values & 0xFFF) << (high - 11)
        put_pixels(dataset, (bits | 0x8000 | (high - 11)).astype(np.uint16), stored=12)
        dataset.HighBit, dataset.PixelRepresentation = high, int(signed)

    array = read(save_series(tmp_path, HEIGHTS, change))
    assert array.dtype == ("int16" if signed else "uint16")
    np.testing.assert_array_equal(array, np.stack([values] * 3))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_uncompressed_files_of_all_kinds(tmp_path: Path, syntax: str) -> None:
    for index, height in enumerate(HEIGHTS):
        dataset = slice_dataset(index, height)
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = grey(index, ">i2").tobytes()
        save(dataset, tmp_path / str(index), syntax)
    np.testing.assert_array_equal(read(tmp_path), STORED)


@pytest.mark.parametrize("implicit", [True, False])
def test_files_of_old_programs_without_a_mark(tmp_path: Path, implicit: bool) -> None:
    for index, height in enumerate(HEIGHTS):
        pydicom.dcmwrite(tmp_path / str(index), slice_dataset(index, height), implicit_vr=implicit, little_endian=True)
    assert not (tmp_path / "0").read_bytes().startswith(bytes(128))
    np.testing.assert_array_equal(read(tmp_path), STORED)


# How they are compressed


def compressed_series(folder: Path, name: str) -> NDArray[Any]:
    """Make a series of one of pydicom's compressed files at three heights; return what one slice holds."""
    source = get_testdata_file(name, download=False)
    if source is None:
        pytest.skip(f"this pydicom comes without {name}")
    for index, height in enumerate(HEIGHTS):
        dataset = pydicom.dcmread(source)
        dataset.ImagePositionPatient, dataset.InstanceNumber = [0, 0, height], index
        dataset.SOPInstanceUID = f"1.2.3.{index}"
        for keyword, value in {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1, 1]}.items():
            if keyword not in dataset:
                setattr(dataset, keyword, value)
        for keyword in ("RescaleSlope", "RescaleIntercept"):
            if keyword in dataset:
                del dataset[keyword]
        dataset.save_as(folder / str(index))
    return sitk.GetArrayFromImage(sitk.ReadImage(source))[0]


@pytest.mark.parametrize("name", ["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"])
def test_lossless_files_hold_what_the_uncompressed_one_holds(tmp_path: Path, name: str) -> None:
    compressed_series(tmp_path, name)
    plain = pydicom.dcmread(get_testdata_file("MR_small.dcm", download=False)).pixel_array
    array = read(tmp_path)
    assert array.dtype == plain.dtype
    np.testing.assert_array_equal(array, np.stack([plain] * 3))


@pytest.mark.parametrize(
    "name",
    ["JPEG2000.dcm", "JPEG-lossy.dcm", "JPGExtended.dcm", "JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm"],
)
def test_lossy_files(tmp_path: Path, name: str) -> None:
    expected = compressed_series(tmp_path, name)
    np.testing.assert_array_equal(read(tmp_path), np.stack([expected] * 3))


@pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000"])
@pytest.mark.parametrize("dtype", ["int16", "uint16", "uint8"])
def test_files_that_simpleitk_compresses(tmp_path: Path, compressor: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    expected = rng.integers(0, 200, (3, 32, 32)).astype(dtype)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.UseCompressionOn()
    writer.SetCompressor(compressor)
    for index, height in enumerate(HEIGHTS):
        image = sitk.GetImageFromArray(expected[index : index + 1])
        for key, value in {
            "0008|0060": "CT",
            "0020|000e": "1.2.3",
            "0008|0018": f"1.2.3.{index}",
            "0020|0032": f"0\\0\\{height}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
        }.items():
            image.SetMetaData(key, value)
        writer.SetFileName(str(tmp_path / f"{index}.dcm"))
        writer.Execute(image)
    assert pydicom.dcmread(tmp_path / "0.dcm").file_meta.TransferSyntaxUID.is_compressed
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array, expected)
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(by_simpleitk(tmp_path)))


def test_jpeg_baseline(tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(32), np.arange(40)).astype(np.uint8)
    data = BytesIO()
    Image.fromarray(smooth).save(data, "jpeg", quality=95)
    for index, height in enumerate(HEIGHTS):
        dataset = slice_dataset(index, height)
        put_pixels(dataset, smooth)
        dataset.PixelData = pydicom.encaps.encapsulate([data.getvalue()])
        dataset["PixelData"].is_undefined_length = True
        save(dataset, tmp_path / str(index), JPEGBaseline8Bit)
    array = read(tmp_path)
    assert array.dtype == np.uint8
    assert np.abs(array.astype(int) - smooth).max() <= 2


def test_a_compressed_multi_frame_file(tmp_path: Path) -> None:
    dataset = enhanced(HEIGHTS)
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.compress(RLELossless, encoding_plugin="pydicom")
    save(dataset, tmp_path / "a", RLELossless)
    np.testing.assert_array_equal(read(tmp_path / "a"), STORED)


def test_an_unknown_kind_of_compression(tmp_path: Path) -> None:
    unknown = "1.2.840.10008.1.2.4.202"  # High-Throughput JPEG 2000
    for index, height in enumerate(HEIGHTS):
        dataset = slice_dataset(index, height)
        dataset.PixelData = pydicom.encaps.encapsulate([bytes(40)])
        dataset["PixelData"].is_undefined_length = True
        save(dataset, tmp_path / str(index), unknown)
    refused(tmp_path, r"damaged, or compressed in a way that is not known .*High-Throughput.*without compression")


# How they are scaled


def test_scales_of_single_slices(tmp_path: Path) -> None:
    def change(dataset: Dataset) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = dataset.InstanceNumber / 2, -3

    array = read(save_series(tmp_path, HEIGHTS, change))
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, STORED * np.array([0.5, 1, 1.5])[:, None, None] - 3)


@pytest.mark.parametrize(
    ("stored", "slope", "intercept", "dtype"),
    [(12, 1, -1024, "int16"), (16, 1, -1024, "int32"), (8, 2, 0, "uint16"), (12, 1, 0, "uint16"), (8, -1, 0, "int16")],
)
def test_whole_scales_keep_whole_numbers(tmp_path: Path, stored: int, slope: int, intercept: int, dtype: str) -> None:
    def change(dataset: Dataset) -> None:
        put_pixels(dataset, grey(dataset.InstanceNumber - 1, "uint16"), stored)

    entries = {"Modality": "CT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}
    folder = save_series(tmp_path, HEIGHTS, change, RescaleSlope=slope, RescaleIntercept=intercept, **entries)
    array = read(folder)
    np.testing.assert_array_equal(array, slope * STORED + intercept)
    assert array.dtype == dtype == sitk.GetArrayFromImage(by_simpleitk(folder)).dtype
    np.testing.assert_array_equal(array, sitk.GetArrayFromImage(by_simpleitk(folder)))


def test_inverted_images_are_turned_around(tmp_path: Path) -> None:
    def change(dataset: Dataset) -> None:
        put_pixels(dataset, grey(dataset.InstanceNumber - 1, "uint16"), 12)
        dataset.PhotometricInterpretation = "MONOCHROME1"

    np.testing.assert_array_equal(read(save_series(tmp_path / "a", HEIGHTS, change)), 4095 - STORED)
    scaled = save_series(tmp_path / "b", HEIGHTS, change, RescaleSlope=2, RescaleIntercept=-1)
    np.testing.assert_array_equal(read(scaled), 2 * (4095 - STORED) - 1)
    # Hounsfield units mean the same however they are displayed.
    np.testing.assert_array_equal(read(save_series(tmp_path / "c", HEIGHTS, change, Modality="CT")), STORED)


def test_missing_slices_are_means_of_their_neighbours(tmp_path: Path) -> None:
    folder = save_series(tmp_path, [float(height) for height in range(22) if height not in (4, 5)])
    with pytest.warns(UserWarning, match="2 of 22 slices are missing"):
        array = read(folder)
    np.testing.assert_array_equal(array[3:7, 0, 0], [60, 67, 73, 80])


# What is no tissue


@pytest.mark.parametrize(
    ("dtype", "value", "limit", "slope", "intercept", "expected"),
    [
        ("int16", -2000, None, 1, 0, (-2000, -2000)),
        ("int16", 63536, None, 1, -1024, (-3024, -3024)),  # -2000, written as if pixels had no sign
        ("uint16", -2000, None, 1, -1024, (62512, 62512)),
        ("uint16", 0, None, 1, -1024, (-1024, -1024)),
        ("int16", -32768, -1500, 2, -1, (-65537, -3001)),
        ("int16", -1500, -32768, 2, -1, (-65537, -3001)),
        ("int16", -2000, None, 0.1, 0.3, (-199.7, -199.7)),
        ("int16", -2000, None, -1, 0, (2000, 2000)),
        ("uint8", 255, 250, 1, 0, (250, 255)),
    ],
)
def test_padding_is_scaled_as_pixels_are(
    tmp_path: Path,
    dtype: str,
    value: int,
    limit: int | None,
    slope: float,
    intercept: float,
    expected: tuple[float, ...],
) -> None:
    ends = [value] if limit is None else [value, limit]

    def change(dataset: Dataset) -> None:
        array = grey(dataset.InstanceNumber - 1, dtype)
        array[0, :2] = np.array([ends[0], ends[-1]]).astype(dtype)
        put_pixels(dataset, array)
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
        for keyword, end in zip(("PixelPaddingValue", "PixelPaddingRangeLimit"), ends, strict=False):
            dataset.add_new(keyword, "SS" if end < 0 else "US", end)

    volume = read_volume(save_series(tmp_path, HEIGHTS, change, Modality="CT"))
    assert volume.padding == pytest.approx(expected)
    low, high = volume.padding
    # To the last bit, floats included: what is padding is found by comparing.
    assert ((volume.array >= low) & (volume.array <= high))[:, 0, :2].all()


@pytest.mark.parametrize(
    "entries",
    [
        {},
        {"PixelPaddingRangeLimit": -2000},
        {"PixelPaddingValue": None},
        {"PixelPaddingValue": -32768, "PixelPaddingRangeLimit": 32767},
        {"PixelPaddingValue": -2000, "BitsStored": 8, "HighBit": 7},
    ],
    ids=["none", "limit only", "empty", "everything", "outside the bits"],
)
def test_what_is_no_padding(tmp_path: Path, entries: dict[str, Any]) -> None:
    def change(dataset: Dataset) -> None:
        for keyword, value in entries.items():
            dataset.add_new(keyword, "US" if keyword in ("BitsStored", "HighBit") else "SS", value)

    assert read_volume(save_series(tmp_path, HEIGHTS, change)).padding is None


def test_padding_of_slices_that_are_scaled_differently(tmp_path: Path) -> None:
    def change(dataset: Dataset) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = dataset.InstanceNumber, 0
        dataset.add_new("PixelPaddingValue", "SS", stored)

    stored = 0
    assert read_volume(save_series(tmp_path / "a", HEIGHTS, change)).padding == (0, 0)
    stored = 5
    assert read_volume(save_series(tmp_path / "b", HEIGHTS, change)).padding is None


def test_padding_in_files_that_do_not_name_types(tmp_path: Path) -> None:
    for index, height in enumerate(HEIGHTS):
        dataset = slice_dataset(index, height)
        dataset.add_new("PixelPaddingValue", "SS", -2000)
        save(dataset, tmp_path / str(index), ImplicitVRLittleEndian)
    assert read_volume(tmp_path).padding == (-2000, -2000)


def test_padding_of_inverted_and_of_multi_frame_images(tmp_path: Path) -> None:
    def change(dataset: Dataset) -> None:
        put_pixels(dataset, grey(dataset.InstanceNumber - 1, "uint16"), 12)
        dataset.PhotometricInterpretation = "MONOCHROME1"
        dataset.add_new("PixelPaddingValue", "US", 4095)
        dataset.add_new("PixelPaddingRangeLimit", "US", 4000)

    assert read_volume(save_series(tmp_path / "a", HEIGHTS, change)).padding == (0, 95)
    dataset = enhanced(HEIGHTS, PixelValueTransformationSequence__RescaleIntercept=[-1024] * 3)
    dataset.add_new("PixelPaddingValue", "SS", 7)
    assert read_volume(save(dataset, tmp_path / "b")).padding == (-1017, -1017)


# What cannot be read


def test_pixels_that_are_cut_off(tmp_path: Path) -> None:
    folder = save_series(tmp_path, HEIGHTS)
    path = sorted(folder.iterdir())[1]
    path.write_bytes(path.read_bytes()[:-7])
    refused(folder, r"The pixels of IM.* cannot be read: they are damaged or incomplete; export")


def test_colours(tmp_path: Path) -> None:
    refused(save_series(tmp_path, HEIGHTS, PhotometricInterpretation="PALETTE COLOR"), "holds colour images; one grey")


@pytest.mark.parametrize(("allocated", "stored"), [(12, 12), (64, 64), (16, 0), (16, 17), (59680, 16)])
def test_odd_numbers_of_bits(tmp_path: Path, allocated: int, stored: int) -> None:
    refused(
        save_series(tmp_path, HEIGHTS, BitsAllocated=allocated, BitsStored=stored), "8, 16 or 32 bits were expected"
    )


def test_claims_of_a_huge_size_are_refused_before_memory_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom_series, "read_grey_values", None)
    folder = save_series(tmp_path, HEIGHTS, Rows=65535, Columns=65535)
    refused(folder, "holds 24.0 GB of grey values; at most 2 GB can be read")
    assert list_series(folder)[0].problem
