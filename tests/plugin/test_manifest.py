from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from napari import Viewer
from napari._app_model import get_app_model
from napari._app_model.constants._menus import is_menu_contributable
from napari.layers import Image, Labels
from npe2 import PluginManifest

from napari_oneseg.image_formats import READABLE, WRITABLE
from napari_oneseg.phantom import phantom
from napari_oneseg.plugin import sample_data
from napari_oneseg.plugin.scan_layer import scan_of_layer
from napari_oneseg.plugin.widget import OneSegWidget

ROOT = Path(__file__).parents[2]


def test_the_installed_manifest_is_valid() -> None:
    manifest = PluginManifest.from_distribution("napari-oneseg")
    manifest.validate_imports()
    assert manifest.display_name == "OneSeg"


def test_the_manifest_at_the_top_is_the_package_s_own() -> None:
    assert (ROOT / "napari.yaml").read_text() == (ROOT / "src/napari_oneseg/napari.yaml").read_text()


def test_the_sample_opens_with_its_geometry(
    make_napari_viewer: Callable[[], Viewer], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = phantom()
    monkeypatch.setattr(sample_data, "generate", lambda: expected)  # generating it takes seconds
    viewer = make_napari_viewer()
    (scan,) = viewer.open_sample("napari-oneseg", "phantom")
    again, painted = viewer.open_sample("napari-oneseg", "painted_phantom")

    for layer in (scan, again):
        assert isinstance(layer, Image)
        np.testing.assert_array_equal(layer.data, expected.volume.array)
        assert tuple(layer.contrast_limits) == (-160, 240)
        assert scan_of_layer(layer).shown is expected.volume
    assert isinstance(painted, Labels)
    (index,) = np.flatnonzero(painted.data.any(axis=(1, 2)))
    np.testing.assert_array_equal(painted.data[index], expected.labels[index])
    assert set(np.unique(painted.data)) == {0, *expected.names}, "all organs can be tried"
    for layer in (scan, again, painted):
        np.testing.assert_allclose(layer.scale, expected.volume.spacing)
        assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
        assert layer.axis_labels == ("z", "y", "x")


def test_the_widget_opens_with_the_viewer(make_napari_viewer: Callable[[], Viewer]) -> None:
    viewer = make_napari_viewer()
    _, widget = viewer.window.add_plugin_dock_widget("napari-oneseg", "OneSeg")
    assert widget.viewer is not None


COMMANDS = {
    "propagate": "propagate",
    "suggest_slice": "go_to_suggestion",
    "next_slice_to_check": "next_slice_to_check",
    "accept_slice": "accept_slice",
    "undo": "undo",
    "export": "export",
}
"""Commands of the palette, and the widget's methods that they call."""


def test_commands_of_the_palette_open_the_widget_and_act(
    make_napari_viewer: Callable[[], Viewer], monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[tuple[str, OneSegWidget]] = []
    for method in COMMANDS.values():
        monkeypatch.setattr(OneSegWidget, method, lambda widget, name=method: called.append((name, widget)))
    viewer = make_napari_viewer()
    for command in COMMANDS:
        get_app_model().commands.execute_command(f"napari-oneseg.{command}").result()
    assert [name for name, _ in called] == list(COMMANDS.values())
    _, widget = viewer.window.add_plugin_dock_widget("napari-oneseg", "OneSeg")
    assert all(acted is widget for _, acted in called), "it is opened once"


def test_the_palette_offers_what_needs_no_file() -> None:
    commands = PluginManifest.from_distribution("napari-oneseg").contributions.commands
    hidden = {command.id for command in commands if command.enablement == "False"}
    assert hidden == {"napari-oneseg.get_reader", "napari-oneseg.write_labels"}


def test_reader_and_writer_take_the_files_that_the_core_takes() -> None:
    contributions = PluginManifest.from_distribution("napari-oneseg").contributions
    (reader,), (writer,) = contributions.readers, contributions.writers
    dicom = [".dcm", ".dicom", ".ima"]
    assert [pattern.removeprefix("*") for pattern in reader.filename_patterns] == [*READABLE, *dicom]
    assert writer.filename_extensions == list(WRITABLE)


def test_the_widget_is_in_the_menu_for_segmenting() -> None:
    menus = PluginManifest.from_distribution("napari-oneseg").contributions.menus
    assert [item.command for item in menus["napari/layers/segment"]] == ["napari-oneseg.open_widget"]
    assert is_menu_contributable("napari/layers/segment")
