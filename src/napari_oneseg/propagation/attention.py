"""Windowed attention between two slices: the one operation that both learning and propagation use (paper 1.5).

``readout(local_affinity(q, k, P), y)`` is eq. 8 and 9 of the paper: every target position copies a weighted mean of
the values in the P x P window round the same position of the reference slice.

Strategy: computed position by position, this is P x P shifted products, bound by memory traffic. Instead the map is
cut into tiles of 8 x 8 queries; all their windows lie in one (8 + P - 1)-sided square of the reference, so a tile is
one small matrix product whose entries outside a query's window are masked. About twice the arithmetic, but in matrix
products. Tiles in which nothing can be copied are left out altogether.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["LocalAffinity", "local_affinity", "readout", "tiles_holding", "tiles_within_reach"]

TILE = 8


@dataclass(frozen=True)
class LocalAffinity:
    """Attention weights between a target and a reference map, stored tile by tile.

    Attributes
    ----------
    weights
        Shape (batch, tiles, 64 queries, side x side reference positions), float; rows sum to 1.
    matched
        Share of each query that the window won over the null match, shape (batch, tiles, 64, 1), 0 to 1; None where
        there is no null match. The weight of a reference position is the product of both.
    tiles
        Indices of the tiles that were computed, row-major over the tile grid; shared by the batch.
    shape
        Rows and columns of the maps.
    window
        Side P of the window.
    """

    weights: Tensor
    matched: Tensor | None
    tiles: Tensor
    shape: tuple[int, int]
    window: int

    def dense(self) -> Tensor:
        """Return the weights by position and window offset, shape (batch, rows, columns, P, P).

        Entry [b, i, j, u, v] is the weight of reference position (i + u - P//2, j + v - P//2); 0 outside the map and
        in tiles that were left out.
        """
        batch = self.weights.shape[0]
        rows, columns = _tile_grid(self.shape)
        side = TILE + self.window - 1
        weights = self.weights.new_zeros(batch, rows * columns, TILE, TILE, side, side)
        chosen = self.weights if self.matched is None else self.weights * self.matched
        weights[:, self.tiles] = chosen.view(batch, -1, TILE, TILE, side, side)
        dense = weights.new_empty(batch, rows * columns, TILE, TILE, self.window, self.window)
        for i in range(TILE):
            for j in range(TILE):
                dense[:, :, i, j] = weights[:, :, i, j, i : i + self.window, j : j + self.window]
        dense = dense.view(batch, rows, columns, TILE, TILE, self.window, self.window).permute(0, 1, 3, 2, 4, 5, 6)
        dense = dense.reshape(batch, rows * TILE, columns * TILE, self.window, self.window)
        return dense[:, : self.shape[0], : self.shape[1]]


def local_affinity(
    query: Tensor, key: Tensor, window: int, tiles: Tensor | None = None, null_bias: Tensor | float | None = None
) -> LocalAffinity:
    """Return the attention of each target position over the window round it (paper eq. 9).

    ``a_ij = softmax over j in P(i) of <q_i, k_j> / sqrt(C)``. Positions outside the map take no part.

    A softmax has to give its whole weight to the window, even where the target shows something that the window does
    not: tissue that begins on this slice would be labelled as whatever was there before. So a *null match* may compete
    with the window: its logit is the target's similarity to itself, ``<q_i, q_i> / sqrt(C)``, plus a bias. Where
    nothing in the window is about as similar to a position as the position is to itself, the null match wins, and
    nothing is copied. It goes beyond the paper.

    Parameters
    ----------
    query, key
        Features of the target and of the reference slice, shape (batch, C, rows, columns), same dtype.
    window
        Side P of the square window, odd.
    tiles
        Boolean mask over the tile grid, as :func:`tiles_within_reach` returns it; by default all tiles.
    null_bias
        Bias of the null match, a scalar; no null match by default.

    Returns
    -------
    The weights, differentiable with respect to ``query``, ``key`` and ``null_bias``.
    """
    if query.shape != key.shape or query.ndim != 4:
        raise ValueError(f"query and key must share a shape (batch, C, rows, columns), got {query.shape}, {key.shape}")
    if window % 2 == 0:
        raise ValueError(f"window must be odd, got {window}")
    channels = query.shape[1]
    shape = query.shape[2], query.shape[3]
    chosen = _chosen_tiles(tiles, shape, query.device)
    batch, count, positions = query.shape[0], len(chosen), TILE * TILE
    queries = _cut(query, 0, chosen).transpose(2, 3)  # (batch, tiles, 64, C)
    keys = _cut(key, window // 2, chosen)  # (batch, tiles, C, side * side)
    # The mask comes in as the product's addend: one pass over the logits less than masking them afterwards.
    mask = _window_mask(window, query.device).to(query.dtype).expand(count, -1, -1)
    everywhere = query.new_ones(1, 1, *shape)
    inside = _cut(everywhere, window // 2, chosen)[0].bool()  # (tiles, 1, side * side)
    if not bool(inside.all()):
        mask = torch.where(inside, mask, -math.inf)
    if shape[0] % TILE or shape[1] % TILE:
        # A query in the padding beyond the map may have nothing in reach, and a softmax of nothing is NaN, which would
        # reach the gradients: such queries see everything instead, and are cut off in the end.
        real = _cut(everywhere, 0, chosen)[0].bool().transpose(1, 2)  # (tiles, 64, 1)
        mask = torch.where(real, mask, 0.0)
    logits = torch.baddbmm(
        mask.repeat(batch, 1, 1) if batch > 1 else mask,
        queries.reshape(batch * count, positions, channels),
        keys.reshape(batch * count, channels, keys.shape[-1]),
        alpha=1.0 / math.sqrt(channels),
    ).view(batch, count, positions, keys.shape[-1])
    weights = logits.softmax(-1)
    matched = None
    if null_bias is not None:
        # log(sum(exp(logits))), from the softmax that is there already: a row's greatest weight is exp(max - that).
        total = logits.amax(-1, keepdim=True) - weights.amax(-1, keepdim=True).log()
        null = queries.square().sum(-1, keepdim=True) / math.sqrt(channels) + null_bias
        matched = torch.sigmoid(total - null)
    return LocalAffinity(weights, matched, chosen, shape, window)


def readout(affinity: LocalAffinity, values: Tensor, fill: Tensor | float = 0.0) -> Tensor:
    """Copy values from the reference slice with the given attention (paper eq. 8).

    Parameters
    ----------
    affinity
        From :func:`local_affinity`.
    values
        Shape (batch, L, rows, columns): the reference's grey values when learning, its labels when propagating.
    fill
        Value of the tiles that were left out, broadcastable to (batch, L, 1, 1).

    Returns
    -------
    Shape (batch, L, rows, columns).
    """
    cut = _cut(values, affinity.window // 2, affinity.tiles)  # (batch, tiles, L, side * side)
    copied = torch.matmul(affinity.weights, cut.transpose(2, 3).to(affinity.weights.dtype))  # (batch, tiles, 64, L)
    if affinity.matched is not None:
        copied = copied * affinity.matched
    rows, columns = _tile_grid(affinity.shape)
    batch, labels = values.shape[:2]
    if copied.shape[1] == rows * columns:
        every = copied
    else:
        base = torch.as_tensor(fill, dtype=copied.dtype, device=copied.device)
        base = base.expand(batch, labels, 1, 1).reshape(batch, 1, 1, labels)
        every = base.expand(batch, rows * columns, TILE * TILE, labels).clone()
        every[:, affinity.tiles] = copied
    every = every.view(batch, rows, columns, TILE, TILE, labels).permute(0, 5, 1, 3, 2, 4)
    return every.reshape(batch, labels, rows * TILE, columns * TILE)[..., : affinity.shape[0], : affinity.shape[1]]


def tiles_within_reach(mask: Tensor, window: int) -> Tensor:
    """Return which tiles can copy something from the set positions of ``mask`` through a window.

    Parameters
    ----------
    mask
        Boolean, shape (rows, columns), on the reference slice.
    window
        Side P of the window.

    Returns
    -------
    Boolean, shape (tile rows, tile columns).
    """
    cut = _cut(mask[None, None].float(), window // 2)[0, :, 0]  # (tiles, side * side)
    return cut.amax(-1).view(_tile_grid((mask.shape[0], mask.shape[1]))) > 0


def tiles_holding(mask: Tensor) -> Tensor:
    """Return which tiles hold set positions of ``mask``, (rows, columns): boolean, shape (tile rows, tile columns)."""
    return tiles_within_reach(mask, 1)


def _tile_grid(shape: tuple[int, int]) -> tuple[int, int]:
    return -(-shape[0] // TILE), -(-shape[1] // TILE)


def _chosen_tiles(tiles: Tensor | None, shape: tuple[int, int], device: torch.device) -> Tensor:
    if tiles is None:
        rows, columns = _tile_grid(shape)
        return torch.arange(rows * columns, device=device)
    return torch.nonzero(tiles.flatten().to(device)).flatten()


def _cut(maps: Tensor, halo: int, chosen: Tensor | None = None) -> Tensor:
    """Cut (batch, C, rows, columns) into tiles with a zero-padded halo: (batch, tiles, C, side * side).

    Only the chosen tiles are copied; by default all.
    """
    batch, channels, height, width = maps.shape
    rows, columns = _tile_grid((height, width))
    side = TILE + 2 * halo
    padded = functional.pad(maps, (halo, halo + columns * TILE - width, halo, halo + rows * TILE - height))
    views = padded.unfold(2, side, TILE).unfold(3, side, TILE)  # (batch, C, rows, columns, side, side), not copied
    if chosen is None:
        tiles = views.reshape(batch, channels, rows * columns, side * side)
    else:
        tiles = views[:, :, chosen // columns, chosen % columns].reshape(batch, channels, len(chosen), side * side)
    return tiles.transpose(1, 2)


@lru_cache(maxsize=8)
def _window_mask(window: int, device: torch.device) -> Tensor:
    """Return 0 where a query of a tile may see a position of its neighbourhood, else -inf: (64, side * side)."""
    side = TILE + window - 1
    query = torch.arange(TILE, device=device)
    place = torch.arange(side, device=device)
    near = (place[None] >= query[:, None]) & (place[None] < query[:, None] + window)  # (8, side) along one axis
    seen = (near[:, None, :, None] & near[None, :, None, :]).reshape(TILE * TILE, side * side)
    return torch.zeros(seen.shape, device=device).masked_fill_(~seen, -math.inf)
