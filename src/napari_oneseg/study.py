"""A study: a folder or a table of scans as a worklist, with what was done on each.

Which scans there are is read from the folder or the table each time; what was done lies in one file beside them
(:mod:`napari_oneseg.study_file`) under the scans' names. So scans may be added at any time, the whole may be moved, and
the file says nothing of where it lies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_oneseg.errors import InputError
from napari_oneseg.study_file import Status, StudyFile
from napari_oneseg.study_scans import ScanFiles, find_study_scans
from napari_oneseg.volume import LabelArray

__all__ = ["Study", "StudyScan", "mean_confidence", "open_study"]

_FILE = "oneseg-study.json"
_RESULTS = "oneseg-results"
_UNFINISHED: tuple[Status, ...] = ("open", "in progress")


@dataclass(frozen=True)
class StudyScan:
    """A scan of the worklist, as it was when the study was read last.

    Attributes
    ----------
    name, path, annotation, reference
        See :class:`ScanFiles`.
    status
        How far it is.
    notes
        The user's own.
    seconds
        Time that was worked on it.
    slices_painted, corrections
        How many slices were painted, and how many of them after a propagation.
    volumes_ml
        Volume of each label in mL.
    mean_confidence
        0 to 1, as of :func:`mean_confidence`; None where nothing was propagated.
    suggested
        Slices to paint, best first, counted as the window counts them: on the scan turned to the patient's axes.
    suggested_from
        What the suggestions were made from, as a hash.
    problem
        Why it failed, as a sentence.
    """

    name: str
    path: Path
    annotation: Path | None = None
    reference: Path | None = None
    status: Status = "open"
    notes: str = ""
    seconds: float = 0.0
    slices_painted: int = 0
    corrections: int = 0
    volumes_ml: Mapping[int, float] = field(default_factory=dict)
    mean_confidence: float | None = None
    suggested: tuple[int, ...] = ()
    suggested_from: str = ""
    problem: str = ""


class Study:
    """A worklist of scans; every change is written at once, together with what other programs wrote meanwhile.

    Parameters
    ----------
    source
        A folder of scans, or a CSV file.

    Attributes
    ----------
    source
        The folder or the CSV file.
    results
        Folder for results; it may not exist yet.

    Raises
    ------
    InputError
        If there is no such folder or table, it holds no scans, or what was kept of it cannot be read.
    """

    def __init__(self, source: Path) -> None:
        self.source = source
        folder, prefix = (source, "") if source.is_dir() else (source.parent, f"{source.stem}.")
        self.results = folder / f"{prefix}{_RESULTS}"
        self._file = StudyFile(folder / f"{prefix}{_FILE}")
        self._files: list[ScanFiles] = []
        self._scans: dict[str, StudyScan] = {}
        self.refresh()

    @property
    def path(self) -> Path:
        """The file in which the study keeps what was done."""
        return self._file.path

    @property
    def scans(self) -> tuple[StudyScan, ...]:
        """The worklist, in the order of the folder's names or of the table's rows."""
        return tuple(self._scans.values())

    def __getitem__(self, name: str) -> StudyScan:
        """Return a scan by its name; an InputError says if there is none."""
        if name not in self._scans:
            raise InputError(f"The study has no scan {name}; its scans are {_listed(self._scans)}.")
        return self._scans[name]

    def refresh(self) -> None:
        """Read the folder or the table again, and what other programs have written."""
        self._files = find_study_scans(self.source)
        self._take(self._file.read())

    def _take(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        self._scans = {files.name: _joined(files, entries.get(files.name, {})) for files in self._files}

    # The way through the worklist ----------------------------------------------------------------------------------

    def next(self, after: str | None = None) -> StudyScan | None:
        """Return the next scan that is open or in progress, None if all others are finished.

        Parameters
        ----------
        after
            The scan to go on from, around the end of the list. Without it, the scan in progress comes first: where the
            work was left.
        """
        names = list(self._scans)
        if after is None:
            left = [scan for scan in self.scans if scan.status in _UNFINISHED]
            return min(left, key=lambda scan: scan.status != "in progress", default=None)
        place = names.index(self[after].name)
        others = (self._scans[name] for name in names[place + 1 :] + names[:place])
        return next((scan for scan in others if scan.status in _UNFINISHED), None)

    def previous(self, before: str) -> StudyScan | None:
        """Return the scan before one in the list, whatever its status; None before the first."""
        place = list(self._scans).index(self[before].name)
        return self.scans[place - 1] if place else None

    # What was done -------------------------------------------------------------------------------------------------

    def set_status(self, name: str, status: Status) -> None:
        """Say how far a scan is; of one that has not failed, no problem is kept."""
        self.record({name: {"status": status} | ({} if status == "failed" else {"problem": ""})})

    def set_notes(self, name: str, notes: str) -> None:
        """Keep the user's notes on a scan."""
        self.record({name: {"notes": notes}})

    def add_time(self, name: str, seconds: float) -> None:
        """Add time that was worked on a scan."""
        with self._file.changing() as entries:
            entry = entries.setdefault(self[name].name, {})
            entry["seconds"] = round(entry.get("seconds", 0.0) + seconds, 3)
        self._take(entries)

    def record_result(
        self,
        name: str,
        slices_painted: int,
        corrections: int,
        volumes_ml: Mapping[int, float],
        mean_confidence: float | None = None,
    ) -> None:
        """Keep what came out on a scan, in place of what was kept before; see :class:`StudyScan`."""
        self.record(
            {
                name: {
                    "slices_painted": int(slices_painted),
                    "corrections": int(corrections),
                    "volumes_ml": {int(label): round(float(volume), 6) for label, volume in volumes_ml.items()},
                    "mean_confidence": None if mean_confidence is None else round(float(mean_confidence), 4),
                }
            }
        )

    def record(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Change what is kept of several scans, with one write.

        Parameters
        ----------
        changes
            By scan, the fields of :class:`StudyScan` to change, those of :class:`ScanFiles` left out (but for notes).

        Raises
        ------
        InputError
            If a scan, a field or a value is none that a study has; nothing is changed then.
        OutputError
            If the file cannot be written; it stays as it was.
        """
        with self._file.changing() as entries:
            for name, values in changes.items():
                entries[name] = entries.get(self[name].name, {}) | dict(values)
        self._take(entries)

    def record_run(self, values: Mapping[str, Mapping[str, Any]], problems: Mapping[str, str]) -> None:
        """Keep what a run over many scans has made of them, with one write.

        Scans that are open become failed, and those that had failed open again; what the user has said stays.

        Parameters
        ----------
        values
            By scan, the fields to change, as for :meth:`record`; none where nothing was made.
        problems
            Why a scan failed, of those that did.
        """
        with self._file.changing() as entries:
            for name, made in values.items():
                before = entries.get(self[name].name, {})
                status = before.get("status", "open")
                if status in ("open", "failed"):
                    status = "failed" if name in problems else "open"
                entries[name] = before | dict(made) | {"status": status, "problem": problems.get(name, "")}
        self._take(entries)


def open_study(path: Path | str) -> Study:
    """Open a folder of scans, or a CSV file that lists them, as a study.

    Of a folder every NIfTI, NRRD or MetaImage file is a scan, and so is every sub-folder with a DICOM series. Files
    that were drawn on a scan or made from one are none: those whose names end in ``_labels``, ``_seg``, ``_mask`` and
    the like. ``NAME_annotation.nii.gz``, or the session ``NAME.oneseg``, is what was painted on the scan ``NAME``, and
    ``NAME_reference.nii.gz`` its true labels.

    A CSV file has a column ``scan`` and, as far as there are any, ``annotation``, ``reference``, ``name`` and
    ``notes``; paths are relative to the file.

    Parameters
    ----------
    path
        The folder, the CSV file, or the file in which a study of them is kept.

    Raises
    ------
    InputError
        If there is no such folder or table, or it cannot be used.
    """
    path = Path(path)
    if path.name == _FILE:
        path = path.parent
    elif path.name.endswith(f".{_FILE}"):
        path = path.with_name(path.name.removesuffix(_FILE) + "csv")
    if not path.exists():
        raise InputError(f"There is no study {path}; give a folder of scans, or a CSV file that lists them.")
    if path.is_file() and path.suffix.lower() != ".csv":
        raise InputError(f"{path.name} is no study; a folder of scans, or a CSV file that lists them, was expected.")
    return Study(path)


def mean_confidence(labels: LabelArray, slice_confidence: NDArray[np.floating], painted: Any) -> float | None:
    """Return the mean confidence of the slices that were labelled without being painted; None if there are none.

    Parameters
    ----------
    labels, slice_confidence
        As of :class:`~napari_oneseg.session.Propagation`.
    painted
        Indices of painted slices.
    """
    reached = np.flatnonzero(labels.any(axis=(1, 2)))
    if reached.size == 0:
        return None
    between = np.setdiff1d(np.arange(reached[0], reached[-1] + 1), list(painted))
    scores = np.asarray(slice_confidence, np.float64)[between]
    scores = scores[np.isfinite(scores)]
    return round(float(scores.mean()), 4) if scores.size else None


def _joined(files: ScanFiles, entry: Mapping[str, Any]) -> StudyScan:
    kept = {"notes": files.notes, **entry}
    kept["volumes_ml"] = {int(label): float(volume) for label, volume in kept.get("volumes_ml", {}).items()}
    kept["suggested"] = tuple(kept.get("suggested", ()))
    return StudyScan(files.name, files.path, files.annotation, files.reference, **kept)


def _listed(names: Mapping[str, Any]) -> str:
    shown = list(names)[:5]
    return ", ".join(shown) + (" ..." if len(names) > len(shown) else "")
