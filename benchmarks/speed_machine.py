"""What the machine can do, how long something takes on it, and how much memory: what all speed measurements share."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

__all__ = ["Rates", "Times", "describe_machine", "fresh", "interleaved", "measure_rates", "memory", "restart_peak"]

MATRIX_SIDE = 2048
COPIED_BYTES = 256 * 1024**2
"""Far more than any cache holds."""
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Rates:
    """What the processor and the memory do at best.

    Attributes
    ----------
    gflops
        Rate of a large single-precision matrix product, in 10^9 operations per second; a multiply-add is two.
    gb_per_second
        Bytes read and written by a large copy, in 10^9 per second.
    """

    gflops: float
    gb_per_second: float


class Times:
    """Seconds that were taken, by name.

    Parameters
    ----------
    device
        Where the work is done; what was only handed to a GPU is waited for.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self._device = device

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Time a block."""
        self._wait()
        start = time.perf_counter()
        yield
        self._wait()
        self.seconds[name].append(time.perf_counter() - start)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def interleaved(
    works: Mapping[str, Callable[[], Any]],
    rounds: int,
    seconds: float,
    device: torch.device | str = "cpu",
    *,
    warm_up: bool = True,
) -> dict[str, list[float]]:
    """Time several works in turn, so that what else the machine does meets all of them alike.

    Parameters
    ----------
    works
        By name.
    rounds
        How often each is timed at most.
    seconds
        No further round begins after this time.
    warm_up
        Whether each is done once before, which does not count.
    """
    for work in works.values() if warm_up else ():
        work()
    times, begun = Times(torch.device(device)), time.perf_counter()
    for number in range(rounds):
        if number and time.perf_counter() - begun > seconds:
            break
        for name, work in works.items():
            with times.of(name):
                work()
    return dict(times.seconds)


def measure_rates(device: torch.device | str = "cpu", repeats: int = 5) -> Rates:
    """Measure the machine's rates, with torch's threads as they are set."""
    a = torch.randn(MATRIX_SIDE, MATRIX_SIDE, device=device)
    source = torch.zeros(COPIED_BYTES // 4, device=device)
    target = torch.zeros_like(source)
    works = {"product": lambda: a @ a, "copy": lambda: target.copy_(source)}
    taken = {name: statistics.median(times) for name, times in interleaved(works, repeats, 10.0, device).items()}
    return Rates(2 * MATRIX_SIDE**3 / taken["product"] / 1e9, 2 * COPIED_BYTES / taken["copy"] / 1e9)


def describe_machine() -> dict[str, Any]:
    """Return what must be known of the machine to compare its times; nothing that tells whose it is."""
    return {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def memory() -> tuple[float, float]:
    """Return the memory that this process holds, and the most that it has held, in MiB."""
    # Not getrusage, where there is something else: on Linux, what it gives begins with what the parent process held.
    if _STATUS.exists():
        told = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="ascii").splitlines())
        return tuple(int(told[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))  # type: ignore[return-value]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 / (1024 if sys.platform == "darwin" else 1)
    return peak, peak


def restart_peak() -> bool:
    """Count the most memory from now on; return whether this system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def fresh(program: str, given: Mapping[str, Any], **environment: str) -> Any:
    """Run a program of this folder in a process of its own, and return what its last line says.

    Parameters
    ----------
    program
        Its file name; it takes one argument, in JSON.
    given
        The argument.
    environment
        Variables to set for it.
    """
    command = [sys.executable, str(Path(__file__).with_name(program)), json.dumps(given)]
    told = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=True, env=os.environ | environment)
    return json.loads(told.stdout.splitlines()[-1])
