from __future__ import annotations

import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QBuffer, Qt
from qtpy.QtWidgets import QLineEdit

from napari_oneseg.plugin.panels.look import ActionButton
from napari_oneseg.plugin.panels.step import Step
from napari_oneseg.plugin.view_model import StepState


@pytest.fixture
def step(qtbot: QtBot) -> Step:
    step = Step(3, "Suggest")
    step.main_action = ActionButton("Go", "Goes.")
    step.rows.addWidget(step.main_action)
    qtbot.addWidget(step)
    step.resize(300, 200)
    step.show()
    return step


def test_a_step_that_is_off_is_folded_and_cannot_be_used(step: Step) -> None:
    step.set_state(StepState("off", "Open a scan first."))
    assert not step.is_open
    assert not step.body.isEnabled()
    assert step.header.accessibleName() == "Step 3, Suggest: not possible yet"
    assert "Open a scan first." in step.header.toolTip()


def test_a_step_unfolds_when_it_becomes_the_next_thing_to_do(step: Step, qtbot: QtBot) -> None:
    with qtbot.waitSignal(step.turned_ready):
        step.set_state(StepState("ready", "Slice 17 is worth painting."))
    assert step.is_open
    assert step.body.isEnabled()
    assert step.state_text.text() == "Slice 17 is worth painting."
    assert step.main_action is not None
    assert step.main_action.property("prominent") is True
    with qtbot.assertNotEmitted(step.turned_ready):
        step.set_state(StepState("ready", "Slice 18 is worth painting."))


def test_a_step_folds_when_it_is_done_and_its_text_moves_to_the_header(step: Step) -> None:
    step.set_state(StepState("ready"))
    step.set_state(StepState("done", "Slice 17"))
    assert not step.is_open
    assert not step.state_text.isVisible()
    assert step.main_action is not None
    assert step.main_action.property("prominent") is False
    step.set_open(True)
    assert step.state_text.isVisible()


def test_what_the_user_unfolded_stays_so_until_the_kind_changes(step: Step, qtbot: QtBot) -> None:
    step.set_state(StepState("done"))
    qtbot.mouseClick(step.header, Qt.MouseButton.LeftButton)
    step.set_state(StepState("done", "another text"))
    assert step.is_open


def test_a_step_does_not_fold_under_the_users_hands(step: Step, qtbot: QtBot) -> None:
    field = QLineEdit()
    step.rows.addWidget(field)
    step.set_state(StepState("ready"))
    step.activateWindow()
    field.setFocus()
    step.set_state(StepState("done"))
    assert step.is_open


@pytest.mark.parametrize("key", [Qt.Key.Key_Space, Qt.Key.Key_Return])
def test_the_keyboard_folds(step: Step, qtbot: QtBot, key: Qt.Key) -> None:
    qtbot.keyClick(step.header, key)
    assert step.is_open
    assert step.body.isVisible()
    qtbot.keyClick(step.header, key)
    assert not step.body.isVisible()


def test_while_busy_there_is_progress_and_a_way_to_stop_even_when_folded(step: Step, qtbot: QtBot) -> None:
    step.set_open(False)
    step.set_state(StepState("busy", "Slice 17", progress=0.25, can_cancel=True))
    assert step.progress.isVisible()
    assert step.state_text.isVisible()
    assert step.progress.value() / step.progress.maximum() == 0.25
    with qtbot.waitSignal(step.cancelled):
        qtbot.mouseClick(step.cancel_button, Qt.MouseButton.LeftButton)
    step.set_state(StepState("busy", "Loading"))
    assert step.progress.maximum() == 0, "an unknown share shows as a bar that runs"
    assert not step.cancel_button.isVisible()
    step.set_state(StepState("done"))
    assert not step.progress.isVisible()


def test_each_state_has_its_own_shape(step: Step) -> None:
    pictures = []
    for kind in ("off", "ready", "busy", "done", "attention", "optional"):
        step.set_state(StepState(kind))
        step.set_open(False)
        image = step.header.grab().toImage()
        buffer = QBuffer()
        image.convertToFormat(image.Format.Format_Grayscale8).save(buffer, "PNG")
        pictures.append(bytes(buffer.data()))
    assert len(set(pictures)) == 6, "told apart without colour"


def test_a_button_keeps_its_shortcut_in_the_tooltip_where_there_is_no_room(qtbot: QtBot) -> None:
    button = ActionButton("Next slice to check", "Go on.")
    qtbot.addWidget(button)
    button.show()
    button.resize(300, 30)
    button.set_shortcut("Shift+N")
    assert button.text() == "Next slice to check  (Shift+N)"
    button.resize(130, 30)
    assert button.text() == "Next slice to check"
    assert button.toolTip() == "Go on. (Shift+N)"
