"""The files of a study as one window uses them: all of it runs in one thread of its own, never in the GUI's.

A scan's work lies in the folder for results under the scan's name: ``NAME.oneseg``, written whenever the scan is left
(``NAME (coronal).oneseg`` and the like, where it was painted in another plane), and once the scan is done
``NAME_labels.nii.gz`` with its record. What ``oneseg batch propagate`` has made of it lies beside that, and is shown in
its place for as long as nothing else was painted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_oneseg.errors import InputError, OutputError
from napari_oneseg.planes import PLANES
from napari_oneseg.study import StudyScan, open_study
from napari_oneseg.study_claims import Claims
from napari_oneseg.study_report import write_effort, write_summary
from napari_oneseg.study_scans import SESSION_ENDING
from napari_oneseg.volume import Volume, through_plane_axis

if TYPE_CHECKING:
    from napari_oneseg.plugin.scan_layer import OpenScan
    from napari_oneseg.session_file import SavedSession
    from napari_oneseg.session_state import SessionState
    from napari_oneseg.volume import LabelArray

__all__ = ["Arrival", "Left", "StudyDesk", "Worklist", "painted_on", "plane_of", "set_aside", "tables_at"]

_UNFINISHED = ("open", "in progress")


@dataclass(frozen=True)
class Worklist:
    """The scans of a study as they were a moment ago.

    Attributes
    ----------
    title
        What the study is called.
    results
        Its folder for results.
    scans
        In their order.
    elsewhere
        Those that another window works on.
    """

    title: str
    results: Path
    scans: tuple[StudyScan, ...]
    elsewhere: frozenset[str] = frozenset()

    def find(self, name: str | None) -> StudyScan | None:
        """Return a scan by its name; None where there is none, such as one whose file was taken away."""
        return next((scan for scan in self.scans if scan.name == name), None)


@dataclass(frozen=True, eq=False)
class Arrival:
    """A scan that is to be worked on next; this window has claimed it.

    Attributes
    ----------
    scan
        The scan.
    kept
        What was made on it before.
    kept_in, kept_at
        The file that it comes from; when that was written, None if it is not one of the folder for results.
    propagated
        What was propagated from it, or from the label file that the study lists, without the window.
    labels
        Names and colours of labels to begin with, where nothing was made on it yet.
    problem
        Why what was made on it before cannot be used.
    """

    scan: StudyScan
    kept: SavedSession | None = None
    kept_in: Path | None = None
    kept_at: datetime | None = None
    propagated: SavedSession | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True, eq=False)
class Left:
    """What is to be written of a scan.

    Attributes
    ----------
    values
        Fields of :class:`~napari_oneseg.study.StudyScan` to change.
    seconds
        Time to add.
    saved
        The work, None where it is on disk as it is.
    plane
        The plane that the scan is left in, as of :func:`plane_of`; None where it is not being left.
    export
        Writes the labels, where the scan is done.
    made
        What all this tells of, for whoever notes that it was written.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    saved: SavedSession | None = None
    plane: str | None = None
    export: Callable[[Path], object] | None = None
    made: tuple[SessionState, Mapping[str, Any]] | None = None


