"""Work in the background: one piece after another in a thread of its own, its answers on the GUI thread.

Strategy. The thread and the GUI share a queue and nothing else. A timer on the GUI thread empties it several times a
second while there is work; so nothing that paints is ever called from the thread, and however fast the work reports,
the GUI is not flooded. Cancelling raises in the work's own ``progress``.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from qtpy.QtCore import QObject, QTimer, Signal

from napari_oneseg.errors import Cancelled, OneSegError

__all__ = ["Engine", "Job", "Report"]

_POLL_MS = 30
_BUDGET_ITEMS = 4
"""Answers handed out at one go: showing a slice takes a few milliseconds."""


class Report:
    """What a piece of work tells while it runs; it is called in the thread.

    Parameters
    ----------
    answers
        Where its items go.
    """

    def __init__(self, answers: queue.SimpleQueue[Any]) -> None:
        self._answers = answers
        self.cancelled = threading.Event()
        self.done = 0
        self.total = 0

    def progress(self, done: int, total: int) -> None:
        """Say how far the work is; raises :class:`~napari_oneseg.errors.Cancelled` once it is to stop."""
        if self.cancelled.is_set():
            raise Cancelled("Cancelled.")
        self.done, self.total = done, total

    def item(self, value: Any) -> None:
        """Hand out a part of the answer."""
        self._answers.put(value)


@dataclass(eq=False)
class Job:
    """A piece of work and what to call, on the GUI thread, with its answers.

    Attributes
    ----------
    work
        Called in the thread with a :class:`Report`; returns the answer.
    on_done
        Called with the answer.
    on_item
        Called with each part of it.
    on_cancelled
        Called once a cancelled job has stopped.
    on_error
        Called with a sentence for the user where the work could not be done.
    name
        What is being done.
    """

    work: Callable[[Report], Any]
    on_done: Callable[[Any], None] = lambda _: None
    on_item: Callable[[Any], None] = lambda _: None
    on_cancelled: Callable[[], None] = lambda: None
    on_error: Callable[[str], None] = lambda _: None
    name: str = ""
    answers: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue, repr=False)
    report: Report = field(init=False, repr=False)
    outcome: tuple[str, Any] | None = field(default=None, init=False, repr=False)
    forgotten: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.report = Report(self.answers)

    @property
    def progress(self) -> float | None:
        """How far it is, 0 to 1; None before that is known."""
        return self.report.done / self.report.total if self.report.total else None

    def cancel(self) -> None:
        """Ask the work to stop; ``on_cancelled`` is called when it has."""
        self.report.cancelled.set()

    def forget(self) -> None:
        """Ask the work to stop, and call nothing any more: its answer is out of date."""
        self.forgotten = True
        self.cancel()

    def run(self) -> None:
        """Do the work; in the thread."""
        try:
            self.report.progress(0, 0)
            self.outcome = "done", self.work(self.report)
        except Cancelled:
            self.outcome = "cancelled", None
        except BaseException as error:  # noqa: BLE001 - it is raised again where the user can see it
            self.outcome = "error", _for_the_user(error)


def _for_the_user(error: BaseException) -> BaseException:
    """Return an error with words for the user where memory is full or a GPU has failed: no defect of the program."""
    if isinstance(error, OneSegError) or not isinstance(error, MemoryError | RuntimeError):
        return error
    from napari_oneseg.device import memory_or_device_error  # in the thread: it imports torch

    return memory_or_device_error(error) or error


class Engine(QObject):
    """Does jobs one after another in one thread of its own."""

    ticked = Signal()
    """While there is work, several times a second."""
    idle = Signal()
    """All jobs are done."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._jobs: list[Job] = []
        self._waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._timer = QTimer(self)
        self._timer.setInterval(_POLL_MS)
        self._timer.timeout.connect(self._poll)

    @property
    def busy(self) -> bool:
        """Whether there is a job that was not answered yet."""
        return bool(self._jobs)

    def submit(self, job: Job) -> Job:
        """Do a job after those submitted before it."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="oneseg", daemon=True)
            self._thread.start()
        self._jobs.append(job)
        self._waiting.put(job)
        self._timer.start()
        return job

    def close(self, seconds: float = 5.0) -> None:
        """Stop everything; nothing is called any more."""
        for job in self._jobs:
            job.forget()
        self._jobs.clear()
        self._timer.stop()
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join(seconds)
            self._thread = None

    def _serve(self) -> None:
        while (job := self._waiting.get()) is not None:
            job.run()

    def _poll(self) -> None:
        job = self._jobs[0] if self._jobs else None
        if job is None:
            self._timer.stop()
            self.idle.emit()
            return
        outcome = job.outcome  # before the items: whatever was put before it is then in the queue
        for _ in range(_BUDGET_ITEMS):
            if job.answers.empty():
                break
            item = job.answers.get()
            if not job.forgotten:
                job.on_item(item)
        if outcome is not None and job.answers.empty():
            self._jobs.remove(job)
            if not job.forgotten:
                self._answer(job, *outcome)
        self.ticked.emit()

    def _answer(self, job: Job, kind: str, answer: Any) -> None:
        if kind == "done":
            job.on_done(answer)
        elif kind == "cancelled":
            job.on_cancelled()
        elif isinstance(answer, OneSegError):
            job.on_error(str(answer))
        else:
            job.on_error(f"This did not work, which is a defect of the program ({type(answer).__name__}: {answer}).")
            raise answer
