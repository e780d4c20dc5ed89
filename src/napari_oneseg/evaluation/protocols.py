"""What is painted, and from which slice: how a method is put to the test.

The painted slices are copied from the reference, so the scores measure the method alone. They are part of the scored
volume, as in the paper.

``largest``
    One label at a time, painted on the slice of its largest area and carried through the whole scan.
``ranged``
    The same, with the organ's first and last slice given as the range to propagate over: two key presses more.
``evenly``
    One label at a time, painted on k slices: the centres of k equal parts of the organ's extent. That avoids its first
    and last slice, whose masks are tiny. One slice is the ``largest`` protocol's.
``suggested``
    One label at a time, painted on the slice that is suggested within the organ's extent widened by a tenth at both
    ends: the rough range that a user would give. It is carried through the whole scan.
``volume``
    The one slice that is suggested for the whole scan, with all labels that it shows at once, as in the paper. Labels
    that it does not show score 0.
``best-plane``
    One label at a time, painted on its largest slice of the plane that is suggested from a click in the middle of the
    organ: the voxel that lies deepest in it. It is carried through the whole scan.
``two-planes``
    The same, painted on its largest slice of each of the two planes that are suggested first.

``largest``, ``evenly`` and ``suggested`` can also be run with all labels *together*, as a user with several organs
would work: each is painted on its own slices, all are propagated at once, and keep each other in their places.

How many slices a user has to paint is measured by :mod:`napari_oneseg.evaluation.effort`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from napari_oneseg.errors import InputError, SessionError
from napari_oneseg.evaluation.baselines import Method, Propagate
from napari_oneseg.evaluation.cases import Case, CaseFiles
from napari_oneseg.evaluation.metrics import OrganScore, score_labels
from napari_oneseg.evaluation.painted_places import copied, deepest_voxel, evenly_spaced, organ_extent, widened_extent
from napari_oneseg.session_planes import plane_axes, turned_annotation
from napari_oneseg.volume import Annotation, LabelArray, Volume

if TYPE_CHECKING:
    from napari_oneseg.session import OneSegSession

__all__ = [
    "PLANE_PROTOCOLS",
    "CaseResult",
    "Painting",
    "PaintingProtocol",
    "Suggest",
    "SuggestPlanes",
    "Trial",
    "evaluate",
    "evaluate_case",
    "oneseg_method",
    "oneseg_planes",
    "oneseg_suggest",
    "slice_order_spacing",
    "trials",
]

PaintingProtocol = Literal["largest", "ranged", "evenly", "suggested", "volume", "best-plane", "two-planes"]
Suggest = Callable[[Volume], Callable[[tuple[int, int] | None], int]]
"""From a volume to a function from a range of slices (first, last, both included; None: all) to the best slice."""
SuggestPlanes = Callable[[Volume], Callable[[tuple[int, int, int]], Sequence[int]]]
"""From a volume to a function from a voxel (slice, row, column) to the axes, in slice order, across which the planes
for painting what lies there run, best first."""

PLANE_PROTOCOLS: dict[str, int] = {"best-plane": 1, "two-planes": 2}
"""The protocols that paint in suggested planes, and in how many."""


@dataclass(frozen=True)
class Painting:
    """What is painted from the reference.

    Attributes
    ----------
    protocol
        Which slices; see the module's documentation.
    slices
        How many, for the ``evenly`` protocol.
    together
        Whether all labels are painted and propagated at once.
    """

    protocol: PaintingProtocol = "largest"
    slices: int = 1
    together: bool = False

    def __post_init__(self) -> None:
        known, protocol = get_args(PaintingProtocol), self.protocol
        if protocol not in known:
            raise InputError(f"The protocol must be one of {', '.join(known)}, got {protocol!r}.")
        if self.slices < 1 or (self.slices > 1 and protocol != "evenly"):
            raise InputError(
                f"The {protocol} protocol paints {'at least ' if protocol == 'evenly' else ''}one slice, got "
                f"{self.slices}. Use the evenly protocol for several slices."
            )
        if self.together and protocol == "ranged":
            raise InputError("The ranged protocol gives each label its own range, so labels cannot run together.")
        if self.together and protocol in PLANE_PROTOCOLS:
            raise InputError(f"The {protocol} protocol gives each label its own planes, so labels cannot run together.")


@dataclass(frozen=True, eq=False)
class Trial:
    """What was painted at once, and what a method made of it.

    Attributes
    ----------
    labels
        The labels that are to be scored; those that could not be painted are not in the annotation.
    annotation
        What was painted on the scan's own slices.
    result
        Labels in slice order, unsigned, shape (n, rows, columns).
    seconds
        Computing time.
    across
        What was painted in other planes, by the axis in slice order that their slices lie across; each slice over the
        two other axes.
    """

    labels: tuple[int, ...]
    annotation: Annotation
    result: LabelArray
    seconds: float
    across: Mapping[int, Annotation] = field(default_factory=dict)


@dataclass(frozen=True)
class CaseResult:
    """Scores of one method on one case.

    Attributes
    ----------
    case
        Name of the case.
    scores
        One per label that the reference holds.
    painted
        Slices of the scan's own plane on which each label was painted; none where a suggested slice does not show it.
    seconds
        Computing time, reading and scoring left out.
    across
        Slices of other planes on which each label was painted, by label, then by the axis in slice order that they lie
        across.
    """

    case: str
    scores: tuple[OrganScore, ...]
    painted: dict[int, tuple[int, ...]]
    seconds: float
    across: dict[int, dict[int, tuple[int, ...]]] = field(default_factory=dict)


def oneseg_method(session: OneSegSession) -> Method:
    """Make a method of a session; what was painted and propagated in it before is taken back by ``undo``."""

    def prepare(volume: Volume) -> Propagate:
        _open(session, volume)

        def propagate(
            annotation: Annotation,
            slice_range: tuple[int, int] | None = None,
            across: Mapping[int, Annotation] | None = None,
        ) -> LabelArray:
            while session.undo():  # painting adds to what was painted before, so the label before this one must go
                pass
            if annotation.slices:
                session.set_annotation(annotation)
            axes = plane_axes(volume.axis)
            for axis, painted in (across or {}).items():
                session.set_annotation(turned_annotation(painted, axes[axis], volume.axis), axes[axis])
            return session.propagate(slice_range).labels

        return propagate

    return prepare


def oneseg_suggest(session: OneSegSession) -> Suggest:
    """Make a function that suggests slices of a session; scans that it holds already are not computed anew."""

    def prepare(volume: Volume) -> Callable[[tuple[int, int] | None], int]:
        _open(session, volume)
        return lambda slice_range: session.suggest_slices(slice_range, top=1)[0].index

    return prepare


def oneseg_planes(session: OneSegSession) -> SuggestPlanes:
    """Make a function that suggests planes of a session; scans that it holds already are not computed anew."""

    def prepare(volume: Volume) -> Callable[[tuple[int, int, int]], Sequence[int]]:
        _open(session, volume)
        axes = plane_axes(volume.axis)
        return lambda voxel: [axes.index(found.extent.plane) for found in session.suggest_planes(*voxel)]

    return prepare


def evaluate(
    method: Method,
    cases: Sequence[Case | CaseFiles],
    painting: Painting | None = None,
    labels: Iterable[int] | None = None,
    suggest: Suggest | None = None,
    progress: Callable[[int, int], None] | None = None,
    planes: SuggestPlanes | None = None,
) -> list[CaseResult]:
    """Put a method to the test.

    Parameters
    ----------
    method
        A baseline, or :func:`oneseg_method`.
    cases
        Scans with references; those given as files are read one at a time.
    painting
        What is painted, by default each label on its largest slice.
    labels
        Labels to paint and score, by default all that the case's reference holds.
    suggest
        Source of suggested slices, such as :func:`oneseg_suggest`, for ``suggested`` and ``volume``.
    progress
        Called with (cases done, all cases).
    planes
        Source of suggested planes, such as :func:`oneseg_planes`, for ``best-plane`` and ``two-planes``; the method
        must be one that carries labels along all planes, as :func:`oneseg_method` does.

    Raises
    ------
    InputError
        If the protocol lacks what it needs, or a case cannot be read.
    """
    labels = None if labels is None else tuple(labels)
    results = []
    for done, item in enumerate(cases):
        case = item.load() if isinstance(item, CaseFiles) else item
        results.append(evaluate_case(method, case, painting, labels, suggest, planes))
        if progress is not None:
            progress(done + 1, len(cases))
    return results


def evaluate_case(
    method: Method,
    case: Case,
    painting: Painting | None = None,
    labels: Iterable[int] | None = None,
    suggest: Suggest | None = None,
    planes: SuggestPlanes | None = None,
) -> CaseResult:
    """Put a method to the test on one case; see :func:`evaluate`."""
    scores: list[OrganScore] = []
    painted: dict[int, tuple[int, ...]] = {}
    across: dict[int, dict[int, tuple[int, ...]]] = {}
    seconds = 0.0
    for trial in trials(method, case, painting, labels, suggest, planes):
        scores.extend(score_labels(trial.result, case.reference, slice_order_spacing(case.volume), trial.labels))
        painted.update({label: trial.annotation.anchors(label) for label in trial.labels})
        if trial.across:
            anchors = {axis: annotation.anchors for axis, annotation in trial.across.items()}
            across.update({label: {axis: of(label) for axis, of in anchors.items()} for label in trial.labels})
        seconds += trial.seconds
    return CaseResult(case.name, tuple(scores), painted, seconds, across)


def trials(
    method: Method,
    case: Case,
    painting: Painting | None = None,
    labels: Iterable[int] | None = None,
    suggest: Suggest | None = None,
    planes: SuggestPlanes | None = None,
) -> Iterator[Trial]:
    """Paint and propagate one label after the other, or all at once, and yield what comes out; see :func:`evaluate`."""
    painting = painting or Painting()
    if suggest is None and painting.protocol in ("suggested", "volume"):
        raise InputError(
            f"The {painting.protocol} protocol needs a source of suggested slices: give a session's suggestions."
        )
    if planes is None and painting.protocol in PLANE_PROTOCOLS:
        raise InputError(
            f"The {painting.protocol} protocol needs a source of suggested planes: give a session's suggestions."
        )
    held = [int(label) for label in np.unique(case.reference) if label]
    chosen = held if labels is None else [label for label in labels if label in held]
    clock = time.perf_counter()
    propagate = method(case.volume)
    seconds = time.perf_counter() - clock
    for placed in _groups(case, chosen, painting, suggest, planes):
        together = tuple(dict.fromkeys(label for slices in placed.values() for label in slices))
        painted = {axis: copied(np.moveaxis(case.reference, axis, 0), slices) for axis, slices in placed.items()}
        annotation, across = painted.get(0, Annotation()), {axis: painted[axis] for axis in placed if axis}
        extent = organ_extent(case.reference == together[0]) if painting.protocol == "ranged" else None
        clock = time.perf_counter()
        if across:
            result = propagate(annotation, extent, across)
        else:
            result = propagate(annotation, extent) if annotation.labels else np.zeros(case.reference.shape, np.uint8)
        seconds += time.perf_counter() - clock
        yield Trial(together, annotation, result, seconds, across)
        seconds = 0.0


def slice_order_spacing(volume: Volume) -> tuple[float, float, float]:
    """Return the distance of (slices, rows, columns) in mm."""
    return (volume.slice_spacing, *volume.in_plane_spacing)


Placed = dict[int, dict[int, tuple[int, ...]]]
"""What is painted at once: slices by the axis that they lie across, then by label."""


def _groups(
    case: Case, labels: Sequence[int], painting: Painting, suggest: Suggest | None, planes: SuggestPlanes | None
) -> Iterator[Placed]:
    """Yield what is painted at once, group by group."""
    if painting.protocol in PLANE_PROTOCOLS:
        assert planes is not None  # trials
        ranked = planes(case.volume)
        for label in labels:
            mask = case.reference == label
            axes = ranked(deepest_voxel(mask, slice_order_spacing(case.volume)))[: PLANE_PROTOCOLS[painting.protocol]]
            yield {axis: {label: evenly_spaced(np.moveaxis(mask, axis, 0), 1)} for axis in axes}
        return
    suggest_in = None if suggest is None or painting.protocol not in ("suggested", "volume") else suggest(case.volume)

    def slices_for(label: int) -> tuple[int, ...]:
        mask = case.reference == label
        return evenly_spaced(mask, painting.slices) if suggest_in is None else (suggest_in(widened_extent(mask)),)

    if painting.protocol == "volume":
        assert suggest_in is not None  # trials
        index = suggest_in(None)
        yield {0: dict.fromkeys(labels, (index,))}
    elif painting.together:
        yield {0: {label: slices_for(label) for label in labels}}
    else:
        for label in labels:
            yield {0: {label: slices_for(label)}}


def _open(session: OneSegSession, volume: Volume) -> None:
    try:
        opened = session.volume is volume
    except SessionError:  # no scan is open yet
        opened = False
    if not opened:
        session.set_volume(volume)
