"""How training grows: several processes, loading, memory; ``make bench-training``.

``curve``   the loss curve of two processes against that of one, on real training scans
``loading`` where the time of a step goes, with and without the next batch being made meanwhile
``memory``  peak memory on a folder several times as large as what may be kept of it
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import torch
from data_sets import ROOT, data_folder
from rich.console import Console
from rich.table import Table
from scipy import ndimage

from napari_oneseg.config import (
    AnatomyConfig,
    FeatureConfig,
    PreprocessingConfig,
    ScreeningConfig,
    SelfLearningConfig,
    TrainingConfig,
)
from napari_oneseg.files import replacing
from napari_oneseg.io import write_image
from napari_oneseg.training import loop
from napari_oneseg.training.examples import ScanExamples
from napari_oneseg.training.loop import Source
from napari_oneseg.training.scans import Scans, find_scans
from napari_oneseg.training.self_learning import learn_from_scans, scan_loss
from napari_oneseg.training.sequences import generated_batch
from napari_oneseg.training.train import new_network
from napari_oneseg.volume import Volume

WINDOW = 20
"""Steps over which a loss curve is averaged before two are compared."""


# Two processes against one --------------------------------------------------------------------------------------------


LEARNING = {
    "supervoxels": "--objective supervoxels --batch 4 --sequence 3 --crop 64",
    "reconstruction": "--objective reconstruction --batch 2",
}


def curve(objective: str, steps: int) -> dict[str, Any]:
    """Train on all real training scans with one and with two processes of one thread each, and compare the losses."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        scans = folder / "scans"
        scans.mkdir()
        # Never dev: that is what accuracy is measured on.
        for name in ("chaos_mr_t2", "btcv_ct"):
            for image in sorted((data_folder() / name / "train" / "images").glob("*.nii.gz")):
                (scans / f"{name}-{image.name}").symlink_to(image)
        record: dict[str, Any] = {
            "scans": len(list(scans.iterdir())),
            "options": f"--from-scratch {LEARNING[objective]} --epochs 1 --epoch-steps {steps}",
        }
        for devices in (1, 2):
            output = folder / f"{devices}.safetensors"
            began = time.perf_counter()
            typed = f"{record['options']} --device cpu --threads 1 --devices {devices}".split()
            subprocess.run(
                [Path(sys.executable).with_name("oneseg"), "train", scans, "-o", output, *typed],
                check=True,
                stdout=subprocess.DEVNULL,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
            seconds = time.perf_counter() - began
            rows = csv.DictReader(output.with_suffix(".loss.csv").read_text().splitlines())
            losses = [round(float(row["loss"]), 6) for row in rows]
            record[f"{devices} process{'es' * (devices > 1)}"] = {"seconds": round(seconds, 1), "losses": losses}
    one, two = (smoothed(record[name]["losses"]) for name in ("1 process", "2 processes"))
    record["window"] = WINDOW
    record["greatest relative difference"] = float(np.abs(two / one - 1).max())
    record["mean relative difference"] = float(np.abs(two / one - 1).mean())
    return record


def smoothed(losses: list[float]) -> np.ndarray:
    """Return the running mean of a loss curve."""
    return np.convolve(losses, np.full(WINDOW, 1 / WINDOW), "valid")


def show_curve(record: dict[str, Any]) -> Table:
    """Return a table of the loss at some steps, by number of processes."""
    table = Table("steps", "1 process", "2 processes", "difference", title="Mean loss of 20 steps")
    one, two = (smoothed(record[name]["losses"]) for name in ("1 process", "2 processes"))
    for k in np.linspace(0, len(one) - 1, 6).round().astype(int):
        table.add_row(f"{k}-{k + WINDOW - 1}", f"{one[k]:.5f}", f"{two[k]:.5f}", f"{two[k] / one[k] - 1:+.3%}")
    table.add_row("seconds", *(f"{record[name]['seconds']:.0f}" for name in ("1 process", "2 processes")), "")
    table.add_row("greatest", "", "", f"{record['greatest relative difference']:.3%}")
    return table


def plot_curve(record: dict[str, Any], path: Path) -> None:
    """Draw both loss curves into a PNG file."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    for name, style in (("1 process", "-"), ("2 processes", "--")):
        values = smoothed(record[name]["losses"])
        axes.plot(np.arange(len(values)) + WINDOW, values, style, label=name)
    axes.set(xlabel="step", ylabel=f"loss, mean of {WINDOW} steps")
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


# Where the time of a step goes ----------------------------------------------------------------------------------------


class NotAhead:
    """In place of the pool that makes the next batch meanwhile: a batch is made when it is needed."""

    def __init__(self, _threads: int) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, make: Callable[..., Any], *arguments: Any) -> SimpleNamespace:
        """Return what stands for a batch."""
        return SimpleNamespace(result=partial(make, *arguments))


def loading(steps: int) -> dict[str, Any]:
    """Measure how long batches take to be made, and how long the network waits for them."""
    torch.set_num_threads(1)
    torch.optim.Adam(new_network(None, 0).parameters())  # the first one takes a second, whatever comes after it
    features, sequences = FeatureConfig(), TrainingConfig()
    paths = [
        path
        for name in ("chaos_mr_t2", "btcv_ct")
        for path in sorted((data_folder() / name / "train" / "images").glob("*.nii.gz"))[:2]
    ]
    began = time.process_time()
    scans = Scans(paths, features, PreprocessingConfig())
    reading = (time.process_time() - began) / len(scans)
    generated = Source(
        lambda generator, _step, _plan: generated_batch(generator, features.stride, sequences, AnatomyConfig())
    )
    record: dict[str, Any] = {"steps": steps, "threads": 1, "reading a scan": round(reading, 3)}
    for kind in ("generated anatomy", "reconstruction", "supervoxels"):
        for ahead in (False, True):
            source, loss = generated, scan_loss(SelfLearningConfig(), 13)
            if kind != "generated anatomy":
                learning = SelfLearningConfig(objective=kind, epoch_steps=steps)
                examples = ScanExamples(scans, learning, sequences, ScreeningConfig())
                source = Source(examples.batch, examples.plan)
            loop.ThreadPoolExecutor = ThreadPoolExecutor if ahead else NotAhead
            record.setdefault(kind, {})["ahead" if ahead else "when needed"] = timed(source, loss, steps)
    loop.ThreadPoolExecutor = ThreadPoolExecutor
    return record


def timed(source: Source[Any, Any], loss: Callable[..., torch.Tensor], steps: int) -> dict[str, float]:
    """Train for some steps, and return the mean seconds of a step's parts."""
    spent = {"making": 0.0, "planning": 0.0, "computing": 0.0, "all": 0.0}

    def measured(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            began = time.perf_counter()
            result = work(*arguments)
            spent[name] += time.perf_counter() - began
            return result

        return run

    began: list[float] = []

    def begin(*arguments: Any) -> torch.Tensor:
        began.append(time.perf_counter())
        return loss(*arguments)

    def end(_step: int, _loss: float) -> None:
        spent["computing"] += time.perf_counter() - began[-1]

    source = Source(measured("making", source.batch), source.plan and measured("planning", source.plan))
    config = loop.LoopConfig(1e-4, lambda _: 1.0, steps=steps)
    clock = time.perf_counter()
    loop.run_training(new_network(None, 0), source, begin, config, on_loss=end)
    spent["all"] = time.perf_counter() - clock
    spent["waiting"] = spent["all"] - spent["planning"] - spent["computing"]
    share = spent["waiting"] / spent["all"]
    return {**{name: round(seconds / steps, 4) for name, seconds in spent.items()}, "share waited": round(share, 4)}


def show_loading(record: dict[str, Any]) -> Table:
    """Return a table of the seconds of a step."""
    table = Table(
        "batches from", "made", "making", "computing", "planning", "waiting", "waited", title="Seconds a step"
    )
    for kind, ways in record.items():
        for way, spent in ways.items() if isinstance(ways, dict) else ():
            parts = (f"{spent[name]:.3f}" for name in ("making", "computing", "planning", "waiting"))
            table.add_row(kind, way, *parts, f"{spent['share waited']:.1%}")
    return table


# Memory ---------------------------------------------------------------------------------------------------------------


SMALL_NETWORK = FeatureConfig(gabor_wavelengths=(4.0,), gabor_orientations=2, width_factor=0.125, channels=16)


def memory(scans: int = 40, slices: int = 32) -> dict[str, Any]:
    """Train on a folder of which a fifth, the scans in use, may be kept in memory, and with all of it in memory."""
    size = slices * 256 * 256 * 2
    record: dict[str, Any] = {"scans": scans, "bytes of all on the working grid": scans * size}
    with tempfile.TemporaryDirectory() as folder:
        random = np.random.default_rng(0)
        for number in range(scans):
            coarse = random.normal(0, 200, (slices // 4, 32, 32))
            grey = ndimage.zoom(coarse, (4, 8, 8), order=1) + random.normal(0, 20, (slices, 256, 256))
            volume = Volume(grey.astype(np.int16), (3.0, 1.0, 1.0))
            write_image(Path(folder) / f"{number:03}.nii", volume.array, volume)
        for name, limit in (("all kept", 2 * scans * size), ("a fifth kept", scans * size // 5)):
            command = [sys.executable, __file__, "one-memory", "--folder", folder, "--limit", str(limit)]
            done = subprocess.run(command, check=True, capture_output=True, encoding="utf-8")
            record[name] = {"limit": limit, **json.loads(done.stdout)}
    record["same weights"] = record["all kept"]["weights"] == record["a fifth kept"]["weights"]
    return record


def one_memory(folder: Path, limit: int) -> None:
    """Train on a folder in this process, and print its peak memory and a hash of the weights."""
    torch.set_num_threads(1)
    before = peak()
    config = SelfLearningConfig(screening=False, epochs=2, epoch_steps=5, batch=1)
    scans = Scans(find_scans(folder), SMALL_NETWORK, PreprocessingConfig(), memory=limit)
    result = learn_from_scans(scans, config, SMALL_NETWORK)
    digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in result.network.state_dict().values()))
    print(json.dumps({"before": before, "peak": peak(), "weights": digest.hexdigest()}))


def peak() -> int:
    """Return the most bytes that this process ever had in memory."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # What getrusage gives begins, on Linux, with what the parent process held.
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024


def show_memory(record: dict[str, Any]) -> Table:
    """Return a table of the peak memory."""
    table = Table("scans", "may be kept", "peak memory", "of that, training", title="Memory, MB")
    for name in ("all kept", "a fifth kept"):
        run = record[name]
        table.add_row(
            name, *(f"{value / 1e6:.0f}" for value in (run["limit"], run["peak"], run["peak"] - run["before"]))
        )
    table.add_row("same weights", str(record["same weights"]))
    return table


def main() -> None:
    """Measure, print tables, and write the numbers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["curve", "loading", "memory"])
    parser.add_argument("--objective", choices=LEARNING, default="supervoxels", help="of the loss curves")
    parser.add_argument("--steps", type=int, default=300, help="of the loss curves")
    parser.add_argument("--loading-steps", type=int, default=24)
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "training.json")
    parser.add_argument("--plot", type=Path, help="PNG file for the loss curves")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--limit", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.parts == ["one-memory"]:
        one_memory(arguments.folder, arguments.limit)
        return
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "curve": lambda: curve(arguments.objective, arguments.steps),
        "loading": lambda: loading(arguments.loading_steps),
        "memory": memory,
    }
    shows = {"curve": show_curve, "loading": show_loading, "memory": show_memory}
    for part in arguments.parts:
        record = json.loads(arguments.json.read_text(encoding="utf-8")) if arguments.json.exists() else {}
        record[part] = measures[part]()
        with replacing(arguments.json) as file:
            file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        Console(width=120).print(shows[part](record[part]))
        if part == "curve" and arguments.plot is not None:
            plot_curve(record[part], arguments.plot)


if __name__ == "__main__":
    main()
