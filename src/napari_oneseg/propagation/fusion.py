"""From labels that have travelled in several planes to one labelled volume, voxel by voxel.

Strategy. Each plane has a say on the labels that were painted in it: at a voxel it speaks for a label, or against it,
with a weight that falls off with the distance, in mm, to its nearest slice on which the label is known, and where it
contradicts what was painted in another plane on the line that both show. A label is at a
voxel if those that speak for it outweigh those that speak against it; of several, the one with the largest share. A
plane says nothing of labels that were not painted in it. A painted slice settles its voxels for all planes: what was
painted is there, and a label that was painted on the slice is nowhere else on it.

Axes are those of an array in the slice order of the scan's main plane, (n, rows, columns).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_oneseg.config import Direction
from napari_oneseg.crossing_lines import line, pasted
from napari_oneseg.propagation.confidence import slice_confidence
from napari_oneseg.propagation.propagate import LabelledSlice
from napari_oneseg.volume import Annotation, LabelArray, label_dtype

__all__ = ["PaintedPlane", "Say", "fused", "propagate_planes", "without_crossings"]

# The distance in mm over which a plane's weight falls to a third; docs/experiments.md, "Which plane is painted".
_SCALE = 25.0
# Share of the weight that a plane keeps where it is not sure at all.
_DOUBTFUL = 0.1
# And where it has nothing in common with what was painted in the other planes.
_CONTRADICTED = 0.05


@dataclass(frozen=True, eq=False)
class PaintedPlane:
    """A plane with what was painted in it.

    Attributes
    ----------
    axis
        The axis that its slices lie across: 0 for the main plane.
    annotation
        What was painted, each slice over the two other axes.
    count, spacing
        How many slices it has, and how far they lie apart, in mm.
    direction
        In which direction its labels travel; where they have not travelled, the plane has no say.
    """

    axis: int
    annotation: Annotation
    count: int
    spacing: float
    direction: Direction = "both"

    def distances(self, label: int) -> NDArray[np.float64]:
        """Return how far each slice is from one on which a label is known, in mm, shape (count,); inf where none is."""
        anchors = self.annotation.anchors(label)
        if label not in self.annotation.labels:  # complete slices say that it is not there, and nothing of the rest
            nowhere = np.full(self.count, np.inf)
            nowhere[list(anchors)] = 0.0
            return nowhere
        slices = np.arange(self.count)
        apart: NDArray[np.float64] = np.abs(slices[:, None] - np.array(anchors)).min(axis=1) * self.spacing
        if self.direction == "up":
            apart[: anchors[0]] = np.inf
        elif self.direction == "down":
            apart[anchors[-1] + 1 :] = np.inf
        return apart


@dataclass(frozen=True, eq=False)
class Say:
    """What one plane says of a slice of the main plane.

    Attributes
    ----------
    labels, confidence
        Shape (rows, columns); see :class:`~napari_oneseg.propagation.propagate.LabelledSlice`.
    distances
        By label, how far each voxel is from a slice of the plane on which the label is known, in mm, of a shape that
        broadcasts to (rows, columns); inf where the plane has no say on it.
    agreements
        By label, how well the plane's slice through each voxel agrees with what was painted in the other planes where
        the two cross, as a Dice coefficient, of such a shape too.
    """

    labels: LabelArray
    confidence: NDArray[np.float16]
    distances: Mapping[int, NDArray[np.float64]]
    agreements: Mapping[int, NDArray[np.float64]]


def fused(says: Sequence[Say], values: Sequence[int]) -> tuple[LabelArray, NDArray[np.float16]]:
    """Fuse what several planes say of a slice.

    Parameters
    ----------
    says
        One per plane, at least one.
    values
        All labels, ascending.

    Returns
    -------
    Labels and confidence, each of shape (rows, columns). Where all planes agree the confidence is their weighted mean;
    a plane that disagrees takes from it as much as it is sure.
    """
    if len(says) == 1:
        return says[0].labels.astype(label_dtype(values[-1])), says[0].confidence
    shape = says[0].labels.shape
    labels = np.zeros(shape, label_dtype(values[-1]))
    confidence = np.minimum.reduce([say.confidence for say in says])
    shown = np.logical_or.reduce([say.labels > 0 for say in says])
    if not shown.any():
        return labels, confidence
    box = _box(shown)
    best, sure = np.zeros(labels[box].shape, np.float32), confidence[box].astype(np.float32)
    decided = np.zeros(best.shape, bool)
    for value in values:
        share, agreement = _share(says, value, box)
        # Where no label wins, the one that came closest tells how sure that is.
        here = share > best
        labels[box][here] = np.where(share[here] > 0.5, value, 0)
        decided |= here
        sure = np.where(here, agreement, sure)
        best = np.maximum(best, share)
    confidence[box] = np.where(decided, sure.clip(0.0, 1.0), confidence[box])
    return labels, confidence


def _share(
    says: Sequence[Say], value: int, box: tuple[slice, slice]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the share of weight that speaks for a label, 0 to 1, and how sure that is, negative where it is not."""
    # In double precision: beside a slice that settles it, a weight would otherwise be lost in rounding.
    total = np.zeros(says[0].labels[box].shape)
    speaking, surely = np.zeros_like(total), np.zeros_like(total)
    for say in says:
        apart = np.broadcast_to(say.distances[value], say.labels.shape)[box]
        sure = say.confidence[box].astype(np.float32)
        weight = np.exp(-apart / _SCALE).astype(np.float32) * (_DOUBTFUL + (1.0 - _DOUBTFUL) * sure)
        agreement = np.broadcast_to(say.agreements[value], say.labels.shape)[box]
        weight *= (_CONTRADICTED + (1.0 - _CONTRADICTED) * agreement**2).astype(np.float32)
        # A slice on which the label is known settles it.
        weight = np.where(apart == 0.0, np.float32(1e6), weight)
        there = say.labels[box] == value
        total += weight
        speaking += np.where(there, weight, np.float32(0.0))
        surely += np.where(there, weight, -weight) * sure
    total = np.maximum(total, 1e-30)
    share: NDArray[np.float64] = speaking / total
    return share, np.where(share > 0.5, surely, -surely) / total


