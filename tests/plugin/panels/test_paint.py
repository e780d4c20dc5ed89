from __future__ import annotations

import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt

from napari_oneseg.plugin.panels.paint import PaintPanel
from napari_oneseg.plugin.view_model import Choice, StepState


@pytest.fixture
def panel(qtbot: QtBot) -> PaintPanel:
    panel = PaintPanel()
    qtbot.addWidget(panel)
    panel.resize(300, 300)
    panel.show()
    panel.set_state(StepState("ready"))
    return panel


def test_the_button_asks(panel: PaintPanel, qtbot: QtBot) -> None:
    with qtbot.waitSignal(panel.paint_requested):
        qtbot.mouseClick(panel.paint_button, Qt.MouseButton.LeftButton)


def test_tools(panel: PaintPanel, qtbot: QtBot) -> None:
    with qtbot.assertNotEmitted(panel.tool_chosen):
        panel.set_tool("fill")
    assert [key for key, button in panel.tools.items() if button.isChecked()] == ["fill"]
    with qtbot.waitSignal(panel.tool_chosen) as tool:
        qtbot.mouseClick(panel.tools["eraser"], Qt.MouseButton.LeftButton)
    assert tool.args == ["eraser"]
    assert not panel.tools["fill"].isChecked()
    panel.set_tool("")
    assert not any(button.isChecked() for button in panel.tools.values())


def test_the_size_by_slider_and_by_number(panel: PaintPanel, qtbot: QtBot) -> None:
    with qtbot.assertNotEmitted(panel.brush_size_changed):
        panel.set_brush_size(10)
    sizes: list[int] = []
    panel.brush_size_changed.connect(sizes.append)
    panel.size_slider.setFocus()
    qtbot.keyClick(panel.size_slider, Qt.Key.Key_Right)
    qtbot.keyClick(panel.size_box, Qt.Key.Key_Up)
    assert sizes == [11, 12]
    assert panel.size_slider.value() == panel.size_box.value() == 12


def test_layers_and_painted_slices(panel: PaintPanel, qtbot: QtBot) -> None:
    panel.set_layers((Choice(None, "New labels layer"), Choice(7, "Labels")), 7)
    assert panel.layers.currentText() == "Labels"
    with qtbot.waitSignal(panel.layer_chosen) as layer:
        qtbot.keyClick(panel.layers, Qt.Key.Key_Up)
    assert layer.args == [None]
    assert not panel.painted.isVisible()
    panel.set_painted([17, 42])
    assert panel.painted.text() == "Painted: 17, 42"
    assert panel.painted.isVisible()
