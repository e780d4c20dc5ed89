"""How much faster two workers are than one on a study of real scans: ``make bench-batch``.

The 18 training scans (8 CT, 10 MR) become a study. ``oneseg batch suggest`` looks at all of them; on each, the
suggested slice is painted from its reference (the slice with most labels where that shows none); and ``oneseg batch
propagate`` carries the labels through. That is done with one worker and with two, one thread each, in turns and in
alternating order, each time with an empty cache of features; what comes out must be the same to the last bit.

Wall times tell the truth on a computer that does nothing else. On one that is shared, a second worker has to wait for
its core. So the CPU time of every process is measured as well: what the command itself and its busiest worker have used
together is the time that it would take on free cores, if nothing waits for the disk. Both ratios are given, with the
load while they were measured.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from data_sets import ROOT, cases_of
from rich.console import Console
from rich.table import Table

from napari_oneseg.evaluation.cases import CaseFiles
from napari_oneseg.io import read_labels, read_volume, write_labels
from napari_oneseg.study import open_study

SETS = ("btcv_ct", "chaos_mr_t2")
STAGES = ("suggest", "propagate")
WANTED = 1.7
"""How much faster two workers must be."""
_SAMPLE_SECONDS = 0.25


def make_study(folder: Path, cases: Sequence[CaseFiles], annotations: Path) -> Path:
    """Write the table of a study whose scans lie where they are."""
    folder.mkdir()
    table = folder / "study.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["scan", "annotation", "name"])
        rows.writerows([case.image.resolve(), annotations / f"{case.name}.nii.gz", case.name] for case in cases)
    return table


def paint(case: CaseFiles, suggested: Sequence[int], path: Path) -> int:
    """Paint one slice from the reference: the best suggestion, or the one with most labels; return which."""
    volume = read_volume(case.image)
    labels = volume.to_slices(read_labels(case.labels, volume))
    index = int(suggested[0])
    if not labels[index].any():
        index = int(np.count_nonzero(labels, axis=(1, 2)).argmax())
    painted = np.zeros_like(labels)
    painted[index] = labels[index]
    write_labels(path, volume.from_slices(painted), volume)
    return index


class CpuClock(threading.Thread):
    """Samples the CPU time of a process and of those that it starts."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process(process.pid)
        self._ended = threading.Event()
        self.seconds: dict[int, float] = {}
        self.start()

    def run(self) -> None:
        """Take samples until :meth:`stop`."""
        while not self._ended.wait(_SAMPLE_SECONDS):
            try:
                for one in (self._process, *self._process.children(recursive=True)):
                    times = one.cpu_times()
                    self.seconds[one.pid] = times.user + times.system
            except psutil.Error:  # one has just ended; the next sample is in time
                continue

    def stop(self) -> list[float]:
        """Return the seconds of the process itself, then of those that it has started, the busiest first."""
        self._ended.set()
        self.join()
        own = self.seconds.pop(self._process.pid, 0.0)
        return [round(own, 2), *sorted((round(used, 2) for used in self.seconds.values()), reverse=True)]


def run_stage(stage: str, table: Path, workers: int, cache: Path) -> tuple[float, list[float]]:
    """Run a stage as a user would; return wall seconds, and CPU seconds of the command and of its workers."""
    command = [Path(sys.executable).with_name("oneseg"), "batch", stage, table, "--workers", workers]
    command += ["--threads", 1, "--device", "cpu", "--json"]
    environment = os.environ | {"ONESEG_CACHE": str(cache)}
    began = time.perf_counter()
    with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, env=environment) as process:
        clock = CpuClock(process)
        output, _ = process.communicate()
        wall = time.perf_counter() - began
        cpu = clock.stop()
    if process.returncode:
        sys.exit(f"oneseg batch {stage} ended with code {process.returncode}: {output.decode()}")
    states = {scan["status"] for scan in json.loads(output)["scans"]}
    assert states == {"made"}, f"something was there already: {states}"
    return wall, cpu


def outcome_of(table: Path) -> dict[str, str]:
    """Return a hash over the labels and the suggestions of each scan."""
    study = open_study(table)
    return {
        scan.name: hashlib.sha256(
            (study.results / f"{scan.name}_labels.nii.gz").read_bytes() + repr(scan.suggested).encode()
        ).hexdigest()
        for scan in study.scans
    }


