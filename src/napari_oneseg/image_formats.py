"""Which files are images, by their names and first bytes; apart, so that asking takes no library that reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = ["DICOM_HEAD", "READABLE", "WRITABLE", "has_dicom_mark", "known_ending", "may_be_dicom"]

READABLE = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
"""Endings of files that can be read; a folder is read as a DICOM series."""

WRITABLE = (".nii.gz", ".nii", ".nrrd", ".mha")
"""Endings of files that can be written."""

DICOM_HEAD = 132
"""Bytes before the first entry of a DICOM file, its mark at their end."""


def known_ending(path: Path, known: Sequence[str] = READABLE) -> str | None:
    """Return which of the known endings a file has, whatever its case."""
    return next((ending for ending in known if path.name.lower().endswith(ending)), None)


def may_be_dicom(path: Path) -> bool:
    """Whether a file begins like a DICOM file, with its mark, or without as those of old programs."""
    with path.open("rb") as file:
        head = file.read(DICOM_HEAD)
    # Without the mark, the first entry is one of the first of group 8, or of the file's own group 2.
    begins = len(head) == DICOM_HEAD and head[:2] in (b"\x02\x00", b"\x08\x00") and head[2] <= 0x18 and head[3] == 0
    return _is_mark(head) or begins


def has_dicom_mark(path: Path) -> bool:
    """Whether a file has the mark of DICOM, and so is none of another kind."""
    with path.open("rb") as file:
        return _is_mark(file.read(DICOM_HEAD))


def _is_mark(head: bytes) -> bool:
    return head[128:] == b"DICM"
