"""What a propagated label shows of how good it is, slice by slice: certainty, distance, overlap, change of area."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_oneseg.volume import Annotation, LabelArray

__all__ = ["BETTER", "TRAITS", "slice_traits"]

TRAITS = (
    "certainty",
    "doubt beside",
    "least certainty",
    "steps",
    "reach",
    "growth",
    "loss",
    "overlap",
    "least overlap",
)
"""Names of the columns of :func:`slice_traits`.

certainty
    Mean confidence of the label's voxels on the slice.
doubt beside
    The same with the doubtful voxels within the label's bounding box, which belong to no label.
least certainty
    Least value of the former on the way from the painted slice: a label that went astray does not come back.
steps
    Logarithm of 1 + slices from the painted slice.
reach
    Distance from the painted slice in radii of a disc of the painted area, logarithm of 1 + it.
growth, loss
    Logarithm of area over painted area, positive and negative part.
overlap, least overlap
    Share of the smaller of two neighbouring slices' areas that both have in common; and its least value on the way.
"""
BETTER = (1, 1, 1, -1, -1, -1, -1, 1, 1)
"""Whether more of a trait speaks for the label, 1, or against it, -1."""


def slice_traits(
    labels: LabelArray,
    confidence: NDArray[np.floating],
    annotation: Annotation,
    spacing: tuple[float, float, float],
    label: int,
) -> dict[int, NDArray[np.float64]]:
    """Return the traits of one label on the propagated slices that show it.

    Parameters
    ----------
    labels
        Labels in slice order, shape (n, rows, columns).
    confidence
        Of each voxel, same shape, 0 to 1.
    annotation
        The painted slices.
    spacing
        Voxel size in mm: of the slices' distance, of rows, of columns.
    label
        The label.

    Returns
    -------
    By slice, in the order of :data:`TRAITS`, shape (traits,). Slices that show the label but lie beyond one that does
    not are included; those on which it is settled are not.
    """
    mask = labels == label
    painted = [k for k in annotation.anchors(label) if (annotation.slices[k] == label).any()]
    found = ndimage.find_objects(mask.any(0).astype(np.uint8))
    if not painted or not found or found[0] is None:
        return {}
    box = (slice(None), *found[0])
    mask, sure = mask[box], confidence[box].astype(np.float32)
    doubtful = mask | ((labels[box] == 0) & (sure < 1.0))
    area = mask.sum((1, 2)).astype(np.float64)
    certainty = np.where(mask, sure, 0.0).sum((1, 2)) / np.maximum(area, 1)
    beside = np.where(doubtful, sure, 0.0).sum((1, 2)) / np.maximum(doubtful.sum((1, 2)), 1)
    common = (mask[1:] & mask[:-1]).sum((1, 2)) / np.maximum(np.minimum(area[1:], area[:-1]), 1)
    traits: dict[int, NDArray[np.float64]] = {}
    settled = set(annotation.anchors(label)) | annotation.complete
    for start in painted:
        radius = np.sqrt(max(area[start], 1.0) * spacing[1] * spacing[2] / np.pi)
        for way, end in ((1, len(area)), (-1, -1)):
            least_certainty = least_overlap = 1.0
            for k in range(start + way, end, way):
                if k in settled:
                    break
                overlap = common[min(k, k - way)]
                least_overlap = min(least_overlap, overlap)
                if not area[k]:
                    continue
                least_certainty = min(least_certainty, beside[k])
                steps = abs(k - start)
                change = float(np.log(area[k] / max(area[start], 1.0)))
                reach = np.log1p(steps * spacing[0] / radius)
                row = [certainty[k], beside[k], least_certainty, np.log1p(steps), reach]
                row += [max(change, 0.0), max(-change, 0.0), overlap, least_overlap]
                # Between two painted slices the nearer one tells.
                if k not in traits or row[3] < traits[k][3]:
                    traits[k] = np.array(row)
    return traits
