"""What the correspondence network is punished for."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["label_copy_loss"]


def label_copy_loss(copied: Tensor, truth: Tensor) -> Tensor:
    """Return cross-entropy plus soft Dice loss of copied labels.

    Cross-entropy alone is ruled by the large regions; the Dice term gives a vessel the weight of a liver.

    Parameters
    ----------
    copied
        Labels as they arrived, shape (batch, 1 + L, rows, columns), 0 to 1, channel 0 background.
    truth
        Labels as they should be, same shape, 0 to 1, summing to 1 over the channels.

    Returns
    -------
    Scalar, 0 or more.
    """
    entropy = -(truth * copied.clamp_min(1e-4).log()).sum(1).mean()
    both = (copied * truth).sum((2, 3))[:, 1:]
    total = (copied.square() + truth.square()).sum((2, 3))[:, 1:]
    present = truth.sum((2, 3))[:, 1:] > 4.0  # a label of a few positions has no meaningful overlap
    dice = torch.where(present, 1.0 - 2.0 * both / total.clamp_min(1e-6), torch.zeros_like(both))
    return entropy + 0.5 * dice.sum() / present.sum().clamp_min(1)
