"""What the panel says agrees with itself and with what holds, and ends when it is over."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from napari import Viewer
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QEnterEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QDialog

from napari_oneseg import scan_features
from napari_oneseg.plugin import presenting
from napari_oneseg.plugin.panels.step import Step
from napari_oneseg.plugin.widget import OneSegWidget
from tests.plugin.plugin_fixtures import COUNT, STACK, WEIGHTS
from tests.plugin.test_widget import Desk


@pytest.fixture
def desk(
    make_napari_viewer: Callable[..., Viewer], qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Desk]:
    monkeypatch.setattr(scan_features, "compute_features", lambda *_: STACK)
    desk = Desk(make_napari_viewer(), qtbot, tmp_path / "kept")
    desk.add_scan()
    yield desk
    desk.widget.shut_down()


def begin_anew(desk: Desk) -> None:
    """Close the dock and the scan, as at the end of a day, and open both again."""
    desk.widget.shut_down()
    desk.viewer.window.remove_dock_widget(desk.widget)
    desk.viewer.layers.clear()
    desk.widget = OneSegWidget(desk.viewer, desk.folder)
    desk.widget.controller.weights = WEIGHTS
    desk.viewer.window.add_dock_widget(desk.widget, name="OneSeg")
    desk.add_scan()


def blue(desk: Desk) -> list[Step]:
    return [step for step in desk.widget.view.steps if step.main_action and step.main_action.property("prominent")]


def said(desk: Desk) -> str:
    bar = desk.widget.view.messages
    return "" if bar.isHidden() else str(bar.text.text())


# What is kept and found again


@pytest.mark.parametrize("stale", [True, False])
def test_resume_brings_back_how_it_was_propagated_and_asks_for_what_comes_first(desk: Desk, stale: bool) -> None:
    desk.paint(4)
    desk.widget.propagate()
    desk.settle()
    if stale:
        desk.paint(6, centre=(10, 26), size=4)
    view = desk.widget.view
    view.propagate.direction_chosen.emit("up")
    view.propagate.scope_chosen.emit("selected")
    desk.widget.controller.propagator.only_selected = True
    desk.widget.controller.propagator.live = True  # without beginning at once
    desk.widget.controller.worked.emit()
    desk.settle()
    begin_anew(desk)
    assert not desk.widget.controller.propagator.live
    desk.widget.asking.yes_button.click()
    desk.settle()
    view, propagator = desk.widget.view, desk.widget.controller.propagator
    assert (propagator.live, propagator.direction, propagator.only_selected) == (True, "up", True)
    assert view.propagate.live_box.isChecked()
    assert blue(desk) == [view.propagate if stale else view.review]


def test_a_choice_of_how_to_propagate_is_kept_by_itself(desk: Desk) -> None:
    desk.paint(4)
    desk.settle()
    desk.widget.view.propagate.live_toggled.emit(True)
    desk.settle()
    begin_anew(desk)
    desk.widget.asking.yes_button.click()
    desk.settle()
    assert desk.widget.controller.propagator.live


def test_undo_brings_a_removed_label_back_with_its_name_and_colour(desk: Desk) -> None:
    book, view = desk.widget.controller.book, desk.widget.view
    desk.paint(4, label=2)
    book.select(2)
    book.restyle(2, "Liver", (0.5, 0.25, 0.0, 1.0))
    view.target.label_removed.emit(2)
    desk.settle()
    assert book.values == [1]
    assert book.to_dict()["labels"] == {}
    book.add()
    assert 2 not in book.values, "its number may come back"
    desk.widget.undo()
    desk.settle()
    assert book.style(2).name == "Liver"
    assert book.to_dict()["labels"]["2"]["name"] == "Liver"
    assert tuple(desk.layer.get_color(2)) == pytest.approx((0.5, 0.25, 0.0, 1.0))
    desk.widget.redo()
    desk.settle()
    assert 2 not in book.values
    desk.widget.undo()
    book.restyle(2, "Left liver")
    desk.widget.redo()
    desk.widget.undo()
    assert book.style(2).name == "Left liver"


# Numbers


def test_counts_of_slices_do_not_contradict_each_other(desk: Desk) -> None:
    desk.paint(4)
    desk.widget.propagate()
    desk.settle()
    controller = desk.widget.controller
    table = controller.table
    assert table is not None
    # As at the end of an organ: a label might be there, and none was set.
    for pixels in table._pixels.values():
        pixels[[0, 1, 9]] = 0
    steps = presenting.steps(controller)
    assert steps["propagate"].text == f"{COUNT - 3} slices labelled"
    assert steps["review"].text == f"{COUNT - 1} slices to check, 3 of them empty"
    assert presenting.slice_text(controller, 1).startswith("Slice 1: left empty, confidence")
    assert presenting.slice_text(controller, 2).startswith("Slice 2: propagated, confidence")


def test_a_slice_that_was_just_painted_is_not_called_out_of_date(desk: Desk) -> None:
    desk.paint(4)
    desk.widget.propagate()
    desk.settle()
    desk.paint(4, centre=(8, 20))
    controller = desk.widget.controller
    assert controller.state is not None
    assert 4 in controller.state.stale
    strip = presenting.strip(controller)
    assert strip is not None
    assert 4 not in strip.stale
    assert "out of date" not in presenting.slice_text(controller, 4)
    assert "out of date" in presenting.slice_text(controller, 5)
    assert presenting.steps(controller)["propagate"].text == f"{len(strip.stale)} slices out of date"


@pytest.mark.parametrize("chosen", [(2, 6), None])
def test_the_record_says_what_was_done(desk: Desk, tmp_path: Path, chosen: tuple[int, int] | None) -> None:
    desk.widget.controller.target.set_range(chosen)
    desk.settle()
    desk.paint(4)
    desk.widget.propagate()
    desk.settle()
    desk.widget.link.go_to(5)
    desk.widget.accept_slice()
    desk.widget.export(tmp_path / "out.nii.gz")
    desk.settle()
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["parameters"]["range"] == list(chosen or (0, COUNT - 1))
    assert record["painted"] == [4]
    assert record["accepted"] == [5]


def test_the_record_s_range_is_what_was_labelled_though_another_one_was_set_afterwards(
    desk: Desk, tmp_path: Path
) -> None:
    desk.paint(4)
    desk.widget.propagate()
    desk.settle()
    desk.widget.controller.target.set_range((3, 5))
    desk.settle()
    desk.widget.export(tmp_path / "out.nii.gz")
    desk.settle()
    assert json.loads((tmp_path / "out.json").read_text())["parameters"]["range"] == [0, COUNT - 1]


# The window


def test_the_box_names_the_window_in_use(desk: Desk) -> None:
    box = desk.widget.view.scan.windows
    desk.qtbot.waitUntil(lambda: box.currentText() == "Auto")
    desk.widget.view.scan.window_chosen.emit("Full range")
    desk.qtbot.waitUntil(lambda: box.currentText() == "Full range")
    layer = desk.viewer.layers["scan"]
    layer.contrast_limits = (350, 360)
    desk.qtbot.waitUntil(lambda: box.currentIndex() == -1)
    assert box.placeholderText() == "Set by hand"
    window = desk.widget.controller.opened_scan.windows[0]
    layer.contrast_limits = (window.low, window.high)
    desk.qtbot.waitUntil(lambda: box.currentText() == "Auto")


def test_the_planes_say_where_they_begin(desk: Desk) -> None:
    box = desk.widget.view.scan.axes
    assert [box.itemText(row) for row in range(3)] == [
        "Axial (F → H)",
        "Coronal (A → P)",
        "Sagittal (R → L)",
    ]
    scan = desk.widget.controller.scan
    assert scan is not None
    # Columns of the shown scan's axes: to the head, to the back, to the patient's left.
    assert (scan.shown.direction.T.round() == [[0, 0, 1], [0, 1, 0], [1, 0, 0]]).all()


# Messages


def test_a_message_ends_when_what_it_speaks_of_is_over(desk: Desk) -> None:
    desk.widget.view.target.locate_button.click()
    assert "middle of the organ" in said(desk)
    desk.widget.link.clicked.emit(4, 16, 20)
    desk.settle()
    assert "correct that" in said(desk)
    desk.paint(4)
    assert said(desk) == ""


def test_a_message_ends_with_the_next_click_in_the_panel(desk: Desk) -> None:
    view = desk.widget.view
    desk.widget.controller.said.emit("There is no slice left to check.", "info")
    QTest.mousePress(view.messages.text, Qt.MouseButton.LeftButton)
    QTest.mouseRelease(view.messages.text, Qt.MouseButton.LeftButton)
    assert said(desk), "it may be marked and copied"
    QTest.mouseClick(view.target.header, Qt.MouseButton.LeftButton)
    assert said(desk) == ""
    desk.widget.controller.said.emit("The folder is read-only.", "error")
    QTest.mouseClick(view.target.header, Qt.MouseButton.LeftButton)
    desk.paint(4)
    assert said(desk) == "The folder is read-only."


# Under the mouse


def test_messages_and_offers_move_nothing(desk: Desk) -> None:
    desk.paint(4)
    desk.settle()
    begin_anew(desk)
    view = desk.widget.view
    assert not desk.widget.asking.isHidden()
    with_offer = [step.mapTo(view, QPoint(0, 0)).y() for step in view.steps], view.area.height()
    desk.widget.asking.hide()
    desk.qtbot.wait(50)
    assert ([step.mapTo(view, QPoint(0, 0)).y() for step in view.steps], view.area.height()) == with_offer
    view.notify("A message. " * 20, "warning")
    desk.qtbot.wait(50)
    assert ([step.mapTo(view, QPoint(0, 0)).y() for step in view.steps], view.area.height()) == with_offer
    assert view.notices.geometry().bottom() == view.rect().bottom()
    assert view.messages.text.height() >= view.messages.text.heightForWidth(view.messages.text.width())
    view.notify("")
    desk.qtbot.wait(50)
    assert view.notices.isHidden()


def test_nothing_moves_between_press_and_release(desk: Desk) -> None:
    desk.paint(4)
    desk.settle()
    view = desk.widget.view
    header = view.adapt.header
    view.area.ensureWidgetVisible(header)
    desk.qtbot.wait(80)
    before = header.mapTo(view, QPoint(0, 0))
    QTest.mousePress(header, Qt.MouseButton.LeftButton, pos=header.rect().center())
    desk.widget.propagate()  # as a key does, or a stroke in live mode: steps fold and unfold
    desk.settle()
    assert header.mapTo(view, QPoint(0, 0)) == before
    QTest.mouseRelease(header, Qt.MouseButton.LeftButton, pos=header.rect().center())
    assert view.adapt.is_open, "the click opens what was pressed"
    desk.qtbot.waitUntil(lambda: view.review.is_open, timeout=2000)


def test_a_release_that_went_elsewhere_does_not_hold_the_panel_for_good(desk: Desk) -> None:
    view = desk.widget.view
    QTest.mousePress(view.adapt.header, Qt.MouseButton.LeftButton)
    assert view.is_held
    at = QPointF(5, 5)
    QApplication.sendEvent(view.target.header, QEnterEvent(at, at, at))
    assert not view.is_held


# The end


class ConfirmCloseDialog(QDialog):
    """napari's own question, by its name."""


