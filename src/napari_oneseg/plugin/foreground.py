"""The one job that the user waits for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_oneseg.plugin.engine import Engine, Job, Report

__all__ = ["Foreground"]


class Foreground(QObject):
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

    beginning = Signal(str)
    """Something, by its name, is about to be done: what is ready of the job before it can be taken over now."""
    changed = Signal()
    """A job was begun, was stopped by the user, or has failed."""
    failed = Signal(str, str)
    """A job, by its name, could not be done: a sentence for the user."""

    def __init__(self, engine: Engine, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._engine = engine
        self.job: Job | None = None
        self.doing = ""

    def do(
        self,
        doing: str,
        work: Callable[[Report], Any],
        done: Callable[[Any], None],
        item: Callable[[Any], None] = lambda _: None,
        stopped: Callable[[], None] = lambda: None,
    ) -> None:
        """Do something in the background; whatever is called with its outcome may ask for the next thing at once.

        Parameters
        ----------
        doing
            Its name.
        work, done, item
            As :class:`~napari_oneseg.plugin.engine.Job` takes them.
        stopped
            Called once a job that was cancelled has stopped.
        """
        self.beginning.emit(doing)
        self.forget()

        def ended(call: Callable[..., None], *answer: Any) -> None:
            self.job, self.doing = None, ""
            call(*answer)

        def cancelled() -> None:
            stopped()
            self.changed.emit()

        def failed(sentence: str) -> None:
            self.failed.emit(doing, sentence)
            self.changed.emit()

        self.doing = doing
        self.job = Job(work, partial(ended, done), item, partial(ended, cancelled), partial(ended, failed), doing)
        self._engine.submit(self.job)
        self.changed.emit()

    def forget(self) -> None:
        """Stop it, and call nothing any more."""
        if self.job is not None:
            self.job.forget()
        self.job, self.doing = None, ""

    def cancel(self) -> None:
        """Stop it; ``stopped`` is called when it has."""
        if self.job is not None:
            self.job.cancel()
