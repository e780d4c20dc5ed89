"""NIfTI headers, bit for bit: what SimpleITK rounds, replaces or does not look at.

SimpleITK replaces qform and sform codes that it does not know, rounds the matrices once more, and reads voxels that are
missing, NaN or infinite as zeros. A label file must be on exactly the scan's grid for every other program too, so the
entries that place the voxels in space are taken from the scan's header and repeated. Files of NIfTI-2, which SimpleITK
does not know, are rewritten as NIfTI-1 to be read. Offsets are those of nifti1.h and nifti2.h.
"""

from __future__ import annotations

import gzip
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_oneseg.errors import InputError
from napari_oneseg.nifti_geometry import mended

__all__ = [
    "as_nifti_1",
    "check_voxels",
    "count_volumes",
    "is_as_simpleitk_reads",
    "is_nifti",
    "read_geometry",
    "read_volumes",
    "repeat_geometry",
    "too_large",
]

_HEADER_BYTES = 348
_HEADER_BYTES_2 = 540
_BLOCK = 1 << 20
_FLOATS = {16: "f4", 64: "f8"}
_TYPES = _FLOATS | {2: "u1", 4: "i2", 8: "i4", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}

# Byte offset and struct format. "quatern" holds quatern_b, c, d and qoffset_x, y, z; "srow" the rows srow_x, y, z.
_GEOMETRY = {
    "pixdim": (76, "8f"),
    "xyzt_units": (123, "B"),
    "qform_code": (252, "h"),
    "sform_code": (254, "h"),
    "quatern": (256, "6f"),
    "srow": (280, "12f"),
}
_GEOMETRY_2 = {
    "pixdim": (104, "8d"),
    "xyzt_units": (500, "i"),
    "qform_code": (344, "i"),
    "sform_code": (348, "i"),
    "quatern": (352, "6d"),
    "srow": (400, "12d"),
}
# Sizes, type, bits per voxel, where the voxels begin, and slope and intercept.
_VOXELS = ((40, "8h"), (70, "h"), (72, "h"), (108, "f"), (112, "2f"))
_VOXELS_2 = ((16, "8q"), (12, "h"), (14, "h"), (168, "q"), (176, "2d"))


