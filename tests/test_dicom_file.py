"""DICOM files made to cost more than they hold."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from napari_oneseg import dicom_file
from napari_oneseg.dicom_file import mute_libraries, parse_entries, parse_with_pixels
from napari_oneseg.errors import InputError
from napari_oneseg.io import list_series, read_volume
from tests.dicom_files import grey, save, save_series, slice_dataset

HEIGHTS = [0.0, 2.0, 4.0]


def with_zeros(path: Path, count: int) -> Path:
    """A deflated slice, followed by zeros in the same deflated stream."""
    whole = save(slice_dataset(3, 6.0), path, DeflatedExplicitVRLittleEndian).read_bytes()
    start = 144 + struct.unpack_from("<I", whole, 140)[0]
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(zlib.decompress(whole[start:], -15))
    packed += b"".join(packer.compress(bytes(1 << 20)) for _ in range(count >> 20)) + packer.flush()
    path.write_bytes(whole[:start] + packed)
    return path


@pytest.mark.parametrize("read", [list_series, read_volume])
def test_a_small_file_that_unpacks_to_much_more_is_refused(tmp_path: Path, read: object) -> None:
    save_series(tmp_path, HEIGHTS)
    path = with_zeros(tmp_path / "bomb", 40 << 20)
    assert path.stat().st_size < 100_000
    tracemalloc.start()
    with pytest.raises(InputError, match=r"bomb unpacks to more than 16 MB.*without compression, or take the file out"):
        read(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_a_deflated_series_is_read_as_it_is(tmp_path: Path) -> None:
    for index, height in enumerate([*HEIGHTS, 6.0]):
        save(slice_dataset(index, height), tmp_path / f"{index}", DeflatedExplicitVRLittleEndian)
    np.testing.assert_array_equal(read_volume(tmp_path).array, [grey(index) for index in range(4)])


def test_what_follows_the_pixels_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_file, "_MOST_ENTRIES", 100)
    dataset = parse_with_pixels(with_zeros(tmp_path / "one", 2 << 20))
    assert dataset.PixelData == grey(3).tobytes()
    assert len(dataset) < 30


def test_endless_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_file, "_MOST_ENTRIES", 10)
    path = save(slice_dataset(0, 0.0), tmp_path / "one")
    with pytest.raises(ValueError, match="more entries"):
        parse_entries(path, ["Rows"])


@pytest.mark.parametrize("claimed", [0xFFFFFFF0, 0x7FFFFFFF])
def test_memory_is_set_aside_for_what_there_is_only(tmp_path: Path, claimed: int) -> None:
    path = save(slice_dataset(0, 0.0), tmp_path / "one", ImplicitVRLittleEndian)
    content = bytearray(path.read_bytes())
    place = content.index(struct.pack("<HH", 0x0008, 0x103E)) + 4  # the length of the series' description
    struct.pack_into("<I", content, place, claimed)
    path.write_bytes(content)
    tracemalloc.start()
    with contextlib.suppress(*dicom_file.DAMAGED):
        parse_entries(path, ["SeriesDescription"])
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_file_meta_of_old_programs_is_looked_at_too(tmp_path: Path) -> None:
    """Group 2 without types, as pydicom accepts it, does not hide that the rest is deflated."""
    path = with_zeros(tmp_path / "bomb", 40 << 20)
    content = path.read_bytes()
    meta = pydicom.dcmread(BytesIO(content), stop_before_pixels=True, specific_tags=["Rows"]).file_meta
    end = 144 + meta.FileMetaInformationGroupLength
    uid = DeflatedExplicitVRLittleEndian.encode()
    uid += bytes(len(uid) % 2)
    implicit = struct.pack("<HHI", 2, 0x10, len(uid)) + uid
    path.write_bytes(content[:132] + implicit + content[end:])
    with pytest.raises(InputError, match="unpacks to more than 16 MB"):
        list_series(path)


def test_only_the_warnings_of_the_dicom_libraries_are_muted() -> None:
    """The libraries' warnings stay away, everybody else's are shown."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mute_libraries()
        warnings.warn_explicit("Smith^John", UserWarning, "values.py", 1, module="pydicom.valuerep")
        with pytest.raises(UserWarning, match="of another"):
            warnings.warn_explicit("of another", UserWarning, "array.py", 1, module="numpy.core")
