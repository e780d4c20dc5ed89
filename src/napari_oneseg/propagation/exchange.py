"""There and back: labels are copied to the next slice, and what arrived is sent back to see whether it returns.

One function with several ways to compute it, all checked against the plain double loop over positions:

- on a CPU, strips of the slice, each similarity computed once for both ways
  (:mod:`~napari_oneseg.propagation.exchange_strips`);
- on an NVIDIA GPU, one kernel for each way that keeps no similarities at all
  (:mod:`~napari_oneseg.propagation.exchange_fused`);
- everywhere, and where a gradient is wanted, the tiles of :mod:`~napari_oneseg.propagation.attention`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from napari_oneseg.propagation.attention import LocalAffinity, local_affinity, readout, spared, tiles_holding
from napari_oneseg.propagation.exchange_strips import by_strips

__all__ = ["Exchange", "by_tiles", "exchange"]


@dataclass(frozen=True, eq=False)
class Exchange:
    """What was copied to the target slice, and what has come back from there.

    Attributes
    ----------
    copied
        Means over the window, without the null match, shape (maps, rows, columns); it holds within the region.
    matched
        Share that the null match has left, shape (rows, columns), 0 to 1; it holds within the region.
    returned
        What came back to the reference slice of the labels among the maps, shape (L, rows, columns), null match
        included. It holds for positions that sent something and whose windows lie in the region or outside the slice.
    """

    copied: Tensor
    matched: Tensor
    returned: Tensor


def exchange(
    target: Tensor,
    reference: Tensor,
    maps: Tensor,
    region: Tensor,
    window: int,
    null_bias: float | None,
    bridged: Tensor,
) -> Exchange:
    """Copy maps from the reference to the target slice, and send the labels among them back (paper eq. 8 and 9).

    Parameters
    ----------
    target, reference
        Features of the two slices, shape (C, rows, columns), float32.
    maps
        What is copied, shape (maps, rows, columns), float32; the labels come first.
    region
        Where on the target slice it is wanted, shape (rows, columns), boolean.
    window
        Side of the attention window, odd.
    null_bias
        Bias of the attention's null match, if there is to be one.
    bridged
        Labels from which the null match takes nothing, shape (L,), boolean.
    """
    given = target, reference, maps, region, window, null_bias, bridged
    found = None
    if not torch.is_grad_enabled():
        if target.device.type == "cpu":
            found = by_strips(*given)
        elif target.device.type == "cuda":
            from napari_oneseg.propagation.exchange_fused import by_fused_kernel

            found = by_fused_kernel(*given)
    return Exchange(*(found or by_tiles(*given)))


def by_tiles(
    target: Tensor,
    reference: Tensor,
    maps: Tensor,
    region: Tensor,
    window: int,
    null_bias: float | None,
    bridged: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what :class:`Exchange` holds, on any device and with a gradient; parameters as for :func:`exchange`."""
    labels = maps[: len(bridged)]
    forward = local_affinity(target[None], reference[None], window, tiles_holding(region), null_bias)
    copied, matched = _read(forward, maps)
    arrived = spared(copied[: len(labels)], matched, bridged)
    backward = local_affinity(reference[None], target[None], window, tiles_holding((labels > 0.0).any(0)), null_bias)
    returned, matched_back = _read(backward, arrived)
    return copied, matched, spared(returned, matched_back, bridged)


def _read(affinity: LocalAffinity, maps: Tensor) -> tuple[Tensor, Tensor]:
    """Read maps out as if there were no null match; return also the share that it has left, (rows, columns)."""
    everywhere = torch.ones_like(maps[:1])
    matched = everywhere if affinity.matched is None else readout(affinity, everywhere[None], fill=1.0)[0]
    return readout(replace(affinity, matched=None), maps[None])[0], matched[0]
