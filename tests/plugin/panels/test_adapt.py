from __future__ import annotations

import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt

from napari_oneseg.plugin.panels.adapt import AdaptPanel
from napari_oneseg.plugin.view_model import StepState


@pytest.fixture
def panel(qtbot: QtBot) -> AdaptPanel:
    panel = AdaptPanel()
    qtbot.addWidget(panel)
    panel.resize(300, 500)
    panel.show()
    panel.set_state(StepState("ready"))
    panel.set_open(True)
    return panel


def test_it_stays_folded_until_asked_for(qtbot: QtBot) -> None:
    panel = AdaptPanel()
    qtbot.addWidget(panel)
    panel.set_state(StepState("ready"))
    assert not panel.is_open


def test_it_learns_from_this_scan_or_from_a_folder(
    panel: AdaptPanel, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(panel, "ask_for_folder", lambda: "scans")
    panel.minutes.setValue(3.0)
    with qtbot.waitSignal(panel.adapt_requested) as asked:
        qtbot.mouseClick(panel.adapt_button, Qt.MouseButton.LeftButton)
    assert asked.args == [3.0, ""]
    qtbot.mouseClick(panel.folder_choice, Qt.MouseButton.LeftButton, pos=panel.folder_choice.rect().center())
    with qtbot.waitSignal(panel.adapt_requested) as asked:
        qtbot.mouseClick(panel.adapt_button, Qt.MouseButton.LeftButton)
    assert asked.args == [3.0, "scans"]
    panel.scan_choice.click()
    with qtbot.waitSignal(panel.adapt_requested) as asked:
        panel.adapt_button.click()
    assert asked.args == [3.0, ""]


def test_without_a_folder_it_stays_with_this_scan(panel: AdaptPanel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(panel, "ask_for_folder", lambda: "")
    panel.folder_choice.click()
    assert panel.scan_choice.isChecked()


def test_while_it_learns_it_shows_curve_and_time_and_cannot_be_started_twice(panel: AdaptPanel, qtbot: QtBot) -> None:
    assert not panel.plot.isVisible()
    panel.set_state(StepState("busy", "Learning", 0.2, can_cancel=True))
    panel.set_losses([(1, 3.0), (2, 2.0)])
    panel.set_time_left(75.2)
    assert panel.plot.isVisible()
    assert panel.time_text.text() == "1:15 min left"
    assert not panel.adapt_button.isVisible()
    with qtbot.waitSignal(panel.cancelled):
        qtbot.mouseClick(panel.cancel_button, Qt.MouseButton.LeftButton)
    panel.set_state(StepState("ready"))
    panel.set_losses(())
    panel.set_time_left(None)
    assert panel.adapt_button.isVisible()
    assert not panel.plot.isVisible()
    assert not panel.time_text.isVisible()


def test_what_was_learned_is_judged_and_kept_or_not(panel: AdaptPanel, qtbot: QtBot) -> None:
    assert not panel.keep_button.isVisible()
    panel.set_agreement(0.84, 0.88)
    panel.set_adapted(True)
    assert "before 84 %, after 88 %" in panel.agreement.text()
    assert "Better" in panel.agreement.text()
    panel.set_agreement(0.84, 0.80)
    assert "Not better" in panel.agreement.text()
    with qtbot.waitSignals([panel.keep_requested, panel.revert_requested]):
        qtbot.mouseClick(panel.keep_button, Qt.MouseButton.LeftButton)
        qtbot.mouseClick(panel.revert_button, Qt.MouseButton.LeftButton)
