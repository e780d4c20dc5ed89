"""Which of several scans: a list with a picture of each, for mouse, keyboard and screen reader."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QModelIndex, QSize, Qt
from qtpy.QtGui import QColor, QIcon, QImage, QPainter, QPixmap
from qtpy.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QListWidget,
    QListWidgetItem,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)

from napari_oneseg.plugin.panels.look import paragraph

__all__ = ["PictureList"]

_SIDE = 96
_HEIGHTS = (3, 5)
"""At least and at most so many entries are seen without scrolling."""


class PictureList(QDialog):
    """Asks for one of several; the pictures come later, one by one.

    Parameters
    ----------
    question
        What is asked.
    texts
        What describes each entry, of one or several lines.
    """

    def __init__(self, question: str, texts: Sequence[str], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("OneSeg")
        self.list = QListWidget()
        self.list.setAccessibleName(question)
        self.list.setIconSize(QSize(_SIDE, _SIDE))
        self.list.setItemDelegate(_Unveiled(self.list))
        self.list.setUniformItemSizes(True)
        self.list.setWordWrap(True)
        waiting = _icon(None)
        for text in texts:
            item = QListWidgetItem(waiting, text)
            # Read out on one line; a picture says nothing to a screen reader.
            item.setData(Qt.ItemDataRole.AccessibleTextRole, ", ".join(text.splitlines()))
            item.setToolTip(text)
            item.setSizeHint(QSize(_SIDE, _SIDE + 8))
            self.list.addItem(item)
        self.list.setCurrentRow(0)
        self.list.itemActivated.connect(self.accept)
        self.buttons = QDialogButtonBox(
            QDialogButtonBox.StandardButton.Open | QDialogButtonBox.StandardButton.Cancel, parent=self
        )
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        column = QVBoxLayout(self)
        column.addWidget(paragraph(question))
        column.addWidget(self.list, 1)
        column.addWidget(self.buttons)
        seen = min(max(len(texts), _HEIGHTS[0]), _HEIGHTS[1])
        self.resize(440, seen * (_SIDE + 10) + 100)
        self.list.setFocus()

    @property
    def chosen(self) -> int:
        """The number of the entry that is selected."""
        return int(self.list.currentRow())

    def set_picture(self, number: int, picture: NDArray[np.uint8]) -> None:
        """Show the picture of an entry: grey values, shape (rows, columns), neither side above 96."""
        item = self.list.item(number)
        if item is not None:
            item.setIcon(_icon(picture))


class _Unveiled(QStyledItemDelegate):
    """Draws an entry's picture as it is, also where the entry is selected: styles lay a colour over it."""

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        """Draw the entry, and its picture once more."""
        super().paint(painter, option, index)
        own = QStyleOptionViewItem(option)
        self.initStyleOption(own, index)
        style = own.widget.style()
        place = style.subElementRect(QStyle.SubElement.SE_ItemViewItemDecoration, own, own.widget)
        index.data(Qt.ItemDataRole.DecorationRole).paint(painter, place)


def _icon(picture: NDArray[np.uint8] | None) -> QIcon:
    """Return a square icon with the picture in its middle; dark where there is none yet."""
    square = QPixmap(_SIDE, _SIDE)
    square.fill(QColor("black") if picture is not None else QColor(128, 128, 128, 60))
    if picture is not None:
        rows, columns = picture.shape
        pixels = np.ascontiguousarray(picture).tobytes()
        image = QImage(pixels, columns, rows, columns, QImage.Format.Format_Grayscale8)
        painter = QPainter(square)
        painter.drawImage((_SIDE - columns) // 2, (_SIDE - rows) // 2, image)
        painter.end()
    return QIcon(square)
