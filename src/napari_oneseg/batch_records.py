"""What tells, beside a result, what it was made from: so that it is made once, and nothing else is replaced."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

from napari_oneseg.errors import InputError, OutputError
from napari_oneseg.files import replacing

__all__ = [
    "digest_of",
    "kept_labels",
    "make_folder",
    "number_or_none",
    "read_record",
    "write_record",
]

_BLOCK = 1 << 20


def read_record(path: Path) -> dict[str, Any] | None:
    """Return a record of an earlier run, None where there is none that is whole."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and "made_from" in record else None


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record, and make its folder if need be; an OutputError says if that fails."""
    make_folder(path.parent)
    with replacing(path) as part:
        part.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def make_folder(folder: Path) -> None:
    """Make a folder if there is none; an OutputError says if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The folder {folder} cannot be made: {error.strerror or error}.") from error


def kept_labels(labels: Path, record: dict[str, Any] | None, made_from: str, anew: bool) -> dict[str, Any] | None:
    """Return what the study is to keep of labels that are there already and stay, None if they are to be made.

    Nothing is replaced that was not made here, or that was changed since.
    """
    if not labels.exists():
        return None
    if record is None:  # made in the window, or elsewhere
        return {}
    if record["made_from"] == made_from and not anew:
        values: dict[str, Any] = record["result"]
        return values
    if record["made_from"] and record["labels_sha256"] != digest_of(labels):
        raise OutputError(f"{labels.name} was changed by hand since it was made, and is not replaced; move it away.")
    return None


def digest_of(path: Path) -> str:
    """Return a hash over the content of a file, with the voxels where they lie in another one, or of all in a folder.

    Raises
    ------
    InputError
        If there is no such file, or it cannot be read.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
    elif path.suffix.lower() in (".mhd", ".nhdr"):
        files = sorted(path.parent.glob(f"{path.stem}.*"))
    else:
        files = [path]
    digest = hashlib.sha256()
    try:
        for file in files:
            digest.update(os.fsencode(f"{file.name}:{file.stat().st_size}\n"))
            with file.open("rb") as stream:
                while block := stream.read(_BLOCK):
                    digest.update(block)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}; check the path.") from error
    return digest.hexdigest()


def number_or_none(value: float) -> float | None:
    """Return a number as JSON can hold it, which knows no NaN."""
    return value if math.isfinite(value) else None
