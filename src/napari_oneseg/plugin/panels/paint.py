"""Step 4: painting the slice."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QButtonGroup, QFormLayout, QHBoxLayout, QPushButton, QSlider, QSpinBox, QWidget

from napari_oneseg.plugin.panels.look import ActionButton, ChoiceBox, paragraph
from napari_oneseg.plugin.panels.step import Step
from napari_oneseg.plugin.view_model import Choice

__all__ = ["PaintPanel"]

TOOLS = {
    "brush": ("Brush", "Paint with the selected label."),
    "eraser": ("Eraser", "Take labels away."),
    "fill": ("Fill", "Fill a closed area with the selected label."),
    "polygon": ("Polygon", "Paint an area by clicking its corners."),
}
LARGEST_BRUSH = 200


class PaintPanel(Step):
    """Chooses the layer that is painted, the tool and its size."""

    paint_requested = Signal()
    layer_chosen = Signal(object)
    brush_size_changed = Signal(int)
    tool_chosen = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(4, "Paint", parent)
        self.paint_button = ActionButton("Paint this slice", "Select the labels and the brush, to paint on the scan.")
        self.paint_button.clicked.connect(self.paint_requested)
        self.main_action = self.paint_button
        self.layers = ChoiceBox("Labels layer", "Where the labels are painted: a new layer, or one that is open.")
        self.layers.chosen.connect(self.layer_chosen)
        self.tools: dict[str, QPushButton] = {}
        self._group = QButtonGroup(self)
        tools = QHBoxLayout()
        tools.setSpacing(2)
        for key, (title, tip) in TOOLS.items():
            button = self.tools[key] = QPushButton(title)
            button.setCheckable(True)
            button.setToolTip(tip)
            button.clicked.connect(lambda _checked, key=key: self.tool_chosen.emit(key))
            self._group.addButton(button)
            tools.addWidget(button, 1)
        self.size_slider = QSlider(Qt.Orientation.Horizontal)
        self.size_box = QSpinBox()
        for control in (self.size_slider, self.size_box):
            control.setRange(1, LARGEST_BRUSH)
            control.setToolTip("Width of the brush, in pixels of the scan.")
            control.setAccessibleName("Brush size")
            control.valueChanged.connect(self._change_size)
        size = QHBoxLayout()
        self.size_box.setMaximumWidth(84)
        size.addWidget(self.size_slider, 1)
        size.addWidget(self.size_box)
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Labels", self.layers)
        form.addRow("Size", size)
        self.painted = paragraph()
        self.painted.hide()
        self.rows.addWidget(self.paint_button)
        self.rows.addLayout(tools)
        self.rows.addLayout(form)
        self.rows.addWidget(self.painted)

    def set_layers(self, choices: Sequence[Choice], current: Hashable | None) -> None:
        """Show the layers that may be painted."""
        self.layers.set_choices(choices, current)

    def set_brush_size(self, size: int) -> None:
        """Show the width of the brush, in pixels."""
        for control in (self.size_slider, self.size_box):
            with QSignalBlocker(control):
                control.setValue(size)

    def set_tool(self, tool: str) -> None:
        """Show which tool is on; any other name than the four shows that none is."""
        # An exclusive group would keep the last button down.
        self._group.setExclusive(False)
        for key, button in self.tools.items():
            button.setChecked(key == tool)
        self._group.setExclusive(True)

    def set_painted(self, slices: Sequence[int]) -> None:
        """Show which slices have been painted."""
        self.painted.setText(f"Painted: {', '.join(map(str, slices))}")
        self.painted.setVisible(bool(slices))

    def _change_size(self, size: int) -> None:
        self.set_brush_size(size)
        self.brush_size_changed.emit(size)
