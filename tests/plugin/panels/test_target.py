from __future__ import annotations

import dataclasses

import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLineEdit

from napari_oneseg.plugin.panels.label_table import COLOUR, NAME, SLICES, VOLUME
from napari_oneseg.plugin.panels.target import TargetPanel
from napari_oneseg.plugin.view_model import LabelRow, StepState

LIVER = LabelRow(1, "Liver", (1.0, 0.0, 0.0, 1.0), 1432.1, (15, 104))
SPLEEN = LabelRow(4, "Spleen", (0.0, 1.0, 0.0, 1.0), 0.42, (57, 103))
NOTHING = TO = "\N{EN DASH}"
NEW = LabelRow(2, "Label 2", (0.0, 0.0, 1.0, 1.0))


@pytest.fixture
def panel(qtbot: QtBot) -> TargetPanel:
    panel = TargetPanel()
    qtbot.addWidget(panel)
    panel.resize(320, 420)
    panel.show()
    panel.set_state(StepState("ready"))
    panel.set_labels((LIVER, SPLEEN), 1)
    panel.set_range(None, 120)
    panel.activateWindow()
    return panel


def texts(panel: TargetPanel, column: int) -> list[str]:
    return [panel.table.item(row, column).text() for row in range(panel.table.rowCount())]


def start_editing(panel: TargetPanel, qtbot: QtBot, row: int) -> QLineEdit:
    panel.table.setCurrentCell(row, NAME)
    panel.table.setFocus()
    qtbot.keyClick(panel.table, Qt.Key.Key_F2)
    editor = panel.table.viewport().findChild(QLineEdit)
    assert editor is not None
    return editor


def test_rows_show_name_volume_and_slices(panel: TargetPanel) -> None:
    panel.set_labels((LIVER, NEW, SPLEEN), 1)
    assert texts(panel, NAME) == ["Liver", "Label 2", "Spleen"]
    assert texts(panel, VOLUME) == ["1432", NOTHING, "0.42"]
    assert texts(panel, SLICES) == [f"15{TO}104", NOTHING, f"57{TO}103"]
    panel.set_labels((SPLEEN, LIVER), 4)
    assert texts(panel, NAME) == ["Spleen", "Liver"]
    assert panel.table.selected() == 4
    panel.set_labels((), None)
    assert panel.table.rowCount() == 0
    assert not panel.remove_button.isEnabled()


