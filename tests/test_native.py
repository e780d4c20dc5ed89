"""Names that are not UTF-8, and decimal commas, kept from libraries outside Python."""

from __future__ import annotations

import ctypes
import locale
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from napari_oneseg.errors import OutputError
from napari_oneseg.native import decimal_points, is_plain, plain_path
from tests.locale_fixtures import made_locale

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes any bytes for a name")


def named(folder: Path, name: bytes) -> Path:
    return folder / os.fsdecode(name)


@pytest.mark.parametrize(
    ("name", "plain"), [(b"scan.nii", True), ("schädel 腹部.nii".encode(), True), (b"sch\xe4del", False)]
)
def test_which_names_are_plain(name: bytes, plain: bool) -> None:
    assert is_plain(Path(os.fsdecode(name))) is plain


def test_a_plain_name_is_used_as_it_is(tmp_path: Path) -> None:
    with plain_path(tmp_path / "schädel.nii") as path:
        assert path == tmp_path / "schädel.nii"


@pytest.mark.parametrize("folder", [b"folder", b"M\xfcller"])
@pytest.mark.parametrize("name", [b"scan.nii.gz", b"sch\xe4del.nii.gz", b"\xff.nii.gz", b"a.b\xe4.nii.gz"])
def test_any_name_can_be_read_and_written_under_a_plain_one(tmp_path: Path, folder: bytes, name: bytes) -> None:
    path = named(tmp_path, folder) / os.fsdecode(name)
    path.parent.mkdir()
    with plain_path(path) as plain:
        assert is_plain(plain)
        assert plain.name.endswith(".nii.gz")
        plain.write_bytes(b"written")
    assert path.read_bytes() == b"written"
    with plain_path(path) as plain:
        assert plain.read_bytes() == b"written"
    assert path.exists()
    assert not plain.exists() or plain == path


@pytest.mark.parametrize("ending", [".mhd", ".nhdr"])
@pytest.mark.parametrize("folder", [b"folder", b"M\xfcller"])
@pytest.mark.parametrize("stem", [b"scan", b"sch\xe4del"])
def test_a_file_beside_is_found(tmp_path: Path, ending: str, folder: bytes, stem: bytes) -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / f"stem{ending}"), useCompression=False)
    place = named(tmp_path, folder)
    place.mkdir()
    for file in tmp_path.glob("stem.*"):
        moved = place / os.fsdecode(stem + file.suffix.encode())
        moved.write_bytes(file.read_bytes().replace(b"stem.", stem + b"."))
    with plain_path(place / os.fsdecode(stem + ending.encode())) as plain:
        np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(plain))), array)


def test_a_folder_for_temporary_files_with_such_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named(tmp_path, b"t\xe4mp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(named(tmp_path, b"t\xe4mp")))
    with pytest.raises(OutputError, match="set TMPDIR"), plain_path(named(tmp_path, b"\xe4.nii")):
        pass


@pytest.fixture
def comma(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process whose decimal sign is a comma, as napari makes it where the system's is."""
    called = made_locale("de_DE", tmp_path)
    monkeypatch.setenv("LOCPATH", str(tmp_path))
    before = locale.setlocale(locale.LC_ALL)
    locale.setlocale(locale.LC_ALL, called)
    yield
    locale.setlocale(locale.LC_ALL, before)


def strtod(text: bytes) -> float:
    library = ctypes.CDLL(None)
    library.strtod.restype = ctypes.c_double
    return float(library.strtod(text, None))


@pytest.mark.usefixtures("comma")
def test_decimal_points_within_the_block_only() -> None:
    assert strtod(b"3.75") == 3.0
    with decimal_points():
        assert strtod(b"3.75") == 3.75
        with decimal_points():
            assert strtod(b"3.75") == 3.75
        assert strtod(b"3.75") == 3.75
    assert strtod(b"3.75") == 3.0
    assert locale.localeconv()["decimal_point"] == ","


@pytest.mark.usefixtures("comma")
def test_other_threads_keep_their_decimal_sign() -> None:
    seen: list[float] = []
    with decimal_points():
        other = threading.Thread(target=lambda: seen.append(strtod(b"3.75")))
        other.start()
        other.join()
    assert seen == [3.0]


@pytest.mark.usefixtures("comma")
def test_where_only_the_whole_process_can_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_oneseg.native._posix_library", lambda: None)
    with decimal_points():
        assert strtod(b"3.75") == 3.75
    assert strtod(b"3.75") == 3.0
