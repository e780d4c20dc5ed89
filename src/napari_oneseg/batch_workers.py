"""Who does the tasks of a batch: processes on this computer, or the workers of a dask cluster.

Both take tasks and yield outcomes as they come. A worker that is killed, by a full memory for instance, takes none of
the other scans with it; its own is tried again.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import import_module
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from napari_oneseg.batch import Outcome, Task, run_task
from napari_oneseg.errors import InputError
from napari_oneseg.study import Study

__all__ = ["Crew", "cluster_crew", "default_workers", "local_crew", "run_batch"]

Crew = Callable[[Sequence[Task]], Iterator[Outcome]]
"""Takes tasks, and yields an outcome of each as soon as there is one."""

_MOST_WORKERS = 4
"""By default; each needs 1 to 2 GB of memory for a large scan."""
_KEEP_SECONDS = 2.0
"""How often the study's file is written while outcomes come in; it holds all scans."""
_END_SECONDS = 10.0
_CONNECT_SECONDS = 20.0
# OpenMP for torch and scikit-learn, two libraries for matrix products, and SimpleITK.
_THREAD_LIMITS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)  # fmt: skip


def run_batch(
    study: Study,
    tasks: Sequence[Task],
    crew: Crew,
    retries: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Outcome]:
    """Have tasks done, and keep in the study what came of them.

    Parameters
    ----------
    study
        The study that they are of.
    tasks
        The tasks, of one stage.
    crew
        Who does them.
    retries
        How often a scan that failed is tried again, after all others are done.
    progress
        Called with (tasks done, all tasks).

    Returns
    -------
    The outcomes in the order of the tasks.
    """
    done: dict[str, Outcome] = {}
    fresh: dict[str, Outcome] = {}
    written = time.monotonic()
    try:
        for outcome in _with_retries(crew, tasks, retries):
            done[outcome.name] = fresh[outcome.name] = outcome
            if time.monotonic() > written + _KEEP_SECONDS:
                _keep(study, tasks, fresh)
                written = time.monotonic()
            if progress is not None:
                progress(len(done), len(tasks))
    finally:
        _keep(study, tasks, fresh)
    return [done[task.name] for task in tasks]


def _keep(study: Study, tasks: Sequence[Task], fresh: dict[str, Outcome]) -> None:
    # A reference that cannot be used says nothing of the scan.
    if fresh and tasks[0].stage != "evaluate":
        values = {name: outcome.values for name, outcome in fresh.items()}
        study.record_run(values, {name: outcome.problem for name, outcome in fresh.items() if outcome.problem})
    fresh.clear()


def _with_retries(crew: Crew, tasks: Sequence[Task], retries: int) -> Iterator[Outcome]:
    # The largest first, so that no worker is left with a long one at the end.
    left = sorted(tasks, key=lambda task: _bytes(task.path), reverse=True)
    for attempt in range(retries + 1):
        failed = set()
        for outcome in crew(left) if left else ():
            if outcome.status == "failed" and attempt < retries:
                failed.add(outcome.name)
            else:
                yield outcome
        left = [task for task in left if task.name in failed]


def _bytes(path: Path) -> int:
    with suppress(OSError):
        files = path.rglob("*") if path.is_dir() else [path]
        return sum(file.stat().st_size for file in files)
    return 0


# Processes on this computer -----------------------------------------------------------------------------------------


