"""Looking closer: how doubtful a voxel is, where its label came from, and how far the organ under the mouse reaches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_oneseg.plugin import work
from napari_oneseg.plugin.engine import Engine, Job
from napari_oneseg.plugin.viewer_link import DOUBT, ORIGIN

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_oneseg.plugin.controller import Controller
    from napari_oneseg.plugin.viewer_link import ViewerLink
    from napari_oneseg.propagation.tracing import Trace
    from napari_oneseg.session_state import SessionState

__all__ = ["Inspector"]

_SAYS_NOTHING = "Click a labelled place."


class Inspector(QObject):
    """Shows what is asked for with a switch or a click."""

    said = Signal(str, str)
    changed = Signal()

    def __init__(self, controller: Controller, link: ViewerLink, engine: Engine, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._controller, self._link, self._engine = controller, link, engine
        self.locating = False
        """Whether the next click says where the target is."""
        self.explaining = False
        """Whether clicks ask where a label came from."""
        self.text = ""
        """What the last click has shown."""
        self._doubt_wanted = False
        self._doubt_of: SessionState | None = None
        link.clicked.connect(self._clicked)
        controller.opened.connect(self._reset)

    # Switches ------------------------------------------------------------------------------------------------------

    def set_locating(self, on: bool) -> None:
        """Take the next click as a place within the target."""
        self.locating, self.explaining = on, False
        self._listen()
        if on:
            self.said.emit("Click into the middle of the organ.", "info")

    def set_explaining(self, on: bool) -> None:
        """Take clicks as questions where a label came from."""
        self.explaining, self.locating = on, False
        self.text = _SAYS_NOTHING if on else ""
        if not on:
            self._link.remove(ORIGIN)
        self._listen()

    def stop(self) -> None:
        """Take clicks as questions no more."""
        if self.locating:
            self.set_locating(False)
        elif self.explaining:
            self.set_explaining(False)

    @property
    def listening(self) -> bool:
        """Whether clicks on the canvas are questions, and no strokes."""
        return self.locating or self.explaining

    def _listen(self) -> None:
        self._link.want_click(self.listening)
        self.changed.emit()

    def _reset(self) -> None:
        self.locating = self.explaining = False
        self.text = ""
        self._doubt_wanted, self._doubt_of = False, None
        self._link.want_click(False)

    def _clicked(self, index: int, row: int, column: int) -> None:
        if self._controller.session is None:
            return
        if self.locating:
            self.set_locating(False)
            self._controller.target.locate(index, row, column)
        elif self.explaining:
            self._explain(index, row, column)

    # Where a label came from -----------------------------------------------------------------------------------------

    def _explain(self, index: int, row: int, column: int) -> None:
        session, name = self._controller.session, self._controller.book.style
        assert session is not None
        state = session.state
        rows, columns = session.volume.slices.shape[1:]
        label = int(state.labels_on(index, (rows, columns))[row, column])
        if label == 0 or index in state.painted or index in state.frozen:
            self._link.remove(ORIGIN)
            self.text = _SAYS_NOTHING if label == 0 else "This slice was painted or accepted by you."
            self.changed.emit()
            return

        def look(_: object) -> Trace:
            from napari_oneseg.propagation.tracing import trace

            at = (index, row, column)
            return trace(session.features, state.annotation, at, label, session.propagation, None, state.direction)

        def done(found: Trace) -> None:
            if self._controller.session is session and self.explaining:
                self._show(found, name(label).name)

        self._engine.submit(Job(look, done, on_error=lambda text: self.said.emit(text, "warning"), name="why"))

    def _show(self, found: Trace, name: str) -> None:
        axis = self._link.axis
        parts = [f"slice {source.index} ({100 * source.share:.0f} %)" for source in found.sources]
        self.text = f"{name}: from {' and '.join(parts)}" if parts else f"{name} was not copied here."
        if found.sources:
            paths = np.concatenate([source.path for source in found.sources])
            points = np.stack([paths[:, 1], paths[:, 2]], 1)
            self._link.show_origin(np.insert(points, axis, paths[:, 0], axis=1).astype(float), np.full(len(paths), 7.0))
        else:
            self._link.remove(ORIGIN)
        self.changed.emit()

    # Doubt -----------------------------------------------------------------------------------------------------------

    @property
    def doubt_shown(self) -> bool:
        """Whether the layer is there."""
        return self._doubt_wanted

    def set_doubt_shown(self, on: bool) -> None:
        """Show, or hide, how doubtful each voxel is."""
        self._doubt_wanted, self._doubt_of = on, None
        if on:
            self.update_doubt()
        else:
            self._link.remove(DOUBT)
        self.changed.emit()

    def update_doubt(self) -> None:
        """Show the doubt anew if the work has changed."""
        session = self._controller.session
        if not self._doubt_wanted or session is None or self._controller.doing:
            return
        if self._doubt_of is not None and not self._link.has(DOUBT):
            self._doubt_wanted = False  # the user has removed the layer
            self.changed.emit()
            return
        state = session.state
        if state is self._doubt_of:
            return
        self._doubt_of = state

        def done(doubt: NDArray[Any]) -> None:
            if self._controller.session is session and self._doubt_wanted:
                self._link.show_doubt(doubt)

        self._engine.submit(Job(lambda _: work.confidence_volume(session), done, name="doubt"))
