"""How long somebody has worked: from one sign of activity to the next, pauses left out."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["PAUSE_SECONDS", "WorkClock"]

PAUSE_SECONDS = 90.0
"""Nobody looks at a slice for longer without doing anything; after that, time counts from the next sign on."""


class WorkClock:
    """Counts the time between signs of activity.

    Parameters
    ----------
    now
        Returns seconds that never run backwards.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._last: float | None = None
        self.seconds = 0.0
        """What was counted and not taken yet."""

    def touch(self) -> None:
        """Note a sign of activity; a longer time without one was a pause, and counts nothing."""
        now = self._now()
        if self._last is not None and now - self._last <= PAUSE_SECONDS:
            self.seconds += now - self._last
        self._last = now

    def stop(self) -> None:
        """Count nothing until the next sign of activity."""
        self._last = None

    def take(self) -> float:
        """Return what was counted, and begin at zero."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds
