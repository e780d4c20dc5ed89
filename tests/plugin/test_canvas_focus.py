"""After each command of the panel the canvas has the focus, the labels are selected, and the brush is on."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from napari import Viewer
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QAbstractSpinBox, QApplication, QComboBox, QLineEdit, QSlider, QSpinBox, QWidget

from napari_oneseg import scan_features
from napari_oneseg.plugin.panels.label_table import NAME
from tests.plugin.plugin_fixtures import STACK
from tests.plugin.test_widget import Desk


@pytest.fixture
def desk(
    make_napari_viewer: Callable[..., Viewer], qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Desk]:
    monkeypatch.setattr(scan_features, "compute_features", lambda *_: STACK)
    desk = Desk(make_napari_viewer(show=True), qtbot, tmp_path / "kept")
    desk.add_scan()
    desk.viewer.window.resize(1500, 950)
    desk.widget.window().activateWindow()
    for step in desk.widget.view.steps:
        step.set_open(True)
    desk.settle()
    yield desk
    desk.widget.shut_down()


def native(desk: Desk) -> QWidget:
    return desk.viewer.window._qt_viewer.canvas.native


def click(desk: Desk, control: QWidget, at: QPoint | None = None) -> None:
    """Click with the mouse, where the control is on screen."""
    desk.widget.view.area.ensureWidgetVisible(control)
    QTest.mouseClick(control, Qt.MouseButton.LeftButton, pos=at or QPoint())
    desk.settle()


def is_ready_to_paint(desk: Desk, mode: str = "paint") -> bool:
    assert QApplication.focusWidget() is native(desk)
    assert desk.viewer.layers.selection.active is desk.layer
    return str(desk.layer.mode) == mode


COMMANDS = {
    "add label": lambda view: view.target.add_button,
    "first slice": lambda view: view.target.first_button,
    "go to suggestion": lambda view: view.suggest.suggest_button,
    "paint": lambda view: view.paint.paint_button,
    "propagate": lambda view: view.propagate.propagate_button,
    "next": lambda view: view.review.next_button,
    "accept": lambda view: view.review.accept_button,
    "undo": lambda view: view.review.undo_button,
    "show doubt": lambda view: view.review.confidence_box,
    "live": lambda view: view.propagate.live_box,
    "strip": lambda view: view.strip.plot.viewport(),
    "suggestions": lambda view: view.suggest.slices.viewport(),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_after_a_click_painting_goes_on(desk: Desk, command: str) -> None:
    desk.paint(4)
    desk.widget.propagate()
    desk.settle()
    desk.viewer.layers.selection.active = desk.viewer.layers["scan"]
    desk.layer.mode = "pan_zoom"
    click(desk, COMMANDS[command](desk.widget.view))
    assert is_ready_to_paint(desk)


@pytest.mark.parametrize(("tool", "mode"), [("eraser", "erase"), ("fill", "fill"), ("brush", "paint")])
def test_arrow_keys_after_choosing_a_tool_change_slices(desk: Desk, tool: str, mode: str) -> None:
    desk.widget.link.go_to(4)
    click(desk, desk.widget.view.paint.tools[tool])
    assert is_ready_to_paint(desk, mode)
    desk.qtbot.keyClick(QApplication.focusWidget(), Qt.Key.Key_Right)
    desk.settle()
    assert desk.widget.controller.current == 5
    assert is_ready_to_paint(desk, mode), "the tool that was chosen stays in hand"


def test_choosing_in_a_list_hands_the_canvas_the_focus(desk: Desk) -> None:
    box = desk.widget.view.propagate.directions
    box.setFocus()
    box.setCurrentIndex(1)
    box.activated.emit(1)
    assert is_ready_to_paint(desk)
    assert desk.widget.controller.propagator.direction == "up"


def test_choosing_a_label_goes_on_with_the_brush(desk: Desk) -> None:
    desk.paint(4)
    desk.widget.controller.book.add()
    desk.settle()
    table = desk.widget.view.target.table
    click(desk, table.viewport(), table.visualItemRect(table.item(0, NAME)).center())
    assert desk.layer.selected_label == 1
    assert is_ready_to_paint(desk)


def press_on_canvas(desk: Desk) -> None:
    canvas = native(desk)
    desk.qtbot.wait(20)
    QTest.mousePress(canvas, Qt.MouseButton.LeftButton, pos=canvas.rect().center())
    QTest.mouseRelease(canvas, Qt.MouseButton.LeftButton, pos=canvas.rect().center())
    desk.settle()


def test_the_click_in_the_organ_does_not_paint_and_the_brush_is_back_after_it(desk: Desk) -> None:
    desk.layer.mode = "fill"
    click(desk, desk.widget.view.target.locate_button)
    assert is_ready_to_paint(desk, "pan_zoom")
    press_on_canvas(desk)
    assert desk.shown == []
    assert not desk.widget.inspector.locating
    assert desk.widget.controller.target.range is not None
    assert is_ready_to_paint(desk, "fill")


def test_the_click_in_the_organ_does_not_paint_where_the_scan_was_selected(desk: Desk) -> None:
    desk.viewer.layers.selection.active = desk.viewer.layers["scan"]
    click(desk, desk.widget.view.target.locate_button)
    press_on_canvas(desk)
    assert desk.shown == []


def test_show_why_rests_the_brush_until_it_is_off(desk: Desk) -> None:
    desk.paint(4)
    desk.widget.propagate()
    desk.settle()
    why = desk.widget.view.review.why_box
    click(desk, why)
    assert why.isChecked()
    assert is_ready_to_paint(desk, "pan_zoom")
    click(desk, desk.widget.view.review.next_button)
    assert is_ready_to_paint(desk, "pan_zoom"), "who asks why goes on asking on the next slice"
    click(desk, why)
    assert is_ready_to_paint(desk)


def test_who_takes_a_tool_asks_no_more(desk: Desk) -> None:
    desk.widget.inspector.set_explaining(True)
    click(desk, desk.widget.view.paint.tools["eraser"])
    assert not desk.widget.inspector.explaining
    assert is_ready_to_paint(desk, "erase")
    desk.widget.inspector.set_locating(True)
    desk.layer.mode = "paint"  # as napari's own button does
    assert not desk.widget.inspector.locating


def type_keys(desk: Desk, text: str) -> None:
    for key in text:
        desk.qtbot.keyClicks(QApplication.focusWidget(), key)
        desk.qtbot.wait(5)


def test_typing_a_name_is_no_shortcut(desk: Desk) -> None:
    table = desk.widget.view.target.table
    name = table.visualItemRect(table.item(0, NAME)).center()
    click(desk, table.viewport(), name)
    desk.qtbot.mouseDClick(table.viewport(), Qt.MouseButton.LeftButton, pos=name)
    assert isinstance(QApplication.focusWidget(), QLineEdit)
    type_keys(desk, "Me1l2m3")
    desk.qtbot.keyClick(QApplication.focusWidget(), Qt.Key.Key_Return)
    desk.settle()
    assert desk.widget.controller.book.style(1).name == "Me1l2m3"
    assert is_ready_to_paint(desk)
    assert desk.widget.controller.book.values == [1]


def test_keys_that_mean_nothing_to_the_panel_do_not_reach_the_viewer(desk: Desk) -> None:
    desk.widget.view.target.table.setFocus()
    type_keys(desk, "1m2m31")
    assert str(desk.layer.mode) == "paint"
    assert desk.layer.selected_label == 1
    assert desk.widget.controller.book.values == [1]


def test_the_keyboard_stays_where_it_is(desk: Desk) -> None:
    button = desk.widget.view.paint.tools["eraser"]
    button.setFocus()
    desk.qtbot.keyClick(button, Qt.Key.Key_Space)
    assert QApplication.focusWidget() is button
    assert str(desk.layer.mode) == "erase"


def test_enter_ends_what_is_typed(desk: Desk) -> None:
    box = desk.widget.view.target.first_box
    desk.widget.view.area.ensureWidgetVisible(box)
    desk.qtbot.mouseClick(box.lineEdit(), Qt.MouseButton.LeftButton)
    box.selectAll()
    type_keys(desk, "3")
    desk.qtbot.keyClick(box, Qt.Key.Key_Return)
    desk.settle()
    assert desk.widget.controller.target.range == (3, 9)
    assert is_ready_to_paint(desk)


def turn_wheel(widget: QWidget, down: bool = True) -> None:
    """Turn the wheel over a widget, as the window system tells it."""
    at = widget.mapToGlobal(widget.rect().center())
    button = "5" if down else "4"
    subprocess.run(["xdotool", "mousemove", str(at.x()), str(at.y()), "click", button], check=True)


needs_xdotool = pytest.mark.skipif(shutil.which("xdotool") is None, reason="xdotool turns the wheel")


@needs_xdotool
def test_no_control_follows_the_wheel_that_passes_over_it(desk: Desk) -> None:
    view = desk.widget.view
    view.propagate.advanced.set_open(True)
    late = QSpinBox()
    late.setRange(0, 100)
    view.target.rows.addWidget(late)
    late.setValue(50)
    desk.settle()
    bar = view.area.verticalScrollBar()
    column = view.area.widget()
    controls = [one for kind in (QAbstractSpinBox, QComboBox, QSlider) for one in column.findChildren(kind)]
    controls = [one for one in controls if one.isVisible() and one.isEnabled()]
    assert len(controls) > 10
    assert late in controls
    for control in controls:
        view.area.ensureWidgetVisible(control)
        desk.qtbot.wait(20)
        before = _value(control), bar.value()
        down = bar.value() < bar.maximum()
        turn_wheel(control, down)
        desk.qtbot.waitUntil(lambda at=before[1]: bar.value() != at, timeout=2000)
        assert _value(control) == before[0], control.accessibleName()
        assert not control.hasFocus()


@needs_xdotool
def test_a_control_that_was_clicked_follows_the_wheel(desk: Desk) -> None:
    box = desk.widget.view.target.last_box
    desk.widget.view.area.ensureWidgetVisible(box)
    desk.qtbot.mouseClick(box.lineEdit(), Qt.MouseButton.LeftButton)
    turn_wheel(box)
    desk.qtbot.waitUntil(lambda: box.value() == 8, timeout=2000)


def _value(control: QWidget) -> object:
    if isinstance(control, QComboBox):
        return control.currentIndex()
    return control.value() if hasattr(control, "value") else control.text()
