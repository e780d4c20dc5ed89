"""The question before the window closes over work that was not exported: one, whoever asks it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QDialog, QWidget

if TYPE_CHECKING:
    from napari_oneseg.plugin.asking import Asking
    from napari_oneseg.plugin.autosaving import Autosaver
    from napari_oneseg.plugin.controller import Controller
    from napari_oneseg.plugin.painting import Painter
    from napari_oneseg.plugin.studying import Studier

__all__ = ["Closing"]

_NAPARIS = "ConfirmCloseDialog"


class Closing(QObject):
    """Decides whether the window may close.

    napari asks a question of its own: before the window gets to know when it is closed from the menu, afterwards when
    it is closed by its button. Whoever has answered one of the two is not asked the other.
    """

    def __init__(
        self,
        controller: Controller,
        painter: Painter,
        studier: Studier,
        saver: Autosaver,
        asking: Asking,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._controller, self._painter, self._studier = controller, painter, studier
        self._saver, self._asking = saver, asking
        self._sure = False

    def watch(self, child: QObject) -> None:
        """Take napari's question, if that is what has come into the window, for the one that counts."""
        if isinstance(child, QDialog) and type(child).__name__ == _NAPARIS:
            child.finished.connect(self._answered)

    def refuses(self, window: QWidget, event: QEvent) -> bool:
        """Return whether the window stays open for now, with everything kept or the user asked."""
        self._painter.compare()
        # What belongs to a study is kept in it.
        asks = self._controller.has_unsaved_work and not self._studier.is_open and not self._sure
        self._sure = False
        if (asks and not self._asking.may_close()) or not self._is_kept():
            event.ignore()
            return True
        if asks and event.spontaneous():
            # Closed once more by the program, for which napari does not ask.
            self._sure = True
            event.ignore()
            QTimer.singleShot(0, window.close)
            return True
        return False

    def _answered(self, answer: int) -> None:
        self._sure = answer == QDialog.DialogCode.Accepted

    def _is_kept(self) -> bool:
        """Keep the work, or ask whether to lose it."""
        problem = self._saver.keep()
        if not problem:
            return True
        return self._asking.is_sure(f"The work on this scan cannot be kept. {problem}\n\nClose anyway?")
