"""Which scans a study has: read from a folder, or from a table."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from napari_oneseg.errors import InputError
from napari_oneseg.image_formats import READABLE, known_ending, may_be_dicom

__all__ = ["SESSION_ENDING", "ScanFiles", "find_study_scans"]

SESSION_ENDING = ".oneseg"
_COLUMNS = ("scan", "annotation", "reference", "name", "notes")
_FILES_LOOKED_AT = 16

# A file whose name ends so was drawn on a scan, or made from one.
_DRAWN = re.compile(r"[ _.-](annotation|reference|confidence|labels?|labelmap|seg|segmentation|mask)$", re.IGNORECASE)
_NO_FILE_NAME = re.compile(r'[\\/:*?"<>|\x00-\x1f]')


@dataclass(frozen=True)
class ScanFiles:
    """Where a scan of a study lies, and what belongs to it.

    Attributes
    ----------
    name
        What it is called in the worklist, in the study file and in the names of results.
    path
        The scan: a file, or the folder of a DICOM series.
    annotation
        What was painted on it: a label file in which only painted slices are filled, or a session (``.oneseg``).
    reference
        True labels, to score results with.
    notes
        As the table has them.
    """

    name: str
    path: Path
    annotation: Path | None = None
    reference: Path | None = None
    notes: str = ""


def find_study_scans(source: Path) -> list[ScanFiles]:
    """Return the scans of a folder, sorted by name, or those of a CSV file, in the order of its rows.

    See :func:`~napari_oneseg.study.open_study`.

    Raises
    ------
    InputError
        If there are none, two have one name, or the CSV file has another form.
    """
    if not source.exists():
        raise InputError(f"There is no folder or CSV file {source} any more; open the study where it is now.")
    return _from_folder(source) if source.is_dir() else _from_table(source)


def _from_folder(folder: Path) -> list[ScanFiles]:
    scans: list[tuple[str, Path]] = []
    beside: dict[str, Path] = {}
    try:
        content = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be read: {error.strerror or error}.") from error
    for path in content:
        if path.name.startswith("."):
            continue
        stem = _stem(path)
        if path.is_dir():
            if _holds_dicom(path):
                scans.append((path.name, path))
        elif path.suffix == SESSION_ENDING or (stem is not None and _DRAWN.search(stem)):
            beside.setdefault(path.name if stem is None else stem, path)
        elif stem is not None:
            scans.append((stem, path))
    if not scans:
        raise InputError(
            f"{folder} holds no scans; expected are {', '.join(READABLE)} files, or a sub-folder for each DICOM series."
        )
    found = [
        ScanFiles(
            name,
            path,
            beside.get(f"{name}{SESSION_ENDING}") or beside.get(f"{name}_annotation"),
            beside.get(f"{name}_reference"),
        )
        for name, path in scans
    ]
    return _without_twins(found, "Rename one of them")


def _from_table(table: Path) -> list[ScanFiles]:
    try:
        # With the mark that spreadsheet programs put at the beginning.
        return _from_text(table.read_text(encoding="utf-8-sig"), table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table.name} cannot be read as a CSV file in UTF-8: {error}.") from error


def _from_text(text: str, table: Path) -> list[ScanFiles]:
    # Where the comma is a decimal sign, spreadsheets separate by semicolons.
    separator = ";" if ";" in text.partition("\n")[0] else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    columns = [(column or "").strip().lower() for column in reader.fieldnames or ()]
    unknown = sorted(set(columns) - set(_COLUMNS))
    if "scan" not in columns or unknown or len(set(columns)) < len(columns):
        got = ", ".join(map(repr, columns)) or "none"
        raise InputError(f"{table.name} must have a column scan, and may have {', '.join(_COLUMNS[1:])}; got {got}.")
    reader.fieldnames = columns
    found = []
    for row in reader:
        values = {key: (value or "").strip() for key, value in row.items() if isinstance(value, str | None)}
        if None in row:
            raise InputError(f"{table.name}, line {reader.line_num}: there are more values than columns.")
        if any(values.values()):
            found.append(_from_row(values, table, reader.line_num))
    if not found:
        raise InputError(f"{table.name} lists no scans; give at least one row under its columns.")
    return _without_twins(found, "Give each a name of its own in a column name")


def _from_row(values: Mapping[str, str], table: Path, line: int) -> ScanFiles:
    if not values["scan"]:
        raise InputError(f"{table.name}, line {line}: the scan is missing.")
    path = table.parent / values["scan"]
    name = values.get("name") or _stem(path) or path.name
    if _NO_FILE_NAME.search(name) or name.startswith("."):
        raise InputError(f"{table.name}, line {line}: {name!r} cannot be a name, because files are named after it.")
    annotation, reference = (
        table.parent / values[column] if values.get(column) else None for column in ("annotation", "reference")
    )
    return ScanFiles(name, path, annotation, reference, values.get("notes", ""))


def _without_twins(found: list[ScanFiles], advice: str) -> list[ScanFiles]:
    """Refuse two scans of one name; names that differ in case only are one on many disks."""
    first: dict[str, ScanFiles] = {}
    for files in found:
        twin = first.setdefault(files.name.casefold(), files)
        if twin is not files:
            both = f"{twin.path.name} and {files.path.name}"
            raise InputError(f"Two scans of the study are called {files.name}: {both}. {advice}.")
    return found


def _stem(path: Path) -> str | None:
    """Return the name of a readable file without its ending, None of any other."""
    ending = known_ending(path)
    return None if ending is None else path.name[: -len(ending)]


def _holds_dicom(folder: Path) -> bool:
    """Look at the first files of a folder, also in its sub-folders."""
    with suppress(OSError):
        files = (path for path in folder.rglob("[!.]*") if path.is_file())
        return any(may_be_dicom(path) for path in islice(files, _FILES_LOOKED_AT))
    return False
