"""What 1, 1,000 and 1,000,000 scans cost, and what would break first: ``make growth``.

Reads what the other benchmarks have measured (``results/speed.json``, ``results/training.json``), and what it measures
itself with ``--measure`` (``results/growth.json``): sizes of files, the file of a study, the arithmetic of the network.
What rests on an assumption instead of a measurement is marked ``~`` in the table, and named below it.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_oneseg.files import replacing

RESULTS = Path(__file__).parent / "results"
NUMBERS = (1, 1_000, 1_000_000)
TYPICAL = "ircadb_ct"
"""A CT as it comes from the scanner: 512 x 512 pixels, about a hundred slices."""

# Assumptions, all of which stand below the table.
GPU_GFLOPS = 20_000.0
COMPRESSION = 2.0
TASK_SECONDS = 0.001
PAINTING_SECONDS = 180.0
LINE_BYTES_PER_SECOND = 1.25e9
CORES = 1_000


# Measuring ------------------------------------------------------------------------------------------------------------


def measure() -> dict[str, Any]:
    """Measure what the other benchmarks do not."""
    return {"files": file_sizes(), "study file": study_times((1_000, 10_000)), "operations": operations()}


def file_sizes() -> dict[str, float]:
    """Return bytes of what is kept of the built-in phantom, painted on one slice and carried through."""
    import numpy as np

    from napari_oneseg.features.cache import FeatureCache
    from napari_oneseg.io import write_labels
    from napari_oneseg.phantom import phantom
    from napari_oneseg.session import OneSegSession
    from napari_oneseg.volume import Annotation

    sample = phantom()
    slices = sample.volume.to_slices(sample.labels)
    index = int((slices > 0).sum((1, 2)).argmax())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        session = OneSegSession(device="cpu", cache=FeatureCache(folder / "cache"))
        session.set_volume(sample.volume)
        session.keep_features()
        session.set_annotation(Annotation({index: np.asarray(slices[index])}))
        session.propagate()
        session.save(folder / "phantom.oneseg")
        write_labels(folder / "labels.nii.gz", sample.labels, sample.volume)
        features = sum(path.stat().st_size for path in (folder / "cache").rglob("*.safetensors"))
        return {
            "shape": slices.shape,
            "features": features,
            "session": (folder / "phantom.oneseg").stat().st_size,
            "labels": (folder / "labels.nii.gz").stat().st_size,
        }


def study_times(numbers: tuple[int, ...]) -> dict[str, dict[str, float]]:
    """Return size of a study's file, and processor seconds of one change of it, by number of scans."""
    from napari_oneseg.study_file import StudyFile

    found = {}
    with tempfile.TemporaryDirectory() as name:
        for number in numbers:
            file = StudyFile(Path(name) / f"{number}.json")
            entry = {
                "status": "done",
                "seconds": 123.456,
                "slices_painted": 2,
                "volumes_ml": {str(label): 123.456789 for label in range(1, 7)},
                "mean_confidence": 0.8765,
                "suggested": [60, 61, 72, 83, 94],
                "suggested_from": 64 * "0",
            }
            with file.changing() as entries:
                entries.update({f"patient-{k:07}": dict(entry) for k in range(number)})
            began = time.process_time()
            with file.changing() as entries:
                entries["patient-0000000"]["seconds"] = 124.0
            found[str(number)] = {"seconds": time.process_time() - began, "bytes": file.path.stat().st_size}
    return found


