"""There and back in one pass on a CPU, see :mod:`napari_oneseg.propagation.exchange`.

Strategy. The way back compares the same pairs of positions as the way there: what ``j`` receives from ``i`` is weighted
by the similarity that weighted what ``i`` received from ``j``. Only the sums run over the other index. So each
similarity is computed once, and its exponential serves both softmaxes, there summed along rows, back along columns.
A softmax needs its greatest logit only against overflow; where similarities are bounded, as learned ones are, there
is none, and four passes over the largest array become one.

The slice is cut into strips of 8 columns, each into blocks of 2 rows; the windows of a block are rows of the strip that
follow each other in memory, so that a block is a matrix product that takes its operands where they lie.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

from napari_oneseg.propagation.crossing import Crossing, Exchange

__all__ = ["by_strips"]

_COLUMNS = 8
_ROWS = 2
# exp(40) and exp(-40) are far from single precision's ends.
_LARGEST = 40.0


def by_strips(crossing: Crossing) -> Exchange | None:
    """Do it on a CPU; None where similarities might overflow.

    It is quickest with the features' channels last in memory. There is no gradient.
    """
    target, reference, maps, region = crossing.target, crossing.reference, crossing.maps, crossing.region
    window, null_bias = crossing.window, crossing.null_bias
    scale = 1.0 / math.sqrt(target.shape[0])
    queries, keys = target.permute(1, 2, 0).contiguous(), reference.permute(1, 2, 0).contiguous()
    alike = [torch.linalg.vector_norm(features, dim=2).square_().mul_(scale) for features in (queries, keys)]
    # No similarity exceeds the greatest one of a position to itself.
    if max(float(itself.max()) for itself in alike) > _LARGEST:
        return None
    null = [torch.zeros_like(itself) if null_bias is None else (itself + null_bias).exp_() for itself in alike]
    height, width = maps.shape[1:]
    labels, half = len(crossing.bridged), window // 2
    # What lies outside the slice has values of 0, and 0 for the 1 that weights are counted by.
    values = torch.cat([maps, torch.ones_like(maps[:1])])
    copied, matched = torch.zeros_like(maps), torch.ones_like(maps[0])
    back = maps.new_zeros(labels + 1, height + 2 * half + _ROWS, width + 2 * half + _COLUMNS)
    for first, last, column in _strips(region):
        blocks = -(-(last - first) // _ROWS)
        rows, side = blocks * _ROWS, _COLUMNS + 2 * half
        inside = slice(first, min(first + rows, height)), slice(column, min(column + _COLUMNS, width))
        reach = first - half, column - half, rows + 2 * half, side
        own = _patch(queries, first, column, rows, _COLUMNS).view(blocks, _ROWS * _COLUMNS, -1)
        weights = _weights(own, _patch(keys, *reach), window, scale)
        sums = _read_out(weights, _patch(values.permute(1, 2, 0), *reach).permute(2, 0, 1).contiguous(), window)
        sums = sums[:, : inside[0].stop - first, : inside[1].stop - column]
        share = sums[-1] / (sums[-1] + null[0][inside])
        copied[(slice(None), *inside)] = sums[:-1] / sums[-1]
        matched[inside] = share
        sent = maps.new_zeros(labels + 1, rows, _COLUMNS)
        arrived = crossing.spared(copied[(slice(labels), *inside)], share)
        sent[:, : sums.shape[1], : sums.shape[2]] = torch.cat([arrived, torch.ones_like(share)[None]])
        back[:, first : first + reach[2], column : column + side] += _hand_back(weights, sent, window)
    back = back[:, half : half + height, half : half + width]
    total = back[-1].clamp_min(1e-30)
    returned = crossing.spared(back[:-1] / total, total / (total + null[1]))
    return Exchange(copied, matched, returned)


def _weights(own: Tensor, strip: Tensor, window: int, scale: float) -> Tensor:
    """Return exp(similarity) of each block's queries, (blocks, queries, C), to what they see: (..., positions)."""
    _, side, channels = strip.shape
    seen = (_ROWS + window - 1) * side
    keys = strip.as_strided((len(own), seen, channels), (_ROWS * side * channels, channels, 1))
    return torch.baddbmm(_block_mask(window), own, keys.transpose(1, 2), alpha=scale).exp_()


def _read_out(weights: Tensor, strip: Tensor, window: int) -> Tensor:
    """Return the weighted sums of a strip's values, (maps, rows + window - 1, side): (maps, rows, 8)."""
    maps, rows, side = strip.shape
    seen = (_ROWS + window - 1) * side
    held = strip.as_strided((len(weights), maps, seen), (_ROWS * side, rows * side, 1))
    # The values stand on the left: a product with few columns is several times slower than one with few rows.
    sums = torch.bmm(held, weights.transpose(1, 2))  # (blocks, maps, queries)
    return sums.transpose(0, 1).reshape(maps, -1, _COLUMNS)


def _hand_back(weights: Tensor, sent: Tensor, window: int) -> Tensor:
    """Return what each position of the strip receives of (maps, rows, 8): (maps, rows + window - 1, side)."""
    blocks, queries, seen = weights.shape
    own = sent.view(len(sent), blocks, queries).transpose(0, 1).contiguous()
    side = seen // (_ROWS + window - 1)
    parts = torch.bmm(own, weights).view(blocks, len(sent), -1, _ROWS * side)
    strip = sent.new_zeros(len(sent), blocks + parts.shape[2] - 1, _ROWS * side)
    for k in range(parts.shape[2]):
        strip[:, k : k + blocks] += parts[:, :, k].transpose(0, 1)
    return strip.view(len(sent), -1, side)


def _strips(region: Tensor) -> Iterator[tuple[int, int, int]]:
    """Yield first and last row, the last one not included, and first column of the strips that cover a region."""
    columns = region.any(0).nonzero().flatten()
    if not len(columns):
        return
    for column in range(int(columns[0]), int(columns[-1]) + 1, _COLUMNS):
        rows = region[:, column : column + _COLUMNS].any(1).nonzero().flatten()
        if len(rows):
            yield int(rows[0]), int(rows[-1]) + 1, column


def _patch(maps: Tensor, row: int, column: int, rows: int, columns: int) -> Tensor:
    """Return a copy of a part of (rows, columns, channels) that may reach beyond it, with 0 there."""
    height, width, channels = maps.shape
    top, bottom = max(row, 0), min(row + rows, height)
    left, right = max(column, 0), min(column + columns, width)
    if (bottom - top, right - left) == (rows, columns):
        return maps[top:bottom, left:right].contiguous()
    patch = maps.new_zeros(rows, columns, channels)
    patch[top - row : bottom - row, left - column : right - column] = maps[top:bottom, left:right]
    return patch


@lru_cache(maxsize=8)
def _block_mask(window: int) -> Tensor:
    """Return 0 where a query of a block may see a position, else -inf: (1, queries, positions)."""

    def near(size: int) -> Tensor:
        query, place = torch.arange(size), torch.arange(size + window - 1)
        return (place[None] >= query[:, None]) & (place[None] < query[:, None] + window)

    seen = near(_ROWS)[:, None, :, None] & near(_COLUMNS)[None, :, None, :]
    seen = seen.reshape(_ROWS * _COLUMNS, -1)
    return torch.zeros(seen.shape).masked_fill_(~seen, -math.inf)[None]
