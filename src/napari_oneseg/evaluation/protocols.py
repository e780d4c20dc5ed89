"""What is painted, and from which slice: how a method is put to the test.

The painted slices are copied from the reference, so the scores measure the method alone. They are part of the scored
volume, as in the paper.

``largest``
    One label at a time, painted on the slice of its largest area and carried through the whole scan.
``evenly``
    One label at a time, painted on k slices: the centres of k equal parts of the organ's extent. That avoids its first
    and last slice, whose masks are tiny. One slice is the ``largest`` protocol's.
``suggested``
    One label at a time, painted on the slice that is suggested within the organ's extent widened by a tenth at both
    ends: the rough range that a user would give.
``volume``
    The one slice that is suggested for the whole scan, with all labels that it shows at once, as in the paper. Labels
    that it does not show score 0.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
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
    "PaintingProtocol",
    "Suggest",
    "evaluate",
    "evaluate_case",
    "evenly_spaced",
    "oneseg_method",
    "oneseg_suggest",
]

PaintingProtocol = Literal["largest", "evenly", "suggested", "volume"]
Suggest = Callable[[Volume], Callable[[tuple[int, int] | None], int]]
"""From a volume to a function from a range of slices (first, last, both included; None: all) to the best slice."""

RANGE_MARGIN = 0.1
"""Share of the organ's extent by which the ``suggested`` protocol widens the range at both ends."""


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

        def propagate(annotation: Annotation) -> LabelArray:
            while session.undo():  # painting adds to what was painted before, so the label before this one must go
                pass
            session.set_annotation(annotation)
            return session.propagate().labels

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
    labels: Iterable[int] | None = None,
    protocol: PaintingProtocol = "largest",
    slices: int = 1,
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
    labels
        Labels to score, by default all that the case's reference holds.
    protocol
        Which slices are painted; see the module's documentation.
    slices
        Number of slices to paint, for the ``evenly`` protocol.
    suggest
        Source of suggested slices, such as :func:`oneseg_suggest`, for ``suggested`` and ``volume``.
    progress
        Called with (cases done, all cases).

    Raises
    ------
    InputError
        If the protocol is unknown or lacks what it needs, or a case cannot be read.
    """
    labels = None if labels is None else tuple(labels)
    results = []
    for done, item in enumerate(cases):
        case = item.load() if isinstance(item, CaseFiles) else item
        results.append(evaluate_case(method, case, labels, protocol, slices, suggest))
        if progress is not None:
            progress(done + 1, len(cases))
    return results


def evaluate_case(
    method: Method,
    case: Case,
    labels: Iterable[int] | None = None,
    protocol: PaintingProtocol = "largest",
    slices: int = 1,
    suggest: Suggest | None = None,
) -> CaseResult:
    """Put a method to the test on one case; see :func:`evaluate`."""
    _check_protocol(protocol, slices, suggest)
    held = [int(label) for label in np.unique(case.reference) if label]
    chosen = held if labels is None else [label for label in labels if label in held]
    clock = time.perf_counter()
    propagate = method(case.volume)
    seconds = time.perf_counter() - clock
    scores: list[OrganScore] = []
    painted: dict[int, tuple[int, ...]] = {}
    for group, indices in _paintings(case, chosen, protocol, slices, suggest):
        annotation = _painted(case.reference, group, indices)
        clock = time.perf_counter()
        result = propagate(annotation) if annotation.labels else np.zeros(case.reference.shape, np.uint8)
        seconds += time.perf_counter() - clock
        scores.extend(score_labels(result, case.reference, _slice_order_spacing(case.volume), group))
        painted.update({label: annotation.anchors(label) for label in group})
    return CaseResult(case.name, tuple(scores), painted, seconds)


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


def _paintings(
    case: Case, labels: Sequence[int], protocol: PaintingProtocol, slices: int, suggest: Suggest | None
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Yield which labels are painted together, and on which slices."""
    if protocol in ("largest", "evenly"):
        for label in labels:
            yield (label,), evenly_spaced(case.reference == label, slices)
        return
    assert suggest is not None  # _check_protocol
    suggest_in = suggest(case.volume)
    if protocol == "volume":
        yield tuple(labels), (suggest_in(None),)
        return
    for label in labels:
        yield (label,), (suggest_in(_widened_extent(case.reference == label)),)


def _widened_extent(mask: NDArray[np.bool_]) -> tuple[int, int]:
    held = np.flatnonzero(mask.any(axis=(1, 2)))
    margin = max(1, round(RANGE_MARGIN * (held[-1] - held[0] + 1)))
    return max(0, int(held[0]) - margin), min(len(mask) - 1, int(held[-1]) + margin)


def _painted(reference: LabelArray, labels: Sequence[int], indices: Sequence[int]) -> Annotation:
    """Copy the given labels of the given slices from the reference."""
    dtype = label_dtype(max(labels, default=0))
    images = {index: (reference[index] * np.isin(reference[index], labels)).astype(dtype) for index in indices}
    return Annotation({index: image for index, image in images.items() if image.any()})


def _check_protocol(protocol: str, slices: int, suggest: Suggest | None) -> None:
    if protocol not in get_args(PaintingProtocol):
        raise InputError(f"The protocol must be one of {', '.join(get_args(PaintingProtocol))}, got {protocol!r}.")
    if slices < 1 or (slices > 1 and protocol != "evenly"):
        raise InputError(
            f"The {protocol} protocol paints {'at least ' if protocol == 'evenly' else ''}one slice, got {slices}. "
            "Use the evenly protocol for several slices."
        )
    if suggest is None and protocol in ("suggested", "volume"):
        raise InputError(f"The {protocol} protocol needs a source of suggested slices: give a session's suggestions.")


def _open(session: OneSegSession, volume: Volume) -> None:
    try:
        opened = session.volume is volume
    except SessionError:  # no scan is open yet
        opened = False
    if not opened:
        session.set_volume(volume)


def _slice_order_spacing(volume: Volume) -> tuple[float, float, float]:
    return (volume.slice_spacing, *volume.in_plane_spacing)
