"""Which grey values of a scan were measured in the body, and which only stand in the file.

Padding outside a scanner's circle, metal, a burnt-in frame, a few huge outliers and a mask of zeros say nothing of the
tissue, but would take the range of a mapping or a window for themselves. Of an ordinary scan next to nothing is left
out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["body_values", "is_padded"]

# All limits are multiples of the range from 5 % to 95 % of the values, so that unit and offset do not matter. Ordinary
# CT and MR scans stay well within them (docs/experiments.md).
_BULK = (5.0, 95.0)
_FENCE = 3.0  # a value this far outside the bulk is an outlier: metal, the bright spot at a coil
# One value that many voxels share, this far below or above the bulk, was filled in. Below there is nothing but air;
# above, a clipped scan may have the brightest tissue.
_GAP_BELOW, _GAP_ABOVE = 0.5, 1.5
_SHARED = 1e-3  # of the voxels: what is meant by many
_MOST = 0.6  # The darkest value counts as this share of all voxels at most: beyond, more of it says nothing new.
_LEAST = 0.01  # of the voxels: where less than this would be left, all there is counts
_ROUNDS = 4
_AIR = 0.1  # of the bulk, from its bottom: where air lies
_BITS = 20  # of a value's digits, by which values are called equal
_MAX_SAMPLES = 250_000


def is_padded(array: NDArray[np.generic], padding: tuple[float, float] | None) -> NDArray[np.bool_] | None:
    """Return where a file says that nothing was measured, or None if it says so nowhere that can be believed.

    Parameters
    ----------
    array
        Grey values, any shape.
    padding
        Lowest and highest value of padding, both included; None if the file names none.
    """
    if padding is None:
        return None
    inside: NDArray[np.bool_] = np.greater_equal(array, padding[0]) & np.less_equal(array, padding[1])
    if not inside.any():
        return None
    others = array[~inside].astype(np.float64)
    if not others.size:
        return None
    bottom, top = np.percentile(others[:: max(1, others.size // _MAX_SAMPLES) | 1], _BULK)
    # Some headers name a value that tissue has: 0 in Hounsfield units, for instance.
    among = padding[1] > bottom + _AIR * (top - bottom) and padding[0] < top
    return None if among else inside


def body_values(values: NDArray[np.generic], padding: tuple[float, float] | None = None) -> NDArray[np.float64]:
    """Choose from grey values those that say something of the body.

    Parameters
    ----------
    values
        Grey values of a scan or of a regular subset, any shape and unit.
    padding
        What the file calls padding: lowest and highest value, both included.

    Returns
    -------
    Shape (n,), at least one. Left out are padding, one value far below or above all else, and outliers; of the darkest
    value, where most voxels have it, only some are kept.
    """
    flat = values.reshape(-1).astype(np.float64)
    padded = is_padded(flat, padding)
    measured = flat if padded is None else flat[~padded]
    low, high = _plausible(measured)
    kept = measured[(measured >= low) & (measured <= high)]
    darkest = kept == kept.min()
    dark, rest = int(np.count_nonzero(darkest)), int(kept.size - np.count_nonzero(darkest))
    fewer = int(rest * _MOST / (1.0 - _MOST))
    if dark <= fewer or rest < _LEAST * kept.size:
        return kept
    return np.concatenate([np.full(fewer, kept[darkest][0]), kept[~darkest]])


def _plausible(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the lowest and the highest grey value that can belong to the body."""
    few = np.sort(values[:: max(1, values.size // _MAX_SAMPLES) | 1])
    kept = few
    for _ in range(_ROUNDS):
        low, high = _without_filling(kept)
        inner = kept[(kept >= low) & (kept <= high)]
        brighter = inner[inner > inner[0]]  # a mask of zeros may be larger than all else
        if brighter.size < _LEAST * few.size:
            break
        bottom, top = np.percentile(brighter, _BULK)
        if bottom == top:
            break
        reach = _FENCE * (top - bottom)
        inner = inner[(inner >= bottom - reach) & (inner <= top + reach)]
        if inner.size == kept.size or inner.size < _LEAST * few.size:
            break
        kept = inner
    # Where nothing was left out of the subset, nothing is left out at all; else what lies beyond the values kept.
    low = -np.inf if kept[0] == few[0] else float(kept[0])
    high = np.inf if kept[-1] == few[-1] else float(kept[-1])
    return low, high


def _without_filling(ordered: NDArray[np.float64]) -> tuple[float, float]:
    """Return the range of sorted grey values without one that many voxels share and that is far from all others."""
    low, high = float(ordered[0]), float(ordered[-1])
    # Resampling leaves a value that was filled in equal only to a few digits.
    mantissa, exponent = np.frexp(ordered)
    rounded = np.ldexp(np.rint(mantissa * 2**_BITS), exponent)
    _, first, counts = np.unique(rounded, return_index=True, return_counts=True)
    shared = np.flatnonzero(counts >= max(2, _SHARED * ordered.size))
    if not shared.size:
        return low, high
    after, before = first[shared[0]] + counts[shared[0]], first[shared[-1]]
    between = ordered[after:before]
    if between.size < max(2, _LEAST * ordered.size):
        return low, high
    bottom, top = np.percentile(between, _BULK)
    if bottom - ordered[after - 1] > _GAP_BELOW * (top - bottom) > 0:
        low = float(ordered[after])
    if ordered[before] - top > _GAP_ABOVE * (top - bottom) > 0:
        high = float(ordered[before - 1])
    return low, high
