"""What a study has come to, as tables: results of each scan, and what they cost in time and slices."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from napari_oneseg.files import replacing
from napari_oneseg.study import StudyScan

__all__ = ["effort_rows", "summary_rows", "write_effort", "write_summary"]

Row = dict[str, Any]
"""A row of a table: values by the heading of their column, None where there is none."""


def summary_rows(scans: Iterable[StudyScan]) -> list[Row]:
    """Return one row per scan: status, slices painted, corrections, confidence, and the volume of each label in mL.

    All rows have the same columns; there is a volume for each label that any of the scans has.
    """
    scans = list(scans)
    labels = sorted({label for scan in scans for label in scan.volumes_ml})
    return [
        {
            "scan": scan.name,
            "status": scan.status,
            "minutes": _minutes(scan),
            "slices_painted": scan.slices_painted,
            "corrections": scan.corrections,
            "mean_confidence": scan.mean_confidence,
            **{f"volume_ml_{label}": _rounded(scan.volumes_ml.get(label)) for label in labels},
            "notes": scan.notes,
            "problem": scan.problem,
        }
        for scan in scans
    ]


def effort_rows(scans: Iterable[StudyScan]) -> list[Row]:
    """Return minutes, painted slices and corrections of each scan that was worked on, then medians and totals.

    Worked on means that time was counted or slices were painted; scans that are open or failed before anybody looked at
    them would pull the medians to zero. So would scans that were skipped after a glance: they have a row, and their
    time is part of the totals, but they are no part of the medians.
    """
    columns: dict[str, Callable[[StudyScan], float]] = {
        "minutes": _minutes,
        "slices_painted": lambda scan: scan.slices_painted,
        "corrections": lambda scan: scan.corrections,
    }
    worked = [scan for scan in scans if scan.seconds or scan.slices_painted]
    rows = [
        {"scan": scan.name, "status": scan.status} | {name: value(scan) for name, value in columns.items()}
        for scan in worked
    ]
    if not worked:
        return []
    kept = [scan for scan in worked if scan.status != "skipped"]
    of_all: list[tuple[str, list[StudyScan], Callable[[list[float]], float]]] = [
        ("median", kept, statistics.median),
        ("total", worked, sum),
    ]
    return rows + [
        {"scan": f"{heading} of {len(chosen)}", "status": ""}
        | {name: round(over([value(scan) for scan in chosen]), 2) for name, value in columns.items()}
        for heading, chosen, over in of_all
        if chosen
    ]


def write_summary(path: Path, scans: Iterable[StudyScan]) -> None:
    """Write :func:`summary_rows` as CSV; an OutputError says if that fails, and an older file stays then."""
    _write(path, summary_rows(scans))


def write_effort(path: Path, scans: Iterable[StudyScan]) -> None:
    """Write :func:`effort_rows` as CSV; an OutputError says if that fails, and an older file stays then."""
    _write(path, effort_rows(scans) or [dict.fromkeys(("scan", "status", "minutes", "slices_painted", "corrections"))])


def _write(path: Path, rows: Sequence[Row]) -> None:
    # The mark at the beginning tells spreadsheet programs that it is UTF-8.
    with replacing(path) as part, part.open("w", encoding="utf-8-sig", errors="backslashreplace", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def _minutes(scan: StudyScan) -> float:
    return round(scan.seconds / 60, 2)


def _rounded(volume: float | None) -> float | None:
    return None if volume is None else round(volume, 3)
