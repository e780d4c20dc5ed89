"""The second sweep of a propagation in both directions runs beside the first, each on its share of the cores.

One sweep alone gains nothing from a second core: its operations are short, and each waits for the one before.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Generic, TypeVar

import torch

__all__ = ["Counted", "RunningAhead", "running_ahead"]

T = TypeVar("T")


class Counted(Generic[T]):
    """An iterable that counts what it has given.

    Attributes
    ----------
    done
        How many items were taken.
    """

    def __init__(self, items: Iterable[T]) -> None:
        self.done = 0
        self._items = items

    def __iter__(self) -> Iterator[T]:
        for item in self._items:
            self.done += 1
            yield item


class RunningAhead(Generic[T]):
    """An iterable that is computed in a thread of its own, from now on; iterating waits for what is not ready yet.

    Attributes
    ----------
    done
        How many items are ready, or were taken already.
    """

    def __init__(self, items: Iterable[T], threads: int) -> None:
        self.done = 0
        self._items = items
        self._threads = threads
        self._stopped = threading.Event()
        self._ready: SimpleQueue[tuple[T] | None] = SimpleQueue()  # None at the end
        self._worker = ThreadPoolExecutor(1, "oneseg-sweep")
        self._end = self._worker.submit(self._run)

    def stop(self) -> None:
        """Compute no further item, and wait until the present one is done."""
        self._stopped.set()
        self._worker.shutdown()

    def __iter__(self) -> Iterator[T]:
        while (found := self._ready.get()) is not None:
            yield found[0]
        self._end.result()  # raises what ended it too early

    def _run(self) -> None:
        torch.set_num_threads(self._threads)
        try:
            with torch.inference_mode():
                for item in self._items:
                    if self._stopped.is_set():
                        return
                    self.done += 1
                    self._ready.put((item,))
        finally:
            self._ready.put(None)


@contextmanager
def running_ahead(items: Iterable[T]) -> Iterator[RunningAhead[T]]:
    """Compute items in a thread of its own while the block runs; torch's threads are shared between the two."""
    threads = torch.get_num_threads()
    half = max(1, threads // 2)
    ahead = RunningAhead(items, half)
    torch.set_num_threads(half)
    try:
        yield ahead
    finally:
        ahead.stop()
        torch.set_num_threads(threads)
