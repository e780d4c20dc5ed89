"""Step 3: the slice that is worth painting, and its runners-up."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QWidget

from napari_oneseg.plugin.panels.look import ActionButton
from napari_oneseg.plugin.panels.slice_list import SliceList
from napari_oneseg.plugin.panels.step import Step
from napari_oneseg.plugin.view_model import SliceRow

__all__ = ["SuggestPanel"]


class SuggestPanel(Step):
    """Lists the suggested slices, best first."""

    suggestion_chosen = Signal(int)
    suggest_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(3, "Suggest", parent)
        self.suggest_button = ActionButton("Go to suggestion", "Show the slice whose labels carry furthest.")
        self.suggest_button.clicked.connect(self.suggest_requested)
        self.main_action = self.suggest_button
        self.slices = SliceList("Suggested slices", "Suggested slices, best first; a click shows the slice.")
        self.slices.slice_chosen.connect(self.suggestion_chosen)
        self.slices.hide()
        self.rows.addWidget(self.suggest_button)
        self.rows.addWidget(self.slices)

    def set_suggestions(self, rows: Sequence[SliceRow], current: int | None) -> None:
        """Show the suggested slices and which of them is on screen."""
        self.slices.set_rows(rows, current)
        self.slices.setVisible(bool(rows))
