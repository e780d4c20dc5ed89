"""Where the memory goes while a large scan is labelled, from opening to export; run in a process of its own.

What torch holds is not Python's, so it is the memory of the process that is read: after each stage, and the most
during it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from speed_machine import fresh, memory, restart_peak
from speed_scans import Scan, read

__all__ = ["fullest", "in_fresh_process", "measure_memory"]


def in_fresh_process(scan: Scan, device: str) -> dict[str, Any]:
    """Measure a scan in a process of its own."""
    volume, labels = read(scan.image, scan.labels)
    index = fullest(labels)
    record = {"scan": scan.name, "shape": list(labels.shape), "labels": len(np.unique(labels[index])) - 1}
    painted = scan.labels.with_suffix(".npy")
    np.save(painted, labels[index])
    del volume, labels
    given = {"image": str(scan.image), "painted": str(painted), "index": index, "device": device}
    return record | fresh("speed_memory.py", given)


def fullest(labels: NDArray[np.unsignedinteger]) -> int:
    """Return the slice that shows most labels, of these the one with most of them."""
    shown = [(len(np.unique(image)), int(np.count_nonzero(image))) for image in labels]
    return max(range(len(shown)), key=shown.__getitem__)


def measure_memory(
    image: Path, index: int, painted: NDArray[np.unsignedinteger], device: str, weights: str | None = None
) -> dict[str, Any]:
    """Label a scan as a user does, and read the memory after each stage.

    Parameters
    ----------
    image
        The scan's file; the labels are written beside it.
    index, painted
        The slice that is painted, and its labels.
    device, weights
        As for :class:`~napari_oneseg.session.OneSegSession`.

    Returns
    -------
    ``stages``: of each its name, seconds, the memory afterwards and the most during it, in MiB; ``peak_mib`` of all;
    ``exact``: whether the system tells the most of each stage, or only the most until then.
    """
    stages: list[dict[str, Any]] = []
    exact = restart_peak()

    def stage(name: str, work: Callable[[], Any]) -> Any:
        restart_peak()
        start = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - start
        now, most = memory()
        stages.append({"stage": name, "seconds": seconds, "mib": now, "peak_mib": most})
        return result

    def start() -> Any:
        from napari_oneseg.io import read_volume, write_labels
        from napari_oneseg.session import OneSegSession

        return read_volume, write_labels, OneSegSession(weights, device)

    read_volume, write_labels, session = stage("start", start)
    volume = stage("read the scan", lambda: read_volume(image))
    stage("features", lambda: session.set_volume(volume))
    stage("suggestion", lambda: session.suggest_slices(top=5))
    stage("paint one slice", lambda: session.paint({index: painted}))
    result = stage("propagate both ways", session.propagate)
    shown = [k for k, image in enumerate(result.labels) if image.any()]
    to_correct = shown[len(shown) // 4]
    corrected = np.roll(result.labels[to_correct], 1, axis=1)
    del result
    stage("correct one slice", lambda: session.paint({to_correct: corrected}, corrected=[to_correct]))
    result = stage("update", session.update)
    exported = image.with_name("exported.nii.gz")
    stage("export", lambda: write_labels(exported, volume.from_slices(result.labels), volume))
    return {"stages": stages, "peak_mib": max(entry["peak_mib"] for entry in stages), "exact": exact}


def main() -> None:
    """Measure the scan that the argument names, and print the record."""
    given = json.loads(sys.argv[1])
    painted = np.load(given["painted"])
    print(json.dumps(measure_memory(Path(given["image"]), given["index"], painted, given["device"])))


if __name__ == "__main__":
    main()
