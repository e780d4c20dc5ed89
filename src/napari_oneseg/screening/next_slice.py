"""Which slice to paint next, with how much it would bring.

Strategy. Where the present labels are doubtful, a known share of the doubt is error: so many voxels of a slice are
expected to be wrong. A slice is wrong because labels had to come a long way to it. A new painted slice takes away its
own errors whole, and those of the slices round it by as much as it brings a painted slice nearer. What is taken away in
all, as a share of the label, is the rise of the Dice coefficient.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_oneseg.config import ScreeningConfig
from napari_oneseg.errors import AnnotationError
from napari_oneseg.slice_range import checked_range
from napari_oneseg.volume import Annotation, LabelArray

__all__ = ["NextSlice", "expected_errors", "rank_next"]

# Measured on training scans: how many voxels are wrong for each whole voxel of doubt.
_WRONG = 0.48
# Background that is surer than this is far from any label, and there is much of it.
_SURE = 0.8


@dataclass(frozen=True)
class NextSlice:
    """A slice worth painting next.

    Attributes
    ----------
    index
        Slice index, from 0.
    gain
        Expected rise of the Dice coefficient if the slice were painted after those ranked before it, 0 to 1; the mean
        over the labels in question.
    corrected_ml
        Volume that would then be right and was wrong before, in mL, all these labels together.
    label
        The label that gains most.
    worth_it
        Whether the gain reaches ``ScreeningConfig.least_gain``. If it does not for the best slice, little is left to
        gain by painting.
    """

    index: int
    gain: float
    corrected_ml: float
    label: int
    worth_it: bool


def rank_next(
    labels: LabelArray,
    confidence: NDArray[np.floating],
    annotation: Annotation,
    voxel_ml: float = 1.0,
    slice_range: tuple[int, int] | None = None,
    label: int | None = None,
    config: ScreeningConfig | None = None,
    painted: Sequence[int] | None = None,
) -> list[NextSlice]:
    """Rank the slices by what painting one more of them would bring, each after those before it, best first.

    Parameters
    ----------
    labels, confidence
        What has been propagated, shape (n, rows, columns); see :class:`~napari_oneseg.session.Propagation`.
    annotation
        What it was propagated from.
    voxel_ml
        Volume of a voxel in mL.
    slice_range
        First and last slice to choose from, both included.
    label
        The label in question; by default all that were painted.
    painted
        All labels that were painted, ascending, where some were in other planes only; by default the annotation's.

    Returns
    -------
    All slices of the range on which the label, or one of all, is not yet known.

    Raises
    ------
    AnnotationError
        If the label was painted nowhere, or nothing was.
    InputError
        If the range does not fit the scan.
    """
    config = config or ScreeningConfig()
    known_labels = annotation.labels if painted is None else tuple(painted)
    values = known_labels if label is None else (label,)
    if not known_labels:
        raise AnnotationError("Nothing is painted: paint a slice first.")
    if not set(values) <= set(known_labels):
        raise AnnotationError(f"Label {label} was painted nowhere; painted are {list(known_labels)}.")
    first, last = checked_range(slice_range, len(labels))
    errors = expected_errors(labels, confidence, known_labels)
    anchors = [annotation.anchors(value) for value in values]
    known = set.intersection(*map(set, anchors))
    free = [index for index in range(first, last + 1) if index not in known]
    sizes = np.array([max(1, np.count_nonzero(labels == value)) for value in values])
    return [
        NextSlice(
            index,
            float(gains.mean()),
            float((2.0 * sizes * gains).sum() * voxel_ml),
            values[int(gains.argmax())],
            bool(gains.mean() >= config.least_gain),
        )
        for index, gains in _greedy(np.stack([errors[value] for value in values]), sizes, anchors, free)
    ]


def expected_errors(
    labels: LabelArray, confidence: NDArray[np.floating], values: Sequence[int]
) -> dict[int, NDArray[np.float64]]:
    """Return how many voxels of each slice are expected to be wrong, for each label, shape (n,).

    The doubt about background counts for the label that lies nearest.

    Parameters
    ----------
    labels, confidence
        Shape (n, rows, columns).
    values
        The labels; there are no others.
    """
    errors = {value: np.zeros(len(labels)) for value in values}
    for index, (image, sure) in enumerate(zip(labels, confidence, strict=True)):
        concerned = (image > 0) | (sure < _SURE)
        if not concerned.any():
            continue
        box = ndimage.find_objects(concerned.astype(np.uint8))[0]
        doubt = np.where(concerned[box], 1.0 - sure[box].astype(np.float64), 0.0)
        shown = [value for value in values if (image[box] == value).any()]
        if len(shown) > 1:
            nearest = ndimage.distance_transform_edt(image[box] == 0, return_distances=False, return_indices=True)
            owner = image[box][tuple(nearest)]
            for value in shown:
                errors[value][index] = _WRONG * doubt[owner == value].sum()
        else:
            for value in shown or values:
                errors[value][index] = _WRONG * doubt.sum() / len(shown or values)
    return errors


def _greedy(
    errors: NDArray[np.float64], sizes: NDArray[np.int64], anchors: Sequence[Iterable[int]], free: Sequence[int]
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Yield the slices in the order in which each gains most when those before it are painted.

    Parameters
    ----------
    errors
        Expected errors of each label on each slice, shape (L, n).
    sizes
        Voxels of each label, shape (L,).
    anchors
        Slices on which each label is known.
    free
        Slices to choose from.

    Yields
    ------
    Slice index, and by how much painting it raises the Dice coefficient of each label, shape (L,).
    """
    slices = np.arange(errors.shape[1])
    apart = np.abs(slices[:, None] - slices)  # (painted slice, slice)
    # (L, slice): to the nearest painted one; a label that was painted in another plane only has none.
    near = np.stack([apart[sorted(known)].min(0, initial=len(slices)) for known in anchors])
    rate = errors / np.maximum(near, 1) / (2.0 * sizes[:, None])
    left = list(free)
    while left:
        nearer = np.minimum(near[:, None], apart[left])  # (L, left, slice)
        gains = np.einsum("ls,lcs->lc", rate, near[:, None] - nearer)
        # Where nothing is doubtful, the slice that lies farthest from all painted ones.
        best = np.lexsort((-near.min(0)[left], -gains.mean(0)))[0]
        yield left.pop(best), gains[:, best]
        near = nearer[:, best]
