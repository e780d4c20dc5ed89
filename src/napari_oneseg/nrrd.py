"""NRRD headers: whether the voxels they claim are there, and which of their axes counts volumes.

SimpleITK sets aside what memory a header asks for before it looks for the voxels; so both are compared before it reads
the file. The fields are those of http://teem.sourceforge.net/nrrd/format.html.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path

from napari_oneseg.errors import InputError
from napari_oneseg.nifti import too_large
from napari_oneseg.packed import Packing, unpacked_length

__all__ = ["check_nrrd", "listed_volumes"]

_MARK = re.compile(rb"NRRD000[1-5]\r?\n")
_LONGEST_HEADER = 1 << 20
_MOST_AXES = 16
_BLOCK = 1 << 20
_BYTES = {"char": 1, "int8": 1, "short": 2, "int16": 2, "int": 4, "int32": 4, "longlong": 8, "int64": 8, "float": 4,
          "double": 8}  # fmt: skip
_PACKING: dict[str, Packing] = {"gz": "zlib", "gzip": "zlib", "bz2": "bzip2", "bzip2": "bzip2"}
_TEXT = {"txt", "text", "ascii"}
_WITH_VOLUMES = {"list"}


def check_nrrd(path: Path, largest: int) -> None:
    """Refuse an NRRD file (.nrrd, .nhdr) whose voxels are incomplete, fail their checksum, or are too many.

    Voxels in several files are left to SimpleITK, but for their number.

    Parameters
    ----------
    path
        The file.
    largest
        Bytes of voxels that are read at most.

    Raises
    ------
    InputError
        If the header claims more than there is, or the packed voxels are damaged.
    """
    with path.open("rb") as file:
        fields = _fields(file)
        if fields is None:
            return
        try:
            needed = _claimed(fields)
            if needed > largest:
                raise InputError(too_large(path.name, needed, largest))  # noqa: TRY301 - the sentence is made here
            beside = fields.get("data file", fields.get("datafile"))
            if beside is None:
                _check_voxels(path.name, file, fields, needed)
            elif (data := _data_file(path, beside)) is not None:
                with data.open("rb") as voxels:
                    _check_voxels(path.name, voxels, fields, needed)
        except InputError:
            raise
        except (OSError, KeyError, ValueError) as error:
            raise InputError(_damaged(path.name)) from error


def listed_volumes(path: Path) -> int:
    """Return how many volumes a file holds as a list, one value of each for every voxel; 1 where it is no such file.

    3D Slicer writes sequences in this way: one axis, the first or the last, is of the kind "list".
    """
    with path.open("rb") as file:
        fields = _fields(file) or {}
    kinds = fields.get("kinds", "").lower().split()
    sizes = fields.get("sizes", "").split()
    listed = [size for kind, size in zip(kinds, sizes, strict=False) if kind in _WITH_VOLUMES]
    return int(listed[0]) if len(kinds) == 4 and len(listed) == 1 and listed[0].isdecimal() else 1


def _fields(file: BufferedReader) -> dict[str, str] | None:
    """Return the header's fields, None for a file that is none; the file is left where the voxels begin."""
    if not _MARK.fullmatch(file.readline(16)):
        return None
    fields: dict[str, str] = {}
    while file.tell() < _LONGEST_HEADER and (line := file.readline(_LONGEST_HEADER).rstrip(b"\r\n")):
        name, colon, value = line.decode("latin-1").partition(": ")
        if colon and not name.startswith("#"):
            fields[name.strip().lower()] = value.strip()
    return fields


def _claimed(fields: Mapping[str, str]) -> int:
    """Return how many bytes of voxels there should be."""
    sizes = [int(word) for word in fields["sizes"].split()]
    if len(sizes) != int(fields["dimension"]) or not 0 < len(sizes) <= _MOST_AXES or min(sizes) < 1:
        raise ValueError("sizes that fit the dimension were expected")
    return math.prod(sizes) * _value_bytes(fields["type"])


def _value_bytes(name: str) -> int:
    """Return the length of a type, which may be called in many ways, such as "signed short int"."""
    words = [word for word in name.lower().split() if word not in ("signed", "unsigned")]
    plain = "".join(words[:-1] if len(words) > 1 and words[-1] == "int" else words)
    plain = plain.removesuffix("_t")
    return _BYTES.get(plain) or _BYTES[plain.removeprefix("u")]


def _data_file(path: Path, beside: str) -> Path | None:
    """Return the one file that holds the voxels, None where they are several, or it is not there."""
    if beside.upper().startswith("LIST"):
        return None
    data = path.parent / beside
    return data if data.is_file() else None


def _check_voxels(name: str, file: BufferedReader, fields: Mapping[str, str], needed: int) -> None:
    encoding = fields["encoding"].lower()
    lines = int(fields.get("line skip", fields.get("lineskip", 0)))
    skip = int(fields.get("byte skip", fields.get("byteskip", 0)))
    for _ in range(lines):
        if not file.readline(_BLOCK):
            raise ValueError("too few lines")
    start = file.tell()
    there = file.seek(0, 2) - start
    file.seek(start)
    if encoding in _PACKING:
        # What is skipped is skipped after unpacking.
        if skip < 0 or unpacked_length(file, needed + skip, _PACKING[encoding]) < needed + skip:
            raise ValueError("too few voxels")
        return
    if encoding == "hex":
        needed *= 2
    elif encoding in _TEXT:
        needed = 2 * needed // _value_bytes(fields["type"]) - 1
    elif encoding != "raw":
        raise ValueError("an encoding was expected")
    if there < needed + max(0, skip):
        raise InputError(f"{name} is incomplete ({there} of {needed} bytes); copy or export it again.")


def _damaged(name: str) -> str:
    return f"{name} is damaged or incomplete; copy or export it again."
