"""The parameters of propagation as a form, derived from where they are declared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_type_hints

from magicgui.widgets import Container, create_widget
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget

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
        self.fold = QPushButton("Advanced ▸")
        self.fold.setCheckable(True)
        self.fold.setFlat(True)
        self.fold.setToolTip("Parameters of the method; the usual values suit most scans.")
        self.fold.toggled.connect(self._fold)
        self.form: Container = Container(widgets=_editors(), labels=True)
        self.form.changed.connect(self._announce)
        self.usual = QPushButton("Usual values")
        self.usual.setToolTip("Set all parameters back.")
        self.usual.clicked.connect(self._reset)
        self.problem = paragraph()
        self._inside = QWidget()
        inside = QVBoxLayout(self._inside)
        inside.setContentsMargins(0, 0, 0, 0)
        for widget in (self.form.native, self.problem, self.usual):
            inside.addWidget(widget)
        rows = QVBoxLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.addWidget(self.fold)
        rows.addWidget(self._inside)
        self._fold(False)
        self.problem.hide()

    def set_values(self, values: Mapping[str, Any]) -> None:
        """Show values without announcing them."""
        with self.form.changed.blocked():
            for name, value in values.items():
                if self.form[name].value != value:
                    self.form[name].value = value
        self.problem.hide()

    def _reset(self) -> None:
        usual = PropagationConfig().to_dict()
        self.set_values(usual)
        self.changed.emit(usual)

    def _announce(self) -> None:
        values = {name: self.form[name].value for name in PropagationConfig().to_dict()}
        try:
            PropagationConfig.from_dict(values)
        except InputError as error:
            self.problem.setText(str(error))
            self.problem.show()
            return
        self.problem.hide()
        self.changed.emit(values)

    def _fold(self, is_open: bool) -> None:
        self.fold.setText("Advanced ▾" if is_open else "Advanced ▸")
        self._inside.setVisible(is_open)


def _editors() -> list[Any]:
    hints = get_type_hints(PropagationConfig)
    editors = []
    for entry in fields(PropagationConfig):
        kind, low, high = hints[entry.name], entry.metadata["ge"], entry.metadata["le"]
        options = {"min": low, "max": high, "step": 2 if kind is int else 0.01, "tooltip": entry.metadata["doc"]}
        label = entry.name.replace("_", " ").capitalize()
        editors.append(create_widget(entry.default, annotation=kind, name=entry.name, label=label, options=options))
    return editors
