"""Labels made in one plane, seen from another."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_oneseg.plugin.plane_change import seen_in_plane, strokes, turned, with_strokes
from napari_oneseg.propagation.propagate import LabelledSlice
from napari_oneseg.session_result import all_labels
from napari_oneseg.session_state import SessionState
from napari_oneseg.volume import Volume

SHAPE = (5, 6, 7)


def volume(axis: int) -> Volume:
    return Volume(np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE), slice_axis=axis)


def in_plane(array: NDArray[np.generic], axis: int) -> NDArray[np.generic]:
    return np.moveaxis(array, axis, 0)


def result(index: int, labels: NDArray[np.uint8]) -> LabelledSlice:
    return LabelledSlice(index, labels, np.full(labels.shape, 0.5, np.float16), 0.5)


def labels_of(state: SessionState, axis: int) -> NDArray[np.unsignedinteger]:
    count, rows, columns = in_plane(np.zeros(SHAPE), axis).shape
    return np.moveaxis(all_labels(state, (count, rows, columns)), 0, axis)


def made(axis: int, label: int) -> SessionState:
    """One slice painted, one propagated, one accepted."""
    shape = in_plane(np.zeros(SHAPE), axis).shape[1:]
    images = [np.zeros(shape, np.uint8) for _ in range(3)]
    for image in images:
        image[1:3, 2:4] = label
    return SessionState(painted={1: images[0]}, results={2: result(2, images[1])}, frozen={3: images[2]})


@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("second", [0, 1, 2])
def test_every_label_is_there_in_the_other_plane_and_back(first: int, second: int) -> None:
    if first == second:
        return
    there, others = turned(made(first, 3), volume(first), None, second, SessionState())
    np.testing.assert_array_equal(labels_of(there, second), labels_of(made(first, 3), first))
    assert not there.painted, "no label sets out from a slice that was not painted in this plane"
    back, _ = turned(there, volume(second), others, first, made(first, 3))
    np.testing.assert_array_equal(labels_of(back, first), labels_of(made(first, 3), first))
    assert list(back.painted) == [1]
    assert list(back.frozen) == [3]
    assert list(back.results) == [2]
    assert back.results[2].score == 0.5, "what nothing has changed is as it was"


@pytest.mark.parametrize("complete", [False, True])
def test_what_was_changed_in_another_plane_sets_out_no_more(complete: bool) -> None:
    painted = np.zeros((6, 7), np.uint8)
    painted[1:4, 1:5] = 2
    earlier = SessionState(painted={1: painted}, complete=frozenset({1} if complete else ()))
    now = np.zeros(SHAPE, np.uint16)
    now[1, 1:4, 1:3], now[1, 1:4, 3] = 2, 420  # erased in one column, painted over in another
    state = seen_in_plane(now, np.ones(SHAPE, np.float16), earlier)
    np.testing.assert_array_equal(labels_of(state, 0), now)
    assert (state.painted[1] == 2).sum() == 6
    assert (420 in state.painted[1]) == complete
    gone = seen_in_plane(np.zeros(SHAPE, np.uint8), np.ones(SHAPE, np.float16), earlier)
    assert not labels_of(gone, 0).any()
    assert (1 in gone.painted) == complete


def test_strokes_of_all_planes_stand_where_nothing_has_changed_them() -> None:
    state = made(0, 3)
    labels = labels_of(state, 0)
    others = np.zeros_like(labels)
    others[4, 0, 0], others[4, 5, 5] = 7, 7
    labels = np.array(labels)
    labels[4, 0, 0] = 7
    found = strokes(state, labels, others)
    assert found[4, 0, 0] == 7
    assert found[4, 5, 5] == 0, "it was erased since"
    assert (found[1] == 3).any()
    assert (found[3] == 3).any()
    assert not found[2].any(), "that was propagated"


def test_a_result_does_not_write_over_a_stroke_of_another_plane() -> None:
    stroked = np.zeros((6, 7), np.uint16)
    stroked[2, 3] = 420
    kept = with_strokes(result(0, np.ones((6, 7), np.uint8)), stroked)
    assert kept.labels[2, 3] == 420
    assert kept.confidence[2, 3] == 1
    assert (kept.labels == 1).sum() == 41
    same = result(0, np.ones((6, 7), np.uint8))
    assert with_strokes(same, np.zeros((6, 7), np.uint16)) is same
