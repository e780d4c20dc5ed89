"""What the widget does, without the widget: it drives one session, and says what there is to show.

Strategy. All calls come on the GUI thread and return at once; what takes longer is a job of the engine. A session is
changed on the GUI thread only: a propagation is computed in the background from a state that never changes, and taken
over when it is done, so strokes made meanwhile are safe. Whatever was asked for before the scan changed is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_oneseg.plugin import work
from napari_oneseg.plugin.engine import Engine, Job
from napari_oneseg.plugin.foreground import Foreground
from napari_oneseg.plugin.label_book import LabelBook, LabelStyle
from napari_oneseg.plugin.propagating import PropagationRun, next_job
from napari_oneseg.plugin.reviewing import Round, slices_to_check
from napari_oneseg.plugin.slice_table import SliceTable
from napari_oneseg.plugin.view_model import Colour

if TYPE_CHECKING:
    from napari_oneseg.checkpoint import Weights
    from napari_oneseg.config import Direction
    from napari_oneseg.plugin.engine import Report
    from napari_oneseg.plugin.scan_layer import LayerSnapshot, OpenScan
    from napari_oneseg.plugin.work import OpenedScan, Ranking
    from napari_oneseg.propagation.propagate import LabelledSlice
    from napari_oneseg.screening import NextSlice
    from napari_oneseg.session import OneSegSession
    from napari_oneseg.session_file import SavedSession
    from napari_oneseg.session_state import SessionState
    from napari_oneseg.volume import LabelArray

__all__ = ["Controller"]

LIVE_SECONDS = 5.0
"""A propagation that takes longer is not begun by each stroke."""


class Controller(QObject):
    """Decides what happens; views show what it says.

    Parameters
    ----------
    engine
        Does what takes long.
    """

    changed = Signal()
    """Something that views show has changed."""
    progressed = Signal()
    """A job has come on."""
    slices_changed = Signal(object)
    """Slices to be shown anew: index to labels, (rows, columns)."""
    slice_wanted = Signal(int)
    """The view is to go to a slice."""
    said = Signal(str, str)
    """A sentence for the user, with its level: info, warning or error."""
    opened = Signal()
    """A scan is ready."""
    not_opened = Signal(str)
    """A scan could not be opened: why, or nothing where the user has stopped it."""
    worked = Signal()
    """Something was made that is to be kept."""
    styled = Signal()
    """Names or colours of labels have changed."""

    def __init__(self, engine: Engine, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.engine = engine
        self._foreground = Foreground(engine)
        self.direction: Direction = "both"
        self.only_selected = False
        self.live = False
        self.device = "auto"
        self.default_range = 0
        """Slices on either side of the painted ones that are labelled where no range was given; 0 for all."""
        self.weights: Weights | None = None
        self.current = 0
        self._reset(None)
        engine.ticked.connect(self.progressed)

    def _reset(self, opened: OpenedScan | None) -> None:
        self.opened_scan = opened
        self.ranking: Ranking | None = opened.ranking if opened else None
        self.range: tuple[int, int] | None = None
        self.table: SliceTable | None = SliceTable(opened.session.volume) if opened else None
        self.book = LabelBook()
        self.next_slices: list[NextSlice] = []
        self.unsaved = False
        """Whether something was made since the last export."""
        self.seconds: float | None = None
        """How long the last propagation took that was not stopped and renewed more than a few slices."""
        self._run: PropagationRun | None = None
        self._round = Round()

    @property
    def job(self) -> Job | None:
        """The job that the user waits for."""
        return self._foreground.job

    @property
    def doing(self) -> str:
        """What that is: open, suggest, locate, propagate, export; empty where nothing is done."""
        return self._foreground.doing

    # The scan ------------------------------------------------------------------------------------------------------

    @property
    def session(self) -> OneSegSession | None:
        """The session on the open scan."""
        return self.opened_scan.session if self.opened_scan else None

    @property
    def scan(self) -> OpenScan | None:
        """The open scan."""
        return self.opened_scan.scan if self.opened_scan else None

    @property
    def state(self) -> SessionState | None:
        """What was made."""
        return self.session.state if self.session else None

    @property
    def has_unsaved_work(self) -> bool:
        """Whether there are labels that were not exported as they are now."""
        state = self.state
        return self.unsaved and state is not None and bool(state.painted or state.frozen or state.results)

    def open(
        self,
        snapshot: LayerSnapshot,
        axis: int | None = None,
        kept: SavedSession | None = None,
        extras: Mapping[str, Any] | None = None,
    ) -> None:
        """Open what a layer shows; the scan that was open is closed.

        Parameters
        ----------
        snapshot
            The layer.
        axis
            The axis of the slices.
        kept, extras
            What was made on it before, with label names, colours and range, as :meth:`extras` gave them.
        """
        self.close()

        def done(opened: OpenedScan) -> None:
            self._reset(opened)
            self._take_extras(extras or {})
            self.unsaved = kept is not None
            if kept is not None:
                self._show(self._worked_slices())
            self.opened.emit()
            self.changed.emit()

        def stopped() -> None:
            self.not_opened.emit("")
            self.changed.emit()

        job = partial(work.open_scan, snapshot, axis, self.device, self.weights, kept)
        self._do("open", job, done, stopped=stopped)

    def close(self) -> None:
        """Close the scan; nothing that was under way for it is answered any more."""
        self._foreground.forget()
        self._reset(None)
        self.changed.emit()

    def set_current(self, index: int) -> None:
        """Say which slice is on screen."""
        if index != self.current:
            self.current = index
            self.changed.emit()

    def resume(self, saved: SavedSession, extras: Mapping[str, Any]) -> None:
        """Take up what was saved on the open scan; it becomes the present state."""
        session = self._need_session()
        self._stop_propagation()
        before = session.state
        try:
            session.restore(saved)
        except ValueError as error:
            self.said.emit(str(error), "error")
            return
        # At once: what a view shows and what the session holds may not differ when the view is next looked at.
        self._show(before.changed(session.state))
        self._take_extras(extras)
        self._after_change()

    # Labels --------------------------------------------------------------------------------------------------------

    def style(self, value: int) -> LabelStyle:
        """Return how a label is called and shown."""
        return self.book.style(value)

    @property
    def selected(self) -> int:
        """The label to paint with."""
        return self.book.selected

    @property
    def labels(self) -> list[int]:
        """Labels that were named, painted or selected, ascending."""
        return self.book.values(self._shown_values)

    @property
    def _shown_values(self) -> list[int]:
        return self.table.values if self.table else []

    def select_label(self, value: int) -> None:
        """Paint with a label from now on."""
        if value > 0 and value != self.selected:
            self.book.selected = value
            self.styled.emit()
            self.changed.emit()

    def add_label(self) -> int:
        """Make a new label and select it."""
        value = self.book.add(self._shown_values)
        self.select_label(value)
        return value

    def restyle(self, value: int, name: str | None = None, colour: Colour | None = None) -> None:
        """Rename or recolour a label."""
        self.book.restyle(value, name, colour)
        self.styled.emit()
        self.worked.emit()
        self.changed.emit()

    def remove_label(self, value: int) -> None:
        """Take a label out everywhere; undo brings its voxels back."""
        if self.session is not None:
            self._stop_propagation()
            before = self.session.state
            self.session.remove(value)
            self._show(before.changed(self.session.state))
        self.book.remove(value, self._shown_values)
        self.styled.emit()
        self._after_change()

    def extras(self) -> dict[str, Any]:
        """Return what belongs to the work beside the session itself, as plain values."""
        return self.book.to_dict() | {"range": list(self.range) if self.range else None}

    def _take_extras(self, extras: Mapping[str, Any]) -> None:
        self.book.take(extras)
        if extras.get("range"):
            first, last = extras["range"]
            self.range = int(first), int(last)
        self.styled.emit()

    # The target's range --------------------------------------------------------------------------------------------

    def set_range(self, slice_range: tuple[int, int] | None) -> None:
        """Say roughly where the target lies, first and last slice; None for the whole scan."""
        session = self._need_session()
        if slice_range is not None:
            last = session.volume.n_slices - 1
            first, end = (min(max(0, index), last) for index in sorted(slice_range))
            slice_range = first, end
        if slice_range != self.range:
            self.range = slice_range
            self.changed.emit()
            self.worked.emit()
            self.suggest()

    def set_first(self, index: int) -> None:
        """Begin the range at a slice."""
        last = self._need_session().volume.n_slices - 1
        self.set_range((index, max(index, self.range[1] if self.range else last)))

    def set_last(self, index: int) -> None:
        """End the range at a slice."""
        self.set_range((min(index, self.range[0] if self.range else 0), index))

    def locate(self, index: int, row: int, column: int) -> None:
        """Find the rough range of what lies at a place."""
        session = self._need_session()

        def done(found: tuple[int, int]) -> None:
            self.said.emit(
                f"It seems to reach from slice {found[0]} to {found[1]}; correct that where it is wrong.", "info"
            )
            self.set_range(found)

        self._do("locate", lambda _: session.locate(index, row, column), done)

    def suggest(self, go: bool = True) -> None:
        """Rank the slices of the range anew, and go to the best one."""
        session, slice_range = self._need_session(), self.range

        def done(ranking: Ranking) -> None:
            self.ranking = ranking
            self.changed.emit()
            if go and ranking.best:
                self.slice_wanted.emit(ranking.best[0].index)

        if self.doing in ("", "suggest"):
            self._do("suggest", lambda _: work.rank(session, slice_range), done)

    # What the user makes -------------------------------------------------------------------------------------------

    def stroke(self, images: Mapping[int, LabelArray]) -> None:
        """Take slices as a stroke has left them, index to labels, (rows, columns)."""
        session = self._need_session()
        seen = self._run.results.keys() & images.keys() if self._run else ()
        changed = session.paint(images, corrected=seen)
        if changed:
            self._count(changed)
            self._after_change()
            if self.live and self.can_be_live:
                self.propagate(quietly=True)

    def adopt(self, images: Mapping[int, LabelArray]) -> None:
        """Take slices of a labels layer that was there before as painted, in one step."""
        session = self._need_session()
        if images:
            self._count(session.paint(images))
            self._after_change()

    def undo(self) -> None:
        """Take the last step back; a propagation under way is stopped and leaves nothing."""
        self._back_and_forth("undo")

    def redo(self) -> None:
        """Make the step again that was taken back last."""
        self._back_and_forth("redo")

    def _back_and_forth(self, way: str) -> None:
        session = self._need_session()
        if self._stop_propagation() and way == "undo":
            self._after_change()
            return
        before = session.state
        if getattr(session, way)():
            changed = before.changed(session.state)
            self._show(changed)
            painted = before.repainted(session.state)
            if len(painted) == 1:
                self.slice_wanted.emit(next(iter(painted)))
            self._after_change()

    # Propagation ---------------------------------------------------------------------------------------------------

    @property
    def can_propagate(self) -> bool:
        """Whether something was painted that can travel."""
        return self.state is not None and bool(self.state.annotation.labels)

    @property
    def can_be_live(self) -> bool:
        """Whether the computer is fast enough to propagate after each stroke."""
        return self.seconds is None or self.seconds < LIVE_SECONDS

    def propagate(self, quietly: bool = False) -> None:
        """Carry the painted labels through the range, or renew what is out of date."""
        session = self._need_session()
        if self.doing == "propagate" and quietly:
            self._stop_propagation(keep=True)
        if self.doing:
            return
        labels = [self.selected] if self.only_selected else None
        try:
            job = next_job(session, self.range, self.default_range, self.direction, labels)
        except ValueError as error:
            if not quietly:
                self.said.emit(str(error), "warning")
            return
        run = self._run = PropagationRun(session, job)

        def take() -> None:
            self._take()
            self._after_change()
            self._rank_next()
            if self.ranking is not None and self.ranking.slice_range != self.range:
                self.suggest(go=False)

        def done(_: object) -> None:
            if job.only is None:
                self.seconds = run.seconds
            take()

        def stopped() -> None:
            take()
            self.said.emit("Stopped. The slices that were ready are kept.", "info")

        self._do("propagate", partial(work.run_job, session, job), done, self._slice_arrived, stopped)

    def _slice_arrived(self, result: LabelledSlice) -> None:
        labels = self._run.arrived(result) if self._run else None
        if labels is None or self.table is None:
            return
        self.table.count(result.index, labels)
        self.table.confidence[result.index] = result.score
        self.slices_changed.emit({result.index: labels})

    def _take(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            self._show(run.take())
            self._round = Round()

    def _drop(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            self._show(list(run.results))

    def _stop_propagation(self, keep: bool = False) -> bool:
        """Stop a propagation at once; return whether there was one.

        Parameters
        ----------
        keep
            Whether what it has shown by now stays.
        """
        if self._run is None:
            return False
        self._foreground.forget()
        if keep:
            self._take()
            self._after_change()
        else:
            self._drop()
        return True

    def pause(self) -> None:
        """Stop a propagation under way at once; the slices that are ready are kept."""
        self._stop_propagation(keep=True)

    def cancel(self) -> None:
        """Stop what is being done; slices that are ready are kept."""
        self._foreground.cancel()

    def _rank_next(self) -> None:
        session, slice_range = self._need_session(), self.range

        def done(found: list[NextSlice]) -> None:
            if self.session is session:
                self.next_slices = found
                self.changed.emit()

        self.engine.submit(Job(lambda _: work.rank_next(session, slice_range), done, name="next"))

    def set_parameters(self, values: Mapping[str, Any]) -> None:
        """Propagate with other parameters from now on."""
        from napari_oneseg.config import PropagationConfig

        session = self._need_session()
        try:
            session.propagation = PropagationConfig.from_dict({**session.propagation.to_dict(), **values})
        except ValueError as error:
            self.said.emit(str(error), "warning")
        self.changed.emit()

    # Review --------------------------------------------------------------------------------------------------------

    def accept(self, index: int, accepted: bool = True) -> None:
        """Accept a slice as it is, or take that back."""
        session = self._need_session()
        if self._run is not None:
            self.said.emit("Wait until the propagation is done, or cancel it; then accept the slice.", "info")
            return
        if accepted:
            session.freeze(index)
        else:
            session.unfreeze(index)
        self._show([index])
        self._after_change()

    def to_check(self) -> list[int]:
        """Return the slices that were propagated and not yet accepted, most doubtful first."""
        state, table = self.state, self.table
        if state is None or table is None:
            return []
        return slices_to_check(state, table)

    def next_slice_to_check(self) -> None:
        """Go to the most doubtful slice that was not looked at since the last propagation."""
        waiting = self.to_check()
        if not waiting:
            self.said.emit("There is no slice left to check.", "info")
            return
        self.slice_wanted.emit(self._round.next(waiting, self.current))

    # Export --------------------------------------------------------------------------------------------------------

    def export(self, path: Path, write: Callable[..., None]) -> None:
        """Write the labels, and what they rest on beside them.

        Parameters
        ----------
        path
            The label file.
        write
            Writes it: :func:`~napari_oneseg.plugin.export.export_labels`.
        """
        session, scan = self._need_session(), self.scan
        assert scan is not None
        state = session.state
        extras = self.book.record(self.labels)

        def done(written: Path) -> None:
            self.unsaved = self.unsaved and self.state is not state
            self.said.emit(f"Labels written to {written.name}.", "info")
            self.changed.emit()

        if not self.doing:
            self._do("export", lambda _: work.write_export(path, session, scan, extras, write), done)
        else:
            self.said.emit("Wait until the work under way is done, then export.", "info")

    def shown_labels(self, index: int) -> LabelArray:
        """Return what a slice is to show now, (rows, columns): a propagation under way included."""
        session = self._need_session()
        arrived = self._run.shown(index) if self._run else None
        if arrived is not None:
            return arrived
        rows, columns = session.volume.slices.shape[1:]
        return session.state.labels_on(index, (rows, columns))

    # Helpers -------------------------------------------------------------------------------------------------------

    def _need_session(self) -> OneSegSession:
        if self.session is None:
            raise RuntimeError("No scan is open.")
        return self.session

    def _do(
        self,
        doing: str,
        job: Callable[[Report], Any],
        done: Callable[[Any], None],
        item: Callable[[Any], None] = lambda _: None,
        stopped: Callable[[], None] | None = None,
    ) -> None:
        """Do what the user waits for, in the background; what was done before it is forgotten."""
        if doing != "propagate":
            self._stop_propagation(keep=True)

        def failed(sentence: str) -> None:
            self._drop()
            self.said.emit(sentence, "error")
            if doing == "open":
                self.not_opened.emit(sentence)
            self.changed.emit()

        self._foreground.do(doing, job, done, item, stopped or self.changed.emit, failed)
        self.changed.emit()

    def _count(self, indices: Iterable[int]) -> Mapping[int, LabelArray]:
        assert self.session is not None
        assert self.table is not None
        return self.table.take(self.session.state, indices)

    def _show(self, indices: Iterable[int]) -> None:
        indices = list(indices)
        if indices:
            self.slices_changed.emit(self._count(indices))

    def _worked_slices(self) -> list[int]:
        state = self.state
        return sorted({*state.painted, *state.frozen, *state.results}) if state else []

    def _after_change(self) -> None:
        self.unsaved = True
        self.worked.emit()
        self.changed.emit()