def test_a_click_selects_and_a_setter_is_silent(panel: TargetPanel, qtbot: QtBot) -> None:
    with qtbot.assertNotEmitted(panel.label_selected):
        panel.set_labels((LIVER, SPLEEN, NEW), 4)
    place = panel.table.visualItemRect(panel.table.item(0, NAME)).center()
    with qtbot.waitSignal(panel.label_selected) as selected:
        qtbot.mouseClick(panel.table.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert selected.args == [1]
    with qtbot.waitSignal(panel.label_selected) as selected:
        qtbot.keyClick(panel.table, Qt.Key.Key_Down)
    assert selected.args == [4]


def test_a_name_is_typed(panel: TargetPanel, qtbot: QtBot) -> None:
    editor = start_editing(panel, qtbot, 1)
    qtbot.keyClicks(editor, "Left kidney")
    with qtbot.waitSignal(panel.label_renamed) as renamed:
        qtbot.keyClick(editor, Qt.Key.Key_Return)
    assert renamed.args == [4, "Left kidney"]


def test_an_empty_name_is_not_taken(panel: TargetPanel, qtbot: QtBot) -> None:
    editor = start_editing(panel, qtbot, 0)
    editor.selectAll()
    qtbot.keyClicks(editor, "   ")
    with qtbot.assertNotEmitted(panel.label_renamed):
        qtbot.keyClick(editor, Qt.Key.Key_Return)
    assert texts(panel, NAME)[0] == "Liver"


def test_updating_does_not_disturb_a_name_that_is_typed(panel: TargetPanel, qtbot: QtBot) -> None:
    editor = start_editing(panel, qtbot, 1)
    qtbot.keyClicks(editor, "Left")
    grown = dataclasses.replace(SPLEEN, name="Renamed elsewhere", volume_ml=5.0)
    panel.set_labels((LIVER, NEW, grown), 1)
    assert editor.isVisible()
    assert editor.text() == "Left"
    assert texts(panel, VOLUME) == ["1432", NOTHING, "5.0"]
    qtbot.keyClicks(editor, " kidney")
    with qtbot.waitSignal(panel.label_renamed) as renamed:
        qtbot.keyClick(editor, Qt.Key.Key_Return)
    assert renamed.args == [4, "Left kidney"]


def test_what_had_to_wait_for_the_typing_is_shown_when_it_is_given_up(panel: TargetPanel, qtbot: QtBot) -> None:
    editor = start_editing(panel, qtbot, 1)
    panel.set_labels((LIVER, dataclasses.replace(SPLEEN, name="Renamed elsewhere")), 1)
    with qtbot.assertNotEmitted(panel.label_renamed):
        qtbot.keyClick(editor, Qt.Key.Key_Escape)
    assert texts(panel, NAME) == ["Liver", "Renamed elsewhere"]
    assert panel.table.selected() == 1


def test_a_double_click_on_the_colour_changes_it(
    panel: TargetPanel, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(panel.table, "ask_for_colour", lambda colour: asked.append(colour) or (0.0, 0.0, 1.0, 1.0))
    place = panel.table.visualItemRect(panel.table.item(1, COLOUR)).center()
    qtbot.mouseClick(panel.table.viewport(), Qt.MouseButton.LeftButton, pos=place)
    with qtbot.waitSignal(panel.label_recoloured) as recoloured:
        qtbot.mouseDClick(panel.table.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert recoloured.args == [4, (0.0, 0.0, 1.0, 1.0)]
    assert asked == [SPLEEN.colour]
    with qtbot.waitSignal(panel.label_recoloured):
        qtbot.keyClick(panel.table, Qt.Key.Key_C)


def test_buttons(panel: TargetPanel, qtbot: QtBot) -> None:
    with qtbot.waitSignals(
        [panel.label_added, panel.label_removed, panel.first_slice_clicked, panel.last_slice_clicked]
    ):
        for button in (panel.add_button, panel.remove_button, panel.first_button, panel.last_button):
            qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    with qtbot.waitSignal(panel.locate_toggled) as located:
        qtbot.mouseClick(panel.locate_button, Qt.MouseButton.LeftButton)
    assert located.args == [True]
    with qtbot.assertNotEmitted(panel.locate_toggled):
        panel.set_locating(False)
    assert not panel.locate_button.isChecked()


def test_the_range_is_shown_typed_and_cleared(panel: TargetPanel, qtbot: QtBot) -> None:
    assert (panel.first_box.value(), panel.last_box.value()) == (0, 119)
    assert not panel.whole_button.isEnabled()
    with qtbot.assertNotEmitted(panel.range_edited):
        panel.set_range((15, 104), 120)
    panel.first_box.setFocus()
    panel.first_box.selectAll()
    qtbot.keyClicks(panel.first_box, "20")
    panel.set_range((15, 104), 120)
    assert panel.first_box.text() == "20", "a number that is being typed is left alone"
    with qtbot.waitSignal(panel.range_edited) as edited:
        qtbot.keyClick(panel.first_box, Qt.Key.Key_Return)
    assert edited.args == [20, 104]
    with qtbot.waitSignal(panel.range_cleared):
        qtbot.mouseClick(panel.whole_button, Qt.MouseButton.LeftButton)


def test_an_edge_pushes_the_other_one(panel: TargetPanel, qtbot: QtBot) -> None:
    panel.set_range((15, 40), 120)
    with qtbot.waitSignal(panel.range_edited) as edited:
        panel.first_box.setValue(50)
    assert edited.args == [50, 50]


def test_with_several_labels_the_table_stays_on_screen(panel: TargetPanel) -> None:
    panel.set_state(StepState("done"))
    assert panel.is_open
    panel.set_labels((LIVER,), 1)
    panel.set_state(StepState("ready"))
    panel.set_state(StepState("done"))
    assert not panel.is_open
