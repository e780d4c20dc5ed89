"""How many slices have to be painted: a simulated annotator who copies them from the reference, one after the other.

One label at a time. After each slice the whole scan is labelled and scored, which gives a curve: the score after 1, 2,
3, ... painted slices. Different annotators place their slices differently:

:func:`suggesting`
    Paints the slice that the session suggests within the organ's extent widened by a tenth at both ends, then each next
    slice that a strategy names. A slice that does not show the organ counts as painted: it says that nothing is there.
:func:`spacing_evenly`
    Paints k slices evenly spaced over the organ's true extent, and spaces them anew for each k. That is more than a
    real annotator could do, who has to place the first slice before knowing how many there will be.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_oneseg.errors import InputError
from napari_oneseg.evaluation.baselines import Method
from napari_oneseg.evaluation.cases import Case
from napari_oneseg.evaluation.metrics import OrganScore, score_labels
from napari_oneseg.evaluation.painted_places import copied, evenly_spaced, widened_extent
from napari_oneseg.evaluation.protocols import oneseg_method, slice_order_spacing
from napari_oneseg.volume import Annotation, LabelArray

if TYPE_CHECKING:
    from napari_oneseg.session import OneSegSession

__all__ = [
    "COUNTS",
    "MOST_SLICES",
    "STRATEGIES",
    "THRESHOLDS",
    "Annotator",
    "EffortCurve",
    "NextSlice",
    "effort_curve",
    "largest_gap",
    "lowest_confidence",
    "spacing_evenly",
    "suggested_next",
    "suggesting",
]

COUNTS = (1, 2, 3, 5, 8)
"""Numbers of painted slices after which a curve is reported."""
THRESHOLDS = (0.90, 0.95)
"""Dice coefficients whose number of slices is reported."""
MOST_SLICES = 12
"""Nobody paints more; a curve that has not reached a threshold by then never does."""

Step = tuple[tuple[int, ...], LabelArray]
Annotator = Callable[[Case, int], Iterator[Step]]
"""From a case and a label to the painted slices and the result, after one painted slice, after two, and so on.

