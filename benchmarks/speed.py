"""How long each step takes on this machine: ``make bench-speed``.

Every step is repeated and the median is given, together with the machine's rate in a large matrix product, because
times of different machines compare only through it.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from napari_oneseg.config import PreprocessingConfig
from napari_oneseg.device import describe_device
from napari_oneseg.phantom import phantom
from napari_oneseg.session import OneSegSession
from napari_oneseg.volume import Annotation, Volume


def median_seconds(work: Callable[[], Any], repeats: int) -> float:
    """Return the median time of some work, after one run that does not count."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def gflops() -> float:
    """Return the rate of a large single-precision matrix product on the CPU, in 10^9 operations per second."""
    side = 2048
    a = torch.randn(side, side)
    return 2 * side**3 / median_seconds(lambda: a @ a, 9) / 1e9


def measure(volume: Volume, reference: np.ndarray, device: str, repeats: int) -> dict[str, float]:
    """Time the session's steps on one scan; each label is painted on the slice of its largest area."""
    session = OneSegSession(device=device)
    slices = volume.to_slices(reference)
    painted: dict[int, np.ndarray] = {}
    for label in np.unique(slices)[1:]:
        index = int((slices == label).sum((1, 2)).argmax())
        image = painted.setdefault(index, np.zeros(slices.shape[1:], slices.dtype))
        image[slices[index] == label] = label
    correction = min(len(slices) - 2, max(painted) + 3)

    def features_and_suggestion() -> None:
        session.set_volume(volume)
        session.suggest_slices(top=5)

    def correct_and_update() -> None:
        session.correct(correction, slices[correction])
        session.update()
        session.undo()
        session.undo()

    seconds = {"features and suggestion": median_seconds(features_and_suggestion, repeats)}
    session.set_annotation(Annotation(painted))
    seconds["propagate all labels"] = median_seconds(session.propagate, repeats)
    seconds["one correction, update"] = median_seconds(correct_and_update, repeats)
    return seconds


def scans(data: Path | None) -> dict[str, tuple[Volume, np.ndarray]]:
    """Return the scans to measure on: the phantom, and the first of each set that is there."""
    sample = phantom()
    found = {"phantom": (sample.volume, sample.labels)}
    if data is not None and data.is_dir():
        from napari_oneseg.io import read_labels, read_volume

        for name in ("chaos_mr_t2", "btcv_ct", "ircadb_ct"):
            image = next(iter(sorted((data / name / "dev" / "images").glob("*.nii.gz"))), None)
            if image is not None:
                volume = read_volume(image)
                found[name] = volume, read_labels(image.parents[1] / "labels" / image.name, volume)
    return found


def main() -> None:
    """Measure, print a table, and write the numbers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("json", nargs="?", type=Path, help="file to write the numbers to")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()

    rate = gflops()
    device = describe_device(OneSegSession(device=arguments.device).device)
    table = Table(
        "scan", "slices", "labels", "features and suggestion", "propagate all labels", "one correction, update"
    )
    rows = []
    for name, (volume, reference) in scans(arguments.data).items():
        seconds = measure(volume, reference, arguments.device, arguments.repeats)
        rows.append({"scan": name, "shape": volume.slices.shape, "labels": int(reference.max()), "seconds": seconds})
        size = " x ".join(map(str, volume.slices.shape))
        table.add_row(name, size, str(reference.max()), *(f"{value:.2f} s" for value in seconds.values()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 / (1024 if sys.platform == "darwin" else 1)
    Console(width=120).print(table)
    Console(width=120).print(f"{device}, {rate:.0f} GFLOP/s in a matrix product, peak memory {peak / 1024:.1f} GiB")
    if arguments.json is not None:
        record = {
            "device": device,
            "gflops": rate,
            "working_size": PreprocessingConfig().working_size,
            "peak_mib": peak,
            "runs": rows,
        }
        arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
