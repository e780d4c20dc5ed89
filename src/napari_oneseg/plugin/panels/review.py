"""Step 6: checking the result slice by slice, most doubtful first."""

from __future__ import annotations

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QCheckBox, QGridLayout, QHBoxLayout, QLabel, QProgressBar, QPushButton, QWidget

from napari_oneseg.plugin.panels.look import ActionButton, paragraph
from napari_oneseg.plugin.panels.slice_list import SliceList
from napari_oneseg.plugin.panels.step import Step
from napari_oneseg.plugin.view_model import ReviewState

__all__ = ["ReviewPanel"]


class ReviewPanel(Step):
    """Leads from one slice to check to the next; accepts, explains and takes back."""

    next_requested = Signal()
    accept_requested = Signal(bool)
    confidence_toggled = Signal(bool)
    why_toggled = Signal(bool)
    undo_requested = Signal()
    redo_requested = Signal()
    next_slice_chosen = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(6, "Review", parent)
        self._accepted = False
        self.slice_text = paragraph()
        self.next_button = ActionButton(
            "Next slice to check", "Go to the most doubtful slice that is not accepted yet."
        )
        self.accept_button = ActionButton("Accept slice", "")
        self.main_action = self.next_button
        self.accepted_bar = QProgressBar()
        self.accepted_bar.setTextVisible(False)
        self.accepted_bar.setMaximumHeight(8)
        self.accepted_text = QLabel()
        self.confidence_box = QCheckBox("Show doubt")
        self.confidence_box.setToolTip("Lay a colour over the scan where the labels are unsure.")
        self.why_box = QCheckBox("Show why")
        self.why_box.setToolTip("Click a labelled pixel to see which painted pixels its label came from.")
        self.why_text = paragraph()
        self.undo_button = QPushButton("Undo")
        self.redo_button = QPushButton("Redo")
        self.next_to_paint = QLabel("Worth painting next")
        self.slices = SliceList("Worth painting next", "Slices that would help most if painted; a click shows one.")
        self.hint = paragraph()
        self._lay_out()
        self.next_button.clicked.connect(self.next_requested)
        self.accept_button.clicked.connect(lambda: self.accept_requested.emit(not self._accepted))
        self.confidence_box.clicked.connect(self.confidence_toggled)
        self.why_box.clicked.connect(self.why_toggled)
        self.undo_button.clicked.connect(self.undo_requested)
        self.redo_button.clicked.connect(self.redo_requested)
        self.slices.slice_chosen.connect(self.next_slice_chosen)
        self.set_review(ReviewState())
        self.set_why(False, "")

    def _lay_out(self) -> None:
        grid = QGridLayout()
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setColumnStretch(0, 1)
        grid.setColumnStretch(1, 1)
        grid.addWidget(self.confidence_box, 0, 0)
        grid.addWidget(self.why_box, 0, 1)
        undo = QHBoxLayout()
        undo.addWidget(self.undo_button, 1)
        undo.addWidget(self.redo_button, 1)
        self.rows.addWidget(self.slice_text)
        self.rows.addWidget(self.next_button)
        self.rows.addWidget(self.accept_button)
        self.rows.addWidget(self.accepted_bar)
        self.rows.addWidget(self.accepted_text)
        self.rows.addLayout(grid)
        self.rows.addWidget(self.why_text)
        self.rows.addLayout(undo)
        self.rows.addWidget(self.hint)
        self.rows.addWidget(self.next_to_paint)
        self.rows.addWidget(self.slices)

    def set_review(self, state: ReviewState) -> None:
        """Show the slice on screen, how far the review is, and what would help most."""
        self._accepted = state.accepted
        self.slice_text.setText(state.text)
        self.slice_text.setVisible(bool(state.text))
        self.accept_button.set_label("Take acceptance back" if state.accepted else "Accept slice")
        self.accept_button.set_tip(
            "Let the slice change again when labels are propagated."
            if state.accepted
            else "Mark the slice as right: propagating never changes it again."
        )
        self.accepted_bar.setRange(0, max(state.n_labelled, 1))
        self.accepted_bar.setValue(min(state.n_accepted, state.n_labelled))
        self.accepted_text.setText(f"{state.n_accepted} of {state.n_labelled} slices accepted")
        for shown in (self.accepted_bar, self.accepted_text):
            shown.setVisible(state.n_labelled > 0)
        for button, word, what in ((self.undo_button, "Undo", state.undo), (self.redo_button, "Redo", state.redo)):
            button.setEnabled(bool(what))
            button.setToolTip(f"{word}: {what}" if what else f"{word}: nothing")
        self.hint.setText(state.hint)
        self.hint.setVisible(bool(state.hint))
        self.slices.set_rows(state.next_to_paint, None)
        for shown in (self.next_to_paint, self.slices):
            shown.setVisible(bool(state.next_to_paint))

    def set_confidence_shown(self, shown: bool) -> None:
        """Show whether the confidence lies over the scan."""
        with QSignalBlocker(self.confidence_box):
            self.confidence_box.setChecked(shown)

    def set_why(self, shown: bool, text: str) -> None:
        """Show whether clicks are explained, and the last explanation."""
        with QSignalBlocker(self.why_box):
            self.why_box.setChecked(shown)
        self.why_text.setText(text)
        self.why_text.setVisible(shown and bool(text))
