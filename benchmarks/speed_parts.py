"""The parts that ``speed.py`` measures, in the order in which it does."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import speed_cases
import speed_memory
import torch
from speed_growth import FULL, QUICK, measure_growth
from speed_machine import measure_rates
from speed_scans import Scan, generated, real_scans
from speed_startup import measure_startup
from speed_whole import compare_scan

from napari_oneseg.checkpoint import load_weights
from napari_oneseg.device import describe_device

__all__ = ["PARTS", "Run", "measure"]

SMALL, MIDDLE, LARGE = (36, 256, 256), (120, 512, 512), (600, 512, 512)
LABELS = (1, 4, 13)


@dataclass(frozen=True)
class Run:
    """How much is measured.

    Attributes
    ----------
    quick
        Less of everything.
    data
        Where real scans lie; without it, only generated ones are measured.
    device
        Where to compute.
    rounds, seconds
        How often at most, and for how long a case is repeated; it is always measured once.
    """

    quick: bool
    data: Path
    device: torch.device
    rounds: int
    seconds: float


def measure_cases(run: Run) -> list[dict[str, Any]]:
    """Measure what the user waits for, one process for each scan and number of labels."""
    sizes = {SMALL: LABELS, MIDDLE: (4,)} if run.quick else dict.fromkeys((SMALL, MIDDLE, LARGE), LABELS)
    rows = []
    for shape, counts in sizes.items():
        with generated(shape, counts) as scans:
            rows += [_case(run, scan) for scan in scans]
    real = real_scans(run.data)
    return rows + [_case(run, scan) for scan in (real[:1] if run.quick else real)]


def _case(run: Run, scan: Scan) -> dict[str, Any]:
    return speed_cases.in_fresh_process(scan, str(run.device), run.rounds, run.seconds)


def measure_sides(run: Run) -> list[dict[str, Any]]:
    """Measure one small scan, generated and real, by each way."""
    weights, rows = load_weights(), []
    with generated(SMALL, (4,)) as scans:
        chosen = [*scans, *real_scans(run.data)[:1]]
        # Demons take their time: a short run has them on one scan only.
        for scan in chosen[-1:] if run.quick else chosen:
            rows.append(compare_scan(scan, weights, run.device, run.rounds, 2 * run.seconds))  # noqa: PERF401
    return rows


def measure_memory(run: Run) -> list[dict[str, Any]]:
    """Measure where the memory of the largest scan goes."""
    with generated(MIDDLE if run.quick else LARGE, (LABELS[-1],)) as (scan,):
        return [speed_memory.in_fresh_process(scan, str(run.device))]


def measure_growing(run: Run) -> list[dict[str, Any]]:
    """Measure growth."""
    return measure_growth(QUICK if run.quick else FULL, load_weights(), run.device, run.rounds, 4 * run.seconds)


PARTS: dict[str, Callable[[Run], Any]] = {
    "cases": measure_cases,
    "sides": measure_sides,
    "growth": measure_growing,
    "startup": lambda run: measure_startup(2 if run.quick else 7),
    "memory": measure_memory,
}


def measure(names: list[str], run: Run) -> Iterator[tuple[str, dict[str, Any]]]:
    """Measure parts, and yield the record of each."""
    for name in names:
        # Mostly what else the machine does; it is the mean of a minute.
        load = round(os.getloadavg()[0], 1)
        before = measure_rates(run.device)
        rows = PARTS[name](run)
        rates = [asdict(rate) for rate in (before, measure_rates(run.device))]
        rates += [rate for row in rows if "rates" in row for rate in row["rates"]]
        part = {"quick": run.quick, "device": describe_device(run.device), "load": load, "rates": rates}
        yield name, part | {"rows": rows}