class Spontaneous(QEvent):
    """What the window system sends when the window's button is pressed."""

    def __init__(self) -> None:
        super().__init__(QEvent.Type.Close)

    def spontaneous(self) -> bool:
        """As the window system's events are."""
        return True


def test_who_has_answered_napari_is_not_asked_again(desk: Desk) -> None:
    asked: list[str] = []
    desk.widget.asking.may_close = lambda: asked.append("ours") or False  # type: ignore[func-returns-value, method-assign]
    desk.paint(4)
    window = desk.widget.window()
    window.installEventFilter(desk.widget)  # as it does once it is shown
    for answer in ("accept", "reject"):
        dialog = ConfirmCloseDialog(window)
        dialog.show()
        getattr(dialog, answer)()
        refused = desk.widget.eventFilter(window, QEvent(QEvent.Type.Close))
        assert refused == (answer == "reject"), "ours asks only where napari has not been answered with yes"
        dialog.deleteLater()
    assert asked == ["ours"]


def test_who_presses_the_window_s_button_is_asked_by_us_alone(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    closed: list[bool] = []
    desk.widget.asking.may_close = lambda: asked.append("ours") or True  # type: ignore[func-returns-value, method-assign]
    desk.paint(4)
    window = desk.widget.window()
    # Within the test only: a window that is not closed in the end would be a leak.
    with monkeypatch.context() as patch:
        patch.setattr(window, "close", lambda: closed.append(True))
        assert desk.widget.closing.refuses(window, Spontaneous()), "napari would ask once more"
        desk.qtbot.waitUntil(lambda: closed == [True])
    assert not desk.widget.closing.refuses(window, QEvent(QEvent.Type.Close))
    assert asked == ["ours"]