def is_nifti(path: Path) -> bool:
    """Whether the name is that of a NIfTI file."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def is_as_simpleitk_reads(path: Path) -> bool:
    """Whether SimpleITK reads a 3D file rightly as it is; another one is to be rewritten by :func:`as_nifti_1`.

    It knows no NIfTI-2, takes voxels that begin at byte 0 for such that begin within the header's last bytes, and takes
    1 mm for the size of voxels that only the matrix tells.
    """
    with _open(path) as file:
        header = file.read(_HEADER_BYTES_2)
    order = _byte_order(header, _HEADER_BYTES)
    if order is None:
        return False
    (offset,) = _unpack(header, order, _VOXELS[3])
    entries = read_geometry(path)
    return bool(offset >= _HEADER_BYTES and mended(entries) == entries)


_LARGEST_OFFSET = 1 << 40
"""Systems refuse to look beyond what no file can be."""


def count_volumes(path: Path) -> int:
    """Return how many volumes a 4D file holds; 1 for a file of three dimensions, or of more than four.

    Raises
    ------
    InputError
        If it is not a NIfTI file, or is damaged.
    """
    try:
        with _open(path) as file:
            _, dim, *_ = _layout(file.read(_HEADER_BYTES_2), path.name)
    except InputError:
        raise
    except (EOFError, ValueError, OverflowError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(_damaged(path)) from error
    return _volumes(dim)


def _volumes(dim: tuple[int, ...]) -> int:
    sizes = dim[1 : dim[0] + 1]
    # Axes beyond the fourth hold what is said of one voxel, such as a vector.
    return max(1, sizes[3]) if len(sizes) >= 4 and all(size == 1 for size in sizes[4:]) else 1


def check_voxels(path: Path, largest: int, volume: int = 0, with_nan: bool = False) -> int:
    """Refuse a NIfTI file that SimpleITK would read with zeros in the place of voxels, or with too many of them.

    Parameters
    ----------
    path
        The file.
    largest
        Bytes of voxels that are read at most.
    volume
        Which volume of a 4D file is to be read.
    with_nan
        Whether voxels may be NaN, which SimpleITK reads as 0.

    Returns
    -------
    How many voxels are NaN.

    Raises
    ------
    InputError
        If voxels are missing, those to be read are NaN, infinite or more than ``largest``, a compressed file is
        damaged, or the file is not a NIfTI file.
    """
    try:
        with _open(path) as file:
            order, dim, datatype, bits, offset = _layout(file.read(_HEADER_BYTES_2), path.name)
            needed = int(np.prod(dim[1 : dim[0] + 1], dtype=float) * bits / 8)
            one = needed // _volumes(dim)
            if one > largest:
                raise InputError(too_large(path.name, one, largest))
            if not 0 <= offset <= _LARGEST_OFFSET:
                raise ValueError("voxels cannot lie there")  # noqa: TRY301 - told with the others
            file.seek(offset)
            length, nan, infinite = _count(
                file,
                (volume * one, (volume + 1) * one),
                needed + largest,
                f"{order}{_FLOATS[datatype]}" if datatype in _FLOATS else None,
            )
    except (EOFError, ValueError, OverflowError, gzip.BadGzipFile, zlib.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(_damaged(path)) from error
    if length < needed:
        raise InputError(f"{path.name} is incomplete ({length} of {needed} bytes); copy or export it again.")
    bad = infinite + (0 if with_nan else nan)
    if bad:
        raise InputError(
            f"{path.name} holds {bad} values that are NaN or infinite. Replace them, for instance by the value of air."
        )
    return nan


def _damaged(path: Path) -> str:
    return f"{path.name} is damaged or incomplete; copy or export it again."


def too_large(name: str, size: int, largest: int) -> str:
    """Say that a file holds more voxels than are read."""
    return (
        f"{name} holds {size / 2**30:.1f} GB of voxels; at most {largest >> 30} GB can be read: crop or downsample it."
    )


def _not_nifti(name: str) -> str:
    return f"{name} is not a NIfTI file, though its name says so; give the original file."


def _count(
    file: gzip.GzipFile | BufferedReader, part: tuple[int, int], most: int, dtype: str | None
) -> tuple[int, int, int]:
    """Count bytes to the file's end and, in the part between two of them, values that are NaN, and infinite ones.

    At the end of a compressed file its checksum is compared.
    """
    length = nan = infinite = 0
    while block := file.read(_BLOCK):
        # The first byte of a block is the first of a value, because all blocks but the last are as long.
        voxels = block[max(0, part[0] - length) : max(0, part[1] - length)]
        if dtype is not None:
            values = np.frombuffer(voxels, dtype, len(voxels) // np.dtype(dtype).itemsize)
            nan += int(np.count_nonzero(np.isnan(values)))
            infinite += int(np.count_nonzero(np.isinf(values)))
        length += len(block)
        if length > most:  # nobody waits for the end of a file that was made to have none
            break
    return length, nan, infinite


def read_geometry(path: Path) -> dict[str, str]:
    """Return the entries that place the voxels in space, as text from which the same bits can be made again."""
    with _open(path) as file:
        header = file.read(_HEADER_BYTES_2)
    order = _byte_order(header, _HEADER_BYTES_2)
    if order is None:
        order, entries = _byte_order(header, _HEADER_BYTES), _GEOMETRY
    else:
        entries = _GEOMETRY_2
    return {
        name: " ".join(repr(_fitting(value, _GEOMETRY[name][1])) for value in _unpack(header, order, entry))
        for name, entry in entries.items()
    }


def _fitting(value: float, form: str) -> float:
    """Round a number of NIfTI-2 to what NIfTI-1 can hold; one of NIfTI-1 stays as it is."""
    if form.endswith("f"):
        with np.errstate(over="ignore"):
            return float(np.float32(value))
    return int(value) if 0 <= value < 1 << (8 * struct.calcsize(form) - 1) else 0


def as_nifti_1(path: Path, target: Path, volume: int = 0) -> None:
    """Rewrite a file of NIfTI-1 or 2 as an uncompressed 3D NIfTI-1 file with the same voxels, in the same place.

    Parameters
    ----------
    path
        The file; its voxels were checked.
    target
        The file to write.
    volume
        Which volume of a 4D file is taken.

    Raises
    ------
    InputError
        If a side is longer than NIfTI-1 can say, 32767 voxels.
    """
    entries = read_geometry(path)
    with _open(path) as source, target.open("wb") as file:
        header = source.read(_HEADER_BYTES_2)
        order, dim, datatype, bits, offset = _layout(header, path.name)
        if _volumes(dim) > 1:
            dim = (3, *dim[1:4], 1, 1, 1, 1)
        if not all(0 <= size < 1 << 15 for size in dim):
            raise InputError(f"{path.name} has sides of {max(dim[1:])} voxels; at most 32767 can be read: crop it.")
        is_second = _byte_order(header, _HEADER_BYTES_2) is not None
        scaling = (_VOXELS_2 if is_second else _VOXELS)[-1]
        slope, intercept = (_fitting(value, "f") for value in _unpack(header, order, scaling))
        # Without a number there is nothing to scale.
        scale = (slope, intercept) if np.isfinite([slope, intercept]).all() else (1.0, 0.0)
        new = bytearray(_HEADER_BYTES + 4)
        struct.pack_into("=i", new, 0, _HEADER_BYTES)
        new[344:348] = b"n+1\0"
        for (place, form), values in zip(_VOXELS, (dim, (datatype,), (bits,), (float(len(new)),), scale), strict=True):
            struct.pack_into(f"={form}", new, place, *values)
        file.write(new)
        left = int(np.prod(dim[1 : dim[0] + 1], dtype=float) * bits / 8)
        source.seek(offset + volume * left)
        while left and (block := source.read(min(left, _BLOCK))):
            file.write(block)
            left -= len(block)
    if (order == "<") != (sys.byteorder == "little"):
        _swap(target, bits // 8)
    repeat_geometry(target, mended(entries))


def read_volumes(path: Path) -> Iterator[NDArray[np.generic]]:
    """Read the volumes of a 4D file one after the other, in one pass, for looking at them.

    Yields
    ------
    Each volume, shape (z, y, x), float32 where the file scales its values.

    Raises
    ------
    InputError
        If the file is damaged; volumes before the damage may have been handed out.
    """
    try:
        with _open(path) as file:
            header = file.read(_HEADER_BYTES_2)
            order, dim, datatype, _, offset = _layout(header, path.name)
            scaling = (_VOXELS if _byte_order(header, _HEADER_BYTES_2) is None else _VOXELS_2)[-1]
            slope, intercept = _unpack(header, order, scaling)
            dtype, shape = np.dtype(f"{order}{_TYPES[datatype]}"), dim[3:0:-1]
            file.seek(offset)
            for _ in range(_volumes(dim)):
                array = np.frombuffer(file.read(int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape)
                is_scaled = np.isfinite([slope, intercept]).all() and slope not in (0.0, 1.0)
                yield (
                    (array * slope + intercept).astype(np.float32)
                    if is_scaled
                    else array.astype(dtype.newbyteorder("="))
                )
    except (OSError, EOFError, ValueError, LookupError, zlib.error) as error:
        raise InputError(_damaged(path)) from error


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


def _byte_order(header: bytes, length: int) -> str | None:
    """Return the struct byte order in which the header's first entry is its own length, None if there is none."""
    if len(header) < length:
        return None
    return next((order for order in "<>" if struct.unpack_from(f"{order}i", header)[0] == length), None)


