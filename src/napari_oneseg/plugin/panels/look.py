"""Colours and small widgets that all steps share.

Text and background come from the palette, so that they follow the viewer's theme. The few colours that carry a meaning
are fixed: each is legible on the dark and on the light theme, and never the only sign of what it means.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from qtpy.QtCore import QSignalBlocker, QSize, Qt, Signal
from qtpy.QtGui import QPaintEvent, QResizeEvent
from qtpy.QtWidgets import (
    QComboBox,
    QLabel,
    QPushButton,
    QSizePolicy,
    QStyle,
    QStyleOptionComboBox,
    QStylePainter,
    QWidget,
)

from napari_oneseg.plugin.view_model import Choice

__all__ = ["ACCENT", "ATTENTION", "DONE", "STYLE", "ActionButton", "ChoiceBox", "OneLine", "paragraph"]

ACCENT = "#0072c3"
DONE = "#2c8f52"
ATTENTION = "#e0a100"
_PADDING = 14

# The viewer's own style has no mark for the focus; whoever works by keyboard needs one. What changes a button's size
# may not depend on whether it is enabled: Qt keeps the size it had before.
STYLE = f"""
OneSegView QPlainTextEdit {{ border: 1px solid rgba(128, 128, 128, 0.6); }}
OneSegView QPushButton, OneSegView QComboBox, OneSegView QAbstractSpinBox {{ border: 1px solid transparent; }}
OneSegView QPushButton:focus, OneSegView QComboBox:focus, OneSegView QAbstractSpinBox:focus,
OneSegView QListWidget:focus, OneSegView QTableWidget:focus, OneSegView QTreeView:focus,
OneSegView QPlainTextEdit:focus {{ border: 1px solid {ACCENT}; }}
OneSegView QPushButton[prominent="true"] {{ font-weight: bold; padding: 6px; }}
OneSegView QPushButton[prominent="true"]:enabled {{ background-color: {ACCENT}; color: white; }}
OneSegView QPushButton[prominent="true"]:enabled:hover {{ background-color: #0a84dc; }}
OneSegView QPushButton[prominent="true"]:enabled:pressed {{ background-color: #005a9c; }}
OneSegView QPushButton[prominent="true"]:enabled:focus {{ border: 1px solid white; }}
OneSegView QPushButton[quiet="true"] {{ background-color: transparent; text-align: left; }}
OneSegView QProgressBar::chunk {{ background-color: {ACCENT}; width: 1px; }}
OneSegView QScrollBar:vertical {{ margin: 0; min-width: 9px; max-width: 9px; }}
OneSegView QScrollBar::add-line:vertical, OneSegView QScrollBar::sub-line:vertical,
OneSegView QScrollBar::up-arrow:vertical, OneSegView QScrollBar::down-arrow:vertical {{
    height: 0; min-height: 0; max-height: 0;
}}
OneSegView QScrollBar:vertical:disabled, OneSegView QScrollBar::handle:vertical:disabled {{
    background: transparent;
}}
"""


class ActionButton(QPushButton):
    """A button that shows its shortcut behind its text, and stands out while its step is the next thing to do."""

    def __init__(self, text: str, tip: str, parent: QWidget | None = None) -> None:
        super().__init__(text, parent)
        self._label, self._shortcut, self._tip = text, "", tip
        self._show()
        # A long text is cut rather than widening the whole dock.
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)

    def set_label(self, text: str) -> None:
        """Change the text before the shortcut."""
        self._label = text
        self._show()

    def set_tip(self, tip: str) -> None:
        """Change what the tooltip says before the shortcut."""
        self._tip = tip
        self._show()

    def set_shortcut(self, shortcut: str) -> None:
        """Show a shortcut, such as "Shift+P"; empty for none. The key itself is bound elsewhere."""
        self._shortcut = shortcut
        self._show()

    def set_prominent(self, prominent: bool) -> None:
        """Make it stand out, or not."""
        if bool(self.property("prominent")) != prominent:
            self.setProperty("prominent", prominent)
            self.style().unpolish(self)
            self.style().polish(self)
            self._show()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Show what fits."""
        super().resizeEvent(event)
        self._show()

    def _show(self) -> None:
        full = f"{self._label}  ({self._shortcut})" if self._shortcut else self._label
        # Where both do not fit, the shortcut stays in the tooltip.
        self.setText(full if self.fontMetrics().horizontalAdvance(full) <= self.width() - _PADDING else self._label)
        self.setAccessibleName(self._label)
        self.setToolTip(f"{self._tip} ({self._shortcut})" if self._shortcut else self._tip)


class ChoiceBox(QComboBox):
    """A list to choose from; only the user's choices are announced."""

    chosen = Signal(object)
    """The key of the entry that the user chose."""

    def __init__(self, name: str, tip: str, placeholder: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._choices: tuple[Choice, ...] = ()
        self.setAccessibleName(name)
        self.setToolTip(tip)
        self.setPlaceholderText(placeholder)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        # The names of layers may be long; the dock keeps its width.
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(6)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.activated.connect(self._on_activated)

    def set_choices(self, choices: Sequence[Choice], current: Hashable | None) -> None:
        """Show the choices and which of them holds; None where none does."""
        # An open list is not disturbed by being told the same again.
        with QSignalBlocker(self):
            if tuple(choices) != self._choices:
                self._choices = tuple(choices)
                self.clear()
                for row, choice in enumerate(self._choices):
                    self.addItem(choice.text)
                    self.setItemData(row, choice.tip or choice.text, Qt.ItemDataRole.ToolTipRole)
            keys = [choice.key for choice in self._choices]
            self.setCurrentIndex(keys.index(current) if current in keys else -1)

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Draw as usual, but end a text that is too long with an ellipsis."""
        painter = QStylePainter(self)
        painter.setPen(self.palette().text().color())
        option = QStyleOptionComboBox()
        self.initStyleOption(option)
        painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, option)
        if self.currentIndex() < 0:
            option.currentText = self.placeholderText()
        field = self.style().subControlRect(
            QStyle.ComplexControl.CC_ComboBox, option, QStyle.SubControl.SC_ComboBoxEditField, self
        )
        option.currentText = self.fontMetrics().elidedText(
            option.currentText, Qt.TextElideMode.ElideRight, field.width() - 4
        )
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)

    def _on_activated(self, row: int) -> None:
        self.chosen.emit(self._choices[row].key)


class OneLine(QLabel):
    """A text on one line, cut with an ellipsis where it does not fit; the tooltip holds all of it."""

    def __init__(self, text: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._full = text
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)

    def set_full_text(self, text: str) -> None:
        """Replace the text."""
        self._full = text
        self.setToolTip(text)
        self._elide()

    def minimumSizeHint(self) -> QSize:
        """Any width will do."""
        return QSize(0, super().minimumSizeHint().height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Cut the text anew."""
        super().resizeEvent(event)
        self._elide()

    def _elide(self) -> None:
        self.setText(self.fontMetrics().elidedText(self._full, Qt.TextElideMode.ElideRight, max(self.width() - 4, 0)))


def paragraph(text: str = "") -> QLabel:
    """Return a label that breaks its text into lines, and whose text can be selected with the mouse."""
    label = QLabel(text)
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    label.setTextFormat(Qt.TextFormat.PlainText)
    # Without this a long word would widen the dock.
    label.setMinimumWidth(1)
    return label