def _box(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def propagate_planes(
    planes: Sequence[PaintedPlane],
    carried: Callable[[PaintedPlane], Iterator[LabelledSlice]],
    shape: tuple[int, int, int],
    slice_range: tuple[int, int],
    painted: Sequence[PaintedPlane] | None = None,
) -> Iterator[LabelledSlice]:
    """Carry labels along each plane's axis, fuse them, and give the main plane's slices one after the other.

    Parameters
    ----------
    planes
        All planes in which something was painted, the main one first if it is among them.
    carried
        Propagates one of them and gives its slices, over the two other axes.
    shape
        Slices, rows and columns of the scan.
    slice_range
        First and last slice of the main plane that are wanted, both included.
    painted
        The planes with all that was painted, which settles its voxels; by default what travels.

    Yields
    ------
    The slices of the range, as :func:`~napari_oneseg.propagation.propagate.propagate_slices` gives them.
    """
    first, last = slice_range
    values = sorted({label for plane in planes for label in plane.annotation.labels})
    # All of them first: what a plane says of a slice is weighed by how it does on the slices painted in the others.
    volumes = [_collected(plane, carried(plane), shape, slice_range, values) for plane in planes]
    distances = [{value: plane.distances(value) for value in values} for plane in planes]
    agreements = [
        {value: _agreement(plane, labels, planes, value, first) for value in values}
        for plane, (labels, _) in zip(planes, volumes, strict=True)
    ]
    whole = planes if painted is None else painted
    across = {plane.axis: plane.annotation for plane in whole if plane.axis != 0}
    main = next((plane.annotation for plane in whole if plane.axis == 0), Annotation())
    for index in range(first, last + 1):
        says = []
        for plane, (labels, confidence), apart, agreeing in zip(planes, volumes, distances, agreements, strict=True):
            says.append(
                Say(
                    labels[index - first],
                    confidence[index - first],
                    {value: _on_slice(along, plane.axis, index) for value, along in apart.items()},
                    {value: _on_slice(along, plane.axis, index) for value, along in agreeing.items()},
                )
            )
        yield _settled(index, fused(says, values), says, across, main)


def without_crossings(planes: Sequence[PaintedPlane]) -> list[PaintedPlane]:
    """Return planes whose slices no longer show labels that only the slices of other planes have left on them.

    A painted slice shows the line on which it is crossed by one of another plane. A label that was painted in that
    plane alone would seem to be known on the whole slice, as a line.
    """
    kept = []
    for plane in planes:
        slices = {}
        for at, image in plane.annotation.slices.items():
            crossed = np.zeros(image.shape, bool)
            for other in planes:
                if other.axis != plane.axis:
                    for place in other.annotation.slices:
                        line(crossed, plane.axis, other.axis, place)[...] = True
            own = np.unique(image[~crossed])
            shown = np.where(np.isin(image, own), image, 0).astype(image.dtype)
            if shown.any() or at in plane.annotation.complete:
                slices[at] = shown
        kept.append(replace(plane, annotation=Annotation(slices, plane.annotation.complete)))
    known = {label for plane in kept for label in plane.annotation.labels}
    if known != {label for plane in planes for label in plane.annotation.labels}:
        return list(planes)  # a label of a voxel or two, where slices cross
    return [plane for plane in kept if plane.annotation.slices]


def _on_slice(along: NDArray[np.float64], axis: int, index: int) -> NDArray[np.float64]:
    """Return what holds for each slice of a plane on a slice of the main plane, broadcasting to (rows, columns)."""
    return np.asarray(along[index]) if axis == 0 else along[:, None] if axis == 1 else along[None]


def _agreement(
    plane: PaintedPlane, labels: LabelArray, planes: Sequence[PaintedPlane], value: int, first: int
) -> NDArray[np.float64]:
    """Return how well each slice of a plane agrees with what was painted of a label in the other planes.

    Parameters
    ----------
    plane
        The plane.
    labels
        What has travelled in it, shape (slices of the range, rows, columns).
    planes
        All planes.
    value
        The label.
    first
        First slice of the main plane that is wanted.

    Returns
    -------
    Dice coefficient on the lines where the slice and its two neighbours cross painted slices, shape (slices of the
    plane,); 1 where neither shows the label there, or nothing of it was painted in another plane.
    """
    both, sizes = np.zeros(plane.count), np.zeros(plane.count)
    span = slice(first, first + len(labels))
    for other in planes:
        if other.axis == plane.axis or value not in other.annotation.labels:
            continue
        for at in other.annotation.anchors(value):
            if other.axis == 0 and not span.start <= at < span.stop:
                continue
            found = labels.take(at - first if other.axis == 0 else at, other.axis) == value
            painted = other.annotation.slices[at] == value
            if other.axis != 0:
                painted = painted[span]
            # The image's axes are the two others, in their order: the plane's own, and the line.
            along = 1 - [axis for axis in (0, 1, 2) if axis != other.axis].index(plane.axis)
            where = span if plane.axis == 0 else slice(None)
            both[where] += np.count_nonzero(found & painted, along)
            sizes[where] += np.count_nonzero(found, along) + np.count_nonzero(painted, along)
    both, sizes = (np.convolve(values, np.ones(3), "same") for values in (both, sizes))
    return np.where(sizes > 0, 2.0 * both / np.maximum(sizes, 1.0), 1.0)


def _settled(
    index: int,
    decided: tuple[LabelArray, NDArray[np.float16]],
    says: Sequence[Say],
    across: Mapping[int, Annotation],
    main: Annotation,
) -> LabelledSlice:
    """Return a slice with everything on it that was painted in any plane."""
    labels, confidence = decided[0], decided[1].copy()
    presence = np.logical_or.reduce([say.labels > 0 for say in says])
    labels = pasted(labels, index, across)
    own = main.slices.get(index)
    if own is not None:
        known = (own > 0) | (index in main.complete)
        labels = np.where(known, own, labels).astype(labels.dtype)
        confidence[known] = 1.0
    for axis, annotation in across.items():
        for at, image in annotation.slices.items():
            known_line = (line(image, axis, 0, index) > 0) | (at in annotation.complete)
            line(confidence, 0, axis, at)[known_line] = 1.0
    return LabelledSlice(index, labels, confidence, slice_confidence(labels, confidence, presence | (labels > 0)))


def _collected(
    plane: PaintedPlane,
    slices: Iterator[LabelledSlice],
    shape: tuple[int, int, int],
    slice_range: tuple[int, int],
    values: Sequence[int],
) -> tuple[LabelArray, NDArray[np.float16]]:
    """Return what has travelled in a plane as arrays (slices of the range, rows, columns)."""
    first, last = slice_range
    size = last + 1 - first, *shape[1:]
    labels, confidence = np.zeros(size, label_dtype(values[-1])), np.ones(size, np.float16)
    for found in slices:
        if plane.axis == 0:
            labels[found.index - first], confidence[found.index - first] = found.labels, found.confidence
            continue
        place = (slice(None),) * plane.axis + (found.index,)
        labels[place] = found.labels[first : last + 1]
        confidence[place] = found.confidence[first : last + 1]
    return labels, confidence
