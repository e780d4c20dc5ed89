"""Step 2: which labels, and roughly where in the scan."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QSpinBox, QWidget

from napari_oneseg.plugin.panels.label_table import LabelTable
from napari_oneseg.plugin.panels.look import ActionButton
from napari_oneseg.plugin.panels.step import Step
from napari_oneseg.plugin.view_model import LabelRow

__all__ = ["TargetPanel"]


class TargetPanel(Step):
    """The table of labels, and the range of slices in which the target lies."""

    label_selected = Signal(int)
    label_added = Signal()
    label_renamed = Signal(int, str)
    label_recoloured = Signal(int, object)
    label_removed = Signal(int)
    first_slice_clicked = Signal()
    last_slice_clicked = Signal()
    range_cleared = Signal()
    range_edited = Signal(int, int)
    locate_toggled = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(2, "Target", parent)
        self.table = LabelTable()
        self.table.label_selected.connect(self.label_selected)
        self.table.label_renamed.connect(self.label_renamed)
        self.table.label_recoloured.connect(self.label_recoloured)
        self.add_button = ActionButton("Add label", "Add a label, to paint another structure.")
        self.add_button.clicked.connect(self.label_added)
        self.remove_button = ActionButton("Remove label", "Remove the selected label and everything painted with it.")
        self.remove_button.clicked.connect(self._remove)
        self.first_button = ActionButton("First slice here", "The target begins at the slice on screen.")
        self.last_button = ActionButton("Last slice here", "The target ends at the slice on screen.")
        self.first_button.clicked.connect(self.first_slice_clicked)
        self.last_button.clicked.connect(self.last_slice_clicked)
        self.locate_button = ActionButton(
            "Click in the organ", "Then click once in the organ: its first and last slice are estimated."
        )
        self.locate_button.setCheckable(True)
        self.locate_button.clicked.connect(self.locate_toggled)
        self.first_box, self.last_box = QSpinBox(), QSpinBox()
        for box, name in ((self.first_box, "First slice"), (self.last_box, "Last slice")):
            box.setAccessibleName(name)
            box.setToolTip(f"{name} of the target; roughly is enough.")
            # A number counts once it is typed to its end.
            box.setKeyboardTracking(False)
            box.valueChanged.connect(self._edit_range)
        self.whole_button = ActionButton("Whole scan", "Forget the range: the target may lie anywhere.")
        self.whole_button.clicked.connect(self.range_cleared)
        self.rows.addWidget(self.table)
        self._add_row(self.add_button, self.remove_button)
        self._add_row(QLabel("Slices"), self.first_box, QLabel("to"), self.last_box)
        self._add_row(self.first_button, self.last_button)
        self._add_row(self.locate_button, self.whole_button)
        self.set_labels((), None)
        self.set_range(None, 1)

    def set_labels(self, rows: Sequence[LabelRow], selected: int | None) -> None:
        """Show the labels and which of them is painted."""
        self.table.set_rows(rows, selected)
        self.remove_button.setEnabled(self.table.selected() is not None)

    def set_range(self, slice_range: tuple[int, int] | None, n_slices: int) -> None:
        """Show the first and last slice of the target, both included; None for the whole scan."""
        last = max(n_slices - 1, 0)
        for box, value in zip((self.first_box, self.last_box), slice_range or (0, last), strict=True):
            typing = box.hasFocus() and box.lineEdit().isModified()
            with QSignalBlocker(box):
                box.setRange(0, last)
                if not typing:
                    box.setValue(value)
        self.whole_button.setEnabled(slice_range is not None)

    def set_locating(self, on: bool) -> None:
        """Show whether the next click on the scan marks the organ."""
        self.locate_button.setChecked(on)
        self.locate_button.set_label("Now click there" if on else "Click in the organ")

    def _folds_when_done(self) -> bool:
        # With several labels the table tells, and changes, which of them is painted.
        return int(self.table.rowCount()) < 2

    def _add_row(self, *widgets: QWidget) -> None:
        row = QHBoxLayout()
        row.setSpacing(4)
        for widget in widgets:
            row.addWidget(widget, 0 if isinstance(widget, QLabel) else 1)
        self.rows.addLayout(row)

    def _remove(self) -> None:
        if (value := self.table.selected()) is not None:
            self.label_removed.emit(value)

    def _edit_range(self) -> None:
        first, last = self.first_box.value(), self.last_box.value()
        # The edge that was moved pushes the other one.
        if first > last:
            moved, other = (first, self.last_box) if self.sender() is self.first_box else (last, self.first_box)
            with QSignalBlocker(other):
                other.setValue(moved)
            first = last = moved
        self.range_edited.emit(first, last)
