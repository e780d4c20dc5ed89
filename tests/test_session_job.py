"""Strokes, and propagations that are computed while the user paints on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from napari_oneseg.errors import AnnotationError, Cancelled
from napari_oneseg.propagation.propagate import LabelledSlice
from napari_oneseg.session import OneSegSession
from napari_oneseg.session_job import staying
from tests.engine_fixtures import disc
from tests.test_session import COUNT, EMPTY, FIRST, SECOND, SHAPE, full_labels, image, new_session, snapshot


def drawn(
    *discs: tuple[int, tuple[float, float], float], on: NDArray[np.unsignedinteger]
) -> NDArray[np.unsignedinteger]:
    out = on.copy()
    for label, centre, radius in discs:
        out[disc(SHAPE, centre, radius)] = label
    return out


# Strokes ---------------------------------------------------------------------------------------------------------


def test_a_stroke_on_a_slice_without_labels_is_painting() -> None:
    session = new_session()
    assert session.paint({6: FIRST})
    assert not session.paint({6: FIRST}), "nothing changed"
    assert session.annotation.complete == frozenset()
    np.testing.assert_array_equal(session.annotation.slices[6], FIRST)
    assert session.undoable == "painting on slice 6"
    assert session.paint({6: EMPTY, 7: EMPTY}) == {6}
    assert 6 not in session.annotation.slices


def test_a_stroke_on_a_propagated_slice_is_a_correction() -> None:
    session = new_session()
    session.paint({6: FIRST})
    session.propagate()
    wanted = drawn((1, (16, 14), 3), on=session.labels[9])
    session.paint({9: wanted})
    assert session.annotation.complete == {9}
    assert session.undoable == "correcting slice 9"
    assert session.stale
    assert session.stale == set(range(6, COUNT)) - {9}, "not beyond the painted slice"
    np.testing.assert_array_equal(session.labels[9], wanted)


def test_adding_to_a_slice_that_was_painted_in_part_leaves_other_labels_free() -> None:
    session = new_session()
    session.paint({4: SECOND})
    session.paint({6: FIRST})
    session.propagate()
    shown = session.labels[6]
    assert set(np.unique(shown)) == {0, 1, 2}, "label 2 has come here from slice 4"
    wanted = drawn((1, (3, 18), 2), on=shown)
    session.paint({6: wanted})
    assert session.annotation.complete == frozenset()
    assert set(np.unique(session.annotation.slices[6])) == {0, 1}, "what came from elsewhere was not painted here"
    np.testing.assert_array_equal(session.labels[6], wanted)


def test_erasing_on_a_slice_that_was_painted_in_part_is_a_correction() -> None:
    session = new_session()
    session.paint({6: FIRST})
    session.propagate()
    wanted = session.labels[6].copy()
    wanted[:8] = 0
    session.paint({6: wanted})
    assert session.annotation.complete == {6}
    np.testing.assert_array_equal(session.labels[6], wanted)
    np.testing.assert_array_equal(session.update().labels[6], wanted)


def test_a_stroke_on_a_frozen_slice_is_kept_and_the_slice_stays_frozen() -> None:
    session = new_session()
    session.paint({6: FIRST})
    session.propagate()
    session.freeze(9)
    wanted = drawn((1, (3, 3), 2), on=session.labels[9])
    session.paint({9: wanted})
    assert session.frozen == {9}
    np.testing.assert_array_equal(session.propagate().labels[9], wanted)
    session.unfreeze(9)
    np.testing.assert_array_equal(session.labels[9], wanted, "a stroke made while it was frozen stays")


def test_a_stroke_through_several_slices_is_one_step() -> None:
    session = new_session()
    assert session.paint({3: FIRST, 4: FIRST, 5: EMPTY}) == {3, 4}
    assert session.undoable == "painting on 2 slices"
    session.undo()
    assert not session.annotation.slices


def test_a_stroke_that_does_not_fit_is_refused() -> None:
    session = new_session()
    with pytest.raises(AnnotationError, match="rows and columns"):
        session.paint({6: FIRST[:-1]})
    with pytest.raises(AnnotationError, match="There is no slice 14"):
        session.paint({COUNT: FIRST})
    assert not session.undoable


painted_images = st.sampled_from(
    [EMPTY, FIRST, SECOND, FIRST + SECOND, image((3, (6, 16), 4)), image((1, (12, 12), 8), (2, (12, 12), 3))]
)


def act(session: OneSegSession, data: st.DataObject) -> bool:
    """Do something at random; return whether it is a step of the history."""
    what = data.draw(st.sampled_from(["paint", "add", "propagate", "update", "freeze", "unfreeze"]))
    index = data.draw(st.integers(4, 8))
    if what in ("paint", "add"):
        wanted = data.draw(painted_images)
        if what == "add":
            wanted = np.where(wanted > 0, wanted, session.labels[index])
        changed = session.paint({index: wanted})
        np.testing.assert_array_equal(session.labels[index], wanted)
        return bool(changed)
    if what in ("freeze", "unfreeze"):
        possible = (index in session.frozen) == (what == "unfreeze")
        getattr(session, what)(index)
        return possible
    possible = bool(session.annotation.labels) and (what == "propagate" or bool(session.stale))
    if possible:
        session.propagate() if what == "propagate" else session.update()
    return possible


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_slice_always_shows_what_was_painted_last(data: st.DataObject) -> None:
    session = new_session()
    session.paint({6: FIRST})
    seen = [snapshot(session)]
    for _ in range(data.draw(st.integers(1, 8))):
        if act(session, data):
            seen.append(snapshot(session))  # noqa: PERF401 - state by state
    for state in reversed(seen):
        assert snapshot(session) == state
        session.undo()


# Jobs ------------------------------------------------------------------------------------------------------------


def test_a_job_taken_as_it_comes_is_a_propagation() -> None:
    session = new_session()
    session.paint({6: FIRST})
    job = session.begin()
    results = list(session.compute(job))
    assert sorted(result.index for result in results) == list(range(COUNT))
    assert [result.index for result in results][:2] == [7, 8], "from the painted slice outward"
    shown = {result.index: session.preview(job, result) for result in results}
    assert not session.labels[7].any(), "computing changes nothing"
    session.take(job, results)
    for index, labels in shown.items():
        np.testing.assert_array_equal(session.labels[index], labels)
    np.testing.assert_array_equal(session.labels, full_labels(session))
    assert session.undoable == "propagation"
    session.undo()
    assert session.redoable == "propagation"
    assert not session.labels[7].any()
    np.testing.assert_array_equal(session.labels[6], FIRST)


def test_what_was_painted_while_a_job_ran_stays_and_makes_its_surroundings_stale() -> None:
    session = new_session()
    session.paint({6: FIRST})
    job = session.begin()
    results = list(session.compute(job))
    session.paint({9: SECOND})
    session.take(job, results)
    np.testing.assert_array_equal(session.labels[9] == 2, SECOND == 2)
    assert session.annotation.slices.keys() == {6, 9}
    # Label 2 reaches the whole scan, label 1 comes from slice 6 as before.
    assert session.stale == set(range(COUNT))
    np.testing.assert_array_equal(session.update().labels, full_labels(session))


def test_a_slice_frozen_while_a_job_ran_is_not_touched() -> None:
    session = new_session()
    session.paint({6: FIRST})
    session.propagate()
    job = session.begin()
    results = list(session.compute(job))
    session.paint({8: SECOND})
    session.freeze(8)
    session.take(job, results)
    np.testing.assert_array_equal(session.labels[8], SECOND)
    np.testing.assert_array_equal(session.update().labels, full_labels(session))


def test_a_job_that_was_stopped_leaves_what_was_ready() -> None:
    session = new_session()
    session.paint({6: FIRST})
    job = session.begin()

    def stop(done: int, _total: int) -> None:
        if done > 10:
            raise Cancelled

    found: list[LabelledSlice] = []
    with pytest.raises(Cancelled):
        found.extend(session.compute(job, stop))
    assert 0 < len(found) < COUNT
    session.take(job, found)
    assert set(np.flatnonzero(session.labels.any((1, 2)))) == {6} | {result.index for result in found}
    session.take(session.begin(), [])
    assert session.undoable == "propagation", "an empty result is no step"


def test_an_update_renews_stale_slices_only() -> None:
    session = new_session()
    session.paint({2: FIRST})
    session.paint({10: FIRST})
    assert session.begin_update() is None
    session.propagate()
    session.paint({6: SECOND + session.labels[6] * (SECOND == 0)})
    job = session.begin_update()
    assert job is not None
    before, shown = session.state, session.labels
    session.take(job, session.compute(job))
    assert not session.stale
    assert before.changed(session.state) >= before.stale
    np.testing.assert_array_equal(session.labels == 1, shown == 1)
    np.testing.assert_array_equal(session.labels == 2, (full_labels(session) == 2) & (shown != 1))


def test_some_labels_are_shown_over_what_is_there() -> None:
    session = new_session()
    session.paint({6: FIRST + SECOND})
    session.propagate()
    session.paint({8: drawn((1, (14, 15), 7), on=session.labels[8])})
    job = session.begin(labels=[1])
    results = list(session.compute(job))
    shown = {result.index: session.preview(job, result) for result in results}
    session.take(job, results)
    for index, labels in shown.items():
        np.testing.assert_array_equal(session.labels[index], labels)


def test_a_label_is_taken_out_of_everything_and_comes_back() -> None:
    session = new_session()
    session.paint({4: SECOND, 6: FIRST})
    session.propagate()
    session.freeze(9)
    before, stale = snapshot(session), session.stale
    session.remove(2)
    assert set(np.unique(session.labels)) == {0, 1}
    assert session.annotation.labels == (1,)
    assert session.stale == stale
    session.remove(7)
    session.undo()
    assert snapshot(session) == before


def test_a_stroke_on_a_slice_that_a_running_job_has_shown_is_a_correction() -> None:
    session = new_session()
    session.paint({6: FIRST})
    job = session.begin()
    results = {result.index: result for result in session.compute(job)}
    seen = session.preview(job, results[8]).copy()
    seen[:8] = 0
    session.paint({8: seen}, corrected={8})
    session.take(job, results.values())
    np.testing.assert_array_equal(session.labels[8], seen)
    assert session.annotation.complete == {8}


def test_labels_that_stay_are_told_to_those_that_travel() -> None:
    session = new_session()
    session.paint({6: FIRST + SECOND})
    job = session.begin()
    assert staying(job, SHAPE) is None, "all travel"
    session.take(job, session.compute(job))
    session.paint({8: drawn((1, (14, 15), 7), on=session.labels[8])})
    others = staying(session.begin(labels=[1]), SHAPE)
    assert others is not None
    np.testing.assert_array_equal(others(6), SECOND > 0)
    np.testing.assert_array_equal(others(9), session.labels[9] == 2)
