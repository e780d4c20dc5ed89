from __future__ import annotations

import pytest
import torch
from torch import Tensor

from napari_oneseg.training.losses import label_copy_loss


def truth() -> Tensor:
    regions = torch.zeros(2, 16, 16, dtype=torch.int64)
    regions[:, 2:12, 2:12] = 1
    regions[:, 12:15, 4:9] = 2
    return torch.nn.functional.one_hot(regions, 4).permute(0, 3, 1, 2).float()


def test_a_perfect_copy_costs_nothing() -> None:
    assert float(label_copy_loss(truth(), truth())) == pytest.approx(0.0, abs=1e-6)


def test_a_worse_copy_costs_more() -> None:
    y = truth()
    losses = [float(label_copy_loss(torch.lerp(y, y.roll(3, 3), share), y)) for share in (0.0, 0.2, 0.5, 1.0)]
    assert losses == sorted(losses)
    assert losses[-1] > losses[1] > 0.05


def test_a_small_label_weighs_like_a_large_one() -> None:
    """The Dice term: losing the small region costs about as much of it as losing the large one."""
    y = truth()
    lost = []
    for label in (1, 2):
        copied = y.clone()
        copied[:, 0] += copied[:, label]
        copied[:, label] = 0
        both, total = (copied * y).sum((2, 3)), (copied.square() + y.square()).sum((2, 3))
        assert (both[:, label] == 0).all()
        entropy = -(y * copied.clamp_min(1e-4).log()).sum(1).mean()
        lost.append(float(label_copy_loss(copied, y) - entropy))
        assert total.shape == (2, 4)
    assert lost == pytest.approx([0.25, 0.25], abs=1e-5)  # one of two labels lost, at half weight


def test_absent_labels_and_specks_have_no_dice() -> None:
    y = truth()
    y[:, 3, 0, 0], y[:, 0, 0, 0] = 1.0, 0.0
    copied = y.clone()
    copied[:, 3], copied[:, 0, 0, 0] = 0.0, 1.0
    assert float(label_copy_loss(copied, y)) == pytest.approx(9.2103 / 256, rel=1e-3)  # one position of -log(1e-4)


def test_finite_gradients_where_nothing_arrived() -> None:
    copied = torch.zeros(2, 4, 16, 16, requires_grad=True)
    label_copy_loss(copied, truth()).backward()
    assert copied.grad is not None
    assert torch.isfinite(copied.grad).all()
    nothing = torch.zeros(1, 3, 8, 8)
    nothing[:, 0] = 1
    assert float(label_copy_loss(nothing, nothing)) == 0.0
