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
from napari_oneseg.volume import Volume

__all__ = [
    "as_nifti_1",
    "check_places",
    "check_voxels",
    "count_volumes",
    "is_nifti",
    "is_nifti_2",
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
_MILLIMETRES = {1: 1000.0, 3: 0.001}  # in metres and micrometres
_HALF_TURN = 1e-7
"""A square below which nifti1_io.c, and what rests on it, take it for 0: single precision says no more."""
_DISAGREE = 0.1  # of the smallest voxel side


def is_nifti(path: Path) -> bool:
    """Whether the name is that of a NIfTI file."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def is_nifti_2(path: Path) -> bool:
    """Whether the header is one of NIfTI-2."""
    with _open(path) as file:
        header = file.read(_HEADER_BYTES_2)
    return _byte_order(header, _HEADER_BYTES_2) is not None


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


def check_voxels(path: Path, largest: int, volume: int = 0) -> None:
    """Refuse a NIfTI file that SimpleITK would read with zeros in the place of voxels, or with too many of them.

    Parameters
    ----------
    path
        The file.
    largest
        Bytes of voxels that are read at most.
    volume
        Which volume of a 4D file is to be read.

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
            length, bad = _count(
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
    if bad:
        raise InputError(
            f"{path.name} holds {bad} values that are NaN or infinite. Replace them, for instance by the value of air."
        )


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
) -> tuple[int, int]:
    """Count bytes to the file's end and, in the part between two of them, values that are not finite.

    At the end of a compressed file its checksum is compared.
    """
    length = bad = 0
    while block := file.read(_BLOCK):
        # The first byte of a block is the first of a value, because all blocks but the last are as long.
        voxels = block[max(0, part[0] - length) : max(0, part[1] - length)]
        if dtype is not None:
            values = np.frombuffer(voxels, dtype, len(voxels) // np.dtype(dtype).itemsize)
            bad += int(values.size - np.count_nonzero(np.isfinite(values)))
        length += len(block)
        if length > most:  # nobody waits for the end of a file that was made to have none
            break
    return length, bad


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
    repeat_geometry(target, entries)


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


def check_places(volume: Volume) -> str | None:
    """Compare where a scan was put with what its file says in two ways, qform and sform.

    Returns
    -------
    What the user must be told, if the two contradict each other.

    Raises
    ------
    InputError
        If the scan lies where neither says, as where the voxel sizes beside a matrix are not those in it.
    """
    numbers = {name: np.array(entry.split(), float) for name, entry in volume.header.items()}
    forms = {}
    if numbers and numbers["qform_code"][0] > 0:
        forms["qform"] = _qform(numbers)
    if numbers and numbers["sform_code"][0] > 0:
        forms["sform"] = numbers["srow"].reshape(3, 4)
    if not forms:
        return None
    depth, rows, columns = (size - 1 for size in volume.array.shape)
    corners = np.array([[x, y, z, 1] for x in (0, columns) for y in (0, rows) for z in (0, depth)])
    # The patient's frame here has x to the left and y to the back, NIfTI's the other way round.
    axes = (np.asarray(volume.direction) * volume.spacing)[:, ::-1]
    taken = np.column_stack([axes, volume.origin]) * np.array([[-1], [-1], [1]])
    unit = _MILLIMETRES.get(int(numbers["xyzt_units"][0]) & 7, 1.0)
    apart = {name: np.linalg.norm(corners @ (unit * form - taken).T, axis=1).max() for name, form in forms.items()}
    used, other = min(apart, key=apart.__getitem__), max(apart, key=apart.__getitem__)
    allowed = _DISAGREE * min(volume.spacing)
    if not apart[used] <= allowed:
        raise InputError(
            f"This NIfTI file contradicts itself: its voxel sizes (pixdim) or axes are not those of its {used}, by up "
            f"to {apart[used]:.3g} mm. Export it again, or correct its header with the program that made it."
        )
    if apart[other] <= allowed:
        return None
    return (
        "This NIfTI file says in two ways where its voxels lie, which contradict each other by up to "
        f"{apart[other]:.3g} mm: {used} is used, {other} is not. Check left and right, and whether other programs show "
        "the scan alike."
    )


def _qform(numbers: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return voxel to position, 3 x 4, from a quaternion: method 2 of nifti1.h."""
    quaternion = numbers["quatern"][:3]
    rest = float(1 - quaternion @ quaternion)
    if rest < _HALF_TURN:
        quaternion, rest = quaternion / np.sqrt(1 - rest), 0.0
    a, (b, c, d) = np.sqrt(rest), quaternion
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    flip = -1.0 if numbers["pixdim"][0] < 0 else 1.0
    return np.column_stack([rotation * numbers["pixdim"][1:4] * [1.0, 1.0, flip], numbers["quatern"][3:]])


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
            return order, dim, datatype, bits, int(offset)
    raise InputError(_not_nifti(name))


def _unpack(header: bytes, order: str | None, entry: tuple[int, str]) -> tuple[Any, ...]:
    return struct.unpack_from(f"{order}{entry[1]}", header, entry[0])


def _swap(path: Path, size: int) -> None:
    """Turn the bytes of each voxel around, in a file with a header of NIfTI-1."""
    if size > 1:
        voxels = np.memmap(path, f"<u{size}", "r+", offset=_HEADER_BYTES + 4)
        voxels.byteswap(inplace=True)
        voxels.flush()
