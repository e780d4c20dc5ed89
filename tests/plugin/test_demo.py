from __future__ import annotations

from collections.abc import Callable

import numpy as np
from napari import Viewer

from napari_oneseg.phantom import phantom
from napari_oneseg.plugin import demo
from napari_oneseg.session import Propagation
from napari_oneseg.volume import Annotation


def test_the_demonstration_shows_scan_labels_and_painted_slice(make_napari_viewer: Callable[[], Viewer]) -> None:
    sample = phantom(seed=0)
    truth = sample.volume.to_slices(sample.labels)
    scores = np.ones(len(truth), np.float32)
    result = Propagation(truth, np.ones(truth.shape, np.float16), scores, {1: 1.0})
    viewer = make_napari_viewer()
    demo.build(viewer, sample, Annotation({17: truth[17]}), result)
    scan, labels, painted = (viewer.layers[name] for name in ("Phantom", "Labels", "Painted"))
    np.testing.assert_array_equal(labels.data, sample.labels)
    assert np.flatnonzero(painted.data.any((1, 2))).tolist() == [17]
    assert viewer.dims.current_step[0] == 17
    assert all(tuple(layer.scale) == sample.volume.spacing for layer in (scan, labels, painted))
    assert "Slice 17" in viewer.canvas.overlays.text.text
