"""Step 5: carrying the labels through the scan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QCheckBox, QFormLayout, QWidget

from napari_oneseg.plugin.panels.look import ActionButton, ChoiceBox
from napari_oneseg.plugin.panels.parameters import ParameterForm
from napari_oneseg.plugin.panels.step import Step
from napari_oneseg.plugin.view_model import Choice

__all__ = ["PropagatePanel"]

DIRECTIONS = (
    Choice("both", "Both directions"),
    Choice("up", "Up only", "Towards higher slice numbers."),
    Choice("down", "Down only", "Towards lower slice numbers."),
)
SCOPES = (Choice("all", "All labels"), Choice("selected", "The selected label", "The other labels stay as they are."))


class PropagatePanel(Step):
    """One button; what it does can be narrowed."""

    propagate_requested = Signal()
    direction_chosen = Signal(str)
    scope_chosen = Signal(str)
    live_toggled = Signal(bool)
    parameters_changed = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(5, "Propagate", parent)
        self.propagate_button = ActionButton("Propagate", "Carry the labels from the painted slices through the scan.")
        self.propagate_button.clicked.connect(self.propagate_requested)
        self.main_action = self.propagate_button
        self.directions = ChoiceBox("Direction", "Where the labels are carried to, from the painted slices.")
        self.scopes = ChoiceBox("Labels", "Which labels are carried.")
        self.directions.chosen.connect(self.direction_chosen.emit)
        self.scopes.chosen.connect(self.scope_chosen.emit)
        self.live_box = QCheckBox("Update after each stroke")
        self.live_box.clicked.connect(self.live_toggled)
        self.advanced = ParameterForm()
        self.advanced.changed.connect(self.parameters_changed)
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Direction", self.directions)
        form.addRow("Labels", self.scopes)
        self.rows.addWidget(self.propagate_button)
        self.rows.addLayout(form)
        self.rows.addWidget(self.live_box)
        self.rows.addWidget(self.advanced)
        self.set_direction("both")
        self.set_scope("all")
        self.set_live(False, True)

    def set_action(self, text: str, enabled: bool, shortcut: str) -> None:
        """Say what the button does now, whether it can, and by which key."""
        self.propagate_button.set_label(text)
        self.propagate_button.set_shortcut(shortcut)
        self.propagate_button.setEnabled(enabled)

    def set_direction(self, direction: str) -> None:
        """Show the direction: both, up or down."""
        self.directions.set_choices(DIRECTIONS, direction)

    def set_scope(self, scope: str) -> None:
        """Show which labels are carried: all or selected."""
        self.scopes.set_choices(SCOPES, scope)

    def set_live(self, on: bool, possible: bool) -> None:
        """Show whether each stroke is carried at once, and whether the machine is fast enough for that."""
        with QSignalBlocker(self.live_box):
            self.live_box.setChecked(on)
        self.live_box.setEnabled(possible)
        self.live_box.setToolTip(
            "Carry the labels on after every stroke." if possible else "This scan takes too long for that here."
        )

    def set_parameters(self, values: Mapping[str, Any]) -> None:
        """Show the parameters of the method."""
        self.advanced.set_values(values)
