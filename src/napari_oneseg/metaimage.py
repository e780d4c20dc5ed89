"""MetaImage files whose voxels are damaged: SimpleITK reads them as they come, and sets aside what memory they ask for.

The header says how many voxels there are and how long their packed form is; that form, zlib's, ends with a checksum.
Both are compared before SimpleITK reads the file. It refuses voxels of size 0, and gives a pattern of file names to
printf as it is; files with these are rewritten to be read.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from napari_oneseg.errors import InputError
from napari_oneseg.packed import unpacked_length

__all__ = ["check_meta_image", "rewrite_meta_image", "states_spacing"]

_DIMENSIONS = tuple(map(str, range(1, 11)))
_LONGEST_HEADER = 1 << 16
_MARK, _MARK_WITHIN = b"NDims", 1024
_SPACE, _WHITE = 0x20, b"\t\r\n"
_BLOCK = 1 << 20
_PATTERN = re.compile(r"[^%]*%0?[0-9]{0,2}d[^%]*")
_SIZES = "ElementSpacing", "ElementSize"
_BYTES = {
    "MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4, "MET_LONG": 4,
    "MET_ULONG": 4, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8, "MET_FLOAT": 4, "MET_DOUBLE": 8,
}  # fmt: skip


def check_meta_image(path: Path) -> None:
    """Refuse a MetaImage file (.mha, .mhd) whose voxels are incomplete or fail their checksum.

    Files that this function knows too little of, such as lists of slices, are left to SimpleITK.

    Raises
    ------
    InputError
        If the header claims more than there is, or the packed voxels are damaged.
    """
    with path.open("rb") as file:
        header, text = _header(file)
        # SimpleITK ends a key at a zero, and so finds sizes in lines that nobody else takes for them.
        if _MARK in text[:_MARK_WITHIN] and not all(byte >= _SPACE or byte in _WHITE for byte in text):
            raise InputError(_damaged(path))
        # SimpleITK writes beyond its arrays where there are more dimensions, or no word on where the voxels are.
        if "NDims" in header and (header["NDims"] not in _DIMENSIONS or "ElementDataFile" not in header):
            raise InputError(_damaged(path))
        beside = header.get("ElementDataFile")
        if beside is not None and "%" in beside:
            _slice_files(path, header)
            return
        if header.get("ElementType") not in _BYTES or beside is None or beside.startswith("LIST"):
            return
        try:
            voxels = math.prod(int(word) for word in header["DimSize"].split())
            needed = voxels * int(header.get("ElementNumberOfChannels", 1)) * _BYTES[header["ElementType"]]
            packed = int(header.get("CompressedDataSize", -1))
        except (KeyError, ValueError) as error:
            raise InputError(_damaged(path)) from error
        if beside.upper() == "LOCAL":
            _check_voxels(path, file, header, needed, packed)
            return
        try:
            data = path.with_name(Path(beside).name)
            # Its absence, and formats with one file for each slice, are SimpleITK's matter.
            if data.is_file():
                with data.open("rb") as voxel_file:
                    _check_voxels(path, voxel_file, header, needed, packed)
        except InputError:
            raise
        except (OSError, ValueError) as error:
            raise InputError(_damaged(path)) from error


def states_spacing(path: Path) -> bool:
    """Whether a file tells how large its voxels are along all its axes."""
    with path.open("rb") as file:
        header, _ = _header(file)
    sides = next((header[name].split() for name in _SIZES if name in header), [])
    return len(sides) >= 3 and all(map(_is_length, sides))


def _is_length(text: str) -> bool:
    try:
        return math.isfinite(float(text)) and float(text) != 0
    except ValueError:
        return False


def rewrite_meta_image(path: Path, target: Path) -> bool:
    """Rewrite a file that SimpleITK does not read as it is: with a pattern of file names, or with voxels of size 0.

    Parameters
    ----------
    path
        The file; its voxels were checked.
    target
        The file to write (.mha), with the same voxels in the same place, those of size 0 or NaN with 1 mm.

    Returns
    -------
    Whether that was needed; if not, nothing is written.

    Raises
    ------
    InputError
        If voxels of size 0 lie in a list of files.
    """
    with path.open("rb") as file:
        header, _ = _header(file)
        own = {name: _with_sides(text) if name in _SIZES else text for name, text in header.items()}
        beside = header.get("ElementDataFile", "")
        if own == header and "%" not in beside:
            return False
        if beside.startswith("LIST"):
            raise InputError(f"{path.name} lists files of voxels of size 0; save it as one file.")
        skip = int(own.pop("HeaderSize", 0))
        own["ElementDataFile"] = "LOCAL"
        with target.open("wb") as whole:
            whole.write("".join(f"{name} = {text}\n" for name, text in own.items()).encode("latin-1"))
            if beside.upper() == "LOCAL":
                shutil.copyfileobj(file, whole, _BLOCK)
            elif "%" in beside:
                for part in _slice_files(path, header):
                    _copy(part, whole, skip, _slice_bytes(header))
            else:
                length = _slice_bytes(header) * int(header["DimSize"].split()[-1])
                _copy(path.with_name(Path(beside).name), whole, skip, length)
    return True


def _copy(part: Path, whole: BinaryIO, skip: int, length: int) -> None:
    """Copy what follows a header of ``skip`` bytes, at most ``length``; the last ``length`` bytes if that is -1."""
    with part.open("rb") as voxels:
        voxels.seek(skip if skip >= 0 else max(0, part.stat().st_size - length))
        while length and (block := voxels.read(min(length, _BLOCK))):
            whole.write(block)
            length -= len(block)


def _with_sides(text: str) -> str:
    return " ".join(side if _is_length(side) else "1" for side in text.split())


def _slice_bytes(header: Mapping[str, str]) -> int:
    voxels = math.prod(int(word) for word in header["DimSize"].split()[:-1])
    return voxels * int(header.get("ElementNumberOfChannels", 1)) * _BYTES[header["ElementType"]]


def _slice_files(path: Path, header: Mapping[str, str]) -> list[Path]:
    """Return the files of the slices that a pattern such as ``slice%03d.raw 0 9 1`` names.

    Raises
    ------
    InputError
        If the pattern has another form, or files are missing, too short or packed.
    """
    pattern, *numbers = header["ElementDataFile"].split()
    try:
        slices = int(header["DimSize"].split()[-1])
        length, skip = _slice_bytes(header), max(0, int(header.get("HeaderSize", 0)))
        first = int(numbers[0]) if numbers else 1
        last = int(numbers[1]) if len(numbers) > 1 else first + slices - 1
        step = int(numbers[2]) if len(numbers) > 2 else 1
        places = range(first, last + 1, step)
        if not _PATTERN.fullmatch(pattern) or slices < 1 or len(places) < slices:
            raise ValueError("a pattern was expected")  # noqa: TRY301 - told with the others
    except (ValueError, KeyError) as error:
        raise InputError(
            f"{path.name} names the files of its slices by {header['ElementDataFile']!r}; a pattern with their first "
            "and last number was expected, such as 'slice%03d.raw 0 9 1'. Save it as one file."
        ) from error
    if header.get("CompressedData", "False").lower()[:1] in ("t", "1"):
        raise InputError(f"{path.name} names packed files, one for each slice; save it as one file.")
    files = []
    for place in places[:slices]:  # one after the other, as a wrong header may claim any number
        file = path.parent / (pattern % place)
        if not file.is_file() or file.stat().st_size < length + skip:
            raise InputError(f"{file.name}, a slice of {path.name}, is missing or incomplete; copy or export it again.")
        files.append(file)
    return files


def _header(file: BufferedReader) -> tuple[dict[str, str], bytes]:
    """Return the header's entries, and its text; the file is left where the voxels begin."""
    entries: dict[str, str] = {}
    text = b""
    while len(text) < _LONGEST_HEADER and (line := file.readline(_LONGEST_HEADER)):
        text += line
        key, _, value = line.decode("latin-1").partition("=")
        entries[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            break
    return entries, text


def _check_voxels(path: Path, file: BufferedReader, header: Mapping[str, str], needed: int, packed: int) -> None:
    start = file.tell()
    there = file.seek(0, 2) - start
    file.seek(start)
    if needed < 0:
        raise InputError(_damaged(path))
    if header.get("CompressedData", "False").lower()[:1] not in ("t", "1"):
        if there < needed:
            raise InputError(f"{path.name} is incomplete ({there} of {needed} bytes); copy or export it again.")
        return
    if packed > there or ("CompressedDataSize" in header and packed <= 0):
        raise InputError(_damaged(path))
    try:
        whole = unpacked_length(file, needed) == needed
    except ValueError as error:
        raise InputError(_damaged(path)) from error
    if not whole:
        raise InputError(_damaged(path))


def _damaged(path: Path) -> str:
    return f"{path.name} is damaged or incomplete; copy or export it again."
