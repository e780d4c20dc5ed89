"""Where sessions are kept while they are worked on, so that a crash takes nothing that was painted.

Strategy. Files are named by the hash of the scan's content and by a random name for each store, never by a patient or a
path; two windows on one scan, or two programs, never write the same file. Of each session there are two files, both
replaced as a whole: what was painted and accepted (``.oneseg``), small and written within milliseconds after each
stroke; and what was propagated (``.results``), which takes longer and can be computed again. Each propagated slice has
a number that both files know, so that a kill between the two cannot join slices to strokes they do not belong to.

A lock tells whether the program that writes a file still runs. It ends with the process, so that nothing has to be
cleaned up for a file of a killed program to be found.
"""

from __future__ import annotations

import itertools
import secrets
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar
from weakref import WeakKeyDictionary

import platformdirs

from napari_oneseg.errors import InputError, OutputError
from napari_oneseg.files import tidy, why_not_written
from napari_oneseg.process_lock import hold, is_held, release
from napari_oneseg.propagation.propagate import LabelledSlice
from napari_oneseg.session_file import DamagedSession, SavedSession, load_record, load_session, save_session
from napari_oneseg.session_state import SessionState

__all__ = ["AutosaveStore", "Found"]

T = TypeVar("T")

_STROKES, _RESULTS, _DAMAGED = ".oneseg", ".results", ".damaged"
_SETTLED_SECONDS = 60.0
"""What is younger may be in the making, also where the disk knows no locks and nobody seems to hold it."""


@dataclass(frozen=True)
class Found:
    """A session that was kept.

    Attributes
    ----------
    path
        Its file.
    scan, weights
        Content hash of the scan; SHA-256 of the weights file.
    saved_at
        When it was saved last, in local time.
    painted, accepted
        Numbers of slices.
    alive
        Whether the program that writes it is still running, another window for instance.
    """

    path: Path
    scan: str
    weights: str
    saved_at: datetime
    painted: int
    accepted: int
    alive: bool


