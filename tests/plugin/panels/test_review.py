from __future__ import annotations

import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt

from napari_oneseg.plugin.panels.review import ReviewPanel
from napari_oneseg.plugin.view_model import ReviewState, SliceRow, StepState


@pytest.fixture
def panel(qtbot: QtBot) -> ReviewPanel:
    panel = ReviewPanel()
    qtbot.addWidget(panel)
    panel.resize(300, 500)
    panel.show()
    panel.set_state(StepState("ready"))
    return panel


def test_accepting_and_taking_back(panel: ReviewPanel, qtbot: QtBot) -> None:
    panel.set_review(ReviewState("Slice 17", accepted=False, n_accepted=3, n_labelled=9))
    assert panel.accepted_text.text() == "3 of 9 slices accepted"
    with qtbot.waitSignal(panel.accept_requested) as accepted:
        qtbot.mouseClick(panel.accept_button, Qt.MouseButton.LeftButton)
    assert accepted.args == [True]
    panel.set_review(ReviewState("Slice 17", accepted=True, n_accepted=4, n_labelled=9))
    assert "back" in panel.accept_button.text()
    with qtbot.waitSignal(panel.accept_requested) as accepted:
        qtbot.mouseClick(panel.accept_button, Qt.MouseButton.LeftButton)
    assert accepted.args == [False]


def test_undo_and_redo_say_what_they_take_back(panel: ReviewPanel, qtbot: QtBot) -> None:
    panel.set_review(ReviewState(undo="propagation of 2 labels"))
    assert panel.undo_button.toolTip() == "Undo: propagation of 2 labels"
    assert not panel.redo_button.isEnabled()
    with qtbot.waitSignal(panel.undo_requested):
        qtbot.mouseClick(panel.undo_button, Qt.MouseButton.LeftButton)
    panel.set_review(ReviewState(redo="propagation of 2 labels"))
    with qtbot.waitSignal(panel.redo_requested):
        qtbot.mouseClick(panel.redo_button, Qt.MouseButton.LeftButton)


def test_the_next_slice(panel: ReviewPanel, qtbot: QtBot) -> None:
    assert not panel.slices.isVisible()
    with qtbot.waitSignal(panel.next_requested):
        qtbot.mouseClick(panel.next_button, Qt.MouseButton.LeftButton)
    panel.set_review(ReviewState(next_to_paint=(SliceRow(24, "Slice 24", "3 %"),), hint="Little is left to gain."))
    assert panel.hint.isVisible()
    place = panel.slices.visualItemRect(panel.slices.item(0)).center()
    with qtbot.waitSignal(panel.next_slice_chosen) as chosen:
        qtbot.mouseClick(panel.slices.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert chosen.args == [24]


def test_confidence_and_why(panel: ReviewPanel, qtbot: QtBot) -> None:
    with qtbot.assertNotEmitted(panel.confidence_toggled), qtbot.assertNotEmitted(panel.why_toggled):
        panel.set_confidence_shown(True)
        panel.set_why(True, "From slice 60.")
    assert panel.why_text.isVisible()
    with qtbot.waitSignal(panel.confidence_toggled) as confidence, qtbot.waitSignal(panel.why_toggled) as why:
        qtbot.keyClick(panel.confidence_box, Qt.Key.Key_Space)
        qtbot.keyClick(panel.why_box, Qt.Key.Key_Space)
    assert confidence.args + why.args == [False, False]
    panel.set_why(False, "From slice 60.")
    assert not panel.why_text.isVisible()
