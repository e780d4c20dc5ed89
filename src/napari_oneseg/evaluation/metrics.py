"""How well a result agrees with a reference: overlap, volume and surface distance.

Masks are boolean arrays in slice order, (n, rows, columns). Cases without any voxel are defined as follows.

================  =====  ============  =====  =====
                  Dice   extent Dice   RAVD   ASSD
================  =====  ============  =====  =====
both empty        1      1             0      0
only result empty 0      0             100    NaN
only ref. empty   0      0             NaN    NaN
================  =====  ============  =====  =====

A surface that does not exist has no distance, and any number put in its place would decide the mean by itself. NaN is
left out of means, which say how many values they rest on; the miss itself is counted by Dice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt, generate_binary_structure

from napari_oneseg.errors import InputError
from napari_oneseg.volume import LabelArray

__all__ = ["OrganScore", "assd", "dice", "extent_dice", "ravd", "score_labels"]

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class OrganScore:
    """Agreement of one label of a result with the reference.

    Attributes
    ----------
    label
        Label value.
    dice
        Dice coefficient over the whole scan, 0 to 1.
    extent_dice
        Dice coefficient over the slices that hold the organ in the reference, 0 to 1.
    ravd
        Relative absolute volume difference in percent of the reference's volume, 0 or more, or NaN.
    assd
        Average symmetric surface distance in mm, 0 or more, or NaN.
    """

    label: int
    dice: float
    extent_dice: float
    ravd: float
    assd: float


def dice(a: Mask, b: Mask) -> float:
    """Return the Dice coefficient ``2 |a and b| / (|a| + |b|)``, 0 to 1, of two masks of one shape."""
    _check_shapes(a, b)
    total = np.count_nonzero(a) + np.count_nonzero(b)
    return 2.0 * np.count_nonzero(a & b) / total if total else 1.0


def extent_dice(result: Mask, reference: Mask) -> float:
    """Return the Dice coefficient over the slices that hold the organ in the reference, 0 to 1.

    Against :func:`dice` it tells a wrong shape from a propagation that ran on where the organ had ended.
    """
    _check_shapes(result, reference)
    held = reference.any(axis=(1, 2))
    return dice(result[held], reference[held]) if held.any() else dice(result, reference)


def ravd(result: Mask, reference: Mask) -> float:
    """Return the relative absolute volume difference ``100 * ||result| - |reference|| / |reference|`` in percent."""
    _check_shapes(result, reference)
    volume, expected = np.count_nonzero(result), np.count_nonzero(reference)
    if expected == 0:
        return math.nan if volume else 0.0
    return 100.0 * abs(volume - expected) / expected


def assd(a: Mask, b: Mask, spacing: tuple[float, float, float]) -> float:
    """Return the average symmetric surface distance in mm.

    A mask's surface are its voxels with a face neighbour outside the mask; the scan's border counts as outside. The
    distances from each surface voxel of either mask to the nearest one of the other are averaged together.

    Parameters
    ----------
    a, b
        Boolean, shape (n, rows, columns).
    spacing
        Distance of (slices, rows, columns) in mm.
    """
    _check_shapes(a, b)
    union = a | b
    if not union.any():
        return 0.0
    if not (a.any() and b.any()):
        return math.nan
    # All surface voxels lie in the union's bounding box, and so do the nearest ones of the other surface.
    box = tuple(
        slice(int(held[0]), int(held[-1]) + 1)
        for held in (np.flatnonzero(union.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3))
    )
    surface_a, surface_b = _surface(a[box]), _surface(b[box])
    to_b = distance_transform_edt(~surface_b, sampling=spacing)[surface_a]
    to_a = distance_transform_edt(~surface_a, sampling=spacing)[surface_b]
    return float((to_b.sum() + to_a.sum()) / (to_b.size + to_a.size))


def score_labels(
    result: LabelArray, reference: LabelArray, spacing: tuple[float, float, float], labels: Iterable[int]
) -> tuple[OrganScore, ...]:
    """Score each of ``labels``.

    Parameters
    ----------
    result, reference
        Label values, unsigned integers, shape (n, rows, columns), in slice order.
    spacing
        Distance of (slices, rows, columns) in mm.
    labels
        Label values to score.
    """
    scores = []
    for label in labels:
        a, b = result == label, reference == label
        scores.append(OrganScore(int(label), dice(a, b), extent_dice(a, b), ravd(a, b), assd(a, b, spacing)))
    return tuple(scores)


def _surface(mask: Mask) -> Mask:
    inner: Mask = binary_erosion(mask, generate_binary_structure(3, 1), border_value=0)
    return mask & ~inner


def _check_shapes(a: Mask, b: Mask) -> None:
    if a.shape != b.shape or a.ndim != 3:
        raise InputError(
            f"Result and reference must share one shape (slices, rows, columns), got {a.shape} and {b.shape}. "
            "Compare labels of the same scan, in the same slice order."
        )
