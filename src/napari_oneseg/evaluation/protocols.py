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

``largest``, ``evenly`` and ``suggested`` can also be run with all labels *together*, as a user with several organs
would work: each is painted on its own slices, all are propagated at once, and keep each other in their places.

How many slices a user has to paint is measured by :mod:`napari_oneseg.evaluation.effort`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from napari_oneseg.errors import InputError, SessionError
from napari_oneseg.evaluation.baselines import Method, Propagate
from napari_oneseg.evaluation.cases import Case, CaseFiles
from napari_oneseg.evaluation.metrics import OrganScore, score_labels
from napari_oneseg.volume import Annotation, LabelArray, Volume, label_dtype

if TYPE_CHECKING:
    from napari_oneseg.session import OneSegSession

__all__ = [
    "CaseResult",
    "Painting",
    "PaintingProtocol",
    "Suggest",
    "Trial",
    "evaluate",
    "evaluate_case",
    "evenly_spaced",
    "oneseg_method",
    "oneseg_suggest",
    "slice_order_spacing",
    "trials",
    "widened_extent",
]

PaintingProtocol = Literal["largest", "ranged", "evenly", "suggested", "volume"]
Suggest = Callable[[Volume], Callable[[tuple[int, int] | None], int]]
"""From a volume to a function from a range of slices (first, last, both included; None: all) to the best slice."""

RANGE_MARGIN = 0.1
"""Share of the organ's extent by which a rough range is wider than it, at both ends."""


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


@dataclass(frozen=True, eq=False)
class Trial:
    """What was painted at once, and what a method made of it.

    Attributes
    ----------
    labels
        The labels that are to be scored; those that could not be painted are not in the annotation.
    annotation
        What was painted.
    result
        Labels in slice order, unsigned, shape (n, rows, columns).
    seconds
        Computing time.
    """

    labels: tuple[int, ...]
    annotation: Annotation
    result: LabelArray
    seconds: float


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
        Slices on which each label was painted; none where a suggested slice does not show it.
    seconds
        Computing time, reading and scoring left out.
    """

    case: str
    scores: tuple[OrganScore, ...]
    painted: dict[int, tuple[int, ...]]
    seconds: float


def oneseg_method(session: OneSegSession) -> Method:
    """Make a method of a session; what was painted and propagated in it before is taken back by ``undo``."""

    def prepare(volume: Volume) -> Propagate:
        _open(session, volume)

        def propagate(annotation: Annotation, slice_range: tuple[int, int] | None = None) -> LabelArray:
            while session.undo():  # painting adds to what was painted before, so the label before this one must go
                pass
            session.set_annotation(annotation)
            return session.propagate(slice_range).labels

        return propagate

    return prepare


def oneseg_suggest(session: OneSegSession) -> Suggest:
    """Make a function that suggests slices of a session; scans that it holds already are not computed anew."""

    def prepare(volume: Volume) -> Callable[[tuple[int, int] | None], int]:
        _open(session, volume)
        return lambda slice_range: session.suggest_slices(slice_range, top=1)[0].index

    return prepare


def evaluate(
    method: Method,
    cases: Sequence[Case | CaseFiles],
    painting: Painting | None = None,
    labels: Iterable[int] | None = None,
    suggest: Suggest | None = None,
    progress: Callable[[int, int], None] | None = None,
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

    Raises
    ------
    InputError
        If the protocol lacks what it needs, or a case cannot be read.
    """
    labels = None if labels is None else tuple(labels)
    results = []
    for done, item in enumerate(cases):
        case = item.load() if isinstance(item, CaseFiles) else item
        results.append(evaluate_case(method, case, painting, labels, suggest))
        if progress is not None:
            progress(done + 1, len(cases))
    return results


def evaluate_case(
    method: Method,
    case: Case,
    painting: Painting | None = None,
    labels: Iterable[int] | None = None,
    suggest: Suggest | None = None,
) -> CaseResult:
    """Put a method to the test on one case; see :func:`evaluate`."""
    scores: list[OrganScore] = []
    painted: dict[int, tuple[int, ...]] = {}
    seconds = 0.0
    for trial in trials(method, case, painting, labels, suggest):
        scores.extend(score_labels(trial.result, case.reference, slice_order_spacing(case.volume), trial.labels))
        painted.update({label: trial.annotation.anchors(label) for label in trial.labels})
        seconds += trial.seconds
    return CaseResult(case.name, tuple(scores), painted, seconds)


