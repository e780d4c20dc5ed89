from __future__ import annotations

from pathlib import Path

import napari.settings
import pytest
from npe2 import PluginManifest

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
    assert {key: value.default for key, value in declared["shortcuts"].properties.items()} == SHORTCUTS
    assert said == []


def test_what_was_chosen(preferences: Path, said: list[str]) -> None:
    kept = napari.settings.get_plugin_settings(PLUGIN)
    kept.computing.device = "cpu"
    kept.propagation.default_range = 12
    kept.propagation.live = True
    kept.safety.autosave = False
    kept.safety.autosave_seconds = 60
    kept.shortcuts.propagate = "alt-p"
    kept.shortcuts.next = ""
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
    napari.settings.get_plugin_settings(PLUGIN).shortcuts.accept = "Hyper+Q"
    assert read_settings().shortcuts == SHORTCUTS
    (message,) = said
    assert "'Hyper+Q' for 'accept' is no key" in message


def test_a_shortcut_given_twice(preferences: Path, said: list[str]) -> None:
    napari.settings.get_plugin_settings(PLUGIN).shortcuts.accept = "Shift+P"
    assert read_settings().shortcuts == {**SHORTCUTS, "accept": ""}
    assert "given twice" in said[0]


def test_without_an_installed_plugin(preferences: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "_PLUGIN", "not-installed")
    assert read_settings() == Settings()
