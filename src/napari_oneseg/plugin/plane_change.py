"""What was made in one plane, seen from another: nothing of it is lost, hidden or left out of an export.

A session holds painted slices of one plane. In another plane the labels are shown as slices that have arrived there:
they count, are exported and can be corrected, but no label sets out from them. What was painted in that plane before
sets out again where it still stands.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari_oneseg.propagation.propagate import LabelledSlice
    from napari_oneseg.session_state import SessionState
    from napari_oneseg.volume import LabelArray, Volume

Scalar = TypeVar("Scalar", bound=np.generic)

__all__ = ["seen_in_plane", "strokes", "turned", "with_strokes"]


def turned(
    state: SessionState, volume: Volume, others: LabelArray | None, axis: int, earlier: SessionState
) -> tuple[SessionState, LabelArray]:
    """Return what was made in one plane, for another one.

    Parameters
    ----------
    state, volume
        What was made, and the scan with the slices of that plane.
    others
        Labels that were painted in other planes, in the order of that plane's slices.
    axis
        The axis of the other plane's slices.
    earlier
        What was made in the other plane before.

    Returns
    -------
    The state for the other plane, and the labels that were not painted in it, in the order of its slices.
    """
    from napari_oneseg.session_result import present_result

    result = present_result(state, volume)
    painted = strokes(state, result.labels, others)

    def turn(array: NDArray[Scalar]) -> NDArray[Scalar]:
        return np.moveaxis(np.moveaxis(array, 0, volume.axis), axis, 0)

    return seen_in_plane(turn(result.labels), turn(result.confidence), earlier), turn(painted)


def seen_in_plane(labels: LabelArray, confidence: NDArray[np.float16], earlier: SessionState) -> SessionState:
    """Return what a session is to hold that shows labels made in another plane.

    Parameters
    ----------
    labels
        All labels as they are now, shape (n, rows, columns), in the order of this plane's slices.
    confidence
        Same shape, 0 to 1.
    earlier
        What was made in this plane before.

    Returns
    -------
    A state that shows exactly these labels. Slices that nothing has changed are those of ``earlier``.
    """
    from napari_oneseg.propagation.propagate import LabelledSlice  # it takes torch, which a window must not wait for

    painted, complete, frozen, results = dict(earlier.painted), set(earlier.complete), dict(earlier.frozen), {}
    shape = (labels.shape[1], labels.shape[2])
    changed = {
        index for index, image in enumerate(labels) if not np.array_equal(image, earlier.labels_on(index, shape))
    }
    for index in changed:
        image = _kept(labels[index])
        if index in frozen:
            frozen[index] = image
        if index in complete:
            painted[index] = image
        elif index in painted:
            before = painted[index]
            painted[index] = _kept(np.where(before == image, before, np.zeros((), before.dtype)))
        shown = image > 0
        score = float(confidence[index][shown].mean()) if shown.any() else float("nan")
        results[index] = LabelledSlice(index, image, confidence[index], score)
    gone = {index for index, image in painted.items() if not image.any() and index not in complete}
    return replace(
        earlier,
        painted={index: image for index, image in painted.items() if index not in gone},
        frozen=frozen,
        results={**earlier.results, **results},
        stale=earlier.stale - changed,
    )


def strokes(state: SessionState, labels: LabelArray, others: LabelArray | None) -> LabelArray:
    """Return the labels that a user has set himself, in any plane, and that still stand; 0 elsewhere.

    Parameters
    ----------
    state
        What was made in this plane.
    labels
        All labels as they are now, shape (n, rows, columns).
    others
        Same shape: those that were set in other planes.
    """
    kept = np.zeros_like(labels) if others is None else np.where(others == labels, labels, np.zeros((), labels.dtype))
    for index in {*state.painted, *state.frozen}:
        image = state.frozen.get(index, state.painted.get(index))
        own = image == labels[index]
        kept[index][own] = labels[index][own]
    return kept


def with_strokes(result: LabelledSlice, stroked: LabelArray) -> LabelledSlice:
    """Return a propagated slice with what was painted there in another plane, (rows, columns), over it."""
    there = stroked > 0
    if not there.any():
        return result
    labels = _kept(np.where(there, stroked, result.labels))
    confidence = np.where(there, np.float16(1.0), result.confidence)
    return replace(result, labels=labels, confidence=confidence)


def _kept(image: LabelArray) -> LabelArray:
    kept: LabelArray = np.array(image)
    kept.setflags(write=False)
    return kept
