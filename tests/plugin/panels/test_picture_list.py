from __future__ import annotations

import numpy as np
import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QColor

from napari_oneseg.plugin.panels.picture_list import PictureList

TEXTS = ["7: T1\n5 slices", "12: T2\n6 slices", "13: FLAIR\n7 slices"]


@pytest.fixture
def dialog(qtbot: QtBot) -> PictureList:
    dialog = PictureList("Which one?", TEXTS)
    qtbot.addWidget(dialog)
    dialog.show()
    return dialog


def colour(dialog: PictureList, number: int, x: int, y: int) -> QColor:
    return dialog.list.item(number).icon().pixmap(QSize(96, 96)).toImage().pixelColor(x, y)


def test_the_text_is_there_for_keyboard_and_screen_reader(dialog: PictureList) -> None:
    items = [dialog.list.item(row) for row in range(dialog.list.count())]
    assert [item.text() for item in items] == TEXTS
    assert items[0].data(Qt.ItemDataRole.AccessibleTextRole) == "7: T1, 5 slices"
    assert dialog.list.accessibleName() == "Which one?"


def test_arrows_and_enter_choose(dialog: PictureList, qtbot: QtBot) -> None:
    assert dialog.chosen == 0
    qtbot.keyClick(dialog.list, Qt.Key.Key_Down)
    with qtbot.waitSignal(dialog.accepted):
        qtbot.keyClick(dialog.list, Qt.Key.Key_Return)
    assert dialog.chosen == 1


def test_escape_chooses_nothing(dialog: PictureList, qtbot: QtBot) -> None:
    with qtbot.waitSignal(dialog.rejected):
        qtbot.keyClick(dialog.list, Qt.Key.Key_Escape)


def test_a_picture_comes_later_and_stays_in_the_middle(dialog: PictureList) -> None:
    assert colour(dialog, 1, 48, 48).alpha() < 100
    picture = np.zeros((96, 40), np.uint8)
    picture[:, :20] = 200
    dialog.set_picture(1, picture)
    assert colour(dialog, 1, 30, 90).getRgb() == (200, 200, 200, 255)
    assert colour(dialog, 1, 60, 10).getRgb() == (0, 0, 0, 255)
    assert colour(dialog, 1, 5, 48).getRgb() == (0, 0, 0, 255)
    assert colour(dialog, 0, 48, 48).alpha() < 100, "the others still wait"


def test_a_selected_picture_is_shown_as_it_is(dialog: PictureList, qtbot: QtBot) -> None:
    for number in (0, 1):
        dialog.set_picture(number, np.full((96, 96), 90, np.uint8))
    qtbot.wait(50)
    seen = dialog.list.viewport().grab().toImage()
    for number in (0, 1):
        middle = dialog.list.visualItemRect(dialog.list.item(number)).center().y()
        assert seen.pixelColor(40, middle).getRgb() == (90, 90, 90, 255)


def test_a_picture_of_what_is_not_listed_is_left_aside(dialog: PictureList) -> None:
    dialog.set_picture(7, np.zeros((9, 9), np.uint8))
