"""Which slices of which planes a label file holds: those that somebody has painted, though the file only has voxels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from napari_oneseg.errors import AnnotationError
from napari_oneseg.volume import Annotation, LabelArray

__all__ = ["annotations_on", "find_painted"]

FEWER = 3
"""Slices of other planes are taken for what was painted if they are fewer than those of the main plane by this."""


def find_painted(labels: LabelArray, main: int) -> dict[int, tuple[int, ...]]:
    """Find few slices that hold all painted voxels.

    They are those of the main plane, unless slices of one or several planes are fewer than a third as many and none of
    them lie side by side, as those of an organ would that was labelled as a whole. The slice with most voxels that no
    other holds is taken first.

    Parameters
    ----------
    labels
        Shape (z, y, x), integers, 0 = not painted.
    main
        The axis that the scan's own slices lie across.

    Returns
    -------
    Indices, ascending, by the axis that the slices lie across; none where nothing is painted.
    """
    left = np.argwhere(labels)
    own = tuple(np.unique(left[:, main]).tolist())
    if not own:
        return {}
    found: dict[int, list[int]] = {}
    for number in range(1, len(own)):
        if not FEWER * number < len(own):
            break
        counts = [np.bincount(left[:, axis]) for axis in range(3)]
        # The main plane first, where two are equal.
        axis = max((main, *(k for k in range(3) if k != main)), key=lambda k: int(counts[k].max()))
        index = int(counts[axis].argmax())
        found.setdefault(axis, []).append(index)
        left = left[left[:, axis] != index]
        if not len(left):
            apart = all(np.diff(sorted(indices)).min(initial=2) > 1 for indices in found.values())
            return {axis: tuple(sorted(found[axis])) for axis in sorted(found)} if apart else {main: own}
    return {main: own}


def annotations_on(
    labels: LabelArray, painted: Mapping[int, Iterable[int]], complete: Mapping[int, Iterable[int]] | None = None
) -> dict[int, Annotation]:
    """Take slices out of a label volume as painted.

    Parameters
    ----------
    labels
        Shape (z, y, x), integers, 0 = not painted.
    painted, complete
        Painted slices, and those of them on which everything was painted, by the axis that they lie across.

    Raises
    ------
    AnnotationError
        If a slice lies outside the scan, or something is painted outside these slices.
    """
    whole = {axis: frozenset(indices) for axis, indices in (complete or {}).items()}
    rest: NDArray[np.bool_] = labels != 0
    annotations = {}
    for axis in sorted({*painted, *whole}):
        indices = sorted({*painted.get(axis, ()), *whole.get(axis, ())})
        count = labels.shape[axis]
        outside = [index for index in indices if not 0 <= index < count]
        if outside:
            raise AnnotationError(
                f"Slices {outside} lie outside the scan, which has slices 0 to {count - 1} across axis {axis}."
            )
        images = np.moveaxis(labels, axis, 0)
        annotations[axis] = Annotation({k: images[k] for k in indices}, whole.get(axis, frozenset()))
        np.moveaxis(rest, axis, 0)[indices] = False
    if rest.any():
        raise AnnotationError(
            f"{np.count_nonzero(rest)} painted voxels lie outside the slices that are named. Name all painted slices, "
            "or leave them to be found."
        )
    return {axis: annotation for axis, annotation in annotations.items() if annotation.slices}
