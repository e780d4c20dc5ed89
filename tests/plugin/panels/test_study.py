from __future__ import annotations

from dataclasses import replace

import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractButton, QApplication, QLabel

from napari_oneseg.plugin.panels.study import StudyPanel
from napari_oneseg.plugin.panels.study_list import MINUTES, NAME, STATUS
from napari_oneseg.plugin.view_model import StudyRow, StudyState

ROWS = (
    StudyRow("a", "done", "3", "4.2", "a: done", finished=True),
    StudyRow("b", "in progress", "1", "0.5"),
    StudyRow("a rather long name that somebody gave to a scan", "failed", tip="It is damaged.", finished=True),
    StudyRow("d", "open"),
)
STATE = StudyState("Trial", "2 of 4 finished", ROWS, "b", "b: in progress", notes="unclear", can_finish=True)


@pytest.fixture
def panel(qtbot: QtBot) -> StudyPanel:
    panel = StudyPanel()
    qtbot.addWidget(panel)
    panel.resize(284, 500)
    panel.set_study(STATE)
    with qtbot.waitExposed(panel):
        panel.show()
    panel.activateWindow()
    panel.header.click()  # it is folded while a scan is worked on
    return panel


def text(panel: StudyPanel, row: int, column: int) -> str:
    return str(panel.list.model().index(row, column).data())


def test_without_a_study_there_is_nothing(panel: StudyPanel) -> None:
    panel.set_study(None)
    assert not panel.isVisible()


def test_the_list_tells_how_far_each_scan_is(panel: StudyPanel) -> None:
    assert [text(panel, 0, column) for column in range(4)] == ["a", "✓ done", "3", "4.2"]
    assert [text(panel, 3, column) for column in range(4)] == ["d", "○ open", "", ""]
    index = panel.list.model().index(2, NAME)
    assert index.data(Qt.ItemDataRole.ToolTipRole) == "It is damaged."
    assert panel.list.model().index(1, NAME).data(Qt.ItemDataRole.FontRole).bold()
    assert panel.list.model().index(0, NAME).data(Qt.ItemDataRole.FontRole) is None
    assert panel.list.currentIndex().row() == 1
    tip = panel.list.model().headerData(MINUTES, Qt.Orientation.Horizontal, Qt.ItemDataRole.ToolTipRole)
    assert "Pauses" in tip


def test_the_selection_stays_where_the_user_has_put_it_until_another_scan_is_at_hand(panel: StudyPanel) -> None:
    panel.list.setCurrentIndex(panel.list.model().index(3, NAME))
    panel.set_study(replace(STATE, rows=(replace(ROWS[0], minutes="4.3"), *ROWS[1:])))
    assert text(panel, 0, MINUTES) == "4.3"
    assert panel.list.currentIndex().row() == 3
    panel.set_study(replace(STATE, here="a"))
    assert panel.list.currentIndex().row() == 0


