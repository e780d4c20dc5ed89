"""NIfTI-1 headers, bit for bit: what SimpleITK rounds, replaces or does not look at.

SimpleITK replaces qform and sform codes that it does not know, rounds the matrices once more, and reads voxels that are
missing, NaN or infinite as zeros. A label file must be on exactly the scan's grid for every other program too, so the
entries that place the voxels in space are taken from the scan's header and repeated. Offsets are those of nifti1.h.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path

import numpy as np

from napari_oneseg.errors import InputError

__all__ = ["check_voxels", "is_nifti", "read_geometry", "repeat_geometry"]

_HEADER_BYTES = 348
_BLOCK = 1 << 20
_FLOATS = {16: "f4", 64: "f8"}

# Byte offset and struct format. "quatern" holds quatern_b, c, d and qoffset_x, y, z; "srow" the rows srow_x, y, z.
_GEOMETRY = {
    "pixdim": (76, "8f"),
    "xyzt_units": (123, "B"),
    "qform_code": (252, "h"),
    "sform_code": (254, "h"),
    "quatern": (256, "6f"),
    "srow": (280, "12f"),
}


def is_nifti(path: Path) -> bool:
    """Whether the name is that of a NIfTI file."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def check_voxels(path: Path) -> None:
    """Refuse a NIfTI file that SimpleITK would read with zeros in the place of voxels.

    Raises
    ------
    InputError
        If voxels are missing, NaN or infinite, a compressed file is damaged, or the file is not a NIfTI-1 file.
    """
    try:
        with _open(path) as file:
            header = file.read(_HEADER_BYTES)
            order = _byte_order(header)
            if order is None:
                raise InputError(_not_nifti(path.name, header))
            dim = struct.unpack_from(f"{order}8h", header, 40)
            datatype, bits = struct.unpack_from(f"{order}2h", header, 70)
            (offset,) = struct.unpack_from(f"{order}f", header, 108)
            needed = int(np.prod(dim[1 : dim[0] + 1], dtype=float) * bits / 8)
            file.seek(int(offset))
            length, bad = _count(file, needed, f"{order}{_FLOATS[datatype]}" if datatype in _FLOATS else None)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path.name} is damaged or incomplete; copy or export it again.") from error
    if length < needed:
        raise InputError(f"{path.name} is incomplete ({length} of {needed} bytes); copy or export it again.")
    if bad:
        raise InputError(
            f"{path.name} holds {bad} values that are NaN or infinite. Replace them, for instance by the value of air."
        )


def _not_nifti(name: str, header: bytes) -> str:
    if header[:4] in (struct.pack("<i", 540), struct.pack(">i", 540)):
        return f"{name} is a NIfTI-2 file, which cannot be read; save it as NIfTI-1."
    return f"{name} is not a NIfTI file, though its name says so; give the original file."


def _count(file: gzip.GzipFile | BufferedReader, needed: int, dtype: str | None) -> tuple[int, int]:
    """Count bytes and, among the first ``needed``, values that are not finite, to the file's end.

    At the end of a compressed file its checksum is compared.
    """
    length = bad = 0
    while block := file.read(_BLOCK):
        voxels = block[: max(0, needed - length)]
        if dtype is not None:
            values = np.frombuffer(voxels, dtype, len(voxels) // np.dtype(dtype).itemsize)
            bad += int(values.size - np.count_nonzero(np.isfinite(values)))
        length += len(block)
    return length, bad


def read_geometry(path: Path) -> dict[str, str]:
    """Return the entries that place the voxels in space, as text from which the same bits can be made again."""
    with _open(path) as file:
        header = file.read(_HEADER_BYTES)
    order = _byte_order(header)
    return {
        name: " ".join(map(repr, struct.unpack_from(f"{order}{form}", header, offset)))
        for name, (offset, form) in _GEOMETRY.items()
    }


def repeat_geometry(path: Path, entries: Mapping[str, str]) -> None:
    """Put the entries of :func:`read_geometry` into an uncompressed NIfTI file that was written on this machine."""
    with path.open("r+b") as file:
        for name, (offset, form) in _GEOMETRY.items():
            if name in entries:
                number = float if form.endswith("f") else int
                file.seek(offset)
                file.write(struct.pack(f"={form}", *map(number, entries[name].split())))


def _open(path: Path) -> gzip.GzipFile | BufferedReader:
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if compressed else path.open("rb")


def _byte_order(header: bytes) -> str | None:
    """Return the struct byte order in which the header's first entry is its own length, None if there is none."""
    if len(header) < _HEADER_BYTES:
        return None
    return next((order for order in "<>" if struct.unpack_from(f"{order}i", header)[0] == _HEADER_BYTES), None)