class StudyDesk:
    """A study, and the claim of one window on the scan it works on.

    Parameters
    ----------
    path
        As for :func:`~napari_oneseg.study.open_study`.
    """

    def __init__(self, path: Path) -> None:
        self.study = open_study(path)
        self.claims = Claims(self.study.results)
        self._seen = self._changed()

    # The worklist --------------------------------------------------------------------------------------------------

    def worklist(self) -> Worklist:
        """Return the scans as they are now."""
        source, scans = self.study.source, self.study.scans
        held = self.claims.held_elsewhere(scan.name for scan in scans if scan.status != "open")
        title = source.resolve().name if source.is_dir() else source.stem
        return Worklist(title, self.study.results, scans, held)

    def look(self) -> Worklist:
        """Return the scans after reading what other windows have written, if they have."""
        if self._changed() != self._seen:
            self.study.refresh()
            self._seen = self._changed()
        return self.worklist()

    def _changed(self) -> int:
        with suppress(OSError):
            return self.study.path.stat().st_mtime_ns
        return 0

    # Which scan comes next -------------------------------------------------------------------------------------------

    def left_off(self) -> Iterator[StudyScan]:
        """Yield the scans to go on with after a pause, best first: what was worked on last, then what is open."""
        known = {scan.name: scan for scan in self.study.scans}
        begun = [known[name] for name in self.claims.latest() if name in known]
        yield from (scan for scan in begun if scan.status == "in progress")
        first = self.study.next()
        if first is not None:
            yield first
            yield from self.after(first.name)

    def after(self, name: str) -> Iterator[StudyScan]:
        """Yield the unfinished scans that follow one, around the end of the list."""
        scans = self.study.scans
        at = next((at for at, scan in enumerate(scans) if scan.name == name), -1)
        yield from (scan for scan in (*scans[at + 1 :], *scans[:at]) if scan.status in _UNFINISHED)

    def before(self, name: str) -> Iterator[StudyScan]:
        """Yield the scans before one, whatever their status."""
        scan: StudyScan | None = self.study[name]
        while scan is not None and (scan := self.study.previous(scan.name)) is not None:
            yield scan

    def just(self, name: str) -> Iterator[StudyScan]:
        """Yield a scan; raises InputError if another window works on it."""
        if self.claims.held_elsewhere([name]):
            raise InputError(f"Another window works on {name} just now; choose another scan, or wait until it is free.")
        yield self.study[name]

    # Coming and going ----------------------------------------------------------------------------------------------

    def arrive(self, scans: Iterable[StudyScan]) -> Arrival | None:
        """Claim the first of some scans that no other window works on, and read what was made on it."""
        names = [scan.name for scan in scans]
        scan = next((self.study[name] for name in names if self.claims.take(name)), None)
        return None if scan is None else self._with_work(scan)

    def _with_work(self, scan: StudyScan) -> Arrival:
        planes = [self.session_path(scan.name, plane) for plane in ("", *PLANES)]
        own = [path for path in planes if path.exists()]
        path = max(own, key=_changed_at) if own else scan.annotation
        propagated = self._propagated(scan.name, path)
        if path is None or path.suffix != SESSION_ENDING:
            return Arrival(scan, propagated=propagated, labels=self._latest_labels())
        from napari_oneseg.session_file import load_session

        try:
            kept = load_session(path)
        except InputError as error:
            if own:
                set_aside(path)
            return Arrival(scan, labels=self._latest_labels(), problem=str(error))
        # When strokes were kept last: what a crash has left of later ones is not in what was propagated.
        kept_at = datetime.fromtimestamp(_changed_at(path), UTC) if own else None
        return Arrival(scan, kept, path, kept_at, propagated)

    def _propagated(self, name: str, painting: Path | None) -> SavedSession | None:
        from napari_oneseg.batch_session import load_propagated

        return None if painting is None else load_propagated(self.study.results, name, painting)

    def work_in(self, name: str, plane: str) -> SavedSession | None:
        """Return what was made on a scan in another plane; None where that is nothing, or cannot be read."""
        from napari_oneseg.session_file import load_session

        path = self.session_path(name, plane)
        if not path.exists():
            return None
        with suppress(InputError):
            return self._propagated(name, path) or load_session(path)
        set_aside(path)
        return None

    def session_path(self, name: str, plane: str = "") -> Path:
        """Return where the work on a scan is kept.

        Parameters
        ----------
        name
            The scan.
        plane
            As of :func:`plane_of`.
        """
        return self.study.results / (f"{name} ({plane}){SESSION_ENDING}" if plane else f"{name}{SESSION_ENDING}")

    def labels_path(self, name: str) -> Path:
        """Return where the labels of a scan are written when it is done."""
        return self.study.results / f"{name}_labels.nii.gz"

    def _latest_labels(self) -> Mapping[str, Any]:
        """Return names and colours of the labels of the scan that was left last."""
        from napari_oneseg.session_file import load_record

        newest = max(self.study.results.glob(f"*{SESSION_ENDING}"), key=_changed_at, default=None)
        if newest is not None:
            with suppress(InputError):
                extras = load_record(newest).get("extras", {})
                return {key: extras.get(key) for key in ("labels", "selected")}
        return {}

    def keep(self, name: str, left: Left) -> Worklist:
        """Write what was made on a scan: first the work itself, so that the list never says more than there is.

        Raises
        ------
        OutputError
            If a file cannot be written.
        """
        if left.saved is not None or left.export is not None:
            self._make_folder()
        if left.plane is not None:
            self._keep_work(self.session_path(name, left.plane), left.saved)
        if left.export is not None:
            left.export(self.labels_path(name))
        # Of a scan whose file was taken away the work is kept, but the list has no line for it.
        listed = any(scan.name == name for scan in self.study.scans)
        if left.seconds and listed:
            self.study.add_time(name, left.seconds)
        if left.values and listed:
            self.study.record({name: left.values})
        self._seen = self._changed()
        return self.worklist()

    def _keep_work(self, path: Path, saved: SavedSession | None) -> None:
        if saved is not None:
            from napari_oneseg.session_file import save_session

            save_session(path, saved)
        elif path.exists():
            with suppress(OSError):  # of several planes, the one left last is shown first
                path.touch()

    def _make_folder(self) -> None:
        try:
            self.study.results.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.study.results} cannot be made: {error.strerror or error}.") from error

    def save_tables(self, path: Path) -> None:
        """Write the summary, and the effort beside it; raises OutputError."""
        summary, effort = tables_at(path)
        write_summary(summary, self.study.scans)
        write_effort(effort, self.study.scans)


def plane_of(volume: Volume) -> str:
    """Return in which plane a scan is painted; empty for the one that it was taken in, where work usually is."""
    return "" if volume.axis == through_plane_axis(volume.spacing) else PLANES[volume.axis]


def set_aside(path: Path) -> None:
    """Give work that cannot be used another name, so that nothing is written over it; raises OutputError."""
    free = (path.with_name(f"{path.name}.earlier-{number}") for number in range(1, 1000))
    try:
        path.replace(next(other for other in free if not other.exists()))
    except OSError as error:
        raise OutputError(f"{path} could not be set aside: {error.strerror or error}.") from error


def _changed_at(path: Path) -> float:
    with suppress(OSError):  # another window has just set it aside
        return path.stat().st_mtime
    return 0.0


def tables_at(path: Path) -> tuple[Path, Path]:
    """Return where summary and effort are written, for the name that the user gave."""
    return path, path.with_name(f"{path.stem}_effort.csv")


def painted_on(annotation: Path, scan: OpenScan) -> dict[int, LabelArray]:
    """Return the slices that are filled in a label file, (rows, columns), by their index in the shown scan.

    Raises
    ------
    InputError
        If the file cannot be read, or lies on another grid than the scan.
    """
    from napari_oneseg.io import read_labels

    labels = scan.shown.to_slices(read_labels(annotation, scan.shown))
    return {index: np.array(image) for index, image in enumerate(labels) if image.any()}
