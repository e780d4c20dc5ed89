from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import napari.settings
import pytest
from napari import Viewer
from napari._qt.dialogs.preferences_dialog import PreferencesDialog
from npe2 import PluginManifest
from qtpy.QtWidgets import QComboBox, QGroupBox

from napari_oneseg.plugin import settings
from napari_oneseg.plugin.settings import SHORTCUTS, Settings, read_settings

PLUGIN = "napari-oneseg"


@pytest.fixture
def preferences(qapp: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """napari's folder of settings; what lies there is read as at a new start."""
    monkeypatch.setattr(napari.settings, "_CFG_PATH", str(tmp_path / "settings.yaml"))
    monkeypatch.setattr(napari.settings, "_PLUGIN_SETTINGS", {})
    return tmp_path / f"{PLUGIN}.yaml"


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    messages: list[str] = []
    monkeypatch.setattr(settings, "show_warning", messages.append)
    return messages


def test_the_defaults_are_those_of_the_manifest(preferences: Path, said: list[str]) -> None:
    assert read_settings() == Settings()
    declared = PluginManifest.from_distribution(PLUGIN).contributions.configurations
    assert {key: value.default for key, value in declared["keyboard"].properties.items()} == SHORTCUTS
    assert said == []


def test_what_was_chosen(preferences: Path, said: list[str]) -> None:
    kept = napari.settings.get_plugin_settings(PLUGIN)
    kept.computing.device = "cpu"
    kept.propagation.default_range = 12
    kept.propagation.live = True
    kept.safety.autosave = False
    kept.safety.autosave_seconds = 60
    kept.keyboard.propagate = "alt-p"
    kept.keyboard.next = ""
    shortcuts = {**SHORTCUTS, "propagate": "Alt+P", "next": ""}
    assert read_settings() == Settings("cpu", 12, True, False, 60, shortcuts)
    assert said == []


def test_a_file_that_was_edited_badly(preferences: Path, caplog: pytest.LogCaptureFixture) -> None:
    preferences.write_text(
        "computing: {device: abacus}\npropagation: {default_range: -3, live: true}\nsafety: {autosave_seconds: soon}\n"
    )
    assert read_settings() == Settings(live=True)
    assert "reset to the default" in caplog.text


def test_a_shortcut_that_is_no_key(preferences: Path, said: list[str]) -> None:
    napari.settings.get_plugin_settings(PLUGIN).keyboard.accept = "Hyper+Q"
    assert read_settings().shortcuts == SHORTCUTS
    (message,) = said
    assert "'Hyper+Q' for 'accept' is no key" in message


def test_a_shortcut_given_twice(preferences: Path, said: list[str]) -> None:
    napari.settings.get_plugin_settings(PLUGIN).keyboard.accept = "Shift+P"
    assert read_settings().shortcuts == {**SHORTCUTS, "accept": ""}
    assert "given twice" in said[0]


def test_without_an_installed_plugin(preferences: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "_PLUGIN", "not-installed")
    assert read_settings() == Settings()


def test_napari_s_preferences_show_and_change_them(
    make_napari_viewer: Callable[[], Viewer], preferences: Path, said: list[str]
) -> None:
    viewer = make_napari_viewer()
    dialog = PreferencesDialog(parent=viewer.window._qt_window)
    try:
        pages = [dialog._list.item(row).text() for row in range(dialog._list.count())]
        page = dialog._stack.widget(pages.index("OneSeg"))
        (devices,) = (box for box in page.findChildren(QComboBox) if box.findText("cuda") >= 0)
        devices.setCurrentText("cpu")
        titles = {box.title() for box in page.findChildren(QGroupBox)}
        assert titles == {"Computing", "Propagation", "Autosave", "Shortcuts"}
        assert read_settings().device == "cpu"
    finally:
        dialog.close()  # as Cancel
    assert read_settings().device == "auto"
