from __future__ import annotations

import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt

from napari_oneseg.plugin.panels.suggest import SuggestPanel
from napari_oneseg.plugin.view_model import SliceRow, StepState

ROWS = (
    SliceRow(60, "Slice 60", "Shows most."),
    SliceRow(71, "Slice 71", "Nearly as good. " * 8),
    SliceRow(48, "Slice 48"),
)


@pytest.fixture
def panel(qtbot: QtBot) -> SuggestPanel:
    panel = SuggestPanel()
    qtbot.addWidget(panel)
    panel.resize(300, 400)
    panel.show()
    panel.set_state(StepState("ready"))
    return panel


def test_the_list_appears_with_the_current_slice_marked(panel: SuggestPanel, qtbot: QtBot) -> None:
    assert not panel.slices.isVisible()
    with qtbot.assertNotEmitted(panel.suggestion_chosen):
        panel.set_suggestions(ROWS, 71)
    assert panel.slices.isVisible()
    assert panel.slices.currentRow() == 1
    panel.set_suggestions(ROWS, 5)
    assert panel.slices.currentRow() == -1


def test_clicks_and_arrow_keys_choose_each_once(panel: SuggestPanel, qtbot: QtBot) -> None:
    panel.set_suggestions(ROWS, 60)
    chosen: list[int] = []
    panel.suggestion_chosen.connect(chosen.append)
    place = panel.slices.visualItemRect(panel.slices.item(2)).center()
    qtbot.mouseClick(panel.slices.viewport(), Qt.MouseButton.LeftButton, pos=place)
    qtbot.mouseClick(panel.slices.viewport(), Qt.MouseButton.LeftButton, pos=place)
    qtbot.keyClick(panel.slices, Qt.Key.Key_Up)
    qtbot.keyClick(panel.slices, Qt.Key.Key_Return)
    assert chosen == [48, 48, 71, 71]


def test_a_long_reason_is_broken_into_lines_that_are_all_seen(panel: SuggestPanel, qtbot: QtBot) -> None:
    panel.set_suggestions(ROWS, 60)
    heights = [panel.slices.visualItemRect(panel.slices.item(row)).height() for row in range(3)]
    assert heights[1] > heights[0] > heights[2]
    qtbot.waitUntil(lambda: panel.slices.verticalScrollBar().maximum() == 0, timeout=1000)


def test_the_button_asks(panel: SuggestPanel, qtbot: QtBot) -> None:
    with qtbot.waitSignal(panel.suggest_requested):
        qtbot.mouseClick(panel.suggest_button, Qt.MouseButton.LeftButton)
