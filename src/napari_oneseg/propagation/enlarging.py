"""From soft labels on the feature grid to decided voxels on the scan's own, only where a label is or might be.

Strategy. Enlarging is linear along each axis, so it is a product with one matrix per axis, and a part of the result
needs only a part of the maps: outside the box of what has arrived every voxel is certain background.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from napari_oneseg.preprocessing import WorkingGrid
from napari_oneseg.propagation.confidence import voxel_confidence

__all__ = ["decided_on_source", "resizing"]


def decided_on_source(
    soft: Tensor, reliability: Tensor, grid: WorkingGrid, presence: float
) -> tuple[NDArray[np.int16], NDArray[np.float16], NDArray[np.bool_]]:
    """Enlarge smoothly, then decide: the borders follow the probabilities instead of the coarse grid.

    Parameters
    ----------
    soft
        Probability of each label, shape (L, rows, columns) of the feature grid, 0 to 1; at least one label.
    reliability
        Of each label, same shape, 0 to 1.
    grid
        Leads to the scan's grid.
    presence
        Where all labels together have more probability than this, one of them might be.

    Returns
    -------
    On the scan's grid, shape (rows, columns): the place of the label from 1 on, 0 for background; the confidence, 0 to
    1; and whether a label is or might be there.
    """
    places = np.zeros(grid.source, np.int16)
    confidence = np.ones(grid.source, np.float16)
    present = np.zeros(grid.source, bool)
    arrived = (soft > 0.0).any(0)
    if not bool(arrived.any()):
        return places, confidence, present
    rows, own_rows, row_weights = _span(arrived.any(1), grid.features[0], grid.source[0])
    columns, own_columns, column_weights = _span(arrived.any(0), grid.features[1], grid.source[1])
    maps = torch.cat([soft, reliability])[:, own_rows, own_columns].float()
    maps = row_weights.to(maps.device) @ maps @ column_weights.T.to(maps.device)
    soft, reliability = maps[: len(soft)], maps[len(soft) :]
    total = soft.sum(0)
    probabilities = torch.cat([(1.0 - total).clamp_min(0.0)[None], soft])
    here = rows, columns
    places[here] = _most_probable(probabilities).cpu().numpy()
    confidence[here] = voxel_confidence(probabilities, reliability).half().cpu().numpy()
    present[here] = (total > presence).cpu().numpy()
    return places, confidence, present


def _span(arrived: Tensor, size: int, to: int) -> tuple[slice, slice, Tensor]:
    """Return which voxels along an axis the positions that something ``arrived`` on, (size,), have a part in.

    Returns
    -------
    The voxels, all positions that have a part in these, and the weights that lead from the positions to the voxels.
    """
    matrix = resizing(size, to)
    voxels = _extent((matrix[:, arrived.cpu()] != 0.0).any(1))
    positions = _extent((matrix[voxels] != 0.0).any(0))
    return voxels, positions, matrix[voxels, positions]


def _extent(chosen: Tensor) -> slice:
    found = chosen.nonzero().flatten()
    return slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 0)


def _most_probable(probabilities: Tensor) -> Tensor:
    """Return the first most probable class of each position, (rows, columns), of (classes, rows, columns)."""
    # Class by class: torch's argmax along the first axis is many times slower on a CPU.
    place = torch.zeros(probabilities.shape[1:], dtype=torch.int16, device=probabilities.device)
    best = probabilities[0]
    for k, probability in enumerate(probabilities[1:], 1):
        place.masked_fill_(probability > best, k)
        best = torch.maximum(best, probability)
    return place


@lru_cache(maxsize=8)
def resizing(size: int, to: int) -> Tensor:
    """Return the matrix, (to, size), by which :class:`WorkingGrid` resizes along one axis."""
    one = torch.eye(size)
    if size == to:
        return one
    resized = functional.interpolate(one[None, None], (to, size), mode="bilinear", antialias=True, align_corners=False)
    return resized[0, 0]
