"""MetaImage files with damaged voxels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from napari_oneseg.errors import InputError
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
        (b"= LOCAL", b"= %n%s"),
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
