from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from napari_oneseg.errors import InputError
from napari_oneseg.evaluation.baselines import copy_slice
from napari_oneseg.evaluation.cases import Case
from napari_oneseg.evaluation.effort import (
    COUNTS,
    MOST_SLICES,
    STRATEGIES,
    NextSlice,
    Step,
    effort_curve,
    largest_gap,
    lowest_confidence,
    spacing_evenly,
    suggested_next,
    suggesting,
)
from napari_oneseg.evaluation.painted_places import evenly_spaced
from napari_oneseg.evaluation.protocols import evaluate_case
from napari_oneseg.session import OneSegSession
from napari_oneseg.volume import Annotation
from tests.engine_fixtures import tiny_weights
from tests.evaluation.stand_ins import SHAPE, FakeSession, small_case


@pytest.fixture
def case() -> Case:
    return small_case()


def following(*indices: int) -> NextSlice:
    """A strategy that names these slices, and then stops."""
    waiting = iter(indices)
    return lambda session, label, slice_range: next(waiting, None)


def test_even_spacing_begins_with_the_largest_slice_and_ends_with_all(case: Case) -> None:
    curve = effort_curve(spacing_evenly(copy_slice), case, 2)
    mask = case.reference == 2
    assert curve.painted == tuple(evenly_spaced(mask, count) for count in range(1, 11))
    assert curve.scores[0] == evaluate_case(copy_slice, case, labels=[2]).scores[0]
    assert curve.scores[-1].extent_dice == 1.0
    assert (curve.case, curve.label) == ("one", 2)


def test_what_is_suggested_is_painted_and_adds_up(case: Case) -> None:
    session = FakeSession(suggested=6)
    asked = []

    def next_slice(session: FakeSession, label: int, slice_range: tuple[int, int] | None) -> int | None:
        asked.append((label, slice_range, sorted(session.annotation.slices)))
        return {1: 11, 2: 9}.get(len(session.annotation.slices))

    curve = effort_curve(suggesting(session, next_slice), case, 2)
    assert curve.painted == ((6,), (6, 11), (6, 11, 9))
    assert session.ranges == [(3, 14)]
    assert asked == [(2, (3, 14), [6]), (2, (3, 14), [6, 11]), (2, (3, 14), [6, 9, 11])]
    assert len(session.volumes) == 1, "the features are computed once"
    assert session.seen == [(2,)] * 3
    shape = [score.extent_dice for score in curve.scores]
    assert shape == sorted(shape)
    assert shape[0] < shape[-1]


def test_labels_do_not_reach_each_other(case: Case) -> None:
    session = FakeSession()
    alone = effort_curve(suggesting(FakeSession(), following(8)), case, 300)
    for label in (2, 300):
        curve = effort_curve(suggesting(session, following(8)), case, label)
    assert curve.scores == alone.scores
    assert set(session.annotation.labels) == {300}


def test_an_empty_slice_counts_and_says_that_nothing_is_there(case: Case) -> None:
    session = FakeSession(suggested=3, runners_up=(9,))
    seen: list[Annotation] = []

    def next_slice(session: FakeSession, label: int, slice_range: tuple[int, int] | None) -> int | None:
        seen.append(session.annotation)
        return {2: 14}.get(len(session.annotation.slices))

    curve = effort_curve(suggesting(session, next_slice), case, 2)
    # On slice 3 there is nothing to propagate, so the next best slice is painted.
    assert curve.painted == ((3,), (3, 9), (3, 9, 14))
    assert (curve.scores[0].dice, curve.scores[0].ravd) == (0, 100)
    assert [sorted(annotation.complete) for annotation in seen] == [[3], [3, 14]]
    assert not seen[1].slices[14].any()
    assert curve.scores[2].dice > curve.scores[1].dice, "the organ has ended on slice 14"


def test_a_curve_ends_when_all_that_is_reported_is_known(case: Case) -> None:
    def perfect(case: Case, label: int) -> Iterator[Step]:
        for count in range(1, 100):
            yield tuple(range(count)), case.reference

    def hopeless(case: Case, label: int) -> Iterator[Step]:
        for count in range(1, 100):
            yield tuple(range(count)), np.zeros(SHAPE, np.uint8)

    def fading(case: Case, label: int) -> Iterator[Step]:
        for step, (slices, reference) in enumerate(perfect(case, label)):
            yield slices, reference if step == 1 else np.zeros(SHAPE, np.uint8)

    assert len(effort_curve(perfect, case, 2).scores) == max(COUNTS)
    assert len(effort_curve(hopeless, case, 2).scores) == MOST_SLICES
    assert len(effort_curve(perfect, case, 2, most=3).scores) == 3
    assert len(effort_curve(fading, case, 2).scores) == max(COUNTS)
    assert effort_curve(perfect, case, 2).slices_to(0.95) == 1
    assert effort_curve(hopeless, case, 2).slices_to(0.95) is None
    assert effort_curve(fading, case, 2).slices_to(0.95) == 2


def test_after_a_stop_the_last_score_stands(case: Case) -> None:
    curve = effort_curve(suggesting(FakeSession(), following(6)), case, 2)
    assert len(curve.scores) == 2
    assert curve.after(1) == curve.scores[0]
    assert curve.after(2) == curve.after(8) == curve.scores[1]


def test_a_slice_is_not_painted_twice(case: Case) -> None:
    with pytest.raises(InputError, match="slice 9 again"):
        effort_curve(suggesting(FakeSession(), following(9)), case, 2)


def test_strategies_choose_within_the_range() -> None:
    session = FakeSession()
    session.set_volume(small_case().volume)
    session.set_annotation(Annotation({9: np.ones(SHAPE[1:], np.uint8)}))
    session.confidence = np.linspace(0.9, 0.1, SHAPE[0])
    session.confidence[14] = np.nan
    assert lowest_confidence(session, 1, (4, 14)) == 13
    assert lowest_confidence(session, 1, None) == 19
    assert lowest_confidence(session, 1, (9, 9)) is None
    session.confidence[:] = np.nan
    assert lowest_confidence(session, 1, (4, 14)) == 4
    assert largest_gap(session, 1, (6, 14)) == 14
    assert largest_gap(session, 1, None) == 19
    session.set_annotation(Annotation({19: np.zeros(SHAPE[1:], np.uint8)}, frozenset({19})))
    assert largest_gap(session, 1, None) == 0
    assert largest_gap(session, 1, (9, 19)) == 14


def test_the_session_names_the_next_slice() -> None:
    class Suggesting(FakeSession):
        def suggest_next(self, slice_range: tuple[int, int] | None = None, label: int | None = None) -> list[object]:
            assert (slice_range, label) == ((2, 5), 7)
            return [type("Suggestion", (), {"index": index}) for index in self.ranking]

    assert suggested_next(Suggesting(4), 7, (2, 5)) == 4
    silent = Suggesting()
    silent.ranking = ()
    assert suggested_next(silent, 7, (2, 5)) is None


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_real_session_gains_by_every_strategy(name: str) -> None:
    case = small_case()
    session = OneSegSession(tiny_weights())
    curve = effort_curve(suggesting(session, STRATEGIES[name]), case, 2, most=4)
    assert all(3 <= index <= 14 for index in curve.painted[-1])
    assert max(score.dice for score in curve.scores[1:]) > curve.scores[0].dice > 0
    again = effort_curve(suggesting(session, STRATEGIES[name]), case, 2, most=4)
    assert again.painted == curve.painted
    assert again.scores == curve.scores
