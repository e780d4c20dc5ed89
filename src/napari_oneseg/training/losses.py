"""What the correspondence network is punished for."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from napari_oneseg.features.part_classifier import Parts
from napari_oneseg.training.processes import ALONE, Processes

__all__ = ["label_copy_loss", "part_loss", "run_on_loss"]


def label_copy_loss(copied: Tensor, truth: Tensor, processes: Processes = ALONE) -> Tensor:
    """Return cross-entropy plus soft Dice loss of copied labels.

    Cross-entropy alone is ruled by the large regions; the Dice term gives a vessel the weight of a liver.

    Parameters
    ----------
    copied
        Labels as they arrived, shape (batch, 1 + L, rows, columns), 0 to 1, channel 0 background.
    truth
        Labels as they should be, same shape, 0 to 1, summing to 1 over the channels.
    processes
        Where the batch is a share of a larger one: those who have the others. The mean of their losses is the loss of
        the whole, so labels are counted over all of them.

    Returns
    -------
    Scalar, 0 or more.
    """
    entropy = -(truth * copied.clamp_min(1e-4).log()).sum(1).mean()
    both = (copied * truth).sum((2, 3))[:, 1:]
    total = (copied.square() + truth.square()).sum((2, 3))[:, 1:]
    present = truth.sum((2, 3))[:, 1:] > 4.0  # a label of a few positions has no meaningful overlap
    dice = torch.where(present, 1.0 - 2.0 * both / total.clamp_min(1e-6), torch.zeros_like(both))
    return entropy + 0.5 * dice.sum() / processes.mean(present.sum()).clamp_min(1 / processes.count)


def run_on_loss(copied: Tensor, truth: Tensor, painted: Tensor, processes: Processes = ALONE) -> Tensor:
    """Return a loss for labels that go on where their objects have ended.

    Dice says nothing of an object that is not there, and a cross-entropy over all positions little.

    Parameters
    ----------
    copied, truth
        As in :func:`label_copy_loss`, without background, shape (batch, L, rows, columns).
    painted
        The labels where they were painted, same shape.
    processes
        As in :func:`label_copy_loss`.

    Returns
    -------
    Scalar, 0 to 0.5.
    """
    area = painted.sum((2, 3))
    counts = area > 4.0
    gone = counts & (truth.sum((2, 3)) <= 4.0)
    extra = (copied * (1.0 - truth)).sum((2, 3))
    share = extra / (extra + 0.5 * area + 1.0)
    return 0.5 * torch.where(gone, share, 0.0).sum() / processes.mean(counts.sum()).clamp_min(1 / processes.count)


def part_loss(odds: Tensor, right: Tensor, parts: Parts, painted_area: Tensor, processes: Processes = ALONE) -> Tensor:
    """Return how badly it was told which parts of labels belong to them.

    Parameters
    ----------
    odds
        Log-odds that each part stays, shape (parts,).
    right
        Share of each part that truly is of its label, shape (parts,), 0 to 1.
    parts
        The parts.
    painted_area
        Positions of each label where it was painted, shape (batch, L).
    processes
        As in :func:`label_copy_loss`.

    Returns
    -------
    Scalar, 0 or more: cross-entropy, in which a part counts by its size beside what was painted, and the more the
    clearer it is.
    """
    area = parts.area
    weight = (2.0 * right - 1.0).abs() * area / (area + 0.3 * painted_area[parts.sample, parts.label])
    entropy = functional.binary_cross_entropy_with_logits(odds, (right > 0.5).to(odds.dtype), reduction="none")
    return (weight * entropy).sum() / processes.mean(weight.sum()).clamp_min(1.0 / processes.count)
