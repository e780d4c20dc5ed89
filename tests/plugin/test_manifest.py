from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from napari import Viewer
from napari.layers import Image, Labels
from npe2 import PluginManifest

from napari_oneseg.phantom import phantom
from napari_oneseg.plugin import sample_data

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
    image, labels = viewer.open_sample("napari-oneseg", "phantom")

    assert isinstance(image, Image)
    assert isinstance(labels, Labels)
    np.testing.assert_array_equal(image.data, expected.volume.array)
    np.testing.assert_array_equal(labels.data, expected.labels)
    for layer in (image, labels):
        np.testing.assert_allclose(layer.scale, expected.volume.spacing)
        assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
        assert layer.axis_labels == ("z", "y", "x")
