"""What the user waits for on one scan, and the memory that it takes; run by ``speed.py`` in a process of its own."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from speed_floor import Counter, Work, counting, features_work, reading_work
from speed_machine import Rates, Times, fresh, measure_rates, memory
from speed_scans import Scan, painted_where_largest, read

from napari_oneseg.checkpoint import Weights, load_weights
from napari_oneseg.device import choose_device
from napari_oneseg.features.cache import FeatureCache
from napari_oneseg.session import OneSegSession
from napari_oneseg.volume import Annotation, Volume

__all__ = [
    "ALL",
    "FEATURES",
    "ONE",
    "PROPAGATE",
    "REOPENED",
    "changed",
    "in_fresh_process",
    "measure_case",
    "median_rates",
]

FEATURES, PROPAGATE = "features and suggestion", "propagate all labels"
ONE, ALL, REOPENED = "one label corrected", "all labels corrected", "reopened"
_WARM_UP_SLICES = 4

Labels = NDArray[np.unsignedinteger]


def in_fresh_process(scan: Scan, device: str, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure a scan in a process of its own, so that its greatest memory is that of this scan alone."""
    given = {"image": str(scan.image), "labels": str(scan.labels)}
    record = fresh("speed_cases.py", given | {"device": device, "rounds": rounds, "seconds": seconds})
    return {"scan": scan.name} | record


def measure_case(
    volume: Volume, labels: Labels, weights: Weights, device: torch.device, rounds: int, seconds: float
) -> dict[str, Any]:
    """Time all that the user waits for, in turn, again and again.

    Parameters
    ----------
    volume, labels
        The scan; its labels in slice order. Each is painted on the slice of its largest area.
    rounds, seconds
        How often at most; no further round begins after these seconds.

    Returns
    -------
    ``seconds`` and ``work`` by what was done, the machine's ``rates`` in between, ``peak_mib`` without reopening,
    shape and number of labels.
    """
    times, works, rates = Times(device), dict[str, Work](), [measure_rates(device)]
    painted = painted_where_largest(labels)
    _warm_up(volume, painted, weights, device)
    begun = time.perf_counter()
    for number in range(rounds):
        if number and time.perf_counter() - begun > seconds:
            break
        works |= _round(volume, painted, weights, device, times, number == 0)
        rates.append(measure_rates(device))
    peak = memory()[1]
    with tempfile.TemporaryDirectory(prefix="oneseg-speed-") as folder:
        works[REOPENED] = _reopened(volume, weights, device, times, FeatureCache(Path(folder)), max(2, rounds))
    record = {
        "shape": list(volume.slices.shape),
        "labels": len(np.unique(labels)) - 1,
        "seconds": dict(times.seconds),
        "work": {name: asdict(work) for name, work in works.items()},
        "rates": [asdict(rate) for rate in rates],
        "peak_mib": peak,
    }
    if device.type == "cuda":
        record["gpu_peak_mib"] = torch.cuda.max_memory_allocated(device) / 1024**2
    return record


def _warm_up(volume: Volume, painted: Mapping[int, Labels], weights: Weights, device: torch.device) -> None:
    """Do everything once on a few slices: libraries prepare themselves for the size of the slices."""
    index = min(max(painted), volume.n_slices - _WARM_UP_SLICES)
    few = replace(volume, array=volume.from_slices(volume.slices[index : index + _WARM_UP_SLICES]))
    session = OneSegSession(weights, str(device))
    session.set_volume(few)
    session.annotate(max(painted) - index, painted[max(painted)])
    session.propagate()


def _round(
    volume: Volume, painted: Mapping[int, Labels], weights: Weights, device: torch.device, times: Times, count: bool
) -> dict[str, Work]:
    """Open, paint, propagate, correct; return the work that was counted, if it was to be."""
    works: dict[str, Work] = {}
    session = OneSegSession(weights, str(device))
    with times.of(FEATURES):
        session.set_volume(volume)
        session.suggest_slices(top=5)
    if count:
        works[FEATURES] = features_work(weights.network, volume, session.features)
    session.set_annotation(Annotation(painted))
    refinement = session.features.refinement
    refiner = None if refinement is None else refinement.network
    with counting(refiner) if count else nullcontext(Counter()) as done, times.of(PROPAGATE):
        session.propagate()
    works[PROPAGATE] = done.work(volume, volume.n_slices)
    before = session.state
    index, image = _to_correct(session, painted)
    for name, corrected in ((ONE, changed(image, all_labels=False)), (ALL, changed(image, all_labels=True))):
        with counting(refiner) if count else nullcontext(Counter()) as done, times.of(name):
            session.paint({index: corrected})
            renewed = len(session.stale)
            session.update()
        works[name] = done.work(volume, renewed)
        session.undo()
        session.undo()
        assert session.state is before
    return works if count else {}


def _to_correct(session: OneSegSession, painted: Mapping[int, Labels]) -> tuple[int, Labels]:
    """Return the propagated slice that shows most labels, of these the one in the middle, and its labels."""
    shown = {index: len(np.unique(image)) for index, image in enumerate(session.labels) if index not in painted}
    most = [index for index, count in shown.items() if count == max(shown.values())]
    index = most[len(most) // 2]
    return index, session.labels[index]


def changed(image: Labels, *, all_labels: bool) -> Labels:
    """Return a slice as a small correction leaves it: labels moved by a pixel, the largest one or all.

    Parameters
    ----------
    image
        Labels, (rows, columns), 0 = background; at least one is shown.
    """
    if all_labels:
        return np.roll(image, 1, axis=1)
    largest = int(np.bincount(image.ravel())[1:].argmax()) + 1
    moved = np.roll(image == largest, 1, axis=1)
    result = np.where(image == largest, 0, image).astype(image.dtype)
    result[moved & (result == 0)] = largest
    return result


def _reopened(
    volume: Volume, weights: Weights, device: torch.device, times: Times, cache: FeatureCache, rounds: int
) -> Work:
    """Open a scan whose features are on disk."""
    session = OneSegSession(weights, str(device), cache=cache)
    session.set_volume(volume)
    session.keep_features()
    work = reading_work(session.features)
    for _ in range(rounds):
        session = OneSegSession(weights, str(device), cache=cache)
        again = replace(volume)  # its content has to be hashed anew
        computed = AssertionError("the features were computed, not read")
        with mock.patch("napari_oneseg.scan_features.compute_features", side_effect=computed), times.of(REOPENED):
            session.set_volume(again)
            session.suggest_slices(top=5)
    return work


def main() -> None:
    """Measure the scan that the argument names, and print the record."""
    given = json.loads(sys.argv[1])
    volume, labels = read(given["image"], given["labels"])
    device = choose_device(given["device"])
    print(json.dumps(measure_case(volume, labels, load_weights(), device, given["rounds"], given["seconds"])))


def median_rates(rates: list[dict[str, float]]) -> Rates:
    """Return the medians of rates as they are kept in JSON."""
    return Rates(*(float(np.median([rate[name] for rate in rates])) for name in ("gflops", "gb_per_second")))


if __name__ == "__main__":
    main()
