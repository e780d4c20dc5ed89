"""The one job that the user waits for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari_oneseg.plugin.engine import Engine, Job, Report

__all__ = ["Foreground"]


class Foreground:
    """Does one job at a time; the next one makes the one before forgotten.

    Parameters
    ----------
    engine
        Does the work.

    Attributes
    ----------
    job
        What is being done, None where nothing is.
    doing
        Its name: open, suggest, locate, propagate, export; empty where nothing is done.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.job: Job | None = None
        self.doing = ""

    def do(
        self,
        doing: str,
        work: Callable[[Report], Any],
        done: Callable[[Any], None],
        item: Callable[[Any], None],
        stopped: Callable[[], None],
        failed: Callable[[str], None],
    ) -> None:
        """Do something in the background; whatever is called with its outcome may ask for the next thing at once.

        Parameters
        ----------
        doing
            Its name.
        work, done, item, stopped, failed
            As :class:`~napari_oneseg.plugin.engine.Job` takes them.
        """
        self.forget()

        def ending(call: Callable[..., None]) -> Callable[..., None]:
            def ended(*answer: Any) -> None:
                self.job, self.doing = None, ""
                call(*answer)

            return ended

        self.doing = doing
        self.job = Job(work, ending(done), item, ending(stopped), ending(failed), doing)
        self._engine.submit(self.job)

    def forget(self) -> None:
        """Stop it, and call nothing any more."""
        if self.job is not None:
            self.job.forget()
        self.job, self.doing = None, ""

    def cancel(self) -> None:
        """Stop it; ``stopped`` is called when it has."""
        if self.job is not None:
            self.job.cancel()
