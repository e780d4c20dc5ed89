"""A propagation under way, without the controller."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_oneseg.errors import InputError
from napari_oneseg.plugin import work
from napari_oneseg.plugin.engine import Report
from napari_oneseg.plugin.foreground import Foreground
from napari_oneseg.plugin.propagating import LIVE_SECONDS, Propagator
from napari_oneseg.plugin.slice_table import SliceTable
from napari_oneseg.session import OneSegSession
from napari_oneseg.session_job import PropagationJob
from tests.plugin.plugin_fixtures import COUNT, SHAPE, HandEngine, opened_scan, painted

pytestmark = pytest.mark.usefixtures("qapp", "clear_features")

START = 4
EVERYWHERE = list(range(COUNT))


class Bench:
    """A propagator on the small scan, of which slice 4 is painted; what it shows, and what it says."""

    def __init__(self) -> None:
        self.engine = HandEngine(at_once=False)
        self.foreground = Foreground(self.engine)
        self.propagator = Propagator(self.foreground)
        self.session = opened_scan().session
        self.table = SliceTable(self.session.volume)
        self.labels = np.zeros((COUNT, *SHAPE), np.uint8)
        self.heard: list[str] = []
        self.propagator.slices_changed.connect(self._show)
        self.propagator.taken.connect(lambda: self.heard.append("taken"))
        self.propagator.ended.connect(lambda: self.heard.append("ended"))
        self.propagator.said.connect(lambda text, level: self.heard.append(f"{level}: {text}"))
        self.session.annotate(START, painted())
        self._show(self.table.take(self.session.state, [START]))

    def _show(self, images: Mapping[int, NDArray[np.uint8]]) -> None:
        for index, image in images.items():
            self.labels[index] = image

    def propagate(self, quietly: bool = False) -> None:
        self.propagator.propagate(self.session, self.table, None, 1, quietly)

    def half_way(self) -> set[int]:
        """Begin; return which slices have arrived before the end."""
        self.propagate()
        assert self.foreground.job is not None
        self.foreground.job.run()
        self.engine._poll()
        arrived = set(self.propagator.arrived)
        assert 0 < len(arrived) < COUNT
        # Whether the painted slice is among them depends on the threads: both ways set out from it.
        return arrived | {START}

    @property
    def shown(self) -> list[int]:
        return np.flatnonzero(self.labels.any((1, 2))).tolist()

    def agrees(self) -> bool:
        """Whether what is shown, and the areas, are what the session holds."""
        expected = SliceTable(self.session.volume)
        expected.take(self.session.state, EVERYWHERE)
        areas = np.array_equal(self.table.areas[1], expected.areas[1])
        return areas and np.array_equal(self.labels, self.session.labels)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_slices_are_shown_as_they_arrive_and_taken_over_at_the_end(bench: Bench) -> None:
    arrived = bench.half_way()
    assert set(bench.shown) == arrived
    assert not bench.session.state.results
    for index in bench.propagator.arrived:
        np.testing.assert_array_equal(bench.propagator.shown(index), bench.labels[index])
    for index in set(EVERYWHERE) - arrived:
        assert bench.propagator.shown(index) is None
    assert set(np.flatnonzero(np.isfinite(bench.table.confidence))) == arrived
    assert bench.heard == []
    bench.engine.work()
    assert bench.shown == EVERYWHERE
    assert bench.heard == ["taken", "ended"]
    assert not bench.propagator.arrived
    assert bench.agrees()


def test_what_else_is_asked_for_ends_it_and_keeps_what_is_ready(bench: Bench) -> None:
    arrived = bench.half_way()
    bench.foreground.do("locate", lambda _: None, lambda _: None)
    assert bench.foreground.doing == "locate"
    assert set(bench.session.state.results) | {START} == arrived
    assert bench.heard == ["taken"]
    bench.engine.work()
    assert set(bench.shown) == arrived
    assert bench.agrees()


def test_pausing_keeps_what_is_ready(bench: Bench) -> None:
    arrived = bench.half_way()
    bench.propagator.pause()
    assert bench.foreground.doing == ""
    assert set(bench.session.state.results) | {START} == arrived
    bench.propagator.pause()
    bench.engine.work()
    assert bench.heard == ["taken"]
    assert bench.agrees()


def test_withdrawing_leaves_nothing_of_it(bench: Bench) -> None:
    bench.half_way()
    assert bench.propagator.withdraw()
    assert bench.foreground.doing == ""
    assert bench.shown == [START]
    assert not bench.session.state.results
    assert not bench.propagator.withdraw()
    bench.engine.work()
    assert bench.heard == []
    assert bench.agrees()


def test_the_user_who_cancels_keeps_what_is_ready_and_is_told(bench: Bench) -> None:
    bench.propagate()
    bench.foreground.cancel()
    bench.engine.work()
    assert bench.heard == ["taken", "ended", "info: Stopped. The slices that were ready are kept."]
    assert bench.propagator.seconds is None
    assert bench.agrees()


def test_one_that_fails_leaves_nothing_of_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = work.run_job

    def fail(session: OneSegSession, job: PropagationJob, report: Report) -> None:
        computed(session, job, report)
        raise InputError("The memory is full.")

    monkeypatch.setattr(work, "run_job", fail)
    bench.propagate()
    bench.engine.work()
    assert bench.heard == []
    assert bench.shown == [START]
    assert not bench.propagator.arrived
    assert bench.agrees()


def test_asked_for_quietly_it_begins_anew_and_keeps_what_is_ready(bench: Bench) -> None:
    arrived = bench.half_way()
    first = bench.foreground.job
    bench.propagate()
    assert bench.foreground.job is first, "asked for twice, it goes on"
    bench.propagate(quietly=True)
    assert bench.foreground.job is not first
    assert set(bench.session.state.results) | {START} == arrived
    assert bench.heard == ["taken"]
    bench.engine.work()
    assert bench.shown == EVERYWHERE
    assert bench.agrees()


@pytest.mark.parametrize("quietly", [False, True])
def test_it_does_not_begin_while_the_user_waits_for_something_else(bench: Bench, quietly: bool) -> None:
    bench.foreground.do("export", lambda _: None, lambda _: None)
    bench.propagate(quietly)
    assert bench.foreground.doing == "export"
    bench.engine.work()
    assert bench.shown == [START]


def test_that_nothing_is_painted_is_said_to_whom_has_asked(bench: Bench) -> None:
    bench.session.undo()
    bench.propagate(quietly=True)
    assert bench.heard == []
    bench.propagate()
    assert len(bench.heard) == 1
    assert bench.heard[0].startswith("warning: ")
    assert bench.foreground.doing == ""


def test_only_the_whole_scan_tells_whether_strokes_can_be_live(bench: Bench) -> None:
    assert bench.propagator.can_be_live
    bench.propagate()
    bench.engine.work()
    took = bench.propagator.seconds
    assert took is not None
    assert 0 < took < LIVE_SECONDS
    bench.session.paint({6: painted(radius=9)})
    bench.propagate()
    bench.engine.work()
    assert bench.propagator.seconds == took, "a few slices were renewed"
    bench.propagator.seconds = LIVE_SECONDS
    assert not bench.propagator.can_be_live
    bench.propagator.reset()
    assert bench.propagator.can_be_live
