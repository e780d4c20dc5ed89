"""The table of labels: colour, name, volume, slices."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QSignalBlocker, QSize, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QKeyEvent, QPainter, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemDelegate,
    QAbstractItemView,
    QColorDialog,
    QHeaderView,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)

from napari_oneseg.plugin.view_model import Colour, LabelRow

__all__ = ["LabelTable"]

COLOUR, NAME, VOLUME, SLICES = range(4)
_MOST_ROWS = 6
_ROW_HEIGHT = 26
_NOTHING = _TO = "\N{EN DASH}"


class LabelTable(QTableWidget):
    """Labels to select, rename and recolour; a name that is being typed is never disturbed."""

    label_selected = Signal(int)
    label_renamed = Signal(int, str)
    label_recoloured = Signal(int, object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(0, 4, parent)
        self._shown: dict[int, LabelRow] = {}
        self._wanted: int | None = None
        self.setHorizontalHeaderLabels(["", "Name", "mL", "Slices"])
        self.setAccessibleName("Labels")
        self.setToolTip(
            "The selected label is the one that is painted.\n"
            "Double-click its name (or press F2) or its colour (or press C) to change it."
        )
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.DoubleClicked | QAbstractItemView.EditTrigger.EditKeyPressed)
        # Tab leaves the table for the next control, as everywhere else in the panel.
        self.setTabKeyNavigation(False)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(_ROW_HEIGHT)
        self.verticalHeader().setMinimumSectionSize(_ROW_HEIGHT)
        header = self.horizontalHeader()
        header.setHighlightSections(False)
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        header.setSectionsClickable(False)
        header.setMinimumSectionSize(24)
        header.setSectionResizeMode(COLOUR, QHeaderView.ResizeMode.Fixed)
        header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        for column in (VOLUME, SLICES):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        header.resizeSection(COLOUR, 28)
        self.itemSelectionChanged.connect(self._announce_selection)
        self.itemChanged.connect(self._announce_name)
        self.cellDoubleClicked.connect(self._change_colour)
        self._fit()

    def set_rows(self, rows: Sequence[LabelRow], selected: int | None) -> None:
        """Show the labels and which of them is painted; None where none is selected."""
        editing = self._edited()
        with QSignalBlocker(self):
            wanted = [row.value for row in rows]
            for at in reversed(range(self.rowCount())):
                if self._value(at) not in wanted:
                    self.removeRow(at)
            for at, row in enumerate(rows):
                if at >= self.rowCount() or self._value(at) != row.value:
                    self._move_or_insert(row, at)
                self._fill(at, row, keep_name=row.value == editing)
            self._shown, self._wanted = {row.value: row for row in rows}, selected
            # Another current row would close the editor.
            if editing not in wanted:
                self._select(wanted.index(selected) if selected in wanted else -1)
        self._fit()

    def closeEditor(self, editor: QWidget, hint: QAbstractItemDelegate.EndEditHint) -> None:
        """Show, after a name was not changed after all, what had to wait."""
        super().closeEditor(editor, hint)
        if hint == QAbstractItemDelegate.EndEditHint.RevertModelCache:
            self.set_rows(tuple(self._shown.values()), self._wanted)

    def selected(self) -> int | None:
        """Value of the selected label."""
        rows = self.selectionModel().selectedRows()
        return self._value(rows[0].row()) if rows else None

    def ask_for_colour(self, current: Colour) -> Colour | None:
        """Let the user choose a colour; None where he did not."""
        chosen = QColorDialog.getColor(QColor.fromRgbF(*current), self, "Colour of the label")
        return chosen.getRgbF() if chosen.isValid() else None

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Rename with Enter (or F2), change the colour with C."""
        editing = self.state() == QAbstractItemView.State.EditingState
        row = self.currentRow()
        if row >= 0 and not editing and event.key() in {Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_F2}:
            self.setCurrentCell(row, NAME)
            self.editItem(self.item(row, NAME))
        elif row >= 0 and not editing and event.key() == Qt.Key.Key_C and not event.modifiers():
            self._change_colour(row, COLOUR)
        else:
            super().keyPressEvent(event)

    def _value(self, row: int) -> int:
        return int(self.item(row, COLOUR).data(Qt.ItemDataRole.UserRole))

    def _edited(self) -> int | None:
        editing = self.state() == QAbstractItemView.State.EditingState
        return self._value(self.currentRow()) if editing and self.currentRow() >= 0 else None

    def _move_or_insert(self, row: LabelRow, at: int) -> None:
        for below in range(at + 1, self.rowCount()):
            if self._value(below) == row.value:
                self.removeRow(below)
                break
        self.insertRow(at)
        for column in (COLOUR, NAME, VOLUME, SLICES):
            item = QTableWidgetItem()
            flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
            item.setFlags(flags | Qt.ItemFlag.ItemIsEditable if column == NAME else flags)
            if column in {VOLUME, SLICES}:
                item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            self.setItem(at, column, item)
        self.item(at, COLOUR).setData(Qt.ItemDataRole.UserRole, row.value)

    def _fill(self, at: int, row: LabelRow, *, keep_name: bool) -> None:
        before = self._shown.get(row.value)
        if before is None or before.colour != row.colour or self.item(at, COLOUR).icon().isNull():
            self.item(at, COLOUR).setIcon(_swatch(row.colour))
            self.item(at, COLOUR).setToolTip(f"Label {row.value}. Double-click to change its colour.")
        if not keep_name:
            self.item(at, NAME).setText(row.name)
        self.item(at, VOLUME).setText(_NOTHING if row.volume_ml is None else _millilitres(row.volume_ml))
        self.item(at, SLICES).setText(_NOTHING if row.slices is None else _TO.join(map(str, row.slices)))

    def _select(self, row: int) -> None:
        if row < 0:
            self.clearSelection()
        elif self._value(row) != self.selected():
            self.selectRow(row)

    def _announce_selection(self) -> None:
        value = self.selected()
        if value is not None:
            self._wanted = value
            self.label_selected.emit(value)

    def _announce_name(self, item: QTableWidgetItem) -> None:
        if item.column() != NAME:
            return
        value, name = self._value(item.row()), item.text().strip()
        before = self._shown[value].name
        if name and name != before:
            self.label_renamed.emit(value, name)
        else:
            with QSignalBlocker(self):
                item.setText(before)

    def _change_colour(self, row: int, column: int) -> None:
        if column != COLOUR:
            return
        value = self._value(row)
        if (colour := self.ask_for_colour(self._shown[value].colour)) is not None:
            self.label_recoloured.emit(value, colour)

    def _fit(self) -> None:
        rows = min(max(self.rowCount(), 1), _MOST_ROWS)
        self.setFixedHeight(self.horizontalHeader().sizeHint().height() + rows * _ROW_HEIGHT + 4)

    def minimumSizeHint(self) -> QSize:
        """Narrow docks are fine."""
        return QSize(120, 50)


def _millilitres(volume: float) -> str:
    return f"{volume:.2f}" if volume < 1 else f"{volume:.1f}" if volume < 100 else f"{volume:.0f}"


def _swatch(colour: Colour) -> QIcon:
    pixmap = QPixmap(16, 16)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen)
    # Opaque, whatever the layer's own opacity is: the swatch names the colour.
    painter.setBrush(QColor.fromRgbF(*colour[:3]))
    painter.drawRoundedRect(1, 1, 14, 14, 3, 3)
    painter.end()
    icon = QIcon()
    # The same when its row is selected: some styles would tint it.
    for mode in (QIcon.Mode.Normal, QIcon.Mode.Selected):
        icon.addPixmap(pixmap, mode)
    return icon
