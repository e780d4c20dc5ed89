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
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal

from napari_oneseg.plugin import presenting_study
from napari_oneseg.plugin.engine import Job
from napari_oneseg.plugin.scan_at_hand import ScanAtHand
from napari_oneseg.plugin.study_desk import Arrival, Left, StudyDesk, Worklist, painted_on, set_aside
from napari_oneseg.plugin.study_keeper import StudyKeeper

if TYPE_CHECKING:
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
        self._saver, self._asking = saver, asking
        self.keeper = StudyKeeper(controller, link, opener, painter, saver, now, self)
        self.keeper.said.connect(self.said)
        self.keeper.changed.connect(self.changed)
        self.busy = ""
        """What is going on, in a few words; empty where nothing is."""
        self._arrival: Arrival | None = None
        """The scan that is being opened."""
        opener.decide = self._take_up
        opener.not_opened.connect(self._not_opened)
        controller.opened.connect(self._opened)

    @property
    def at_hand(self) -> str | None:
        """The name of the scan at hand, whether it is open or could not be opened."""
        return self.keeper.hand.name if self.keeper.hand else None

    @property
    def is_open(self) -> bool:
        """Whether the scan at hand is the one in the viewer: its work is kept in the study."""
        return self.keeper.is_open

    # The study -----------------------------------------------------------------------------------------------------

    def open(self, path: Path) -> None:
        """Open a study, and the scan that it was left at; a study that was open is closed."""
        if self.keeper.desk is not None:
            self.close_study(lambda: self.open(path))
            return
        if self.busy or not self._may_leave():
            return

        def look(_: object) -> tuple[StudyDesk, Arrival | None, Worklist]:
            desk = StudyDesk(path)
            return desk, desk.arrive(desk.left_off()), desk.worklist()

        def done(answer: tuple[StudyDesk, Arrival | None, Worklist]) -> None:
            desk, arrival, self.keeper.worklist = answer
            self.keeper.begin(desk)
            self._end_busy()
            if arrival is None:
                self.said.emit(presenting_study.nothing_left(self.keeper.worklist, None), "info")
            else:
                self._go(arrival)

        self._do("Opening the study", look, done)

    def close_study(self, then: Callable[[], None] = lambda: None) -> None:
        """Keep what was made on the scan at hand, and close it and the study."""

        def closed(_: Arrival | None) -> None:
            hand = self.keeper.hand
            layers, safe = (hand.layers(), hand.safe_scan) if hand is not None else ([], None)
            self.keeper.end()
            self._opener.remove(layers)
            if safe is not None:
                self._saver.let_go(safe)
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
                assert self.keeper.worklist is not None
                self.said.emit(nothing or presenting_study.nothing_left(self.keeper.worklist, self.at_hand), "info")

        if self.keeper.desk is not None and self._may_leave():
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
        desk, hand = self.keeper.desk, self.keeper.hand
        assert desk is not None
        self.keeper.touch()
        if self.is_open:
            self._controller.propagator.pause()
            self._painter.compare()
        left = Left() if hand is None else hand.left(self.keeper.clock.take(), status)
        written = False

        def leave(_: object) -> tuple[Arrival | None, Worklist]:
            nonlocal written
            if hand is not None:
                desk.keep(hand.name, left)
                written = True
            arrival = desk.arrive(choose(desk))
            return arrival, desk.worklist()

        def done(answer: tuple[Arrival | None, Worklist]) -> None:
            arrival, self.keeper.worklist = answer
            self._end_busy()
            if self.is_open:
                self._painter.compare()
            if self.keeper.noted(left):
                if self._may_leave():  # a stroke may have been begun meanwhile
                    gone(arrival)
            else:
                self._depart(choose if arrival is None else methodcaller("just", arrival.scan.name), status, gone)

        def failed(sentence: str) -> None:
            if written:
                self.keeper.noted(left)
            else:
                self.keeper.missed(left)
            self._end_busy()
            self.said.emit(sentence, "error")

        self._do("Saving" if hand is None else f"Saving {hand.name}", leave, done, failed)

    def _go(self, arrival: Arrival) -> None:
        """Take the scan at hand out of the viewer, and open the one that was claimed."""
        desk, before = self.keeper.desk, self.keeper.hand
        assert desk is not None
        layers = before.layers() if before is not None else []
        safe = before.safe_scan if before is not None else None
        # What was counted since the work was written was spent waiting.
        self.keeper.clock.stop()
        self.keeper.clock.take()
        self.keeper.hand = ScanAtHand(arrival.scan, self._controller, self._opener, self._painter, self._saver)
        self._arrival = None
        self._opener.remove(layers)
        if safe is not None:
            self._saver.let_go(safe)
        name = arrival.scan.name
        self.keeper.lane.submit(Job(lambda _: desk.claims.give_back(but=name)))
        self._arrival = arrival
        work = arrival.propagated or arrival.kept
        axis = None
        if work is not None:
            # Of before the file itself said so.
            axis = work.extras.get("axis") if work.slice_axis is None else work.slice_axis
        self._opener.open_path(arrival.scan.path, axis if axis in (0, 1, 2) else None)
        self.changed.emit()

    # Arriving ------------------------------------------------------------------------------------------------------

    def _opened(self) -> None:
        hand, arrival = self.keeper.hand, self._arrival
        self.keeper.clock.stop()
        if hand is None or not hand.take_layer():
            return
        self.keeper.touch()
        if arrival is None:
            self._come_back(hand)
            return
        work = arrival.propagated or arrival.kept
        axis = None if work is None else hand.other_axis(work)
        if axis is not None:
            # Of before a session file said so: only the scan itself has told in which plane it was painted. Not at
            # once, because others are about to look at the scan that was opened.
            QTimer.singleShot(0, partial(self._opener.change_axis, axis))
            return
        self._arrival = None
        self.changed.emit()
        if arrival.problem:
            self._tell(f"{arrival.problem} {hand.name} begins anew; the file was set aside.")
        hand.name_labels(arrival.labels)
        self._take_work(hand, arrival)
        hand.begin()
        if arrival.scan.status == "done":
            self._controller.unsaved = False
        if arrival.scan.status in ("open", "failed"):
            self.keeper.write(Left({"status": "in progress", "problem": ""}))

    def _take_work(self, hand: ScanAtHand, arrival: Arrival) -> None:
        """Show what was made on the scan before, if only painted slices that came with it."""
        if arrival.propagated is not None and hand.restore(arrival.propagated, arrival.kept_at, own=False):
            return
        if arrival.kept is not None:
            self._restore(hand, arrival)
        elif arrival.scan.annotation is not None and not arrival.problem:
            self._read_annotation(hand, arrival.scan.annotation)

    def _restore(self, hand: ScanAtHand, arrival: Arrival) -> None:
        kept, path = arrival.kept, arrival.kept_in
        assert kept is not None
        assert path is not None
        if hand.restore(kept, arrival.kept_at):
            return
        hand.name_labels(kept.extras)
        sentence = f"What was made on {hand.name} before belongs to another scan of that name"
        if arrival.kept_at is None:
            self._tell(f"{sentence}: {path.name} is left alone.")
            return
        self._tell(f"{sentence}, and was set aside.")
        self.keeper.lane.submit(Job(lambda _: set_aside(path), on_error=self.keeper.failed))

    def _tell(self, sentence: str) -> None:
        """Say something with what there is to say of the scan's file: it takes the place of any other message."""
        self._opener.note = f"{self._opener.note} {sentence}".strip()

    def _read_annotation(self, hand: ScanAtHand, annotation: Path) -> None:
        scan = self._controller.scan
        assert scan is not None

        def done(images: dict[int, Any]) -> None:
            if hand is self.keeper.hand and self._controller.scan is scan:
                hand.adopt(images)

        self.keeper.lane.submit(Job(lambda _: painted_on(annotation, scan), done, on_error=self.keeper.failed))

    def _come_back(self, hand: ScanAtHand) -> None:
        """Go on with the scan at hand, opened once more: in another plane, on another device, or after another scan."""
        desk, session = self.keeper.desk, self._controller.session
        assert desk is not None
        assert session is not None  # a scan was opened just now
        if not session.has_work:
            hand.begin()
        if session.annotation.slices:
            return
        plane, state = hand.plane, session.state

        def done(kept: SavedSession | None) -> None:
            if kept is not None and self._controller.session is session and session.state is state:
                hand.restore_in_plane(kept)

        self.keeper.lane.submit(Job(lambda _: desk.work_in(hand.name, plane), done, on_error=self.keeper.failed))

    def _not_opened(self, sentence: str) -> None:
        arrival, self._arrival = self._arrival, None
        if arrival is None:
            return
        if self.keeper.hand is not None:
            self.keeper.hand.take_what_is_there()
        self.changed.emit()
        name, path = arrival.scan.name, arrival.scan.path
        if not sentence:
            self.said.emit(f"{name} was not opened. Press Enter on it in the list to try again, or go on.", "info")
            return
        # A study may be passed on: it names no folders.
        problem = sentence.replace(str(path), path.name).replace(str(path.parent), "")
        if arrival.scan.status != "done":
            self.keeper.write(Left({"status": "failed", "problem": problem}))
        self.said.emit(f"{name} cannot be opened: see above. 'Next →' goes on with the study.", "error")

    def interrupted(self, *_: object) -> None:
        """Another scan is to be opened instead of the one that is being opened."""
        self._arrival = None
        self.changed.emit()

    def _take_up(self, found: Found) -> bool | None:
        """Decide on work that an earlier run has left: a crash costs nothing, and nobody has to be asked."""
        return self.keeper.hand.wants(found.saved_at) if self.keeper.hand is not None and self.is_open else None

    # What came of it -----------------------------------------------------------------------------------------------

    def save_tables(self) -> None:
        """Ask for a file, and write the summary into it and the effort beside it."""
        if self.keeper.worklist is None or self.busy:
            return
        path = self._asking.for_table(self.keeper.worklist.results / "summary.csv")
        if path is None:
            return
        self._painter.compare()
        self.keeper.save_tables(path)

    def close(self) -> None:
        """Keep everything, and let other windows have the scan; before this returns."""
        self.keeper.close()

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
        self.keeper.lane.submit(Job(job, done, on_error=failed or told, name=busy))
        self.changed.emit()

    def _end_busy(self) -> None:
        self.busy = ""
        self.changed.emit()

    def present(self, panel: StudyPanel, show: Callable[..., None]) -> None:
        """Show the study; ``show`` calls a setter with its values."""
        state = None
        if self.keeper.worklist is not None:
            painted = self.keeper.hand.painted if self.keeper.hand is not None and self.is_open else None
            busy = self.busy or (f"Opening {self.at_hand}" if self._arrival is not None else "")
            notes = self.keeper.hand.notes if self.keeper.hand is not None else None
            state = presenting_study.study_state(
                self.keeper.worklist, self.at_hand, self.is_open, self.keeper.clock.seconds, painted, notes, busy
            )
        show(panel.set_study, state)