class AutosaveStore:
    """Keeps sessions; each window has a store of its own, and all of them share a folder.

    A session that was found is taken up like this: :meth:`load` it, restore it, :meth:`save` the session once, and only
    then :meth:`discard` what was found; at no time is it in no file.

    Parameters
    ----------
    folder
        Where the files lie; by default the user's folder for data of this program.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or platformdirs.user_data_path("napari-oneseg", appauthor=False) / "autosave"
        self._token: str | None = None
        self._lock: int | None = None
        self._numbers: WeakKeyDictionary[LabelledSlice, int] = WeakKeyDictionary()
        self._next = itertools.count(1)
        self._kept: dict[str, dict[str, int]] = {}
        self._written: dict[str, int] = {}
        # Strokes need not wait until results, in another thread, are written.
        self._naming, self._stroking, self._storing = threading.Lock(), threading.Lock(), threading.Lock()

    # Keeping -----------------------------------------------------------------------------------------------------

    def save(self, saved: SavedSession, results: bool = True, order: int | None = None) -> Path:
        """Keep a session, in place of what this store has kept of the scan before.

        It may run in any thread, because what it is given never changes. When it was cut off, by a kill too, what was
        kept before is still there, or all of the new is.

        Parameters
        ----------
        saved
            The session, with plain values to be kept along in ``extras``.
        results
            Whether to keep propagated slices as well: half a second for a large CT, where strokes take milliseconds.
        order
            Rises with the time at which the session was as it is given. Of two threads that save, one may come late:
            strokes are never replaced by older ones. By default they are given in their order.

        Returns
        -------
        The file with the strokes.

        Raises
        ------
        OutputError
            If a file cannot be written; what was kept before stays.
        """
        with self._naming:
            strokes = self._claimed(saved.scan)
            numbers = {str(index): self._number(result) for index, result in sorted(saved.state.results.items())}
        extras = {"results": numbers, "extras": dict(saved.extras)}
        with self._stroking:
            if order is None or order > self._written.get(saved.scan, -1):
                save_session(strokes, replace(saved, state=replace(saved.state, results={}), extras=extras))
                if order is not None:
                    self._written[saved.scan] = order
        if results:
            with self._storing:
                if numbers and self._kept.get(saved.scan) != numbers:
                    state = SessionState(results=saved.state.results)
                    save_session(strokes.with_suffix(_RESULTS), replace(saved, state=state, extras=extras))
                    self._kept[saved.scan] = numbers
        return strokes

    def _number(self, result: LabelledSlice) -> int:
        if result not in self._numbers:
            self._numbers[result] = next(self._next)
        return self._numbers[result]

    def _claimed(self, scan: str) -> Path:
        """Return the file for a scan's strokes; the first time, choose a name and lock it."""
        if self._token is None:
            try:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                while self._lock is None:
                    token = secrets.token_hex(8)
                    self._lock = hold(self._lock_of(token))
            except OSError as error:
                reason = why_not_written(error, self.folder.parent)
                raise OutputError(f"The session cannot be kept in {self.folder}: {reason}.") from error
            self._token = token
            self._tidy()
        return self.folder / f"{scan}-{self._token}{_STROKES}"

    def close(self) -> None:
        """End this store, as the end of the program would: what it has kept is found from now on."""
        with self._naming:
            if self._lock is not None:
                release(self._lock)
            self._token = self._lock = None
            self._kept.clear()
            self._written.clear()

    # Finding -----------------------------------------------------------------------------------------------------

    def find(self, scan: str) -> Found | None:
        """Return what is most likely to be taken up: the newest session that nobody works on, or else one in use.

        Parameters
        ----------
        scan
            Content hash of the scan.
        """
        found = self.find_all(scan)
        return min(found, key=lambda one: one.alive, default=None)

    def find_all(self, scan: str) -> list[Found]:
        """Return all sessions on a scan but this store's own, newest first; those in which nothing was made are none.

        Warns
        -----
        UserWarning
            For each file that cannot be read; a damaged one is set aside, under another name.
        """
        found = []
        for path in self.folder.glob(f"{scan}-*{_STROKES}"):
            if _token(path) == self._token:
                continue
            one = self._reading(path, _found)
            if one is not None:
                found.append(replace(one, alive=self._alive(path)))
        return sorted(found, key=lambda one: one.saved_at, reverse=True)

    def load(self, found: Found) -> SavedSession:
        """Read a session that was found, with ``extras`` as they were given.

        Propagated slices that are not those to which the strokes belong are stale; where they cannot be read, there
        are none.

        Raises
        ------
        InputError
            If the strokes cannot be read; a damaged file is set aside.

        Warns
        -----
        UserWarning
            If the propagated slices cannot be read.
        """
        try:
            saved = load_session(found.path)
        except DamagedSession:
            self._set_aside(found.path)
            raise
        numbers: dict[str, int] = saved.extras.get("results", {})
        path = found.path.with_suffix(_RESULTS)
        stored = self._reading(path, load_session) if numbers and path.exists() else None
        state = replace(saved.state, stale=frozenset())
        if stored is not None:
            state = _joined(saved.state, numbers, stored.state, stored.extras.get("results", {}))
        return replace(saved, state=state, extras=saved.extras.get("extras", {}))

    def _reading(self, path: Path, read: Callable[[Path], T]) -> T | None:
        """Read a file; warn if it cannot be read, and set it aside if it is damaged."""
        try:
            return read(path)
        except DamagedSession as error:
            aside = self._set_aside(path)
            warnings.warn(f"A kept session is left out, and set aside as {aside.name}: {error}", stacklevel=3)
        except InputError as error:
            if path.exists():  # else somebody has just discarded it
                warnings.warn(f"A kept session is left out: {error}", stacklevel=3)
        return None

    def _set_aside(self, path: Path) -> Path:
        """Give a damaged file, and what belongs to it, names under which nothing is looked for."""
        damaged = [path] if path.suffix == _RESULTS else [path, path.with_suffix(_RESULTS)]
        for one in damaged:
            with suppress(FileNotFoundError):
                one.replace(one.with_name(one.name + _DAMAGED))
        return path.with_name(path.name + _DAMAGED)

    # Letting go --------------------------------------------------------------------------------------------------

    def discard(self, which: str | Found) -> None:
        """Delete what is no longer needed.

        Parameters
        ----------
        which
            A session that was found, when the user does not want it; or a scan's content hash, for what this store
            itself has kept of it, when all is exported. No save of it may be under way.

        Raises
        ------
        OutputError
            If a file cannot be deleted.
        """
        if isinstance(which, Found):
            strokes = which.path
        elif self._token is not None:
            strokes = self.folder / f"{which}-{self._token}{_STROKES}"
            self._kept.pop(which, None)
            self._written.pop(which, None)
        else:
            return
        _delete([strokes, strokes.with_suffix(_RESULTS)])

    def prune(self, keep_bytes: int = 1024**3, keep_days: float = 90.0) -> list[Path]:
        """Delete the oldest sessions that nobody works on, damaged ones too, and what killed programs have left over.

        Parameters
        ----------
        keep_bytes
            Space that they may take together; the newest one stays, whatever it takes.
        keep_days
            Age up to which they stay, in days.

        Returns
        -------
        The sessions' files that were deleted.
        """
        self._tidy()
        sessions: dict[str, list[Path]] = {}
        for path in self.folder.glob("[!.]*-*"):
            if not self._alive(path):
                sessions.setdefault(path.name.partition(".")[0], []).append(path)
        ages = {name: max(map(_changed, paths)) for name, paths in sessions.items()}
        taken, deleted = 0, []
        for place, name in enumerate(sorted(sessions, key=ages.__getitem__, reverse=True)):
            taken += sum(map(_size, sessions[name]))
            if ages[name] < time.time() - 86400.0 * keep_days or (place and taken > keep_bytes):
                deleted += sorted(sessions[name])
        with suppress(OutputError):
            _delete(deleted)
        return deleted

    def _tidy(self) -> None:
        """Remove what killed programs have left over: files half written, results without strokes, locks of nothing."""
        tidy(self.folder)
        left = [path for path in self.folder.glob(f"*-*{_RESULTS}") if not path.with_suffix(_STROKES).exists()]
        used = {_token(path) for path in self.folder.glob("[!.]*-*")}
        left += [path for path in self.folder.glob("*.lock") if path.stem not in used]
        with suppress(OutputError):  # what cannot be deleted now can wait
            _delete(path for path in left if _settled(path) and not self._alive(path))

    def _alive(self, path: Path) -> bool:
        return is_held(self._lock_of(_token(path)))

    def _lock_of(self, token: str) -> Path:
        return self.folder / f"{token}.lock"


