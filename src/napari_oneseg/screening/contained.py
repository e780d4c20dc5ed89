"""Tissue that a range of slices contains: how much of the target a slice is likely to show, before anything is painted.

The range is the rough extent of a target, so the target is what lies within it *entirely*: its tissue traces back to
nothing on the range's first slice and to nothing on the last. All other tissue comes in at one end or goes out at the
other. Strategy: mark the whole first slice and carry the mark through the range by the attention that labels travel
with, once from each end. Where nothing matches, the null match wins and the mark is lost; what neither mark has reached
begins and ends within the range. The more of it a slice shows, the more a painted label there has to give.

Goes beyond the paper, whose representative score does not know what is wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from napari_oneseg.features.extractor import FeatureStack
from napari_oneseg.propagation.attention import local_affinity, readout

__all__ = ["contained_share"]

# Pairs of positions are enough here, and cost a sixteenth of the attention; the window reaches as far as propagation's.
_POOL = 2
_WINDOW = 7


@torch.inference_mode()
def contained_share(stack: FeatureStack, first: int, last: int) -> NDArray[np.float32]:
    """Return the share of each slice that begins and ends within a range.

    Parameters
    ----------
    stack
        Features of the scan.
    first, last
        The range, both included.

    Returns
    -------
    Shape (last - first + 1,), 0 to 1; 0 on the first and on the last slice.
    """
    coarse = [
        functional.avg_pool2d(features.float()[None], _POOL, ceil_mode=True)
        for features in stack.maps[first : last + 1]
    ]
    # A network without a null match has learned no bias; its features are compared with themselves all the same.
    bias = 0.0 if stack.null_bias is None else stack.null_bias
    came = _marked(coarse, bias)
    goes = _marked(coarse[::-1], bias)[::-1]
    shares = [(1.0 - a) * (1.0 - b) for a, b in zip(came, goes, strict=True)]
    return np.array([float(share.mean()) for share in shares], dtype=np.float32)


def _marked(coarse: Sequence[Tensor], bias: float) -> list[Tensor]:
    """Return how much of each position traces back to the first slice, each (1, 1, rows, columns), 0 to 1."""
    marks = [torch.ones_like(coarse[0][:, :1])]
    for reference, target in pairwise(coarse):
        marks.append(readout(local_affinity(target, reference, _WINDOW, null_bias=bias), marks[-1]))
    return marks
