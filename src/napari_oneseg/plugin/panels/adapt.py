"""Step 8: teaching the method on this scan, or on a folder of scans like it."""

from __future__ import annotations

from collections.abc import Sequence

import pyqtgraph
from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QDoubleSpinBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QRadioButton,
    QVBoxLayout,
    QWidget,
)

from napari_oneseg.plugin.panels.look import ACCENT, ActionButton, OneLine, paragraph
from napari_oneseg.plugin.panels.step import Step
from napari_oneseg.plugin.view_model import StepState

__all__ = ["AdaptPanel"]

USUAL_MINUTES = 2.0


class AdaptPanel(Step):
    """How long and on what to learn, how it goes, and whether to keep what was learned."""

    adapt_requested = Signal(float, str)
    """Minutes, and a folder of scans; an empty folder means the open scan."""
    keep_requested = Signal()
    revert_requested = Signal()

    opens_itself = False

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(8, "Adapt", parent)
        self._folder = ""
        self.intro = paragraph("Where the result disappoints: learn from the scan itself, no labels needed.")
        self.scan_choice = QRadioButton("This scan")
        self.scan_choice.setToolTip("Learn from the open scan.")
        self.scan_choice.setChecked(True)
        self.folder_choice = QRadioButton("A folder of scans…")
        self.folder_choice.setToolTip("Learn from all scans in a folder; they should be of the same kind.")
        self.folder_choice.clicked.connect(self._choose_folder)
        self.scan_choice.clicked.connect(lambda: self._show_folder(""))
        self.folder_text = OneLine()
        self.minutes = QDoubleSpinBox()
        self.minutes.setRange(0.5, 240.0)
        self.minutes.setSingleStep(0.5)
        self.minutes.setDecimals(1)
        self.minutes.setValue(USUAL_MINUTES)
        self.minutes.setSuffix(" min")
        self.minutes.setAccessibleName("Minutes")
        self.minutes.setToolTip("How long to learn.")
        self.adapt_button = ActionButton("Start learning", "Learn in the background; you can go on working.")
        self.adapt_button.clicked.connect(lambda: self.adapt_requested.emit(self.minutes.value(), self._folder))
        self.main_action = self.adapt_button
        self.time_text = QLabel()
        self.plot = pyqtgraph.PlotWidget()
        self._curve = self.plot.plot(pen=pyqtgraph.mkPen(ACCENT, width=2))
        self.agreement = paragraph()
        self.keep_button = QPushButton("Keep")
        self.keep_button.setToolTip("Go on with what was learned.")
        self.revert_button = QPushButton("Go back")
        self.revert_button.setToolTip("Forget what was learned, and go on as before.")
        self.keep_button.clicked.connect(self.keep_requested)
        self.revert_button.clicked.connect(self.revert_requested)
        self._lay_out()
        self.set_losses(())
        self.set_time_left(None)
        self.set_agreement(None, None)
        self.set_adapted(False)

    def _lay_out(self) -> None:
        self.plot.setFixedHeight(90)
        self.plot.setBackground(None)
        self.plot.setMouseEnabled(x=False, y=False)
        self.plot.setMenuEnabled(False)
        self.plot.hideButtons()
        self.plot.hideAxis("left")
        self.plot.hideAxis("bottom")
        self.plot.setToolTip("Error while learning; it should fall.")
        source, start, answer = QHBoxLayout(), QHBoxLayout(), QHBoxLayout()
        self._setup = QWidget()
        setup = QVBoxLayout(self._setup)
        setup.setContentsMargins(0, 0, 0, 0)
        source.addWidget(self.scan_choice)
        source.addWidget(self.folder_choice)
        source.addStretch(1)
        start.addWidget(self.minutes)
        start.addWidget(self.adapt_button, 1)
        answer.addWidget(self.keep_button, 1)
        answer.addWidget(self.revert_button, 1)
        setup.addLayout(source)
        setup.addWidget(self.folder_text)
        setup.addLayout(start)
        self.rows.addWidget(self.intro)
        self.rows.addWidget(self._setup)
        self.rows.addWidget(self.time_text)
        self.rows.addWidget(self.plot)
        self.rows.addWidget(self.agreement)
        self.rows.addLayout(answer)
        self.folder_text.hide()

    def set_state(self, state: StepState) -> None:
        """Show how far the step is; while it learns, nothing else can be started."""
        super().set_state(state)
        for widget in (self.intro, self._setup):
            widget.setVisible(state.kind != "busy")

    def set_losses(self, losses: Sequence[tuple[int, float]]) -> None:
        """Show (step, loss) as a curve; an empty sequence hides it."""
        self.plot.setVisible(bool(losses))
        self._curve.setData([step for step, _ in losses], [loss for _, loss in losses])

    def set_time_left(self, seconds: float | None) -> None:
        """Show the time left; None where nothing is being learned."""
        self.time_text.setVisible(seconds is not None)
        if seconds is not None:
            whole = max(round(seconds), 0)
            self.time_text.setText(f"{whole // 60}:{whole % 60:02d} min left")

    def set_agreement(self, before: float | None, after: float | None) -> None:
        """Show the agreement with the accepted slices, 0 to 1, before and after; None where it is not known."""
        known = [(word, value) for word, value in (("before", before), ("after", after)) if value is not None]
        parts = ", ".join(f"{word} {100 * value:.0f} %" for word, value in known)
        verdict = ""
        if before is not None and after is not None:
            verdict = "\nBetter than before." if after > before else "\nNot better: going back is the safe choice."
        self.agreement.setText(f"Agreement with the accepted slices: {parts}.{verdict}")
        self.agreement.setVisible(bool(known))

    def set_adapted(self, adapted: bool) -> None:
        """Offer to keep what was learned or to go back, or not."""
        self.keep_button.setVisible(adapted)
        self.revert_button.setVisible(adapted)

    def ask_for_folder(self) -> str:
        """Let the user choose a folder; empty where he did not."""
        return str(QFileDialog.getExistingDirectory(self, "A folder of scans to learn from"))

    def _choose_folder(self) -> None:
        self._show_folder(self.ask_for_folder() or self._folder)
        if not self._folder:
            self.scan_choice.setChecked(True)

    def _show_folder(self, folder: str) -> None:
        self._folder = folder
        self.folder_text.set_full_text(folder)
        self.folder_text.setVisible(bool(folder))
