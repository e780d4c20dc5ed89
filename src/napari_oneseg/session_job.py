"""A propagation on its way: what it sets out from, and how its results join what was made meanwhile.

Computing and taking over are apart, so that a viewer can compute in the background while the user paints on: computing
reads a state that never changes, taking over is quick and decides slice by slice what still holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from napari_oneseg.config import Direction
from napari_oneseg.errors import AnnotationError
from napari_oneseg.propagation.confidence import slice_confidence
from napari_oneseg.propagation.correction import closed_range
from napari_oneseg.propagation.propagate import LabelledSlice, check_painted
from napari_oneseg.session_state import SessionState
from napari_oneseg.volume import Annotation, LabelArray

__all__ = ["PropagationJob", "beginning", "joined", "protecting", "renewal", "staying"]


@dataclass(frozen=True, eq=False)
class PropagationJob:
    """What a propagation sets out from; see :meth:`~napari_oneseg.session.OneSegSession.begin`.

    Attributes
    ----------
    before
        All that was made when it began.
    annotation
        What travels from slices of the main plane.
    slice_range
        First and last slice to compute, both included.
    direction
        In which direction labels travel.
    chosen
        The labels that travel, None for all.
    only
        The slices whose results are wanted, None for all of the range.
    across
        What travels from slices of the other planes, as in
        :attr:`~napari_oneseg.session_state.SessionState.across`.
    """

    before: SessionState
    annotation: Annotation
    slice_range: tuple[int, int]
    direction: Direction
    chosen: frozenset[int] | None = None
    only: frozenset[int] | None = None
    across: Mapping[int, Annotation] = field(default_factory=dict)


def beginning(
    state: SessionState, slice_range: tuple[int, int], direction: Direction, chosen: frozenset[int] | None
) -> PropagationJob:
    """Return what a propagation of a state sets out from.

    Raises
    ------
    AnnotationError
        If nothing is painted in the range, or one of the chosen labels nowhere.
    """
    if not state.across:
        annotation = state.annotation if chosen is None else state.annotation.only(chosen)
        check_painted(annotation, *slice_range)
        return PropagationJob(state, annotation, slice_range, direction, chosen)
    unknown = sorted((chosen or frozenset()) - set(state.labels))
    if unknown:
        raise AnnotationError(f"Labels {unknown} were painted nowhere; painted are {list(state.labels)}.")
    annotation, across = _travelling(state, chosen)
    first, last = slice_range
    inside = any(first <= index <= last and image.any() for index, image in annotation.slices.items())
    crossing = any(image[first : last + 1].any() for other in across.values() for image in other.slices.values())
    if not inside and not crossing:
        raise AnnotationError(f"Nothing is painted between slices {first} and {last}: paint at least one slice there.")
    return PropagationJob(state, annotation, slice_range, direction, chosen, across=across)


def _travelling(state: SessionState, chosen: frozenset[int] | None) -> tuple[Annotation, dict[int, Annotation]]:
    """Return what was painted of some labels, None for all, in the main plane and in the others."""
    planes = {0: state.annotation, **state.across}
    if chosen is not None:
        planes = {axis: annotation.restricted(chosen) for axis, annotation in planes.items()}
    return planes[0], {axis: planes[axis] for axis in planes if axis != 0 and planes[axis].slices}


def renewal(state: SessionState) -> PropagationJob | None:
    """Return what brings everything up to date that is stale, with as little as that takes; None if nothing is."""
    if not state.stale:
        return None
    chosen, travelling = None, None
    if state.outdated is not None:
        painted = frozenset(state.labels)
        if (left := state.outdated & painted) and left != painted:
            # A label that is painted nowhere any more only leaves.
            chosen, travelling = state.outdated, left
    annotation, across = _travelling(state, travelling)
    span = closed_range(annotation, min(state.stale), max(state.stale))
    return PropagationJob(state, annotation, span, state.direction, chosen, state.stale, across)


def staying(job: PropagationJob, shape: tuple[int, int]) -> Callable[[int], NDArray[np.bool_]] | None:
    """Return what tells where on a slice other labels than those of the job lie; None if all travel."""
    if job.chosen is None:
        return None
    chosen = list(job.chosen)

    def others(index: int) -> NDArray[np.bool_]:
        labels = job.before.labels_on(index, shape)
        return (labels > 0) & ~np.isin(labels, chosen)

    return others


def joined(
    job: PropagationJob, present: SessionState, results: Iterable[LabelledSlice], shape: tuple[int, int, int]
) -> SessionState:
    """Return the present state with the results of a job, all of them or those that were ready.

    A slice that what was painted since the job began reaches becomes stale again.

    Parameters
    ----------
    job, present
        The job, and the state now.
    results
        What it has computed.
    shape
        Slices, rows and columns of the scan.
    """
    found = [result for result in results if job.only is None or result.index in job.only]
    merged = dict(present.results)
    for result in found:
        merged[result.index] = protecting(job, present, result, shape[1:])
    stale = present.stale
    # With some labels only, the others are as old as before.
    outdated = set(job.before.labels) if job.before.outdated is None else job.before.outdated
    if job.chosen is None or job.chosen >= outdated:
        stale = stale - {result.index for result in found}
    after = replace(present, results=merged, stale=stale, direction=job.direction)
    repainted = job.before.repainted(present)
    if not repainted:
        return after
    before = replace(job.before, results=merged, stale=stale, outdated=present.outdated)
    return after.reopening(before, repainted, shape[0])


def protecting(
    job: PropagationJob, present: SessionState, result: LabelledSlice, shape: tuple[int, int]
) -> LabelledSlice:
    """Merge a result for some labels into the present slice without touching the voxels of the others."""
    if job.chosen is None:
        return result
    labels_now = present.labels_on(result.index, shape)
    others = (labels_now > 0) & ~np.isin(labels_now, list(job.chosen))
    before = present.results.get(result.index)
    labels: LabelArray = np.where(others, labels_now, result.labels)
    confidence = np.where(others, np.float16(1.0) if before is None else before.confidence, result.confidence)
    return LabelledSlice(result.index, labels, confidence, slice_confidence(labels, confidence, labels > 0))
