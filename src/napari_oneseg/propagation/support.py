"""Parts of a label that have no support: they came up where little was copied from the label.

A label that ends beside something alike jumps over to it: a spleen to the kidney below, a liver to the heart above. The
refiner draws the borders of the wrong organ as sharply as those of the right one, so on the slices that follow nothing
gives it away. On the first slice something does: what was copied there is a guess of one half, where the label itself
is copied with near certainty. How certain depends on the label, a thin vessel never comes through whole; so each
connected part is compared with what has been usual for its own label on the way so far.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

__all__ = ["drop_unsupported"]

# Weight of the present slice in what is usual for a label.
_RATE = 0.3
# The rim of a part that is dropped goes with it, in positions.
_RIM = 2


def drop_unsupported(
    refined: Tensor, copied: Tensor, usual: NDArray[np.float64], share: float, least: float
) -> tuple[Tensor, NDArray[np.float64]]:
    """Drop the connected parts of labels that little was copied to.

    The support of a part is the mean of what was copied there.

    Parameters
    ----------
    refined, copied
        Labels after and before they were refined, shape (L, rows, columns), 0 to 1.
    usual
        Support that has been usual for each label, shape (L,); NaN before its first step.
    share
        A part is dropped whose support is below this share of the usual one.
    least
        A part is dropped whose support is below this.

    Returns
    -------
    The labels without these parts, a gradient passing through what is left, and the usual support from now on.
    """
    keep = torch.ones_like(refined)
    usual = usual.copy()
    shown = (refined.detach() > 0.5).cpu().numpy()
    before = copied.detach().float().cpu().numpy()
    for label in np.flatnonzero(shown.any((1, 2))):
        parts, count = ndimage.label(shown[label])
        numbers = np.arange(1, count + 1)
        support = np.asarray(ndimage.mean(before[label], parts, numbers))
        area = np.bincount(parts.ravel())[1:]
        known = not np.isnan(usual[label])
        held = support >= max(least, share * usual[label] if known else 0.0)
        if held.any():
            now = float(np.average(support[held], weights=area[held]))
            usual[label] = (1.0 - _RATE) * usual[label] + _RATE * now if known else now
        if not held.all():
            dropped = ndimage.binary_dilation(np.isin(parts, numbers[~held]), iterations=_RIM)
            dropped &= ~np.isin(parts, numbers[held])
            keep[int(label)][torch.from_numpy(dropped).to(keep.device)] = 0.0
    return refined * keep, usual