def default_workers() -> int:
    """Return how many processes work on this computer by default: one for each core, four at most."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(cores, _MOST_WORKERS)


def local_crew(workers: int | None = None, threads: int = 1) -> Crew:
    """Return a crew of processes on this computer.

    Parameters
    ----------
    workers
        How many; :func:`default_workers` by default.
    threads
        Cores that each of them uses.
    """

    def run(tasks: Sequence[Task]) -> Iterator[Outcome]:
        waiting = deque(tasks)
        crew = [_Worker(threads) for _ in range(min(workers or default_workers(), len(tasks)))]
        try:
            while True:
                for place, worker in enumerate(crew):
                    if worker.task is None and waiting:
                        if not worker.alive:
                            crew[place] = worker = _Worker(threads)  # noqa: PLW2901 - it takes the dead one's place
                        worker.begin(waiting.popleft())
                busy = {worker.pipe: worker for worker in crew if worker.task is not None}
                if not busy:
                    return
                for pipe in wait(list(busy)):
                    yield busy[pipe].answer()  # type: ignore[index]  # wait gives what it was given
        finally:
            for worker in crew:
                worker.end()

    return run


class _Worker:
    """A process that does one task at a time."""

    def __init__(self, threads: int) -> None:
        # Not a fork, which torch's threads do not survive.
        context = multiprocessing.get_context("spawn")
        self.task: Task | None = None
        self.alive = True
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        with _environment(dict.fromkeys(_THREAD_LIMITS, str(threads))):
            self._process.start()
        theirs.close()

    def begin(self, task: Task) -> None:
        self.task = task
        with suppress(OSError):  # it has died while it waited: answer will say so
            self.pipe.send(task)

    def answer(self) -> Outcome:
        """Return the outcome that has come, or say that none will come any more."""
        assert self.task is not None
        task, self.task = self.task, None
        try:
            outcome: Outcome = self.pipe.recv()
        except (EOFError, OSError):
            self.alive = False
            self._process.join(_END_SECONDS)
            return Outcome(task.name, "failed", problem=_ended(self._process.exitcode))
        return outcome

    def end(self) -> None:
        if self.task is not None:
            self._process.terminate()
        self.pipe.close()
        self._process.join(_END_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()


def _serve(pipe: Connection[Any, Any]) -> None:
    """Do tasks until nobody sends any more; a defect ends the process, with its traceback on standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the one who began this process, and who will end it
    signal.signal(signal.SIGTERM, _leave)
    with suppress(EOFError, OSError):
        while True:
            task = pipe.recv()
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always", UserWarning)
                outcome = run_task(task)
            remarks = tuple(str(one.message) for one in told if issubclass(one.category, UserWarning))
            pipe.send(replace(outcome, remarks=remarks))


def _leave(*_: int | FrameType | None) -> NoReturn:
    # As an exception, so that what is half written goes.
    raise SystemExit(1)


def _ended(code: int | None) -> str:
    if code is not None and code < 0:
        return f"The process that worked on it was killed (signal {-code}), perhaps because the memory was full."
    return f"The process that worked on it ended with an error of its own (exit code {code}), which it has printed."


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Give processes that are started within the block some environment variables."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


# A cluster ----------------------------------------------------------------------------------------------------------


def cluster_crew(address: str) -> Crew:
    """Return the workers of a dask cluster as a crew; they must see the study's files under the same paths.

    A worker that ends, or is killed, takes no scan with it: the scheduler gives it to another one.

    Parameters
    ----------
    address
        Of the scheduler, for instance ``tcp://node1:8786``.

    Raises
    ------
    InputError
        When tasks are given: if dask is not installed, or no scheduler answers there.
    """

    def run(tasks: Sequence[Task]) -> Iterator[Outcome]:
        try:
            distributed: Any = import_module("distributed")  # it has no types
        except ImportError as error:
            raise InputError(
                "A cluster needs dask, which is not installed; install it with: pip install 'napari-oneseg[cluster]'"
            ) from error
        try:
            client = distributed.Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise InputError(
                f"No dask scheduler answers at {address}: {error}. Give the address that 'dask scheduler' printed, "
                "such as tcp://node1:8786."
            ) from error
        with client:
            futures = {client.submit(run_task, task, pure=False): task for task in tasks}
            for future in distributed.as_completed(futures, loop=client.loop):
                yield _answer_of(future, futures[future])

    return run


def _answer_of(future: Any, task: Task) -> Outcome:
    if future.status == "finished":
        outcome: Outcome = future.result()
        return outcome
    if future.status != "error":
        return Outcome(task.name, "failed", problem="The connection to the cluster was lost.")
    error = future.exception()
    return Outcome(task.name, "failed", problem=f"The worker has failed: {type(error).__name__}: {error}.")