def measure(cases: Sequence[CaseFiles], repeats: int, scratch: Path) -> list[dict[str, Any]]:
    """Run the study with one and with two workers, alternating which comes first."""
    annotations = scratch / "annotations"
    annotations.mkdir()
    first = make_study(scratch / "first", cases, annotations)
    run_stage("suggest", first, 2, scratch / "cache-first")
    for scan, case in zip(open_study(first).scans, cases, strict=True):
        paint(case, scan.suggested, annotations / f"{case.name}.nii.gz")
    runs = []
    for repeat in range(repeats):
        for workers in (1, 2) if repeat % 2 == 0 else (2, 1):
            name = f"run-{repeat}-{workers}"
            table, cache = make_study(scratch / name, cases, annotations), scratch / f"cache-{name}"
            before = os.getloadavg()[0]
            seconds = {stage: run_stage(stage, table, workers, cache) for stage in STAGES}
            runs.append(
                {
                    "repeat": repeat,
                    "workers": workers,
                    "wall": {stage: round(seconds[stage][0], 2) for stage in STAGES},
                    "free": {stage: round(sum(seconds[stage][1][:2]), 2) for stage in STAGES},
                    "cpu": {stage: seconds[stage][1] for stage in STAGES},
                    "load": [round(before, 2), round(os.getloadavg()[0], 2)],
                    "outcome": outcome_of(table),
                }
            )
            print(f"{workers} worker(s): {runs[-1]['wall']} s, on free cores {runs[-1]['free']} s", flush=True)
    return runs


def ratios(runs: Sequence[Mapping[str, Any]], clock: str) -> dict[str, float]:
    """Return how much faster two workers are: medians over the runs, per stage and for both together."""

    def median(workers: int, stages: Sequence[str]) -> float:
        chosen = [run[clock] for run in runs if run["workers"] == workers]
        return statistics.median(sum(seconds[stage] for stage in stages) for seconds in chosen)

    parts = {**{stage: (stage,) for stage in STAGES}, "both": STAGES}
    return {name: round(median(1, stages) / median(2, stages), 3) for name, stages in parts.items()}


def report(record: Mapping[str, Any]) -> None:
    """Print all runs and the ratios."""
    table = Table("workers", "suggest s", "propagate s", "on free cores s", "load before, after")
    for run in record["runs"]:
        free = " + ".join(f"{run['free'][stage]:.1f}" for stage in STAGES)
        walls = (f"{run['wall'][stage]:.1f}" for stage in STAGES)
        table.add_row(str(run["workers"]), *walls, free, ", ".join(map(str, run["load"])))
    console = Console(width=120)
    console.print(table)
    same = "the same to the last bit" if record["identical"] else "NOT the same"
    console.print(f"{len(record['scans'])} scans, {record['cores']} cores. Results of all runs: {same}.")
    for clock, meaning in (("wall", "wall time"), ("free", "free cores")):
        parts = ", ".join(f"{name} {value:.2f}" for name, value in record["ratio"][clock].items())
        console.print(f"Two workers are faster by ({meaning}): {parts}. Wanted: {WANTED}.")


def main() -> None:
    """Measure, print a table, and write the numbers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", nargs="?", type=Path, default=ROOT / "benchmarks" / "results" / "batch.json")
    parser.add_argument("--repeats", type=int, default=2, help="runs with each number of workers")
    parser.add_argument("--first", type=int, help="only the first scans of each data set")
    arguments = parser.parse_args()
    cases = [case for name in SETS for case in cases_of(name, "train")[: arguments.first]]
    with tempfile.TemporaryDirectory(prefix="oneseg-bench-") as scratch:
        runs = measure(cases, arguments.repeats, Path(scratch))
    outcomes = [run.pop("outcome") for run in runs]
    record = {
        "scans": [case.name for case in cases],
        "cores": os.cpu_count(),
        "identical": all(outcome == outcomes[0] for outcome in outcomes),
        "ratio": {clock: ratios(runs, clock) for clock in ("wall", "free")},
        "runs": runs,
    }
    arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    report(record)
    if not record["identical"]:
        sys.exit("The results depend on the number of workers.")


if __name__ == "__main__":
    main()
