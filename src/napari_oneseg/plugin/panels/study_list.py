"""The scans of a study, one per line; hundreds of them cost no more than those on screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QSize, Qt, Signal
from qtpy.QtGui import QFont, QKeyEvent
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTreeView, QWidget

from napari_oneseg.plugin.view_model import StudyRow

__all__ = ["StudyList"]

NAME, STATUS, SLICES, MINUTES = range(4)
_HEADINGS = ("Scan", "Status", "Slices", "Min")
_HEADING_TIPS = (
    "Double-click a scan, or press Enter on it, to open it.",
    "How far the scan is; 'in use': another window works on it.",
    "How many slices were painted.",
    """Minutes that were worked on the scan: from one stroke, click or slice to the next.
Pauses of more than a minute and a half do not count.""",
)
_MOST_ROWS, _ROW_HEIGHT = 6, 22
_NUMBER = {Qt.ItemDataRole.TextAlignmentRole: int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)}
_CELLS: tuple[dict[int, Any], ...] = ({Qt.ItemDataRole.SizeHintRole: QSize(0, _ROW_HEIGHT)}, {}, _NUMBER, _NUMBER)
_SIGNS = {
    "open": "\N{WHITE CIRCLE}",
    "in progress": "\N{CIRCLE WITH LEFT HALF BLACK}",
    "in use": "\N{CIRCLE WITH LEFT HALF BLACK}",
    "done": "\N{CHECK MARK}",
    "skipped": "\N{EN DASH}",
    "failed": "\N{MULTIPLICATION X}",
}


class _Model(QAbstractTableModel):
    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.rows: tuple[StudyRow, ...] = ()
        self.here: str | None = None

    def show(self, rows: Sequence[StudyRow], here: str | None) -> None:
        before, self.rows = self.rows, tuple(rows)
        moved, self.here = here != self.here, here
        if [row.name for row in before] != [row.name for row in self.rows]:
            self.beginResetModel()
            self.endResetModel()
            return
        for at, (old, new) in enumerate(zip(before, self.rows, strict=True)):
            if old != new or moved:
                self.dataChanged.emit(self.index(at, NAME), self.index(at, MINUTES))

    def rowCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: B008 - Qt's own default
        return 0 if parent.isValid() else len(self.rows)

    def columnCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else len(_HEADINGS)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = 0) -> Any:
        if orientation == Qt.Orientation.Horizontal:
            if role == Qt.ItemDataRole.DisplayRole:
                return _HEADINGS[section]
            if role == Qt.ItemDataRole.ToolTipRole:
                return _HEADING_TIPS[section]
        return None

    def data(self, index: QModelIndex, role: int = 0) -> Any:
        row, column = self.rows[index.row()], index.column()
        if role == Qt.ItemDataRole.DisplayRole:
            return (row.name, f"{_SIGNS.get(row.status, '')} {row.status}", row.slices, row.minutes)[column]
        if role == Qt.ItemDataRole.ToolTipRole:
            return row.tip
        if role == Qt.ItemDataRole.FontRole and row.name == self.here:
            font = QFont(self.parent().font())
            font.setBold(True)
            return font
        return _CELLS[column].get(role)


class StudyList(QTreeView):
    """Announces the scan that is to be opened: double-clicked, or chosen with the arrow keys and Enter."""

    scan_chosen = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._model = _Model(self)
        self._followed: str | None = None
        self.setModel(self._model)
        self.setAccessibleName("Scans of the study")
        self.setToolTip(_HEADING_TIPS[NAME])
        self.setRootIsDecorated(False)
        self.setUniformRowHeights(True)
        self.setAllColumnsShowFocus(True)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setExpandsOnDoubleClick(False)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        header = self.header()
        header.setStretchLastSection(False)
        header.setSectionsMovable(False)
        header.setMinimumSectionSize(24)
        header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        for column in (STATUS, SLICES, MINUTES):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        self.doubleClicked.connect(lambda index: self._announce(index.row()))

    def set_rows(self, rows: Sequence[StudyRow], here: str | None) -> None:
        """Show the scans and which of them is at hand; when that becomes another one, it is scrolled to."""
        self._model.show(rows, here)
        if here != self._followed:
            self._followed = here
            names = [row.name for row in rows]
            if here in names:
                self.setCurrentIndex(self._model.index(names.index(here), NAME))
        height = self.header().sizeHint().height() + 2 * self.frameWidth()
        self.setFixedHeight(height + _ROW_HEIGHT * min(max(len(rows), 1), _MOST_ROWS))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Open the selected scan with Enter."""
        if event.key() in {Qt.Key.Key_Return, Qt.Key.Key_Enter}:
            self._announce(self.currentIndex().row())
        else:
            super().keyPressEvent(event)

    def _announce(self, row: int) -> None:
        if 0 <= row < len(self._model.rows):
            self.scan_chosen.emit(self._model.rows[row].name)
