"""The parameters of propagation as a form, derived from where they are declared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_type_hints

from magicgui.widgets import create_widget
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFormLayout, QPushButton, QVBoxLayout, QWidget

from napari_oneseg.config import PropagationConfig
from napari_oneseg.errors import InputError
from napari_oneseg.plugin.panels.look import paragraph

__all__ = ["ParameterForm"]


class ParameterForm(QWidget):
    """A form for all fields of :class:`PropagationConfig`, folded away."""

    changed = Signal(object)
    """All values, as a dictionary that :meth:`PropagationConfig.from_dict` takes."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.fold = QPushButton()
        self.fold.setProperty("quiet", True)
        self.fold.setToolTip("Parameters of the method; the usual values suit most scans.")
        self.fold.clicked.connect(lambda: self.set_open(not self.is_open))
        self.problem = paragraph()
        self.problem.hide()
        self.usual = QPushButton("Usual values")
        self.usual.setToolTip("Set all parameters back.")
        self.usual.clicked.connect(self._reset)
        self.inside = QWidget()
        form = QFormLayout(self.inside)
        form.setContentsMargins(8, 0, 0, 0)
        self.editors = _editors()
        for name, editor in self.editors.items():
            form.addRow(name.replace("_", " ").capitalize(), editor.native)
            form.labelForField(editor.native).setToolTip(editor.tooltip)
            editor.changed.connect(self._announce)
        form.addRow(self.problem)
        form.addRow(self.usual)
        rows = QVBoxLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.addWidget(self.fold)
        rows.addWidget(self.inside)
        self.set_open(False)

    @property
    def is_open(self) -> bool:
        """Whether the form is unfolded."""
        return not self.inside.isHidden()

    def set_open(self, is_open: bool) -> None:
        """Fold or unfold the form."""
        self.fold.setText("▾  Advanced" if is_open else "▸  Advanced")
        self.inside.setVisible(is_open)

    def set_values(self, values: Mapping[str, Any]) -> None:
        """Show values without announcing them."""
        for name, value in values.items():
            editor = self.editors[name]
            if editor.value != value:
                with editor.changed.blocked():
                    editor.value = value
        self.problem.hide()

    def _reset(self) -> None:
        usual = PropagationConfig().to_dict()
        self.set_values(usual)
        self.changed.emit(usual)

    def _announce(self) -> None:
        values = {name: editor.value for name, editor in self.editors.items()}
        try:
            PropagationConfig.from_dict(values)
        except InputError as error:
            # Such as an even window, which the limits of a field cannot tell.
            self.problem.setText(str(error))
            self.problem.show()
            return
        self.problem.hide()
        self.changed.emit(values)


def _editors() -> dict[str, Any]:
    hints = get_type_hints(PropagationConfig)
    editors = {}
    for entry in fields(PropagationConfig):
        kind, low, high = hints[entry.name], entry.metadata["ge"], entry.metadata["le"]
        options = {"min": low, "max": high, "step": 2 if kind is int else 0.01, "tooltip": entry.metadata["doc"]}
        editors[entry.name] = create_widget(entry.default, annotation=kind, name=entry.name, options=options)
    return editors
