"""Regions of a slice: patches that hang together by their grey values, and how much of each a label has.

A label that spills into a neighbour covers a small part of the neighbour's region, where it covers nearly all of the
regions of its own organ. A network that looks at a small field cannot know that; the share of the region tells it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.segmentation import felzenszwalb
from torch import Tensor

__all__ = ["region_share", "slice_regions"]

_SMOOTHING = 0.6  # standard deviation in positions
_LEAST = 25  # positions


def slice_regions(grey: NDArray[np.floating], scales: Sequence[float]) -> NDArray[np.int64]:
    """Cut a slice into regions of even grey value, several times over (Felzenszwalb and Huttenlocher 2004).

    Parameters
    ----------
    grey
        Normalised grey values of one slice on the feature grid, shape (rows, columns), -1 to 1.
    scales
        The greater a scale, the larger its regions.

    Returns
    -------
    Number of each position's region, from 0 on, shape (scales, rows, columns).
    """
    image = np.asarray(grey, dtype=np.float64)
    cut = [felzenszwalb(image, scale=scale, sigma=_SMOOTHING, min_size=_LEAST) for scale in scales]
    return np.stack(cut).astype(np.int64)


def region_share(labels: Tensor, regions: Tensor) -> Tensor:
    """Return how much of its region each label has, at every position.

    Parameters
    ----------
    labels
        Probability of each label, shape (batch, L, rows, columns), 0 to 1.
    regions
        Number of each position's region, shape (batch, scales, rows, columns), from 0 on.

    Returns
    -------
    Mean of each label over the position's region, shape (batch, L, scales, rows, columns), 0 to 1; a gradient passes.
    """
    batch, count = labels.shape[:2]
    scales, size = regions.shape[1], regions.shape[2:]
    numbers = regions.flatten(2)  # (batch, scales, positions)
    most = int(numbers.max()) + 1
    positions = torch.ones_like(numbers, dtype=labels.dtype)
    area = labels.new_zeros(batch, scales, most).scatter_add(2, numbers, positions)
    each = numbers[:, None].expand(-1, count, -1, -1)
    values = labels.flatten(2)[:, :, None].expand(-1, -1, scales, -1)
    total = values.new_zeros(batch, count, scales, most).scatter_add(3, each, values)
    share = (total / area[:, None].clamp_min(1.0)).gather(3, each)
    return share.reshape(batch, count, scales, *size)
