"""From painted slices to a labelled volume: both sweeps, blended, and brought back to the scan's own grid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_oneseg.config import Direction, PropagationConfig
from napari_oneseg.errors import AnnotationError
from napari_oneseg.features.extractor import FeatureStack
from napari_oneseg.preprocessing import WorkingGrid
from napari_oneseg.propagation.ahead import side_by_side
from napari_oneseg.propagation.confidence import slice_confidence
from napari_oneseg.propagation.enlarging import decided_on_source
from napari_oneseg.propagation.sweep import Carried, Leg, PaintedMaps, legs, sweep
from napari_oneseg.slice_range import checked_range
from napari_oneseg.volume import Annotation, label_dtype

__all__ = ["Anchors", "LabelledSlice", "check_painted", "propagate", "propagate_slices"]

# Positions with less label probability than this do not count when a slice's confidence is averaged.
_PRESENCE = 0.1


@dataclass(frozen=True, eq=False)
class LabelledSlice:
    """The result on one slice.

    Attributes
    ----------
    index
        Slice index.
    labels
        Shape (rows, columns) on the scan's grid, unsigned integers, 0 = background.
    confidence
        Same shape, float16, 0 to 1; 1 on painted voxels.
    score
        Mean confidence where a label is or might be, 0 to 1; NaN on a slice where none is and none might be.
    """

    index: int
    labels: NDArray[np.unsignedinteger]
    confidence: NDArray[np.float16]
    score: float


def propagate(
    stack: FeatureStack,
    annotation: Annotation,
    slice_range: tuple[int, int] | None = None,
    direction: Direction = "both",
    config: PropagationConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[LabelledSlice]:
    """Carry all painted labels through the volume at once (paper 1.2).

    Each label travels from the slices on which it was painted, and from the complete ones. Between two of them what
    comes from both sides is blended by distance and reliability; beyond the outermost one a label goes on until it has
    ended: its area has fallen below ``end_area`` of what was painted, or forward-backward agreement below
    ``end_agreement``.

    Parameters
    ----------
    stack
        Features of the scan.
    annotation
        The painted slices.
    slice_range
        First and last slice to label, both included; painted slices outside take no part.
    direction
        Whether labels travel towards higher indices (``up``), lower ones (``down``), or ``both``.
    config
        Window and stopping rule.
    progress
        Called with (slices visited, visits in all).

    Returns
    -------
    One result per slice of the range, in order.

    Raises
    ------
    AnnotationError
        If nothing is painted within the range.
    """
    found = propagate_slices(stack, annotation, slice_range, direction, config, progress)
    return sorted(found, key=lambda result: result.index)


@torch.inference_mode()
def propagate_slices(
    stack: FeatureStack,
    annotation: Annotation,
    slice_range: tuple[int, int] | None = None,
    direction: Direction = "both",
    config: PropagationConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
    staying: Callable[[int], NDArray[np.bool_]] | None = None,
) -> Iterator[LabelledSlice]:
    """Do what :func:`propagate` does, and give each slice as soon as nothing can change it any more.

    They come in the order in which parts of the way happen to be done; what they show does not depend on that.
    Parameters and errors are those of :func:`propagate`; an error comes with the first slice.

    Parameters
    ----------
    stack, annotation, slice_range, direction, config, progress
        As for :func:`propagate`.
    staying
        Where on a slice other labels lie that do not travel, shape (rows, columns): those that do give way to them.
    """
    config = config or PropagationConfig()
    first, last = checked_range(slice_range, len(stack.maps))
    check_painted(annotation, first, last)
    images = {index: image for index, image in annotation.slices.items() if first <= index <= last}
    values = annotation.labels
    painted = {
        index: _painted_maps(image, index in annotation.complete, values, stack) for index, image in images.items()
    }
    anchors = [Anchors.of(annotation, value, first, last) for value in values]
    beside = None if staying is None else partial(_occupied, stack, staying)
    ways: dict[str, range] = {"up": range(first, last + 1), "down": range(last, first - 1, -1)}
    journeys = [(way, leg) for way, order in ways.items() if direction in ("both", way) for leg in legs(order, painted)]
    # What takes longest begins first.
    journeys.sort(key=lambda journey: len(journey[1].order), reverse=True)
    awaited = Counter(index for _, leg in journeys for index in leg.order)
    sources = [_arriving(stack, leg, painted, config, beside) for _, leg in journeys]
    told, arrived = 0, dict[int, dict[str, Carried]]()

    def decided(index: int) -> LabelledSlice:
        sides = arrived.pop(index, {})
        blended = _blend(sides.get("up"), sides.get("down"), index, anchors)
        return _decide(index, blended, images.get(index), index in annotation.complete, values, stack.grid)

    yield from (decided(index) for index in ways["up"] if not awaited[index])
    with side_by_side(sources, torch.get_num_threads() if stack.maps.device.type == "cpu" else 1) as found:
        for number, (index, carried) in found:
            told += 1
            if progress is not None:
                progress(told, awaited.total())
            arrived.setdefault(index, {})[journeys[number][0]] = carried
            if len(arrived[index]) == awaited[index]:
                yield decided(index)


def _occupied(stack: FeatureStack, staying: Callable[[int], NDArray[np.bool_]], index: int) -> Tensor:
    """Return the share of each position of the feature grid that other labels have."""
    occupied = torch.from_numpy(staying(index)).to(stack.maps.device)
    return stack.grid.to_features(occupied[None, None].float())[0, 0]


def _arriving(
    stack: FeatureStack,
    leg: Leg,
    painted: dict[int, PaintedMaps],
    config: PropagationConfig,
    beside: Callable[[int], Tensor] | None,
) -> Iterator[tuple[int, Carried]]:
    """Do a leg, and store what has arrived in half precision: a whole scan of it is kept."""
    for index, carried in sweep(stack.maps, leg, painted, config, stack.null_bias, stack.refinement, beside):
        yield index, Carried(carried.labels.half(), carried.reliability.half())


def check_painted(annotation: Annotation, first: int, last: int) -> None:
    """Raise an AnnotationError if nothing is painted between two slices, both included."""
    images = {index: image for index, image in annotation.slices.items() if first <= index <= last}
    # A complete slice counts even where it is empty: it says that nothing is there.
    known = any(index in annotation.complete or image.any() for index, image in images.items())
    if not annotation.labels or not known:
        raise AnnotationError(f"Nothing is painted between slices {first} and {last}: paint at least one slice there.")


def _painted_maps(
    image: NDArray[np.unsignedinteger], complete: bool, values: tuple[int, ...], stack: FeatureStack
) -> PaintedMaps:
    """Bring a painted slice to the feature grid."""
    if image.shape != stack.grid.source:
        raise AnnotationError(
            f"A painted slice must have the scan's {stack.grid.source} rows and columns, got {image.shape}."
        )
    one_hot = torch.from_numpy(np.stack([image == value for value in values])).to(stack.maps.device)
    occupancy = stack.grid.to_features(one_hot[None].float())[0]
    anchored = one_hot.flatten(1).any(1)
    return PaintedMaps(occupancy, torch.ones_like(anchored) if complete else anchored)


@dataclass(frozen=True)
class Anchors:
    """Slices of the range on which one label is settled, ascending, and which of them show it."""

    indices: tuple[int, ...]
    shown: frozenset[int]

    @classmethod
    def of(cls, annotation: Annotation, value: int, first: int, last: int) -> Anchors:
        """Return the anchors of label ``value`` from slice ``first`` to ``last``."""
        indices = tuple(a for a in annotation.anchors(value) if first <= a <= last)
        return cls(indices, frozenset(a for a in indices if (annotation.slices[a] == value).any()))

    def share_from_below(self, index: int) -> float:
        """Return how much of the label on a slice comes from the anchor below it, 0 to 1; the rest from above.

        It falls linearly from one anchor to the other. But an anchor that shows nothing of the label does not tell
        where between the two it ends: there the label comes from the other one alone, and ends where it ends.
        """
        below = max((a for a in self.indices if a <= index), default=None)
        above = min((a for a in self.indices if a >= index), default=None)
        if below is None or above is None:
            return 0.0 if below is None else 1.0
        if below == above:
            return 0.5
        if index not in (below, above) and (below in self.shown) != (above in self.shown):
            return 1.0 if below in self.shown else 0.0
        return (above - index) / (above - below)


def _blend(up: Carried | None, down: Carried | None, index: int, anchors: list[Anchors]) -> Carried | None:
    """Blend what came from below and from above.

    Each side counts with its share, by closeness, times its reliability.
    """
    if up is None or down is None:
        only = up if down is None else down
        return None if only is None else Carried(only.labels.float(), only.reliability.float())
    shares = [of_label.share_from_below(index) for of_label in anchors]
    share = torch.tensor(shares, device=up.labels.device)[:, None, None]
    up_reliability, down_reliability = up.reliability.float(), down.reliability.float()
    # A little is added, so that closeness alone decides where neither side can be trusted.
    up_weight = share * (up_reliability + 1e-3)
    down_weight = (1.0 - share) * (down_reliability + 1e-3)
    weight = up_weight / (up_weight + down_weight)
    return Carried(
        torch.lerp(down.labels.float(), up.labels.float(), weight),
        torch.lerp(down_reliability, up_reliability, weight),
    )


def _decide(
    index: int,
    carried: Carried | None,
    painted: NDArray[np.unsignedinteger] | None,
    complete: bool,
    values: tuple[int, ...],
    grid: WorkingGrid,
) -> LabelledSlice:
    """Bring soft labels to the scan's grid and decide each voxel; what was painted stays as it was painted."""
    dtype = label_dtype(values[-1])
    if complete and painted is not None:
        ones = np.ones(grid.source, np.float16)
        return LabelledSlice(index, painted.astype(dtype), ones, 1.0 if painted.any() else float("nan"))
    labels = np.zeros(grid.source, dtype)
    confidence = np.ones(grid.source, np.float16)
    presence = np.zeros(grid.source, bool)
    if carried is not None:
        soft = carried.labels
        if painted is not None:  # labels painted here are settled; the others may still arrive beside them
            anchored = torch.tensor([bool((painted == value).any()) for value in values], device=soft.device)
            soft = soft * ~anchored[:, None, None]
        present = (soft > _PRESENCE / 2).flatten(1).any(1).nonzero().flatten()
        if len(present):
            places, confidence, presence = decided_on_source(
                soft[present], carried.reliability[present], grid, _PRESENCE
            )
            labels = np.array([0, *(values[k] for k in present.tolist())], dtype)[places]
    if painted is not None:
        labels = np.where(painted > 0, painted, labels).astype(dtype)
        confidence[painted > 0] = 1.0
        presence |= painted > 0
    return LabelledSlice(index, labels, confidence, slice_confidence(labels, confidence, presence))
