from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from napari_oneseg.propagation.confidence import slice_confidence, voxel_confidence


def at_one_position(*probabilities: float, reliability: tuple[float, ...]) -> float:
    p = torch.tensor(probabilities)[:, None, None]
    return float(voxel_confidence(p, torch.tensor(reliability)[:, None, None]))


def test_margin_times_reliability() -> None:
    assert at_one_position(0.0, 1.0, reliability=(1.0,)) == 1.0
    assert at_one_position(0.0, 1.0, reliability=(0.4,)) == pytest.approx(0.4)
    assert at_one_position(0.2, 0.8, reliability=(0.5,)) == pytest.approx(0.6 * (0.2 + 0.8 * 0.5))
    assert at_one_position(0.5, 0.5, reliability=(1.0,)) == 0.0


def test_background_that_no_label_came_near_is_certain() -> None:
    assert at_one_position(1.0, 0.0, reliability=(0.0,)) == 1.0


def test_two_labels_that_claim_a_position_make_it_uncertain() -> None:
    alone = at_one_position(0.1, 0.9, 0.0, reliability=(1.0, 1.0))
    assert at_one_position(0.0, 0.9, 0.8, reliability=(1.0, 1.0)) < alone


def test_always_between_0_and_1() -> None:
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(4, 9, 9, generator=generator)
    confidence = voxel_confidence(p, torch.rand(3, 9, 9, generator=generator))
    assert confidence.shape == (9, 9)
    assert 0 <= confidence.min() <= confidence.max() <= 1


def test_a_slice_counts_only_where_a_label_is_or_might_be() -> None:
    labels = np.zeros((4, 4), np.uint8)
    confidence = np.ones((4, 4), np.float16)
    presence = np.zeros((4, 4), bool)
    assert math.isnan(slice_confidence(labels, confidence, presence))
    labels[0, 0], confidence[0, 0] = 3, 0.5
    assert slice_confidence(labels, confidence, presence) == 0.5
    presence[0, 1], confidence[0, 1] = True, 0.25
    assert slice_confidence(labels, confidence, presence) == 0.375
