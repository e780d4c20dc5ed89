"""The study: which scan is at hand, how far the others are, and the way from one to the next."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, QSignalBlocker, QTimer, Signal
from qtpy.QtWidgets import QFrame, QHBoxLayout, QPlainTextEdit, QPushButton, QVBoxLayout, QWidget

from napari_oneseg.plugin.panels.header import StepHeader
from napari_oneseg.plugin.panels.look import ActionButton, OneLine, paragraph
from napari_oneseg.plugin.panels.study_list import StudyList
from napari_oneseg.plugin.view_model import StudyState

__all__ = ["StudyPanel"]

_TYPING_MS = 1000
_NOTES_LINES = 2


class StudyPanel(QFrame):
    """Stands above the steps while a study is open; folded, the buttons to go on with stay.

    It is folded while a scan is worked on, so that the steps have room, and unfolds where there is none; but once the
    user has folded or unfolded it, it stays so.
    """

    previous_requested = Signal()
    done_requested = Signal()
    next_requested = Signal()
    skip_requested = Signal()
    scan_chosen = Signal(str)
    notes_edited = Signal(str)
    summary_requested = Signal()
    close_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.header = StepHeader(None, "Study")
        self.header.set_state("off", "")
        self.header.toggled.connect(self._show_folding)
        self.header.clicked.connect(self._fold_by_hand)
        self._folded_by_hand = False
        self.text = OneLine()
        self.previous_button = ActionButton("← Previous", "Go back to the scan before; the work on this one is kept.")
        self.done_button = ActionButton(
            "Done ✓", "Write this scan's labels into the study's folder for results, and go on to the next scan."
        )
        self.next_button = ActionButton(
            "Next →", "Go on to the next scan that is not finished; the work on this one is kept."
        )
        self.problem = paragraph()
        self.list = StudyList()
        self.notes = QPlainTextEdit()
        self.notes.setPlaceholderText("Notes on this scan")
        self.notes.setToolTip("Your notes on this scan; they are kept with the study, and stand in its summary.")
        self.notes.setAccessibleName("Notes on this scan")
        self.notes.setTabChangesFocus(True)
        self.skip_button = QPushButton("Skip scan")
        self.skip_button.setToolTip("Leave this scan out, and go on to the next one; the work on it is kept.")
        self.summary_button = QPushButton("Save summary…")
        self.summary_button.setToolTip(
            "Write two tables: volumes, confidence and painted slices of every scan, and beside it minutes and slices."
        )
        self.close_button = QPushButton("Close study")
        self.close_button.setToolTip(
            "Close the study and its scan; everything is kept, and it opens where you left it."
        )
        self._typing = QTimer(self)
        self._typing.setSingleShot(True)
        self._typing.setInterval(_TYPING_MS)
        self._typing.timeout.connect(self.flush_notes)
        self._notes_of: str | None = None
        self._edited = False
        self._lay_out()
        self._connect()
        self.set_study(None)
        self._show_folding()

    def _lay_out(self) -> None:
        self.notes.setFixedHeight(self.notes.fontMetrics().lineSpacing() * _NOTES_LINES + 14)
        way, rest, tables = QHBoxLayout(), QHBoxLayout(), QHBoxLayout()
        for row, buttons in (
            (way, (self.previous_button, self.done_button, self.next_button)),
            (rest, (self.summary_button, self.skip_button)),
        ):
            row.setSpacing(4)
            for button in buttons:
                row.addWidget(button, 1)
        tables.addWidget(self.close_button, 1)
        self.body = QWidget()
        rows = QVBoxLayout(self.body)
        rows.setContentsMargins(0, 0, 0, 4)
        rows.setSpacing(6)
        rows.addWidget(self.list)
        rows.addWidget(self.notes)
        rows.addLayout(rest)
        rows.addLayout(tables)
        inner = QVBoxLayout()
        inner.setContentsMargins(8, 0, 6, 0)
        inner.setSpacing(6)
        inner.addWidget(self.text)
        inner.addWidget(self.problem)
        inner.addLayout(way)
        inner.addWidget(self.body)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(2)
        outer.addWidget(self.header)
        outer.addLayout(inner)

    def _connect(self) -> None:
        for button, signal in (
            (self.previous_button, self.previous_requested),
            (self.done_button, self.done_requested),
            (self.next_button, self.next_requested),
            (self.skip_button, self.skip_requested),
            (self.summary_button, self.summary_requested),
            (self.close_button, self.close_requested),
        ):
            # Before anything else happens: what was typed belongs to the scan that is still at hand.
            button.clicked.connect(self.flush_notes)
            button.clicked.connect(signal)
        self.list.scan_chosen.connect(self._choose)
        self.notes.textChanged.connect(self._note_typed)
        self.notes.installEventFilter(self)

    def set_study(self, state: StudyState | None) -> None:
        """Show a study; None hides the panel."""
        self.setVisible(state is not None)
        if state is None:
            return
        self.header.set_state("off" if state.here is None else "optional", f"{state.title}: {state.summary}")
        self.text.set_full_text(state.text)
        self.problem.setText(state.problem)
        self.problem.setVisible(bool(state.problem))
        self.list.set_rows(state.rows, state.here)
        for button in (self.previous_button, self.next_button, self.skip_button):
            button.setEnabled(not state.is_busy and state.here is not None)
        self.next_button.setEnabled(not state.is_busy)
        self.done_button.setEnabled(state.can_finish)
        for button in (self.summary_button, self.close_button):
            button.setEnabled(not state.is_busy)
        self._show_notes(state)
        if not self._folded_by_hand and not state.is_busy:
            self.header.setChecked(not state.can_finish)

    def _show_notes(self, state: StudyState) -> None:
        another = state.here != self._notes_of
        if another:
            self._edited = False
            self._typing.stop()
        self._notes_of = state.here
        self.notes.setEnabled(state.here is not None)
        # What is being typed is never replaced by what was read before it.
        if self.notes.toPlainText() != state.notes and (another or not self._edited):
            with QSignalBlocker(self.notes):
                self.notes.setPlainText(state.notes)

    def flush_notes(self) -> None:
        """Announce notes that were typed and not announced yet."""
        self._typing.stop()
        if self._edited:
            self._edited = False
            self.notes_edited.emit(self.notes.toPlainText())

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Announce notes when their field is left."""
        if event.type() == QEvent.Type.FocusOut and watched is self.notes:
            self.flush_notes()
        return super().eventFilter(watched, event)

    def _note_typed(self) -> None:
        self._edited = True
        self._typing.start()

    def _choose(self, name: str) -> None:
        self.flush_notes()
        self.scan_chosen.emit(name)

    def _fold_by_hand(self) -> None:
        self._folded_by_hand = True

    def _show_folding(self) -> None:
        self.body.setVisible(self.header.isChecked())