def _layout(header: bytes, name: str) -> tuple[str, tuple[int, ...], int, int, int]:
    """Return byte order, sizes (their number first), type, bits per voxel, and where the voxels begin."""
    for length, entries in ((_HEADER_BYTES, _VOXELS), (_HEADER_BYTES_2, _VOXELS_2)):
        order = _byte_order(header, length)
        if order is not None:
            dim, (datatype,), (bits,), (offset,) = (_unpack(header, order, entry) for entry in entries[:4])
            return order, dim, datatype, bits, _voxel_start(int(offset), length, name)
    raise InputError(_not_nifti(name))


def _voxel_start(offset: int, header: int, name: str) -> int:
    """Return where the voxels begin; where a header says 0, that is behind it and the mark of its extensions."""
    if offset == 0:
        return header + 4
    if 0 < offset < header:
        raise InputError(
            f"{name} says that its voxels begin at byte {offset}, within its own header of {header} bytes; export it "
            "again with the program that made it."
        )
    return offset


def _unpack(header: bytes, order: str | None, entry: tuple[int, str]) -> tuple[Any, ...]:
    return struct.unpack_from(f"{order}{entry[1]}", header, entry[0])


def _swap(path: Path, size: int) -> None:
    """Turn the bytes of each voxel around, in a file with a header of NIfTI-1."""
    if size > 1:
        voxels = np.memmap(path, f"<u{size}", "r+", offset=_HEADER_BYTES + 4)
        voxels.byteswap(inplace=True)
        voxels.flush()
