"""Where slices of two planes cross: the line that both show, and how painting on one reaches the other.

Axes are those of an array in the slice order of the scan's main plane, (n, rows, columns). A slice of the plane across
axis ``a`` is an image over the two other axes, in their order: (rows, columns) for axis 0, the main plane; (n, columns)
for axis 1 and (n, rows) for axis 2.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_oneseg.volume import Annotation, LabelArray

__all__ = ["agreeing", "crossed_anew", "line", "pasted", "touched_labels", "turned", "values_in"]

Scalar = TypeVar("Scalar", bound=np.generic)


def line(image: NDArray[Scalar], axis: int, other: int, index: int) -> NDArray[Scalar]:
    """Return the line, a view, on which a slice is crossed by a slice of another plane.

    Parameters
    ----------
    image
        A slice of the plane across ``axis``.
    axis, other
        The axes that the two planes lie across.
    index
        Index of the slice of the other plane.
    """
    first = (other if other < axis else other - 1) == 0
    return image[index] if first else image[:, index]


def agreeing(
    images: Mapping[int, LabelArray],
    axis: int,
    source: LabelArray,
    source_axis: int,
    index: int,
    settled: NDArray[np.bool_],
) -> dict[int, LabelArray]:
    """Return slices of one plane as they are once a newer slice of another plane counts where the two cross.

    Parameters
    ----------
    images
        Slices by index of the plane across ``axis``; none is written to, and those that agree are returned as they are.
    source, source_axis, index
        The newer slice.
    settled
        Where it counts, boolean, of its shape.
    """
    changed = dict(images)
    for at, image in images.items():
        new, counts = line(source, source_axis, axis, at), line(settled, source_axis, axis, at)
        old = line(image, axis, source_axis, index)
        if (counts & (new != old)).any():
            written = image.astype(np.promote_types(image.dtype, source.dtype))
            line(written, axis, source_axis, index)[...] = np.where(counts, new, old)
            written.setflags(write=False)
            changed[at] = written
    return changed


def pasted(image: LabelArray, index: int, across: Mapping[int, Annotation]) -> LabelArray:
    """Return a slice of the main plane with what the painted slices of the other planes settle on it.

    Parameters
    ----------
    image
        Labels, shape (rows, columns); it is returned itself where they settle nothing else.
    index
        The slice's index.
    across
        What is painted in the planes across axis 1 and 2.
    """
    out = image
    for axis, annotation in across.items():
        for at, painted in annotation.slices.items():
            new = line(painted, axis, 0, index)
            counts = (new > 0) | (at in annotation.complete)
            old = line(out, 0, axis, at)
            if (counts & (new != old)).any():
                if out is image or not np.can_cast(painted.dtype, out.dtype):
                    out = out.astype(np.promote_types(out.dtype, painted.dtype))
                line(out, 0, axis, at)[...] = np.where(counts, new, old)
    return out


def turned(image: NDArray[Scalar], plane: int, main: int) -> NDArray[Scalar]:
    """Bring a slice from the order of the scan's axes to that of the main plane's slice order, or back: a view.

    Parameters
    ----------
    image
        A slice of a plane, over the two other axes.
    plane, main
        The axes of the scan's array, (z, y, x), that the plane and the main plane lie across.
    """
    # The third axis comes before the main one, whose index is to come first.
    return image.T if plane != main and 3 - plane - main < main else image


def values_in(images: Collection[LabelArray]) -> frozenset[int]:
    """Return the labels in images."""
    return frozenset(int(value) for image in images for value in np.unique(image) if value)


def touched_labels(was: Annotation, now: Annotation) -> frozenset[int] | None:
    """Return the labels that were painted differently in a plane; None for all, where other slices are complete."""
    if was.complete != now.complete:
        return None
    touched = frozenset[int]()
    for _, images, different in _differences(was, now):
        touched |= values_in([image[different] for image in images])
    return touched


def crossed_anew(was: Annotation, now: Annotation) -> frozenset[int]:
    """Return the slices of the main plane on which painted slices of another plane settle anything else than before."""
    indices = frozenset[int]()
    for index, images, different in _differences(was, now):
        if (index in was.complete) != (index in now.complete):
            indices |= frozenset(range(len(images[0])))
        else:
            indices |= frozenset(np.flatnonzero(different.any(axis=1)).tolist())
    return indices


def _differences(was: Annotation, now: Annotation) -> Iterator[tuple[int, list[LabelArray], NDArray[np.bool_]]]:
    """Yield each slice that differs, as it was and is, one of which may be missing, and where it differs."""
    for index in was.slices.keys() | now.slices.keys():
        images = [annotation.slices[index] for annotation in (was, now) if index in annotation.slices]
        if len(images) == 1:
            yield index, images, images[0] > 0
        elif images[0] is not images[1] or (index in was.complete) != (index in now.complete):
            yield index, images, images[0] != images[1]
