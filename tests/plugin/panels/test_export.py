from __future__ import annotations

from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt

from napari_oneseg.plugin.panels.export import ExportPanel
from napari_oneseg.plugin.view_model import StepState


def test_the_summary_and_the_button(qtbot: QtBot) -> None:
    panel = ExportPanel()
    qtbot.addWidget(panel)
    panel.show()
    panel.set_state(StepState("ready"))
    assert not panel.summary.isVisible()
    panel.set_summary("4 labels, 1754 mL")
    assert panel.summary.isVisible()
    with qtbot.waitSignal(panel.export_requested):
        qtbot.keyClick(panel.export_button, Qt.Key.Key_Space)
