"""One DICOM file, parsed by pydicom within bounds: what a file claims to hold costs no more than what it holds."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Sequence
from io import BufferedReader, FileIO
from pathlib import Path
from typing import BinaryIO

import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset, read_partial
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from napari_oneseg.errors import InputError
from napari_oneseg.image_formats import DICOM_HEAD, has_dicom_mark
from napari_oneseg.packed import unpacked_length

__all__ = ["DAMAGED", "mute_libraries", "parse_entries", "parse_with_pixels"]

DAMAGED = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError),
    *(NotImplementedError, struct.error, zlib.error, InvalidDicomError, BytesLengthException),
)
"""What pydicom raises on files that are damaged, or were made to do harm."""

_PIXELS = {0x7FE00008, 0x7FE00009, 0x7FE00010}  # as doubles, floats and integers
_MOST_ENTRIES = 20_000  # beside those in sequences
# Images of scans become three times smaller, empty ones a thousand times; pydicom unpacks whatever there is.
_UNPACKED_AT_LEAST, _UNPACKED_TIMES = 16 << 20, 20


def mute_libraries() -> None:
    """Let no warning of the DICOM libraries be shown any more; to be called before each use of them.

    They are about odd headers, which are the scanner's affair, and quote the patient's name. What is shown is a setting
    of the whole process, so a block that restores it would undo what other threads have set meanwhile.
    """
    warnings.filterwarnings("ignore", module=r"(pydicom|highdicom|napari_oneseg\.dicom)")


def parse_entries(path: Path, keywords: Sequence[str | int]) -> pydicom.Dataset:
    """Parse the entries that stand before the pixels; of those only the ones that are wanted are kept.

    Private ones have no keyword, and are wanted by their tag.

    Raises
    ------
    InputError
        If the file unpacks to far more than it is.
    Exception
        One of :data:`DAMAGED`, if the file is.
    """
    with _Clipped(path) as file:
        _check_deflated(path, file)
        return read_partial(file, _Until(with_pixels=False), force=True, specific_tags=[Tag(one) for one in keywords])


def parse_with_pixels(path: Path) -> pydicom.FileDataset:
    """Parse a file up to its pixels, and them; what follows is left aside. See :func:`parse_entries` for its errors."""
    with _Clipped(path) as file:
        _check_deflated(path, file)
        return read_partial(file, _Until(with_pixels=True), force=True)


class _Clipped(BufferedReader):
    """A file that sets aside memory for what there is in it only, however much is asked for."""

    def __init__(self, path: Path) -> None:
        super().__init__(FileIO(str(path)))
        self._end = path.stat().st_size

    def read(self, size: int | None = -1) -> bytes:
        """Read at most so many bytes; all by default."""
        there = max(0, self._end - self.tell())
        return super().read(there if size is None or size < 0 else min(size, there))


class _Until:
    """Where to stop parsing."""

    def __init__(self, with_pixels: bool) -> None:
        self._with_pixels = with_pixels
        self._count, self._passed = 0, False

    def __call__(self, tag: int, _kind: str | None, _length: int) -> bool:
        self._count += 1
        if self._count > _MOST_ENTRIES:
            raise ValueError("more entries than any image has")
        if self._passed:
            return True
        self._passed = tag in _PIXELS
        return self._passed and not self._with_pixels


def _check_deflated(path: Path, file: BinaryIO) -> None:
    """Refuse a deflated file that unpacks to far more than it is, before pydicom unpacks it whole."""
    start = DICOM_HEAD if has_dicom_mark(path) else 0
    if _file_meta(file, start).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        most = max(_UNPACKED_AT_LEAST, _UNPACKED_TIMES * path.stat().st_size)
        if unpacked_length(file, most, "deflate") > most:
            raise InputError(
                f"{path.name} unpacks to more than {most >> 20} MB, far more than an image of its size does; export "
                "the series without compression, or take the file out of the folder."
            )
    file.seek(0)


def _file_meta(file: BinaryIO, start: int) -> pydicom.Dataset:
    """Read group 2 in the way in which pydicom does; the file is left behind it."""
    meta = pydicom.Dataset()
    for implicit in (False, True):
        file.seek(start)
        meta = read_dataset(file, implicit, True, stop_when=lambda tag, *_: tag >> 16 != 2)
        try:
            # Where the first entry makes no sense as an explicit one, pydicom takes all for implicit ones.
            for tag in list(meta.keys())[:1]:
                meta[tag]
        except NotImplementedError:
            continue
        break
    return meta
