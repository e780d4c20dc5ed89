from __future__ import annotations

import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QAbstractButton, QAbstractSpinBox, QApplication, QComboBox, QLabel, QSlider, QWidget

from napari_oneseg.plugin.panels.header import StepHeader
from napari_oneseg.plugin.panels.step import Step
from napari_oneseg.plugin.panels.view import LEAST_WIDTH, OneSegView
from napari_oneseg.plugin.view_model import Choice, LabelRow, ReviewState, SliceRow, StepState

LONG = "A rather long name that somebody gave to a scan, and then some"


@pytest.fixture
def view(qtbot: QtBot) -> OneSegView:
    view = OneSegView()
    qtbot.addWidget(view)
    view.resize(LEAST_WIDTH, 640)
    with qtbot.waitExposed(view):
        view.show()
    view.activateWindow()
    return view


def fill(view: OneSegView) -> None:
    """Every panel unfolded, with long texts."""
    choices = (Choice(0, LONG), Choice(1, "B"))
    view.scan.set_scans(choices, 0)
    view.scan.set_axes(choices, 0)
    view.scan.set_devices(choices, 0, LONG)
    view.target.set_labels([LabelRow(1, LONG, (1, 0, 0, 1), 12345.6, (100, 599))], 1)
    view.target.set_range((100, 599), 600)
    view.suggest.set_suggestions([SliceRow(1, "Slice 1", LONG * 3)], 1)
    view.paint.set_layers(choices, 0)
    view.paint.set_painted(range(100, 200, 7))
    view.propagate.advanced.set_open(True)
    view.review.set_review(ReviewState(LONG, False, 3, 9, (SliceRow(1, "Slice 1", LONG),), LONG, LONG, LONG))
    view.review.set_why(True, LONG)
    view.export.set_summary(LONG * 2)
    view.adapt.set_losses([(1, 1.0), (2, 0.5)])
    view.adapt.set_agreement(0.5, 0.6)
    view.adapt.set_adapted(True)
    view.notify(LONG * 2, "error")
    for step in view.steps:
        step.set_state(StepState("ready", LONG))
        step.set_open(True)


def test_the_steps_stand_in_order(view: OneSegView) -> None:
    order = [
        view.scan, view.target, view.suggest, view.paint, view.propagate, view.review, view.export, view.adapt,
    ]  # fmt: skip
    tops = [step.mapTo(view, QPoint(0, 0)).y() for step in order]
    assert tops == sorted(tops)
    assert view.strip.y() < tops[0]
    for number, step in enumerate(order, start=1):
        assert step.header.accessibleName().startswith(f"Step {number}, ")


def test_nothing_is_wider_than_the_narrowest_dock(view: OneSegView, qtbot: QtBot) -> None:
    fill(view)
    qtbot.wait(50)
    assert view.minimumSizeHint().width() <= LEAST_WIDTH
    assert view.width() == LEAST_WIDTH
    column = view.area.widget()
    assert column.width() <= view.area.viewport().width()
    assert column.minimumSizeHint().width() <= view.area.viewport().width()


def test_no_text_is_squeezed(view: OneSegView, qtbot: QtBot) -> None:
    fill(view)
    qtbot.wait(50)
    for step in view.steps:
        assert step.height() >= step.heightForWidth(step.width())
    for label in view.findChildren(QLabel):
        if label.isVisible() and label.wordWrap():
            assert label.height() >= label.heightForWidth(label.width()), label.text()


def test_each_control_has_a_tooltip_and_a_name(view: OneSegView) -> None:
    kinds = (QAbstractButton, QComboBox, QAbstractSpinBox, QSlider)
    controls = [
        control
        for kind in kinds
        for control in view.findChildren(kind)
        # Parts that Qt or pyqtgraph put inside their own controls.
        if not control.objectName().startswith("qt_") and view.strip.plot not in parents(control)
    ]
    assert len(controls) > 40
    assert [control for control in controls if not control.toolTip() and not nameless_part(control)] == []


def parents(widget: QWidget) -> list[QWidget]:
    found = []
    while (widget := widget.parentWidget()) is not None:
        found.append(widget)
    return found


def nameless_part(control: QWidget) -> bool:
    """The corner of a table, which Qt makes and hides."""
    return type(control.parentWidget()).__name__ == "LabelTable" or "pyqtgraph" in type(control).__module__


