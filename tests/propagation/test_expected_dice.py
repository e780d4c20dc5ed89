"""The expected Dice of a slice."""

from __future__ import annotations

import numpy as np

from napari_oneseg.propagation.expected_dice import Calibration, bent, expected_dice, shipped_calibration
from napari_oneseg.propagation.slice_traits import BETTER, TRAITS
from napari_oneseg.volume import Annotation

SPACING = (3.0, 1.0, 1.0)


def test_effects_bend() -> None:
    bends = np.array([[1.0, 10.0], [2.0, 20.0]])
    stretches = bent(np.array([[1.5, 25.0], [-3.0, 12.0]]), bends)
    assert stretches.tolist() == [[1.0, 10.0, 0.5, 10.0, 0.0, 5.0], [-3.0, 10.0, 0.0, 2.0, 0.0, 0.0]]
    slopes = np.array([[1.0, 0.0], [0.0, 0.0], [2.0, 0.0]])
    line = Calibration(bends, slopes, -1.0, np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    levels = line([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [2.5, 0.0]])
    assert np.allclose(levels, 1 / (1 + np.exp([1.0, 0.0, 0.0, -1.0]))), "it rises, stays, and rises again"


def test_no_trait_is_good_here_and_bad_there() -> None:
    shipped = shipped_calibration()
    assert (shipped.slopes * np.array(BETTER) >= 0).all()
    assert (shipped.slopes != 0).any()


def test_the_table_is_monotone_and_within_the_range_of_dice() -> None:
    shipped = shipped_calibration()
    assert shipped.bends.shape[1] == shipped.slopes.shape[1] == len(TRAITS)
    assert len(shipped.slopes) == len(shipped.bends) + 1
    assert (np.diff(shipped.knots) > 0).all()
    assert (np.diff(shipped.values) >= 0).all()
    assert 0 <= shipped.values[0] < 0.4
    assert 0.9 < shipped.values[-1] <= 1


def test_a_steady_label_is_expected_better_than_one_that_jumped() -> None:
    labels = np.zeros((9, 40, 40), np.uint8)
    labels[:, 4:20, 4:20] = 1
    labels[7:] = 0
    labels[7:, 24:36, 24:36] = 1
    confidence = np.full(labels.shape, 1.0, np.float16)
    confidence[:, 4:20, 4:20] = 0.95
    confidence[7:, 24:36, 24:36] = 0.5
    found = expected_dice(labels, confidence, Annotation({4: labels[4]}), SPACING, 1)
    assert list(found) == list(range(9))
    assert found[4] == 1.0
    assert found[3] > 0.85
    assert found[7] < found[3] - 0.05
    assert all(0 <= value <= 1 for value in found.values())


def test_accepted_slices_are_certain_and_empty_ones_are_left_out() -> None:
    labels = np.zeros((6, 20, 20), np.uint8)
    labels[1:4, 4:12, 4:12] = 1
    annotation = Annotation({2: labels[2], 3: labels[3]}, frozenset({3}))
    found = expected_dice(labels, np.ones(labels.shape, np.float16), annotation, SPACING, 1)
    assert list(found) == [1, 2, 3]
    assert found[2] == found[3] == 1.0
    assert found[1] < 1.0
