from __future__ import annotations

import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt

from napari_oneseg.plugin.panels.scan import ScanPanel
from napari_oneseg.plugin.view_model import Choice, StepState

SCANS = (Choice(("scan", 1), "One"), Choice(("scan", 2), "Two"), Choice(("scan", 3), "Three"))


@pytest.fixture
def panel(qtbot: QtBot) -> ScanPanel:
    panel = ScanPanel()
    qtbot.addWidget(panel)
    panel.show()
    panel.set_state(StepState("ready"))
    return panel


def test_a_file_and_a_folder_are_asked_for(panel: ScanPanel, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(panel, "ask_for_file", lambda: "scan.nii.gz")
    monkeypatch.setattr(panel, "ask_for_folder", lambda: "series")
    with qtbot.waitSignal(panel.file_chosen) as file:
        qtbot.mouseClick(panel.file_button, Qt.MouseButton.LeftButton)
    with qtbot.waitSignal(panel.folder_chosen) as folder:
        qtbot.keyClick(panel.folder_button, Qt.Key.Key_Space)
    assert file.args + folder.args == ["scan.nii.gz", "series"]


def test_a_dialog_that_was_cancelled_opens_nothing(
    panel: ScanPanel, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(panel, "ask_for_file", lambda: "")
    with qtbot.assertNotEmitted(panel.file_chosen):
        qtbot.mouseClick(panel.file_button, Qt.MouseButton.LeftButton)


def test_choosing_announces_the_key_and_setting_announces_nothing(panel: ScanPanel, qtbot: QtBot) -> None:
    with qtbot.assertNotEmitted(panel.scan_chosen):
        panel.set_scans(SCANS, ("scan", 1))
    assert panel.scans.currentText() == "One"
    panel.scans.setFocus()
    with qtbot.waitSignal(panel.scan_chosen) as chosen:
        qtbot.keyClick(panel.scans, Qt.Key.Key_Down)
    assert chosen.args == [("scan", 2)]


def test_nothing_need_be_chosen(panel: ScanPanel) -> None:
    panel.set_windows((Choice("lung", "Lung"),), None)
    assert panel.windows.currentIndex() == -1


def test_an_open_list_is_left_alone(panel: ScanPanel, qtbot: QtBot) -> None:
    panel.set_scans(SCANS, ("scan", 1))
    panel.scans.showPopup()
    panel.scans.view().setCurrentIndex(panel.scans.model().index(2, 0))
    panel.set_scans(SCANS, ("scan", 1))
    assert panel.scans.view().currentIndex().row() == 2
    panel.scans.hidePopup()


def test_choices_are_shown_once_there_is_a_scan(panel: ScanPanel) -> None:
    assert not panel.axes.isVisible()
    panel.set_scans(SCANS, None)
    assert panel.axes.isVisible()


def test_the_device_says_what_it_means(panel: ScanPanel, qtbot: QtBot) -> None:
    panel.set_scans(SCANS, None)
    panel.resize(300, 400)
    panel.set_devices((Choice("cpu", "CPU"),), "cpu", "CPU, about 2 s")
    qtbot.waitUntil(lambda: panel.meaning.text() == "CPU, about 2 s", timeout=1000)