def test_a_message_stays_until_it_is_dismissed_or_replaced(view: OneSegView, qtbot: QtBot) -> None:
    assert not view.messages.isVisible()
    view.notify("The folder is read-only.", "error")
    assert view.messages.isVisible()
    assert view.messages.text.textInteractionFlags() & Qt.TextInteractionFlag.TextSelectableByMouse
    view.notify("<b>as it is</b>", "info")
    assert view.messages.text.text() == "<b>as it is</b>"
    assert view.messages.text.textFormat() == Qt.TextFormat.PlainText
    qtbot.mouseClick(view.messages.dismiss_button, Qt.MouseButton.LeftButton)
    assert not view.messages.isVisible()


def test_shortcuts_are_shown_on_their_buttons(view: OneSegView) -> None:
    view.resize(500, 640)
    for step in view.steps:
        step.set_open(True)
    QApplication.processEvents()
    view.set_shortcuts({"propagate": "Shift+P", "next": "Shift+N", "accept": "Shift+A", "suggest": "Shift+S"})
    buttons = {
        "P": view.propagate.propagate_button,
        "N": view.review.next_button,
        "A": view.review.accept_button,
        "S": view.suggest.suggest_button,
    }
    for key, button in buttons.items():
        assert button.text().endswith(f"(Shift+{key})")
    view.set_shortcuts({})
    assert view.review.next_button.text() == "Next slice to check"


def test_one_main_button_stands_out(view: OneSegView) -> None:
    def standing_out() -> list[Step]:
        return [step for step in view.steps if step.main_action and step.main_action.property("prominent")]

    view.scan.set_state(StepState("ready"))
    assert standing_out() == [view.scan]
    view.scan.set_state(StepState("done"))
    view.propagate.set_state(StepState("ready"))
    view.export.set_state(StepState("ready"))
    assert standing_out() == [view.propagate]
    view.review.set_state(StepState("ready"))
    assert standing_out() == [view.review]
    view.propagate.set_state(StepState("done"))
    view.propagate.set_state(StepState("attention"))
    assert standing_out() == [view.propagate], "what is out of date comes before checking"
    view.propagate.set_state(StepState("done"))
    view.review.set_state(StepState("done"))
    assert standing_out() == [view.export]


def on_screen(view: OneSegView, step: Step) -> bool:
    top = step.mapTo(view.area, QPoint(0, 0)).y()
    return top >= 0 and top + min(step.height(), view.area.height()) <= view.area.height() + 1


def test_the_step_that_became_ready_is_scrolled_to(view: OneSegView, qtbot: QtBot) -> None:
    fill(view)
    qtbot.wait(100)
    view.review.set_state(StepState("off"))
    view.area.verticalScrollBar().setValue(0)
    view.review.set_state(StepState("ready"))
    qtbot.waitUntil(lambda: on_screen(view, view.review), timeout=1000)


def test_nothing_scrolls_away_from_a_field_that_is_being_edited(view: OneSegView, qtbot: QtBot) -> None:
    fill(view)
    view.review.set_state(StepState("off"))
    qtbot.wait(30)
    view.target.first_box.setFocus()
    view.area.verticalScrollBar().setValue(120)
    view.review.set_state(StepState("ready"))
    qtbot.wait(100)
    assert view.area.verticalScrollBar().value() == 120


def test_the_wheel_is_left_to_the_panel_unless_a_control_has_the_focus(view: OneSegView, qtbot: QtBot) -> None:
    fill(view)
    qtbot.wait(30)
    view.strip.setFocus()
    box = view.target.last_box
    middle = box.rect().center()

    def turn() -> bool:
        wheel = QWheelEvent(
            QPointF(middle), QPointF(box.mapToGlobal(middle)), QPoint(), QPoint(0, -120), Qt.MouseButton.NoButton,
            Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False,
        )  # fmt: skip
        QApplication.sendEvent(box, wheel)
        return wheel.isAccepted()

    assert not turn()
    assert box.value() == 599
    box.setFocus()
    assert turn()
    assert box.value() == 598


def test_tab_walks_from_top_to_bottom(view: OneSegView, qtbot: QtBot) -> None:
    fill(view)
    qtbot.wait(30)
    view.strip.setFocus()
    seen: list[QWidget] = []
    while len(seen) < 100:
        focus = QApplication.focusWidget()
        if focus in seen:
            break
        seen.append(focus)
        qtbot.keyClick(focus, Qt.Key.Key_Tab)
    headers = [widget for widget in seen if isinstance(widget, StepHeader)]
    assert headers == [step.header for step in view.steps]
    tops = [widget.mapTo(view, QPoint(0, 0)).y() for widget in headers]
    assert tops == sorted(tops)
    for action in (
        view.scan.file_button,
        view.suggest.suggest_button,
        view.review.next_button,
        view.export.export_button,
    ):
        assert action in seen
