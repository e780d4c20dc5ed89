"""Step 7: writing the labels."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QWidget

from napari_oneseg.plugin.panels.look import ActionButton, paragraph
from napari_oneseg.plugin.panels.step import Step

__all__ = ["ExportPanel"]


class ExportPanel(Step):
    """Says what would be written, and asks for it to be written."""

    export_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(7, "Export", parent)
        self.summary = paragraph()
        self.summary.hide()
        self.export_button = ActionButton(
            "Export labels…",
            "Write the labels on the scan's own grid, with a record of how they were made beside them.",
        )
        self.export_button.clicked.connect(self.export_requested)
        self.main_action = self.export_button
        self.rows.addWidget(self.summary)
        self.rows.addWidget(self.export_button)

    def set_summary(self, text: str) -> None:
        """Show what would be written."""
        self.summary.setText(text)
        self.summary.setVisible(bool(text))
