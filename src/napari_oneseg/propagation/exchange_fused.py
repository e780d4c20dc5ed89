"""There and back on an NVIDIA GPU, see :mod:`napari_oneseg.propagation.exchange`: one kernel for each way.

Strategy. A program takes a tile of 8 x 8 queries and walks over the positions that their windows cover, some at a time.
Similarities, their softmax with a running maximum, and the sums of what is copied stay in registers; only the copies
are written. Nothing of the size of the windows ever reaches memory, which is what bounds the other ways on a GPU.

Features are kept in half precision, so their products are exact in the kernel's single-precision sums.

It needs Triton, which comes with PyTorch for CUDA. Triton's interpreter runs the same kernel on a CPU in the tests.
"""

from __future__ import annotations

import math
import warnings
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from napari_oneseg.propagation.attention import TILE, tiles_holding
from napari_oneseg.propagation.crossing import Crossing, Exchange

__all__ = ["by_fused_kernel", "gather"]

_KEYS = 32
"""Positions that a program looks at together."""
_SMALLEST = 16
"""Least side of a matrix product in Triton."""

_given_up = False


def by_fused_kernel(crossing: Crossing) -> Exchange | None:
    """Do it on an NVIDIA GPU; None where there is no working Triton. There is no gradient."""
    global _given_up  # noqa: PLW0603 - whether a kernel can be built does not change while the program runs
    if _given_up or find_spec("triton") is None:
        return None
    target, reference, labels = crossing.target, crossing.reference, crossing.labels
    window, null_bias = crossing.window, crossing.null_bias
    try:
        copied, matched = gather(target, reference, crossing.maps, tiles_holding(crossing.region), window, null_bias)
        arrived = crossing.spared(copied[: len(labels)], matched)
        sent = tiles_holding((labels > 0.0).any(0))
        returned, matched_back = gather(reference, target, arrived, sent, window, null_bias)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a compiler or driver that does not fit raises
        _given_up = True
        warnings.warn(f"The GPU kernel cannot be used here, slower ones are ({type(error).__name__}).", stacklevel=2)
        return None
    return Exchange(copied, matched, crossing.spared(returned, matched_back))


def gather(
    query: Tensor, key: Tensor, maps: Tensor, tiles: Tensor, window: int, null_bias: float | None
) -> tuple[Tensor, Tensor]:
    """Copy maps to the positions of some tiles (paper eq. 8 and 9).

    Parameters
    ----------
    query, key
        Features of the slice that is copied to and of the one that is copied from, shape (C, rows, columns).
    maps
        Shape (maps, rows, columns), float32.
    tiles
        Boolean, shape (tile rows, tile columns), of :func:`~napari_oneseg.propagation.attention.tiles_holding`.
    window
        Side of the window, odd.
    null_bias
        Bias of the null match, if there is to be one.

    Returns
    -------
    Weighted means without the null match, shape (maps, rows, columns), 0 in other tiles; and the share that the null
    match has left, shape (rows, columns), 1 in other tiles.
    """
    import triton

    channels, rows, columns = query.shape
    copied, matched = torch.zeros_like(maps), torch.ones_like(maps[0])
    chosen = tiles.flatten().nonzero().flatten().to(torch.int32)
    if not len(chosen):
        return copied, matched
    # Channels last, so that what belongs to a position is read together.
    queries, keys = (features.permute(1, 2, 0).half().contiguous() for features in (query, key))
    values = maps.permute(1, 2, 0).contiguous()
    sides = (max(_SMALLEST, triton.next_power_of_2(count)) for count in (channels, len(maps)))
    channel_side, map_side = sides
    _kernel()[(len(chosen),)](
        queries, keys, values, chosen, copied, matched,
        rows, columns, channels, len(maps), tiles.shape[1],
        1.0 / math.sqrt(channels), 0.0 if null_bias is None else null_bias,
        HAS_NULL=null_bias is not None, WINDOW=window, TILE=TILE, KEYS=_KEYS, CHANNELS=channel_side, MAPS=map_side,
    )  # fmt: skip
    return copied, matched


def _kernel() -> Any:
    """Return the kernel, imported where it is used: Triton is not everywhere."""
    from napari_oneseg.propagation.fused_kernel import gather_kernel

    return gather_kernel
