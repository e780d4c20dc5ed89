"""NRRD files: voxels that are not there, and volumes in a list as 3D Slicer writes them."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from napari_oneseg.errors import InputError
from napari_oneseg.io import count_frames, read_volume
from napari_oneseg.nrrd import check_nrrd, listed_volumes, rewrite_nrrd

LARGEST = 2 << 30
SHAPE = (5, 6, 7)
ARRAY = np.random.default_rng(0).integers(0, 90, SHAPE)
TYPES = [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64, np.float32, np.float64]


def written(path: Path, compressed: bool = True, dtype: type = np.int16) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(ARRAY.astype(dtype)), str(path), useCompression=compressed)
    return path


def by_hand(path: Path, voxels: bytes, **fields: str) -> Path:
    own = {"type": "short", "dimension": "3", "sizes": "7 6 5", "endian": "little", "encoding": "raw"} | {
        name.replace("_", " "): text for name, text in fields.items()
    }
    if "space directions" not in own:
        own.setdefault("spacings", "1 1 1")
    header = "NRRD0004\n# by hand\n" + "".join(f"{name}: {text}\n" for name, text in own.items())
    path.write_bytes(header.encode() + b"\n" + voxels)
    return path


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("ending", [".nrrd", ".nhdr"])
@pytest.mark.parametrize("dtype", TYPES)
def test_honest_files_pass(tmp_path: Path, compressed: bool, ending: str, dtype: type) -> None:
    check_nrrd(written(tmp_path / f"scan{ending}", compressed, dtype), LARGEST)


@pytest.mark.parametrize(
    ("fields", "voxels"),
    [
        ({"encoding": "ascii"}, " ".join(map(str, ARRAY.ravel())).encode()),
        ({"encoding": "hex"}, ARRAY.astype("<i2").tobytes().hex().encode()),
        ({"encoding": "gz"}, gzip.compress(ARRAY.astype("<i2").tobytes())),
        ({"byte_skip": "9"}, b"no voxels" + ARRAY.astype("<i2").tobytes()),
        ({"byte_skip": "-1"}, b"no voxels" + ARRAY.astype("<i2").tobytes()),
        ({"line_skip": "2"}, b"no\nvoxels\n" + ARRAY.astype("<i2").tobytes()),
        ({"type": "signed short int"}, ARRAY.astype("<i2").tobytes()),
        ({"type": "unsigned long long int"}, ARRAY.astype("<u8").tobytes()),
    ],
)
def test_voxels_as_other_programs_write_them(tmp_path: Path, fields: dict[str, str], voxels: bytes) -> None:
    path = by_hand(tmp_path / "scan.nrrd", voxels, **fields)
    check_nrrd(path, LARGEST)
    np.testing.assert_array_equal(read_volume(path).array, ARRAY)
    short = by_hand(tmp_path / "short.nrrd", voxels[: len(voxels) // 2], **fields)
    with pytest.raises(InputError, match="incomplete"):
        check_nrrd(short, LARGEST)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("keep", [-1, -50, 420])
def test_a_file_that_was_cut_off(tmp_path: Path, compressed: bool, keep: int) -> None:
    path = written(tmp_path / "scan.nrrd", compressed)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="incomplete"):
        check_nrrd(path, LARGEST)


def test_a_data_file_that_was_cut_off(tmp_path: Path) -> None:
    path = written(tmp_path / "scan.nhdr", compressed=False)
    (tmp_path / "scan.raw").write_bytes(bytes(100))
    with pytest.raises(InputError, match=r"incomplete .100 of 420 bytes"):
        check_nrrd(path, LARGEST)


def test_wrong_bytes_of_packed_voxels_are_noticed(tmp_path: Path) -> None:
    path = written(tmp_path / "scan.nrrd")
    whole = path.read_bytes()
    start = whole.index(b"\n\n") + 2
    last = len(whole) - 9  # its upper bits stand for nothing
    for place in {*range(start + 12, len(whole))} - {last}:  # behind the time that gzip notes
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="damaged"):
            check_nrrd(path, LARGEST)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"sizes: 7 6 5", b"sizes: 99999 6 5", "damaged"),
        (b"sizes: 7 6 5", b"sizes: 99999 99999 5", "46.6 GB.*at most 2 GB|93.1 GB.*at most 2 GB"),
        (b"sizes: 7 6 5", b"sizes: 7 -6 5", "damaged"),
        (b"sizes: 7 6 5", b"sizes: 7 x 5", "damaged"),
        (b"sizes: 7 6 5", b"sizes: 7 6", "damaged"),
        (b"dimension: 3", b"dimension: 99999999999999999999", "damaged"),
        (b"type: short", b"type: block", "damaged"),
        (b"type: short", b"kind: short", "damaged"),
        (b"encoding: gzip", b"encoding: secret", "damaged"),
    ],
)
def test_a_header_that_claims_something_else(tmp_path: Path, old: bytes, new: bytes, said: str) -> None:
    path = written(tmp_path / "scan.nrrd")
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    with pytest.raises(InputError, match=said):
        check_nrrd(path, LARGEST)


def test_what_is_no_nrrd_file_is_left_to_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "scan.nrrd"
    path.write_bytes(b"\x00" * 5000)
    check_nrrd(path, LARGEST)
    assert listed_volumes(path) == 1


@pytest.mark.parametrize("first", [True, False])
def test_volumes_in_a_list(tmp_path: Path, first: bool) -> None:
    """A sequence of 3D Slicer: its volumes are the first axis; other programs make them the last one."""
    volumes = np.random.default_rng(1).integers(0, 99, (3, *SHAPE)).astype("<i2")
    axes = ["(0.5,0,0)", "(0,0.75,0)", "(0,0,2)"]
    path = by_hand(
        tmp_path / "scan.seq.nrrd",
        (np.moveaxis(volumes, 0, -1) if first else volumes).tobytes(),
        dimension="4",
        space="left-posterior-superior",
        sizes="3 7 6 5" if first else "7 6 5 3",
        space_directions=" ".join(["none", *axes] if first else [*axes, "none"]),
        kinds="list domain domain domain" if first else "domain domain domain list",
        space_origin="(1,-2,3)",
    )
    assert count_frames(path) == 3
    for frame in range(3):
        scan = read_volume(path, frame=frame)
        np.testing.assert_array_equal(scan.array, volumes[frame])
        np.testing.assert_allclose((*scan.spacing, *scan.origin), (2, 0.75, 0.5, 1, -2, 3))
    with pytest.raises(InputError, match=r"4 dimensions \(3 volumes.*choose one of its volumes with --frame, 0 to 2"):
        read_volume(path)


def test_colours_are_no_list(tmp_path: Path) -> None:
    path = tmp_path / "scan.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((*SHAPE, 3), np.uint8), isVector=True), str(path))
    assert count_frames(path) == 1
    with pytest.raises(InputError, match="3 values per voxel"):
        read_volume(path, frame=0)


def bzipped(voxels: bytes, packing: str) -> bytes:
    if packing == "in parts, as several processors do it":
        return bz2.compress(voxels[:100]) + bz2.compress(voxels[100:])
    return bz2.compress(b"9 bytes, " + voxels if packing == "after other bytes" else voxels)


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("packing", ["plainly", "in parts, as several processors do it", "after other bytes"])
@pytest.mark.parametrize("name", ["bzip2", "bz2"])
def test_voxels_packed_by_bzip2(tmp_path: Path, beside: bool, packing: str, name: str) -> None:
    voxels = bzipped(ARRAY.astype("<i2").tobytes(), packing)
    fields = {
        "encoding": name,
        "space": "left-posterior-superior",
        "space_directions": "(0.7,0,0) (0,0.8,0) (0,0,3)",
        "space_origin": "(-20,-15,10)",
    } | ({"byte_skip": "9"} if packing == "after other bytes" else {})
    if beside:
        (tmp_path / "voxels.bz2").write_bytes(b"a line\n" + voxels)
        path = by_hand(tmp_path / "scan.nhdr", b"", data_file="voxels.bz2", line_skip="1", **fields)
    else:
        path = by_hand(tmp_path / "scan.nrrd", voxels, **fields)
    scan = read_volume(path)
    np.testing.assert_array_equal(scan.array, ARRAY)
    np.testing.assert_allclose((*scan.spacing, *scan.origin), (3, 0.8, 0.7, -20, -15, 10))
    short = by_hand(tmp_path / "short.nrrd", bzipped(ARRAY.astype("<i2").tobytes(), packing)[:-20], **fields)
    with pytest.raises(InputError, match="damaged"):
        read_volume(short)


def test_bytes_beyond_the_voxels_are_not_unpacked(tmp_path: Path) -> None:
    voxels = ARRAY.astype("<i2").tobytes()
    path = by_hand(tmp_path / "scan.nrrd", bz2.compress(voxels + bytes(64 << 20)), encoding="bzip2")
    assert rewrite_nrrd(path, tmp_path / "plain.nrrd")
    assert (tmp_path / "plain.nrrd").stat().st_size < 1000
    np.testing.assert_array_equal(read_volume(tmp_path / "plain.nrrd").array, ARRAY)


def test_several_files_packed_by_bzip2(tmp_path: Path) -> None:
    path = by_hand(tmp_path / "scan.nhdr", b"", data_file="slice%d.bz2 0 4 1", encoding="bzip2")
    with pytest.raises(InputError, match=r"packed by bzip2.*save it as one file, with gzip"):
        read_volume(path)
