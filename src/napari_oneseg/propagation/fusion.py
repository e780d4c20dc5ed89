"""From labels that have travelled in several planes to one labelled volume, voxel by voxel.

Strategy. Each plane has a say on the labels that were painted in it: at a voxel it speaks for a label, or against it,
with a weight that falls off with the distance, in mm, to its nearest slice on which the label is known. A label is at a
voxel if those that speak for it outweigh those that speak against it; of several, the one with the largest share. A
plane says nothing of labels that were not painted in it. A painted slice settles its voxels for all planes: what was
painted is there, and a label that was painted on the slice is nowhere else on it.

Axes are those of an array in the slice order of the scan's main plane, (n, rows, columns).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_oneseg.config import Direction
from napari_oneseg.crossing_lines import line, pasted
from napari_oneseg.propagation.confidence import slice_confidence
from napari_oneseg.propagation.propagate import LabelledSlice
from napari_oneseg.volume import Annotation, LabelArray, label_dtype

__all__ = ["PaintedPlane", "Say", "fused", "propagate_planes"]

# The distance in mm over which a plane's weight falls to a third; docs/experiments.md, "Which plane is painted".
_SCALE = 25.0
# Share of the weight that a plane keeps where it is not sure at all.
_DOUBTFUL = 0.1


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
    """

    labels: LabelArray
    confidence: NDArray[np.float16]
    distances: Mapping[int, NDArray[np.float64]]


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
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the share of weight that speaks for a label, 0 to 1, and how sure that is, negative where it is not."""
    total = np.zeros(says[0].labels[box].shape, np.float32)
    speaking, surely = np.zeros_like(total), np.zeros_like(total)
    for say in says:
        apart = np.broadcast_to(say.distances[value], say.labels.shape)[box]
        sure = say.confidence[box].astype(np.float32)
        weight = np.exp(-apart / _SCALE).astype(np.float32) * (_DOUBTFUL + (1.0 - _DOUBTFUL) * sure)
        # A slice on which the label is known settles it.
        weight = np.where(apart == 0.0, np.float32(1e6), weight)
        there = say.labels[box] == value
        total += weight
        speaking += np.where(there, weight, np.float32(0.0))
        surely += np.where(there, weight, -weight) * sure
    total = np.maximum(total, np.float32(1e-30))
    share: NDArray[np.float32] = speaking / total
    return share, np.where(share > 0.5, surely, -surely).astype(np.float32) / total


def _box(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def propagate_planes(
    planes: Sequence[PaintedPlane],
    carried: Callable[[PaintedPlane], Iterator[LabelledSlice]],
    shape: tuple[int, int, int],
    slice_range: tuple[int, int],
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

    Yields
    ------
    The slices of the range, as :func:`~napari_oneseg.propagation.propagate.propagate_slices` gives them.
    """
    first, last = slice_range
    values = sorted({label for plane in planes for label in plane.annotation.labels})
    others = [plane for plane in planes if plane.axis != 0]
    volumes = [_collected(plane, carried(plane), shape, slice_range, values) for plane in others]
    distances = {plane.axis: {value: plane.distances(value) for value in values} for plane in planes}
    across = {plane.axis: plane.annotation for plane in others}
    mains = [plane for plane in planes if plane.axis == 0]
    found: Iterator[LabelledSlice | int] = carried(mains[0]) if mains else iter(range(first, last + 1))
    for one in found:
        index = one if isinstance(one, int) else one.index
        says = []
        if not isinstance(one, int):
            apart = {value: distances[0][value][index] for value in values}
            says.append(Say(one.labels, one.confidence, {k: np.asarray(v) for k, v in apart.items()}))
        for plane, (labels, confidence) in zip(others, volumes, strict=True):
            along = {k: v[:, None] if plane.axis == 1 else v[None] for k, v in distances[plane.axis].items()}
            says.append(Say(labels[index - first], confidence[index - first], along))
        yield _settled(index, fused(says, values), says, across, mains[0].annotation if mains else Annotation())


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
        place = (slice(None),) * plane.axis + (found.index,)
        labels[place] = found.labels[first : last + 1]
        confidence[place] = found.confidence[first : last + 1]
    return labels, confidence
