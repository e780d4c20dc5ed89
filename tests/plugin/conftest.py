"""What the tests of the plugin share beside plugin_fixtures.py."""

from __future__ import annotations

import pytest

from napari_oneseg import scan_features
from tests.plugin.plugin_fixtures import STACK


@pytest.fixture
def clear_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features with clear matches, for every scan of the small size."""
    monkeypatch.setattr(scan_features, "compute_features", lambda *_: STACK)
