"""Working through a study: one scan after the other, each left with its work safe, and found again as it was.

Strategy. A scan is left in two steps. First what was made on it is written into the study's folder, in the background,
while the user may go on painting; the same job claims the next scan and reads what was made on that one. Only when
nothing has changed since does the scan go from the viewer, and the next one is opened. So whatever goes wrong, a full
disk or a scan that another window has, the user stays where he was, with all of his strokes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal

from napari_oneseg.errors import OneSegError
from napari_oneseg.plugin import presenting_study
from napari_oneseg.plugin.engine import Engine, Job
from napari_oneseg.plugin.scan_at_hand import ScanAtHand
from napari_oneseg.plugin.study_desk import Arrival, Left, StudyDesk, Worklist, painted_on, set_aside, tables_at
from napari_oneseg.plugin.work_clock import WorkClock

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_oneseg.autosave import Found
    from napari_oneseg.plugin.asking import Asking
    from napari_oneseg.plugin.autosaving import Autosaver
    from napari_oneseg.plugin.controller import Controller
    from napari_oneseg.plugin.opening import Opener
    from napari_oneseg.plugin.painting import Painter
    from napari_oneseg.plugin.panels.study import StudyPanel
    from napari_oneseg.plugin.viewer_link import ViewerLink
    from napari_oneseg.session_file import SavedSession
    from napari_oneseg.study import StudyScan
    from napari_oneseg.study_file import Status

__all__ = ["Studier"]

_FLUSH_MS = 10_000

Choose = Callable[[StudyDesk], Iterable["StudyScan"]]


class Studier(QObject):
    """Holds the study, and the one scan of it that is at hand.

    Parameters
    ----------
    now
        Returns seconds that never run backwards, to count the time of work with.
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
        asking: Asking,
        parent: QObject | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(parent)
        self._controller, self._opener, self._painter = controller, opener, painter
        self._saver, self._asking, self._viewer = saver, asking, link.viewer
        self.lane = Engine(self)
        self.clock = WorkClock(now)
        self.busy = ""
        """What is going on, in a few words; empty where nothing is."""
        self.worklist: Worklist | None = None
        self._desk: StudyDesk | None = None
        self._hand: ScanAtHand | None = None
        self._arrival: Arrival | None = None
        """The scan that is being opened."""
        self._flushing: tuple[Job, float] | None = None
        opener.decide = self._take_up
        opener.left.connect(self._left)
        opener.not_opened.connect(self._not_opened)
        controller.opened.connect(self._opened)
        controller.worked.connect(self._worked)
        link.slice_shown.connect(self.touch)
        self._viewer.mouse_drag_callbacks.append(self._touched)
        self._viewer.mouse_wheel_callbacks.append(self._touched)
        self._timer = QTimer(self)
        self._timer.setInterval(_FLUSH_MS)
        self._timer.timeout.connect(self.flush)

    @property
    def at_hand(self) -> str | None:
        """The name of the scan at hand, whether it is open or could not be opened."""
        return self._hand.name if self._hand else None

    @property
    def is_open(self) -> bool:
        """Whether the scan at hand is the one in the viewer: its work is kept in the study."""
        return self._hand is not None and self._hand.is_open

    # The study -----------------------------------------------------------------------------------------------------

    def open(self, path: Path) -> None:
        """Open a study, and the scan that it was left at; a study that was open is closed."""
        if self._desk is not None:
            self.close_study(lambda: self.open(path))
            return
        if self.busy or not self._may_leave():
            return

        def look(_: object) -> tuple[StudyDesk, Arrival | None, Worklist]:
            desk = StudyDesk(path)
            return desk, desk.arrive(desk.left_off()), desk.worklist()

        def done(answer: tuple[StudyDesk, Arrival | None, Worklist]) -> None:
            self._desk, arrival, self.worklist = answer
            self._timer.start()
            self._end_busy()
            if arrival is None:
                self.said.emit(presenting_study.nothing_left(self.worklist, None), "info")
            else:
                self._go(arrival)

        self._do("Opening the study", look, done)

    def close_study(self, then: Callable[[], None] = lambda: None) -> None:
        """Keep what was made on the scan at hand, and go on without the study; the scan stays in the viewer."""

        def closed(_: Arrival | None) -> None:
            desk, self._desk, self._hand, self.worklist = self._desk, None, None, None
            self._timer.stop()
            assert desk is not None
            self.lane.submit(Job(lambda _: desk.claims.give_back()))
            self.changed.emit()
            then()

        if self._may_leave():
            self._depart(lambda _: (), None, closed)

    # The way through it --------------------------------------------------------------------------------------------

    def next(self) -> None:
        """Go on to the next scan that is not finished."""
        name = self.at_hand
        self._leave(lambda desk: desk.left_off() if name is None else desk.after(name))

    def previous(self) -> None:
        """Go back to the scan before, whatever its status."""
        name = self.at_hand
        if name is not None:
            self._leave(lambda desk: desk.before(name), nothing="This is the first scan of the study.")

    def go_to(self, name: str) -> None:
        """Open a scan of the list."""
        if name != self.at_hand or not self.is_open:
            self._leave(lambda desk: desk.just(name))

    def skip(self) -> None:
        """Leave the scan out, and go on to the next one."""
        name = self.at_hand
        if name is not None:
            self._leave(lambda desk: desk.after(name), "skipped")

    def done(self) -> None:
        """Write the labels into the study's folder for results, and go on to the next scan."""
        name = self.at_hand
        if name is None or not self.is_open or self.busy:
            return
        self._painter.compare()
        doubt = presenting_study.doubt_about_done(self._controller)
        if not doubt or self._asking.is_sure(f"{doubt} Is this scan done all the same?"):
            self._leave(lambda desk: desk.after(name), "done")

    def _leave(self, choose: Choose, status: Status | None = None, nothing: str = "") -> None:
        def gone(arrival: Arrival | None) -> None:
            if arrival is not None:
                self._go(arrival)
            else:
                assert self.worklist is not None
                self.said.emit(nothing or presenting_study.nothing_left(self.worklist, self.at_hand), "info")

        if self._desk is not None and self._may_leave():
            self._depart(choose, status, gone)

    def _may_leave(self) -> bool:
        if self.busy:
            return False
        if self._painter.is_drawing:
            self.said.emit("Finish the stroke first.", "info")
            return False
        if self._controller.doing == "export":
            self.said.emit("Wait until the labels are written.", "info")
            return False
        return True

    def _depart(self, choose: Choose, status: Status | None, gone: Callable[[Arrival | None], None]) -> None:
        """Write what was made, and claim the next scan; once more where something was changed meanwhile."""
        desk, hand = self._desk, self._hand
        assert desk is not None
        self.touch()
        if self.is_open:
            self._controller.pause()
            self._painter.compare()
        left = Left() if hand is None else hand.left(self.clock.take(), status)

        def leave(_: object) -> tuple[Arrival | None, Worklist]:
            if hand is not None:
                desk.keep(hand.name, left)
            arrival = desk.arrive(choose(desk))
            return arrival, desk.worklist()

        def done(answer: tuple[Arrival | None, Worklist]) -> None:
            arrival, self.worklist = answer
            self._end_busy()
            if self.is_open:
                self._painter.compare()
            if hand is None or hand.kept(left):
                gone(arrival)
            else:
                again = choose if arrival is None else partial(_just, arrival.scan.name)
                self._depart(again, status, gone)

        def failed(sentence: str) -> None:
            self.clock.seconds += left.seconds
            if hand is not None:
                hand.not_kept(left)
            self._end_busy()
            self.said.emit(sentence, "error")

        self._do("Saving" if hand is None else f"Saving {hand.name}", leave, done, failed)

    def _go(self, arrival: Arrival) -> None:
        """Take the scan at hand out of the viewer, and open the one that was claimed."""
        desk, before = self._desk, self._hand
        assert desk is not None
        layers = before.layers() if before is not None else []
        safe = before.safe_scan if before is not None else None
        self._hand = ScanAtHand(arrival.scan, self._controller, self._opener, self._painter, self._saver)
        self._arrival = None
        self._opener.remove(layers)
        if safe is not None:
            self._saver.let_go(safe)
        name = arrival.scan.name
        self.lane.submit(Job(lambda _: desk.claims.give_back(but=name)))
        self._arrival = arrival
        axis = arrival.kept.extras.get("axis") if arrival.kept is not None else None
        self._opener.open_path(arrival.scan.path, axis if axis in (0, 1, 2) else None)
        self.changed.emit()

    # Arriving ------------------------------------------------------------------------------------------------------

    def _opened(self) -> None:
        hand, arrival = self._hand, self._arrival
        self.clock.stop()
        if hand is None or not hand.take_layer():
            return
        self.touch()
        if arrival is None:
            self._come_back(hand)
            return
        self._arrival = None
        self.changed.emit()
        if arrival.problem:
            self.said.emit(f"{arrival.problem} {hand.name} begins anew; the file was set aside.", "warning")
        if arrival.kept is not None:
            self._restore(hand, arrival)
        elif arrival.scan.annotation is not None and not arrival.problem:
            self._read_annotation(hand, arrival.scan.annotation)
        else:
            hand.name_labels(arrival.labels)
        hand.begin()
        if arrival.scan.status in ("open", "failed"):
            self._write(Left({"status": "in progress", "problem": ""}))

    def _restore(self, hand: ScanAtHand, arrival: Arrival) -> None:
        kept, path = arrival.kept, arrival.kept_in
        assert kept is not None
        assert path is not None
        if hand.restore(kept, arrival.kept_at):
            return
        hand.name_labels(kept.extras)
        sentence = f"What was made on {hand.name} before belongs to another scan of that name"
        if arrival.kept_at is None:
            self.said.emit(f"{sentence}: {path.name} is left alone.", "warning")
            return
        self.said.emit(f"{sentence}, and was set aside.", "warning")
        self.lane.submit(Job(lambda _: set_aside(path), on_error=self._failed))

    def _read_annotation(self, hand: ScanAtHand, annotation: Path) -> None:
        scan = self._controller.scan
        assert scan is not None

        def done(images: dict[int, Any]) -> None:
            if hand is self._hand and self._controller.scan is scan:
                hand.adopt(images)

        self.lane.submit(Job(lambda _: painted_on(annotation, scan), done, on_error=self._failed))

    def _come_back(self, hand: ScanAtHand) -> None:
        """Go on with the scan at hand, opened once more: in another plane, on another device, or after another scan."""
        desk, session = self._desk, self._controller.session
        assert desk is not None
        hand.begin()
        if session is None or session.has_work:
            return
        plane = hand.plane

        def done(kept: SavedSession | None) -> None:
            if kept is not None and self._controller.session is session and not session.has_work:
                hand.restore(kept, None)
                hand.begin()

        self.lane.submit(Job(lambda _: desk.work_in(hand.name, plane), done, on_error=self._failed))

    def _not_opened(self, sentence: str) -> None:
        arrival, self._arrival = self._arrival, None
        if arrival is None:
            return
        if self._hand is not None:
            self._hand.take_what_is_there()
        self.changed.emit()
        name, path = arrival.scan.name, arrival.scan.path
        if not sentence:
            self.said.emit(f"{name} was not opened. Press Enter on it in the list to try again, or go on.", "info")
            return
        # A study may be passed on: it names no folders.
        problem = sentence.replace(str(path), path.name).replace(str(path.parent), "")
        if arrival.scan.status != "done":
            self._write(Left({"status": "failed", "problem": problem}))
        self.said.emit(f"{name} cannot be opened. {problem} 'Next' goes on with the study.", "error")

    def interrupted(self, *_: object) -> None:
        """Another scan is to be opened instead of the one that is being opened."""
        self._arrival = None
        self.changed.emit()

    def _take_up(self, found: Found) -> bool | None:
        """Decide on work that an earlier run has left: a crash costs nothing, and nobody has to be asked."""
        return self._hand.wants(found.saved_at) if self._hand is not None and self.is_open else None

    # While it is worked on -----------------------------------------------------------------------------------------

    def touch(self, *_: object) -> None:
        """Note that the user is doing something."""
        if self.is_open:
            self.clock.touch()

    def _touched(self, *_: object) -> None:
        self.touch()

    def _worked(self) -> None:
        hand = self._hand
        if hand is None or self.worklist is None or not self.is_open:
            return
        self.touch()
        if self.worklist[hand.name].status != "in progress" and hand.is_changed and not self.busy:
            self._write(Left({"status": "in progress", "problem": ""}))

    def _left(self, layer: Image, saved: SavedSession | None) -> None:
        """Another scan is opened, or the layer was removed: keep what was made, while the session is still there."""
        hand = self._hand
        self.clock.stop()
        if hand is None or layer is not hand.layer or saved is None or not hand.is_changed:
            return
        left = hand.left(self.clock.take(), None)
        hand.kept(left)
        self._write(left)

    def note(self, text: str) -> None:
        """Keep the user's notes on the scan at hand."""
        if self._hand is not None:
            self.touch()
            self._hand.notes = text
            self._write(Left({"notes": text}))

    def flush(self) -> None:
        """Write time and slices, so that a crash and other windows miss little; see what others have written."""
        desk, hand = self._desk, self._hand
        if desk is None or self.lane.busy:
            return
        counts = hand.counts() if hand is not None and self.is_open else {}
        seconds = self.clock.take()
        if hand is not None and (seconds or counts):
            self._write(Left(counts, seconds))
            return

        def done(worklist: Worklist) -> None:
            self.worklist = worklist
            self.changed.emit()

        self.lane.submit(Job(lambda _: desk.look(), done))

    def _write(self, left: Left) -> None:
        """Write something of the scan at hand in the background."""
        desk, hand = self._desk, self._hand
        assert desk is not None
        assert hand is not None
        name = hand.name

        def done(worklist: Worklist) -> None:
            self._flushing = None
            if self._desk is desk:
                self.worklist = worklist
                self.changed.emit()

        def failed(sentence: str) -> None:
            self._flushing = None
            self.clock.seconds += left.seconds
            hand.not_kept(left)
            self._failed(sentence)

        job = self.lane.submit(Job(lambda _: desk.keep(name, left), done, on_error=failed, name="keep"))
        if left.seconds:
            self._flushing = job, left.seconds

    def _failed(self, sentence: str) -> None:
        self.said.emit(sentence, "error")
        self.changed.emit()

    # What came of it -----------------------------------------------------------------------------------------------

    def save_tables(self) -> None:
        """Ask for a file, and write the summary into it and the effort beside it."""
        desk, hand = self._desk, self._hand
        if desk is None or self.worklist is None or self.busy:
            return
        path = self._asking.for_table(self.worklist.results / "summary.csv")
        if path is None:
            return
        self._painter.compare()
        left = hand.left(self.clock.take(), None) if hand is not None else Left()
        values = Left(left.values, left.seconds)  # the work itself is written when the scan is left

        def save(_: object) -> Worklist:
            worklist = desk.keep(hand.name, values) if hand is not None else desk.look()
            desk.save_tables(path)
            return worklist

        def done(worklist: Worklist) -> None:
            self.worklist = worklist
            self._end_busy()
            self.said.emit(f"Written: {' and '.join(table.name for table in tables_at(path))}.", "info")

        def failed(sentence: str) -> None:
            self._end_busy()
            self.said.emit(sentence, "error")

        self._do("Writing the tables", save, done, failed)

    # The end -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Keep everything, and let other windows have the scan; before this returns."""
        self._timer.stop()
        for callbacks in (self._viewer.mouse_drag_callbacks, self._viewer.mouse_wheel_callbacks):
            if self._touched in callbacks:
                callbacks.remove(self._touched)
        desk, hand = self._desk, self._hand
        flushing, self._flushing = self._flushing, None
        if desk is None:
            self.lane.close()
            return
        if self.is_open:
            self._controller.pause()
            self._painter.compare()
        self.lane.close()
        if hand is not None:
            lost = flushing[1] if flushing and (flushing[0].outcome or ("",))[0] != "done" else 0.0
            self._keep_now(desk, hand, hand.left(self.clock.take() + lost, None))
        desk.claims.give_back()
        self._desk = self._hand = None

    def _keep_now(self, desk: StudyDesk, hand: ScanAtHand, left: Left) -> None:
        try:
            desk.keep(hand.name, left)
        except OneSegError:
            return  # the autosave has the work, and offers it the next time
        hand.kept(left)
        if self.is_open and hand.safe_scan is not None:
            self._saver.end_without(hand.safe_scan)

    # Helpers -------------------------------------------------------------------------------------------------------

    def _do(
        self,
        busy: str,
        job: Callable[[Any], Any],
        done: Callable[[Any], None],
        failed: Callable[[str], None] | None = None,
    ) -> None:
        def told(sentence: str) -> None:
            self._end_busy()
            self.said.emit(sentence, "error")

        self.busy = busy
        self.lane.submit(Job(job, done, on_error=failed or told, name=busy))
        self.changed.emit()

    def _end_busy(self) -> None:
        self.busy = ""
        self.changed.emit()

    def present(self, panel: StudyPanel, show: Callable[..., None]) -> None:
        """Show the study; ``show`` calls a setter with its values."""
        state = None
        if self.worklist is not None:
            painted = self._hand.painted if self._hand is not None and self.is_open else None
            busy = self.busy or (f"Opening {self.at_hand}" if self._arrival is not None else "")
            notes = self._hand.notes if self._hand is not None else None
            state = presenting_study.study_state(
                self.worklist, self.at_hand, self.is_open, self.clock.seconds, painted, notes, busy
            )
        show(panel.set_study, state)


def _just(name: str, desk: StudyDesk) -> Iterable[StudyScan]:
    return desk.just(name)
