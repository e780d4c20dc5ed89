"""How time grows with the number of slices, with their size and with the number of labels."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from speed_cases import FEATURES, PROPAGATE
from speed_machine import interleaved
from speed_scans import cut_labels, enlarged, painted_where_largest

from napari_oneseg.checkpoint import Weights
from napari_oneseg.session import OneSegSession
from napari_oneseg.volume import Annotation, Volume

__all__ = ["FULL", "QUICK", "Plan", "measure_growth", "slope"]

Plan = dict[str, list[tuple[int, int, int]]]
"""What grows, and the slices, the pixels along a side and the labels of each scan."""

_LONG = 100  # slices

FULL: Plan = {
    "slices": [(count, 256, 4) for count in (36, 72, 144, 288, 600)],
    "size": [(36, side, 4) for side in (128, 192, 256, 384, 512)],
    "labels": [(36, 256, count) for count in (1, 2, 4, 8, 13)],
}
QUICK: Plan = {
    "slices": [(count, 256, 4) for count in (12, 24, 48, 96)],
    "size": [(12, side, 4) for side in (128, 256, 512)],
    "labels": [(12, 256, count) for count in (1, 4, 13)],
}


def measure_growth(
    plan: Plan, weights: Weights, device: torch.device, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """Time features and propagation on scans that grow in one way at a time.

    Parameters
    ----------
    plan
        The scans.
    rounds, seconds
        How often at most, all scans in turn; no further round begins after these seconds.

    Returns
    -------
    Of each scan what ``grows``, its ``slices``, ``size`` and ``labels``, and ``seconds`` by step.
    """
    rows: list[dict[str, Any]] = [
        {"grows": grows, "slices": count, "size": side, "labels": number, "seconds": {FEATURES: [], PROPAGATE: []}}
        for grows, sizes in plan.items()
        for count, side, number in sizes
    ]
    begun = time.perf_counter()
    for done in range(rounds):
        if done and time.perf_counter() - begun > seconds:
            break
        for row in rows:
            volume, labels = enlarged((row["slices"], row["size"], row["size"]))
            annotation = Annotation(painted_where_largest(cut_labels(labels, row["labels"])))
            session = OneSegSession(weights, str(device))
            works = {FEATURES: partial(_open, session, volume), PROPAGATE: partial(_propagate, session, annotation)}
            # What is long enough prepares itself in a small part of its time.
            warm_up = not done and row["slices"] <= _LONG
            for name, times in interleaved(works, 1, seconds, device, warm_up=warm_up).items():
                row["seconds"][name] += times
    return rows


def _open(session: OneSegSession, volume: Volume) -> None:
    session.set_volume(volume)
    session.suggest_slices(top=5)


def _propagate(session: OneSegSession, annotation: Annotation) -> None:
    session.set_annotation(annotation)
    session.propagate()


def slope(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Return the exponent with which time grows: the slope of the line through the logarithms of both.

    1 where time is in proportion to size, 2 where it grows with its square, 0 where it does not grow.
    """
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