def _token(path: Path) -> str:
    """Return the name of the store that a file belongs to."""
    return path.name.partition(".")[0].rpartition("-")[2]


def _changed(path: Path) -> float:
    """Return when a file was changed, in seconds since the epoch; now, if it has just gone."""
    with suppress(FileNotFoundError):
        return path.stat().st_mtime
    return time.time()


def _settled(path: Path) -> bool:
    return _changed(path) < time.time() - _SETTLED_SECONDS


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _delete(paths: Iterable[Path]) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{path} was not deleted: {error.strerror or error}.") from error


def _found(path: Path) -> Found | None:
    record = load_record(path)
    made = record["painted"] or record["frozen"] or record.get("extras", {}).get("results")
    saved_at = datetime.fromtimestamp(_changed(path), UTC).astimezone()
    counts = len(record["painted"]), len(record["frozen"])
    return Found(path, record["scan"], record["weights"], saved_at, *counts, alive=False) if made else None


def _joined(
    strokes: SessionState, numbers: Mapping[str, int], stored: SessionState, stored_numbers: Mapping[str, int]
) -> SessionState:
    """Return strokes with their results; those of an earlier or later moment are stale."""
    results = {index: result for index, result in stored.results.items() if str(index) in numbers}
    other = {index for index in results if stored_numbers.get(str(index)) != numbers[str(index)]}
    stale = (strokes.stale & results.keys() | other) - strokes.frozen.keys()
    return replace(strokes, results=results, stale=stale, outdated=None if other else strokes.outdated)