It ends where there is nothing more to paint.
"""

NextSlice = Callable[["OneSegSession", int, tuple[int, int] | None], int | None]
"""Names the slice to paint next: from a session after a propagation, the label in question, and the range of slices to
choose from (first, last, both included; None: all). None where nothing more is to be gained."""


@dataclass(frozen=True)
class EffortCurve:
    """What each further slice brought for one label of one case.

    Attributes
    ----------
    case
        Name of the case.
    label
        Label value.
    painted
        The painted slices after each step, in the order of painting.
    scores
        The score after each step, over the whole scan.
    seconds
        Computing time, scoring left out.
    """

    case: str
    label: int
    painted: tuple[tuple[int, ...], ...]
    scores: tuple[OrganScore, ...]
    seconds: float

    def after(self, count: int) -> OrganScore:
        """Return the score after ``count`` slices; the last one where the annotator stopped before."""
        return self.scores[min(count, len(self.scores)) - 1]

    def slices_to(self, threshold: float) -> int | None:
        """Return after how many slices the Dice coefficient first reached a threshold; None where it never did."""
        return next((k for k, score in enumerate(self.scores, start=1) if score.dice >= threshold), None)


def effort_curve(annotator: Annotator, case: Case, label: int, most: int = MOST_SLICES) -> EffortCurve:
    """Let an annotator paint one label of a case, slice by slice.

    The curve ends at ``most`` slices, or as soon as it holds all that is reported: the largest of :data:`COUNTS` and
    the highest of :data:`THRESHOLDS`.

    Parameters
    ----------
    annotator
        Who paints.
    case
        A scan with a reference.
    label
        A label that the reference holds.
    most
        Most slices to paint, at least 1.
    """
    painted: list[tuple[int, ...]] = []
    scores: list[OrganScore] = []
    seconds, clock = 0.0, time.perf_counter()
    for slices, result in annotator(case, label):
        seconds += time.perf_counter() - clock
        painted.append(slices)
        scores.extend(score_labels(result, case.reference, slice_order_spacing(case.volume), [label]))
        reached = max(score.dice for score in scores) >= max(THRESHOLDS)
        if len(scores) >= most or (reached and len(scores) >= max(COUNTS)):
            break
        clock = time.perf_counter()
    return EffortCurve(case.name, label, tuple(painted), tuple(scores), seconds)


def spacing_evenly(method: Method) -> Annotator:
    """Make an annotator who spaces the slices evenly over the organ, and has a method fill in the rest."""

    def annotate(case: Case, label: int) -> Iterator[Step]:
        propagate = method(case.volume)
        mask = case.reference == label
        for count in range(1, np.count_nonzero(mask.any(axis=(1, 2))) + 1):
            slices = evenly_spaced(mask, count)
            yield slices, propagate(copied(case.reference, {label: slices}))

    return annotate


def suggesting(session: OneSegSession, next_slice: NextSlice) -> Annotator:
    """Make an annotator who paints what is suggested: first by the session, then by a strategy."""
    method = oneseg_method(session)

    def annotate(case: Case, label: int) -> Iterator[Step]:
        propagate = method(case.volume)
        span = widened_extent(case.reference == label)
        ranking = iter([suggestion.index for suggestion in session.suggest_slices(span)])
        painted: list[int] = []
        index = next(ranking, None)
        while index is not None:
            if index in painted:
                raise InputError(f"The strategy named slice {index} again, which is painted already.")
            painted.append(index)
            annotation = _looked_at(case.reference, label, painted)
            if annotation.labels:
                yield tuple(painted), propagate(annotation)
                index = next_slice(session, label, span)
            else:  # there is nothing to propagate yet: the annotator tries the next best slice
                yield tuple(painted), np.zeros(case.reference.shape, np.uint8)
                index = next(ranking, None)

    return annotate


def suggested_next(session: OneSegSession, label: int, slice_range: tuple[int, int] | None) -> int | None:
    """Name the slice that the session suggests next; see :meth:`~napari_oneseg.session.OneSegSession.suggest_next`."""
    suggestions = session.suggest_next(slice_range=slice_range, label=label)
    return suggestions[0].index if suggestions else None


def lowest_confidence(session: OneSegSession, label: int, slice_range: tuple[int, int] | None) -> int | None:
    """Name the slice whose labels are least trusted, the middle of the largest gap where none has any."""
    confidence = session.result().slice_confidence
    free = [index for index in _free(session, slice_range) if np.isfinite(confidence[index])]
    if not free:
        return largest_gap(session, label, slice_range)
    return min(free, key=lambda index: confidence[index])


def largest_gap(session: OneSegSession, label: int, slice_range: tuple[int, int] | None) -> int | None:
    """Name the slice that lies farthest from all painted ones, whatever they show."""
    known: NDArray[np.int64] = np.array(session.annotation.anchors(label))
    free = _free(session, slice_range)
    return max(free, key=lambda index: int(np.abs(known - index).min()), default=None)


STRATEGIES: dict[str, NextSlice] = {
    "suggested": suggested_next,
    "confidence": lowest_confidence,
    "gap": largest_gap,
}
"""The strategies by the names that the benchmark knows them by."""


def _looked_at(reference: LabelArray, label: int, indices: list[int]) -> Annotation:
    """Copy a label from the reference; slices that do not show it are empty, and complete."""
    shown = copied(reference, {label: indices})
    empty = {index: np.zeros(reference.shape[1:], np.uint8) for index in indices if index not in shown.slices}
    return Annotation({**shown.slices, **empty}, frozenset(empty))


def _free(session: OneSegSession, slice_range: tuple[int, int] | None) -> list[int]:
    first, last = slice_range or (0, session.volume.n_slices - 1)
    return [index for index in range(first, last + 1) if index not in session.annotation.slices]
