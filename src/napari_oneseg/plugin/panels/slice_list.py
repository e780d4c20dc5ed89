"""A short list of slices, each with what speaks for it."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QSignalBlocker, QSize, Qt, Signal
from qtpy.QtGui import QKeyEvent, QResizeEvent
from qtpy.QtWidgets import QListWidget, QListWidgetItem, QWidget

from napari_oneseg.plugin.view_model import SliceRow

__all__ = ["SliceList"]

_KEYS = {Qt.Key.Key_Up, Qt.Key.Key_Down, Qt.Key.Key_Home, Qt.Key.Key_End, Qt.Key.Key_Return, Qt.Key.Key_Enter}
_MOST_ROWS = 4


class SliceList(QListWidget):
    """Announces the slice that the user clicked, or reached with the arrow keys."""

    slice_chosen = Signal(int)

    def __init__(self, name: str, tip: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows: tuple[SliceRow, ...] = ()
        self.setAccessibleName(name)
        self.setToolTip(tip)
        self.setWordWrap(True)
        self.setUniformItemSizes(False)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.itemClicked.connect(lambda item: self._announce(self.row(item)))

    def set_rows(self, rows: Sequence[SliceRow], current: int | None) -> None:
        """Show slices, best first, and mark one of them; None where none is on screen."""
        with QSignalBlocker(self):
            if tuple(rows) != self._rows:
                self._rows = tuple(rows)
                self.clear()
                for row in self._rows:
                    item = QListWidgetItem(f"{row.title}\n{row.reason}" if row.reason else row.title)
                    item.setToolTip(row.reason)
                    self.addItem(item)
            indices = [row.index for row in self._rows]
            at = indices.index(current) if current in indices else -1
            if at != self.currentRow():
                self.setCurrentRow(at)
        self._fit()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Move with the arrow keys; Enter goes to the slice again."""
        super().keyPressEvent(event)
        if event.key() in _KEYS:
            self._announce(self.currentRow())

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Break the lines anew, and be as high as they need."""
        super().resizeEvent(event)
        self._fit()

    def minimumSizeHint(self) -> QSize:
        """Narrow docks are fine."""
        return QSize(80, 24)

    def _announce(self, row: int) -> None:
        if 0 <= row < len(self._rows):
            self.slice_chosen.emit(self._rows[row].index)

    def _fit(self) -> None:
        heights = [max(self.sizeHintForRow(row), 18) for row in range(min(len(self._rows), _MOST_ROWS))]
        self.setFixedHeight(sum(heights) + 2 * self.frameWidth() + 6)