def trials(
    method: Method,
    case: Case,
    painting: Painting | None = None,
    labels: Iterable[int] | None = None,
    suggest: Suggest | None = None,
) -> Iterator[Trial]:
    """Paint and propagate one label after the other, or all at once, and yield what comes out; see :func:`evaluate`."""
    painting = painting or Painting()
    if suggest is None and painting.protocol in ("suggested", "volume"):
        raise InputError(
            f"The {painting.protocol} protocol needs a source of suggested slices: give a session's suggestions."
        )
    held = [int(label) for label in np.unique(case.reference) if label]
    chosen = held if labels is None else [label for label in labels if label in held]
    clock = time.perf_counter()
    propagate = method(case.volume)
    seconds = time.perf_counter() - clock
    for slices in _groups(case, chosen, painting, suggest):
        annotation = copied(case.reference, slices)
        extent = organ_extent(case.reference == next(iter(slices))) if painting.protocol == "ranged" else None
        clock = time.perf_counter()
        result = propagate(annotation, extent) if annotation.labels else np.zeros(case.reference.shape, np.uint8)
        seconds += time.perf_counter() - clock
        yield Trial(tuple(slices), annotation, result, seconds)
        seconds = 0.0


def copied(reference: LabelArray, slices: Mapping[int, Iterable[int]]) -> Annotation:
    """Copy labels from the reference, each on the given slices; slices on which nothing is copied are left out.

    Parameters
    ----------
    reference
        Shape (n, rows, columns), in slice order.
    slices
        Slices by label.
    """
    dtype = label_dtype(max(slices, default=0))
    images: dict[int, LabelArray] = {}
    for label, indices in slices.items():
        for index in indices:
            image = images.setdefault(index, np.zeros(reference.shape[1:], dtype))
            image[reference[index] == label] = label
    return Annotation({index: image for index, image in sorted(images.items()) if image.any()})


def evenly_spaced(mask: NDArray[np.bool_], count: int) -> tuple[int, ...]:
    """Return the slices of the ``evenly`` protocol, ascending; fewer where the organ has fewer, or a gap.

    Parameters
    ----------
    mask
        The organ, not empty, boolean, shape (n, rows, columns).
    count
        Number of slices.
    """
    areas = np.count_nonzero(mask, axis=(1, 2))
    held = np.flatnonzero(areas)
    if count == 1:
        return (int(areas.argmax()),)
    if len(held) <= count:
        return tuple(int(index) for index in held)
    first, last = held[0], held[-1]
    centres = first - 0.5 + (2 * np.arange(count) + 1) * (last - first + 1) / (2 * count)
    # Where the organ has a gap, the nearest slice that shows it.
    nearest = held[np.abs(held - centres[:, None]).argmin(axis=1)]
    return tuple(int(index) for index in np.unique(nearest))


def organ_extent(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Return the first and the last slice of an organ that is not empty, boolean, shape (n, rows, columns)."""
    held = np.flatnonzero(mask.any(axis=(1, 2)))
    return int(held[0]), int(held[-1])


def widened_extent(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Return the rough range that a user would give for an organ: its extent and a tenth more at both ends.

    At least one slice is added at each end, as far as the scan goes.

    Parameters
    ----------
    mask
        The organ, not empty, boolean, shape (n, rows, columns).
    """
    first, last = organ_extent(mask)
    margin = max(1, round(RANGE_MARGIN * (last - first + 1)))
    return max(0, first - margin), min(len(mask) - 1, last + margin)


def slice_order_spacing(volume: Volume) -> tuple[float, float, float]:
    """Return the distance of (slices, rows, columns) in mm."""
    return (volume.slice_spacing, *volume.in_plane_spacing)


def _groups(
    case: Case, labels: Sequence[int], painting: Painting, suggest: Suggest | None
) -> Iterator[dict[int, tuple[int, ...]]]:
    """Yield the slices by label of what is painted at once."""
    suggest_in = None if suggest is None or painting.protocol not in ("suggested", "volume") else suggest(case.volume)

    def slices_for(label: int) -> tuple[int, ...]:
        mask = case.reference == label
        return evenly_spaced(mask, painting.slices) if suggest_in is None else (suggest_in(widened_extent(mask)),)

    if painting.protocol == "volume":
        assert suggest_in is not None  # trials
        index = suggest_in(None)
        yield dict.fromkeys(labels, (index,))
    elif painting.together:
        yield {label: slices_for(label) for label in labels}
    else:
        for label in labels:
            yield {label: slices_for(label)}


def _open(session: OneSegSession, volume: Volume) -> None:
    try:
        opened = session.volume is volume
    except SessionError:  # no scan is open yet
        opened = False
    if not opened:
        session.set_volume(volume)
