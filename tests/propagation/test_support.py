from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from napari_oneseg.propagation.support import drop_unsupported
from tests.engine_fixtures import disc

SHAPE = (32, 40)


def two_parts() -> tuple[Tensor, Tensor]:
    first = torch.from_numpy(disc(SHAPE, (12, 10), 5)).float()
    second = torch.from_numpy(disc(SHAPE, (16, 30), 4)).float()
    return first, second


def test_a_part_with_little_support_is_dropped_with_its_rim() -> None:
    first, second = two_parts()
    rim = torch.from_numpy(disc(SHAPE, (16, 30), 5)).float()
    refined = (first + 0.9 * second + 0.2 * (rim - second))[None]
    copied = (0.9 * first + 0.6 * second)[None]
    kept, usual = drop_unsupported(refined, copied, np.array([0.9]), 0.83, 0.42)
    assert torch.equal(kept[0] * first, first)
    assert not (kept[0] * rim).any()
    assert usual[0] == pytest.approx(0.9), "what was dropped does not count"


def test_what_is_usual_differs_between_labels_and_follows_them() -> None:
    first, second = two_parts()
    refined = torch.stack([first, second])
    copied = torch.stack([0.8 * first, 0.55 * second])
    kept, usual = drop_unsupported(refined, copied, np.array([0.9, 0.6]), 0.83, 0.42)
    assert torch.equal(kept, refined), "each of them has what is usual for it"
    assert usual == pytest.approx([0.7 * 0.9 + 0.3 * 0.8, 0.7 * 0.6 + 0.3 * 0.55])
    kept, _ = drop_unsupported(refined, copied, np.array([0.9, 0.9]), 0.83, 0.42)
    assert kept[0].any()
    assert not kept[1].any()


def test_the_first_step_needs_the_least_support_only() -> None:
    first, _ = two_parts()
    kept, usual = drop_unsupported(first[None], 0.5 * first[None], np.array([np.nan]), 0.83, 0.42)
    assert kept.any()
    assert usual[0] == pytest.approx(0.5)
    kept, usual = drop_unsupported(first[None], 0.4 * first[None], np.array([np.nan]), 0.83, 0.42)
    assert not kept.any()
    assert np.isnan(usual[0])


def test_nothing_to_drop() -> None:
    first, _ = two_parts()
    faint = 0.3 * first[None]
    kept, usual = drop_unsupported(faint, faint, np.array([0.8]), 0.83, 0.42)
    assert torch.equal(kept, faint), "only what would be decided for the label is looked at"
    assert usual[0] == 0.8
    kept, _ = drop_unsupported(first[None], 0 * first[None], np.array([0.8]), 0.0, 0.0)
    assert torch.equal(kept[0], first), "it can be switched off"


def test_the_gradient_passes() -> None:
    first, second = two_parts()
    refined = (first + second)[None].requires_grad_()
    kept, _ = drop_unsupported(refined, (0.9 * first + 0.1 * second)[None], np.array([0.9]), 0.83, 0.42)
    kept.sum().backward()
    assert refined.grad is not None
    assert (refined.grad[0][first > 0] == 1).all()
    assert (refined.grad[0][second > 0] == 0).all()
