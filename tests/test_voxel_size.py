"""Files that do not say how large their voxels are, or say 0 or NaN."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_oneseg.errors import AnnotationError, InputError
from napari_oneseg.file_order import in_file_order
from napari_oneseg.io import read_labels, read_volume, read_volume_with_remarks, write_labels
from napari_oneseg.volume import Volume

SHAPE = (5, 6, 7)
ARRAY = np.random.default_rng(0).integers(0, 900, SHAPE).astype("<i2")
GIVEN = (3.0, 0.8, 0.7)
SFORM = ((0.7, 0, 0, -20), (0, 0.8, 0, -15), (0, 0, 3, 10))


def nifti(path: Path, pixdim: tuple[float, ...], sform: Any = None, qform: bool = False, offset: float = 352) -> Path:
    """Write a NIfTI file by hand, as no library writes such sizes."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *SHAPE[::-1], 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 4, 16)
    struct.pack_into("<8f", header, 76, 1, *pixdim, 0, 0, 0, 0)
    struct.pack_into("<3f", header, 108, offset, 1, 0)
    header[123] = 2
    struct.pack_into("<2h", header, 252, int(qform), int(sform is not None))
    struct.pack_into("<6f", header, 256, 0, 0, 0, -20, -15, 10)
    if sform is not None:
        struct.pack_into("<12f", header, 280, *np.ravel(sform))
    header[344:348] = b"n+1\0"
    path.write_bytes(bytes(header) + ARRAY.tobytes())
    return path


def nrrd(path: Path, lines: str) -> Path:
    head = f"NRRD0004\ntype: int16\ndimension: 3\nsizes: 7 6 5\nendian: little\nencoding: raw\n{lines}\n"
    path.write_bytes(head.encode() + ARRAY.tobytes())
    return path


def meta_image(path: Path, lines: str) -> Path:
    head = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nDimSize = 7 6 5\n"
        f"{lines}ElementType = MET_SHORT\nElementDataFile = "
    )
    if path.suffix == ".mhd":
        path.with_suffix(".raw").write_bytes(ARRAY.tobytes())
        path.write_bytes(f"{head}{path.stem}.raw\n".encode())
    else:
        path.write_bytes(f"{head}LOCAL\n".encode() + ARRAY.tobytes())
    return path


DIRECTIONS = "space: left-posterior-superior\nspace directions: "
UNKNOWN = {
    "zero.nii": lambda path: nifti(path, (0.7, 0.8, 0)),
    "nan.nii": lambda path: nifti(path, (0.7, 0.8, np.nan)),
    "all.nii": lambda path: nifti(path, (0, 0, 0)),
    "infinite.nii": lambda path: nifti(path, (0.7, 0.8, np.inf)),
    "qform.nii": lambda path: nifti(path, (0.7, 0.8, 0), qform=True),
    "flat.nii": lambda path: nifti(path, (0.7, 0.8, 0), ((0.7, 0, 0, 0), (0, 0.8, 0, 0), (0, 0, 0, 0))),
    "none.nrrd": lambda path: nrrd(path, ""),
    "nan.nrrd": lambda path: nrrd(path, "spacings: 0.7 0.8 nan\n"),
    "zero.nrrd": lambda path: nrrd(path, "spacings: 0.7 0.8 0\n"),
    "infinite.nrrd": lambda path: nrrd(path, "spacings: 0.7 0.8 inf\n"),
    "space.nrrd": lambda path: nrrd(path, "space: left-posterior-superior\nspace origin: (1,2,3)\n"),
    "vector.nrrd": lambda path: nrrd(path, f"{DIRECTIONS}(0.7,0,0) (0,0.8,0) (0,0,0)\n"),
    "nans.nrrd": lambda path: nrrd(path, f"{DIRECTIONS}(0.7,0,0) (0,0.8,0) (nan,nan,nan)\n"),
    "no vector.nrrd": lambda path: nrrd(path, f"{DIRECTIONS}(0.7,0,0) (0,0.8,0) none\n"),
    "none.mha": lambda path: meta_image(path, ""),
    "zero.mha": lambda path: meta_image(path, "ElementSpacing = 0.7 0.8 0\n"),
    "nan.mha": lambda path: meta_image(path, "ElementSpacing = 0.7 0.8 nan\n"),
    "all.mha": lambda path: meta_image(path, "ElementSpacing = 0 0 0\n"),
    "none.mhd": lambda path: meta_image(path, ""),
    "zero.mhd": lambda path: meta_image(path, "ElementSpacing = 0.7 0.8 0\nHeaderSize = -1\n"),
}
KNOWN = {
    "plain.nii": lambda path: nifti(path, (0.7, 0.8, 3)),
    "matrix.nii": lambda path: nifti(path, (0, 0, 0), SFORM),
    "nan beside a matrix.nii": lambda path: nifti(path, (0.7, np.nan, 3), SFORM),
    "spacings.nrrd": lambda path: nrrd(path, "spacings: 0.7 0.8 3\n"),
    "vectors.nrrd": lambda path: nrrd(path, f"{DIRECTIONS}(0.7,0,0) (0,0.8,0) (0,0,3)\n"),
    "spacing.mha": lambda path: meta_image(path, "ElementSpacing = 0.7 0.8 3\n"),
    "size.mha": lambda path: meta_image(path, "ElementSize = 0.7 0.8 3\n"),
}
unknown = pytest.mark.parametrize("name", UNKNOWN)


