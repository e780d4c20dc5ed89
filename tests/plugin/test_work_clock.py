from __future__ import annotations

from napari_oneseg.plugin.work_clock import PAUSE_SECONDS, WorkClock


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_time_counts_from_one_sign_of_activity_to_the_next() -> None:
    time = Time()
    clock = WorkClock(time)
    time.now += 50
    clock.touch()
    assert clock.seconds == 0, "nothing was done before"
    for step in (1, PAUSE_SECONDS, 2):
        time.now += step
        clock.touch()
    assert clock.seconds == PAUSE_SECONDS + 3
    assert clock.take() == PAUSE_SECONDS + 3
    time.now += 5
    clock.touch()
    assert clock.seconds == 5


def test_a_pause_does_not_count() -> None:
    time = Time()
    clock = WorkClock(time)
    clock.touch()
    time.now += PAUSE_SECONDS + 0.1
    clock.touch()
    assert clock.seconds == 0
    time.now += 10
    clock.touch()
    assert clock.seconds == 10, "from the end of the pause on"


def test_between_two_scans_nothing_counts() -> None:
    time = Time()
    clock = WorkClock(time)
    clock.touch()
    time.now += 4
    clock.stop()
    time.now += 30
    clock.touch()
    assert clock.seconds == 0
