from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from napari import Viewer
from pytestqt.qtbot import QtBot

from napari_oneseg import scan_features
from napari_oneseg.phantom import phantom
from napari_oneseg.plugin import demo
from napari_oneseg.preprocessing import WorkingGrid
from napari_oneseg.volume import Annotation
from tests.engine_fixtures import moving_stack


def test_the_demonstration_takes_the_painted_slice_and_carries_it_on(
    make_napari_viewer: Callable[[], Viewer], qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = phantom(seed=0)
    truth = sample.volume.to_slices(sample.labels)
    count, rows, columns = truth.shape
    stack = moving_stack(count, (rows // 2, columns // 2), (0, 0))
    grid = WorkingGrid((rows, columns), (rows, columns), 2)
    monkeypatch.setattr(scan_features, "compute_features", lambda *_: replace(stack, grid=grid))
    viewer = make_napari_viewer()
    widget = demo.build(viewer, sample, Annotation({17: truth[17]}))
    qtbot.waitUntil(
        lambda: widget.controller.state is not None and bool(widget.controller.state.results), timeout=60_000
    )
    qtbot.waitUntil(lambda: not widget.engine.busy, timeout=60_000)
    qtbot.wait(200)
    layer, scan = widget.painter.layer, widget.controller.scan
    assert layer is not None
    assert scan is not None
    shown = scan.shown.to_slices(layer.data)
    np.testing.assert_array_equal(shown[17], truth[17])
    assert shown.any((1, 2)).sum() > 1
    assert widget.controller.book.style(1).name == sample.names[1]
    assert not widget.saver.enabled
    widget.shut_down()
