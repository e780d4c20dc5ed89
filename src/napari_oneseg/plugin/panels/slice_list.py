"""A short list of slices, each with what speaks for it."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QModelIndex, QRect, QSignalBlocker, QSize, Qt, Signal
from qtpy.QtGui import QColor, QFont, QFontMetrics, QKeyEvent, QPainter, QResizeEvent
from qtpy.QtWidgets import QListWidget, QListWidgetItem, QStyle, QStyledItemDelegate, QStyleOptionViewItem, QWidget

from napari_oneseg.plugin.panels.look import ACCENT
from napari_oneseg.plugin.view_model import SliceRow

__all__ = ["SliceList"]

_KEYS = {Qt.Key.Key_Up, Qt.Key.Key_Down, Qt.Key.Key_Home, Qt.Key.Key_End, Qt.Key.Key_Return, Qt.Key.Key_Enter}
_MOST_ROWS = 4
_REASON = int(Qt.ItemDataRole.UserRole)
_WRAPPED = int(Qt.TextFlag.TextWordWrap)
_LEFT, _GAP = 10, 4


class SliceList(QListWidget):
    """Announces the slice that the user clicked, or reached with the arrow keys."""

    slice_chosen = Signal(int)

    def __init__(self, name: str, tip: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows: tuple[SliceRow, ...] = ()
        self.setAccessibleName(name)
        self.setToolTip(tip)
        self.setItemDelegate(_TwoLines(self))
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.itemClicked.connect(lambda item: self._announce(self.row(item)))

    def set_rows(self, rows: Sequence[SliceRow], current: int | None) -> None:
        """Show slices, best first, and mark one of them; None where none is on screen."""
        with QSignalBlocker(self):
            if tuple(rows) != self._rows:
                self._rows = tuple(rows)
                self.clear()
                for row in self._rows:
                    item = QListWidgetItem(row.title)
                    item.setData(_REASON, row.reason)
                    item.setData(int(Qt.ItemDataRole.AccessibleDescriptionRole), row.reason)
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
        self.scheduleDelayedItemsLayout()
        self._fit()

    def minimumSizeHint(self) -> QSize:
        """Narrow docks are fine."""
        return QSize(80, 24)

    def _announce(self, row: int) -> None:
        if 0 <= row < len(self._rows):
            self.slice_chosen.emit(self._rows[row].index)

    def _fit(self) -> None:
        heights = [self.sizeHintForRow(row) for row in range(min(len(self._rows), _MOST_ROWS))]
        self.setFixedHeight(sum(heights) + 2 * self.frameWidth() + 4)


class _TwoLines(QStyledItemDelegate):
    """The title, and under it the reason, broken into as many lines as it needs."""

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        box = QRect(option.rect)
        painter.save()
        if option.state & QStyle.StateFlag.State_Selected:
            painter.fillRect(box, option.palette.highlight())
            # The colour alone may be faint.
            painter.fillRect(QRect(box.left(), box.top(), 4, box.height()), QColor(ACCENT))
        elif option.state & QStyle.StateFlag.State_MouseOver:
            painter.setOpacity(0.4)
            painter.fillRect(box, option.palette.highlight())
            painter.setOpacity(1.0)
        painter.setPen(option.palette.windowText().color())
        box.adjust(_LEFT, _GAP, -_GAP, -_GAP)
        title, reason = _fonts(option)
        painter.setFont(title)
        painter.drawText(box, 0, index.data())
        box.setTop(box.top() + QFontMetrics(title).height())
        painter.setFont(reason)
        painter.drawText(box, _WRAPPED, index.data(_REASON))
        painter.restore()

    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex) -> QSize:
        title, reason = (QFontMetrics(font) for font in _fonts(option))
        width = self.parent().viewport().width()
        height = title.height() + 2 * _GAP
        if text := index.data(_REASON):
            height += reason.boundingRect(QRect(0, 0, width - _LEFT - _GAP, 10_000), _WRAPPED, text).height()
        return QSize(80, height)


def _fonts(option: QStyleOptionViewItem) -> tuple[QFont, QFont]:
    title, reason = QFont(option.font), QFont(option.font)
    title.setBold(True)
    return title, reason