def test_a_scan_is_opened_by_keyboard_and_mouse(panel: StudyPanel, qtbot: QtBot) -> None:
    panel.list.setFocus()
    with qtbot.assertNotEmitted(panel.scan_chosen):
        qtbot.keyClick(panel.list, Qt.Key.Key_Up)
    with qtbot.waitSignal(panel.scan_chosen) as chosen:
        qtbot.keyClick(panel.list, Qt.Key.Key_Return)
    assert chosen.args == ["a"]
    place = panel.list.visualRect(panel.list.model().index(3, STATUS)).center()
    qtbot.mouseClick(panel.list.viewport(), Qt.MouseButton.LeftButton, pos=place)
    with qtbot.waitSignal(panel.scan_chosen) as chosen:
        qtbot.mouseDClick(panel.list.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert chosen.args == ["d"]


@pytest.mark.parametrize("name", ["previous", "done", "next", "skip", "summary", "close"])
def test_each_button_asks_for_its_own(panel: StudyPanel, qtbot: QtBot, name: str) -> None:
    with qtbot.waitSignal(getattr(panel, f"{name}_requested")):
        qtbot.mouseClick(getattr(panel, f"{name}_button"), Qt.MouseButton.LeftButton)


def test_what_cannot_be_done_is_off(panel: StudyPanel) -> None:
    panel.set_study(replace(STATE, can_finish=False, problem="It is damaged."))
    assert not panel.done_button.isEnabled()
    assert panel.next_button.isEnabled()
    assert panel.problem.text() == "It is damaged."
    assert panel.problem.isVisible()
    panel.set_study(replace(STATE, is_busy=True, can_finish=False))
    assert [button.isEnabled() for button in (panel.previous_button, panel.next_button, panel.skip_button)] == [
        False
    ] * 3
    panel.set_study(replace(STATE, here=None, can_finish=False))
    assert panel.next_button.isEnabled(), "it opens the first one that is left"
    assert not panel.notes.isEnabled()


def test_folded_the_way_through_the_study_stays(panel: StudyPanel, qtbot: QtBot) -> None:
    assert panel.list.isVisible()
    qtbot.keyClick(panel.header, Qt.Key.Key_Return)
    assert not panel.list.isVisible()
    assert not panel.notes.isVisible()
    assert panel.next_button.isVisible()
    assert panel.done_button.isVisible()


def test_it_unfolds_where_there_is_no_scan_to_work_on_and_obeys_the_user(qtbot: QtBot) -> None:
    panel = StudyPanel()
    qtbot.addWidget(panel)
    folded = []
    for state in (replace(STATE, can_finish=False, is_busy=True), STATE, replace(STATE, can_finish=False), STATE):
        panel.set_study(state)
        folded.append(panel.body.isHidden())
    assert folded == [True, True, False, True]
    panel.header.click()
    panel.set_study(replace(STATE, here="a"))
    assert not panel.body.isHidden()


def test_notes_are_told_after_a_while_and_when_their_field_is_left(panel: StudyPanel, qtbot: QtBot) -> None:
    assert panel.notes.toPlainText() == "unclear"
    panel.notes.setFocus()
    with qtbot.waitSignal(panel.notes_edited, timeout=5000) as told:
        qtbot.keyClicks(panel.notes, "x")
    assert told.args == ["xunclear"]
    qtbot.keyClicks(panel.notes, "y")
    with qtbot.waitSignal(panel.notes_edited, timeout=500) as told:
        panel.list.setFocus()
    assert told.args == ["xyunclear"]
    with qtbot.assertNotEmitted(panel.notes_edited, wait=100):
        panel.notes.setFocus()
        panel.list.setFocus()


def test_notes_are_told_before_the_scan_is_left(panel: StudyPanel, qtbot: QtBot) -> None:
    told: list[str] = []
    panel.notes_edited.connect(lambda text: told.append(f"notes {text}"))
    panel.next_requested.connect(lambda: told.append("next"))
    panel.scan_chosen.connect(lambda name: told.append(f"open {name}"))
    panel.notes.setPlainText("one")
    panel.next_button.click()
    panel.notes.setPlainText("two")
    panel.list.scan_chosen.emit("a")
    assert told == ["notes one", "next", "notes two", "open a"]


def test_what_is_being_typed_is_not_replaced(panel: StudyPanel) -> None:
    panel.notes.setPlainText("half a sen")
    panel.set_study(replace(STATE, notes="older"))
    assert panel.notes.toPlainText() == "half a sen"
    panel.set_study(replace(STATE, here="a", notes="of a"))
    assert panel.notes.toPlainText() == "of a"


def test_it_is_readable_in_a_narrow_dock(panel: StudyPanel, qtbot: QtBot) -> None:
    long = "A sentence that says at length what is wrong with this file, and what to do about it."
    panel.set_study(replace(STATE, problem=long, text=long, summary=long))
    qtbot.wait(50)
    assert panel.minimumSizeHint().width() <= 284
    for column in (STATUS, MINUTES):
        needed = max(panel.list.sizeHintForColumn(column), panel.list.header().sectionSizeHint(column))
        assert panel.list.columnWidth(column) >= needed
    assert panel.list.columnWidth(NAME) >= 70
    assert sum(panel.list.columnWidth(column) for column in range(4)) <= panel.list.viewport().width()
    for label in panel.findChildren(QLabel):
        assert not label.wordWrap() or label.height() >= label.heightForWidth(label.width()), label.text()
    for button in panel.findChildren(QAbstractButton):
        assert button.toolTip(), button


def test_tab_walks_through_it(panel: StudyPanel, qtbot: QtBot) -> None:
    panel.header.setFocus()
    seen = []
    for _ in range(9):
        qtbot.keyClick(QApplication.focusWidget(), Qt.Key.Key_Tab)
        seen.append(QApplication.focusWidget())
    assert seen == [
        panel.previous_button, panel.done_button, panel.next_button, panel.list, panel.notes, panel.summary_button,
        panel.skip_button, panel.close_button, panel.header,
    ]  # fmt: skip


def test_many_scans_take_no_more_room(panel: StudyPanel) -> None:
    panel.set_study(replace(STATE, rows=tuple(StudyRow(str(number), "open") for number in range(1000)), here="500"))
    assert panel.list.height() < 200
    assert panel.list.visualRect(panel.list.currentIndex()).top() >= 0
    assert panel.list.currentIndex().row() == 500
