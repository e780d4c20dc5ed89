from __future__ import annotations

import subprocess
import sys

import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt

from napari_oneseg.config import PropagationConfig, describe
from napari_oneseg.plugin.panels.propagate import PropagatePanel
from napari_oneseg.plugin.view_model import StepState


@pytest.fixture
def panel(qtbot: QtBot) -> PropagatePanel:
    panel = PropagatePanel()
    qtbot.addWidget(panel)
    panel.resize(300, 500)
    panel.show()
    panel.set_state(StepState("ready"))
    return panel


def test_the_button_says_what_it_does_and_by_which_key(panel: PropagatePanel, qtbot: QtBot) -> None:
    panel.set_action("Propagate 3 labels", False, "Shift+P")
    assert panel.propagate_button.text() == "Propagate 3 labels  (Shift+P)"
    assert not panel.propagate_button.isEnabled()
    panel.set_action("Propagate", True, "")
    with qtbot.waitSignal(panel.propagate_requested):
        qtbot.mouseClick(panel.propagate_button, Qt.MouseButton.LeftButton)


def test_direction_scope_and_live(panel: PropagatePanel, qtbot: QtBot) -> None:
    with qtbot.waitSignal(panel.direction_chosen) as direction:
        qtbot.keyClick(panel.directions, Qt.Key.Key_Down)
    with qtbot.waitSignal(panel.scope_chosen) as scope:
        qtbot.keyClick(panel.scopes, Qt.Key.Key_Down)
    with qtbot.waitSignal(panel.live_toggled) as live:
        qtbot.keyClick(panel.live_box, Qt.Key.Key_Space)
    assert direction.args + scope.args + live.args == ["up", "selected", True]
    with qtbot.assertNotEmitted(panel.live_toggled):
        panel.set_live(False, False)
    assert not panel.live_box.isEnabled()
    panel.set_direction("down")
    panel.set_scope("all")
    assert (panel.directions.currentText(), panel.scopes.currentText()) == ("Down only", "All labels")


def test_the_form_holds_every_parameter_as_declared(panel: PropagatePanel) -> None:
    form = panel.advanced
    assert not form.inside.isVisible()
    form.fold.click()
    assert form.inside.isVisible()
    for name, default, doc in describe(PropagationConfig):
        assert form.editors[name].value == default
        assert form.editors[name].tooltip == doc
    assert set(form.editors) == set(PropagationConfig().to_dict())


def test_a_changed_parameter_is_announced_with_all_others(panel: PropagatePanel, qtbot: QtBot) -> None:
    with qtbot.assertNotEmitted(panel.parameters_changed):
        panel.set_parameters(PropagationConfig(window=9).to_dict())
    panel.advanced.set_open(True)
    window = panel.advanced.editors["window"].native
    with qtbot.waitSignal(panel.parameters_changed) as changed:
        qtbot.keyClick(window, Qt.Key.Key_Up)
    assert changed.args == [PropagationConfig(window=11).to_dict()]
    with qtbot.waitSignal(panel.parameters_changed) as changed:
        qtbot.mouseClick(panel.advanced.usual, Qt.MouseButton.LeftButton)
    assert changed.args == [PropagationConfig().to_dict()]


def test_a_value_that_does_not_do_is_explained_and_kept_back(panel: PropagatePanel, qtbot: QtBot) -> None:
    panel.advanced.set_open(True)
    with qtbot.assertNotEmitted(panel.parameters_changed):
        panel.advanced.editors["window"].value = 10
    assert "odd" in panel.advanced.problem.text()
    assert panel.advanced.problem.isVisible()
    panel.set_parameters(PropagationConfig().to_dict())
    assert not panel.advanced.problem.isVisible()


def test_importing_the_panels_brings_neither_torch_nor_napari() -> None:
    code = "import sys, napari_oneseg.plugin.panels.view; print([m for m in ('torch', 'napari') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
