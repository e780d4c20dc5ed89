"""Keeps the list of a study true while a scan of it is worked on: time, slices, notes, and what other windows write."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal

from napari_oneseg.errors import OneSegError
from napari_oneseg.plugin.engine import Engine, Job
from napari_oneseg.plugin.study_desk import Left, StudyDesk, Worklist, tables_at
from napari_oneseg.plugin.work_clock import WorkClock

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_oneseg.plugin.autosaving import Autosaver
    from napari_oneseg.plugin.controller import Controller
    from napari_oneseg.plugin.opening import Opener
    from napari_oneseg.plugin.painting import Painter
    from napari_oneseg.plugin.scan_at_hand import ScanAtHand
    from napari_oneseg.plugin.viewer_link import ViewerLink
    from napari_oneseg.session_file import SavedSession

__all__ = ["StudyKeeper"]

_FLUSH_MS = 10_000


class StudyKeeper(QObject):
    """Writes what is done on the scan at hand, in a thread of its own.

    Parameters
    ----------
    now
        Returns seconds that never run backwards, to count the time of work with.

    Attributes
    ----------
    lane
        Does all that touches the study's files, one after the other.
    clock
        Time of work that is not in the list yet.
    desk, worklist
        The study and its scans, None where none is open.
    hand
        The scan at hand.
    """

    said = Signal(str, str)
    changed = Signal()

    def __init__(
        self,
        controller: Controller,
        link: ViewerLink,
        opener: Opener,
        painter: Painter,
        saver: Autosaver,
        now: Callable[[], float] = time.monotonic,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._controller, self._painter, self._saver, self._viewer = controller, painter, saver, link.viewer
        self.lane = Engine(self)
        self.clock = WorkClock(now)
        self.desk: StudyDesk | None = None
        self.worklist: Worklist | None = None
        self.hand: ScanAtHand | None = None
        self._flushing: tuple[Job, float] | None = None
        opener.left.connect(self._left)
        controller.worked.connect(self._worked)
        link.slice_shown.connect(self.touch)
        self._viewer.mouse_drag_callbacks.append(self._touched)
        self._viewer.mouse_wheel_callbacks.append(self._touched)
        self._timer = QTimer(self)
        self._timer.setInterval(_FLUSH_MS)
        self._timer.timeout.connect(self.flush)

    @property
    def is_open(self) -> bool:
        """Whether the scan at hand is the one in the viewer: its work is kept in the study."""
        return self.hand is not None and self.hand.is_open

    def begin(self, desk: StudyDesk) -> None:
        """Keep a study from now on."""
        self.desk = desk
        self._timer.start()

    def end(self) -> None:
        """Keep nothing any more; what was to be kept is on disk. Other windows may have the scan."""
        desk, self.desk, self.hand, self.worklist = self.desk, None, None, None
        self._timer.stop()
        if desk is not None:
            self.lane.submit(Job(lambda _: desk.claims.give_back()))
        self.changed.emit()

    # Signs of work -------------------------------------------------------------------------------------------------

    def touch(self, *_: object) -> None:
        """Note that the user is doing something."""
        if self.is_open:
            self.clock.touch()

    def _touched(self, *_: object) -> None:
        # Apart from the other one, because napari asks for the name of what it calls.
        self.touch()

    def _worked(self) -> None:
        hand = self.hand
        if hand is None or self.worklist is None or not self.is_open:
            return
        self.touch()
        scan = self.worklist.find(hand.name)
        if scan is not None and scan.status != "in progress" and hand.is_changed:
            self.write(Left({"status": "in progress", "problem": ""}))

    def _left(self, layer: Image, saved: SavedSession | None) -> None:
        """Keep what was made while the session is still there: another scan is opened, or the layer was removed."""
        hand = self.hand
        self.clock.stop()
        if hand is None or layer is not hand.layer or saved is None or not hand.is_changed:
            return
        left = hand.left(self.clock.take(), None)
        hand.kept(left)
        self.write(left)

    def note(self, text: str) -> None:
        """Keep the user's notes on the scan at hand."""
        if self.hand is not None:
            self.touch()
            self.hand.notes = text
            self.write(Left({"notes": text}))

    # Writing -------------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write time and slices, so that a crash and other windows miss little; see what others have written."""
        desk, hand = self.desk, self.hand
        if desk is None or self.lane.busy:
            return
        counts: dict[str, Any] = hand.counts() if hand is not None and self.is_open else {}
        seconds = self.clock.take()
        if hand is not None and (seconds or counts):
            self.write(Left(counts, seconds))
            return

        def done(worklist: Worklist) -> None:
            if self.desk is desk:
                self.worklist = worklist
                self.changed.emit()

        # A study that is out of reach for a moment is told of when something is to be written.
        self.lane.submit(Job(lambda _: desk.look(), done, name="look"))

    def write(self, left: Left) -> None:
        """Write something of the scan at hand in the background."""
        desk, hand = self.desk, self.hand
        assert desk is not None
        assert hand is not None

        def done(worklist: Worklist) -> None:
            self._flushing = None
            if left.values.get("notes") == hand.notes:
                hand.notes = None
            if self.desk is desk:
                self.worklist = worklist
                self.changed.emit()

        def failed(sentence: str) -> None:
            self._flushing = None
            self.missed(left)
            self.failed(sentence)

        job = self.lane.submit(Job(lambda _: desk.keep(hand.name, left), done, on_error=failed, name="keep"))
        if left.seconds:
            self._flushing = job, left.seconds

    def noted(self, left: Left) -> bool:
        """Note that something is on disk; return whether that is all there is."""
        return self.hand is None or self.hand.kept(left)

    def missed(self, left: Left) -> None:
        """Note that something could not be written."""
        self.clock.seconds += left.seconds
        if self.hand is not None:
            self.hand.not_kept(left)

    def save_tables(self, path: Path) -> None:
        """Write the summary, and the effort beside it, with what was done up to now."""
        desk, hand = self.desk, self.hand
        assert desk is not None
        left = hand.left(self.clock.take(), None) if hand is not None else Left()
        values = Left(left.values, left.seconds)  # the work itself is written when the scan is left
        written = False

        def save(_: object) -> Worklist:
            nonlocal written
            worklist = desk.keep(hand.name, values) if hand is not None else desk.look()
            written = True
            desk.save_tables(path)
            return worklist

        def done(worklist: Worklist) -> None:
            self.worklist = worklist
            self.said.emit(f"Written: {' and '.join(table.name for table in tables_at(path))}.", "info")
            self.changed.emit()

        def failed(sentence: str) -> None:
            if not written:
                self.missed(values)
            self.failed(sentence)

        self.lane.submit(Job(save, done, on_error=failed, name="tables"))

    def failed(self, sentence: str) -> None:
        """Say that something could not be written or read."""
        self.said.emit(sentence, "error")
        self.changed.emit()

    # The end -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Keep everything, and let other windows have the scan; before this returns."""
        self._timer.stop()
        for callbacks in (self._viewer.mouse_drag_callbacks, self._viewer.mouse_wheel_callbacks):
            if self._touched in callbacks:
                callbacks.remove(self._touched)
        if self.is_open:
            self._controller.propagator.pause()
            self._painter.compare()
        self.lane.close()
        desk, hand = self.desk, self.hand
        if desk is not None:
            if hand is not None:
                self._keep_now(desk, hand, hand.left(self.clock.take() + self._not_flushed(), None))
            desk.claims.give_back()
        self.desk = self.hand = None

    def _not_flushed(self) -> float:
        """Return the time that was about to be written when the thread was ended."""
        job, seconds = self._flushing or (None, 0.0)
        written = job is None or (job.outcome is not None and job.outcome[0] == "done")
        return 0.0 if written else seconds

    def _keep_now(self, desk: StudyDesk, hand: ScanAtHand, left: Left) -> None:
        try:
            desk.keep(hand.name, left)
        except OneSegError:
            return  # the autosave has the work, and offers it the next time
        hand.kept(left)
        if self.is_open and hand.safe_scan is not None:
            self._saver.end_without(hand.safe_scan)
