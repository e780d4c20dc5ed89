from __future__ import annotations

import warnings
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from napari_oneseg import scan_features, session_planes, session_state
from napari_oneseg import session as session_module
from napari_oneseg.config import PropagationConfig
from napari_oneseg.errors import AnnotationError, Cancelled, InputError, OutputError, SessionError
from napari_oneseg.features.extractor import FeatureStack
from napari_oneseg.session import OneSegSession
from napari_oneseg.session_file import load_session
from napari_oneseg.volume import Annotation, Volume
from tests.engine_fixtures import disc, moving_stack, tiny_weights

SHAPE = (24, 24)
COUNT = 14
STACK = moving_stack(COUNT, SHAPE, (0, 1), scale=9.0)
VOLUME = Volume(np.random.default_rng(0).normal(size=(COUNT, *SHAPE)), (2.0, 1.0, 0.5), slice_axis=0)
WEIGHTS = tiny_weights()


def new_session(stack: FeatureStack = STACK) -> OneSegSession:
    """A session whose features are made by hand."""
    session = OneSegSession(WEIGHTS, "cpu", propagation=PropagationConfig(window=5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan_features, "compute_features", lambda *_: stack)
        session.set_volume(VOLUME)
    return session


def image(*discs: tuple[int, tuple[float, float], float]) -> NDArray[np.uint8]:
    out = np.zeros(SHAPE, np.uint8)
    for label, centre, radius in discs:
        out[disc(SHAPE, centre, radius)] = label
    return out


EMPTY = image()
FIRST, SECOND = image((1, (8, 8), 4)), image((2, (16, 14), 3))
BOTH = FIRST + SECOND


def snapshot(session: OneSegSession) -> tuple[object, ...]:
    """All that a user can see of a session, as values to compare."""
    result, annotation = session.result(), session.annotation
    return (
        result.labels.tobytes(),
        result.labels.dtype,
        result.confidence.tobytes(),
        result.slice_confidence.tobytes(),
        sorted(session.stale),
        sorted(session.frozen),
        sorted(annotation.complete),
        [(index, annotation.slices[index].tobytes()) for index in sorted(annotation.slices)],
    )


def full_labels(session: OneSegSession, labels: Collection[int] | None = None) -> NDArray[np.unsignedinteger]:
    """Labels of a propagation from scratch, with the same painted and frozen slices."""
    other = new_session()
    other.set_annotation(session.annotation)
    return other.propagate(labels=labels).labels


# The plain way of use --------------------------------------------------------------------------------------------


def test_before_a_scan_is_open() -> None:
    session = OneSegSession(WEIGHTS, "cpu")
    for call in (session.propagate, session.suggest_slices, session.result, lambda: session.annotate(0, EMPTY)):
        with pytest.raises(SessionError, match="call set_volume first"):
            call()
    with pytest.raises(SessionError):
        session.resume("none")


def test_with_a_real_network() -> None:
    session = OneSegSession(WEIGHTS, "cpu")
    calls: list[tuple[int, int]] = []
    session.set_volume(VOLUME, progress=lambda *c: calls.append(c))
    assert calls[-1] == (COUNT, COUNT)
    suggestions = session.suggest_slices((2, 9), top=3)
    assert len(suggestions) == 3
    assert all(2 <= s.index <= 9 for s in suggestions)
    session.annotate(suggestions[0].index, BOTH)
    result = session.propagate()
    assert result.labels.shape == (COUNT, *SHAPE)
    assert np.array_equal(result.labels[suggestions[0].index][BOTH > 0], BOTH[BOTH > 0])


def test_the_result() -> None:
    session = new_session()
    session.annotate(6, BOTH)
    result = session.propagate()
    assert result.labels.dtype == np.uint8
    assert result.confidence.dtype == np.float16
    assert result.slice_confidence.shape == (COUNT,)
    assert 0 <= result.confidence.min() <= result.confidence.max() <= 1
    assert (result.confidence[6][BOTH > 0] == 1).all()
    assert set(result.volumes_ml) == {1, 2}
    for label, millilitres in result.volumes_ml.items():
        assert millilitres == pytest.approx((result.labels == label).sum() * 2.0 * 1.0 * 0.5 / 1000)
    assert np.array_equal(session.labels, result.labels)


def test_large_label_values_cost_no_memory() -> None:
    session = new_session()
    session.annotate(6, FIRST.astype(np.uint32) * 4_000_000_000)
    result = session.propagate()
    assert set(result.volumes_ml) == {4_000_000_000}
    assert result.labels.dtype == np.uint32


def test_a_new_scan_drops_everything_and_a_cancelled_one_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    session = new_session()
    session.annotate(6, BOTH)
    before = snapshot(session)

    def cancel(done: int, total: int) -> None:
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        session.set_volume(VOLUME, progress=cancel)
    assert snapshot(session) == before
    assert session.features is STACK
    session.set_volume(VOLUME)
    assert not session.annotation.slices
    assert not session.undo()


def test_painting_is_seen_at_once_and_can_be_taken_back() -> None:
    session = new_session()
    session.annotate(np.int64(3), BOTH.astype(np.int32))  # type: ignore[arg-type]
    assert np.array_equal(session.labels[3], BOTH)
    assert session.result().slice_confidence[3] == 1
    session.annotate(3, EMPTY)
    assert not session.annotation.slices
    assert not session.labels.any()
    session.annotate(3, EMPTY, complete=True)
    assert session.annotation.complete == {3}
    session.annotate(3, FIRST)
    assert session.annotation.complete == frozenset()


def test_what_was_painted_cannot_change_from_outside() -> None:
    session = new_session()
    mine = BOTH.copy()
    session.annotate(3, mine)
    mine[:] = 0
    assert np.array_equal(session.labels[3], BOTH)
    session.labels[:] = 0
    session.result().labels[:] = 0
    assert np.array_equal(session.labels[3], BOTH)


@pytest.mark.parametrize(
    ("index", "painted", "message"),
    [
        (-1, FIRST, "no slice -1"),
        (COUNT, FIRST, "no slice 14"),
        (3, FIRST[:, 1:], "rows and columns"),
        (3, FIRST.astype(float), "whole numbers"),
        (3, FIRST.astype(np.int8) - 1, "0 or greater"),
    ],
)
def test_wrong_paintings_are_refused(index: int, painted: NDArray[np.uint8], message: str) -> None:
    session = new_session()
    before = snapshot(session)
    for call in (session.annotate, session.correct):
        with pytest.raises(AnnotationError, match=message):
            call(index, painted)
    assert snapshot(session) == before
    assert not session.undo()


def test_nothing_to_propagate() -> None:
    session = new_session()
    with pytest.raises(AnnotationError, match="Nothing is painted"):
        session.propagate()
    session.annotate(8, FIRST)
    with pytest.raises(AnnotationError, match="between slices 0 and 4"):
        session.propagate((0, 4))
    with pytest.raises(AnnotationError, match=r"Labels \[5\] were painted nowhere; painted are \[1\]"):
        session.propagate(labels=[5])
    with pytest.raises(InputError, match="Slice range"):
        session.propagate((4, 99))


def test_a_cancelled_propagation_changes_nothing() -> None:
    session = new_session()
    session.annotate(6, BOTH)
    session.propagate()
    session.correct(8, FIRST)
    before = snapshot(session)

    def cancel(done: int, total: int) -> None:
        if done == 5:
            raise Cancelled("stop")

    for call in (session.propagate, session.update):
        with pytest.raises(Cancelled):
            call(progress=cancel)
        assert snapshot(session) == before


def test_slices_outside_the_range_stay() -> None:
    session = new_session()
    session.annotate(6, BOTH)
    session.propagate()
    results = dict(session._state.results)
    session.annotate(7, image((1, (8, 9), 6)))
    session.propagate((5, 9))
    for index, result in results.items():
        assert (session._state.results[index] is result) == (not 5 <= index <= 9)
    assert session.stale == {10, 11, 12, 13}


def test_a_full_gpu_hands_over_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    session = new_session()
    session.annotate(6, BOTH)
    session._open_scan.stack = type("OnGpu", (), {"maps": torch.empty(1, device="meta"), "to": lambda *_: STACK})()  # type: ignore[assignment]
    real = session_planes.propagate_slices

    def full(stack: FeatureStack, *args: object) -> object:
        if stack is not STACK:
            raise torch.OutOfMemoryError("full")
        return real(stack, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(session_planes, "propagate_slices", full)
    with pytest.warns(UserWarning, match="the CPU is used instead"):
        assert session.propagate().labels.any()
    assert session.features is STACK


# Labels chosen ---------------------------------------------------------------------------------------------------


def test_chosen_labels_never_overwrite_others() -> None:
    session = new_session()
    session.annotate(6, BOTH)
    before = session.propagate()
    session.annotate(8, image((1, (14, 15), 7)))
    confidence = session.result().confidence
    after = session.propagate(labels=[1])
    for index in range(COUNT):
        if index != 8:  # there the user has painted over label 2
            others = before.labels[index] == 2
            assert (after.labels[index][others] == 2).all()
            assert np.array_equal(after.confidence[index][others], confidence[index][others])
    assert (after.labels == 1).sum() > (before.labels == 1).sum()
    assert session.stale, "label 2 was not renewed"
    session.propagate()
    assert not session.stale


def test_chosen_labels_keep_what_others_painted_on_partial_and_complete_slices() -> None:
    session = new_session()
    session.annotate(5, BOTH)
    session.annotate(8, image((2, (8, 11), 2)))
    session.correct(11, SECOND)
    result = session.propagate(labels=[1])
    assert (result.labels[8][disc(SHAPE, (8, 11), 2)] == 2).all()
    assert np.array_equal(result.labels[11], SECOND)
    assert not (result.labels[12] == 1).any()


# Corrections -----------------------------------------------------------------------------------------------------


def test_a_correction_reopens_its_interval_only() -> None:
    session = new_session()
    session.set_annotation(Annotation({1: BOTH, 5: BOTH, 11: BOTH}, frozenset({1, 5, 11})))
    session.propagate()
    before = dict(session._state.results)
    session.correct(7, SECOND)
    assert session.stale == {6, 8, 9, 10}, "not the slices on which all labels are settled"
    assert np.array_equal(session.labels[7], SECOND)
    after = session.update()
    assert not session.stale
    assert np.array_equal(after.labels, full_labels(session))
    assert [k for k in range(COUNT) if session._state.results[k] is not before[k]] == [6, 8, 9, 10]


def test_labels_with_anchors_of_their_own_are_not_cut_off() -> None:
    """Slices 5 to 10 are recomputed for label 2; label 1 lies there between anchors 6 and 12, beyond the interval."""
    session = new_session()
    session.annotate(2, BOTH)
    session.annotate(6, image((1, (8, 12), 2)))
    session.annotate(10, image((2, (16, 20), 2)))
    session.annotate(12, image((1, (8, 12), 6)))
    session.propagate()
    session.correct(4, BOTH)
    after = session.update()
    assert np.array_equal(after.labels, full_labels(session))


def test_taking_a_painting_back_reopens_all_that_came_from_it() -> None:
    session = new_session()
    session.annotate(2, FIRST)
    session.annotate(10, SECOND)
    session.propagate()
    session.annotate(2, EMPTY)
    assert session.stale == set(range(COUNT))
    after = session.update()
    assert set(np.unique(after.labels)) == {0, 2}


def test_nothing_outside_what_was_propagated_is_filled_in() -> None:
    session = new_session()
    session.annotate(6, BOTH)
    session.propagate((4, 9))
    session.correct(7, FIRST)
    assert session.stale <= set(range(4, 10))
    after = session.update()
    assert [k for k in range(COUNT) if after.labels[k].any()] == [4, 5, 6, 7, 8, 9]


def test_an_update_keeps_the_direction() -> None:
    session = new_session()
    session.annotate(6, BOTH)
    session.propagate(direction="up")
    session.correct(8, FIRST)
    after = session.update()
    assert not after.labels[:6].any()
    assert (after.labels[9] == 1).any()


def test_nothing_is_stale_before_the_first_propagation() -> None:
    session = new_session()
    session.annotate(6, BOTH)
    session.correct(8, FIRST)
    assert not session.stale
    assert np.array_equal(session.update().labels, session.labels)


def test_an_interval_between_empty_slices_can_be_updated() -> None:
    session = new_session()
    session.annotate(1, BOTH)
    session.correct(4, EMPTY)
    session.correct(10, EMPTY)
    session.propagate()
    session.correct(7, EMPTY)
    assert not session.stale, "nothing was shown there"
    session.correct(7, FIRST)
    assert session.stale == {5, 6, 8, 9}
    after = session.update()
    assert not after.labels[11:].any()
    assert np.array_equal(after.labels, full_labels(session))
    assert not session.stale


def test_a_correction_sends_out_the_labels_that_it_changed_and_the_others_stay() -> None:
    session = new_session()
    session.annotate(6, BOTH)
    before = session.propagate().labels
    wanted = before[9].copy()
    wanted[wanted == 1] = 0
    session.correct(9, wanted)
    assert session.state.outdated == {1}
    after = session.update().labels
    assert not session.stale
    assert (before[9:] == 1).any()
    assert not (after[9:] == 1).any(), "label 1 ends"
    np.testing.assert_array_equal(after == 2, before == 2)
    np.testing.assert_array_equal(after == 1, (full_labels(session) == 1) & (before != 2))


def test_corrections_of_several_labels_add_up_and_a_reopened_slice_sends_out_all() -> None:
    session = new_session()
    session.annotate(6, BOTH)
    session.propagate()
    session.paint({9: np.where(session.labels[9] == 1, 0, session.labels[9])})
    session.paint({3: np.where(session.labels[3] == 2, 0, session.labels[3])})
    assert session.state.outdated == {1, 2}
    assert np.array_equal(session.update().labels, full_labels(session))
    session.paint({8: np.where(session.labels[8] == 2, 0, session.labels[8])})
    assert session.state.outdated == {2}, "what was renewed counts no more"
    session.update()
    session.freeze(2)
    session.unfreeze(2)
    assert session.state.outdated is None
    assert np.array_equal(session.update().labels, full_labels(session))


def test_a_label_that_is_painted_nowhere_any_more_leaves_with_the_update() -> None:
    session = new_session()
    session.annotate(6, BOTH)
    session.propagate()
    session.annotate(6, FIRST)
    assert session.state.outdated == {2}
    after = session.update().labels
    assert set(np.unique(after)) == {0, 1}
    session.annotate(6, FIRST + 3 * (SECOND > 0))
    session.propagate()
    session.annotate(6, 3 * (SECOND > 0).astype(np.uint8) + image((3, (8, 8), 4)))
    assert session.state.outdated == {1, 3}
    assert set(np.unique(session.update().labels)) == {0, 3}


def test_renewing_only_the_label_that_is_out_of_date_is_enough() -> None:
    session = new_session()
    session.annotate(6, BOTH)
    session.propagate()
    session.correct(9, np.where(session.labels[9] == 1, 0, session.labels[9]))
    session.propagate(labels=[2])
    assert session.stale
    session.propagate(labels=[1])
    assert not session.stale


SLICE = st.integers(0, COUNT - 1)
IMAGE = st.sampled_from([EMPTY, FIRST, SECOND, BOTH, image((1, (12, 12), 6)), image((3, (6, 16), 3), (2, (18, 10), 2))])


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_an_update_gives_what_a_full_propagation_of_the_changed_labels_gives_and_touches_nothing_else(
    data: st.DataObject,
) -> None:
    session = new_session()
    session.annotate(data.draw(SLICE), BOTH)
    for index, painted in data.draw(st.dictionaries(SLICE, IMAGE, max_size=3)).items():
        if index not in session.annotation.slices:
            session.annotate(index, painted, complete=data.draw(st.booleans()))
    session.propagate()
    for _ in range(3):
        index = data.draw(SLICE)
        action = data.draw(st.sampled_from(["correct", "annotate", "freeze", "unfreeze"]))
        if action in ("correct", "annotate"):
            session.unfreeze(index)
            getattr(session, action)(index, data.draw(IMAGE))
        else:
            getattr(session, action)(index)
        if not session.annotation.labels:
            return
        if action == "freeze":
            # A slice that is accepted makes nothing stale, but the next propagation sets out from it.
            assert np.array_equal(session.propagate().labels, full_labels(session))
            continue
        before, state = session.labels, session.state
        after = session.update().labels
        assert not session.stale
        stale = np.isin(np.arange(COUNT), list(state.stale))
        assert np.array_equal(after[~stale], before[~stale])
        travelling = set(session.annotation.labels) & (state.outdated or set(session.annotation.labels))
        if state.outdated is None or travelling in (set(), set(session.annotation.labels)):
            assert np.array_equal(after[stale], full_labels(session)[stale])
            continue
        stays = (before > 0) & ~np.isin(before, list(state.outdated))
        expected = np.where(stays, before, full_labels(session, travelling))
        assert np.array_equal(after[stale], expected[stale])


# Frozen slices ---------------------------------------------------------------------------------------------------


def test_a_frozen_slice_is_an_anchor_that_nothing_changes() -> None:
    session = new_session()
    session.annotate(6, BOTH)
    session.propagate()
    session.freeze(9)
    kept = session.labels[9].copy()
    assert session.frozen == {9}
    assert not session.stale, "what is around it agrees with it"
    for call in (session.annotate, session.correct):
        with pytest.raises(AnnotationError, match="Slice 9 is frozen"):
            call(9, FIRST)
    with pytest.raises(AnnotationError, match="frozen"):
        session.set_annotation(Annotation({3: FIRST, 9: FIRST}))
    session.correct(8, SECOND)
    for call in (session.update, session.propagate, lambda: session.propagate(labels=[2], direction="down")):
        assert np.array_equal(call().labels[9], kept)
    assert np.array_equal(session.labels[9], kept)


def test_freezing_twice_is_freezing_once() -> None:
    session = new_session()
    session.annotate(6, BOTH)
    session.propagate()
    session.freeze(9)
    session.update()
    before = snapshot(session)
    session.freeze(9)
    assert snapshot(session) == before


def test_unfreezing_gives_back_what_was_painted_before() -> None:
    session = new_session()
    session.annotate(6, BOTH)
    session.freeze(6)
    session.unfreeze(6)
    session.unfreeze(5)
    assert session.annotation.complete == frozenset()
    assert np.array_equal(session.annotation.slices[6], BOTH)
    session.annotate(6, FIRST)


# History ---------------------------------------------------------------------------------------------------------


def act(session: OneSegSession, rng: np.random.Generator) -> None:
    """One random change; refused ones must change nothing."""
    index, low = (int(k) for k in rng.integers(0, COUNT, 2))
    painted = [EMPTY, FIRST, SECOND, BOTH][rng.integers(4)]
    actions = [
        lambda: session.annotate(index, painted),
        lambda: session.correct(index, painted),
        lambda: session.freeze(index),
        lambda: session.unfreeze(index),
        lambda: session.propagate((min(index, low), max(index, low))),
        lambda: session.propagate(labels=[1]),
        session.update,
    ]
    before = snapshot(session)
    try:
        actions[rng.integers(len(actions))]()
    except AnnotationError:
        assert snapshot(session) == before


@pytest.mark.parametrize("seed", range(4))
def test_undo_and_redo_restore_exactly(seed: int) -> None:
    rng = np.random.default_rng(seed)
    session = new_session()
    past = [snapshot(session)]
    session.annotate(6, BOTH)
    future: list[tuple[object, ...]] = []
    frozen: dict[int, bytes] = {}
    for _ in range(40):
        before = snapshot(session)
        choice = rng.random()
        if choice < 0.25:
            assert session.undo() == bool(past)
            if past:
                future.append(before)
                assert snapshot(session) == past.pop()
        elif choice < 0.45:
            assert session.redo() == bool(future)
            if future:
                past.append(before)
                assert snapshot(session) == future.pop()
        else:
            steps = len(session._history)
            act(session, rng)
            if len(session._history) > steps:
                past.append(before)
                future.clear()
            else:
                assert snapshot(session) == before
            for index in session.frozen & frozen.keys():
                assert session.labels[index].tobytes() == frozen[index]
        frozen = {index: session.labels[index].astype(np.uint8).tobytes() for index in session.frozen}


def test_the_oldest_steps_are_forgotten_when_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_state, "HISTORY_BYTES", 3 * COUNT * SHAPE[0] * SHAPE[1] * 3)
    session = new_session()
    session.annotate(6, BOTH)
    for _ in range(8):
        session.propagate()
    assert len(session._history) < 6
    assert session._history.nbytes() <= session_state.HISTORY_BYTES
    assert session.undo()


# Files -----------------------------------------------------------------------------------------------------------


def made() -> OneSegSession:
    session = new_session()
    session.annotate(np.int64(6), BOTH)  # type: ignore[arg-type]
    session.propagate(direction="up")
    session.freeze(9)
    session.correct(7, FIRST)
    session.annotate(11, image((200, (5, 5), 2)))
    return session


def test_a_session_is_taken_up_exactly(tmp_path: Path) -> None:
    session, other = made(), new_session()
    session.save(tmp_path / "a.oneseg")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other.resume(tmp_path / "a.oneseg")
    assert snapshot(other) == snapshot(session)
    assert other.stale
    assert np.array_equal(other.update().labels, session.update().labels)


def test_a_snapshot_is_taken_up_exactly() -> None:
    session, other = made(), new_session()
    saved = session.snapshot()
    before = snapshot(session)
    session.annotate(2, FIRST)
    other.restore(saved)
    assert snapshot(other) == before, "what is made later does not change it"
    assert not other.undo()
    with pytest.raises(SessionError, match="No scan is open"):
        OneSegSession(WEIGHTS, "cpu").restore(saved)


def test_another_scan_is_refused(tmp_path: Path) -> None:
    made().save(tmp_path / "a")
    other = OneSegSession(WEIGHTS, "cpu")
    other.set_volume(Volume(VOLUME.array + 1, VOLUME.spacing, slice_axis=0))
    with pytest.raises(SessionError, match="another scan"):
        other.resume(tmp_path / "a")


def test_with_other_weights_labels_are_kept_but_stale(tmp_path: Path) -> None:
    session = made()
    session.save(tmp_path / "a")
    other = OneSegSession(tiny_weights(1), "cpu")
    other.set_volume(VOLUME)
    with pytest.warns(UserWarning, match="other weights"):
        other.resume(tmp_path / "a")
    assert np.array_equal(other.labels, session.labels)
    assert other.stale == frozenset(range(COUNT)) - {9}


def test_a_failed_resume_or_save_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = made()
    path = tmp_path / "a"
    session.save(path)
    whole = path.read_bytes()
    before = snapshot(session)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="may be damaged"):
        session.resume(path)
    with pytest.raises(InputError, match="no session file"):
        session.resume(tmp_path / "none")
    path.write_bytes(whole)
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OutputError, match="the disk is full"):
        new_session().save(path)
    assert path.read_bytes() == whole
    assert snapshot(session) == before


def test_slices_that_do_not_fit_the_scan_are_refused(tmp_path: Path) -> None:
    session = made()
    session.save(tmp_path / "a")
    saved = load_session(tmp_path / "a")
    for change in ({"stale": frozenset({99})}, {"painted": {6: BOTH[1:]}, "complete": frozenset()}):
        wrong = replace(saved, state=replace(saved.state, **change))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(session_module, "load_session", lambda _, wrong=wrong: wrong)
            with pytest.raises(InputError, match="do not fit"):
                session.resume(tmp_path / "a")
