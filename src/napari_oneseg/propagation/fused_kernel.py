# ruff: noqa: N803, N806 - Triton's compile-time constants are written in capitals
"""The kernel of :mod:`napari_oneseg.propagation.exchange_fused`; importing it needs Triton."""

from typing import Any

import triton
import triton.language as tl

__all__ = ["gather_kernel"]


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def gather_kernel(
    queries: Any,
    keys: Any,
    values: Any,
    chosen: Any,
    copied: Any,
    matched: Any,
    rows: Any,
    columns: Any,
    channels: Any,
    maps: Any,
    tile_columns: Any,
    scale: Any,
    null_bias: Any,
    HAS_NULL: tl.constexpr,
    WINDOW: tl.constexpr,
    TILE: tl.constexpr,
    KEYS: tl.constexpr,
    CHANNELS: tl.constexpr,
    MAPS: tl.constexpr,
) -> None:
    """Copy to one tile; see :func:`~napari_oneseg.propagation.exchange_fused.gather`.

    ``queries``, ``keys``: (rows, columns, channels), half; ``values``: (rows, columns, maps), float; ``copied``: (maps,
    rows, columns) and ``matched``: (rows, columns), float, are written.
    """
    SIDE: tl.constexpr = TILE + WINDOW - 1
    HALF: tl.constexpr = WINDOW // 2
    tile = tl.load(chosen + tl.program_id(0))
    top = tile // tile_columns * TILE
    left = tile % tile_columns * TILE
    own = tl.arange(0, TILE * TILE)
    own_row, own_column = own // TILE, own % TILE
    inside = (top + own_row < rows) & (left + own_column < columns)
    place = (top + own_row) * columns + left + own_column
    channel = tl.arange(0, CHANNELS)
    looks = tl.load(
        queries + place[:, None] * channels + channel[None, :],
        mask=inside[:, None] & (channel < channels)[None, :],
        other=0.0,
    )
    which = tl.arange(0, MAPS)
    greatest = tl.full((TILE * TILE,), -1e30, tl.float32)
    total = tl.zeros((TILE * TILE,), tl.float32)
    sums = tl.zeros((TILE * TILE, MAPS), tl.float32)
    for first in range(0, SIDE * SIDE, KEYS):
        seen = first + tl.arange(0, KEYS)
        seen_row, seen_column = seen // SIDE, seen % SIDE
        row, column = top - HALF + seen_row, left - HALF + seen_column
        real = (seen < SIDE * SIDE) & (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        there = row * columns + column
        others = tl.load(
            keys + there[:, None] * channels + channel[None, :],
            mask=real[:, None] & (channel < channels)[None, :],
            other=0.0,
        )
        alike = tl.dot(looks, tl.trans(others)) * scale
        # Seen from its own place in the tile, a query's window begins there.
        down = seen_row[None, :] - own_row[:, None]
        along = seen_column[None, :] - own_column[:, None]
        near = (down >= 0) & (down < WINDOW) & (along >= 0) & (along < WINDOW) & real[None, :]
        alike = tl.where(near, alike, -float("inf"))
        highest = tl.maximum(greatest, tl.max(alike, 1))
        weights = tl.exp(alike - highest[:, None])
        shrink = tl.exp(greatest - highest)
        held = tl.load(
            values + there[:, None] * maps + which[None, :],
            mask=real[:, None] & (which < maps)[None, :],
            other=0.0,
        )
        total = total * shrink + tl.sum(weights, 1)
        # Not in the shorter floats that GPUs prefer: labels are carried over many slices.
        sums = sums * shrink[:, None] + tl.dot(weights, held, input_precision="ieee")
        greatest = highest
    # Beyond the slice's border a query may have seen nothing: it is not stored, but nothing shall overflow either.
    means = sums / tl.maximum(total, 1e-30)[:, None]
    target = which[None, :] * (rows * columns) + place[:, None]
    tl.store(copied + target, means, mask=inside[:, None] & (which < maps)[None, :])
    if HAS_NULL:
        itself = tl.sum(looks.to(tl.float32) * looks.to(tl.float32), 1) * scale + null_bias
        tl.store(matched + place, total / (total + tl.exp(tl.minimum(itself - greatest, 80.0))), mask=inside)
