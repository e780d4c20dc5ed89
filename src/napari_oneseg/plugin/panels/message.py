"""One message at a time, over the steps."""

from __future__ import annotations

from typing import Literal

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent
from qtpy.QtWidgets import QHBoxLayout, QLabel, QToolButton, QWidget

from napari_oneseg.plugin.panels.look import ACCENT, ATTENTION, paragraph

__all__ = ["MessageBar"]

COLOURS = {"info": ACCENT, "warning": ATTENTION, "error": "#d13438"}
SIGNS = {"info": "i", "warning": "!", "error": "✕"}


class MessageBar(QWidget):
    """Stays until it is dismissed or replaced; its text can be selected and copied."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.level = "info"
        self.sign = QLabel()
        self.sign.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.sign.setFixedWidth(20)
        self.text = paragraph()
        self.text.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        self.dismiss_button = QToolButton()
        self.dismiss_button.setText("✕")
        self.dismiss_button.setAutoRaise(True)
        self.dismiss_button.setToolTip("Dismiss this message.")
        self.dismiss_button.setAccessibleName("Dismiss the message")
        self.dismiss_button.clicked.connect(lambda: self.show_message("", "info"))
        row = QHBoxLayout(self)
        row.setContentsMargins(8, 4, 4, 4)
        row.addWidget(self.sign, 0, Qt.AlignmentFlag.AlignTop)
        row.addWidget(self.text, 1)
        row.addWidget(self.dismiss_button, 0, Qt.AlignmentFlag.AlignTop)
        self.hide()

    def show_message(self, text: str, level: Literal["info", "warning", "error"]) -> None:
        """Replace the message; an empty text takes it away."""
        self.level = level
        self.sign.setText(SIGNS[level])
        self.text.setText(text)
        self.setAccessibleName(f"{level}: {text}")
        self.setVisible(bool(text))
        self.update()

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Draw a faint ground and an edge in the colour of the level."""
        painter = QPainter(self)
        colour = QColor(COLOURS[self.level])
        painter.fillRect(0, 0, 4, self.height(), colour)
        colour.setAlphaF(0.16)
        painter.fillRect(4, 0, self.width() - 4, self.height(), colour)
