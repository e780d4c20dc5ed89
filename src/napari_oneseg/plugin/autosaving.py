"""Keeps the work while it is done: strokes at once, results every few seconds, in a thread of its own."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal

from napari_oneseg.errors import OutputError
from napari_oneseg.plugin.engine import Engine, Job

if TYPE_CHECKING:
    from napari_oneseg.autosave import AutosaveStore, Found
    from napari_oneseg.plugin.controller import Controller
    from napari_oneseg.plugin.engine import Report
    from napari_oneseg.session_file import SavedSession

__all__ = ["Autosaver"]


class Autosaver(QObject):
    """Saves what a controller's session holds after each change.

    Parameters
    ----------
    controller
        Says when something was made.
    seconds
        How often propagated slices are saved while they change; what was painted is saved at once.
    folder
        Where; by default the user's data folder.
    """

    failed = Signal(str)
    """Saving did not work: a sentence for the user."""
    told = Signal(str)
    """Something that the user should know: another window works on the same scan."""

    def __init__(
        self, controller: Controller, seconds: float = 5.0, folder: Path | None = None, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._controller = controller
        self._folder = folder
        self._store: AutosaveStore | None = None
        # Strokes do not wait until results, which may take a second, are written.
        self._lane, self._slow_lane = Engine(self), Engine(self)
        self._opening = threading.Lock()
        self._strokes_due = False
        # Two threads save: what was made later stays.
        self._order = itertools.count()
        self._complaint = ""
        self._looked: set[str] = set()
        self._told_of: set[str] = set()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(round(1000 * seconds))
        self._timer.timeout.connect(self._save_results)
        self.enabled = True
        controller.worked.connect(self._touched)

    # Saving --------------------------------------------------------------------------------------------------------

    def _touched(self) -> None:
        if not self.enabled:
            return
        if self._lane.busy:
            self._strokes_due = True  # one save at a time, the latest state next
        else:
            self._save()
        if not self._timer.isActive():
            self._timer.start()

    def _save(self) -> None:
        saved = self.snapshot()
        if saved is None or not self.enabled:
            return
        self._strokes_due, order = False, next(self._order)

        def save(_: Report) -> list[Found]:
            store = self._opened_store()
            store.save(saved, results=False, order=order)
            # Once for each scan: another window may have begun on it since it was opened.
            return [] if saved.scan in self._looked else store.find_all(saved.scan)

        def done(found: list[Found]) -> None:
            self._complaint = ""
            self._looked.add(saved.scan)
            self._tell_of_others(saved.scan, found)
            if self._strokes_due:
                self._save()

        self._lane.submit(Job(save, done, on_error=self._failed, name="save"))

    def _save_results(self) -> None:
        saved, order = self.snapshot(), next(self._order)

        def save(_: Report) -> None:
            self._opened_store().save(saved, order=order)

        def done(_: object) -> None:
            self._complaint = ""

        if saved is not None and self.enabled:
            self._slow_lane.submit(Job(save, done, on_error=self._failed, name="save"))

    def _failed(self, sentence: str) -> None:
        # There may be room again when it is tried the next time, with everything that was made by then.
        self._timer.start()
        if sentence != self._complaint:
            self._complaint = sentence
            self.failed.emit(f"The work could not be kept for the case of a crash: {sentence}")

    def _tell_of_others(self, scan: str, found: list[Found]) -> None:
        if scan not in self._told_of and any(one.alive for one in found):
            self._told_of.add(scan)
            self.told.emit(
                "Another window works on this scan, too. Each keeps its own work; neither shows what the other paints."
            )

    @property
    def busy(self) -> bool:
        """Whether something is being written."""
        return self._lane.busy or self._slow_lane.busy

    def snapshot(self) -> SavedSession | None:
        """Return what there is to save; None where no scan is open, or nothing was made."""
        session = self._controller.session
        if session is None or not session.has_work:
            return None
        return replace(session.snapshot(), extras=self._controller.extras())

    def save_now(self) -> None:
        """Save before this returns: the program is about to end."""
        saved = self.snapshot()
        self._timer.stop()
        self._lane.close()
        self._slow_lane.close()
        if saved is not None and self.enabled:
            self._opened_store().save(saved, order=next(self._order))

    def keep(self) -> str:
        """Save before this returns, and say why that was not possible; empty where it was."""
        try:
            self.save_now()
        except OutputError as error:
            return str(error)
        self._complaint = ""
        return ""

    def let_go(self, scan: str) -> None:
        """Delete what was kept of a scan that was closed: it is safe elsewhere."""

        def forget(_: object = None) -> None:
            session = self._controller.session
            if session is None or session.volume.content_hash != scan:
                self._lane.submit(Job(lambda _: self._opened_store().discard(scan), on_error=self.failed.emit))

        # Its last results may be waiting to be written.
        self._slow_lane.submit(Job(lambda _: None, forget))

    def end_without(self, scan: str) -> None:
        """End before this returns, and keep nothing of a scan: it is safe elsewhere."""
        self.enabled = False
        self.save_now()
        if self._store is not None:
            self._store.discard(scan)

    def close(self) -> None:
        """Save, and let go of the files."""
        problem = self.keep()
        if problem:
            self._failed(problem)
            self._timer.stop()
        if self._store is not None:
            self._store.close()
            self._store = None

    # What was kept before ------------------------------------------------------------------------------------------

    def find(self, scan: str, found: Callable[[Found], None]) -> None:
        """Look for work on a scan that another run has left; ``found`` is called if there is any."""

        def look(_: Report) -> list[Found]:
            kept: list[Found] = self._opened_store().find_all(scan)
            return kept

        def done(kept: list[Found]) -> None:
            self._tell_of_others(scan, kept)
            one = next((one for one in kept if not one.alive), None)
            if one is not None and (one.painted or one.accepted):
                found(one)

        self._lane.submit(Job(look, done, name="find"))

    def load(self, found: Found, loaded: Callable[[SavedSession], None], failed: Callable[[str], None]) -> None:
        """Load what was found."""
        self._lane.submit(Job(lambda _: self._opened_store().load(found), loaded, on_error=failed, name="load"))

    def taken_up(self, found: Found) -> None:
        """Keep what was found under this window's name, and only then let the old file go."""
        saved, order = self.snapshot(), next(self._order)
        if saved is None:
            return

        def move(_: Report) -> None:
            store = self._opened_store()
            store.save(saved, order=order)
            store.discard(found)

        self._lane.submit(Job(move, on_error=self.failed.emit, name="take up"))

    def discard(self, found: Found) -> None:
        """Delete what was found: the user does not want it."""
        self._lane.submit(Job(lambda _: self._opened_store().discard(found), on_error=self.failed.emit))

    def _opened_store(self) -> Any:
        # Here, in the thread: it imports torch.
        with self._opening:
            if self._store is None:
                from napari_oneseg.autosave import AutosaveStore

                self._store = AutosaveStore(self._folder)
                self._store.prune()
            return self._store
