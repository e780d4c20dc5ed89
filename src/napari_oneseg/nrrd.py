"""NRRD headers: whether the voxels they claim are there, how large they are, and which axis counts volumes.

SimpleITK sets aside what memory a header asks for before it looks for the voxels; so both are compared before it reads
the file. It knows no bzip2, and no voxels of size 0; files with these are rewritten to be read. The fields are those of
http://teem.sourceforge.net/nrrd/format.html.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from io import BufferedReader
from pathlib import Path

import numpy as np

from napari_oneseg.errors import InputError
from napari_oneseg.nifti import too_large
from napari_oneseg.packed import Packing, unpacked, unpacked_length

__all__ = ["check_nrrd", "key_values", "listed_volumes", "rewrite_nrrd", "states_spacing"]

_MARK = re.compile(rb"NRRD000[1-5]\r?\n")
_LONGEST_HEADER = 1 << 20
_MOST_AXES = 16
_BLOCK = 1 << 20
_BYTES = {"char": 1, "int8": 1, "short": 2, "int16": 2, "int": 4, "int32": 4, "longlong": 8, "int64": 8, "float": 4,
          "double": 8}  # fmt: skip
_PACKING: dict[str, Packing] = {"gz": "zlib", "gzip": "zlib", "bz2": "bzip2", "bzip2": "bzip2"}
_TEXT = {"txt", "text", "ascii"}
_WITH_VOLUMES = {"list"}
_WHERE = ("data file", "datafile", "line skip", "lineskip")
_VECTOR = re.compile(r"none|\([^)]*\)", re.IGNORECASE)


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


def states_spacing(path: Path) -> bool:
    """Whether a file tells how large its voxels are along all three axes."""
    with path.open("rb") as file:
        sides = _sides(_fields(file) or {})
    return sum(side is not None and math.isfinite(side) and side != 0 for side in sides) >= 3


def _sides(fields: Mapping[str, str]) -> list[float | None]:
    """Return the voxel size along each axis, None where the axis is none of space."""
    if (directions := fields.get("space directions")) is not None:
        vectors = _VECTOR.findall(directions)
        return [None if vector.lower() == "none" else float(np.linalg.norm(_vector(vector))) for vector in vectors]
    return [_number(word) for word in fields.get("spacings", "").split()]


def _vector(text: str) -> list[float]:
    return [_number(word) for word in text.strip("()").split(",")]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def rewrite_nrrd(path: Path, target: Path) -> bool:
    """Rewrite a file that SimpleITK does not read as it is: packed by bzip2, or with voxels of the size 0.

    Parameters
    ----------
    path
        The file; its voxels were checked.
    target
        The file to write, with the same voxels in the same place, those of size 0 with 1 mm.

    Returns
    -------
    Whether that was needed; if not, nothing is written.

    Raises
    ------
    InputError
        If bzip2 has packed voxels that lie in several files.
    """
    with path.open("rb") as file:
        fields = _fields(file) or {}
        packing, sized = _PACKING.get(fields.get("encoding", "").lower()), _with_sides(fields)
        if packing != "bzip2" and sized == fields:
            return False
        beside = fields.get("data file", fields.get("datafile"))
        data = None if beside is None else _data_file(path, beside)
        if beside is not None and data is None:
            raise InputError(
                f"{path.name} names several files of voxels, or one that is not there, and is packed by bzip2 or has "
                "voxels of size 0; save it as one file, with gzip, for instance with 3D Slicer."
            )
        with nullcontext(file) if data is None else data.open("rb") as source, target.open("wb") as plain:
            for _ in range(int(fields.get("line skip", fields.get("lineskip", 0)))):
                source.readline(_BLOCK)
            own = {name: text for name, text in sized.items() if name not in _WHERE and ":=" not in name}
            if packing == "bzip2":
                own["encoding"] = "raw"
            header = "".join(f"{name}: {text}\n" for name, text in own.items())
            plain.write(f"NRRD0005\n{header}\n".encode("latin-1"))
            if packing == "bzip2":
                left = _claimed(fields) + int(fields.get("byte skip", fields.get("byteskip", 0)))
                for block in unpacked(source, packing):
                    plain.write(block[:left])
                    left -= len(block)
                    if left <= 0:  # nobody asks for what follows, however much that becomes
                        break
            else:
                shutil.copyfileobj(source, plain, _BLOCK)
    return True


def _with_sides(fields: Mapping[str, str]) -> Mapping[str, str]:
    """Return the fields with 1 mm in the place of voxel sizes that SimpleITK refuses."""
    if "space directions" in fields:
        vectors = _VECTOR.findall(fields["space directions"])
        known = [_vector(text) for text in vectors if text.lower() != "none"]
        lost = [place for place, vector in enumerate(known) if not 0 < np.linalg.norm(vector) < math.inf]
        if len(known) != 3 or len(lost) != 1 or len(vectors) != 3:
            return fields
        # Across the two others, as slices lie.
        across = np.cross(known[lost[0] - 2], known[lost[0] - 1])
        vectors[lost[0]] = f"({','.join(repr(float(part)) for part in across / np.linalg.norm(across))})"
        return {**fields, "space directions": " ".join(vectors)}
    words = fields.get("spacings", "").split()
    # SimpleITK takes 1 mm for NaN itself; it is also what an axis of no length has, such as that of volumes.
    sized = ["1" if _number(word) == 0 or math.isinf(_number(word)) else word for word in words]
    return fields if sized == words else {**fields, "spacings": " ".join(sized)}


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


def key_values(path: Path) -> dict[str, str]:
    """Return what a file's header holds beside the fields: the lines ``key:=value``."""
    entries = {}
    with path.open("rb") as file:
        while file.tell() < _LONGEST_HEADER and (line := file.readline(_LONGEST_HEADER).rstrip(b"\r\n")):
            key, mark, value = line.decode(errors="replace").partition(":=")
            if mark:
                entries[key.strip()] = value.strip()
    return entries


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
