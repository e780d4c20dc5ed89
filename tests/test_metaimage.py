"""MetaImage files with damaged voxels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from napari_oneseg.errors import InputError
from napari_oneseg.io import read_volume
from napari_oneseg.metaimage import check_meta_image


def written(path: Path, compressed: bool = True, dtype: type = np.int16) -> Path:
    array = np.random.default_rng(0).integers(0, 90, (5, 6, 7)).astype(dtype)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path), useCompression=compressed)
    return path


TYPES = [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64, np.float32, np.float64]


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("ending", [".mha", ".mhd"])
@pytest.mark.parametrize("dtype", TYPES)
def test_honest_files_pass(tmp_path: Path, compressed: bool, ending: str, dtype: type) -> None:
    check_meta_image(written(tmp_path / f"scan{ending}", compressed, dtype))


def test_a_large_file_is_read_in_blocks(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 9, (30, 300, 400)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "scan.mha"), useCompression=True)
    check_meta_image(tmp_path / "scan.mha")
    sitk.WriteImage(sitk.GetImageFromArray(0 * array), str(tmp_path / "empty.mha"), useCompression=True)
    check_meta_image(tmp_path / "empty.mha")


@pytest.mark.parametrize("keep", [-1, -50, 300])
@pytest.mark.parametrize("compressed", [True, False])
def test_a_file_that_was_cut_off(tmp_path: Path, compressed: bool, keep: int) -> None:
    path = written(tmp_path / "scan.mha", compressed)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="incomplete"):
        check_meta_image(path)


def test_any_wrong_byte_of_packed_voxels_is_noticed(tmp_path: Path) -> None:
    path = written(tmp_path / "scan.mha")
    whole = path.read_bytes()
    start = whole.index(b"LOCAL\n") + 6
    for place in range(start + 2, len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="damaged"):
            check_meta_image(path)


@pytest.mark.parametrize(
    "pattern", [b"%n%s", b"%s", b"s%d%d.raw", b"s%3000d.raw", b"s%03d.raw 0 3 1", b"s%03d.raw 5 0"]
)
def test_a_pattern_that_names_no_slices(tmp_path: Path, pattern: bytes) -> None:
    path = written(tmp_path / "scan.mha")
    path.write_bytes(path.read_bytes().replace(b"= LOCAL", b"= " + pattern, 1))
    with pytest.raises(InputError, match=r"a pattern with their first and last number was expected.*Save it as one"):
        check_meta_image(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"DimSize = 7 6 5", b"DimSize = 7 6 50000000"),
        (b"DimSize = 7 6 5", b"DimSize = 7 6 4"),
        (b"DimSize = 7 6 5", b"DimSize = 7 -6 5"),
        (b"DimSize = 7 6 5", b"DimSize = 7 6 x"),
        (b"CompressedDataSize = ", b"CompressedDataSize = 2147483"),
        (b"NDims = 3", b"NDims = 99999999999999999999"),
        (b"NDims = 3", b"NDims = -1"),
        (b"CompressedDataSize = ", b"CompressedDataSize = -"),
        (b"= LOCAL", b"= "),
        (b"ElementDataFile", b"ElementDateFile"),
        (b"= LOCAL", b"= " + 5000 * b"a"),
        (b"CompressedDataSize = ", b"CompressedDataSize\0\0\0"),
        (b"Offset =", b"Offset\x1f="),
        (b"= LOCAL", b"=\0LOCAL"),
    ],
)
def test_a_header_that_claims_other_sizes(tmp_path: Path, old: bytes, new: bytes) -> None:
    path = written(tmp_path / "scan.mha")
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    with pytest.raises(InputError, match="damaged"):
        check_meta_image(path)


def test_what_is_no_meta_image_is_left_to_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "scan.mha"
    path.write_bytes(b"\x00" * 5000)
    check_meta_image(path)


ARRAY = np.random.default_rng(1).integers(0, 900, (5, 6, 7)).astype("<i2")


def slices(folder: Path, pattern: str, first: int = 0, step: int = 1, header: bytes = b"", **entries: str) -> Path:
    """Write a MetaImage header, and one file for each slice."""
    own = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "DimSize": "7 6 5",
        "ElementSpacing": "0.7 0.8 3",
        "Offset": "-20 -15 10",
        "ElementType": "MET_SHORT",
    } | entries
    for index, image in enumerate(ARRAY):
        (folder / (pattern.split(maxsplit=1)[0] % (first + index * step))).write_bytes(header + image.tobytes())
    path = folder / "scan.mhd"
    text = "".join(f"{key} = {value}\n" for key, value in own.items())
    path.write_text(f"{text}ElementDataFile = {pattern}\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("pattern", "first", "step"),
    [
        ("s%03d.raw 0 4 1", 0, 1),
        ("s%03d.raw 0 9 1", 0, 1),
        ("s%d.raw", 1, 1),
        ("%02d 7", 7, 1),
        ("a%04d.raw 2 10 2", 2, 2),
    ],
)
def test_a_pattern_of_file_names(tmp_path: Path, pattern: str, first: int, step: int) -> None:
    scan = read_volume(slices(tmp_path, pattern, first, step))
    np.testing.assert_array_equal(scan.array, ARRAY)
    np.testing.assert_allclose((*scan.spacing, *scan.origin), (3, 0.8, 0.7, -20, -15, 10))


@pytest.mark.parametrize("skip", ["4", "-1"])
def test_slices_with_a_header_of_their_own(tmp_path: Path, skip: str) -> None:
    path = slices(tmp_path, "s%d.raw 0 4 1", header=b"head", HeaderSize=skip)
    np.testing.assert_array_equal(read_volume(path).array, ARRAY)


def test_a_pattern_in_another_folder(tmp_path: Path) -> None:
    (tmp_path / "slices").mkdir()
    np.testing.assert_array_equal(read_volume(slices(tmp_path, "slices/s%d.raw 0 4 1")).array, ARRAY)


def test_slices_that_are_missing_short_or_packed(tmp_path: Path) -> None:
    path = slices(tmp_path, "s%d.raw 0 4 1")
    (tmp_path / "s2.raw").write_bytes(b"short")
    with pytest.raises(InputError, match=r"s2.raw, a slice of scan.mhd, is missing or incomplete"):
        read_volume(path)
    (tmp_path / "s2.raw").unlink()
    with pytest.raises(InputError, match=r"s2.raw, a slice of scan.mhd, is missing or incomplete"):
        read_volume(path)
    with pytest.raises(InputError, match="packed files, one for each slice; save it as one"):
        read_volume(slices(tmp_path, "s%d.raw 0 4 1", CompressedData="True"))
