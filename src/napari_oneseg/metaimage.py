"""MetaImage files whose voxels are damaged: SimpleITK reads them as they come, and sets aside what memory they ask for.

The header says how many voxels there are and how long their packed form is; that form, zlib's, ends with a checksum.
Both are compared before SimpleITK reads the file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path

from napari_oneseg.errors import InputError
from napari_oneseg.packed import unpacked_length

__all__ = ["check_meta_image"]

_DIMENSIONS = tuple(map(str, range(1, 11)))
_LONGEST_HEADER = 1 << 16
_MARK, _MARK_WITHIN = b"NDims", 1024
_SPACE, _WHITE = 0x20, b"\t\r\n"
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
        # A pattern of file names, which SimpleITK gives to printf as it is: with a wrong one the program ends.
        if beside is not None and "%" in beside:
            raise InputError(_damaged(path))
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
