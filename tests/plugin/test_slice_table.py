from __future__ import annotations

import numpy as np
import pytest

from napari_oneseg.plugin.slice_table import SliceTable
from napari_oneseg.volume import Volume

VOLUME = Volume(np.random.default_rng(0).normal(size=(6, 8, 10)), (4.0, 0.5, 2.0), slice_axis=0)


def test_areas_volumes_and_extents() -> None:
    table = SliceTable(VOLUME)
    assert table.values == []
    assert table.volume_ml(3) is None
    assert table.extent(3) is None
    image = np.zeros((8, 10), np.uint8)
    image[:2] = 3
    table.count(2, image)
    table.count(4, image)
    image[0] = 7
    table.count(5, image)
    assert table.values == [3, 7]
    np.testing.assert_allclose(table.areas[3], [0, 0, 20, 0, 20, 10])
    assert table.volume_ml(3) == pytest.approx(50 * 4.0 * 0.5 * 2.0 / 1000)
    assert table.extent(3) == (2, 5)
    assert table.extent(7) == (5, 5)
    np.testing.assert_array_equal(table.labelled, [False, False, True, False, True, True])
    table.count(5, np.zeros_like(image))
    assert table.values == [3]
    assert table.volume_ml(7) is None


def test_counting_agrees_with_a_plain_count() -> None:
    random = np.random.default_rng(1)
    table, truth = SliceTable(VOLUME), np.zeros((6, 8, 10), np.uint16)
    for _ in range(50):
        index = int(random.integers(6))
        truth[index] = random.integers(0, random.integers(1, 400), (8, 10))
        table.count(index, truth[index])
    assert table.values == sorted(set(np.unique(truth)) - {0})
    for value in table.values:
        np.testing.assert_array_equal(table.areas[value], (truth == value).sum((1, 2)).astype(np.float32))
