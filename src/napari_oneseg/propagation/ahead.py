"""Parts of a propagation that know nothing of each other are computed side by side, each on its share of the cores.

One of them alone gains nothing from a second core: its operations are short, and each waits for the one before.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TypeVar

import torch

__all__ = ["side_by_side"]

T = TypeVar("T")


@contextmanager
def side_by_side(sources: Sequence[Iterable[T]], workers: int) -> Iterator[Iterator[tuple[int, T]]]:
    """Compute what several iterables give, several of them at a time, while the block runs.

    Parameters
    ----------
    sources
        The iterables; those in front begin first.
    workers
        How many are computed at a time, each in a thread with its share of torch's threads. With one, nothing is
        computed before it is asked for.

    Yields
    ------
    An iterator over (number of the source, item), in the order in which they are ready. An error of a source is raised
    by it. When the block is left, what is being computed is waited for, and nothing further is begun.
    """
    workers = min(workers, len(sources))
    if workers < 2:
        yield ((number, item) for number, source in enumerate(sources) for item in source)
        return
    threads = torch.get_num_threads()
    share = max(1, threads // workers)
    stopped = threading.Event()
    ready: SimpleQueue[tuple[int, T] | BaseException | None] = SimpleQueue()  # None at the end of each source

    def compute(number: int) -> None:
        torch.set_num_threads(share)
        try:
            with torch.inference_mode():
                for item in sources[number]:
                    if stopped.is_set():
                        return
                    ready.put((number, item))
            ready.put(None)
        except BaseException as error:  # noqa: BLE001 - raised where the items are taken
            ready.put(error)

    pool = ThreadPoolExecutor(workers, "oneseg-sweep")
    for number in range(len(sources)):
        pool.submit(compute, number)
    torch.set_num_threads(share)
    try:
        yield _taken(ready, len(sources))
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _taken(ready: SimpleQueue[tuple[int, T] | BaseException | None], sources: int) -> Iterator[tuple[int, T]]:
    while sources:
        found = ready.get()
        if found is None:
            sources -= 1
        elif isinstance(found, BaseException):
            raise found
        else:
            yield found
