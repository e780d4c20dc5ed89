"""How far a propagated label can be trusted."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["slice_confidence", "voxel_confidence"]


def voxel_confidence(probabilities: Tensor, reliability: Tensor) -> Tensor:
    """Return the confidence of each position: margin times reliability.

    The margin is the lead of the most probable class over the next one, background being a class too. The reliability
    is that of the labels present, weighted by their probability; background that no label has come near is certain.

    Parameters
    ----------
    probabilities
        Of background (channel 0) and each label, shape (1 + L, rows, columns), 0 to 1.
    reliability
        Forward-backward agreement of each label, shape (L, rows, columns), 0 to 1.

    Returns
    -------
    Shape (rows, columns), 0 to 1.
    """
    # Class by class: torch's topk along the first axis is many times slower on a CPU.
    best, next_best = probabilities[0], torch.zeros_like(probabilities[0])
    for probability in probabilities[1:]:
        next_best = torch.maximum(next_best, torch.minimum(best, probability))
        best = torch.maximum(best, probability)
    margin = best - next_best
    total = probabilities.sum(0).clamp_min(1e-6)
    trusted = (probabilities[0] + (probabilities[1:] * reliability).sum(0)) / total
    return (margin * trusted).clamp(0.0, 1.0)


def slice_confidence(
    labels: NDArray[np.unsignedinteger], confidence: NDArray[np.floating], presence: NDArray[np.bool_]
) -> float:
    """Return the mean confidence of a slice where it matters: where a label is, or might be.

    Parameters
    ----------
    labels
        Decided labels, shape (rows, columns).
    confidence
        Voxel confidence, same shape, 0 to 1.
    presence
        Where the labels together are not negligible, same shape.

    Returns
    -------
    0 to 1; NaN where no label is on the slice and none might be.
    """
    matters = presence | (labels > 0)
    return float(confidence[matters].mean()) if matters.any() else float("nan")