def operations() -> dict[str, float]:
    """Return the operations of the network on one slice; a multiply-add is two."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from napari_oneseg.features.resnet import FeatureNetwork

    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        FeatureNetwork().eval()(torch.zeros(1, 1, 256, 256))
    return {"features of a slice": float(counter.get_total_flops())}


# Reckoning ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """What one scan costs.

    Attributes
    ----------
    features, propagation
        Core-seconds: seconds times threads, which is an upper limit.
    gpu_seconds
        Estimate for both.
    scan_bytes, feature_bytes, session_bytes, label_bytes
        Sizes of files.
    study
        Seconds of one change of the study's file, and its bytes, per scan that it holds.
    """

    features: float
    propagation: float
    gpu_seconds: float
    scan_bytes: float
    feature_bytes: float
    session_bytes: float
    label_bytes: float
    study: tuple[float, float]


def read_measured(speed: dict[str, Any], own: dict[str, Any]) -> Measured:
    """Put together what was measured on one typical scan."""
    run = next(run for run in speed["runs"] if run["scan"] == TYPICAL)
    slices, rows, columns = run["shape"]
    voxels = slices * rows * columns
    threads = int((re.search(r"\((\d+) threads", speed["device"]) or [0, 1])[1])
    features, propagation = (run["seconds"][name] for name in ("features and suggestion", "propagate all labels"))
    # A GPU is assumed to stay as far from its best rate as the CPU did, in the features and in the propagation alike.
    done = slices * own["operations"]["features of a slice"]
    far = features * speed["gflops"] * 1e9 / done
    gpu = (features + propagation) / features * far * done / (GPU_GFLOPS * 1e9)
    size, (few, height, width) = own["files"], own["files"]["shape"]
    larger = voxels / (few * height * width)
    # Features lie on a working grid whose longer side is always the same.
    features_each = size["features"] / few * max(height, width) ** 2 / (height * width)
    number = max(own["study file"], key=int)
    most = own["study file"][number]
    return Measured(
        features * threads,
        propagation * threads,
        gpu,
        2 * voxels / COMPRESSION,
        features_each * slices * rows * columns / max(rows, columns) ** 2,
        size["session"] * larger,
        size["labels"] * larger,
        (most["seconds"] / int(number), most["bytes"] / int(number)),
    )


def rows(one: Measured, training: dict[str, Any] | None) -> list[tuple[str, Callable[[int], str]]]:
    """Return the rows of the table: a name, and from a number of scans to a text."""
    core_seconds = one.features * 2 + one.propagation  # suggest, and later propagate: features twice without a cache
    kept = one.features + one.propagation
    found: list[tuple[str, Callable[[int], str]]] = [
        ("**computing** on CPUs, features computed twice", lambda n: f"{hours(n * core_seconds)} of a core"),
        ("the same, features kept in between", lambda n: f"{hours(n * kept)} of a core"),
        (f"the same on {CORES:,} cores", lambda n: hours(max(kept, n * kept / CORES))),
        ("~ computing on GPUs, features kept", lambda n: f"{hours(n * one.gpu_seconds)} of a GPU"),
        ("**storage**: scans", lambda n: bytes_(n * one.scan_bytes)),
        ("features, if all are kept", lambda n: bytes_(n * one.feature_bytes)),
        ("sessions", lambda n: bytes_(n * one.session_bytes)),
        ("labels", lambda n: bytes_(n * one.label_bytes)),
        ("**network**: scans read by two stages, labels written", lambda n: bytes_(n * moved(one, kept_on_disk=False))),
        ("the same with features written and read once", lambda n: bytes_(n * moved(one, kept_on_disk=True))),
        (
            "~ that over one line of 10 Gbit/s",
            lambda n: hours(n * moved(one, kept_on_disk=True) / LINE_BYTES_PER_SECOND),
        ),
        ("**study file**: size", lambda n: bytes_(n * one.study[1])),
        ("one change of it", lambda n: seconds_(n * one.study[0])),
        ("all changes, if each scan makes one of its own", lambda n: hours(n * n * one.study[0])),
        ("~ **scheduler**: handing out two tasks a scan", lambda n: hours(n * 2 * TASK_SECONDS)),
        ("~ **people**: painting one slice of each", lambda n: hours(n * PAINTING_SECONDS)),
    ]
    if training is not None and "loading" in training:
        reading = training["loading"]["reading a scan"]
        found.append(
            ("**training**: each scan read once before it begins", lambda n: f"{hours(n * reading)} of a core")
        )
    return found


def moved(one: Measured, *, kept_on_disk: bool) -> float:
    """Return the bytes that go over the network for one scan."""
    return 2 * one.scan_bytes + one.label_bytes + (2 * one.feature_bytes if kept_on_disk else 0.0)


def hours(seconds: float) -> str:
    """Return a long time in the unit that suits it."""
    if seconds < 3600:
        return seconds_(seconds)
    days = seconds / 3600 / 24
    if days < 365:
        return f"{seconds / 3600:,.0f} h" if days < 40 else f"{days:,.0f} days"
    return f"{days / 365.25:,.1f} years"


def seconds_(seconds: float) -> str:
    """Return a short time."""
    if seconds < 1:
        return f"{1000 * seconds:.1f} ms" if seconds < 0.01 else f"{1000 * seconds:.0f} ms"
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def bytes_(number: float) -> str:
    """Return a size in the unit that suits it."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} PB"


def table(one: Measured, training: dict[str, Any] | None) -> str:
    """Return the table in Markdown."""
    lines = ["| | " + " | ".join(f"{number:,} scan{'s' * (number > 1)}" for number in NUMBERS) + " |"]
    lines.append("|---|" + "---|" * len(NUMBERS))
    lines += [
        f"| {name} | " + " | ".join(text(number) for number in NUMBERS) + " |" for name, text in rows(one, training)
    ]
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="measure anew what growth.json holds")
    parser.add_argument("--page", type=Path, help="Markdown page to renew, between its two marks")
    arguments = parser.parse_args()
    own = RESULTS / "growth.json"
    if arguments.measure:
        with replacing(own) as file:
            file.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
    records = {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in (own, RESULTS / "speed.json", RESULTS / "training.json")
        if path.exists()
    }
    text = table(read_measured(records["speed"], records["growth"]), records.get("training"))
    print(text)
    if arguments.page is not None:
        before, mark, rest = arguments.page.read_text(encoding="utf-8").partition("<!-- growth: begin -->\n")
        _, end, after = rest.partition("<!-- growth: end -->")
        arguments.page.write_text(f"{before}{mark}\n{text}\n\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
