"""There and back: labels are copied to the next slice, and what arrived is sent back to see whether it returns.

One function with several ways to compute it, all checked against the plain double loop over positions:

- on a CPU, strips of the slice, each similarity computed once for both ways
  (:mod:`~napari_oneseg.propagation.exchange_strips`);
- on an NVIDIA GPU, one kernel for each way that keeps no similarities at all
  (:mod:`~napari_oneseg.propagation.exchange_fused`);
- everywhere, and where a gradient is wanted, the tiles of :mod:`~napari_oneseg.propagation.attention`.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from napari_oneseg.propagation.attention import LocalAffinity, local_affinity, readout, tiles_holding
from napari_oneseg.propagation.crossing import Crossing, Exchange
from napari_oneseg.propagation.exchange_strips import by_strips

__all__ = ["by_tiles", "exchange"]


def exchange(crossing: Crossing) -> Exchange:
    """Copy maps from the reference to the target slice, and send the labels among them back (paper eq. 8 and 9)."""
    found = None
    if not torch.is_grad_enabled():
        if crossing.target.device.type == "cpu":
            found = by_strips(crossing)
        elif crossing.target.device.type == "cuda":
            from napari_oneseg.propagation.exchange_fused import by_fused_kernel

            found = by_fused_kernel(crossing)
    return found or by_tiles(crossing)


def by_tiles(crossing: Crossing) -> Exchange:
    """Do it on any device and with a gradient."""
    there, back = crossing.target[None], crossing.reference[None]
    window, null_bias, labels = crossing.window, crossing.null_bias, crossing.labels
    forward = local_affinity(there, back, window, tiles_holding(crossing.region), null_bias)
    copied, matched = _read(forward, crossing.maps)
    arrived = crossing.spared(copied[: len(labels)], matched)
    backward = local_affinity(back, there, window, tiles_holding((labels > 0.0).any(0)), null_bias)
    returned, matched_back = _read(backward, arrived)
    return Exchange(copied, matched, crossing.spared(returned, matched_back))


def _read(affinity: LocalAffinity, maps: Tensor) -> tuple[Tensor, Tensor]:
    """Read maps out as if there were no null match; return also the share that it has left, (rows, columns)."""
    everywhere = torch.ones_like(maps[:1])
    matched = everywhere if affinity.matched is None else readout(affinity, everywhere[None], fill=1.0)[0]
    return readout(replace(affinity, matched=None), maps[None])[0], matched[0]
