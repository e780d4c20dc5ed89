from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from pytestqt.qtbot import QtBot

from napari_oneseg.errors import InputError
from napari_oneseg.plugin.engine import Engine, Job, Report
from tests.plugin.plugin_fixtures import HandEngine


@pytest.fixture
def engine(qtbot: QtBot) -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.close()


def test_work_is_done_in_a_thread_and_answered_on_this_one(engine: Engine, qtbot: QtBot) -> None:
    seen: list[object] = []
    here = threading.get_ident()

    def work(report: Report) -> int:
        for k in range(20):
            report.progress(k, 20)
            report.item(k)
        return threading.get_ident()

    def note(value: object) -> None:
        assert threading.get_ident() == here
        seen.append(value)

    engine.submit(Job(work, note, note))
    with qtbot.waitSignal(engine.idle, timeout=5000):
        pass
    assert seen[:-1] == list(range(20)), "all parts, in their order, before the answer"
    assert seen[-1] != here


def test_jobs_are_done_one_after_another(engine: Engine, qtbot: QtBot) -> None:
    done: list[int] = []
    for k in range(5):
        engine.submit(Job(lambda _, k=k: k, done.append))
    assert engine.busy
    qtbot.waitUntil(lambda: not engine.busy, timeout=5000)
    assert done == [0, 1, 2, 3, 4]


def test_a_cancelled_job_stops_and_says_so(engine: Engine, qtbot: QtBot) -> None:
    started, said = threading.Event(), []

    def endless(report: Report) -> None:
        while True:
            started.set()
            report.progress(1, 2)

    job = engine.submit(Job(endless, lambda _: said.append("done"), on_cancelled=lambda: said.append("cancelled")))
    assert started.wait(5)
    assert job.progress == 0.5
    job.cancel()
    qtbot.waitUntil(lambda: not engine.busy, timeout=5000)
    assert said == ["cancelled"]


def test_a_forgotten_job_says_nothing(engine: Engine, qtbot: QtBot) -> None:
    said: list[object] = []

    def work(report: Report) -> None:
        report.item(1)

    job = Job(work, said.append, said.append, lambda: said.append("cancelled"))
    job.forget()
    engine.submit(job)
    qtbot.waitUntil(lambda: not engine.busy, timeout=5000)
    assert said == []


def test_what_the_user_can_mend_is_told(engine: Engine, qtbot: QtBot) -> None:
    said: list[str] = []

    def work(_: Report) -> None:
        raise InputError("Give another file.")

    engine.submit(Job(work, on_error=said.append))
    qtbot.waitUntil(lambda: not engine.busy, timeout=5000)
    assert said == ["Give another file."]


def test_a_defect_is_told_and_raised_where_it_is_seen(engine: Engine, qtbot: QtBot) -> None:
    said: list[str] = []

    def work(_: Report) -> None:
        raise ZeroDivisionError("x")

    with qtbot.captureExceptions() as raised:
        engine.submit(Job(work, on_error=said.append))
        qtbot.waitUntil(lambda: not engine.busy, timeout=5000)
    assert [kind for kind, _, _ in raised] == [ZeroDivisionError]
    assert "defect" in said[0]


def test_closing_stops_what_runs(qtbot: QtBot) -> None:
    engine, stopped = Engine(), threading.Event()
    started = threading.Event()

    def endless(report: Report) -> None:
        try:
            while True:
                started.set()
                report.progress(0, 0)
        finally:
            stopped.set()

    engine.submit(Job(endless))
    assert started.wait(5)
    engine.close()
    assert stopped.is_set()
    assert not engine.busy


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (MemoryError(), "The computer's memory is full"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), "The GPU's memory is full"),
        (RuntimeError("CUDA error: unspecified launch failure"), "The GPU has failed"),
    ],
)
def test_a_full_memory_or_a_failed_gpu_is_no_defect(error: Exception, sentence: str) -> None:
    told: list[str] = []

    def work(_: Report) -> None:
        raise error

    HandEngine().submit(Job(work, on_error=told.append))
    assert told[0].startswith(sentence)
    assert "nothing that was painted is lost" in told[0]
