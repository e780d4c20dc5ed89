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
from napari_oneseg.plugin.label_book import LabelBook
from napari_oneseg.plugin.propagating import Propagator
from napari_oneseg.plugin.reviewing import Round, slices_to_check
from napari_oneseg.plugin.slice_table import SliceTable
from napari_oneseg.plugin.target import Target

if TYPE_CHECKING:
    from napari_oneseg.checkpoint import Weights
    from napari_oneseg.plugin.scan_layer import LayerSnapshot, OpenScan
    from napari_oneseg.plugin.work import OpenedScan
    from napari_oneseg.session import OneSegSession
    from napari_oneseg.session_file import SavedSession
    from napari_oneseg.session_state import SessionState
    from napari_oneseg.volume import LabelArray

__all__ = ["Controller"]


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

    def __init__(self, engine: Engine, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._foreground = Foreground(engine, self)
        self.book = LabelBook(lambda: self.table.values if self.table else (), self)
        self.target = Target(self._foreground, engine, self)
        self.propagator = Propagator(self._foreground, self)
        self.device = "auto"
        self.weights: Weights | None = None
        self.current = 0
        self._reset(None)
        self._connect_parts()
        engine.ticked.connect(self.progressed)

    def _connect_parts(self) -> None:
        for part in (self.book, self.target):
            part.changed.connect(self.changed)
            part.worked.connect(self.worked)
        for part in (self.target, self.propagator):
            part.said.connect(self.said)
        self.target.slice_wanted.connect(self.slice_wanted)
        self.propagator.slices_changed.connect(self.slices_changed)
        self.propagator.taken.connect(self._taken)
        self.propagator.ended.connect(self.target.propagated)
        self._foreground.failed.connect(self._failed)
        self._foreground.changed.connect(self.changed)

    def _reset(self, opened: OpenedScan | None) -> None:
        self.opened_scan = opened
        self.table: SliceTable | None = SliceTable(opened.session.volume) if opened else None
        self.book.reset()
        self.target.reset(self.session, opened.ranking if opened else None)
        self.propagator.reset()
        self.unsaved = False
        """Whether something was made since the last export."""
        self._round = Round()

    @property
    def job(self) -> Job | None:
        """The job that the user waits for."""
        return self._foreground.job

    @property
    def doing(self) -> str:
        """What that is: open, suggest, locate, propagate, export; empty where nothing is done."""
        return self._foreground.doing

    def cancel(self) -> None:
        """Stop what is being done; slices that are ready are kept."""
        self._foreground.cancel()

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
        others: LabelArray | None = None,
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
        others
            Labels that were painted in other planes, in the order of this plane's slices, (n, rows, columns).
        """
        self.close()

        def done(opened: OpenedScan) -> None:
            self._reset(opened)
            self.propagator.others = others
            self._take_extras(extras or {})
            self.unsaved = kept is not None
            if kept is not None:
                self._show(self._worked_slices())
            self.opened.emit()
            self.changed.emit()

        job = partial(work.open_scan, snapshot, axis, self.device, self.weights, kept)
        self._foreground.do("open", job, done, stopped=lambda: self.not_opened.emit(""))

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
        self.propagator.withdraw()
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

    def extras(self) -> dict[str, Any]:
        """Return what belongs to the work beside the session itself, as plain values."""
        slice_range = self.target.range
        return self.book.to_dict() | {
            "range": list(slice_range) if slice_range else None,
            "propagator": self.propagator.to_dict(),
        }

    def _take_extras(self, extras: Mapping[str, Any]) -> None:
        if extras.get("range"):
            first, last = extras["range"]
            self.target.range = int(first), int(last)
        self.book.take(extras)
        self.propagator.take(extras.get("propagator") or {})

    # What the user makes -------------------------------------------------------------------------------------------

    def stroke(self, images: Mapping[int, LabelArray]) -> None:
        """Take slices as a stroke has left them, index to labels, (rows, columns)."""
        session = self._need_session()
        changed = session.paint(images, corrected=images.keys() & self.propagator.arrived)
        if changed:
            self._count(changed)
            self._after_change()
            if self.propagator.live and self.propagator.can_be_live:
                self.propagate(quietly=True)

    def adopt(self, images: Mapping[int, LabelArray]) -> None:
        """Take slices of a labels layer that was there before as painted, in one step."""
        session = self._need_session()
        if images:
            self._count(session.paint(images))
            self._after_change()

    def shown_labels(self, index: int) -> LabelArray:
        """Return what a slice is to show now, (rows, columns): a propagation under way included."""
        session = self._need_session()
        arrived = self.propagator.shown(index)
        if arrived is not None:
            return arrived
        rows, columns = session.volume.slices.shape[1:]
        return session.state.labels_on(index, (rows, columns))

    def remove_label(self, value: int) -> None:
        """Take a label out everywhere; undo brings its voxels back."""
        if self.session is not None:
            self.propagator.withdraw()
            before = self.session.state
            self.session.remove(value)
            self._show(before.changed(self.session.state))
        self.book.remove(value)
        self._after_change()

    def undo(self) -> None:
        """Take the last step back; a propagation under way is stopped and leaves nothing."""
        self._back_and_forth("undo")

    def redo(self) -> None:
        """Make the step again that was taken back last."""
        self._back_and_forth("redo")

    def _back_and_forth(self, way: str) -> None:
        session = self._need_session()
        if self.propagator.withdraw() and way == "undo":
            self._after_change()
            return
        before = session.state
        if getattr(session, way)():
            changed = before.changed(session.state)
            self._show(changed)
            self.book.styled.emit()  # a label that was removed may be back
            painted = before.repainted(session.state)
            if len(painted) == 1:
                self.slice_wanted.emit(next(iter(painted)))
            self._after_change()

    # Propagation ---------------------------------------------------------------------------------------------------

    @property
    def can_propagate(self) -> bool:
        """Whether something was painted that can travel."""
        return self.state is not None and bool(self.state.annotation.labels)

    def propagate(self, quietly: bool = False) -> None:
        """Carry the painted labels through the range, or renew what is out of date."""
        session, table = self._need_session(), self.table
        assert table is not None
        self.propagator.propagate(session, table, self.target.range, self.book.selected, quietly)

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
        if self.doing == "propagate":
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
        slice_range, extras = self.target.range, self.book.record()

        def done(written: Path) -> None:
            self.unsaved = self.unsaved and self.state is not state
            self.said.emit(f"Labels written to {written.name}.", "info")
            self.changed.emit()

        if not self.doing:
            job = partial(work.write_export, path, session, scan, slice_range, extras, write)
            self._foreground.do("export", lambda _: job(), done)
        else:
            self.said.emit("Wait until the work under way is done, then export.", "info")

    # Helpers -------------------------------------------------------------------------------------------------------

    def _need_session(self) -> OneSegSession:
        if self.session is None:
            raise RuntimeError("No scan is open.")
        return self.session

    def _failed(self, doing: str, sentence: str) -> None:
        self.said.emit(sentence, "error")
        if doing == "open":
            self.not_opened.emit(sentence)

    def _taken(self) -> None:
        self._round = Round()
        self._after_change()

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