def silent(path: Path, **given: Any) -> Volume:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_volume(path, **given)


@unknown
def test_what_is_assumed_is_told(tmp_path: Path, name: str) -> None:
    scan, remarks = read_volume_with_remarks(UNKNOWN[name](tmp_path / name))
    assert not scan.spacing_known
    assert not in_file_order(scan).spacing_known
    np.testing.assert_array_equal(in_file_order(scan).array, ARRAY)
    assert scan.spacing[0] == 1.0
    (remark,) = remarks
    assert f"{name} does not say how large its voxels are: 1 x " in remark
    assert "--spacing Z,Y,X" in remark
    with pytest.warns(UserWarning, match="does not say how large its voxels are"):
        read_volume(tmp_path / name)


@pytest.mark.parametrize("name", KNOWN)
def test_nothing_is_told_where_the_file_says_it(tmp_path: Path, name: str) -> None:
    scan = silent(KNOWN[name](tmp_path / name))
    assert scan.spacing_known
    np.testing.assert_allclose(scan.spacing, GIVEN, rtol=1e-6)
    np.testing.assert_array_equal(in_file_order(scan).array, ARRAY)
    if "matrix" in name:
        np.testing.assert_allclose(in_file_order(scan).origin, (20, 15, 10))


@unknown
@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_labels_lie_on_the_scan_whose_size_was_given(tmp_path: Path, name: str, ending: str) -> None:
    path = UNKNOWN[name](tmp_path / name)
    given = silent(path, spacing=GIVEN)
    assert given.spacing_known
    np.testing.assert_allclose(given.spacing, GIVEN)
    labels = (ARRAY > 500).astype(np.uint8)
    write_labels(tmp_path / f"labels{ending}", labels, given)
    np.testing.assert_array_equal(read_labels(tmp_path / f"labels{ending}", given), labels)
    again = silent(tmp_path / f"labels{ending}")
    np.testing.assert_allclose((*again.spacing, *again.origin), (*given.spacing, *given.origin), rtol=1e-6)
    np.testing.assert_allclose(again.direction, given.direction, atol=1e-6)


@unknown
@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_labels_drawn_before_the_size_was_given(tmp_path: Path, name: str, ending: str) -> None:
    path = UNKNOWN[name](tmp_path / name)
    labels = (ARRAY > 500).astype(np.uint8)
    assumed, _ = read_volume_with_remarks(path)
    write_labels(tmp_path / f"labels{ending}", labels, assumed)
    for scan in (assumed, silent(path, spacing=GIVEN)):
        np.testing.assert_array_equal(read_labels(tmp_path / f"labels{ending}", scan), labels)
    other = Volume(ARRAY, (5.0, 5.0, 5.0), assumed.origin, assumed.direction)
    write_labels(tmp_path / "other.nrrd", labels, other)
    with pytest.raises(AnnotationError, match="spacing"):
        read_labels(tmp_path / "other.nrrd", assumed)


@pytest.mark.parametrize("name", KNOWN)
def test_a_size_that_the_file_contradicts(tmp_path: Path, name: str) -> None:
    path = KNOWN[name](tmp_path / name)
    np.testing.assert_allclose(silent(path, spacing=GIVEN).spacing, GIVEN, rtol=1e-6)
    with pytest.raises(InputError, match=r"says how large its voxels are: 3 x 0.8 x 0.7 mm, not 3 x 0.8 x 0.8 mm"):
        read_volume(path, spacing=(3, 0.8, 0.8))


@pytest.mark.parametrize("offset", [0, 352])
@pytest.mark.parametrize("sform", [None, SFORM])
def test_voxels_that_begin_behind_the_header(tmp_path: Path, offset: float, sform: Any) -> None:
    """Where a header says 0, other readers look behind it and the four bytes of its extensions."""
    scan = silent(nifti(tmp_path / "scan.nii", (0.7, 0.8, 3), sform, offset=offset))
    np.testing.assert_array_equal(in_file_order(scan).array, ARRAY)


@pytest.mark.parametrize("offset", [1, 10, 40, 347])
def test_voxels_that_begin_within_the_header(tmp_path: Path, offset: float) -> None:
    path = nifti(tmp_path / "scan.nii", (0.7, 0.8, 3), offset=offset)
    with pytest.raises(
        InputError, match=f"begin at byte {offset}, within its own header of 348 bytes; export it again"
    ):
        read_volume(path)


@pytest.mark.parametrize(
    "lines",
    ["ElementSpacing = 0.7 0.8 0\nHeaderSize = x\n", "ElementSpacing = 0.7 0.8 x\n", "ElementSpacing = x\n"],
)
def test_a_header_that_holds_no_numbers(tmp_path: Path, lines: str) -> None:
    try:
        scan, _ = read_volume_with_remarks(meta_image(tmp_path / "scan.mhd", lines))
    except InputError:
        return
    assert not scan.spacing_known
